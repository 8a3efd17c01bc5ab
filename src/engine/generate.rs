//! Batched decoding: requests in, tokens out, each as soon as it is finished.
//!
//! Continuous batching: a finished request leaves its slot to the next one. On
//! the CPU a request's tokens do not depend on its batch mates, nor on how many
//! there are. The cache is a value of one call.

use super::model::{Cache, Llama};
use super::ops::{Documents, Slots};
use super::sample::Sampling;
use super::tokenizer::Tokenizer;
use super::tokenizer::growing::Until;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use burn::tensor::Tensor;
use std::collections::VecDeque;
use std::sync::Arc;

/// One text to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's name for it.
    pub index: usize,
    /// Prompt tokens; at least one.
    pub prompt: Vec<u32>,
    /// Seed of its random choices.
    pub seed: Seed,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to write.
    pub max_tokens: usize,
    /// Whether the reply is to have the probabilities of its tokens.
    pub logprobs: bool,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came, or the text that ends a reply was complete.
    Stop,
    /// It wrote as much as it may, or the context was full.
    Length,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The request.
    pub index: usize,
    /// Tokens written: without a stop token, with the one that completed a stopping text.
    pub tokens: Vec<u32>,
    /// Natural logarithm of the probability of each token written, then of the stop token, if one
    /// came; before temperature and choice of the likeliest. Empty unless it was asked for.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Settings of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Decoding<'a> {
    /// Sequences decoded side by side; does not change what they say on the CPU.
    pub batch: usize,
    /// Tokens that end a reply.
    pub stop: &'a [u32],
    /// A text that ends a reply, in the words of this vocabulary; it may come in several tokens.
    pub until: Option<(&'a Tokenizer, &'a str)>,
}

struct Active<'a> {
    request: Request,
    slot: u32,
    written: Vec<u32>,
    logprobs: Vec<f32>,
    until: Option<Until<'a>>,
    /// Tokens in the cache.
    length: usize,
}

/// Runs all requests; `done` gets each reply as it finishes and may end the
/// generation by an error.
///
/// # Errors
/// `Input` for a prompt that is empty or leaves no room in the context, and
/// what `done` returns.
pub fn generate(
    model: &Llama,
    requests: Vec<Request>,
    decoding: Decoding<'_>,
    done: &mut dyn FnMut(Reply) -> Outcome<()>,
) -> Outcome<()> {
    let context = model.config().max_position_embeddings;
    let capacity = capacity(&requests, context)?;
    let slots = decoding.batch.min(requests.len()).max(1);
    let mut cache = model.cache(slots, capacity);
    let mut free: Vec<u32> = (0..slots as u32).rev().collect();
    let mut waiting: VecDeque<Request> = requests.into();
    let mut active: Vec<Active> = Vec::with_capacity(slots);
    while !waiting.is_empty() || !active.is_empty() {
        // Prompts are read several at a time: many free slots, or nothing else to do.
        let due = free.len() * 4 >= slots || active.is_empty();
        if due && !waiting.is_empty() {
            let n = free.len().min(waiting.len());
            let admitted: Vec<Active> = waiting
                .drain(..n)
                .zip(free.drain(free.len() - n..))
                .map(|(request, slot)| Active {
                    length: request.prompt.len(),
                    until: decoding
                        .until
                        .map(|(tokenizer, text)| Until::behind(tokenizer, &request.prompt, text)),
                    request,
                    slot,
                    written: Vec::new(),
                    logprobs: Vec::new(),
                })
                .collect();
            let logits = prefill(model, &mut cache, &admitted);
            settle(admitted, &logits?, capacity, decoding.stop, &mut active, &mut free, done)?;
        }
        if !active.is_empty() {
            let logits = decode(model, &mut cache, &mut active)?;
            let stepped = std::mem::take(&mut active);
            settle(stepped, &logits, capacity, decoding.stop, &mut active, &mut free, done)?;
        }
    }
    Ok(())
}

/// Tokens a slot must hold.
fn capacity(requests: &[Request], context: usize) -> Outcome<usize> {
    let mut needed = 1;
    for request in requests {
        let prompt = request.prompt.len();
        if prompt == 0 || prompt >= context {
            return Err(Failure::input(format!(
                "request {} has a prompt of {prompt} tokens; the context holds 1 to {}",
                request.index,
                context - 1
            )));
        }
        needed = needed.max((prompt + request.max_tokens).min(context));
    }
    Ok(needed)
}

fn prefill(model: &Llama, cache: &mut Cache, admitted: &[Active<'_>]) -> Outcome<Vec<f32>> {
    let ids: Arc<[u32]> = admitted.iter().flat_map(|a| a.request.prompt.iter().copied()).collect();
    let documents = Documents::of_lengths(admitted.iter().map(|a| a.request.prompt.len()));
    let slots: Vec<u32> = admitted.iter().map(|a| a.slot).collect();
    read(model.prefill(cache, &ids, &documents, &slots))
}

fn decode(model: &Llama, cache: &mut Cache, active: &mut [Active<'_>]) -> Outcome<Vec<f32>> {
    for a in active.iter_mut() {
        a.length += 1;
    }
    let last = |a: &Active<'_>| *a.written.last().expect("an active request has written a token");
    let ids: Arc<[u32]> = active.iter().map(last).collect();
    let slots = Slots {
        capacity: cache.capacity(),
        of_row: active.iter().map(|a| a.slot).collect(),
        lengths: active.iter().map(|a| a.length as u32).collect(),
    };
    read(model.decode(cache, &ids, &slots))
}

fn read(logits: Tensor<2>) -> Outcome<Vec<f32>> {
    logits.into_data().try_to_vec::<f32>().doing(|| "reading logits".into())
}

/// Chooses the next token of each row; finished ones are handed over.
fn settle<'a>(
    rows: Vec<Active<'a>>,
    logits: &[f32],
    capacity: usize,
    stop: &[u32],
    active: &mut Vec<Active<'a>>,
    free: &mut Vec<u32>,
    done: &mut dyn FnMut(Reply) -> Outcome<()>,
) -> Outcome<()> {
    let vocabulary = logits.len() / rows.len();
    for (mut row, logits) in rows.into_iter().zip(logits.chunks_exact(vocabulary)) {
        let request = &row.request;
        let token = request.sampling.choose(logits, request.seed, row.written.len() as u64);
        if request.logprobs {
            row.logprobs.push(log_probability(logits, token));
        }
        let finish = if stop.contains(&token) {
            Some(Finish::Stop)
        } else {
            row.written.push(token);
            let said = row.until.as_mut().map(|until| until.push(token)).transpose()?;
            // The token itself still has to fit before another can follow it.
            let full = row.written.len() >= request.max_tokens || row.length + 1 >= capacity;
            match said {
                Some(true) => Some(Finish::Stop),
                _ => full.then_some(Finish::Length),
            }
        };
        match finish {
            None => active.push(row),
            Some(finish) => {
                free.push(row.slot);
                let Active { request, written: tokens, logprobs, .. } = row;
                done(Reply { index: request.index, tokens, logprobs, finish })?;
            }
        }
    }
    Ok(())
}

/// Natural logarithm of a token's probability; the sum of the exponentials is
/// taken in f64, as a vocabulary has very many tokens.
///
/// # Shapes
/// logits `[V]`
fn log_probability(logits: &[f32], token: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&z| f64::from(z - largest).exp()).sum();
    (f64::from(logits[token as usize] - largest) - total.ln()) as f32
}
