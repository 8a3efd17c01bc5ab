//! Seeds and the one generator of random numbers.
//!
//! A seed is derived by name, so adding a consumer never shifts another one's
//! numbers, and a number depends only on (seed, position): batch size, thread
//! count and the point of a resume cannot change it.

use serde::{Deserialize, Serialize};

/// A 64-bit seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed for one named purpose.
    pub fn derive(&self, purpose: &str) -> Seed {
        let mut hasher = crate::base::hash::Hasher::tagged("rekindle 2026 seed v1");
        hasher.update(&self.0.to_le_bytes());
        hasher.update(purpose.as_bytes());
        let digest = hasher.finish();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.bytes()[..8]);
        Seed(u64::from_le_bytes(first))
    }

    /// The seed of the `index`-th item of a sequence.
    pub fn at(&self, index: u64) -> Seed {
        Seed(mix(self.0 ^ mix(index.wrapping_add(GOLDEN))))
    }

    /// A generator that starts here.
    pub fn rng(&self) -> Rng {
        Rng { key: self.0, counter: 0 }
    }
}

/// 2^64 divided by the golden ratio, SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A counter-based generator: the n-th number is a function of the seed and n.
#[derive(Clone, Debug)]
pub struct Rng {
    key: u64,
    counter: u64,
}

impl Rng {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// A whole number in `0..n`, without modulo bias worth naming (2^-64 n).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "BUG: below(0)");
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number in `[0, 1)` with 24 random bits.
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit_f64(), self.unit_f64());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// One item, each with the same chance.
    ///
    /// # Panics
    /// When there is none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_independent_and_stable() {
        let seed = Seed(7);
        assert_ne!(seed.derive("a"), seed.derive("b"));
        assert_eq!(seed.derive("a"), seed.derive("a"));
        assert_ne!(seed.at(0), seed.at(1));
    }

    #[test]
    fn numbers_cover_their_range() {
        let mut rng = Seed(1).rng();
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[rng.below(10)] += 1;
            let unit = rng.unit_f32();
            assert!((0.0..1.0).contains(&unit));
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        let mean = (0..10_000).map(|_| rng.normal()).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05, "{mean}");
    }
}
