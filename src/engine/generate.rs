//! Batched decoding of a closed list: requests in, tokens out, each as soon as
//! it is finished.
//!
//! A finished request leaves its slot to the next one. On the CPU a request's
//! tokens do not depend on its batch mates, nor on how many there are. How a
//! batch is run is the `batcher`'s; it is a value of one call.

use super::batcher::{Batcher, Heard, Job, Listener};
use super::model::Llama;
use super::sample::Sampling;
use super::tokenizer::Tokenizer;
use super::tokenizer::growing::Until;
use crate::base::failure::{Failure, Outcome};
use crate::base::seed::Seed;
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

/// What a request came to so far.
struct Writing<'a> {
    reply: Reply,
    wants_logprobs: bool,
    until: Option<Until<'a>>,
}

impl Listener for Writing<'_> {
    fn hear(&mut self, token: u32, logits: &[f32], stops: bool) -> Outcome<Heard> {
        if self.wants_logprobs {
            self.reply.logprobs.push(log_probability(logits, token));
        }
        if stops {
            return Ok(Heard::Enough);
        }
        self.reply.tokens.push(token);
        let said = self.until.as_mut().map(|until| until.push(token)).transpose()?;
        Ok(if said == Some(true) { Heard::Enough } else { Heard::GoOn })
    }
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
    let stop: Arc<[u32]> = decoding.stop.into();
    let mut waiting: VecDeque<Job<Writing>> =
        requests.into_iter().map(|request| job(request, &decoding, &stop)).collect();
    let mut batch = Batcher::new(model, slots, capacity);
    let mut hand_over = |ended: Vec<(Writing, Finish)>| {
        ended.into_iter().try_for_each(|(writing, finish)| done(Reply { finish, ..writing.reply }))
    };
    while !waiting.is_empty() || !batch.is_idle() {
        // Prompts are read several at a time: many free slots, or nothing else to do.
        let due = batch.free() * 4 >= slots || batch.is_idle();
        if due && !waiting.is_empty() {
            let n = batch.free().min(waiting.len());
            hand_over(batch.admit(waiting.drain(..n).collect())?)?;
        }
        hand_over(batch.step()?)?;
    }
    Ok(())
}

fn job<'a>(request: Request, decoding: &Decoding<'a>, stop: &Arc<[u32]>) -> Job<Writing<'a>> {
    let Request { index, prompt, seed, sampling, max_tokens, logprobs } = request;
    let until = decoding.until.map(|(tokenizer, text)| Until::behind(tokenizer, &prompt, text));
    let reply = Reply { index, tokens: Vec::new(), logprobs: Vec::new(), finish: Finish::Length };
    let listener = Writing { reply, wants_logprobs: logprobs, until };
    Job { prompt: prompt.into(), seed, sampling, max_tokens, stop: stop.clone(), listener }
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

/// Natural logarithm of a token's probability; the sum of the exponentials is
/// taken in f64, as a vocabulary has very many tokens.
///
/// # Shapes
/// logits `[V]`
pub fn log_probability(logits: &[f32], token: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&z| f64::from(z - largest).exp()).sum();
    (f64::from(logits[token as usize] - largest) - total.ln()) as f32
}
