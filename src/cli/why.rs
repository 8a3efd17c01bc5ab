//! `why`: field, old value, new value, and the line of the manifest; or, of a
//! step that is up to date, where its result came from.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
        text,
    },
    cli::{
        Program, Stop, again,
        arguments::{Options, WhyArguments},
        exit, kinds,
        load::{self, Loaded},
        plan::{phrase, span},
        standing::{self, Settled},
        talk::Talk,
    },
    host::clock,
    plan::{
        Names,
        freshness::{Change, Freshness, Reason},
        matching,
    },
    runner::judge::{Expected, Judge, forecast, forecast_behind},
    store::{Lookup, Store, record::ActionRecord, standing::Stood},
};
use serde_json::json;

pub(crate) fn why(
    program: &Program,
    options: &Options,
    arguments: &WhyArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    if let Some(code) = why_settled(program, options, arguments, talk)? {
        return Ok(code);
    }
    // Where something is out, who reads a step matters too.
    let is_out = Store::open_existing(&options.store)?.is_some_and(|store| store.has_any_out());
    let only = Some(arguments.step.as_str()).filter(|_| !is_out);
    let (loaded, store, history) = load::beside_store(options, is_out, || {
        load::load_behind(program, options, &arguments.manifest, (true, only), talk)
    })?;
    let steps = loaded.plan.matching(&arguments.step);
    if steps.is_empty() {
        let titles = loaded.plan.steps.iter().map(|step| step.title.as_str());
        let failure = Failure::input(format!("there is no step `{}`", arguments.step));
        return Err(Stop::Arguments(failure.hint(text::suggestion(
            &arguments.step,
            "steps",
            titles,
        ))));
    }
    let judge = Judge { plan: &loaded.plan, store: store.as_ref(), verify: false };
    let expected: Vec<Option<Expected>> = match is_out {
        true => forecast(judge, &history)?.into_iter().map(Some).collect(),
        false => forecast_behind(judge, &history, &steps)?,
    };
    let known = |step: usize| expected[step].as_ref().expect("it was asked for");
    if talk.json {
        let steps: Vec<_> = steps.iter().map(|&step| as_json(loaded, step, known(step))).collect();
        talk.json_data(&json!({ "steps": steps }))?;
        return Ok(exit::OK);
    }
    let mut texts = Vec::new();
    for &step in &steps {
        let mut text = explain(program, loaded, step, &expected);
        let one = known(step);
        if let (true, Some(verdict)) = (one.doubted, &one.verdict)
            && let Some(store) = &store
        {
            text += &again::doubt_of(store, &verdict.key)?;
        }
        texts.push(text);
    }
    talk.data(&texts.join("\n"))?;
    Ok(exit::OK)
}

/// The answer where all steps are known to be stored and some are meant.
fn why_settled(
    program: &Program,
    options: &Options,
    arguments: &WhyArguments,
    talk: &Talk,
) -> Result<Option<u8>, Stop> {
    let known = standing::remembered(program, options, &arguments.manifest);
    let Some((steps, Settled { store, .. })) =
        known.and_then(|one| Some((one.standing.steps()?, one)))
    else {
        return Ok(None);
    };
    let names = |step: usize| Names {
        title: &steps[step].title,
        base: &steps[step].base,
        names: steps[step].names.iter().map(String::as_str).collect(),
    };
    let meant = matching((0..steps.len()).map(names), &arguments.step);
    if meant.is_empty() {
        return Ok(None);
    }
    if !is_stored(&store, &steps, &meant)? {
        return Ok(None);
    }
    let meant = meant.into_iter().map(|step| &steps[step]);
    if talk.json {
        let steps: Vec<_> = meant.map(|one| stored_json(&one.title, Some(one.key))).collect();
        talk.json_data(&json!({ "steps": steps }))?;
        return Ok(Some(exit::OK));
    }
    let mut texts = Vec::new();
    for one in meant {
        let Some(record) = store.record(&one.key)? else { return Ok(None) };
        texts.push(up_to_date(&one.title, Some(&record), &again::doubt_of(&store, &one.key)?));
    }
    talk.data(&texts.join("\n"))?;
    Ok(Some(exit::OK))
}

/// Whether these steps, and all that is behind them, are stored, each made of
/// what the others came to.
fn is_stored(store: &Store, steps: &[Stood], meant: &[usize]) -> Outcome<bool> {
    let mut records: Vec<Option<Box<ActionRecord>>> = steps.iter().map(|_| None).collect();
    let mut open = meant.to_vec();
    while let Some(step) = open.pop() {
        let Some(stood) = steps.get(step) else { return Ok(false) };
        if records[step].is_none() {
            let Lookup::Hit(record) = store.look_up(&stood.key, false)? else { return Ok(false) };
            records[step] = Some(record);
            open.extend(&stood.reads);
        }
    }
    let fits = |(record, stood): (&Option<Box<ActionRecord>>, &Stood)| {
        let Some(record) = record else { return true };
        let behind: Vec<String> = stood
            .reads
            .iter()
            .filter_map(|&step| records[step].as_ref())
            .flat_map(|maker| maker.outputs.iter().map(|output| output.digest.to_string()))
            .collect();
        let read = record.identity.lines().filter(|line| line.starts_with("input."));
        let mut read = read.filter_map(|line| line.split_once(" = "));
        read.all(|(_, digest)| behind.iter().any(|one| one == digest))
    };
    Ok(records.iter().zip(steps).all(fits))
}

fn stored_json(title: &str, key: Option<Digest>) -> serde_json::Value {
    json!({
        "step": title, "state": "cached", "because": null, "changes": [], "waits-for": [], "key": key,
    })
}

fn explain(
    program: &Program,
    loaded: &Loaded,
    step: usize,
    expected: &[Option<Expected>],
) -> String {
    let Some(one) = &expected[step] else { return String::new() };
    let title = &loaded.plan.steps[step].title;
    match &one.freshness {
        Freshness::Fresh => {
            let found = one.verdict.as_ref().map(|verdict| verdict.found.as_ref());
            up_to_date(title, found.and_then(Result::ok).map(|record| &**record), "")
        }
        Freshness::Stale(Reason::Changed(changes)) => {
            let kind = &loaded.plan.steps[step].shape.kind;
            let default = |path: &str| kinds::default_of(program, kind, path);
            let rows: Vec<Vec<String>> = changes
                .iter()
                .map(|change| {
                    vec![
                        format!("  {}", change.phrase(&default)),
                        place(loaded, change).unwrap_or_default(),
                    ]
                })
                .collect();
            format!(
                "`{title}` will run, because it changed since it last ran:\n{}",
                text::columns(&rows, &[])
            )
        }
        Freshness::Stale(reason) => format!("`{title}` will run: {}\n", reason.phrase(&|_| None)),
        Freshness::Waits(_) => {
            let mut lines = format!(
                "`{title}` {}; it runs if what they make is different\n",
                phrase(program, loaded, step, one)
            );
            for root in roots(loaded, step, expected) {
                explain(program, loaded, root, expected)
                    .lines()
                    .for_each(|line| lines += &format!("  {line}\n"));
            }
            lines
        }
    }
}

/// The steps that must run and that keep `step` waiting.
fn roots(loaded: &Loaded, step: usize, expected: &[Option<Expected>]) -> Vec<usize> {
    let (mut open, mut seen, mut roots) = (vec![step], vec![false; expected.len()], Vec::new());
    while let Some(step) = open.pop() {
        if std::mem::replace(&mut seen[step], true) {
            continue;
        }
        match expected[step].as_ref().map(|one| &one.freshness) {
            None | Some(Freshness::Fresh) => {}
            Some(Freshness::Stale(_)) => roots.push(step),
            Some(Freshness::Waits(on)) => open.extend(on),
        }
    }
    roots.sort_by_key(|&root| loaded.plan.steps[root].source);
    roots
}

fn up_to_date(title: &str, record: Option<&ActionRecord>, doubt: &str) -> String {
    let Some(record) = record else {
        return format!("`{title}` is up to date\n");
    };
    let made = &record.provenance;
    format!(
        "`{title}` is up to date\n  made by run {} as `{}` on {} at {} in {}\n  action {}\n{}",
        made.run,
        made.step,
        made.host,
        clock::timestamp(made.started),
        span(made.seconds),
        record.key,
        record.identity.lines().map(|line| format!("    {line}\n")).collect::<String>()
    ) + doubt
}

fn place(loaded: &Loaded, change: &Change) -> Option<String> {
    change.origin.as_ref().map(|origin| loaded.sources.describe(origin))
}

fn as_json(loaded: &Loaded, step: usize, one: &Expected) -> serde_json::Value {
    let key = one.verdict.as_ref().map(|verdict| verdict.key);
    if one.freshness == Freshness::Fresh {
        return stored_json(&loaded.plan.steps[step].title, key);
    }
    let changes: Vec<_> = match &one.freshness {
        Freshness::Stale(Reason::Changed(changes)) => changes
            .iter()
            .map(|change| {
                json!({
                    "path": change.difference.path, "old": change.difference.old,
                    "new": change.difference.new, "at": place(loaded, change),
                })
            })
            .collect(),
        _ => Vec::new(),
    };
    let (state, because) = match &one.freshness {
        Freshness::Fresh => ("cached", None),
        Freshness::Stale(reason) => ("will-run", Some(reason.phrase(&|_| None))),
        Freshness::Waits(_) => ("waits", None),
    };
    let waits: Vec<_> = match &one.freshness {
        Freshness::Waits(steps) => {
            steps.iter().map(|&step| loaded.plan.steps[step].title.as_str()).collect()
        }
        _ => Vec::new(),
    };
    json!({
        "step": loaded.plan.steps[step].title, "state": state, "because": because, "changes": changes,
        "waits-for": waits, "key": key,
    })
}
