//! `status`: how each step stands now, and what the last run did to it.

use crate::{
    base::{hash::Digest, text},
    cli::{
        Program, Stop, again,
        arguments::{ManifestArgument, Options},
        exit,
        load::{self, Loaded},
        plan::{phrase, span},
        standing::{self, Settled},
        talk::Talk,
    },
    host::clock,
    runner::judge::{Expected, Judge, forecast},
    store::{
        doubt,
        journal::{self, Note, Timed},
        standing::Stood,
    },
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn status(
    program: &Program,
    options: &Options,
    argument: &ManifestArgument,
    talk: &Talk,
) -> Result<u8, Stop> {
    let known = standing::settled(program, options, &argument.manifest);
    let settled = known.and_then(|one| Some((one.standing.steps()?, one)));
    let (experiment, store, steps) = match settled {
        Some((steps, Settled { store, standing })) => {
            let doubts = doubt::all(&store)?;
            let row = |one: Stood| Row::stood(one, &doubts);
            let steps = steps.into_iter().map(row).collect();
            (standing.about.experiment, Some(store), steps)
        }
        None => {
            let (loaded, store, history) = load::beside_store(options, true, || {
                load::load(program, options, &argument.manifest, true, talk)
            })?;
            let judge = Judge { plan: &loaded.plan, store: store.as_ref(), verify: false };
            let expected = forecast(judge, &history)?.into_iter().enumerate();
            let row = |(step, one): (usize, Expected)| Row::expected(program, loaded, step, &one);
            (loaded.name().to_owned(), store, expected.map(row).collect::<Vec<Row>>())
        }
    };
    let newest = store.as_ref().map(|store| journal::newest(store, &experiment)).transpose()?;
    let (run, notes) =
        newest.flatten().map_or((None, Vec::new()), |(run, notes)| (Some(run), notes));
    let last = last_words(&notes);
    let word_of = |row: &Row| last.get(&row.title).cloned().unwrap_or_default();
    if talk.json {
        let as_json = |row: &Row| {
            json!({
                "step": row.title, "now": row.now, "last-run": word_of(row),
                "metrics": row.metrics, "seconds": row.seconds,
            })
        };
        let steps: Vec<_> = steps.iter().map(as_json).collect();
        talk.json_data(
            &json!({ "experiment": experiment, "run": run, "ended": ended(&notes), "steps": steps }),
        )?;
        return Ok(exit::OK);
    }
    let cells = |row: &Row| {
        let took = row.seconds.map_or(String::new(), span);
        vec![row.title.clone(), row.now.clone(), took, word_of(row)]
    };
    talk.data(&text::columns(&steps.iter().map(cells).collect::<Vec<_>>(), &[]))?;
    talk.say(&match (run, notes.first()) {
        (Some(run), Some(first)) => format!(
            "last run {run}, started {}, {}",
            clock::timestamp(first.at),
            ended(&notes)
                .unwrap_or_else(|| "did not end: it was killed or is still going on".to_owned())
        ),
        _ => "it has not run yet".to_owned(),
    });
    Ok(exit::OK)
}

/// How a step stands.
struct Row {
    title: String,
    now: String,
    seconds: Option<f64>,
    metrics: Option<BTreeMap<String, f64>>,
}

impl Row {
    fn stood(step: Stood, doubts: &BTreeSet<Digest>) -> Row {
        let Stood { title, seconds, metrics, key, .. } = step;
        let now = if doubts.contains(&key) { again::DOUBTED } else { "cached" };
        Row { title, now: now.to_owned(), seconds: Some(seconds), metrics: Some(metrics) }
    }

    fn expected(program: &Program, loaded: &Loaded, step: usize, one: &Expected) -> Row {
        let record = one.verdict.as_ref().and_then(|verdict| verdict.found.as_ref().ok());
        Row {
            title: loaded.plan.steps[step].title.clone(),
            now: phrase(program, loaded, step, one),
            seconds: record.map(|record| record.provenance.seconds),
            metrics: record.map(|record| record.metrics.clone()),
        }
    }
}

fn ended(notes: &[Timed]) -> Option<String> {
    notes.iter().find_map(|timed| match &timed.note {
        Note::RunEnded { done, cached, failed, skipped } => Some(format!(
            "ended {}: {done} done, {cached} cached, {failed} failed, {skipped} skipped",
            clock::timestamp(timed.at)
        )),
        _ => None,
    })
}

/// What the journal says last of each step.
fn last_words(notes: &[Timed]) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    for timed in notes {
        let (step, word) = match &timed.note {
            Note::StepStarted { step, .. } => (step, "started, not ended".to_owned()),
            Note::StepDone { step, seconds, .. } => (step, format!("done in {}", span(*seconds))),
            Note::StepFailed { step, why, .. } => (step, format!("failed: {}", why.join(": "))),
            Note::StepRetried { step, why, tries, .. } => {
                (step, format!("failed, try {tries}: {}", why.join(": ")))
            }
            Note::StepSilent { step, seconds } => {
                (step, format!("started, not ended; nothing heard for {}", span(*seconds)))
            }
            Note::StepStopped { step, .. } => (step, "stopped".to_owned()),
            Note::Healed { step, why } => (step, format!("made again: {why}")),
            _ => continue,
        };
        words.insert(step.clone(), word);
    }
    words
}
