//! The types that fields of a spec may have, and the plain functions behind
//! the macros of [`crate::base::spec`].

use crate::base::{
    diag::Diagnostic,
    node::{Node, Value},
    spec::{Encoder, Field, FieldDoc, InputRef, Reading, role_of, tidy},
    text,
};
use serde_json::{Map, Value as Json, json};
use std::{borrow::Cow, collections::BTreeMap, ops::Deref};

/// Implements [`Field`] for a plain type.
macro_rules! plain {
    ($ty:ty, $name:literal, $schema:tt, |$node:ident| $parse:expr, |$out:ident, $value:ident| $encode:expr) => {
        impl Field for $ty {
            fn parse($node: &Node, cx: &mut Reading) -> Option<$ty> {
                let value = $parse;
                if value.is_none() {
                    cx.mismatch($node, $name);
                }
                value
            }
            fn encode(&self, $out: &mut Encoder) {
                let $value = self;
                $encode;
            }
            fn schema() -> Json {
                json!($schema)
            }
            fn type_name() -> String {
                $name.to_owned()
            }
            fn json(&self) -> Json {
                self.clone().into()
            }
        }
    };
}

plain!(
    bool, "true or false", { "type": "boolean" },
    |node| match node.value { Value::Bool(value) => Some(value), _ => None },
    |out, value| out.bool(*value)
);
plain!(
    u64, "a whole number from 0", { "type": "integer", "minimum": 0 },
    |node| node.int().and_then(|int| u64::try_from(int).ok()),
    |out, value| out.int(*value)
);
plain!(
    i64, "a whole number", { "type": "integer" },
    |node| node.int(),
    |out, value| out.int(*value)
);
plain!(
    f64, "a finite number", { "type": "number" },
    |node| match node.value {
        Value::Float(value) if value.is_finite() => Some(value),
        Value::Int(value) => Some(value as f64),
        _ => None,
    },
    |out, value| out.float(*value)
);
plain!(
    String, "a string", { "type": "string" },
    |node| node.text().map(str::to_owned),
    |out, value| out.text(value)
);

impl<T: Field> Field for Vec<T> {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Vec<T>> {
        let Some(written) = node.array() else {
            cx.mismatch(node, &Self::type_name());
            return None;
        };
        let mut items: Vec<Cow<Node>> = Vec::with_capacity(written.len());
        for item in written {
            match T::spread(item, cx) {
                Some(several) => items.extend(several.into_iter().map(Cow::Owned)),
                None => items.push(Cow::Borrowed(item)),
            }
        }
        let read = |(i, item): (usize, &Cow<Node>)| cx.item(i, |cx| T::parse(item, cx));
        let values: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        values.into_iter().collect()
    }

    fn encode(&self, out: &mut Encoder) {
        out.group("[]", |out| {
            for (i, item) in self.iter().enumerate() {
                out.field(&i.to_string(), |out| item.encode(out));
            }
        });
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }

    fn type_name() -> String {
        format!("a list, each {}", T::type_name())
    }

    fn json(&self) -> Json {
        self.iter().map(Field::json).collect()
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        for (i, item) in self.iter().enumerate() {
            item.inputs(&role_of(role, &i.to_string()), out);
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Option<T>> {
        T::parse(node, cx).map(Some)
    }

    fn encode(&self, out: &mut Encoder) {
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn schema() -> Json {
        T::schema()
    }

    fn type_name() -> String {
        T::type_name()
    }

    fn json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Field::json)
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        if let Some(value) = self {
            value.inputs(role, out);
        }
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }

    fn spread(node: &Node, cx: &Reading) -> Option<Vec<Node>> {
        T::spread(node, cx)
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn parse(node: &Node, cx: &mut Reading) -> Option<BTreeMap<String, T>> {
        let Some(table) = node.table() else {
            cx.mismatch(node, "a table");
            return None;
        };
        let mut values = Vec::new();
        for (key, entry) in table.iter() {
            let value = cx.part(key, true, |cx| T::parse(&entry.node, cx));
            values.push(value.map(|value| (key.to_owned(), value)));
        }
        values.into_iter().collect()
    }

    fn encode(&self, out: &mut Encoder) {
        out.group("{}", |out| {
            for (key, value) in self {
                out.field(key, |out| value.encode(out));
            }
        });
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn type_name() -> String {
        format!("a table, each value {}", T::type_name())
    }

    fn json(&self) -> Json {
        self.iter().map(|(key, value)| (key.clone(), value.json())).collect()
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        for (key, value) in self {
            value.inputs(&role_of(role, key), out);
        }
    }
}

/// A type that a manifest may declare once, as `[section.name]`, and name in
/// many places.
pub trait Resource: Field {
    /// The section, such as `protocol`.
    const SECTION: &'static str;
}

/// A shared table by its name, or one written in place. Only the content
/// counts: neither the name nor the place is part of the identity.
#[derive(Clone, Debug)]
pub struct Use<T> {
    /// The name it was called by.
    pub name: Option<String>,
    /// The content.
    pub value: T,
}

impl<T> Deref for Use<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Use<T> {
    fn eq(&self, other: &Use<T>) -> bool {
        self.value == other.value
    }
}

impl<T: Resource> Field for Use<T> {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Use<T>> {
        let Some(name) = node.text() else {
            if node.table().is_none() {
                cx.mismatch(node, &Self::type_name());
                return None;
            }
            return T::parse(node, cx).map(|value| Use { name: None, value });
        };
        let section = T::SECTION;
        let Some(found) = cx.resource(section, name) else {
            let hint = text::suggestion(
                name,
                &format!("tables in `[{section}]`"),
                cx.resource_names(section),
            );
            let message = format!("there is no `[{section}.{name}]`");
            cx.push_absent(Diagnostic::error(message).at(&node.origin).hint(hint));
            return None;
        };
        let value = cx.elsewhere(format!("{section}.{name}"), |cx| T::parse(found, cx))?;
        Some(Use { name: Some(name.to_owned()), value })
    }

    fn encode(&self, out: &mut Encoder) {
        self.value.encode(out);
    }

    fn schema() -> Json {
        let name = json!({ "type": "string", "description": Self::type_name() });
        json!({ "anyOf": [name, T::schema()] })
    }

    fn type_name() -> String {
        format!("the name of a `[{}.<name>]` table, or a table", T::SECTION)
    }

    fn json(&self) -> Json {
        self.value.json()
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        self.value.inputs(role, out);
    }
}

/// Makes sure that a struct's value is a table: `Some(None)` when it is,
/// `Some(table)` when a bare value stands for one.
pub fn open_table<T: Field>(node: &Node, short: &[&str], cx: &mut Reading) -> Option<Option<Node>> {
    if node.table().is_some() {
        return Some(None);
    }
    let Some(name) = short.first() else {
        cx.mismatch(node, &T::type_name());
        return None;
    };
    let mut table = crate::base::node::Table::default();
    table.insert(&*crate::base::spec::kebab(name), node.origin.clone(), node.clone());
    Some(Some(Node::new(node.origin.clone(), Value::Table(table))))
}

/// Spreads a list's element over the part that a bare value stands for.
pub fn spread_part<T: Field>(node: &Node, key: &str, cx: &Reading) -> Option<Vec<Node>> {
    let Some(table) = node.table() else { return T::spread(node, cx) };
    let entry = table.entry(key)?;
    let several = T::spread(&entry.node, cx)?;
    let with = |part: Node| {
        let mut table = table.clone();
        table.insert(key, entry.key.clone(), part);
        Node::new(node.origin.clone(), Value::Table(table))
    };
    Some(several.into_iter().map(with).collect())
}

/// The number of the word that a string is.
pub fn word(node: &Node, words: &[&'static str], cx: &mut Reading) -> Option<usize> {
    let Some(text) = node.text() else {
        cx.mismatch(node, &format!("one of {}", text::list(words.iter().copied())));
        return None;
    };
    let at = words.iter().position(|word| *word == text);
    if at.is_none() {
        let message = format!("`{}` cannot be `{text}`", cx.path());
        let hint = text::suggestion(text, "it is one of", words.iter().copied());
        cx.push(Diagnostic::error(message).at(&node.origin).hint(hint));
    }
    at
}

/// The variant that a table names under `tag`, and the table without it.
pub fn tagged(
    node: &Node,
    tag: &str,
    words: &[&'static str],
    cx: &mut Reading,
) -> Option<(&'static str, Node)> {
    let Some(table) = node.table() else {
        cx.mismatch(node, "a table");
        return None;
    };
    let Some(named) = table.get(tag) else {
        let message = format!("`{}` lacks `{tag}`", cx.path());
        let hint = format!("it is one of: {}", text::list(words.iter().copied()));
        cx.push(Diagnostic::error(message).at(&node.origin).hint(hint));
        return None;
    };
    let at = cx.part(tag, false, |cx| word(named, words, cx))?;
    let mut rest = table.clone();
    rest.remove(tag);
    Some((words[at], Node::new(node.origin.clone(), Value::Table(rest))))
}

/// Adds documentation and default to a field's schema.
pub fn describe(schema: &mut Json, doc: &str, default: Option<Json>) {
    schema["description"] = tidy(doc).replace('\n', " ").into();
    if let Some(default) = default {
        schema["default"] = default;
    }
}

/// The schema of a struct.
pub fn table_schema(
    doc: &str,
    properties: Map<String, Json>,
    fields: &[FieldDoc],
    short: &[&str],
) -> Json {
    let required: Vec<&str> =
        fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    let bare =
        short.first().and_then(|name| properties.get(&*crate::base::spec::kebab(name)).cloned());
    let mut table = json!({
        "type": "object",
        "description": doc.replace('\n', " "),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = required.into();
    }
    match bare {
        Some(bare) => json!({ "anyOf": [bare, table] }),
        None => table,
    }
}

/// The schema of a closed set of words.
pub fn word_schema(words: &[(&str, &str)]) -> Json {
    let one = |(word, doc): &(&str, &str)| json!({ "const": word, "description": tidy(doc).replace('\n', " ") });
    json!({ "oneOf": words.iter().map(one).collect::<Vec<_>>() })
}

/// The schema of tables whose key `tag` names the variant.
pub fn tagged_schema(tag: &str, variants: Vec<(&str, Json)>) -> Json {
    let with_tag = |(word, mut schema): (&str, Json)| {
        schema["properties"][tag] = json!({ "const": word });
        let mut required = vec![Json::from(tag)];
        required.extend(schema["required"].as_array().into_iter().flatten().cloned());
        schema["required"] = required.into();
        schema
    };
    json!({ "oneOf": variants.into_iter().map(with_tag).collect::<Vec<_>>() })
}
