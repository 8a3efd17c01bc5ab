//! `status`: how each step stands now, and what the last run did to it.

use crate::{
    base::text,
    cli::{
        Program, Stop,
        arguments::{ManifestArgument, Options},
        exit, load,
        plan::{phrase, span},
        talk::Talk,
    },
    host::clock,
    runner::judge::{Judge, forecast},
    store::journal::{self, Note, Timed},
};
use serde_json::json;
use std::collections::BTreeMap;

pub(crate) fn status(
    program: &Program,
    options: &Options,
    argument: &ManifestArgument,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &argument.manifest, true, talk)?;
    let (store, history) = load::open_store(options)?;
    let judge = Judge { plan: &loaded.plan, store: store.as_ref(), verify: false };
    let expected = forecast(judge, &history)?;
    let newest =
        store.as_ref().map(|store| journal::newest(store, loaded.name())).transpose()?.flatten();
    let (run, notes) = newest.map_or((None, Vec::new()), |(run, notes)| (Some(run), notes));
    let last = last_words(&notes);
    let mut rows = Vec::new();
    let mut steps = Vec::new();
    for (step, one) in expected.iter().enumerate() {
        let title = &loaded.plan.steps[step].title;
        let record = one.verdict.as_ref().and_then(|verdict| verdict.found.as_ref().ok());
        let took = record.map_or(String::new(), |record| span(record.provenance.seconds));
        let word = last.get(title).cloned().unwrap_or_default();
        let now = phrase(program, &loaded, step, one);
        let metrics = record.map(|record| &record.metrics);
        steps.push(json!({
            "step": title, "now": now, "last-run": word, "metrics": metrics,
            "seconds": record.map(|record| record.provenance.seconds),
        }));
        rows.push(vec![title.clone(), now, took, word]);
    }
    if talk.json {
        talk.json_data(&json!({ "experiment": loaded.name(), "run": run, "ended": ended(&notes), "steps": steps }))?;
        return Ok(exit::OK);
    }
    talk.data(&text::columns(&rows, &[]))?;
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
            Note::StepStopped { step, .. } => (step, "stopped".to_owned()),
            Note::Healed { step, why } => (step, format!("made again: {why}")),
            _ => continue,
        };
        words.insert(step.clone(), word);
    }
    words
}
