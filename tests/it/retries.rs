//! What may pass by itself is tried again, what takes too long is ended, and
//! what says nothing is told.

use crate::space::{Ran, Space};
use std::process::Command;

/// One step that runs `script`, with more fields of it.
fn one(script: &str, more: &str) -> Space {
    Space::with(&format!(
        "rekindle = 1\nname = \"one\"\n[stage.s]\nkind = \"command\"\nrun = [\"sh\", \"-c\", '''{script}''']\n{more}\n"
    ))
}

fn run(space: &Space, pause: &str) -> Ran {
    Ran::of(space.command(&["run", "m.toml"]).env("REKINDLE_RETRY_PAUSE", pause))
}

/// Fails twice in a way that may pass, then does its work.
const THIRD: &str =
    "echo try >> LOG; test $(wc -l < LOG) -ge 3 || { echo busy; exit 75; }; echo x > out/files/x";

#[test]
fn a_failure_that_may_pass_is_tried_again_and_told() {
    let space = one(THIRD, "retries = 2");
    let ran = run(&space, "0.01").ok();
    for told in ["s: try 1 of 3 failed, tried again in ", "s: try 2 of 3 failed", "75", "s done in"]
    {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert_eq!(space.log().len(), 3);
    let first = crate::space::list(&space.path(".rekindle/runs")).remove(0);
    let journal = std::fs::read_to_string(first.join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("step-retried").count(), 2, "{journal}");

    let space = one(THIRD, "retries = 1");
    let ran = run(&space, "0.01");
    assert_eq!((ran.code, space.log().len()), (4, 2), "{ran:?}");
    assert!(ran.err.contains("its last words:\n    busy"), "{}", ran.err);
    // Another run has all its tries again.
    run(&space, "0.01").ok();
}

#[test]
fn what_is_no_passing_failure_is_not_tried_again() {
    let space = one("echo try >> LOG; exit 1", "retries = 5");
    assert_eq!(run(&space, "0.01").code, 4);
    assert_eq!(space.log().len(), 1);
}

#[test]
fn a_stop_is_heard_while_a_step_rests() {
    let space = one("echo try >> LOG; exit 75", "retries = 5");
    let mut child = space
        .command(&["run", "m.toml"])
        .env("REKINDLE_RETRY_PAUSE", "100000")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("tried again in") {
        assert!(std::io::BufRead::read_line(&mut err, &mut said).unwrap() > 0, "{said}");
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let status = space.run(&["status", "m.toml"]).ok();
    assert!(status.out.contains("stopped"), "{}", status.out);
}

#[test]
fn a_failure_elsewhere_ends_the_rest() {
    let space = Space::with(
        r#"
rekindle = 1
name = "two"
[stage.rests]
kind = "command"
run = ["sh", "-c", "echo try >> LOG; exit 75"]
retries = 9
[stage.fails]
kind = "command"
run = ["sh", "-c", "while ! test -s LOG; do sleep 0.01; done; sleep 0.2; exit 1"]
"#,
    );
    let ran =
        Ran::of(space.command(&["run", "m.toml", "-j", "2"]).env("REKINDLE_RETRY_PAUSE", "100000"));
    assert_eq!(ran.code, 4, "{}", ran.err);
    for told in ["error: step `fails`", "error: step `rests`", "2 failed"] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_what_it_said() {
    let space = one("echo so far; sleep 55.5 & sleep 55.5", "timeout = \"300ms\"");
    let ran = space.run(&["run", "m.toml"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    for told in
        ["it was not done after 300 ms", "its last words:\n    so far", "a larger `timeout`"]
    {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    // How long it may take is no part of what it is, and 0 is no limit.
    let space = one("echo x > out/files/x", "timeout = 0");
    space.run(&["run", "m.toml"]).ok();
    space.manifest(
        &std::fs::read_to_string(space.path("m.toml")).unwrap().replace("= 0", "= \"2h\""),
    );
    assert!(space.run(&["run", "m.toml"]).ok().err.contains("nothing to do"));
}

#[test]
fn a_step_that_says_nothing_is_told_and_goes_on() {
    let space = one("sleep 0.5; echo x > out/files/x", "silence = \"100ms\"");
    let ran = space.run(&["run", "m.toml"]).ok();
    assert!(ran.err.contains("s: nothing heard of it for "), "{}", ran.err);
    assert!(ran.err.contains("s done in"), "{}", ran.err);
    // Output is a sign of life.
    let talks = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done; echo x > out/files/x";
    let ran = one(talks, "silence = \"30s\"").run(&["run", "m.toml"]).ok();
    assert!(!ran.err.contains("nothing heard"), "{}", ran.err);
}
