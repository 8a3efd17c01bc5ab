//! Steps in processes of their own: what kills one of them, be it a driver, the
//! engine or the kernel for want of memory, ends a step and not the run.
//!
//! The process is this program again. It gets the stage as a table, works in
//! the same folders, and says what it has to say on a pipe; see
//! [`crate::runner::errand`]. Knows nothing of stages but who wants it.

use crate::{
    base::{
        failure::{Doing, Failure, Outcome},
        text,
    },
    host::{
        memory,
        process::{Group, Pipes},
    },
    runner::{
        errand::{Errand, STEP, Word},
        executor::{Executor, InProcess, Job},
    },
    stages::{kind::Place, work::Work},
};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

/// Which steps get a process of their own, where they do not say it themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// None.
    Never,
    /// Those that compute on a graphics card, and those with a time limit.
    Cards,
    /// All that compute on a device, and those with a time limit.
    Always,
}

/// How long a process that was asked to end may take to save what it has.
const GRACE: Duration = Duration::from_secs(10);
/// How often a stop is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of a crashed process that are shown.
const SHOWN: usize = 12;

/// Runs each step where it is to run.
#[derive(Clone, Debug)]
pub struct Isolating {
    /// Which steps get a process of their own.
    pub isolation: Isolation,
    /// The folder with copies of public files, for processes.
    pub mirror: Option<PathBuf>,
}

impl Executor for Isolating {
    fn execute(&self, job: &Job<'_>, work: &Work) -> Outcome<()> {
        if self.is_apart(job) {
            self.in_process_of_its_own(job, work)
        } else {
            InProcess.execute(job, work)
        }
    }
}

impl Isolating {
    fn is_apart(&self, job: &Job<'_>) -> bool {
        let Some(execution) = job.execution.filter(|_| !job.stage.is_a_process()) else {
            return false;
        };
        let limited = execution.limit().is_some();
        execution.isolate.unwrap_or(match self.isolation {
            Isolation::Never => false,
            Isolation::Cards => limited || matches!(job.place, Some(Place::Card(_))),
            Isolation::Always => limited || job.place.is_some(),
        })
    }

    fn in_process_of_its_own(&self, job: &Job<'_>, work: &Work) -> Outcome<()> {
        let errand = serde_json::to_string(&self.errand(job, work)).expect("an errand is JSON");
        let program = std::env::current_exe().doing(|| "finding this program".to_owned())?;
        let mut command = Command::new(program);
        command.arg(STEP).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let kills = memory::kills();
        let mut group = Group::start(&mut command)?;
        let Pipes { mut input, output, errors } = group.pipes();
        let (ended, words) = std::thread::scope(|scope| -> Outcome<_> {
            let (sender, said) = mpsc::channel();
            scope.spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // What no word is was printed by a library.
                    let Ok(word) = serde_json::from_str::<Word>(&line) else { continue };
                    if sender.send(word).is_err() {
                        return;
                    }
                }
            });
            let last = scope.spawn(move || last_lines(errors));
            // A process that is dead already says so by its status.
            let _ = writeln!(input, "{errand}").and_then(|()| input.flush());
            let ended = hear(&said, &mut group, &mut input, work);
            // Whatever it may still do, such as taking a driver down, has an end.
            let too_long = Instant::now() + GRACE;
            let left = group.wait(&|| ended.is_err() || Instant::now() > too_long);
            group.kill();
            left?;
            Ok((ended?, last.join().unwrap_or_default()))
        })?;
        match ended {
            Ended::Said(Word::Failed { class, chain, hints }) => {
                Err(Failure::told(class, chain, hints))
            }
            Ended::Said(Word::Done { metrics, warnings }) => {
                let mut all = work.said();
                all.metrics.extend(metrics);
                all.warnings.extend(warnings);
                Ok(())
            }
            Ended::Said(Word::Progress(_)) | Ended::Killed => Err(Failure::interrupted()),
            Ended::Silently(status) => Err(crashed(status, &words, memory::kills() > kills, work)),
        }
    }

    fn errand(&self, job: &Job<'_>, work: &Work) -> Errand {
        let inputs = work.all_inputs().iter().map(|(role, artifact)| {
            (role.clone(), artifact.output().clone(), artifact.maker().to_owned())
        });
        Errand {
            title: job.title.to_owned(),
            kind: job.kind.to_owned(),
            table: job.stage.written(),
            parameters: job.parameters.to_owned(),
            seed: work.seed().0,
            store: job.store.to_owned(),
            inputs: inputs.collect(),
            outputs: work.outputs().keys().cloned().collect(),
            attempt: work.folder().to_owned(),
            partial: work.partial().to_owned(),
            device: work.device().to_owned(),
            numerics: job.numerics.map(str::to_owned),
            threads: work.threads(),
            granted: work.granted().clone(),
            mirror: self.mirror.clone(),
        }
    }
}

/// How a process came to its end.
enum Ended {
    /// With a last word.
    Said(Word),
    /// Without one.
    Silently(ExitStatus),
    /// By us, after it was asked in vain.
    Killed,
}

/// Listens until the process has said its last word or is gone; passes on that
/// it shall end.
fn hear(
    said: &mpsc::Receiver<Word>,
    group: &mut Group,
    input: &mut impl Write,
    work: &Work,
) -> Outcome<Ended> {
    let mut asked: Option<Instant> = None;
    loop {
        match said.recv_timeout(LOOK) {
            Ok(Word::Progress(progress)) => work.pass_on(progress),
            Ok(last) => return Ok(Ended::Said(last)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let too_long = Instant::now() + GRACE;
                let status = group.wait(&|| Instant::now() > too_long)?;
                return Ok(status.map_or(Ended::Killed, Ended::Silently));
            }
        }
        if asked.is_none() && work.stopping() {
            asked = Some(Instant::now());
            let _ = writeln!(input, "stop").and_then(|()| input.flush());
        }
        // A person has a second Ctrl-C; a time limit has nothing else.
        if work.is_late() && asked.is_some_and(|at| at.elapsed() > GRACE) {
            group.kill();
            return Ok(Ended::Killed);
        }
    }
}

/// The last lines of what can be read, until its end.
fn last_lines(from: impl Read) -> Vec<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    last.into()
}

/// The failure of a step whose process ended without a last word. `killed` says
/// that the kernel killed something for want of memory meanwhile.
fn crashed(status: ExitStatus, words: &[String], killed: bool, work: &Work) -> Failure {
    let mut failure = Failure::environment(format!("its process ended with {status}"));
    if !words.is_empty() {
        failure = failure.hint(format!("its last words:\n{}", words.join("\n")));
    }
    let free = memory::available()
        .map_or(String::new(), |free| format!("; {} are free now", text::bytes(free)));
    failure.hint(match status.signal() {
        Some(9) if killed => format!(
            "the kernel killed a process for want of memory meanwhile, probably this one{free}: \
             a smaller `batch`, or `resources.memory` so that less runs beside it"
        ),
        Some(9) => format!(
            "somebody killed it, or the system did for want of memory{free}; the same command \
             goes on from what it had saved"
        ),
        Some(_) => format!(
            "a crash of the engine or of a driver of `{}`; the same command goes on from what \
             it had saved, and `--device cpu` does without the driver",
            work.device()
        ),
        None => "it ended before its work was done; `--isolate never` runs the step in this \
                 process, where more may be seen"
            .to_owned(),
    })
}
