//! Proximal policy optimization of a language model: replies are written and
//! scored, and adapters and a value head learn of them.
//!
//! Policy, reference and values share one frozen trunk: the policy is the trunk
//! with adapters, the reference the trunk without, the values a head on the
//! policy's hidden states. Does not know what prompts mean, who scores, where
//! checkpoints are kept. A batch is a pure function of the state before it, so a
//! stop in the middle loses that batch and nothing else.
//!
//! # Source
//! Schulman et al., arXiv 1707.06347; for language models Ziegler et al., arXiv
//! 1909.08593, Stiennon et al., arXiv 2009.01325, section 3.4, and Ouyang et al.,
//! arXiv 2203.02155, section 3.5. Means over all tokens of a minibatch, whitening
//! and the end mark's place are those of huggingface/trl's `PPOTrainer`.

mod episode;

pub(in crate::engine) use episode::{Episode, Losses, Replies, said};

use super::batch::Order;
use super::generate::{Decoding, Finish, Request, generate};
use super::gradient::{self, Subject};
use super::lora::Adapters;
use super::model::Llama;
use super::optimizer::{AdamW, Optimizer, global_norm};
use super::preference::{Divergence, whiten};
use super::sample::Sampling;
use super::train::{Snapshot, Wish};
use super::weights;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use crate::record::reward::PpoBatch;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What the losses of a step are made with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipping {
    /// How far the ratio of probabilities may be from 1.
    pub clip: f64,
    /// How far a value may be from the value before.
    pub value_clip: f64,
    /// Weight of the value loss.
    pub value_weight: f64,
    /// Discount of later rewards (γ).
    pub discount: f64,
    /// From advantages of one step (0) to those of the whole reply (1) (λ).
    pub lambda: f64,
    /// Softmax temperature that replies are sampled and judged at.
    pub temperature: f64,
}

/// What a run of PPO is asked to do.
#[derive(Clone, Debug)]
pub struct Ppo {
    /// Optimizer and schedule.
    pub optimizer: AdamW,
    /// Losses.
    pub clipping: Clipping,
    /// Cost of diverging from the reference.
    pub divergence: Divergence,
    /// Batches of replies.
    pub batches: u64,
    /// Replies of a batch.
    pub batch: usize,
    /// Passes over a batch.
    pub epochs: u64,
    /// Optimizer steps of a pass.
    pub minibatches: usize,
    /// Whether advantages are whitened over the batch.
    pub whiten: bool,
    /// Scores are held within this distance of 0; 0 leaves them.
    pub score_clip: f64,
    /// What is taken from the score of a reply that does not end.
    pub unfinished: f64,
    /// Most tokens of a reply.
    pub max_tokens: usize,
    /// Replies written side by side; does not change what they say on the CPU.
    pub side_by_side: usize,
    /// Most tokens that are computed at a time.
    pub part_tokens: usize,
    /// Whether blocks are computed twice.
    pub recompute: bool,
    /// The token that ends a reply.
    pub end: u32,
    /// Seed of the order and of what is sampled.
    pub seed: Seed,
}

/// What a run has come to so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Batches done.
    pub batch: u64,
    /// Optimizer steps taken.
    pub step: u64,
    /// What diverging costs in the next batch.
    pub coefficient: f64,
    /// Tokens that were learnt from, prompts and repeats included.
    pub tokens: u64,
    /// Tokens of replies among these.
    pub tokens_supervised: u64,
    /// One row for every batch.
    pub batches: Vec<PpoBatch>,
}

/// Hears of a run, and may end it.
pub trait Watcher {
    /// In the middle of a batch.
    ///
    /// # Errors
    /// When it shall end here; the batch is then lost.
    fn goes_on(&mut self, batch: u64, doing: &str) -> Outcome<()>;
    /// After a batch.
    fn batch(&mut self, done: &PpoBatch) -> Wish;
    /// Keeps a snapshot.
    ///
    /// # Errors
    /// When it cannot be kept; the run then ends.
    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()>;
}

/// Scores whole texts, in their order.
pub type Judge<'a> = dyn Fn(&[&[u32]]) -> Vec<f64> + 'a;

/// Lets adapters beside a frozen model learn to write replies of high scores,
/// from where they are or from a snapshot of the same run on.
///
/// # Errors
/// `Input` for scores, losses or gradients that are not finite, with the step
/// named; `Interrupted` when the watcher asks for a stop; what the generation
/// and the watcher's `keep` report. The last state that was whole is kept.
pub fn ppo(
    trunk: &Llama,
    start: &Adapters,
    prompts: &[Vec<u32>],
    judge: &Judge,
    asked: &Ppo,
    resume: Option<Snapshot>,
    watcher: &mut dyn Watcher,
) -> Outcome<(Adapters, Progress)> {
    let subject = learner(trunk, start);
    let (optimizer, progress) = match resume {
        Some(snapshot) => restore(&subject, trunk, asked, &snapshot)?,
        None => (fresh(&subject, trunk, start, asked.optimizer), Progress::start(asked)),
    };
    let mut run = Run {
        asked,
        trunk,
        subject,
        prompts,
        judge,
        total: total_steps(asked, prompts.len()),
        order: Order::new(asked.seed.derive("prompts"), prompts.len(), asked.batch),
        optimizer,
        progress,
    };
    while run.progress.batch < asked.batches {
        let before = run.snapshot()?;
        let done = match run.batch(watcher) {
            Ok(done) => done,
            Err(failure) => {
                watcher.keep(before)?;
                return Err(failure);
            }
        };
        match watcher.batch(&done) {
            Wish::Continue => {}
            Wish::Snapshot => watcher.keep(run.snapshot()?)?,
            Wish::Stop => {
                watcher.keep(run.snapshot()?)?;
                return Err(Failure::interrupted());
            }
        }
    }
    let (_, weights) = run.subject.into_parts(run.optimizer.weights());
    Ok((Adapters { lora: start.lora.clone(), weights }, run.progress))
}

/// What learns: adapters and the value head.
pub(in crate::engine) fn learner(trunk: &Llama, start: &Adapters) -> Subject {
    let heads = episode::value_head(trunk.config().hidden_size);
    Subject::adapters(trunk, &start.lora).with_heads(heads)
}

/// An optimizer of adapters as they are and of a value head that expects nothing.
pub(in crate::engine) fn fresh(
    subject: &Subject,
    trunk: &Llama,
    start: &Adapters,
    settings: AdamW,
) -> Optimizer {
    let mut first = start.weights.clone();
    let heads = episode::value_head(trunk.config().hidden_size);
    first.extend(
        heads
            .iter()
            .map(|(_, rows, columns)| Tensor::<2>::zeros([*rows, *columns], &trunk.device())),
    );
    Optimizer::new(settings, subject.decays(), first)
}

/// Optimizer steps that a batch of so many replies gets.
fn steps_of(asked: &Ppo, replies: usize) -> u64 {
    asked.epochs * Order::new(asked.seed, replies, minibatch(asked, replies)).steps_per_epoch()
}

/// Replies of a minibatch.
fn minibatch(asked: &Ppo, replies: usize) -> usize {
    replies.div_ceil(asked.minibatches.max(1)).max(1)
}

fn total_steps(asked: &Ppo, prompts: usize) -> u64 {
    let mut order = Order::new(asked.seed, prompts, asked.batch);
    (0..asked.batches).map(|batch| steps_of(asked, order.at(batch).len())).sum()
}

impl Progress {
    fn start(asked: &Ppo) -> Progress {
        Progress {
            batch: 0,
            step: 0,
            coefficient: asked.divergence.coefficient,
            tokens: 0,
            tokens_supervised: 0,
            batches: Vec::new(),
        }
    }
}

/// A run under way.
struct Run<'a> {
    asked: &'a Ppo,
    trunk: &'a Llama,
    subject: Subject,
    prompts: &'a [Vec<u32>],
    judge: &'a Judge<'a>,
    /// Optimizer steps of the whole run.
    total: u64,
    order: Order,
    optimizer: Optimizer,
    progress: Progress,
}

impl Run<'_> {
    /// One batch: replies, scores, advantages, a few passes over them.
    fn batch(&mut self, watcher: &mut dyn Watcher) -> Outcome<PpoBatch> {
        let (asked, number) = (self.asked, self.progress.batch);
        let (mut episodes, unfinished) = self.replies(watcher)?;
        watcher.goes_on(number, "judging")?;
        let scores = self.judged(&episodes, &unfinished)?;
        let coefficient = self.progress.coefficient;
        for (episode, score) in episodes.iter_mut().zip(&scores.used) {
            episode.reward(*score, coefficient, &asked.clipping);
        }
        if asked.whiten {
            whiten(episodes.iter_mut().flat_map(|episode| &mut episode.advantages));
        }
        let (losses, norm) = self.learn(&episodes, watcher)?;
        let mean = |of: &dyn Fn(&Episode) -> f64| {
            episodes.iter().map(of).sum::<f64>() / episodes.len() as f64
        };
        let kl = mean(&Episode::nats);
        let n = scores.given.len() as f64;
        let score = scores.given.iter().sum::<f64>() / n;
        let squares: f64 = scores.given.iter().map(|one| (one - score).powi(2)).sum();
        let done = PpoBatch {
            batch: number + 1,
            steps: self.optimizer.step_count(),
            score,
            score_deviation: (squares / (n - 1.0).max(1.0)).sqrt(),
            kl,
            coefficient,
            reward: scores.used.iter().sum::<f64>() / n - coefficient * kl,
            entropy: mean(&|episode| episode.entropy),
            length: mean(&|episode| episode.len() as f64),
            unfinished: unfinished.iter().filter(|cut| **cut).count() as f64
                / unfinished.len() as f64,
            loss: losses.total,
            policy_loss: losses.policy,
            value_loss: losses.value,
            clip_fraction: losses.clipped,
            ratio: losses.ratio,
            approximate_kl: losses.moved,
            gradient_norm: norm,
        };
        self.progress.coefficient = asked.divergence.next(coefficient, kl);
        self.progress.batch += 1;
        self.progress.step = self.optimizer.step_count();
        self.progress.batches.push(done);
        Ok(done)
    }

    /// Replies to the prompts of this batch, with what policy and reference say
    /// of them; and which of them were cut off.
    fn replies(&mut self, watcher: &mut dyn Watcher) -> Outcome<(Vec<Episode>, Vec<bool>)> {
        let (asked, number) = (self.asked, self.progress.batch);
        let seed = asked.seed.derive("replies").at(number);
        let prompts: Vec<&Vec<u32>> =
            self.order.at(number).iter().map(|&i| &self.prompts[i as usize]).collect();
        let requests = prompts.iter().enumerate().map(|(index, prompt)| Request {
            index,
            prompt: prompt.to_vec(),
            seed: seed.at(index as u64),
            sampling: Sampling::at(asked.clipping.temperature),
            max_tokens: asked.max_tokens,
            logprobs: false,
        });
        let weights = self.optimizer.weights();
        let policy = self.subject.model(&weights, None);
        let stop = [asked.end];
        let decoding = Decoding { batch: asked.side_by_side, stop: &stop, until: None };
        let mut episodes = vec![Episode::default(); prompts.len()];
        let mut unfinished = vec![false; prompts.len()];
        generate(&policy, requests.collect(), decoding, &mut |reply| {
            let (prompt, index) = (prompts[reply.index], reply.index);
            let mut ids = prompt.clone();
            ids.extend(reply.tokens);
            unfinished[index] = reply.finish == Finish::Length;
            if !unfinished[index] {
                ids.push(asked.end);
            }
            episodes[index] = Episode { ids, reply: prompt.len(), ..Episode::default() };
            watcher.goes_on(number, "replies")
        })?;
        let (heads, tokens) = (self.subject.heads(&weights), asked.part_tokens);
        let own = said(&policy, heads, &episodes, &asked.clipping, tokens);
        watcher.goes_on(number, "reference")?;
        let other = said(self.trunk, &[], &episodes, &asked.clipping, tokens);
        for ((episode, own), other) in episodes.iter_mut().zip(own).zip(other) {
            (episode.old, episode.values) = (own.log_probabilities, own.values);
            (episode.reference, episode.entropy) = (other.log_probabilities, own.entropy);
        }
        Ok((episodes, unfinished))
    }

    fn judged(&self, episodes: &[Episode], unfinished: &[bool]) -> Outcome<Scores> {
        let texts: Vec<&[u32]> = episodes.iter().map(|episode| &episode.ids[..]).collect();
        let given = (self.judge)(&texts);
        if let Some(at) = given.iter().position(|score| !score.is_finite()) {
            let (score, batch) = (given[at], self.progress.batch + 1);
            return Err(Failure::input(format!(
                "the score of reply {} became {score} in batch {batch}",
                at + 1
            ))
            .hint("the reward model is of no use; look at its card, `reward.json`"));
        }
        let most = if self.asked.score_clip > 0.0 { self.asked.score_clip } else { f64::INFINITY };
        let less = |cut: bool| if cut { self.asked.unfinished } else { 0.0 };
        let used =
            given.iter().zip(unfinished).map(|(score, &cut)| score.clamp(-most, most) - less(cut));
        Ok(Scores { used: used.collect(), given })
    }

    /// The passes over a batch: mean losses and mean norm of the gradients.
    fn learn(&mut self, episodes: &[Episode], watcher: &mut dyn Watcher) -> Outcome<(Losses, f64)> {
        let (asked, number) = (self.asked, self.progress.batch);
        let seed = asked.seed.derive("minibatches").at(number);
        let mut order = Order::new(seed, episodes.len(), minibatch(asked, episodes.len()));
        let steps = steps_of(asked, episodes.len());
        let (mut sum, mut norms) = (Losses::default(), 0.0);
        for step in 0..steps {
            watcher.goes_on(number, "learning")?;
            let members: Vec<&Episode> =
                order.at(step).iter().map(|&i| &episodes[i as usize]).collect();
            let (losses, norm) =
                improve(&self.subject, &mut self.optimizer, &members, asked, self.total)
                    .map_err(|what| self.not_finite(step, order.steps_per_epoch(), &what))?;
            let passed = members.iter().map(|one| (one.ids.len() as u64 - 1, one.len() as u64));
            for (tokens, supervised) in passed {
                self.progress.tokens += tokens;
                self.progress.tokens_supervised += supervised;
            }
            (sum, norms) = (sum + losses, norms + norm);
        }
        let each = 1.0 / steps as f64;
        Ok((sum.scaled(each), norms * each))
    }

    fn not_finite(&self, step: u64, minibatches: u64, what: &str) -> Failure {
        Failure::input(format!(
            "{what} in batch {}, epoch {}, minibatch {} (optimizer step {})",
            self.progress.batch + 1,
            step / minibatches + 1,
            step % minibatches + 1,
            self.optimizer.step_count()
        ))
        .hint("lower `rate`, or raise `kl`; the state before this batch is kept")
    }

    fn snapshot(&self) -> Outcome<Snapshot> {
        let state =
            serde_json::to_vec(&self.progress).doing(|| "writing the state of PPO".into())?;
        let parameters = self.subject.parameters();
        let moments = weights::save_moments(&parameters, self.optimizer.parameters())?;
        Ok([("state.json".to_owned(), state), ("optimizer.safetensors".to_owned(), moments)].into())
    }
}

/// Scores of a batch.
struct Scores {
    /// As the judge gave them.
    given: Vec<f64>,
    /// Clipped, and less what an unfinished reply costs.
    used: Vec<f64>,
}

/// One optimizer step on some episodes; the losses are those before it.
///
/// # Errors
/// What became infinite or no number; no step is taken then.
pub(in crate::engine) fn improve(
    subject: &Subject,
    optimizer: &mut Optimizer,
    episodes: &[&Episode],
    asked: &Ppo,
    total: u64,
) -> Result<(Losses, f64), String> {
    let parts = Replies::split(episodes, &asked.clipping, asked.part_tokens);
    // Nothing is left out in PPO: the ratio would differ from 1 for no reason.
    let (losses, gradients) =
        gradient::gradients(subject, &optimizer.weights(), &parts, asked.recompute, Seed(0));
    let norm = global_norm(&gradients);
    if !losses.total.is_finite() {
        return Err(format!("the loss became {}", losses.total));
    }
    if !norm.is_finite() {
        return Err(format!("the gradient's norm became {norm}"));
    }
    optimizer.take_step(gradients, norm, total);
    Ok((losses, norm))
}

fn restore(
    subject: &Subject,
    trunk: &Llama,
    asked: &Ppo,
    snapshot: &Snapshot,
) -> Outcome<(Optimizer, Progress)> {
    let file = |name: &str| {
        snapshot.get(name).ok_or_else(|| Failure::input(format!("the checkpoint has no `{name}`")))
    };
    let progress: Progress =
        serde_json::from_slice(file("state.json")?).doing(|| "reading the state of PPO".into())?;
    let moments = file("optimizer.safetensors")?;
    let moments = weights::load_moments(&subject.parameters(), moments, &trunk.device())?;
    let decays = subject.decays();
    Ok((Optimizer::resumed(asked.optimizer, decays, moments, progress.step), progress))
}
