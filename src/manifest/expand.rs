//! From one tree to arms with steps: the sweep is unfolded first, then the
//! rounds of each arm.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Origin, Span, Table, Value},
    reference,
    seed::Seed,
    spec::{Field, Names, Reading},
    text,
};
use crate::manifest::{
    Execution, Findings, Head, Language, Machine, Manifest, Precision, STEPS, compare, execution,
    read_head,
    rounds::{Round, in_round},
    sweep::Sweep,
};
use std::collections::HashMap;

/// One combination of the sweep's values, with all its steps.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Axis and label, in the order of the axes.
    pub coords: Vec<(String, String)>,
    /// The seed that all randomness of this arm is derived from.
    pub seed: Seed,
    /// The head of the manifest in this arm.
    pub head: Head,
    /// The steps: data sets, then stages, in order of declaration, with
    /// neighbouring steps of one round together.
    pub steps: Vec<Declared>,
    /// What references may name.
    pub names: Names,
    pub(super) root: Node,
    torn: bool,
}

/// A step as written.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its full name: `base`, or `round2.answers`.
    pub name: String,
    /// The name of its table.
    pub base: String,
    /// Its round, when it runs in each.
    pub round: Option<u32>,
    /// `dataset` or `stage`.
    pub section: &'static str,
    /// Its kind and where that is written.
    pub kind: (String, Span),
    /// Its fields as they are in this arm and round.
    pub table: Node,
    /// What it says of how it is run, where it says anything.
    pub execution: Option<Node>,
    /// Its place among the arm's steps.
    pub order: usize,
}

impl Arm {
    /// Keeps the steps at these places, which ascend, and forgets the others;
    /// references to them go on to be understood.
    pub fn keep(&mut self, places: &[usize]) {
        let mut places = places.iter().copied().peekable();
        let mut here = 0..;
        self.steps.retain(|_| here.next().is_some_and(|at| places.next_if_eq(&at).is_some()));
    }

    /// The coordinates in one line: `seed=3, start=restart`.
    pub fn label(&self) -> String {
        let parts: Vec<_> =
            self.coords.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
        parts.join(", ")
    }

    /// A reader for this arm's tables, with its shared tables and steps.
    pub fn reading(&self) -> Reading<'_> {
        static NONE: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::default);
        let table = self.root.table().unwrap_or(&NONE);
        Reading::new(table).with_names(&self.names).with_torn(self.torn)
    }

    /// Reads one step's table with `read`, such as a spec's `parse`.
    pub fn read<'a, T>(
        &'a self,
        step: &Declared,
        cx: &mut Reading<'a>,
        read: impl FnOnce(&Node, &mut Reading<'a>) -> T,
    ) -> T {
        let path = format!("{}.{}", step.section, step.base);
        cx.within(&path, step.round, |cx| cx.beside(execution::shared_fields(), &step.table, read))
    }

    /// Reads how a step is to be run.
    pub fn execution<'a>(&'a self, step: &Declared, cx: &mut Reading<'a>) -> Option<Execution> {
        let Some(node) = &step.execution else { return Some(Execution::default()) };
        let path = format!("{}.{}", step.section, step.base);
        cx.within(&path, step.round, |cx| Execution::parse(node, cx))
    }

    /// Reads what steps may take of the machine.
    pub fn machine(&self, cx: &mut Reading) -> Option<Machine> {
        let node = self.root.at(["resources"])?;
        cx.within("resources", None, |cx| Machine::parse(node, cx))
    }

    /// Reads what the manifest wants to see in the end.
    pub fn findings(&self, cx: &mut Reading) -> Findings {
        Findings::read(&self.root, cx)
    }
}

/// Unfolds sweep and rounds.
pub fn expand(manifest: &Manifest, language: &Language) -> (Vec<Arm>, Diagnostics) {
    let mut found = Diagnostics::default();
    let sweep = Sweep::read(&manifest.root, language, &mut found);
    let is_resource = |key: &str| language.resources.iter().any(|one| one.section == key);
    let resources_differ = sweep.touches(is_resource);
    let mut arms = Vec::new();
    for (i, values) in sweep.arms.iter().enumerate() {
        let mut root = manifest.root.clone();
        sweep.apply(values, &mut root);
        let arm = arm(root, sweep.coords(values), manifest.whole, language, &mut found);
        let mut cx = arm.reading();
        if i == 0 || resources_differ {
            check_resources(&arm.root, language, &mut cx);
        }
        if i == 0 {
            arm.machine(&mut cx);
            arm.findings(&mut cx);
        }
        found.extend(cx.finish());
        arms.push(arm);
    }
    // A sweep that could not be read must not hide the mistakes of the steps.
    if sweep.arms.is_empty() {
        let arm = arm(manifest.root.clone(), Vec::new(), manifest.whole, language, &mut found);
        let mut cx = arm.reading();
        check_resources(&arm.root, language, &mut cx);
        arm.machine(&mut cx);
        arm.findings(&mut cx);
        found.extend(cx.finish());
        arms.push(arm);
    }
    compare::check_arms(&arms, &mut found);
    (arms, found)
}

fn check_resources(root: &Node, language: &Language, cx: &mut Reading) {
    for resource in &language.resources {
        let tables = root.at([resource.section]).and_then(Node::table);
        for (name, entry) in tables.into_iter().flat_map(Table::iter) {
            if entry.node.table().is_some() {
                let path = format!("{}.{name}", resource.section);
                cx.within(&path, None, |cx| (resource.check)(&entry.node, cx));
            }
        }
    }
}

fn arm(
    root: Node,
    coords: Vec<(String, String)>,
    whole: bool,
    language: &Language,
    found: &mut Diagnostics,
) -> Arm {
    let empty = Table::default();
    let mut cx = Reading::new(&empty).with_torn(!whole);
    let head = read_head(&root, &mut cx).unwrap_or_else(|| fallback(&root));
    found.extend(cx.finish());
    let mut unfolding =
        Unfolding { language, found, torn: !whole, names: Names::default(), steps: Vec::new() };
    unfolding.names.rounds = u32::try_from(head.rounds).unwrap_or(0);
    unfolding.all(&root);
    let Unfolding { names, steps, .. } = unfolding;
    Arm { coords, seed: Seed(head.seed), head, steps, names, root, torn: !whole }
}

/// A head to go on with when the written one cannot be read.
fn fallback(root: &Node) -> Head {
    let rounds = root.at(["rounds"]).and_then(Node::int).unwrap_or(1).clamp(0, 100);
    let name = root.at(["name"]).and_then(Node::text).unwrap_or("unnamed").to_owned();
    Head {
        rekindle: crate::manifest::VERSION,
        name,
        description: None,
        seed: 0,
        rounds: rounds.unsigned_abs(),
        results: None,
        device: None,
        precision: Precision::Auto,
    }
}

/// A step's table without what this floor reads of it.
struct Bare {
    section: &'static str,
    base: String,
    each: bool,
    kind: (String, Span),
    table: Node,
    execution: Option<Node>,
}

struct Unfolding<'a> {
    language: &'a Language,
    found: &'a mut Diagnostics,
    torn: bool,
    names: Names,
    steps: Vec<Declared>,
}

impl Unfolding<'_> {
    fn all(&mut self, root: &Node) {
        let sections = STEPS.iter().filter_map(|section| root.at([*section])?.table());
        let count = sections.map(Table::len).sum();
        let mut bare = Vec::with_capacity(count);
        self.steps.reserve(count);
        let mut places: HashMap<&str, &Origin> = HashMap::with_capacity(count);
        for section in STEPS {
            let tables = root.at([section]).and_then(Node::table);
            for (name, entry) in tables.into_iter().flat_map(Table::in_order) {
                if let Some(before) = places.insert(name, &entry.key) {
                    let message = format!("there are two steps called `{name}`");
                    let error =
                        Diagnostic::error(message).at(&entry.key).near(before, "the other one");
                    self.found.push(error);
                    continue;
                }
                bare.extend(self.bare(section, name, &entry.key, &entry.node));
            }
        }
        // Steps in rounds that stand together are unfolded together.
        for run in bare.chunk_by(|a, b| a.each == b.each) {
            if !run[0].each {
                run.iter().for_each(|step| self.declare(step, None));
                continue;
            }
            for number in 1..=self.names.rounds {
                let round = Round { number, of: self.names.rounds };
                run.iter().for_each(|step| self.declare(step, Some(round)));
            }
        }
    }

    /// Reads name, `kind` and `each` of a step; its name is known from then on
    /// even if the rest is wrong.
    fn bare(
        &mut self,
        section: &'static str,
        name: &str,
        key: &Origin,
        node: &Node,
    ) -> Option<Bare> {
        let table = node.table()?;
        let each = self.each(section, name, table);
        self.names.steps.insert(name.to_owned(), each);
        self.check_name(name, key);
        let kind = self.kind(section, name, node, table)?;
        let mut rest = table.clone();
        rest.remove("kind");
        rest.remove("each");
        let execution = execution::take(&mut rest, &node.origin);
        let table = Node::new(node.origin.clone(), Value::Table(rest));
        Some(Bare { section, base: name.to_owned(), each, kind, table, execution })
    }

    fn check_name(&mut self, name: &str, key: &Origin) {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(good) {
            let message = format!("`{name}` is no name for a step");
            let hint = "names are made of letters, digits, `-` and `_`";
            self.found.push(Diagnostic::error(message).at(key).hint(hint));
        }
        let reserved = ["last", "rounds", "previous", "first"];
        if reserved.contains(&name) || reference::round_number(name).is_some() {
            let message = format!("a step cannot be called `{name}`");
            let hint = "references use this word for rounds";
            self.found.push(Diagnostic::error(message).at(key).hint(hint));
        }
    }

    fn each(&mut self, section: &str, name: &str, table: &Table) -> bool {
        let Some(each) = table.get("each") else { return false };
        if each.text() != Some("round") {
            let message = format!("`{section}.{name}.each` can only be `\"round\"`");
            self.found.push(Diagnostic::error(message).at(&each.origin));
        }
        true
    }

    fn kind(
        &mut self,
        section: &str,
        name: &str,
        node: &Node,
        table: &Table,
    ) -> Option<(String, Span)> {
        let of_section = |section: &str| {
            let kinds = self.language.kinds.iter().filter(move |kind| kind.section == section);
            kinds.map(|kind| kind.name).collect::<Vec<_>>()
        };
        let kinds = of_section(section);
        let Some(kind) = table.get("kind") else {
            if !self.torn {
                let hint = format!("kinds of a {section}: {}", text::list(kinds));
                let message = format!("`{section}.{name}` lacks `kind`");
                self.found.push(Diagnostic::error(message).at(&node.origin).hint(hint));
            }
            return None;
        };
        let Some(word) = kind.text() else {
            let message =
                format!("`{section}.{name}.kind` wants a string, but this is {}", kind.what());
            self.found.push(Diagnostic::error(message).at(&kind.origin));
            return None;
        };
        if kinds.contains(&word) {
            return Some((word.to_owned(), kind.origin.span.clone()));
        }
        let other = STEPS.iter().find(|other| of_section(other).contains(&word));
        let hint = match other {
            Some(other) => {
                format!("`{word}` is a kind of {other}: call this table `[{other}.{name}]`")
            }
            None => text::suggestion(word, &format!("kinds of a {section}"), kinds),
        };
        let message = format!("there is no kind of {section} called `{word}`");
        self.found.push(Diagnostic::error(message).at(&kind.origin).hint(hint));
        None
    }

    fn declare(&mut self, step: &Bare, round: Option<Round>) {
        let mut of_round =
            |node: &Node| in_round(node, round, self.found).unwrap_or_else(|| node.clone());
        let (table, execution) = (of_round(&step.table), step.execution.as_ref().map(of_round));
        let name = match round {
            Some(round) => format!("round{}.{}", round.number, step.base),
            None => step.base.clone(),
        };
        self.steps.push(Declared {
            name,
            base: step.base.clone(),
            round: round.map(|round| round.number),
            section: step.section,
            kind: step.kind.clone(),
            table,
            execution,
            order: self.steps.len(),
        });
    }
}
