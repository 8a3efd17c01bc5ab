//! Attention and the cross entropy in plain tensor operations whose memory
//! grows with the tokens and not with their square, nor with the tokens times
//! the vocabulary: each goes block by block and keeps none of its scores; the
//! gradients are written by hand and compute them once more.
//!
//! These run wherever the fused loops of the CPU do not. They compute what
//! `reference` does, which holds everything and leaves gradients to the tape.
//!
//! # Source
//! Rabe and Staats, Self-attention Does Not Need O(n²) Memory, 2021; Dao et
//! al., FlashAttention, 2022, section 3 and appendix B (the gradient).

use super::product::{Precision, product};
use super::reference::{indices, rotate};
use super::taped::{Operation, Three, apply};
use super::{AttentionPlan, Documents, Heads};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};
use std::sync::Arc;

/// Queries in one block. Short documents share a block, a longer one has several.
pub(in crate::engine) const QUERIES: usize = 256;

/// Logits in one chunk of the cross entropy: 64 MiB.
pub(in crate::engine) const LOGITS: usize = 1 << 24;

/// Rows `first..end` as queries and `start..end` as keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    start: usize,
    first: usize,
    end: usize,
}

/// Documents one after another as blocks. Blocks of one long document have the
/// same `start`, and no other blocks do.
fn blocks(documents: &Documents, queries: usize) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    for (start, end) in documents.ranges().filter(|(start, end)| start < end) {
        match all.last_mut() {
            Some(last) if last.first == last.start && end - last.start <= queries => last.end = end,
            _ => {
                let firsts = (start..end).step_by(queries);
                all.extend(firsts.map(|first| Block {
                    start,
                    first,
                    end: (first + queries).min(end),
                }));
            }
        }
    }
    all
}

/// Rotary embedding and causal grouped-query attention within each document.
///
/// # Shapes
/// q `[N, H * D]`; k, v `[N, Hkv * D]`, not yet rotated -> `[N, H * D]`
pub(super) fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    plan: &AttentionPlan,
) -> Tensor<2> {
    apply(Arc::new(Attention { plan: plan.clone(), queries: QUERIES }), [q, k, v])
}

#[derive(Debug)]
struct Attention {
    plan: AttentionPlan,
    queries: usize,
}

/// One block's rows, heads first; `G = H / Hkv` query heads share keys and values.
struct Heaped {
    q: Tensor<3>, // [Hkv, G * B, D]
    k: Tensor<3>, // [Hkv, K, D]
    v: Tensor<3>, // [Hkv, K, D]
    p: Tensor<3>, // [Hkv, G * B, K], the softmax of the scores
}

impl Attention {
    /// `[N, H * D]`, rows of a block -> `[Hkv, G * B, D]`
    fn heap(&self, x: &Tensor<2>, block: Block) -> Tensor<3> {
        let Heads { query, kv, dim } = self.plan.heads;
        let (b, g) = (block.end - block.first, query / kv);
        let x = x.clone().narrow(0, block.first, b).reshape([b, kv, g, dim]);
        x.permute([1, 2, 0, 3]).reshape([kv, g * b, dim])
    }

    /// `[Hkv, G * B, D]` -> `[B, H * D]`
    fn spread(&self, x: Tensor<3>) -> Tensor<2> {
        let Heads { query, kv, dim } = self.plan.heads;
        let g = query / kv;
        let b = x.dims()[1] / g;
        x.reshape([kv, g, b, dim]).permute([2, 0, 1, 3]).reshape([b, query * dim])
    }

    /// `[N, Hkv * D]`, keys or values of a block -> `[Hkv, K, D]`
    fn shared(&self, x: &Tensor<2>, block: Block) -> Tensor<3> {
        let Heads { kv, dim, .. } = self.plan.heads;
        let n = block.end - block.start;
        x.clone().narrow(0, block.start, n).reshape([n, kv, dim]).swap_dims(0, 1)
    }

    /// What no query of the block may see, as a term of the scores `[1, 1, B, K]`.
    fn unseen(&self, block: Block, like: &Tensor<2>) -> Tensor<4> {
        let (b, n) = (block.end - block.first, block.end - block.start);
        // Position in its document and number of the key it stands at, for each query.
        let (mut from, mut until) = (Vec::with_capacity(b), Vec::with_capacity(b));
        for row in block.first..block.end {
            let at = row - block.start;
            from.push(at as i32 - self.plan.positions[row].min(at as u32) as i32);
            until.push(at as i32);
        }
        let device = like.device();
        let column = |values: Vec<i32>| {
            Tensor::<2, Int>::from_data(TensorData::new(values, [b, 1]), &device)
        };
        let keys = Tensor::<1, Int>::arange(0..n as i64, &device).reshape([1, n]).repeat_dim(0, b);
        let before = keys.clone().lower(column(from).repeat_dim(1, n)); // another document's
        let after = keys.greater(column(until).repeat_dim(1, n)); // the future
        ((before.float() + after.float()) * -1e30).reshape([1, 1, b, n])
    }

    fn scored(&self, [q, k, v]: [&Tensor<2>; 3], block: Block) -> Heaped {
        let Heads { query, kv, .. } = self.plan.heads;
        let (b, n, g) = (block.end - block.first, block.end - block.start, query / kv);
        let unseen = self.unseen(block, q);
        let (q, k, v) = (self.heap(q, block), self.shared(k, block), self.shared(v, block));
        let scores = product(q.clone(), k.clone().swap_dims(1, 2), self.plan.precision);
        let scores = (scores * self.scale()).reshape([kv, g, b, n]) + unseen;
        let p = softmax(scores.reshape([kv, g * b, n]), 2);
        Heaped { q, k, v, p }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.plan.heads.dim as f64).sqrt()
    }

    fn rotated(&self, x: Tensor<2>, heads: usize, turn: f32) -> Tensor<2> {
        rotate(x, heads, &self.plan.rope, &self.plan.positions, turn)
    }

    /// Gradients of the three for one block: `[Hkv, G * B, D]`, twice `[Hkv, K, D]`.
    fn block_backward(&self, heaped: Heaped, d_o: Tensor<3>) -> [Tensor<3>; 3] {
        let (Heaped { q, k, v, p }, precision) = (heaped, self.plan.precision);
        let dv = product(p.clone().swap_dims(1, 2), d_o.clone(), precision);
        let dp = product(d_o, v.swap_dims(1, 2), precision); // [Hkv, G * B, K]
        let mean = (dp.clone() * p.clone()).sum_dim(2); // [Hkv, G * B, 1]
        let ds = p * (dp - mean) * self.scale();
        let dq = product(ds.clone(), k, precision);
        let dk = product(ds.swap_dims(1, 2), q, precision);
        [dq, dk, dv]
    }
}

impl Operation for Attention {
    fn forward(
        &self,
        [q, k, v]: Three<Tensor<2>>,
        wanted: Three<bool>,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let Heads { query, kv, .. } = self.plan.heads;
        let (q, k) = (self.rotated(q, query, 1.0), self.rotated(k, kv, 1.0));
        let parts = blocks(&self.plan.documents, self.queries).into_iter().map(|block| {
            let Heaped { v, p, .. } = self.scored([&q, &k, &v], block);
            self.spread(product(p, v, self.plan.precision))
        });
        let o = Tensor::cat(parts.collect(), 0);
        (o, if wanted == [false; 3] { Vec::new() } else { vec![q, k, v] })
    }

    fn backward(
        &self,
        kept: Vec<Tensor<2>>,
        above: Tensor<2>,
        wanted: Three<bool>,
    ) -> Three<Option<Tensor<2>>> {
        let Heads { query, kv, dim } = self.plan.heads;
        let [q, k, v]: Three<Tensor<2>> = kept.try_into().expect("BUG: attention keeps three");
        let mut parts: [Vec<Tensor<2>>; 3] = Default::default();
        let all = blocks(&self.plan.documents, self.queries);
        // From the last block of a document, which sees all its keys, to the first.
        for run in all.chunk_by(|a, b| a.start == b.start).rev() {
            let mut sums: Option<[Tensor<3>; 2]> = None;
            for &block in run.iter().rev() {
                let d_o = self.heap(&above, block);
                let heaped = self.scored([&q, &k, &v], block);
                let [dq, dk, dv] = self.block_backward(heaped, d_o);
                parts[0].push(self.spread(dq));
                sums = Some(match sums {
                    None => [dk, dv],
                    Some([sum_k, sum_v]) => [add_front(sum_k, dk), add_front(sum_v, dv)],
                });
            }
            for (part, sum) in parts[1..].iter_mut().zip(sums.expect("BUG: a run has a block")) {
                let n = sum.dims()[1];
                part.push(sum.swap_dims(0, 1).reshape([n, kv * dim]));
            }
        }
        let [dq, dk, dv] = parts.map(|part| Tensor::cat(part.into_iter().rev().collect(), 0));
        [
            wanted[0].then(|| self.rotated(dq, query, -1.0)),
            wanted[1].then(|| self.rotated(dk, kv, -1.0)),
            wanted[2].then_some(dv),
        ]
    }
}

/// `sum` with `x` added to its first rows: `[Hkv, K, D]` and `[Hkv, fewer, D]`.
fn add_front(sum: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
    let [heads, n, dim] = x.dims();
    let front = sum.clone().narrow(1, 0, n) + x;
    sum.slice_assign([0..heads, 0..n, 0..dim], front)
}

/// Weighted cross entropy of `h w^T` against targets, in nats.
///
/// # Shapes
/// h `[M, d]`; w `[V, d]`; targets, weights `[M]` -> `[1]`
pub(super) fn linear_cross_entropy(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &Arc<[f32]>,
    precision: Precision,
) -> Tensor<1> {
    let ([m, _], [vocabulary, _]) = (h.dims(), w.dims());
    let device = h.device().inner();
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [m, 1]), &device);
    let chunk = (LOGITS / vocabulary).clamp(1, m.max(1));
    let operation = CrossEntropy { targets: targets.clone(), chunk, precision };
    apply(Arc::new(operation), [h, w, weights]).reshape([1])
}

#[derive(Debug)]
struct CrossEntropy {
    targets: Arc<[u32]>,
    chunk: usize,
    precision: Precision,
}

/// Some rows of the cross entropy.
struct Chunk {
    h: Tensor<2>,            // [C, d]
    targets: Tensor<2, Int>, // [C, 1]
    weights: Tensor<2>,      // [C, 1]
    log_p: Tensor<2>,        // [C, V]
}

impl CrossEntropy {
    fn chunks<'a>(
        &'a self,
        h: &'a Tensor<2>,
        w: &'a Tensor<2>,
        weights: &'a Tensor<2>,
    ) -> impl Iterator<Item = Chunk> + 'a {
        let m = self.targets.len();
        (0..m).step_by(self.chunk).map(move |start| {
            let n = self.chunk.min(m - start);
            let rows = |x: &Tensor<2>| x.clone().narrow(0, start, n);
            let h = rows(h);
            let logits = product(h.clone(), w.clone().transpose(), self.precision); // [C, V]
            let targets = indices(&self.targets[start..start + n], &h).reshape([n, 1]);
            Chunk { h, targets, weights: rows(weights), log_p: log_softmax(logits, 1) }
        })
    }
}

impl Operation for CrossEntropy {
    fn forward(
        &self,
        [h, w, weights]: Three<Tensor<2>>,
        wanted: Three<bool>,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let w = w.cast(self.precision.dtype());
        let mut loss = Tensor::<2>::zeros([1, 1], &h.device());
        for chunk in self.chunks(&h, &w, &weights) {
            let picked = chunk.log_p.gather(1, chunk.targets).neg() * chunk.weights; // [C, 1]
            loss = loss + picked.sum_dim(0);
        }
        (loss, if wanted == [false; 3] { Vec::new() } else { vec![h, w, weights] })
    }

    fn backward(
        &self,
        kept: Vec<Tensor<2>>,
        above: Tensor<2>,
        wanted: Three<bool>,
    ) -> Three<Option<Tensor<2>>> {
        let [h, w, weights]: Three<Tensor<2>> =
            kept.try_into().expect("BUG: the cross entropy keeps three");
        let mut dh = Vec::new();
        let mut dw = wanted[1].then(|| Tensor::<2>::zeros(w.dims(), (&h.device(), DType::F32)));
        for Chunk { h, targets, weights, log_p } in self.chunks(&h, &w, &weights) {
            let weights = weights * above.clone(); // [C, 1]
            let dz = (log_p.exp() * weights.clone()).scatter(
                1,
                targets,
                weights.neg(),
                IndexingUpdateOp::Add,
            ); // [C, V]
            if wanted[0] {
                dh.push(product(dz.clone(), w.clone(), self.precision));
            }
            dw = dw.map(|dw| dw + product(dz.transpose(), h, self.precision));
        }
        [wanted[0].then(|| Tensor::cat(dh, 0)), dw, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed::Seed;
    use crate::engine::ops::{RopeTable, reference};
    use burn::tensor::Device;

    fn random(name: &str, dims: [usize; 2]) -> Tensor<2> {
        let mut rng = Seed(1).derive(name).rng();
        let values: Vec<f32> = (0..dims[0] * dims[1]).map(|_| rng.normal() as f32).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    /// Value and gradients of a random projection of it, by operand.
    fn run<const N: usize>(
        inputs: [(&str, [usize; 2]); N],
        f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    ) -> Vec<Vec<f32>> {
        let leaves = inputs.map(|(name, dims)| random(name, dims).autodiff().require_grad());
        let y = f(leaves.clone());
        let numbers = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32");
        let mut found = vec![numbers(y.clone().inner())];
        let projection = random("projection", y.dims()).autodiff();
        let mut tape = (y * projection).sum().backward();
        found.extend(leaves.map(|x| numbers(x.grad_remove(&mut tape).expect("a gradient"))));
        found
    }

    fn assert_close(here: &[Vec<f32>], there: &[Vec<f32>], most: f64, what: &str) {
        for (i, (a, b)) in here.iter().zip(there).enumerate() {
            assert_eq!(a.len(), b.len(), "{what}, {i}");
            let norm = |x: &mut dyn Iterator<Item = f32>| {
                x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let off = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
            let size = norm(&mut b.iter().copied());
            // A query that sees one key has no gradient at all.
            assert!(off <= most * size.max(1e-6), "{what}, {i}: off by {off:e} of {size:e}");
        }
    }

    #[test]
    fn blocks_cover_every_document_and_share_short_ones() {
        let of = |lengths: &[usize], queries| {
            let all = blocks(&Documents::of_lengths(lengths.iter().copied()), queries);
            all.iter().map(|b| (b.start, b.first, b.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[3, 4, 2], 8), [(0, 0, 7), (7, 7, 9)]);
        assert_eq!(
            of(&[3, 20, 2, 2], 8),
            [(0, 0, 3), (3, 3, 11), (3, 11, 19), (3, 19, 23), (23, 23, 27)]
        );
        assert_eq!(of(&[8, 0, 1], 8), [(0, 0, 8), (8, 8, 9)]);
        assert_eq!(of(&[], 8), []);
    }

    #[test]
    fn attention_by_blocks_is_attention_whatever_the_blocks() {
        for (query, kv, dim, lengths) in
            [(1, 1, 2, vec![1]), (4, 2, 6, vec![5, 1, 19, 2, 2]), (6, 3, 20, vec![33, 2])]
        {
            let n: usize = lengths.iter().sum();
            let documents = Documents::of_lengths(lengths);
            for precision in [Precision::F32, Precision::Bf16] {
                let plan = AttentionPlan {
                    heads: Heads { query, kv, dim },
                    positions: documents.positions(),
                    documents: documents.clone(),
                    rope: RopeTable::new(dim, 64, 1e4),
                    precision,
                };
                let inputs = [("q", [n, query * dim]), ("k", [n, kv * dim]), ("v", [n, kv * dim])];
                let f32 = AttentionPlan { precision: Precision::F32, ..plan.clone() };
                let wanted = run(inputs, |[q, k, v]| reference::attention(q, k, v, &f32));
                // bf16 keeps eight bits.
                let most = if precision == Precision::F32 { 2e-6 } else { 2e-2 };
                for queries in [1, 4, 7, 256] {
                    let found = run(inputs, |operands| {
                        apply(Arc::new(Attention { plan: plan.clone(), queries }), operands)
                    });
                    assert_close(
                        &found,
                        &wanted,
                        most,
                        &format!("{precision}, {dim} wide, by {queries}"),
                    );
                }
            }
        }
    }

    #[test]
    fn the_cross_entropy_by_chunks_is_the_cross_entropy() {
        for m in [1usize, 7, 60] {
            let targets: Arc<[u32]> = (0..m as u32).map(|i| i % 11).collect();
            let weights: Arc<[f32]> = (0..m).map(|i| 1.0 / (i + 1) as f32).collect();
            let inputs = [("h", [m, 9]), ("w", [11, 9])];
            for (precision, most) in [(Precision::F32, 2e-6), (Precision::Bf16, 2e-2)] {
                let wanted = run(inputs, |[h, w]| {
                    reference::linear_cross_entropy(h, w, &targets, &weights, Precision::F32)
                        .reshape([1, 1])
                });
                for chunk in [1, 8, 64] {
                    let found = run(inputs, |[h, w]| {
                        let column = TensorData::new(weights.to_vec(), [m, 1]);
                        let column = Tensor::from_data(column, &Device::flex());
                        let operation = CrossEntropy { targets: targets.clone(), chunk, precision };
                        apply(Arc::new(operation), [h, w, column])
                    });
                    assert_close(&found, &wanted, most, &format!("{m} rows by {chunk}"));
                }
            }
        }
    }

    #[test]
    fn only_wanted_gradients_are_made_and_nothing_is_kept_without_a_tape() {
        let (h, w) = (random("h", [5, 3]), random("w", [7, 3]));
        let targets: Arc<[u32]> = vec![1, 2, 3, 4, 6].into();
        let weights: Arc<[f32]> = vec![0.2; 5].into();
        let loss = |h: Tensor<2>, w: Tensor<2>| {
            linear_cross_entropy(h, w, &targets, &weights, Precision::F32)
        };
        let leaf = h.clone().autodiff().require_grad();
        let mut tape = loss(leaf.clone(), w.clone().autodiff()).backward();
        assert!(leaf.grad_remove(&mut tape).is_some());
        let operation =
            CrossEntropy { targets: targets.clone(), chunk: 2, precision: Precision::F32 };
        let column = Tensor::from_data(TensorData::new(weights.to_vec(), [5, 1]), &Device::flex());
        let (alone, kept) = operation.forward([h.clone(), w.clone(), column], [false; 3]);
        assert!(kept.is_empty());
        let value = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32")[0];
        assert_eq!(value(alone), value(loss(h, w).reshape([1, 1])));
    }
}
