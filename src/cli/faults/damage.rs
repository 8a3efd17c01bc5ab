//! What happens to a store beside its program: bits flip, journals are torn,
//! two runners and `gc` meet in it, inputs and manifests are edited while a run
//! goes on, clocks jump.

use super::{
    Finding, Trouble, demand,
    ground::{Ground, SMALL, World, wait},
    kills::lattice,
};
use crate::{
    base::{
        failure::{Doing, Outcome},
        hash::Digest,
        text,
    },
    host::fs,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn rows(ground: &Ground<'_>) -> Vec<Finding> {
    let again = "told, put aside, made again to the same bytes";
    let none = "no result is in danger: nothing is done again";
    vec![
        Finding::of("bit flip in a stored file", again, flips(ground, "objects")),
        Finding::of("bit flip in a record", again, flips(ground, "actions")),
        Finding::of("bit flip in journal and history, tails torn", none, logs(ground)),
        Finding::of("two runners at once", "both end well, each step is done once", two(ground)),
        Finding::of("`gc --older-than 0` all along a run", "the run ends the same", gc(ground)),
        Finding::of(
            "a stored input damaged while its reader waits",
            "it is made again before it is read",
            edited_input(ground),
        ),
        Finding::of(
            "a program that overwrites what it reads",
            "it has copies: what is stored stays",
            spoiled(ground),
        ),
        Finding::of(
            "manifest edited while it runs",
            "the run does what it read, the next one what changed",
            edited_manifest(ground),
        ),
        Finding::of("file times ten years ahead and back", none, clock(ground)),
    ]
}

/// Flips one bit of each file in a folder of the store, one after another.
fn flips(ground: &Ground<'_>, folder: &str) -> Result<String, Trouble> {
    let world = ground.world("flips", SMALL)?;
    let whole = world.whole()?;
    world.run()?;
    let files = fs::walk(&world.store().join(folder))?;
    for (number, (_, path)) in files.iter().enumerate() {
        flip(path, 1 + 7 * number)?;
        let (code, said) = world.say(&["verify"])?;
        demand(code == 5 && said.contains("damaged"), || format!("`verify` said {code}: {said}"))?;
        world.run()?;
        world.must_equal(&whole)?;
        // Without `verify` before it, a run that is told to read everything finds it too.
        flip(path, 3 + 5 * number)?;
        let (code, said) = world.say(&["run", world.manifest(), "--verify"])?;
        demand(code == 0 && said.contains("is made again"), || {
            format!("`run --verify` said {code}: {said}")
        })?;
        world.must_equal(&whole)?;
    }
    Ok(format!(
        "{} flipped twice: all found and made again",
        text::plural(files.len() as u64, "file")
    ))
}

fn flip(path: &Path, bit: usize) -> Outcome<()> {
    let mut bytes = fs::read(path)?.unwrap_or_default();
    let place = bit / 8 % bytes.len().max(1);
    bytes[place] ^= 1 << (bit % 8);
    overwrite(path, &bytes)
}

/// Writes over a file that nobody may write to.
fn overwrite(path: &Path, bytes: &[u8]) -> Outcome<()> {
    fs::remove_file(path)?;
    fs::write(path, bytes)
}

fn logs(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("logs", SMALL)?;
    let whole = world.whole()?;
    let mut count = 0;
    for damage in [torn, flipped, emptied] {
        world.clear()?;
        world.run()?;
        let runs = fs::walk(&world.store().join("runs"))?.into_iter().map(|(_, path)| path);
        for path in runs.chain([world.store().join("history.jsonl")]) {
            let bytes = fs::read(&path)?.unwrap_or_default();
            fs::write(&path, &damage(bytes))?;
            count += 1;
            for words in ["status", "plan"] {
                let (code, said) = world.say(&[words, world.manifest()])?;
                demand(code == 0, || format!("`{words}` ended with {code}: {said}"))?;
            }
            let said = world.run()?;
            demand(said.contains("nothing to do"), || format!("done again: {said}"))?;
        }
        world.must_equal(&whole)?;
    }
    Ok(format!("{} damaged: nothing done again", text::plural(count, "file")))
}

fn torn(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(9));
    bytes
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    bytes
}

fn emptied(_: Vec<u8>) -> Vec<u8> {
    Vec::new()
}

/// Layers of the graph that two programs share.
const LAYERS: usize = 8;

fn two(ground: &Ground<'_>) -> Result<String, Trouble> {
    let logged = lattice(LAYERS).replace("sleep 60 & ", "echo x >> ROOT/log; ");
    let world = ground.world("two", &logged)?;
    let mut runners = [world.start()?, world.start()?];
    for runner in &mut runners {
        let status = runner.wait().doing(|| "waiting for a runner".to_owned())?;
        demand(status.success(), || format!("one ended with {status}"))?;
    }
    let done = fs::read(&world.root.join("log"))?.unwrap_or_default().len() / 2;
    demand(done == world.recorded()?.len(), || format!("{done} steps done"))?;
    let left = [world.damaged()?, world.litter()?].concat();
    demand(left.is_empty(), || left.join("; "))?;
    Ok(format!("{}, each done once", text::plural(done as u64, "step")))
}

fn gc(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("gc", &lattice(LAYERS))?;
    let whole = world.whole()?;
    let mut runner = world.start()?;
    let doing = || "waiting for a runner".to_owned();
    let mut count = 0;
    let status = loop {
        if let Some(status) = runner.try_wait().doing(doing)? {
            break status;
        }
        if world.store().join("VERSION").exists() {
            let (code, said) = world.say(&["gc", "--older-than", "0"])?;
            demand(code == 0, || format!("`gc` ended with {code}: {said}"))?;
            count += 1;
        }
    };
    demand(status.success(), || format!("the run ended with {status}"))?;
    world.must_equal(&whole)?;
    let said = world.run()?;
    demand(said.contains("nothing to do"), || format!("done again: {said}"))?;
    Ok(format!("{}, and the same results", text::plural(count, "collection")))
}

/// `ended` reads `made` and waits for `gate`, which waits for a file.
const GATED: &str = r#"rekindle = 1
name = "gated"
[stage.made]
kind = "command"
run = ["sh", "-c", "echo first > out/files/x"]
[stage.gate]
kind = "command"
run = ["sh", "-c", "while [ ! -e ROOT/open ]; do sleep 0.01; done; echo gate > out/files/x"]
inputs = { a = "made" }
[stage.ended]
kind = "command"
run = ["sh", "-c", "cat in/a/x in/b/x > out/files/x; echo LAST >> out/files/x"]
inputs = { a = "made", b = "gate" }
"#;

/// Waits until something is there.
fn await_file(path: &Path) -> Result<(), Trouble> {
    demand(wait(PATIENCE, || path.exists()), || format!("`{}` never came", path.display()))
}

/// Starts the gated study and gives the object of its first step when it is there.
fn gated(world: &World<'_>) -> Result<(std::process::Child, PathBuf), Trouble> {
    let runner = world.start()?;
    let name = Digest::of_blob(b"first\n").to_string();
    let object = world.store().join("objects").join(&name[..2]).join(name);
    await_file(&object)?;
    // The gate reads it too, and is at work once it has.
    let at_work = || !super::kills::programs(&world.store().join("tmp")).is_empty();
    demand(wait(PATIENCE, at_work), || "the gate never ran".to_owned())?;
    demand(wait(PATIENCE, || world.recorded().is_ok_and(|keys| keys.len() == 1)), || {
        "the first step was never done".to_owned()
    })?;
    Ok((runner, object))
}

fn open_gate(world: &World<'_>, mut runner: std::process::Child) -> Result<(), Trouble> {
    fs::write(&world.root.join("open"), b"")?;
    let status = runner.wait().doing(|| "waiting for a runner".to_owned())?;
    demand(status.success(), || format!("the run ended with {status}"))
}

fn edited_input(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("edited", GATED)?;
    let whole = whole_gated(&world)?;
    let (runner, object) = gated(&world)?;
    overwrite(&object, b"frost\n")?;
    open_gate(&world, runner)?;
    world.must_equal(&whole)?;
    Ok("made again within the same run; the same results".to_owned())
}

fn whole_gated(world: &World<'_>) -> Result<super::ground::Whole, Trouble> {
    fs::write(&world.root.join("open"), b"")?;
    world.whole()
}

fn spoiled(ground: &Ground<'_>) -> Result<String, Trouble> {
    let spoils = "echo spoilt > in/a/x; echo gate";
    let world = ground.world("spoiled", &GATED.replace("echo gate", spoils))?;
    fs::write(&world.root.join("open"), b"")?;
    world.run()?;
    let damaged = world.damaged()?;
    demand(damaged.is_empty(), || damaged.join("; "))?;
    world.object_with("first\n")?;
    world.object_with("first\ngate\nLAST\n")?;
    Ok("the next reader read what was stored".to_owned())
}

fn edited_manifest(ground: &Ground<'_>) -> Result<String, Trouble> {
    let after = GATED.replace("LAST", "AFTER");
    let world = ground.world("manifest", &after)?;
    let edited = whole_gated(&world)?;
    world.write_manifest(GATED)?;
    let (runner, _) = gated(&world)?;
    world.write_manifest(&after)?;
    open_gate(&world, runner)?;
    world.object_with("first\ngate\nLAST\n")?;
    let said = world.run()?;
    demand(said.contains("1 done, 2 cached"), || format!("the next run said: {said}"))?;
    demand(world.report()? == edited.report, || "another report".to_owned())?;
    world.object_with("first\ngate\nAFTER\n")?;
    world.write_manifest(GATED)?;
    let said = world.run()?;
    demand(said.contains("nothing to do"), || format!("the old text again said: {said}"))?;
    Ok("1 step of 3 was done again; with the old text back, none".to_owned())
}

fn clock(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("clock", SMALL)?;
    let whole = world.whole()?;
    let decade = Duration::from_secs(3650 * 24 * 3600);
    let now = SystemTime::now();
    let mut count = 0;
    for time in [now + decade, now - decade] {
        world.clear()?;
        world.run()?;
        for (_, path) in fs::walk(&world.root)? {
            let file = std::fs::File::open(&path);
            let set = file.and_then(|file| file.set_modified(time));
            set.doing(|| format!("setting the time of `{}`", path.display()))?;
            count += 1;
        }
        let said = world.run()?;
        demand(said.contains("nothing to do"), || format!("done again: {said}"))?;
        let (code, said) = world.say(&["gc"])?;
        demand(code == 0, || format!("`gc` ended with {code}: {said}"))?;
        world.must_equal(&whole)?;
        // What is lost among files of such times is made again beside them.
        for (_, path) in fs::walk(&world.store().join("objects"))?.into_iter().take(2) {
            fs::remove_file(&path)?;
        }
        let said = world.run()?;
        demand(said.contains("is made again"), || format!("not made again: {said}"))?;
        world.must_equal(&whole)?;
    }
    Ok(format!("{}: nothing done again, nothing collected", text::plural(count, "file time")))
}
