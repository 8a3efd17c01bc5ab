//! The turns of a run: judge, queue, start, end, settle; what failed, what is
//! damaged, what must wait.
//!
//! Among queued steps the one with the longest way behind it (in estimated
//! seconds) goes first.

use crate::{
    base::{
        failure::{Class, Doing, Failure, Outcome},
        hash::Digest,
    },
    host::{clock, signal::StopFlag},
    plan::{Plan, Step, freshness::Reason},
    runner::{
        attempt::{Attempt, Ended},
        drive::{Drive, Options},
        event::{Event, Observer},
        executor::Executor,
        judge::{Judge, Verdict, digest_of, estimate},
        state::{State, States},
    },
    stages::kind::Ready,
    store::{
        Store,
        history::{Entry, History},
        journal::{Journal, Note},
        record::{ActionRecord, Output},
    },
};
use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::mpsc,
    thread::Scope,
    time::Instant,
};

/// What the thread of a step says.
pub(super) enum Message {
    /// Its stage has done its work; what it made is being stored.
    Worked,
    /// It is over, and this came of it; the flag says that it left its place
    /// before.
    Ended(usize, Ended, bool),
}

/// Steps that may be storing what they made beside those that work. Storing
/// mostly waits for the disk, and many waits together take hardly longer than
/// one: the file system writes them in one go.
const STORING: usize = 64;

/// A run that goes on.
pub(super) struct Run<'a> {
    plan: &'a Plan,
    stages: &'a [Ready],
    store: &'a Store,
    executor: &'a dyn Executor,
    observer: &'a dyn Observer,
    stop: StopFlag,
    before: &'a dyn Fn() -> Outcome<()>,
    options: Options,
    pub(super) states: States,
    pending: Vec<usize>, // inputs that are not settled, by step
    ready: VecDeque<usize>,
    queue: BTreeSet<(Reverse<u64>, usize)>,
    priority: Vec<u64>,
    verdicts: Vec<Option<(String, Digest)>>,
    pub(super) records: Vec<Option<Box<ActionRecord>>>,
    pub(super) failures: Vec<(usize, Failure)>,
    started: Vec<Option<Instant>>,
    /// Stages that work now, each with a place of its own.
    pub(super) running: usize,
    /// Steps that were started and have not ended.
    pub(super) open: usize,
    pub(super) journal: Journal,
    sender: mpsc::Sender<Message>,
}

impl<'a> Run<'a> {
    pub(super) fn new(drive: &Drive<'a>, sender: mpsc::Sender<Message>) -> Run<'a> {
        let n = drive.plan.steps.len();
        let pending: Vec<usize> =
            drive.plan.steps.iter().map(|step| distinct(step).len()).collect();
        let mut states = States::new(n);
        let ready: VecDeque<usize> = (0..n).filter(|&step| pending[step] == 0).collect();
        ready.iter().for_each(|&step| states.set(step, State::Ready));
        Run {
            plan: drive.plan,
            stages: drive.stages,
            store: drive.store,
            executor: drive.executor,
            observer: drive.observer,
            stop: drive.stop.clone(),
            before: drive.before,
            options: drive.options.clone(),
            states,
            pending,
            ready,
            queue: BTreeSet::new(),
            priority: Vec::new(),
            verdicts: vec![None; n],
            records: (0..n).map(|_| None).collect(),
            failures: Vec::new(),
            started: vec![None; n],
            running: 0,
            open: 0,
            journal: Journal::new(drive.store),
            sender,
        }
    }

    pub(super) fn judge_ready(&mut self, history: &mut History) -> Outcome<()> {
        while let Some(step) = self.ready.pop_front() {
            if self.states.get(step) != State::Ready {
                continue;
            }
            let judge =
                Judge { plan: self.plan, store: Some(self.store), verify: self.options.verify };
            let records = &self.records;
            let made = |from: usize, output: &str| digest_of(records[from].as_deref(), output);
            let Verdict { identity, key, found } = judge.judge(step, history, &made)?;
            match found {
                Ok(record) => {
                    self.observer.hear(&Event::Fresh { step });
                    self.settle(step, State::Fresh, record, history)?;
                }
                Err(reason) => {
                    self.verdicts[step] = Some((identity, key));
                    self.enqueue(step, &reason, history)?;
                }
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, step: usize, reason: &Reason, history: &History) -> Outcome<()> {
        if self.priority.is_empty() {
            self.priority = priorities(self.plan, history);
        }
        if let Reason::Damaged(why) = reason {
            self.heal(step, why.clone())?;
        }
        self.observer.hear(&Event::Stale { step, reason: reason.clone() });
        self.states.set(step, State::Queued);
        self.queue.insert((Reverse(self.priority[step]), step));
        Ok(())
    }

    pub(super) fn may_start(&self) -> bool {
        let wanted = self.failures.is_empty() || self.options.keep_going;
        wanted
            && !self.queue.is_empty()
            && self.running < self.options.jobs
            && self.open < self.options.jobs + STORING
            && !self.stop.is_raised()
    }

    pub(super) fn start<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Outcome<()>
    where
        'a: 'scope,
    {
        let (_, step) = self.queue.pop_first().expect("asked before");
        if !self.journal.is_open() {
            self.open_journal()?;
        }
        let planned = &self.plan.steps[step];
        let (identity, key) = self.verdicts[step].clone().expect("a queued step was judged");
        self.journal.note(Note::StepStarted { step: planned.title.clone(), key })?;
        self.observer.hear(&Event::Started { step });
        self.states.set(step, State::Running);
        self.started[step] = Some(Instant::now());
        self.running += 1;
        self.open += 1;
        // Steps that run or could run now share the cores.
        let sharers = (self.running + self.queue.len()).min(self.options.jobs);
        let Ready { stage, seed, device } = &self.stages[step];
        let attempt = Attempt {
            step: planned,
            stage: stage.as_ref(),
            identity,
            key,
            inputs: self.inputs(step),
            seed: *seed,
            device: device.to_string(),
            threads: (clock::cores() / sharers).max(1),
            run: self.journal.id().to_owned(),
            verify: self.options.verify,
            stop: self.stop.clone(),
        };
        let (store, executor, observer) = (self.store, self.executor, self.observer);
        let sender = self.sender.clone();
        std::thread::Builder::new()
            .name(planned.title.clone())
            .stack_size(8 << 20)
            .spawn_scoped(scope, move || {
                let waiting = |holder| observer.hear(&Event::Waiting { step, holder });
                let listener = |progress| observer.hear(&Event::Progress { step, progress });
                // The loop listens until the last step has ended.
                let told = Cell::new(false);
                let worked = || {
                    told.set(true);
                    let _ = sender.send(Message::Worked);
                };
                let ended = attempt.run(store, executor, &waiting, &listener, &worked);
                let _ = sender.send(Message::Ended(step, ended, told.get()));
            })
            .doing(|| "starting a thread".to_owned())?;
        Ok(())
    }

    fn inputs(&self, step: usize) -> Vec<(String, usize, String, Output)> {
        let inputs = self.plan.steps[step].inputs.iter();
        inputs
            .map(|input| {
                let record = self.records[input.step].as_ref().expect("inputs are settled");
                let output =
                    record.output(&input.output).expect("a record has all outputs").clone();
                (input.role.clone(), input.step, self.plan.steps[input.step].title.clone(), output)
            })
            .collect()
    }

    pub(super) fn end(&mut self, step: usize, ended: Ended, history: &mut History) -> Outcome<()> {
        let title = self.plan.steps[step].title.clone();
        let key =
            self.verdicts[step].as_ref().map(|(_, key)| *key).expect("a running step was judged");
        let seconds = self.started[step].map_or(0.0, |at| at.elapsed().as_secs_f64());
        match ended {
            Ended::Done(record, elsewhere) => {
                self.journal.note(Note::StepDone { step: title, key, seconds })?;
                for text in &record.warnings {
                    self.observer.hear(&Event::Warned { step, text: text.clone() });
                }
                self.observer.hear(&Event::Done { step, seconds, elsewhere });
                self.settle(step, State::Done, record, history)
            }
            Ended::Damaged(maker, why) => self.rewind(step, maker, why),
            Ended::Failed(failure) if failure.class == Class::Interrupted => {
                self.journal.note(Note::StepStopped { step: title, key })?;
                self.observer.hear(&Event::Stopped { step });
                self.states.set(step, State::Stopped);
                Ok(())
            }
            Ended::Failed(failure) => {
                let (why, hints) = (failure.chain(), failure.hints.clone());
                self.journal.note(Note::StepFailed {
                    step: title,
                    key,
                    why: why.clone(),
                    seconds,
                })?;
                self.observer.hear(&Event::Failed { step, why, hints });
                self.states.set(step, State::Failed);
                self.failures.push((step, failure));
                self.skip_behind(step);
                Ok(())
            }
        }
    }

    fn settle(
        &mut self,
        step: usize,
        state: State,
        record: Box<ActionRecord>,
        history: &mut History,
    ) -> Outcome<()> {
        self.states.set(step, state);
        for logical in &self.plan.steps[step].logical {
            let entry = || Entry {
                step: logical.clone(),
                kind: record.kind.clone(),
                key: record.key,
                seconds: record.provenance.seconds,
            };
            history.note(self.store, logical, &record.key, entry)?;
        }
        self.records[step] = Some(record);
        for &dependent in &self.plan.steps[step].dependents {
            if self.states.get(dependent) == State::Waiting {
                self.pending[dependent] -= 1;
                if self.pending[dependent] == 0 {
                    self.states.set(dependent, State::Ready);
                    self.ready.push_back(dependent);
                }
            }
        }
        Ok(())
    }

    /// An input of `step` is damaged: its maker runs again, then the step.
    fn rewind(&mut self, step: usize, maker: usize, why: String) -> Outcome<()> {
        if self.states.get(maker).is_settled() {
            let key = self.records[maker].take().expect("a settled step has a record").key;
            self.store.quarantine(&key)?;
            self.heal(maker, why)?;
            self.states.set(maker, State::Ready);
            self.ready.push_back(maker);
            for &dependent in &self.plan.steps[maker].dependents {
                if self.states.get(dependent) == State::Waiting {
                    self.pending[dependent] += 1;
                }
            }
        }
        self.states.set(step, State::Waiting);
        let unsettled = |from: &usize| !self.states.get(*from).is_settled();
        self.pending[step] =
            distinct(&self.plan.steps[step]).iter().filter(|from| unsettled(from)).count();
        if self.pending[step] == 0 {
            self.states.set(step, State::Ready);
            self.ready.push_back(step);
        }
        Ok(())
    }

    fn heal(&mut self, step: usize, why: String) -> Outcome<()> {
        if !self.journal.is_open() {
            self.open_journal()?;
        }
        self.observer.hear(&Event::Healed { step, why: why.clone() });
        self.journal.note(Note::Healed { step: self.plan.steps[step].title.clone(), why })
    }

    fn skip_behind(&mut self, failed: usize) {
        let mut open = self.plan.steps[failed].dependents.clone();
        while let Some(step) = open.pop() {
            if matches!(self.states.get(step), State::Waiting | State::Ready) {
                self.states.set(step, State::Skipped(failed));
                self.observer.hear(&Event::Skipped { step, because: failed });
                open.extend(&self.plan.steps[step].dependents);
            }
        }
    }

    fn open_journal(&mut self) -> Outcome<()> {
        (self.before)()?;
        self.journal.note(Note::RunStarted {
            experiment: self.plan.experiment.clone(),
            manifest: self.options.manifest.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            host: clock::host_name(),
            device: self.options.device.clone(),
        })
    }

    pub(super) fn close(&mut self) -> Outcome<()> {
        if !self.journal.is_open() {
            return Ok(());
        }
        let count = |test: fn(State) -> bool| self.states.count(test) as u64;
        let note = Note::RunEnded {
            done: count(|state| state == State::Done),
            cached: count(|state| state == State::Fresh),
            failed: count(|state| state == State::Failed),
            skipped: count(|state| matches!(state, State::Skipped(_))),
        };
        self.journal.note(note)?;
        self.journal.sync()
    }
}

/// The steps a step reads, each once.
fn distinct(step: &Step) -> BTreeSet<usize> {
    step.inputs.iter().map(|input| input.step).collect()
}

/// For each step the estimated milliseconds from its start to the end of the
/// longest way behind it; a step of unknown length counts as one second.
fn priorities(plan: &Plan, history: &History) -> Vec<u64> {
    let mut longest = vec![0; plan.steps.len()];
    for &step in plan.order.iter().rev() {
        let own = (estimate(plan, step, history).unwrap_or(1.0) * 1000.0) as u64;
        let behind = plan.steps[step].dependents.iter().map(|&next| longest[next]).max();
        longest[step] = own.max(1) + behind.unwrap_or(0);
    }
    longest
}
