//! The fused operations on the CPU: plain loops over contiguous f32 rows.
//!
//! Each function is the arithmetic of one operation, forward or backward, on
//! slices. Tensors, gradients' bookkeeping and devices are `fused`'s business.
//! Everything runs on the calling thread in a fixed order: the same input
//! gives the same bits.

use super::simd::{axpy, dot, exp_minus, sigmoid, softmax, vectorized};
use super::{Documents, Heads, RopeTable};

/// `y = x / rms(x) * w` for each row.
///
/// # Shapes
/// x, y `[N, d]`; w `[d]`
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let d = w.len();
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                let scale = inverse_rms(x, eps);
                for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                    *y = x * scale * w;
                }
            }
        },
    );
}

/// Gradients of [`rms_norm`]: `dx` is written, `dw` is added to.
pub(super) fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let d = w.len();
    vectorized(
        #[inline(always)]
        || {
            for ((x, dy), dx) in
                x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d))
            {
                let scale = inverse_rms(x, eps);
                for (((dx, &dy), &w), (dw, &x)) in
                    dx.iter_mut().zip(dy).zip(w).zip(dw.iter_mut().zip(x))
                {
                    *dx = dy * w;
                    *dw = (x * scale).mul_add(dy, *dw);
                }
                let pull = dot(dx, x) * scale * scale / d as f32;
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = (*dx - x * pull) * scale;
                }
            }
        },
    );
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// `y = silu(gate) * up`.
pub(super) fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(g) * u;
            }
        },
    );
}

/// Gradients of [`swiglu`], written to `dgate` and `dup`.
pub(super) fn swiglu_backward(
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        || {
            for (((dg, du), (&g, &u)), &dy) in
                dgate.iter_mut().zip(dup.iter_mut()).zip(gate.iter().zip(up)).zip(dy)
            {
                let s = sigmoid(g);
                *dg = dy * u * s * g.mul_add(1.0 - s, 1.0);
                *du = dy * g * s;
            }
        },
    );
}

/// Rotates every head of every row; `sign` -1 rotates back (the gradient).
///
/// # Shapes
/// x `[N, heads * D]` in place; positions `[N]`; halves as in Hugging Face's LLaMA
pub(super) fn rope(x: &mut [f32], heads: usize, table: &RopeTable, positions: &[u32], sign: f32) {
    let half = table.half();
    vectorized(
        #[inline(always)]
        || {
            for (row, &position) in x.chunks_exact_mut(heads * 2 * half).zip(positions) {
                let (cos, sin) = table.at(position);
                for head in row.chunks_exact_mut(2 * half) {
                    let (a, b) = head.split_at_mut(half);
                    for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        let s = s * sign;
                        let rotated = *a * c - *b * s;
                        *b = *b * c + *a * s;
                        *a = rotated;
                    }
                }
            }
        },
    );
}

/// Causal attention within each document of a packed row of tokens.
///
/// # Shapes
/// q, o `[N, H * D]`; k, v `[N, Hkv * D]`; lse `[H, N]` log-sum-exp of the scores
pub(super) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: Heads,
    documents: &Documents,
    o: &mut [f32],
    lse: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let n = q.len() / (query * dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = vec![0.0; documents.longest()];
    vectorized(
        #[inline(always)]
        || {
            for (start, end) in documents.ranges() {
                for head in 0..query {
                    let kv_head = head * kv / query;
                    for i in start..end {
                        let qi = row(q, i, query, head, dim);
                        let scores = &mut scores[..=i - start];
                        for (score, j) in scores.iter_mut().zip(start..) {
                            *score = dot(qi, row(k, j, kv, kv_head, dim)) * scale;
                        }
                        lse[head * n + i] = softmax(scores);
                        let oi = row_mut(o, i, query, head, dim);
                        oi.fill(0.0);
                        for (&p, j) in scores.iter().zip(start..) {
                            axpy(p, row(v, j, kv, kv_head, dim), oi);
                        }
                    }
                }
            }
        },
    );
}

/// What [`attention_backward`] needs of the forward pass.
pub(super) struct AttentionSaved<'a> {
    /// Rotated queries `[N, H * D]`.
    pub(super) q: &'a [f32],
    /// Rotated keys `[N, Hkv * D]`.
    pub(super) k: &'a [f32],
    /// Values `[N, Hkv * D]`.
    pub(super) v: &'a [f32],
    /// Output `[N, H * D]`.
    pub(super) o: &'a [f32],
    /// Log-sum-exp of the scores `[H, N]`.
    pub(super) lse: &'a [f32],
}

/// Gradients of [`attention`], added to `dq`, `dk`, `dv` (start them at 0).
///
/// Probabilities are computed again from `lse`, so memory stays linear in the
/// length (Dao et al., FlashAttention, 2022, appendix B.2).
pub(super) fn attention_backward(
    saved: &AttentionSaved<'_>,
    d_o: &[f32],
    heads: Heads,
    documents: &Documents,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let AttentionSaved { q, k, v, o, lse } = *saved;
    let n = q.len() / (query * dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut p = vec![0.0; documents.longest()];
    vectorized(
        #[inline(always)]
        || {
            for (start, end) in documents.ranges() {
                for head in 0..query {
                    let kv_head = head * kv / query;
                    for i in start..end {
                        let (qi, doi) =
                            (row(q, i, query, head, dim), row(d_o, i, query, head, dim));
                        let inner = dot(doi, row(o, i, query, head, dim));
                        let p = &mut p[..=i - start];
                        for (p, j) in p.iter_mut().zip(start..) {
                            *p = dot(qi, row(k, j, kv, kv_head, dim)) * scale;
                        }
                        exp_minus(p, lse[head * n + i]);
                        let dqi = row_mut(dq, i, query, head, dim);
                        for (&p, j) in p.iter().zip(start..) {
                            axpy(p, doi, row_mut(dv, j, kv, kv_head, dim));
                            let dp = dot(doi, row(v, j, kv, kv_head, dim));
                            let ds = p * (dp - inner) * scale;
                            axpy(ds, row(k, j, kv, kv_head, dim), dqi);
                            axpy(ds, qi, row_mut(dk, j, kv, kv_head, dim));
                        }
                    }
                }
            }
        },
    );
}

/// Attention of one new token per sequence over its cached keys and values.
///
/// # Shapes
/// q, o `[B, H * D]`; keys, values `[slots, capacity, Hkv * D]`
pub(super) fn attention_cached(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    heads: Heads,
    slots: &super::Slots,
    o: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let capacity = slots.capacity;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = vec![0.0; capacity];
    vectorized(
        #[inline(always)]
        || {
            for (b, (&slot, &length)) in slots.of_row.iter().zip(slots.lengths.iter()).enumerate() {
                let first = slot as usize * capacity;
                for head in 0..query {
                    let kv_head = head * kv / query;
                    let qi = row(q, b, query, head, dim);
                    let scores = &mut scores[..length as usize];
                    for (score, j) in scores.iter_mut().zip(first..) {
                        *score = dot(qi, row(keys, j, kv, kv_head, dim)) * scale;
                    }
                    softmax(scores);
                    let oi = row_mut(o, b, query, head, dim);
                    oi.fill(0.0);
                    for (&p, j) in scores.iter().zip(first..) {
                        axpy(p, row(values, j, kv, kv_head, dim), oi);
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn row(x: &[f32], token: usize, heads: usize, head: usize, dim: usize) -> &[f32] {
    let start = (token * heads + head) * dim;
    &x[start..start + dim]
}

#[inline(always)]
fn row_mut(x: &mut [f32], token: usize, heads: usize, head: usize, dim: usize) -> &mut [f32] {
    let start = (token * heads + head) * dim;
    &mut x[start..start + dim]
}

/// Turns logits into the gradient of the weighted cross entropy, in place.
/// Returns the weighted sum of negative log-likelihoods, in nats.
///
/// # Shapes
/// logits `[M, V]`; targets, weights `[M]`
pub(super) fn cross_entropy(logits: &mut [f32], targets: &[u32], weights: &[f32]) -> f32 {
    let vocabulary = logits.len() / targets.len().max(1);
    let mut loss = 0.0;
    vectorized(
        #[inline(always)]
        || {
            for ((row, &target), &weight) in
                logits.chunks_exact_mut(vocabulary.max(1)).zip(targets).zip(weights)
            {
                let score = row[target as usize];
                let log_sum = softmax(row);
                loss += weight * (log_sum - score);
                row[target as usize] -= 1.0;
                for z in row.iter_mut() {
                    *z *= weight;
                }
            }
        },
    );
    loss
}

/// One AdamW step on one parameter, all in place.
///
/// `w` loses `rate * decay * w` first; the bias corrections `c1`, `c2` are
/// `1 - beta^t`; `eps` is added after the corrected root, as in PyTorch.
///
/// # Source
/// Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2
pub(super) fn adamw(
    w: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    gradient: &[f32],
    step: &super::AdamStep,
) {
    let super::AdamStep { rate, beta1, beta2, eps, decay, correction1, correction2, scale } = *step;
    let (keep, size, root) = (1.0 - rate * decay, rate / correction1, 1.0 / correction2.sqrt());
    vectorized(
        #[inline(always)]
        || {
            for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(gradient) {
                let g = g * scale;
                *m = beta1.mul_add(*m, (1.0 - beta1) * g);
                *v = beta2.mul_add(*v, (1.0 - beta2) * g * g);
                *w = keep * *w - size * *m / v.sqrt().mul_add(root, eps);
            }
        },
    );
}

/// Sum of squares in f64, for the global norm.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut sum = 0.0;
    vectorized(
        #[inline(always)]
        || {
            for chunk in x.chunks(4096) {
                sum += f64::from(dot(chunk, chunk));
            }
        },
    );
    sum
}
