//! What a training or a generation will need, before anything of it is done:
//! memory from the shape of the model and of the steps, and work in
//! floating-point operations.
//!
//! Counts the tensors that live at the same time, by what holds them. Knows no
//! allocator: what one adds (rounding, pools, holes) comes on top. Allocates
//! nothing, so a model of any size can be asked about.

use super::config::LlamaConfig;
use super::lora::Lora;
use super::ops::Precision;
use super::ops::linear_memory::{LOGITS, QUERIES};

/// Bytes of an f32.
const F32: u64 = 4;

/// Rows of logits that the CPU's cross entropy holds at a time.
const CHUNK: u64 = 512;

/// What one part of a step holds: its sequences one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Tokens that are read.
    pub tokens: u64,
    /// Tokens that are predicted.
    pub targets: u64,
    /// Sum of the squares of the sequences' lengths.
    pub squares: u64,
}

impl Part {
    /// The part of sequences with these tokens read and predicted.
    pub fn of(sequences: impl IntoIterator<Item = (u64, u64)>) -> Part {
        let one = |(tokens, targets)| Part { tokens, targets, squares: tokens * tokens };
        sequences.into_iter().map(one).sum()
    }

    /// A part that is in each respect the larger of two.
    pub fn larger(self, other: Part) -> Part {
        Part {
            tokens: self.tokens.max(other.tokens),
            targets: self.targets.max(other.targets),
            squares: self.squares.max(other.squares),
        }
    }
}

impl std::iter::Sum for Part {
    fn sum<I: Iterator<Item = Part>>(parts: I) -> Part {
        parts.fold(Part::default(), |sum, one| Part {
            tokens: sum.tokens + one.tokens,
            targets: sum.targets + one.targets,
            squares: sum.squares + one.squares,
        })
    }
}

/// How a training goes about it.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The model.
    pub config: &'a LlamaConfig,
    /// What its products are rounded to.
    pub precision: Precision,
    /// Whether operations are fused, as on the CPU in f32.
    pub fused: bool,
    /// Adapters that learn in place of the weights.
    pub lora: Option<&'a Lora>,
    /// Whether blocks are computed twice.
    pub recompute: bool,
    /// Whether a step has more than one part.
    pub in_parts: bool,
    /// The largest part.
    pub part: Part,
}

/// Bytes of a training by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights, frozen ones and adapters too.
    pub weights: u64,
    /// First and second moments of what learns.
    pub moments: u64,
    /// Gradients of what learns: of the part, and the sum of those before it.
    pub gradients: u64,
    /// What the backward pass needs of the forward pass, in all blocks or in one.
    pub activations: u64,
    /// Logits and their gradients.
    pub logits: u64,
    /// The most that live at the same time.
    pub peak: u64,
}

/// Sizes that all counts are made of.
struct Sizes {
    width: u64,
    inner: u64,
    query: u64,
    kv: u64,
    heads: u64,
    blocks: u64,
    vocabulary: u64,
    /// Numbers of all matrices of one block.
    block: u64,
}

impl Sizes {
    fn of(config: &LlamaConfig) -> Sizes {
        let n = |x: usize| x as u64;
        let (width, inner) = (n(config.hidden_size), n(config.intermediate_size));
        let query = n(config.num_attention_heads) * n(config.head_dim);
        let kv = n(config.num_key_value_heads) * n(config.head_dim);
        Sizes {
            width,
            inner,
            query,
            kv,
            heads: n(config.num_attention_heads),
            blocks: n(config.num_hidden_layers),
            vocabulary: n(config.vocab_size),
            block: 2 * width * (query + kv) + 3 * width * inner,
        }
    }

    /// Numbers of the whole model, with what `LlamaConfig::size` would count.
    fn model(&self, tied: bool) -> u64 {
        let tables = if tied { 1 } else { 2 };
        self.blocks * (self.block + 2 * self.width)
            + self.width
            + tables * self.vocabulary * self.width
    }
}

impl Plan<'_> {
    /// The memory of this training.
    pub fn memory(&self) -> Memory {
        let sizes = Sizes::of(self.config);
        let Part { tokens, targets, .. } = self.part;
        let model = sizes.model(self.config.tie_word_embeddings);
        let learns = self.lora.map_or(model, |lora| adapters(lora, self.config));
        let frozen = self.lora.map_or(0, |_| model);
        let (weights, moments) = (F32 * (learns + frozen), 2 * F32 * learns);
        let own = F32 * learns;
        let before = if self.in_parts { own } else { 0 };

        let stream = F32 * tokens * sizes.width;
        let block = self.block(&sizes);
        let (kept, again) = match self.recompute {
            false => (sizes.blocks * block, 0),
            true => (sizes.blocks * stream, block),
        };
        let activations = kept + again + stream;
        let logits = self.logits(&sizes) + 3 * F32 * targets * sizes.width;
        // Gradients of the tables are there before the first block's, those of the blocks come as
        // their activations go; while a block is on, its own gradients flow too.
        let tables = match self.lora {
            None => F32 * sizes.vocabulary * sizes.width,
            Some(_) => 0,
        };
        let flow = F32 * tokens * (2 * sizes.width + 3 * sizes.inner.max(sizes.query));
        let scores = self.scores(&sizes);
        let top = activations + logits;
        let middle = activations + tables + flow.max(scores);
        let bottom = own + tables + stream + flow.max(scores);
        let step = before + top.max(middle).max(bottom);
        // A checkpoint is put together in memory, when no step is on.
        let checkpoint = 3 * own;
        let peak = weights + moments + step.max(checkpoint);
        Memory { weights, moments, gradients: own + before, activations, logits, peak }
    }

    /// Bytes that one block leaves to its backward pass.
    fn block(&self, sizes: &Sizes) -> u64 {
        let &Sizes { width, inner, query, kv, heads, .. } = sizes;
        let tokens = self.part.tokens;
        if self.fused {
            // Two inputs of norms and their outputs; q, k, v, o and the log-sum-exp; gate, up and
            // what comes of them.
            return F32 * tokens * (4 * width + 2 * query + 2 * kv + heads + 3 * inner);
        }
        // The same composed of plain operations: each norm leaves one more row and each operand of a
        // product its rounded copy, one for each product; attention keeps rotated queries and keys,
        // and values, and the activation leaves two rows more.
        let bytes = self.precision.bytes();
        let rounded = bytes < F32;
        let (attend, feed) = if rounded { (3, 2) } else { (1, 1) };
        let rows = F32 * (4 * width + query + 2 * kv + 4 * inner)
            + bytes * (attend * width + feed * width + query + inner);
        let copies = if rounded { bytes * sizes.block } else { 0 };
        tokens * rows + copies
    }

    /// Bytes of the scores that attention holds while it is at some queries: probabilities, their
    /// gradient, and two on the way. The fused one holds a row.
    fn scores(&self, sizes: &Sizes) -> u64 {
        if self.fused {
            return 0;
        }
        let Part { tokens, squares, .. } = self.part;
        let queries = tokens.min(QUERIES as u64);
        // The longest sequence is at most the root of the sum of squares.
        let keys = tokens.min(squares.isqrt().max(QUERIES as u64));
        4 * F32 * sizes.heads * queries * keys
    }

    /// Bytes of logits.
    fn logits(&self, sizes: &Sizes) -> u64 {
        let Part { targets, .. } = self.part;
        // The gradient of the output matrix, and what a chunk adds to it.
        let learns = if self.lora.is_none() { 2 } else { 0 };
        let matrices = learns * F32 * sizes.vocabulary * sizes.width;
        if self.fused {
            return F32 * targets.min(CHUNK) * sizes.vocabulary + matrices;
        }
        // Logits, probabilities, their gradient and its rounded copy.
        let bytes = self.precision.bytes();
        let cell = 3 * F32 + if bytes < F32 { bytes } else { 0 };
        let rows = (LOGITS as u64 / sizes.vocabulary).clamp(1, targets.max(1));
        rows * sizes.vocabulary * cell + matrices
    }

    /// Floating-point operations of one part: a product of `[n, k]` and `[k, m]` is
    /// `2 n k m`, the backward pass is two products for each, or one where the
    /// weight is frozen, and recomputing is the forward pass once more.
    pub fn operations(&self) -> f64 {
        let sizes = Sizes::of(self.config);
        let Part { tokens, targets, squares } = self.part;
        let passes = |once: f64| {
            let backward = if self.lora.is_some() { 1.0 } else { 2.0 };
            once * (1.0 + backward + f64::from(u8::from(self.recompute)))
        };
        let blocks = 2.0 * (sizes.blocks * sizes.block * tokens) as f64;
        // Half of the pairs are in the future.
        let attention = 2.0 * (sizes.blocks * sizes.query * squares) as f64;
        let head = 2.0 * (sizes.vocabulary * sizes.width * targets) as f64;
        passes(blocks + attention) + head * if self.lora.is_some() { 2.0 } else { 3.0 }
    }
}

/// Numbers of adapters.
fn adapters(lora: &Lora, config: &LlamaConfig) -> u64 {
    lora.parameters(config).iter().map(|(_, rows, columns)| (rows * columns) as u64).sum()
}

/// Bytes of a model whose matrices are `kept` in a format.
pub fn model(config: &LlamaConfig, kept: Precision) -> u64 {
    kept.bytes() * Sizes::of(config).model(config.tie_word_embeddings)
}

/// Bytes that a generation takes beside its model: a cache of `slots` sequences
/// of up to `capacity` tokens, and the reading of prompts of so many tokens
/// together.
pub fn speaking(
    config: &LlamaConfig,
    kept: Precision,
    slots: u64,
    capacity: u64,
    prompts: u64,
) -> u64 {
    let sizes = Sizes::of(config);
    let cache = 2 * sizes.blocks * slots * capacity * sizes.kv * kept.bytes();
    let row = 3 * sizes.width + sizes.query + 2 * sizes.kv + 3 * sizes.inner;
    cache + F32 * prompts * row + 2 * F32 * slots * sizes.vocabulary
}

/// What else of a training's settings would fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// The setting, as a manifest has it.
    pub setting: String,
    /// Bytes it needs.
    pub peak: u64,
}

/// Settings with which a training would need at most `free` bytes, the mildest
/// first: smaller parts (`cuts` are such settings with their largest parts, from
/// the mildest on), blocks computed twice, both; adapters where nothing else
/// helps. Empty where nothing does.
pub fn remedies(plan: &Plan, free: u64, cuts: &[(String, Part)]) -> Vec<Remedy> {
    let fresh = Lora::default();
    let fits = |plan: &Plan| Some(plan.memory().peak).filter(|&peak| peak <= free);
    let mut found: Vec<Remedy> = Vec::new();
    for lora in [plan.lora, Some(&fresh)] {
        for recompute in [plan.recompute, true] {
            let changed = Plan { recompute, lora, ..plan.clone() };
            let mut settings = Vec::new();
            if lora.is_some() && plan.lora.is_none() {
                settings.push("`lora = {}`");
            }
            if recompute && !plan.recompute {
                settings.push("`recompute = true`");
            }
            let mut peak = fits(&changed);
            if peak.is_none() {
                let smaller = cuts.iter().find_map(|(setting, part)| {
                    let cut = Plan { part: *part, in_parts: true, ..changed.clone() };
                    fits(&cut).map(|peak| (setting, peak))
                });
                if let Some((setting, needs)) = smaller {
                    settings.push(setting);
                    peak = Some(needs);
                }
            }
            let setting = settings.join(" with ");
            let is_new = !setting.is_empty() && found.iter().all(|one| one.setting != setting);
            if let Some(peak) = peak.filter(|_| is_new) {
                found.push(Remedy { setting, peak });
            }
        }
        // Adapters are another training.
        if !found.is_empty() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::selftest::small;

    fn plan(config: &LlamaConfig) -> Plan<'_> {
        Plan {
            config,
            precision: Precision::F32,
            fused: true,
            lora: None,
            recompute: false,
            in_parts: false,
            part: Part::of([(20, 10); 8]),
        }
    }

    #[test]
    fn a_model_has_the_numbers_that_its_list_of_parameters_has() {
        for tied in [false, true] {
            let config = LlamaConfig { tie_word_embeddings: tied, ..small::config() };
            assert_eq!(Sizes::of(&config).model(tied), config.size() as u64);
            let memory = plan(&config).memory();
            assert_eq!(
                (memory.weights, memory.moments),
                (4 * config.size() as u64, 8 * config.size() as u64)
            );
            assert!(memory.peak > memory.weights + memory.moments + memory.activations);
        }
    }

    #[test]
    fn seven_billion_parameters_need_what_is_known_of_them() {
        let config = LlamaConfig {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            max_position_embeddings: 4096,
            tie_word_embeddings: false,
            ..small::config()
        };
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let one = Plan {
            precision: Precision::Bf16,
            fused: false,
            recompute: true,
            part: Part::of([(400, 200); 8]),
            ..plan(&config)
        };
        // 6.74e9 parameters: 16 bytes of each for weights, moments and gradients.
        let memory = one.memory();
        let held = gib(memory.weights + memory.moments + memory.gradients);
        assert!((held - 100.4).abs() < 0.1, "{held}");
        let adapted = Plan { lora: Some(&Lora::default()), ..one.clone() }.memory();
        assert!(gib(adapted.peak) < 35.0 && adapted.moments < memory.moments / 1000);
        // 6 operations for each number of a matrix and token, 8 when blocks are computed twice.
        let once = Plan { recompute: false, ..one.clone() }.operations();
        let each = once / (6.0 * 6.6e9 * 3200.0);
        assert!((0.9..1.1).contains(&each), "{each}");
        assert!(one.operations() > 1.3 * once);
        // 0.5 MiB of bf16 for each token of a cache.
        let tokens = |n| speaking(&config, Precision::Bf16, 1, n, 1);
        assert_eq!(tokens(1001) - tokens(1), 1000 << 19);
    }

    #[test]
    fn what_would_fit_is_found_and_fits() {
        let config = LlamaConfig { hidden_size: 48, ..small::config() };
        let lengths = [60u64, 50, 40, 40, 30, 20, 10, 5];
        let parts = |count: u64| {
            let chunks = lengths.chunks(lengths.len().div_ceil(count as usize));
            let part = |chunk: &[u64]| Part::of(chunk.iter().map(|&n| (n, n / 2)));
            chunks.map(part).fold(Part::default(), Part::larger)
        };
        let whole = Plan { part: parts(1), ..plan(&config) };
        let needs = |count, recompute| {
            Plan { part: parts(count), in_parts: count > 1, recompute, ..whole.clone() }
                .memory()
                .peak
        };
        let cuts: Vec<(String, Part)> =
            (2..9).map(|count| (format!("`accumulate = {count}`"), parts(count))).collect();
        let found = |free| remedies(&whole, free, &cuts);
        assert!(needs(2, false) < needs(1, false) && needs(1, true) < needs(1, false));
        let mild = found(needs(2, false));
        assert_eq!(mild[0], Remedy { setting: "`accumulate = 2`".into(), peak: needs(2, false) });
        assert!(mild.iter().all(|one| one.peak <= needs(2, false)), "{mild:?}");
        let small = whole.memory();
        // Weights, moments and a checkpoint alone need more than this.
        let tight = found(5 * small.weights);
        assert!(!tight.is_empty());
        assert!(tight.iter().all(|one| one.setting.starts_with("`lora = {}`")), "{tight:?}");
        assert!(found(1000).is_empty());
    }
}
