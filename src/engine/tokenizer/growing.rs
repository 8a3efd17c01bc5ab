//! Text that grows token by token: what a reply says so far, while it is
//! written, and whether what ends it has been said.
//!
//! A character may come in several tokens (bytes of UTF-8), and a token may
//! end in the middle of one; what is not whole yet is held back. Knows no
//! model and no conversation.

use super::{INSIDE, Tokenizer};
use crate::base::failure::Outcome;

/// Tokens kept of what is settled: those that show that more stands inside a
/// text, and the bytes of characters in front of them.
const KEPT: usize = 5 * INSIDE;

/// The text of tokens behind others, one token after another.
#[derive(Clone, Debug)]
pub struct Growing<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens whose text is settled, as many as show that what follows stands inside a text.
    before: Vec<u32>,
    /// Tokens since the last whole character.
    pending: Vec<u32>,
    /// All text so far, whole characters only.
    text: String,
    /// Where the text of the pending tokens begins.
    settled: usize,
}

impl<'a> Growing<'a> {
    /// Nothing yet, behind these tokens; at least one.
    pub fn behind(tokenizer: &'a Tokenizer, before: &[u32]) -> Growing<'a> {
        let before = before[before.len().saturating_sub(KEPT)..].to_vec();
        Growing { tokenizer, before, pending: Vec::new(), text: String::new(), settled: 0 }
    }

    /// All text so far, as [`Tokenizer::decode`] gives it, but for a character
    /// at its end that is not whole.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes one more token.
    ///
    /// # Errors
    /// `Input` when the tokenizer's library refuses it.
    pub fn push(&mut self, id: u32) -> Outcome<()> {
        self.pending.push(id);
        let new = self.tokenizer.decode(&self.before, &self.pending)?;
        let whole = new.trim_end_matches(char::REPLACEMENT_CHARACTER);
        self.text.truncate(self.settled);
        if self.tokenizer.is_of_words() && !self.text.is_empty() && !whole.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(whole);
        if whole.len() == new.len() {
            self.settled = self.text.len();
            self.before.append(&mut self.pending);
            self.before.drain(..self.before.len().saturating_sub(KEPT));
        }
        Ok(())
    }
}

/// What ends a reply, wherever in it that comes up.
#[derive(Clone, Debug)]
pub struct Until<'a> {
    growing: Growing<'a>,
    stop: &'a str,
    /// Bytes of text that were looked through.
    seen: usize,
}

impl<'a> Until<'a> {
    /// Watches for `stop` behind these tokens; at least one.
    pub fn behind(tokenizer: &'a Tokenizer, before: &[u32], stop: &'a str) -> Until<'a> {
        Until { growing: Growing::behind(tokenizer, before), stop, seen: 0 }
    }

    /// Takes one more token; whether what ends the reply is complete with it.
    ///
    /// # Errors
    /// `Input` when the tokenizer's library refuses the token.
    pub fn push(&mut self, id: u32) -> Outcome<bool> {
        self.growing.push(id)?;
        let text = self.growing.text();
        // What comes up now begins at most its own length before what is new; the blank
        // that parts a reply from its prompt is no part of the reply.
        let from = (self.seen + 1).saturating_sub(self.stop.len());
        let from = text.floor_char_boundary(from.max(usize::from(text.starts_with(' '))));
        self.seen = text.len();
        Ok(text[from..].contains(self.stop))
    }
}
