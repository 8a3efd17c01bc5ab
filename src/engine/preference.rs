//! The arithmetic of learning from preferences and from rewards, on plain
//! numbers: the losses with their slopes, per-token rewards, advantages, the
//! coefficient of the divergence.
//!
//! Knows no tensor, no model and no text; all of it is f64. A loss comes with
//! its derivative, so that whoever has a tape only needs to push that.

/// A term of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the number that learns.
    pub slope: f64,
    /// Whether clipping made it what it is.
    pub clipped: bool,
}

/// `-ln sigmoid(chosen - rejected)` in nats; the slope is by `chosen`, that by
/// `rejected` is its negative.
///
/// # Source
/// Bradley and Terry, Rank Analysis of Incomplete Block Designs, 1952; as a loss
/// Stiennon et al., arXiv 2009.01325, section 3.4, and Ouyang et al., arXiv
/// 2203.02155, equation 1.
pub fn bradley_terry(chosen: f64, rejected: f64) -> Term {
    let margin = chosen - rejected;
    // ln(1 + e^-margin), without an overflow on either side.
    let loss = (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
    Term { loss, slope: -1.0 / (1.0 + margin.exp()), clipped: false }
}

/// Reward of every token of a reply: what it diverges from the reference, times
/// `-coefficient`, and the score on the last.
///
/// # Units
/// Both `own` and `reference` are natural logarithms of the probability of each
/// token; the result is in units of the score.
///
/// # Source
/// Stiennon et al., arXiv 2009.01325, section 3.4; Ouyang et al., arXiv
/// 2203.02155, section 3.5 and appendix C.4.
pub fn token_rewards(own: &[f64], reference: &[f64], coefficient: f64, score: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> =
        own.iter().zip(reference).map(|(own, other)| -coefficient * (own - other)).collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Generalized advantage estimates of the tokens of one reply, behind whose end
/// there is nothing to be had.
///
/// # Source
/// Schulman et al., arXiv 1506.02438, equation 16; Schulman et al., arXiv
/// 1707.06347, equations 11 and 12.
pub fn advantages(rewards: &[f64], values: &[f64], discount: f64, lambda: f64) -> Vec<f64> {
    let mut found = vec![0.0; rewards.len()];
    let (mut next_value, mut next) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let surprise = rewards[t] + discount * next_value - values[t];
        next = surprise + discount * lambda * next;
        next_value = values[t];
        found[t] = next;
    }
    found
}

/// Shifts and scales numbers to mean 0 and variance 1. The variance is that of a
/// sample (by n - 1); numbers that are all the same become 0.
///
/// # Source
/// huggingface/trl, `masked_whiten`: the same, the 1e-8 under the root included.
pub fn whiten<'a>(numbers: impl Iterator<Item = &'a mut f64>) {
    let mut numbers: Vec<&mut f64> = numbers.collect();
    let n = numbers.len() as f64;
    let mean = numbers.iter().map(|x| **x).sum::<f64>() / n;
    let squares: f64 = numbers.iter().map(|x| (**x - mean).powi(2)).sum();
    let variance = squares / (n - 1.0).max(1.0);
    numbers.iter_mut().for_each(|x| **x = (**x - mean) / (variance + 1e-8).sqrt());
}

/// The clipped surrogate of one token; the slope is by `new`, the logarithm of
/// its probability now, `old` being that when it was written.
///
/// # Source
/// Schulman et al., arXiv 1707.06347, equation 7, negated.
pub fn policy_loss(new: f64, old: f64, advantage: f64, clip: f64) -> Term {
    let ratio = (new - old).exp();
    let (free, held) = (-advantage * ratio, -advantage * ratio.clamp(1.0 - clip, 1.0 + clip));
    if held > free {
        return Term { loss: held, slope: 0.0, clipped: true };
    }
    Term { loss: free, slope: free, clipped: false }
}

/// Half the squared error of a value, and not less than that of the value held
/// within `clip` of the `old` one; the slope is by `new`.
///
/// # Source
/// The value loss of openai/baselines' `ppo2`, as huggingface/trl and
/// CarperAI/trlx have it; Schulman et al., arXiv 1707.06347, equation 9, has the
/// square without the clipping.
pub fn value_loss(new: f64, old: f64, target: f64, clip: f64) -> Term {
    let held = new.clamp(old - clip, old + clip);
    let (free_loss, held_loss) = (0.5 * (new - target).powi(2), 0.5 * (held - target).powi(2));
    if held_loss > free_loss {
        return Term { loss: held_loss, slope: 0.0, clipped: true };
    }
    Term { loss: free_loss, slope: new - target, clipped: false }
}

/// What the divergence from the reference costs: fixed, or led to a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// The coefficient that it starts with.
    pub coefficient: f64,
    /// Nats a reply that it is led to; none leaves it as it is.
    pub target: Option<f64>,
    /// How fast it is led.
    pub gain: f64,
}

impl Divergence {
    /// The next coefficient, after a batch whose replies diverged by so many nats
    /// on average.
    ///
    /// # Source
    /// Ziegler et al., arXiv 1909.08593, section 2.2: the proportional controller
    /// in log space, the error held within 0.2.
    pub fn next(&self, coefficient: f64, nats: f64) -> f64 {
        let Some(target) = self.target else { return coefficient };
        let error = ((nats - target) / target).clamp(-0.2, 0.2);
        coefficient * (1.0 + self.gain * error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} is not {b}");
    }

    /// The slope against a difference quotient.
    fn slope_holds(of: impl Fn(f64) -> Term, at: f64) {
        let step = 1e-6;
        let quotient = (of(at + step).loss - of(at - step).loss) / (2.0 * step);
        assert!((of(at).slope - quotient).abs() < 1e-8, "{:?} against {quotient}", of(at));
    }

    #[test]
    fn slopes_are_derivatives_on_both_sides_of_every_bend() {
        for x in [-40.0, -1.3, 0.0, 0.4, 30.0] {
            slope_holds(|x| bradley_terry(x, 0.2), x);
        }
        near(bradley_terry(0.0, 0.0).loss, std::f64::consts::LN_2);
        near(bradley_terry(-800.0, 0.0).loss, 800.0);
        for advantage in [-1.5, 0.7] {
            // Ratios of 0.67, 0.95, 1.05, 1.49 with a clip of 0.2.
            for new in [-2.4, -2.05, -1.95, -1.6] {
                slope_holds(|new| policy_loss(new, -2.0, advantage, 0.2), new);
            }
        }
        for new in [0.0, 0.45, 0.55, 1.4] {
            for target in [-1.0, 0.5, 2.0] {
                slope_holds(|new| value_loss(new, 0.5, target, 0.2), new);
            }
        }
    }

    #[test]
    fn clipping_takes_the_gain_out_of_going_too_far_and_leaves_the_way_back() {
        // Likelier than it may be: nothing more to be had from a good token ...
        assert_eq!(policy_loss(-1.5, -2.0, 1.0, 0.2).slope, 0.0);
        near(policy_loss(-1.5, -2.0, 1.0, 0.2).loss, -1.2);
        // ... but a bad one is made less likely.
        assert!(policy_loss(-1.5, -2.0, -1.0, 0.2).slope > 0.0);
        assert!(value_loss(1.0, 0.5, 2.0, 0.2).clipped && !value_loss(0.0, 0.5, 2.0, 0.2).clipped);
    }

    #[test]
    fn the_score_is_on_the_last_token_and_the_divergence_on_each() {
        let rewards = token_rewards(&[-1.0, -2.0], &[-1.5, -1.0], 0.1, 3.0);
        near(rewards[0], -0.05);
        near(rewards[1], 3.1);
        assert!(token_rewards(&[], &[], 0.1, 3.0).is_empty());
    }

    #[test]
    fn estimates_go_from_one_step_to_the_whole_future_with_lambda() {
        let (rewards, values) = ([1.0, -0.5, 2.0], [0.3, 0.6, -0.2]);
        let one_step = advantages(&rewards, &values, 0.9, 0.0);
        for (found, want) in one_step.iter().zip([1.0 + 0.54 - 0.3, -0.5 - 0.18 - 0.6, 2.2]) {
            near(*found, want);
        }
        let whole = advantages(&rewards, &values, 0.9, 1.0);
        near(whole[0], 1.0 - 0.9 * 0.5 + 0.81 * 2.0 - 0.3);
        near(whole[2], 2.2);
    }

    #[test]
    fn whitened_numbers_have_mean_zero_and_variance_one() {
        let mut numbers = [3.0, -1.0, 4.0, 1.0, -5.0];
        whiten(numbers.iter_mut());
        near(numbers.iter().sum(), 0.0);
        let variance = numbers.iter().map(|x| x * x).sum::<f64>() / 4.0;
        assert!((variance - 1.0).abs() < 1e-8, "{variance}");
        let mut same = [2.0, 2.0];
        whiten(same.iter_mut());
        assert_eq!(same, [0.0, 0.0]);
        let mut one = [2.0];
        whiten(one.iter_mut());
        assert_eq!(one, [0.0]);
    }

    #[test]
    fn the_coefficient_follows_the_divergence_and_never_jumps() {
        let led = Divergence { coefficient: 0.2, target: Some(6.0), gain: 0.1 };
        near(led.next(0.2, 60.0), 0.2 * 1.02);
        near(led.next(0.2, 0.0), 0.2 * 0.98);
        near(led.next(0.2, 6.6), 0.2 * 1.01);
        let fixed = Divergence { target: None, ..led };
        assert_eq!(fixed.next(0.2, 60.0), 0.2);
    }
}
