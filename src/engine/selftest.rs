//! Self-tests of a device: what has to hold wherever a number is computed,
//! each measured against a bound. `rekindle doctor` shows them, the tests run
//! them on the processor.
//!
//! Two questions: does the device compute what plain operations on the
//! processor compute (values and gradients, at the sizes that have broken
//! kernels before), and does it keep the engine's promises (a cache, batch
//! mates, packing and a stop in the middle change nothing). Of a checkpoint it is
//! asked, besides, whether it says here what it says elsewhere (`checkpoint`).
//! Knows no file and no screen.

pub mod checkpoint;
mod engine;
mod ops;
pub(super) mod small;

use super::device::guarded;
use burn::tensor::{Device, Tensor, TensorData};

use crate::base::seed::Seed;
use std::time::Instant;

/// A difference measured on a device, or why there is none.
type Measure<'a> = Box<dyn Fn(&Device) -> Result<f64, String> + 'a>;

/// A property of a device, or of a model on it.
pub struct Check<'a> {
    /// What is held against what.
    pub what: &'static str,
    /// Largest difference allowed; 0 wants the same bits.
    pub bound: f64,
    /// Measures the difference.
    measure: Measure<'a>,
}

/// What came of a check.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was checked.
    pub what: &'static str,
    /// Largest difference allowed.
    pub bound: f64,
    /// Difference that was measured, or what went wrong.
    pub measured: Result<f64, String>,
    /// Time that took, mostly of compiling kernels where there are any.
    pub seconds: f64,
}

impl<'a> Check<'a> {
    fn new(
        what: &'static str,
        bound: f64,
        measure: impl Fn(&Device) -> Result<f64, String> + 'a,
    ) -> Check<'a> {
        Check { what, bound, measure: Box::new(measure) }
    }

    /// Runs the check; a panic of the libraries below is a finding too.
    pub fn run(&self, device: &Device) -> Finding {
        let start = Instant::now();
        let measured = guarded(|| (self.measure)(device));
        let seconds = start.elapsed().as_secs_f64();
        Finding { what: self.what, bound: self.bound, measured, seconds }
    }
}

impl Finding {
    /// Whether the property holds. No number is within no bound.
    pub fn holds(&self) -> bool {
        self.measured.as_ref().is_ok_and(|measured| *measured <= self.bound)
    }
}

/// All checks of a device, the simplest first. On the processor the engine's
/// promises are exact; elsewhere the order of a sum may depend on its size.
pub fn checks(is_cpu: bool) -> Vec<Check<'static>> {
    let mut all = ops::checks();
    all.extend(engine::checks(is_cpu));
    all
}

/// Checks for devices that can compute in bf16 too.
pub fn in_bf16() -> Vec<Check<'static>> {
    engine::in_bf16()
}

/// Values from a normal distribution, the same on every device.
fn random<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    let mut rng = Seed(1).derive(name).rng();
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// The numbers of a tensor.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|error| error.to_string())?;
    data.try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
}

/// The largest difference, relative to `1 + |b|`; infinite where there is no
/// number, so that it is within no bound.
fn difference(a: &[f32], b: &[f32]) -> Result<f64, String> {
    if a.len() != b.len() {
        return Err(format!("{} numbers against {}", a.len(), b.len()));
    }
    let one = |(a, b): (&f32, &f32)| {
        let difference = f64::from((a - b).abs()) / (1.0 + f64::from(b.abs()));
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    Ok(a.iter().zip(b).map(one).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_holds_on_the_processor() {
        for check in checks(true).into_iter().chain(in_bf16()) {
            let finding = check.run(&Device::flex());
            assert!(finding.holds(), "{finding:?}");
        }
    }

    #[test]
    fn a_wrong_number_is_found() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), Ok(0.0));
        assert_eq!(difference(&[1.5], &[1.0]), Ok(0.25));
        assert_eq!(difference(&[f32::NAN], &[1.0]), Ok(f64::INFINITY));
        assert!(difference(&[1.0], &[]).is_err());
        let finding = |measured| Finding { what: "", bound: 0.1, measured, seconds: 0.0 };
        assert!(finding(Ok(0.1)).holds());
        assert!(!finding(Ok(f64::INFINITY)).holds());
        assert!(!finding(Err("it panicked".into())).holds());
    }
}
