//! The fused operations on the CPU that work row by row: plain loops over
//! contiguous f32 numbers.
//!
//! Each function is the arithmetic of one operation, forward or backward, on
//! slices. Tensors, gradients' bookkeeping and devices are `fused`'s business.
//! Blocks of rows are computed side by side; whatever is added up is added in an
//! order that does not depend on the blocks: the same input gives the same bits
//! on however many threads.

use super::RopeTable;
use super::simd::{dot, dots, sigmoid, softmax, vectorized};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

/// Numbers of a block: fewer are sooner computed than handed to another thread.
const BLOCK: usize = 1 << 14;

/// Rows of `width` numbers in a block.
fn block_rows(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// `y = x / rms(x) * w` for each row.
///
/// # Shapes
/// x, y `[N, d]`; w `[d]`
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let d = w.len();
    let size = block_rows(d) * d;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
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
    });
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
    let rows = block_rows(d);
    let mut scales = vec![0.0; x.len() / d]; // [N]
    dx.par_chunks_mut(rows * d)
        .zip(x.par_chunks(rows * d))
        .zip(dy.par_chunks(rows * d))
        .zip(scales.par_chunks_mut(rows))
        .for_each(|(((dx, x), dy), scales)| {
            vectorized(
                #[inline(always)]
                || {
                    let rows =
                        x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
                    for (((x, dy), dx), kept) in rows.zip(scales) {
                        let scale = inverse_rms(x, eps);
                        *kept = scale;
                        for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(w) {
                            *dx = dy * w;
                        }
                        let pull = dot(dx, x) * scale * scale / d as f32;
                        for (dx, &x) in dx.iter_mut().zip(x) {
                            *dx = (*dx - x * pull) * scale;
                        }
                    }
                },
            );
        });
    // All rows for some columns: each sum has the order of the rows.
    let columns = if x.len() > BLOCK { d.div_ceil(rayon::current_num_threads()) } else { d };
    dw.par_chunks_mut(columns.next_multiple_of(16)).enumerate().for_each(|(block, dw)| {
        let first = block * columns.next_multiple_of(16);
        let last = first + dw.len();
        vectorized(
            #[inline(always)]
            || {
                for ((x, dy), &scale) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(&scales) {
                    let row = x[first..last].iter().zip(&dy[first..last]);
                    for (dw, (&x, &dy)) in dw.iter_mut().zip(row) {
                        *dw = (x * scale).mul_add(dy, *dw);
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// `y = silu(gate) * up`.
pub(super) fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let blocks = y.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK));
    blocks.for_each(|((y, gate), up)| {
        vectorized(
            #[inline(always)]
            || {
                for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                    *y = g * sigmoid(g) * u;
                }
            },
        );
    });
}

/// Gradients of [`swiglu`], written to `dgate` and `dup`.
pub(super) fn swiglu_backward(
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let to = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    let from = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK)).zip(dy.par_chunks(BLOCK));
    to.zip(from).for_each(|((dgate, dup), ((gate, up), dy))| {
        vectorized(
            #[inline(always)]
            || {
                let from = gate.iter().zip(up).zip(dy);
                for ((dg, du), ((&g, &u), &dy)) in dgate.iter_mut().zip(dup.iter_mut()).zip(from) {
                    let s = sigmoid(g);
                    *dg = dy * u * s * g.mul_add(1.0 - s, 1.0);
                    *du = dy * g * s;
                }
            },
        );
    });
}

/// Rotates every head of every row; `sign` -1 rotates back (the gradient).
///
/// # Shapes
/// x `[N, heads * D]` in place; positions `[N]`; halves as in Hugging Face's LLaMA
pub(super) fn rope(x: &mut [f32], heads: usize, table: &RopeTable, positions: &[u32], sign: f32) {
    let half = table.half();
    let width = heads * 2 * half;
    let rows = block_rows(width);
    x.par_chunks_mut(rows * width).zip(positions.par_chunks(rows)).for_each(|(x, positions)| {
        vectorized(
            #[inline(always)]
            || {
                for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
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
    });
}

/// `y = x w^T` for the few rows of a decoding step: each weight is read once, in
/// place. A number of `y` is the same whatever else is computed.
///
/// # Shapes
/// x `[B, k]`; w `[out, k]` -> y `[B, out]`
pub(super) fn product_by_rows(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let (n, out) = (x.len() / k, w.len() / k);
    // Rows of `w` that are enough work for a thread, in fours.
    let block = (4 * BLOCK).div_ceil(n * k).next_multiple_of(4).min(out.max(1));
    let blocks: Vec<Vec<f32>> = (0..out.div_ceil(block))
        .into_par_iter()
        .map(|i| rows_times(x, &w[i * block * k..((i + 1) * block).min(out) * k], k))
        .collect();
    let mut y = vec![0.0; n * out];
    for (i, part) in blocks.iter().enumerate() {
        let width = part.len() / n;
        for (y, part) in y.chunks_exact_mut(out).zip(part.chunks_exact(width)) {
            y[i * block..i * block + width].copy_from_slice(part);
        }
    }
    y
}

/// [`product_by_rows`] on one thread.
fn rows_times(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let (n, out) = (x.len() / k, w.len() / k);
    let mut y = vec![0.0; n * out];
    vectorized(
        #[inline(always)]
        || {
            let row = |i: usize| &x[i * k..(i + 1) * k];
            let weights = |j: usize| &w[j * k..(j + 1) * k];
            let fours = n / 4 * 4;
            for j in 0..out {
                for i in (0..fours).step_by(4) {
                    let four = [row(i), row(i + 1), row(i + 2), row(i + 3)];
                    for (at, sum) in dots(four, weights(j)).into_iter().enumerate() {
                        y[(i + at) * out + j] = sum;
                    }
                }
            }
            for i in fours..n {
                let mut j = 0;
                while j + 4 <= out {
                    let four = [weights(j), weights(j + 1), weights(j + 2), weights(j + 3)];
                    y[i * out + j..i * out + j + 4].copy_from_slice(&dots(four, row(i)));
                    j += 4;
                }
                for j in j..out {
                    y[i * out + j] = dot(weights(j), row(i));
                }
            }
        },
    );
    y
}

/// Turns logits into the gradient of the weighted cross entropy, in place.
/// Returns the weighted sum of negative log-likelihoods, in nats.
///
/// # Shapes
/// logits `[M, V]`; targets, weights `[M]`
pub(super) fn cross_entropy(logits: &mut [f32], targets: &[u32], weights: &[f32]) -> f32 {
    let vocabulary = (logits.len() / targets.len().max(1)).max(1);
    let rows = block_rows(vocabulary);
    let mut terms = vec![0.0; targets.len()]; // [M]
    logits
        .par_chunks_mut(rows * vocabulary)
        .zip(terms.par_chunks_mut(rows))
        .zip(targets.par_chunks(rows).zip(weights.par_chunks(rows)))
        .for_each(|((logits, terms), (targets, weights))| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = logits.chunks_exact_mut(vocabulary).zip(terms);
                    for ((row, term), (&target, &weight)) in rows.zip(targets.iter().zip(weights)) {
                        let score = row[target as usize];
                        let log_sum = softmax(row);
                        *term = weight * (log_sum - score);
                        row[target as usize] -= 1.0;
                        for z in row.iter_mut() {
                            *z *= weight;
                        }
                    }
                },
            );
        });
    terms.into_iter().sum()
}

/// One AdamW step on one parameter: its weights and moments `w`, `m`, `v`, in place.
///
/// `w` loses `rate * decay * w` first; the bias corrections `c1`, `c2` are
/// `1 - beta^t`; `eps` is added after the corrected root, as in PyTorch.
///
/// # Source
/// Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2
pub(super) fn adamw([w, m, v]: [&mut [f32]; 3], gradient: &[f32], step: &super::AdamStep) {
    let super::AdamStep { rate, beta1, beta2, fresh1, fresh2, eps, decay, .. } = *step;
    let super::AdamStep { correction1, correction2, scale, .. } = *step;
    let (keep, size, root) = (1.0 - rate * decay, rate / correction1, 1.0 / correction2.sqrt());
    let moments = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
    let blocks = w.par_chunks_mut(BLOCK).zip(moments).zip(gradient.par_chunks(BLOCK));
    blocks.for_each(|((w, (m, v)), gradient)| {
        vectorized(
            #[inline(always)]
            || {
                for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(gradient) {
                    let g = g * scale;
                    *m = beta1.mul_add(*m, fresh1 * g);
                    *v = beta2.mul_add(*v, fresh2 * g * g);
                    *w = keep * *w - size * *m / v.sqrt().mul_add(root, eps);
                }
            },
        );
    });
}

/// Sum of squares in f64, for the global norm.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    const PART: usize = 4096;
    let sums = |block: &[f32]| {
        let mut sums = Vec::with_capacity(block.len().div_ceil(PART));
        vectorized(
            #[inline(always)]
            || {
                for part in block.chunks(PART) {
                    sums.push(dot(part, part));
                }
            },
        );
        sums
    };
    let sums: Vec<Vec<f32>> = x.par_chunks(BLOCK.next_multiple_of(PART)).map(sums).collect();
    sums.into_iter().flatten().map(f64::from).sum()
}
