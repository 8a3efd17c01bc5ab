//! The resource `[model.X]`: the shape of a model that is trained from nothing.

use crate::base::spec::{Resource, spec};
use crate::engine::config::LlamaConfig;

spec! {
    /// The shape of a LLaMA that is trained from a random start: root-mean-square norms,
    /// rotary positions, SwiGLU, causal grouped-query attention.
    pub struct Architecture {
        /// Width of the residual stream.
        width: u64 = 128,
        /// Decoder blocks.
        layers: u64 = 3,
        /// Query heads; divides the width.
        heads: u64 = 4,
        /// Key and value heads; divides the query heads.
        kv_heads: u64 = 4,
        /// Width inside the feed-forward part.
        feed_forward: u64 = 336,
        /// Longest sequence in tokens.
        context: u64 = 128,
        /// Base of the rotary frequencies.
        rope_base: f64 = 10000.0,
        /// Added to the mean square in norms.
        norm_eps: f64 = 1e-5,
        /// Whether the output matrix is the embedding.
        tied: bool = true,
        /// Standard deviation of the random start.
        init_std: f64 = 0.02,
    }
}

impl Resource for Architecture {
    const SECTION: &'static str = "model";
}

impl Architecture {
    /// The configuration for a vocabulary; what is wrong with it otherwise.
    pub fn config(&self, vocabulary: usize) -> Result<LlamaConfig, String> {
        if self.heads == 0 || !self.width.is_multiple_of(2 * self.heads) {
            return Err(format!(
                "`width` {} is no even multiple of `heads` {}",
                self.width, self.heads
            ));
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "`kv-heads` {} does not divide `heads` {}",
                self.kv_heads, self.heads
            ));
        }
        Ok(LlamaConfig {
            model_type: "llama".into(),
            vocab_size: vocabulary,
            hidden_size: self.width as usize,
            intermediate_size: self.feed_forward as usize,
            num_hidden_layers: self.layers as usize,
            num_attention_heads: self.heads as usize,
            num_key_value_heads: self.kv_heads as usize,
            head_dim: (self.width / self.heads) as usize,
            max_position_embeddings: self.context as usize,
            rms_norm_eps: self.norm_eps,
            rope_theta: self.rope_base,
            rope_scaling: None,
            tie_word_embeddings: self.tied,
        })
    }
}
