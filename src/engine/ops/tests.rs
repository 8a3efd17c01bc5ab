//! Fused against reference, values and gradients, over odd shapes.

use super::*;
use crate::base::seed::Seed;
use burn::tensor::{Device, TensorData};

const TOLERANCE: f32 = 2e-5;

fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
    let mut rng = Seed(1).derive(name).rng();
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>, what: &str) {
    let (a, b) = (a.into_data(), b.into_data());
    assert_eq!(a.shape(), b.shape(), "{what}");
    let (a, b) = (a.try_to_vec::<f32>().expect("f32"), b.try_to_vec::<f32>().expect("f32"));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!((x - y).abs() <= TOLERANCE * (1.0 + y.abs()), "{what}[{i}]: {x} against {y}");
    }
}

/// Compares two functions of matrices: values, and gradients of a random projection.
fn check<const N: usize>(
    what: &str,
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let run = |f: &dyn Fn([Tensor<2>; N]) -> Tensor<2>| {
        let leaves = inputs.clone().map(|x| x.autodiff().require_grad());
        let y = f(leaves.clone());
        let g = random("projection", y.dims());
        let value = y.clone().inner();
        let mut grads = (y * g.autodiff()).sum().backward();
        let d = leaves.map(|leaf| leaf.grad_remove(&mut grads).expect("a gradient"));
        (value, d)
    };
    let ((a, da), (b, db)) = (run(&fused), run(&plain));
    close(a.clone(), b, what);
    close(fused(inputs.clone()), a, &format!("{what} without a tape"));
    for (i, (a, b)) in da.into_iter().zip(db).enumerate() {
        close(a, b, &format!("gradient {i} of {what}"));
    }
}

#[test]
fn fused_rows_and_linear_match_the_reference() {
    let ids: Arc<[u32]> = vec![3, 0, 3, 6].into();
    check("rows", [random("t", [7, 5])], |[t]| rows(t, &ids), |[t]| reference::rows(t, &ids));
    for (n, i, o) in [(1, 1, 1), (3, 17, 5), (64, 33, 48)] {
        let inputs = [random("x", [n, i]), random("w", [o, i])];
        check("linear", inputs, |[x, w]| linear(x, w), |[x, w]| reference::linear(x, w));
    }
}

#[test]
fn fused_norm_and_activation_match_the_reference() {
    for (n, d) in [(1, 1), (3, 20), (5, 129)] {
        check(
            "rms_norm",
            [random("x", [n, d]), random("w", [1, d])],
            |[x, w]| rms_norm(x, w, 1e-5),
            |[x, w]| reference::rms_norm(x, w, 1e-5),
        );
        let inputs = [random("g", [n, d]), random("u", [n, d])];
        check("swiglu", inputs, |[g, u]| swiglu(g, u), |[g, u]| reference::swiglu(g, u));
    }
}

#[test]
fn fused_attention_matches_the_reference() {
    for (query, kv, dim, lengths) in
        [(1, 1, 2, vec![1]), (4, 2, 6, vec![5, 1, 19]), (6, 3, 20, vec![33, 2])]
    {
        let n: usize = lengths.iter().sum();
        let documents = Documents::of_lengths(lengths);
        let plan = AttentionPlan {
            heads: Heads { query, kv, dim },
            positions: documents.positions(),
            documents,
            rope: RopeTable::new(dim, 64, 1e4),
        };
        let inputs =
            [random("q", [n, query * dim]), random("k", [n, kv * dim]), random("v", [n, kv * dim])];
        check(
            "attention",
            inputs,
            |[q, k, v]| attention(q, k, v, &plan),
            |[q, k, v]| reference::attention(q, k, v, &plan),
        );
    }
}

#[test]
fn fused_cross_entropy_matches_the_reference() {
    for m in [1, 7, 600] {
        let targets: Arc<[u32]> = (0..m as u32).map(|i| i % 11).collect();
        let weights: Arc<[f32]> = (0..m).map(|i| 1.0 / (i + 1) as f32).collect();
        check(
            "linear_cross_entropy",
            [random("h", [m, 9]), random("w", [11, 9])],
            |[h, w]| linear_cross_entropy(h, w, &targets, &weights).reshape([1, 1]),
            |[h, w]| reference::linear_cross_entropy(h, w, &targets, &weights).reshape([1, 1]),
        );
    }
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
fn cached_attention_equals_packed_attention_at_the_last_token() {
    let heads = Heads { query: 4, kv: 2, dim: 8 };
    let lengths = [5usize, 9, 1];
    let n: usize = lengths.iter().sum();
    let documents = Documents::of_lengths(lengths);
    let rope_table = RopeTable::new(8, 16, 1e4);
    let plan = AttentionPlan {
        heads,
        positions: documents.positions(),
        documents: documents.clone(),
        rope: rope_table.clone(),
    };
    let (q, k, v) = (random("q", [n, 32]), random("k", [n, 16]), random("v", [n, 16]));
    let last: Arc<[u32]> = documents.ranges().map(|(_, end)| end as u32 - 1).collect();
    let want = rows(attention(q.clone(), k.clone(), v.clone(), &plan), &last);

    let capacity = 12u32;
    let at: Arc<[u32]> = documents
        .ranges()
        .enumerate()
        .flat_map(|(slot, (start, end))| {
            (0..(end - start) as u32).map(move |p| slot as u32 * capacity + p)
        })
        .collect();
    let empty = || Tensor::<2>::zeros([3 * capacity as usize, 16], &Device::flex());
    let keys = cache_write(empty(), rope(k, 2, &rope_table, &plan.positions), &at);
    let cached = cache_write(empty(), v, &at);
    let q = rows(rope(q, 4, &rope_table, &plan.positions), &last);
    let slots = Slots {
        capacity: capacity as usize,
        of_row: vec![0, 1, 2].into(),
        lengths: lengths.iter().map(|&n| n as u32).collect(),
    };
    close(attention_cached(q.clone(), &keys, &cached, heads, &slots), want.clone(), "fused");
    close(reference::attention_cached(q, keys, cached, heads, &slots), want, "reference");
}

#[test]
fn adamw_matches_the_reference_over_steps() {
    let start = random("w", [7, 13]);
    let zeros = start.zeros_like();
    let mut a = Moments { w: start, m: zeros.clone(), v: zeros };
    let mut b = a.clone();
    for t in 1..=20 {
        let step = AdamStep {
            rate: 1e-2,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            decay: 0.01,
            correction1: 1.0 - 0.9f32.powi(t),
            correction2: 1.0 - 0.98f32.powi(t),
            scale: 0.5,
        };
        let g = random(&format!("g{t}"), [7, 13]);
        a = adamw(a, g.clone(), &step);
        b = reference::adamw(b, g, &step);
    }
    close(a.w, b.w, "weights");
    close(a.v, b.v, "second moment");
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
        let whole = bits(linear(x.clone(), w.clone()));
        for n in (1..40).chain([64, 100]) {
            let part = bits(linear(x.clone().narrow(0, 0, n), w.clone()));
            assert!(part == whole[..n * out], "{n} rows of [{d}, {out}]");
        }
    }
}
