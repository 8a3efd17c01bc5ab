//! `run`: read, plan, drive, report.

use crate::{
    base::{failure::Failure, hash::Digest, text},
    cli::{
        Program, Stop, again,
        arguments::{Isolate, Options, RunArguments},
        budget,
        console::Console,
        exit, kinds,
        load::{self, Loaded},
        machine,
        plan::{self, expect, span},
        report,
        standing::{self, Settled},
        talk::Talk,
    },
    host::signal::{self, StopFlag},
    runner::{
        drive::{self, Drive, Finished, drive},
        event::Observer,
        executor::Executor,
        isolated::{Isolating, Isolation},
        state::State,
    },
    store::{Store, history::History},
};
use serde_json::json;
use std::{path::Path, time::Instant};

pub(crate) fn run(
    program: &Program,
    options: &Options,
    arguments: &RunArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    if !arguments.verify
        && !arguments.refill
        && stands(program, options, &arguments.manifest, talk)?
    {
        return Ok(exit::OK);
    }
    let since = standing::now();
    let (loaded, known, mut history) = load::beside_store(options, !arguments.verify, || {
        load::load(program, options, &arguments.manifest, true, talk)
    })?;
    machine::refuse(loaded, options)?;
    let store = match known {
        Some(store) => store.written_to(),
        None => Store::open(&options.store)?,
    };
    let budgets = &arguments.budget;
    if !budgets.is_empty() {
        let expected = expect(loaded, options)?;
        let outlook = plan::outlook(loaded, options, &expected, Some(&store), &history)?;
        budget::check(budgets, &outlook)?;
    }
    if arguments.refill {
        for one in expect(loaded, options)? {
            if let Some(record) = one.verdict.and_then(|verdict| verdict.found.ok()) {
                store.want_back(&record)?;
            }
        }
    }
    let stop = StopFlag::default();
    signal::watch(stop.clone(), exit::INTERRUPTED.into(), || {
        Talk::stderr("stopping: running steps save what they have; once more to leave at once");
    })?;
    budget::keep_time(budgets, &stop, *talk);
    let default = |kind: &str, path: &str| kinds::default_of(program, kind, path);
    if loaded.plan.steps.iter().any(|step| step.shape.numerics.is_some()) {
        talk.say(&format!("device: {}", (program.device_name)(&loaded.device)?));
    }
    let console = Console::new(&loaded.plan, *talk, &default);
    let isolating = Isolating {
        isolation: match arguments.isolate {
            Isolate::Never => Isolation::Never,
            Isolate::Cards => Isolation::Cards,
            Isolate::Always => Isolation::Always,
        },
        mirror: options.mirror.clone(),
    };
    let course = Course {
        program,
        options,
        loaded,
        store: &store,
        executor: &isolating,
        observer: &console,
        stop,
        keep_going: arguments.keep_going,
        verify: arguments.verify,
    };
    let gone = course.go(&mut history, since);
    console.close();
    let (finished, written) = gone?;
    let whole = written.is_some();
    let keys: Vec<Digest> = finished.records.iter().flatten().map(|record| record.key).collect();
    again::tell_doubts(&store, &mut keys.into_iter(), talk)?;
    let ending = Ending::of(loaded, &finished, written);
    tell(&ending, options, talk)?;
    Ok(code(&finished, whole))
}

/// A run from its plan to its report.
pub(crate) struct Course<'a> {
    pub(crate) program: &'a Program,
    pub(crate) options: &'a Options,
    pub(crate) loaded: &'a Loaded,
    pub(crate) store: &'a Store,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) stop: StopFlag,
    pub(crate) keep_going: bool,
    pub(crate) verify: bool,
}

impl Course<'_> {
    /// Does what must be done, and writes the report if then all is done: says
    /// what was written. `since` is when the looking began.
    ///
    /// # Errors
    /// When the store or the report fails; what a step fails with is told with
    /// the rest.
    pub(crate) fn go(
        self,
        history: &mut History,
        since: f64,
    ) -> Result<(Finished, Option<String>), Failure> {
        let Course { program, options, loaded, store, .. } = self;
        let finished = drive(Drive {
            plan: &loaded.plan,
            stages: &loaded.stages,
            claims: &loaded.claims,
            store,
            history,
            executor: self.executor,
            observer: self.observer,
            stop: self.stop,
            before: &|| report::check_folder(loaded),
            options: drive::Options {
                jobs: options.jobs.map_or(loaded.capacity.cpus, usize::from),
                capacity: loaded.capacity.clone(),
                keep_going: self.keep_going,
                verify: self.verify,
                device: loaded.device.clone(),
                manifest: loaded.manifest.clone(),
            },
        })?;
        if !finished.states.iter().all(|state| state.is_settled()) {
            return Ok((finished, None));
        }
        let made_of = report::made_of(loaded, &finished.records);
        let written = report::write_if_due(program, loaded, store, &finished.records, made_of)?;
        if finished.states.iter().all(|&state| state == State::Fresh) {
            let records = &finished.records;
            // A shortcut that cannot be kept is no failure of the run.
            let _ = standing::keep(loaded, options, store, history, since, made_of, records);
        }
        Ok((finished, Some(written)))
    }
}

/// Whether all steps are known to be stored and the report to be as it was;
/// that is told then.
fn stands(
    program: &Program,
    options: &Options,
    manifest: &Path,
    talk: &Talk,
) -> Result<bool, Stop> {
    let began = Instant::now();
    let Some(Settled { store, standing }) = standing::settled(program, options, manifest) else {
        return Ok(false);
    };
    let mut keys = Vec::new();
    if store.root().join("doubts").exists() {
        let Some(steps) = standing.steps() else { return Ok(false) };
        keys.extend(steps.iter().map(|step| step.key));
    }
    let about = standing.about;
    let Some(written) = report::as_it_was(&store, &about.results, about.report) else {
        return Ok(false);
    };
    if !about.classes.is_empty() {
        talk.say(&format!("device: {}", (program.device_name)(&about.device)?));
    }
    store.sweep()?;
    again::tell_doubts(&store, &mut keys.into_iter(), talk)?;
    let ending = Ending {
        experiment: about.experiment,
        manifest: manifest.display().to_string(),
        results: about.results,
        run: None,
        done: 0,
        fresh: about.steps,
        failed: 0,
        open: 0,
        stopped: false,
        seconds: began.elapsed().as_secs_f64(),
        failures: Vec::new(),
        written: Some(written),
    };
    tell(&ending, options, talk)?;
    Ok(true)
}

/// What a run came to, to be told.
struct Ending {
    experiment: String,
    manifest: String,
    results: String,
    run: Option<String>,
    done: u64,
    fresh: u64,
    failed: u64,
    open: u64,
    stopped: bool,
    seconds: f64,
    failures: Vec<serde_json::Value>,
    written: Option<String>,
}

impl Ending {
    fn of(loaded: &Loaded, finished: &Finished, written: Option<String>) -> Ending {
        let count =
            |wanted: State| finished.states.iter().filter(|&&state| state == wanted).count() as u64;
        let (done, fresh, failed) = (count(State::Done), count(State::Fresh), count(State::Failed));
        let failure = |(step, failure): &(usize, Failure)| {
            let title = &loaded.plan.steps[*step].title;
            json!({ "step": title, "why": failure.chain(), "hints": failure.hints })
        };
        Ending {
            experiment: loaded.name().to_owned(),
            manifest: loaded.manifest.clone(),
            results: loaded.results(),
            run: finished.run.clone(),
            done,
            fresh,
            failed,
            open: finished.states.len() as u64 - done - fresh - failed,
            stopped: finished.stopped,
            seconds: finished.seconds,
            failures: finished.failures.iter().map(failure).collect(),
            written,
        }
    }
}

fn code(finished: &Finished, whole: bool) -> u8 {
    if !finished.failures.is_empty() {
        return exit::of_steps(finished.failures.iter().map(|(_, failure)| failure));
    }
    if whole { exit::OK } else { exit::INTERRUPTED }
}

fn tell(ending: &Ending, options: &Options, talk: &Talk) -> Result<(), Failure> {
    let &Ending { done, fresh, failed, open, .. } = ending;
    if talk.json {
        let results = ending.written.as_ref().map(|_| &ending.results);
        talk.json_data(&json!({
            "experiment": ending.experiment, "run": ending.run, "done": done, "cached": fresh,
            "failed": failed, "not-done": open, "stopped": ending.stopped,
            "seconds": ending.seconds, "results": results, "failures": ending.failures,
        }))?;
    }
    let mut line = match done + failed + open {
        0 => format!("nothing to do: {} cached", text::plural(fresh, "step")),
        _ => format!("{done} done, {fresh} cached"),
    };
    if failed > 0 {
        line += &format!(", {failed} failed");
    }
    if open > 0 {
        line += &format!(", {open} not done");
    }
    talk.say(&format!("{line}, in {}", span(ending.seconds)));
    if let Some(written) = &ending.written {
        talk.say(&format!("{written}; every result is in the store `{}`", options.store.display()));
    } else {
        talk.say(&format!("`rekindle run {}` goes on from here", ending.manifest));
    }
    Ok(())
}
