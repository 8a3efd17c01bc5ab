//! What tells two steps and all that is behind them apart, field by field; and
//! whether that is what a comparison says it is (`differs-only`).
//!
//! Both chains are walked side by side from their ends. Where they meet in one
//! step the walk ends, since all behind it is the same; where an input comes from
//! another kind of step it ends too, since that input is the difference.

use crate::{
    base::{
        diag::{Diagnostic, Diagnostics},
        node::Origin,
        text,
    },
    manifest::{Arm, Compare, Findings},
    plan::{Input, Plan, identity, place_of},
};
use std::collections::{BTreeSet, VecDeque};

/// A field in which two steps differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// The two steps that have the field.
    pub steps: (usize, usize),
    /// The kind of both, or of the first.
    pub kind: String,
    /// The field, such as `steps` or `data.0`.
    pub field: String,
    /// Its values, as text; none where one step has no such field.
    pub values: (Option<String>, Option<String>),
}

impl Contrast {
    /// Whether `name` covers it: `data`, `train.data` or `train.data.0`, for `train`'s `data.0`.
    pub fn is_covered_by(&self, name: &str) -> bool {
        let starts = |whole: &str| {
            whole.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        starts(&self.field) || starts(&format!("{}.{}", self.kind, self.field))
    }

    fn phrase(&self) -> String {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        let (a, b) = (value(&self.values.0), value(&self.values.1));
        format!("`{}.{}` ({a} and {b})", self.kind, self.field)
    }
}

/// The fields in which `a` and `b` and what is behind them differ, nearest
/// first. The walk ends where an input is made by another kind of step, or is
/// one of `names`: whoever says that it may differ means all behind it.
pub fn contrasts(plan: &Plan, a: usize, b: usize, names: &[String]) -> Vec<Contrast> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([(a, b)]);
    let mut open = VecDeque::from([(a, b)]);
    while let Some((a, b)) = open.pop_front() {
        if a == b {
            continue;
        }
        let (one, other) = (&plan.steps[a], &plan.steps[b]);
        let kind = one.shape.kind.clone();
        let contrast = |field: &str, values| {
            let (kind, field) = (kind.clone(), field.to_owned());
            Contrast { steps: (a, b), kind, field, values }
        };
        if one.shape.kind != other.shape.kind {
            let kinds = (Some(one.shape.kind.clone()), Some(other.shape.kind.clone()));
            found.push(contrast("kind", kinds));
            continue;
        }
        let bare = |step: usize| {
            identity::text(&plan.steps[step].shape, std::iter::empty::<(String, String)>())
        };
        for difference in identity::diff(&bare(a), &bare(b)) {
            let field = difference.path.strip_prefix("with.").unwrap_or(&difference.path);
            // Who makes an input is told below, by name.
            if ![&difference.old, &difference.new].iter().any(|v| v.as_deref() == Some("<input>")) {
                found.push(contrast(field, (difference.old, difference.new)));
            }
        }
        let roles: BTreeSet<&str> =
            one.inputs.iter().chain(&other.inputs).map(|input| input.role.as_str()).collect();
        for role in roles {
            let find = |step: usize| plan.steps[step].inputs.iter().find(|it| it.role == role);
            let (from_a, from_b) = (find(a), find(b));
            let name = |input: Option<&Input>| {
                input.map(|input| format!("{}.{}", plan.steps[input.step].title, input.output))
            };
            let it = contrast(role, (name(from_a), name(from_b)));
            let kind_of = |step: usize| plan.steps[step].shape.kind.as_str();
            match (from_a, from_b) {
                (Some(x), Some(y)) if x.step == y.step && x.output == y.output => {}
                (Some(x), Some(y))
                    if x.output == y.output
                        && kind_of(x.step) == kind_of(y.step)
                        && !names.iter().any(|name| it.is_covered_by(name)) =>
                {
                    if seen.insert((x.step, y.step)) {
                        open.push_back((x.step, y.step));
                    }
                }
                _ => found.push(it),
            }
        }
    }
    found
}

/// Holds every comparison that says in what its two sides may differ to that.
pub fn check(plan: &Plan, arms: &[Arm], findings: &[Findings]) -> Diagnostics {
    let mut found = Diagnostics::default();
    let coordinates: Vec<&[(String, String)]> =
        arms.iter().map(|arm| arm.coords.as_slice()).collect();
    let most = findings.iter().map(|its| its.compare.len()).max().unwrap_or(0);
    for place in 0..most {
        // A name has to be of use in one arm only.
        let mut allowed: Vec<Contrast> = Vec::new();
        let mut told = false;
        for (number, its) in findings.iter().enumerate() {
            let Some(compare) = its.compare.get(place) else { continue };
            let Some(Some(partner)) = compare.partner(number, &coordinates) else { continue };
            if compare.differs_only.is_empty() {
                continue;
            }
            let differing = Sides { plan, arms, findings, number, partner }.contrasts(compare);
            let (named, others): (Vec<_>, Vec<_>) = differing
                .into_iter()
                .partition(|one| compare.differs_only.iter().any(|name| one.is_covered_by(name)));
            allowed.extend(named);
            if let Some(diagnostic) = too_different(plan, &arms[number], place, compare, &others) {
                found.push(diagnostic);
                told = true;
            }
        }
        if let Some(diagnostic) = idle(arms, findings, place, &allowed).filter(|_| !told) {
            found.push(diagnostic);
        }
    }
    found
}

/// The arms that the two sides of a comparison are taken from.
struct Sides<'a> {
    plan: &'a Plan,
    arms: &'a [Arm],
    findings: &'a [Findings],
    number: usize,
    partner: usize,
}

impl Sides<'_> {
    /// The steps that scored a label in an arm.
    fn scored(&self, arm: usize, label: &str) -> Vec<usize> {
        let report = self.findings[arm].report.as_ref();
        let models = report.into_iter().flat_map(|report| &report.models);
        let step = |reference: &str| {
            let maker = || reference.rsplit_once('.').map_or("", |(step, _)| step);
            self.plan.find(arm, reference).or_else(|| self.plan.find(arm, maker()))
        };
        models
            .filter(|model| model.label == label)
            .filter_map(|model| step(&model.scores.reference))
            .collect()
    }

    /// All in which the two sides differ, in every round.
    fn contrasts(&self, compare: &Compare) -> Vec<Contrast> {
        let rounds = u32::try_from(self.arms[self.number].head.rounds).unwrap_or(0);
        let mut differing = Vec::new();
        for (a, b) in compare.labels(rounds) {
            let pairs = self.scored(self.number, &a).into_iter().zip(self.scored(self.partner, &b));
            for (a, b) in pairs {
                differing.extend(contrasts(self.plan, a, b, &compare.differs_only));
            }
        }
        differing
    }
}

/// Where a comparison says in what its sides may differ.
fn place_in(arm: &Arm, place: usize) -> Option<&Origin> {
    Some(&arm.node(&format!("compare.{place}.differs-only"))?.origin)
}

fn too_different(
    plan: &Plan,
    arm: &Arm,
    place: usize,
    compare: &Compare,
    others: &[Contrast],
) -> Option<Diagnostic> {
    const MOST: usize = 4;
    let first = others.first()?;
    let mut phrases: Vec<String> = Vec::new();
    for phrase in others.iter().map(Contrast::phrase) {
        if !phrases.contains(&phrase) {
            phrases.push(phrase);
        }
    }
    let more = phrases.len().saturating_sub(MOST);
    phrases.truncate(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (a, b, phrases) = (&compare.a, &compare.b, phrases.join(", "));
    let message = format!("`{a}` and `{b}` differ also in {phrases}{more}");
    let mut diagnostic = Diagnostic::error(message).at(place_in(arm, place)?);
    for step in [first.steps.0, first.steps.1] {
        let shape = &plan.steps[step].shape;
        let word = format!("`{}` has its `{}` from here", shape.base, first.field);
        diagnostic = diagnostic.near(place_of(shape, &first.field), &word);
    }
    Some(diagnostic.hint("make them equal, or name the field here too"))
}

/// A name in `differs-only` that stands for nothing hides a mistake to come.
fn idle(
    arms: &[Arm],
    findings: &[Findings],
    place: usize,
    allowed: &[Contrast],
) -> Option<Diagnostic> {
    let compare = findings.first()?.compare.get(place)?;
    let is_idle = |name: &&String| !allowed.iter().any(|one| one.is_covered_by(name));
    let name = compare.differs_only.iter().find(is_idle)?;
    let fields: BTreeSet<String> =
        allowed.iter().map(|one| format!("{}.{}", one.kind, one.field)).collect();
    let fields = text::list(fields.iter().map(String::as_str));
    let message = format!("`{}` and `{}` do not differ in `{name}`", compare.a, compare.b);
    let warning = Diagnostic::warning(message).at(place_in(&arms[0], place)?);
    Some(if fields.is_empty() { warning } else { warning.hint(format!("they do in {fields}")) })
}
