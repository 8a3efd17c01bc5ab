//! `export`: a stored model as a folder that Hugging Face's libraries load; any
//! other output, such as an adapter or dialogues, as its files are. Runs
//! nothing; what is not made yet is named with what makes it.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Failure, Outcome},
        text,
    },
    cli::{
        Program, Stop,
        arguments::{ExportArguments, Options},
        exit,
        load::{self, Loaded},
        plan::expect,
        talk::Talk,
    },
    engine::{
        config::LlamaConfig,
        weights::export::{Export, write_files},
    },
    store::{Store, artifact::Artifact},
};
use std::collections::BTreeMap;

/// Files of a stored model that are written anew or are this program's own.
const OURS: [&str; 3] = ["config.json", "model.safetensors", "train.json"];

pub(crate) fn export(
    program: &Program,
    options: &Options,
    arguments: &ExportArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &arguments.manifest, true, talk)?;
    let (artifact, named) = stored(loaded, options, &arguments.model)?;
    let names = write(&artifact, arguments)?;
    if talk.json {
        talk.json_data(&serde_json::json!({ "folder": arguments.to, "files": names }))?;
    } else {
        talk.say(&format!(
            "`{}` holds `{named}`: {}",
            arguments.to.display(),
            text::list(names.iter().map(String::as_str))
        ));
    }
    Ok(exit::OK)
}

/// What a person means by `STEP` or `STEP.OUTPUT`, out of the store, with its full name.
pub(crate) fn stored(
    loaded: &Loaded,
    options: &Options,
    words: &str,
) -> Result<(Artifact, String), Stop> {
    let (step, output) = find(loaded, words).map_err(Stop::Arguments)?;
    let title = &loaded.plan.steps[step].title;
    let missing = || {
        Failure::input(format!("step `{title}` is not done")).hint(format!(
            "`rekindle run {}` does it, and then this command can be given again",
            loaded.manifest
        ))
    };
    let record = expect(loaded, options)?
        .into_iter()
        .nth(step)
        .and_then(|one| one.verdict?.found.ok())
        .ok_or_else(missing)?;
    let store = Store::open_existing(&options.store)?.ok_or_else(missing)?;
    let stored = record.output(&output).ok_or_else(missing)?;
    Ok((Artifact::new(&store, stored.clone(), title), format!("{title}.{output}")))
}

fn write(artifact: &Artifact, arguments: &ExportArguments) -> Outcome<Vec<String>> {
    let is_model = artifact.kind() == ArtifactKind::Model;
    let others = artifact.files().into_iter().filter(|name| !is_model || !OURS.contains(name));
    let files: BTreeMap<String, Vec<u8>> =
        others.map(|name| Ok((name.to_owned(), artifact.read(name)?))).collect::<Outcome<_>>()?;
    if !is_model {
        return write_files(&arguments.to, &files);
    }
    let export = Export {
        config: LlamaConfig::from_json(&artifact.read("config.json")?, "`config.json`")?,
        weights: &artifact.file("model.safetensors")?,
        files,
        shard_bytes: (arguments.shard_size * 1e9) as u64,
    };
    export.write(&arguments.to)
}

/// The step and the output that a person means by `STEP` or `STEP.OUTPUT`.
fn find(loaded: &Loaded, words: &str) -> Outcome<(usize, String)> {
    let plan = &loaded.plan;
    let whole = (plan.matching(words), None);
    let parts = words.rsplit_once('.').map(|(step, output)| (plan.matching(step), Some(output)));
    let (steps, output) = [Some(whole), parts]
        .into_iter()
        .flatten()
        .find(|(steps, _)| !steps.is_empty())
        .ok_or_else(|| {
            let titles = plan.steps.iter().map(|step| step.title.as_str());
            Failure::input(format!("there is no step `{words}`"))
                .hint(text::suggestion(words, "steps", titles))
        })?;
    let titles: Vec<&str> = steps.iter().map(|&step| plan.steps[step].title.as_str()).collect();
    let &[step] = &steps[..] else {
        return Err(Failure::input(format!("`{words}` may be {}", text::list(titles.into_iter())))
            .hint("name one of them"));
    };
    let outputs = &plan.steps[step].shape.outputs;
    let names = || outputs.iter().map(|(name, _)| name.as_str());
    let models: Vec<&String> = outputs
        .iter()
        .filter(|(_, kind)| *kind == ArtifactKind::Model)
        .map(|(name, _)| name)
        .collect();
    match (output, &models[..]) {
        (Some(output), _) if names().any(|name| name == output) => Ok((step, output.to_owned())),
        (None, &[only]) => Ok((step, only.clone())),
        _ => {
            let what = output.map_or("that is a model".to_owned(), |name| format!("`{name}`"));
            let failure = format!("step `{}` has no output {what}", titles[0]);
            Err(Failure::input(failure).hint(match names().next() {
                Some(_) => format!("it makes {}; name one, as `STEP.OUTPUT`", text::list(names())),
                None => "it makes nothing".to_owned(),
            }))
        }
    }
}
