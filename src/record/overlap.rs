//! How much two texts have in common, in words: a rule that needs no model,
//! for judges and annotators of studies too small for one.
//!
//! # Source
//! The F1 of tokens by which SQuAD scores answers (Rajpurkar et al., arXiv
//! 1606.05250); here articles stay.

use std::collections::BTreeMap;

/// Words in lower case, letters and digits only.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Harmonic mean of precision and recall of the words of `text` against those
/// of `wanted`, repetitions counted; in `0..=1`, 0 where either has no word.
pub fn f1(text: &str, wanted: &str) -> f64 {
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    let (mut given, mut all, mut shared) = (0u64, 0u64, 0u64);
    for word in words(wanted) {
        *left.entry(word).or_default() += 1;
        all += 1;
    }
    for word in words(text) {
        given += 1;
        if let Some(count) = left.get_mut(&word).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    if shared == 0 { 0.0 } else { 2.0 * shared as f64 / (given + all) as f64 }
}

/// The same on a scale from 1 to 10, in tenths.
pub fn rating(text: &str, wanted: &str) -> f64 {
    (10.0 + 90.0 * f1(text, wanted)).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_words_count_as_often_as_both_have_them() {
        for (text, wanted, want) in [
            ("The cat sat.", "the CAT sat", 1.0),
            ("a a a", "a b", 2.0 / 5.0),
            ("x y", "a b", 0.0),
            ("", "a", 0.0),
            ("", "", 0.0),
            ("one two three four", "one two", 4.0 / 6.0),
        ] {
            assert!((f1(text, wanted) - want).abs() < 1e-12, "{text:?} {wanted:?}");
            assert!((f1(text, wanted) - f1(wanted, text)).abs() < 1e-12, "it has no direction");
        }
        assert_eq!((rating("a", "a"), rating("a", "b"), rating("a b", "a")), (10.0, 1.0, 7.0));
    }
}
