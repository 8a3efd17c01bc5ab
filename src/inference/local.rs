//! Replies from a model on our own engine: texts in, texts out.
//!
//! Knows models and vocabularies, not what the texts mean and not who keeps
//! the replies.

use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use crate::engine::config::LlamaConfig;
use crate::engine::device::{self, DeviceChoice};
use crate::engine::generate::{Decoding, Finish, Request, generate};
use crate::engine::model::Llama;
use crate::engine::sample::Sampling;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use crate::record::Tokens;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A model that speaks.
pub struct Local {
    model: Llama,
    tokenizer: Tokenizer,
}

/// One text to continue.
#[derive(Clone, Debug)]
pub struct Question {
    /// The caller's name for it.
    pub index: usize,
    /// The text.
    pub prompt: String,
    /// Seed of its random choices.
    pub seed: Seed,
}

/// How to continue texts.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f64,
    /// Most tokens to write.
    pub max_tokens: usize,
    /// A word that ends a reply besides the end mark, and is not part of it.
    pub stop: Option<String>,
    /// Sequences side by side.
    pub batch: usize,
}

/// A continued text.
#[derive(Clone, Debug, PartialEq)]
pub struct Utterance {
    /// The question.
    pub index: usize,
    /// What was said.
    pub text: String,
    /// Tokens read and written.
    pub tokens: Tokens,
    /// Whether it was cut off.
    pub cut: bool,
}

/// Opens the device that a person chose; each is looked for once in a process.
///
/// # Errors
/// `Environment` when it is not there; `Input` for a name that is none.
pub fn open_device(choice: &str) -> Outcome<device::Opened> {
    static OPENED: Mutex<BTreeMap<String, device::Opened>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = opened.get(choice) {
        return Ok(found.clone());
    }
    let wanted: DeviceChoice = choice.parse().map_err(|error: String| Failure::input(error))?;
    let found = device::open(&wanted)?;
    opened.insert(choice.to_owned(), found.clone());
    Ok(found)
}

impl Local {
    /// A model of the three files of a checkpoint.
    ///
    /// # Errors
    /// When one of them is damaged, or the vocabulary is larger than the model's.
    pub fn load(
        config: &[u8],
        weights: &[u8],
        tokenizer: &[u8],
        device: &device::Device,
    ) -> Outcome<Local> {
        let config: LlamaConfig =
            serde_json::from_slice(config).doing(|| "reading `config.json`".into())?;
        let tokenizer = Tokenizer::from_bytes(tokenizer)?;
        if tokenizer.size() > config.vocab_size {
            return Err(Failure::input(format!(
                "the tokenizer has {} tokens, the model knows {}",
                tokenizer.size(),
                config.vocab_size
            )));
        }
        let model = weights::load(config, weights, device)?;
        Ok(Local { model, tokenizer })
    }

    /// The model.
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// Its vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Continues texts; `done` gets each as it is finished and may end it all by an error.
    ///
    /// # Errors
    /// `Input` for a prompt that does not fit, and what `done` returns.
    pub fn speak(
        &self,
        questions: &[Question],
        manner: &Manner,
        done: &mut dyn FnMut(Utterance) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut lengths = Vec::with_capacity(questions.len());
        let requests = questions
            .iter()
            .enumerate()
            .map(|(index, question)| {
                let mut prompt = vec![self.tokenizer.bos()];
                prompt.extend(self.tokenizer.encode(&question.prompt));
                lengths.push(prompt.len());
                Request {
                    index,
                    prompt,
                    seed: question.seed,
                    sampling: Sampling::at(manner.temperature),
                    max_tokens: manner.max_tokens,
                }
            })
            .collect();
        let mut stop = vec![self.tokenizer.eos()];
        if let Some(word) = &manner.stop {
            let unknown = || Failure::input(format!("the stop word `{word}` is no token"));
            stop.push(self.tokenizer.id(word).ok_or_else(unknown)?);
        }
        let decoding = Decoding { batch: manner.batch, stop: &stop };
        generate(&self.model, requests, decoding, &mut |reply| {
            let tokens =
                Tokens { read: lengths[reply.index] as u64, written: reply.tokens.len() as u64 };
            done(Utterance {
                index: questions[reply.index].index,
                text: self.tokenizer.decode(&reply.tokens),
                tokens,
                cut: reply.finish == Finish::Length,
            })
        })
    }
}
