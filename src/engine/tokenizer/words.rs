//! Our own vocabulary of whole words, kept as a `tokenizer.json` that Hugging
//! Face's `tokenizers` reads too (WordLevel model, WhitespaceSplit).
//!
//! Knows nothing of templates or answers, nor of the other kinds of
//! vocabularies, which are its neighbours'.

use crate::base::failure::{Failure, Outcome};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The special tokens, in the order of their ids.
const SPECIAL: [&str; 4] = ["<pad>", "<bos>", "<eos>", "<unk>"];

/// A vocabulary of whole words.
#[derive(Clone, Debug)]
pub struct Words {
    ids: HashMap<String, u32>,
    words: Vec<String>,
}

impl Words {
    /// A vocabulary of these words, the special tokens first, the rest in the
    /// order given; repeats are taken once.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Words {
        let mut seen: BTreeSet<&str> = SPECIAL.into();
        let mut all: Vec<String> = SPECIAL.map(str::to_owned).into();
        for word in words {
            if seen.insert(word) {
                all.push(word.to_owned());
            }
        }
        Words::of_list(all)
    }

    fn of_list(words: Vec<String>) -> Words {
        let ids = words.iter().enumerate().map(|(id, word)| (word.clone(), id as u32)).collect();
        Words { ids, words }
    }

    /// Whether a `tokenizer.json` is one that [`Words::to_bytes`] may have written.
    pub fn wrote(file: &Value) -> bool {
        let marks = SPECIAL.iter().enumerate();
        file["model"]["type"] == "WordLevel"
            && file["pre_tokenizer"]["type"] == "WhitespaceSplit"
            && file["normalizer"].is_null()
            && marks.clone().all(|(id, mark)| file["model"]["vocab"][mark] == id)
    }

    /// Reads a `tokenizer.json` that [`Words::to_bytes`] wrote.
    ///
    /// # Errors
    /// `Input` when its ids have gaps.
    pub fn from_json(file: &Value) -> Outcome<Words> {
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
        Ok(Words::of_list(by_id.into_values().map(str::to_owned).collect()))
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

    /// The names of the special tokens, as other tokenizers' files call them.
    pub(super) fn marks() -> [(&'static str, Vec<String>); 4] {
        let names = ["pad_token", "bos_token", "eos_token", "unk_token"];
        std::array::from_fn(|i| (names[i], vec![SPECIAL[i].to_owned()]))
    }

    /// The id of a word, if it is known.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// The words of a text as ids, without begin and end marks.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let unknown = self.ids[SPECIAL[3]];
        text.split_whitespace().map(|word| self.id(word).unwrap_or(unknown)).collect()
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
        let words = Words::of_words(["sam", "has", "3", "sam"]);
        assert_eq!(words.size(), 7);
        let ids = words.encode("sam  has 4");
        assert_eq!(ids, [4, 5, 3]);
        assert_eq!(words.decode(&ids), "sam has <unk>");
        let bytes = words.to_bytes();
        let file: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(Words::wrote(&file));
        let again = Words::from_json(&file).expect("reads");
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.decode(&[6, 99]), "3 <unk>");
    }

    #[test]
    fn gaps_are_refused_and_other_files_are_not_ours() {
        let mut file: Value =
            serde_json::from_slice(&Words::of_words(["sam"]).to_bytes()).expect("JSON");
        file["model"]["vocab"]["sam"] = 9.into();
        assert!(Words::from_json(&file).expect_err("refused").what.contains("0, 1"));
        file["model"]["vocab"]["<pad>"] = 3.into();
        assert!(!Words::wrote(&file));
    }
}
