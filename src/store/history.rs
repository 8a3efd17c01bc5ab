//! Which action each step of each experiment came to, last entry last.
//!
//! Serves explanations and estimates. It can be lost without loss of results.

use crate::{
    base::{failure::Outcome, hash::Digest},
    store::{Store, lines},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Experiment, step and arm: see [`crate::plan::logical_id`].
    pub step: String,
    /// The stage's kind.
    pub kind: String,
    /// What it came to.
    pub key: Digest,
    /// How long that took when it was done.
    pub seconds: f64,
}

/// The history, read whole.
#[derive(Debug, Default)]
pub struct History {
    lines: Option<lines::Lines>,
    last: BTreeMap<String, Entry>,
    by_kind: BTreeMap<String, (f64, u32)>,
}

impl History {
    /// Reads the history of a store.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn read(store: &Store) -> Outcome<History> {
        let mut history = History::default();
        for line in lines::read(&store.root().join("history.jsonl"))? {
            if let Ok(entry) = serde_json::from_str(&line) {
                history.add(entry);
            }
        }
        Ok(history)
    }

    fn add(&mut self, entry: Entry) {
        let (sum, n) = self.by_kind.entry(entry.kind.clone()).or_default();
        *sum += entry.seconds;
        *n += 1;
        self.last.insert(entry.step.clone(), entry);
    }

    /// The last entry of a step.
    pub fn last(&self, logical_id: &str) -> Option<&Entry> {
        self.last.get(logical_id)
    }

    /// Seconds that a step probably takes: as the last time, else as the mean
    /// of its kind, else unknown.
    pub fn estimate(&self, logical_id: &str, kind: &str) -> Option<f64> {
        self.last(logical_id)
            .map(|entry| entry.seconds)
            .or_else(|| self.by_kind.get(kind).map(|(sum, n)| sum / f64::from(*n)))
    }

    /// Notes what a step came to, unless that is known already.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note(
        &mut self,
        store: &Store,
        step: &str,
        key: &Digest,
        entry: impl FnOnce() -> Entry,
    ) -> Outcome<()> {
        if self.last(step).is_some_and(|last| last.key == *key) {
            return Ok(());
        }
        let entry = entry();
        let line = serde_json::to_string(&entry).expect("an entry is JSON");
        if self.lines.is_none() {
            self.lines = Some(lines::Lines::append_to(&store.root().join("history.jsonl"))?);
        }
        self.lines.as_mut().expect("opened above").append(&line)?;
        self.add(entry);
        Ok(())
    }
}
