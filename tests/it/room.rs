//! `gc --budget`: what is cheap to make again for its size goes first, evidence
//! never, and what went comes back when somebody needs it.

use crate::space::{Space, files};

const MANIFEST: &str = r#"
rekindle = 1
name = "room"
[stage.seed]
kind = "command"
run = ["sh", "-c", "echo seed >> LOG; echo 1 > out/files/x"]
[stage.cheap]
kind = "command"
run = ["sh", "-c", "echo cheap >> LOG; head -c 100000 /dev/zero > out/files/x"]
inputs = { it = "seed" }
[stage.dear]
kind = "command"
run = ["sh", "-c", "echo dear >> LOG; sleep 0.4; head -c 1000 /dev/zero > out/files/x"]
inputs = { it = "seed" }
[stage.end]
kind = "command"
run = ["sh", "-c", "echo end >> LOG; cat in/a/x in/b/x | wc -c > out/files/x"]
inputs = { a = "cheap", b = "dear" }
"#;

fn ran() -> Space {
    let space = Space::with(MANIFEST);
    space.run(&["run", "m.toml"]).ok();
    space
}

#[test]
fn the_cheapest_for_its_bytes_goes_first_and_comes_back_when_needed() {
    let space = ran();
    let objects = space.objects();
    let gc = |more: &[&str]| {
        let words = [&["gc", "--budget", "50kB", "--older-than", "0"], more].concat();
        space.run(&words).ok().err
    };
    let shown = gc(&["--dry-run"]);
    assert!(shown.contains("`room/cheap`") && !shown.contains("`room/dear`"), "{shown}");
    assert!(shown.contains("contents of 1 result, 97.7 KiB of 98.6 KiB: would go"), "{shown}");
    assert_eq!(space.objects(), objects);
    let records = files(&space.path(".rekindle/actions"));
    gc(&[]);
    assert_eq!(space.objects().values().sum::<u64>(), objects.values().sum::<u64>() - 100_000);
    assert_eq!(files(&space.path(".rekindle/actions")), records);
    // Nothing says that it would come out otherwise: it is as good as stored.
    assert!(space.run(&["plan", "m.toml"]).ok().err.contains("all of 4 steps cached"));
    assert!(space.run(&["run", "m.toml"]).ok().err.contains("nothing to do"));
    space.run(&["verify"]).ok();
    assert!(gc(&[]).contains("contents of 0 results"));
    let shown = space.run(&["export", "m.toml", "cheap.files", "--to", "out"]);
    assert_eq!(shown.code, 5);
    assert!(shown.err.contains("--refill"), "{}", shown.err);
    // A step that reads it has it made again first, and plan says so.
    space.manifest(&MANIFEST.replace("wc -c", "wc -l"));
    let plan = space.run(&["plan", "m.toml"]).ok().out;
    assert!(plan.contains("taken out to save space, and `end` reads it"), "{plan}");
    space.run(&["run", "m.toml"]).ok();
    // The first four ran side by side where they could.
    assert_eq!(space.log()[4..], ["cheap", "end"]);
    gc(&[]);
    space.run(&["run", "m.toml", "--refill"]).ok();
    assert_eq!(space.log().last().unwrap(), "cheap");
    assert_eq!(space.log().len(), 7);
    // What is missing without having been taken out is damage as ever.
    std::fs::remove_file(space.object_with("1\n")).unwrap();
    assert_eq!(space.run(&["verify"]).code, 5);
}

#[test]
fn what_came_from_outside_stays_and_is_told() {
    let space = ran();
    let emptied = space.run(&["gc", "--budget", "0B", "--older-than", "0"]);
    assert_eq!(emptied.code, 5, "{}", emptied.err);
    assert!(emptied.err.contains("2 B are left, more than the budget"), "{}", emptied.err);
    assert_eq!(space.objects().len(), 1);
    // A pack of it says what is not in it, and so does the store it comes to.
    space.run(&["pack", "m.toml", "-o", "thin.rkpack"]).ok();
    let whole = space.run(&["unpack", "--check", "thin.rkpack"]).ok();
    assert!(whole.err.contains("4 records, 1 file of 2 B (3 files left out)"), "{}", whole.err);
    space.run(&["unpack", "thin.rkpack", "--store", "other", "--to", "there"]).ok();
    let plan = space.run(&["plan", "m.toml", "--store", "other"]).ok();
    assert!(plan.err.contains("all of 4 steps cached"), "{}", plan.err);
    space.run(&["run", "m.toml", "--refill"]).ok();
    assert_eq!(space.objects().len(), 4);
    assert_eq!(space.run(&["gc", "--budget", "2h"]).code, 2);
    // What was written just now stays by itself.
    let young = space.run(&["gc", "--budget", "0B"]);
    assert_eq!((young.code, space.objects().len()), (5, 4), "{}", young.err);
}

#[test]
fn nothing_is_taken_from_under_a_running_step() {
    let space = ran();
    space.manifest(&MANIFEST.replace("echo end >> LOG; cat", "echo busy >> LOG; sleep 60; cat"));
    let mut running = space.start(&["run", "m.toml"]);
    while space.log().last().unwrap() != "busy" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let objects = space.objects();
    let refused = space.run(&["gc", "--budget", "0B", "--older-than", "0"]);
    assert_eq!(refused.code, 5);
    assert!(refused.err.contains("works in the store"), "{}", refused.err);
    assert_eq!(space.objects(), objects);
    running.kill().unwrap();
    running.wait().unwrap();
}
