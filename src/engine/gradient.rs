//! The loss of one optimizer step and its gradients, part by part: what
//! learns, how the parts add up, and what is kept or computed twice.
//!
//! What the loss is, a [`Portion`] knows: the next token's cross entropy here,
//! others where they are at home. Knows no schedule, no optimizer and no order
//! of the data.

use super::batch::Batch;
use super::config::LlamaConfig;
use super::lora::{Adapters, Lora};
use super::model::Llama;
use super::ops::{Documents, Precision, RopeTable};
use crate::base::seed::Seed;
use burn::tensor::Tensor;
use std::ops::Add;
use std::sync::Arc;

/// A part of an optimizer step: tokens that are read, and a loss on the hidden
/// states that come of them.
pub trait Portion {
    /// What the loss is told as; those of the parts of a step add up.
    type Value: Add<Output = Self::Value>;

    /// Tokens `[N]`, documents one after another.
    fn ids(&self) -> &Arc<[u32]>;

    /// Bounds of the documents.
    fn documents(&self) -> &Documents;

    /// Tokens that are counted as supervised.
    fn supervised(&self) -> usize;

    /// The loss, and a number on the tape whose gradient is the loss's.
    ///
    /// # Shapes
    /// hidden `[N, d]`, below the last norm; heads as in [`Subject::with_heads`]
    /// -> `[1]`
    fn loss(
        &self,
        model: &Llama,
        heads: &[Tensor<2>],
        hidden: Tensor<2>,
    ) -> (Self::Value, Tensor<1>);
}

impl Portion for Batch {
    /// Nats per supervised token of the step.
    type Value = f64;

    fn ids(&self) -> &Arc<[u32]> {
        &self.ids
    }

    fn documents(&self) -> &Documents {
        &self.documents
    }

    fn supervised(&self) -> usize {
        self.targets.len()
    }

    fn loss(&self, model: &Llama, _: &[Tensor<2>], hidden: Tensor<2>) -> (f64, Tensor<1>) {
        let loss = model.loss(hidden, self);
        (f64::from(loss.clone().into_scalar::<f32>()), loss)
    }
}

/// What learns: of a model, and beside it.
#[derive(Clone, Debug)]
pub struct Subject {
    of_model: OfModel,
    heads: Vec<(String, usize, usize)>,
}

/// What of a model learns.
#[derive(Clone, Debug)]
pub(super) enum OfModel {
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
        let of_model = OfModel::Whole {
            config: model.config().clone(),
            rope: model.rope().clone(),
            precision: model.precision(),
        };
        Subject { of_model, heads: Vec::new() }
    }

    /// Adapters beside a model.
    pub fn adapters(base: &Llama, lora: &Lora) -> Subject {
        let of_model = OfModel::Adapters { base: Box::new(base.clone()), lora: lora.clone() };
        Subject { of_model, heads: Vec::new() }
    }

    /// The same with matrices of a loss's own, which learn too: path, rows,
    /// columns of each.
    pub fn with_heads(self, heads: Vec<(String, usize, usize)>) -> Subject {
        Subject { heads, ..self }
    }

    /// Every parameter that learns: its path, rows, columns; heads come last.
    pub fn parameters(&self) -> Vec<(String, usize, usize)> {
        let mut all = match &self.of_model {
            OfModel::Whole { config, .. } => config.parameters(),
            OfModel::Adapters { base, lora } => lora.parameters(base.config()),
        };
        all.extend(self.heads.iter().cloned());
        all
    }

    /// The part of these weights, or of their gradients, that belongs to heads.
    pub fn heads<'a>(&self, weights: &'a [Tensor<2>]) -> &'a [Tensor<2>] {
        &weights[weights.len() - self.heads.len()..]
    }

    pub(super) fn into_parts(self, weights: Vec<Tensor<2>>) -> (OfModel, Vec<Tensor<2>>) {
        let of_model = weights.len() - self.heads.len();
        (self.of_model, weights.into_iter().take(of_model).collect())
    }

    /// Which of them decay: matrices, but neither the norms' weights nor biases.
    pub fn decays(&self) -> Vec<bool> {
        let keeps = |name: &str| name.ends_with("norm.weight") || name.ends_with("bias");
        self.parameters().iter().map(|(name, ..)| !keeps(name)).collect()
    }

    /// The model with these weights where it learns. With a seed it is the model
    /// in training: adapters leave out some of their inputs.
    pub fn model(&self, weights: &[Tensor<2>], dropout: Option<Seed>) -> Llama {
        let weights = weights[..weights.len() - self.heads.len()].to_vec();
        match &self.of_model {
            OfModel::Whole { config, rope, precision } => {
                let model = Llama::with_rope(config.clone(), rope.clone(), weights);
                model.computing_in(*precision)
            }
            OfModel::Adapters { base, lora } => {
                let tape = weights.first().is_some_and(Tensor::is_autodiff);
                let base = if tape { base.on_tape() } else { Llama::clone(base) };
                Adapters { lora: lora.clone(), weights }.attach(base, dropout)
            }
        }
    }

    fn embedding_learns(&self) -> bool {
        matches!(self.of_model, OfModel::Whole { .. })
    }
}

/// Loss of a step, and the gradient of every parameter that learns.
///
/// The parts are computed one after another, so memory is that of the largest;
/// each brings its share of the step's loss. With `recompute` a part holds the
/// inputs of all blocks and the activations of one, and computes each block twice.
///
/// # Source
/// Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, section 4.1
pub fn gradients<P: Portion>(
    subject: &Subject,
    weights: &[Tensor<2>],
    parts: &[P],
    recompute: bool,
    dropout: Seed,
) -> (P::Value, Vec<Tensor<2>>) {
    let of_part = if recompute { block_by_block } else { at_once };
    let mut parts = parts.iter().zip(0..).map(|(part, number)| {
        let leaves = weights.iter().map(|w| w.clone().autodiff().require_grad()).collect();
        of_part(subject, weights, leaves, part, dropout.at(number))
    });
    let (mut loss, mut sum) = parts.next().expect("BUG: a step has a part");
    for (other, gradients) in parts {
        loss = loss + other;
        sum = sum.into_iter().zip(gradients).map(|(a, b)| a + b).collect();
    }
    (loss, sum)
}

/// Mean loss of a set without a tape, such as nats per supervised token of
/// texts. The parts are cut as those of a step.
pub fn held_out_loss<P: Portion<Value = f64>>(
    subject: &Subject,
    weights: &[Tensor<2>],
    parts: &[P],
) -> f64 {
    let model = subject.model(weights, None);
    let heads = subject.heads(weights);
    let of_part = |part: &P| {
        let plan = model.plan(part.documents().clone());
        part.loss(&model, heads, model.hidden(part.ids(), &plan)).0
    };
    parts.iter().map(of_part).sum()
}

fn at_once<P: Portion>(
    subject: &Subject,
    _: &[Tensor<2>],
    leaves: Vec<Tensor<2>>,
    part: &P,
    dropout: Seed,
) -> (P::Value, Vec<Tensor<2>>) {
    let model = subject.model(&leaves, Some(dropout));
    let hidden = model.hidden(part.ids(), &model.plan(part.documents().clone()));
    let (total, loss) = part.loss(&model, subject.heads(&leaves), hidden);
    let mut tape = loss.backward();
    let gradients = leaves
        .into_iter()
        .map(|leaf| leaf.grad_remove(&mut tape).expect("BUG: a parameter outside of the loss"))
        .collect();
    (total, gradients)
}

fn block_by_block<P: Portion>(
    subject: &Subject,
    weights: &[Tensor<2>],
    leaves: Vec<Tensor<2>>,
    part: &P,
    dropout: Seed,
) -> (P::Value, Vec<Tensor<2>>) {
    let plain = subject.model(weights, Some(dropout));
    let plan = plain.plan(part.documents().clone());
    let blocks = plain.config().num_hidden_layers;
    let mut inputs = Vec::with_capacity(blocks);
    let mut x = plain.embed(part.ids()); // [N, d]
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
    let (total, loss) = part.loss(&model, subject.heads(&leaves), top.clone());
    let mut above = run(loss, Some(&top));
    for (block, x) in inputs.into_iter().enumerate().rev() {
        let x = x.autodiff();
        let x = if block > 0 || subject.embedding_learns() { x.require_grad() } else { x };
        // The gradient of this sum is the block's own, with `above` at its end.
        let y = model.block(block, x.clone(), &plan);
        above = run((y * pushed(above)).sum(), Some(&x));
    }
    if subject.embedding_learns() {
        let y = model.embed(part.ids());
        run((y * pushed(above)).sum(), None);
    }
    let complete = |found: Option<Tensor<2>>| found.expect("BUG: a parameter outside of the loss");
    (total, found.into_iter().map(complete).collect())
}

/// The gradient that comes from above, as a constant on the tape.
fn pushed(above: Option<Tensor<2>>) -> Tensor<2> {
    above.expect("BUG: a block that nothing depends on").autodiff()
}
