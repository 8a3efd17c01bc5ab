//! A reward model: a decoder whose output matrix gave way to one number, read
//! at the last token of a text.
//!
//! Knows token sequences, not what they say; which of two replies is the better
//! one it is told. Files are `weights`' and `peft`'s business.
//!
//! # Source
//! Stiennon et al., arXiv 2009.01325, section 3.4; Ouyang et al., arXiv
//! 2203.02155, section 3.5. The head is that of transformers'
//! `LlamaForSequenceClassification`: linear, no bias, on the last norm.

use super::batch::{Pieces, cut};
use super::estimate::Part;
use super::gradient::{Portion, Subject};
use super::lora::Adapters;
use super::model::Llama;
use super::ops::{self, Documents, Precision};
use super::preference::bradley_terry;
use super::train::Lesson;
use super::weights::tensors;
use crate::base::failure::{Failure, Outcome};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor, TensorData};
use std::io::Cursor;
use std::sync::Arc;

/// The head's path in a checkpoint, as transformers has it.
pub const HEAD: &str = "score.weight";

/// Deviation of a random head: transformers' `initializer_range`.
const HEAD_STD: f64 = 0.02;

/// Two replies to one prompt, each a whole text.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The better one, behind its prompt.
    pub chosen: Vec<u32>,
    /// The other.
    pub rejected: Vec<u32>,
}

/// Some of the pairs of a step, packed: the better reply of each, then the other.
#[derive(Clone, Debug)]
pub struct Pairs {
    texts: Packed,
    /// Pairs of the step that it is a part of.
    of: usize,
}

/// Whole texts one after another, and where each ends.
#[derive(Clone, Debug)]
struct Packed {
    ids: Arc<[u32]>, // [N]
    documents: Documents,
    ends: Arc<[u32]>, // [texts]
}

impl Packed {
    fn of<'a>(texts: impl Iterator<Item = &'a [u32]> + Clone) -> Packed {
        let documents = Documents::of_lengths(texts.clone().map(<[u32]>::len));
        let ends = documents.ranges().map(|(_, end)| end as u32 - 1).collect();
        Packed { ids: texts.flatten().copied().collect(), documents, ends }
    }
}

impl Lesson for Pair {
    type Portion = Pairs;

    fn parts(pairs: &[&Pair], pieces: Pieces) -> Vec<Pairs> {
        let tokens = |pair: &&Pair| pair.chosen.len() + pair.rejected.len();
        let packed = |part: Vec<&Pair>| Pairs {
            texts: Packed::of(part.iter().flat_map(|one| [&one.chosen[..], &one.rejected[..]])),
            of: pairs.len(),
        };
        cut(pairs, tokens, pieces).into_iter().map(packed).collect()
    }

    fn extent(&self) -> Part {
        // Two texts that are read to their last token; no logits of any token.
        Part::of([(self.chosen.len() as u64, 0), (self.rejected.len() as u64, 0)])
    }
}

impl Portion for Pairs {
    /// Nats per pair of the step.
    type Value = f64;

    fn ids(&self) -> &Arc<[u32]> {
        &self.texts.ids
    }

    fn documents(&self) -> &Documents {
        &self.texts.documents
    }

    /// Scores.
    fn supervised(&self) -> usize {
        self.texts.ends.len()
    }

    fn loss(&self, model: &Llama, heads: &[Tensor<2>], hidden: Tensor<2>) -> (f64, Tensor<1>) {
        let scores = scores_of(model, &heads[0], hidden, &self.texts.ends); // [2 * pairs, 1]
        let (mut loss, mut slopes) = (0.0, Vec::with_capacity(self.texts.ends.len()));
        for pair in numbers(&scores).chunks_exact(2) {
            let term = bradley_terry(pair[0], pair[1]);
            loss += term.loss / self.of as f64;
            let slope = (term.slope / self.of as f64) as f32;
            slopes.extend([slope, -slope]);
        }
        (loss, pushed(scores, slopes))
    }
}

/// Score of each text, from the hidden states below the last norm.
///
/// # Shapes
/// head `[1, d]`; hidden `[N, d]`; ends `[texts]` -> `[texts, 1]`
fn scores_of(model: &Llama, head: &Tensor<2>, hidden: Tensor<2>, ends: &Arc<[u32]>) -> Tensor<2> {
    // One product of many thousands: a score is not rounded, whatever the others are.
    ops::linear(model.last_norm(ops::rows(hidden, ends)), head.clone(), Precision::F32)
}

/// A column's numbers.
pub(super) fn numbers(column: &Tensor<2>) -> Vec<f64> {
    let plain = if column.is_autodiff() { column.clone().inner() } else { column.clone() };
    let values = plain.into_data().try_to_vec::<f32>().expect("BUG: a column that is not f32");
    values.into_iter().map(f64::from).collect()
}

/// A number whose gradient by the column is `slopes`; the number itself has no
/// meaning.
pub(super) fn pushed(column: Tensor<2>, slopes: Vec<f32>) -> Tensor<1> {
    let shape = column.dims();
    let slopes = Tensor::<2>::from_data(TensorData::new(slopes, shape), &column.device().inner());
    let slopes = if column.is_autodiff() { slopes.autodiff() } else { slopes };
    (column * slopes).sum()
}

/// What learns in the training of a reward model, without an output matrix, and
/// what it starts with: the model as it is, and a random head.
pub fn learner(
    trunk: &Llama,
    adapters: Option<&Adapters>,
    seed: Seed,
) -> (Subject, Vec<Tensor<2>>) {
    let (subject, mut first) = match adapters {
        None => (Subject::whole(trunk), trunk.tensors()),
        Some(Adapters { lora, weights }) => (Subject::adapters(trunk, lora), weights.clone()),
    };
    let (width, mut rng) = (trunk.config().hidden_size, seed.rng());
    let head: Vec<f32> = (0..width).map(|_| (rng.normal() * HEAD_STD) as f32).collect();
    first.push(Tensor::from_data(TensorData::new(head, [1, width]), &trunk.device()));
    (subject.with_heads(vec![(HEAD.to_owned(), 1, width)]), first)
}

/// A trained reward model.
#[derive(Clone, Debug)]
pub struct RewardModel {
    /// The model below the head, adapters attached.
    pub model: Llama,
    /// The head `[1, d]`.
    pub head: Tensor<2>,
}

impl RewardModel {
    /// The reward model that a training of `subject` came to.
    pub fn of(subject: &Subject, weights: &[Tensor<2>]) -> RewardModel {
        RewardModel { model: subject.model(weights, None), head: subject.heads(weights)[0].clone() }
    }

    /// The score of each text, in the order of the texts; at most `tokens` of
    /// them are read at a time.
    pub fn scores(&self, texts: &[&[u32]], tokens: usize) -> Vec<f64> {
        let all: Vec<(usize, &[u32])> = texts.iter().copied().enumerate().collect();
        let mut found = vec![f64::NAN; texts.len()];
        for part in cut(&all, |(_, text)| text.len(), Pieces::Tokens(tokens)) {
            let packed = Packed::of(part.iter().map(|(_, text)| *text));
            let hidden = self.model.hidden(&packed.ids, &self.model.plan(packed.documents));
            let scores = numbers(&scores_of(&self.model, &self.head, hidden, &packed.ends));
            part.iter().zip(scores).for_each(|((at, _), score)| found[*at] = score);
        }
        found
    }

    /// The head as a safetensors file.
    ///
    /// # Errors
    /// When the format's library refuses, which would be a bug.
    pub fn save_head(&self) -> Outcome<Vec<u8>> {
        tensors::pack([(HEAD.to_owned(), self.head.clone())].into_iter(), tensors::matrix)
    }
}

/// A head that [`RewardModel::save_head`] wrote, for a model of this width.
///
/// # Errors
/// `Input` when the file, called `what` in messages, is damaged or of another
/// width.
pub fn load_head(bytes: &[u8], what: &str, width: usize, device: &Device) -> Outcome<Tensor<2>> {
    let mut file = tensors::Stored::open(Cursor::new(bytes), what)?;
    let (dtype, shape) = file.info(HEAD)?;
    if !tensors::is_readable(dtype) || shape != [1, width] {
        return Err(Failure::input(format!(
            "the head in {what} is {dtype:?} {shape:?}, not a floating-point {:?}",
            [1, width]
        ))
        .hint("it belongs to a model of another width"));
    }
    file.in_f32(HEAD, [1, width], device)
}
