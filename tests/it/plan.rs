//! What is said before and after a run.

use crate::space::{CHAIN, Space};

#[test]
fn a_plan_says_what_runs_and_why_and_does_nothing() {
    let space = Space::with(CHAIN);
    let plan = space.run(&["plan", "m.toml"]).ok();
    assert!(plan.out.contains("words   will run: it has no result yet  unknown"), "{}", plan.out);
    assert!(plan.out.contains("sorted  waits for `words`"), "{}", plan.out);
    assert!(!space.path(".rekindle").exists());
    space.run(&["run", "m.toml"]).ok();
    let plan = space.run(&["plan", "m.toml", "--json"]).ok();
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["state"] == "cached"), "{plan}");
}

#[test]
fn why_names_field_old_value_new_value_and_line() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space.manifest(&CHAIN.replace("TEXT = \"b a\"", "TEXT = \"z\", B = \"1\""));
    let why = space.run(&["why", "m.toml", "words"]).ok();
    assert!(why.out.contains("`env.TEXT` \"b a\" -> \"z\"  m.toml:8:"), "{}", why.out);
    assert!(why.out.contains("`env.B` unset -> \"1\""), "{}", why.out);
    let why = space.run(&["why", "m.toml", "count"]).ok();
    assert!(why.out.starts_with("`count` waits for `sorted`"), "{}", why.out);
    assert!(why.out.contains("`env.TEXT` \"b a\" -> \"z\""), "{}", why.out);
    let why = space.run(&["why", "m.toml", "beside"]).ok();
    assert!(why.out.starts_with("`beside` is up to date"), "{}", why.out);
    let why = space
        .run(&[
            "why",
            "m.toml",
            "count",
            "--set",
            "stage.count.revision=3",
            "--set",
            "stage.words.env={TEXT=\"b a\"}",
        ])
        .ok();
    assert!(
        why.out.contains("`revision` 1 (default) -> 3  --set stage.count.revision=3"),
        "{}",
        why.out
    );
}

#[test]
fn why_names_the_sweep_axis() {
    let sweep = "\n[sweep.axes]\nrev = { path = \"stage.count.revision\", values = [1, 2] }\n";
    let space = Space::with(&(CHAIN.to_owned() + sweep));
    space.run(&["run", "m.toml"]).ok();
    space.manifest(
        &(CHAIN.to_owned() + &sweep.replace("[1, 2]", "{ a = 1 }").replace("{ a = 1 }", "[1, 7]")),
    );
    let plan = space.run(&["plan", "m.toml"]).ok();
    assert!(plan.out.contains("count{rev=1}  cached"), "{}", plan.out);
    assert!(plan.out.contains("count{rev=7}  will run: it has no result yet"), "{}", plan.out);
}

#[test]
fn status_tells_the_last_run() {
    let space = Space::with(&CHAIN.replace("wc -c", "exit 3; wc -c"));
    assert_eq!(space.run(&["run", "m.toml"]).code, 4);
    let status = space.run(&["status", "m.toml"]).ok();
    assert!(status.out.contains("failed: `sh -c"), "{}", status.out);
    assert!(status.err.contains("1 failed"), "{}", status.err);
}

#[test]
fn graphs_fold_rounds() {
    let manifest = r#"
rekindle = 1
name = "rounds"
rounds = 3
[stage.seed]
kind = "command"
run = ["true"]
[stage.next]
kind = "command"
each = "round"
run = ["true"]
inputs = { before = { previous = "next", first = "seed" } }
"#;
    let space = Space::with(manifest);
    let folded = space.run(&["graph", "m.toml"]).ok().out;
    assert!(folded.contains("next\\ncommand (3 rounds)"), "{folded}");
    assert!(folded.contains("n1 -> n1 [label=\"files\", style=dashed"), "{folded}");
    let full = space.run(&["graph", "m.toml", "--full", "--format", "mermaid"]).ok().out;
    assert_eq!(full.matches("-->").count(), 3, "{full}");
    let svg = space.run(&["graph", "m.toml", "--format", "svg"]).ok().out;
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
}

#[test]
fn the_schema_knows_the_kinds() {
    let space = Space::new();
    let schema: serde_json::Value = serde_json::from_str(&space.run(&["schema"]).ok().out).unwrap();
    assert!(schema.to_string().contains("\"command\""));
    assert!(space.run(&["kinds", "command"]).ok().out.contains("The program and its arguments."));
}
