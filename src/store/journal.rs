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
#[serde(try_from = "Row")]
pub struct Timed {
    /// Seconds since 1970.
    pub at: f64,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
}

/// A line of a journal as it is read: serde reads a flattened, tagged note by
/// way of a tree of values, which takes several times as long.
#[derive(Deserialize)]
struct Row {
    at: f64,
    event: String,
    #[serde(default)]
    step: String,
    key: Option<Digest>,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    why: serde_json::Value,
    #[serde(default)]
    experiment: String,
    #[serde(default)]
    manifest: String,
    #[serde(default)]
    program: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    done: u64,
    #[serde(default)]
    cached: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    skipped: u64,
}

impl TryFrom<Row> for Timed {
    type Error = String;

    fn try_from(row: Row) -> Result<Timed, String> {
        let Row { at, event, step, key, seconds, why, experiment, .. } = row;
        let key = || key.ok_or("a step without a key");
        let text = |why: &serde_json::Value| why.as_str().unwrap_or_default().to_owned();
        let note = match event.as_str() {
            "run-started" => Note::RunStarted {
                experiment,
                manifest: row.manifest,
                program: row.program,
                host: row.host,
                device: row.device,
            },
            "step-started" => Note::StepStarted { step, key: key()? },
            "step-done" => Note::StepDone { step, key: key()?, seconds },
            "step-failed" => {
                let why = why.as_array().map(|lines| lines.iter().map(text).collect());
                Note::StepFailed { step, key: key()?, why: why.unwrap_or_default(), seconds }
            }
            "step-stopped" => Note::StepStopped { step, key: key()? },
            "healed" => Note::Healed { step, why: text(&why) },
            "run-ended" => Note::RunEnded {
                done: row.done,
                cached: row.cached,
                failed: row.failed,
                skipped: row.skipped,
            },
            other => return Err(format!("nothing is called `{other}`")),
        };
        Ok(Timed { at, note })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_reads_back() {
        let (step, key) = ("a{b=1}".to_owned(), Digest::of_blob(b"x"));
        let word = |text: &str| text.to_owned();
        for note in [
            Note::RunStarted {
                experiment: word("e"),
                manifest: word("m"),
                program: word("p"),
                host: word("h"),
                device: word("d"),
            },
            Note::StepStarted { step: step.clone(), key },
            Note::StepDone { step: step.clone(), key, seconds: 0.25 },
            Note::StepFailed {
                step: step.clone(),
                key,
                why: vec![word("a"), word("b")],
                seconds: 1.5,
            },
            Note::StepStopped { step: step.clone(), key },
            Note::Healed { step, why: word("w") },
            Note::RunEnded { done: 1, cached: 2, failed: 3, skipped: 4 },
        ] {
            let timed = Timed { at: 1.25, note };
            let text = serde_json::to_string(&timed).unwrap();
            assert_eq!(serde_json::from_str::<Timed>(&text).unwrap(), timed);
        }
        assert!(serde_json::from_str::<Timed>(r#"{"at":1,"event":"other"}"#).is_err());
    }
}
