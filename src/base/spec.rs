//! Typed parameters. One declaration with [`spec!`] gives a struct, its
//! reading with every mistake told, its documentation, its JSON Schema, its
//! canonical identity and its references to other steps.
//!
//! ```text
//! spec! {
//!     /// One paragraph of documentation for the kind.
//!     pub struct Generate {
//!         /// Model that answers.
//!         model: Ref<Model>,              // no default: required, unless an Option
//!         /// Softmax temperature; 0 is greedy.
//!         temperature: f64 = 0.7,
//!         /// Never enters the identity.
//!         #[exec]
//!         batch: u64 = 64,
//!     }
//! }
//! ```
//!
//! On the struct, in this order: `#[shorthand(from)]` lets a bare value stand
//! for a table with that one field; `#[check(function)]` calls
//! `fn(&Self, &Node, &mut Reading)` on what was read; `#[spread(function)]`,
//! `fn(&Node, &Reading) -> Option<Vec<Node>>`, lets one element of a list stand
//! for several. Names in TOML are the
//! Rust names in kebab-case. Closed sets of words are declared with
//! [`choice!`], tables whose fields depend on a word with [`one_of!`].

pub use crate::base::{
    encode::Encoder,
    field::{Resource, Use},
    reading::Reading,
    reference::{InputRef, Names, Ref},
};

use crate::base::node::Node;
use serde_json::Value as Json;
use std::{borrow::Cow, fmt::Debug};

/// A type that a manifest's value can be read as.
pub trait Field: Sized + Clone + PartialEq + Debug {
    /// Reads it; `None` when a mistake was noted.
    fn parse(node: &Node, cx: &mut Reading) -> Option<Self>;
    /// Writes what belongs to the identity.
    fn encode(&self, out: &mut Encoder);
    /// Its JSON Schema.
    fn schema() -> Json;
    /// What it is, for messages: "a number".
    fn type_name() -> String;
    /// The value as a manifest would have it.
    fn json(&self) -> Json;
    /// The value in one line.
    fn show(&self) -> String {
        self.json().to_string()
    }
    /// Its references, `role` being the name of this field.
    fn inputs(&self, _role: &str, _out: &mut Vec<InputRef>) {}
    /// The value of an absent field, where absence has a meaning.
    fn absent() -> Option<Self> {
        None
    }
    /// The elements that one written element of a list stands for, if not itself.
    fn spread(_node: &Node, _cx: &Reading) -> Option<Vec<Node>> {
        None
    }
}

/// A struct declared with [`spec!`].
pub trait Spec: Field {
    /// Its documentation.
    fn doc() -> &'static str;
    /// Its fields in order.
    fn fields() -> Vec<FieldDoc>;

    /// Its canonical text.
    fn identity(&self) -> String {
        let mut out = Encoder::new();
        self.encode(&mut out);
        out.finish()
    }

    /// All its references.
    fn references(&self) -> Vec<InputRef> {
        let mut out = Vec::new();
        self.inputs("", &mut out);
        out.shrink_to_fit(); // kept for every step, mostly one or two
        out
    }
}

/// One field, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDoc {
    /// Its name in a manifest.
    pub name: String,
    /// What it is: "a number".
    pub type_name: String,
    /// Its default as text; `None` when it has none.
    pub default: Option<String>,
    /// Whether a manifest must give it.
    pub required: bool,
    /// Its documentation.
    pub doc: String,
    /// Whether it only says how to run, and is no part of the identity.
    pub exec: bool,
}

/// A Rust name as it is written in a manifest.
pub fn kebab(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("r#").unwrap_or(name);
    if name.contains('_') { name.replace('_', "-").into() } else { name.into() }
}

/// Documentation lines without their indentation; paragraphs stay apart.
pub fn tidy(doc: &str) -> String {
    let lines: Vec<&str> = doc.trim().lines().map(str::trim).collect();
    lines.join("\n")
}

/// The role of a part in the role of its whole.
pub fn role_of(whole: &str, part: &str) -> String {
    if whole.is_empty() { part.to_owned() } else { format!("{whole}.{part}") }
}

/// Declares a struct of parameters; see the head of this module.
macro_rules! spec {
    (
        $(#[doc = $doc:literal])+
        $(#[shorthand($short:ident)])?
        $(#[check($check:path)])?
        $(#[spread($spread:path)])?
        pub struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])+
                $(#[exec $($exec:literal)?])?
                $field:ident : $ty:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $field_doc])+ pub $field: $ty,)* }

        impl $crate::base::spec::Field for $name {
            fn parse(
                node: &$crate::base::node::Node,
                cx: &mut $crate::base::spec::Reading,
            ) -> Option<$name> {
                let short: &[&str] = &[$(stringify!($short))?];
                let wrapped = $crate::base::field::open_table::<$name>(node, short, cx)?;
                let node = wrapped.as_ref().unwrap_or(node);
                if let Some(table) = node.table() {
                    cx.refuse_unknown(table, &[$(stringify!($field)),*]);
                }
                $(let $field: Option<$ty> = cx.field(
                    node,
                    stringify!($field),
                    !short.contains(&stringify!($field)),
                    // The first of the two is the one there is.
                    [$(Some((|| $default) as fn() -> $ty),)? None::<fn() -> $ty>][0],
                    concat!($($field_doc, "\n"),+),
                );)*
                let value = $name { $($field: $field?),* };
                $($check(&value, node, cx);)?
                Some(value)
            }

            fn encode(&self, out: &mut $crate::base::spec::Encoder) {
                out.group("{}", |out| {
                    $({
                        let default = [$(Some((|| $default) as fn() -> $ty),)? None::<fn() -> $ty>][0];
                        let exec = [$($($exec)? true,)? false][0];
                        let is_default = default.is_some_and(|make| make() == self.$field);
                        if !exec && !is_default {
                            let name = $crate::base::spec::kebab(stringify!($field));
                            out.field(&name, |out| {
                                $crate::base::spec::Field::encode(&self.$field, out)
                            });
                        }
                    })*
                    let _ = &out;
                });
            }

            fn schema() -> serde_json::Value {
                let mut properties = serde_json::Map::new();
                $({
                    let mut schema = <$ty as $crate::base::spec::Field>::schema();
                    let default = [$(Some((|| $default) as fn() -> $ty),)? None::<fn() -> $ty>][0];
                    $crate::base::field::describe(
                        &mut schema,
                        concat!($($field_doc, "\n"),+),
                        default.map(|make| $crate::base::spec::Field::json(&make())),
                    );
                    properties.insert($crate::base::spec::kebab(stringify!($field)).into_owned(), schema);
                })*
                let short: &[&str] = &[$(stringify!($short))?];
                let fields = <$name as $crate::base::spec::Spec>::fields();
                $crate::base::field::table_schema(
                    <$name as $crate::base::spec::Spec>::doc(), properties, &fields, short)
            }

            fn type_name() -> String {
                let short: &[&str] = &[$(stringify!($short))?];
                let parts: &[fn() -> String] =
                    &[$(<$ty as $crate::base::spec::Field>::type_name),*];
                let names = [$(stringify!($field)),*];
                match names.iter().position(|name| short.contains(name)) {
                    Some(at) => format!("{} or a table", parts[at]()),
                    None => "a table".to_owned(),
                }
            }

            fn json(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $({
                    let value = $crate::base::spec::Field::json(&self.$field);
                    if !value.is_null() {
                        map.insert($crate::base::spec::kebab(stringify!($field)).into_owned(), value);
                    }
                })*
                map.into()
            }

            fn inputs(&self, role: &str, out: &mut Vec<$crate::base::spec::InputRef>) {
                let short: &[&str] = &[$(stringify!($short))?];
                $({
                    let role = match short.contains(&stringify!($field)) {
                        true => role.to_owned(),
                        false => $crate::base::spec::role_of(
                            role, &$crate::base::spec::kebab(stringify!($field))),
                    };
                    $crate::base::spec::Field::inputs(&self.$field, &role, out);
                })*
                let _ = (role, out, short);
            }

            fn spread(
                node: &$crate::base::node::Node,
                cx: &$crate::base::spec::Reading,
            ) -> Option<Vec<$crate::base::node::Node>> {
                $(if let Some(several) = $spread(node, cx) {
                    return Some(several);
                })?
                let short: &[&str] = &[$(stringify!($short))?];
                $({
                    if short.contains(&stringify!($field)) {
                        return $crate::base::field::spread_part::<$ty>(
                            node, &$crate::base::spec::kebab(stringify!($field)), cx);
                    }
                })*
                let _ = (node, cx, short);
                None
            }
        }

        impl $crate::base::spec::Spec for $name {
            fn doc() -> &'static str {
                static DOC: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
                    $crate::base::spec::tidy(concat!($($doc, "\n"),+))
                });
                &DOC
            }

            fn fields() -> Vec<$crate::base::spec::FieldDoc> {
                vec![$({
                    let default = [$(Some((|| $default) as fn() -> $ty),)? None::<fn() -> $ty>][0];
                    let absent = <$ty as $crate::base::spec::Field>::absent();
                    $crate::base::spec::FieldDoc {
                        name: $crate::base::spec::kebab(stringify!($field)).into_owned(),
                        type_name: <$ty as $crate::base::spec::Field>::type_name(),
                        default: default.map(|make| $crate::base::spec::Field::show(&make())),
                        required: default.is_none() && absent.is_none(),
                        doc: $crate::base::spec::tidy(concat!($($field_doc, "\n"),+)),
                        exec: [$($($exec)? true,)? false][0],
                    }
                }),*]
            }
        }
    };
}

/// Declares an enum that is written as one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident { $($(#[doc = $word_doc:literal])+ $word:ident = $text:literal),* $(,)? }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $word_doc])+ $word,)* }

        impl $name {
            /// All of them in order.
            pub const ALL: &[$name] = &[$($name::$word),*];

            /// The word.
            pub fn name(self) -> &'static str {
                match self { $($name::$word => $text,)* }
            }
        }

        impl $crate::base::spec::Field for $name {
            fn parse(
                node: &$crate::base::node::Node,
                cx: &mut $crate::base::spec::Reading,
            ) -> Option<$name> {
                let at = $crate::base::field::word(node, &[$($text),*], cx)?;
                Some($name::ALL[at])
            }

            fn encode(&self, out: &mut $crate::base::spec::Encoder) {
                out.text(self.name());
            }

            fn schema() -> serde_json::Value {
                let words = [$(($text, concat!($($word_doc, "\n"),+))),*];
                $crate::base::field::word_schema(&words)
            }

            fn type_name() -> String {
                format!("one of {}", $crate::base::text::list([$($text),*]))
            }

            fn json(&self) -> serde_json::Value {
                self.name().into()
            }
        }
    };
}

/// Declares an enum of specs that is written as a table with one key that
/// names the variant: `pub enum Annotator by "kind" { Reference(Reference) = "reference" }`.
macro_rules! one_of {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident by $tag:literal {
            $($(#[doc = $case_doc:literal])+ $case:ident($inner:ty) = $text:literal),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        // There are a few of them in a manifest: no size is worth a box.
        #[allow(clippy::large_enum_variant)]
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($(#[doc = $case_doc])+ $case($inner),)* }

        impl $crate::base::spec::Field for $name {
            fn parse(
                node: &$crate::base::node::Node,
                cx: &mut $crate::base::spec::Reading,
            ) -> Option<$name> {
                let (word, rest) = $crate::base::field::tagged(node, $tag, &[$($text),*], cx)?;
                match word {
                    $($text => <$inner as $crate::base::spec::Field>::parse(&rest, cx).map($name::$case),)*
                    _ => None,
                }
            }

            fn encode(&self, out: &mut $crate::base::spec::Encoder) {
                match self {
                    $($name::$case(inner) => {
                        out.field($tag, |out| out.text($text));
                        $crate::base::spec::Field::encode(inner, out);
                    })*
                }
            }

            fn schema() -> serde_json::Value {
                $crate::base::field::tagged_schema(
                    $tag,
                    vec![$(($text, <$inner as $crate::base::spec::Field>::schema())),*],
                )
            }

            fn type_name() -> String {
                "a table".to_owned()
            }

            fn json(&self) -> serde_json::Value {
                match self {
                    $($name::$case(inner) => {
                        let mut json = $crate::base::spec::Field::json(inner);
                        json[$tag] = $text.into();
                        json
                    })*
                }
            }

            fn inputs(&self, role: &str, out: &mut Vec<$crate::base::spec::InputRef>) {
                match self {
                    $($name::$case(inner) => $crate::base::spec::Field::inputs(inner, role, out),)*
                }
            }
        }
    };
}

pub(crate) use {choice, one_of, spec};
