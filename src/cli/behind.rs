//! Leaving out of a large manifest what a question about one step has nothing
//! to do with: only the step and what is behind it are then given a meaning.
//!
//! Done only where it makes no difference to the answer: one arm, no mistake so
//! far, and a step that is found with everything behind it. Mistakes in the
//! fields of steps that are left out are not told; `check`, `plan` and `run`
//! tell them. Knows nothing of plans and stores.

use crate::{
    manifest::Arm,
    stages::kind::{Kind, find},
};
use std::collections::HashMap;

/// Manifests with fewer steps are read whole, mistakes and all.
const MANY: usize = 500;

/// The places of the steps that are meant by `text` and of all behind them, in
/// the order of declaration; `None` where all steps must be read.
pub(crate) fn places(kinds: &[&Kind], arm: &Arm, text: &str) -> Option<Vec<usize>> {
    let steps = &arm.steps;
    if steps.len() < MANY {
        return None;
    }
    let mut names = HashMap::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        names.insert(step.name.as_str(), place);
    }
    let mut open: Vec<usize> = match names.get(text) {
        Some(&place) => vec![place],
        None => (0..steps.len()).filter(|&place| steps[place].base == text).collect(),
    };
    if open.is_empty() {
        return None;
    }
    let (mut wanted, mut count) = (vec![false; steps.len()], 0);
    let mut cx = arm.reading();
    while let Some(place) = open.pop() {
        if std::mem::replace(&mut wanted[place], true) {
            continue;
        }
        count += 1;
        if count > steps.len() / 4 {
            return None; // it would be read twice
        }
        let parsed = arm.read(&steps[place], &mut cx, find(kinds, &steps[place])?.parse)?;
        for input in parsed.inputs {
            let step = input.reference.as_str();
            let maker = names.get(step).or_else(|| names.get(step.rsplit_once('.')?.0));
            open.push(*maker?);
        }
    }
    Some((0..steps.len()).filter(|&place| wanted[place]).collect())
}
