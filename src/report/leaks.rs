//! Test items that stand in training data: how many were looked for, and which
//! were found where.

use super::{
    collected::{CollectedArm, CollectedStep},
    sections::{Look, section},
    summary::Arm,
};
use crate::{
    base::{artifact::ArtifactKind, text},
    record::Leaks,
};
use serde_json::{Value, json};

/// More items than this are not named on the page.
const NAMED: usize = 20;

/// What one step found.
pub(super) struct Checked {
    /// Full name of the step.
    step: String,
    /// What it found; sources by the names of their steps.
    leaks: Leaks,
}

/// What every leak check of an arm found.
pub(super) fn checked(arm: &CollectedArm, missing: &mut Vec<String>) -> Vec<Checked> {
    let mut found = Vec::new();
    for step in &arm.steps {
        for output in step.outputs.iter().filter(|output| output.kind == ArtifactKind::Leaks) {
            match output.json::<Leaks>("leaks.json") {
                Ok(leaks) => {
                    found.push(Checked { step: step.name.clone(), leaks: named(step, leaks) })
                }
                Err(why) => missing.push(format!("`{}`: {why}", step.name)),
            }
        }
    }
    found
}

/// The check knows its inputs by their roles; people know them by their steps.
fn named(step: &CollectedStep, mut leaks: Leaks) -> Leaks {
    for leak in &mut leaks.found {
        if let Some(input) = step.inputs.get(&leak.source) {
            leak.source = input.clone();
        }
    }
    leaks
}

/// For programs.
pub(super) fn json(checked: &Checked) -> Value {
    json!({ "step": checked.step, "leaks": checked.leaks })
}

/// A row for every test set, and the items that were found.
pub(super) fn leaks(arm: &Arm, look: Look) -> String {
    let (mut sets, mut items) = (Vec::new(), Vec::new());
    for Checked { step, leaks } in &arm.leaks {
        for test in &leaks.tests {
            let fate = match (test.leaked, leaks.dropped) {
                (0, _) => "clean",
                (_, true) => "left out",
                (_, false) => "**still in the test set**",
            };
            sets.push(vec![
                step.clone(),
                format!("`{}`", test.name),
                text::count(test.items),
                text::count(leaks.texts),
                text::count(leaks.words),
                text::count(test.leaked),
                fate.to_owned(),
            ]);
        }
        for leak in leaks.found.iter().take(NAMED) {
            items.push(vec![
                format!("`{}` of `{}`", leak.item, leak.test),
                format!("`{}` of `{}`", leak.text, leak.source),
                format!("{:.0}", leak.share * 100.0),
                leak.words.clone(),
            ]);
        }
    }
    let names =
        ["step", "test set", "items", "training texts", "words", "found", "what became of them"];
    let out = section(
        look,
        "Test items in training data",
        &names,
        &sets,
        "An item is found where a training text has so many words of its question in a row, or \
         all of a shorter one, whatever the punctuation.",
    );
    let names = ["test item", "stands in", "runs of words shared, %", "the first"];
    let reading = format!(
        "The first {NAMED} of each step at most, each where the largest part of it stands; all are \
         in `scores.json`."
    );
    out + &section(look, "Items found", &names, &items, &reading)
}
