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
}

impl Sampling {
    /// The rule for a temperature, 0 meaning greedy.
    pub fn at(temperature: f64) -> Sampling {
        if temperature > 0.0 { Sampling::Temperature(temperature as f32) } else { Sampling::Greedy }
    }

    /// Chooses a token for position `position` of the request with this seed.
    pub fn choose(self, logits: &[f32], seed: Seed, position: u64) -> u32 {
        match self {
            Sampling::Greedy => argmax(logits),
            Sampling::Temperature(temperature) => {
                let largest = logits[argmax(logits) as usize];
                let weight = |z: f32| f64::from((z - largest) / temperature).exp();
                let total: f64 = logits.iter().map(|&z| weight(z)).sum();
                let mut left = seed.at(position).rng().unit_f64() * total;
                for (id, &z) in logits.iter().enumerate() {
                    left -= weight(z);
                    if left < 0.0 {
                        return id as u32;
                    }
                }
                argmax(logits)
            }
        }
    }
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

    #[test]
    fn sampled_shares_match_the_probabilities() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let n = 20_000;
        let mut seen = [0u32; 4];
        for i in 0..n {
            seen[Sampling::at(0.7).choose(&logits, Seed(i), 3) as usize] += 1;
        }
        let weights = logits.map(|z| f64::from(z / 0.7).exp());
        let total: f64 = weights.iter().sum();
        let chi2: f64 = seen
            .iter()
            .zip(weights)
            .map(|(&seen, w)| {
                let want = w / total * n as f64;
                (f64::from(seen) - want).powi(2) / want
            })
            .sum();
        // 99.9 % quantile of chi-square with three degrees of freedom.
        assert!(chi2 < 16.27, "{chi2} {seen:?}");
    }
}
