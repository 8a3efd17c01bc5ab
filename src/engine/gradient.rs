//! The loss of one optimizer step and its gradients, part by part: what
//! learns, how the parts add up, and what is kept or computed twice.
//!
//! Knows no schedule, no optimizer and no order of the data.

use super::batch::Batch;
use super::config::LlamaConfig;
use super::lora::{Adapters, Lora};
use super::model::Llama;
use super::ops::{Precision, RopeTable};
use crate::base::seed::Seed;
use burn::tensor::Tensor;

/// What of a model learns.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Every parameter.
    Whole {
        /// The model's shape.
        config: LlamaConfig,
        /// Its rotary table.
        rope: RopeTable,
        /// Of its products.
        precision: Precision,
    },
    /// Adapters beside frozen weights, which have neither gradients nor moments.
    Adapters {
        /// The frozen model.
        base: Box<Llama>,
        /// What the adapters are.
        lora: Lora,
    },
}

impl Subject {
    /// All of a model.
    pub fn whole(model: &Llama) -> Subject {
        Subject::Whole {
            config: model.config().clone(),
            rope: model.rope().clone(),
            precision: model.precision(),
        }
    }

    /// Adapters beside a model.
    pub fn adapters(base: &Llama, lora: &Lora) -> Subject {
        Subject::Adapters { base: Box::new(base.clone()), lora: lora.clone() }
    }

    /// Every parameter that learns: its path, rows, columns.
    pub fn parameters(&self) -> Vec<(String, usize, usize)> {
        match self {
            Subject::Whole { config, .. } => config.parameters(),
            Subject::Adapters { base, lora } => lora.parameters(base.config()),
        }
    }

    /// Which of them decay: matrices, but not the norms' weights.
    pub fn decays(&self) -> Vec<bool> {
        self.parameters().iter().map(|(name, ..)| !name.ends_with("norm.weight")).collect()
    }

    /// The model with these weights where it learns. With a seed it is the model
    /// in training: adapters leave out some of their inputs.
    pub fn model(&self, weights: &[Tensor<2>], dropout: Option<Seed>) -> Llama {
        match self {
            Subject::Whole { config, rope, precision } => {
                let model = Llama::with_rope(config.clone(), rope.clone(), weights.to_vec());
                model.computing_in(*precision)
            }
            Subject::Adapters { base, lora } => {
                let tape = weights.first().is_some_and(Tensor::is_autodiff);
                let base = if tape { base.on_tape() } else { Llama::clone(base) };
                let adapters = Adapters { lora: lora.clone(), weights: weights.to_vec() };
                adapters.attach(base, dropout)
            }
        }
    }

    fn embedding_learns(&self) -> bool {
        matches!(self, Subject::Whole { .. })
    }
}

/// Loss of a step in nats per supervised token, and the gradient of every
/// parameter that learns.
///
/// The parts come from [`Batch::split`] and are computed one after another, so
/// memory is that of the largest. With `recompute` a part holds the inputs of
/// all blocks and the activations of one, and computes each block twice.
///
/// # Source
/// Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, section 4.1
pub fn gradients(
    subject: &Subject,
    weights: &[Tensor<2>],
    parts: &[Batch],
    recompute: bool,
    dropout: Seed,
) -> (f64, Vec<Tensor<2>>) {
    let of_part = if recompute { block_by_block } else { at_once };
    let mut parts = parts.iter().zip(0..).map(|(batch, part)| {
        let leaves = weights.iter().map(|w| w.clone().autodiff().require_grad()).collect();
        of_part(subject, weights, leaves, batch, dropout.at(part))
    });
    let (mut loss, mut sum) = parts.next().expect("BUG: a step has a part");
    for (other, gradients) in parts {
        loss += other;
        sum = sum.into_iter().zip(gradients).map(|(a, b)| a + b).collect();
    }
    (loss, sum)
}

/// Mean loss of a text set in nats per supervised token, without a tape. The
/// parts come from [`Batch::split`].
pub fn held_out_loss(subject: &Subject, weights: &[Tensor<2>], parts: &[Batch]) -> f64 {
    let model = subject.model(weights, None);
    parts.iter().map(|batch| value(&model.loss(model.hidden_of(batch), batch))).sum()
}

fn value(loss: &Tensor<1>) -> f64 {
    f64::from(loss.clone().into_scalar::<f32>())
}

fn at_once(
    subject: &Subject,
    _: &[Tensor<2>],
    leaves: Vec<Tensor<2>>,
    batch: &Batch,
    dropout: Seed,
) -> (f64, Vec<Tensor<2>>) {
    let model = subject.model(&leaves, Some(dropout));
    let loss = model.loss(model.hidden_of(batch), batch);
    let total = value(&loss.clone().inner());
    let mut tape = loss.backward();
    let gradients = leaves
        .into_iter()
        .map(|leaf| leaf.grad_remove(&mut tape).expect("BUG: a parameter outside of the loss"))
        .collect();
    (total, gradients)
}

fn block_by_block(
    subject: &Subject,
    weights: &[Tensor<2>],
    leaves: Vec<Tensor<2>>,
    batch: &Batch,
    dropout: Seed,
) -> (f64, Vec<Tensor<2>>) {
    let plain = subject.model(weights, Some(dropout));
    let plan = plain.plan(batch.documents.clone());
    let blocks = plain.config().num_hidden_layers;
    let mut inputs = Vec::with_capacity(blocks);
    let mut x = plain.embed(&batch.ids); // [N, d]
    for block in 0..blocks {
        inputs.push(x.clone());
        x = plain.block(block, x, &plan);
    }
    drop(plain);

    let model = subject.model(&leaves, Some(dropout));
    let mut found: Vec<Option<Tensor<2>>> = vec![None; leaves.len()];
    // A gradient is complete when every tape that its parameter is on was run:
    // a tied embedding is on two.
    let mut run = |on_tape: Tensor<1>, below: Option<&Tensor<2>>| {
        let mut tape = on_tape.backward();
        for (leaf, found) in leaves.iter().zip(&mut found) {
            if let Some(gradient) = leaf.grad_remove(&mut tape) {
                *found = Some(match found.take() {
                    Some(other) => other + gradient,
                    None => gradient,
                });
            }
        }
        below.and_then(|below| below.grad_remove(&mut tape))
    };
    let top = x.autodiff().require_grad();
    let loss = model.loss(top.clone(), batch);
    let total = value(&loss.clone().inner());
    let mut above = run(loss, Some(&top));
    for (block, x) in inputs.into_iter().enumerate().rev() {
        let x = x.autodiff();
        let x = if block > 0 || subject.embedding_learns() { x.require_grad() } else { x };
        // The gradient of this sum is the block's own, with `above` at its end.
        let y = model.block(block, x.clone(), &plan);
        above = run((y * pushed(above)).sum(), Some(&x));
    }
    if subject.embedding_learns() {
        let y = model.embed(&batch.ids);
        run((y * pushed(above)).sum(), None);
    }
    let complete = |found: Option<Tensor<2>>| found.expect("BUG: a parameter outside of the loss");
    (total, found.into_iter().map(complete).collect())
}

/// The gradient that comes from above, as a constant on the tape.
fn pushed(above: Option<Tensor<2>>) -> Tensor<2> {
    above.expect("BUG: a block that nothing depends on").autodiff()
}
