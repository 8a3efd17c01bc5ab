//! The turns of a run: judge, queue, start, end, settle; what failed, what is
//! damaged, what must wait.
//!
//! Among queued steps the one with the longest way behind it (in estimated
//! seconds) goes first, as soon as the machine has what it wants.

use crate::{
    base::{
        failure::{Class, Doing, Failure, Outcome},
        hash::Digest,
    },
    host::{clock, patience::Patience, signal::StopFlag},
    plan::{Plan, Step, freshness::Reason},
    runner::{
        attempt::{Attempt, Ended},
        drive::{Drive, Options},
        event::{Event, Observer},
        executor::Executor,
        judge::{Judge, Verdict, digest_of, estimate},
        resources::{Claim, Grant, Pool},
        state::{State, States},
        watch::{Resting, Signs, Watch},
    },
    stages::{kind::Ready, work::Granted},
    store::{
        Store,
        history::{Cost, Entry, History},
        journal::{Journal, Note},
        record::{ActionRecord, Output},
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::mpsc,
    thread::Scope,
    time::{Duration, Instant},
};

/// What the thread of a step says.
pub(super) enum Message {
    /// Its stage has done its work; what it made is being stored.
    Worked(usize),
    /// It is over, and this came of it.
    Ended(usize, Ended),
}

/// Steps that may be storing what they made beside those that work. Storing
/// mostly waits for the disk, and many waits together take hardly longer than
/// one: the file system writes them in one go.
const STORING: usize = 64;

/// A run that goes on.
pub(super) struct Run<'a> {
    plan: &'a Plan,
    stages: &'a [Ready],
    claims: &'a [Claim],
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
    /// Of these, those that said how many cores they keep busy.
    counted: usize,
    pool: Pool,
    /// What steps have of the machine, by step, while they work.
    grants: Vec<Option<Grant>>,
    /// Steps that were started and have not ended.
    pub(super) open: usize,
    pub(super) journal: Journal,
    signs: &'a Signs,
    watch: Watch,
    /// Tries that failed, by step.
    tries: Vec<u64>,
    patience: Patience,
    sender: mpsc::Sender<Message>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        drive: &Drive<'a>,
        sender: mpsc::Sender<Message>,
        signs: &'a Signs,
    ) -> Outcome<Run<'a>> {
        let n = drive.plan.steps.len();
        let pending: Vec<usize> =
            drive.plan.steps.iter().map(|step| distinct(step).len()).collect();
        let mut states = States::new(n);
        let ready: VecDeque<usize> = (0..n).filter(|&step| pending[step] == 0).collect();
        ready.iter().for_each(|&step| states.set(step, State::Ready));
        Ok(Run {
            plan: drive.plan,
            stages: drive.stages,
            claims: drive.claims,
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
            counted: 0,
            pool: Pool::new(drive.options.capacity.clone()),
            grants: vec![None; n],
            open: 0,
            journal: Journal::new(drive.store),
            signs,
            watch: Watch::default(),
            tries: vec![0; n],
            patience: Patience::between_steps()?,
            sender,
        })
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

    /// Whether anything new may start.
    fn is_wanted(&self) -> bool {
        (self.failures.is_empty() || self.options.keep_going) && !self.stop.is_raised()
    }

    /// Whether nothing runs, and nothing rests.
    pub(super) fn is_over(&self) -> bool {
        self.open == 0 && self.watch.resting.is_empty()
    }

    /// How long the loop may sleep.
    pub(super) fn sleep(&self) -> Duration {
        self.watch.sleep(self.signs)
    }

    /// The step that is to start now, out of the queue, with what it gets of
    /// the machine.
    pub(super) fn next(&mut self) -> Option<(usize, Grant)> {
        let may = self.is_wanted()
            && self.running < self.options.jobs
            && self.open < self.options.jobs + STORING;
        if !may {
            return None;
        }
        // What the steps in front wait for is kept from those behind them.
        let mut left = self.pool.clone();
        let fits = |&(_, step): &(Reverse<u64>, usize)| {
            let grant = left.take(&self.claims[step]);
            if grant.is_none() {
                left.set_aside(&self.claims[step]);
            }
            grant.is_some()
        };
        let first = self.queue.iter().copied().find(fits)?;
        self.queue.remove(&first);
        let (_, step) = first;
        let grant = self.pool.take(&self.claims[step]).expect("less was free a moment ago");
        Some((step, grant))
    }

    /// Takes back what a step had of the machine, if it still has it.
    pub(super) fn leave(&mut self, step: usize) {
        if let Some(grant) = self.grants[step].take() {
            self.running -= 1;
            self.counted -= usize::from(grant.cpus.is_some());
            self.pool.give_back(&grant);
        }
    }

    pub(super) fn start<'scope>(
        &mut self,
        step: usize,
        grant: Grant,
        scope: &'scope Scope<'scope, '_>,
    ) -> Outcome<()>
    where
        'a: 'scope,
    {
        if !self.journal.is_open() {
            self.open_journal()?;
        }
        let planned = &self.plan.steps[step];
        let (identity, key) = self.verdicts[step].clone().expect("a queued step was judged");
        self.journal.note(Note::StepStarted { step: planned.title.clone(), key })?;
        let cards = self.pool.names(&grant);
        self.observer.hear(&Event::Started { step, cards: cards.clone() });
        self.states.set(step, State::Running);
        self.started[step] = Some(Instant::now());
        self.running += 1;
        self.open += 1;
        self.counted += usize::from(grant.cpus.is_some());
        // Steps that run or could run now share the cores that nobody asked for.
        let others = self.options.jobs.saturating_sub(self.counted);
        let sharers = (self.running - self.counted + self.queue.len()).clamp(1, others.max(1));
        let share = (self.pool.free_cpus() / sharers).max(1);
        self.signs.heard(step);
        self.watch.begin(step, self.stages[step].execution.silence.duration());
        let attempt = Attempt {
            step: planned,
            ready: &self.stages[step],
            identity,
            key,
            inputs: self.inputs(step),
            threads: grant.cpus.unwrap_or(share),
            granted: Granted { cpus: grant.cpus, cards },
            run: self.journal.id().to_owned(),
            verify: self.options.verify,
            stop: self.stop.clone(),
        };
        self.grants[step] = Some(grant);
        let (store, executor, observer) = (self.store, self.executor, self.observer);
        let (sender, signs) = (self.sender.clone(), self.signs);
        std::thread::Builder::new()
            .name(planned.title.clone())
            .stack_size(8 << 20)
            .spawn_scoped(scope, move || {
                let waiting = |holder: Option<String>| match holder {
                    Some(holder) => observer.hear(&Event::Waiting { step, holder }),
                    None => signs.heard(step),
                };
                let listener = |progress| {
                    signs.heard(step);
                    observer.hear(&Event::Progress { step, progress });
                };
                // The loop listens until the last step has ended.
                let worked = || drop(sender.send(Message::Worked(step)));
                let ended = attempt.run(store, executor, &waiting, &listener, &worked);
                drop(sender.send(Message::Ended(step, ended)));
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
        self.watch.end(step);
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
            Ended::Failed(failure) if self.may_try_again(step, &failure) => {
                self.rest(step, key, failure)
            }
            Ended::Failed(failure) => self.fail(step, key, failure, seconds),
        }
    }

    /// Whether a failure may pass by itself, and another try is left.
    fn may_try_again(&self, step: usize, failure: &Failure) -> bool {
        failure.class == Class::Transient
            && self.tries[step] < self.stages[step].execution.retries
            && self.is_wanted()
    }

    /// Lets a step that failed rest before its next try.
    fn rest(&mut self, step: usize, key: Digest, failure: Failure) -> Outcome<()> {
        self.tries[step] += 1;
        let tries = self.tries[step];
        let pause = self.patience.pause(u32::try_from(tries).unwrap_or(u32::MAX), None);
        let (why, of) = (failure.chain(), self.stages[step].execution.retries + 1);
        let (title, seconds) = (self.plan.steps[step].title.clone(), pause.as_secs_f64());
        let note = Note::StepRetried { step: title, key, why: why.clone(), tries, pause: seconds };
        self.journal.note(note)?;
        self.observer.hear(&Event::Retried { step, why, tries, of, pause: seconds });
        self.states.set(step, State::Paused);
        self.watch.resting.push(Resting { step, until: Instant::now() + pause, failure });
        Ok(())
    }

    /// Queues the steps that have rested. Where nothing new may start, all that
    /// rest are over as they are.
    pub(super) fn wake(&mut self) -> Outcome<()> {
        let wanted = self.is_wanted();
        for Resting { step, failure, .. } in self.watch.rested(!wanted) {
            let (_, key) = self.verdicts[step].clone().expect("a step that ran was judged");
            let title = self.plan.steps[step].title.clone();
            if wanted {
                self.states.set(step, State::Queued);
                self.queue.insert((Reverse(self.priority[step]), step));
            } else if self.stop.is_raised() {
                self.journal.note(Note::StepStopped { step: title, key })?;
                self.observer.hear(&Event::Stopped { step });
                self.states.set(step, State::Stopped);
            } else {
                self.fail(step, key, failure, 0.0)?;
            }
        }
        Ok(())
    }

    /// Tells of steps that say nothing.
    pub(super) fn tell_silence(&mut self) -> Outcome<()> {
        for (step, silence) in self.watch.silent(self.signs) {
            let (title, seconds) = (self.plan.steps[step].title.clone(), silence.as_secs_f64());
            self.journal.note(Note::StepSilent { step: title, seconds })?;
            self.observer.hear(&Event::Silent { step, seconds });
        }
        Ok(())
    }

    fn fail(&mut self, step: usize, key: Digest, failure: Failure, seconds: f64) -> Outcome<()> {
        let (why, hints) = (failure.chain(), failure.hints.clone());
        let title = self.plan.steps[step].title.clone();
        self.journal.note(Note::StepFailed { step: title, key, why: why.clone(), seconds })?;
        self.observer.hear(&Event::Failed { step, why, hints });
        self.states.set(step, State::Failed);
        self.failures.push((step, failure));
        self.skip_behind(step);
        Ok(())
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
                cost: Some(Cost::of(&record)),
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
