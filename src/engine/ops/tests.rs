//! What the fused operations promise beyond computing what the plain ones do,
//! which `selftest::ops` holds for every device.

use super::*;
use crate::base::seed::Seed;
use burn::tensor::{Device, TensorData};

fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
    let mut rng = Seed(1).derive(name).rng();
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

#[test]
fn the_chunk_of_the_cross_entropy_changes_nothing_but_rounding() {
    use burn_flex::FlexTensor;
    let flex = |x: Tensor<2>| FlexTensor::from_data(x.into_data());
    let (h, w) = (flex(random("h", [600, 24])), flex(random("w", [37, 24])));
    let targets: Vec<u32> = (0..600).map(|i| i * 7 % 37).collect();
    let weights: Vec<f32> = (0..600).map(|i| (1 + i % 3) as f32 / 1200.0).collect();
    let run = |chunk| fused::cross_entropy(&h, &w, &targets, &weights, chunk, [true; 2]);
    let floats = |x: FlexTensor| x.to_contiguous().as_slice::<f32>().expect("f32").to_vec();
    let (loss, whole) = run(600);
    let whole = whole.map(|x| floats(x.expect("wanted")));
    for chunk in [64, 256, 512] {
        let (other, parts) = run(chunk);
        assert!((other - loss).abs() <= 1e-6 * loss, "chunk {chunk}: {other} against {loss}");
        for (part, whole) in parts.into_iter().zip(&whole) {
            let part = floats(part.expect("wanted"));
            let norm = |x: &mut dyn Iterator<Item = f32>| {
                x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let off = norm(&mut part.iter().zip(whole).map(|(a, b)| a - b));
            assert!(off <= 1e-6 * norm(&mut whole.iter().copied()), "chunk {chunk}: {off}");
        }
    }
    let (alone, none) = fused::cross_entropy(&h, &w, &targets, &weights, 512, [false; 2]);
    assert_eq!(alone, run(512).0);
    assert!(none.iter().all(Option::is_none));
}

#[test]
fn a_row_of_linear_does_not_depend_on_its_neighbours() {
    for (d, out) in [
        (128, 336),
        (336, 128),
        (100, 33),
        (64, 150),
        (24, 24),
        (24, 12),
        (40, 24),
        (24, 40),
        (24, 23),
        (7, 5),
        (2, 9),
        (1, 3),
    ] {
        let (x, w) = (random("x", [130, d]), random("w", [out, d]));
        let bits = |y: Tensor<2>| y.into_data().try_to_vec::<f32>().expect("f32");
        let whole = bits(linear(x.clone(), w.clone(), Precision::F32));
        for n in (1..40).chain([64, 100]) {
            let part = bits(linear(x.clone().narrow(0, 0, n), w.clone(), Precision::F32));
            assert!(part == whole[..n * out], "{n} rows of [{d}, {out}]");
        }
    }
}

fn floats(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

/// The largest difference by the largest number, or by 0.1 where all are next to 0.
fn off(got: Tensor<2>, want: Tensor<2>) -> f32 {
    let (got, want) = (floats(got), floats(want));
    let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0.0f32, |a, x| a.max(x.abs()));
    assert!(got.iter().all(|x| x.is_finite()));
    let difference = largest(&mut got.iter().zip(&want).map(|(a, b)| a - b));
    difference / largest(&mut want.into_iter()).max(0.1)
}

fn plan(heads: Heads, lengths: &[usize]) -> AttentionPlan {
    let documents = Documents::of_lengths(lengths.iter().copied());
    AttentionPlan {
        heads,
        positions: documents.positions(),
        documents,
        rope: RopeTable::new(heads.dim, 200, 1e4),
        precision: Precision::F32,
    }
}

/// Lengths around the sizes of panels and blocks of queries, and widths that are
/// no multiples of a panel's.
#[test]
fn attention_and_its_gradients_are_right_at_odd_sizes() {
    let shapes = [
        (1, 1, 2, vec![1]),
        (2, 1, 6, vec![3, 1, 17]),
        (4, 2, 16, vec![4, 16, 31, 32, 33]),
        (3, 3, 20, vec![5, 64, 1, 2]),
        (6, 2, 32, vec![100, 7]),
        (2, 2, 100, vec![15, 66]),
        (8, 4, 24, vec![129]),
    ];
    for (query, kv, dim, lengths) in shapes {
        let heads = Heads { query, kv, dim };
        let (n, plan) = (lengths.iter().sum(), plan(heads, &lengths));
        let inputs =
            [("q", query), ("k", kv), ("v", kv)].map(|(name, h)| random(name, [n, h * dim]));
        let above: Tensor<2> = random("above", [n, query * dim]);
        let run = |fused: bool| {
            let [q, k, v] = inputs.clone().map(|x: Tensor<2>| x.autodiff().require_grad());
            let (a, b, c) = (q.clone(), k.clone(), v.clone());
            let o = match fused {
                true => attention(a, b, c, &plan),
                false => reference::attention(a, b, c, &plan),
            };
            let mut tape = (o.clone() * above.clone().autodiff()).sum().backward();
            let gradients = [q, k, v].map(|x| x.grad_remove(&mut tape).expect("a gradient"));
            (o.inner(), gradients)
        };
        let ((o, d), (want, wanted)) = (run(true), run(false));
        assert!(off(o, want) < 2e-6, "{heads:?} {lengths:?}");
        for ((got, want), name) in d.into_iter().zip(wanted).zip(["q", "k", "v"]) {
            let off = off(got, want);
            assert!(off < 5e-6, "d{name} of {heads:?} {lengths:?}: {off:e}");
        }
    }
}

#[test]
fn attention_has_the_same_bits_among_other_documents_and_on_any_threads() {
    let heads = Heads { query: 4, kv: 2, dim: 20 };
    let lengths = [9, 40, 1, 33];
    let n: usize = lengths.iter().sum();
    let inputs = [("q", 4), ("k", 2), ("v", 2)].map(|(name, h)| random(name, [n, h * 20]));
    let run = |first: usize, lengths: &[usize]| {
        let rows = lengths.iter().sum();
        let [q, k, v] = inputs.clone().map(|x: Tensor<2>| x.narrow(0, first, rows));
        floats(attention(q, k, v, &plan(heads, lengths)))
    };
    let together = run(0, &lengths);
    assert!(together == crate::engine::on_threads(1, || run(0, &lengths)));
    let mut first = 0;
    for length in lengths {
        let alone = run(first, &[length]);
        assert!(alone == together[first * 80..(first + length) * 80], "{length} tokens");
        first += length;
    }
}

#[test]
fn a_step_of_decoding_is_linear_and_does_not_depend_on_its_neighbours() {
    for (d, out) in [(128, 336), (336, 33), (100, 1), (24, 24), (7, 5), (1, 3), (16, 70)] {
        let (x, w) = (random("x", [70, d]), random("w", [out, d]));
        let step = |x: Tensor<2>| linear_step(x, w.clone(), Precision::F32);
        let whole = step(x.clone());
        assert!(off(whole.clone(), linear(x.clone(), w.clone(), Precision::F32)) < 2e-6);
        let whole = floats(whole);
        for n in 1..20 {
            let part = floats(step(x.clone().narrow(0, 3, n)));
            assert!(part == whole[3 * out..(3 + n) * out], "{n} rows of [{d}, {out}]");
        }
    }
}

#[test]
fn a_part_of_a_tensor_is_changed_and_not_the_whole() {
    let heads = Heads { query: 1, kv: 1, dim: 4 };
    let whole: Tensor<2> = random("x", [6, 4]);
    let part = whole.clone().narrow(0, 2, 3);
    let (table, at): (_, Arc<[u32]>) = (plan(heads, &[3]).rope, Arc::new([4, 5, 6]));
    let copy = Tensor::from_data(TensorData::new(floats(part.clone()), [3, 4]), &Device::flex());
    assert!(floats(rope(part.clone(), 1, &table, &at)) == floats(rope(copy, 1, &table, &at)));
    let second: Arc<[u32]> = Arc::new([1]);
    let into = cache_write(part.clone(), random("row", [1, 4]), &second);
    assert!(floats(into)[4..8] == floats(random("row", [1, 4])));
    let learnt = Moments { w: part.clone(), m: part.clone(), v: part.clone().abs() };
    let step = AdamStep {
        rate: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        fresh1: 0.1,
        fresh2: 0.1,
        eps: 1e-8,
        decay: 0.0,
        correction1: 1.0,
        correction2: 1.0,
        scale: 1.0,
    };
    let want = floats(reference::adamw(learnt.clone(), part.clone(), &step).w);
    let got = floats(adamw(learnt, part, &step).w);
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}, not {want:?}");
    assert!(floats(whole) == floats(random("x", [6, 4])));
}
