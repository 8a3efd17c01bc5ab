//! `verify --recompute`: what comes out the same is let be, and a step that
//! comes out otherwise is named wherever its result is shown.

use crate::space::{CHAIN, Space, files};

/// A step that lies about what decides its result, and one that reads it.
const LIAR: &str = r#"
rekindle = 1
name = "liar"
[stage.honest]
kind = "command"
run = ["sh", "-c", "echo honest >> LOG; echo same > out/files/x"]
[stage.liar]
kind = "command"
run = ["sh", "-c", "echo liar >> LOG; wc -l < LOG > out/files/x; head -c 5000 /dev/zero >> out/files/x"]
inputs = { it = "honest" }
[stage.end]
kind = "command"
run = ["sh", "-c", "wc -c < in/it/x > out/files/x"]
inputs = { it = "liar" }
"#;

#[test]
fn what_comes_out_the_same_changes_nothing() {
    let space = Space::with(CHAIN);
    let nothing = space.run(&["verify", "m.toml", "--recompute", "100%"]);
    assert_eq!(nothing.code, 4, "{}", nothing.err);
    space.run(&["run", "m.toml"]).ok();
    let all = files(&space.path(".rekindle/actions"));
    let objects = space.objects();
    let again = space.run(&["verify", "m.toml", "--recompute", "100%"]).ok();
    assert!(again.err.contains("4 of 4 stored steps made again"), "{}", again.err);
    assert!(again.err.contains("4 the same, 0 otherwise, 0 unknown"), "{}", again.err);
    assert_eq!(space.log().len(), 8, "each was really made again");
    assert_eq!((files(&space.path(".rekindle/actions")), space.objects()), (all, objects));
    assert!(!space.path(".rekindle/doubts").exists());
    assert_eq!(files(&space.path(".rekindle/tmp")).len(), 0);
    // A share is of steps, at least one, and a sample can be taken again.
    let some = |sample: &str| {
        let words = ["verify", "m.toml", "--recompute", "1%", "--sample", sample, "--json", "-q"];
        let told: serde_json::Value = serde_json::from_str(&space.run(&words).ok().out).unwrap();
        assert_eq!(told["steps"].as_array().unwrap().len(), 1, "{told}");
        told["steps"][0]["step"].as_str().unwrap().to_owned()
    };
    assert_eq!(some("7"), some("7"));
    let drawn: std::collections::BTreeSet<String> =
        (0..12).map(|sample| some(&sample.to_string())).collect();
    assert!(drawn.len() > 1, "{drawn:?}");
    for wrong in [vec!["verify", "m.toml"], vec!["verify", "m.toml", "--recompute", "0%"]] {
        assert_eq!(space.run(&wrong).code, 2);
    }
}

#[test]
fn a_step_that_comes_out_otherwise_is_named_everywhere() {
    let space = Space::with(LIAR);
    space.run(&["run", "m.toml"]).ok();
    let objects = space.objects();
    let again = space.run(&["verify", "m.toml", "--recompute", "100%", "-q"]);
    assert_eq!(again.code, 4, "{}", again.err);
    assert!(again.err.contains("`liar`: came out otherwise: `files` was"), "{}", again.err);
    // The step that reads it is honest: it comes out the same from the same input.
    assert!(!again.err.contains("`end`") && !again.err.contains("`honest`"), "{}", again.err);
    assert_eq!(space.objects(), objects, "the first result stays");
    let words = "came out otherwise when made again";
    for asked in [["plan", "m.toml"], ["status", "m.toml"]] {
        let told = space.run(&asked).ok().out;
        assert_eq!(told.matches(words).count(), 1, "{told}");
        let line = told.lines().find(|line| line.contains(words)).unwrap();
        assert!(line.starts_with("liar"), "{line}");
    }
    for asked in [["run", "m.toml"], ["report", "m.toml"]] {
        let told = space.run(&asked).ok().err;
        assert!(
            told.contains("1 result came out otherwise when made again: `liar/liar`"),
            "{told}"
        );
    }
    let why = space.run(&["why", "m.toml", "liar"]).ok().out;
    assert!(why.contains("`liar` is up to date") && why.contains("came out otherwise"), "{why}");
    assert!(!space.run(&["why", "m.toml", "end"]).ok().out.contains("otherwise"));
    // It would not come back as it was, so it is not taken out to save space.
    let room = space.run(&["gc", "--budget", "0B", "--older-than", "0"]);
    assert_eq!(room.code, 5, "{}", room.err);
    assert!(room.err.contains("`liar/end`") && !room.err.contains("`liar/liar`"), "{}", room.err);
    // And whoever gets it in a pack is told too.
    space.run(&["pack", "m.toml"]).ok();
    space.run(&["unpack", "liar.rkpack", "--store", "other"]).ok();
    let there = space.run(&["plan", "m.toml", "--store", "other"]).ok();
    assert!(there.out.contains(words), "{}", there.out);
}
