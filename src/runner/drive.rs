//! A run from its first step to its last: the loop that judges what is ready,
//! starts what must run in threads, and settles what ended. A step that only
//! stores what it made leaves its place, and what it had of the machine, to the
//! next one.
//!
//! Only this thread changes states, history and journal.

use crate::{
    base::failure::{Failure, Outcome},
    host::signal::StopFlag,
    plan::Plan,
    runner::{
        event::Observer,
        executor::Executor,
        resources::{Capacity, Claim},
        state::State,
        turn::{Message, Run},
        watch::Signs,
    },
    stages::kind::Ready,
    store::{Store, history::History, record::ActionRecord},
};
use std::{sync::mpsc, thread::Scope, time::Instant};

/// A run to be.
pub struct Drive<'a> {
    /// What is planned.
    pub plan: &'a Plan,
    /// What runs for each step.
    pub stages: &'a [Ready],
    /// What each step wants of the machine.
    pub claims: &'a [Claim],
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
    /// What they may take of the machine, all together.
    pub capacity: Capacity,
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
    let signs = Signs::new(drive.plan.steps.len());
    let mut run = Run::new(&drive, sender, &signs)?;
    let history = drive.history;
    let gone = std::thread::scope(|scope| {
        let gone = turns(&mut run, &receiver, scope, history);
        if gone.is_err() {
            // The store failed: nobody would hear of what the others still come to.
            drive.stop.raise();
        }
        gone
    });
    let closed = gone.and_then(|()| run.close());
    // On a full disk, what is left of attempts is in the way of the next one.
    let swept = drive.store.leave_all().and_then(|()| drive.store.sweep());
    closed.and(swept)?;
    Ok(Finished {
        failures: run.failures,
        stopped: drive.stop.is_raised(),
        run: run.journal.is_open().then(|| run.journal.id().to_owned()),
        states: run.states.all().to_vec(),
        records: run.records,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Goes on until nothing is ready and nothing runs.
fn turns<'scope, 'a: 'scope>(
    run: &mut Run<'a>,
    receiver: &mpsc::Receiver<Message>,
    scope: &'scope Scope<'scope, '_>,
    history: &mut History,
) -> Outcome<()> {
    loop {
        run.judge_ready(history)?;
        while let Some((step, grant)) = run.next() {
            run.start(step, grant, scope)?;
        }
        if run.is_over() {
            return Ok(());
        }
        match receiver.recv_timeout(run.sleep()) {
            Ok(Message::Worked(step)) => run.leave(step),
            Ok(Message::Ended(step, ended)) => {
                run.open -= 1;
                run.leave(step);
                run.end(step, ended, history)?;
            }
            // It is time to look around; the run has a sender itself.
            Err(_) => {}
        }
        run.tell_silence()?;
        run.wake()?;
    }
}
