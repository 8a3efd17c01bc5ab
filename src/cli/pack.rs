//! `pack` and `unpack`: a finished study as one file, and such a file taken into
//! a store. Runs nothing.

use crate::{
    base::{
        failure::{Failure, Outcome},
        text,
    },
    cli::{
        Program, Stop,
        arguments::{Options, PackArguments, UnpackArguments},
        exit,
        load::{self, Loaded},
        report,
        talk::Talk,
    },
    engine::weights::export::write_files,
    host::fs,
    store::{
        Store,
        history::History,
        pack::{self, Contents, Found},
        record::ActionRecord,
    },
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// `pack`: everything a finished study came to, in one file.
///
/// # Errors
/// When a step is not done, or something cannot be read or written.
pub(crate) fn pack(
    program: &Program,
    options: &Options,
    arguments: &PackArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &arguments.manifest, true, talk)?;
    let (store, records) = report::finished(loaded, options)?;
    let history = History::read(&store)?;
    let known: Vec<_> = loaded
        .plan
        .steps
        .iter()
        .flat_map(|step| &step.logical)
        .filter_map(|id| history.last(id))
        .collect();
    let (entry, manifest) = manifest(loaded)?;
    let records_of: Vec<&ActionRecord> = records.iter().filter_map(|one| one.as_deref()).collect();
    let results = report::files(program, loaded, &store, &records)?.into_iter().collect();
    let contents = Contents {
        experiment: loaded.name(),
        entry: &entry,
        sets: &options.sets,
        device: &loaded.device,
        records: &records_of,
        history: &known,
        manifest: &manifest,
        results: &results,
        without_models: arguments.without_models,
    };
    let to = arguments.to.clone().unwrap_or_else(|| format!("{}.rkpack", loaded.name()).into());
    let packed = pack::write(&store, &contents, &to)?;
    let size = fs::size(&to).unwrap_or_default();
    if talk.json {
        talk.json_data(&json!({
            "file": to, "bytes": size, "records": packed.records, "objects": packed.objects,
            "left-out": packed.left_out,
        }))?;
    }
    let left = match packed.left_out {
        0 => String::new(),
        n => format!("; {} left out", text::plural(n, "file")),
    };
    talk.say(&format!(
        "`{}` ({}) holds {} and {}{left}",
        to.display(),
        text::bytes(size),
        text::plural(packed.records, "record"),
        text::plural(packed.objects, "file"),
    ));
    if loaded.looked_outside {
        talk.say(
            "a step takes something from outside the store: without that folder, another machine \
             can plan it only if the manifest gives its `digest`",
        );
    }
    Ok(exit::OK)
}

/// The manifest's files by name, seen from the folder that holds them all, and
/// the name of the one that was asked for.
fn manifest(loaded: &Loaded) -> Outcome<(String, BTreeMap<String, String>)> {
    let files = loaded.sources.all().filter(|(name, _)| *name != "--set");
    let paths: Vec<(PathBuf, &str)> = files.map(|(name, text)| (plain(name), text)).collect();
    let mut folder = paths.first().and_then(|(path, _)| path.parent()).unwrap_or(Path::new("/"));
    while let Some((path, _)) = paths.iter().find(|(path, _)| !path.starts_with(folder)) {
        folder = folder.parent().ok_or_else(|| {
            Failure::input(format!("`{}` is in no folder with the manifest", path.display()))
        })?;
    }
    let named = |path: &Path| {
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
        name.filter(|name| fs::is_plain_name(name)).map(str::to_owned).ok_or_else(|| {
            Failure::input(format!("`{}` cannot be the name of a packed file", path.display()))
        })
    };
    let entry = named(&plain(&loaded.manifest))?;
    let texts = paths.iter().map(|(path, text)| Ok((named(path)?, (*text).to_owned())));
    Ok((entry, texts.collect::<Outcome<_>>()?))
}

/// An absolute path without `.` and `..`.
fn plain(name: &str) -> PathBuf {
    let whole = std::path::absolute(name).unwrap_or_else(|_| name.into());
    let mut path = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// `unpack`: checks a pack, takes its results into the store, and writes its
/// manifest and report into a folder.
///
/// # Errors
/// When the pack is damaged, the folder is taken, or the disk refuses.
pub(crate) fn unpack(
    options: &Options,
    arguments: &UnpackArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    if fs::size(&arguments.pack).is_none() {
        let what = format!("there is no file `{}`", arguments.pack.display());
        return Err(Stop::Arguments(Failure::input(what)));
    }
    if arguments.check {
        let found = pack::check(&arguments.pack)?;
        tell(&arguments.pack, &found, "is whole", talk)?;
        return Ok(exit::OK);
    }
    let store = Store::open(&options.store)?;
    let folder = |found: &Found| {
        arguments.to.clone().unwrap_or_else(|| PathBuf::from(&found.head.experiment))
    };
    let is_free = |found: &Found| {
        let to = folder(found);
        if fs::size(&to).is_none() && fs::names(&to)?.is_empty() {
            return Ok(());
        }
        Err(Failure::input(format!("`{}` is there already and not empty", to.display()))
            .hint("name another folder with `--to`; nothing is ever overwritten"))
    };
    let (found, taken) = pack::take(&store, &arguments.pack, &is_free)?;
    let to = folder(&found);
    write_files(&to, &found.texts)?;
    tell(&arguments.pack, &found, "was whole", talk)?;
    let mut line = format!(
        "{} new in the store `{}`",
        text::plural(taken.new, "record"),
        options.store.display()
    );
    if taken.known > 0 {
        line += &format!(", {} known already", taken.known);
    }
    talk.say(&line);
    if taken.otherwise > 0 {
        talk.must_say(&format!(
            "{} stored here with another result, which stays; what was made of the pack's may run again",
            text::plural(taken.otherwise, "step"),
        ));
    }
    let sets: String = found.head.sets.iter().map(|set| format!(" --set '{set}'")).collect();
    let device = match found.head.device.as_str() {
        "auto" => String::new(),
        device => format!(" --device {device}"),
    };
    talk.say(&format!(
        "`rekindle plan {}{sets}{device}` shows that it is all there; its report is in `{}`",
        to.join("manifest").join(&found.head.manifest).display(),
        to.join("results").display(),
    ));
    Ok(exit::OK)
}

fn tell(path: &Path, found: &Found, word: &str, talk: &Talk) -> Outcome<()> {
    let left_out = found.head.left_out.len() as u64;
    if talk.json {
        talk.json_data(&json!({
            "experiment": found.head.experiment, "records": found.records, "objects": found.objects,
            "bytes": found.bytes, "left-out": left_out, "seal": found.seal,
        }))?;
    }
    let left = match left_out {
        0 => String::new(),
        n => format!(" ({} left out)", text::plural(n, "file")),
    };
    talk.say(&format!(
        "`{}` {word}: `{}`, {}, {} of {}{left}; seal {}",
        path.display(),
        found.head.experiment,
        text::plural(found.records, "record"),
        text::plural(found.objects, "file"),
        text::bytes(found.bytes),
        &found.seal[..12],
    ));
    Ok(())
}
