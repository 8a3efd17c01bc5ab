//! The sweep: axes with labelled values, and the combinations of them that
//! become arms. The first axis varies slowest; `zip` ties axes together,
//! `exclude` takes combinations out, then `include` adds some.

use crate::base::{
    diag::{Diagnostic, Diagnostics},
    node::{Node, Origin, Table, Value},
    text,
};
use crate::manifest::{Language, STEPS, source, top_keys};
use std::collections::{BTreeMap, BTreeSet};

/// More arms than this are taken for a slip.
const MOST_ARMS: usize = 100_000;

/// One axis.
#[derive(Debug)]
pub(crate) struct Axis {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Vec<AxisValue>,
    origin: Origin,
}

/// One value of an axis.
#[derive(Debug)]
pub(crate) struct AxisValue {
    /// Its name in the coordinates of an arm.
    pub label: String,
    sets: Vec<(String, Node)>,
}

/// A sweep: its axes, and for every arm the number of the value on each.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The axes in order of declaration.
    pub axes: Vec<Axis>,
    /// The combinations.
    pub arms: Vec<Vec<usize>>,
}

impl Sweep {
    /// Reads `[sweep]`; without one there is a single arm without coordinates.
    pub(crate) fn read(root: &Node, language: &Language, found: &mut Diagnostics) -> Sweep {
        let mut reader = Reader { root, language, found };
        let Some(node) = root.at(["sweep"]) else {
            return Sweep { axes: Vec::new(), arms: vec![Vec::new()] };
        };
        let Some(table) = reader.table(node, "sweep") else { return Sweep::default() };
        reader.refuse_unknown(table, "sweep", &["axes", "zip", "include", "exclude"]);
        let mut axes = Vec::new();
        if let Some(node) = table.get("axes")
            && let Some(table) = reader.table(node, "sweep.axes")
        {
            reader.axes(table, "", &mut axes);
        }
        let groups = reader.groups(&axes, table.get("zip"));
        let exclude = reader.patterns(&axes, table.get("exclude"), "exclude");
        let include = reader.patterns(&axes, table.get("include"), "include");
        let arms = reader.arms(&axes, &groups, &exclude, &include);
        if arms.is_empty() && !reader.found.has_errors() {
            reader.found.push(Diagnostic::error("the sweep leaves no arm").at(&node.origin));
        }
        Sweep { axes, arms }
    }

    /// The names of axes and values of an arm.
    pub(crate) fn coords(&self, arm: &[usize]) -> Vec<(String, String)> {
        let one = |(axis, at): (&Axis, &usize)| (axis.name.clone(), axis.values[*at].label.clone());
        self.axes.iter().zip(arm).map(one).collect()
    }

    /// Lays the values of an arm over the tree.
    pub(crate) fn apply(&self, arm: &[usize], root: &mut Node) {
        for (axis, at) in self.axes.iter().zip(arm) {
            for (path, value) in &axis.values[*at].sets {
                let path: Vec<&str> = path.split('.').collect();
                source::set_path(root, &path, value.clone());
            }
        }
    }

    /// Whether any axis sets something in one of these sections.
    pub(crate) fn touches(&self, is_section: impl Fn(&str) -> bool) -> bool {
        let values = self.axes.iter().flat_map(|axis| &axis.values);
        values
            .flat_map(|value| &value.sets)
            .any(|(path, _)| is_section(path.split('.').next().unwrap_or_default()))
    }
}

/// For each axis the values a pattern allows, and where it was written.
struct Pattern {
    allowed: Vec<Option<BTreeSet<usize>>>,
    origin: Origin,
}

struct Reader<'a> {
    root: &'a Node,
    language: &'a Language,
    found: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn fail(&mut self, origin: &Origin, message: impl Into<String>, hint: &str) {
        let error = Diagnostic::error(message).at(origin);
        self.found.push(if hint.is_empty() { error } else { error.hint(hint) });
    }

    fn wants(&mut self, node: &Node, path: &str, wanted: &str) {
        let message = format!("`{path}` wants {wanted}, but this is {}", node.what());
        self.fail(&node.origin, message, "");
    }

    fn table<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n Table> {
        if node.table().is_none() {
            self.wants(node, path, "a table");
        }
        node.table()
    }

    fn list<'n>(&mut self, node: &'n Node, path: &str) -> &'n [Node] {
        if node.array().is_none() {
            self.wants(node, path, "a list");
        }
        node.array().unwrap_or_default()
    }

    fn refuse_unknown(&mut self, table: &Table, path: &str, known: &[&str]) {
        for (key, entry) in table.iter().filter(|(key, _)| !known.contains(key)) {
            let hint = text::suggestion(key, "keys here", known.iter().copied());
            self.fail(&entry.key, format!("unknown key `{key}` in `{path}`"), &hint);
        }
    }

    /// Reads axes; tables without `values` are parts of a dotted name.
    fn axes(&mut self, table: &Table, prefix: &str, axes: &mut Vec<Axis>) {
        for (key, entry) in table.in_order() {
            let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            let (paths, values) = match &entry.node.value {
                Value::Array(_) => (vec![name.clone()], Some(&entry.node)),
                Value::Table(inner) if inner.get("values").is_some() => {
                    self.refuse_unknown(
                        inner,
                        &format!("sweep.axes.{name}"),
                        &["path", "paths", "values"],
                    );
                    (self.paths(inner, &name), inner.get("values"))
                }
                Value::Table(inner)
                    if inner.get("path").is_some() || inner.get("paths").is_some() =>
                {
                    let message = format!("axis `{name}` lacks `values`");
                    self.fail(&entry.node.origin, message, "");
                    continue;
                }
                Value::Table(inner) => {
                    self.axes(inner, &name, axes);
                    continue;
                }
                _ => {
                    self.wants(&entry.node, &format!("sweep.axes.{name}"), "a list of values");
                    continue;
                }
            };
            let mut axis = Axis { name, values: Vec::new(), origin: entry.key.clone() };
            for value in values.map(|node| self.list(node, "values")).unwrap_or_default() {
                self.value(value, &paths, &mut axis);
            }
            if values.and_then(Node::array).is_some_and(<[Node]>::is_empty) {
                self.fail(&axis.origin, format!("axis `{}` has no values", axis.name), "");
            }
            axes.push(axis);
        }
    }

    fn paths(&mut self, table: &Table, name: &str) -> Vec<String> {
        let written: Vec<&Node> = match (table.get("path"), table.get("paths")) {
            (Some(path), _) => vec![path],
            (None, Some(paths)) => self.list(paths, "paths").iter().collect(),
            (None, None) => return vec![name.to_owned()],
        };
        let mut paths = Vec::new();
        for node in written {
            match node.text() {
                Some(text) => paths.push(text.to_owned()),
                None => self.wants(node, "path", "a string"),
            }
        }
        paths
    }

    fn value(&mut self, node: &Node, paths: &[String], axis: &mut Axis) {
        let via = format!("sweep axis `{}`", axis.name);
        let Some(table) = node.table() else {
            let Some(label) = scalar(node) else {
                let hint = "write `{ label = \"name\", value = [...] }`";
                self.fail(&node.origin, "a list has no label of its own", hint);
                return;
            };
            let value = node.clone().carried(&via);
            let sets = paths.iter().map(|path| (path.clone(), value.clone())).collect();
            return self.add(axis, node, label, sets);
        };
        self.refuse_unknown(
            table,
            &format!("sweep.axes.{}", axis.name),
            &["label", "set", "value"],
        );
        let Some(label) = table.get("label").and_then(scalar) else {
            let message = format!("a value of axis `{}` lacks `label`", axis.name);
            self.fail(
                &node.origin,
                message,
                "write `{ label = \"name\", set = { \"stage.x.field\" = 1 } }`",
            );
            return;
        };
        let mut sets = Vec::new();
        if let Some(value) = table.get("value") {
            let value = value.clone().carried(&via);
            sets.extend(paths.iter().map(|path| (path.clone(), value.clone())));
        }
        if let Some(set) = table.get("set") {
            let set = set.clone().carried(&via);
            self.flatten(&set, String::new(), &mut sets);
        } else if table.get("value").is_none() {
            let message = format!("value `{label}` of axis `{}` sets nothing", axis.name);
            self.fail(
                &node.origin,
                message,
                "give it `set = { \"stage.x.field\" = 1 }` or `value`",
            );
        }
        self.add(axis, node, label, sets);
    }

    /// The paths in a `set`: quoted (`"stage.x.y" = 1`) or nested.
    fn flatten(&mut self, set: &Node, prefix: String, sets: &mut Vec<(String, Node)>) {
        let Some(table) = self.table(set, "set") else { return };
        for (key, entry) in table.in_order() {
            let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            let shallow = path.split('.').count() < 3 && !key.contains('.');
            match &entry.node.value {
                // Sections and steps are opened; a table of a step's field is a value.
                Value::Table(_) if shallow => self.flatten(&entry.node, path, sets),
                _ => sets.push((path, entry.node.clone())),
            }
        }
    }

    fn add(&mut self, axis: &mut Axis, node: &Node, label: String, sets: Vec<(String, Node)>) {
        if axis.values.iter().any(|value| value.label == label) {
            let message = format!("axis `{}` has two values `{label}`", axis.name);
            return self.fail(&node.origin, message, "");
        }
        for (path, value) in &sets {
            let who = format!("axis `{}`", axis.name);
            let place =
                if value.origin.span == node.origin.span { &axis.origin } else { &value.origin };
            let settable = Settable { root: self.root, language: self.language, sweep: false };
            if let Some(mistake) = settable.mistake(path, &who, place) {
                self.found.push(mistake);
            }
        }
        axis.values.push(AxisValue { label, sets });
    }

    /// Groups of axes that move together, in order of their first axis.
    fn groups(&mut self, axes: &[Axis], zip: Option<&Node>) -> Vec<Vec<usize>> {
        let mut group_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for node in zip.map(|node| self.list(node, "sweep.zip")).unwrap_or_default() {
            let members: Vec<(usize, &Node)> = self
                .list(node, "sweep.zip")
                .iter()
                .filter_map(|name| Some((self.axis(axes, name.text()?, &name.origin)?, name)))
                .collect();
            for (at, name) in &members {
                let length = |at: usize| axes[at].values.len();
                if length(*at) != length(members[0].0) {
                    let side = |at: usize| {
                        format!(
                            "`{}` has {}",
                            axes[at].name,
                            text::plural(length(at) as u64, "value")
                        )
                    };
                    let message = format!(
                        "zipped axes differ in length: {}, {}",
                        side(members[0].0),
                        side(*at)
                    );
                    self.fail(&name.origin, message, "");
                    return Vec::new();
                }
                if group_of.values().flatten().any(|other| other == at) {
                    self.fail(
                        &name.origin,
                        format!("axis `{}` is zipped twice", axes[*at].name),
                        "",
                    );
                    return Vec::new();
                }
            }
            let mut group: Vec<usize> = members.iter().map(|(at, _)| *at).collect();
            group.sort_unstable();
            if let Some(first) = group.first() {
                group_of.insert(*first, group);
            }
        }
        let zipped: BTreeSet<usize> = group_of.values().flatten().copied().collect();
        for at in (0..axes.len()).filter(|at| !zipped.contains(at)) {
            group_of.insert(at, vec![at]);
        }
        group_of.into_values().collect()
    }

    fn axis(&mut self, axes: &[Axis], name: &str, origin: &Origin) -> Option<usize> {
        let at = axes.iter().position(|axis| axis.name == name);
        if at.is_none() {
            let hint = text::suggestion(name, "axes", axes.iter().map(|axis| axis.name.as_str()));
            self.fail(origin, format!("the sweep has no axis `{name}`"), &hint);
        }
        at
    }

    /// Reads `[{ axis = label or [labels] }]`.
    fn patterns(&mut self, axes: &[Axis], node: Option<&Node>, key: &str) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for item in node.map(|node| self.list(node, key)).unwrap_or_default() {
            let Some(table) = self.table(item, key) else { continue };
            let mut allowed = vec![None; axes.len()];
            let mut good = true;
            for (name, entry) in table.iter() {
                let Some(at) = self.axis(axes, name, &entry.key) else {
                    good = false;
                    continue;
                };
                let labels: &[Node] =
                    entry.node.array().unwrap_or(std::slice::from_ref(&entry.node));
                let mut numbers = BTreeSet::new();
                for node in labels {
                    let label = scalar(node).unwrap_or_default();
                    let values = &axes[at].values;
                    if let Some(number) = values.iter().position(|value| value.label == label) {
                        numbers.insert(number);
                        continue;
                    }
                    let hint = text::suggestion(
                        &label,
                        "values",
                        values.iter().map(|value| value.label.as_str()),
                    );
                    self.fail(&node.origin, format!("axis `{name}` has no value `{label}`"), &hint);
                    good = false;
                }
                allowed[at] = Some(numbers);
            }
            if good {
                patterns.push(Pattern { allowed, origin: item.origin.clone() });
            }
        }
        patterns
    }

    fn arms(
        &mut self,
        axes: &[Axis],
        groups: &[Vec<usize>],
        exclude: &[Pattern],
        include: &[Pattern],
    ) -> Vec<Vec<usize>> {
        if axes.iter().any(|axis| axis.values.is_empty()) || (groups.is_empty() && !axes.is_empty())
        {
            return Vec::new();
        }
        let sizes = groups.iter().map(|group| axes[group[0]].values.len());
        let count = sizes.clone().try_fold(1usize, |all, size| all.checked_mul(size));
        if count.is_none_or(|count| count > MOST_ARMS) {
            let most = text::count(MOST_ARMS as u64);
            self.fail(&axes[0].origin, format!("the sweep has more than {most} arms"), "");
            return Vec::new();
        }
        let sizes: Vec<Vec<usize>> = sizes.map(|size| (0..size).collect()).collect();
        let mut arms: Vec<Vec<usize>> = Vec::new();
        let mut used = vec![false; exclude.len()];
        for choice in product(&sizes) {
            let mut arm = vec![0; axes.len()];
            for (group, at) in groups.iter().zip(&choice) {
                group.iter().for_each(|axis| arm[*axis] = *at);
            }
            let mut out = false;
            for (pattern, used) in exclude.iter().zip(&mut used) {
                let matches = pattern.allowed.iter().zip(&arm);
                if matches
                    .into_iter()
                    .all(|(set, at)| set.as_ref().is_none_or(|set| set.contains(at)))
                {
                    (*used, out) = (true, true);
                }
            }
            if !out {
                arms.push(arm);
            }
        }
        for (pattern, _) in exclude.iter().zip(used).filter(|(_, used)| !used) {
            self.found.push(Diagnostic::warning("this excludes nothing").at(&pattern.origin));
        }
        let mut seen: BTreeSet<Vec<usize>> = arms.iter().cloned().collect();
        for pattern in include {
            let all = |axis: &Axis| (0..axis.values.len()).collect();
            let some = |(set, axis): (&Option<BTreeSet<usize>>, &Axis)| {
                set.as_ref().map_or_else(|| all(axis), |set| set.iter().copied().collect())
            };
            let choices: Vec<Vec<usize>> = pattern.allowed.iter().zip(axes).map(some).collect();
            arms.extend(product(&choices).filter(|arm| seen.insert(arm.clone())));
        }
        arms
    }
}

/// All combinations of one item of each list, the last list moving fastest.
fn product(lists: &[Vec<usize>]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let count: usize = lists.iter().map(Vec::len).product();
    (0..count).map(move |mut number| {
        let mut items = vec![0; lists.len()];
        for (item, list) in items.iter_mut().zip(lists).rev() {
            *item = list[number % list.len()];
            number /= list.len();
        }
        items
    })
}

/// The text of a plain value, as a label.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(format!("{value:?}")),
        Value::Text(text) => Some(text.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}

/// The paths that may be set from outside a manifest's text.
pub(crate) struct Settable<'a> {
    /// The tree.
    pub root: &'a Node,
    /// The words of the language.
    pub language: &'a Language,
    /// Whether the sweep itself may be set.
    pub sweep: bool,
}

impl Settable<'_> {
    /// What is wrong with a path that leads to no key, step or shared table
    /// there is. What lies below those is for their own reading to judge.
    pub(crate) fn mistake(&self, path: &str, who: &str, origin: &Origin) -> Option<Diagnostic> {
        let mut parts = path.split('.');
        let (top, name) = (parts.next().unwrap_or_default(), parts.next());
        let known = top_keys(self.language);
        let mut settable: Vec<&str> = known.iter().map(String::as_str).collect();
        settable.retain(|key| *key != "extends" && (self.sweep || *key != "sweep"));
        if !settable.contains(&top) {
            let hint = text::suggestion(top, "paths begin with", settable);
            let message = format!("{who} sets `{path}`, but `{top}` cannot be set");
            return Some(Diagnostic::error(message).at(origin).hint(hint));
        }
        let named = STEPS.contains(&top)
            || self.language.resources.iter().any(|resource| resource.section == top);
        let name = name.filter(|_| named)?;
        let names = self.root.at([top]).and_then(Node::table);
        if names.is_some_and(|names| names.get(name).is_some()) {
            return None;
        }
        let names: Vec<&str> = names.map(|names| names.keys().collect()).unwrap_or_default();
        let hint = text::suggestion(name, &format!("tables in `[{top}]`"), names);
        let message = format!("{who} sets `{path}`, but there is no `[{top}.{name}]`");
        Some(Diagnostic::error(message).at(origin).hint(hint))
    }
}
