//! Steps in processes of their own: the same bits, and whatever becomes of such
//! a process ends a step and not the run.

use crate::space::{Space, list};
use std::{
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

/// One round of every stage of SELF, small.
fn study() -> Space {
    let space = Space::new();
    for name in ["quickstart.toml", "smoke.toml"] {
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/");
        std::fs::copy(format!("{from}{name}"), space.path(name)).unwrap();
    }
    space.write("m.toml", "rekindle = 1\nextends = \"smoke.toml\"\nname = \"apart\"\nrounds = 1\n");
    space
}

const RUN: [&str; 4] = ["run", "m.toml", "--device", "cpu"];

fn run_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    RUN.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn a_process_of_its_own_gives_the_same_bits() {
    let (here, apart) = (study(), study());
    here.run(&run_with(&["--isolate", "never"])).ok();
    // Kinds that need no device go there on request only.
    let words = ["--set", "dataset.words.isolate=true", "--set", "stage.vocabulary.isolate=true"];
    let all = run_with(&["--isolate", "always"]).into_iter().chain(words).collect::<Vec<_>>();
    apart.run(&all).ok();
    assert_eq!(apart.objects(), here.objects());
    // Metrics and remarks come over too, and no process is left behind.
    let status = |space: &Space| {
        let json = space.run(&["status", "m.toml", "--device", "cpu", "--json"]).ok().out;
        let status: serde_json::Value = serde_json::from_str(&json).unwrap();
        let steps = status["steps"].as_array().unwrap().iter();
        steps.map(|step| step["metrics"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(status(&apart), status(&here));
}

/// A training that takes a while and saves often, a step behind it, and one
/// beside it.
const LONG: &str = r#"
rekindle = 1
name = "long"
[protocol.arithmetic]
question = "Q: {question} A:"
feedback = "Q: {question} R: {reply} F:"
refined-marker = "refined:"
reply = "answer {answer}"
correct = "judgement correct"
incorrect = "judgement incorrect"
answer = "number"
[dataset.words]
kind = "word-problems"
protocol = "arithmetic"
problems = { base = 40, test = 6 }
[stage.corpus]
kind = "examples"
problems = "words.base"
protocol = "arithmetic"
[stage.vocabulary]
kind = "tokenizer"
protocol = "arithmetic"
examples = ["corpus"]
problems = ["words.test"]
[stage.base]
kind = "train"
model = { width = 32, layers = 2, heads = 2, kv-heads = 1, feed-forward = 48, context = 128 }
tokenizer = "vocabulary"
data = ["corpus"]
epochs = 300
checkpoint-seconds = 0.05
isolate = true
[stage.exam]
kind = "evaluate"
model = "base.model"
problems = "words.test"
protocol = "arithmetic"
[stage.beside]
kind = "command"
run = ["sh", "-c", "echo beside > out/files/x"]
"#;

/// The process of a step of this runner.
fn process_of(runner: u32) -> Option<u32> {
    list(std::path::Path::new("/proc")).iter().find_map(|process| {
        let line = std::fs::read(process.join("cmdline")).ok()?;
        let is_step = line.split(|&byte| byte == 0).any(|word| word == b"__run-step");
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let is_ours = status.contains(&format!("PPid:\t{runner}\n"));
        (is_step && is_ours).then(|| process.file_name()?.to_str()?.parse().ok())?
    })
}

/// Waits until a step's process has saved something to go on from.
fn wait_for_process(space: &Space, runner: &mut Child) -> u32 {
    loop {
        let saved = list(&space.path(".rekindle/partial"));
        let saved = saved.iter().any(|folder| !list(folder).is_empty());
        if let Some(process) = process_of(runner.id()).filter(|_| saved) {
            return process;
        }
        assert!(runner.try_wait().unwrap().is_none(), "it ended before its process was seen");
        sleep(Duration::from_millis(2));
    }
}

fn kill(signal: &str, process: u32) {
    Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
}

fn long() -> Space {
    let space = study();
    space.write("m.toml", LONG);
    space
}

#[test]
fn a_crash_ends_a_step_and_not_the_run() {
    let whole = long();
    whole.run(&run_with(&[])).ok();
    let space = long();
    for (signal, told) in [("-ILL", "(SIGILL)"), ("-ABRT", "(SIGABRT)"), ("-KILL", "(SIGKILL)")] {
        let mut runner = space
            .command(&run_with(&["--keep-going"]))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::from(std::fs::File::create(space.path("err")).unwrap()))
            .spawn()
            .unwrap();
        kill(signal, wait_for_process(&space, &mut runner));
        assert_eq!(runner.wait().unwrap().code(), Some(5));
        let err = std::fs::read_to_string(space.path("err")).unwrap();
        assert!(err.contains("error: step `base`: its process ended with signal"), "{err}");
        assert!(err.contains(told) && err.contains("goes on from what it had saved"), "{err}");
        assert!(err.contains("exam cannot run, because base failed"), "{err}");
    }
    space.run(&run_with(&[])).ok();
    assert_eq!(space.objects(), whole.objects());
}

#[test]
fn no_process_outlives_its_runner() {
    let space = long();
    let mut runner = space.start(&run_with(&[]));
    let process = wait_for_process(&space, &mut runner);
    runner.kill().unwrap(); // SIGKILL
    runner.wait().unwrap();
    wait_for_end(process);
    let mut runner = space.start(&run_with(&[]));
    let process = wait_for_process(&space, &mut runner);
    kill("-INT", runner.id());
    assert_eq!(runner.wait().unwrap().code(), Some(130));
    wait_for_end(process);
    let status = space.run(&["status", "m.toml", "--device", "cpu"]).ok();
    assert!(status.out.contains("stopped"), "{}", status.out);
}

fn wait_for_end(process: u32) {
    let is_there = || {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.windows(10).any(|word| word == b"__run-step")
    };
    for _ in 0..2000 {
        if !is_there() {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("a step's process outlived its runner");
}

#[test]
fn a_step_of_the_engine_that_takes_too_long_saves_what_it_has() {
    let space = long();
    let endless = ["--set", "stage.base.epochs=50000", "--set", "stage.base.timeout=\"700ms\""];
    let limited = space.run(&run_with(&endless));
    assert_eq!(limited.code, 5, "{}", limited.err);
    assert!(limited.err.contains("step `base`: it was not done after 700 ms"), "{}", limited.err);
    let plan =
        space.run(&["plan", "m.toml", "--device", "cpu", "--set", "stage.base.epochs=50000"]).ok();
    assert!(plan.out.contains("base") && plan.out.contains("it was not finished"), "{}", plan.out);
}

#[test]
fn the_word_of_a_process_is_nothing_to_type() {
    let ran = Space::new().run(&["__run-step"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("nothing to type"), "{}", ran.err);
}
