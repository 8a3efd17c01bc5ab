//! What a run will probably take: time, tokens, money and room on the disk, from
//! what such steps took before and from what their stages say of themselves.
//!
//! Ranges of steps are added as if all were low, or all high, together: one slow
//! machine slows everything. That is wider than if each step varied by itself.

use crate::{
    base::failure::Outcome,
    plan::{Plan, freshness::Freshness},
    runner::{
        foreseen::{Foresight, foresee},
        judge::Expected,
    },
    stages::kind::{Outlay, Ready},
    store::{
        Store,
        history::{Cost, History},
        spread::Range,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

/// What a run takes in one respect.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// That of the steps about which something is known.
    pub range: Range,
    /// Steps about which nothing is known.
    pub unknown: u64,
}

/// What a run takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Steps that run, or may.
    pub steps: u64,
    /// Seconds from start to end, with so many steps at once.
    pub wall: Share,
    /// Seconds of all steps one after the other.
    pub work: Share,
    /// Tokens read, written and learnt from.
    pub tokens: Share,
    /// Dollars.
    pub dollars: Share,
    /// Dollars at most, by bounds that stages set themselves; none where one that may cost money
    /// sets none.
    pub dollars_at_most: Option<f64>,
    /// Bytes of what is stored.
    pub stored: Share,
    /// What those steps probably take of which nothing was measured, by sizes that the manifest names.
    pub foreseen: Foresight,
    /// Bytes in use at most while it goes on: what is stored and the checkpoints beside it.
    pub disk: Share,
}

impl Share {
    fn add(&mut self, range: Option<Range>) {
        match range {
            Some(range) => self.range = self.range.plus(range),
            None => self.unknown += 1,
        }
    }
}

/// What a run takes, if all that may run does.
///
/// # Errors
/// When the store cannot be read.
pub fn outlook(
    plan: &Plan,
    stages: &[Ready],
    expected: &[Expected],
    store: Option<&Store>,
    history: &History,
    jobs: usize,
) -> Outcome<Outlook> {
    let mut all = Outlook { dollars_at_most: Some(0.0), ..Outlook::default() };
    let scatter = history.scatter();
    let mut seconds: Vec<Option<Range>> = vec![None; expected.len()];
    let mut checkpoints: Vec<Range> = Vec::new();
    let mut unmeasured = vec![false; expected.len()];
    for (step, one) in expected.iter().enumerate() {
        if one.freshness == Freshness::Fresh {
            continue;
        }
        all.steps += 1;
        let planned = &plan.steps[step];
        let outlay = stages[step].stage.outlay();
        seconds[step] = history.time(&planned.logical, &planned.shape.kind, &scatter);
        all.work.add(seconds[step]);
        let cost = history.cost(&planned.logical, store)?;
        unmeasured[step] = cost.is_none();
        all.tokens.add(cost.map(|cost| Range::exact(cost.tokens)));
        money(&mut all, &outlay, cost.as_ref());
        let made = cost.map(|cost| Range::exact(cost.bytes as f64)).or_else(|| {
            let (low, high) = outlay.bytes?;
            Some(Range { low: low as f64, middle: high as f64, high: high as f64 })
        });
        all.stored.add(made);
        if let (Some(made), 1..) = (made, outlay.checkpoints) {
            let copies = f64::from(outlay.checkpoints);
            let Range { middle, high, .. } = made;
            checkpoints.push(Range { low: 0.0, middle: middle * copies, high: high * copies });
        }
    }
    all.foreseen = foresee(plan, stages, &|step| unmeasured[step]);
    all.wall = Share { range: wall(plan, expected, &seconds, jobs), unknown: all.work.unknown };
    // As many as run at once may have checkpoints at once, the largest of them.
    checkpoints.sort_by(|a, b| b.high.total_cmp(&a.high));
    let beside = checkpoints.iter().take(jobs).fold(Range::default(), |sum, one| sum.plus(*one));
    all.disk = Share { range: all.stored.range.plus(beside), unknown: all.stored.unknown };
    Ok(all)
}

/// Adds the money of a step that asks a server.
fn money(all: &mut Outlook, outlay: &Outlay, cost: Option<&Cost>) {
    if !outlay.asks {
        return;
    }
    match outlay.dollars {
        // A server that has no price.
        Some(0.0) => return,
        Some(bound) => all.dollars_at_most = all.dollars_at_most.map(|sum| sum + bound),
        None => all.dollars_at_most = None,
    }
    // Another text makes other replies, and more of them where some are of no use.
    let range = |cost: &Cost| Range {
        low: cost.dollars / 2.0,
        middle: cost.dollars,
        high: (2.0 * cost.dollars).min(outlay.dollars.unwrap_or(f64::INFINITY)),
    };
    all.dollars.add(cost.map(range));
}

/// Seconds until all is done, with every step as fast, likely or slow as it may
/// be, and with `jobs` at once, the longest way first as a run does it.
fn wall(plan: &Plan, expected: &[Expected], seconds: &[Option<Range>], jobs: usize) -> Range {
    let by = |take: fn(Range) -> f64| {
        let time = |step: usize| seconds[step].map_or(0.0, take);
        schedule(plan, &|step| expected[step].freshness != Freshness::Fresh, &time, jobs)
    };
    Range {
        low: by(|range| range.low),
        middle: by(|range| range.middle),
        high: by(|range| range.high),
    }
}

/// The end of a schedule of the steps that run, in seconds.
fn schedule(
    plan: &Plan,
    runs: &dyn Fn(usize) -> bool,
    time: &dyn Fn(usize) -> f64,
    jobs: usize,
) -> f64 {
    let micros = |step: usize| (time(step) * 1e6) as u64;
    let mut behind = vec![0; plan.steps.len()];
    for &step in plan.order.iter().rev() {
        let longest = plan.steps[step].dependents.iter().map(|&next| behind[next]).max();
        behind[step] = longest.unwrap_or(0) + if runs(step) { micros(step) } else { 0 };
    }
    let waits_for = |step: usize| -> BTreeSet<usize> {
        plan.steps[step].inputs.iter().map(|input| input.step).filter(|&from| runs(from)).collect()
    };
    let mut pending: Vec<usize> = (0..plan.steps.len())
        .map(|step| if runs(step) { waits_for(step).len() } else { 0 })
        .collect();
    let mut ready: BinaryHeap<(u64, Reverse<usize>)> = (0..plan.steps.len())
        .filter(|&step| runs(step) && pending[step] == 0)
        .map(|step| (behind[step], Reverse(step)))
        .collect();
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut now = 0;
    loop {
        while running.len() < jobs.max(1)
            && let Some((_, Reverse(step))) = ready.pop()
        {
            running.push(Reverse((now + micros(step), step)));
        }
        let Some(Reverse((end, step))) = running.pop() else { return now as f64 / 1e6 };
        now = end;
        for &next in plan.steps[step].dependents.iter().filter(|&&next| runs(next)) {
            pending[next] -= 1;
            if pending[next] == 0 {
                ready.push((behind[next], Reverse(next)));
            }
        }
    }
}
