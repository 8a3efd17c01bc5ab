//! What a kind of stage is, and the step from a written table to a typed one.
//!
//! A new kind is one file with `spec! { .. }`, `impl Stage` and
//! `pub const KIND: Kind = Kind::of::<MySpec>("my-kind", "stage", 1, true);`,
//! and one line in the table of kinds. Knows no particular kind.

use crate::{
    base::{
        artifact::ArtifactKind,
        diag::Diagnostics,
        failure::Outcome,
        node::Node,
        seed::Seed,
        spec::{Field, FieldDoc, InputRef, Reading, Spec},
    },
    engine::device::place_of,
    host::clock,
    inference::api::Api,
    manifest::{Arm, Declared, KindInfo},
    plan::{ArmShape, StepShape},
    stages::{
        foresight::{Foreseen, Given},
        work::Work,
    },
};
use std::{collections::BTreeMap, sync::Arc};

pub use crate::engine::device::Place;
pub use crate::manifest::Execution;

/// What can be written down whole, to be read again elsewhere.
pub trait Written {
    /// All of it, as a manifest would have it with nothing left to look up.
    fn written(&self) -> serde_json::Value;
}

impl<T: Field> Written for T {
    fn written(&self) -> serde_json::Value {
        self.json()
    }
}

/// A typed stage: what it makes and how.
pub trait Stage: Written + Send + Sync {
    /// Names and kinds of what it makes; may depend on its parameters.
    fn outputs(&self) -> Vec<(String, ArtifactKind)>;

    /// Does the work: reads inputs, writes outputs. May be called again after
    /// a stop or a crash, and then goes on from memos and checkpoints.
    ///
    /// # Errors
    /// What went wrong; nothing is published then.
    fn run(&self, work: &Work) -> Outcome<()>;

    /// Whether results depend on the device's class of arithmetic, which then
    /// belongs to the identity.
    fn needs_device(&self) -> bool {
        false
    }

    /// Whether its work is done by another process anyway.
    fn is_a_process(&self) -> bool {
        false
    }

    /// The memory it needs on the processor, as far as its table says.
    fn needs(&self) -> Option<Need> {
        None
    }

    /// What it may take besides time, as far as its table says.
    fn outlay(&self) -> Outlay {
        Outlay::default()
    }

    /// What it probably takes and gives, by the numbers that its table and its
    /// inputs name; none where they name too few.
    fn foresee(&self, _given: &Given) -> Option<Foreseen> {
        None
    }

    /// The same stage and its identity, with the digest of what it takes from
    /// outside the store; none where it takes nothing or the digest is given.
    ///
    /// # Errors
    /// When what it takes is not there.
    fn pinned(&self) -> Outcome<Option<(Arc<dyn Stage>, String)>> {
        Ok(None)
    }
}

/// Memory that a stage needs at most, as far as that can be told beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes.
    pub bytes: u64,
    /// What it is, in words.
    pub words: String,
}

/// What a stage may take besides time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlay {
    /// Whether it asks a server that may want money.
    pub asks: bool,
    /// Dollars at most, by its own bound; 0 where no price is given, none where there is no bound.
    pub dollars: Option<f64>,
    /// Bytes of what it makes, at least and at most.
    pub bytes: Option<(u64, u64)>,
    /// Bytes of checkpoints at most, while it goes on, for each byte of what it makes.
    pub checkpoints: u32,
}

impl Outlay {
    /// Of a stage that asks a server all it asks within one budget.
    pub fn of_server(api: &Api) -> Outlay {
        Outlay { asks: true, dollars: api.at_most(), ..Outlay::default() }
    }

    /// What two servers that one step asks may take together.
    pub fn and(self, other: Outlay) -> Outlay {
        match (self.asks, other.asks) {
            (_, false) => self,
            (false, true) => other,
            (true, true) => {
                let dollars = self.dollars.zip(other.dollars).map(|(one, two)| one + two);
                Outlay { dollars, ..self }
            }
        }
    }
}

/// What the reading of a table gives.
pub struct Parsed {
    /// The stage.
    pub stage: Arc<dyn Stage>,
    /// What it reads.
    pub inputs: Vec<InputRef>,
    /// Canonical text of its parameters.
    pub identity: String,
}

/// A kind of stage: one row of the table of kinds.
pub struct Kind {
    /// Its name in manifests.
    pub name: &'static str,
    /// The section it is declared in: `dataset` or `stage`.
    pub section: &'static str,
    /// Version of its meaning; a change of meaning or of a default raises it.
    pub version: u32,
    /// Whether it draws random numbers, so that its seed is in its identity.
    pub seeded: bool,
    /// Its documentation.
    pub doc: fn() -> &'static str,
    /// Its fields.
    pub fields: fn() -> Vec<FieldDoc>,
    /// JSON Schema of its parameters.
    pub schema: fn() -> serde_json::Value,
    /// Reads a table.
    pub parse: fn(&Node, &mut Reading) -> Option<Parsed>,
}

impl Kind {
    /// The kind whose parameters and behaviour are `T`'s.
    pub const fn of<T: Spec + Stage + 'static>(
        name: &'static str,
        section: &'static str,
        version: u32,
        seeded: bool,
    ) -> Kind {
        Kind {
            name,
            section,
            version,
            seeded,
            doc: T::doc,
            fields: T::fields,
            schema: T::schema,
            parse: parse::<T>,
        }
    }

    /// What manifests know of it.
    pub const fn info(&self) -> KindInfo {
        KindInfo {
            name: self.name,
            section: self.section,
            fields: self.fields,
            schema: self.schema,
        }
    }
}

fn parse<T: Spec + Stage + 'static>(node: &Node, cx: &mut Reading) -> Option<Parsed> {
    let spec = T::parse(node, cx)?;
    let (inputs, identity) = (spec.references(), spec.identity());
    Some(Parsed { stage: Arc::new(spec), inputs, identity })
}

/// A stage with all it needs but its inputs.
#[derive(Clone)]
pub struct Ready {
    /// The stage.
    pub stage: Arc<dyn Stage>,
    /// Its seed.
    pub seed: Seed,
    /// The device as asked for, and its precision.
    pub device: Arc<str>,
    /// Where it computes; none where it needs no device, or none was looked at.
    pub place: Option<Place>,
    /// How it is to be run.
    pub execution: Arc<Execution>,
}

/// The typed steps of all arms.
pub struct Resolved {
    /// Their shapes, for the plan.
    pub arms: Vec<ArmShape>,
    /// What runs for each step of each arm, in the same order.
    pub stages: Vec<Vec<Ready>>,
    /// The class of arithmetic of each device that a step uses.
    pub classes: BTreeMap<String, String>,
    /// Whether any step takes something from outside the store.
    pub looked_outside: bool,
}

/// Gives the class of arithmetic of a device.
pub type Numerics<'a> = &'a dyn Fn(&str) -> Outcome<String>;

/// Reads the tables of all steps. `device` overrides the device of every arm;
/// `world` gives a device's class of arithmetic and is asked only where a step
/// uses it; without it neither devices nor what steps take from outside are
/// looked at, and identities are not those of a run. Steps with mistakes are
/// left out, so nothing may be planned when the diagnostics hold errors.
///
/// # Errors
/// When the device cannot be used, or something from outside is not there.
pub fn resolve(
    kinds: &[&Kind],
    arms: &[Arm],
    device: Option<&str>,
    world: Option<Numerics>,
) -> Outcome<(Resolved, Diagnostics)> {
    let mut found = Diagnostics::default();
    let mut resolved = Resolved {
        arms: Vec::new(),
        stages: Vec::new(),
        classes: BTreeMap::new(),
        looked_outside: false,
    };
    let mut classes: BTreeMap<String, String> = BTreeMap::new();
    for arm in arms {
        let (read, mistakes) = read_all(kinds, arm);
        found.extend(mistakes);
        let asked = device.or(arm.head.device.as_deref()).unwrap_or("auto");
        let device: Arc<str> = arm.head.on(asked).into();
        let mut steps = Vec::with_capacity(read.len());
        let mut stages = Vec::with_capacity(read.len());
        for (declared, read) in arm.steps.iter().zip(read) {
            let Some((kind, mut parsed, execution)) = read else { continue };
            if let Some(numerics) = world {
                if parsed.stage.needs_device() && !classes.contains_key(&*device) {
                    classes.insert(device.to_string(), numerics(&device)?);
                }
                let pinned = parsed.stage.pinned().map_err(|mut failure| {
                    failure.what = format!("step `{}`: {}", declared.name, failure.what);
                    failure
                })?;
                if let Some((stage, identity)) = pinned {
                    resolved.looked_outside = true;
                    (parsed.stage, parsed.identity) = (stage, identity);
                }
            }
            let seed = arm.seed.derive(kind.name).at(declared.round.unwrap_or(0).into());
            let class = classes.get(&*device).filter(|_| parsed.stage.needs_device());
            stages.push(Ready {
                stage: parsed.stage.clone(),
                seed,
                device: device.clone(),
                place: class.map(|class| place_of(class)),
                execution,
            });
            steps.push(shape(kind, declared, parsed, seed, class));
        }
        resolved.arms.push(ArmShape { coordinates: arm.coords.clone(), steps });
        resolved.stages.push(stages);
    }
    resolved.classes = classes;
    Ok((resolved, found))
}

/// A step's kind, its parameters and how it is to be run.
type Read<'k> = (&'k Kind, Parsed, Arc<Execution>);

/// Steps that one more thread is worth.
const SHARE: usize = 1000;

/// The kind of a step.
pub fn find<'k>(kinds: &[&'k Kind], step: &Declared) -> Option<&'k Kind> {
    let is_meant = |kind: &&&Kind| kind.name == step.kind.0 && kind.section == step.section;
    kinds.iter().copied().find(|kind| is_meant(&kind))
}

/// Reads the tables of an arm's steps, in several threads where there are many;
/// nothing for those with mistakes.
fn read_all<'k>(kinds: &[&'k Kind], arm: &Arm) -> (Vec<Option<Read<'k>>>, Diagnostics) {
    let threads = (arm.steps.len() / SHARE).clamp(1, clock::cores());
    if threads == 1 {
        return read_some(kinds, arm, &arm.steps);
    }
    std::thread::scope(|scope| {
        let parts = arm.steps.chunks(arm.steps.len().div_ceil(threads));
        let reading: Vec<_> =
            parts.map(|part| scope.spawn(move || read_some(kinds, arm, part))).collect();
        let (mut all, mut found) = (Vec::with_capacity(arm.steps.len()), Diagnostics::default());
        for part in reading {
            let (read, mistakes) = part.join().unwrap_or_else(|why| std::panic::resume_unwind(why));
            all.extend(read);
            found.extend(mistakes);
        }
        (all, found)
    })
}

fn read_some<'k>(
    kinds: &[&'k Kind],
    arm: &Arm,
    steps: &[Declared],
) -> (Vec<Option<Read<'k>>>, Diagnostics) {
    let mut cx = arm.reading();
    let usual = Arc::new(Execution::default());
    let mut one = |step: &Declared| {
        let kind = find(kinds, step)?;
        let parsed = arm.read(step, &mut cx, kind.parse);
        let execution = match step.execution {
            None => Some(usual.clone()),
            Some(_) => arm.execution(step, &mut cx).map(Arc::new),
        };
        Some((kind, parsed?, execution?))
    };
    let read = steps.iter().map(&mut one).collect();
    (read, cx.finish())
}

fn shape(
    kind: &Kind,
    declared: &Declared,
    parsed: Parsed,
    seed: Seed,
    class: Option<&String>,
) -> StepShape {
    StepShape {
        name: declared.name.clone(),
        base: declared.base.clone(),
        round: declared.round,
        section: declared.section.to_owned(),
        kind: kind.name.to_owned(),
        version: kind.version,
        inputs: parsed.inputs,
        outputs: parsed.stage.outputs(),
        parameters: parsed.identity,
        seed: kind.seeded.then_some(seed.0),
        numerics: class.cloned(),
        table: declared.table.clone(),
    }
}
