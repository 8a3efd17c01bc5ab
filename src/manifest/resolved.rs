//! An arm as one plain manifest: every value as it came out of `extends`,
//! `--set`, sweep and rounds, each with the place it came from.

use crate::base::{
    node::{Entry, Node, Sources, Table, Value},
    text,
};
use crate::manifest::Arm;

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

    /// The arm as a manifest of its own, which gives the same steps: rounds
    /// stay folded, the sweep is gone, and so is what compares its arms.
    /// Every value has a comment that says where it came from. An arm of a
    /// sweep gets a folder for its results, as the sweep's is not its own.
    pub fn resolved_toml(&self, sources: &Sources, results: Option<&str>) -> String {
        let mut out = String::new();
        for (heading, node) in self.sections() {
            if !heading.is_empty() {
                out.push_str(if out.is_empty() { "" } else { "\n" });
                out.push_str(&format!("{heading}\n"));
            }
            let mut leaves = Vec::new();
            flatten(&node, String::new(), &mut leaves);
            let own = results.filter(|_| heading.is_empty());
            let mut rows: Vec<_> = leaves
                .into_iter()
                .filter(|(path, _)| own.is_none() || path != "results")
                .map(|(path, leaf)| {
                    let path: Vec<String> = path.split('.').map(key).collect();
                    let row = format!("{} = {}", path.join("."), toml(&leaf));
                    (row, sources.describe(&leaf.origin))
                })
                .collect();
            rows.extend(
                own.map(|own| (format!("results = {}", quoted(own)), "of this arm".to_owned())),
            );
            out.push_str(&commented(&rows));
        }
        out
    }

    /// Headings and what stands below them: the head, the tables, and the
    /// lists of tables.
    fn sections(&self) -> Vec<(String, Node)> {
        let root = self.root.table().into_iter().flat_map(Table::in_order);
        let mut head = Table::default();
        let (mut tables, mut lists) = (Vec::new(), Vec::new());
        for (name, entry) in root {
            match (name, &entry.node.value) {
                ("sweep" | "extends", _) => {}
                ("report" | "resources", Value::Table(_)) => {
                    tables.push((format!("[{name}]"), entry.node.clone()));
                }
                (_, Value::Table(named)) => {
                    let heading = |inner: &str| format!("[{}.{}]", key(name), key(inner));
                    let named = named.in_order();
                    tables.extend(named.map(|(inner, one)| (heading(inner), one.node.clone())));
                }
                (_, Value::Array(items)) if is_list_of_tables(items) => {
                    let across =
                        |one: &Node| one.at(["a-arm"]).is_some() || one.at(["b-arm"]).is_some();
                    let kept = items.iter().filter(|one| !across(one));
                    lists.extend(kept.map(|one| (format!("[[{}]]", key(name)), one.clone())));
                }
                _ => head.insert(name, entry.key.clone(), entry.node.clone()),
            }
        }
        let head = Node::new(self.root.origin.clone(), Value::Table(head));
        let mut sections = vec![(String::new(), head)];
        sections.extend(tables);
        sections.extend(lists);
        sections
    }
}

fn is_list_of_tables(items: &[Node]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.table().is_some())
}

/// Rows with their comments in one column; the comment of a long row stands
/// above it.
fn commented(rows: &[(String, String)]) -> String {
    const LONG: usize = 72;
    let mut out = String::new();
    let long = |row: &str| row.contains('\n') || row.chars().count() > LONG;
    for run in rows.chunk_by(|a, b| long(&a.0) == long(&b.0)) {
        if long(&run[0].0) {
            out.extend(run.iter().map(|(row, origin)| format!("# {origin}\n{row}\n")));
        } else {
            let cells: Vec<_> =
                run.iter().map(|(row, origin)| vec![row.clone(), format!("# {origin}")]).collect();
            out.push_str(&text::columns(&cells, &[]));
        }
    }
    out
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
        // Each on a line of its own, as nobody can read them in one.
        Value::Array(items) if is_list_of_tables(items) && items.len() > 1 => {
            let lines = items.iter().map(|item| format!("  {},\n", toml(item)));
            format!("[\n{}]", lines.collect::<String>())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let one =
                |(name, entry): (&str, &Entry)| format!("{} = {}", key(name), toml(&entry.node));
            let items: Vec<String> = table.in_order().map(one).collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

/// A basic string; JSON's escapes are TOML's, but for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
