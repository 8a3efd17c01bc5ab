//! What a step's table says in one round: `{round}` in strings becomes the
//! round's number, `{ by-round = [..] }` the round's element.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Table, Value},
    text,
};
use std::sync::Arc;

/// The round that a table is written for.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

/// The node as it is in `round`, `None` where that changes nothing.
pub(crate) fn in_round(node: &Node, round: Option<Round>, found: &mut Diagnostics) -> Option<Node> {
    let value = match &node.value {
        Value::Text(text) => {
            let number = round.filter(|_| text.contains("{round}"))?.number;
            Value::Text(text.replace("{round}", &number.to_string()).into())
        }
        Value::Array(items) => Value::Array(Arc::new(list(items, round, found)?)),
        Value::Table(table) => match table.get("by-round") {
            Some(values) => {
                let element = by_round(node, table, values, round, found)?;
                return Some(in_round(&element, round, found).unwrap_or(element));
            }
            None => Value::Table(self::table(table, round, found)?),
        },
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => return None,
    };
    Some(Node::new(node.origin.clone(), value))
}

fn list(items: &[Node], round: Option<Round>, found: &mut Diagnostics) -> Option<Vec<Node>> {
    let mut changed: Option<Vec<Node>> = None;
    for (i, item) in items.iter().enumerate() {
        if let Some(new) = in_round(item, round, found) {
            changed.get_or_insert_with(|| items.to_vec())[i] = new;
        }
    }
    changed
}

fn table(table: &Table, round: Option<Round>, found: &mut Diagnostics) -> Option<Table> {
    let mut changed: Option<Table> = None;
    for (key, entry) in table.iter() {
        if let Some(new) = in_round(&entry.node, round, found) {
            let table = changed.get_or_insert_with(|| table.clone());
            table.insert(key, entry.key.clone(), new);
        }
    }
    changed
}

fn by_round(
    node: &Node,
    table: &Table,
    values: &Node,
    round: Option<Round>,
    found: &mut Diagnostics,
) -> Option<Node> {
    let mut fail = |message: &str, hint: String| {
        let error = Diagnostic::error(message).at(&node.origin);
        found.push(if hint.is_empty() { error } else { error.hint(hint) });
    };
    let Some(items) = values.array().filter(|_| table.len() == 1) else {
        let message =
            "`by-round` wants a list of values, one for each round, and no other key beside it";
        fail(message, String::new());
        return None;
    };
    let Some(round) = round else {
        fail("`by-round` has a meaning only in steps with `each = \"round\"`", String::new());
        return items.last().cloned();
    };
    if items.len() < round.of as usize {
        let have = text::plural(items.len() as u64, "value");
        let want = text::plural(u64::from(round.of), "round");
        fail(&format!("`by-round` has {have} for {want}"), "give one value for each round".into());
        // Go on with a value of the right type, so that nothing else is blamed.
        return items.last().cloned();
    }
    items.get(round.number as usize - 1).cloned()
}
