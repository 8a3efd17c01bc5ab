//! Whether a step must run, and why: what was stored against what is asked.

use crate::{
    base::node::Origin,
    plan::{Plan, StepShape, identity, identity::Difference, place_of},
};

/// Whether a step must run.
#[derive(Clone, Debug, PartialEq)]
pub enum Freshness {
    /// Its result is stored.
    Fresh,
    /// It must run.
    Stale(Reason),
    /// That shows when these steps are done.
    Waits(Vec<usize>),
}

/// Why a step must run.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Nothing is known of it.
    NeverRun,
    /// It ran before, as something else.
    Changed(Vec<Change>),
    /// It was started as it is and did not end.
    Unfinished,
    /// It ran as it is, but what it made is gone or damaged.
    Damaged(String),
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it is.
    pub what: What,
    /// The difference of the identities.
    pub difference: Difference,
    /// Where the present value was written, where it was written.
    pub origin: Option<Origin>,
}

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A parameter of the stage.
    Field(String),
    /// Content of an input: role, and title of the step that makes it.
    Input(String, Option<String>),
    /// The manifest's seed.
    Seed,
    /// Kind of stage.
    Kind,
    /// The kind's version: another program.
    Version,
    /// Class of arithmetic: another device.
    Numerics,
    /// An output's name or kind.
    Output(String),
}

/// What changed from an earlier identity to the present one.
pub fn changes(plan: &Plan, step: usize, old: &str, new: &str) -> Vec<Change> {
    let differences = identity::diff(old, new);
    // A reference has a line of its own for its content, which says more.
    let is_mark = |side: &Option<String>| side.as_deref() == Some("<input>");
    differences
        .into_iter()
        .filter(|difference| !is_mark(&difference.old) && !is_mark(&difference.new))
        .map(|difference| change(plan, step, difference))
        .collect()
}

fn change(plan: &Plan, step: usize, difference: Difference) -> Change {
    let shape: &StepShape = &plan.steps[step].shape;
    let (head, rest) = difference.path.split_once('.').unwrap_or((&difference.path, ""));
    let rest = rest.to_owned();
    let (what, origin) = match head {
        "with" => {
            let origin = place_of(shape, &rest).clone();
            (What::Field(rest), Some(origin))
        }
        "input" => {
            let maker = plan.steps[step].inputs.iter().find(|input| input.role == rest);
            let maker = maker.map(|input| plan.steps[input.step].title.clone());
            let origin = shape.inputs.iter().find(|input| input.role == rest);
            let origin = origin.map(|input| input.origin.clone());
            (What::Input(rest, maker), origin)
        }
        "output" => (What::Output(rest), None),
        "seed" => (What::Seed, None),
        "version" => (What::Version, None),
        "numerics" => (What::Numerics, None),
        _ => (What::Kind, Some(place_of(shape, "kind").clone())),
    };
    Change { what, difference, origin }
}

impl Change {
    /// One phrase, such as `` `temperature` 0.7 -> 0.9 ``; `default` names the
    /// value that an absent parameter has.
    pub fn phrase(&self, default: &dyn Fn(&str) -> Option<String>) -> String {
        let value = |side: &Option<String>| {
            side.clone().unwrap_or_else(|| match &self.what {
                What::Field(path) => {
                    default(path).map_or("unset".to_owned(), |value| format!("{value} (default)"))
                }
                _ => "none".to_owned(),
            })
        };
        let (old, new) = (value(&self.difference.old), value(&self.difference.new));
        match &self.what {
            What::Field(path) => format!("`{path}` {old} -> {new}"),
            What::Input(role, maker) => match (maker, &self.difference.old, &self.difference.new) {
                (_, _, None) => format!("input `{role}` is gone"),
                (Some(maker), None, _) => format!("input `{role}` is new (from `{maker}`)"),
                (Some(maker), ..) => format!("input `{role}` has other content (from `{maker}`)"),
                (None, ..) => format!("input `{role}` has other content"),
            },
            What::Seed => format!("seed {old} -> {new}"),
            What::Kind => format!("kind {old} -> {new}"),
            What::Version => format!("version of the stage kind {old} -> {new}"),
            What::Numerics => format!("arithmetic {old} -> {new}"),
            What::Output(name) => format!("output `{name}` {old} -> {new}"),
        }
    }
}

impl Reason {
    /// One phrase.
    pub fn phrase(&self, default: &dyn Fn(&str) -> Option<String>) -> String {
        match self {
            Reason::NeverRun => "it has no result yet".to_owned(),
            Reason::Unfinished => "it was not finished".to_owned(),
            Reason::Damaged(why) => why.clone(),
            Reason::Changed(changes) => {
                let phrases: Vec<_> = changes.iter().map(|change| change.phrase(default)).collect();
                phrases.join(", ")
            }
        }
    }
}
