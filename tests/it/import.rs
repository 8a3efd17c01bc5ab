//! A checkpoint of others comes in, is used, trained and written out again;
//! what it holds decides what is done anew, where it lies does not.

use crate::space::{Ran, Space};
use std::path::{Path, PathBuf};

const MANIFEST: &str = r#"
rekindle = 1
name = "foreign"

[protocol.plain]
answer = "number"

[dataset.words]
kind = "word-problems"
problems = { train = 6, test = 4 }
protocol = "plain"

[stage.texts]
kind = "examples"
problems = "words.train"
protocol = "plain"

[stage.foreign]
kind = "import"
folder = "model"

[stage.tuned]
kind = "train"
start = "foreign.model"
data = ["texts"]
epochs = 1

[stage.score]
kind = "evaluate"
model = "tuned.model"
problems = "words.test"
protocol = "plain"
modes = ["direct"]
"#;

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// A space with a checkpoint in the folder `model`.
fn space(name: &str) -> Space {
    let space = Space::with(MANIFEST);
    std::fs::create_dir(space.path("model")).unwrap();
    for path in crate::space::list(&checkpoint(name)) {
        std::fs::copy(&path, space.path("model").join(path.file_name().unwrap())).unwrap();
    }
    space
}

fn on_cpu(space: &Space, arguments: &[&str]) -> Ran {
    space.run(&[arguments, &["--device", "cpu"]].concat())
}

#[test]
fn content_decides_and_the_place_does_not() {
    let space = space("grouped");
    on_cpu(&space, &["run", "m.toml"]).ok();
    let fresh = |arguments: &[&str]| {
        let plan = on_cpu(&space, &[&["plan", "m.toml"], arguments].concat()).ok();
        assert!(plan.err.contains("nothing to do"), "{} {}", plan.out, plan.err);
    };
    // Another place, and a file that is not read.
    std::fs::rename(space.path("model"), space.path("moved")).unwrap();
    std::fs::write(space.path("moved/README.md"), "words").unwrap();
    let moved = ["--set", "stage.foreign.folder=moved"];
    fresh(&moved);

    // The digest that `why` shows stands for the folder.
    let why = on_cpu(&space, &[&["why", "m.toml", "foreign"][..], &moved].concat()).ok();
    let line = why.out.lines().find(|line| line.contains("with.digest")).unwrap();
    let digest = line.split('"').nth(1).unwrap();
    let pin = format!("stage.foreign.digest={digest}");
    fresh(&["--set", &pin]);
    let absent = on_cpu(&space, &["plan", "m.toml"]);
    assert_eq!(absent.code, 4);
    assert!(absent.err.contains("step `foreign`: there is no folder `model`"), "{}", absent.err);
    on_cpu(&space, &["check", "m.toml"]).ok();

    // One bit of one weight.
    let weights = space.path("moved/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let changed = on_cpu(&space, &[&["why", "m.toml", "foreign"][..], &moved].concat()).ok();
    assert!(changed.out.contains("digest") && changed.out.contains(digest), "{}", changed.out);
    let other = format!("stage.foreign.digest={}", digest.replace(&digest[..2], "00"));
    let wrong = on_cpu(&space, &[&["run", "m.toml", "--set", &other][..], &moved].concat());
    assert_eq!(wrong.code, 4);
    assert!(wrong.err.contains("`moved` has the digest"), "{}", wrong.err);
    assert!(wrong.err.contains(&other[21..]), "{}", wrong.err);
    let bad = on_cpu(&space, &["check", "m.toml", "--set", "stage.foreign.digest=AB"]);
    assert!(bad.err.contains("64 lower-case hexadecimal digits"), "{}", bad.err);
}

#[test]
fn models_go_out_whole_and_come_in_again() {
    let space = space("grouped");
    let export = |model: &str, to: &str| on_cpu(&space, &["export", "m.toml", model, "--to", to]);
    let early = export("tuned", "out");
    assert_eq!(early.code, 4);
    assert!(early.err.contains("step `tuned` is not done"), "{}", early.err);
    on_cpu(&space, &["run", "m.toml"]).ok();

    export("foreign.model", "same").ok();
    let read = |path: &str| std::fs::read(space.path(path)).unwrap();
    for file in ["model.safetensors", "tokenizer.json", "generation_config.json"] {
        assert!(read(&format!("same/{file}")) == read(&format!("model/{file}")), "{file}");
    }
    let config: serde_json::Value = serde_json::from_slice(&read("same/config.json")).unwrap();
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!((&config["bos_token_id"], &config["eos_token_id"]), (&1.into(), &2.into()));

    let out = on_cpu(&space, &["export", "m.toml", "tuned", "--to", "out", "--shard-size", "4e-6"]);
    assert!(out.ok().err.contains("model-00001-of-00007.safetensors"));
    let before = crate::space::list(&space.path("out"));
    let again = export("tuned", "out");
    assert!(again.code == 4 && again.err.contains("nothing is ever overwritten"), "{}", again.err);
    assert_eq!(crate::space::list(&space.path("out")), before);
    assert!(export("words", "x").err.contains("no output that is a model"));
    assert!(export("tuned.lag", "x").err.contains("no output `lag`"));
    assert!(export("score", "x").err.contains("it makes `scores`"));
    assert!(export("tuned.log", "log").ok().err.contains("`log` holds `tuned.log`: `train"));
    assert!(export("tunned", "x").err.contains("did you mean `tuned`?"));

    // What went out comes in as the same model: a training from it is known already.
    let set = ["--set", "stage.foreign.folder=same"];
    let plan = on_cpu(&space, &[&["run", "m.toml"][..], &set].concat()).ok();
    assert!(plan.err.contains("foreign"), "{}", plan.err);
    let tuned = on_cpu(&space, &[&["why", "m.toml", "tuned"][..], &set].concat()).ok();
    assert!(tuned.out.contains("up to date"), "{}", tuned.out);
}

#[test]
fn a_folder_without_a_vocabulary_takes_one_from_a_step() {
    let space = space("torch");
    let without = on_cpu(&space, &["run", "m.toml"]);
    assert_eq!(without.code, 4);
    assert!(without.err.contains("neither `tokenizer.json` nor `tokenizer.model`"));
    let vocabulary = "[stage.vocabulary]\nkind = \"import\"\nfolder = \"other\"\n";
    space.manifest(&MANIFEST.replace(
        "folder = \"model\"\n",
        &format!("folder = \"model\"\ntokenizer = \"vocabulary.tokenizer\"\n{vocabulary}"),
    ));
    std::os::unix::fs::symlink(checkpoint("grouped"), space.path("other")).unwrap();
    on_cpu(&space, &["run", "m.toml"]).ok();
    on_cpu(&space, &["export", "m.toml", "foreign", "--to", "out"]).ok();
    assert!(space.path("out/tokenizer.json").exists());
    let config = std::fs::read_to_string(space.path("out/config.json")).unwrap();
    assert!(config.contains("\"torch_dtype\": \"float16\""), "{config}");
}
