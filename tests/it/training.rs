//! Trainings through the program: adapters and what takes them up, held-out
//! losses, examples that are too long, parameters that make no sense.

use crate::space::Space;
use serde_json::Value;

/// A tiny base with a held-out set; `TAIL` goes on.
pub(crate) const BASE: &str = r#"
rekindle = 1
name = "training"
seed = 1

[protocol.arithmetic]
question = "Q: {question} A:"
feedback = "Q: {question} R: {reply} F:"
refined-marker = "refined:"
reply = "answer {answer}"
correct = "judgement correct"
incorrect = "judgement incorrect"
answer = "number"

[model.small]
width = 32
layers = 2
heads = 2
kv-heads = 1
feed-forward = 48
context = 64

[dataset.words]
kind = "word-problems"
protocol = "arithmetic"
problems = { base = 40, held = 10, test = 6 }

[stage.corpus]
kind = "examples"
problems = "words.base"
protocol = "arithmetic"

[stage.held]
kind = "examples"
problems = "words.held"
protocol = "arithmetic"

[stage.vocabulary]
kind = "tokenizer"
protocol = "arithmetic"
examples = ["corpus", "held"]
problems = ["words.test"]

[stage.base]
kind = "train"
model = "small"
tokenizer = "vocabulary"
data = ["corpus"]
epochs = 2
"#;

fn with(tail: &str) -> Space {
    Space::with(&format!("{BASE}{tail}"))
}

/// The log of the training that was `wanted`.
fn log(space: &Space, wanted: impl Fn(&Value) -> bool) -> Value {
    let objects = space.object_files().into_iter();
    let mut logs = objects
        .filter_map(|object| serde_json::from_slice::<Value>(&std::fs::read(object).ok()?).ok())
        .filter(|value| value["tokens_supervised"].is_u64());
    logs.find(wanted).expect("a log")
}

#[test]
fn adapters_flow_on_as_files_and_as_a_model() {
    let space = with(
        r#"
[stage.tuned]
kind = "train"
start = "base.model"
data = [{ from = "corpus", weight = 0.5 }, "held"]
epochs = 2
accumulate = 3
recompute = true
schedule = "linear"
floor = 0
validate = "held"
validate-every = 5
lora = { rank = 4, alpha = 6, targets = ["v_proj", "q_proj", "down_proj"], dropout = 0.1 }

[stage.again]
kind = "train"
start = "base.model"
data = ["corpus"]
epochs = 1
lora = { start = "tuned.adapter" }

[stage.settings]
kind = "command"
run = ["sh", "-c", "cat in/adapter/adapter_config.json > LOG; ls in/adapter > out/files/x"]
inputs = { adapter = "again.adapter" }

[stage.eval]
kind = "evaluate"
model = "tuned.model"
problems = "words.test"
protocol = "arithmetic"
"#,
    );
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let settings: Value = serde_json::from_str(&space.log().join(" ")).unwrap();
    assert_eq!((settings["r"].as_u64(), settings["lora_alpha"].as_f64()), (Some(4), Some(6.0)));
    assert_eq!(settings["target_modules"], serde_json::json!(["q_proj", "v_proj", "down_proj"]));

    let tuned = log(&space, |log| log["held_out"].is_array());
    // 2 blocks; A and B of [32, 32], [16, 32] and [32, 48].
    assert_eq!(tuned["adapters"]["parameters"], 2 * 4 * (32 + 32 + 16 + 32 + 32 + 48));
    assert!(tuned["adapters"]["merge_error"].as_f64().unwrap() < 1e-4, "{tuned}");
    let steps: Vec<u64> =
        tuned["held_out"].as_array().unwrap().iter().map(|p| p[0].as_u64().unwrap()).collect();
    // 50 examples in batches of 8, twice.
    assert_eq!((tuned["steps"].as_u64(), steps), (Some(14), vec![0, 5, 10, 14]));
}

#[test]
fn examples_beyond_the_context_are_counted_and_never_silent() {
    let short = |policy: &str| {
        let space = with(policy);
        let text = std::fs::read_to_string(space.path("m.toml")).unwrap();
        space.write("m.toml", text.replace("context = 64", "context = 30"));
        space
    };
    let refused = short("").run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(refused.code, 0);
    let many = "of 40 examples are longer than the model's context of 30 tokens; the longest, `";
    assert!(refused.err.contains(many), "{}", refused.err);
    assert!(refused.err.contains("too-long = \"drop\""), "{}", refused.err);

    let space = short("too-long = \"drop\"\n");
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let log = log(&space, |_| true);
    let dropped = log["overlong"]["dropped"].as_u64().unwrap();
    assert!(0 < dropped && dropped < 40, "{log}");
    assert_eq!((&log["examples"], &log["overlong"]["cut"]), (&(40 - dropped).into(), &0.into()));
    assert_eq!(log["steps"], 2 * (40 - dropped).div_ceil(8));

    let space = short("too-long = \"cut\"\n");
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let overlong = self::log(&space, |_| true)["overlong"].clone();
    let sum = |key: &str| overlong[key].as_u64().unwrap();
    assert_eq!(sum("dropped") + sum("cut"), dropped);
}

#[test]
fn precision_is_part_of_what_a_result_is() {
    let tail = r#"
[stage.eval]
kind = "evaluate"
model = "base.model"
problems = "words.test"
protocol = "arithmetic"
"#;
    let space = with(tail);
    let run = |precision: &str| {
        let set = format!("precision={precision}");
        space.run(&["run", "m.toml", "--device", "cpu", "--set", &set])
    };
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let exact = log(&space, |_| true);
    // What is the processor's own precision is the same result.
    assert!(run("f32").ok().err.contains("nothing to do"));
    let rounded = run("bf16").ok();
    assert!(rounded.err.contains("device: cpu (flex), matrix products in bf16"), "{}", rounded.err);
    // The data, the vocabulary and the shape are shared; training and speaking are not.
    assert!(rounded.err.contains("2 done"), "{}", rounded.err);
    let rounded = log(&space, |log| *log != exact);
    let last = |log: &Value| log["curve"].as_array().unwrap().last().unwrap()[1].as_f64().unwrap();
    let apart = (last(&rounded) / last(&exact) - 1.0).abs();
    assert!(0.0 < apart && apart < 0.02, "{apart}");
    let why = ["why", "m.toml", "eval", "--device", "cpu/bf16"];
    let why = space.run(&why).ok();
    assert!(why.out.contains("up to date"), "{}", why.out);
    let wrong = run("f16");
    assert_ne!(wrong.code, 0);
    assert!(wrong.err.contains("bf16"), "{}", wrong.err);
}

/// The hints of a training that does not fit: setting and what it would need.
fn advised(err: &str) -> Vec<&str> {
    err.lines().filter_map(|line| line.trim().strip_prefix("hint: ")).collect()
}

#[test]
fn a_model_beyond_any_machine_is_refused_before_anything_is_allocated() {
    let space = with("");
    let text = std::fs::read_to_string(space.path("m.toml")).unwrap();
    // A hundred billion parameters.
    let giant =
        "width = 10240\nlayers = 80\nheads = 80\nkv-heads = 80\nfeed-forward = 27392\ncontext = 64";
    let small = "width = 32\nlayers = 2\nheads = 2\nkv-heads = 1\nfeed-forward = 48\ncontext = 64";
    space.write("m.toml", text.replace(small, giant));
    let plan = space.run(&["plan", "m.toml", "--device", "cpu"]).ok();
    assert!(
        plan.out.contains("memory on the CPU: at most 2.")
            && plan.out.contains(" TiB with a vocabulary of 1,000, "),
        "{}",
        plan.out
    );
    let refused = space.run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("this training needs about 2."), "{}", refused.err);
    assert!(
        refused.err.contains("of memory, and ") && refused.err.contains("are free on cpu (flex)"),
        "{}",
        refused.err
    );
    assert!(
        refused.err.contains("no setting makes it fit: with one token at a time it needs "),
        "{}",
        refused.err
    );
}

#[test]
fn a_training_that_does_not_fit_is_told_what_would() {
    // A step of all forty examples holds some 5 MiB of activations.
    let tail = "[stage.t]\nkind = \"train\"\nstart = \"base.model\"\ndata = [\"corpus\"]\nepochs = 1\nbatch = 40\n";
    let space = with(tail);
    let run = |space: &Space, mebibytes: &str| {
        let mut command = space.command(&["run", "m.toml", "--device", "cpu"]);
        let ran = command.env("REKINDLE_MEMORY_MIB", mebibytes).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, err) = run(&space, "2");
    assert_ne!(code, Some(0));
    assert!(
        err.contains("this training needs about ") && err.contains(", and 2.0 MiB are free"),
        "{err}"
    );
    let hints = advised(&err);
    let fits = |hint: &&&str| hint.contains(" would need ");
    let settings: Vec<String> = hints
        .iter()
        .filter(fits)
        .map(|hint| {
            hint.split(" would need ").next().unwrap().replace('`', "").replace(" with ", "\n")
        })
        .collect();
    assert!(settings.iter().any(|one| one.starts_with("accumulate = ")), "{err}");
    assert!(settings.iter().any(|one| one.starts_with("recompute = true")), "{err}");
    // What is advised is done, in as little memory; and the rest goes on as it was.
    for setting in settings.iter().map(String::as_str).chain(["too-large = \"try\""]) {
        space.manifest(&format!("{BASE}{tail}{setting}\n"));
        let (code, err) = run(&space, "2");
        assert_eq!(code, Some(0), "{setting}: {err}");
    }
}

#[test]
fn a_tokenizer_that_the_model_does_not_know_is_refused_before_the_weights_are_read() {
    let space = with(
        "[stage.taken]\nkind = \"import\"\nfolder = \"model\"\ntokenizer = \"vocabulary\"\n\n[stage.t]\nkind = \"train\"\nstart = \"taken.model\"\ndata = [\"corpus\"]\n",
    );
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training");
    std::fs::create_dir(space.path("model")).unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(fixture.join("cases.json")).unwrap()).unwrap();
    space.write("model/config.json", cases["config"].to_string());
    std::fs::copy(fixture.join("model.safetensors"), space.path("model/model.safetensors"))
        .unwrap();
    let ran = space.run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.err.contains("the tokenizer has ") && ran.err.contains(" tokens, the model knows 64"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("two different models"), "{}", ran.err);
}

#[test]
fn a_loss_that_is_not_finite_names_its_examples_and_leaves_the_last_state() {
    let space = with(
        r#"
[stage.t]
kind = "train"
start = "base.model"
data = ["held", { from = "corpus", weight = 3e38 }]
"#,
    );
    let ran = space.run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.err.contains("the loss became inf at step 0; because of `direct-base-"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("`direct-held-"), "{}", ran.err);
    let steps = crate::space::list(&space.path(".rekindle/partial"));
    assert!(steps.iter().any(|step| step.join("checkpoint-0").exists()), "{steps:?}");
}

#[test]
fn parameters_that_make_no_sense_are_refused_where_they_stand() {
    for (tail, complaint) in [
        ("accumulate = 9", "from 1 to `batch`"),
        ("accumulate = 2\npart-tokens = 64", "either `accumulate` or `part-tokens`"),
        ("lora = {}", "it needs a `start`"),
        ("validate-every = 3", "`validate-every` without `validate`"),
        ("schedule = \"linaer\"", "linear"),
        (
            "[stage.t]\nkind = \"train\"\nstart = \"base.model\"\ndata = [{ from = \"corpus\", weight = -1 }]",
            "below 0",
        ),
        (
            "[stage.t]\nkind = \"train\"\nstart = \"base.model\"\ndata = [\"corpus\"]\nlora = { rank = 0 }",
            "`rank`",
        ),
        (
            "[stage.t]\nkind = \"train\"\nstart = \"base.model\"\ndata = [\"corpus\"]\nlora = { dropout = 1 }",
            "`dropout`",
        ),
        (
            "[stage.t]\nkind = \"train\"\nstart = \"base.model\"\ndata = [\"corpus\"]\nlora = { targets = [] }",
            "names no layer",
        ),
    ] {
        let plan = with(tail).run(&["plan", "m.toml", "--device", "cpu"]);
        assert_ne!(plan.code, 0, "{tail}");
        assert!(plan.err.contains(complaint), "{tail}: {}", plan.err);
    }
}
