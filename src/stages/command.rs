//! `command`: runs a program on declared inputs. Its folder holds copies of
//! the inputs as `in/<name>/` and an empty `out/<name>/` for each output; its
//! environment holds `PATH` and what is declared, nothing else.
//!
//! Source of trust: the program itself is not hashed; raise `revision` when it
//! changes its meaning.

use crate::{
    base::{
        artifact::{ArtifactKind, Files},
        failure::{Doing, Failure, Outcome},
        spec::{Ref, spec},
    },
    host::{
        fs,
        process::{self, Group},
    },
    stages::{kind::Kind, kind::Stage, work::Work},
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

/// The kind.
pub const KIND: Kind = Kind::of::<Command>("command", "stage", 1, false);

/// Lines of a failed program's output that are shown.
const SHOWN: usize = 12;

spec! {
    /// Runs a program. It starts in a folder with `in/<name>/` for each input
    /// and an empty `out/<name>/` for each output; what it leaves in the latter
    /// is the output. Its environment is `PATH` and what `env` says.
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
        /// Seconds after which the program is killed; 0 is never.
        #[exec]
        timeout: f64 = 0.0,
    }
}

impl Stage for Command {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        self.outputs.iter().map(|name| (name.clone(), ArtifactKind::Files)).collect()
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
        let output = File::create(&log).doing(doing)?;
        let mut command = Process::new(program);
        command
            .args(arguments)
            .current_dir(work.folder())
            .env_clear()
            .envs(process::search_path().map(|path| ("PATH", path)))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(output.try_clone().doing(doing)?)
            .stderr(output);
        let started = Instant::now();
        let mut group = Group::start(&mut command)?;
        let late =
            || self.timeout > 0.0 && started.elapsed() > Duration::from_secs_f64(self.timeout);
        match group.wait(&|| work.stopping() || late())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&format!("ended with {status}"), &log)),
            None if work.stopping() => Err(Failure::interrupted()),
            None => Err(self.failed(&format!("was killed after {} s", self.timeout), &log)),
        }
    }
}

impl Command {
    fn failed(&self, how: &str, log: &Path) -> Failure {
        let mut failure = Failure::input(format!("`{}` {how}", self.run.join(" ")));
        // The program's own words are a courtesy; without them the status stands.
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN)..];
        if !last.is_empty() {
            failure = failure.hint(format!("its last words:\n{}", last.join("\n")));
        }
        failure
    }
}

/// Copies an input's files into `in/<name>/`.
fn lay_out(work: &Work, name: &str) -> Outcome<()> {
    let artifact = work.input(&format!("inputs.{name}"))?;
    for file in artifact.files() {
        let (from, to) = (artifact.file(file)?, work.folder().join("in").join(name).join(file));
        if let Some(folder) = to.parent() {
            fs::create_folder(folder)?;
        }
        std::fs::copy(&from, &to)
            .doing(|| format!("copying `{}` to `{}`", from.display(), to.display()))?;
    }
    Ok(())
}
