//! The seam between results and reports: gathers what an experiment came to,
//! has it rendered, and writes the files that differ.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Failure, Outcome},
        hash::{Digest, Hasher},
        text,
    },
    cli::{
        Program, Stop, again,
        arguments::{Check, Options, ReportArguments},
        exit,
        load::{self, Loaded},
        plan::expect,
        talk::Talk,
    },
    host::fs,
    report::{
        collected::{Collected, CollectedArm, CollectedFile, CollectedOutput, CollectedStep},
        verdicts::{self, Holds, Verdict},
    },
    runner::judge::Expected,
    store::{
        Store,
        record::{ActionRecord, Output},
        stamp::Stamp,
    },
};
use std::{collections::BTreeSet, path::Path};

/// `report`: writes the report again, without running anything.
pub(crate) fn report(
    program: &Program,
    options: &Options,
    argument: &ReportArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &argument.manifest, true, talk)?;
    let (store, records) = finished(loaded, options)?;
    let written = write(program, loaded, &store, &records, made_of(loaded, &records))?;
    again::tell_doubts(&store, &mut records.iter().flatten().map(|record| record.key), talk)?;
    talk.say(&written);
    let mut answer = serde_json::json!({ "results": loaded.results() });
    let mut code = exit::OK;
    if let Some(check) = argument.check {
        let found = verdicts::verdicts(&collect(loaded, &store, &records)?);
        for Verdict { what, outcome, holds } in &found {
            let line = format!("{outcome}: {what}");
            // Why the code is what it is belongs to the result, even where little is to be said.
            match fails(check, *holds) {
                true => talk.must_say(&line),
                false => talk.say(&line),
            }
        }
        if found.iter().any(|verdict| fails(check, verdict.holds)) {
            code = exit::NOT_SHOWN;
        }
        let row = |v: &Verdict| {
            let holds = match v.holds {
                Holds::Yes => Some(true),
                Holds::Open => None,
                Holds::No => Some(false),
            };
            serde_json::json!({ "what": v.what, "outcome": v.outcome, "holds": holds })
        };
        answer["verdicts"] = found.iter().map(row).collect();
    }
    if talk.json {
        talk.json_data(&answer)?;
    }
    Ok(code)
}

fn fails(check: Check, holds: Holds) -> bool {
    match check {
        Check::Contradicted => holds == Holds::No,
        Check::All => holds != Holds::Yes,
    }
}

/// The records of an experiment, by step.
pub(crate) type Records = Vec<Option<Box<ActionRecord>>>;

/// The records of an experiment all of whose steps are done, by step.
///
/// # Errors
/// When one is not.
pub(crate) fn finished(loaded: &Loaded, options: &Options) -> Result<(Store, Records), Stop> {
    let expected = expect(loaded, options)?;
    let missing: Vec<&str> = expected
        .iter()
        .zip(&loaded.plan.steps)
        .filter(|(one, _)| one.verdict.as_ref().is_none_or(|verdict| verdict.found.is_err()))
        .map(|(_, step)| step.title.as_str())
        .collect();
    let store = Store::open_existing(&options.store)?;
    match store {
        Some(store) if missing.is_empty() => {
            let found = |one: Expected| one.verdict.and_then(|verdict| verdict.found.ok());
            Ok((store, expected.into_iter().map(found).collect()))
        }
        _ => {
            let failure = Failure::input(format!(
                "{} not done: {}",
                text::plural(missing.len() as u64, "step"),
                text::list(missing.iter().take(5).copied())
            ));
            Err(Stop::Failed(failure.hint(format!(
                "`rekindle run {}` does what is missing and then writes the report",
                loaded.manifest
            ))))
        }
    }
}

/// Writes the report unless it was made of the same results and is as it was
/// made; says what was written.
///
/// # Errors
/// When results cannot be read or written.
pub(crate) fn write_if_due(
    program: &Program,
    loaded: &Loaded,
    store: &Store,
    records: &[Option<Box<ActionRecord>>],
    made_of: Digest,
) -> Outcome<String> {
    match as_it_was(store, &loaded.results(), made_of) {
        Some(said) => Ok(said),
        None => write(program, loaded, store, records, made_of),
    }
}

/// That the report in a folder was made of this and is as it was, if so.
pub(crate) fn as_it_was(store: &Store, folder: &str, made_of: Digest) -> Option<String> {
    let holds = Stamp::holds(store, Path::new(folder), made_of);
    holds.then(|| format!("the report in `{folder}` is as it was"))
}

/// Digest of all that the report depends on: the program, the manifests as they
/// were read, and the results.
pub(crate) fn made_of(loaded: &Loaded, records: &[Option<Box<ActionRecord>>]) -> Digest {
    let mut hasher = Hasher::tagged("rekindle 2026 report v1");
    // One that was built anew may write other reports.
    let this = std::env::current_exe().ok().and_then(|path| fs::edition(&path));
    hasher.update(format!("{this:?}").as_bytes());
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(loaded.results().as_bytes());
    for (name, text) in loaded.sources.all() {
        add(name.as_bytes());
        add(text.as_bytes());
    }
    for record in records.iter().flatten() {
        add(record.key.bytes());
        record.outputs.iter().for_each(|output| add(output.digest.bytes()));
        // Counts stand in the report and need not follow from the outputs.
        for (name, value) in &record.metrics {
            add(name.as_bytes());
            add(&value.to_le_bytes());
        }
    }
    hasher.finish()
}

/// The files of the report: name and content.
///
/// # Errors
/// When results cannot be read.
pub(crate) fn files(
    program: &Program,
    loaded: &Loaded,
    store: &Store,
    records: &[Option<Box<ActionRecord>>],
) -> Outcome<Vec<(String, String)>> {
    let collected = collect(loaded, store, records)?;
    let mut files = (program.render)(&collected);
    files.extend(manifests(loaded));
    match files.iter().find(|(name, _)| !fs::is_plain_name(name)) {
        Some((name, _)) => Err(Failure::bug(format!("a report file cannot be called `{name}`"))),
        None => Ok(files),
    }
}

/// Renders the report into the folder of results; says what was written.
///
/// # Errors
/// When results cannot be read or written.
fn write(
    program: &Program,
    loaded: &Loaded,
    store: &Store,
    records: &[Option<Box<ActionRecord>>],
    made_of: Digest,
) -> Outcome<String> {
    let files = files(program, loaded, store, records)?;
    let folder = loaded.results();
    let unwritable = |failure: Failure| {
        failure.hint(format!(
            "the report goes to `{folder}`; set `results` in the manifest to another folder"
        ))
    };
    let mut changed = 0;
    for (name, content) in &files {
        let path = Path::new(&folder).join(name);
        fs::create_folder(path.parent().unwrap_or(Path::new("."))).map_err(unwritable)?;
        changed +=
            u64::from(fs::write_if_different(&path, content.as_bytes()).map_err(unwritable)?);
    }
    let digests = files.iter().map(|(name, text)| (name.clone(), Digest::of_blob(text.as_bytes())));
    Stamp { made_of, files: digests.collect() }.keep(store, Path::new(&folder))?;
    Ok(match (files.len(), changed) {
        (0, _) => "the manifest asks for no report".to_owned(),
        (_, 0) => format!("the report in `{folder}` is as it was"),
        (n, changed) => format!(
            "the report is in `{folder}` ({changed} of {} new)",
            text::plural(n as u64, "file")
        ),
    })
}

/// The exact manifest of each arm, which runs by itself: every value as it came
/// out of `extends`, `--set` and sweep, and where each came from.
fn manifests(loaded: &Loaded) -> Vec<(String, String)> {
    let [arm] = loaded.arms.as_slice() else {
        let arms = loaded.arms.iter().zip(1..);
        let named = arms.map(|(arm, number)| {
            let results = format!("{}/arm-{number}", loaded.results());
            let coordinates: String =
                arm.coords.iter().map(|(axis, label)| format!("# {axis}: {label}\n")).collect();
            let manifest = arm.resolved_toml(&loaded.sources, Some(&results));
            (format!("manifest-{number}.toml"), coordinates + &manifest)
        });
        return named.collect();
    };
    vec![("manifest.toml".to_owned(), arm.resolved_toml(&loaded.sources, None))]
}

/// Makes sure that the folder of results can be written, before any work.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_folder(loaded: &Loaded) -> Outcome<()> {
    let folder = loaded.results();
    fs::try_writing(Path::new(&folder)).map_err(|failure| {
        failure.hint(format!(
            "results go to `{folder}`; set `results` in the manifest to another folder"
        ))
    })
}

fn collect(
    loaded: &Loaded,
    store: &Store,
    records: &[Option<Box<ActionRecord>>],
) -> Outcome<Collected> {
    let head = loaded.arms.first().map(|arm| &arm.head);
    let mut collected = Collected {
        name: loaded.name().to_owned(),
        description: head.and_then(|head| head.description.clone()),
        rounds: head.map_or(0, |head| u32::try_from(head.rounds).unwrap_or(0)),
        arms: Vec::new(),
    };
    for (number, arm) in loaded.arms.iter().enumerate() {
        let mut cx = arm.reading();
        let findings = arm.findings(&mut cx);
        let cases = findings.report.iter().flat_map(|report| &report.cases);
        let shown: BTreeSet<&str> = cases.map(|case| case.dialogues.reference.as_str()).collect();
        let mut steps = Vec::new();
        for declared in &arm.steps {
            let place =
                loaded.plan.find(number, &declared.name).expect("every step of an arm is planned");
            let record = records[place].as_ref().expect("reports are made of finished experiments");
            let inputs = loaded.plan.steps[place].inputs.iter();
            let name_here = |step: usize| {
                let wanted = loaded.plan.steps[step].wanted.iter();
                wanted
                    .clone()
                    .find(|(arm, _)| *arm == number)
                    .map_or(String::new(), |(_, name)| name.clone())
            };
            steps.push(CollectedStep {
                name: declared.name.clone(),
                base: declared.base.clone(),
                round: declared.round,
                kind: declared.kind.0.clone(),
                key: record.key,
                identity: record.identity.clone(),
                inputs: inputs
                    .map(|input| {
                        (input.role.clone(), format!("{}.{}", name_here(input.step), input.output))
                    })
                    .collect(),
                metrics: record.metrics.clone(),
                outputs: record
                    .outputs
                    .iter()
                    .map(|output| {
                        let name = format!("{}.{}", declared.name, output.name);
                        let is_shown =
                            shown.contains(name.as_str()) || shown.contains(declared.name.as_str());
                        collect_output(store, output, is_shown)
                    })
                    .collect::<Outcome<_>>()?,
            });
        }
        let (coordinates, seed) = (arm.coords.clone(), arm.seed.0);
        collected.arms.push(CollectedArm { coordinates, seed, findings, steps });
    }
    Ok(collected)
}

fn collect_output(store: &Store, output: &Output, shown: bool) -> Outcome<CollectedOutput> {
    let wanted = |name: &str| match output.kind {
        ArtifactKind::Scores
        | ArtifactKind::Tally
        | ArtifactKind::TrainLog
        | ArtifactKind::Leaks => true,
        // What was said of every pair may be long, and is in none of the tables.
        ArtifactKind::Judgements => shown || name.ends_with(".json"),
        _ => shown,
    };
    let mut files = Vec::new();
    for file in &output.files {
        let content = match wanted(&file.name) {
            true => fs::read(&store.file(output, &file.name)?)?,
            false => None,
        };
        files.push(CollectedFile {
            name: file.name.clone(),
            size: file.size,
            digest: file.digest,
            content,
        });
    }
    Ok(CollectedOutput {
        name: output.name.clone(),
        kind: output.kind,
        digest: output.digest,
        files,
    })
}
