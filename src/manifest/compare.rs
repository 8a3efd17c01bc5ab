//! Comparisons that a manifest asks for: of two models of one arm, of one model
//! in two modes, or of a model across the arms of a sweep. Who is compared with
//! whom is worked out here; what came out is the report's to say.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::Node,
    spec::{Reading, choice, spec},
    text,
};
use crate::manifest::Arm;
use std::collections::{BTreeMap, BTreeSet};

spec! {
    /// A paired comparison of two models of the report: `a` minus `b`, item by item.
    #[check(two_sides)]
    pub struct Compare {
        /// Label of one model.
        a: String,
        /// Label of the other model; the same one where its mode or arm differs.
        b: String,
        /// Mode of evaluation; all modes when absent.
        mode: Option<String>,
        /// Mode of evaluation of `b`, if another than `mode`.
        b_mode: Option<String>,
        /// Labels on axes of the sweep of the arms that `a` is taken from; all arms when empty.
        a_arm: BTreeMap<String, String> = BTreeMap::new(),
        /// Labels on axes of the sweep of the arms that `b` is taken from. On the
        /// axes that neither names, both are of one arm.
        b_arm: BTreeMap<String, String> = BTreeMap::new(),
        /// Data set that was evaluated on; all of them when absent.
        dataset: Option<String>,
        /// What the study expects of `a` beside `b`.
        expect: Option<Expect>,
        /// The only fields, such as `train.data`, in which what made the two may
        /// differ. Anything else in which they do is a mistake of the manifest.
        differs_only: Vec<String> = Vec::new(),
    }
}

choice! {
    /// What a study expects of a difference.
    pub enum Expect {
        /// `a` is better than `b`.
        Higher = "higher",
        /// `a` is worse than `b`.
        Lower = "lower",
        /// `a` is not better than `b`.
        NotHigher = "not-higher",
        /// `a` is not worse than `b`.
        NotLower = "not-lower",
    }
}

impl Compare {
    /// The arm whose `b` is compared with `a` of arm `number`: `None` when arm
    /// `number` is not asked for, an empty choice when its partner is missing.
    pub fn partner(&self, number: usize, arms: &[&[(String, String)]]) -> Option<Option<usize>> {
        let own = arms[number];
        if !has(own, &self.a_arm) {
            return None;
        }
        let is_free = |axis: &str| !self.a_arm.contains_key(axis) && !self.b_arm.contains_key(axis);
        let partner = arms.iter().position(|other| {
            has(other, &self.b_arm)
                && own.iter().filter(|(axis, _)| is_free(axis)).all(|at| other.contains(at))
        });
        // Without a word on arms both are of one arm, even if another has the same labels.
        let within = self.a_arm.is_empty() && self.b_arm.is_empty();
        Some(if within { Some(number) } else { partner })
    }

    /// The labels of both in every round, if they hold `{round}`; else as they are.
    pub fn labels(&self, rounds: u32) -> Vec<(String, String)> {
        in_rounds(&self.a, &self.b, rounds)
    }
}

/// Two texts as they are in every round, or as they are.
pub fn in_rounds(a: &str, b: &str, rounds: u32) -> Vec<(String, String)> {
    if !a.contains("{round}") && !b.contains("{round}") {
        return vec![(a.to_owned(), b.to_owned())];
    }
    let one = |text: &str, round: u32| text.replace("{round}", &round.to_string());
    (1..=rounds).map(|round| (one(a, round), one(b, round))).collect()
}

/// Whether an arm has these labels.
pub fn has(coordinates: &[(String, String)], wanted: &BTreeMap<String, String>) -> bool {
    let is_there = |(axis, label): (&String, &String)| {
        coordinates.iter().any(|(one, other)| one == axis && other == label)
    };
    wanted.iter().all(is_there)
}

fn two_sides(compare: &Compare, node: &Node, cx: &mut Reading) {
    let same_mode = compare.b_mode.is_none() || compare.b_mode == compare.mode;
    if compare.a == compare.b && same_mode && compare.a_arm == compare.b_arm {
        let message = format!("`{}` is compared with itself", compare.a);
        cx.error(&node.at(["b"]).unwrap_or(node).origin, message);
    }
    if let (Some(at), None) = (node.at(["b-mode"]), &compare.mode) {
        cx.error(&at.origin, "`b-mode` wants a `mode` for `a` beside it");
    }
}

/// Checks what is said of arms against the arms there are.
pub(super) fn check_arms(arms: &[Arm], found: &mut Diagnostics) {
    let Some(first) = arms.first() else { return };
    let sides = [("compare", "a-arm"), ("compare", "b-arm"), ("target", "arm")];
    for (section, side) in sides {
        let written = first.node(section).and_then(Node::array).unwrap_or_default();
        for node in written {
            let Some(table) = node.at([side]).and_then(Node::table) else { continue };
            for (axis, entry) in table.iter() {
                let axes = || first.coords.iter().map(|(axis, _)| axis.as_str());
                if !axes().any(|known| known == axis) {
                    let hint = text::suggestion(axis, "axes", axes());
                    let message = format!("the sweep has no axis `{axis}`");
                    found.push(Diagnostic::error(message).at(&entry.key).hint(hint));
                    continue;
                }
                let Some(wanted) = entry.node.text() else { continue };
                let coordinates = arms.iter().flat_map(|arm| &arm.coords);
                let labels: BTreeSet<&str> = coordinates
                    .filter(|(one, _)| one == axis)
                    .map(|(_, label)| label.as_str())
                    .collect();
                if !labels.contains(wanted) {
                    let hint = text::suggestion(wanted, "labels", labels);
                    let message = format!("axis `{axis}` has no label `{wanted}`");
                    found.push(Diagnostic::error(message).at(&entry.node.origin).hint(hint));
                }
            }
        }
    }
}
