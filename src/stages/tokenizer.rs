//! Kind `tokenizer`: texts -> a word-level vocabulary. Words come in the order
//! of their counts, then of the alphabet, so the same texts give the same ids.

use crate::base::artifact::{ArtifactKind, Examples, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::spec::{Ref, Use, spec};
use crate::engine::tokenizer::words::Words;
use crate::record::protocol::Protocol;
use crate::record::{Example, Problem};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use std::collections::BTreeMap;

spec! {
    /// Builds a vocabulary out of every word of some texts and of a protocol. Words that it does not
    /// know will all be one token.
    pub struct Tokenizer {
        /// Texts whose prompts and completions are counted.
        examples: Vec<Ref<Examples>> = Vec::new(),
        /// Problems whose questions are counted.
        problems: Vec<Ref<Problems>> = Vec::new(),
        /// Its fixed words are always in.
        protocol: Use<Protocol>,
        /// Words that are always in, such as those an annotator uses.
        words: String = "work: wrote found off nothing same differs ; = + - * /".to_owned(),
        /// The numbers from 0 to this one are always in.
        numbers: u64 = 20,
        /// Rarer words are left out.
        min_count: u64 = 1,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Tokenizer>("tokenizer", "stage", 1, false);

impl Stage for Tokenizer {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("tokenizer".into(), ArtifactKind::Tokenizer)]
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = |text: &str| {
            for word in text.split_whitespace() {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        };
        for artifact in work.inputs("examples") {
            for row in artifact.rows::<Example>("examples.jsonl")? {
                count(&row.prompt);
                count(&row.completion);
            }
        }
        for artifact in work.inputs("problems") {
            for row in artifact.rows::<Problem>("problems.jsonl")? {
                count(&row.question);
            }
        }
        if counts.is_empty() {
            return Err(Failure::input("there is no text to take words from"));
        }
        let total: u64 = counts.values().sum();
        let mut frequent: Vec<(&String, u64)> = counts
            .iter()
            .map(|(word, &count)| (word, count))
            .filter(|(_, count)| *count >= self.min_count)
            .collect();
        frequent.sort_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
        let fixed = format!("{} {}", self.protocol.words(), self.words);
        let numbers: Vec<String> = (0..=self.numbers).map(|n| n.to_string()).collect();
        let words = fixed
            .split_whitespace()
            .chain(numbers.iter().map(String::as_str))
            .chain(frequent.iter().map(|(word, _)| word.as_str()));
        let vocabulary = Words::of_words(words);
        let unknown: u64 = counts
            .iter()
            .filter(|(word, _)| vocabulary.id(word).is_none())
            .map(|(_, count)| count)
            .sum();
        work.metric("tokens", vocabulary.size() as f64);
        work.metric("unknown-share", unknown as f64 / total as f64);
        work.output("tokenizer").write("tokenizer.json", &vocabulary.to_bytes())
    }
}
