//! Tests of the language through a small table of kinds, the way the floors
//! above use it: text, arms, typed steps, mistakes.

use super::*;
use crate::base::{
    artifact::{Dialogues, Model, Problems},
    spec::{InputRef, Ref, Spec, Use, choice, one_of, spec},
};
use std::collections::BTreeMap;

spec! {
    /// A set of problems.
    pub struct Arithmetic {
        /// Number of problems.
        count: u64 = 100,
    }
}

spec! {
    /// Training data and how often it is repeated.
    #[shorthand(from)]
    pub struct Mix {
        /// The data.
        from: Ref<Dialogues>,
        /// How often.
        repeat: u64 = 1,
    }
}

choice! {
    /// Where a training starts.
    pub enum Start {
        /// From the base model.
        Restart = "restart",
        /// From the model of the round before.
        Continual = "continual",
    }
}

spec! {
    /// Trains a model.
    #[check(rate_is_positive)]
    pub struct Train {
        /// The model to start from; a new one when absent.
        model: Option<Ref<Model>>,
        /// What to train on.
        data: Vec<Mix> = Vec::new(),
        /// Optimizer steps.
        steps: u64,
        /// Highest learning rate.
        rate: f64 = 1e-3,
        /// Where to start.
        start: Start = Start::Restart,
        /// Never enters the identity.
        #[exec]
        batch: u64 = 64,
    }
}

fn rate_is_positive(train: &Train, node: &Node, cx: &mut Reading) {
    if train.rate <= 0.0 {
        cx.error(&node.at(["rate"]).unwrap_or(node).origin, "`rate` must be above 0");
    }
}

spec! {
    /// Lets a model answer.
    pub struct Generate {
        /// The model.
        model: Ref<Model>,
        /// The questions.
        problems: Ref<Problems>,
        /// How prompts are written.
        protocol: Use<Protocol>,
        /// Softmax temperature.
        temperature: f64 = 0.7,
        /// Who comments, if anybody.
        annotator: Option<Annotator>,
    }
}

spec! {
    /// Prompts.
    pub struct Protocol {
        /// The question's frame.
        ask: String = "Q: {question}".into(),
        /// Where to stop.
        stop: Vec<String> = vec!["\n".into()],
    }
}

impl Resource for Protocol {
    const SECTION: &'static str = "protocol";
}

spec! {
    /// Knows the answers.
    pub struct Gold {
        /// Chance of a slip.
        slip: f64 = 0.0,
    }
}

one_of! {
    /// Who comments on replies.
    pub enum Annotator by "kind" {
        /// Knows the answers.
        Gold(Gold) = "gold",
        /// Says nothing.
        Mute(Arithmetic) = "mute",
    }
}

fn kind<T: Spec>(name: &'static str, section: &'static str) -> KindInfo {
    KindInfo { name, section, fields: T::fields, schema: T::schema }
}

fn language() -> Language {
    Language {
        kinds: vec![
            kind::<Arithmetic>("arithmetic", "dataset"),
            kind::<Train>("train", "stage"),
            kind::<Generate>("generate", "stage"),
        ],
        resources: vec![ResourceInfo::of::<Protocol>()],
    }
}

/// What the floors above make of a step.
#[derive(Debug)]
struct Parsed {
    identity: String,
    inputs: Vec<InputRef>,
}

fn typed(step: &Declared, arm: &Arm, found: &mut Diagnostics) -> Option<Parsed> {
    fn one<T: Spec>(node: &Node, cx: &mut Reading) -> Option<Parsed> {
        let spec = T::parse(node, cx)?;
        Some(Parsed { identity: spec.identity(), inputs: spec.references() })
    }
    let mut cx = arm.reading();
    let parsed = arm.read(step, &mut cx, |node, cx| match step.kind.0.as_str() {
        "arithmetic" => one::<Arithmetic>(node, cx),
        "train" => one::<Train>(node, cx),
        _ => one::<Generate>(node, cx),
    });
    found.extend(cx.finish());
    parsed
}

struct World {
    arms: Vec<Arm>,
    sources: Sources,
    found: Diagnostics,
    parsed: Vec<BTreeMap<String, Parsed>>,
}

/// Reads `a.toml` of `files` to the end, as the program does.
fn read(files: &[(&str, &str)], sets: &[&str]) -> World {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let loader = |name: &str| match files.get(name) {
        Some(&"<latin 1>") => Err("it is not UTF-8 (byte 12)".to_owned()),
        Some(text) => Ok((*text).to_owned()),
        None => Err("no such file".to_owned()),
    };
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let language = language();
    let (manifest, sources, mut found) = Manifest::read(&loader, "a.toml", &sets, &language);
    let Some(manifest) = manifest else {
        return World { arms: Vec::new(), sources, found, parsed: Vec::new() };
    };
    let (arms, more) = manifest.expand(&language);
    found.extend(more);
    let mut parsed = Vec::new();
    for arm in &arms {
        let mut steps = BTreeMap::new();
        for step in &arm.steps {
            if let Some(one) = typed(step, arm, &mut found) {
                steps.insert(step.name.clone(), one);
            }
        }
        parsed.push(steps);
    }
    World { arms, sources, found, parsed }
}

/// Asserts the text a person sees for `a.toml`.
#[track_caller]
fn complains(text: &str, expected: &str) {
    let world = read(&[("a.toml", text)], &[]);
    let rendered = world.found.render(&world.sources, false);
    assert_eq!(rendered, expected, "got:\n{rendered}");
}

const HEAD: &str = "rekindle = 1\nname = \"x\"\nrounds = 2\n";

const GOOD: &str = r#"
rekindle = 1
name = "study"
seed = 7
rounds = 2

[protocol.plain]
ask = "Question: {question}"

[dataset.pool]
kind = "arithmetic"

[stage.base]
kind = "train"
steps = 10

[stage.answers]
kind = "generate"
each = "round"
model = { previous = "evolve", first = "base" }
problems = "pool"
protocol = "plain"
temperature = { by-round = [1.0, 0.5] }

[stage.evolve]
kind = "train"
each = "round"
model = "base.model"
data = ["answers", { from = "rounds.answers", repeat = 3 }]
steps = 20
batch = 8

[stage.final]
kind = "train"
data = ["rounds.answers", "round1.answers.dialogues"]
model = "last.evolve"
steps = 5
"#;

#[test]
fn show() {
    let world = read(&[("a.toml", GOOD)], &[]);
    println!("{}", world.found.render(&world.sources, false));
    println!("{:#?}", world.parsed);
    println!("{}", world.arms[0].resolved_toml(&world.sources));
    println!("{}", world.arms[0].resolved_json(&world.sources));
    let bad = r#"
rekindle = 1
name = "bad"
rounds = 2
seeds = 7

[protocol.plain]
asks = "Question: {question}"

[dataset.pool]
kind = "aritmetic"
count = "many"

[stage.base]
kind = "train"
start = "restrat"
rate = -1

[stage.answers]
kind = "generate"
each = "round"
model = { previous = "evolv", first = "bas" }
problems = "pool"
protocol = "plan"
temprature = { by-round = [1.0] }
annotator = { kind = "golden" }

[stage.other]
kind = "generate"
model = 3
problems = "answers"
protocol = ["x"]
broken = = 3

[stage.last]
kind = "train"
data = "pool"
steps = 1979-05-27

[report]
models = [ { label = "r{round}", scores = "answers" }, { label = "x", scores = "base", control = "r3" } ]
[[compare]]
a = "x"
b = "x"
"#;
    let world = read(&[("a.toml", bad)], &[]);
    println!("{}", world.found.render(&world.sources, false));
    println!("{}", serde_json::to_string_pretty(&schema(&language())).unwrap());
}
