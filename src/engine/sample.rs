//! One choice of a token: greedy, or at a temperature.
//!
//! The random number depends on (request seed, position) only, so what a
//! request says does not depend on its batch mates.

use crate::base::seed::Seed;
use serde::{Deserialize, Serialize};

/// How a token is chosen from its logits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sampling {
    /// The most likely token; the lowest id among equals.
    Greedy,
    /// A random token with probabilities `softmax(logits / temperature)`.
    Temperature(f32),
    /// The same, out of the likeliest tokens only.
    Likeliest {
        /// Divides the logits.
        temperature: f32,
        /// How many tokens, and those that are as likely as the last of them; 0 is all.
        top_k: usize,
        /// The fewest that have this share of the probability together.
        top_p: f64,
    },
}

impl Sampling {
    /// The rule for a temperature, 0 meaning greedy.
    pub fn at(temperature: f64) -> Sampling {
        if temperature > 0.0 { Sampling::Temperature(temperature as f32) } else { Sampling::Greedy }
    }

    /// The rule for a temperature and the likeliest tokens: `top_k` of them (0
    /// is all), and of these the fewest whose share is `top_p` (1 is all).
    ///
    /// # Source
    /// Fan et al., Hierarchical Neural Story Generation, 2018; Holtzman et al.,
    /// The Curious Case of Neural Text Degeneration, 2019; in the order of
    /// transformers' `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper`.
    pub fn of_likeliest(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        match Sampling::at(temperature) {
            Sampling::Temperature(temperature) if top_k > 0 || top_p < 1.0 => {
                Sampling::Likeliest { temperature, top_k, top_p }
            }
            other => other,
        }
    }

    /// Chooses a token for position `position` of the request with this seed.
    pub fn choose(self, logits: &[f32], seed: Seed, position: u64) -> u32 {
        let (temperature, least) = match self {
            Sampling::Greedy => return argmax(logits),
            Sampling::Temperature(temperature) => (temperature, f32::NEG_INFINITY),
            Sampling::Likeliest { temperature, top_k, top_p } => {
                (temperature, least_logit(logits, temperature, top_k, top_p))
            }
        };
        let largest = logits[argmax(logits) as usize];
        let kept = || logits.iter().enumerate().filter(|(_, z)| **z >= least);
        let total: f64 = kept().map(|(_, &z)| weight(z, largest, temperature)).sum();
        let mut left = seed.at(position).rng().unit_f64() * total;
        for (id, &z) in kept() {
            left -= weight(z, largest, temperature);
            if left < 0.0 {
                return id as u32;
            }
        }
        argmax(logits)
    }
}

/// Probability of a logit, up to the factor that all share.
fn weight(z: f32, largest: f32, temperature: f32) -> f64 {
    f64::from((z - largest) / temperature).exp()
}

/// The logit of the least likely token that may be chosen.
fn least_logit(logits: &[f32], temperature: f32, top_k: usize, top_p: f64) -> f32 {
    let mut falling: Vec<f32> = logits.to_vec();
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    if top_k > 0 && top_k < falling.len() {
        let (_, &mut last, _) = falling.select_nth_unstable_by(top_k - 1, descending);
        falling.retain(|&z| z >= last);
    }
    falling.sort_unstable_by(descending);
    let largest = falling[0];
    let total: f64 = falling.iter().map(|&z| weight(z, largest, temperature)).sum();
    let mut above = 0.0;
    let mut least = largest;
    for &z in &falling {
        if above >= top_p * total {
            break;
        }
        least = z;
        above += weight(z, largest, temperature);
    }
    least
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &z) in logits.iter().enumerate() {
        if z > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampling::at(0.0).choose(&[0.0, 2.0, 2.0], Seed(1), 0), 1);
    }

    /// Chi-square of many samples against the probabilities of these ids.
    fn chi_square(rule: Sampling, logits: &[f32], kept: &[usize]) -> f64 {
        let n = 20_000;
        let mut seen = vec![0u32; logits.len()];
        for i in 0..n {
            seen[rule.choose(logits, Seed(i), 3) as usize] += 1;
        }
        let weights: Vec<f64> = kept.iter().map(|&id| f64::from(logits[id] / 0.7).exp()).collect();
        let total: f64 = weights.iter().sum();
        assert_eq!(kept.iter().map(|&id| u64::from(seen[id])).sum::<u64>(), n, "{seen:?}");
        let one = |(&id, weight): (&usize, f64)| {
            let want = weight / total * n as f64;
            (f64::from(seen[id]) - want).powi(2) / want
        };
        kept.iter().zip(weights).map(one).sum()
    }

    /// Bounds are the 99.9 % quantiles of chi-square with a degree of freedom
    /// less than there are tokens.
    #[test]
    fn sampled_shares_match_the_probabilities() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let of = |top_k, top_p| Sampling::of_likeliest(0.7, top_k, top_p);
        assert_eq!(of(0, 1.0), Sampling::at(0.7));
        assert!(chi_square(of(0, 1.0), &logits, &[0, 1, 2, 3]) < 16.27);
        assert!(chi_square(of(3, 1.0), &logits, &[0, 1, 2]) < 13.82);
        // Shares in falling order: 0.761, 0.182, 0.044, 0.010.
        assert!(chi_square(of(0, 0.77), &logits, &[1, 2]) < 10.83);
        assert!(chi_square(of(0, 0.95), &logits, &[0, 1, 2]) < 13.82);
        // Of the first two alone the likeliest has 0.807.
        assert!(chi_square(of(2, 0.9), &logits, &[1, 2]) < 10.83);
        assert_eq!(chi_square(of(2, 0.8), &logits, &[2]), 0.0);
        assert_eq!(chi_square(of(1, 1.0), &logits, &[2]), 0.0);
    }

    #[test]
    fn equals_of_the_last_kept_token_are_kept() {
        let logits = [1.0f32, 2.0, 1.0];
        assert!(chi_square(Sampling::of_likeliest(0.7, 2, 1.0), &logits, &[0, 1, 2]) < 13.82);
    }
}
