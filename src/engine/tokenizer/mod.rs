//! Text as token ids: one face over three kinds of vocabularies, read out of
//! the files that a model brings.
//!
//! Read in this order: `words` (our own, whole words), `sentencepiece`
//! (`tokenizer.model`, as LLaMA, Vicuna and OpenLLaMA have it), `hugging`
//! (any other `tokenizer.json`), `marks` (which tokens begin and end a text),
//! `growing` (text while it is written).
//! Knows nothing of conversations: where a begin mark goes and what is learnt
//! is decided above.

pub mod growing;
mod hugging;
mod marks;
mod normalizer;
mod proto;
mod sentencepiece;
mod trie;
pub mod words;

#[cfg(test)]
mod tests;

use crate::base::failure::{Failure, Outcome};
use hugging::Hugging;
use marks::{Marks, Settings};
use sentencepiece::SentencePiece;
use std::collections::BTreeMap;
use std::sync::Arc;
use words::Words;

/// A tokenizer's files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every file that a tokenizer may consist of; a checkpoint carries those it has.
pub const FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// Tokens that are enough to show that what follows stands inside a text.
const INSIDE: usize = 8;

/// Where a piece of text stands; decides whether a blank is thought in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the start of everything, or behind the begin mark that was put there.
    Start,
    /// Behind another special token.
    AfterMark,
    /// Behind other text that was tokenized on its own.
    AfterText,
}

#[derive(Debug)]
enum Kind {
    Words(Words),
    SentencePiece(Box<SentencePiece>),
    Hugging(Box<Hugging>),
}

/// A vocabulary with its special tokens. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Arc<Kind>,
    marks: Arc<Marks>,
}

impl Tokenizer {
    /// Reads a tokenizer out of its files. `tokenizer.model` goes before a
    /// `tokenizer.json`, which often is an inexact conversion of it.
    ///
    /// # Errors
    /// `Input`, naming the file, when one is damaged, of a kind that cannot be
    /// read, or names no token that ends a text.
    ///
    /// # Source
    /// Why not the converted file: huggingface/transformers issue 24233.
    pub fn from_files(files: &Files) -> Outcome<Tokenizer> {
        let settings = Settings::read(files)?;
        if let Some(bytes) = files.get("tokenizer.model") {
            let model = SentencePiece::read(bytes, &settings)?;
            let find = |text: &str| model.id(text);
            let marks = Marks::find(&settings, model.usual(), true, &find)?;
            return Ok(Tokenizer::new(Kind::SentencePiece(Box::new(model)), marks));
        }
        let bytes = files.get("tokenizer.json").ok_or_else(|| {
            Failure::input("there is neither a `tokenizer.json` nor a `tokenizer.model`")
        })?;
        let file: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| Failure::input("`tokenizer.json` is not JSON").caused_by(error))?;
        if Words::wrote(&file) {
            let words = Words::from_json(&file)?;
            let marks = Marks::find(&settings, &Words::marks(), true, &|word| words.id(word))?;
            return Ok(Tokenizer::new(Kind::Words(words), marks));
        }
        let hugging = Hugging::read(bytes, &file)?;
        let begins = hugging.begins();
        let usual = hugging.usual(begins);
        let find = |text: &str| hugging.id(text);
        let marks = Marks::find(&settings, &usual, begins.is_some(), &find)?;
        Ok(Tokenizer::new(Kind::Hugging(Box::new(hugging)), marks))
    }

    fn new(kind: Kind, marks: Marks) -> Tokenizer {
        Tokenizer { kind: Arc::new(kind), marks: Arc::new(marks) }
    }

    /// Number of tokens, the largest id being one less.
    pub fn size(&self) -> usize {
        match &*self.kind {
            Kind::Words(words) => words.size(),
            Kind::SentencePiece(model) => model.size(),
            Kind::Hugging(hugging) => hugging.size(),
        }
    }

    /// The mark that is put in front of every text, where the tokenizer wants one.
    pub fn begin(&self) -> Option<u32> {
        self.marks.bos.as_ref().filter(|_| self.marks.adds_bos).map(|mark| mark.id)
    }

    /// The mark that begins a text, whether or not it is put there.
    pub fn begin_mark(&self) -> Option<u32> {
        self.marks.bos.as_ref().map(|mark| mark.id)
    }

    /// The mark that ends a text.
    pub fn end(&self) -> u32 {
        self.marks.eos.id
    }

    /// How the begin mark is spelled, where there is one.
    pub fn begin_text(&self) -> Option<&str> {
        self.marks.bos.as_ref().map(|mark| mark.text.as_str())
    }

    /// How the end mark is spelled.
    pub fn end_text(&self) -> &str {
        &self.marks.eos.text
    }

    /// The chat template among the files, as Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.marks.chat_template.as_deref()
    }

    /// Whether a token is a special one. The unknown is none: plain text has it.
    pub fn is_mark(&self, id: u32) -> bool {
        if self.marks.unknown == Some(id) {
            return false;
        }
        self.marks.all.contains(&id)
            || match &*self.kind {
                Kind::Words(_) => false,
                Kind::SentencePiece(model) => model.is_mark(id),
                Kind::Hugging(hugging) => hugging.is_mark(id),
            }
    }

    /// The id of the token that is spelled so, if there is one.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &*self.kind {
            Kind::Words(words) => words.id(token),
            Kind::SentencePiece(model) => model.id(token),
            Kind::Hugging(hugging) => hugging.id(token),
        }
    }

    /// Whether tokens are whole words, so that a word is one token.
    pub fn is_of_words(&self) -> bool {
        matches!(&*self.kind, Kind::Words(_))
    }

    /// A text's ids, without begin and end marks. Special tokens that are
    /// spelled out in it become what they spell, as in the reference.
    ///
    /// # Errors
    /// `Input` when the tokenizer's library refuses the text.
    pub fn encode(&self, text: &str, place: Place) -> Outcome<Vec<u32>> {
        match &*self.kind {
            Kind::Words(words) => Ok(words.encode(text)),
            Kind::SentencePiece(model) => Ok(model.encode(text, place)),
            Kind::Hugging(hugging) => hugging.encode(text, place, &self.marks.eos),
        }
    }

    /// Ids as text, special tokens left out; behind `before`, so that a blank
    /// at its start is kept. Whole words get single blanks between them.
    ///
    /// # Errors
    /// `Input` when the tokenizer's library refuses the ids.
    pub fn decode(&self, before: &[u32], ids: &[u32]) -> Outcome<String> {
        match &*self.kind {
            Kind::Words(words) => Ok(words.decode(ids)),
            Kind::SentencePiece(model) => Ok(model.decode(ids, before.is_empty())),
            Kind::Hugging(hugging) => hugging.decode(before, ids),
        }
    }
}
