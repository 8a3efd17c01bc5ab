//! Tests of the language through a small table of kinds, the way the floors
//! above use it: text, arms, typed steps. Mistakes are in `mistakes`.

mod mistakes;

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
fn rounds_unfold_and_references_mean_their_round() {
    let world = read(&[("a.toml", GOOD)], &[]);
    assert_eq!(world.found.render(&world.sources, false), "");
    let arm = &world.arms[0];
    let names: Vec<&str> = arm.steps.iter().map(|step| step.name.as_str()).collect();
    let expected = [
        "pool",
        "base",
        "round1.answers",
        "round1.evolve",
        "round2.answers",
        "round2.evolve",
        "final",
    ];
    assert_eq!(names, expected);
    let inputs = |step: &str| -> Vec<(String, String)> {
        let inputs = world.parsed[0][step].inputs.iter();
        inputs.map(|input| (input.role.clone(), input.reference.clone())).collect()
    };
    let pair = |role: &str, reference: &str| (role.to_owned(), reference.to_owned());
    assert_eq!(inputs("round1.answers"), [pair("model", "base"), pair("problems", "pool")]);
    assert_eq!(inputs("round2.answers")[0], pair("model", "round1.evolve"));
    let expected = [
        pair("model", "base.model"),
        pair("data.0", "round2.answers"),
        pair("data.1", "round1.answers"),
        pair("data.2", "round2.answers"),
    ];
    assert_eq!(inputs("round2.evolve"), expected);
    assert_eq!(inputs("final")[0], pair("model", "round2.evolve"));
}

#[test]
fn identity_holds_what_differs_from_defaults_and_the_content_of_shared_tables() {
    let world = read(&[("a.toml", GOOD)], &[]);
    let identity = |step: &str| world.parsed[0][step].identity.as_str();
    // 0.7 is the default, 1.0 is not; the name `plain` does not count, `batch` neither.
    let expected = "model = <input>\nproblems = <input>\n\
        protocol.ask = \"Question: {question}\"\ntemperature = 1.0\n";
    assert_eq!(identity("round1.answers"), expected);
    let expected = "data.0.from = <input>\ndata.1.from = <input>\ndata.1.repeat = 3\n\
        model = <input>\nsteps = 20\n";
    assert_eq!(identity("round1.evolve"), expected);
    let integer = read(&[("a.toml", GOOD)], &["stage.answers.temperature=1"]);
    assert_eq!(integer.parsed[0]["round1.answers"].identity, identity("round1.answers"));
}

#[test]
fn every_value_knows_where_it_came_from() {
    let base = format!("{HEAD}[stage.t]\nkind = \"train\"\nsteps = 5\nrate = 0.5\n");
    let own = "extends = \"base.toml\"\n[stage.t]\nsteps = 6\n[sweep.axes]\nseed = [3, 4]\n";
    let files = [("a.toml", own), ("base.toml", base.as_str())];
    let world = read(&files, &["stage.t.start=continual"]);
    assert_eq!(world.found.render(&world.sources, false), "");
    let arm = &world.arms[1];
    assert_eq!((arm.label().as_str(), arm.seed.0), ("seed=4", 4));
    let origin = |path: &str| arm.origin_of(path, &world.sources).unwrap_or_default();
    assert_eq!(origin("t.steps"), "a.toml:3:9");
    assert_eq!(origin("t.rate"), "base.toml:7:8 via extends base.toml");
    assert_eq!(origin("t.start"), "--set stage.t.start=continual");
    assert_eq!(origin("seed"), "a.toml:5:12 via sweep axis `seed`");
    assert_eq!(arm.origin_of("t.batch", &world.sources), None);
    let expected = "\
rekindle = 1  # base.toml:1:12 via extends base.toml
name = \"x\"    # base.toml:2:8 via extends base.toml
rounds = 2    # base.toml:3:10 via extends base.toml
seed = 4      # a.toml:5:12 via sweep axis `seed`

[stage.t]
kind = \"train\"       # base.toml:5:8 via extends base.toml
steps = 6            # a.toml:3:9
rate = 0.5           # base.toml:7:8 via extends base.toml
start = \"continual\"  # --set stage.t.start=continual
";
    assert_eq!(arm.resolved_toml(&world.sources, None), expected);
}

#[test]
fn arms_are_products_with_zip_exclude_and_include() {
    let text = format!(
        "{HEAD}[stage.t]\nkind = \"train\"\nsteps = 5\n[stage.u]\nkind = \"train\"\nsteps = 5\n\
         [sweep]\nzip = [[\"seed\", \"steps\"]]\nexclude = [{{ seed = 1, how = \"b\" }}]\n\
         include = [{{ seed = 1, steps = 20, how = \"a\" }}, {{ seed = 1, steps = 10, how = \"a\" }}]\n\
         [sweep.axes]\nseed = [1, 2]\n\
         steps = {{ paths = [\"stage.t.steps\", \"stage.u.steps\"], values = [10, 20] }}\n\
         how = [{{ label = \"a\", set = {{ \"stage.t.rate\" = 0.1 }} }}, \
         {{ label = \"b\", set = {{ stage.t.start = \"continual\" }} }}]\n"
    );
    let world = read(&[("a.toml", &text)], &[]);
    assert_eq!(world.found.render(&world.sources, false), "");
    let labels: Vec<String> = world.arms.iter().map(Arm::label).collect();
    let expected = [
        "seed=1, steps=10, how=a",
        "seed=2, steps=20, how=a",
        "seed=2, steps=20, how=b",
        "seed=1, steps=20, how=a",
    ];
    assert_eq!(labels, expected);
    assert_eq!(world.parsed[0]["t"].identity, "rate = 0.1\nsteps = 10\n");
    assert_eq!(world.parsed[2]["t"].identity, "start = \"continual\"\nsteps = 20\n");
    assert_eq!(world.parsed[2]["u"].identity, "steps = 20\n");
}

#[test]
fn a_report_row_with_round_stands_for_every_round() {
    let text = format!(
        "{GOOD}[report]\nmodels = [{{ label = \"round {{round}}\", scores = \"evolve.scores\", \
         control = \"final\" }}, {{ label = \"final\", scores = \"final.scores\" }}]\n\
         [[target]]\nsubject = \"round 2\"\npaper = 0.5\nsource-confidence = \"recalled\"\n\
         accept = {{ abs = 0.1 }}\n"
    );
    let world = read(&[("a.toml", &text)], &[]);
    assert_eq!(world.found.render(&world.sources, false), "");
    let mut cx = world.arms[0].reading();
    let findings = world.arms[0].findings(&mut cx);
    let models = findings.report.expect("a report").models;
    let rows: Vec<_> = models
        .iter()
        .map(|model| (model.label.as_str(), model.scores.reference.as_str(), model.round))
        .collect();
    let expected = [
        ("round 1", "round1.evolve.scores", Some(1)),
        ("round 2", "round2.evolve.scores", Some(2)),
        ("final", "final.scores", None),
    ];
    assert_eq!(rows, expected);
    assert_eq!(findings.target[0].mode, "direct");
}

#[test]
fn ten_thousand_steps_unfold() {
    let seeds: Vec<String> = (0..1000).map(|seed| seed.to_string()).collect();
    let mut text = format!("{HEAD}[sweep.axes]\nseed = [{}]\n", seeds.join(", "));
    for i in 0..10 {
        text.push_str(&format!("[stage.t{i}]\nkind = \"train\"\nsteps = {i}\nrate = 0.1\n"));
    }
    let loader = |_: &str| Ok(text.clone());
    let (manifest, _, found) = Manifest::read(&loader, "a.toml", &[], &language());
    assert!(found.is_empty());
    let (arms, found) = manifest.expect("it was loaded").expand(&language());
    assert!(found.is_empty());
    assert_eq!(arms.iter().map(|arm| arm.steps.len()).sum::<usize>(), 10_000);
}

#[test]
fn schema_offers_every_kind_and_refuses_other_keys() {
    let schema = schema(&language());
    let kinds = schema["properties"]["stage"]["additionalProperties"]["oneOf"].as_array();
    let names: Vec<_> = kinds
        .into_iter()
        .flatten()
        .map(|kind| kind["properties"]["kind"]["const"].as_str())
        .collect();
    assert_eq!(names, [Some("train"), Some("generate")]);
    let train = &schema["properties"]["stage"]["additionalProperties"]["oneOf"][0];
    assert_eq!(train["additionalProperties"], false);
    assert_eq!(train["properties"]["start"]["default"], "restart");
    assert_eq!(train["properties"]["start"]["description"], "Where to start.");
    assert_eq!(schema["properties"]["rekindle"]["const"], 1);
}
