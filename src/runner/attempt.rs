//! One step, from an empty folder to a published record, under its lock.

use crate::{
    base::{
        failure::{Class, Failure, Outcome},
        hash::Digest,
        text,
    },
    host::{clock, fs, lock::Lock, signal::StopFlag},
    plan::Step,
    runner::executor::{Executor, Job},
    stages::{
        kind::Ready,
        work::{Granted, Parts, Progress, Work},
    },
    store::{
        Lookup, Store,
        artifact::Artifact,
        record::{ActionRecord, Output, Provenance},
    },
};
use std::time::{Duration, Instant};

/// All that is needed for one attempt.
pub struct Attempt<'a> {
    /// The step.
    pub step: &'a Step,
    /// Its stage, and how it is to be run.
    pub ready: &'a Ready,
    /// Its identity.
    pub identity: String,
    /// The identity's digest.
    pub key: Digest,
    /// What it reads: role, number and title of the step that made it, artifact.
    pub inputs: Vec<(String, usize, String, Output)>,
    /// Threads it may keep busy.
    pub threads: usize,
    /// What it was given of the machine.
    pub granted: Granted,
    /// The run's name.
    pub run: String,
    /// Whether every stored byte is read before it is trusted.
    pub verify: bool,
    /// Raised when all shall end soon.
    pub stop: StopFlag,
}

/// What came of it.
pub enum Ended {
    /// It is done. The flag says that another process did it.
    Done(Box<ActionRecord>, bool),
    /// An input, made by this step, turned out to be damaged.
    Damaged(usize, String),
    /// It failed, or was asked to end.
    Failed(Failure),
}

/// Hears how far a stage is.
pub type Listener<'a> = &'a (dyn Fn(Progress) + Sync);

impl Attempt<'_> {
    /// Runs the step, or takes over what another process makes of it.
    ///
    /// `waiting` hears who is waited for, once, and then that it still waits; `worked` when there is nothing left
    /// to do but to store what was made.
    pub fn run(
        self,
        store: &Store,
        executor: &dyn Executor,
        waiting: &dyn Fn(Option<String>),
        listener: Listener<'_>,
        worked: &dyn Fn(),
    ) -> Ended {
        match self.try_run(store, executor, waiting, listener, worked) {
            Ok(ended) => ended,
            Err(failure) => Ended::Failed(failure),
        }
    }

    fn try_run(
        self,
        store: &Store,
        executor: &dyn Executor,
        waiting: &dyn Fn(Option<String>),
        listener: Listener<'_>,
        worked: &dyn Fn(),
    ) -> Outcome<Ended> {
        let _lock = self.lock(store, waiting)?;
        match store.look_up(&self.key, self.verify)? {
            Lookup::Hit(record) => return Ok(Ended::Done(record, true)),
            Lookup::Damaged(_) => store.quarantine(&self.key)?,
            Lookup::Miss => {}
        }
        for (_, maker, _, output) in &self.inputs {
            if let Some(why) = store.damage_of(output)? {
                return Ok(Ended::Damaged(*maker, why));
            }
        }
        let outputs: Vec<String> =
            self.step.shape.outputs.iter().map(|(name, _)| name.clone()).collect();
        let slot = store.slot(&self.key, &outputs, self.ready.stage.is_a_process())?;
        let (started, clock) = (clock::unix_seconds(), Instant::now());
        let artifact = |output: &Output, from: &str| Artifact::new(store, output.clone(), from);
        let limit = self.ready.execution.limit();
        let work = Work::new(Parts {
            seed: self.ready.seed,
            inputs: self
                .inputs
                .iter()
                .map(|(role, _, title, output)| (role.clone(), artifact(output, title)))
                .collect(),
            outputs,
            attempt: slot.folder().to_owned(),
            partial: store.partial(&self.key),
            replies: store.replies(),
            device: self.ready.device.to_string(),
            threads: self.threads,
            granted: self.granted.clone(),
            deadline: limit.map(|limit| Instant::now() + limit),
            stop: self.stop.clone(),
            listener,
        })?;
        let job = Job::of(self.step, self.ready, store.root());
        if let Err(failure) = executor.execute(&job, &work) {
            // The failure is told; what is left of the attempt goes with the next `sweep`.
            let _ = fs::remove_folder(slot.folder());
            return Err(match limit {
                Some(limit) if work.is_late() && !self.stop.is_raised() => {
                    out_of_time(failure, limit)
                }
                _ => failure,
            });
        }
        worked();
        let _storing = store.storing()?;
        let outputs = self.take_in(store, &work)?;
        let said = work.said().clone();
        let record = ActionRecord {
            key: self.key,
            kind: self.step.shape.kind.clone(),
            identity: self.identity,
            outputs,
            metrics: said.metrics,
            warnings: said.warnings,
            provenance: Provenance {
                step: self.step.logical[0].clone(),
                run: self.run,
                host: clock::host_name(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                device: self.ready.device.to_string(),
                started,
                seconds: clock.elapsed().as_secs_f64(),
            },
        };
        store.publish(&record, slot.folder())?;
        store.leave(slot)?;
        Ok(Ended::Done(Box::new(record), false))
    }

    /// Takes the step's lock; while somebody else has it, waits.
    fn lock(&self, store: &Store, waiting: &dyn Fn(Option<String>)) -> Outcome<Lock> {
        let mut pause = Duration::from_millis(5);
        let mut told = false;
        loop {
            match store.try_lock(&self.key)? {
                Ok(lock) => return Ok(lock),
                Err(holder) if !told && pause > Duration::from_millis(100) => {
                    waiting(Some(holder));
                    told = true;
                }
                Err(_) => waiting(None),
            }
            if self.stop.is_raised() {
                return Err(Failure::interrupted());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    fn take_in(&self, store: &Store, work: &Work) -> Outcome<Vec<Output>> {
        let mut outputs = Vec::new();
        for (name, kind) in &self.step.shape.outputs {
            let files = store.take_in(&work.outputs()[name])?;
            if files.is_empty() {
                return Err(Failure::new(
                    Class::Input,
                    format!(
                        "step `{}` ended without a file for its output `{name}`",
                        self.step.title
                    ),
                ));
            }
            outputs.push(Output::new(name, *kind, files));
        }
        Ok(outputs)
    }
}

/// What becomes of a step that was ended because its time was up; any other
/// failure stands.
fn out_of_time(failure: Failure, limit: Duration) -> Failure {
    if failure.class != Class::Interrupted {
        return failure;
    }
    let limit = text::duration(limit);
    let hint = "the next run goes on from what was saved, if it was; a larger `timeout` gives more \
                time";
    let late = Failure::environment(format!("it was not done after {limit}, its `timeout`"));
    Failure { hints: failure.hints, ..late }.hint(hint)
}
