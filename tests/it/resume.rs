//! Whatever ends a run, the same command goes on, and the results are those of
//! a run that nothing ended.

use crate::space::{CHAIN, Space};
use std::{process::Command, thread::sleep, time::Duration};

/// Layers of small steps; each takes a few milliseconds.
fn lattice() -> String {
    let mut text = "rekindle = 1\nname = \"lattice\"\n".to_owned();
    for layer in 0..6 {
        for place in 0..4 {
            let inputs = match layer {
                0 => String::new(),
                _ => format!(
                    "inputs = {{ a = \"s{}-{place}\", b = \"s{}-{}\" }}\n",
                    layer - 1,
                    layer - 1,
                    (place + 1) % 4
                ),
            };
            text += &format!(
                "[stage.s{layer}-{place}]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"sleep 0.0{place}; \
                 cat in/*/x > out/files/x 2>/dev/null; echo s{layer}-{place} >> out/files/x; echo s{layer}-{place} >> LOG\"]\n{inputs}"
            );
        }
    }
    text
}

#[test]
fn kill_9_at_any_moment_loses_nothing_that_was_finished() {
    let whole = Space::with(&lattice());
    whole.run(&["run", "m.toml"]).ok();
    let space = Space::new();
    // The manifest names the log, so it must be the same text in both.
    std::fs::copy(whole.path("m.toml"), space.path("m.toml")).unwrap();
    let mut done = 0;
    for turn in 0..12u64 {
        let mut child = space.start(&["run", "m.toml"]);
        sleep(Duration::from_millis(7 + 23 * (turn * 7 % 5) + turn));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let records = records(&space);
        assert!(records >= done, "a finished step was lost");
        done = records;
    }
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.objects(), whole.objects());
    assert_eq!(records(&space), 24);
    assert_eq!(
        crate::space::list(&space.path(".rekindle/tmp")),
        Vec::<std::path::PathBuf>::new(),
        "litter of killed runs"
    );
    let again = space.run(&["run", "m.toml", "--verify"]).ok();
    assert!(again.err.contains("nothing to do"), "{}", again.err);
}

fn records(space: &Space) -> usize {
    let shelves = crate::space::list(&space.path(".rekindle/actions"));
    shelves.iter().map(|shelf| crate::space::list(shelf).len()).sum()
}

#[test]
fn two_runners_share_the_work() {
    let space = Space::with(&lattice());
    let mut first = space.start(&["run", "m.toml"]);
    let mut second = space.start(&["run", "m.toml"]);
    assert!(first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    let mut log = space.log();
    log.sort();
    let n = log.len();
    log.dedup();
    assert_eq!((log.len(), n), (24, 24), "every step ran once");
}

#[test]
fn a_runner_says_whom_it_waits_for() {
    let space = Space::with(&SLOW.replace("77.25", "0.8"));
    let mut first = space.start(&["run", "m.toml"]);
    wait_for_start(&space);
    let second = space.run(&["run", "m.toml"]).ok();
    let holder = format!("slow waits: process {} on ", first.id());
    assert!(second.err.contains(&holder), "{}", second.err);
    assert!(second.err.contains("slow was done elsewhere"), "{}", second.err);
    assert!(first.wait().unwrap().success());
    assert_eq!(space.log().len(), 1);
}

const SLOW: &str = r#"
rekindle = 1
name = "slow"
[stage.slow]
kind = "command"
run = ["sh", "-c", "echo started >> LOG; sleep 77.25; echo x > out/files/x"]
"#;

fn wait_for_start(space: &Space) {
    while space.log().is_empty() {
        sleep(Duration::from_millis(5));
    }
}

fn signal(name: &str, child: &std::process::Child) {
    Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
}

#[test]
fn an_interrupt_stops_children_and_says_130() {
    let space = Space::with(SLOW);
    let mut child = space.start(&["run", "m.toml"]);
    wait_for_start(&space);
    signal("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let status = space.run(&["status", "m.toml"]).ok();
    assert!(status.out.contains("stopped"), "{}", status.out);
    let again = space.run(&["plan", "m.toml"]).ok();
    assert!(again.out.contains("slow  will run"), "{}", again.out);
}

/// Two steps, one after the other.
const TWO: &str = r#"
rekindle = 1
name = "two"
[stage.one]
kind = "command"
run = ["sh", "-c", "echo one >> LOG; echo 1 > out/files/x"]
[stage.two]
kind = "command"
run = ["sh", "-c", "echo two >> LOG; echo 2 > out/files/x"]
inputs = { a = "one" }
"#;

/// A runner whose first step has done its work and waits to store it, because
/// this process looks through the store; and what it waits for.
fn storing(space: &Space) -> (std::process::Child, std::fs::File) {
    std::fs::create_dir_all(space.path(".rekindle/locks")).unwrap();
    let alone = std::fs::File::create(space.path(".rekindle/locks/storing")).unwrap();
    alone.lock().unwrap();
    let said = std::fs::File::create(space.path("said")).unwrap();
    let child = space.command(&["run", "m.toml"]).stderr(said).spawn().unwrap();
    let temporary = space.path(".rekindle/tmp");
    let is_made =
        || crate::space::files(&temporary).iter().any(|path| path.ends_with("out/files/x"));
    while !is_made() || works_in(&temporary) {
        sleep(Duration::from_millis(5));
    }
    (child, alone)
}

/// Whether a process works in a folder.
fn works_in(folder: &std::path::Path) -> bool {
    let processes = crate::space::list(std::path::Path::new("/proc"));
    let works = |process: &std::path::PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|at| at.starts_with(folder))
    };
    processes.iter().any(works)
}

/// Interrupts a runner and waits until it says that it heard.
fn interrupt(space: &Space, child: &std::process::Child) {
    signal("-INT", child);
    while !std::fs::read_to_string(space.path("said")).unwrap().contains("stopping") {
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_interrupt_lets_a_step_store_what_it_made_and_starts_no_other() {
    let space = Space::with(TWO);
    let (mut child, alone) = storing(&space);
    interrupt(&space, &child);
    sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it left before it had stored what it made");
    drop(alone);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(records(&space), 1);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log(), ["one", "two"]);
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let space = Space::with(TWO);
    let (mut child, alone) = storing(&space);
    interrupt(&space, &child);
    signal("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130), "with the store still held");
    assert_eq!(records(&space), 0);
    drop(alone);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log(), ["one", "one", "two"]);
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let space = Space::with(CHAIN);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let status = space.command(&["plan", "m.toml"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(5));
}

#[test]
fn a_killed_runner_leaves_no_process_and_no_lock() {
    let seconds = format!("77.{}", std::process::id());
    let space = Space::with(&SLOW.replace("77.25", &seconds));
    let mut child = space.start(&["run", "m.toml"]);
    wait_for_start(&space);
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock went with the process: the next run starts at once.
    let mut next = space.start(&["run", "m.toml"]);
    while space.log().len() < 2 {
        sleep(Duration::from_millis(5));
    }
    signal("-TERM", &next);
    assert_eq!(next.wait().unwrap().code(), Some(130));
    for _ in 0..400 {
        if !is_running(&format!("sleep\0{seconds}\0")) {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("a sleeping grandchild outlived its runner");
}

fn is_running(command_line: &str) -> bool {
    let processes = crate::space::list(std::path::Path::new("/proc"));
    processes.iter().any(|process| {
        std::fs::read(process.join("cmdline")).is_ok_and(|line| line == command_line.as_bytes())
    })
}

#[test]
fn a_torn_journal_and_history_are_no_hindrance() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    let history = space.path(".rekindle/history.jsonl");
    let bytes = std::fs::read(&history).unwrap();
    std::fs::write(&history, &bytes[..bytes.len() - 9]).unwrap();
    let journal = crate::space::list(&space.path(".rekindle/runs"))[0].join("journal.jsonl");
    let bytes = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &bytes[..bytes.len() - 9]).unwrap();
    space.run(&["run", "m.toml"]).ok();
    let status = space.run(&["status", "m.toml"]).ok();
    assert!(status.err.contains("did not end"), "{}", status.err);
    assert_eq!(space.log().len(), 4);
}
