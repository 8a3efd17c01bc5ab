//! What a stage does at every step of a training: it reports, keeps checkpoints
//! and hears the wish to stop.
//!
//! Knows the clock and the store's way to keep a state, not what is learnt.

use crate::base::failure::{Doing, Outcome};
use crate::engine::train::{Observer, Progress, Snapshot, Wish};
use crate::stages::work::Work;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When the next checkpoint is due.
pub(super) struct Pace {
    interval: Duration,
    last: Instant,
}

impl Pace {
    /// A checkpoint every so many seconds.
    pub(super) fn new(seconds: f64) -> Pace {
        // A number that is no time is as good as never.
        let interval = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Pace { interval, last: Instant::now() }
    }

    /// Whether one is due; then the next interval begins.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.interval;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Reports steps, keeps checkpoints, hears the wish to stop.
pub(super) struct Watch<'a> {
    work: &'a Work<'a>,
    total: u64,
    pace: Pace,
    names: &'a [Arc<str>],
}

impl<'a> Watch<'a> {
    /// A watch over `total` steps on items of these names.
    pub(super) fn new(
        work: &'a Work<'a>,
        total: u64,
        checkpoint_seconds: f64,
        names: &'a [Arc<str>],
    ) -> Watch<'a> {
        Watch { work, total, pace: Pace::new(checkpoint_seconds), names }
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress, loss: f64) -> Wish {
        let note = format!("loss {loss:.3}");
        self.work.progress(progress.step, self.total, "steps", &note);
        if progress.step == self.total {
            Wish::Continue
        } else if self.work.stopping() {
            Wish::Stop
        } else if self.pace.is_due() {
            Wish::Snapshot
        } else {
            Wish::Continue
        }
    }

    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()> {
        self.work.save_checkpoint(&snapshot).doing(|| "keeping a checkpoint".into())
    }

    fn name(&self, sequence: usize) -> String {
        self.names.get(sequence).map_or_else(|| sequence.to_string(), ToString::to_string)
    }
}
