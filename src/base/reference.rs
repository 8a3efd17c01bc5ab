//! References from one step to another step's output, and the names they may
//! use: `base.model`, in rounds `evolve.model`, `{ previous, first }`, and
//! from outside `round2.evolve.model`, `last.evolve.model`, `rounds.evolve.log`.
//!
//! Whether the output exists and has the right kind is the plan's to say.

use crate::base::{
    artifact::{ArtifactKind, Marker},
    diag::Diagnostic,
    encode::Encoder,
    node::{Node, Origin, Value},
    reading::Reading,
    spec::Field,
    text,
};
use std::{collections::BTreeMap, marker::PhantomData};

/// The steps that references may name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Number of rounds.
    pub rounds: u32,
    /// Every step as declared, and whether it runs in each round.
    pub steps: BTreeMap<String, bool>,
}

/// What a step needs from another one.
#[derive(Clone, Debug)]
pub struct InputRef {
    /// The field it was read from, such as `model` or `data.0`.
    pub role: String,
    /// The step, and the output unless it has only one: `round2.evolve.model`.
    pub reference: String,
    /// What it must be.
    pub want: ArtifactKind,
    /// Where it was written.
    pub origin: Origin,
}

/// A reference to an artifact of kind `K`, resolved to a step's full name.
#[derive(Clone, Debug)]
pub struct Ref<K> {
    /// The field it was read from.
    pub role: String,
    /// The step, and the output unless it has only one.
    pub reference: String,
    /// Where it was written.
    pub origin: Origin,
    kind: PhantomData<K>,
}

impl<K> PartialEq for Ref<K> {
    fn eq(&self, other: &Ref<K>) -> bool {
        self.role == other.role && self.reference == other.reference
    }
}

impl<K: Marker> Field for Ref<K> {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Ref<K>> {
        let reference = match &node.value {
            Value::Text(text) => resolve(text, node, cx.round(), cx)?,
            Value::Table(_) => previous(node, cx)?,
            _ => {
                cx.mismatch(node, &Self::type_name());
                return None;
            }
        };
        let (role, origin) = (cx.role(), node.origin.clone());
        Some(Ref { role, reference, origin, kind: PhantomData })
    }

    fn encode(&self, out: &mut Encoder) {
        out.line("<input>");
    }

    fn schema() -> serde_json::Value {
        let text = serde_json::json!({
            "type": "string",
            "description": format!("{}, as `step` or `step.output`", Self::type_name()),
        });
        let previous = serde_json::json!({ "$ref": "#/$defs/previous" });
        serde_json::json!({ "anyOf": [text, previous] })
    }

    fn type_name() -> String {
        format!("a reference to {}", K::KIND.name())
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        let (reference, origin) = (self.reference.clone(), self.origin.clone());
        out.push(InputRef { role: role.to_owned(), reference, want: K::KIND, origin });
    }

    fn json(&self) -> serde_json::Value {
        self.reference.as_str().into()
    }

    fn spread(node: &Node, cx: &Reading) -> Option<Vec<Node>> {
        let rest = node.text()?.strip_prefix("rounds.")?;
        let rounds = cx.round().or(cx.names().map(|names| names.rounds))?;
        let one = |round| Value::Text(format!("round{round}.{rest}").into());
        Some((1..=rounds).map(|round| Node::new(node.origin.clone(), one(round))).collect())
    }
}

/// The full name that `text` stands for in `round`.
fn resolve(text: &str, node: &Node, round: Option<u32>, cx: &mut Reading) -> Option<String> {
    let Some(names) = cx.names() else { return Some(text.to_owned()) };
    let (head, rest) = text.split_once('.').unwrap_or((text, ""));
    let mistake = match head {
        "last" if names.rounds == 0 => no_rounds(),
        "last" => return each(rest, names.rounds, node, cx),
        "rounds" => Diagnostic::error(format!("`{text}` is a list, but `{}` takes one", cx.path()))
            .hint(format!("one of them is `last.{rest}` or `round1.{rest}`")),
        _ => match (round_number(head), names.steps.get(head), round) {
            (Some(n), _, _) if n == 0 || n > names.rounds => {
                Diagnostic::error(format!("there is no `{head}`")).hint(match names.rounds {
                    0 => "`rounds` is 0".to_owned(),
                    n => format!("`rounds` is {n}: `round1` to `round{n}`"),
                })
            }
            (Some(n), _, _) => return each(rest, n, node, cx),
            (None, Some(true), Some(round)) => return Some(format!("round{round}.{text}")),
            (None, Some(true), None) => {
                let message = format!("`{head}` runs once in each round; say which one is meant");
                Diagnostic::error(message)
                    .hint(format!("`last.{text}`, `round1.{text}`, or in a list `rounds.{text}`"))
            }
            (None, Some(false), _) => return Some(text.to_owned()),
            (None, None, _) => return unknown(head, node, cx),
        },
    };
    cx.push(mistake.at(&node.origin));
    None
}

/// The full name of `rest` in a round, which must be of a step in rounds.
fn each(rest: &str, round: u32, node: &Node, cx: &mut Reading) -> Option<String> {
    let base = rest.split('.').next().unwrap_or_default();
    let steps = cx.names().map(|names| &names.steps);
    let mistake = match steps.and_then(|steps| steps.get(base)) {
        Some(true) => return Some(format!("round{round}.{rest}")),
        Some(false) => Diagnostic::error(format!("`{base}` runs only once, not in each round"))
            .hint(format!("say `{rest}`, or give `{base}` the line `each = \"round\"`")),
        None => return unknown(base, node, cx),
    };
    cx.push(mistake.at(&node.origin));
    None
}

/// `{ previous = "a", first = "b" }`: `a` of the round before, `b` in the first.
fn previous(node: &Node, cx: &mut Reading) -> Option<String> {
    let table = node.table()?;
    cx.refuse_unknown(table, &["previous", "first"]);
    let text = |key: &str, cx: &mut Reading| {
        let Some(value) = table.get(key) else {
            let message = format!("`{}` lacks `{key}`", cx.path());
            let hint = "`{ previous = \"a\", first = \"b\" }` is `a` of the round before, and `b` in round 1";
            cx.push(Diagnostic::error(message).at(&node.origin).hint(hint));
            return None;
        };
        if value.text().is_none() {
            cx.part(key, false, |cx| cx.mismatch(value, "a string"));
        }
        Some((value, value.text()?))
    };
    let (first, before) = (text("first", cx), text("previous", cx));
    let ((first_at, first), (before_at, before)) = (first?, before?);
    let Some(round) = cx.round() else {
        if cx.names().is_some() {
            let message = "`previous` has a meaning only in steps with `each = \"round\"`";
            let hint = format!("from outside say `last.{before}` or `round1.{before}`");
            cx.push(Diagnostic::error(message).at(&node.origin).hint(hint));
        }
        return None;
    };
    let earlier = match cx.names() {
        Some(_) => each(before, round.saturating_sub(1), before_at, cx),
        None => Some(format!("round{}.{before}", round.saturating_sub(1))),
    };
    match round {
        1 => resolve(first, first_at, Some(1), cx),
        _ => earlier,
    }
}

/// `round12` -> 12.
pub fn round_number(name: &str) -> Option<u32> {
    name.strip_prefix("round").filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn no_rounds() -> Diagnostic {
    Diagnostic::error("there is no last round").hint("`rounds` is 0")
}

fn unknown<T>(name: &str, node: &Node, cx: &mut Reading) -> Option<T> {
    let names = cx.names().into_iter().flat_map(|names| names.steps.keys().map(String::as_str));
    let hint = text::suggestion(name, "steps", names);
    let message = format!("there is no step `{name}`");
    cx.push_absent(Diagnostic::error(message).at(&node.origin).hint(hint));
    None
}
