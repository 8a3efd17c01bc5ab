//! What steps may take of this machine, by flags, manifest and what there is,
//! and which steps want more.

use crate::{
    base::{
        diag::{Diagnostic, Diagnostics},
        failure::Failure,
        text,
    },
    cli::{Stop, arguments::Options, load::Loaded, plan},
    host::machine,
    manifest::{Arm, Devices, Machine},
    plan::{Plan, freshness::Freshness},
    runner::resources::{Capacity, Card, Claim},
};

/// What all steps together may take: flags come before the manifest, and that
/// before what the machine says of itself.
pub(crate) fn capacity(options: &Options, said: Option<Machine>) -> Capacity {
    let said = said.unwrap_or(Machine { cpus: None, memory: None, devices: None });
    let cpus = options.cpus.map(u64::from).or(said.cpus).map(|n| n as usize);
    let named = |Devices(names): Devices| {
        let card = |name: String| Card { number: name.parse().ok(), name };
        names.into_iter().map(card).collect()
    };
    let found = || {
        let names = machine::cards().into_iter().enumerate();
        names.map(|(number, name)| Card { name, number: Some(number) }).collect()
    };
    Capacity {
        cpus: cpus.unwrap_or_else(machine::cores).max(1),
        memory: options.memory.or(said.memory).map(|bytes| bytes.0).or_else(machine::memory),
        cards: options.devices.clone().or(said.devices).map_or_else(found, named),
    }
}

/// Warns of every step that wants more than there is, at the place that says so.
pub(crate) fn warn(
    plan: &Plan,
    arms: &[Arm],
    claims: &[Claim],
    capacity: &Capacity,
    found: &mut Diagnostics,
) {
    for (step, claim) in plan.steps.iter().zip(claims) {
        let Some((field, what)) = claim.beyond(capacity) else { continue };
        let (arm, place) = step.source;
        let declared = &arms[arm].steps[place];
        let table = declared.execution.as_ref().unwrap_or(&declared.table);
        let at = table.at(["resources", field]).unwrap_or(table);
        let message = format!("`{}` wants {what}", step.shape.base);
        let flag = format!("it cannot run here; `--{field}` says what steps may take");
        found.push(Diagnostic::warning(message).at(&at.origin).hint(flag));
    }
}

/// Refuses to begin where a step that must run wants more than there is.
///
/// # Errors
/// `Environment`, with all such steps.
pub(crate) fn refuse(loaded: &Loaded, options: &Options) -> Result<(), Stop> {
    let beyond = |claim: &Claim| claim.beyond(&loaded.capacity);
    if loaded.claims.iter().all(|claim| beyond(claim).is_none()) {
        return Ok(());
    }
    let expected = plan::expect(loaded, options)?;
    let wants: Vec<String> = (loaded.plan.steps.iter().zip(&loaded.claims).zip(&expected))
        .filter(|(_, expected)| expected.freshness != Freshness::Fresh)
        .filter_map(|((step, claim), _)| {
            beyond(claim).map(|(_, what)| format!("`{}` wants {what}", step.title))
        })
        .collect();
    if wants.is_empty() {
        return Ok(());
    }
    let count = text::plural(wants.len() as u64, "step");
    let failure = Failure::environment(format!("{count} cannot run on this machine"));
    let failure = wants.into_iter().fold(failure, Failure::hint);
    Err(Stop::Failed(failure.hint(
        "nothing was begun; `--cpus`, `--memory` and `--devices` say what steps may take, \
         `resources` in a step what it wants",
    )))
}
