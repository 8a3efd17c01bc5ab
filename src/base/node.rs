//! Values as a person wrote them: a tree in which everything remembers the
//! file and the bytes it came from, and what carried it here since.
//!
//! Knows nothing of TOML, nor of what the values mean. Tables and lists are
//! shared until they are changed, so a copy of a tree costs next to nothing.

use std::{ops::Range, sync::Arc};

/// Number of a source text in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

impl SourceId {
    /// Its number, from 0 in the order of reading.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// A range of bytes in a source text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which text.
    pub source: SourceId,
    /// Which bytes of it; of a text above 4 GiB, the end of those.
    pub range: Range<u32>,
}

impl Span {
    /// A span of bytes.
    pub fn new(source: SourceId, range: Range<usize>) -> Span {
        let short = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { source, range: short(range.start)..short(range.end) }
    }

    /// The bytes, as an index into the text.
    pub fn bytes(&self) -> Range<usize> {
        self.range.start as usize..self.range.end as usize
    }
}

/// A span as people count: lines and columns from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

#[derive(Debug)]
struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// All texts that were read, by number.
#[derive(Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text under a name, such as a path relative to the caller's folder.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        let (name, text) = (name.into(), text.into());
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        self.0.push(Source { name, text, line_starts });
        SourceId(self.0.len() as u32 - 1)
    }

    /// Name and text of a source.
    pub fn get(&self, id: SourceId) -> (&str, &str) {
        let source = &self.0[id.0 as usize];
        (&source.name, &source.text)
    }

    /// Names and texts of all sources in the order they were added.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|source| (source.name.as_str(), source.text.as_str()))
    }

    /// Names of all sources in the order they were added.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|source| source.name.as_str()).collect()
    }

    /// Where a span starts.
    pub fn place(&self, span: &Span) -> Place {
        let source = &self.0[span.source.0 as usize];
        let at = span.bytes().start.min(source.text.len());
        let line = source.line_starts.partition_point(|start| *start <= at);
        let before = source.text.get(source.line_starts[line - 1]..at).unwrap_or("");
        Place { file: source.name.clone(), line, column: before.chars().count() + 1 }
    }

    /// Where a value came from, in one line: `quick.toml:12:8 via sweep axis `seed``.
    pub fn describe(&self, origin: &Origin) -> String {
        if let Some(set) = origin.via.iter().find(|via| via.starts_with("--set ")) {
            return set.clone();
        }
        let place = self.place(&origin.span);
        let mut text = format!("{}:{}:{}", place.file, place.line, place.column);
        for (i, via) in origin.via.iter().enumerate() {
            text.push_str(if i == 0 { " via " } else { ", " });
            text.push_str(via);
        }
        text
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The text it was written in.
    pub span: Span,
    /// What carried it from there to here, in order: ``sweep axis `seed` ``,
    /// `--set seed=3`, `extends base.toml`.
    pub via: Vec<String>,
}

impl Origin {
    /// An origin that nothing else had a part in.
    pub fn new(source: SourceId, range: Range<usize>) -> Origin {
        Origin { span: Span::new(source, range), via: Vec::new() }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it came from; of a table, its header.
    pub origin: Origin,
    /// The value.
    pub value: Value,
}

/// A value as written.
#[derive(Clone, Debug)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A list.
    Array(Arc<Vec<Node>>),
    /// A table.
    Table(Table),
}

impl Node {
    /// A node.
    pub fn new(origin: Origin, value: Value) -> Node {
        Node { origin, value }
    }

    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self.value {
            Value::Int(int) => Some(int),
            _ => None,
        }
    }

    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The table for changing, if it is one.
    pub fn table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn array(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The node at a path of keys below this one.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Node> {
        path.into_iter().try_fold(self, |node, key| match &node.value {
            Value::Table(table) => table.get(key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        })
    }

    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match &self.value {
            Value::Bool(_) => "true or false",
            Value::Int(..0) => "a negative number",
            Value::Int(_) => "a whole number",
            Value::Float(value) if !value.is_finite() => "infinite or no number",
            Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The node of a value without origins, all of it from `origin`; none where
    /// there is a null, or a number that no manifest can hold.
    pub fn of_json(json: &serde_json::Value, origin: &Origin) -> Option<Node> {
        let value = match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) if number.is_f64() => Value::Float(number.as_f64()?),
            serde_json::Value::Number(number) => Value::Int(number.as_i64()?),
            serde_json::Value::String(text) => Value::Text(text.as_str().into()),
            serde_json::Value::Array(items) => {
                let nodes = items.iter().map(|item| Node::of_json(item, origin));
                Value::Array(Arc::new(nodes.collect::<Option<_>>()?))
            }
            serde_json::Value::Object(map) => {
                let mut table = Table::default();
                for (key, item) in map {
                    table.insert(key.as_str(), origin.clone(), Node::of_json(item, origin)?);
                }
                Value::Table(table)
            }
        };
        Some(Node::new(origin.clone(), value))
    }

    /// The value without its origins.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => (&**value).into(),
            Value::Array(items) => items.iter().map(Node::json).collect(),
            Value::Table(table) => {
                table.iter().map(|(key, entry)| (key.to_owned(), entry.node.json())).collect()
            }
        }
    }

    /// Says of everything in this tree that `via` carried it.
    pub fn carried(mut self, via: &str) -> Node {
        self.origin.via.push(via.to_owned());
        self.value = match self.value {
            Value::Array(items) => {
                Value::Array(Arc::new(items.iter().map(|item| item.clone().carried(via)).collect()))
            }
            Value::Table(mut table) => {
                for (_, entry) in &mut Arc::make_mut(&mut table.inner).entries {
                    entry.key.via.push(via.to_owned());
                    entry.node = entry.node.clone().carried(via);
                }
                Value::Table(table)
            }
            leaf => leaf,
        };
        self
    }
}

/// A key's value in a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where the key was written.
    pub key: Origin,
    /// The value.
    pub node: Node,
}

/// Keys and values: in the order of declaration, with the order of the keys at
/// hand.
#[derive(Clone, Debug, Default)]
pub struct Table {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    entries: Vec<(Arc<str>, Entry)>, // in order of declaration
    sorted: Vec<u32>,                // their places, by key
}

/// Tables up to this size are searched from end to end, which is faster there.
const SMALL: usize = 8;

impl Inner {
    /// The place of a key among `sorted`, or where it would be.
    fn search(&self, key: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|&at| (*self.entries[at as usize].0).cmp(key))
    }

    fn find(&self, key: &str) -> Option<usize> {
        if self.entries.len() <= SMALL {
            return self.entries.iter().position(|(name, _)| **name == *key);
        }
        self.search(key).ok().map(|place| self.sorted[place] as usize)
    }
}

impl Table {
    /// A table of these entries in order of declaration; `None` when a key
    /// comes twice.
    pub fn of(entries: Vec<(Arc<str>, Entry)>) -> Option<Table> {
        let mut sorted: Vec<u32> = (0..entries.len() as u32).collect();
        let name = |at: u32| &*entries[at as usize].0;
        sorted.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
        let twice = sorted.windows(2).any(|pair| name(pair[0]) == name(pair[1]));
        (!twice).then(|| Table { inner: Arc::new(Inner { entries, sorted }) })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// A key with its value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.inner.find(key).map(|at| &self.inner.entries[at].1)
    }

    /// The value of a key for changing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let at = self.inner.find(key)?;
        Some(&mut Arc::make_mut(&mut self.inner).entries[at].1.node)
    }

    /// Sets a key; one that is there already keeps its place in the order.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, key: Origin, node: Node) {
        let (name, entry) = (name.into(), Entry { key, node });
        let inner = Arc::make_mut(&mut self.inner);
        match inner.search(&name) {
            Ok(place) => {
                let at = inner.sorted[place] as usize;
                inner.entries[at].1 = entry;
            }
            Err(place) => {
                inner.sorted.insert(place, inner.entries.len() as u32);
                inner.entries.push((name, entry));
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let gone = self.inner.find(key)?;
        let inner = Arc::make_mut(&mut self.inner);
        inner.sorted.retain(|&at| at as usize != gone);
        inner.sorted.iter_mut().filter(|at| **at as usize > gone).for_each(|at| *at -= 1);
        Some(inner.entries.remove(gone).1)
    }

    /// Keys and entries, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.inner.sorted.iter().map(|&at| {
            let (key, entry) = &self.inner.entries[at as usize];
            (&**key, entry)
        })
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// Keys and entries in the order of declaration.
    pub fn in_order(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.inner.entries.iter().map(|(key, entry)| (&**key, entry))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.inner.entries.len()
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.inner.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let id = sources.add("a.toml", "x = 1\nç = 2\n");
        let place = sources.place(&Span::new(id, 11..12));
        assert_eq!((place.file.as_str(), place.line, place.column), ("a.toml", 2, 5));
        let origin = Origin { via: vec!["sweep axis `s`".into()], ..Origin::new(id, 4..5) };
        assert_eq!(sources.describe(&origin), "a.toml:1:5 via sweep axis `s`");
    }

    #[test]
    fn a_changed_copy_leaves_the_first_alone_and_keeps_the_order() {
        let mut sources = Sources::default();
        let origin = Origin::new(sources.add("a", ""), 0..0);
        let node = |n| Node::new(origin.clone(), Value::Int(n));
        let mut table = Table::default();
        table.insert("b", origin.clone(), node(1));
        table.insert("a", origin.clone(), node(2));
        let mut copy = table.clone();
        copy.insert("b", origin.clone(), node(3));
        assert_eq!(table.get("b").and_then(Node::int), Some(1));
        let order: Vec<_> = copy.in_order().map(|(key, e)| (key, e.node.int())).collect();
        assert_eq!(order, [("b", Some(3)), ("a", Some(2))]);
        assert_eq!(copy.keys().collect::<Vec<_>>(), ["a", "b"]);
        copy.insert("c", origin.clone(), node(4));
        copy.remove("b");
        copy.insert("b", origin.clone(), node(5));
        let order: Vec<_> = copy.in_order().map(|(key, _)| key).collect();
        assert_eq!(order, ["a", "c", "b"]);
        assert_eq!(copy.get("c").and_then(Node::int), Some(4));
    }

    #[test]
    fn a_table_of_entries_finds_each_key_and_refuses_two_of_a_name() {
        let mut sources = Sources::default();
        let origin = Origin::new(sources.add("a", ""), 0..0);
        let entry = |n: i64| {
            let node = Node::new(origin.clone(), Value::Int(n));
            (Arc::from(format!("k{}", n % 20)), Entry { key: origin.clone(), node })
        };
        let table = Table::of((0..20).rev().map(entry).collect()).unwrap();
        let found = |n: i64| table.get(&format!("k{n}")).and_then(Node::int);
        assert!((0..20).all(|n| found(n) == Some(n)));
        assert_eq!(found(20), None);
        assert!(table.keys().is_sorted());
        assert!(Table::of((0..21).map(entry).collect()).is_none());
    }
}
