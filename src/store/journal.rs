//! The journal of a run: what happened, in order, one checked line each.

use crate::{
    base::{failure::Outcome, hash::Digest},
    host::{clock, fs},
    store::{Store, lines, lines::Lines},
};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Note {
    RunStarted {
        experiment: String,
        manifest: String,
        program: String,
        host: String,
        device: String,
    },
    StepStarted {
        step: String,
        key: Digest,
    },
    StepDone {
        step: String,
        key: Digest,
        seconds: f64,
    },
    StepFailed {
        step: String,
        key: Digest,
        why: Vec<String>,
        seconds: f64,
    },
    StepRetried {
        step: String,
        key: Digest,
        why: Vec<String>,
        tries: u64,
        pause: f64,
    },
    StepSilent {
        step: String,
        seconds: f64,
    },
    StepStopped {
        step: String,
        key: Digest,
    },
    Healed {
        step: String,
        why: String,
    },
    RunEnded {
        done: u64,
        cached: u64,
        failed: u64,
        skipped: u64,
    },
}

/// A note with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Seconds since 1970.
    pub at: f64,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
}

/// The journal of the run that is going on. Nothing is created before the
/// first note.
#[derive(Debug)]
pub struct Journal {
    store: Store,
    id: String,
    lines: Option<Lines>,
}

impl Journal {
    /// A journal for a new run.
    pub fn new(store: &Store) -> Journal {
        let at = clock::timestamp(clock::unix_seconds()).replace([':', '-'], "");
        Journal { store: store.clone(), id: format!("{at}-{}", std::process::id()), lines: None }
    }

    /// The run's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether anything was noted.
    pub fn is_open(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes something.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note(&mut self, note: Note) -> Outcome<()> {
        let line = serde_json::to_string(&Timed { at: clock::unix_seconds(), note })
            .expect("a note is JSON");
        if self.lines.is_none() {
            let folder = self.store.root().join("runs").join(&self.id);
            fs::create_lasting_folder(&folder)?;
            self.lines = Some(Lines::append_to(&folder.join("journal.jsonl"))?);
        }
        self.lines.as_mut().expect("opened above").append(&line)
    }

    /// Waits until all notes are on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Outcome<()> {
        let Some(lines) = &self.lines else { return Ok(()) };
        lines.sync()?;
        fs::sync_folder(&self.store.root().join("runs").join(&self.id))
    }
}

/// The notes of the newest run of an experiment, with the run's name.
///
/// # Errors
/// When a journal cannot be read.
pub fn newest(store: &Store, experiment: &str) -> Outcome<Option<(String, Vec<Timed>)>> {
    let folder = store.root().join("runs");
    for run in fs::names(&folder)?.into_iter().rev() {
        let notes: Vec<Timed> = lines::read(&folder.join(&run).join("journal.jsonl"))?
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let is_ours = matches!(notes.first(), Some(Timed { note: Note::RunStarted { experiment: name, .. }, .. }) if name == experiment);
        if is_ours {
            return Ok(Some((run, notes)));
        }
    }
    Ok(None)
}
