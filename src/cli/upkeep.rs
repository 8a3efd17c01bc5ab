//! `verify` and `gc`: the store read again, and what nobody refers to taken
//! out. Runs no manifest.

use crate::{
    base::{failure::Failure, text},
    cli::{
        Stop,
        arguments::{GcArguments, Options},
        exit,
        plan::span,
        talk::Talk,
    },
    host::clock::Throttle,
    store::{
        Store,
        room::{Leaving, Room},
    },
};
use serde_json::json;
use std::time::{Duration, Instant};

fn open(options: &Options) -> Result<Store, Stop> {
    let none = || Failure::environment(format!("there is no store `{}`", options.store.display()));
    Ok(Store::open_existing(&options.store)?.ok_or_else(none)?)
}

/// `verify`: reads every stored byte, and puts damaged results aside.
///
/// # Errors
/// When there is no store or the machine refuses.
pub(crate) fn verify(options: &Options, talk: &Talk) -> Result<u8, Stop> {
    let store = open(options)?;
    let start = Instant::now();
    let told = Throttle::new(Duration::from_secs(5));
    let found = store.verify(&|read, all| {
        if told.allows() && start.elapsed() > Duration::from_secs(5) {
            let rate = read as f64 / start.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64((all - read) as f64 / rate.max(1.0));
            let (read, all) = (text::bytes(read), text::bytes(all));
            talk.say(&format!("{read} of {all} read, about {} left", text::duration(left)));
        }
        Ok(())
    })?;
    for (step, why) in &found.damaged {
        talk.must_say(&format!("damaged: `{step}`: {why}"));
    }
    let damaged = match found.damaged.len() {
        0 => "all is as it was stored".to_owned(),
        n => {
            format!("{} put aside; the next run makes them again", text::plural(n as u64, "result"))
        }
    };
    talk.say(&format!(
        "{} and {} ({}) read in {}: {damaged}",
        text::plural(found.records, "record"),
        text::plural(found.files, "file"),
        text::bytes(found.bytes),
        text::duration(start.elapsed()),
    ));
    if talk.json {
        let damaged: Vec<_> =
            found.damaged.iter().map(|(step, why)| json!({ "step": step, "why": why })).collect();
        talk.json_data(&json!({
            "records": found.records, "files": found.files, "bytes": found.bytes, "damaged": damaged,
        }))?;
    }
    Ok(if found.damaged.is_empty() { exit::OK } else { exit::ENVIRONMENT })
}

/// `gc`: takes out what nothing refers to.
///
/// # Errors
/// When there is no store, a record cannot be read, or the machine refuses.
pub(crate) fn gc(options: &Options, arguments: &GcArguments, talk: &Talk) -> Result<u8, Stop> {
    let store = open(options)?;
    let grace = Duration::from_secs_f64(arguments.older_than * 3600.0);
    let _alone = if arguments.dry_run { None } else { Some(store.alone()?) };
    let garbage = store.garbage(grace)?;
    let bytes: u64 = garbage.iter().map(|one| one.bytes).sum();
    if !arguments.dry_run {
        store.sweep()?;
        store.take_out(&garbage)?;
    }
    let room = arguments.budget.map(|budget| store.room(budget, grace)).transpose()?;
    if let Some(room) = room.as_ref().filter(|_| !arguments.dry_run) {
        store.make_room(room)?;
    }
    for one in &garbage {
        let path = one.path.strip_prefix(store.root()).unwrap_or(&one.path);
        talk.say(&format!("{:>10}  {}", text::bytes(one.bytes), path.display()));
    }
    let verb = if arguments.dry_run { "would go" } else { "gone" };
    let count = text::plural(garbage.len() as u64, "thing");
    talk.say(&format!("{count} that nothing refers to, {}: {verb}", text::bytes(bytes)));
    let kept = room.as_ref().is_none_or(|room| tell_room(room, arguments, talk));
    if talk.json {
        let paths: Vec<_> = garbage.iter().map(|one| one.path.display().to_string()).collect();
        let mut all = json!({ "dry-run": arguments.dry_run, "bytes": bytes, "paths": paths });
        if let Some(room) = &room {
            let as_json = |one: &Leaving| json!({ "step": one.step, "bytes": one.bytes, "seconds-to-make-again": one.seconds });
            all["room"] = json!({
                "before": room.before, "after": room.after,
                "leaving": room.leaving.iter().map(as_json).collect::<Vec<_>>(),
            });
        }
        talk.json_data(&all)?;
    }
    Ok(if kept { exit::OK } else { exit::ENVIRONMENT })
}

/// Tells what goes to keep a budget, and whether it is kept.
fn tell_room(room: &Room, arguments: &GcArguments, talk: &Talk) -> bool {
    for one in &room.leaving {
        let size = text::bytes(one.bytes);
        talk.say(&format!("{size:>10}  `{}`, {} to make again", one.step, span(one.seconds)));
    }
    let seconds: f64 = room.leaving.iter().map(|one| one.seconds).sum();
    let verb = if arguments.dry_run { "would go" } else { "gone" };
    talk.say(&format!(
        "contents of {}, {} of {}: {verb}; {} to make all of them again, which happens when a step \
         reads them or with `run --refill`",
        text::plural(room.leaving.len() as u64, "result"),
        text::bytes(room.before - room.after),
        text::bytes(room.before),
        span(seconds),
    ));
    let kept = arguments.budget.is_none_or(|budget| room.after <= budget);
    if !kept {
        talk.must_say(&format!(
            "{} are left, more than the budget: what came from outside, is in doubt, is evidence, or \
             was written in the last {} hours stays",
            text::bytes(room.after),
            arguments.older_than,
        ));
    }
    kept
}
