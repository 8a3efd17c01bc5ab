//! The one training loop: batches in, gradients, AdamW steps, a log.
//!
//! Does not know what the texts mean, where checkpoints are kept or who shows
//! the progress: an observer hears of every step and may ask for a snapshot or
//! an end.

use super::batch::{Batch, Order, Sequence};
use super::config::LlamaConfig;
use super::model::Llama;
use super::ops;
use super::optimizer::{AdamW, Optimizer};
use super::weights;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Points of the loss curve.
const CURVE: u64 = 50;

/// What a training is asked to do.
#[derive(Clone, Debug)]
pub struct Training {
    /// Optimizer and schedule.
    pub optimizer: AdamW,
    /// Sequences in a batch.
    pub batch: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Seed of the order.
    pub seed: Seed,
}

/// Counts and losses so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Tokens with loss seen.
    pub tokens_supervised: u64,
    /// Mean loss since the last point of the curve: sum and count.
    recent: (f64, u64),
    /// Loss curve: (step, mean loss in nats per supervised token).
    pub curve: Vec<(u64, f64)>,
}

/// What the observer wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    Continue,
    /// Go on after a snapshot.
    Snapshot,
    /// Stop after a snapshot.
    Stop,
}

/// Files of a checkpoint by name.
pub type Snapshot = BTreeMap<String, Vec<u8>>;

/// Hears of every step.
pub trait Observer {
    /// After a step.
    fn step(&mut self, progress: &Progress, loss: f64) -> Wish;
    /// Keeps a snapshot.
    ///
    /// # Errors
    /// When it cannot be kept; the training then ends.
    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()>;
}

/// Trains `start` on `data`, or goes on from a snapshot of the same training.
///
/// # Errors
/// `Input` for a loss that is not finite, `Interrupted` when the observer asks
/// for a stop, and what the observer's `keep` reports.
pub fn train(
    start: Llama,
    data: &[Sequence],
    training: &Training,
    resume: Option<Snapshot>,
    observer: &mut dyn Observer,
) -> Outcome<(Llama, Progress)> {
    let (config, device) = (start.config().clone(), start.device());
    let (mut optimizer, mut progress) = match resume {
        Some(snapshot) => restore(&config, training, &snapshot, &device)?,
        None => {
            let optimizer = Optimizer::new(training.optimizer, &config, start.tensors());
            (optimizer, Progress::default())
        }
    };
    drop(start);
    let mut order = Order::new(training.seed, data.len(), training.batch);
    let interval = training.steps.div_ceil(CURVE).max(1);
    while progress.step < training.steps {
        let batch = Batch::pack(order.at(progress.step).iter().map(|&i| &data[i as usize]));
        let (loss, gradients) = gradients(&config, &optimizer.weights(), &batch);
        if !loss.is_finite() {
            return Err(not_finite(progress.step, loss, order.at(progress.step)));
        }
        optimizer.take_step(gradients, training.steps);
        progress.add(&batch, loss, interval, training.steps);
        match observer.step(&progress, loss) {
            Wish::Continue => {}
            Wish::Snapshot => observer.keep(snapshot(&config, &optimizer, &progress)?)?,
            Wish::Stop => {
                observer.keep(snapshot(&config, &optimizer, &progress)?)?;
                return Err(Failure::interrupted());
            }
        }
    }
    Ok((Llama::from_tensors(config, optimizer.weights()), progress))
}

/// Loss in nats per supervised token, and the gradient of every parameter.
pub fn gradients(
    config: &LlamaConfig,
    weights: &[Tensor<2>],
    batch: &Batch,
) -> (f64, Vec<Tensor<2>>) {
    let leaves: Vec<Tensor<2>> =
        weights.iter().map(|w| w.clone().autodiff().require_grad()).collect();
    let model = Llama::from_tensors(config.clone(), leaves.clone());
    let hidden = model.hidden(&batch.ids, &model.plan(batch.documents.clone())); // [N, d]
    let supervised = model.last_norm(ops::rows(hidden, &batch.rows)); // [M, d]
    let loss =
        ops::linear_cross_entropy(supervised, model.output(), &batch.targets, &batch.weights);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    let mut tape = loss.backward();
    let gradients = leaves
        .into_iter()
        .map(|leaf| leaf.grad_remove(&mut tape).expect("every parameter takes part in the loss"))
        .collect();
    (value, gradients)
}

fn not_finite(step: u64, loss: f64, examples: &[u32]) -> Failure {
    let first: Vec<String> = examples.iter().take(4).map(ToString::to_string).collect();
    Failure::input(format!(
        "the loss became {loss} at step {step} (examples {}, ...)",
        first.join(", ")
    ))
    .hint("lower the learning rate, or look at these examples")
}

impl Progress {
    fn add(&mut self, batch: &Batch, loss: f64, interval: u64, total: u64) {
        self.step += 1;
        self.tokens += batch.ids.len() as u64;
        self.tokens_supervised += batch.targets.len() as u64;
        self.recent = (self.recent.0 + loss, self.recent.1 + 1);
        if self.step.is_multiple_of(interval) || self.step == total {
            self.curve.push((self.step, self.recent.0 / self.recent.1 as f64));
            self.recent = (0.0, 0);
        }
    }
}

fn snapshot(config: &LlamaConfig, optimizer: &Optimizer, progress: &Progress) -> Outcome<Snapshot> {
    let state = serde_json::to_vec(progress).doing(|| "writing the training's state".into())?;
    let weights = weights::save_moments(config, optimizer.parameters())?;
    Ok([("state.json".to_owned(), state), ("optimizer.safetensors".to_owned(), weights)].into())
}

fn restore(
    config: &LlamaConfig,
    training: &Training,
    snapshot: &Snapshot,
    device: &Device,
) -> Outcome<(Optimizer, Progress)> {
    let file = |name: &str| {
        snapshot.get(name).ok_or_else(|| Failure::input(format!("the checkpoint has no `{name}`")))
    };
    let progress: Progress = serde_json::from_slice(file("state.json")?)
        .doing(|| "reading the checkpoint's state".into())?;
    let parameters = weights::load_moments(config, file("optimizer.safetensors")?, device)?;
    let optimizer = Optimizer::resumed(training.optimizer, config, parameters, progress.step);
    Ok((optimizer, progress))
}
