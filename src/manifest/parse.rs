//! TOML text to nodes: everything that can be read is read, and every mistake
//! of syntax is told. The only file that names the TOML reader.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Entry, Node, Origin, SourceId, Sources, Table, Value},
};
use crate::manifest::plain;
use std::sync::Arc;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

/// Reads a source that was added to `sources`. The flag says whether the tree
/// is whole, that is, whether there was no mistake of syntax.
pub(crate) fn parse(id: SourceId, sources: &Sources, found: &mut Diagnostics) -> (Node, bool) {
    let (_, text) = sources.get(id);
    if let Some(table) = plain::read(id, text) {
        return (Node::new(Origin::new(id, 0..0), Value::Table(table)), true);
    }
    whole(id, sources, found)
}

/// Reads any source, with its mistakes.
pub(crate) fn whole(id: SourceId, sources: &Sources, found: &mut Diagnostics) -> (Node, bool) {
    let (_, text) = sources.get(id);
    let (tree, errors) = DeTable::parse_recoverable(text);
    // What follows on the same line is mostly the first mistake's echo.
    let mut last_line = None;
    for error in &errors {
        let diagnostic = syntax(id, text.len(), error);
        let line = diagnostic.labels.first().map(|(span, _)| sources.place(span).line);
        if line != last_line {
            found.push(diagnostic);
        }
        last_line = line;
    }
    let origin = Origin::new(id, 0..0);
    let table = table(id, tree.into_inner(), found);
    (Node::new(origin, Value::Table(table)), errors.is_empty())
}

/// Reads `path=value` of a command line: the value is TOML, or else a string.
pub(crate) fn assignment(
    id: SourceId,
    sources: &Sources,
    found: &mut Diagnostics,
) -> Option<(Vec<String>, Node)> {
    let (_, text) = sources.get(id);
    let whole = Origin::new(id, 0..text.len());
    let Some((keys, start)) = keys(text) else {
        let message = "`--set` wants `path=value`, such as `stage.train.steps=100`";
        found.push(Diagnostic::error(message).at(&whole));
        return None;
    };
    let Ok(tree) = DeTable::parse(text) else {
        let origin = Origin::new(id, start..text.len());
        return Some((keys, Node::new(origin, Value::Text(text[start..].into()))));
    };
    let root = Node::new(whole, Value::Table(table(id, tree.into_inner(), found)));
    let value = root.at(keys.iter().map(String::as_str))?.clone();
    Some((keys, value))
}

/// The keys of the path in `path=value`, and where the value starts.
fn keys(text: &str) -> Option<(Vec<String>, usize)> {
    let (path, _) = text.split_once('=')?;
    let probe = format!("{path} = 0");
    let tree = DeTable::parse(&probe).ok()?;
    let mut keys = Vec::new();
    let mut table = tree.get_ref();
    while let Some((key, value)) = table.iter().next() {
        keys.push(key.get_ref().to_string());
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    Some((keys, path.len() + 1))
}

fn syntax(id: SourceId, length: usize, error: &Error) -> Diagnostic {
    let range = error.span().unwrap_or(length..length);
    let message = error.message().trim().replace('\n', ", ");
    Diagnostic::error(message).at(&Origin::new(id, range))
}

fn table(id: SourceId, table: DeTable<'_>, found: &mut Diagnostics) -> Table {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut out = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let Some(node) = node(id, value, found) {
            let entry = Entry { key: Origin::new(id, key.span()), node };
            out.push((Arc::from(&*key.into_inner()), entry));
        }
    }
    Table::of(out).expect("the reader of TOML gives each key once")
}

fn node(id: SourceId, value: Spanned<DeValue<'_>>, found: &mut Diagnostics) -> Option<Node> {
    let origin = Origin::new(id, value.span());
    let value = match value.into_inner() {
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::String(text) => Value::Text(text.into_owned().into()),
        DeValue::Integer(int) => match i64::from_str_radix(int.as_str(), int.radix()) {
            Ok(int) => Value::Int(int),
            Err(_) => return refuse("this whole number does not fit into 64 bits", &origin, found),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Value::Float(float),
            Err(_) => return refuse("this is no number", &origin, found),
        },
        DeValue::Datetime(_) => return refuse("dates have no meaning here", &origin, found),
        DeValue::Array(items) => {
            let items = items.into_iter().filter_map(|item| node(id, item, found)).collect();
            Value::Array(Arc::new(items))
        }
        DeValue::Table(inner) => Value::Table(table(id, inner, found)),
    };
    Some(Node::new(origin, value))
}

fn refuse(message: &str, origin: &Origin, found: &mut Diagnostics) -> Option<Node> {
    found.push(Diagnostic::error(message).at(origin));
    None
}
