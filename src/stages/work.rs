//! What a running stage may touch: its inputs, its outputs, what it may go on
//! from after a stop, and ways to say how far it is.
//!
//! A stage has no other way to the store, the clock or the console.

use crate::{
    base::{
        failure::{Failure, Outcome},
        seed::Seed,
    },
    host::{clock::Throttle, fs, signal::StopFlag},
    inference::annotator::Desk,
    store::{
        artifact::Artifact,
        partial::{self, Memo},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 where that is unknown.
    pub total: u64,
    /// What is counted, such as `tokens`.
    pub unit: String,
    /// A word on what is going on.
    pub note: String,
}

/// What the runner hands to a stage.
pub struct Work<'a> {
    seed: Seed,
    inputs: Vec<(String, Artifact)>,
    outputs: BTreeMap<String, PathBuf>,
    partial: PathBuf,
    replies: PathBuf,
    folder: PathBuf,
    device: String,
    threads: usize,
    granted: Granted,
    deadline: Option<Instant>,
    stop: StopFlag,
    listener: &'a (dyn Fn(Progress) + Sync),
    throttle: Throttle,
    said: Mutex<Said>,
}

/// What a stage reported.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Counters by name.
    pub metrics: BTreeMap<String, f64>,
    /// Remarks.
    pub warnings: Vec<String>,
}

/// What a step asked for and was given of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Cores, where it said how many.
    pub cpus: Option<usize>,
    /// Names of graphics cards that it has for itself.
    pub cards: Vec<String>,
}

/// All that a [`Work`] is made of.
pub struct Parts<'a> {
    /// The step's seed.
    pub seed: Seed,
    /// Inputs by role.
    pub inputs: Vec<(String, Artifact)>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// An empty folder that goes away after the attempt.
    pub attempt: PathBuf,
    /// The folder that stays until the step is done.
    pub partial: PathBuf,
    /// The folder of the replies of other programs' models, for all steps.
    pub replies: PathBuf,
    /// The device as asked for.
    pub device: String,
    /// Threads the stage may keep busy.
    pub threads: usize,
    /// What it was given of the machine.
    pub granted: Granted,
    /// When the stage shall have ended, if there is a limit.
    pub deadline: Option<Instant>,
    /// Raised when the stage shall end soon.
    pub stop: StopFlag,
    /// Hears how far it is.
    pub listener: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Work<'a> {
    /// Makes the folders of the outputs and hands everything to a stage.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new(parts: Parts<'a>) -> Outcome<Work<'a>> {
        let mut outputs = BTreeMap::new();
        for name in parts.outputs {
            let folder = parts.attempt.join("out").join(&name);
            fs::create_folder(&folder)?;
            outputs.insert(name, folder);
        }
        Ok(Work {
            seed: parts.seed,
            inputs: parts.inputs,
            outputs,
            partial: parts.partial,
            replies: parts.replies,
            folder: parts.attempt,
            device: parts.device,
            threads: parts.threads,
            granted: parts.granted,
            deadline: parts.deadline,
            stop: parts.stop,
            listener: parts.listener,
            throttle: Throttle::new(Duration::from_millis(100)),
            said: Mutex::default(),
        })
    }

    /// The step's seed.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The input with this role.
    ///
    /// # Errors
    /// When the manifest gave none.
    pub fn input(&self, role: &str) -> Outcome<&Artifact> {
        self.optional_input(role).ok_or_else(|| {
            Failure::bug(format!("the stage asks for an input `{role}` it did not declare"))
        })
    }

    /// The input with this role, if the manifest gave one.
    pub fn optional_input(&self, role: &str) -> Option<&Artifact> {
        self.inputs.iter().find(|(name, _)| name == role).map(|(_, artifact)| artifact)
    }

    /// The inputs `role.0`, `role.1`, ... (or `role.0.from`, ...) in order.
    pub fn inputs(&self, role: &str) -> Vec<&Artifact> {
        let mut found: Vec<(usize, &Artifact)> = self
            .inputs
            .iter()
            .filter_map(|(name, artifact)| {
                let rest = name.strip_prefix(role)?.strip_prefix('.')?;
                Some((rest.split('.').next()?.parse().ok()?, artifact))
            })
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, artifact)| artifact).collect()
    }

    /// All inputs with their roles.
    pub fn all_inputs(&self) -> &[(String, Artifact)] {
        &self.inputs
    }

    /// The folder of an output.
    ///
    /// # Panics
    /// When the stage did not declare it.
    pub fn output(&self, name: &str) -> OutputFolder<'_> {
        let folder = self.outputs.get(name);
        OutputFolder(folder.unwrap_or_else(|| panic!("BUG: output `{name}` is not declared")))
    }

    /// A folder for this attempt that nobody keeps; the outputs' folders are
    /// in it, as `out/<name>`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that stays until the step is done; there may be none yet.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// A place for a file that survives a stop and a crash, until the step is
    /// done. What is there may be torn.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn partial_file(&self, name: &str) -> Outcome<PathBuf> {
        fs::create_folder(&self.partial)?;
        Ok(self.partial.join(name))
    }

    /// Says how far the stage is. Cheap: most calls do nothing.
    pub fn progress(&self, done: u64, total: u64, unit: &str, note: &str) {
        if self.throttle.allows() || (total > 0 && done == total) {
            (self.listener)(Progress { done, total, unit: unit.to_owned(), note: note.to_owned() });
        }
    }

    /// Passes on how far a stage in another process is.
    pub fn pass_on(&self, progress: Progress) {
        (self.listener)(progress);
    }

    /// Whether the stage shall save what it has and return
    /// [`Failure::interrupted`]: a person asked, or its time is up.
    pub fn stopping(&self) -> bool {
        self.stop.is_raised() || self.is_late()
    }

    /// Whether the stage's time is up.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// An error when the stage shall end: for loops that need `?` only.
    ///
    /// # Errors
    /// [`Failure::interrupted`] when the stage shall end.
    pub fn check(&self) -> Outcome<()> {
        if self.stopping() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Results by id that survive a stop, a crash and a `kill -9`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn memo<T: Serialize + DeserializeOwned>(&self, name: &str) -> Outcome<Memo<T>> {
        Memo::open(&self.partial, name)
    }

    /// Keeps a state to go on from; the last two are kept.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save_checkpoint(&self, parts: &BTreeMap<String, Vec<u8>>) -> Outcome<()> {
        partial::save_checkpoint(&self.partial, parts)
    }

    /// The newest state that is whole.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn load_checkpoint(&self) -> Outcome<Option<BTreeMap<String, Vec<u8>>>> {
        partial::load_checkpoint(&self.partial)
    }

    /// Notes a counter in the action's record. It is not part of any result,
    /// so count what the result holds, not what this attempt did.
    pub fn metric(&self, name: &str, value: f64) {
        self.said().metrics.insert(name.to_owned(), value);
    }

    /// Says something a person should know.
    pub fn warn(&self, text: impl Into<String>) {
        self.said().warnings.push(text.into());
    }

    /// What was reported so far.
    pub fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The device as the manifest or the command line names it.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Threads the stage may keep busy. No result may depend on it.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What the step asked for and was given of the machine.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Folders of all outputs.
    pub fn outputs(&self) -> &BTreeMap<String, PathBuf> {
        &self.outputs
    }
}

impl Desk for Work<'_> {
    fn replies(&self) -> &Path {
        &self.replies
    }

    fn progress(&self, done: u64, total: u64, note: &str) {
        Work::progress(self, done, total, "replies", note);
    }

    fn check(&self) -> Outcome<()> {
        Work::check(self)
    }

    fn metric(&self, name: &str, value: f64) {
        // A step may annotate more than once.
        *self.said().metrics.entry(name.to_owned()).or_default() += value;
    }

    fn noted(&self, name: &str) -> f64 {
        self.said().metrics.get(name).copied().unwrap_or(0.0)
    }
}

/// Where an output's files go. They become visible when the stage ends well.
#[derive(Clone, Copy, Debug)]
pub struct OutputFolder<'a>(&'a Path);

impl<'a> OutputFolder<'a> {
    /// The folder itself.
    pub fn path(&self) -> &'a Path {
        self.0
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Outcome<()> {
        let path = self.0.join(file);
        if let Some(folder) = path.parent() {
            fs::create_folder(folder)?;
        }
        fs::write(&path, bytes)
    }

    /// Writes one JSON value, indented, ending in a line break.
    ///
    /// # Errors
    /// When the disk refuses or the value cannot be JSON.
    pub fn write_json<T: Serialize + ?Sized>(&self, file: &str, value: &T) -> Outcome<()> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| not_json(file, error))?;
        bytes.push(b'\n');
        self.write(file, &bytes)
    }

    /// Writes one JSON value a line.
    ///
    /// # Errors
    /// When the disk refuses or a value cannot be JSON.
    pub fn write_rows<T: Serialize>(&self, file: &str, rows: &[T]) -> Outcome<()> {
        let mut bytes = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut bytes, row).map_err(|error| not_json(file, error))?;
            bytes.push(b'\n');
        }
        self.write(file, &bytes)
    }
}

fn not_json(file: &str, error: serde_json::Error) -> Failure {
    Failure::bug(format!("writing `{file}`")).caused_by(error)
}
