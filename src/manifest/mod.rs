//! What a user asked for: TOML text in, a plain list of arms with declared
//! steps out, with every mistake told at its place.
//!
//! The way of a manifest: [`Manifest::read`] gathers the file, what it extends
//! and `--set` into one tree; [`Manifest::expand`] unfolds the sweep into
//! [`Arm`]s and the rounds into [`Declared`] steps. What the fields of a step
//! mean is not known here: the floors above read each step's table through
//! [`Arm::read`], and tell this floor only the names and schemas of their
//! kinds ([`Language`]).

pub mod compare;
pub mod execution;
pub mod expand;
pub mod findings;
mod parse;
mod plain;
mod resolved;
mod rounds;
mod schema;
mod source;
mod sweep;
#[cfg(test)]
mod tests;

pub use compare::{Compare, Expect};
pub use execution::{Devices, Execution, Machine, Needs};
pub use expand::{Arm, Declared};
pub use findings::{Accept, Findings, Metric, Report, ReportModel, Target};
pub use schema::schema;

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Sources, Table},
    spec::{Field, FieldDoc, Reading, Resource, choice, spec},
    text,
};
use source::{Gathering, Loader};

/// The version of the language that this program reads.
pub const VERSION: i64 = 1;

/// What the floors above tell of a kind of step.
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// Its name, such as `generate`.
    pub name: &'static str,
    /// `dataset` or `stage`.
    pub section: &'static str,
    /// Its fields, for people.
    pub fields: fn() -> Vec<FieldDoc>,
    /// The JSON Schema of its table without `kind` and `each`.
    pub schema: fn() -> serde_json::Value,
}

/// What the floors above tell of a kind of shared table.
#[derive(Clone, Copy)]
pub struct ResourceInfo {
    /// Its section, such as `protocol`.
    pub section: &'static str,
    /// The JSON Schema of one table.
    pub schema: fn() -> serde_json::Value,
    /// Reads one only for the mistakes in it.
    pub check: fn(&Node, &mut Reading),
}

impl ResourceInfo {
    /// The description of a resource type.
    pub const fn of<T: Resource>() -> ResourceInfo {
        let check = |node: &Node, cx: &mut Reading| drop(T::parse(node, cx));
        ResourceInfo { section: T::SECTION, schema: T::schema, check }
    }
}

/// The words that the floors above add to the language.
#[derive(Clone, Default)]
pub struct Language {
    /// Kinds of steps.
    pub kinds: Vec<KindInfo>,
    /// Kinds of shared tables.
    pub resources: Vec<ResourceInfo>,
}

choice! {
    /// What a device rounds the operands and results of matrix products to. All else is f32:
    /// weights that learn, moments, norms, softmax, losses, gradients between products.
    pub enum Precision {
        /// bf16 on a CUDA card that has it, f32 everywhere else.
        Auto = "auto",
        /// Nothing is rounded.
        F32 = "f32",
        /// Half the memory of f32 and many times its speed on a graphics card; slow on a processor.
        Bf16 = "bf16",
    }
}

spec! {
    /// The head of a manifest.
    #[check(check_head)]
    pub struct Head {
        /// Version of this language; 1.
        rekindle: i64,
        /// Name of the experiment, and of its folder of results.
        name: String,
        /// What it is about.
        description: Option<String>,
        /// The seed that all randomness is derived from.
        seed: u64 = 0,
        /// How often steps with `each = "round"` run.
        rounds: u64 = 0,
        /// Folder that reports are written to; `results/<name>` when absent.
        results: Option<String>,
        /// Device to run on: `auto`, `cpu`, `wgpu`, `cuda` or `cuda:<n>`.
        device: Option<String>,
        /// What that device computes matrix products in.
        precision: Precision = Precision::Auto,
    }
}

impl Head {
    /// A device with the precision that goes with it, in one word: `cpu`, or
    /// `cpu/bf16`. One that has its own keeps it.
    pub fn on(&self, device: &str) -> String {
        match self.precision {
            _ if device.contains('/') => device.to_owned(),
            Precision::Auto => device.to_owned(),
            asked => format!("{device}/{}", asked.name()),
        }
    }
}

/// Sections of the language itself, beside the head and the shared tables.
const SECTIONS: [&str; 8] =
    ["extends", "sweep", "resources", "compare", "target", "report", "dataset", "stage"];
/// Sections whose tables are steps.
const STEPS: [&str; 2] = ["dataset", "stage"];
/// More rounds than this are taken for a slip.
const MOST_ROUNDS: u64 = 10_000;

/// A manifest with everything it extends, before its sweep is unfolded.
#[derive(Debug)]
pub struct Manifest {
    root: Node,
    /// Whether no text had a mistake of syntax.
    whole: bool,
}

impl Manifest {
    /// Reads the manifest `entry` with all that it extends, and lays `sets`
    /// (`path=value`) over it. There is a manifest whenever the file could be
    /// loaded, so that its other mistakes can be told along with those of
    /// syntax; nothing may run when the diagnostics hold errors.
    pub fn read(
        loader: &Loader<'_>,
        entry: &str,
        sets: &[String],
        language: &Language,
    ) -> (Option<Manifest>, Sources, Diagnostics) {
        let (sources, found) = (Sources::default(), Diagnostics::default());
        let mut gathering = Gathering { loader, sources, found, whole: true };
        let Some(mut root) = gathering.file(entry, None, &mut Vec::new()) else {
            return (None, gathering.sources, gathering.found);
        };
        for set in sets {
            gathering.set(&mut root, set, language);
        }
        let Gathering { sources, mut found, whole, .. } = gathering;
        check_top(&root, language, &mut found);
        (Some(Manifest { root, whole }), sources, found)
    }

    /// The tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Unfolds sweep and rounds.
    pub fn expand(&self, language: &Language) -> (Vec<Arm>, Diagnostics) {
        expand::expand(self, language)
    }
}

/// Reads the head; keys of other sections are not its business.
fn read_head(root: &Node, cx: &mut Reading) -> Option<Head> {
    let mut head = Table::default();
    for field in <Head as crate::base::spec::Spec>::fields() {
        if let Some(entry) = root.table().and_then(|table| table.entry(&field.name)) {
            head.insert(field.name, entry.key.clone(), entry.node.clone());
        }
    }
    let node = Node::new(root.origin.clone(), crate::base::node::Value::Table(head));
    cx.within("manifest", None, |cx| Head::parse(&node, cx))
}

fn check_head(head: &Head, node: &Node, cx: &mut Reading) {
    let origin = |key: &str| node.at([key]).unwrap_or(node).origin.clone();
    if head.rekindle != VERSION {
        let message =
            format!("this program reads version {VERSION} of the language, not {}", head.rekindle);
        cx.error(&origin("rekindle"), message);
    }
    if head.rounds > MOST_ROUNDS {
        cx.error(&origin("rounds"), format!("`rounds` is at most {}", text::count(MOST_ROUNDS)));
    }
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if head.name.is_empty() || head.name.starts_with('.') || head.name.contains(bad) {
        let message = "`name` is also the name of a folder: no `/`, no leading `.`, not empty";
        cx.error(&origin("name"), message);
    }
}

/// The keys that the top of a manifest may have.
fn top_keys(language: &Language) -> Vec<String> {
    let head = <Head as crate::base::spec::Spec>::fields().into_iter().map(|field| field.name);
    let resources = language.resources.iter().map(|resource| resource.section.to_owned());
    head.chain(SECTIONS.iter().map(|key| (*key).to_owned())).chain(resources).collect()
}

/// Refuses unknown keys at the top, and sections that are no tables of tables.
fn check_top(root: &Node, language: &Language, found: &mut Diagnostics) {
    let known = top_keys(language);
    for (key, entry) in root.table().into_iter().flat_map(Table::iter) {
        if !known.iter().any(|known| known == key) {
            let kind = language.kinds.iter().any(|kind| kind.name == key);
            let hint = match kind {
                true => {
                    format!("`{key}` is a kind: give a step of your own name `kind = \"{key}\"`")
                }
                false => text::suggestion(key, "keys here", known.iter().map(String::as_str)),
            };
            let message = format!("unknown key `{key}` at the top of the manifest");
            found.push(Diagnostic::error(message).at(&entry.key).hint(hint));
            continue;
        }
        let resource = language.resources.iter().any(|resource| resource.section == key);
        if !resource && !STEPS.contains(&key) {
            continue;
        }
        let Some(section) = entry.node.table() else {
            let message = format!(
                "`{key}` wants named tables `[{key}.<name>]`, but this is {}",
                entry.node.what()
            );
            found.push(Diagnostic::error(message).at(&entry.node.origin));
            continue;
        };
        for (name, inner) in section.iter().filter(|(_, inner)| inner.node.table().is_none()) {
            let message =
                format!("`{key}.{name}` wants a table, but this is {}", inner.node.what());
            let error = Diagnostic::error(message).at(&inner.node.origin);
            found.push(
                error.hint(format!(
                    "a table in this section has a name of its own: `[{key}.<name>]`"
                )),
            );
        }
    }
}
