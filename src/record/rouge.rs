//! How alike two texts are by ROUGE-L, and a pool of texts that new ones are
//! held against.
//!
//! # Source
//! Lin, ROUGE: a package for automatic evaluation of summaries, 2004; as the
//! package `rouge-score` computes it without a stemmer, which is what
//! Self-Instruct (Wang et al., arXiv 2212.10560) filters by.

use std::collections::HashMap;

/// A text as ROUGE sees it: its words, numbered by a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words(Vec<usize>);

/// Texts that new ones are held against.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    numbers: HashMap<String, usize>,
    texts: Vec<Words>,
}

impl Pool {
    /// Adds a text.
    pub fn add(&mut self, text: &str) {
        let words = self.words(text);
        self.texts.push(words);
    }

    /// The first text of the pool that is as like this one as `threshold` or
    /// more, by the F measure of ROUGE-L in `0..=1`: its place and the measure.
    pub fn like(&mut self, text: &str, threshold: f64) -> Option<(usize, f64)> {
        let words = self.words(text);
        let row = Row::of(&words);
        self.texts.iter().enumerate().find_map(|(place, other)| {
            // The common part is no longer than the shorter text: most pairs end here.
            let most = f_measure(words.0.len().min(other.0.len()), words.0.len(), other.0.len());
            if most < threshold {
                return None;
            }
            let measure = f_measure(row.common(other), words.0.len(), other.0.len());
            (measure >= threshold).then_some((place, measure))
        })
    }

    fn words(&mut self, text: &str) -> Words {
        let number = |word: &str| {
            let next = self.numbers.len();
            *self.numbers.entry(word.to_owned()).or_insert(next)
        };
        let text = text.to_lowercase();
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        Words(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(number).collect())
    }
}

/// The F measure of ROUGE-L of two texts, in `0..=1`; 0 where one has no words.
pub fn rouge_l(one: &str, other: &str) -> f64 {
    let mut pool = Pool::default();
    let (one, other) = (pool.words(one), pool.words(other));
    let common = Row::of(&one).common(&other);
    f_measure(common, one.0.len(), other.0.len())
}

/// F of precision and recall, from a common part and two lengths in words.
fn f_measure(common: usize, one: usize, other: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / one as f64, common as f64 / other as f64);
    2.0 * precision * recall / (precision + recall)
}

/// A text laid out for finding the longest common subsequence with others, 64
/// words at a step.
///
/// # Source
/// Crochemore, Iliopoulos, Pinzon and Reid, A fast and practical bit-vector
/// algorithm for the longest common subsequence problem, IPL 80, 2001.
struct Row {
    /// Where each word stands: a bit for each place, from the lowest.
    places: HashMap<usize, Vec<u64>>,
    blocks: usize,
    length: usize,
}

impl Row {
    fn of(words: &Words) -> Row {
        let blocks = words.0.len().div_ceil(64);
        let mut places: HashMap<usize, Vec<u64>> = HashMap::new();
        for (place, word) in words.0.iter().enumerate() {
            let bits = places.entry(*word).or_insert_with(|| vec![0; blocks]);
            bits[place / 64] |= 1 << (place % 64);
        }
        Row { places, blocks, length: words.0.len() }
    }

    /// Length of the longest common subsequence.
    fn common(&self, other: &Words) -> usize {
        // A zero in the row is a step of the longest common subsequence so far.
        let mut row = vec![u64::MAX; self.blocks];
        for places in other.0.iter().filter_map(|word| self.places.get(word)) {
            let mut carry = false;
            for (block, bits) in row.iter_mut().zip(places) {
                let (sum, first) = block.overflowing_add(*block & bits);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                carry = first || second;
                *block = sum | (*block & !bits);
            }
        }
        let used = |(at, block): (usize, &u64)| {
            let bits = (self.length - 64 * at).min(64);
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            (!block & mask).count_ones() as usize
        };
        row.iter().enumerate().map(used).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measure_is_that_of_the_rouge_score_package() {
        #[derive(serde::Deserialize)]
        struct Fixture {
            pairs: Vec<(String, String, f64)>,
        }
        let fixture = include_str!("../../tests/fixtures/rouge.json");
        let Fixture { pairs } = serde_json::from_str(fixture).expect("the fixture reads");
        assert!(pairs.len() >= 100, "{}", pairs.len());
        for (one, other, want) in &pairs {
            let got = rouge_l(one, other);
            assert!((got - want).abs() <= 1e-6, "{got} is not {want} of {one:?} and {other:?}");
        }
        assert!(pairs.iter().any(|(one, _, want)| one.split(' ').count() > 128 && *want < 1.0));
    }

    #[test]
    fn a_pool_finds_the_first_text_that_is_too_like() {
        let mut pool = Pool::default();
        pool.add("Tom has 3 apples and buys 4 more. How many has he?");
        pool.add("");
        let like = pool.like("Ann has 3 apples and buys 5 more. How many has she?", 0.7);
        let (place, measure) = like.expect("they are alike");
        assert_eq!(place, 0);
        assert!((measure - 0.75).abs() < 1e-12, "{measure}");
        assert_eq!(pool.like("A train leaves at noon. When does it arrive?", 0.7), None);
        assert_eq!(pool.like("", 0.7), None);
    }
}
