//! The reading of typed values from written ones: where the reader is, which
//! tables it may look up, and all mistakes found so far.
//!
//! Knows nothing of what is read; that is [`crate::base::spec`]'s.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Origin, Table},
    reference::Names,
    spec::{Field, kebab, tidy},
    text,
};
use std::fmt::Write;

/// A reader's state.
#[derive(Debug)]
pub struct Reading<'a> {
    resources: &'a Table,
    names: Option<&'a Names>,
    round: Option<u32>,
    path: String,
    role: String,
    torn: bool,
    also: Option<(String, &'static [String])>,
    found: Diagnostics,
}

impl<'a> Reading<'a> {
    /// A reader that finds shared tables (`protocol.arithmetic`) in `resources`
    /// and takes references as they are.
    pub fn new(resources: &'a Table) -> Reading<'a> {
        let (path, role) = (String::new(), String::new());
        let found = Diagnostics::default();
        let (names, round, torn, also) = (None, None, false, None);
        Reading { resources, names, round, path, role, torn, also, found }
    }

    /// Says that parts of the text could not be read, so that nothing is
    /// blamed for being absent.
    pub fn with_torn(mut self, torn: bool) -> Reading<'a> {
        self.torn = torn;
        self
    }

    /// Lets references be checked against the steps there are.
    pub fn with_names(mut self, names: &'a Names) -> Reading<'a> {
        self.names = Some(names);
        self
    }

    /// Reads something else at `path`, with roles counted from there, as part
    /// of `round`.
    pub fn within<R>(
        &mut self,
        path: &str,
        round: Option<u32>,
        read: impl FnOnce(&mut Reading<'a>) -> R,
    ) -> R {
        let path = std::mem::replace(&mut self.path, path.to_owned());
        let role = std::mem::take(&mut self.role);
        let round = std::mem::replace(&mut self.round, round);
        let result = read(self);
        (self.path, self.role, self.round) = (path, role, round);
        result
    }

    /// Reads a table out of which these keys were taken, so that a mistaken key
    /// may be one of them.
    pub fn beside<R>(
        &mut self,
        keys: &'static [String],
        node: &Node,
        read: impl FnOnce(&Node, &mut Reading<'a>) -> R,
    ) -> R {
        let also = self.also.replace((self.path.clone(), keys));
        let result = read(node, self);
        self.also = also;
        result
    }

    /// Reads a shared table, keeping roles.
    pub fn elsewhere<R>(&mut self, path: String, read: impl FnOnce(&mut Reading<'a>) -> R) -> R {
        let path = std::mem::replace(&mut self.path, path);
        let result = read(self);
        self.path = path;
        result
    }

    /// Reads a part called `name`; `in_role` says whether the roles of inputs
    /// below carry the name too.
    pub fn part<R>(
        &mut self,
        name: &str,
        in_role: bool,
        read: impl FnOnce(&mut Reading<'a>) -> R,
    ) -> R {
        let lengths = (self.path.len(), self.role.len());
        extend(&mut self.path, name);
        if in_role {
            extend(&mut self.role, name);
        }
        let result = read(self);
        self.path.truncate(lengths.0);
        self.role.truncate(lengths.1);
        result
    }

    /// Reads an element of a list; its number, from 0, is its name.
    pub fn item<R>(&mut self, number: usize, read: impl FnOnce(&mut Reading<'a>) -> R) -> R {
        let lengths = (self.path.len(), self.role.len());
        for text in [&mut self.path, &mut self.role] {
            extend(text, "");
            write!(text, "{number}").expect("a string takes everything");
        }
        let result = read(self);
        self.path.truncate(lengths.0);
        self.role.truncate(lengths.1);
        result
    }

    /// Where the reader is, such as `stage.answers.data.0`.
    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// The role of an input found here, such as `data.0`.
    pub fn role(&self) -> String {
        self.role.clone()
    }

    /// The round of the step that is read, if it runs in each.
    pub fn round(&self) -> Option<u32> {
        self.round
    }

    /// The steps that references may name.
    pub fn names(&self) -> Option<&'a Names> {
        self.names
    }

    /// The table `[section.name]`.
    pub fn resource(&self, section: &str, name: &str) -> Option<&'a Node> {
        self.resources.get(section)?.table()?.get(name)
    }

    /// The names of all tables in a section.
    pub fn resource_names(&self, section: &str) -> Vec<&'a str> {
        let section = self.resources.get(section).and_then(Node::table);
        section.map(|table| table.keys().collect()).unwrap_or_default()
    }

    /// Notes a mistake.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Notes that something is absent, unless it may stand in a part of the
    /// text that could not be read.
    pub fn push_absent(&mut self, diagnostic: Diagnostic) {
        if !self.torn {
            self.found.push(diagnostic);
        }
    }

    /// Notes a mistake at a value.
    pub fn error(&mut self, origin: &Origin, message: impl Into<String>) {
        self.found.push(Diagnostic::error(message).at(origin));
    }

    /// Notes that a value is not of the type wanted.
    pub fn mismatch(&mut self, node: &Node, wanted: &str) {
        let message = format!("`{}` wants {wanted}, but this is {}", self.path(), node.what());
        self.error(&node.origin, message);
    }

    /// Notes every key of `table` that is not in `known` (Rust names).
    pub fn refuse_unknown(&mut self, table: &Table, known: &[&str]) {
        for (key, entry) in table.iter() {
            if known.iter().any(|name| is_kebab_of(key, name)) {
                continue;
            }
            let also = self.also.as_ref().filter(|(path, _)| *path == self.path);
            let also = also.into_iter().flat_map(|(_, keys)| keys.iter());
            let also = also.map(|key| std::borrow::Cow::Borrowed(key.as_str()));
            let known: Vec<_> = known.iter().map(|name| kebab(name)).chain(also).collect();
            let hint = text::suggestion(key, "keys here", known.iter().map(|name| &**name));
            let message = format!("unknown key `{key}` in `{}`", self.path());
            self.found.push(Diagnostic::error(message).at(&entry.key).hint(hint));
        }
    }

    /// Reads one field of a table, with its default where it is absent.
    pub fn field<T: Field>(
        &mut self,
        node: &Node,
        name: &str,
        in_role: bool,
        default: Option<fn() -> T>,
        doc: &str,
    ) -> Option<T> {
        let key = kebab(name);
        if let Some(value) = node.table().and_then(|table| table.get(&key)) {
            return self.part(&key, in_role, |cx| T::parse(value, cx));
        }
        if let Some(value) = default.map(|make| make()).or_else(T::absent) {
            return Some(value);
        }
        let doc = tidy(doc);
        let hint = format!("{}: {}", T::type_name(), doc.lines().next().unwrap_or_default());
        let message = format!("`{}` lacks `{key}`", self.path());
        self.push_absent(Diagnostic::error(message).at(&node.origin).hint(hint));
        None
    }

    /// The mistakes found.
    pub fn finish(self) -> Diagnostics {
        self.found
    }
}

/// Adds a part to a path.
fn extend(path: &mut String, part: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(part);
}

/// Whether `key` is the kebab-case form of the Rust name `name`.
fn is_kebab_of(key: &str, name: &str) -> bool {
    let name = name.strip_prefix("r#").unwrap_or(name);
    let same = |(a, b): (u8, u8)| a == if b == b'_' { b'-' } else { b };
    key.len() == name.len() && key.bytes().zip(name.bytes()).all(same)
}
