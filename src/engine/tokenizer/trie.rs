//! Looking for known strings at the start of a text: the rewriting table that
//! sentencepiece ships inside its models, and the longest of a set of words.
//!
//! Knows nothing of tokens.

use std::collections::HashSet;

/// A rewriting table: strings, and what each becomes.
#[derive(Debug)]
pub(super) struct Rewriting {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl Rewriting {
    /// Reads a `precompiled_charsmap`: the length of a double-array trie in
    /// bytes, the trie, and the texts that its values point into.
    ///
    /// # Source
    /// sentencepiece `normalizer.cc`; units as in darts-clone.
    pub(super) fn read(bytes: &[u8]) -> Option<Rewriting> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, texts) = rest.split_at_checked(length)?;
        let (units, torn) = trie.as_chunks::<4>();
        let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        (torn.is_empty() && !units.is_empty()).then(|| Rewriting { units, texts: texts.to_vec() })
    }

    /// The longest known string that `text` begins with: its length in bytes,
    /// and what it becomes.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (i, &byte) in text.iter().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            if unit & ((1 << 31) | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.units.get(at).map_or(0, |leaf| leaf & !(1 << 31));
                found = Some((i + 1, value as usize));
            }
        }
        let (length, start) = found?;
        let text = self.texts.get(start..)?;
        Some((length, text.split(|&byte| byte == 0).next().unwrap_or_default()))
    }
}

/// A set of words to be found in a text.
#[derive(Debug)]
pub(super) struct WordSet {
    words: HashSet<String>,
    /// Lengths in bytes that occur, the longest first.
    lengths: Vec<usize>,
    /// Whether a word begins with this byte.
    first: Vec<bool>,
}

impl WordSet {
    pub(super) fn new(words: impl IntoIterator<Item = String>) -> WordSet {
        let words: HashSet<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let mut lengths: Vec<usize> = words.iter().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let mut first = vec![false; 256];
        words.iter().for_each(|word| first[usize::from(word.as_bytes()[0])] = true);
        WordSet { words, lengths, first }
    }

    /// The longest word that `text` begins with.
    pub(super) fn longest<'a>(&self, text: &'a str) -> Option<&'a str> {
        if !self.first[usize::from(*text.as_bytes().first()?)] {
            return None;
        }
        let starts = self.lengths.iter().filter_map(|&length| text.get(..length));
        starts.into_iter().find(|start| self.words.contains(*start))
    }

    /// Cuts a text at every word, the first from the left and of these the
    /// longest; words come out as their own parts, empty parts not at all.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<(&'a str, bool)> {
        let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            match self.longest(&text[at..]) {
                Some(word) => {
                    if start < at {
                        parts.push((&text[start..at], false));
                    }
                    parts.push((word, true));
                    at += word.len();
                    start = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if start < text.len() {
            parts.push((&text[start..], false));
        }
        parts
    }
}
