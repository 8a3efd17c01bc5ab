//! Replies as PPO sees them: what a policy, its reference and its value head say
//! of every token, and the clipped losses of some of them as one part of a step.
//!
//! Knows neither where the replies come from nor who scores them. All numbers
//! beyond a model's own are `preference`'s.

use super::Clipping;
use crate::engine::batch::{Pieces, cut};
use crate::engine::gradient::Portion;
use crate::engine::model::Llama;
use crate::engine::ops::{self, Documents, Precision};
use crate::engine::preference::{self, policy_loss, value_loss};
use crate::engine::reward::{numbers, pushed};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use std::ops::Add;
use std::sync::Arc;

/// Rows whose logits are there at a time.
const CHUNK: usize = 512;

/// The value head's paths, rows and columns: a linear layer with a bias on the
/// last norm, as the replies' hidden states have no constant in them.
pub(super) fn value_head(width: usize) -> Vec<(String, usize, usize)> {
    vec![("value.weight".to_owned(), 1, width), ("value.bias".to_owned(), 1, 1)]
}

/// A reply with what is known of its tokens; each list has one number for every
/// token of the reply, its end mark included.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Episode {
    /// Prompt and reply.
    pub(in crate::engine) ids: Vec<u32>,
    /// Where the reply begins.
    pub(in crate::engine) reply: usize,
    /// Natural logarithms of the tokens' probabilities when they were written.
    pub(in crate::engine) old: Vec<f64>,
    /// Those under the reference.
    pub(in crate::engine) reference: Vec<f64>,
    /// What the value head expected before each token.
    pub(in crate::engine) values: Vec<f64>,
    /// How much better each token was than expected.
    pub(in crate::engine) advantages: Vec<f64>,
    /// What the value head should have expected.
    pub(in crate::engine) returns: Vec<f64>,
    /// Mean entropy in nats of the choice of a token.
    pub(in crate::engine) entropy: f64,
}

impl Episode {
    /// Tokens of the reply.
    pub(in crate::engine) fn len(&self) -> usize {
        self.ids.len() - self.reply
    }

    /// Nats that the reply is likelier under the policy than under the reference.
    pub(in crate::engine) fn nats(&self) -> f64 {
        self.old.iter().zip(&self.reference).map(|(own, other)| own - other).sum()
    }

    /// Fills in advantages and returns, from a score and what divergence costs.
    pub(in crate::engine) fn reward(&mut self, score: f64, coefficient: f64, clipping: &Clipping) {
        let rewards = preference::token_rewards(&self.old, &self.reference, coefficient, score);
        let Clipping { discount, lambda, .. } = *clipping;
        self.advantages = preference::advantages(&rewards, &self.values, discount, lambda);
        self.returns = self.advantages.iter().zip(&self.values).map(|(a, v)| a + v).collect();
    }
}

/// Episodes packed, each without its last token, which is predicted only.
struct Packed {
    ids: Arc<[u32]>,
    documents: Documents,
    rows: Arc<[u32]>,
    targets: Arc<[u32]>,
}

impl Packed {
    fn of(episodes: &[&Episode]) -> Packed {
        let (mut ids, mut lengths) = (Vec::new(), Vec::new());
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for episode in episodes {
            let start = ids.len();
            let read = &episode.ids[..episode.ids.len() - 1];
            ids.extend_from_slice(read);
            lengths.push(read.len());
            for at in episode.reply..episode.ids.len() {
                rows.push((start + at - 1) as u32);
                targets.push(episode.ids[at]);
            }
        }
        Packed {
            ids: ids.into(),
            documents: Documents::of_lengths(lengths),
            rows: rows.into(),
            targets: targets.into(),
        }
    }
}

/// Episodes in parts of at most so many tokens.
fn parts<'a>(episodes: &[&'a Episode], tokens: usize) -> Vec<Vec<&'a Episode>> {
    cut(episodes, |episode| episode.ids.len(), Pieces::Tokens(tokens))
}

/// What a model says of the tokens of a reply.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Said {
    pub(in crate::engine) log_probabilities: Vec<f64>,
    /// None without a value head.
    pub(in crate::engine) values: Vec<f64>,
    /// Mean over the tokens in nats; 0 without a value head, where nobody asks for it.
    pub(in crate::engine) entropy: f64,
}

/// What a model says of replies, in their order, at most so many `tokens` at a
/// time; `heads` is the value head or nothing.
pub(in crate::engine) fn said(
    model: &Llama,
    heads: &[Tensor<2>],
    episodes: &[Episode],
    clipping: &Clipping,
    tokens: usize,
) -> Vec<Said> {
    let mut found = vec![Said::default(); episodes.len()];
    let all: Vec<usize> = (0..episodes.len()).collect();
    for part in cut(&all, |&at| episodes[at].ids.len(), Pieces::Tokens(tokens)) {
        let members: Vec<&Episode> = part.iter().map(|&at| &episodes[at]).collect();
        let Packed { ids, documents, rows, targets } = Packed::of(&members);
        let hidden = model.hidden(&ids, &model.plan(documents));
        let x = model.last_norm(ops::rows(hidden, &rows)); // [M, d]
        let values = match heads {
            [] => Vec::new(),
            heads => numbers(&values_of(x.clone(), heads)),
        };
        let spoken = spoken(model, x, &targets, clipping.temperature, !heads.is_empty());
        let mut start = 0;
        for (at, episode) in part.into_iter().zip(members) {
            let range = start..start + episode.len();
            start = range.end;
            found[at] = Said {
                entropy: spoken.1.get(range.clone()).map_or(0.0, mean),
                values: values.get(range.clone()).unwrap_or_default().to_vec(),
                log_probabilities: spoken.0[range].to_vec(),
            };
        }
    }
    found
}

/// What is expected before each token.
///
/// # Shapes
/// x `[M, d]`; heads `[1, d]`, `[1, 1]` -> `[M, 1]`
fn values_of(x: Tensor<2>, heads: &[Tensor<2>]) -> Tensor<2> {
    ops::linear(x, heads[0].clone(), Precision::F32) + heads[1].clone()
}

/// Natural logarithms of the tokens' probabilities at a temperature, and where
/// they are wanted the entropies of their choices, in nats.
///
/// # Shapes
/// x `[M, d]`, behind the last norm and not on a tape; targets `[M]` -> `[M]`, `[M]`
fn spoken(
    model: &Llama,
    x: Tensor<2>,
    targets: &[u32],
    temperature: f64,
    entropies: bool,
) -> (Vec<f64>, Vec<f64>) {
    let (device, [m, _]) = (x.device(), x.dims());
    let output = plain(model.output());
    let (mut found, mut spread) = (Vec::with_capacity(m), Vec::new());
    for start in (0..m).step_by(CHUNK) {
        let n = CHUNK.min(m - start);
        let rows = x.clone().narrow(0, start, n) / temperature;
        let logarithms = log_softmax(ops::linear(rows, output.clone(), model.precision()), 1); // [n, V]
        let ids: Vec<i32> = targets[start..start + n].iter().map(|&id| id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &device);
        found.extend(numbers(&logarithms.clone().gather(1, ids)));
        if entropies {
            spread.extend(numbers(&(logarithms.clone().exp() * logarithms).sum_dim(1).neg()));
        }
    }
    (found, spread)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn plain(x: Tensor<2>) -> Tensor<2> {
    if x.is_autodiff() { x.inner() } else { x }
}

/// Losses of a step by what they are for, each a mean over its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::engine) struct Losses {
    /// What is minimized.
    pub(in crate::engine) total: f64,
    /// The clipped surrogate.
    pub(in crate::engine) policy: f64,
    /// Of the value head, before its weight.
    pub(in crate::engine) value: f64,
    /// Share of the tokens whose ratio was clipped.
    pub(in crate::engine) clipped: f64,
    /// Half the mean square of the logarithm of the ratio.
    pub(in crate::engine) moved: f64,
    /// The ratio.
    pub(in crate::engine) ratio: f64,
}

impl Losses {
    /// All of them by a factor.
    pub(super) fn scaled(self, by: f64) -> Losses {
        Losses {
            total: self.total * by,
            policy: self.policy * by,
            value: self.value * by,
            clipped: self.clipped * by,
            moved: self.moved * by,
            ratio: self.ratio * by,
        }
    }
}

impl Add for Losses {
    type Output = Losses;

    fn add(self, other: Losses) -> Losses {
        Losses {
            total: self.total + other.total,
            policy: self.policy + other.policy,
            value: self.value + other.value,
            clipped: self.clipped + other.clipped,
            moved: self.moved + other.moved,
            ratio: self.ratio + other.ratio,
        }
    }
}

/// Some of the episodes of a step.
pub(in crate::engine) struct Replies<'a> {
    packed: Packed,
    episodes: Vec<&'a Episode>,
    clipping: &'a Clipping,
    /// Tokens of all replies of the step.
    of: usize,
}

impl<'a> Replies<'a> {
    /// The episodes of a step in parts of at most so many tokens; their losses
    /// add up to the mean over all tokens of the replies.
    pub(in crate::engine) fn split(
        episodes: &[&'a Episode],
        clipping: &'a Clipping,
        tokens: usize,
    ) -> Vec<Replies<'a>> {
        let of = episodes.iter().map(|episode| episode.len()).sum();
        let part = |part: Vec<&'a Episode>| Replies {
            packed: Packed::of(&part),
            episodes: part,
            clipping,
            of,
        };
        parts(episodes, tokens).into_iter().map(part).collect()
    }
}

impl Portion for Replies<'_> {
    type Value = Losses;

    fn ids(&self) -> &Arc<[u32]> {
        &self.packed.ids
    }

    fn documents(&self) -> &Documents {
        &self.packed.documents
    }

    fn supervised(&self) -> usize {
        self.packed.targets.len()
    }

    fn loss(&self, model: &Llama, heads: &[Tensor<2>], hidden: Tensor<2>) -> (Losses, Tensor<1>) {
        let Clipping { clip, value_clip, value_weight, temperature, .. } = *self.clipping;
        let targets = &self.packed.targets;
        let x = model.last_norm(ops::rows(hidden, &self.packed.rows)); // [M, d]
        let (new, _) = spoken(model, plain(x.clone()), targets, temperature, false);
        let values = values_of(x.clone(), heads); // [M, 1]
        let (mut sum, each) = (Losses::default(), 1.0 / self.of as f64);
        let (mut weights, mut slopes) =
            (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
        let old = self.episodes.iter().flat_map(|episode| {
            (0..episode.len()).map(move |t| {
                (episode.old[t], episode.advantages[t], episode.values[t], episode.returns[t])
            })
        });
        for ((new, value), (old, advantage, expected, target)) in
            new.into_iter().zip(numbers(&values)).zip(old)
        {
            let policy = policy_loss(new, old, advantage, clip);
            let error = value_loss(value, expected, target, value_clip);
            // The cross entropy below is of the negative logarithm.
            weights.push((-policy.slope * each) as f32);
            slopes.push((value_weight * error.slope * each) as f32);
            sum = sum
                + Losses {
                    total: (policy.loss + value_weight * error.loss) * each,
                    policy: policy.loss * each,
                    value: error.loss * each,
                    clipped: f64::from(u8::from(policy.clipped)) * each,
                    moved: 0.5 * (new - old).powi(2) * each,
                    ratio: (new - old).exp() * each,
                };
        }
        let surrogate = ops::linear_cross_entropy(
            x / temperature,
            model.output(),
            targets,
            &weights.into(),
            model.precision(),
        );
        (sum, surrogate + pushed(values, slopes))
    }
}
