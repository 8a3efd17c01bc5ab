//! Whether a step's result is stored, and why not. The forecast that `plan`
//! shows and the decision that `run` takes come from here.

use crate::{
    base::{failure::Outcome, hash::Digest},
    plan::{
        Plan,
        freshness::{Freshness, Reason, changes},
        identity,
    },
    store::{Lookup, Store, doubt, history::History, record::ActionRecord},
};

/// What is known of a step whose inputs are settled.
#[derive(Debug)]
pub struct Verdict {
    /// Its identity.
    pub identity: String,
    /// The identity's digest.
    pub key: Digest,
    /// The stored result, or the reason to run.
    pub found: Result<Box<ActionRecord>, Reason>,
}

/// Where results are looked up.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// What is planned.
    pub plan: &'a Plan,
    /// Where results are; none before the first run.
    pub store: Option<&'a Store>,
    /// Whether every stored byte is read.
    pub verify: bool,
}

impl Judge<'_> {
    /// Judges a step; `made` gives the content digest of an output of a step.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn judge(
        &self,
        step: usize,
        history: &History,
        made: &dyn Fn(usize, &str) -> Digest,
    ) -> Outcome<Verdict> {
        let planned = &self.plan.steps[step];
        let inputs = planned.inputs.iter();
        let inputs = inputs.map(|input| (&input.role, made(input.step, &input.output)));
        let identity = identity::text(&planned.shape, inputs);
        let key = identity::action_key(&identity);
        let found = match self.store {
            None => Err(Reason::NeverRun),
            Some(store) => match store.look_up(&key, self.verify)? {
                Lookup::Hit(record) => Ok(record),
                Lookup::Damaged(why) => Err(Reason::Damaged(why)),
                Lookup::Miss => Err(self.reason(store, step, history, &identity, &key)?),
            },
        };
        Ok(Verdict { identity, key, found })
    }

    fn reason(
        &self,
        store: &Store,
        step: usize,
        history: &History,
        identity: &str,
        key: &Digest,
    ) -> Outcome<Reason> {
        if store.partial(key).exists() {
            return Ok(Reason::Unfinished);
        }
        let before = self.plan.steps[step].logical.iter().find_map(|id| history.last(id));
        let Some(before) = before else { return Ok(Reason::NeverRun) };
        if before.key == *key {
            return Ok(Reason::Damaged("its result is gone from the store".to_owned()));
        }
        Ok(match store.record(&before.key)? {
            Some(record) => Reason::Changed(changes(self.plan, step, &record.identity, identity)),
            None => Reason::NeverRun,
        })
    }
}

/// What is to be expected of a step.
#[derive(Debug)]
pub struct Expected {
    /// Whether it must run.
    pub freshness: Freshness,
    /// Its identity, where its inputs are settled.
    pub verdict: Option<Verdict>,
    /// Seconds it probably takes, where anything like it ran before.
    pub estimate: Option<f64>,
    /// Whether its result came out otherwise when it was made again.
    pub doubted: bool,
}

/// What is to be expected of every step, without doing anything.
///
/// # Errors
/// When the store cannot be read.
pub fn forecast(judge: Judge<'_>, history: &History) -> Outcome<Vec<Expected>> {
    let all = vec![true; judge.plan.steps.len()];
    let expected = forecast_some(judge, history, &all)?;
    let mut expected: Vec<Expected> =
        expected.into_iter().map(|one| one.expect("all were asked for")).collect();
    if let Some(store) = judge.store.filter(|store| store.has_any_out()) {
        call_back(judge.plan, store, &mut expected);
    }
    Ok(expected)
}

/// What is to be expected of these steps and of all that is behind them; nothing
/// else is looked at.
///
/// # Errors
/// When the store cannot be read.
pub fn forecast_behind(
    judge: Judge<'_>,
    history: &History,
    steps: &[usize],
) -> Outcome<Vec<Option<Expected>>> {
    let mut wanted = vec![false; judge.plan.steps.len()];
    let mut open = steps.to_vec();
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut wanted[step], true) {
            open.extend(judge.plan.steps[step].inputs.iter().map(|input| input.step));
        }
    }
    forecast_some(judge, history, &wanted)
}

/// What is to be expected of the steps that are wanted, with all that is behind each.
fn forecast_some(
    judge: Judge<'_>,
    history: &History,
    wanted: &[bool],
) -> Outcome<Vec<Option<Expected>>> {
    let plan = judge.plan;
    let doubts = judge.store.map(doubt::all).transpose()?.unwrap_or_default();
    let mut expected: Vec<Option<Expected>> = plan.steps.iter().map(|_| None).collect();
    for &step in plan.order.iter().filter(|&&step| wanted[step]) {
        let planned = &plan.steps[step];
        let record = |from: usize| {
            let expected: Option<&Expected> = expected[from].as_ref();
            expected
                .and_then(|e| e.verdict.as_ref())
                .and_then(|verdict| verdict.found.as_deref().ok())
        };
        let mut waits: Vec<usize> = planned
            .inputs
            .iter()
            .map(|input| input.step)
            .filter(|&from| record(from).is_none())
            .collect();
        waits.sort_unstable();
        waits.dedup();
        let verdict = if waits.is_empty() {
            let made = |from: usize, output: &str| digest_of(record(from), output);
            Some(judge.judge(step, history, &made)?)
        } else {
            None
        };
        let freshness = match &verdict {
            None => Freshness::Waits(waits),
            Some(Verdict { found: Ok(_), .. }) => Freshness::Fresh,
            Some(Verdict { found: Err(reason), .. }) => Freshness::Stale(reason.clone()),
        };
        let estimate = estimate(plan, step, history);
        let doubted = verdict.as_ref().is_some_and(|verdict| doubts.contains(&verdict.key));
        expected[step] = Some(Expected { freshness, verdict, estimate, doubted });
    }
    Ok(expected)
}

/// A step whose contents are out runs again where one that reads it runs.
fn call_back(plan: &Plan, store: &Store, expected: &mut [Expected]) {
    for &step in plan.order.iter().rev() {
        let reader = |&reader: &usize| expected[reader].freshness != Freshness::Fresh;
        let one = &expected[step];
        let Some(Ok(record)) = one.verdict.as_ref().map(|verdict| verdict.found.as_ref()) else {
            continue;
        };
        if let Some(reader) = plan.steps[step].dependents.iter().copied().find(reader)
            && store.has_out(record)
        {
            let why = format!(
                "it was left out or taken out to save space, and `{}` reads it",
                plan.steps[reader].title
            );
            expected[step].freshness = Freshness::Stale(Reason::Damaged(why));
        }
    }
}

/// Seconds a step probably takes.
pub fn estimate(plan: &Plan, step: usize, history: &History) -> Option<f64> {
    let planned = &plan.steps[step];
    let own = planned.logical.iter().find_map(|id| history.last(id)).map(|entry| entry.seconds);
    own.or_else(|| history.estimate(&planned.logical[0], &planned.shape.kind))
}

/// Content digest of an output of a record.
///
/// # Panics
/// When the record is of another kind of step.
pub fn digest_of(record: Option<&ActionRecord>, output: &str) -> Digest {
    record
        .and_then(|record| record.output(output))
        .map(|output| output.digest)
        .expect("outputs are part of the identity, so a record has them all")
}
