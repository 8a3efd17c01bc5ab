//! References between the steps of an arm: which output of which step each
//! means, whether it is of the right kind, and in which order that can go.

use crate::{
    base::{
        artifact::ArtifactKind,
        diag::{Diagnostic, Diagnostics},
        spec::InputRef,
        text,
    },
    plan::StepShape,
};
use petgraph::{algo::kosaraju_scc, graph::DiGraph};
use std::collections::{BTreeSet, HashMap};

/// One resolved input.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Role of the input.
    pub role: String,
    /// Place of the step within the arm.
    pub step: usize,
    /// Name of the output.
    pub output: String,
}

/// The wires of each step of an arm.
pub type Wiring = Vec<Vec<Wire>>;

/// Finds what every reference means.
pub fn wire(steps: &[StepShape], diagnostics: &mut Diagnostics) -> Wiring {
    let names: HashMap<&str, usize> =
        steps.iter().enumerate().map(|(place, step)| (step.name.as_str(), place)).collect();
    steps
        .iter()
        .map(|step| {
            let wires =
                step.inputs.iter().filter_map(|input| match find(steps, &names, step, input) {
                    Ok((from, output)) => {
                        Some(Wire { role: input.role.clone(), step: from, output })
                    }
                    Err(diagnostic) => {
                        diagnostics.push(*diagnostic);
                        None
                    }
                });
            wires.collect()
        })
        .collect()
}

fn find(
    steps: &[StepShape],
    names: &HashMap<&str, usize>,
    reader: &StepShape,
    input: &InputRef,
) -> Result<(usize, String), Box<Diagnostic>> {
    let reference = input.reference.as_str();
    let (place, output) = match names.get(reference) {
        Some(&place) => (place, None),
        None => match reference.rsplit_once('.') {
            Some((step, output)) if names.contains_key(step) => (names[step], Some(output)),
            _ => return Err(Box::new(no_step(names, reader, input))),
        },
    };
    let maker = &steps[place];
    let found = match output {
        Some(output) => maker.outputs.iter().find(|(name, _)| name == output),
        None if maker.outputs.len() == 1 => maker.outputs.first(),
        None => return Err(Box::new(which_output(maker, input))),
    };
    match found {
        None => Err(Box::new(no_output(maker, input, output.unwrap_or_default()))),
        Some((_, kind)) if *kind != input.want => {
            Err(Box::new(wrong_kind(steps, reader, maker, input, *kind)))
        }
        Some((name, _)) => Ok((place, name.clone())),
    }
}

fn no_step(names: &HashMap<&str, usize>, reader: &StepShape, input: &InputRef) -> Diagnostic {
    let names: BTreeSet<&str> = names.keys().copied().collect();
    let reference = input.reference.as_str();
    let (step, output) =
        reference.rsplit_once('.').map_or((reference, None), |(a, b)| (a, Some(b)));
    let mut diagnostic = Diagnostic::error(format!(
        "`{}` reads `{reference}`, but there is no step of that name",
        reader.base
    ))
    .at(&input.origin);
    let near = text::nearest(reference, names.iter().copied()).map(str::to_owned).or_else(|| {
        let near = text::nearest(step, names.iter().copied())?;
        Some(output.map_or(near.to_owned(), |output| format!("{near}.{output}")))
    });
    let later: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| name.starts_with("round1.") && name.strip_prefix("round1.") == Some(step))
        .collect();
    if let Some(near) = near {
        diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
    } else if !later.is_empty() {
        diagnostic = diagnostic
            .hint(format!("`{step}` runs in each round: name one, as in `round1.{reference}` or `last.{reference}`"));
    } else {
        diagnostic =
            diagnostic.hint("a reference is `step.output`, or `step` where it has one output only");
    }
    diagnostic
}

fn which_output(maker: &StepShape, input: &InputRef) -> Diagnostic {
    let fitting = maker.outputs.iter().find(|(_, kind)| *kind == input.want);
    let diagnostic = Diagnostic::error(format!(
        "`{}` has {}, so a reference must name one: {}",
        maker.name,
        text::plural(maker.outputs.len() as u64, "output"),
        text::list(maker.outputs.iter().map(|(name, _)| name.as_str()))
    ))
    .at(&input.origin);
    match fitting {
        Some((name, _)) => diagnostic.hint(format!("did you mean `{}.{name}`?", maker.name)),
        None => diagnostic,
    }
}

fn no_output(maker: &StepShape, input: &InputRef, output: &str) -> Diagnostic {
    let names = || maker.outputs.iter().map(|(name, _)| name.as_str());
    let diagnostic = Diagnostic::error(format!(
        "`{}` is a `{}` step and has no output `{output}`, only {}",
        maker.name,
        maker.kind,
        text::list(names())
    ))
    .at(&input.origin);
    match text::nearest(output, names()) {
        Some(near) => diagnostic.hint(format!("did you mean `{}.{near}`?", maker.name)),
        None => diagnostic,
    }
}

fn wrong_kind(
    steps: &[StepShape],
    reader: &StepShape,
    maker: &StepShape,
    input: &InputRef,
    kind: ArtifactKind,
) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!(
        "`{}` of `{}` wants {}, but `{}` is {}",
        input.role,
        reader.name,
        input.want.name(),
        input.reference,
        kind.name()
    ))
    .near(&input.origin, &format!("wants {}", input.want.name()))
    .near(&maker.table.origin, &format!("makes {}", kind.name()));
    let of_kind = |step: &&StepShape| {
        step.name != reader.name && step.outputs.iter().any(|(_, k)| *k == input.want)
    };
    let same = Some(maker).filter(of_kind);
    match same.or_else(|| steps.iter().find(of_kind)) {
        Some(step) => {
            let output =
                step.outputs.iter().find(|(_, k)| *k == input.want).map_or("", |(name, _)| name);
            let name = if step.outputs.len() == 1 {
                step.name.clone()
            } else {
                format!("{}.{output}", step.name)
            };
            diagnostic.hint(format!("`{name}` is {}", input.want.name()))
        }
        None => diagnostic.hint(format!("no step makes {}", input.want.name())),
    }
}

/// Places of the steps, each after what it reads; `None` where that cannot be.
pub fn order(
    steps: &[StepShape],
    wiring: &Wiring,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<usize>> {
    let mut graph = DiGraph::<(), ()>::with_capacity(steps.len(), steps.len());
    let nodes: Vec<_> = steps.iter().map(|_| graph.add_node(())).collect();
    for (reader, wires) in wiring.iter().enumerate() {
        for wire in wires {
            graph.add_edge(nodes[reader], nodes[wire.step], ());
        }
    }
    let mut whole = true;
    let mut order = Vec::with_capacity(steps.len());
    for component in kosaraju_scc(&graph) {
        let members: Vec<usize> = component.iter().map(|node| node.index()).collect();
        let first = members[0];
        if members.len() > 1 || wiring[first].iter().any(|wire| wire.step == first) {
            diagnostics.push(cycle(steps, wiring, &members));
            whole = false;
        }
        order.push(first);
    }
    // A reference that means nothing has been reported and has no wire.
    let wired = wiring.iter().zip(steps).all(|(wires, step)| wires.len() == step.inputs.len());
    (whole && wired).then_some(order)
}

/// Walks from step to step inside a strongly connected set until one comes again.
fn cycle(steps: &[StepShape], wiring: &Wiring, members: &[usize]) -> Diagnostic {
    let mut path = vec![*members.iter().min().expect("a cycle has steps")];
    let back = loop {
        let here = path[path.len() - 1];
        let next = wiring[here].iter().map(|wire| wire.step).find(|step| members.contains(step));
        let next = next.expect("every step of a cycle reads one of it");
        if let Some(start) = path.iter().position(|&step| step == next) {
            break start;
        }
        path.push(next);
    };
    let ring = &path[back..];
    let mut names: Vec<String> =
        ring.iter().map(|&step| format!("`{}`", steps[step].name)).collect();
    names.push(names[0].clone());
    let mut diagnostic =
        Diagnostic::error(format!("these steps wait for each other: {}", names.join(" reads ")));
    for (i, &step) in ring.iter().enumerate() {
        let next = ring[(i + 1) % ring.len()];
        let role = wiring[step].iter().find(|wire| wire.step == next).map_or("", |wire| &wire.role);
        if let Some(input) = steps[step].inputs.iter().find(|input| input.role == role) {
            diagnostic = diagnostic.near(&input.origin, &format!("reads `{}`", steps[next].name));
        }
    }
    diagnostic
}
