//! What is known of a reward model: what it belongs to, what it was made of,
//! how well it tells the better reply (`reward.json`); and how a policy fared
//! that learnt from one (`ppo.json`).
//!
//! Knows no model; the numbers are put in by whoever trained it.

use serde::{Deserialize, Serialize};

/// The card of a reward model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardCard {
    /// Digest of the model that it started from.
    pub base: String,
    /// Whether it is adapters beside that model; else it is a model of its own.
    pub adapters: bool,
    /// Pairs of replies.
    pub pairs: PairCounts,
    /// What it says of the pairs that it learnt from.
    pub learnt: Judgement,
    /// What it says of the pairs that it did not; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Judgement>,
}

/// What became of dialogues on their way to pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCounts {
    /// Dialogues that came in.
    pub dialogues: u64,
    /// Without a refined reply.
    pub unrefined: u64,
    /// Whose refined reply is none the better: the same.
    pub same: u64,
    /// With a reply longer than the context.
    pub overlong: u64,
    /// Pairs that were learnt from.
    pub learnt: u64,
    /// Pairs that were only scored.
    pub held_out: u64,
}

/// Scores of some pairs, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Share of the pairs whose better reply has the higher score.
    pub accuracy: f64,
    /// Mean loss in nats per pair.
    pub loss: f64,
    /// Mean score of the better replies.
    pub chosen: f64,
    /// Mean score of the others.
    pub rejected: f64,
}

impl Judgement {
    /// What these scores come to, better reply first, with the loss of each
    /// pair; none of no pairs.
    pub fn of(pairs: &[[f64; 2]], loss: impl Fn(&[f64; 2]) -> f64) -> Option<Judgement> {
        let mean =
            |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        (!pairs.is_empty()).then(|| Judgement {
            accuracy: mean(&|pair| f64::from(u8::from(pair[0] > pair[1]))),
            loss: mean(&loss),
            chosen: mean(&|pair| pair[0]),
            rejected: mean(&|pair| pair[1]),
        })
    }
}

/// One batch of PPO (`ppo.json`); means over its replies, or over their tokens
/// in all passes where it is a loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PpoBatch {
    /// Its number, from 1.
    pub batch: u64,
    /// Optimizer steps taken by its end.
    pub steps: u64,
    /// Score of a reply, as the reward model gave it.
    pub score: f64,
    /// Standard deviation of the scores, by n - 1.
    pub score_deviation: f64,
    /// Nats that a reply is likelier under the policy than under the reference.
    pub kl: f64,
    /// What a nat of these cost.
    pub coefficient: f64,
    /// What was to be had: the clipped score, less what the divergence and a missing end cost.
    pub reward: f64,
    /// Entropy in nats of the choice of a token.
    pub entropy: f64,
    /// Tokens of a reply, its end mark included.
    pub length: f64,
    /// Share of the replies that did not end.
    pub unfinished: f64,
    /// What was minimized.
    pub loss: f64,
    /// The clipped surrogate.
    pub policy_loss: f64,
    /// Of the value head, before its weight.
    pub value_loss: f64,
    /// Share of the tokens whose ratio was clipped.
    pub clip_fraction: f64,
    /// Ratio of a token's probability to that when it was written.
    pub ratio: f64,
    /// Half the mean square of the logarithm of the ratio.
    pub approximate_kl: f64,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_tell_nothing_and_count_as_wrong() {
        let pairs = [[1.0, 0.0], [2.0, 2.0], [-1.0, 4.0], [3.0, -2.0]];
        let found = Judgement::of(&pairs, |pair| pair[1] - pair[0]).unwrap();
        assert_eq!(
            (found.accuracy, found.loss, found.chosen, found.rejected),
            (0.5, -0.25, 1.25, 1.0)
        );
        assert!(Judgement::of(&[], |_| 0.0).is_none());
    }
}
