//! Where faults are brought about: a folder that goes away, studies small
//! enough to be run hundreds of times, and what a run left behind.

use super::{Trouble, demand};
use crate::{
    base::{
        failure::{Doing, Failure, Outcome},
        hash::Digest,
    },
    cli::{Program, Stop, arguments::Options, load, run::Course, standing, talk::Talk},
    host::{clock, fs, signal::StopFlag},
    runner::{
        drive::Finished,
        event::{Event, Observer},
        executor::InProcess,
        state::State,
    },
    store::{Store, history::History, journal::Note, lines},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The folder and what is needed to run studies in it.
pub(crate) struct Ground<'a> {
    program: &'a Program,
    options: &'a Options,
    folder: PathBuf,
    /// How often runners are killed.
    pub(super) kills: u32,
    /// Whether every place of a fault is tried, or a part of them.
    pub(super) thorough: bool,
}

/// Kills from which on every place of a fault is tried too.
const THOROUGH: u32 = 100;

/// Steps of all sorts: inside the program and outside, one after another and
/// side by side.
pub(super) const SMALL: &str = r#"rekindle = 1
name = "small"
[protocol.plain]
answer = "number"
[dataset.words]
kind = "word-problems"
problems = { train = 6, test = 4 }
protocol = "plain"
[stage.texts]
kind = "examples"
problems = "words.train"
protocol = "plain"
[stage.count]
kind = "command"
run = ["sh", "-c", "echo 8 > out/n/count"]
outputs = ["n"]
[stage.twice]
kind = "command"
run = ["sh", "-c", "read n < in/n/count; echo $n $n > out/a/twice; echo more > out/b/more"]
inputs = { n = "count.n" }
outputs = ["a", "b"]
"#;

/// A run inside this process.
pub(super) struct Ran {
    /// Digests of what each step made, by step.
    pub(super) made: Vec<(Digest, Vec<Digest>)>,
    /// Keys of the steps whose result was there.
    pub(super) fresh: BTreeSet<Digest>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(
        program: &'a Program,
        options: &'a Options,
        kills: u32,
    ) -> Outcome<Ground<'a>> {
        let folder = std::env::temp_dir().join(format!("rekindle-faults-{}", std::process::id()));
        fs::create_folder(&folder)?;
        // Watchers know folders by their full names.
        let folder =
            std::fs::canonicalize(&folder).doing(|| format!("finding `{}`", folder.display()))?;
        Ok(Ground { program, options, folder, kills, thorough: kills >= THOROUGH })
    }

    pub(super) fn close(self) -> Outcome<()> {
        fs::remove_folder(&self.folder)
    }

    /// A place for one study, empty.
    pub(super) fn world(&self, name: &str, manifest: &str) -> Outcome<World<'_>> {
        let root = self.folder.join(name);
        fs::remove_folder(&root)?;
        fs::create_folder(&root)?;
        let file = self.folder.join(format!("{name}.toml"));
        let world = World { ground: self, root, manifest: file };
        world.write_manifest(manifest)?;
        Ok(world)
    }
}

/// A study with a store and a folder of results of its own.
pub(super) struct World<'a> {
    ground: &'a Ground<'a>,
    /// Holds store and results, and what steps leave there.
    pub(super) root: PathBuf,
    manifest: PathBuf,
}

struct Deaf;

impl Observer for Deaf {
    fn hear(&self, _event: &Event) {}
}

impl World<'_> {
    /// Writes the manifest; `ROOT` in it becomes the world's folder.
    pub(super) fn write_manifest(&self, text: &str) -> Outcome<()> {
        let text = text.replace("ROOT", &self.root.display().to_string());
        fs::write(&self.manifest, text.as_bytes())
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(super) fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// Runs the study inside this process, one step at a time.
    pub(super) fn run_here(&self) -> Result<Ran, Failure> {
        let Options { color, .. } = *self.ground.options;
        let options = Options {
            store: self.store(),
            sets: vec![format!("results={}", self.results().display())],
            device: Some("cpu".to_owned()),
            jobs: Some(1),
            cpus: None,
            memory: None,
            devices: None,
            mirror: None,
            json: false,
            quiet: true,
            color,
        };
        let talk = Talk::new(&options);
        let program = self.ground.program;
        let loaded = load::load(program, &options, &self.manifest, true, &talk).map_err(
            |stop| match stop {
                Stop::Manifest => Failure::bug("a study of this check has mistakes"),
                Stop::Unreadable(failure) | Stop::Arguments(failure) | Stop::Failed(failure) => {
                    failure
                }
            },
        )?;
        let store = Store::open(&options.store)?;
        let mut history = History::read(&store)?;
        let course = Course {
            program,
            options: &options,
            loaded,
            store: &store,
            executor: &InProcess,
            observer: &Deaf,
            stop: StopFlag::default(),
            keep_going: false,
            verify: false,
        };
        let (finished, written) = course.go(&mut history, standing::now())?;
        let Finished { failures, records, states, .. } = finished;
        if let Some((_, failure)) = failures.into_iter().next() {
            return Err(failure);
        }
        if written.is_none() {
            return Err(Failure::bug("no step failed, and not all are done"));
        }
        let records = records.into_iter().flatten();
        let mut ran = Ran { made: Vec::new(), fresh: BTreeSet::new() };
        for (record, state) in records.zip(states) {
            if state == State::Fresh {
                ran.fresh.insert(record.key);
            }
            let outputs = record.outputs.iter().map(|output| output.digest).collect();
            ran.made.push((record.key, outputs));
        }
        Ok(ran)
    }

    /// This program with `words`, this store and this folder of results.
    pub(super) fn command(&self, words: &[&str]) -> Outcome<Command> {
        let this = std::env::current_exe().doing(|| "finding this program".to_owned())?;
        let mut command = Command::new(this);
        command
            .args(words)
            .args(["--device", "cpu", "--store"])
            .arg(self.store())
            .arg("--set")
            .arg(format!("results={}", self.results().display()))
            .current_dir(&self.root)
            .env_remove("REKINDLE_MIRROR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command)
    }

    /// The path of the manifest as an argument.
    pub(super) fn manifest(&self) -> &str {
        self.manifest.to_str().unwrap_or_default()
    }

    /// Starts `rekindle run` of the study.
    pub(super) fn start(&self) -> Outcome<Child> {
        self.command(&["run", self.manifest()])?.spawn().doing(|| "starting a runner".to_owned())
    }

    /// `rekindle` with these words: exit code and what it said on stderr.
    pub(super) fn say(&self, words: &[&str]) -> Outcome<(i32, String)> {
        let output = self
            .command(words)?
            .stderr(Stdio::piped())
            .output()
            .doing(|| "starting this program".to_owned())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// `rekindle run`, which must go well.
    pub(super) fn run(&self) -> Result<String, Trouble> {
        let (code, said) = self.say(&["run", self.manifest()])?;
        demand(code == 0, || format!("`run` ended with {code}: {}", last_line(&said)))?;
        Ok(said)
    }

    /// Names of the stored objects, which are digests of what is in them.
    pub(super) fn objects(&self) -> Outcome<BTreeSet<String>> {
        let found = fs::names(&self.store().join("objects"))?;
        let shelves =
            found.iter().map(|shelf| fs::names(&self.store().join("objects").join(shelf)));
        Ok(shelves.collect::<Outcome<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The object with this content.
    pub(super) fn object_with(&self, text: &str) -> Outcome<PathBuf> {
        let name = Digest::of_blob(text.as_bytes()).to_string();
        let path = self.store().join("objects").join(&name[..2]).join(&name);
        match fs::size(&path) {
            Some(_) => Ok(path),
            None => Err(Failure::bug(format!("`{text}` is not in the store"))),
        }
    }

    /// Keys of the recorded actions.
    pub(super) fn recorded(&self) -> Outcome<BTreeSet<Digest>> {
        let actions = self.store().join("actions");
        let mut keys = BTreeSet::new();
        for shelf in fs::names(&actions)? {
            let names = fs::names(&actions.join(shelf))?;
            keys.extend(
                names.iter().filter_map(|name| name.strip_suffix(".json")?.parse::<Digest>().ok()),
            );
        }
        Ok(keys)
    }

    /// Files of the report by name.
    pub(super) fn report(&self) -> Outcome<BTreeMap<String, Vec<u8>>> {
        if !self.results().is_dir() {
            return Ok(BTreeMap::new());
        }
        let files = fs::walk(&self.results())?.into_iter();
        files.map(|(name, path)| Ok((name, fs::read(&path)?.unwrap_or_default()))).collect()
    }

    /// Reads every byte of the store: what is damaged.
    pub(super) fn damaged(&self) -> Outcome<Vec<String>> {
        let Some(store) = Store::open_existing(&self.store())? else { return Ok(Vec::new()) };
        let found = store.verify(&|_, _| Ok(()))?;
        Ok(found.damaged.into_iter().map(|(step, why)| format!("{step}: {why}")).collect())
    }

    /// What a finished study must not leave: attempts, what they went on from,
    /// files in the making and files that no record refers to.
    pub(super) fn litter(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        for folder in ["tmp", "partial"] {
            let names = fs::names(&self.store().join(folder))?;
            found.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
        let hidden = |name: &str| {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.starts_with('.') || last.ends_with(".mending") || last.ends_with(".tmp")
        };
        for folder in [self.store(), self.results()] {
            let files = if folder.is_dir() { fs::walk(&folder)? } else { Vec::new() };
            found.extend(files.into_iter().map(|(name, _)| name).filter(|name| hidden(name)));
        }
        if let Some(store) = Store::open_existing(&self.store())? {
            let garbage = store.garbage(Duration::ZERO)?.into_iter();
            // What was put aside stays until somebody has looked at it.
            let garbage =
                garbage.filter(|one| !one.path.starts_with(self.store().join("quarantine")));
            found.extend(garbage.map(|one| one.path.display().to_string()));
        }
        Ok(found)
    }

    /// Ends well: the study is done, sound, the same as `whole`, and nothing
    /// else is left.
    pub(super) fn must_equal(&self, whole: &Whole) -> Result<(), Trouble> {
        let damaged = self.damaged()?;
        demand(damaged.is_empty(), || format!("damaged: {}", damaged.join("; ")))?;
        demand(self.objects()? == whole.objects, || "other results than undisturbed".to_owned())?;
        demand(self.recorded()? == whole.recorded, || "other steps than undisturbed".to_owned())?;
        demand(self.report()? == whole.report, || "another report than undisturbed".to_owned())?;
        let litter = self.litter()?;
        demand(litter.is_empty(), || format!("left behind: {}", litter.join(", ")))
    }

    /// What the study comes to when nothing disturbs it; the world is empty
    /// again afterwards, so that the disturbed study has the same paths.
    pub(super) fn whole(&self) -> Result<Whole, Trouble> {
        self.run()?;
        let whole =
            Whole { objects: self.objects()?, recorded: self.recorded()?, report: self.report()? };
        self.clear()?;
        Ok(whole)
    }

    /// Takes everything out of the world.
    pub(super) fn clear(&self) -> Outcome<()> {
        fs::remove_folder(&self.root)?;
        fs::create_folder(&self.root)
    }
}

/// What an undisturbed run comes to.
pub(super) struct Whole {
    pub(super) objects: BTreeSet<String>,
    pub(super) recorded: BTreeSet<Digest>,
    pub(super) report: BTreeMap<String, Vec<u8>>,
}

/// The notes of one journal.
pub(super) fn read_notes(journal: &Path) -> Outcome<Vec<Note>> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(flatten)]
        note: Note,
    }
    let lines = lines::read(journal)?;
    Ok(lines
        .iter()
        .filter_map(|line| Some(serde_json::from_str::<Line>(line).ok()?.note))
        .collect())
}

/// The first error with its causes, else the last line.
pub(super) fn last_line(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("error"));
    let Some(error) = lines.next() else {
        return said.lines().last().unwrap_or("nothing").to_owned();
    };
    let causes = lines.take_while(|line| line.starts_with("  because"));
    causes.fold(error.to_owned(), |all, cause| all + "," + &cause[1..])
}

/// Waits until `done` says yes; whether it did within `longest`.
pub(super) fn wait(longest: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = clock::unix_seconds() + longest.as_secs_f64();
    while !done() {
        if clock::unix_seconds() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
