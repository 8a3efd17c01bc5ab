//! `plan`: what is stored, what would run and why, and how long it may take.

use crate::{
    base::text,
    cli::{
        Program, Stop,
        arguments::{ManifestArgument, Options},
        exit, kinds,
        load::{self, Loaded},
        standing::{self, Settled},
        talk::Talk,
    },
    plan::freshness::Freshness,
    runner::judge::{Expected, Judge, forecast},
    store::standing::{About, Stood},
};
use serde_json::json;
use std::{path::Path, time::Duration};

/// What would be done now.
pub(crate) fn expect(loaded: &Loaded, options: &Options) -> Result<Vec<Expected>, Stop> {
    let (store, history) = load::open_store(options)?;
    let judge = Judge { plan: &loaded.plan, store: store.as_ref(), verify: false };
    Ok(forecast(judge, &history)?)
}

pub(crate) fn plan(
    program: &Program,
    options: &Options,
    argument: &ManifestArgument,
    talk: &Talk,
) -> Result<u8, Stop> {
    if let Some(steps) = settled_steps(program, options, &argument.manifest) {
        return tell_settled(&steps, talk);
    }
    let loaded = load::load(program, options, &argument.manifest, true, talk)?;
    let expected = expect(loaded, options)?;
    if talk.json {
        talk.json_data(&as_json(program, loaded, &expected))?;
        return Ok(exit::OK);
    }
    let rows: Vec<Vec<String>> = expected
        .iter()
        .enumerate()
        .map(|(step, one)| {
            let estimate = match one.freshness {
                Freshness::Fresh => String::new(),
                _ => {
                    let time = one
                        .estimate
                        .map_or("unknown".to_owned(), |seconds| format!("~ {}", span(seconds)));
                    let needs = loaded.stages[step].stage.needs().map(|need| need.words);
                    let wants = loaded.claims[step].words().map(|words| format!("wants {words}"));
                    let all = [Some(time), wants, needs];
                    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
                }
            };
            vec![
                loaded.plan.steps[step].title.clone(),
                phrase(program, loaded, step, one),
                estimate,
            ]
        })
        .collect();
    talk.data(&text::columns(&rows, &[]))?;
    talk.say(&totals(&expected));
    Ok(exit::OK)
}

/// Standing and steps of a manifest, if it is known that all are stored.
fn settled_steps(
    program: &Program,
    options: &Options,
    manifest: &Path,
) -> Option<(About, Vec<Stood>)> {
    let Settled { standing, .. } = standing::settled(program, options, manifest)?;
    let steps = standing.steps()?;
    Some((standing.about, steps))
}

fn tell_settled((about, steps): &(About, Vec<Stood>), talk: &Talk) -> Result<u8, Stop> {
    if talk.json {
        let as_json = |one: &Stood| {
            let reads: Vec<_> = one.reads.iter().map(|&step| steps[step].title.as_str()).collect();
            json!({
                "step": one.title, "kind": one.kind, "state": "cached", "because": "cached",
                "key": one.key, "reads": reads, "estimated-seconds": one.estimate,
            })
        };
        let all: Vec<_> = steps.iter().map(as_json).collect();
        talk.json_data(
            &json!({ "experiment": about.experiment, "device": about.device, "steps": all }),
        )?;
        return Ok(exit::OK);
    }
    let row = |one: &Stood| vec![one.title.clone(), "cached".to_owned(), String::new()];
    talk.data(&text::columns(&steps.iter().map(row).collect::<Vec<_>>(), &[]))?;
    talk.say(&all_cached(steps.len() as u64));
    Ok(exit::OK)
}

fn all_cached(steps: u64) -> String {
    format!("nothing to do: all of {} cached", text::plural(steps, "step"))
}

/// The state of a step in one phrase.
pub(crate) fn phrase(program: &Program, loaded: &Loaded, step: usize, one: &Expected) -> String {
    match &one.freshness {
        Freshness::Fresh => "cached".to_owned(),
        Freshness::Stale(reason) => {
            let kind = &loaded.plan.steps[step].shape.kind;
            format!("will run: {}", reason.phrase(&|path| kinds::default_of(program, kind, path)))
        }
        Freshness::Waits(steps) => {
            let names: Vec<_> =
                steps.iter().map(|&step| loaded.plan.steps[step].title.as_str()).collect();
            let more = names.len().saturating_sub(3);
            let list = text::list(names.iter().take(3).copied());
            if more == 0 {
                format!("waits for {list}")
            } else {
                format!("waits for {list} and {more} more")
            }
        }
    }
}

fn totals(expected: &[Expected]) -> String {
    let count = |test: &dyn Fn(&Freshness) -> bool| {
        expected.iter().filter(|one| test(&one.freshness)).count() as u64
    };
    let fresh = count(&|freshness| *freshness == Freshness::Fresh);
    let stale = count(&|freshness| matches!(freshness, Freshness::Stale(_)));
    let waits = count(&|freshness| matches!(freshness, Freshness::Waits(_)));
    if stale + waits == 0 {
        return all_cached(fresh);
    }
    let open = expected.iter().filter(|one| one.freshness != Freshness::Fresh);
    let known: Vec<f64> = open.clone().filter_map(|one| one.estimate).collect();
    let unknown = open.count() - known.len();
    let mut text = format!("{fresh} cached, {stale} will run, {waits} depend on them");
    if !known.is_empty() {
        text += &format!("; about {} of work", span(known.iter().sum()));
    }
    if unknown > 0 {
        text += &format!("; no estimate for {}", text::plural(unknown as u64, "step"));
    }
    text
}

/// Seconds, for people.
pub(crate) fn span(seconds: f64) -> String {
    text::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn as_json(program: &Program, loaded: &Loaded, expected: &[Expected]) -> serde_json::Value {
    let steps: Vec<_> = expected
        .iter()
        .enumerate()
        .map(|(step, one)| {
            let planned = &loaded.plan.steps[step];
            let state = match one.freshness {
                Freshness::Fresh => "cached",
                Freshness::Stale(_) => "will-run",
                Freshness::Waits(_) => "waits",
            };
            let mut row = json!({
                "step": planned.title,
                "kind": planned.shape.kind,
                "state": state,
                "because": phrase(program, loaded, step, one),
                "key": one.verdict.as_ref().map(|verdict| verdict.key),
                "reads": planned.inputs.iter().map(|input| loaded.plan.steps[input.step].title.as_str()).collect::<Vec<_>>(),
                "estimated-seconds": one.estimate,
            });
            // What is stored needs nothing any more.
            let needs = match one.freshness {
                Freshness::Fresh => None,
                _ => loaded.stages[step].stage.needs(),
            };
            if let Some(needs) = needs {
                row["needs"] = needs.words.into();
            }
            if let Some(words) = loaded.claims[step].words() {
                row["wants"] = words.into();
            }
            if let Some((_, what)) = loaded.claims[step].beyond(&loaded.capacity) {
                row["cannot-run"] = format!("it wants {what}").into();
            }
            row
        })
        .collect();
    json!({ "experiment": loaded.name(), "device": loaded.device, "steps": steps })
}
