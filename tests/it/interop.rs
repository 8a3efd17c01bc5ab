//! A whole study on a foreign checkpoint with sentencepiece tokens and a chat
//! template of its own. What becomes of its models in transformers and peft is
//! shown by `tests/fixtures/interop.py`.

use crate::space::Space;
use std::path::Path;

#[test]
fn a_foreign_model_is_asked_taught_scored_and_written_out() {
    let space = Space::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interop");
    std::fs::create_dir(space.path("model")).unwrap();
    let files = [fixture.clone(), fixture.join("model")].map(|folder| crate::space::list(&folder));
    for path in files.iter().flatten().filter(|path| path.is_file()) {
        let to = path.strip_prefix(&fixture).unwrap();
        std::fs::copy(path, space.path(to.to_str().unwrap())).unwrap();
    }
    let on_cpu = |words: &[&str]| space.run(&[words, &["--device", "cpu"]].concat());
    on_cpu(&["run", "study.toml"]).ok();

    // It speaks as its maker says, with its own tokens and template.
    let doctor = on_cpu(&["doctor", "--checkpoint", "model"]).ok();
    assert!(
        doctor.err.contains("5 checks in") && doctor.err.contains("all hold"),
        "{}",
        doctor.out
    );
    let rows = |output: &str| -> Vec<serde_json::Value> {
        on_cpu(&["export", "study.toml", output, "--to", output]).ok();
        let text = std::fs::read_to_string(space.path(output).join("dialogues.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let said = ["said.dialogues", "said-tuned.dialogues", "said-adapted.dialogues"].map(rows);
    for (before, after) in said[0].iter().zip(&said[1]) {
        let certain = |row: &serde_json::Value| row["logprob"].as_f64().unwrap();
        assert!(certain(before) < 0.0 && certain(before) < certain(after), "{before} {after}");
    }
    // What conversations taught is said, and adapters say something of their own.
    let reply = |row: &serde_json::Value| row["reply"].as_str().unwrap().to_owned();
    let taught = |rows: &[serde_json::Value]| {
        rows.iter().filter(|row| reply(row).starts_with("answ")).count()
    };
    assert_eq!((taught(&said[0]), said[1].len()), (0, 8));
    assert!(taught(&said[1]) >= 5, "{:?}", said[1]);
    assert!(said[0].iter().zip(&said[2]).any(|(a, b)| reply(a) != reply(b)), "{:?}", said[2]);

    // What goes out comes in with the same tokenizer, template and numbers.
    for output in ["tuned", "adapted", "adapted.adapter"] {
        on_cpu(&["export", "study.toml", output, "--to", output]).ok();
    }
    assert!(space.path("adapted.adapter/adapter_config.json").exists());
    for file in ["tokenizer.model", "tokenizer_config.json"] {
        let read = |folder: &str| std::fs::read(space.path(folder).join(file)).unwrap();
        assert!(read("tuned") == read("model"), "{file}");
    }
    let doctor = on_cpu(&["doctor", "--checkpoint", "tuned"]).ok();
    assert!(doctor.err.contains("3 checks in"), "{}", doctor.err);
}
