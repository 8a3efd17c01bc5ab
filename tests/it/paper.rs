//! The paper's experiments: every manifest is without a mistake, and the tiny
//! ones run. The data are of our own making, in the published files' formats.

use crate::space::{Space, list};
use rekindle::host::http::{Content, sha256};
use std::path::{Path, PathBuf};

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/self")
}

/// Manifests of a folder, without those that only others extend.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with('E') && name.ends_with(".toml")
    };
    let mut found: Vec<PathBuf> = list(folder).into_iter().filter(is_one).collect();
    found.sort();
    found
}

#[test]
fn every_experiment_is_without_a_mistake_and_has_a_tiny_sibling_that_is_too() {
    let space = Space::new();
    let full = manifests(&experiments());
    assert!(full.len() >= 10, "{full:?}");
    for path in full.iter().chain(&manifests(&experiments().join("tiny"))) {
        let ran = space.run(&["check", path.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}: {}", path.display(), ran.err);
    }
    let label = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap()[..3].to_owned();
    let without: Vec<String> = full.iter().map(label).filter(|name| name != "E11").collect();
    let tiny: Vec<String> = manifests(&experiments().join("tiny")).iter().map(label).collect();
    assert_eq!(without, tiny, "E11 alone is about models that cannot be made tiny");
}

/// A row of GSM8K's format.
fn row(k: usize) -> String {
    let (a, b, c) = (3 + k % 17, 2 + k % 5, 1 + k % 7);
    let (first, all) = (a * b, a * b + c);
    let question = format!(
        "Tom {} packs {a} boxes with {b} pens in each. He finds {c} more. How many pens are there?",
        ["quickly", "slowly", "gladly"][k % 3]
    );
    let worked = format!(
        "There are {a}*{b}=<<{a}*{b}={first}>>{first} pens.\nThen {first}+{c}=<<{first}+{c}={all}>>{all}."
    );
    serde_json::json!({ "question": question, "answer": format!("{worked}\n#### {all}") })
        .to_string()
}

/// A mirror with all three files, and the digests they have.
pub(crate) fn mirror(space: &Space) -> Vec<String> {
    let gsm8k = |rows: std::ops::Range<usize>| rows.map(row).collect::<Vec<_>>().join("\n");
    let svamp: Vec<serde_json::Value> = (0..12)
        .map(|k| {
            serde_json::json!({
                "ID": format!("chal-{k}"), "Body": format!("Ann has {} cats", k + 4),
                "Question": "and gives 2 away. How many are left?",
                "Equation": format!("( {}.0 - 2.0 )", k + 4), "Answer": k + 2, "Type": "Subtraction",
            })
        })
        .collect();
    let files = [
        ("gsm8k-train", "gsm8k/train.jsonl", gsm8k(0..60)),
        ("gsm8k-test", "gsm8k/test.jsonl", gsm8k(60..72)),
        ("svamp", "svamp/SVAMP.json", serde_json::Value::from(svamp).to_string()),
    ];
    let mut sets = vec!["dataset.slices.sets={ meta=12, pool1=6, corpus=0 }".to_owned()];
    for (name, path, text) in files {
        let path = space.path("mirror").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &text).unwrap();
        sets.push(format!("dataset.{name}.sha256=\"{}\"", sha256(text.as_bytes())));
    }
    sets
}

/// Runs a tiny experiment on these data; its report.
fn ran(name: &str) -> (Space, String) {
    let space = Space::new();
    let sets = mirror(&space);
    let manifest = experiments().join(format!("tiny/{name}.toml"));
    let mut arguments = vec!["run", manifest.to_str().unwrap(), "--mirror", "mirror"];
    for set in &sets {
        arguments.extend(["--set", set.as_str()]);
    }
    space.run(&arguments).ok();
    let report = space.path("results/self-tiny").join(name).join("report.md");
    let report = std::fs::read_to_string(report).unwrap();
    (space, report)
}

#[test]
fn the_baseline_of_a_reward_model_and_ppo_runs_tiny() {
    let (_, report) = ran("E12");
    for part in ["| RLHF | `GSM8K` |", "| 25.55 (", "D_QA"] {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
}

#[test]
fn a_round_and_the_baseline_on_human_solutions_run_tiny() {
    let (space, report) = ran("E13");
    for part in ["as recalled, to be checked against the PDF", "35.7", "human solutions", "round 1"]
    {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
    let worked = space.object_files().into_iter().any(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.contains("There are 3*2=6 pens.\\nThen 6+1=7.\\nAnswer: 7\"")
    });
    assert!(worked, "the data set's own words are what is learnt");
}

/// A mirror with instructions, questions, reference answers and tests of our
/// own, and the digests they have.
fn general_mirror(space: &Space) -> Vec<String> {
    let kinds = ["writing", "math", "coding"];
    let instruction = |k: usize| {
        serde_json::json!({
            "instruction": format!("Name {} things that are {}.", 2 + k % 7, ["red", "old", "round"][k % 3]),
            "input": if k.is_multiple_of(2) { format!("Case {k}") } else { String::new() },
            "output": format!("A brick and a leaf number {k} are such things."),
        })
    };
    let instructions: Vec<serde_json::Value> = (0..60).map(instruction).collect();
    let lines = |row: &dyn Fn(usize) -> serde_json::Value| {
        (1..=9).map(|k| format!("{}\n", row(k))).collect::<String>()
    };
    let question = |k: usize| serde_json::json!({ "question_id": k, "category": kinds[k % 3], "turns": [format!("Case {k} ?")] });
    let reference = |k: usize| {
        let turns = ["A brick are such things."];
        serde_json::json!({ "question_id": 3 * k, "choices": [{ "index": 0, "turns": turns }] })
    };
    let test = |k: usize| {
        let instruction = format!("Name case {k} of such things.");
        serde_json::json!({ "idx": k, "Skill": kinds[k % 3], "Difficulty": k, "Instruction": instruction })
    };
    let files = [
        ("prompts", "alpaca/alpaca_data.json", serde_json::Value::from(instructions).to_string()),
        ("vicuna", "vicuna_bench/question.jsonl", lines(&question)),
        ("vicuna-references", "vicuna_bench/reference_answer/gpt-4.jsonl", lines(&reference)),
        ("evol-instruct", "evol_instruct/WizardLM_testset.jsonl", lines(&test)),
    ];
    let mut sets = vec!["dataset.slices.sets={ meta=12, pool1=6, rest=0 }".to_owned()];
    for (name, path, text) in files {
        let path = space.path("mirror").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &text).unwrap();
        sets.push(match name {
            "prompts" => {
                let blob = Content::GitBlob(String::new()).differs(text.as_bytes()).unwrap();
                format!("dataset.{name}.git-blob=\"{blob}\"")
            }
            _ => format!("dataset.{name}.sha256=\"{}\"", sha256(text.as_bytes())),
        });
    }
    sets
}

#[test]
fn the_general_domain_runs_tiny_and_its_win_rates_stand_beside_the_papers() {
    let space = Space::new();
    let sets = general_mirror(&space);
    let run = |name: &str| {
        let manifest = experiments().join("tiny").join(format!("{name}.toml"));
        let mut arguments = vec!["run", manifest.to_str().unwrap(), "--mirror", "mirror"];
        for set in &sets {
            arguments.extend(["--set", set.as_str()]);
        }
        let ran = space.run(&arguments).ok();
        let report = format!("results/self-tiny/{name}/report.md");
        (std::fs::read_to_string(space.path(&report)).unwrap(), ran.err)
    };
    let (report, _) = run("E15");
    for part in [
        "as recalled, to be checked against the PDF",
        "Win rate on `Vicuna-80`",
        "72.5 (",
        "| 75 (",
        "words shared",
        "| writing |",
        "rating of r̂",
    ] {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
    // What is rated without a gold answer is right or wrong in no table.
    let collected = report.split("Collected data").nth(1).unwrap();
    let row = collected.lines().find(|line| line.starts_with("| collect |")).unwrap();
    assert!(row.starts_with("| collect | 12 | 12 | 0 | - | - |"), "{row}");
    let (report, _) = run("E16");
    for part in ["Win rate on `Evol-Instruct-218`", "55.5 (", "03 of 10"] {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
}
