//! Replies from a model on our own engine: texts in, texts out.
//!
//! Knows models and vocabularies, not what the texts mean and not who keeps
//! the replies.

use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::seed::Seed;
use crate::base::text;
use crate::engine::config::LlamaConfig;
use crate::engine::device::{self, Asked, Opened, within_memory};
use crate::engine::estimate;
use crate::engine::generate::{Decoding, Finish, Reply, Request, generate};
use crate::engine::model::Llama;
use crate::engine::sample::Sampling;
use crate::engine::tokenizer::{Files, Tokenizer};
use crate::engine::weights;
use crate::host::memory::LIMIT;
use crate::inference::prompting;
use crate::record::template::Prompt;
use crate::record::{TextNotes, Tokens};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A model that speaks.
pub struct Local {
    model: Llama,
    tokenizer: Tokenizer,
    on: Opened,
}

/// One text to continue.
#[derive(Clone, Debug)]
pub struct Question {
    /// The caller's name for it.
    pub index: usize,
    /// The conversation so far.
    pub prompt: Prompt,
    /// Seed of its random choices.
    pub seed: Seed,
}

/// How to continue texts.
#[derive(Clone, Debug)]
pub struct Manner {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to write.
    pub max_tokens: usize,
    /// What ends a reply besides the end mark, and is not part of it: one word where words are
    /// tokens, any text where they are not.
    pub stop: Option<String>,
    /// Whether an utterance is to have the probability of its tokens.
    pub logprob: bool,
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
    /// Mean natural logarithm of the probability of a token written, the end mark included;
    /// where it was asked for.
    pub logprob: Option<f64>,
    /// Whether it was cut off.
    pub cut: bool,
}

/// Opens the device that a person chose, to compute in the precision they chose
/// with it (`cpu/bf16`); each is looked for once in a process.
///
/// # Errors
/// `Environment` when it is not there, or cannot compute in that precision;
/// `Input` for a name that is none.
pub fn open_device(choice: &str) -> Outcome<Opened> {
    static OPENED: Mutex<BTreeMap<String, Opened>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = opened.get(choice) {
        return Ok(found.clone());
    }
    let wanted: Asked = choice.parse().map_err(|error: String| Failure::input(error))?;
    let found = device::open(&wanted.choice)?.computing_in(wanted.precision)?;
    opened.insert(choice.to_owned(), found.clone());
    Ok(found)
}

/// A checkpoint's configuration and tokenizer, before its weights are touched.
///
/// # Errors
/// When one of them is damaged, or the vocabulary is larger than the model's.
pub fn sizes(config: &[u8], tokenizer: &Files) -> Outcome<(LlamaConfig, Tokenizer)> {
    let config: LlamaConfig =
        serde_json::from_slice(config).doing(|| "reading `config.json`".into())?;
    let tokenizer = Tokenizer::from_files(tokenizer)?;
    if tokenizer.size() > config.vocab_size {
        return Err(Failure::input(format!(
            "the tokenizer has {} tokens, the model knows {}",
            tokenizer.size(),
            config.vocab_size
        ))
        .hint("they belong to two different models; take both out of one checkpoint"));
    }
    Ok((config, tokenizer))
}

impl Local {
    /// A model of a checkpoint's configuration, file of weights, and tokenizer; its
    /// matrices are kept in the format that the device computes products in.
    ///
    /// # Errors
    /// When one of them is damaged, or the vocabulary is larger than the model's;
    /// `Environment` when the model is larger than the memory that is free.
    pub fn load(config: &[u8], weights: &Path, tokenizer: &Files, on: &Opened) -> Outcome<Local> {
        let (config, tokenizer) = sizes(config, tokenizer)?;
        let size = estimate::model(&config, on.precision);
        if let Some(free) = on.free_memory().filter(|&free| free < size) {
            let [size, free] = [size, free].map(text::bytes);
            return Err(Failure::environment(format!(
                "the model needs {size} of memory, and {free} are free on {}",
                on.name
            ))
            .hint("`precision = \"bf16\"` halves what f32 needs; a graphics card may have more"));
        }
        let model = weights::read(config, weights, &on.device, on.precision)?;
        Ok(Local { model, tokenizer, on: on.clone() })
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
        let mut prompts: Vec<Vec<u32>> = Vec::with_capacity(questions.len());
        let requests = questions
            .iter()
            .enumerate()
            .map(|(index, question)| {
                let prompt = prompting::encode(&self.tokenizer, &question.prompt, None)?.ids;
                prompts.push(prompt.clone());
                Ok(Request {
                    index,
                    prompt,
                    seed: question.seed,
                    sampling: manner.sampling,
                    max_tokens: manner.max_tokens,
                    logprobs: manner.logprob,
                })
            })
            .collect::<Outcome<_>>()?;
        let mut stop = vec![self.tokenizer.end()];
        let mut until = None;
        match &manner.stop {
            Some(word) if self.tokenizer.is_of_words() => {
                let unknown = || Failure::input(format!("the stop word `{word}` is no token"));
                stop.push(self.tokenizer.id(word).ok_or_else(unknown)?);
            }
            Some(text) => until = Some((&self.tokenizer, text.as_str())),
            None => {}
        }
        let needs = |batch: usize| self.needs(&prompts, manner.max_tokens, batch);
        let batch = self.side_by_side(manner.batch, &needs, self.on.free_memory())?;
        let decoding = Decoding { batch, stop: &stop, until };
        let mut hear = |reply: Reply| {
            let prompt = &prompts[reply.index];
            let tokens = Tokens { read: prompt.len() as u64, written: reply.tokens.len() as u64 };
            let (text, stopped) = self.text(prompt, &reply.tokens, manner)?;
            let cut = reply.finish == Finish::Length && !stopped;
            let index = questions[reply.index].index;
            done(Utterance { index, text, tokens, logprob: mean(&reply.logprobs), cut })
        };
        within_memory(|| generate(&self.model, requests, decoding, &mut hear)).unwrap_or_else(
            |why| {
                let (name, needed) = (&self.on.name, text::bytes(needs(batch)));
                Err(Failure::environment(format!("{name} ran out of memory"))
                    .hint(format!(
                        "{batch} sequences side by side were expected to need {needed} beside the \
                     model; with less in `{LIMIT}` there are fewer"
                    ))
                    .caused_by(why))
            },
        )
    }

    /// How many sequences of up to `capacity` tokens, at most `wanted`, there is
    /// memory for beside the model, while up to `reading` prompt tokens are read.
    ///
    /// # Errors
    /// `Environment` when there is none for one.
    pub fn slots_for(&self, wanted: usize, capacity: usize, reading: usize) -> Outcome<usize> {
        let (config, precision) = (self.model.config(), self.on.precision);
        let needs = |slots: usize| {
            let reading = reading.min(slots * capacity).max(capacity) as u64;
            estimate::speaking(config, precision, slots as u64, capacity as u64, reading)
        };
        let shorter = "`--context` bounds prompt and reply together; a shorter one needs less";
        self.side_by_side(wanted, &needs, self.on.free_memory())
            .map_err(|failure| Failure { hints: vec![shorter.into()], ..failure })
    }

    /// Bytes that these prompts need beside the model, so many at a time.
    fn needs(&self, prompts: &[Vec<u32>], max_tokens: usize, batch: usize) -> u64 {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let config = self.model.config();
        let capacity = (longest + max_tokens).min(config.max_position_embeddings) as u64;
        let slots = batch.min(prompts.len()).max(1) as u64;
        estimate::speaking(config, self.on.precision, slots, capacity, slots * longest as u64)
    }

    /// How many sequences there can be side by side, at most `wanted`, in so much
    /// free memory.
    fn side_by_side(
        &self,
        wanted: usize,
        needs: &dyn Fn(usize) -> u64,
        free: Option<u64>,
    ) -> Outcome<usize> {
        let Some(free) = free else { return Ok(wanted) };
        let fewer = std::iter::successors(Some(wanted), |n| Some(n / 2).filter(|&n| n > 0));
        fewer.into_iter().find(|&n| needs(n) <= free).ok_or_else(|| {
            Failure::environment(format!(
                "one sequence alone needs {} of memory beside the model, and {} are free on {}",
                text::bytes(needs(1)),
                text::bytes(free),
                self.on.name
            ))
            .hint("shorter prompts or a smaller `max-tokens` need less")
        })
    }

    /// A reply's text, without the blank that parts it from its prompt, and
    /// whether what ends it was in it.
    fn text(&self, prompt: &[u32], reply: &[u32], manner: &Manner) -> Outcome<(String, bool)> {
        let text = self.tokenizer.decode(prompt, reply)?;
        let text = text.strip_prefix(' ').unwrap_or(&text);
        Ok(match manner.stop.as_ref().and_then(|stop| text.find(stop.as_str())) {
            Some(at) if !self.tokenizer.is_of_words() => (text[..at].trim_end().to_owned(), true),
            _ => (text.to_owned(), false),
        })
    }

    /// What the tokens of prompts should make a person know.
    ///
    /// # Errors
    /// `Input` when the template or the tokenizer refuses one.
    pub fn notes(&self, prompts: &[Prompt]) -> Outcome<TextNotes> {
        let mut notes = TextNotes::default();
        for prompt in prompts {
            notes += prompting::encode(&self.tokenizer, prompt, None)?.notes;
        }
        Ok(notes)
    }
}

/// Nothing has no mean.
fn mean(logprobs: &[f32]) -> Option<f64> {
    let sum: f64 = logprobs.iter().copied().map(f64::from).sum();
    (!logprobs.is_empty()).then(|| sum / logprobs.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{Device, DeviceChoice};

    fn config(vocabulary: usize) -> LlamaConfig {
        LlamaConfig {
            model_type: "llama".into(),
            vocab_size: vocabulary,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            tie_word_embeddings: false,
        }
    }

    fn open(vocabulary: usize) -> Outcome<Local> {
        let config = config(vocabulary);
        let file = serde_json::to_vec(&config).expect("JSON");
        let model = Llama::random(config, 0.5, Seed(1), &Device::flex());
        let tokenizer =
            include_bytes!("../../tests/fixtures/tokenizers/llama/tokenizer.model").to_vec();
        let files = Files::from([("tokenizer.model".to_owned(), tokenizer)]);
        let space = temp_dir::TempDir::new().expect("a folder");
        let path = space.path().join("model.safetensors");
        weights::write(&model, &path).expect("saves");
        Local::load(&file, &path, &files, &device::open(&DeviceChoice::Cpu).expect("opens"))
    }

    fn say(local: &Local, stop: Option<&str>) -> Utterance {
        say_all(local, stop, 1).remove(0)
    }

    /// What is said to some prompts, so many of them side by side.
    fn say_all(local: &Local, stop: Option<&str>, batch: usize) -> Vec<Utterance> {
        let question = |index: usize| {
            let text = ["how many ?", "apples", "hello world"][index % 3].to_owned();
            let prompt = Prompt { text, ..Prompt::default() };
            Question { index, prompt, seed: Seed(5).at(index as u64) }
        };
        let questions: Vec<Question> = (0..12).map(question).collect();
        let stop = stop.map(str::to_owned);
        let sampling = Sampling::at(1.0);
        let manner = Manner { sampling, max_tokens: 12, stop, logprob: true, batch };
        let mut said = Vec::new();
        let mut keep = |utterance| {
            said.push(utterance);
            Ok(())
        };
        local.speak(&questions, &manner, &mut keep).expect("speaks");
        said.sort_by_key(|utterance: &Utterance| utterance.index);
        said
    }

    #[test]
    fn a_vocabulary_that_the_model_does_not_know_is_refused_by_its_size() {
        let Err(failure) = open(300) else { panic!("loads") };
        assert_eq!(failure.what, "the tokenizer has 560 tokens, the model knows 300");
        // More rows than tokens are filling, as many checkpoints have it.
        assert!(open(576).is_ok());
    }

    #[test]
    fn as_many_sequences_go_side_by_side_as_there_is_memory_for() {
        let local = open(560).expect("loads");
        let prompts = vec![vec![1; 20]; 40];
        let needs = |batch| local.needs(&prompts, 30, batch);
        assert!(needs(40) > 2 * needs(10) && needs(64) == needs(40));
        let batch = |free| local.side_by_side(64, &needs, free);
        assert_eq!(batch(None).expect("unknown"), 64);
        assert_eq!(batch(Some(needs(40))).expect("all"), 64);
        assert_eq!(batch(Some(needs(40) - 1)).expect("half"), 32);
        assert_eq!(batch(Some(needs(1))).expect("one"), 1);
        let refused = batch(Some(needs(1) - 1)).expect_err("none");
        assert!(refused.what.starts_with("one sequence alone needs "), "{refused:?}");
    }

    #[test]
    fn a_reply_ends_at_the_token_that_completes_its_stop() {
        let local = open(560).expect("loads");
        let whole = say(&local, None);
        assert!(whole.cut && whole.tokens.written == 12 && whole.tokens.read > 1);
        let characters: Vec<(usize, char)> = whole.text.char_indices().collect();
        let mut written = Vec::new();
        for at in 0..characters.len() - 3 {
            // Three characters, which mostly are of several tokens.
            let stop = &whole.text[characters[at].0..characters[at + 3].0];
            if stop.contains(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            let ended = say(&local, Some(stop));
            let want = whole.text[..whole.text.find(stop).expect("in it")].trim_end();
            assert_eq!((ended.text.as_str(), ended.cut), (want, false), "{stop:?}");
            // A token less, and the stop is not complete.
            let tokens = ended.tokens.written;
            let question = Prompt { text: "how many ?".into(), ..Prompt::default() };
            let manner = Manner {
                sampling: Sampling::at(1.0),
                max_tokens: tokens as usize - 1,
                stop: Some(stop.to_owned()),
                logprob: false,
                batch: 1,
            };
            let mut keep = |shorter: Utterance| {
                assert!(shorter.cut && !shorter.text.contains(stop), "{stop:?}: {shorter:?}");
                Ok(())
            };
            let asked = [Question { index: 0, prompt: question, seed: Seed(5).at(0) }];
            if tokens > 1 {
                local.speak(&asked, &manner, &mut keep).expect("speaks");
            }
            written.push(tokens);
        }
        assert!(written.len() > 5 && written.iter().any(|&n| n < 12), "{written:?}");
        let stop = &whole.text[characters[4].0..characters[6].0];
        let alone = say_all(&local, Some(stop), 1);
        assert!(alone.iter().any(|one| one.tokens.written < 12));
        for batch in [3, 64] {
            assert_eq!(say_all(&local, Some(stop), batch), alone, "batch {batch}");
        }
    }
}
