//! `serve`: a model behind OpenAI's protocol, out of a folder or out of the
//! store. Runs no manifest; reads the key from the environment and tells it to
//! nobody.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Doing, Failure, Outcome},
        text,
    },
    cli::{
        Program, Stop,
        arguments::{Options, ServeArguments},
        exit, export, load,
        talk::Talk,
    },
    engine::{
        config::LlamaConfig,
        device::Opened,
        tokenizer::{self, Files},
        weights::folder::Weights,
    },
    host::{
        fs,
        signal::{self, StopFlag},
    },
    inference::local::{Local, open_device},
    record::template::{self, Template},
    serve::{Begun, Serving, Speech},
    store::artifact::Artifact,
};
use std::path::Path;

pub(crate) fn serve(
    program: &Program,
    options: &Options,
    arguments: &ServeArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let speech = speech(arguments.template.as_deref()).map_err(Stop::Arguments)?;
    let key = arguments.key_env.as_deref().map(key).transpose().map_err(Stop::Arguments)?;
    let stop = StopFlag::default();
    signal::watch(stop.clone(), i32::from(exit::INTERRUPTED), || {
        Talk::stderr("finishing what was begun; Ctrl-C again stops at once");
    })?;
    let (local, usual, on) = model(program, options, arguments, talk)?;
    let serving = Serving {
        host: arguments.host.clone(),
        port: arguments.port,
        key,
        name: arguments.name.clone().unwrap_or(usual),
        slots: usize::from(arguments.slots),
        queue: usize::from(arguments.queue),
        context: arguments.context.map(|tokens| tokens as usize),
        speech,
    };
    crate::serve::serve(&local, &serving, &stop, &|begun| tell(begun, &serving, &on, talk))?;
    Ok(exit::OK)
}

/// Says where the server is.
fn tell(begun: Begun, serving: &Serving, on: &Opened, talk: &Talk) -> Outcome<()> {
    let url = format!("http://{}/v1", begun.address);
    let name = &serving.name;
    talk.say(&format!(
        "`{name}` on {}: {} of {} tokens, {} more in line",
        on.name,
        text::plural(begun.slots as u64, "slot"),
        text::count(begun.context as u64),
        serving.queue,
    ));
    if serving.key.is_none() && !begun.address.ip().is_loopback() {
        talk.must_say("whoever reaches this address can use it: `--key-env` asks for a key");
    }
    if !talk.json {
        return talk.data(&format!("{url}\n"));
    }
    let answer = serde_json::json!({
        "url": url, "model": name, "device": on.name, "slots": begun.slots, "context": begun.context,
    });
    // One line, so that who starts a server need not wait for its end.
    talk.data(&format!("{answer}\n"))
}

/// The model, its usual name, and where it is.
fn model(
    program: &Program,
    options: &Options,
    arguments: &ServeArguments,
    talk: &Talk,
) -> Result<(Local, String, Opened), Stop> {
    let path = &arguments.model;
    let device = |usual: &str| open_device(options.device.as_deref().unwrap_or(usual));
    match (&arguments.step, path.is_dir()) {
        (None, true) => {
            let on = device("auto")?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("model");
            Ok((of_folder(path, &on)?, name.to_owned(), on))
        }
        (Some(_), true) => Err(Stop::Arguments(
            Failure::input(format!("`{}` is a folder, which has no steps", path.display()))
                .hint("a step belongs behind a manifest; a checkpoint stands alone"),
        )),
        (None, false) => Err(Stop::Arguments(
            Failure::input(format!("`{}` is no folder", path.display())).hint(
                "a checkpoint is a folder with a `config.json`; behind a manifest name a step, as in \
                 `rekindle serve study.toml last.round.model`",
            ),
        )),
        (Some(step), false) => {
            let loaded = load::load(program, options, path, true, talk)?;
            let (artifact, name) = export::stored(loaded, options, step)?;
            if artifact.kind() != ArtifactKind::Model {
                let what = format!("`{name}` is not a model but {}", artifact.kind().name());
                return Err(Stop::Arguments(Failure::input(what)));
            }
            let on = device(&loaded.device)?;
            Ok((of_store(&artifact, &on)?, name, on))
        }
    }
}

fn of_store(artifact: &Artifact, on: &Opened) -> Outcome<Local> {
    let mut files = Files::new();
    for name in artifact.files() {
        if tokenizer::FILES.contains(&name) {
            files.insert(name.to_owned(), artifact.read(name)?);
        }
    }
    let weights = artifact.file("model.safetensors")?;
    Local::load(&artifact.read("config.json")?, &weights, &files, on)
}

fn of_folder(folder: &Path, on: &Opened) -> Outcome<Local> {
    let place = |name: &str| format!("`{}`", folder.join(name).display());
    let bytes = fs::read(&folder.join("config.json"))?.ok_or_else(|| {
        Failure::input(format!("there is no {}", place("config.json")))
            .hint("a checkpoint is a folder in Hugging Face's layout, such as `export` writes")
    })?;
    let config = LlamaConfig::from_json(&bytes, &place("config.json"))?;
    let mut files = Files::new();
    for name in tokenizer::FILES {
        if let Some(bytes) = fs::read(&folder.join(name))? {
            files.insert(name.to_owned(), bytes);
        }
    }
    let found = Weights::find(folder)?;
    // Weights come in many layouts; one file of them is what everything else reads.
    let name = format!("rekindle-serve-{}.safetensors", std::process::id());
    let gathered = std::env::temp_dir().join(name);
    let local = found
        .gather(&config, &gathered, &mut |_, _| Ok(()))
        .and_then(|()| Local::load(&bytes, &gathered, &files, on));
    fs::remove_file(&gathered)?;
    local
}

/// The key in an environment variable.
fn key(name: &str) -> Outcome<String> {
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
        _ => Err(Failure::input(format!("the environment variable `{name}` holds no key"))
            .hint("set it to what clients shall send as `Authorization: Bearer KEY`")),
    }
}

/// A template by its name, or out of a file.
fn speech(words: Option<&str>) -> Outcome<Speech> {
    let Some(words) = words else { return Ok(Speech::default()) };
    let named = Template::ALL.iter().find(|template| template.name() == words);
    if let Some(&template) = named {
        return Ok(Speech { template: Some(template), jinja: None });
    }
    let Some(bytes) = fs::read(Path::new(words))? else {
        let names = Template::ALL.iter().map(|template| template.name());
        return Err(Failure::input(format!("there is no template and no file `{words}`"))
            .hint(text::suggestion(words, "templates", names)));
    };
    let source = String::from_utf8(bytes).doing(|| format!("reading `{words}`"))?;
    if let Some(complaint) = template::complaint(&source) {
        return Err(Failure::input(format!("`{words}` is no chat template: {complaint}")));
    }
    Ok(Speech { template: Some(Template::Model), jinja: Some(source) })
}
