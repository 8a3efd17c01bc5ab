//! A model and a training small enough to be run in a moment: what the
//! self-tests of devices and the tests of the engine try things on.

use crate::base::seed::Seed;
use crate::engine::{
    batch::Pieces,
    config::LlamaConfig,
    model::Llama,
    optimizer::{AdamW, Schedule},
    train::Training,
};
use burn::tensor::Device;

/// Two blocks with grouped heads and tied embeddings.
pub(in crate::engine) fn config() -> LlamaConfig {
    LlamaConfig {
        model_type: "llama".into(),
        vocab_size: 23,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 32,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: true,
    }
}

/// The same random start on every device.
pub(in crate::engine) fn model(device: &Device) -> Llama {
    Llama::random(config(), 0.3, Seed(5), device)
}

/// A training of all weights.
pub(in crate::engine) fn training() -> Training {
    Training {
        optimizer: AdamW {
            rate: 3e-3,
            warmup: 0.1,
            schedule: Schedule::Cosine,
            floor: 0.1,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            decay: 0.01,
            clip: 1.0,
        },
        batch: 8,
        pieces: Pieces::Count(1),
        recompute: false,
        adapters: None,
        steps: 60,
        validate_every: 20,
        seed: Seed(9),
        dropout: Seed(10),
    }
}
