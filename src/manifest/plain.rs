//! The short way through TOML: one pass over a manifest in plain style gives
//! the same tree as the general reader, many times faster.
//!
//! Plain is: headers, `key = value` lines, strings on one line, numbers without
//! ornaments, lists, tables in braces on one line. At anything else, and at any
//! mistake, this gives up and the general reader goes over the whole text; so
//! it tells nothing, and knows only what is certainly right.

use crate::base::node::{Entry, Node, Origin, SourceId, Table, Value};
use std::sync::Arc;

/// Deeper lists and tables are not plain.
const DEEPEST: usize = 16;
/// With more keys at the top, looking them up one by one would take long.
const WIDEST: usize = 64;
/// Keys that are kept to be shared.
const SHARED: usize = 24;

/// Reads a text; `None` where it is not plain.
pub(crate) fn read(id: SourceId, text: &str) -> Option<Table> {
    let (known, nodes, entries) = (Vec::with_capacity(SHARED), Vec::new(), Vec::new());
    let mut cursor = Cursor { id, text, bytes: text.as_bytes(), at: 0, known, nodes, entries };
    let mut root = Open::default();
    let mut path: Vec<(Arc<str>, Origin)> = Vec::new();
    let mut current: Option<Open> = None; // the table under the last header
    let mut header = Header::default();
    loop {
        cursor.blank_lines()?;
        let Some(byte) = cursor.peek() else { break };
        if byte == b'[' {
            if let Some(table) = current.take() {
                root.close(&mut path, &header, table)?;
            }
            header = cursor.header(&mut path)?;
            root.check(&path, &header)?;
            current = Some(Open::default());
        } else {
            let (key, origin) = cursor.key(true)?;
            let node = cursor.pair(0)?;
            let entry = (key, Slot::Value(Entry { key: origin, node }));
            current.as_mut().unwrap_or(&mut root).slots.push(entry);
        }
        cursor.line_end()?;
    }
    if let Some(table) = current.take() {
        root.close(&mut path, &header, table)?;
    }
    root.table()
}

/// A header: `[a.b]`, or `[[a]]` for one more element of a list.
#[derive(Default)]
struct Header {
    span: std::ops::Range<usize>,
    is_element: bool,
}

/// A table that more may come into.
#[derive(Default)]
struct Open {
    slots: Vec<(Arc<str>, Slot)>,
}

enum Slot {
    Value(Entry),
    /// A table by headers: where its key was written first, and its own place.
    Table(Origin, Origin, Open),
    /// A list by headers.
    Elements(Origin, Origin, Vec<Node>),
}

impl Open {
    /// Whether a header may stand here; what is not certain is refused.
    fn check(&self, path: &[(Arc<str>, Origin)], header: &Header) -> Option<()> {
        if self.slots.len() > WIDEST || header.is_element && path.len() > 1 {
            return None;
        }
        let (first, _) = path.first()?;
        let found = self.slots.iter().find(|(name, _)| name == first);
        match (found, path.len(), header.is_element) {
            (None, ..) => Some(()),
            (Some((_, Slot::Elements(..))), 1, true) => Some(()),
            (Some((_, Slot::Table(..))), 2.., false) => Some(()),
            _ => None,
        }
    }

    /// Puts a finished table to its place.
    fn close(
        &mut self,
        path: &mut Vec<(Arc<str>, Origin)>,
        header: &Header,
        mut table: Open,
    ) -> Option<()> {
        table.slots.shrink_to_fit(); // there are many
        let (name, key) = path.pop()?;
        let id = key.span.source;
        let own = Origin::new(id, header.span.clone());
        let mut open = self;
        for (depth, (name, key)) in path.drain(..).enumerate() {
            // At the top any table may be gone on with, below it only the last:
            // two of one name are found at the end.
            let found = match depth {
                0 => open.slots.iter().position(|(other, _)| *other == name),
                _ => open.slots.len().checked_sub(1).filter(|&last| open.slots[last].0 == name),
            };
            let at = found.unwrap_or_else(|| {
                let slot = Slot::Table(key.clone(), key, Open::default());
                open.slots.push((name, slot));
                open.slots.len() - 1
            });
            let Slot::Table(.., inner) = &mut open.slots[at].1 else { return None };
            open = inner;
        }
        if !header.is_element {
            open.slots.push((name, Slot::Table(key, own, table)));
            return Some(());
        }
        let node = Node::new(own.clone(), Value::Table(table.table()?));
        match open.slots.iter_mut().find(|(other, _)| *other == name) {
            Some((_, Slot::Elements(.., nodes))) => nodes.push(node),
            Some(_) => return None,
            None => open.slots.push((name, Slot::Elements(key, own, vec![node]))),
        }
        Some(())
    }

    fn table(self) -> Option<Table> {
        let mut entries = Vec::with_capacity(self.slots.len());
        for (name, slot) in self.slots {
            let entry = match slot {
                Slot::Value(entry) => entry,
                Slot::Table(key, own, open) => {
                    Entry { key, node: Node::new(own, Value::Table(open.table()?)) }
                }
                Slot::Elements(key, own, nodes) => {
                    Entry { key, node: Node::new(own, Value::Array(Arc::new(nodes))) }
                }
            };
            entries.push((name, entry));
        }
        Table::of(entries)
    }
}

struct Cursor<'t> {
    id: SourceId,
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    known: Vec<Arc<str>>,
    // Elements of the lists and tables that are being read, so that each gets
    // a place of just its size.
    nodes: Vec<Node>,
    entries: Vec<(Arc<str>, Entry)>,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn origin(&self, start: usize) -> Origin {
        Origin::new(self.id, start..self.at)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// What may follow a statement on its line, and the line's end.
    fn line_end(&mut self) -> Option<()> {
        self.blanks();
        self.comment()?;
        match self.peek() {
            None => Some(()),
            Some(_) => self.take(b'\n'),
        }
    }

    fn comment(&mut self) -> Option<()> {
        if self.peek() == Some(b'#') {
            while let Some(byte) = self.peek().filter(|&byte| byte != b'\n') {
                if is_control(byte) {
                    return None;
                }
                self.at += 1;
            }
        }
        Some(())
    }

    fn blank_lines(&mut self) -> Option<()> {
        loop {
            self.blanks();
            self.comment()?;
            if self.peek() != Some(b'\n') {
                return Some(());
            }
            self.at += 1;
        }
    }

    fn header(&mut self, path: &mut Vec<(Arc<str>, Origin)>) -> Option<Header> {
        let start = self.at;
        self.take(b'[')?;
        let is_element = self.take(b'[').is_some();
        path.clear();
        loop {
            self.blanks();
            let key = self.key(false)?;
            path.push(key);
            self.blanks();
            if self.take(b'.').is_none() {
                break;
            }
        }
        self.take(b']')?;
        if is_element {
            self.take(b']')?;
        }
        (path.len() <= DEEPEST).then_some(Header { span: start..self.at, is_element })
    }

    /// A bare key, or one in double quotes; `share` keeps it for the next table.
    fn key(&mut self, share: bool) -> Option<(Arc<str>, Origin)> {
        let start = self.at;
        let name = if self.peek()? == b'"' {
            self.plain_string(b'"')?
        } else {
            while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                self.at += 1;
            }
            start..self.at
        };
        let text = &self.text[name];
        if text.is_empty() {
            return None;
        }
        let origin = self.origin(start);
        if !share {
            return Some((Arc::from(text), origin));
        }
        if let Some(known) = self.known.iter().find(|known| ***known == *text) {
            return Some((known.clone(), origin));
        }
        let key: Arc<str> = Arc::from(text);
        if self.known.len() < SHARED {
            self.known.push(key.clone());
        }
        Some((key, origin))
    }

    /// What follows a key: `= value`.
    fn pair(&mut self, depth: usize) -> Option<Node> {
        self.blanks();
        self.take(b'=')?;
        self.blanks();
        self.value(depth)
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let start = self.at;
        let value = match self.peek()? {
            _ if depth > DEEPEST => return None,
            b'"' => Value::Text(self.basic_string()?),
            b'\'' => {
                let inside = self.plain_string(b'\'')?;
                Value::Text(self.text[inside].into())
            }
            b'[' => self.list(depth)?,
            b'{' => self.braces(depth)?,
            b't' => self.word("true", true)?,
            b'f' => self.word("false", false)?,
            _ => self.number()?,
        };
        Some(Node::new(self.origin(start), value))
    }

    fn word(&mut self, word: &str, value: bool) -> Option<Value> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())?;
        self.ends().then_some(Value::Bool(value))
    }

    /// Whether a word or number ends here.
    fn ends(&self) -> bool {
        matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b',' | b']' | b'}' | b'#'))
    }

    /// The inside of a string without escapes on one line.
    fn plain_string(&mut self, quote: u8) -> Option<std::ops::Range<usize>> {
        self.take(quote)?;
        let start = self.at;
        loop {
            let byte = self.peek()?;
            if byte == quote {
                break;
            }
            if is_control(byte) || byte == b'\\' && quote == b'"' {
                return None;
            }
            self.at += 1;
        }
        let end = self.at;
        self.at += 1;
        // Three quotes begin a string over several lines.
        (start != end || self.peek() != Some(quote)).then_some(start..end)
    }

    fn basic_string(&mut self) -> Option<Arc<str>> {
        let start = self.at;
        if let Some(inside) = self.plain_string(b'"') {
            return Some(self.text[inside].into());
        }
        self.at = start + 1;
        let mut text = String::new();
        loop {
            let from = self.at;
            while !matches!(self.peek()?, b'"' | b'\\') {
                if is_control(self.peek()?) {
                    return None;
                }
                self.at += 1;
            }
            text.push_str(&self.text[from..self.at]);
            self.at += 1;
            if self.bytes[self.at - 1] == b'"' {
                break;
            }
            text.push(match self.peek()? {
                b'"' => '"',
                b'\\' => '\\',
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                _ => return None,
            });
            self.at += 1;
        }
        // An empty one here is the beginning of three quotes.
        (!text.is_empty()).then(|| text.into())
    }

    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        if matches!(self.peek(), Some(b'+' | b'-')) {
            self.at += 1;
        }
        let whole = self.digits()?;
        if whole > 1 && self.bytes[self.at - whole] == b'0' {
            return None;
        }
        let mut is_float = false;
        if self.take(b'.').is_some() {
            self.digits()?;
            is_float = true;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            is_float = true;
        }
        let text = &self.text[start..self.at];
        if !self.ends() {
            return None;
        }
        match is_float {
            true => text.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float),
            false => text.parse().ok().map(Value::Int),
        }
    }

    /// At least one digit; how many.
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then(|| self.at - start)
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.take(b'[')?;
        let start = self.nodes.len();
        loop {
            self.blank_lines()?;
            if self.take(b']').is_some() {
                break;
            }
            let item = self.value(depth + 1)?;
            self.nodes.push(item);
            self.blank_lines()?;
            if self.take(b',').is_none() {
                self.take(b']')?;
                break;
            }
        }
        Some(Value::Array(Arc::new(self.nodes.drain(start..).collect())))
    }

    fn braces(&mut self, depth: usize) -> Option<Value> {
        self.take(b'{')?;
        let start = self.entries.len();
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(Value::Table(Table::default()));
        }
        loop {
            self.blanks();
            let (name, key) = self.key(true)?;
            let node = self.pair(depth + 1)?;
            self.entries.push((name, Entry { key, node }));
            self.blanks();
            if self.take(b',').is_none() {
                self.take(b'}')?;
                let entries = self.entries.drain(start..).collect();
                return Table::of(entries).map(Value::Table);
            }
        }
    }
}

/// Characters that may not stand in strings and comments.
fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{diag::Diagnostics, node::Sources, seed::Seed},
        manifest::parse,
    };

    const PLAIN: &str = r#"
rekindle = 1 # the language
name = "a \"b\" \\ \n"
seed = -7
wide = ['x\y', "z", [1, 2.5, +1e3], {}, { a = true, "b c" = { d = 'e' } },
  # a comment
  -0.5e-2,
]
[dataset.d]
kind = "k"
[stage.s]
kind = "k"
[stage.s.inputs]
a = "d.x"
[ stage . "t u" ]
run = ["sh", "-c", "echo é"]
[dataset.e]
[compare.only.here]
[[target]]
a = 1
[[target]]
a = false
"#;

    /// The short way, if it is open, and the long way, if the text is right.
    fn both(text: &str) -> (Option<String>, Option<String>) {
        let mut sources = Sources::default();
        let id = sources.add("m.toml", text);
        let mut found = Diagnostics::default();
        let (node, whole) = parse::whole(id, &sources, &mut found);
        let long = (whole && found.is_empty()).then(|| format!("{:?}", node.table().unwrap()));
        (read(id, text).map(|table| format!("{table:?}")), long)
    }

    #[test]
    fn the_short_way_gives_the_same_tree() {
        let smoke = include_str!("../../experiments/smoke.toml");
        for text in [PLAIN, smoke, "", "a = 1", "\n[a]\n\n"] {
            let (short, long) = both(text);
            assert!(short.is_some(), "not plain: {text}");
            assert_eq!(short, long);
        }
    }

    #[test]
    fn whatever_it_reads_is_right_and_read_alike() {
        let pieces: Vec<&str> = vec![
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "\"",
            "'",
            "\"\"\"",
            "=",
            ",",
            ".",
            "#",
            "\n",
            " ",
            "\\",
            "\\u00e9",
            "0",
            "01",
            "1_0",
            "0x1",
            "1.",
            "inf",
            "nan",
            "true",
            "a",
            "a.b",
            "é",
            "\r",
            "\t",
            "\u{7f}",
            "1979-05-27",
            "[stage.s]\n",
            "[stage]\n",
            "[dataset.d.x]\n",
            "[[target]]\n",
            "name = 1\n",
            "kind = 2\n",
            "[compare]\n",
            "[target]\n",
            "+",
            "-",
            "e9",
            "e999",
        ];
        let mut rng = Seed(5).rng();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..30_000 {
            let mut text: Vec<char> = PLAIN.chars().collect();
            for _ in 0..=rng.below(2) {
                let at = rng.below(text.len());
                match rng.below(3) {
                    0 => drop(text.remove(at)),
                    1 => text.swap(at, at.saturating_sub(1)),
                    _ => {
                        let piece = pieces[rng.below(pieces.len())];
                        drop(text.splice(at..at, piece.chars()));
                    }
                }
            }
            let text: String = text.into_iter().collect();
            let (short, long) = both(&text);
            match short {
                Some(_) => {
                    assert_eq!(short, long, "{text}");
                    read += 1;
                }
                None => refused += 1,
            }
        }
        assert!(read > 5_000 && refused > 5_000, "{read} read, {refused} refused");
    }
}
