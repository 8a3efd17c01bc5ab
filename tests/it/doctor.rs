//! `doctor` checks devices and says what it found.

use crate::space::Space;

#[test]
fn the_processor_is_checked_and_holds() {
    let space = Space::new();
    let ran = space.run(&["doctor", "--device", "cpu"]).ok();
    assert!(ran.err.contains("checks in") && ran.err.contains("all hold"), "{}", ran.err);
    let row = "a training against one stopped in the middle";
    let line = ran.out.lines().find(|line| line.starts_with(row)).unwrap_or_default();
    let words: Vec<&str> = line[row.len()..].split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("none", "none"), "{}", ran.out);
    assert_eq!(words.last(), Some(&"holds"), "{}", ran.out);
    let json = space.run(&["doctor", "--device", "cpu", "--json", "--quiet"]).ok();
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(answer[0]["device"], "cpu (flex)");
    let checks = answer[0]["checks"].as_array().unwrap();
    assert!(checks.len() > 10 && checks.iter().all(|check| check["holds"] == true), "{}", json.out);
}

#[test]
fn a_device_that_is_not_there_is_a_clear_failure() {
    let ran = Space::new().run(&["doctor", "--device", "cuda:4096"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("device `cuda:4096`: "), "{}", ran.err);
    let ran = Space::new().run(&["doctor", "--device", "gpu"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("`gpu` is no device"), "{}", ran.err);
}

fn checkpoint(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// A copy of a fixture in the folder `model`.
fn space(name: &str) -> Space {
    let space = Space::new();
    std::fs::create_dir(space.path("model")).unwrap();
    for path in crate::space::list(&checkpoint(name)) {
        std::fs::copy(&path, space.path("model").join(path.file_name().unwrap())).unwrap();
    }
    space
}

const ON_CPU: [&str; 5] = ["doctor", "--checkpoint", "model", "--device", "cpu"];

#[test]
fn checkpoints_say_here_what_transformers_makes_of_them() {
    for name in ["grouped", "head-100", "linear", "llama3", "torch", "torch-sharded", "half"] {
        let ran = space(name).run(&ON_CPU).ok();
        assert!(ran.err.contains(", transformers 5.23.0"), "{}", ran.err);
        assert!(ran.err.contains("5 checks in") && ran.err.contains("all hold"), "{}", ran.err);
        let greedy = ran.out.lines().find(|line| line.contains("greedy choice")).unwrap();
        assert!(greedy.contains(" none "), "{name}: {greedy}");
    }
}

#[test]
fn a_checkpoint_that_says_something_else_fails_and_one_without_word_is_told_apart() {
    let space = space("grouped");
    let weights = space.path("model/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // Another exponent for one number, somewhere among the last weights.
    let at = bytes.len() - 1;
    bytes[at] ^= 2;
    std::fs::write(&weights, &bytes).unwrap();
    let ran = space.run(&ON_CPU);
    assert_eq!(ran.code, 5, "{}", ran.err);
    let row = "logits against the stored ones";
    assert!(ran.out.lines().any(|line| line.starts_with(row) && line.ends_with("FAILS")));
    // The promises hold for these weights, too.
    assert_eq!(ran.out.lines().filter(|line| line.ends_with("holds")).count(), 3, "{}", ran.out);

    std::fs::remove_file(space.path("model/parity.json")).unwrap();
    let ran = space.run(&ON_CPU).ok();
    assert!(ran.err.contains("`tests/fixtures/parity.py model`"), "{}", ran.err);
    assert!(ran.err.contains("3 checks in"), "{}", ran.err);

    space.write("model/parity.json", r#"{"made-with":{},"ids":[1],"logits":[],"said":[]}"#);
    let ran = space.run(&ON_CPU);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("parity.json` cannot be used"), "{}", ran.err);
    let ran = space.run(&["doctor", "--checkpoint", "nowhere", "--device", "cpu"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("there is no `nowhere/config.json`"), "{}", ran.err);
}
