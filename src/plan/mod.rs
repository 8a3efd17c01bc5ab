//! What must be done, worked out before anything is done.
//!
//! ```text
//! shapes per arm -> references resolved -> kinds checked -> cycles found
//!                -> equal steps of all arms made one -> Plan
//! ```
//!
//! Pure: sees shapes (plain data), never a stage, a file or the store.

pub mod contrast;
pub mod freshness;
pub mod graph;
pub mod identity;
pub mod resolve;

use crate::base::{
    artifact::ArtifactKind,
    diag::Diagnostics,
    hash::Digest,
    node::{Node, Origin},
    spec::InputRef,
};
use std::collections::{BTreeMap, HashMap};

/// All that a plan knows of a step.
#[derive(Clone, Debug)]
pub struct StepShape {
    /// Full name within its arm, such as `round2.answers`.
    pub name: String,
    /// Name of the stage it unrolls, such as `answers`.
    pub base: String,
    /// Its round, from 1.
    pub round: Option<u32>,
    /// `dataset` or `stage`.
    pub section: String,
    /// Kind of stage.
    pub kind: String,
    /// Version of the kind's meaning.
    pub version: u32,
    /// What it reads.
    pub inputs: Vec<InputRef>,
    /// What it makes.
    pub outputs: Vec<(String, ArtifactKind)>,
    /// Canonical text of its parameters.
    pub parameters: String,
    /// Its seed, where the kind draws random numbers.
    pub seed: Option<u64>,
    /// Class of arithmetic its results depend on, where it uses a device.
    pub numerics: Option<String>,
    /// Its table as written, for places.
    pub table: Node,
}

/// One arm of an experiment.
#[derive(Clone, Debug)]
pub struct ArmShape {
    /// Axis and label, sorted by axis; empty without a sweep.
    pub coordinates: Vec<(String, String)>,
    /// Its steps in the order of declaration.
    pub steps: Vec<StepShape>,
}

/// An input of a step: which output of which step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Role, such as `model` or `data.0`.
    pub role: String,
    /// The step that makes it.
    pub step: usize,
    /// Name of the output.
    pub output: String,
}

/// A thing to do once, for all arms that want it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its shape, as the first arm has it.
    pub shape: StepShape,
    /// Arm and place within the arm of `shape`.
    pub source: (usize, usize),
    /// Arm and name, for each place where it is wanted.
    pub wanted: Vec<(usize, String)>,
    /// Names under which history knows it, one for each of `wanted`.
    pub logical: Vec<String>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The steps that read it.
    pub dependents: Vec<usize>,
    /// Digest of the step and all that is behind it; equal steps are one.
    pub key: Digest,
    /// Name for people: with coordinates where arms differ in it.
    pub title: String,
}

/// The steps of all arms, each once.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// Coordinates of the arms.
    pub arms: Vec<Vec<(String, String)>>,
    /// The steps, by arm and declaration.
    pub steps: Vec<Step>,
    /// All steps, each after what it reads.
    pub order: Vec<usize>,
    names: Vec<BTreeMap<String, usize>>,
}

/// The name under which history knows a step: never part of an identity.
pub fn logical_id(experiment: &str, step: &str, coordinates: &[(String, String)]) -> String {
    format!("{experiment}/{step}{}", braces(coordinates))
}

fn braces(coordinates: &[(String, String)]) -> String {
    if coordinates.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<_> =
        coordinates.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
    sorted.sort();
    format!("{{{}}}", sorted.join(","))
}

impl Plan {
    /// Plans the arms of an experiment. With errors among the diagnostics the
    /// plan is not to be run.
    pub fn build(experiment: &str, arms: Vec<ArmShape>) -> (Plan, Diagnostics) {
        let mut diagnostics = Diagnostics::default();
        let mut plan = Plan { experiment: experiment.to_owned(), ..Plan::default() };
        let mut known: HashMap<Digest, usize> = HashMap::new();
        for (number, arm) in arms.into_iter().enumerate() {
            plan.arms.push(arm.coordinates.clone());
            plan.names.push(BTreeMap::new());
            let wiring = resolve::wire(&arm.steps, &mut diagnostics);
            if let Some(order) = resolve::order(&arm.steps, &wiring, &mut diagnostics) {
                plan.add(number, arm, wiring, &order, &mut known);
            }
        }
        plan.finish();
        (plan, diagnostics)
    }

    fn add(
        &mut self,
        number: usize,
        arm: ArmShape,
        mut wiring: resolve::Wiring,
        order: &[usize],
        known: &mut HashMap<Digest, usize>,
    ) {
        let mut place_of = vec![usize::MAX; arm.steps.len()]; // step of the plan, by place in the arm
        let mut shapes: Vec<Option<StepShape>> = arm.steps.into_iter().map(Some).collect();
        let mut names = Vec::with_capacity(order.len());
        if self.steps.is_empty() {
            self.steps.reserve(order.len());
            known.reserve(order.len());
        }
        for &here in order {
            let shape = shapes[here].take().expect("an order has each step once");
            let name = shape.name.clone();
            let inputs: Vec<Input> = std::mem::take(&mut wiring[here])
                .into_iter()
                .map(|wire| Input {
                    role: wire.role,
                    step: place_of[wire.step],
                    output: wire.output,
                })
                .collect();
            let behind = inputs.iter().map(|input| {
                (&input.role, format!("{}.{}", self.steps[input.step].key, input.output))
            });
            let key = identity::plan_key(&shape, behind);
            let logical = logical_id(&self.experiment, &name, &arm.coordinates);
            let place = *known.entry(key).or_insert_with(|| {
                for input in &inputs {
                    let next = self.steps.len();
                    self.steps[input.step].dependents.push(next);
                }
                self.steps.push(Step {
                    shape,
                    source: (number, here),
                    wanted: Vec::with_capacity(1),
                    logical: Vec::with_capacity(1),
                    inputs,
                    dependents: Vec::new(),
                    key,
                    title: String::new(),
                });
                self.steps.len() - 1
            });
            place_of[here] = place;
            self.steps[place].wanted.push((number, name.clone()));
            self.steps[place].logical.push(logical);
            names.push((name, place));
        }
        self.names[number].extend(names);
    }

    /// Puts the steps in the order of declaration, and names them.
    fn finish(&mut self) {
        let mut by_declaration: Vec<usize> = (0..self.steps.len()).collect();
        by_declaration.sort_by_key(|&step| self.steps[step].source);
        let mut moved = vec![0; self.steps.len()];
        by_declaration.iter().enumerate().for_each(|(new, &old)| moved[old] = new);
        self.order = moved.clone(); // steps were added each after what it reads
        let mut steps: Vec<Option<Step>> =
            std::mem::take(&mut self.steps).into_iter().map(Some).collect();
        self.steps.reserve(steps.len());
        for old in by_declaration {
            let mut step = steps[old].take().expect("each step is moved once");
            step.inputs.iter_mut().for_each(|input| input.step = moved[input.step]);
            step.dependents.iter_mut().for_each(|dependent| *dependent = moved[*dependent]);
            step.dependents.sort_unstable();
            step.dependents.dedup();
            self.steps.push(step);
        }
        self.names
            .iter_mut()
            .for_each(|arm| arm.values_mut().for_each(|step| *step = moved[*step]));
        self.name_steps();
    }

    fn name_steps(&mut self) {
        let mut times: HashMap<&str, usize> = HashMap::with_capacity(self.steps.len());
        for step in &self.steps {
            *times.entry(step.shape.name.as_str()).or_default() += 1;
        }
        let titles: Vec<String> = self
            .steps
            .iter()
            .map(|step| {
                let name = &step.shape.name;
                if times[name.as_str()] == 1 {
                    return name.clone();
                }
                // Coordinates that all arms with this step share tell it apart.
                let mut shared = self.arms[step.wanted[0].0].clone();
                for (arm, _) in &step.wanted {
                    shared.retain(|coordinate| self.arms[*arm].contains(coordinate));
                }
                format!("{name}{}", braces(&shared))
            })
            .collect();
        self.steps.iter_mut().zip(titles).for_each(|(step, title)| step.title = title);
    }

    /// The step with this name in an arm.
    pub fn find(&self, arm: usize, name: &str) -> Option<usize> {
        self.names.get(arm)?.get(name).copied()
    }

    /// Names and steps of an arm, sorted by name.
    pub fn arm(&self, arm: usize) -> impl Iterator<Item = (&str, usize)> {
        self.names[arm].iter().map(|(name, step)| (name.as_str(), *step))
    }

    /// Steps that a person may mean by `text`: a title, a name in any arm, or
    /// the name of a stage whose rounds they are.
    pub fn matching(&self, text: &str) -> Vec<usize> {
        matching(self.steps.iter().map(Names::of), text)
    }
}

impl Names<'_> {
    fn of(step: &Step) -> Names<'_> {
        Names {
            title: &step.title,
            base: &step.shape.base,
            names: step.wanted.iter().map(|(_, name)| name.as_str()).collect(),
        }
    }
}

/// What a person may call a step.
pub struct Names<'a> {
    /// Its title.
    pub title: &'a str,
    /// The stage whose round it is.
    pub base: &'a str,
    /// Its names in the arms.
    pub names: Vec<&'a str>,
}

/// The numbers of the steps that a person may mean by `text`: by title, else
/// by a name in any arm, else by the stage whose rounds they are.
pub fn matching<'a>(steps: impl Iterator<Item = Names<'a>>, text: &str) -> Vec<usize> {
    let mut found: [Vec<usize>; 3] = Default::default();
    for (number, step) in steps.enumerate() {
        let fits = [step.title == text, step.names.contains(&text), step.base == text];
        (0..3).filter(|&how| fits[how]).for_each(|how| found[how].push(number));
    }
    found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// Where a parameter was written: the value at the longest part of `path` that
/// is there, else the step's table.
pub fn place_of<'a>(shape: &'a StepShape, path: &str) -> &'a Origin {
    let parts: Vec<&str> = path.split('.').collect();
    (1..=parts.len())
        .rev()
        .find_map(|n| shape.table.at(parts[..n].iter().copied()))
        .map_or(&shape.table.origin, |node| &node.origin)
}

#[cfg(test)]
mod tests;
