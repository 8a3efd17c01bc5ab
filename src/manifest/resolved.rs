//! An arm as one plain manifest: every value as it came out of `extends`,
//! `--set`, sweep and rounds, each with the place it came from.

use crate::base::{
    node::{Entry, Node, Origin, Sources, Table, Value},
    text,
};
use crate::manifest::{Arm, Declared};

impl Arm {
    /// The node at a path: `seed`, `protocol.arithmetic.stop`, `stage.train.steps`
    /// as written, or a step's full name and field, `round2.answers.data.0`.
    pub fn node(&self, path: &str) -> Option<&Node> {
        for step in &self.steps {
            let Some(rest) = path.strip_prefix(step.name.as_str()) else { continue };
            match rest.strip_prefix('.') {
                Some(rest) => return step.table.at(rest.split('.')),
                None if rest.is_empty() => return Some(&step.table),
                None => {}
            }
        }
        self.root.at(path.split('.'))
    }

    /// Where the value at a path came from: ``quick.toml:12:8 via sweep axis
    /// `seed` ``; `None` when nobody gave it, so that its default holds.
    pub fn origin_of(&self, path: &str, sources: &Sources) -> Option<String> {
        self.node(path).map(|node| sources.describe(&node.origin))
    }

    /// Every value of the arm in order: path, value, and where it came from.
    pub fn leaves(&self, sources: &Sources) -> Vec<(String, Node, String)> {
        let mut out = Vec::new();
        for (title, _, node) in self.tables() {
            let mut leaves = Vec::new();
            flatten(&node, String::new(), &mut leaves);
            for (path, leaf) in leaves {
                let path = if title.is_empty() { path } else { format!("{title}.{path}") };
                let origin = sources.describe(&leaf.origin);
                out.push((path, leaf, origin));
            }
        }
        out
    }

    /// The arm as TOML; every line ends in a comment that says where it came from.
    pub fn resolved_toml(&self, sources: &Sources) -> String {
        let mut out = String::new();
        for (title, step, node) in self.tables() {
            if !title.is_empty() {
                out.push_str(if out.is_empty() { "" } else { "\n" });
                let parts: Vec<String> = match step {
                    Some(step) => vec![step.section.to_owned(), key(&step.name)],
                    None => title.split('.').map(key).collect(),
                };
                out.push_str(&format!("[{}]\n", parts.join(".")));
            }
            let mut rows = Vec::new();
            if let Some(step) = step {
                let origin = Origin { span: step.kind.1.clone(), via: Vec::new() };
                rows.push((format!("kind = {}", quoted(&step.kind.0)), sources.describe(&origin)));
            }
            let mut leaves = Vec::new();
            flatten(&node, String::new(), &mut leaves);
            for (path, leaf) in leaves {
                let path: Vec<String> = path.split('.').map(key).collect();
                let row = format!("{} = {}", path.join("."), toml(&leaf));
                rows.push((row, sources.describe(&leaf.origin)));
            }
            let rows: Vec<Vec<String>> =
                rows.into_iter().map(|(row, origin)| vec![row, format!("# {origin}")]).collect();
            out.push_str(&text::columns(&rows, &[]));
        }
        out
    }

    /// The arm as JSON: path to `{ value, origin }`.
    pub fn resolved_json(&self, sources: &Sources) -> serde_json::Value {
        let one = |(path, node, origin): (String, Node, String)| {
            (path, serde_json::json!({ "value": node.json(), "origin": origin }))
        };
        self.leaves(sources).into_iter().map(one).collect()
    }

    /// Title, step and table of everything but sweep and extends: the head
    /// (without title), other sections, then the steps.
    fn tables(&self) -> Vec<(String, Option<&Declared>, Node)> {
        let root = self.root.table().map(|table| table.in_order()).unwrap_or_default();
        let (heads, sections): (Vec<_>, Vec<_>) =
            root.into_iter().partition(|(_, entry)| entry.node.table().is_none());
        let mut head = Table::default();
        for (name, entry) in heads {
            head.insert(name, entry.key.clone(), entry.node.clone());
        }
        let head = Node::new(self.root.origin.clone(), Value::Table(head));
        let mut tables = vec![(String::new(), None, head)];
        for (name, entry) in sections {
            match name {
                "sweep" | "dataset" | "stage" => {}
                "report" => tables.push((name.to_owned(), None, entry.node.clone())),
                _ => {
                    let named =
                        entry.node.table().map(|table| table.in_order()).unwrap_or_default();
                    let one = |(inner, entry): (&str, &Entry)| {
                        (format!("{name}.{inner}"), None, entry.node.clone())
                    };
                    tables.extend(named.into_iter().map(one));
                }
            }
        }
        tables.extend(
            self.steps.iter().map(|step| (step.name.clone(), Some(step), step.table.clone())),
        );
        tables
    }
}

/// All leaves below a node; lists and tables inside lists are leaves.
fn flatten(node: &Node, path: String, out: &mut Vec<(String, Node)>) {
    let Some(table) = node.table() else {
        out.push((path, node.clone()));
        return;
    };
    if table.is_empty() && !path.is_empty() {
        out.push((path.clone(), node.clone()));
    }
    for (key, entry) in table.in_order() {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        flatten(&entry.node, path, out);
    }
}

/// A key, in quotes where it must be.
fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quoted(name) }
}

/// A value as TOML on one line.
fn toml(node: &Node) -> String {
    match &node.value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}").to_lowercase(),
        Value::Text(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let one =
                |(name, entry): &(&str, &Entry)| format!("{} = {}", key(name), toml(&entry.node));
            let items: Vec<String> = table.in_order().iter().map(one).collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

/// A basic string; JSON's escapes are TOML's, but for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
