//! `command`: runs a program on declared inputs. Its folder holds copies of
//! the inputs as `in/<name>/` and an empty `out/<name>/` for each output; its
//! environment holds `PATH`, what is declared, and what it was given of the
//! machine if it asked; nothing else.
//!
//! Source of trust: the program itself is not hashed; raise `revision` when it
//! changes its meaning.

use crate::{
    base::{
        artifact::{ArtifactKind, Files},
        failure::{Class, Doing, Failure, Outcome},
        spec::{Ref, choice, spec},
    },
    host::{
        disk::Out,
        fs, machine,
        process::{self, Group},
        sandbox::{Readable, Sandbox},
    },
    stages::{
        kind::{Kind, Stage},
        work::{Granted, Work},
    },
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command as Process, ExitStatus, Stdio},
};

/// The kind.
pub const KIND: Kind = Kind::of::<Command>("command", "stage", 1, false);

/// The variable with the names of the graphics cards that a program may use.
const CARDS: &str = "REKINDLE_DEVICES";
/// The variable with the number of cores that a program may keep busy.
const CPUS: &str = "REKINDLE_CPUS";

/// The exit status by which a program says that another try may go well
/// (`EX_TEMPFAIL`).
///
/// # Source
/// `sysexits.h` of 4.3BSD.
const TRY_AGAIN: i32 = 75;

/// Lines of a failed program's output that are shown.
const SHOWN: usize = 12;

choice! {
    /// What a program may read.
    pub enum Confinement {
        /// Whatever it finds.
        Off = "off",
        /// Its inputs, the system's folders, the programs of `PATH`, what `run`, `env` and `reads`
        /// name. Reading anything else fails, and so does the step unless it can do without.
        /// Temporary files go to `TMPDIR`, in its own folder. It takes Linux with Landlock; without
        /// it the step says that nothing was checked.
        Strict = "strict",
    }
}

spec! {
    /// Runs a program. It starts in a folder with `in/<name>/` for each input
    /// and an empty `out/<name>/` for each output; what it leaves in the latter
    /// is the output. A program that ends with status 75 says that another try may go well, for
    /// `retries`. Its environment is `PATH` and what `env` says, and what it was given of the
    /// machine where `resources` asks for cores or cards.
    pub struct Command {
        /// The program and its arguments.
        run: Vec<String>,
        /// Inputs by name.
        inputs: BTreeMap<String, Ref<Files>> = BTreeMap::new(),
        /// Names of the outputs.
        outputs: Vec<String> = vec!["files".to_owned()],
        /// Environment variables.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Raise it when the program changes its meaning.
        revision: u64 = 1,
        /// Whether it is kept from reading files that are not declared.
        #[exec]
        sandbox: Confinement = Confinement::Off,
        /// Files and folders outside that it may read all the same, by absolute paths. Their
        /// content is no part of the identity.
        #[exec]
        reads: Vec<String> = Vec::new(),
    }
}

impl Stage for Command {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        self.outputs.iter().map(|name| (name.clone(), ArtifactKind::Files)).collect()
    }

    fn is_a_process(&self) -> bool {
        true
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let Some((program, arguments)) = self.run.split_first() else {
            return Err(Failure::input("`run` is empty: it wants a program and its arguments"));
        };
        for name in self.inputs.keys() {
            lay_out(work, name)?;
        }
        let log = work.folder().join("log");
        let doing = || format!("writing `{}`", log.display());
        let mut output = Out::create(&log).doing(doing)?;
        let output = output.file();
        let mut command = Process::new(program);
        command
            .args(arguments)
            .current_dir(work.folder())
            .env_clear()
            .envs(process::search_path().map(|path| ("PATH", path)))
            .envs(of_machine(work.granted()))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(output.try_clone().doing(doing)?)
            .stderr(output.try_clone().doing(doing)?);
        let readable = self.readable(work);
        if let Some(readable) = &readable {
            let temporary = whole(work.folder()).join("tmp");
            fs::create_folder(&temporary)?;
            if !self.env.contains_key("TMPDIR") {
                command.env("TMPDIR", &temporary);
            }
            match Sandbox::new(readable) {
                Ok(sandbox) => sandbox.confine(&mut command),
                Err(why) => work.warn(format!("what it reads was not checked: {why}")),
            }
        }
        let mut group = Group::start(&mut command)?;
        let said = Cell::new(0);
        let stop = || {
            listen(work, &log, &said);
            work.stopping()
        };
        match group.wait(&stop)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&status, &log, readable.as_ref())),
            None => Err(last_words(Failure::interrupted(), &log)),
        }
    }
}

impl Command {
    /// What the program may read, where it is kept to something.
    fn readable(&self, work: &Work) -> Option<Readable> {
        if self.sandbox == Confinement::Off {
            return None;
        }
        let search_path = process::search_path();
        let mut readable = Readable::of_system(search_path.as_deref());
        let program = self.run.first().map(Path::new).filter(|program| program.is_absolute());
        program.into_iter().for_each(|program| readable.program(program));
        let values = self.env.values().flat_map(|value| value.split(':'));
        let named = self.run.iter().skip(1).map(String::as_str).chain(values);
        let named = named.chain(self.reads.iter().map(String::as_str)).map(Path::new);
        // `/` as an argument is hardly the wish to read everything.
        named.filter(|path| path.parent().is_some()).for_each(|path| readable.allow(path));
        readable.allow(&whole(work.folder()));
        Some(readable)
    }

    fn failed(&self, status: &ExitStatus, log: &Path, readable: Option<&Readable>) -> Failure {
        let class = if status.code() == Some(TRY_AGAIN) { Class::Transient } else { Class::Input };
        let how = format!("`{}` ended with {status}", self.run.join(" "));
        let failure = last_words(Failure::new(class, how), log);
        let Some(readable) = readable else { return failure };
        let words = std::fs::read(log).unwrap_or_default();
        let refused = readable.refused(&String::from_utf8_lossy(&words));
        refused.into_iter().fold(failure, |failure, path| {
            failure.hint(format!(
                "it may not read `{0}`, which is not declared: make it an input, or name it in \
                 `reads` if what it holds does not matter to the result",
                path.display()
            ))
        })
    }
}

/// A folder by its whole path.
fn whole(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// Adds what a program said last. Its own words are a courtesy; without them
/// the failure stands.
fn last_words(failure: Failure, log: &Path) -> Failure {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    match &lines[lines.len().saturating_sub(SHOWN)..] {
        [] => failure,
        last => failure.hint(format!("its last words:\n{}", last.join("\n"))),
    }
}

/// Whatever a program writes to its log is a sign of life.
fn listen(work: &Work, log: &Path, said: &Cell<u64>) {
    let size = fs::size(log).unwrap_or(0);
    if size > said.replace(size) {
        work.progress(size, 0, "bytes of output", "");
    }
}

/// What a program is told of the machine, where its step asks for some of it.
fn of_machine(granted: &Granted) -> Vec<(&'static str, String)> {
    let cards = granted.cards.join(",");
    let cards = (!cards.is_empty()).then(|| [(machine::VISIBLE, cards.clone()), (CARDS, cards)]);
    let cpus = granted.cpus.map(|n| (CPUS, n.to_string()));
    cards.into_iter().flatten().chain(cpus).collect()
}

/// Copies an input's files into `in/<name>/`.
fn lay_out(work: &Work, name: &str) -> Outcome<()> {
    let artifact = work.input(&format!("inputs.{name}"))?;
    for file in artifact.files() {
        let (from, to) = (artifact.file(file)?, work.folder().join("in").join(name).join(file));
        if let Some(folder) = to.parent() {
            fs::create_folder(folder)?;
        }
        fs::copy(&from, &to)?;
    }
    Ok(())
}
