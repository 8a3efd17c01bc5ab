//! The same operations as compositions of plain tensor operations.
//!
//! They run on every device, with gradients from burn's autodiff, and say what
//! the fused ones must compute. Written for clarity, not for speed: attention
//! goes document by document and holds one document's scores.

use super::product::{Precision, product};
use super::{AdamStep, AttentionPlan, Heads, Moments, RopeTable, Slots};
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{DType, Int, Tensor, TensorData};
use std::sync::Arc;

pub(super) fn indices(ids: &[u32], like: &Tensor<2>) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(ids.clone(), [ids.len()]), &like.device().inner())
}

pub(in crate::engine) fn rows(table: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    let ids = indices(ids, &table);
    table.select(0, ids).cast(DType::F32)
}

pub(in crate::engine) fn linear(x: Tensor<2>, w: Tensor<2>, precision: Precision) -> Tensor<2> {
    // Rounded as it lies; a transposed copy would be read across.
    product(x, w.cast(precision.dtype()).transpose(), precision)
}

pub(in crate::engine) fn rms_norm(x: Tensor<2>, w: Tensor<2>, eps: f64) -> Tensor<2> {
    let mean = x.clone().square().mean_dim(1); // [N, 1]
    x / (mean + eps).sqrt() * w
}

pub(in crate::engine) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    gate.clone() * sigmoid(gate) * up
}

pub(in crate::engine) fn rope(
    x: Tensor<2>,
    heads: usize,
    table: &RopeTable,
    positions: &Arc<[u32]>,
) -> Tensor<2> {
    rotate(x, heads, table, positions, 1.0)
}

/// The rotary embedding; with `turn = -1` its gradient, which turns back.
pub(super) fn rotate(
    x: Tensor<2>,
    heads: usize,
    table: &RopeTable,
    positions: &Arc<[u32]>,
    turn: f32,
) -> Tensor<2> {
    let ([n, width], half) = (x.dims(), table.half());
    let gather = |of: fn(&RopeTable, u32) -> &[f32], sign: f32| {
        let values: Vec<f32> =
            positions.iter().flat_map(|&p| of(table, p).iter().map(|x| x * sign)).collect();
        Tensor::<3>::from_data(TensorData::new(values, [n, 1, half]), &x.device().inner())
    };
    let (cos, sin) = (gather(|t, p| t.at(p).0, 1.0), gather(|t, p| t.at(p).1, turn)); // [N, 1, D/2]
    let x = x.reshape([n, heads, 2 * half]);
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let rotated =
        Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin], 2);
    rotated.reshape([n, width])
}

pub(in crate::engine) fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    plan: &AttentionPlan,
) -> Tensor<2> {
    let Heads { query, kv, dim } = plan.heads;
    let q = rope(q, query, &plan.rope, &plan.positions);
    let k = rope(k, kv, &plan.rope, &plan.positions);
    let parts = plan.documents.ranges().map(|(start, end)| {
        let t = end - start;
        let heads = |x: &Tensor<2>, n: usize| {
            x.clone().narrow(0, start, t).reshape([t, n, dim]).swap_dims(0, 1) // [n, T, D]
        };
        let repeat = |x: Tensor<3>| {
            x.reshape([kv, 1, t, dim]).repeat_dim(1, query / kv).reshape([query, t, dim])
        };
        let (k, v) = (repeat(heads(&k, kv)), repeat(heads(&v, kv)));
        let scores = product(heads(&q, query), k.swap_dims(1, 2), plan.precision);
        let scores = scores / (dim as f64).sqrt(); // [H, T, T]
        let future: Vec<f32> =
            (0..t * t).map(|i| if i % t > i / t { -1e30 } else { 0.0 }).collect();
        let mask = Tensor::<3>::from_data(TensorData::new(future, [1, t, t]), &q.device().inner());
        let o = product(softmax(scores + mask, 2), v, plan.precision); // [H, T, D]
        o.swap_dims(0, 1).reshape([t, query * dim])
    });
    Tensor::cat(parts.collect(), 0)
}

pub(in crate::engine) fn linear_cross_entropy(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &Arc<[f32]>,
    precision: Precision,
) -> Tensor<1> {
    let m = targets.len();
    let targets = indices(targets, &h).reshape([m, 1]);
    let weights =
        Tensor::<1>::from_data(TensorData::new(weights.to_vec(), [m]), &h.device().inner());
    let picked = log_softmax(linear(h, w, precision), 1).gather(1, targets); // [M, 1]
    (picked.reshape([m]).neg() * weights).sum()
}

pub(in crate::engine) fn cache_write(cache: Tensor<2>, x: Tensor<2>, at: &Arc<[u32]>) -> Tensor<2> {
    let ([_, d], x) = (x.dims(), x.cast(cache.dtype()));
    let mut cache = cache;
    for (i, &row) in at.iter().enumerate() {
        let row = row as usize;
        cache = cache.slice_assign([row..row + 1, 0..d], x.clone().narrow(0, i, 1));
    }
    cache
}

pub(in crate::engine) fn attention_cached(
    q: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    heads: Heads,
    slots: &Slots,
    precision: Precision,
) -> Tensor<2> {
    let Heads { query, kv, dim } = heads;
    let (b, capacity) = (slots.lengths.len(), slots.capacity);
    let tokens: Vec<u32> = slots
        .of_row
        .iter()
        .flat_map(|&slot| (0..capacity as u32).map(move |j| slot * capacity as u32 + j))
        .collect();
    let tokens = indices(&tokens, &q);
    let expand = |x: Tensor<2>| {
        let x = x
            .select(0, tokens.clone())
            .reshape([b, capacity, kv, dim])
            .swap_dims(1, 2)
            .reshape([b * kv, 1, capacity, dim]);
        x.repeat_dim(1, query / kv).reshape([b, query, capacity, dim])
    };
    let q = q.reshape([b, query, 1, dim]);
    let scores = product(q, expand(keys).swap_dims(2, 3), precision);
    let scores = scores / (dim as f64).sqrt(); // [B, H, 1, S]
    let beyond: Vec<f32> = slots
        .lengths
        .iter()
        .flat_map(|&n| (0..capacity).map(move |j| if j < n as usize { 0.0 } else { -1e30 }))
        .collect();
    let mask =
        Tensor::<4>::from_data(TensorData::new(beyond, [b, 1, 1, capacity]), &scores.device());
    product(softmax(scores + mask, 3), expand(values), precision).reshape([b, query * dim])
}

pub(in crate::engine) fn adamw(p: Moments, gradient: Tensor<2>, step: &AdamStep) -> Moments {
    let AdamStep { rate, beta1, beta2, fresh1, fresh2, eps, decay, .. } = *step;
    let AdamStep { correction1, correction2, scale, .. } = *step;
    let g = gradient * scale;
    let m = p.m * beta1 + g.clone() * fresh1;
    let v = p.v * beta2 + g.square() * fresh2;
    let update = (m.clone() / correction1) / ((v.clone() / correction2).sqrt() + eps);
    let w = p.w * (1.0 - rate * decay) - update * rate;
    Moments { w, m, v }
}
