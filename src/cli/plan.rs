//! `plan`: what is stored, what would run and why, and how long it may take.

use crate::{
    base::{failure::Outcome, hash::Digest, text},
    cli::{
        Program, Stop, again,
        arguments::{ManifestArgument, Options},
        exit, kinds,
        load::{self, Loaded},
        standing::{self, Settled},
        talk::Talk,
    },
    host::{clock, fs},
    plan::freshness::Freshness,
    runner::{
        foreseen::Foresight,
        judge::{Expected, Judge, forecast},
        outlook::{self, Outlook, Share},
    },
    store::{
        Store, doubt,
        history::History,
        spread::Range,
        standing::{About, Stood},
    },
};
use serde_json::json;
use std::{collections::BTreeSet, path::Path, time::Duration};

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
    if let Some(settled) = settled_steps(program, options, &argument.manifest) {
        return tell_settled(&settled, talk);
    }
    let (loaded, store, history) = load::beside_store(options, true, || {
        load::load(program, options, &argument.manifest, true, talk)
    })?;
    let judge = Judge { plan: &loaded.plan, store: store.as_ref(), verify: false };
    let expected = forecast(judge, &history)?;
    let outlook = outlook(loaded, options, &expected, store.as_ref(), &history)?;
    if talk.json {
        let mut all = as_json(program, loaded, &expected);
        if outlook.steps > 0 {
            all["outlook"] = outlook_json(&outlook);
        }
        talk.json_data(&all)?;
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
    tell_outlook(&outlook, jobs(options), &options.store).iter().for_each(|line| talk.say(line));
    Ok(exit::OK)
}

fn jobs(options: &Options) -> usize {
    options.jobs.map_or_else(clock::cores, usize::from)
}

/// What a run would take now.
pub(crate) fn outlook(
    loaded: &Loaded,
    options: &Options,
    expected: &[Expected],
    store: Option<&Store>,
    history: &History,
) -> Outcome<Outlook> {
    let Loaded { plan, stages, .. } = loaded;
    outlook::outlook(plan, stages, expected, store, history, jobs(options))
}

/// The outlook in lines; nothing where nothing is known.
fn tell_outlook(outlook: &Outlook, jobs: usize, store: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |name: &str, share: &Share, say: &dyn Fn(f64) -> String, more: String| {
        let Range { low, middle, high } = share.range;
        if high > 0.0 {
            let mut line = format!("  {name:<7} about {}", say(middle));
            if say(low) != say(high) {
                line += &format!(" ({} to {})", say(low), say(high));
            }
            lines.push(line + &more);
        }
    };
    tell(
        "time",
        &outlook.wall,
        &span,
        match jobs {
            1 => String::new(),
            jobs => format!(", {jobs} steps at once"),
        },
    );
    tell("tokens", &outlook.tokens, &|n| text::count(n as u64), String::new());
    let bound = outlook.dollars_at_most.filter(|most| *most > 0.0);
    let bound =
        bound.map_or(String::new(), |most| format!(", by its own budgets at most ${most:.2}"));
    tell("money", &outlook.dollars, &|n| format!("${n:.2}"), bound);
    let free = fs::free(store).map_or(String::new(), |n| format!("; {} are free", text::bytes(n)));
    tell("disk", &outlook.disk, &|n| text::bytes(n as u64), free);
    lines.extend(tell_foreseen(&outlook.foreseen));
    lines
}

/// What nothing was measured of, in lines; nothing where sizes tell nothing either.
fn tell_foreseen(foreseen: &Foresight) -> Vec<String> {
    let millions = |n: f64| format!("{:.1} M", n / 1e6);
    type Row<'a> = (&'a str, Range, &'a dyn Fn(f64) -> String, &'a str);
    let rows: [Row<'_>; 5] = [
        ("tokens", foreseen.tokens, &millions, " of the study's models"),
        ("asked", foreseen.asked, &millions, " tokens of servers"),
        ("money", foreseen.dollars, &|n| format!("${n:.2}"), ""),
        ("cards", foreseen.hours, &|n| format!("{n:.1} h"), " of one H100"),
        ("disk", foreseen.bytes, &|n| text::bytes(n as u64), ""),
    ];
    let known = rows.iter().filter(|(_, range, ..)| range.high > 0.0);
    let lines = known.map(|(name, range, say, of)| {
        let (low, high) = (say(range.low), say(range.high));
        let between = if low == high { String::new() } else { format!(" ({low} to {high})") };
        format!("  {name:<7} about {}{between}{of}", say(range.middle))
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return lines;
    }
    let mut head = format!(
        "by sizes, for {} of which nothing was measured here",
        text::plural(foreseen.steps, "step")
    );
    if foreseen.unknown > 0 {
        head += &format!("; sizes tell nothing of {} more", foreseen.unknown);
    }
    std::iter::once(head).chain(lines).collect()
}

fn outlook_json(outlook: &Outlook) -> serde_json::Value {
    let range =
        |Range { low, middle, high }: Range| json!({ "low": low, "middle": middle, "high": high });
    let share = |share: &Share| {
        let Range { low, middle, high } = share.range;
        json!({ "low": low, "middle": middle, "high": high, "unknown-steps": share.unknown })
    };
    json!({
        "steps": outlook.steps, "wall-seconds": share(&outlook.wall),
        "work-seconds": share(&outlook.work), "tokens": share(&outlook.tokens),
        "dollars": share(&outlook.dollars), "dollars-at-most": outlook.dollars_at_most,
        "stored-bytes": share(&outlook.stored), "disk-bytes": share(&outlook.disk),
        "by-sizes": {
            "steps": outlook.foreseen.steps, "unknown-steps": outlook.foreseen.unknown,
            "tokens": range(outlook.foreseen.tokens), "server-tokens": range(outlook.foreseen.asked),
            "dollars": range(outlook.foreseen.dollars), "card-hours": range(outlook.foreseen.hours),
            "stored-bytes": range(outlook.foreseen.bytes),
        },
    })
}

/// Standing and steps of a manifest, if it is known that all are stored.
fn settled_steps(
    program: &Program,
    options: &Options,
    manifest: &Path,
) -> Option<(About, Vec<Stood>, BTreeSet<Digest>)> {
    let Settled { store, standing } = standing::settled(program, options, manifest)?;
    let (steps, doubts) = (standing.steps()?, doubt::all(&store).ok()?);
    Some((standing.about, steps, doubts))
}

fn tell_settled(
    (about, steps, doubts): &(About, Vec<Stood>, BTreeSet<Digest>),
    talk: &Talk,
) -> Result<u8, Stop> {
    let word = |one: &Stood| match doubts.contains(&one.key) {
        true => again::DOUBTED,
        false => "cached",
    };
    if talk.json {
        let as_json = |one: &Stood| {
            let reads: Vec<_> = one.reads.iter().map(|&step| steps[step].title.as_str()).collect();
            json!({
                "step": one.title, "kind": one.kind, "state": "cached", "because": word(one),
                "key": one.key, "reads": reads, "estimated-seconds": one.estimate,
            })
        };
        let all: Vec<_> = steps.iter().map(as_json).collect();
        talk.json_data(
            &json!({ "experiment": about.experiment, "device": about.device, "steps": all }),
        )?;
        return Ok(exit::OK);
    }
    let row = |one: &Stood| vec![one.title.clone(), word(one).to_owned(), String::new()];
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
        Freshness::Fresh if one.doubted => again::DOUBTED.to_owned(),
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
