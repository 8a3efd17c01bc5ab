//! The shape of a LLaMA, in Hugging Face's words (`config.json`): what we
//! write here, what we can read in `written`.

mod written;

use super::ops::{Heads, RopeTable};
use crate::base::failure::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Sizes and constants of a LLaMA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "written::Written")]
pub struct LlamaConfig {
    /// Always `llama`.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are changed for a longer context, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
}

/// How rotary frequencies are changed for a longer context than trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Every frequency is divided by a factor, as if positions were closer.
    ///
    /// # Source
    /// Chen et al., Position Interpolation, 2023
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Slow frequencies are divided, fast ones stay, those between are mixed.
    ///
    /// # Source
    /// Llama 3.1, as transformers computes it (`rope_type` `llama3`)
    Llama3 {
        /// The divisor of slow frequencies.
        factor: f64,
        /// Fewer turns than this in the original context are slow.
        low_freq_factor: f64,
        /// More turns than this in the original context are fast.
        high_freq_factor: f64,
        /// The original context in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// A frequency (radians a token) as it is used.
    fn apply(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let turns = original as f64 * frequency / TAU;
                let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                fast * frequency + (1.0 - fast) * frequency / factor
            }
        }
    }
}

impl LlamaConfig {
    /// Reads a `config.json`; `place` names it in messages.
    ///
    /// # Errors
    /// `Input` when it is no JSON, lacks a size, or asks for what is not a LLaMA
    /// without biases.
    pub fn from_json(bytes: &[u8], place: &str) -> Outcome<LlamaConfig> {
        serde_json::from_slice(bytes)
            .map_err(|error| Failure::input(format!("{place} cannot be used")).caused_by(error))
    }

    /// Heads.
    pub fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, kv: self.num_key_value_heads, dim: self.head_dim }
    }

    /// The rotary table for all positions.
    pub fn rope(&self) -> RopeTable {
        let (dim, positions, base) = (self.head_dim, self.max_position_embeddings, self.rope_theta);
        match self.rope_scaling {
            None => RopeTable::new(dim, positions, base),
            Some(scaling) => RopeTable::scaled(dim, positions, base, |f| scaling.apply(f)),
        }
    }

    /// Every parameter: its name in a checkpoint, rows, columns. A norm's
    /// weight has one row and is stored as a vector.
    pub fn parameters(&self) -> Vec<(String, usize, usize)> {
        let (d, ff) = (self.hidden_size, self.intermediate_size);
        let (q, kv) =
            (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut list = vec![("model.embed_tokens.weight".to_owned(), self.vocab_size, d)];
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, rows, columns| {
                list.push((format!("model.layers.{layer}.{name}.weight"), rows, columns));
            };
            add("input_layernorm", 1, d);
            add("self_attn.q_proj", q, d);
            add("self_attn.k_proj", kv, d);
            add("self_attn.v_proj", kv, d);
            add("self_attn.o_proj", d, q);
            add("post_attention_layernorm", 1, d);
            add("mlp.gate_proj", ff, d);
            add("mlp.up_proj", ff, d);
            add("mlp.down_proj", d, ff);
        }
        list.push(("model.norm.weight".to_owned(), 1, d));
        if !self.tie_word_embeddings {
            list.push(("lm_head.weight".to_owned(), self.vocab_size, d));
        }
        list
    }

    /// Numbers to be trained.
    pub fn size(&self) -> usize {
        self.parameters().iter().map(|(_, rows, columns)| rows * columns).sum()
    }
}
