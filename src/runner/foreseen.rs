//! What the steps probably take of which nothing was measured: goes through a
//! plan from its sources on, and adds up what their stages say of themselves.
//!
//! Knows no kind of stage, and no store: the same manifest gives the same
//! numbers on any machine, without data, weights or keys.

use crate::plan::Plan;
use crate::stages::foresight::{Extent, Foreseen, Given};
use crate::stages::kind::Ready;
use crate::store::spread::Range;

/// Operations a second of the card that hours are told of, an H100 with matrix products in bf16,
/// without sparsity.
///
/// # Source
/// NVIDIA H100 Tensor Core GPU data sheet: 989 teraFLOPS (SXM, BF16, dense).
const CARD: f64 = 989e12;
/// Share of them that a training gets out of a card.
const TRAINING: Range = Range { low: 0.15, middle: 0.35, high: 0.5 };
/// Share of them that is got out of it by models that write, of which every token reads all weights.
const GENERATION: Range = Range { low: 0.005, middle: 0.02, high: 0.1 };

/// What some steps probably take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Foresight {
    /// Steps it is about.
    pub steps: u64,
    /// Steps about which not even this is known.
    pub unknown: u64,
    /// Tokens that models of the study read, write and learn from.
    pub tokens: Range,
    /// Tokens that servers read and write.
    pub asked: Range,
    /// Dollars for them.
    pub dollars: Range,
    /// Hours of one card.
    pub hours: Range,
    /// Bytes stored.
    pub bytes: Range,
}

/// What the steps for which `counts` holds probably take.
pub fn foresee(plan: &Plan, stages: &[Ready], counts: &dyn Fn(usize) -> bool) -> Foresight {
    let mut known: Vec<Option<Foreseen>> = vec![None; plan.steps.len()];
    for &step in &plan.order {
        let inputs = plan.steps[step].inputs.iter().map(|input| {
            let from = known[input.step].as_ref();
            let made = from.and_then(|made| output(made, &input.output));
            (input.role.as_str(), made)
        });
        let given = Given(inputs.collect());
        known[step] = stages[step].stage.foresee(&given);
    }
    let mut all = Foresight::default();
    for (step, one) in known.iter().enumerate().filter(|(step, _)| counts(*step)) {
        let Some(one) = one else {
            // What needs no device and asks nobody takes nothing worth telling.
            let stage = &stages[step].stage;
            all.unknown += u64::from(stage.needs_device() || stage.outlay().asks);
            continue;
        };
        all.steps += 1;
        all.tokens = all.tokens.plus(one.tokens);
        all.asked = all.asked.plus(one.asked);
        all.dollars = all.dollars.plus(one.dollars);
        all.hours = all.hours.plus(hours(one.training, TRAINING));
        all.hours = all.hours.plus(hours(one.generation, GENERATION));
        all.bytes = all.bytes.plus(one.bytes);
    }
    all
}

fn output(made: &Foreseen, name: &str) -> Option<Extent> {
    made.outputs.iter().find(|(output, _)| output == name).map(|(_, extent)| *extent)
}

/// Hours for so many operations: few where the card is used well.
fn hours(operations: Range, used: Range) -> Range {
    let at = |operations: f64, share: f64| operations / (CARD * share) / 3600.0;
    Range {
        low: at(operations.low, used.high),
        middle: at(operations.middle, used.middle),
        high: at(operations.high, used.low),
    }
}
