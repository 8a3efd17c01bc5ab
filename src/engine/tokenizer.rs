//! Words as numbers: a word-level vocabulary, kept as a `tokenizer.json` that
//! Hugging Face's `tokenizers` reads too (WordLevel model, WhitespaceSplit).
//!
//! Knows nothing of templates or answers. Other kinds of vocabularies are
//! refused by name.

use crate::base::failure::{Failure, Outcome};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The special tokens, in the order of their ids.
const SPECIAL: [&str; 4] = ["<pad>", "<bos>", "<eos>", "<unk>"];

/// A vocabulary. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    ids: Arc<HashMap<String, u32>>,
    words: Arc<[String]>,
}

impl Tokenizer {
    /// A vocabulary of these words, the special tokens first, the rest in the
    /// order given; repeats are taken once.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Tokenizer {
        let mut seen: BTreeSet<&str> = SPECIAL.into();
        let mut all: Vec<String> = SPECIAL.map(str::to_owned).into();
        for word in words {
            if seen.insert(word) {
                all.push(word.to_owned());
            }
        }
        Tokenizer::of_list(all)
    }

    fn of_list(words: Vec<String>) -> Tokenizer {
        let ids = words.iter().enumerate().map(|(id, word)| (word.clone(), id as u32)).collect();
        Tokenizer { ids: Arc::new(ids), words: words.into() }
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// `Input` when it is no JSON, of another kind, or its ids have gaps.
    pub fn from_bytes(bytes: &[u8]) -> Outcome<Tokenizer> {
        let file: Value = serde_json::from_slice(bytes)
            .map_err(|error| Failure::input("`tokenizer.json` is not JSON").caused_by(error))?;
        let kind = file["model"]["type"].as_str().unwrap_or("without a type");
        if kind != "WordLevel" {
            return Err(Failure::input(format!("a {kind} tokenizer is not supported yet"))
                .hint("only word-level tokenizers can be read so far"));
        }
        let vocabulary = file["model"]["vocab"]
            .as_object()
            .ok_or_else(|| Failure::input("`tokenizer.json` has no vocabulary"))?;
        let mut by_id: BTreeMap<u64, &str> = BTreeMap::new();
        for (word, id) in vocabulary {
            let id = id.as_u64().ok_or_else(|| {
                Failure::input(format!("the token `{word}` has no whole number as its id"))
            })?;
            by_id.insert(id, word);
        }
        let dense = by_id.keys().copied().eq(0..vocabulary.len() as u64);
        let special = SPECIAL.iter().enumerate().all(|(id, s)| by_id.get(&(id as u64)) == Some(s));
        if !dense || !special {
            return Err(Failure::input(format!(
                "the vocabulary must number its tokens 0, 1, ... and begin with {}",
                SPECIAL.join(" ")
            )));
        }
        Ok(Tokenizer::of_list(by_id.into_values().map(str::to_owned).collect()))
    }

    /// Writes a `tokenizer.json`; the same vocabulary gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let vocabulary: serde_json::Map<String, Value> = {
            let sorted: BTreeMap<&String, usize> =
                self.words.iter().enumerate().map(|(id, word)| (word, id)).collect();
            sorted.into_iter().map(|(word, id)| (word.clone(), json!(id))).collect()
        };
        let added: Vec<Value> = SPECIAL
            .iter()
            .enumerate()
            .map(|(id, word)| {
                json!({
                    "id": id, "content": word, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true,
                })
            })
            .collect();
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null,
            "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
        });
        let mut bytes = serde_json::to_vec_pretty(&file).expect("a tokenizer is plain JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.words.len()
    }

    /// The mark that begins a text.
    pub fn bos(&self) -> u32 {
        1
    }

    /// The mark that ends a text.
    pub fn eos(&self) -> u32 {
        2
    }

    /// What stands for every unknown word.
    pub fn unknown(&self) -> u32 {
        3
    }

    /// The id of a word, if it is known.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// The words of a text as ids, without begin and end marks.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        text.split_whitespace().map(|word| self.id(word).unwrap_or(self.unknown())).collect()
    }

    /// Ids as words with single blanks; an id beyond the vocabulary is unknown.
    pub fn decode(&self, ids: &[u32]) -> String {
        let word = |id: &u32| self.words.get(*id as usize).map_or("<unk>", String::as_str);
        ids.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_round_trips_and_knows_what_it_does_not_know() {
        let tokenizer = Tokenizer::of_words(["sam", "has", "3", "sam"]);
        assert_eq!(tokenizer.size(), 7);
        let ids = tokenizer.encode("sam  has 4");
        assert_eq!(ids, [4, 5, 3]);
        assert_eq!(tokenizer.decode(&ids), "sam has <unk>");
        let bytes = tokenizer.to_bytes();
        let again = Tokenizer::from_bytes(&bytes).expect("reads");
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.decode(&[6, 99]), "3 <unk>");
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let refused =
            |text: &str| Tokenizer::from_bytes(text.as_bytes()).expect_err("refused").what;
        assert!(refused("{").contains("not JSON"));
        assert!(refused(r#"{"model":{"type":"BPE"}}"#).contains("BPE"));
        assert!(
            refused(r#"{"model":{"type":"WordLevel","vocab":{"a":5}}}"#).contains("begin with")
        );
    }
}
