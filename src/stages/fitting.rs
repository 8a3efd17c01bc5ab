//! Whether a training or a generation fits the machine, asked before it begins,
//! and what to change where it does not. The counting is the engine's.
//!
//! Knows how settings are called in a manifest, and nothing of models.

use crate::base::failure::{Failure, Outcome};
use crate::base::spec::choice;
use crate::base::text;
use crate::engine::batch::{Order, Pieces, cut};
use crate::engine::config::LlamaConfig;
use crate::engine::device::{Opened, within_memory};
use crate::engine::estimate::{self, Memory, Part, Plan};
use crate::engine::ops::Precision;
use crate::engine::train::{Lesson, Training};
use crate::host::memory::LIMIT;
use crate::stages::architecture::Architecture;
use crate::stages::kind::Need;

/// Share of the speed of plain products that a training step reaches: measured on
/// the CPU for the sizes of `results/bench/training.md`, and a guess elsewhere.
const SHARE: f64 = 0.5;

choice! {
    /// What becomes of a training that seems to need more memory than is free.
    pub enum TooLarge {
        /// It does not begin.
        Refuse = "refuse",
        /// It is tried.
        Try = "try",
    }
}

/// Vocabularies that the memory of a model with a vocabulary still to be made is
/// told for.
const VOCABULARIES: [usize; 2] = [1_000, 32_000];

/// The most memory that a training of all weights needs on the CPU in f32, if all its
/// sequences fill the context. What it learns from and its vocabulary
/// are only known when they are made.
pub(super) fn at_most(
    shape: &Architecture,
    batch: u64,
    pieces: Pieces,
    recompute: bool,
) -> Option<Need> {
    let context = shape.context;
    let sequences = match pieces {
        Pieces::Count(parts) => batch.div_ceil(parts as u64),
        Pieces::Tokens(room) => (room as u64 / context.max(1)).clamp(1, batch),
    };
    let tokens = sequences * context;
    let part = Part { tokens, targets: tokens, squares: tokens * context };
    let with = |vocabulary: usize| {
        let config = shape.config(vocabulary).ok()?;
        let plan = Plan {
            config: &config,
            precision: Precision::F32,
            fused: true,
            lora: None,
            recompute,
            in_parts: pieces != Pieces::Count(1),
            part,
        };
        Some((plan.memory().peak, vocabulary))
    };
    let each: Vec<(u64, usize)> = VOCABULARIES.into_iter().map(with).collect::<Option<_>>()?;
    let word = |&(peak, vocabulary): &(u64, usize)| {
        let vocabulary = text::count(vocabulary as u64);
        format!("{} with a vocabulary of {vocabulary}", text::bytes(peak))
    };
    let words: Vec<String> = each.iter().map(word).collect();
    Some(Need {
        bytes: each.iter().map(|one| one.0).max()?,
        words: format!("memory on the CPU: at most {}", words.join(", ")),
    })
}

/// Bytes of a stored model of this shape, with a small and with a large vocabulary.
pub(super) fn stored(shape: &Architecture) -> Option<(u64, u64)> {
    let [small, large] = VOCABULARIES
        .map(|vocabulary| Some(estimate::model(&shape.config(vocabulary).ok()?, Precision::F32)));
    Some((small?, large?))
}

/// A training before its first step.
pub(super) struct Outlook<'a> {
    plan: Plan<'a>,
    training: &'a Training,
    extents: Vec<Part>,
}

impl<'a> Outlook<'a> {
    /// The outlook of a training of this model on these items.
    pub(super) fn of<L: Lesson>(
        config: &'a LlamaConfig,
        training: &'a Training,
        opened: &Opened,
        seen: &[L],
    ) -> Outlook<'a> {
        let mut outlook = Outlook {
            plan: Plan {
                config,
                precision: opened.precision,
                fused: opened.is_fused(),
                lora: training.adapters.as_ref().map(|adapters| &adapters.lora),
                recompute: training.recompute,
                in_parts: training.pieces != Pieces::Count(1),
                part: Part::default(),
            },
            training,
            extents: seen.iter().map(Lesson::extent).collect(),
        };
        outlook.plan.part = outlook.largest(training.pieces);
        outlook
    }

    /// In each respect the largest part of any step that is cut so.
    fn largest(&self, pieces: Pieces) -> Part {
        let Training { seed, batch, steps, .. } = *self.training;
        let mut order = Order::new(seed, self.extents.len(), batch);
        let mut largest = Part::default();
        for step in 0..steps {
            let members: Vec<Part> =
                order.at(step).iter().map(|&i| self.extents[i as usize]).collect();
            for part in cut(&members, |one| one.tokens as usize, pieces) {
                largest = largest.larger(part.into_iter().sum());
            }
        }
        largest
    }

    /// The memory it will need.
    pub(super) fn memory(&self) -> Memory {
        self.plan.memory()
    }

    /// Memory and time in a few words.
    pub(super) fn words(&self, opened: &Opened) -> String {
        let epochs = self.training.steps as f64 * self.training.batch as f64
            / self.extents.len().max(1) as f64;
        let epoch = Plan { part: self.extents.iter().copied().sum(), ..self.plan.clone() };
        let seconds = epochs * epoch.operations() / (SHARE * opened.speed());
        let time = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        format!("about {} and {}", text::bytes(self.memory().peak), text::duration(time))
    }

    /// Refuses a training that needs more than is free.
    ///
    /// # Errors
    /// `Environment`, with what would fit.
    pub(super) fn check(&self, opened: &Opened) -> Outcome<()> {
        match opened.free_memory() {
            Some(free) if self.memory().peak > free => Err(self.refusal(free, &opened.name)),
            _ => Ok(()),
        }
    }

    /// The failure of a training that does not fit.
    fn refusal(&self, free: u64, device: &str) -> Failure {
        let Memory { weights, moments, gradients, activations, logits, peak } = self.memory();
        let [peak, weights, moments, gradients, activations, logits, left] =
            [peak, weights, moments, gradients, activations, logits, free].map(text::bytes);
        let failure = Failure::environment(format!(
            "this training needs about {peak} of memory, and {left} are free on {device}"
        ))
        .hint(format!(
            "weights {weights}, moments {moments}, gradients {gradients}, activations of the \
             largest part {activations}, logits {logits}"
        ));
        self.advise(failure, free).hint(format!(
            "`too-large = \"try\"` begins anyway; free memory is what the system says, or `{LIMIT}`"
        ))
    }

    /// Adds what would fit into so much memory.
    fn advise(&self, failure: Failure, free: u64) -> Failure {
        let cut =
            |setting: &str, n: usize, pieces| (format!("`{setting} = {n}`"), self.largest(pieces));
        let cuts: Vec<(String, Part)> = match self.training.pieces {
            Pieces::Count(parts) => (parts + 1..=self.training.batch)
                .map(|n| cut("accumulate", n, Pieces::Count(n)))
                .collect(),
            Pieces::Tokens(room) => std::iter::successors(Some(room / 2), |n| Some(n / 2))
                .take_while(|&n| n > 0)
                .map(|n| cut("part-tokens", n, Pieces::Tokens(n)))
                .collect(),
        };
        let remedies = estimate::remedies(&self.plan, free, &cuts);
        if remedies.is_empty() {
            let least = Plan { part: Part::of([(1, 1)]), recompute: true, ..self.plan.clone() };
            let least = text::bytes(least.memory().peak);
            return failure.hint(format!(
                "no setting makes it fit: with one token at a time it needs {least}; take a \
                 smaller model or a larger machine"
            ));
        }
        remedies.into_iter().fold(failure, |failure, one| {
            failure.hint(format!("{} would need {}", one.setting, text::bytes(one.peak)))
        })
    }

    /// Runs the training; where the device runs out of memory in the middle,
    /// the same advice comes of it.
    ///
    /// # Errors
    /// What `work` reports, and `Environment` for want of memory.
    pub(super) fn guard<T>(
        &self,
        opened: &Opened,
        work: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        within_memory(work).unwrap_or_else(|why| {
            let peak = self.memory().peak;
            let failure = Failure::environment(format!(
                "{} ran out of memory; this training was expected to need {}",
                opened.name,
                text::bytes(peak)
            ))
            .caused_by(why);
            // Whatever was there was less than this.
            Err(self.advise(failure, peak - peak / 4))
        })
    }
}
