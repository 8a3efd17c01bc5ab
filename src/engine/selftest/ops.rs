//! Single operations of a device against plain operations on the processor:
//! values and gradients, over odd sizes.
//!
//! The sizes of the matrix products are those that have broken kernels of
//! graphics cards; attention comes packed, grouped, and with more keys than
//! queries. Knows nothing of models.

use super::{Check, difference, numbers, random};
use crate::engine::ops::{
    self, AdamStep, AttentionPlan, Documents, Heads, Moments, Precision, RopeTable, Slots,
    reference,
};
use burn::tensor::{Device, Tensor, TensorData};
use std::sync::Arc;

pub(super) fn checks() -> Vec<Check<'static>> {
    vec![
        Check::new("matrix products at odd sizes", 0.0, products),
        Check::new("strided operands against copies", 0.0, strided),
        Check::new("rows and linear, with gradients", 2e-5, linear),
        Check::new("norm and activation, with gradients", 2e-5, norms),
        Check::new("packed grouped attention, with gradients", 2e-5, attention),
        Check::new("attention over a cache", 2e-5, cached),
        Check::new("cross entropy, with gradients", 2e-5, cross_entropy),
        Check::new("20 steps of AdamW", 2e-5, adamw),
    ]
}

/// Small whole numbers, so that every order of the sum gives the same bits.
///
/// # Source
/// tracel-ai/burn#5237, #5626 for the inner lengths.
fn products(device: &Device) -> Result<f64, String> {
    let whole = |rows: usize, columns: usize, step: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|i| ((i * step) % 5) as f32 - 2.0).collect();
        (values.clone(), Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device))
    };
    let mut worst = 0.0f64;
    for (m, k, n) in [
        (1, 8, 16),
        (7, 16, 33),
        (64, 24, 7),
        (7, 32, 64),
        (65, 40, 16),
        (1, 96, 100),
        (7, 104, 40),
        (33, 160, 96),
        (7, 440, 33),
        (513, 64, 16),
        (64, 2848, 7),
    ] {
        let ((a, left), (b, right)) = (whole(m, k, 3), whole(n, k, 7));
        let mut wanted = vec![0.0f32; m * n];
        for (cell, value) in wanted.iter_mut().enumerate() {
            let (row, column) = (cell / n, cell % n);
            *value = (0..k).map(|i| a[row * k + i] * b[column * k + i]).sum();
        }
        // Both operands as they lie, then each as a view that lies across.
        for (left, right) in [
            (left.clone(), right.clone()),
            (turned(&left)?, right.clone()),
            (left.clone(), turned(&right)?),
        ] {
            let got = numbers(left.matmul(right.transpose()))?;
            worst = worst.max(difference(&got, &wanted)?);
        }
    }
    Ok(worst)
}

/// The same matrix as a transposed view of a copy that lies the other way.
fn turned(x: &Tensor<2>) -> Result<Tensor<2>, String> {
    let [rows, columns] = x.dims();
    let copy = TensorData::new(numbers(x.clone().transpose())?, [columns, rows]);
    Ok(Tensor::<2>::from_data(copy, &x.device()).transpose())
}

/// A view into a larger tensor gives what a copy of it gives.
fn strided(device: &Device) -> Result<f64, String> {
    let whole = random("whole", [40, 24], device);
    let view = whole.clone().narrow(1, 3, 16).narrow(0, 5, 30); // [30, 16]
    let copy = Tensor::<2>::from_data(TensorData::new(numbers(view.clone())?, [30, 16]), device);
    let other = random("other", [16, 30], device);
    let mut worst = 0.0f64;
    for f in [
        |x: Tensor<2>, _: Tensor<2>| x.exp() * 2.0,
        |x: Tensor<2>, y: Tensor<2>| x + y.transpose(),
        |x: Tensor<2>, y: Tensor<2>| x.clone() * y.transpose() - x.square(),
    ] {
        let (a, b) = (f(view.clone(), other.clone()), f(copy.clone(), other.clone()));
        worst = worst.max(difference(&numbers(a)?, &numbers(b)?)?);
    }
    Ok(worst)
}

/// The largest difference between `f` on the device and `plain` on the
/// processor: the value with and without a tape, that of views that lie across,
/// and the gradients of a random projection of it.
fn against<const N: usize>(
    device: &Device,
    inputs: [(&str, [usize; 2]); N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Result<f64, String> {
    let run = |f: &dyn Fn([Tensor<2>; N]) -> Tensor<2>, device: &Device| {
        let inputs = inputs.map(|(name, dims)| random(name, dims, device));
        let leaves = inputs.clone().map(|x| x.autodiff().require_grad());
        let y = f(leaves.clone());
        let projection = random("projection", y.dims(), device);
        let strided = inputs.clone().map(|x| turned(&x));
        let strided = strided.into_iter().collect::<Result<Vec<_>, _>>()?;
        let strided = strided.try_into().map_err(|_| "as many views as operands".to_owned())?;
        let mut found =
            vec![numbers(f(inputs))?, numbers(f(strided))?, numbers(y.clone().inner())?];
        let mut tape = (y * projection.autodiff()).sum().backward();
        for leaf in leaves {
            let gradient = leaf.grad_remove(&mut tape).ok_or("a gradient is missing")?;
            found.push(numbers(gradient)?);
        }
        Ok::<_, String>(found)
    };
    let (here, there) = (run(&f, device)?, run(&plain, &Device::flex())?);
    let each = here.iter().zip(&there).map(|(a, b)| difference(a, b));
    each.collect::<Result<Vec<_>, _>>().map(|all| all.into_iter().fold(0.0, f64::max))
}

fn linear(device: &Device) -> Result<f64, String> {
    let ids: Arc<[u32]> = vec![3, 0, 3, 6].into();
    let mut worst =
        against(device, [("t", [7, 5])], |[t]| ops::rows(t, &ids), |[t]| reference::rows(t, &ids))?;
    for (n, i, o) in [(1, 1, 1), (3, 17, 5), (64, 33, 48)] {
        let one = against(
            device,
            [("x", [n, i]), ("w", [o, i])],
            |[x, w]| ops::linear(x, w, Precision::F32),
            |[x, w]| reference::linear(x, w, Precision::F32),
        )?;
        worst = worst.max(one);
    }
    Ok(worst)
}

fn norms(device: &Device) -> Result<f64, String> {
    let mut worst = 0.0f64;
    for (n, d) in [(1, 1), (3, 20), (5, 129)] {
        let norm = against(
            device,
            [("x", [n, d]), ("w", [1, d])],
            |[x, w]| ops::rms_norm(x, w, 1e-5),
            |[x, w]| reference::rms_norm(x, w, 1e-5),
        )?;
        let activation = against(
            device,
            [("g", [n, d]), ("u", [n, d])],
            |[g, u]| ops::swiglu(g, u),
            |[g, u]| reference::swiglu(g, u),
        )?;
        worst = worst.max(norm).max(activation);
    }
    Ok(worst)
}

fn attention(device: &Device) -> Result<f64, String> {
    let mut worst = 0.0f64;
    for (query, kv, dim, lengths) in [
        (1, 1, 2, vec![1]),
        (4, 2, 6, vec![5, 1, 19]),
        (6, 3, 20, vec![33, 2]),
        (2, 1, 4, vec![3, 300]),
    ] {
        let n: usize = lengths.iter().sum();
        let documents = Documents::of_lengths(lengths);
        let plan = AttentionPlan {
            heads: Heads { query, kv, dim },
            positions: documents.positions(),
            documents,
            rope: RopeTable::new(dim, 300, 1e4),
            precision: Precision::F32,
        };
        let one = against(
            device,
            [("q", [n, query * dim]), ("k", [n, kv * dim]), ("v", [n, kv * dim])],
            |[q, k, v]| ops::attention(q, k, v, &plan),
            |[q, k, v]| reference::attention(q, k, v, &plan),
        )?;
        worst = worst.max(one);
    }
    Ok(worst)
}

/// One query over a cache of many keys, against packed attention at the last
/// token of each document.
fn cached(device: &Device) -> Result<f64, String> {
    const CAPACITY: u32 = 12;
    let heads = Heads { query: 4, kv: 2, dim: 8 };
    let lengths = [5usize, 9, 1];
    let n: usize = lengths.iter().sum();
    let documents = Documents::of_lengths(lengths);
    let table = RopeTable::new(8, 16, 1e4);
    let positions = documents.positions();
    let plan = AttentionPlan {
        heads,
        positions: positions.clone(),
        documents: documents.clone(),
        rope: table.clone(),
        precision: Precision::F32,
    };
    let inputs = |device: &Device| {
        (random("q", [n, 32], device), random("k", [n, 16], device), random("v", [n, 16], device))
    };
    let last: Arc<[u32]> = documents.ranges().map(|(_, end)| end as u32 - 1).collect();
    let (q, k, v) = inputs(&Device::flex());
    let wanted = numbers(reference::rows(reference::attention(q, k, v, &plan), &last))?;

    let at: Arc<[u32]> = documents
        .ranges()
        .zip(0..)
        .flat_map(|((start, end), slot)| {
            (0..(end - start) as u32).map(move |p| slot * CAPACITY + p)
        })
        .collect();
    let (q, k, v) = inputs(device);
    let empty = || Tensor::<2>::zeros([3 * CAPACITY as usize, 16], device);
    let keys = ops::cache_write(empty(), ops::rope(k, heads.kv, &table, &positions), &at);
    let values = ops::cache_write(empty(), v, &at);
    let q = ops::rows(ops::rope(q, heads.query, &table, &positions), &last);
    let slots = Slots {
        capacity: CAPACITY as usize,
        of_row: vec![0, 1, 2].into(),
        lengths: lengths.iter().map(|&n| n as u32).collect(),
    };
    let f32 = Precision::F32;
    let (k, v) = (keys.clone(), values.clone());
    let plain = reference::attention_cached(q.clone(), k, v, heads, &slots, f32);
    let found = numbers(ops::attention_cached(q, &keys, &values, heads, &slots, f32))?;
    Ok(difference(&found, &wanted)?.max(difference(&numbers(plain)?, &wanted)?))
}

fn cross_entropy(device: &Device) -> Result<f64, String> {
    let mut worst = 0.0f64;
    for m in [1, 7, 600] {
        let targets: Arc<[u32]> = (0..m as u32).map(|i| i % 11).collect();
        let weights: Arc<[f32]> = (0..m).map(|i| 1.0 / (i + 1) as f32).collect();
        let one = against(
            device,
            [("h", [m, 9]), ("w", [11, 9])],
            |[h, w]| {
                ops::linear_cross_entropy(h, w, &targets, &weights, Precision::F32).reshape([1, 1])
            },
            |[h, w]| {
                reference::linear_cross_entropy(h, w, &targets, &weights, Precision::F32)
                    .reshape([1, 1])
            },
        )?;
        worst = worst.max(one);
    }
    Ok(worst)
}

fn adamw(device: &Device) -> Result<f64, String> {
    let start = |device: &Device| {
        let w = random("w", [7, 13], device);
        let zeros = w.zeros_like();
        Moments { w, m: zeros.clone(), v: zeros }
    };
    let (mut here, mut there) = (start(device), start(&Device::flex()));
    for t in 1..=20 {
        let step = AdamStep {
            rate: 1e-2,
            beta1: 0.9,
            beta2: 0.98,
            fresh1: 0.1,
            fresh2: 0.02,
            eps: 1e-8,
            decay: 0.01,
            correction1: 1.0 - 0.9f32.powi(t),
            correction2: 1.0 - 0.98f32.powi(t),
            scale: 0.5,
        };
        let gradient = |device: &Device| random(&format!("g{t}"), [7, 13], device);
        here = ops::adamw(here, gradient(device), &step);
        there = reference::adamw(there, gradient(&Device::flex()), &step);
    }
    let weights = difference(&numbers(here.w)?, &numbers(there.w)?)?;
    Ok(weights.max(difference(&numbers(here.v)?, &numbers(there.v)?)?))
}
