//! The one training loop: batches in, gradients, AdamW steps, a log. What a
//! batch is made of is a [`Lesson`]: texts here, pairs of replies in `reward`.
//!
//! Does not know what the texts mean, where checkpoints are kept or who shows
//! the progress: an observer hears of every step and may ask for a snapshot or
//! an end.

use super::batch::{Batch, Order, Pieces, Sequence};
use super::estimate::Part;
use super::gradient::{self, OfModel, Portion, Subject};
use super::lora::Adapters;
use super::model::Llama;
use super::optimizer::{AdamW, Optimizer, global_norm};
use super::weights;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Points of the loss curve.
const CURVE: u64 = 50;

/// Sequences whose logits tell what merging adapters costs.
const MERGE_PROBE: usize = 8;

/// An item that is learnt from, whole.
pub trait Lesson: Sized {
    /// What the parts of a step are.
    type Portion: Portion<Value = f64>;

    /// The parts of a step, or of a held-out set; their losses add up.
    fn parts(items: &[&Self], pieces: Pieces) -> Vec<Self::Portion>;

    /// What it takes to learn from it.
    fn extent(&self) -> Part;
}

impl Lesson for Sequence {
    type Portion = Batch;

    fn parts(items: &[&Sequence], pieces: Pieces) -> Vec<Batch> {
        Batch::split(items, pieces)
    }

    fn extent(&self) -> Part {
        Part::of([(self.ids.len() as u64 - 1, self.targets() as u64)])
    }
}

/// What a training is asked to do.
#[derive(Clone, Debug)]
pub struct Training {
    /// Optimizer and schedule.
    pub optimizer: AdamW,
    /// Sequences of an optimizer step.
    pub batch: usize,
    /// How they are cut into parts, which are computed one after another.
    pub pieces: Pieces,
    /// Whether blocks are computed twice, to hold the activations of one only.
    pub recompute: bool,
    /// Adapters that learn in place of the weights.
    pub adapters: Option<Adapters>,
    /// Optimizer steps.
    pub steps: u64,
    /// Optimizer steps between two held-out losses.
    pub validate_every: u64,
    /// Seed of the order.
    pub seed: Seed,
    /// Seed of what adapters leave out.
    pub dropout: Seed,
}

/// Texts of a training, or whatever else it learns from.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a, L = Sequence> {
    /// Those it learns from.
    pub seen: &'a [L],
    /// Those that only tell how far it is; may be empty.
    pub held_out: &'a [L],
}

/// What came of a training.
#[derive(Debug)]
pub struct Trained {
    /// The model; adapters are merged into it.
    pub model: Llama,
    /// The adapters, and the largest change of a logit by merging them.
    pub adapters: Option<(Adapters, f64)>,
    /// Counts and losses.
    pub progress: Progress,
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
    /// Held-out loss: (step, mean loss in nats per supervised token).
    #[serde(default)]
    pub held_out: Vec<(u64, f64)>,
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
    /// What a person calls a sequence of the training, by its index.
    fn name(&self, sequence: usize) -> String;
}

/// Trains `start` on texts, or goes on from a snapshot of the same training.
///
/// # Errors
/// Those of [`learn`].
pub fn train(
    start: Llama,
    texts: Texts,
    training: &Training,
    resume: Option<Snapshot>,
    observer: &mut dyn Observer,
) -> Outcome<Trained> {
    let device = start.device();
    let (subject, first) = match &training.adapters {
        None => (Subject::whole(&start), start.tensors()),
        Some(Adapters { lora, weights }) => (Subject::adapters(&start, lora), weights.clone()),
    };
    drop(start);
    let seen = texts.seen;
    let (weights, progress) = learn(&subject, first, &device, texts, training, resume, observer)?;
    Ok(finished(subject, weights, seen, progress))
}

/// Lets what is to learn learn, from `first` or from a snapshot of the same
/// training on; gives its weights.
///
/// # Errors
/// `Input` for a loss or a gradient that is not finite, which takes no step: a
/// snapshot of the state before it is kept; and for weights that are not finite,
/// of which none is. `Interrupted` when the observer asks for a stop, and what
/// the observer's `keep` reports.
pub fn learn<L: Lesson>(
    subject: &Subject,
    first: Vec<Tensor<2>>,
    device: &Device,
    texts: Texts<L>,
    training: &Training,
    resume: Option<Snapshot>,
    observer: &mut dyn Observer,
) -> Outcome<(Vec<Tensor<2>>, Progress)> {
    let (mut optimizer, mut progress) = match resume {
        Some(snapshot) => restore(subject, training, &snapshot, device)?,
        None => (Optimizer::new(training.optimizer, subject.decays(), first), Progress::default()),
    };
    let held_out: Vec<&L> = texts.held_out.iter().collect();
    let held_out_parts = held_out.len().div_ceil(training.batch);
    let held_out = L::parts(&held_out, Pieces::Count(held_out_parts));
    let validate = |optimizer: &Optimizer, progress: &mut Progress| {
        if !held_out.is_empty() {
            let loss = gradient::held_out_loss(subject, &optimizer.weights(), &held_out);
            progress.held_out.push((progress.step, loss));
        }
    };
    if progress.step == 0 {
        validate(&optimizer, &mut progress);
    }
    let mut order = Order::new(training.seed, texts.seen.len(), training.batch);
    let interval = training.steps.div_ceil(CURVE).max(1);
    while progress.step < training.steps {
        let step = progress.step;
        let members = order.at(step);
        let items: Vec<&L> = members.iter().map(|&i| &texts.seen[i as usize]).collect();
        let parts = L::parts(&items, training.pieces);
        let (loss, gradients) = gradient::gradients(
            subject,
            &optimizer.weights(),
            &parts,
            training.recompute,
            training.dropout.at(step),
        );
        let norm = global_norm(&gradients);
        if !loss.is_finite() || !norm.is_finite() {
            drop(gradients);
            // Where the weights are not finite that is the failure, and no example is to blame.
            observer.keep(snapshot(subject, &optimizer, &progress)?)?;
            let names = blame(subject, &optimizer.weights(), &items);
            let names: Vec<String> =
                names.into_iter().map(|i| observer.name(members[i] as usize)).collect();
            return Err(not_finite(step, loss, norm, &names));
        }
        optimizer.take_step(gradients, norm, training.steps);
        progress.add(&parts, loss, interval, training.steps);
        if progress.step.is_multiple_of(training.validate_every.max(1))
            || progress.step == training.steps
        {
            validate(&optimizer, &mut progress);
        }
        match observer.step(&progress, loss) {
            Wish::Continue => {}
            Wish::Snapshot => observer.keep(snapshot(subject, &optimizer, &progress)?)?,
            Wish::Stop => {
                observer.keep(snapshot(subject, &optimizer, &progress)?)?;
                return Err(Failure::interrupted());
            }
        }
    }
    sound(&optimizer)?;
    Ok((optimizer.weights(), progress))
}

/// Whether the weights can be kept: a finite gradient may still have thrown them
/// out of all bounds.
fn sound(optimizer: &Optimizer) -> Outcome<()> {
    if global_norm(&optimizer.weights()).is_finite() {
        return Ok(());
    }
    let step = optimizer.step_count();
    Err(Failure::input(format!("the weights became infinite within {step} steps"))
        .hint("lower the learning rate; a checkpoint from before is as it was"))
}

fn finished(
    subject: Subject,
    weights: Vec<Tensor<2>>,
    seen: &[Sequence],
    progress: Progress,
) -> Trained {
    match subject.into_parts(weights) {
        (OfModel::Whole { config, rope, precision }, weights) => {
            let model = Llama::with_rope(config, rope, weights).computing_in(precision);
            Trained { model, adapters: None, progress }
        }
        (OfModel::Adapters { base, lora }, weights) => {
            let adapters = Adapters { lora, weights };
            let model = adapters.merge(&base);
            let probe = Batch::pack(seen.iter().take(MERGE_PROBE));
            let error = adapters.merge_error(&base, &model, &probe);
            Trained { model, adapters: Some((adapters, error)), progress }
        }
    }
}

/// Which items of a step have a loss that is not finite, alone. None where
/// the gradients alone overflow.
fn blame<L: Lesson>(subject: &Subject, weights: &[Tensor<2>], items: &[&L]) -> Vec<usize> {
    let alone = |i: &usize| {
        let parts = L::parts(&items[*i..=*i], Pieces::Count(1));
        !gradient::held_out_loss(subject, weights, &parts).is_finite()
    };
    (0..items.len()).filter(alone).collect()
}

fn not_finite(step: u64, loss: f64, norm: f64, examples: &[String]) -> Failure {
    const SHOWN: usize = 4;
    let what = match loss.is_finite() {
        true => format!("the gradient's norm became {norm}"),
        false => format!("the loss became {loss}"),
    };
    let shown = examples.iter().take(SHOWN).map(|name| format!("`{name}`"));
    let mut who = shown.collect::<Vec<_>>().join(", ");
    if examples.len() > SHOWN {
        who += &format!(" and {} more", examples.len() - SHOWN);
    }
    let whose = match examples.len() {
        0 => "no example of it alone is to blame".to_owned(),
        _ => format!("because of {who}"),
    };
    Failure::input(format!("{what} at step {step}; {whose}")).hint(
        "lower the learning rate, or look at these examples; the state before this step is kept",
    )
}

impl Progress {
    fn add<P: Portion>(&mut self, parts: &[P], loss: f64, interval: u64, total: u64) {
        self.step += 1;
        self.tokens += parts.iter().map(|part| part.ids().len() as u64).sum::<u64>();
        self.tokens_supervised += parts.iter().map(|part| part.supervised() as u64).sum::<u64>();
        self.recent = (self.recent.0 + loss, self.recent.1 + 1);
        if self.step.is_multiple_of(interval) || self.step == total {
            self.curve.push((self.step, self.recent.0 / self.recent.1 as f64));
            self.recent = (0.0, 0);
        }
    }
}

fn snapshot(subject: &Subject, optimizer: &Optimizer, progress: &Progress) -> Outcome<Snapshot> {
    sound(optimizer)?;
    let state = serde_json::to_vec(progress).doing(|| "writing the training's state".into())?;
    let moments = weights::save_moments(&subject.parameters(), optimizer.parameters())?;
    Ok([("state.json".to_owned(), state), ("optimizer.safetensors".to_owned(), moments)].into())
}

fn restore(
    subject: &Subject,
    training: &Training,
    snapshot: &Snapshot,
    device: &Device,
) -> Outcome<(Optimizer, Progress)> {
    let file = |name: &str| {
        snapshot.get(name).ok_or_else(|| Failure::input(format!("the checkpoint has no `{name}`")))
    };
    let progress: Progress = serde_json::from_slice(file("state.json")?)
        .doing(|| "reading the checkpoint's state".into())?;
    let moments = file("optimizer.safetensors")?;
    let moments = weights::load_moments(&subject.parameters(), moments, device)?;
    let (settings, decays) = (training.optimizer, subject.decays());
    Ok((Optimizer::resumed(settings, decays, moments, progress.step), progress))
}
