//! The operations a LLaMA is made of, behind one seam.
//!
//! The model calls the functions of this file. On the CPU they are fused
//! loops with hand-written gradients (`fused`, `cpu`, `attention`, `simd`); on every other
//! device they are compositions of plain tensor operations (`reference`), but
//! for the two that would hold too much (`linear_memory`, on burn's tape by
//! `taped`). The plain ones also say what the others must compute: the tests
//! compare them.
//!
//! Rows are tokens of several documents one after another ("packed"): nothing
//! is padded, and attention never crosses a document's bounds.
//!
//! Tensors are f32; a [`Precision`] says what matrix products round to. In
//! anything but f32 these are the plain compositions on every device, so that
//! the processor computes what a graphics card is asked to.

mod attention;
mod cpu;
mod fused;
pub(in crate::engine) mod linear_memory;
mod product;
pub(in crate::engine) mod reference;
mod simd;
mod taped;

pub use product::Precision;

use burn::tensor::{DType, Device, Tensor};
use fused::FusedOps;
use product::admit;
use std::sync::Arc;

/// How many attention heads of which width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub kv: usize,
    /// Width of one head.
    pub dim: usize,
}

/// Where documents begin and end in a packed row of tokens.
#[derive(Clone, Debug)]
pub struct Documents {
    /// First token of each document, and the end of the last.
    bounds: Arc<[u32]>,
}

impl Documents {
    /// Documents of the given lengths, one after another.
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Documents {
        let mut bounds = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length as u32;
            bounds.push(end);
        }
        Documents { bounds: bounds.into() }
    }

    /// Start and end of each document.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.bounds.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize))
    }

    /// Tokens of the longest document.
    pub fn longest(&self) -> usize {
        self.ranges().map(|(start, end)| end - start).max().unwrap_or(0)
    }

    /// Position of each token within its document.
    pub fn positions(&self) -> Arc<[u32]> {
        self.ranges().flat_map(|(start, end)| 0..(end - start) as u32).collect()
    }
}

/// Cosines and sines of the rotary embedding (Su et al., RoFormer, 2021).
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `[positions, half]`
    cos: Arc<[f32]>,
    /// `[positions, half]`
    sin: Arc<[f32]>,
    half: usize,
}

impl RopeTable {
    /// The table for heads of width `dim` and positions `0..positions`.
    pub fn new(dim: usize, positions: usize, base: f64) -> RopeTable {
        RopeTable::scaled(dim, positions, base, |frequency| frequency)
    }

    /// The same with frequencies (radians a token) changed by `scale`.
    pub fn scaled(
        dim: usize,
        positions: usize,
        base: f64,
        scale: impl Fn(f64) -> f64,
    ) -> RopeTable {
        let half = dim / 2;
        // Frequencies in f32, as transformers computes them.
        let frequencies: Vec<f32> =
            (0..half).map(|i| scale(base.powf(-(2.0 * i as f64) / dim as f64)) as f32).collect();
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos(), a.sin())).unzip();
        RopeTable { cos: cos.into(), sin: sin.into(), half }
    }

    /// Half of the heads' width.
    pub fn half(&self) -> usize {
        self.half
    }

    /// Positions it has.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    /// Cosines and sines of one position, `[half]` each.
    pub fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half;
        (&self.cos[start..start + self.half], &self.sin[start..start + self.half])
    }
}

/// What attention over packed rows needs besides q, k and v.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    /// Heads.
    pub heads: Heads,
    /// Bounds of the documents.
    pub documents: Documents,
    /// Position of each token in its document `[N]`.
    pub positions: Arc<[u32]>,
    /// Rotary table.
    pub rope: RopeTable,
    /// Of the products with keys and with values.
    pub precision: Precision,
}

/// Numbers of one AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 - beta1`, rounded once: taken from the rounded decay it would be off
    /// by up to 3e-8, much for a decay near 1.
    pub fresh1: f32,
    /// `1 - beta2`, rounded once.
    pub fresh2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; 0 on norms.
    pub decay: f32,
    /// `1 - beta1^t`.
    pub correction1: f32,
    /// `1 - beta2^t`.
    pub correction2: f32,
    /// Factor on the gradient, from clipping.
    pub scale: f32,
}

/// A parameter with its moments, all of one shape.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Weights.
    pub w: Tensor<2>,
    /// First moment.
    pub m: Tensor<2>,
    /// Second moment.
    pub v: Tensor<2>,
}

/// Whether the fused CPU operations apply to this tensor.
fn is_cpu(x: &Tensor<2>) -> bool {
    x.device() == Device::flex()
}

/// Whether they apply to its products.
fn is_fused(x: &Tensor<2>, precision: Precision) -> bool {
    is_cpu(x) && precision == Precision::F32
}

/// Rows of a table, in f32: an embedding, or the supervised rows of the hidden
/// state.
///
/// # Shapes
/// table `[V, d]`, f32 or bf16; ids `[N]` -> `[N, d]`
pub fn rows(table: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    admit("rows", [table.dtype()], DType::BF16);
    if !is_cpu(&table) || table.dtype() != DType::F32 {
        return reference::rows(table, ids);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::rows(
        table.into_dispatch(),
        ids.clone(),
    ))
}

/// `x w^T`: a linear layer without bias, weights laid out as Hugging Face does.
///
/// # Shapes
/// x `[N, in]`; w `[out, in]`, f32 or of the precision's format -> `[N, out]`
pub fn linear(x: Tensor<2>, w: Tensor<2>, precision: Precision) -> Tensor<2> {
    admit("linear", [x.dtype(), w.dtype()], precision.dtype());
    if !is_fused(&x, precision) {
        return reference::linear(x, w, precision);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::linear(
        x.into_dispatch(),
        w.into_dispatch(),
    ))
}

/// [`linear`] for a decoding step, whose rows are few: on the CPU each weight is
/// read once where it lies, in place of being laid out anew for every step. Has
/// no gradient.
///
/// # Shapes
/// x `[B, in]`; w `[out, in]`, f32 or of the precision's format -> `[B, out]`
pub fn linear_step(x: Tensor<2>, w: Tensor<2>, precision: Precision) -> Tensor<2> {
    admit("linear_step", [x.dtype(), w.dtype()], precision.dtype());
    if !is_fused(&x, precision) {
        return reference::linear(x, w, precision);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::linear_step(
        x.into_dispatch(),
        w.into_dispatch(),
    ))
}

/// Root-mean-square norm with a weight (Zhang and Sennrich, 2019).
///
/// # Shapes
/// x `[N, d]`; w `[1, d]` -> `[N, d]`
pub fn rms_norm(x: Tensor<2>, w: Tensor<2>, eps: f64) -> Tensor<2> {
    admit("rms_norm", [x.dtype(), w.dtype()], DType::F32);
    if !is_cpu(&x) {
        return reference::rms_norm(x, w, eps);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::rms_norm(
        x.into_dispatch(),
        w.into_dispatch(),
        eps as f32,
    ))
}

/// `silu(gate) * up` (Shazeer, GLU Variants, 2020).
///
/// # Shapes
/// gate, up `[N, ff]` -> `[N, ff]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    admit("swiglu", [gate.dtype(), up.dtype()], DType::F32);
    if !is_cpu(&gate) {
        return reference::swiglu(gate, up);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::swiglu(
        gate.into_dispatch(),
        up.into_dispatch(),
    ))
}

/// Rotary embedding and causal grouped-query attention within each document; it
/// never holds the scores of more than some queries, nor keeps any.
///
/// # Shapes
/// q `[N, H * D]`; k, v `[N, Hkv * D]`, not yet rotated -> `[N, H * D]`
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, plan: &AttentionPlan) -> Tensor<2> {
    admit("attention", [q.dtype(), k.dtype(), v.dtype()], DType::F32);
    if !is_fused(&q, plan.precision) {
        return linear_memory::attention(q, k, v, plan);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        plan.clone(),
    ))
}

/// Weighted cross entropy of `h w^T` against targets, in nats; it never holds
/// more than a chunk of the logits.
///
/// # Shapes
/// h `[M, d]`; w `[V, d]`; targets, weights `[M]` -> `[1]`
pub fn linear_cross_entropy(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &Arc<[f32]>,
    precision: Precision,
) -> Tensor<1> {
    admit("linear_cross_entropy", [h.dtype(), w.dtype()], precision.dtype());
    if !is_fused(&h, precision) {
        return linear_memory::linear_cross_entropy(h, w, targets, weights, precision);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::linear_cross_entropy(
        h.into_dispatch(),
        w.into_dispatch(),
        targets.clone(),
        weights.clone(),
    ))
}

/// Rotary embedding of rows at the given positions. Has no gradient.
///
/// # Shapes
/// x `[N, heads * D]`; positions `[N]` -> `[N, heads * D]`
pub fn rope(x: Tensor<2>, heads: usize, table: &RopeTable, positions: &Arc<[u32]>) -> Tensor<2> {
    admit("rope", [x.dtype()], DType::F32);
    if !is_cpu(&x) {
        return reference::rope(x, heads, table, positions);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::rope(
        x.into_dispatch(),
        heads,
        table.clone(),
        positions.clone(),
    ))
}

/// Writes rows into a cache, in place where nobody else holds it. Has no gradient.
///
/// # Shapes
/// cache `[slots * capacity, d]`, f32 or bf16; x `[N, d]`; at `[N]` rows of the cache -> the cache
pub fn cache_write(cache: Tensor<2>, x: Tensor<2>, at: &Arc<[u32]>) -> Tensor<2> {
    admit("cache_write", [cache.dtype(), x.dtype()], DType::BF16);
    if !is_cpu(&x) || cache.dtype() != DType::F32 {
        return reference::cache_write(cache, x, at);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::cache_write(
        cache.into_dispatch(),
        x.into_dispatch(),
        at.clone(),
    ))
}

/// Which part of a cache belongs to each row of a decoding step.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Tokens one slot can hold.
    pub capacity: usize,
    /// Slot of each row `[B]`.
    pub of_row: Arc<[u32]>,
    /// Tokens in that slot, the new one included `[B]`.
    pub lengths: Arc<[u32]>,
}

/// Attention of one new, rotated token per row over its slot. Has no gradient.
///
/// # Shapes
/// q `[B, H * D]`; keys, values `[slots * capacity, Hkv * D]` -> `[B, H * D]`
pub fn attention_cached(
    q: Tensor<2>,
    keys: &Tensor<2>,
    values: &Tensor<2>,
    heads: Heads,
    slots: &Slots,
    precision: Precision,
) -> Tensor<2> {
    let operands = [q.dtype(), keys.dtype(), values.dtype()];
    admit("attention_cached", operands, precision.dtype());
    if !is_fused(&q, precision) {
        let (keys, values) = (keys.clone(), values.clone());
        return reference::attention_cached(q, keys, values, heads, slots, precision);
    }
    Tensor::from_dispatch(<burn::backend::Dispatch as FusedOps>::attention_cached(
        q.into_dispatch(),
        keys.clone().into_dispatch(),
        values.clone().into_dispatch(),
        heads,
        slots.clone(),
    ))
}

/// One AdamW step, in place where nobody else holds the tensors. Has no gradient.
/// Weights and moments are f32, whatever the weights are rounded to in products:
/// a step below bf16's resolution of a weight would else be none.
pub fn adamw(p: Moments, gradient: Tensor<2>, step: &AdamStep) -> Moments {
    let all = [p.w.dtype(), p.m.dtype(), p.v.dtype(), gradient.dtype()];
    admit("adamw", all, DType::F32);
    if !is_cpu(&gradient) {
        return reference::adamw(p, gradient, step);
    }
    let (w, m, v) = <burn::backend::Dispatch as FusedOps>::adamw(
        p.w.into_dispatch(),
        p.m.into_dispatch(),
        p.v.into_dispatch(),
        gradient.into_dispatch(),
        *step,
    );
    Moments {
        w: Tensor::from_dispatch(w),
        m: Tensor::from_dispatch(m),
        v: Tensor::from_dispatch(v),
    }
}

/// Sum of squares, for the global gradient norm.
pub fn sum_of_squares(x: &Tensor<2>) -> f64 {
    admit("sum_of_squares", [x.dtype()], DType::F32);
    if is_cpu(x) {
        let sum = <burn::backend::Dispatch as FusedOps>::sum_of_squares(x.clone().into_dispatch());
        return f64::from(Tensor::<1>::from_dispatch(sum).into_scalar::<f32>());
    }
    f64::from(x.clone().square().sum().into_scalar::<f32>())
}

#[cfg(test)]
mod tests;
