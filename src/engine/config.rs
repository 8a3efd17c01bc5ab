//! The shape of a LLaMA, in Hugging Face's words (`config.json`).

use super::ops::{Heads, RopeTable};
use serde::{Deserialize, Serialize};

/// Sizes and constants of a LLaMA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
}

impl LlamaConfig {
    /// Heads.
    pub fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, kv: self.num_key_value_heads, dim: self.head_dim }
    }

    /// The rotary table for all positions.
    pub fn rope(&self) -> RopeTable {
        RopeTable::new(self.head_dim, self.max_position_embeddings, self.rope_theta)
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
