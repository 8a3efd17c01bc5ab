//! What happens during a run, as told to those who watch. A closed list:
//! console, `--json` and tests all read the same.

use crate::{plan::freshness::Reason, stages::work::Progress};

/// Something that happened to a step (its number in the plan).
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Event {
    /// Its result is stored already.
    Fresh { step: usize },
    /// It must run.
    Stale { step: usize, reason: Reason },
    /// It runs now, and has these graphics cards for itself.
    Started { step: usize, cards: Vec<String> },
    /// It is this far.
    Progress { step: usize, progress: Progress },
    /// Somebody else does it at the moment.
    Waiting { step: usize, holder: String },
    /// It is done; `elsewhere` says by another process.
    Done { step: usize, seconds: f64, elsewhere: bool },
    /// It failed: the failure and its causes, and hints.
    Failed { step: usize, why: Vec<String>, hints: Vec<String> },
    /// A try failed, the `tries`-th of `of`; there is another one after a pause.
    Retried { step: usize, why: Vec<String>, tries: u64, of: u64, pause: f64 },
    /// Nothing was heard of it for so many seconds.
    Silent { step: usize, seconds: f64 },
    /// It was asked to end and did.
    Stopped { step: usize },
    /// It cannot run because `because` failed.
    Skipped { step: usize, because: usize },
    /// It found something worth saying.
    Warned { step: usize, text: String },
    /// What it had made was damaged; it is made again.
    Healed { step: usize, why: String },
}

/// Somebody who watches. Called from several threads.
pub trait Observer: Sync {
    /// Hears of an event.
    fn hear(&self, event: &Event);
}
