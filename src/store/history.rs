//! Which action each step of each experiment came to, last entry last.
//!
//! Serves explanations and estimates. It can be lost without loss of results.

use crate::{
    base::{failure::Outcome, hash::Digest},
    store::{
        Store, lines,
        record::{ActionRecord, Output},
        spread::{Range, Scatter},
    },
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
    /// What else it took; entries of older programs do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What a step took besides time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of its outputs.
    pub bytes: u64,
    /// Tokens read, written and learnt from.
    pub tokens: f64,
    /// Dollars.
    pub dollars: f64,
}

impl Cost {
    /// What is known of a record's.
    pub fn of(record: &ActionRecord) -> Cost {
        let counts = record.metrics.iter().filter(|(name, _)| name.ends_with("-tokens"));
        Cost {
            bytes: record.outputs.iter().map(Output::size).sum(),
            tokens: counts.map(|(_, count)| count).sum(),
            dollars: record.metrics.get("api-dollars").copied().unwrap_or(0.0),
        }
    }
}

/// The history, read whole.
#[derive(Debug, Default)]
pub struct History {
    lines: Option<lines::Lines>,
    last: BTreeMap<String, Entry>,
    /// The times of steps that were done more than once, as different actions.
    repeated: BTreeMap<String, Vec<f64>>,
    by_kind: BTreeMap<String, (f64, u32, Vec<f64>)>,
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
        let (sum, n, times) = self.by_kind.entry(entry.kind.clone()).or_default();
        *sum += entry.seconds;
        *n += 1;
        times.push(entry.seconds);
        let (step, seconds) = (entry.step.clone(), entry.seconds);
        if let Some(before) = self.last.insert(step.clone(), entry) {
            self.repeated.entry(step).or_insert_with(|| vec![before.seconds]).push(seconds);
        }
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
            .or_else(|| self.by_kind.get(kind).map(|(sum, n, _)| sum / f64::from(*n)))
    }

    /// How far the times of steps scatter that were done more than once.
    pub fn scatter(&self) -> Scatter {
        let mut scatter = Scatter::default();
        self.repeated.values().for_each(|times| scatter.add(times));
        scatter
    }

    /// Seconds that a step with one of these names probably takes: as it took
    /// before, else as its kind took, which says less and scatters more.
    pub fn time(&self, logical: &[String], kind: &str, scatter: &Scatter) -> Option<Range> {
        let own = logical.iter().find_map(|id| Some((id, self.last(id)?)));
        if let Some((id, last)) = own {
            let times = self.repeated.get(id);
            return scatter
                .predict(times.map_or(std::slice::from_ref(&last.seconds), Vec::as_slice));
        }
        let (_, _, times) = self.by_kind.get(kind)?;
        let mut alike = Scatter::default();
        alike.add(times);
        alike.predict(times)
    }

    /// What else a step with one of these names took the last time.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn cost(&self, logical: &[String], store: Option<&Store>) -> Outcome<Option<Cost>> {
        let Some(last) = logical.iter().find_map(|id| self.last(id)) else { return Ok(None) };
        match (last.cost, store) {
            (None, Some(store)) => Ok(store.record(&last.key)?.as_ref().map(Cost::of)),
            (cost, _) => Ok(cost),
        }
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
