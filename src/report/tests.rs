//! Reports of hand-made results: what the page, the JSON and the chart say.

use super::{
    collected::*,
    render,
    verdicts::{self, Holds},
};
use crate::{
    base::{artifact::ArtifactKind, hash::Digest},
    manifest::{Findings, Language, Manifest},
    record::{Measure, ModeScores, Outcome, RuleScores, Scores, Tally, Tokens, TrainLog},
};
use std::collections::BTreeMap;

const STUDY: &str = r#"
rekindle = 1
name = "study"
rounds = 2

[stage.base]
kind = "train"
[stage.dqa]
kind = "train"
[stage.filter]
kind = "filter"
each = "round"
[stage.evolve]
kind = "train"
each = "round"
[stage.test]
kind = "evaluate"
each = "round"

[report]
title = "A study"
models = [
  { label = "base", scores = "base.scores", log = "base.log" },
  { label = "D_QA", scores = "dqa.scores", log = "base.log", round = 0 },
  { label = "round {round}", scores = "test.scores", log = "evolve.log", control = "D_QA" },
]

[[compare]]
a = "round {round}"
b = "D_QA"
mode = "direct"

[[compare]]
a = "base"
b = "D_QA"
mode = "direct"
expect = "higher"

[[compare]]
a = "D_QA"
mode = "refine"
b = "D_QA"
b-mode = "direct"
expect = "not-higher"

[[target]]
subject = "D_QA"
paper = 30.0
table = "table 2"
source-confidence = "read from a plot"
accept = { abs = 5.0 }

[[target]]
subject = "base"
mode = "refine"
paper = 12.0
source-confidence = "recalled"
"#;

fn findings(text: &str) -> Findings {
    let loader = |_: &str| Ok::<String, String>(text.to_owned());
    let language = Language::default();
    let (manifest, _, _) = Manifest::read(&loader, "a.toml", &[], &language);
    let (arms, _) = manifest.unwrap().expand(&language);
    let mut cx = arms[0].reading();
    arms[0].findings(&mut cx)
}

fn output(name: &str, kind: ArtifactKind, file: &str, json: Vec<u8>) -> CollectedOutput {
    let digest = Digest::of_blob(&json);
    let (name, size) = (name.to_owned(), json.len() as u64);
    let file = CollectedFile { name: file.to_owned(), size, digest, content: Some(json) };
    CollectedOutput { name, kind, digest, files: vec![file] }
}

/// `hits` of 100 problems right: the first ones, after `skip` wrong ones.
fn scores(modes: &[(&str, usize, usize)]) -> CollectedOutput {
    let mode = |(mode, hits, skip): &(&str, usize, usize)| ModeScores {
        mode: (*mode).to_owned(),
        outcomes: (0..100)
            .map(|i| Outcome {
                id: format!("test-{i}"),
                answer: Some(i as f64),
                correct: (*skip..skip + hits).contains(&i),
                text: "00ff".to_owned(),
                logprob: None,
            })
            .collect(),
        others: Vec::new(),
    };
    let feedback = modes.iter().any(|(mode, ..)| *mode == "refine").then(|| Tally {
        seen: 100,
        kept: 100,
        verdict_right: 80,
        reply_wrong: 60,
        wrong_caught: 45,
        verdict_unparsed: 3,
        ..Tally::default()
    });
    let scores = Scores {
        dataset: "test".to_owned(),
        measure: Measure::Accuracy,
        rule: None,
        modes: modes.iter().map(mode).collect(),
        feedback,
        tokens: Tokens { read: 5, written: 1234 },
    };
    output("scores", ArtifactKind::Scores, "scores.json", serde_json::to_vec(&scores).unwrap())
}

fn log(steps_total: u64) -> CollectedOutput {
    let log = TrainLog {
        steps: 10,
        steps_total,
        examples: 5,
        tokens: 777,
        tokens_supervised: 300,
        tokens_total: steps_total * 10,
        ..TrainLog::default()
    };
    output("log", ArtifactKind::TrainLog, "train.json", serde_json::to_vec(&log).unwrap())
}

fn step(name: &str, inputs: &[(&str, &str)], outputs: Vec<CollectedOutput>) -> CollectedStep {
    let round = name.strip_prefix("round").and_then(|rest| rest[..1].parse().ok());
    CollectedStep {
        name: name.to_owned(),
        base: name.rsplit('.').next().unwrap().to_owned(),
        round,
        kind: "train".to_owned(),
        key: Digest::of_blob(name.as_bytes()),
        identity: String::new(),
        inputs: inputs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        metrics: BTreeMap::from([("generated-tokens".to_owned(), 50.0)]),
        outputs,
    }
}

fn arm(text: &str, seed: u64) -> CollectedArm {
    let tally = Tally {
        seen: 200,
        kept: 150,
        dropped: BTreeMap::from([("judged incorrect".to_owned(), 50)]),
        reply_right: 80,
        refined_right: 120,
        kept_right: 110,
        verdict_right: 130,
        reply_wrong: 120,
        wrong_caught: 60,
        verdict_unparsed: 0,
        tokens: Tokens::default(),
        ..Tally::default()
    };
    let tally = || {
        let json = serde_json::to_vec(&tally).unwrap();
        output("tally", ArtifactKind::Tally, "tally.json", json)
    };
    let gain = seed as usize;
    let mut steps = vec![
        step("base", &[], vec![scores(&[("direct", 10, 0), ("refine", 9, 0)]), log(100)]),
        step("dqa", &[], vec![scores(&[("direct", 32, 0), ("refine", 31, 0)]), log(100)]),
    ];
    for round in 1..=2 {
        let name = |base: &str| format!("round{round}.{base}");
        let answers = format!("{}.dialogues", name("answers"));
        let kept = format!("{}.kept", name("filter"));
        let right = 40 + 10 * round + gain;
        steps.extend([
            step(&name("answers"), &[], Vec::new()),
            step(&name("filter"), &[("dialogues", &answers)], vec![tally()]),
            step(&name("evolve"), &[("data.0", &kept)], vec![log(100 + 10 * round as u64)]),
            step(&name("test"), &[], vec![scores(&[("direct", right, 0), ("refine", right, 2)])]),
        ]);
    }
    CollectedArm { coordinates: Vec::new(), seed, findings: findings(text), steps }
}

fn study() -> Collected {
    let description = Some("What comes of it".to_owned());
    Collected { name: "study".to_owned(), description, rounds: 2, arms: vec![arm(STUDY, 1)] }
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|one| one == *line), "no line\n{line}\nin\n{text}");
    }
}

fn file(files: &[(String, String)], name: &str) -> String {
    files.iter().find(|(known, _)| known == name).expect(name).1.clone()
}

#[test]
fn the_page_tells_every_number_with_its_n() {
    let page = file(&render(&study()), "report.md");
    says(
        &page,
        &[
            "# A study",
            "Manifest `study` · seed 1 · 2 rounds · 10 steps",
            "| model | n | direct, % | refine, % | steps | tokens trained | tokens generated |",
            "| D_QA | 100 | 32.0 [23.7, 41.7] | 31.0 [22.8, 40.6] | 100 | 1,000 | 1,234 |",
            "| round 1 | 100 | 51.0 [41.3, 60.6]<br>p < 0.001 | 51.0 [41.3, 60.6]<br>p < 0.001 | 110 | 1,100 | 1,234 |",
            "| round 1 | D_QA | direct | 110 and 100 | 100 | +19.0 | 19 | 0 | < 0.001 |",
            "| round 1 | refine - direct | 100 | +0.0 | 2 | 2 | 1.000 |",
            "| round1.filter | 200 | 150 | 50 judged incorrect | 40.0 [33.5, 46.9] | 60.0 [53.1, 66.5] | 73.3 [65.7, 79.8] | 73.3 (110 of 150) | 91.7 (110 of 120) | 100 | 777 |",
            "| base | `test` | 80.0 [71.1, 86.7] of 100 | 75.0 [62.8, 84.2] of 60 | 3.0 (3 of 100) |",
            "| round 2 against D_QA | direct on `test` | 100 | +29.0 | [+20.0, +38.0] | 29 / 0 | < 0.001 | < 0.001 | `round 2` higher | - | - |",
            "| base against D_QA | direct on `test` | 100 | -22.0 | [-30.0, -14.0] | 0 / 22 | < 0.001 | < 0.001 | `D_QA` higher | - | higher: against expectation |",
            "| D_QA | refine against direct on `test` | 100 | -1.0 | [-3.0, +0.0] | 0 / 1 | 1.000 | 1.000 | within noise | 1,113 items | not-higher: as expected |",
            "| D_QA | `test` | 32.0 [23.7, 41.7] of 100 | 30 (+2.0) | underpowered | read from a plot |",
            "| base | `test` | 9.0 [4.8, 16.2] of 100 | 12 (-3.0) | shown only | recalled |",
            "## Published values: table 2",
            "Of 2 published values: 1 underpowered, 1 only shown.",
        ],
    );
    assert!(!page.contains("Missing"), "{page}");
}

/// The study with this published value for `D_QA`, 32 right of 100.
fn held(paper: f64, accept: &str) -> String {
    let one = "paper = 30.0\ntable = \"table 2\"\nsource-confidence = \"read from a plot\"\naccept = { abs = 5.0 }";
    assert!(STUDY.contains(one));
    let other = format!("paper = {paper}\nsource-confidence = \"sure\"\naccept = {accept}");
    STUDY.replace(one, &other)
}

#[test]
fn a_published_value_is_reproduced_or_not_or_there_are_too_few_items() {
    for (paper, accept, want, holds) in [
        (30.0, "{ abs = 10.0 }", "reproduced", Holds::Yes),
        // The interval reaches 9 points to a side: too far for one of 5 points, and for none.
        (30.0, "{ abs = 5.0 }", "underpowered", Holds::Open),
        (30.0, "{ within = \"ci95\" }", "underpowered", Holds::Open),
        // Within the interval's reach, but not near enough itself.
        (45.0, "{ abs = 10.0 }", "underpowered", Holds::Open),
        (60.0, "{ abs = 10.0 }", "not reproduced", Holds::No),
        (20.0, "{ within = \"ci95\" }", "not reproduced", Holds::No),
        (64.0, "{ rel = 0.5 }", "reproduced", Holds::Yes),
    ] {
        let text = held(paper, accept);
        let collected = Collected { arms: vec![arm(&text, 1)], ..study() };
        let found = verdicts::verdicts(&collected);
        let one = found.iter().find(|verdict| verdict.what.contains("sure")).unwrap();
        assert_eq!((one.outcome.as_str(), one.holds), (want, holds), "{paper} {accept}");
        // Two comparisons expect something; one of them came out the other way.
        let of_claims: Vec<Holds> =
            found.iter().filter(|v| !v.what.contains("sure")).map(|v| v.holds).collect();
        assert_eq!(of_claims, [Holds::No, Holds::Yes]);
    }
}

#[test]
fn verdicts_over_seeds_are_those_of_the_mean() {
    let mut collected = study();
    collected.arms = [1, 3]
        .into_iter()
        .map(|seed| {
            let coordinates = vec![("seed".to_owned(), seed.to_string())];
            CollectedArm { coordinates, ..arm(STUDY, seed) }
        })
        .collect();
    let found = verdicts::verdicts(&collected);
    let seeds: Vec<&str> =
        found.iter().filter(|v| v.what.ends_with("2 seeds")).map(|v| v.outcome.as_str()).collect();
    assert_eq!(seeds, ["against expectation", "as expected"]);
}

#[test]
fn rules_that_read_the_same_texts_stand_side_by_side() {
    let mut arm = arm(STUDY, 1);
    let mut with_rules: Scores = arm.find("dqa.scores").unwrap().1.json("scores.json").unwrap();
    for mode in &mut with_rules.modes {
        // This rule is right where the deciding one is, but for the first 3, and on the last 4.
        let right = |(i, o): (usize, &Outcome)| o.correct && i >= 3 || i >= 96;
        mode.others = vec![RuleScores {
            rule: "canonical".to_owned(),
            answers: vec![None; mode.outcomes.len()],
            right: mode.outcomes.iter().enumerate().map(right).collect(),
        }];
    }
    for step in arm.steps.iter_mut().filter(|step| step.name == "dqa") {
        let json = serde_json::to_vec(&with_rules).unwrap();
        let new = output("scores", ArtifactKind::Scores, "scores.json", json);
        step.outputs.iter_mut().filter(|o| o.name == "scores").for_each(|o| *o = new.clone());
    }
    let files = render(&Collected { arms: vec![arm], ..study() });
    says(
        &file(&files, "report.md"),
        &[
            "| D_QA | direct on `test` | 100 | **32.0 [23.7, 41.7]** | 33.0 [24.6, 42.7]<br>+4 -3 | 7 |",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&file(&files, "scores.json")).unwrap();
    let extraction = &json["arms"][0]["models"][1]["modes"]["direct"]["extraction"];
    assert_eq!(extraction["disputed"], 7);
    assert_eq!(extraction["apart"][0]["only-b"], 4);
}

#[test]
fn the_json_holds_every_outcome_in_sorted_order() {
    let text = file(&render(&study()), "scores.json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let models = &json["arms"][0]["models"];
    assert_eq!(models[1]["modes"]["direct"]["accuracy"]["hits"], 32);
    let key = models[1]["evaluations"][0].as_str().unwrap();
    let rows = &json["evaluations"][key]["modes"]["direct"]["rows"];
    assert_eq!(rows.as_array().unwrap().len(), 100);
    assert_eq!(rows[31], serde_json::json!(["test-31", 31.0, true, "00ff"]));
    assert!(text.contains("          [\"test-31\", 31.0, true, \"00ff\"],\n"), "{text}");
    let places: Vec<_> = ["\"arms\"", "\"evaluations\"", "\"over-seeds\"", "\"rounds\""]
        .iter()
        .map(|key| text.find(&format!("\n  {key}")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn the_chart_has_a_line_for_each_kind_of_answer() {
    let svg = file(&render(&study()), "accuracy.svg");
    for part in
        ["prefers-color-scheme: dark", "sans-serif", ">direct<", ">refine<", ">base, direct<"]
    {
        assert!(svg.contains(part), "no {part} in {svg}");
    }
    assert_eq!(svg.matches("<polyline").count(), 3);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn a_sweep_is_shown_over_seeds_and_arm_by_arm() {
    let mut collected = study();
    collected.arms = [("on", 1), ("on", 3), ("off", 1), ("off", 3)]
        .into_iter()
        .map(|(filter, seed)| {
            let pair = |axis: &str, label: &str| (axis.to_owned(), label.to_owned());
            let coordinates = vec![pair("seed", &seed.to_string()), pair("filter", filter)];
            CollectedArm { coordinates, ..arm(STUDY, seed) }
        })
        .collect();
    let files = render(&collected);
    let page = file(&files, "report.md");
    says(
        &page,
        &[
            "Manifest `study` · seeds 1, 3 · 2 rounds · 4 arms · 10 steps",
            "| arms | model | seeds | n | direct, % | direct - control | refine, % | refine - control |",
            "| filter = off | round 1 | 2 | 100 (`test`) | 52.0 ± 1.4 | +20.0 ± 1.4 (2 of 2 above 0) | 52.0 ± 1.4 | +21.0 ± 1.4 (2 of 2 above 0) |",
            "| filter = on | base against D_QA | direct on `test` | -22.0 ± 0.0 (0 of 2 above 0) | [-22.0, -22.0] | - | higher: 2 against expectation |",
            "<summary>seed = 1, filter = on</summary>",
        ],
    );
    assert_eq!(page.matches("<details>").count(), page.matches("</details>").count());
    assert!(file(&files, "accuracy.svg").contains("filter = off: control"));
    // What arms share is there once.
    let json: serde_json::Value = serde_json::from_str(&file(&files, "scores.json")).unwrap();
    let evaluations = json["evaluations"].as_object().unwrap();
    assert_eq!(evaluations.len(), 4);
    let direct = &evaluations.values().next().unwrap()["modes"]["direct"];
    let items = json["items"][direct["items"].as_str().unwrap()].as_array().unwrap();
    assert_eq!(direct["right"].as_str().unwrap().len(), items.len());
    assert_eq!(page.matches("under it the exact McNemar p").count(), 1);
}

#[test]
fn a_comparison_of_arms_pairs_those_that_differ_in_nothing_else() {
    let text = STUDY.to_owned()
        + "[[compare]]\na = \"round 2\"\na-arm = { filter = \"on\" }\nb = \"round 2\"\n\
           b-arm = { filter = \"off\" }\nmode = \"direct\"\n";
    let mut collected = study();
    collected.arms = [("on", 3), ("on", 9), ("off", 3), ("off", 1)]
        .into_iter()
        .map(|(filter, seed)| {
            let pair = |axis: &str, label: &str| (axis.to_owned(), label.to_owned());
            let coordinates = vec![pair("filter", filter), pair("seed", &seed.to_string())];
            // Without its filter a round is six answers worse.
            let gain = if filter == "on" { seed + 6 } else { seed };
            CollectedArm { coordinates, seed, ..arm(&text, gain) }
        })
        .collect();
    let page = file(&render(&collected), "report.md");
    let claim = "round 2 {filter=on} against round 2 {filter=off}";
    says(
        &page,
        &[
            &format!(
                "| {claim} | direct on `test` | 100 | +6.0 | [+2.0, +11.0] | 6 / 0 | 0.031 | 0.063 | within noise | 192 items | - |"
            ),
            "- comparison of `round 2` with `round 2`: the sweep has no other arm to compare this one with",
        ],
    );
    assert_eq!(page.matches(claim).count(), 2, "once for its arm, once over seeds: {page}");
}

#[test]
fn evaluations_of_one_model_make_one_row() {
    let votes = "  { label = \"base\", scores = \"votes.scores\" },\n]\n\n[[compare]]";
    let text =
        STUDY.replacen("]\n\n[[compare]]", votes, 1) + "[stage.votes]\nkind = \"evaluate\"\n";
    let mut collected = study();
    collected.arms = vec![arm(&text, 1)];
    collected.arms[0].steps.push(step("votes", &[], vec![scores(&[("consistency", 12, 0)])]));
    let page = file(&render(&collected), "report.md");
    says(
        &page,
        &[
            "| base | 100 | 10.0 [5.5, 17.4] | 9.0 [4.8, 16.2] | 12.0 [7.0, 19.8] | 100 | 1,000 | 2,468 |",
            "| D_QA | 100 | 32.0 [23.7, 41.7] | 31.0 [22.8, 40.6] | - | 100 | 1,000 | 1,234 |",
        ],
    );
}

#[test]
fn what_is_missing_is_said() {
    let mut collected = study();
    let arm = &mut collected.arms[0];
    arm.steps.retain(|step| step.name != "dqa");
    arm.steps[0].outputs[0].files[0].content = Some(b"{".to_vec());
    let page = file(&render(&collected), "report.md");
    says(
        &page,
        &[
            "- `D_QA`: there is no result `dqa.scores`",
            "- comparison of `round {round}` with `D_QA`: they share no mode and data set",
            "- published value 30 for `D_QA`: no such result",
        ],
    );
    assert!(page.contains("- `base`: `scores.json` of `scores`: EOF"), "{page}");
}

#[test]
fn without_a_report_the_digests_are_listed() {
    let mut collected = study();
    collected.arms[0].findings = Findings::default();
    collected.arms[0].steps.truncate(2);
    let files = render(&collected);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["report.md", "digests.json"]);
    let digest = collected.arms[0].steps[0].outputs[1].digest;
    let line = format!("| base | train | log | train-log | 1 | `{}` |", digest.short());
    says(&files[0].1, &["# study", line.as_str()]);
    assert!(files[1].1.contains(&digest.to_string()));
    // Nothing at all is no reason to stop.
    assert!(render(&Collected::default())[0].1.contains("There are no results."));
}
