//! The kinds of things that flow along the edges of a plan.
//!
//! Knows names only; the rows inside are `record`'s, the files are `store`'s.

use serde::{Deserialize, Serialize};

macro_rules! artifacts {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What an artifact is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum ArtifactKind { $($(#[doc = $doc])+ $name,)+ }

        impl ArtifactKind {
            /// Its name in messages and manifests.
            pub fn name(self) -> &'static str {
                match self { $(ArtifactKind::$name => $text,)+ }
            }
        }

        /// A type that stands for a kind of artifact in a stage's parameters.
        pub trait Marker: Clone + PartialEq + std::fmt::Debug + 'static {
            /// The kind it stands for.
            const KIND: ArtifactKind;
        }

        $($(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name;
        impl Marker for $name { const KIND: ArtifactKind = ArtifactKind::$name; })+
    };
}

artifacts! {
    /// Questions with their gold answers (`problems.jsonl`).
    Problems = "problems",
    /// Training texts: a prompt and the completion the loss is taken on (`examples.jsonl`).
    Examples = "examples",
    /// Questions with a model's replies, feedback and refinements (`dialogues.jsonl`).
    Dialogues = "dialogues",
    /// A vocabulary (`tokenizer.json` or `tokenizer.model`, and what lies beside it).
    Tokenizer = "tokenizer",
    /// A checkpoint (`config.json`, `model.safetensors`, and its tokenizer's files).
    Model = "model",
    /// What scores replies (`reward.json`, `score.safetensors`, and adapters or a whole model).
    Reward = "reward",
    /// What a training did: steps, tokens, loss (`train.json`).
    TrainLog = "train-log",
    /// Outcomes per item of an evaluation (`scores.json`).
    Scores = "scores",
    /// What a judge said of two models' replies, pair by pair (`judgements.jsonl`), and what it
    /// comes to (`judgements.json`).
    Judgements = "judgements",
    /// What a filter or an annotator kept, dropped and why (`tally.json`).
    Tally = "tally",
    /// Which test items stand in training data (`leaks.json`).
    Leaks = "leaks",
    /// Files as they were fetched.
    Files = "files",
}
