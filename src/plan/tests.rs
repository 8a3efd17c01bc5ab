//! Plans of a few lines, without stages or files.

use super::*;
use crate::{
    base::node::{Node, Sources, Table, Value},
    plan::{freshness::What, graph::Drawing},
};

/// `name: input input -> kind` makes a step with one output `out`.
fn step(text: &str) -> StepShape {
    let mut sources = Sources::default();
    let origin = Origin::new(sources.add("m.toml", text), 0..text.len());
    let (name, rest) = text.split_once(':').unwrap();
    let (inputs, output) = rest.split_once("->").unwrap_or((rest, "files"));
    let input = |(i, reference): (usize, &str)| InputRef {
        role: format!("data.{i}"),
        reference: reference.to_owned(),
        want: ArtifactKind::Files,
        origin: origin.clone(),
    };
    StepShape {
        name: name.to_owned(),
        base: name.to_owned(),
        round: None,
        section: "stage".to_owned(),
        kind: "test".to_owned(),
        version: 1,
        inputs: inputs.split_whitespace().enumerate().map(input).collect(),
        outputs: vec![(
            "out".to_owned(),
            if output.trim() == "model" { ArtifactKind::Model } else { ArtifactKind::Files },
        )],
        parameters: format!("name = \"{name}\"\n"),
        seed: None,
        numerics: None,
        table: Node::new(origin.clone(), Value::Table(Table::default())),
    }
}

fn arm(label: &str, steps: &[&str]) -> ArmShape {
    let coordinates = vec![("arm".to_owned(), label.to_owned())];
    ArmShape { coordinates, steps: steps.iter().map(|text| step(text)).collect() }
}

fn mistakes(steps: &[&str]) -> Vec<String> {
    let (_, found) = Plan::build("x", vec![arm("a", steps)]);
    found.sorted().iter().map(|one| format!("{} {}", one.message, one.hints.join(" "))).collect()
}

#[test]
fn steps_come_after_what_they_read_and_keep_the_order_of_declaration() {
    let (plan, found) = Plan::build("x", vec![arm("a", &["c: b.out", "b: a", "a:"])]);
    assert!(found.is_empty());
    let names: Vec<_> = plan.steps.iter().map(|step| step.title.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
    assert_eq!(plan.order, [2, 1, 0]);
    assert_eq!(plan.steps[2].dependents, [1]);
    assert_eq!(plan.steps[0].inputs[0].step, 1);
}

#[test]
fn equal_steps_of_arms_are_one() {
    let (plan, _) =
        Plan::build("x", vec![arm("a", &["s:", "t: s"]), arm("b", &["s:", "t: s", "u: t"])]);
    assert_eq!(plan.steps.len(), 3);
    assert_eq!(plan.find(0, "t"), plan.find(1, "t"));
    assert_eq!(plan.steps[0].logical, ["x/s{arm=a}", "x/s{arm=b}"]);
    let mut other = arm("b", &["s:", "t: s"]);
    other.steps[0].seed = Some(1);
    let (plan, _) = Plan::build("x", vec![arm("a", &["s:", "t: s"]), other]);
    let titles: Vec<_> = plan.steps.iter().map(|step| step.title.as_str()).collect();
    assert_eq!(titles, ["s{arm=a}", "t{arm=a}", "s{arm=b}", "t{arm=b}"]);
    assert_eq!(plan.matching("s").len(), 2);
    assert_eq!(plan.matching("s{arm=b}"), [2]);
}

#[test]
fn mistakes_are_named_with_both_ends() {
    let found = mistakes(&["m: -> model", "r: m"]);
    assert_eq!(found, ["`data.0` of `r` wants files, but `m` is model no step makes files"]);
    let found = mistakes(&["alpha:", "b: alpa.out", "c: alpha.uot"]);
    assert!(found[0].contains("no step of that name did you mean `alpha.out`?"), "{found:?}");
    assert!(
        found[1].contains("no output `uot`, only `out` did you mean `alpha.out`?"),
        "{found:?}"
    );
}

#[test]
fn a_cycle_is_named_once_and_in_full() {
    let found = mistakes(&["a: c", "b: a", "c: b", "d: a"]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("these steps wait for each other: `a` reads `c` reads `b` reads `a`"),
        "{found:?}"
    );
    assert!(mistakes(&["a: a"])[0].contains("`a` reads `a`"));
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let texts: Vec<String> = (0..20_000)
        .map(|i| if i == 0 { "s0:".to_owned() } else { format!("s{i}: s{}", i - 1) })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (plan, found) = Plan::build("x", vec![arm("a", &texts)]);
    assert!(found.is_empty());
    assert_eq!(plan.order.len(), 20_000);
}

#[test]
fn every_part_of_a_shape_is_in_the_key() {
    let base = step("s: a");
    let key = |shape: &StepShape| {
        identity::action_key(&identity::text(shape, std::iter::empty::<(String, String)>()))
    };
    let variants: [fn(&mut StepShape); 6] = [
        |s| s.kind = "other".to_owned(),
        |s| s.version = 2,
        |s| s.seed = Some(1),
        |s| s.numerics = Some("f32".to_owned()),
        |s| s.parameters = "name = \"t\"\n".to_owned(),
        |s| s.outputs[0].0 = "other".to_owned(),
    ];
    let mut keys: Vec<Digest> = variants
        .iter()
        .map(|change| {
            let mut shape = base.clone();
            change(&mut shape);
            key(&shape)
        })
        .collect();
    let mut renamed = base.clone();
    renamed.name = "elsewhere".to_owned();
    assert_eq!(key(&renamed), key(&base), "a name is no part of an identity");
    keys.push(key(&base));
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 7);
}

#[test]
fn a_golden_key_stays_as_it_is() {
    let digest = Digest::of_blob(b"x");
    let text = identity::text(&step("s: a"), [("data.0".to_owned(), digest)].into_iter());
    let expected = format!(
        "kind = \"test\"\nversion = 1\nwith.name = \"s\"\ninput.data.0 = {digest}\noutput.out = files\n"
    );
    assert_eq!(text, expected);
    assert_eq!(identity::action_key(&text).short(), "798ed0cfcdd5");
}

#[test]
fn changes_name_field_and_input() {
    let (plan, _) = Plan::build("x", vec![arm("a", &["s:", "t: s"])]);
    let old = "kind = \"test\"\nwith.rate = 1.0\ninput.data.0 = aa\nseed = 1\n";
    let new = "kind = \"test\"\nwith.rate = 2.0\ninput.data.0 = bb\nwith.new = 1\nseed = 2\n";
    let changes = freshness::changes(&plan, 1, old, new);
    let phrases: Vec<_> =
        changes.iter().map(|change| change.phrase(&|_| Some("0".to_owned()))).collect();
    assert_eq!(
        phrases,
        [
            "input `data.0` has other content (from `s`)",
            "seed 1 -> 2",
            "`new` 0 (default) -> 1",
            "`rate` 1.0 -> 2.0",
        ]
    );
    assert_eq!(changes[3].what, What::Field("rate".to_owned()));
}

#[test]
fn drawings_are_stable() {
    let (plan, _) = Plan::build("x", vec![arm("a", &["s:", "t: s"]), arm("b", &["s:", "t: s"])]);
    let mermaid = "flowchart TD\n  n0[\"s<br/>test\"]\n  n1[\"t<br/>test\"]\n  n0 -->|out| n1\n";
    assert_eq!(Drawing::folded(&plan).mermaid(), mermaid);
}
