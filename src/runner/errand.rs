//! What a step's own process is told, and what it says: one JSON value a line.
//!
//! ```text
//! runner -> process   Errand, then `stop` when it shall end soon
//! process -> runner   Word::Progress ..., then one Word::Done or Word::Failed
//! ```
//! The stage is told as a table of values, not as text of a manifest: whatever
//! happens to the manifest meanwhile, the process runs what was planned.

use crate::{
    base::{
        failure::{Class, Failure, Outcome},
        node::{Node, Origin, Sources, Table},
        seed::Seed,
        spec::Reading,
    },
    host::{http, signal::StopFlag},
    runner::executor::{Executor, InProcess, Job},
    stages::{
        kind::{Kind, Numerics, Stage},
        work::{Granted, Parts, Progress, Work},
    },
    store::{Store, artifact::Artifact, record::Output},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// The word that makes this program the process of one step.
pub const STEP: &str = "__run-step";

/// What a process of its own is to do. `stop` on a line of its own asks it to
/// end soon, and the end of the input to end at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Errand {
    /// The step's title.
    pub(super) title: String,
    /// The stage's kind.
    pub(super) kind: String,
    /// The stage's parameters, all of them.
    pub(super) table: serde_json::Value,
    /// The canonical text of these, to see that they arrived as they are.
    pub(super) parameters: String,
    /// The step's seed.
    pub(super) seed: u64,
    /// The store.
    pub(super) store: PathBuf,
    /// Role, artifact, and the step that made it.
    pub(super) inputs: Vec<(String, Output, String)>,
    /// Names of the outputs.
    pub(super) outputs: Vec<String>,
    /// See [`Parts`].
    pub(super) attempt: PathBuf,
    /// See [`Parts`].
    pub(super) partial: PathBuf,
    /// The device as asked for.
    pub(super) device: String,
    /// The class of arithmetic that the result belongs to, if it does to one.
    pub(super) numerics: Option<String>,
    /// Threads it may keep busy.
    pub(super) threads: usize,
    /// What it was given of the machine.
    pub(super) granted: Granted,
    /// The folder with copies of public files.
    pub(super) mirror: Option<PathBuf>,
}

/// What a process of its own says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// How far it is.
    Progress(Progress),
    /// It did its work.
    Done {
        /// Counters by name.
        metrics: BTreeMap<String, f64>,
        /// Remarks.
        warnings: Vec<String>,
    },
    /// It did not.
    Failed {
        /// What kind of trouble.
        class: Class,
        /// What happened, and its causes.
        chain: Vec<String>,
        /// What a person could do.
        hints: Vec<String>,
    },
}

/// What the process of a step does: reads its errand, does it, says what came
/// of it. What it says goes to `out`, for whoever started it.
///
/// # Errors
/// When there is no errand, or nobody hears.
pub fn serve(kinds: &[&Kind], numerics: Numerics<'_>, out: &mut (dyn Write + Send)) -> Outcome<()> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let errand: Option<Errand> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    let errand = errand.ok_or_else(|| {
        Failure::input(format!("`{STEP}` is how `rekindle` starts itself, and nothing to type"))
    })?;
    let stop = StopFlag::default();
    listen(stop.clone())?;
    let out = Mutex::new(out);
    let say = |word: Word| {
        let line = serde_json::to_string(&word).expect("a word is JSON");
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nobody hears any more, the runner is gone and this process too.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    say(match errand.run(kinds, numerics, stop, &|progress| say(Word::Progress(progress))) {
        Ok(done) => done,
        Err(failure) => {
            Word::Failed { class: failure.class, chain: failure.chain(), hints: failure.hints }
        }
    });
    Ok(())
}

/// Raises the flag when it is asked for, and leaves when the runner is gone.
fn listen(stop: StopFlag) -> Outcome<()> {
    use crate::base::failure::Doing;
    let heard = move || {
        let mut lines = std::io::stdin().lines();
        while let Some(Ok(_)) = lines.next() {
            stop.raise();
        }
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("runner".to_owned())
        .spawn(heard)
        .doing(|| "starting a thread".to_owned())?;
    Ok(())
}

impl Errand {
    fn run(
        self,
        kinds: &[&Kind],
        numerics: Numerics<'_>,
        stop: StopFlag,
        listener: &(dyn Fn(Progress) + Sync),
    ) -> Outcome<Word> {
        if let Some(mirror) = &self.mirror {
            http::use_mirror(mirror.clone());
        }
        // Looked for again, `auto` might come to another device.
        if let Some(wanted) = &self.numerics {
            let found = numerics(&self.device)?;
            if found != *wanted {
                return Err(Failure::environment(format!(
                    "device `{}` was `{wanted}` when the run began, and is `{found}` now",
                    self.device
                ))
                .hint("name the device instead of `auto`; the same command goes on"));
            }
        }
        let stage = self.stage(kinds)?;
        let store = Store::open_existing(&self.store)?
            .ok_or_else(|| Failure::environment("the store is gone"))?;
        let artifact = |(role, output, from): &(String, Output, String)| {
            (role.clone(), Artifact::new(&store, output.clone(), from))
        };
        let work = Work::new(Parts {
            seed: Seed(self.seed),
            inputs: self.inputs.iter().map(artifact).collect(),
            outputs: self.outputs.clone(),
            attempt: self.attempt.clone(),
            partial: self.partial.clone(),
            replies: store.replies(),
            device: self.device.clone(),
            threads: self.threads,
            granted: self.granted.clone(),
            deadline: None, // whoever started this process watches the clock
            stop,
            listener,
        })?;
        InProcess.execute(&Job::of_stage(&self.title, &*stage), &work)?;
        let said = work.said().clone();
        Ok(Word::Done { metrics: said.metrics, warnings: said.warnings })
    }

    /// The stage out of its table; the same one, or none.
    fn stage(&self, kinds: &[&Kind]) -> Outcome<Arc<dyn Stage>> {
        let broken = || Failure::bug(format!("the stage of `{}` did not arrive", self.title));
        let kind = kinds.iter().find(|kind| kind.name == self.kind).ok_or_else(broken)?;
        let mut sources = Sources::default();
        let origin = Origin::new(sources.add("errand", ""), 0..0);
        let node = Node::of_json(&self.table, &origin).ok_or_else(broken)?;
        let (none, parse) = (Table::default(), kind.parse);
        let mut cx = Reading::new(&none);
        let parsed = parse(&node, &mut cx);
        let found = cx.finish();
        if found.has_errors() {
            return Err(broken().hint(found.render(&sources, false)));
        }
        let parsed = parsed.filter(|parsed| parsed.identity == self.parameters);
        parsed.map(|parsed| parsed.stage).ok_or_else(broken)
    }
}
