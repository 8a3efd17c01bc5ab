//! Continuous batching as a value: jobs take a free slot of the cache, every
//! step writes one token of each, and whoever ends or leaves makes room at once.
//!
//! Knows tokens only. What a token means, and whether a text is complete with
//! it, is its job's [`Listener`]'s to say. On the CPU a job's tokens do not
//! depend on what else is in the batch, nor on when it came.

use super::generate::Finish;
use super::model::{Cache, Llama};
use super::ops::{Documents, Slots};
use super::sample::Sampling;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use burn::tensor::Tensor;
use std::sync::Arc;

/// What a listener makes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The reply may go on.
    GoOn,
    /// The reply is complete with this token.
    Enough,
    /// Nobody wants the rest.
    Gone,
}

/// Who hears the tokens of a job.
pub trait Listener {
    /// Hears a token and the logits that it was chosen from. A stop token
    /// (`stops`) is heard too, and ends the reply whatever is answered.
    ///
    /// # Errors
    /// Whatever shall end the whole batch.
    ///
    /// # Shapes
    /// logits `[V]`
    fn hear(&mut self, token: u32, logits: &[f32], stops: bool) -> Outcome<Heard>;
}

/// A text to continue.
#[derive(Clone, Debug)]
pub struct Job<L> {
    /// Prompt tokens; at least one.
    pub prompt: Arc<[u32]>,
    /// Seed of its random choices.
    pub seed: Seed,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to write; at least one is written.
    pub max_tokens: usize,
    /// Tokens that end the reply.
    pub stop: Arc<[u32]>,
    /// Who hears.
    pub listener: L,
}

/// A job in a slot.
struct Active<L> {
    job: Job<L>,
    slot: u32,
    /// Tokens in the cache.
    length: usize,
    /// Tokens written.
    written: usize,
    /// The last of them.
    last: u32,
}

/// A batch that jobs join and leave.
pub struct Batcher<'m, L> {
    model: &'m Llama,
    cache: Cache,
    free: Vec<u32>,
    active: Vec<Active<L>>,
}

/// Those whose reply is complete, with why.
pub type Ended<L> = Vec<(L, Finish)>;

impl<'m, L: Listener> Batcher<'m, L> {
    /// An empty batch of so many slots, each for prompt and reply of up to
    /// `capacity` tokens.
    pub fn new(model: &'m Llama, slots: usize, capacity: usize) -> Batcher<'m, L> {
        let cache = model.cache(slots, capacity);
        let free = (0..slots as u32).rev().collect();
        Batcher { model, cache, free, active: Vec::with_capacity(slots) }
    }

    /// Slots that nobody has.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether no job is in it.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// Takes in jobs, at most as many as there are free slots, and writes the
    /// first token of each. Neighbours with one prompt have it read once.
    ///
    /// # Errors
    /// `Bug` when there are too many, or a prompt does not fit; what a listener says.
    pub fn admit(&mut self, jobs: Vec<Job<L>>) -> Outcome<Ended<L>> {
        let fits = |job: &Job<L>| (1..=self.cache.capacity()).contains(&job.prompt.len());
        if jobs.len() > self.free.len() || !jobs.iter().all(fits) {
            return Err(Failure::bug("a batch was given more than it has room for"));
        }
        let slots = self.free.drain(self.free.len() - jobs.len()..);
        let admitted: Vec<Active<L>> = jobs
            .into_iter()
            .zip(slots)
            .map(|(job, slot)| Active { length: job.prompt.len(), job, slot, written: 0, last: 0 })
            .collect();
        if admitted.is_empty() {
            return Ok(Vec::new());
        }
        let (logits, rows) = self.prefill(&admitted)?;
        self.settle(admitted, &logits, &rows)
    }

    /// Writes one more token of every job in the batch.
    ///
    /// # Errors
    /// When the device fails, and what a listener says.
    pub fn step(&mut self) -> Outcome<Ended<L>> {
        if self.active.is_empty() {
            return Ok(Vec::new());
        }
        for one in &mut self.active {
            one.length += 1;
        }
        let ids: Arc<[u32]> = self.active.iter().map(|one| one.last).collect();
        let slots = Slots {
            capacity: self.cache.capacity(),
            of_row: self.active.iter().map(|one| one.slot).collect(),
            lengths: self.active.iter().map(|one| one.length as u32).collect(),
        };
        let logits = read(self.model.decode(&mut self.cache, &ids, &slots))?;
        let stepped = std::mem::take(&mut self.active);
        let rows: Vec<usize> = (0..stepped.len()).collect();
        self.settle(stepped, &logits, &rows)
    }

    /// Lets go of the jobs whose listeners say so; their slots are free at once.
    pub fn release(&mut self, gone: impl Fn(&L) -> bool) -> Vec<L> {
        let (left, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(|one| gone(&one.job.listener));
        self.active = stay;
        self.free.extend(left.iter().map(|one| one.slot));
        left.into_iter().map(|one| one.job.listener).collect()
    }

    /// Reads the prompts into their slots; the logits `[B, V]` behind each
    /// different one, and whose row is which.
    fn prefill(&mut self, admitted: &[Active<L>]) -> Outcome<(Vec<f32>, Vec<usize>)> {
        let mut firsts: Vec<&Active<L>> = Vec::new();
        let mut copies = Vec::new();
        let mut rows = Vec::with_capacity(admitted.len());
        for one in admitted {
            match firsts.last() {
                Some(first) if first.job.prompt == one.job.prompt => {
                    copies.push((first.slot, one.slot, one.length));
                }
                _ => firsts.push(one),
            }
            rows.push(firsts.len() - 1);
        }
        let ids: Arc<[u32]> =
            firsts.iter().flat_map(|one| one.job.prompt.iter().copied()).collect();
        let documents = Documents::of_lengths(firsts.iter().map(|one| one.length));
        let slots: Vec<u32> = firsts.iter().map(|one| one.slot).collect();
        let logits = read(self.model.prefill(&mut self.cache, &ids, &documents, &slots))?;
        self.cache.copy(&copies);
        Ok((logits, rows))
    }

    /// Chooses the next token of each, whose logits are a row of those given;
    /// the finished ones leave.
    fn settle(
        &mut self,
        jobs: Vec<Active<L>>,
        logits: &[f32],
        rows: &[usize],
    ) -> Outcome<Ended<L>> {
        let vocabulary = self.model.config().vocab_size;
        let mut ended = Vec::new();
        for (mut one, row) in jobs.into_iter().zip(rows) {
            let logits = &logits[row * vocabulary..][..vocabulary];
            let job = &mut one.job;
            let token = job.sampling.choose(logits, job.seed, one.written as u64);
            let stops = job.stop.contains(&token);
            let heard = job.listener.hear(token, logits, stops)?;
            (one.written, one.last) = (one.written + usize::from(!stops), token);
            // The token itself still has to fit before another can follow it.
            let full = one.written >= job.max_tokens || one.length + 1 >= self.cache.capacity();
            let finish = match heard {
                Heard::Gone => {
                    self.free.push(one.slot);
                    continue;
                }
                _ if stops => Some(Finish::Stop),
                Heard::Enough => Some(Finish::Stop),
                Heard::GoOn => full.then_some(Finish::Length),
            };
            match finish {
                None => self.active.push(one),
                Some(finish) => {
                    self.free.push(one.slot);
                    ended.push((one.job.listener, finish));
                }
            }
        }
        Ok(ended)
    }
}

fn read(logits: Tensor<2>) -> Outcome<Vec<f32>> {
    logits.into_data().try_to_vec::<f32>().doing(|| "reading logits".into())
}
