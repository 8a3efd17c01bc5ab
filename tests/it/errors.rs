//! Bad input gets a clear answer, all of it at once, and nothing is lost.

use crate::space::{CHAIN, Space};

#[test]
fn five_mistakes_give_five_diagnostics() {
    let manifest = r#"
rekindle = 1
name = "five"
colour = "red"

[stage.a]
kind = "command"
run = "true"

[stage.b]
kind = "comand"
run = ["true"]

[stage.c]
kind = "command"
runn = ["true"]
run = ["true"]

[stage.d]
kind = "command"
run = ["true"]
inputs = { x = "nobody" }
"#;
    let space = Space::with(manifest);
    let ran = space.run(&["run", "m.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert_eq!(ran.err.matches("error: ").count(), 5, "{}", ran.err);
    for part in
        ["m.toml:4:1", "m.toml:8:7", "did you mean `command`?", "did you mean `run`?", "`nobody`"]
    {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
    assert!(ran.err.contains("5 mistakes"), "{}", ran.err);
    assert!(!space.path(".rekindle").exists());
    let json = space.run(&["check", "m.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["diagnostics"].as_array().unwrap().len(), 5);
}

fn pair(a: &str, b: &str) -> Space {
    Space::with(&format!(
        "rekindle = 1\nname = \"pair\"\n[stage.a]\nkind = \"command\"\nrun = [\"true\"]\n{a}\n[stage.b]\nkind = \"command\"\nrun = [\"true\"]\n{b}\n"
    ))
}

#[test]
fn a_cycle_is_printed_in_full() {
    let ran = pair("inputs = { x = \"b\" }", "inputs = { x = \"a\" }").run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err.contains("these steps wait for each other: `a` reads `b` reads `a`"),
        "{}",
        ran.err
    );
}

#[test]
fn a_missing_output_is_named_with_what_there_is() {
    let space = pair("outputs = [\"one\", \"two\"]", "inputs = { x = \"a.too\" }");
    let ran = space.run(&["check", "m.toml"]);
    assert!(ran.err.contains("has no output `too`, only `one`, `two`"), "{}", ran.err);
    let space = pair("outputs = [\"one\", \"two\"]", "inputs = { x = \"a\" }");
    let ran = space.run(&["check", "m.toml"]);
    assert!(ran.err.contains("`a` has 2 outputs, so a reference must name one"), "{}", ran.err);
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let space = Space::with(CHAIN);
    assert_eq!(space.run(&["check", "m.toml"]).code, 0);
    assert_eq!(space.run(&["--help"]).code, 0);
    assert_eq!(space.run(&["no-such-command"]).code, 2);
    assert_eq!(space.run(&["why", "m.toml", "nobody"]).code, 2);
    assert_eq!(space.run(&["kinds", "comand"]).code, 2);
    assert_eq!(space.run(&["check", "absent.toml"]).code, 2);
    assert_eq!(space.run(&["report", "m.toml"]).code, 4);
    assert_eq!(space.run(&["check", "m.toml", "--set", "stage.words.runn=1"]).code, 3);
    assert_eq!(space.run(&["run", "m.toml", "--set", "stage.words.run=[\"false\"]"]).code, 4);
    space.write("file", "");
    assert_eq!(space.run(&["run", "m.toml", "--store", "file/store"]).code, 5);
}

#[test]
fn a_failed_step_stops_what_depends_on_it_only() {
    let manifest =
        CHAIN.replace("| sort |", "| sort | exit 7; sort |").replace("exit 7; sort", "exit 7 #");
    let space = Space::with(&manifest);
    let ran = space.run(&["run", "m.toml", "--keep-going", "--jobs", "1"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("count cannot run, because sorted failed"), "{}", ran.err);
    assert!(space.log().contains(&"beside".to_owned()));
    space.manifest(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log().iter().filter(|word| *word == "words").count(), 1);
}

#[test]
fn the_last_words_of_a_failed_program_are_shown() {
    let space = pair("", "");
    let ran = space.run(&[
        "run",
        "m.toml",
        "--set",
        "stage.a.run=[\"sh\", \"-c\", \"echo what a pity; exit 3\"]",
    ]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("step `a`") && ran.err.contains("what a pity"), "{}", ran.err);
}

#[test]
fn a_step_without_its_output_is_no_success() {
    let ran = pair("", "").run(&["run", "m.toml"]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("ended without a file for its output `files`"), "{}", ran.err);
}

#[test]
fn an_unwritable_results_folder_is_told_before_any_work() {
    let space = Space::with(CHAIN);
    space.write("results", "I am a file");
    let ran = space.run(&["run", "m.toml"]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("creating folder `results/chain`"), "{}", ran.err);
    assert!(ran.err.contains("set `results`"), "{}", ran.err);
    assert!(space.log().is_empty());
}

#[test]
fn a_newer_store_is_refused() {
    let space = Space::with(CHAIN);
    std::fs::create_dir(space.path(".rekindle")).unwrap();
    space.write(".rekindle/VERSION", "999\n");
    let ran = space.run(&["run", "m.toml"]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("has version 999"), "{}", ran.err);
    assert!(ran.err.contains("newer `rekindle`"), "{}", ran.err);
}

#[test]
fn a_manifest_that_is_not_utf8_is_told_with_the_place() {
    let space = Space::new();
    space.write("m.toml", b"name = \"\xff\"\n");
    let ran = space.run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("is not UTF-8: the byte at offset 8"), "{}", ran.err);
}

#[test]
fn a_share_of_tokens_that_cannot_be_is_a_mistake() {
    let smoke = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/smoke.toml");
    for (wrong, code) in [("0.0", 3), ("1.5", 3), ("0.9", 0)] {
        let set = format!("stage.answers.top-p={wrong}");
        let ran = Space::new().run(&["check", smoke, "--set", &set]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert_eq!(ran.err.contains("`top-p` must be above 0 and at most 1"), code == 3);
    }
}
