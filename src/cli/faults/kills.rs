//! `kill -9` at random moments over a graph of 200 small commands: the runner,
//! a child of it, both at once. Counted is what nobody should have to bear:
//! manual interventions, wrong outputs, finished steps that were done again,
//! processes and bytes left behind.

use super::{
    Finding, Trouble, demand,
    ground::{Ground, Whole, World, last_line, read_notes, wait},
};
use crate::{
    base::{
        failure::{Doing, Outcome},
        hash::Digest,
        seed::{Rng, Seed},
        text,
    },
    host::{fs, process},
    store::journal::Note,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest time before a kill, in milliseconds.
const LONGEST: usize = 250;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Runner,
    Child,
    Both,
}

pub(super) fn rows(ground: &Ground<'_>) -> Vec<Finding> {
    let some = (ground.kills / 10).max(3);
    let expected = "the same command goes on; nothing is wrong, lost, done twice or left behind";
    vec![
        Finding::of(
            "`kill -9` of the runner, at random moments",
            expected,
            kill(ground, Victim::Runner, ground.kills),
        ),
        Finding::of(
            "`kill -9` of a step's program",
            "the step fails and says so; the same command goes on",
            kill(ground, Victim::Child, some),
        ),
        Finding::of("`kill -9` of both at once", expected, kill(ground, Victim::Both, some)),
    ]
}

/// Steps of one layer.
const WIDTH: usize = 10;

/// `layers` of small commands, each reading two of the layer before. Each leaves
/// a process behind that outlives a test unless somebody ends it.
pub(super) fn lattice(layers: usize) -> String {
    let mut text = "rekindle = 1\nname = \"lattice\"\n".to_owned();
    for layer in 0..layers {
        for place in 0..WIDTH {
            let (name, before) = (format!("s{layer}-{place}"), layer.wrapping_sub(1));
            let beside = (place + 1) % WIDTH;
            let inputs = match layer {
                0 => String::new(),
                _ => format!(
                    "inputs = {{ a = \"s{before}-{place}\", b = \"s{before}-{beside}\" }}\n"
                ),
            };
            text += &format!(
                "[stage.{name}]\nkind = \"command\"\n{inputs}run = [\"sh\", \"-c\", \"sleep 60 & \
                 cat in/*/x 2>/dev/null | cksum > out/files/x; echo {name} >> out/files/x; \
                 sleep 0.0{}\"]\n",
                1 + place % 5
            );
        }
    }
    text
}

#[derive(Default)]
struct Counts {
    kills: u32,
    rounds: u32,
    interventions: u32,
    reruns: usize,
    orphans: u32,
    wrong: Vec<String>,
}

fn kill(ground: &Ground<'_>, victim: Victim, kills: u32) -> Result<String, Trouble> {
    let layers = if victim == Victim::Runner { 20 } else { 6 };
    let world = ground.world("kills", &lattice(layers))?;
    let whole = world.whole()?;
    let mut dice = Seed(u64::from(kills)).at(victim as u64).rng();
    let mut counts = Counts::default();
    while counts.kills < kills {
        counts.rounds += 1;
        world.clear()?;
        while counts.kills < kills && world.recorded()?.len() < whole.recorded.len() {
            turn(&world, victim, &mut dice, &mut counts)?;
        }
        settle(&world, &whole, &mut counts)?;
    }
    let Counts { kills, rounds, interventions, reruns, orphans, wrong } = counts;
    let said = format!(
        "{} over {} of {} steps: {interventions} manual interventions, {} wrong outputs or bytes \
         left behind, {reruns} finished steps done again, {orphans} orphans",
        text::plural(kills.into(), "kill"),
        text::plural(rounds.into(), "round"),
        layers * WIDTH,
        wrong.len(),
    );
    let good = interventions == 0 && reruns == 0 && orphans == 0 && wrong.is_empty();
    demand(good, || format!("{said}; {}", wrong.join("; ")))?;
    Ok(said)
}

/// One run up to its kill.
fn turn(
    world: &World<'_>,
    victim: Victim,
    dice: &mut Rng,
    counts: &mut Counts,
) -> Result<(), Trouble> {
    let (done, runs) = (world.recorded()?, journals(world)?);
    let mut runner = world.start()?;
    let doing = || "killing a runner".to_owned();
    std::thread::sleep(Duration::from_millis(dice.below(LONGEST) as u64));
    let mut hit = victim == Victim::Runner;
    if victim != Victim::Runner {
        // Between two steps there is nobody to be killed.
        let mut found = Vec::new();
        wait(Duration::from_secs(5), || {
            // A program may not notice that a part of a pipe of its own was killed.
            found = programs(&world.store().join("tmp"));
            found.retain(|&id| process::leads_group(id));
            !found.is_empty() || runner.try_wait().is_ok_and(|ended| ended.is_some())
        });
        if !found.is_empty() {
            process::kill_one(*dice.choose(&found));
            hit = true;
        }
    }
    if victim != Victim::Child {
        hit &= runner.try_wait().doing(doing)?.is_none();
        runner.kill().doing(doing)?;
    }
    let status = runner.wait().doing(doing)?;
    counts.kills += u32::from(hit);
    // A step whose program was killed has failed (4); a run that was not hit is done (0).
    let may = match victim {
        Victim::Child => matches!(status.code(), Some(0 | 4)),
        _ => matches!(status.code(), None | Some(0)),
    };
    if !may {
        counts.interventions += 1;
        counts.wrong.push(format!("a runner ended with {status}"));
    }
    if !wait(Duration::from_secs(3), || programs(&world.root).is_empty()) {
        counts.orphans += 1;
        programs(&world.root).into_iter().for_each(process::kill_one);
    }
    for run in journals(world)?.difference(&runs) {
        let started = started(run)?;
        counts.reruns += started.intersection(&done).count();
    }
    let now = world.recorded()?;
    if !now.is_superset(&done) {
        counts.wrong.push("a finished step was lost".to_owned());
    }
    Ok(())
}

/// The run that nobody kills, and what it leaves.
fn settle(world: &World<'_>, whole: &Whole, counts: &mut Counts) -> Result<(), Trouble> {
    let done = world.recorded()?;
    let runs = journals(world)?;
    let (code, said) = world.say(&["run", world.manifest()])?;
    if code != 0 {
        counts.interventions += 1;
        counts.wrong.push(format!("the last run ended with {code}: {}", last_line(&said)));
        return Ok(());
    }
    for run in journals(world)?.difference(&runs) {
        counts.reruns += started(run)?.intersection(&done).count();
    }
    if let Err(Trouble::Wrong(why) | Trouble::Cannot(why)) = world.must_equal(whole) {
        counts.wrong.push(why);
    }
    Ok(())
}

fn journals(world: &World<'_>) -> Outcome<BTreeSet<PathBuf>> {
    let runs = world.store().join("runs");
    let names = fs::names(&runs)?.into_iter();
    Ok(names.map(|name| runs.join(name).join("journal.jsonl")).collect())
}

/// Keys of the steps that a run started.
fn started(journal: &Path) -> Outcome<BTreeSet<Digest>> {
    let notes = read_notes(journal)?.into_iter();
    let keys = notes.filter_map(|note| match note {
        Note::StepStarted { key, .. } => Some(key),
        _ => None,
    });
    Ok(keys.collect())
}

/// Processes at work in a folder.
pub(super) fn programs(folder: &Path) -> Vec<u32> {
    let at_work = |id: &u32| process::working_folder(*id).is_some_and(|at| at.starts_with(folder));
    process::all().into_iter().filter(at_work).collect()
}
