//! A checkpoint on a device: whether it says what another library makes of it,
//! where somebody wrote that down, and whether the engine's promises hold for
//! it as they do for the small model of the other checks.
//!
//! Gradients are left out: they take several times the memory of the weights.
//! Knows no folder.

use super::engine::{
    AMONG_OTHERS, OVER_A_CACHE, PACKED, among_others, logits, over_a_cache, packed_logits, texts,
};
use super::{Check, numbers};
use crate::base::failure::{Failure, Outcome};
use crate::base::seed::Seed;
use crate::engine::{
    batch::Sequence,
    config::LlamaConfig,
    generate::{Decoding, Request, generate},
    model::Llama,
    sample::Sampling,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Name of the file beside a checkpoint that says what another library computes with it.
pub const PARITY: &str = "parity.json";

/// What another library computed with a checkpoint, in f32.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Parity {
    /// Versions of the libraries.
    made_with: BTreeMap<String, String>,
    /// A text.
    ids: Vec<u32>,
    /// Logits after each of its tokens `[N, V]`.
    logits: Vec<Vec<f32>>,
    /// What was said greedily, end marks ignored.
    said: Vec<Said>,
}

#[derive(Clone, Debug, Deserialize)]
struct Said {
    prompt: Vec<u32>,
    reply: Vec<u32>,
    /// The logit of each token of the reply above that of the next likeliest.
    margins: Vec<f32>,
}

impl Parity {
    /// Reads the file; `place` names it in messages.
    ///
    /// # Errors
    /// `Input` when it is damaged or belongs to a model of other sizes.
    pub fn read(bytes: &[u8], config: &LlamaConfig, place: &str) -> Outcome<Parity> {
        let wrong = || {
            Failure::input(format!("{place} cannot be used")).hint(
                "make it anew with `tests/fixtures/parity.py` of this program's sources, or remove it",
            )
        };
        let parity: Parity =
            serde_json::from_slice(bytes).map_err(|error| wrong().caused_by(error))?;
        let known = |ids: &[u32]| ids.iter().all(|&id| (id as usize) < config.vocab_size);
        let room = config.max_position_embeddings;
        let fits = parity.ids.len() >= 5
            && parity.ids.len() <= room
            && known(&parity.ids)
            && parity.logits.len() == parity.ids.len()
            && parity.logits.iter().all(|row| row.len() == config.vocab_size)
            && parity.said.iter().all(|said| {
                known(&said.prompt)
                    && !said.prompt.is_empty()
                    && said.prompt.len() + said.reply.len() <= room
                    && said.margins.len() == said.reply.len()
            });
        match fits {
            true => Ok(parity),
            false => Err(wrong().hint("its numbers do not belong to a model of these sizes")),
        }
    }

    /// The libraries and their versions.
    pub fn made_with(&self) -> String {
        let each = self.made_with.iter().map(|(name, version)| format!("{name} {version}"));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Replies and tokens that were said.
    pub fn said(&self) -> (usize, usize) {
        (self.said.len(), self.said.iter().map(|said| said.reply.len()).sum())
    }
}

/// All checks of a model on its device.
pub fn checks<'a>(model: &'a Llama, parity: Option<&'a Parity>, is_cpu: bool) -> Vec<Check<'a>> {
    // Logits of large models are larger sums than those of the small one.
    let near = if is_cpu { 1e-4 } else { 1e-3 };
    let exact = if is_cpu { 0.0 } else { near };
    let texts = sequences(model.config().vocab_size);
    let others = texts.clone();
    let longest = texts[texts.len() - 1].ids.clone();
    let mut all = Vec::new();
    if let Some(parity) = parity {
        // Two logits, each off by what it may be, change places within twice that.
        let choices = "largest margin of a greedy choice that is another";
        all.push(Check::new("logits against the stored ones", near, |_| apart(model, parity)));
        all.push(Check::new(choices, 2.0 * near, |_| chosen_otherwise(model, parity)));
    }
    all.push(Check::new(OVER_A_CACHE, near, move |_| over_a_cache(model, &longest)));
    all.push(Check::new(AMONG_OTHERS, exact, move |_| among_others(model, &texts)));
    all.push(Check::new(PACKED, exact, move |_| packed_logits(model, &others)));
    all
}

/// Sixteen texts of different lengths, the last no shorter than any; of any vocabulary.
fn sequences(vocabulary: usize) -> Vec<Sequence> {
    let mut texts = texts(16);
    for id in texts.iter_mut().flat_map(|text| &mut text.ids) {
        *id %= vocabulary as u32;
    }
    texts.sort_by_key(|text| text.ids.len());
    texts
}

/// The largest difference of a logit.
fn apart(model: &Llama, parity: &Parity) -> Result<f64, String> {
    let found = numbers(logits(model, &parity.ids))?;
    let each = found.iter().zip(parity.logits.iter().flatten()).map(|(a, b)| {
        let apart = f64::from((a - b).abs());
        if apart.is_nan() { f64::INFINITY } else { apart }
    });
    Ok(each.fold(0.0, f64::max))
}

/// By how much the stored logits favoured the tokens that are not said here;
/// of each reply the first, as everything behind it answers another text.
fn chosen_otherwise(model: &Llama, parity: &Parity) -> Result<f64, String> {
    let requests = parity.said.iter().enumerate().map(|(index, said)| Request {
        index,
        prompt: said.prompt.clone(),
        seed: Seed(0),
        sampling: Sampling::Greedy,
        max_tokens: said.reply.len(),
        logprobs: false,
    });
    let mut worst = 0.0f64;
    let decoding = Decoding { batch: 8, stop: &[], until: None };
    generate(model, requests.collect(), decoding, &mut |reply| {
        let said = &parity.said[reply.index];
        let other = said.reply.iter().zip(&reply.tokens).position(|(a, b)| a != b);
        if let Some(at) = other {
            worst = worst.max(f64::from(said.margins[at]));
        }
        Ok(())
    })
    .map_err(|failure| failure.what)?;
    Ok(worst)
}
