//! `run`: read, plan, drive, report.

use crate::{
    base::{failure::Failure, text},
    cli::{
        Program, Stop,
        arguments::{Options, RunArguments},
        console::Console,
        exit, kinds,
        load::{self, Loaded},
        plan::span,
        report,
        talk::Talk,
    },
    host::{
        clock,
        signal::{self, StopFlag},
    },
    runner::{
        drive::{self, Drive, Finished, drive},
        executor::InProcess,
        state::State,
    },
    store::{Store, history::History},
};
use serde_json::json;

pub(crate) fn run(
    program: &Program,
    options: &Options,
    arguments: &RunArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &arguments.manifest, true, talk)?;
    let store = Store::open(&options.store)?;
    let mut history = History::read(&store)?;
    let stop = StopFlag::default();
    signal::watch(stop.clone(), exit::INTERRUPTED.into(), || {
        Talk::stderr("stopping: running steps save what they have; once more to leave at once");
    })?;
    let default = |kind: &str, path: &str| kinds::default_of(program, kind, path);
    if loaded.plan.steps.iter().any(|step| step.shape.numerics.is_some()) {
        talk.say(&format!("device: {}", (program.device_name)(&loaded.device)?));
    }
    let console = Console::new(&loaded.plan, *talk, &default);
    let finished = drive(Drive {
        plan: &loaded.plan,
        stages: &loaded.stages,
        store: &store,
        history: &mut history,
        executor: &InProcess,
        observer: &console,
        stop,
        before: &|| report::check_folder(&loaded),
        options: drive::Options {
            jobs: options.jobs.map_or_else(clock::cores, usize::from),
            keep_going: arguments.keep_going,
            verify: arguments.verify,
            device: loaded.device.clone(),
            manifest: loaded.manifest.clone(),
        },
    });
    console.close();
    let finished = finished?;
    let whole = finished.states.iter().all(|state| state.is_settled());
    let written = if whole {
        Some(report::write_if_due(program, &loaded, &store, &finished.records)?)
    } else {
        None
    };
    tell(&loaded, &finished, written.as_deref(), options, talk)?;
    Ok(code(&finished, whole))
}

fn code(finished: &Finished, whole: bool) -> u8 {
    if !finished.failures.is_empty() {
        return exit::of_steps(finished.failures.iter().map(|(_, failure)| failure));
    }
    if whole { exit::OK } else { exit::INTERRUPTED }
}

fn tell(
    loaded: &Loaded,
    finished: &Finished,
    written: Option<&str>,
    options: &Options,
    talk: &Talk,
) -> Result<(), Failure> {
    let count = |test: fn(State) -> bool| {
        finished.states.iter().filter(|&&state| test(state)).count() as u64
    };
    let done = count(|state| state == State::Done);
    let fresh = count(|state| state == State::Fresh);
    let failed = count(|state| state == State::Failed);
    let open = finished.states.len() as u64 - done - fresh - failed;
    if talk.json {
        talk.json_data(&json!({
            "experiment": loaded.name(), "run": finished.run, "done": done, "cached": fresh,
            "failed": failed, "not-done": open, "stopped": finished.stopped,
            "seconds": finished.seconds, "results": written.map(|_| loaded.results()),
            "failures": finished.failures.iter().map(|(step, failure)| json!({
                "step": loaded.plan.steps[*step].title, "why": failure.chain(), "hints": failure.hints,
            })).collect::<Vec<_>>(),
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
    talk.say(&format!("{line}, in {}", span(finished.seconds)));
    if let Some(written) = written {
        talk.say(&format!("{written}; every result is in the store `{}`", options.store.display()));
    } else {
        talk.say(&format!("`rekindle run {}` goes on from here", loaded.manifest));
    }
    Ok(())
}
