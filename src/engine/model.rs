//! The model: a LLaMA decoder, read top to bottom like the paper.
//!
//! Knows tensors and nothing of text or training. Rows are the tokens
//! of several documents one after another; letters in shapes: N tokens, d width,
//! ff inner width, V vocabulary, B rows of a decoding step.
//!
//! # Source
//! Touvron et al., LLaMA, 2023, section 2.2, in Hugging Face's layout.

use super::batch::Batch;
use super::config::LlamaConfig;
use super::lora::{Adapter, Target};
use super::ops::{self, AttentionPlan, Documents, Precision, RopeTable, Slots};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor, TensorData};
use std::sync::Arc;

/// Weights of one decoder block.
#[derive(Clone, Debug)]
struct Block {
    attention_norm: Tensor<2>, // [1, d]
    q: Projection,             // [H * D, d]
    k: Projection,             // [Hkv * D, d]
    v: Projection,             // [Hkv * D, d]
    o: Projection,             // [d, H * D]
    mlp_norm: Tensor<2>,       // [1, d]
    gate: Projection,          // [ff, d]
    up: Projection,            // [ff, d]
    down: Projection,          // [d, ff]
}

/// A linear layer, with an adapter where it has one.
#[derive(Clone, Debug)]
struct Projection {
    w: Tensor<2>, // [out, in]
    adapter: Option<Adapter>,
}

impl From<Tensor<2>> for Projection {
    fn from(w: Tensor<2>) -> Projection {
        Projection { w, adapter: None }
    }
}

/// What the rows of a product are. Their sums have another order: which it is
/// must not depend on how many rows there are.
#[derive(Clone, Copy)]
enum Rows {
    /// Tokens of whole texts.
    Texts,
    /// One new token of each text.
    Step,
}

impl Rows {
    fn linear(self, x: Tensor<2>, w: Tensor<2>, precision: Precision) -> Tensor<2> {
        match self {
            Rows::Texts => ops::linear(x, w, precision),
            Rows::Step => ops::linear_step(x, w, precision),
        }
    }
}

impl Projection {
    /// `[N, in]` -> `[N, out]`
    fn apply(&self, x: Tensor<2>, rows: Rows, precision: Precision) -> Tensor<2> {
        match &self.adapter {
            Some(adapter) => {
                let y = rows.linear(x.clone(), self.w.clone(), precision);
                y + adapter.apply(x, precision)
            }
            None => rows.linear(x, self.w.clone(), precision),
        }
    }
}

/// A LLaMA and its weights. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Llama {
    config: LlamaConfig,
    embedding: Tensor<2>, // [V, d]
    blocks: Vec<Block>,
    norm: Tensor<2>,         // [1, d]
    head: Option<Tensor<2>>, // [V, d]; none where the embedding serves
    rope: RopeTable,
    precision: Precision,
}

/// Keys and values of the tokens seen so far. A value: nothing is shared with
/// another generation.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<(Tensor<2>, Tensor<2>)>, // [slots * capacity, Hkv * D], rotated keys and values
    capacity: usize,
}

impl Llama {
    /// A model of weights in the order of [`LlamaConfig::parameters`].
    ///
    /// # Panics
    /// When there are fewer tensors than parameters.
    pub fn from_tensors(config: LlamaConfig, tensors: Vec<Tensor<2>>) -> Llama {
        let rope = config.rope();
        Llama::with_rope(config, rope, tensors)
    }

    /// [`Llama::from_tensors`] with a rotary table at hand: a training makes a
    /// model of every part of every step.
    ///
    /// # Panics
    /// When there are fewer tensors than parameters.
    pub fn with_rope(config: LlamaConfig, rope: RopeTable, tensors: Vec<Tensor<2>>) -> Llama {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("BUG: fewer tensors than parameters");
        let embedding = next();
        let blocks = (0..config.num_hidden_layers)
            .map(|_| Block {
                attention_norm: next(),
                q: next().into(),
                k: next().into(),
                v: next().into(),
                o: next().into(),
                mlp_norm: next(),
                gate: next().into(),
                up: next().into(),
                down: next().into(),
            })
            .collect();
        let norm = next();
        let head = (!config.tie_word_embeddings).then(next);
        Llama { config, embedding, blocks, norm, head, rope, precision: Precision::F32 }
    }

    /// The same model with its products in `precision`. Its weights stay as they
    /// are: those that learn are f32, and are rounded where they are used.
    pub fn computing_in(self, precision: Precision) -> Llama {
        Llama { precision, ..self }
    }

    /// A random start: norms 1, matrices normal with deviation `std`, those that
    /// write to the residual stream smaller by the root of twice the depth.
    ///
    /// # Source
    /// Radford et al., GPT-2, 2019, section 2.3
    pub fn random(config: LlamaConfig, std: f64, seed: Seed, device: &Device) -> Llama {
        let depth = (2.0 * config.num_hidden_layers as f64).sqrt();
        let tensors = config.parameters().into_iter().map(|(name, rows, columns)| {
            let mut rng = seed.derive(&name).rng();
            let writes = name.contains("o_proj") || name.contains("down_proj");
            let std = if writes { std / depth } else { std };
            let values: Vec<f32> = match rows {
                1 => vec![1.0; columns],
                _ => (0..rows * columns).map(|_| (rng.normal() * std) as f32).collect(),
            };
            Tensor::from_data(TensorData::new(values, [rows, columns]), device)
        });
        Llama::from_tensors(config.clone(), tensors.collect())
    }

    /// Sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The rotary table.
    pub fn rope(&self) -> &RopeTable {
        &self.rope
    }

    /// What its products are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embedding.device().inner()
    }

    /// The weights in the order of [`LlamaConfig::parameters`], without adapters.
    pub fn tensors(&self) -> Vec<Tensor<2>> {
        let mut all = vec![self.embedding.clone()];
        for b in &self.blocks {
            let (attention, mlp) = ([&b.q, &b.k, &b.v, &b.o], [&b.gate, &b.up, &b.down]);
            all.push(b.attention_norm.clone());
            all.extend(attention.map(|projection| projection.w.clone()));
            all.push(b.mlp_norm.clone());
            all.extend(mlp.map(|projection| projection.w.clone()));
        }
        all.push(self.norm.clone());
        all.extend(self.head.clone());
        all
    }

    /// The model with an adapter beside one layer's weight.
    pub fn adapted(mut self, block: usize, target: Target, adapter: Adapter) -> Llama {
        let block = &mut self.blocks[block];
        let projection = match target {
            Target::Query => &mut block.q,
            Target::Key => &mut block.k,
            Target::Value => &mut block.v,
            Target::Output => &mut block.o,
            Target::Gate => &mut block.gate,
            Target::Up => &mut block.up,
            Target::Down => &mut block.down,
        };
        projection.adapter = Some(adapter);
        self
    }

    /// The same model on a tape, its weights as constants; without adapters.
    pub fn on_tape(&self) -> Llama {
        let constants = self.tensors().into_iter().map(Tensor::autodiff).collect();
        let model = Llama::with_rope(self.config.clone(), self.rope.clone(), constants);
        model.computing_in(self.precision)
    }

    /// The model without its output matrix, for those that say no tokens. Where
    /// the embedding served as one, it is the model as it is.
    pub fn without_output(self) -> Llama {
        let config = LlamaConfig { tie_word_embeddings: true, ..self.config };
        Llama { config, head: None, ..self }
    }

    /// The output matrix `[V, d]`.
    pub fn output(&self) -> Tensor<2> {
        self.head.clone().unwrap_or_else(|| self.embedding.clone())
    }

    /// What attention over these documents needs.
    pub fn plan(&self, documents: Documents) -> AttentionPlan {
        AttentionPlan {
            heads: self.config.heads(),
            positions: documents.positions(),
            documents,
            rope: self.rope.clone(),
            precision: self.precision,
        }
    }

    /// Hidden state of every token, before the last norm.
    ///
    /// # Shapes
    /// ids `[N]` -> `[N, d]`
    pub fn hidden(&self, ids: &Arc<[u32]>, plan: &AttentionPlan) -> Tensor<2> {
        (0..self.blocks.len()).fold(self.embed(ids), |x, block| self.block(block, x, plan))
    }

    /// The embedding of every token.
    ///
    /// # Shapes
    /// ids `[N]` -> `[N, d]`
    pub fn embed(&self, ids: &Arc<[u32]>) -> Tensor<2> {
        ops::rows(self.embedding.clone(), ids)
    }

    /// One block on the hidden state of every token.
    ///
    /// # Shapes
    /// x `[N, d]` -> `[N, d]`
    pub fn block(&self, block: usize, x: Tensor<2>, plan: &AttentionPlan) -> Tensor<2> {
        let block = &self.blocks[block];
        let (q, k, v) = self.project(block, &x, Rows::Texts);
        let o = ops::attention(q, k, v, plan); // [N, H * D]
        self.finish(block, x, o, Rows::Texts)
    }

    /// [`Llama::hidden`] of a batch.
    pub fn hidden_of(&self, batch: &Batch) -> Tensor<2> {
        self.hidden(&batch.ids, &self.plan(batch.documents.clone()))
    }

    /// The weighted cross entropy of a batch in nats, from the hidden state
    /// below the last norm.
    ///
    /// # Shapes
    /// hidden `[N, d]` -> `[1]`
    pub fn loss(&self, hidden: Tensor<2>, batch: &Batch) -> Tensor<1> {
        let supervised = self.last_norm(ops::rows(hidden, &batch.rows)); // [M, d]
        let (targets, weights) = (&batch.targets, &batch.weights);
        ops::linear_cross_entropy(supervised, self.output(), targets, weights, self.precision)
    }

    /// Logits at the supervised rows of a batch `[M, V]`.
    pub fn logits(&self, batch: &Batch) -> Tensor<2> {
        let supervised = self.last_norm(ops::rows(self.hidden_of(batch), &batch.rows)); // [M, d]
        self.to_logits(supervised)
    }

    /// Logits of rows behind the last norm.
    ///
    /// # Shapes
    /// x `[M, d]` -> `[M, V]`
    pub fn to_logits(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear(x, self.output(), self.precision)
    }

    /// The last norm, on the rows that matter.
    ///
    /// # Shapes
    /// x `[M, d]` -> `[M, d]`
    pub fn last_norm(&self, x: Tensor<2>) -> Tensor<2> {
        ops::rms_norm(x, self.norm.clone(), self.config.rms_norm_eps)
    }

    /// An empty cache for `slots` sequences of up to `capacity` tokens.
    pub fn cache(&self, slots: usize, capacity: usize) -> Cache {
        let width = self.config.num_key_value_heads * self.config.head_dim;
        let format = (&self.device(), self.precision.dtype());
        let empty = || Tensor::zeros([slots * capacity, width], format);
        Cache { layers: self.blocks.iter().map(|_| (empty(), empty())).collect(), capacity }
    }

    /// Reads whole prompts into slots of the cache; returns the logits of each
    /// prompt's last token.
    ///
    /// # Shapes
    /// ids `[N]`, the prompts one after another; slots `[B]` -> `[B, V]`
    pub fn prefill(
        &self,
        cache: &mut Cache,
        ids: &Arc<[u32]>,
        documents: &Documents,
        slots: &[u32],
    ) -> Tensor<2> {
        let plan = self.plan(documents.clone());
        let at: Arc<[u32]> = documents
            .ranges()
            .zip(slots)
            .flat_map(|((start, end), slot)| {
                let first = slot * cache.capacity as u32;
                first..first + (end - start) as u32
            })
            .collect();
        let mut x = ops::rows(self.embedding.clone(), ids); // [N, d]
        for (layer, block) in self.blocks.iter().enumerate() {
            let (q, k, v) = self.project(block, &x, Rows::Texts);
            cache.write(
                layer,
                self.rotate(k.clone(), plan.heads.kv, &plan.positions),
                v.clone(),
                &at,
            );
            let o = ops::attention(q, k, v, &plan); // [N, H * D]
            x = self.finish(block, x, o, Rows::Texts);
        }
        let last: Arc<[u32]> = documents.ranges().map(|(_, end)| end as u32 - 1).collect();
        self.to_logits(self.last_norm(ops::rows(x, &last)))
    }

    /// One more token for each row; returns the logits after it.
    ///
    /// # Shapes
    /// ids `[B]`; slots `[B]`, lengths with the new token -> `[B, V]`
    pub fn decode(&self, cache: &mut Cache, ids: &Arc<[u32]>, slots: &Slots) -> Tensor<2> {
        let heads = self.config.heads();
        let positions: Arc<[u32]> = slots.lengths.iter().map(|n| n - 1).collect();
        let at: Arc<[u32]> = slots
            .of_row
            .iter()
            .zip(positions.iter())
            .map(|(slot, position)| slot * cache.capacity as u32 + position)
            .collect();
        let mut x = ops::rows(self.embedding.clone(), ids); // [B, d]
        for (layer, block) in self.blocks.iter().enumerate() {
            let (q, k, v) = self.project(block, &x, Rows::Step);
            cache.write(layer, self.rotate(k, heads.kv, &positions), v, &at);
            let (keys, values) = &cache.layers[layer];
            let q = self.rotate(q, heads.query, &positions);
            let o = ops::attention_cached(q, keys, values, heads, slots, self.precision);
            x = self.finish(block, x, o, Rows::Step);
        }
        Rows::Step.linear(self.last_norm(x), self.output(), self.precision)
    }

    fn project(
        &self,
        block: &Block,
        x: &Tensor<2>,
        rows: Rows,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let (eps, precision) = (self.config.rms_norm_eps, self.precision);
        let x = ops::rms_norm(x.clone(), block.attention_norm.clone(), eps);
        (
            block.q.apply(x.clone(), rows, precision), // [N, H * D]
            block.k.apply(x.clone(), rows, precision), // [N, Hkv * D]
            block.v.apply(x, rows, precision),         // [N, Hkv * D]
        )
    }

    /// The block after attention: output projection, feed-forward, residuals.
    fn finish(&self, block: &Block, x: Tensor<2>, o: Tensor<2>, rows: Rows) -> Tensor<2> {
        let (eps, precision) = (self.config.rms_norm_eps, self.precision);
        let x = x + block.o.apply(o, rows, precision);
        let y = ops::rms_norm(x.clone(), block.mlp_norm.clone(), eps);
        let gate = block.gate.apply(y.clone(), rows, precision); // [N, ff]
        let up = block.up.apply(y, rows, precision); // [N, ff]
        x + block.down.apply(ops::swiglu(gate, up), rows, precision)
    }

    fn rotate(&self, x: Tensor<2>, heads: usize, positions: &Arc<[u32]>) -> Tensor<2> {
        ops::rope(x, heads, &self.rope, positions)
    }
}

impl Cache {
    /// Tokens one slot can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Copies the first `length` tokens of slots into other slots, of each
    /// `(from, to, length)`; no slot is in two of them as `to`.
    pub fn copy(&mut self, copies: &[(u32, u32, usize)]) {
        let rows = |slot: u32, length: usize| {
            let first = slot * self.capacity as u32;
            first..first + length as u32
        };
        let from: Arc<[u32]> = copies.iter().flat_map(|&(from, _, n)| rows(from, n)).collect();
        let to: Arc<[u32]> = copies.iter().flat_map(|&(_, to, n)| rows(to, n)).collect();
        if from.is_empty() {
            return;
        }
        for layer in 0..self.layers.len() {
            let (keys, values) = &self.layers[layer];
            let read = |cache: &Tensor<2>| ops::rows(cache.clone(), &from);
            let (k, v) = (read(keys), read(values));
            self.write(layer, k, v, &to);
        }
    }

    fn write(&mut self, layer: usize, k: Tensor<2>, v: Tensor<2>, at: &Arc<[u32]>) {
        // Taken out and put back, so that the cache is the only holder and the
        // write happens in place.
        let device = k.device();
        let hollow = || Tensor::zeros([1, 1], &device);
        let (keys, values) = std::mem::replace(&mut self.layers[layer], (hollow(), hollow()));
        self.layers[layer] = (ops::cache_write(keys, k, at), ops::cache_write(values, v, at));
    }
}
