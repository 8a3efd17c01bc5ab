//! `verify --recompute`: some stored steps made again and compared to the last
//! bit; and what is said of results that came out otherwise.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
        seed::Seed,
        text,
    },
    cli::{
        Program, Stop,
        arguments::Options,
        exit, load,
        plan::{expect, span},
        talk::Talk,
    },
    host::{
        clock,
        signal::{self, StopFlag},
    },
    runner::{
        again::{Again, Second},
        executor::InProcess,
    },
    store::{
        Store,
        doubt::{self, Doubt},
        record::ActionRecord,
    },
};
use serde_json::json;
use std::path::Path;

/// How `plan` and `status` call a stored result that is in doubt.
pub(crate) const DOUBTED: &str = "cached, but came out otherwise when made again";

/// Makes a share of a manifest's stored steps again.
///
/// # Errors
/// When nothing is stored, a person stops it, or the machine refuses.
pub(crate) fn recompute(
    program: &Program,
    options: &Options,
    manifest: &Path,
    percent: f64,
    sample: Option<u64>,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, manifest, true, talk)?;
    let expected = expect(loaded, options)?;
    let record = |step: usize| -> Option<&ActionRecord> {
        expected[step].verdict.as_ref()?.found.as_deref().ok()
    };
    let mut stored: Vec<usize> =
        (0..expected.len()).filter(|&step| record(step).is_some()).collect();
    let store = Store::open_existing(&options.store)?.filter(|_| !stored.is_empty());
    let Some(store) = store else {
        let failure = Failure::input(format!("no step of `{}` is stored", manifest.display()));
        return Err(Stop::Failed(failure.hint("`rekindle run` makes something to compare with")));
    };
    let all = stored.len();
    let sample = sample.unwrap_or_else(|| (clock::chance() * 1e6) as u64);
    // By the steps themselves, so that it does not matter what else is stored.
    stored.sort_by_key(|&step| {
        let key = loaded.plan.steps[step].key.bytes();
        let first = u64::from_le_bytes(key[..8].try_into().expect("eight bytes"));
        Seed(first).at(sample).0
    });
    stored.truncate(((all as f64 * percent / 100.0).ceil() as usize).max(1));
    let stop = StopFlag::default();
    signal::watch(stop.clone(), exit::INTERRUPTED.into(), || {
        Talk::stderr("stopping: what is being made again is dropped");
    })?;
    let (mut same, mut otherwise, mut unknown) = (0, 0, 0);
    let mut rows = Vec::new();
    for &step in &stored {
        let planned = &loaded.plan.steps[step];
        let inputs = planned.inputs.iter().filter_map(|input| {
            let output = record(input.step)?.output(&input.output)?;
            Some((input.role.clone(), loaded.plan.steps[input.step].title.as_str(), output))
        });
        let Some(stored) = record(step) else { continue };
        let again = Again {
            step: planned,
            ready: &loaded.stages[step],
            record: stored,
            inputs: inputs.collect(),
            threads: clock::cores(),
            stop: stop.clone(),
        };
        let (word, said) = match again.run(&store, &InProcess)? {
            Second::Same(seconds) => {
                same += 1;
                ("same", format!("came out the same in {}", span(seconds)))
            }
            Second::Otherwise(doubt) => {
                otherwise += 1;
                ("otherwise", differences(&doubt))
            }
            Second::Unknown(why) => {
                unknown += 1;
                ("unknown", format!("could not be made again: {why}"))
            }
        };
        match word {
            "otherwise" => talk.must_say(&format!("`{}`: {said}", planned.title)),
            _ => talk.say(&format!("`{}`: {said}", planned.title)),
        }
        rows.push(
            json!({ "step": planned.title, "key": stored.key, "came-out": word, "what": said }),
        );
    }
    talk.say(&format!(
        "{} of {} made again (sample {sample}): {same} the same, {otherwise} otherwise, {unknown} unknown",
        rows.len(),
        text::plural(all as u64, "stored step"),
    ));
    if otherwise > 0 {
        talk.say(
            "a result that came out otherwise stays as it is, is told of by `plan`, `status`, `why`, \
             `run` and `report`, and is never taken out to save space",
        );
    }
    if talk.json {
        talk.json_data(&json!({ "sample": sample, "stored": all, "steps": rows }))?;
    }
    Ok(if otherwise > 0 { exit::STEP } else { exit::OK })
}

fn differences(doubt: &Doubt) -> String {
    let one = |(name, stored, made): &(String, Digest, Digest)| {
        format!("`{name}` was {} and is {}", stored.short(), made.short())
    };
    let all: Vec<String> = doubt.outputs.iter().map(one).collect();
    format!("came out otherwise: {}", all.join(", "))
}

/// A paragraph on the doubt of a result; nothing where there is none.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn doubt_of(store: &Store, key: &Digest) -> Outcome<String> {
    let told = Doubt::of(store, key)?.map(|doubt| {
        format!(
            "  {}, when it was made again on {} at {} by version {} on `{}`\n  what later steps were \
             made of is the first result\n",
            differences(&doubt),
            doubt.host,
            clock::timestamp(doubt.at),
            doubt.program,
            doubt.device
        )
    });
    Ok(told.unwrap_or_default())
}

/// Tells which of these results are in doubt.
///
/// # Errors
/// When doubts cannot be listed.
pub(crate) fn tell_doubts(
    store: &Store,
    keys: &mut dyn Iterator<Item = Digest>,
    talk: &Talk,
) -> Outcome<()> {
    let doubts = doubt::all(store)?;
    if doubts.is_empty() {
        return Ok(());
    }
    let mut steps: Vec<String> = Vec::new();
    for key in keys.filter(|key| doubts.contains(key)) {
        steps.extend(Doubt::of(store, &key)?.map(|doubt| doubt.step));
    }
    steps.sort();
    steps.dedup();
    if !steps.is_empty() {
        talk.must_say(&format!(
            "{} came out otherwise when made again: {}; `rekindle why` tells more",
            text::plural(steps.len() as u64, "result"),
            text::list(steps.iter().map(String::as_str).take(5)),
        ));
    }
    Ok(())
}
