//! A manifest's text and all that it extends, as one tree: deep merge of
//! tables, replacement of everything else, `--set` on top. Reads files only
//! through the loader it is given.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Origin, Sources, Value},
};
use crate::manifest::{Language, parse, sweep::Settable};
use std::sync::Arc;

/// Gives the text of a file, or says why it cannot.
pub(crate) type Loader<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// A tree in the making.
pub(crate) struct Gathering<'a> {
    /// Gives the text of a file.
    pub loader: &'a Loader<'a>,
    /// All texts read.
    pub sources: Sources,
    /// All mistakes.
    pub found: Diagnostics,
    /// Whether every text was free of mistakes of syntax.
    pub whole: bool,
}

impl Gathering<'_> {
    /// Reads a file and what it extends. `from` is the place that asked for it,
    /// `stack` the files that are being read.
    pub(crate) fn file(
        &mut self,
        name: &str,
        from: Option<&Origin>,
        stack: &mut Vec<String>,
    ) -> Option<Node> {
        if let Some(start) = stack.iter().position(|other| other == name) {
            let mut cycle = stack[start..].to_vec();
            cycle.push(name.to_owned());
            let message = format!("`extends` goes round in a circle: {}", cycle.join(" -> "));
            self.fail(message, from);
            return None;
        }
        let text = match (self.loader)(name) {
            Ok(text) => text,
            Err(reason) => {
                self.fail(format!("cannot read `{name}`: {reason}"), from);
                return None;
            }
        };
        let id = self.sources.add(name, text);
        let (mut own, whole) = parse::parse(id, &self.sources, &mut self.found);
        self.whole &= whole;
        let extends = own.table_mut().and_then(|table| table.remove("extends"));
        let Some(extends) = extends else { return Some(own) };
        stack.push(name.to_owned());
        let mut merged: Option<Node> = None;
        for (written, origin) in self.extended(&extends.node) {
            let base = self.file(&beside(name, &written), Some(&origin), stack);
            let Some(base) = base else { continue };
            let base = base.carried(&format!("extends {written}"));
            match &mut merged {
                Some(under) => lay(under, base),
                None => merged = Some(base),
            }
        }
        stack.pop();
        let Some(mut merged) = merged else { return Some(own) };
        lay(&mut merged, own);
        Some(merged)
    }

    /// The names in an `extends`.
    fn extended(&mut self, node: &Node) -> Vec<(String, Origin)> {
        let one = std::slice::from_ref(node);
        let mut names = Vec::new();
        for item in node.array().unwrap_or(one) {
            match item.text() {
                Some(text) => names.push((text.to_owned(), item.origin.clone())),
                None => {
                    let message =
                        format!("`extends` wants the name of a file, but this is {}", item.what());
                    self.found.push(Diagnostic::error(message).at(&item.origin));
                }
            }
        }
        names
    }

    /// Lays `path=value` of the command line over the tree.
    pub(crate) fn set(&mut self, root: &mut Node, text: &str, language: &Language) {
        let id = self.sources.add("--set", text);
        let Some((keys, value)) = parse::assignment(id, &self.sources, &mut self.found) else {
            return;
        };
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let whole = Origin::new(id, 0..text.len());
        let settable = Settable { root, language, sweep: true };
        match settable.mistake(&keys.join("."), "`--set`", &whole) {
            Some(mistake) => self.found.push(mistake),
            None => set_path(root, &keys, value.carried(&format!("--set {text}"))),
        }
    }

    fn fail(&mut self, message: String, from: Option<&Origin>) {
        let error = Diagnostic::error(message);
        self.found.push(match from {
            Some(origin) => error.at(origin),
            None => error,
        });
    }
}

/// Lays a whole manifest over another: as [`merge`] does, but what is to be
/// compared is added to what the other compares; an empty list forgets it.
fn lay(under: &mut Node, mut over: Node) {
    for section in ["compare", "target"] {
        let earlier = under.at([section]).and_then(Node::array).unwrap_or_default().to_vec();
        let Some(added) = over.table_mut().and_then(|table| table.get_mut(section)) else {
            continue;
        };
        if let Some(items) = added.array().filter(|items| !items.is_empty()) {
            added.value = Value::Array([&earlier, items].concat().into());
        }
    }
    merge(under, over);
}

/// Lays `over` over `under`: tables are merged, everything else is replaced,
/// and so are tables that say something by round or are of another `kind`.
pub(crate) fn merge(under: &mut Node, over: Node) {
    let key = |node: &Node, key: &str| node.at([key]).map(|node| node.text().map(str::to_owned));
    let by_round = key(under, "by-round").is_some() || key(&over, "by-round").is_some();
    let kinds = (key(under, "kind"), key(&over, "kind"));
    if by_round || (kinds.0.is_some() && kinds.1.is_some() && kinds.0 != kinds.1) {
        *under = over;
        return;
    }
    let both = (&mut under.value, over.value);
    let (Value::Table(low), Value::Table(high)) = both else {
        under.value = both.1;
        under.origin = over.origin;
        return;
    };
    for (key, entry) in high.in_order() {
        match low.get_mut(key) {
            Some(node) => merge(node, entry.node.clone()),
            None => low.insert(key, entry.key.clone(), entry.node.clone()),
        }
    }
    under.origin = over.origin;
}

/// Sets the value at a path of keys (in lists, numbers), making the tables
/// that lack.
pub(crate) fn set_path(root: &mut Node, path: &[&str], value: Node) {
    let Some((key, rest)) = path.split_first() else {
        *root = value;
        return;
    };
    if let Value::Array(items) = &mut root.value
        && let Some(at) = key.parse().ok().filter(|at: &usize| *at < items.len())
    {
        set_path(&mut Arc::make_mut(items)[at], rest, value);
        return;
    }
    if root.table().is_none() {
        root.value = Value::Table(Default::default());
    }
    let Some(table) = root.table_mut() else { return };
    if table.get(key).is_none() {
        let empty = Node::new(value.origin.clone(), Value::Table(Default::default()));
        table.insert(*key, value.origin.clone(), empty);
    }
    if let Some(inner) = table.get_mut(key) {
        set_path(inner, rest, value);
    }
}

/// A path written in `file`, relative to the folder of `file`.
fn beside(file: &str, written: &str) -> String {
    if written.starts_with('/') {
        return written.to_owned();
    }
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(written.split('/')) {
        match part {
            "" | "." if !parts.is_empty() || part == "." => {}
            "" if file.starts_with('/') => parts.push(""),
            "" => {}
            ".." if parts.last().is_some_and(|last| !matches!(*last, ".." | "")) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file_that_says_them() {
        assert_eq!(beside("experiments/a.toml", "b.toml"), "experiments/b.toml");
        assert_eq!(beside("experiments/a.toml", "../c/./b.toml"), "c/b.toml");
        assert_eq!(beside("a.toml", "../b.toml"), "../b.toml");
        assert_eq!(beside("/x/y/a.toml", "../b.toml"), "/x/b.toml");
        assert_eq!(beside("x/a.toml", "/b.toml"), "/b.toml");
    }
}
