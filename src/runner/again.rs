//! Making a stored result again, beside the store, to see whether it comes out
//! the same. Nothing that is stored changes, and nothing unfinished is gone on
//! from: a shortcut would prove nothing.

use crate::{
    base::{
        failure::{Class, Failure, Outcome},
        hash::Digest,
    },
    host::{clock, fs, signal::StopFlag},
    plan::Step,
    runner::executor::{Executor, Job},
    stages::{
        kind::Ready,
        work::{Parts, Work},
    },
    store::{
        Store,
        artifact::Artifact,
        doubt::Doubt,
        record::{ActionRecord, Output},
    },
};
use std::time::Instant;

/// A stored step that is made again.
pub struct Again<'a> {
    /// The step.
    pub step: &'a Step,
    /// Its stage.
    pub ready: &'a Ready,
    /// What is stored of it.
    pub record: &'a ActionRecord,
    /// What it reads: role, title of the step that made it, artifact.
    pub inputs: Vec<(String, &'a str, &'a Output)>,
    /// Threads it may keep busy.
    pub threads: usize,
    /// Raised when it shall end soon.
    pub stop: StopFlag,
}

/// What came of it.
#[derive(Debug)]
pub enum Second {
    /// All outputs are the same, to the last bit; it took so many seconds.
    Same(f64),
    /// Some are not.
    Otherwise(Doubt),
    /// It cannot be made again here, and why.
    Unknown(String),
}

impl Again<'_> {
    /// Makes it again.
    ///
    /// # Errors
    /// When the store fails, or a person asked to stop; what the stage fails
    /// with is an answer.
    pub fn run(self, store: &Store, executor: &dyn Executor) -> Outcome<Second> {
        if self.ready.stage.outlay().asks {
            return Ok(Second::Unknown("it asks a server, which may want money".to_owned()));
        }
        for (_, from, output) in &self.inputs {
            if let Some(why) = store.damage_of(output)? {
                return Ok(Second::Unknown(format!("what it reads of `{from}`: {why}")));
            }
        }
        // A folder as for an attempt: what is left of a killed one is swept away.
        let scratch = Digest::tagged("rekindle 2026 again v1", self.record.key.bytes());
        let _lock = match store.try_lock(&scratch)? {
            Ok(lock) => lock,
            Err(holder) => return Ok(Second::Unknown(format!("{holder} makes it again now"))),
        };
        let folder = store.attempt(&scratch)?;
        let second = self.make(store, executor, &folder);
        fs::remove_folder(&folder)?;
        second
    }

    fn make(
        &self,
        store: &Store,
        executor: &dyn Executor,
        folder: &std::path::Path,
    ) -> Outcome<Second> {
        let began = Instant::now();
        let artifact = |output: &Output, from: &str| Artifact::new(store, output.clone(), from);
        let inputs = self.inputs.iter();
        let work = Work::new(Parts {
            seed: self.ready.seed,
            inputs: inputs.map(|(role, from, one)| (role.clone(), artifact(one, from))).collect(),
            outputs: self.step.shape.outputs.iter().map(|(name, _)| name.clone()).collect(),
            attempt: folder.join("attempt"),
            partial: folder.join("partial"),
            replies: store.replies(),
            device: self.ready.device.to_string(),
            threads: self.threads,
            granted: Default::default(),
            deadline: None,
            stop: self.stop.clone(),
            listener: &|_| {},
        })?;
        match executor.execute(&Job::of(self.step, self.ready, store.root()), &work) {
            Ok(()) => {}
            Err(failure) if failure.class == Class::Interrupted => return Err(failure),
            Err(failure) => return Ok(Second::Unknown(failure.chain().join(": "))),
        }
        let mut differing = Vec::new();
        for (name, kind) in &self.step.shape.outputs {
            let stored = self.record.output(name);
            let stored = stored.ok_or_else(|| Failure::bug(format!("a record has no `{name}`")))?;
            let made = Output::new(name, *kind, store.look_over(&work.outputs()[name])?);
            if made.digest != stored.digest {
                differing.push((name.clone(), stored.digest, made.digest));
            }
        }
        if differing.is_empty() {
            return Ok(Second::Same(began.elapsed().as_secs_f64()));
        }
        let doubt = Doubt {
            step: self.record.provenance.step.clone(),
            outputs: differing,
            at: clock::unix_seconds(),
            host: clock::host_name(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.ready.device.to_string(),
        };
        doubt.keep(store, &self.record.key)?;
        Ok(Second::Otherwise(doubt))
    }
}
