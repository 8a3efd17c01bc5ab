//! `doctor --faults`: does to small studies of its own, in a folder that goes
//! away, what kills, disks and clocks do to large ones, and holds what comes of
//! it against a run that nothing disturbed.
//!
//! | file | faults |
//! |---|---|
//! | `ground.rs` | none: studies, runs and what they left |
//! | `disk.rs` | power cut after every change, every change refused, disk full from any change on |
//! | `kills.rs` | `kill -9` of runner, child and both, at random moments |
//! | `damage.rs` | flipped bits, torn journals, two runners, `gc`, edits and clocks |
//! | `mounts.rs` | a file system that is full, one that is read-only |

mod damage;
mod disk;
mod ground;
mod kills;
mod mounts;

use crate::{
    base::{failure::Failure, text},
    cli::{
        Program, Stop,
        arguments::{DoctorArguments, Options},
        exit,
        plan::span,
        talk::Talk,
    },
};
use ground::Ground;
use serde_json::json;
use std::time::Instant;

/// What a fault came to.
pub(super) enum Verdict {
    Held,
    Fails,
    /// This machine cannot be made to fail so.
    Skipped,
}

/// A fault and what came of it.
pub(super) struct Finding {
    fault: &'static str,
    expected: &'static str,
    happened: String,
    verdict: Verdict,
}

impl Finding {
    /// A finding of what was expected: `Ok` says what happened, `Err` what was wrong.
    pub(super) fn of(
        fault: &'static str,
        expected: &'static str,
        found: Result<String, Trouble>,
    ) -> Finding {
        let (happened, verdict) = match found {
            Ok(happened) => (happened, Verdict::Held),
            Err(Trouble::Wrong(happened)) => (happened, Verdict::Fails),
            Err(Trouble::Cannot(why)) => (why, Verdict::Skipped),
        };
        Finding { fault, expected, happened, verdict }
    }

    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Held => "holds",
            Verdict::Fails => "FAILS",
            Verdict::Skipped => "skipped",
        }
    }
}

/// Why a fault has no good end.
pub(super) enum Trouble {
    /// It was not survived.
    Wrong(String),
    /// It cannot be brought about here.
    Cannot(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Wrong(failure.chain().join(": "))
    }
}

/// `Err` with these words unless `holds`.
pub(super) fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Trouble> {
    if holds { Ok(()) } else { Err(Trouble::Wrong(otherwise())) }
}

type Row = fn(&Ground<'_>) -> Vec<Finding>;

const ROWS: &[Row] = &[disk::rows, kills::rows, damage::rows, mounts::rows];

/// Brings every fault about and tells what came of each.
pub(crate) fn faults(
    program: &Program,
    options: &Options,
    arguments: &DoctorArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let start = Instant::now();
    let ground = Ground::new(program, options, arguments.kills)?;
    let mut findings = Vec::new();
    for row in ROWS {
        for finding in row(&ground) {
            talk.say(&format!("{}: {}: {}", finding.fault, finding.word(), finding.happened));
            findings.push(finding);
        }
    }
    ground.close()?;
    let failed = findings.iter().filter(|one| matches!(one.verdict, Verdict::Fails)).count();
    if talk.json {
        let one = |finding: &Finding| {
            json!({
                "fault": finding.fault, "expected": finding.expected,
                "happened": finding.happened, "verdict": finding.word(),
            })
        };
        talk.json_data(&findings.iter().map(one).collect())?;
    } else {
        let mut rows =
            vec!["| fault | expected | happened | verdict |\n|---|---|---|---|\n".to_owned()];
        rows.extend(findings.iter().map(|one| {
            let Finding { fault, expected, happened, .. } = one;
            format!("| {fault} | {expected} | {happened} | {} |\n", one.word())
        }));
        talk.data(&rows.concat())?;
    }
    let verdict = match failed {
        0 => "all hold".to_owned(),
        n => format!("{n} fail"),
    };
    let count = text::plural(findings.len() as u64, "fault");
    talk.say(&format!("{count} in {}: {verdict}", span(start.elapsed().as_secs_f64())));
    Ok(if failed == 0 { exit::OK } else { exit::BUG })
}
