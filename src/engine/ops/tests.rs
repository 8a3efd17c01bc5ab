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
