//! Case studies: what several models said of the same problems, in full.
//!
//! Shows texts and judges nothing.

use super::collected::{Collected, CollectedArm};
use super::words::place;
use crate::record::Dialogue;

/// The cases of every arm that has some.
pub(super) fn cases(collected: &Collected) -> String {
    let mut out = String::new();
    for arm in &collected.arms {
        let shown = arm.findings.report.iter().any(|report| !report.cases.is_empty());
        if shown {
            let heading = match arm.coordinates.as_slice() {
                [] => "Cases".to_owned(),
                coordinates => format!("Cases of {}", place(coordinates)),
            };
            out.push_str(&format!("## {heading}\n\n{}", of_arm(arm)));
        }
    }
    out
}

fn of_arm(arm: &CollectedArm) -> String {
    let (mut out, mut said) = (String::new(), Vec::new());
    for case in arm.findings.report.iter().flat_map(|report| &report.cases) {
        let found = arm.find(&case.dialogues.reference);
        let rows = found.map(|(_, output)| output.rows::<Dialogue>("dialogues.jsonl"));
        match rows {
            Some(Ok(rows)) => said.push((case.label.as_str(), rows)),
            Some(Err(why)) => out.push_str(&format!("`{}` is missing: {why}\n\n", case.label)),
            None => out.push_str(&format!("`{}` is missing\n\n", case.label)),
        }
    }
    let problems = said.first().map(|(_, rows)| rows.as_slice()).unwrap_or_default();
    for Dialogue { problem, .. } in problems {
        let gold = problem.gold.map_or(String::new(), |gold| format!(" (answer {gold})"));
        out.push_str(&format!("### `{}`{gold}\n\n{}", problem.id, block(&problem.question)));
        for (label, rows) in &said {
            let Some(row) = rows.iter().find(|row| row.problem.id == problem.id) else { continue };
            let parts = [
                ("reply", Some(&row.reply)),
                ("feedback", row.feedback.as_ref()),
                ("refined", row.refined.as_ref()),
            ];
            for (what, text) in parts {
                if let Some(text) = text {
                    out.push_str(&format!("**{label}**, {what}:\n\n{}", block(text)));
                }
            }
        }
    }
    out
}

/// A text as it is: in a fence that is longer than any in it.
fn block(text: &str) -> String {
    let longest = text.split(|c| c != '~').map(str::len).max().unwrap_or(0);
    let fence = "~".repeat(longest.max(2) + 1);
    format!("{fence}text\n{}\n{fence}\n\n", text.trim_end())
}
