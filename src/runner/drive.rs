//! A run from its first step to its last: the loop that judges what is ready,
//! starts what must run in threads, and settles what ended. A step that only
//! stores what it made leaves its place to the next one.
//!
//! Only this thread changes states, history and journal.

use crate::{
    base::failure::{Doing, Failure, Outcome},
    host::signal::StopFlag,
    plan::Plan,
    runner::{
        event::Observer,
        executor::Executor,
        state::State,
        turn::{Message, Run},
    },
    stages::kind::Ready,
    store::{Store, history::History, record::ActionRecord},
};
use std::{sync::mpsc, time::Instant};

/// A run to be.
pub struct Drive<'a> {
    /// What is planned.
    pub plan: &'a Plan,
    /// What runs for each step.
    pub stages: &'a [Ready],
    /// Where results go.
    pub store: &'a Store,
    /// What was before.
    pub history: &'a mut History,
    /// Where stages run.
    pub executor: &'a dyn Executor,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Raised when all shall end soon.
    pub stop: StopFlag,
    /// Called once before anything is done, if anything must be.
    pub before: &'a dyn Fn() -> Outcome<()>,
    /// How to go about it.
    pub options: Options,
}

/// How to go about a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps at the same time.
    pub jobs: usize,
    /// Whether steps that do not depend on a failed one still start.
    pub keep_going: bool,
    /// Whether every stored byte is read before it is trusted.
    pub verify: bool,
    /// The device as asked for.
    pub device: String,
    /// The manifest's name, for the journal.
    pub manifest: String,
}

/// What came of a run.
#[derive(Debug)]
pub struct Finished {
    /// The last state of each step.
    pub states: Vec<State>,
    /// What failed, by step.
    pub failures: Vec<(usize, Failure)>,
    /// The record of each step whose result is stored.
    pub records: Vec<Option<Box<ActionRecord>>>,
    /// Whether a person stopped it.
    pub stopped: bool,
    /// The run's name, if anything ran.
    pub run: Option<String>,
    /// Wall time.
    pub seconds: f64,
}

/// Runs the steps of a plan that must run.
///
/// # Errors
/// When the store fails; what a stage fails with is in [`Finished`].
pub fn drive(drive: Drive<'_>) -> Outcome<Finished> {
    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let mut run = Run::new(&drive, sender);
    let history = drive.history;
    std::thread::scope(|scope| -> Outcome<()> {
        loop {
            run.judge_ready(history)?;
            while run.may_start() {
                run.start(scope)?;
            }
            if run.open == 0 {
                return Ok(());
            }
            match receiver.recv().doing(|| "waiting for a step".to_owned())? {
                Message::Worked => run.running -= 1,
                Message::Ended(step, ended, left) => {
                    run.open -= 1;
                    run.running -= usize::from(!left);
                    run.end(step, ended, history)?;
                }
            }
        }
    })?;
    run.close()?;
    drive.store.sweep()?;
    Ok(Finished {
        failures: run.failures,
        stopped: drive.stop.is_raised(),
        run: run.journal.is_open().then(|| run.journal.id().to_owned()),
        states: run.states.all().to_vec(),
        records: run.records,
        seconds: started.elapsed().as_secs_f64(),
    })
}
