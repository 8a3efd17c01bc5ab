//! Faults of a disk, brought about under the program's own hands: power that
//! goes after any change, a change that is refused, a disk that is full from
//! some change on. The studies run inside this process, once for each.

use super::{
    Finding, Trouble, demand,
    ground::{Ground, Ran, SMALL, World},
};
use crate::{
    base::{failure::Failure, hash::Digest, seed::Seed, text},
    host::{
        disk::{Change, Watcher, watch},
        tape::{Disk, Left, Op, Tape, Unsynced},
    },
    store::{Store, journal::Note, lines},
};
use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub(super) fn rows(ground: &Ground<'_>) -> Vec<Finding> {
    let whole =
        "what is visible is whole, what was told as done is not done again, the rest ends the same";
    let told =
        "a run that says it is done is whole; else it says what failed; the next one ends the same";
    let [kept, cut] = power(ground);
    vec![
        Finding::of("`kill -9` after any change", whole, kept),
        Finding::of("power cut after any change, what was not synced lost or torn", whole, cut),
        Finding::of("input/output error at any change, syncs among them", told, refused(ground)),
        Finding::of("disk full from any change on", told, full(ground)),
    ]
}

/// Does not wait for the disk, and counts.
#[derive(Default)]
struct Fast {
    changes: AtomicU64,
    /// The change that fails, and whether all that need room fail after it.
    fails: Option<(u64, bool)>,
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Watcher for Fast {
    fn before(&self, change: &Change<'_>) -> io::Result<bool> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let error = match self.fails {
            Some((place, false)) => (number == place).then_some(EIO),
            Some((place, true)) => (number >= place && needs_room(change)).then_some(ENOSPC),
            None => None,
        };
        if let Some(error) = error {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(!change.is_sync())
    }
}

fn needs_room(change: &Change<'_>) -> bool {
    match change {
        Change::Folder(_) | Change::Create(_) | Change::Append(..) | Change::Copy(..) => true,
        Change::Open(path) => !path.exists(),
        _ => false,
    }
}

/// Runs with a watcher at the world's folder.
fn watched(world: &World<'_>, watcher: Arc<dyn Watcher>) -> Result<Ran, Failure> {
    let _watch = watch(&world.root, watcher);
    world.run_here()
}

/// After each change of a run, with what was not synced kept and otherwise.
fn power(ground: &Ground<'_>) -> [Result<String, Trouble>; 2] {
    match recorded(ground) {
        Ok((world, ops, ran)) => {
            let kept = |_: u64| vec![Unsynced::Kept];
            let cut = |number: u64| {
                let dice = |i| Unsynced::Diced(Seed(ground.kills.into()).at(number).at(i));
                let [a, b] = [0, 1].map(dice);
                let all = [Unsynced::Lost, a, Unsynced::Torn, b, Unsynced::Empty];
                match ground.thorough {
                    true => all.to_vec(),
                    false => vec![all[number as usize % all.len()], a],
                }
            };
            [every_state(&world, &ops, &ran, &kept), every_state(&world, &ops, &ran, &cut)]
        }
        Err(trouble) => {
            let why = match trouble {
                Trouble::Wrong(why) | Trouble::Cannot(why) => why,
            };
            [Err(Trouble::Wrong(why.clone())), Err(Trouble::Wrong(why))]
        }
    }
}

fn recorded<'a>(ground: &'a Ground<'_>) -> Result<(World<'a>, Vec<Op>, Ran), Trouble> {
    let world = ground.world("power", SMALL)?;
    let tape = Tape::new(&world.root);
    let ran = watched(&world, tape.clone())?;
    Ok((world, tape.ops(), ran))
}

/// Lays out each state that `unsynced` gives for the number of changes, and
/// goes on from it.
fn every_state(
    world: &World<'_>,
    ops: &[Op],
    whole: &Ran,
    unsynced: &dyn Fn(u64) -> Vec<Unsynced>,
) -> Result<String, Trouble> {
    let report = {
        world.clear()?;
        watched(world, Arc::new(Fast::default()))?;
        world.report()?
    };
    let (mut disk, mut seen, mut cuts) = (Disk::default(), BTreeSet::<Left>::new(), 0);
    let mut told = BTreeSet::new();
    for number in 0..=ops.len() {
        if let Some(op) = number.checked_sub(1).map(|last| &ops[last]) {
            disk.apply(op);
            told.extend(told_as_done(op));
        }
        for unsynced in unsynced(number as u64) {
            cuts += 1;
            let left = disk.after(unsynced);
            if seen.contains(&left) {
                continue;
            }
            let after: String = format!("{:?}", ops[..number].last()).chars().take(160).collect();
            goes_on(world, &left, &told, whole, &report).map_err(|trouble| match trouble {
                Trouble::Wrong(why) => Trouble::Wrong(format!(
                    "power cut after change {number}, {after}, {unsynced:?}: {why}"
                )),
                other => other,
            })?;
            seen.insert(left);
        }
    }
    Ok(format!(
        "{} changes, {} cuts, {} states: all whole and gone on from to the same bytes",
        text::count(ops.len() as u64),
        text::count(cuts),
        text::count(seen.len() as u64)
    ))
}

/// Actions that a journal says are done.
fn told_as_done(op: &Op) -> Vec<Digest> {
    let Op::Append(path, bytes) = op else { return Vec::new() };
    if path.file_name() != Some("journal.jsonl".as_ref()) {
        return Vec::new();
    }
    let notes = lines::payloads(bytes).into_iter();
    let done = notes.filter_map(|line| match serde_json::from_str(&line).ok()? {
        Note::StepDone { key, .. } => Some(key),
        _ => None,
    });
    done.collect()
}

fn goes_on(
    world: &World<'_>,
    left: &Left,
    told: &BTreeSet<Digest>,
    whole: &Ran,
    report: &std::collections::BTreeMap<String, Vec<u8>>,
) -> Result<(), Trouble> {
    let fast = Arc::new(Fast::default());
    let _watch = watch(&world.root, fast);
    left.lay_out(&world.root)?;
    let damaged = world.damaged()?;
    demand(damaged.is_empty(), || format!("visible and not whole: {}", damaged.join("; ")))?;
    let again = world.run_here()?;
    demand(again.made == whole.made, || "other results".to_owned())?;
    let lost = told.difference(&again.fresh).count();
    demand(lost == 0, || format!("{lost} finished steps were done again"))?;
    demand(world.report()? == *report, || "another report".to_owned())?;
    tidy(world)
}

fn tidy(world: &World<'_>) -> Result<(), Trouble> {
    // A cut may keep what a finished action went on from; `gc` knows of it.
    if let Some(store) = Store::open_existing(&world.store())? {
        let garbage = store.garbage(std::time::Duration::ZERO)?;
        store.take_out(&garbage)?;
    }
    let litter = world.litter()?;
    demand(litter.is_empty(), || format!("left behind: {}", litter.join(", ")))
}

/// Changes of a run fail, each once, with an input/output error.
fn refused(ground: &Ground<'_>) -> Result<String, Trouble> {
    let [tried, count, told] = one_by_one(ground, "refused", false)?;
    let silent = tried - told;
    Ok(format!(
        "{tried} of {count} changes: {told} errors told, {silent} of no consequence to results"
    ))
}

/// From a change on there is no room.
fn full(ground: &Ground<'_>) -> Result<String, Trouble> {
    let [tried, count, told] = one_by_one(ground, "full", true)?;
    let silent = tried - told;
    Ok(format!(
        "{tried} of {count} places: {told} told, {silent} when all was done; with room again all go on"
    ))
}

/// Brings a fault about at one place after another: how many places were
/// tried, how many there are, and at how many the fault was told.
fn one_by_one(ground: &Ground<'_>, name: &str, lasts: bool) -> Result<[u64; 3], Trouble> {
    let world = ground.world(name, SMALL)?;
    let (whole, count) = undisturbed(&world)?;
    let (mut tried, mut told) = (0, 0);
    for place in (0..count).step_by(if ground.thorough { 1 } else { 5 }) {
        tried += 1;
        told += u64::from(one_fault(&world, &whole, (place, lasts))?);
    }
    Ok([tried, count, told])
}

fn undisturbed(world: &World<'_>) -> Result<(Ran, u64), Trouble> {
    let fast = Arc::new(Fast::default());
    let whole = watched(world, fast.clone())?;
    Ok((whole, fast.changes.load(Ordering::Relaxed)))
}

/// Runs with a fault and goes on without; whether the fault was told.
fn one_fault(world: &World<'_>, whole: &Ran, fails: (u64, bool)) -> Result<bool, Trouble> {
    let quick = || Arc::new(Fast::default());
    {
        let _watch = watch(&world.root, quick());
        world.clear()?;
    }
    let at = |why: String| Trouble::Wrong(format!("fault at change {}: {why}", fails.0));
    let fault = Arc::new(Fast { fails: Some(fails), ..Fast::default() });
    let told = match watched(world, fault) {
        Ok(ran) => {
            demand(ran.made == whole.made, || "done, with other results".to_owned())?;
            let damaged = world.damaged()?;
            demand(damaged.is_empty(), || format!("done, and damaged: {}", damaged.join("; ")))?;
            false
        }
        Err(failure) => {
            let chain = failure.chain();
            // The error must be there in words, with what was being done.
            demand(chain.len() > 1, || format!("told without a cause: {}", chain.join(": ")))?;
            true
        }
    };
    let damaged = world.damaged()?;
    demand(damaged.is_empty(), || format!("visible and not whole: {}", damaged.join("; ")))?;
    let again = watched(world, quick()).map_err(|failure| at(failure.chain().join(": ")))?;
    demand(again.made == whole.made, || "other results after it".to_owned())?;
    let _watch = watch(&world.root, quick());
    tidy(world)?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_what_takes_room_fails_on_a_full_disk() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        assert!(needs_room(&Change::Append(a, b"x")) && needs_room(&Change::Open(a)));
        assert!(!needs_room(&Change::Rename(a, b)) && !needs_room(&Change::Remove(a)));
    }
}
