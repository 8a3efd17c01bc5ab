//! Any `tokenizer.json`, through Hugging Face's `tokenizers`.
//!
//! The only file that names that package. Its own begin and end marks are
//! never asked for: where they go is decided above.

use super::marks::Mark;
use super::{INSIDE, Place};
use crate::base::failure::{Failure, Outcome};
use std::collections::BTreeSet;
use tokenizers::Tokenizer;

#[derive(Debug)]
pub(super) struct Hugging {
    tokenizer: Tokenizer,
    special: BTreeSet<u32>,
    size: usize,
}

/// Usual spellings, for a file that has none beside it.
const BEGINS: [&str; 3] = ["<s>", "<bos>", "<|begin_of_text|>"];
const ENDS: [&str; 5] = ["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"];

impl Hugging {
    pub(super) fn read(bytes: &[u8], file: &serde_json::Value) -> Outcome<Hugging> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| {
            let kind = file["model"]["type"].as_str().unwrap_or("untyped");
            Failure::input(format!("`tokenizer.json` (a {kind} model) cannot be read"))
                .caused_by(error)
                .hint("the file may be cut off, or of a newer kind than `tokenizers` 0.23 knows")
        })?;
        // Files are often saved with a training's cutting and filling left on.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| {
            Failure::input("`tokenizer.json` cannot be freed of its truncation").caused_by(error)
        })?;
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let largest = tokenizer.get_vocab(true).values().max().copied();
        Ok(Hugging { size: largest.map_or(0, |id| id as usize + 1), special, tokenizer })
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(super) fn is_mark(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token that the file's own post-processing puts in front of a text.
    pub(super) fn begins(&self) -> Option<u32> {
        let with = self.tokenizer.encode("a", true).ok()?;
        let without = self.tokenizer.encode("a", false).ok()?;
        let (with, without) = (with.get_ids(), without.get_ids());
        let at = with.windows(without.len().max(1)).position(|window| window == without)?;
        (at == 1).then(|| with[0])
    }

    /// Usual spellings of the special tokens, that of the one in front first.
    pub(super) fn usual(&self, begins: Option<u32>) -> Vec<(&'static str, Vec<String>)> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let begin = match begins.and_then(|id| self.tokenizer.id_to_token(id)) {
            Some(text) => vec![text],
            None => owned(&BEGINS),
        };
        vec![("bos_token", begin), ("eos_token", owned(&ENDS)), ("unk_token", owned(&["<unk>"]))]
    }

    fn ids(&self, text: &str) -> Outcome<Vec<u32>> {
        match self.tokenizer.encode(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                let start: String = text.chars().take(40).collect();
                Err(Failure::input(format!("the tokenizer refuses the text `{start}`"))
                    .caused_by(error))
            }
        }
    }

    /// A text's ids. The package thinks every text to stand at a start, so one
    /// that does not is read behind something else, whose ids are taken off.
    pub(super) fn encode(&self, text: &str, place: Place, end: &Mark) -> Outcome<Vec<u32>> {
        let before: &[&str] = match place {
            Place::Start => return self.ids(text),
            Place::AfterMark => &[&end.text],
            Place::AfterText => &[":", "\n", "a", "."],
        };
        for before in before {
            let (alone, both) = (self.ids(before)?, self.ids(&format!("{before}{text}"))?);
            if !alone.is_empty() && both.starts_with(&alone) {
                return Ok(both[alone.len()..].to_vec());
            }
        }
        self.ids(text)
    }

    /// The text that `ids` add behind `before`.
    pub(super) fn decode(&self, before: &[u32], ids: &[u32]) -> Outcome<String> {
        let text = |ids: &[u32]| {
            self.tokenizer.decode(ids, true).map_err(|error| {
                Failure::input("the tokenizer cannot read its own ids").caused_by(error)
            })
        };
        let mut from = before.len().saturating_sub(INSIDE);
        // Where characters are spelled in bytes, a text that begins within one is none.
        while from > 0
            && from + 4 * INSIDE > before.len()
            && text(&before[from..])?.starts_with(char::REPLACEMENT_CHARACTER)
        {
            from -= 1;
        }
        let before = &before[from..];
        let both = text(&[before, ids].concat())?;
        match both.strip_prefix(&text(before)?) {
            Some(rest) => Ok(rest.to_owned()),
            None => text(ids),
        }
    }
}
