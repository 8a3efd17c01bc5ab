//! Learning from preferences through the program: reward models of both forms,
//! PPO from them, whose models they go with, and runs that are killed on the way.

use crate::space::Space;
use crate::training::BASE;
use serde_json::Value;

/// Dialogues of the tiny base with refined replies of the built-in annotator.
const COLLECTED: &str = r#"
[annotator.labeller]
kind = "reference"

[stage.collect]
kind = "collect"
model = "base.model"
problems = "words.base"
annotator = "labeller"
protocol = "arithmetic"
temperature = 1.0

[stage.reward]
kind = "train-reward"
start = "base.model"
dialogues = "collect.dialogues"
protocol = "arithmetic"
epochs = 12
batch = 8
accumulate = 2
held-out = 0.2
rate = 3e-3
checkpoint-seconds = 0
lora = { rank = 4, targets = ["q_proj", "v_proj", "down_proj"] }
"#;

fn with(tail: &str) -> Space {
    Space::with(&format!("{BASE}{COLLECTED}{tail}"))
}

/// The stored JSON files that have a key.
fn stored(space: &Space, key: &str) -> Vec<Value> {
    let objects = space.object_files().into_iter();
    let all = objects
        .filter_map(|object| serde_json::from_slice::<Value>(&std::fs::read(object).ok()?).ok());
    all.filter(|value| value.get(key).is_some()).collect()
}

#[test]
fn a_reward_model_tells_the_better_reply_with_adapters_and_without() {
    let space = with(
        r#"
[stage.whole]
kind = "train-reward"
start = "base.model"
dialogues = "collect.dialogues"
protocol = "arithmetic"
differ = "text"
validate = "collect.dialogues"
epochs = 12
batch = 8
rate = 2e-3
"#,
    );
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let cards = stored(&space, "learnt");
    assert_eq!(cards.len(), 2, "{cards:?}");
    let of = |adapters: bool| cards.iter().find(|card| card["adapters"] == adapters).unwrap();
    let count = |card: &Value, name: &str| card["pairs"][name].as_u64().unwrap();
    let adapted = of(true);
    // What is right already is no pair, and every fifth pair is held out.
    let pairs = count(adapted, "learnt") + count(adapted, "held_out");
    assert_eq!(count(adapted, "dialogues"), 40);
    assert_eq!(pairs + count(adapted, "same") + count(adapted, "unrefined"), 40);
    assert!(pairs > 20 && count(adapted, "held_out") == pairs / 5, "{adapted}");
    for card in [adapted, of(false)] {
        let learnt = &card["learnt"];
        assert!(learnt["accuracy"].as_f64().unwrap() > 0.8, "{card}");
        assert!(learnt["chosen"].as_f64() > learnt["rejected"].as_f64(), "{card}");
        assert!(learnt["loss"].as_f64().unwrap() < 0.6, "{card}");
    }
    // The same pairs are judged the same, as those learnt from and as those held out.
    assert_eq!(of(false)["learnt"], of(false)["held_out"]);
    assert_eq!(adapted["base"], of(false)["base"]);
    space.run(&["export", "m.toml", "reward.reward", "--to", "out", "--device", "cpu"]).ok();
    let has = |name: &str| space.path("out").join(name).exists();
    assert!(has("adapter_config.json") && has("score.safetensors") && !has("model.safetensors"));
}

/// PPO from the reward model, and what takes up its model.
const LEARNT: &str = r#"
[stage.rlhf]
kind = "ppo"
start = "base.model"
reward = "reward.reward"
problems = "words.base"
protocol = "arithmetic"
batches = 6
batch = 16
epochs = 2
minibatches = 2
max-tokens = 6
rate = 5e-3
checkpoint-seconds = 0
lora = { rank = 4, alpha = 8, targets = ["q_proj", "v_proj", "down_proj"] }

[stage.said]
kind = "generate"
model = "rlhf.model"
problems = "words.test"
protocol = "arithmetic"

[stage.eval]
kind = "evaluate"
model = "rlhf.model"
problems = "words.test"
protocol = "arithmetic"

[stage.again]
kind = "train"
start = "base.model"
data = ["corpus"]
epochs = 1
lora = { start = "rlhf.adapter" }
"#;

#[test]
fn what_ppo_makes_is_a_model_and_an_adapter_like_any_other() {
    let space = with(LEARNT);
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let objects = space.object_files().into_iter();
    let rows: Vec<Vec<Value>> = objects
        .filter_map(|object| serde_json::from_slice(&std::fs::read(object).ok()?).ok())
        .filter(|rows: &Vec<Value>| rows.first().is_some_and(|row| row["clip_fraction"].is_f64()))
        .collect();
    let [rows] = &rows[..] else { panic!("{rows:?}") };
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
    assert_eq!(rows.len(), 6);
    // 16, 16 and then 8 of 40 problems; two passes of two minibatches each.
    let steps: Vec<u64> = rows.iter().map(|row| row["steps"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 8, 12, 16, 20, 24]);
    assert!(number(&rows[0], "kl").abs() < 1e-5 && number(&rows[5], "kl") > 0.0, "{rows:?}");
    assert!(number(&rows[5], "score") > number(&rows[0], "score"), "{rows:?}");
    let export = |output: &str| {
        space.run(&["export", "m.toml", output, "--to", output, "--device", "cpu"]).ok();
    };
    ["rlhf", "rlhf.adapter", "rlhf.log"].into_iter().for_each(export);
    for file in ["rlhf/model.safetensors", "rlhf.adapter/adapter_config.json", "rlhf.log/ppo.json"]
    {
        assert!(space.path(file).exists(), "{file}");
    }
    let doctor = space.run(&["doctor", "--checkpoint", "rlhf", "--device", "cpu"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
}

#[test]
fn a_reward_model_goes_with_its_own_base_or_not_at_all() {
    let other = |base: &str| {
        let learnt =
            LEARNT.replace("start = \"base.model\"\nreward =", "start = \"other.model\"\nreward =");
        let learnt = learnt.split("[stage.said]").next().unwrap().to_owned();
        format!(
            "{learnt}{base}\n[stage.other]\nkind = \"train\"\nstart = \"base.model\"\ndata = [\"held\"]\nepochs = 1\n"
        )
    };
    let refused = with(&other("")).run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("which is neither `start` nor `reward-base`"), "{}", refused.err);
    assert!(refused.err.contains("that `train-reward` started from"), "{}", refused.err);
    with(&other("reward-base = \"base.model\"")).run(&["run", "m.toml", "--device", "cpu"]).ok();
}

#[test]
fn killed_trainings_of_reward_model_and_policy_go_on_to_the_same_bits() {
    let whole = with(LEARNT);
    whole.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let space = with("");
    std::fs::copy(whole.path("m.toml"), space.path("m.toml")).unwrap();
    killed_often(&space);
    assert_eq!(space.objects(), whole.objects());
}

/// Starts the run and kills it, some time later each time.
fn killed_often(space: &Space) {
    for turn in 0..10u64 {
        let mut child = space.start(&["run", "m.toml", "--device", "cpu"]);
        std::thread::sleep(std::time::Duration::from_millis(60 + 70 * turn));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    space.run(&["run", "m.toml", "--device", "cpu"]).ok();
}

#[test]
fn pairs_that_cannot_be_are_refused_with_what_to_do() {
    for (tail, complaint) in [
        ("held-out = 1.0", "from 0 to below 1"),
        ("accumulate = 9", "from 1 to `batch`"),
        ("accumulate = 2\npart-tokens = 64", "either `accumulate` or `part-tokens`"),
    ] {
        let stage = "[stage.r]\nkind = \"train-reward\"\nstart = \"base.model\"\ndialogues = \"collect.dialogues\"\nprotocol = \"arithmetic\"\nbatch = 8\n";
        let plan = with(&format!("{stage}{tail}")).run(&["plan", "m.toml", "--device", "cpu"]);
        assert_ne!(plan.code, 0, "{tail}");
        assert!(plan.err.contains(complaint), "{tail}: {}", plan.err);
    }
    for (line, complaint) in [
        ("minibatches = 17", "from 1 to `batch`"),
        ("temperature = 0", "greedy replies teach nothing"),
        ("gamma = 1.5", "`gamma` is from 0 to 1"),
        ("kl = -0.1", "`kl` is a finite number and not below 0"),
        ("lora = { dropout = 0.1 }", "would differ from 1 by chance"),
    ] {
        let stage = format!(
            "[stage.p]\nkind = \"ppo\"\nstart = \"base.model\"\nreward = \"reward.reward\"\nproblems = \"words.base\"\nprotocol = \"arithmetic\"\nbatch = 16\n{line}\n"
        );
        let plan = with(&stage).run(&["plan", "m.toml", "--device", "cpu"]);
        assert_ne!(plan.code, 0, "{line}");
        assert!(plan.err.contains(complaint), "{line}: {}", plan.err);
    }
    // Replies without refinement are no pairs.
    let space = with(
        "[stage.said]\nkind = \"generate\"\nmodel = \"base.model\"\nproblems = \"words.test\"\nprotocol = \"arithmetic\"\n\n[stage.r]\nkind = \"train-reward\"\nstart = \"base.model\"\ndialogues = \"said.dialogues\"\nprotocol = \"arithmetic\"\n",
    );
    let ran = space.run(&["run", "m.toml", "--device", "cpu"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.err.contains("there is no pair to learn from: of 6 dialogues 6 have no refined"),
        "{}",
        ran.err
    );
}
