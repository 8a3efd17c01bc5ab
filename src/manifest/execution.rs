//! How steps are run: what any step may say of it beside the fields of its
//! kind, and what a manifest may say of the machine. None of this is part of an
//! identity: it changes when and where a step runs, never what comes of it.
//!
//! Knows no machine: what there really is, and what becomes of a step that
//! wants more, is for the floors above to say.

use crate::base::{
    diag::Diagnostic,
    node::{Node, Origin, Table, Value},
    quantity::{Bytes, Span},
    spec::{Encoder, Field, Reading, Spec as _, spec},
};
use serde_json::{Value as Json, json};
use std::{str::FromStr, sync::LazyLock, time::Duration};

spec! {
    /// What a step needs of the machine while it runs.
    pub struct Needs {
        /// Cores that it keeps busy; it starts when so many are not spoken for. Without a number it
        /// takes its share of those that others have not asked for.
        #[exec]
        cpus: Option<u64>,
        /// Memory that it needs, such as `"4GiB"`; it starts when so much is not spoken for. Without
        /// it a training on the CPU counts with what its model can need at most, other steps with
        /// nothing.
        #[exec]
        memory: Option<Bytes>,
        /// Graphics cards that it has for itself. A program learns which from `CUDA_VISIBLE_DEVICES`
        /// and `REKINDLE_DEVICES`. Without a number a step that computes on a CUDA card has that
        /// card for itself, and 0 lets it share.
        #[exec]
        devices: Option<u64>,
    }
}

spec! {
    /// How a step is run.
    pub struct Execution {
        /// What it needs of the machine while it runs: it waits until that is free.
        #[exec]
        resources: Needs = NOTHING,
        /// How often it is tried again after a failure that may pass by itself: a server that does
        /// not answer, a program that ends with status 75. The pauses grow from seconds to minutes.
        #[exec]
        retries: u64 = 0,
        /// The longest that one try may take, such as `"2h"`; 0 is no limit. A step of the engine is asked to save
        /// what it has, and its process is killed if it does not; a program is killed. Both count as
        /// a failure, and another run goes on from what was saved.
        #[exec]
        timeout: Option<Span>,
        /// After how long without a sign of life, be it progress or output, that is said. It goes on
        /// all the same.
        #[exec]
        silence: Span = SILENCE,
        /// Whether it runs in a process of its own, which no crash of it leaves. Without a word,
        /// steps on a graphics card and those with a `timeout` do. A `command` always does.
        #[exec]
        isolate: Option<bool>,
    }
}

spec! {
    /// What steps may take of the machine, all together; what is not said is looked up. Options of
    /// the command line come before it.
    pub struct Machine {
        /// Cores.
        #[exec]
        cpus: Option<u64>,
        /// Memory, such as `"16GiB"`.
        #[exec]
        memory: Option<Bytes>,
        /// Graphics cards: how many, or a list of their numbers or names as in
        /// `CUDA_VISIBLE_DEVICES`.
        #[exec]
        devices: Option<Devices>,
    }
}

/// How long a step may be silent before that is said.
const SILENCE: Span = Span(600.0);

/// What a step needs that says nothing.
const NOTHING: Needs = Needs { cpus: None, memory: None, devices: None };

/// Names of graphics cards, such as `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(pub Vec<String>);

const DEVICES: &str = "a number of cards, or a list of their numbers or names";
/// More cards than this in one machine are taken for a slip.
const MOST_DEVICES: u64 = 1024;

impl Devices {
    fn named(names: Vec<String>) -> Result<Devices, String> {
        let odd = |name: &&String| {
            name.is_empty() || name.contains(|c: char| c == ',' || c.is_whitespace())
        };
        if let Some(odd) = names.iter().find(odd) {
            return Err(format!("`{odd}` cannot be the name of a card"));
        }
        let twice = |name: &&String| names.iter().filter(|other| other == name).count() > 1;
        match names.iter().find(twice) {
            Some(twice) => Err(format!("card `{twice}` is named twice")),
            None => Ok(Devices(names)),
        }
    }
}

impl FromStr for Devices {
    type Err = String;

    /// `0,2` or `none`.
    fn from_str(text: &str) -> Result<Devices, String> {
        match text.trim() {
            "none" => Ok(Devices(Vec::new())),
            text => Devices::named(text.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }
}

impl Field for Devices {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Devices> {
        let name = |item: &Node| match &item.value {
            Value::Int(number) if *number >= 0 => Some(number.to_string()),
            Value::Text(name) => Some(name.to_string()),
            _ => None,
        };
        let names: Option<Vec<String>> = match &node.value {
            Value::Int(count) => u64::try_from(*count)
                .ok()
                .filter(|count| *count <= MOST_DEVICES)
                .map(|count| (0..count).map(|number| number.to_string()).collect()),
            Value::Array(items) => items.iter().map(name).collect(),
            _ => None,
        };
        let Some(names) = names else {
            cx.mismatch(node, DEVICES);
            return None;
        };
        let devices = Devices::named(names);
        if let Err(message) = &devices {
            cx.push(Diagnostic::error(format!("`{}`: {message}", cx.path())).at(&node.origin));
        }
        devices.ok()
    }

    fn encode(&self, out: &mut Encoder) {
        out.text(&self.0.join(","));
    }

    fn schema() -> Json {
        let one = json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }] });
        json!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": MOST_DEVICES },
            { "type": "array", "items": one },
        ] })
    }

    fn type_name() -> String {
        DEVICES.to_owned()
    }

    fn json(&self) -> Json {
        self.0.clone().into()
    }
}

impl Execution {
    /// The longest that one try may take; 0 is no limit.
    pub fn limit(&self) -> Option<Duration> {
        self.timeout.filter(|span| span.0 > 0.0).map(Span::duration)
    }
}

impl Default for Execution {
    fn default() -> Execution {
        Execution { resources: NOTHING, retries: 0, timeout: None, silence: SILENCE, isolate: None }
    }
}

/// Names of the fields that any step may have beside those of its kind.
pub fn shared_fields() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| Execution::fields().into_iter().map(|field| field.name).collect());
    &NAMES
}

/// Takes what says how a step is run out of its table.
pub(super) fn take(table: &mut Table, origin: &Origin) -> Option<Node> {
    let mut taken: Option<Table> = None;
    for name in shared_fields() {
        if let Some(entry) = table.remove(name) {
            taken.get_or_insert_default().insert(name.as_str(), entry.key, entry.node);
        }
    }
    taken.map(|table| Node::new(origin.clone(), Value::Table(table)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_named_once() {
        let names = |text: &str| text.parse::<Devices>().map(|devices| devices.0);
        assert_eq!(names("0, GPU-7"), Ok(vec!["0".to_owned(), "GPU-7".to_owned()]));
        assert_eq!(names("none"), Ok(Vec::new()));
        for wrong in ["", "0,,1", "1,1", "a b"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
        assert!(Execution::default().identity().is_empty());
    }
}
