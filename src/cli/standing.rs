//! The short way of commands that find everything stored: what was concluded
//! before from the same texts, settings, program and files is concluded again,
//! without reading the manifest's meaning. See [`crate::store::standing`].
//!
//! Whatever is not as it was, or cannot be read, ends the short way without a
//! word; the command then goes the long one, which tells what is the matter.

use crate::{
    base::{failure::Outcome, hash::Digest},
    cli::{Program, arguments::Options, load::Loaded},
    host::{clock, fs},
    runner::judge::estimate,
    store::{
        Store,
        history::History,
        record::ActionRecord,
        standing::{About, Standing, Stood},
    },
};
use std::path::Path;

/// A manifest all of whose steps are stored.
pub(crate) struct Settled {
    pub(crate) store: Store,
    pub(crate) standing: Standing,
}

/// The standing of a manifest, if it is known that all its steps are stored.
pub(crate) fn settled(program: &Program, options: &Options, manifest: &Path) -> Option<Settled> {
    let known = remembered(program, options, manifest)?;
    known.standing.holds(&known.store).then_some(known)
}

/// The standing of a manifest, if the same was asked for then; whether records
/// and objects are still there is not looked at.
pub(crate) fn remembered(program: &Program, options: &Options, manifest: &Path) -> Option<Settled> {
    let store = Store::open_existing(&options.store).ok()??;
    let standing = Standing::read(&store, manifest)?;
    let about = &standing.about;
    let same_text = |(name, digest): &(String, Digest)| {
        fs::read(Path::new(name)).is_ok_and(|text| text.as_deref().map(digest_of) == Some(*digest))
    };
    let same_class = |(device, class): (&String, &String)| {
        (program.numerics)(device).is_ok_and(|now| now == *class)
    };
    let holds = about.asked == asked(options, manifest)?
        && about.sources.iter().all(same_text)
        && about.classes.iter().all(same_class)
        && standing.knows_history(&store);
    holds.then_some(Settled { store, standing })
}

/// Keeps that all steps were found stored; `since` is when the looking began.
///
/// # Errors
/// When the store cannot be written.
pub(crate) fn keep(
    loaded: &Loaded,
    options: &Options,
    store: &Store,
    history: &History,
    since: f64,
    report: Digest,
    records: &[Option<Box<ActionRecord>>],
) -> Outcome<()> {
    let manifest = Path::new(&loaded.manifest);
    let (Some(asked), false) = (asked(options, manifest), loaded.looked_outside) else {
        return Ok(());
    };
    let records: Vec<&ActionRecord> =
        records.iter().filter_map(|record| record.as_deref()).collect();
    let plan = &loaded.plan;
    if loaded.remarked || records.len() != plan.steps.len() {
        return Ok(());
    }
    let steps: Vec<Stood> = plan
        .steps
        .iter()
        .zip(&records)
        .enumerate()
        .map(|(number, (step, record))| Stood {
            title: step.title.clone(),
            names: step.wanted.iter().map(|(_, name)| name.clone()).collect(),
            base: step.shape.base.clone(),
            kind: step.shape.kind.clone(),
            key: record.key,
            reads: step.inputs.iter().map(|input| input.step).collect(),
            estimate: estimate(plan, number, history),
            seconds: record.provenance.seconds,
            metrics: record.metrics.clone(),
        })
        .collect();
    // `--set` is a source too, but one of `asked`.
    let files = loaded.sources.all().filter(|(name, _)| *name != "--set");
    let about = About {
        asked,
        sources: files.map(|(name, text)| (name.to_owned(), digest_of(text.as_bytes()))).collect(),
        classes: loaded.classes.clone(),
        experiment: loaded.name().to_owned(),
        device: loaded.device.clone(),
        results: loaded.results(),
        report,
        steps: steps.len() as u64,
        history: None,
    };
    Standing::keep(store, manifest, (since * 1e9) as u64, about, &steps, &records)
}

/// Now, for `since`.
pub(crate) fn now() -> f64 {
    clock::unix_seconds()
}

/// The program and all that a command line may change in the reading.
fn asked(options: &Options, manifest: &Path) -> Option<Vec<String>> {
    let program = fs::edition(&std::env::current_exe().ok()?)?;
    let mut asked = vec![
        format!("{} {program:?}", env!("CARGO_PKG_VERSION")),
        manifest.to_str()?.to_owned(),
        format!("{:?}", options.device),
    ];
    asked.extend(options.sets.iter().cloned());
    Some(asked)
}

fn digest_of(text: &[u8]) -> Digest {
    Digest::tagged("rekindle 2026 source v1", text)
}
