//! What sentencepiece does to a text before it cuts it up: rewriting by a
//! table, squeezing of blanks, the blank in front.
//!
//! Knows no pieces but the user-defined ones, which are left as they are.
//!
//! # Source
//! google/sentencepiece `normalizer.cc`.

use super::proto::{Content, damaged, parse};
use super::trie::{Rewriting, WordSet};
use crate::base::failure::Outcome;

/// What stands for a blank inside pieces.
pub(super) const BLANK: &str = "\u{2581}";

/// How a text is rewritten before it is cut up.
#[derive(Debug)]
pub(super) struct Normalizer {
    rewriting: Option<Rewriting>,
    /// Whether a blank is thought in front of a text.
    pub(super) dummy_prefix: bool,
    /// Whether runs of blanks become one, and those at the ends none.
    pub(super) squeeze: bool,
    /// Whether blanks are written as [`BLANK`].
    escape: bool,
    /// Whether the blank goes behind a word instead.
    suffix: bool,
}

impl Normalizer {
    /// Reads a `NormalizerSpec`; what it leaves out is as protobuf's defaults have it.
    pub(super) fn read(message: &[u8], suffix: bool) -> Outcome<Normalizer> {
        let mut normalizer =
            Normalizer { rewriting: None, dummy_prefix: true, squeeze: true, escape: true, suffix };
        for (number, content) in parse(message)? {
            match (number, content) {
                (2, Content::Bytes(table)) if !table.is_empty() => {
                    let table = Rewriting::read(table);
                    normalizer.rewriting =
                        Some(table.ok_or_else(|| damaged("its rewriting table is cut off"))?);
                }
                (3, Content::Number(flag)) => normalizer.dummy_prefix = flag != 0,
                (4, Content::Number(flag)) => normalizer.squeeze = flag != 0,
                (5, Content::Number(flag)) => normalizer.escape = flag != 0,
                _ => {}
            }
        }
        Ok(normalizer)
    }

    /// Rewrites a text. `prefix` puts a blank at its edge; `keep` leaves the
    /// blanks alone that it begins with.
    pub(super) fn run(
        &self,
        text: &str,
        prefix: bool,
        keep: bool,
        user_defined: &WordSet,
    ) -> String {
        let (mut out, mut rest) = (Vec::with_capacity(text.len() + 3), text);
        let blank: &[u8] = if self.escape { BLANK.as_bytes() } else { b" " };
        if self.squeeze && !keep {
            while !rest.is_empty() {
                let (length, becomes) = self.step(rest, user_defined);
                if becomes != b" " {
                    break;
                }
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        if prefix && !self.suffix {
            out.extend_from_slice(blank);
        }
        let mut after_blank = self.squeeze && !keep;
        while !rest.is_empty() {
            let (length, mut becomes) = self.step(rest, user_defined);
            while after_blank && let [b' ', behind @ ..] = becomes {
                becomes = behind;
            }
            for &byte in becomes {
                match byte {
                    b' ' => out.extend_from_slice(blank),
                    other => out.push(other),
                }
            }
            if let Some(last) = becomes.last() {
                after_blank = self.squeeze && *last == b' ';
            }
            rest = &rest[length..];
        }
        if self.squeeze {
            while out.ends_with(blank) {
                out.truncate(out.len() - blank.len());
            }
        }
        if prefix && self.suffix {
            out.extend_from_slice(blank);
        }
        // Tables map whole characters to whole characters.
        String::from_utf8_lossy(&out).into_owned()
    }

    /// What the text begins with, in bytes, and what that becomes.
    fn step<'a>(&'a self, text: &'a str, user_defined: &WordSet) -> (usize, &'a [u8]) {
        if let Some(word) = user_defined.longest(text) {
            return (word.len(), word.as_bytes());
        }
        let table = self.rewriting.as_ref().and_then(|table| table.longest(text.as_bytes()));
        // A table may cut inside a character only if it is broken; go on whole then.
        if let Some((length, becomes)) = table.filter(|(length, _)| text.is_char_boundary(*length))
        {
            return (length, becomes);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (length, &text.as_bytes()[..length])
    }
}
