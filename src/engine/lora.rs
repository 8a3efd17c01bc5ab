//! Low-rank adapters: small matrices that learn beside frozen weights.
//!
//! A layer `y = W x` becomes `y = W x + s B A x`. Only the arithmetic is here:
//! what is adapted, how it starts, how it is added to the weights in the end.
//! Files are `peft`'s business, learning is `train`'s.
//!
//! # Source
//! Hu et al., LoRA, 2021, section 4.1; Kalajdzievski, A Rank Stabilization
//! Scaling Factor, 2023; starts and defaults as in Hugging Face's peft.

use super::batch::Batch;
use super::config::LlamaConfig;
use super::model::Llama;
use super::ops::{self, Precision};
use crate::base::seed::Seed;
use crate::base::spec::choice;
use burn::tensor::{Device, Tensor, TensorData};

choice! {
    /// A linear layer of every block, in Hugging Face's words.
    pub enum Target {
        /// Queries.
        Query = "q_proj",
        /// Keys.
        Key = "k_proj",
        /// Values.
        Value = "v_proj",
        /// Output of the attention.
        Output = "o_proj",
        /// Gate of the feed-forward part.
        Gate = "gate_proj",
        /// Its way up.
        Up = "up_proj",
        /// Its way down.
        Down = "down_proj",
    }
}

impl Target {
    /// The layer's path in a checkpoint, without its ending.
    fn path(self, block: usize) -> String {
        let part = if self < Target::Gate { "self_attn" } else { "mlp" };
        format!("model.layers.{block}.{part}.{}", self.name())
    }
}

/// Which layers are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Weight of the adapters, before the division in [`Lora::scale`].
    pub alpha: f64,
    /// Adapted layers of every block, each once, in the order of [`Target::ALL`].
    pub targets: Vec<Target>,
    /// Chance of each input of an adapter to be left out in training.
    pub dropout: f64,
    /// Whether `alpha` is divided by the root of the rank, not by the rank.
    pub rank_stabilized: bool,
}

impl Default for Lora {
    /// Hugging Face's peft's.
    fn default() -> Lora {
        let targets = vec![Target::Query, Target::Value];
        Lora { rank: 8, alpha: 8.0, targets, dropout: 0.0, rank_stabilized: false }
    }
}

impl Lora {
    /// The factor on `B A x`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// Adapted layers in order: block and layer.
    fn layers(&self, config: &LlamaConfig) -> impl Iterator<Item = (usize, Target)> + '_ {
        (0..config.num_hidden_layers)
            .flat_map(|block| self.targets.iter().map(move |&target| (block, target)))
    }

    /// Every matrix that learns: its path, rows, columns. A and B of a layer
    /// follow each other: `[rank, in]` and `[out, rank]`.
    pub fn parameters(&self, config: &LlamaConfig) -> Vec<(String, usize, usize)> {
        let weights = config.parameters();
        let pair = |(block, target): (usize, Target)| {
            let path = target.path(block);
            let weight = format!("{path}.weight");
            let found = weights.iter().find(|(name, ..)| *name == weight);
            let &(_, out, inputs) = found.expect("BUG: every block has every target");
            [
                (format!("{path}.lora_A.weight"), self.rank, inputs),
                (format!("{path}.lora_B.weight"), out, self.rank),
            ]
        };
        self.layers(config).flat_map(pair).collect()
    }
}

/// Adapters with their numbers. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Adapters {
    /// What they are.
    pub lora: Lora,
    /// A and B of every adapted layer, in the order of [`Lora::parameters`].
    pub weights: Vec<Tensor<2>>,
}

impl Adapters {
    /// A start that changes nothing yet: A uniform within `1 / sqrt(in)`, which
    /// is Kaiming's rule for a slope of the root of 5, and B zero.
    pub fn fresh(lora: Lora, config: &LlamaConfig, seed: Seed, device: &Device) -> Adapters {
        let weights = lora
            .parameters(config)
            .into_iter()
            .map(|(name, rows, columns)| {
                if name.ends_with("lora_B.weight") {
                    return Tensor::zeros([rows, columns], device);
                }
                let (mut rng, bound) = (seed.derive(&name).rng(), 1.0 / (columns as f64).sqrt());
                let values: Vec<f32> = (0..rows * columns)
                    .map(|_| ((2.0 * rng.unit_f64() - 1.0) * bound) as f32)
                    .collect();
                Tensor::from_data(TensorData::new(values, [rows, columns]), device)
            })
            .collect();
        Adapters { lora, weights }
    }

    /// Numbers that learn.
    pub fn size(&self) -> usize {
        self.weights.iter().map(|w| w.dims().iter().product::<usize>()).sum()
    }

    /// The model with adapters beside its weights, which stay as they are.
    /// `dropout` seeds what is left out; without it nothing is.
    pub fn attach(&self, model: Llama, dropout: Option<Seed>) -> Llama {
        let mut pairs = self.weights.chunks_exact(2);
        let layers: Vec<(usize, Target)> = self.lora.layers(model.config()).collect();
        let dropout = dropout.filter(|_| self.lora.dropout > 0.0);
        layers.into_iter().fold(model, |model, (block, target)| {
            let pair = pairs.next().expect("BUG: fewer matrices than adapted layers");
            let adapter = Adapter {
                a: pair[0].clone(),
                b: pair[1].clone(),
                scale: self.lora.scale(),
                dropout: dropout.map(|seed| (self.lora.dropout, seed.derive(&target.path(block)))),
            };
            model.adapted(block, target, adapter)
        })
    }

    /// The model with `W + s B A` in place of every adapted `W`, in f32.
    pub fn merge(&self, model: &Llama) -> Llama {
        let config = model.config().clone();
        let adapted: Vec<String> = self
            .lora
            .layers(&config)
            .map(|(block, target)| format!("{}.weight", target.path(block)))
            .collect();
        let merged = config.parameters().into_iter().zip(model.tensors()).map(|((name, ..), w)| {
            match adapted.iter().position(|one| *one == name) {
                Some(i) => {
                    let (a, b) = (self.weights[2 * i].clone(), self.weights[2 * i + 1].clone());
                    w + b.matmul(a) * self.lora.scale() // [out, in]
                }
                None => w,
            }
        });
        let merged = Llama::with_rope(config, model.rope().clone(), merged.collect());
        merged.computing_in(model.precision())
    }

    /// The largest difference of a logit between the adapted model and the
    /// merged one, over the supervised rows of a batch: what rounding costs.
    pub fn merge_error(&self, model: &Llama, merged: &Llama, batch: &Batch) -> f64 {
        let factored = self.attach(model.clone(), None);
        let difference = factored.logits(batch) - merged.logits(batch); // [M, V]
        f64::from(difference.abs().max().into_scalar::<f32>())
    }
}

/// The adapter of one layer.
#[derive(Clone, Debug)]
pub struct Adapter {
    a: Tensor<2>, // [r, in]
    b: Tensor<2>, // [out, r]
    scale: f64,
    /// Chance and seed of leaving an input out.
    dropout: Option<(f64, Seed)>,
}

impl Adapter {
    /// What it adds to the layer's output.
    ///
    /// # Shapes
    /// x `[N, in]` -> `[N, out]`
    pub fn apply(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = match self.dropout {
            Some((chance, seed)) => thinned(x, chance, seed),
            None => x,
        };
        let narrow = ops::linear(x, self.a.clone(), precision); // [N, r]
        ops::linear(narrow, self.b.clone(), precision) * self.scale
    }
}

/// `x` with some of its numbers 0 and the others larger, so that the mean stays.
/// The same seed leaves out the same ones: a recomputed block is the block.
fn thinned(x: Tensor<2>, chance: f64, seed: Seed) -> Tensor<2> {
    let ([n, d], mut rng) = (x.dims(), seed.rng());
    let kept = (1.0 / (1.0 - chance)) as f32;
    let mask: Vec<f32> =
        (0..n * d).map(|_| if rng.unit_f64() < chance { 0.0 } else { kept }).collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [n, d]), &x.device().inner());
    let mask = if x.is_autodiff() { mask.autodiff() } else { mask };
    x * mask
}
