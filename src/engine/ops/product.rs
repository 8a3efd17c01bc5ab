//! The number format of matrix products, and the one door that operands of
//! different formats do not get through.
//!
//! Whatever the format, tensors are f32 before and after a product: sums over
//! rows, norms, softmax, rotations, losses, gradients and moments never see
//! another one. A backend may add in a wider format and round once; what it
//! must not do is read the bytes of one format as another, as some do.

use burn::tensor::{DType, Tensor};
use std::fmt;
use std::str::FromStr;

/// What the two operands of a matrix product, and its result, are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Eight bits of mantissa and the range of f32: no loss needs scaling.
    ///
    /// # Source
    /// Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019
    Bf16,
}

impl Precision {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }

    /// The format of its operands.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        let known = [Precision::F32, Precision::Bf16];
        let found = known.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| format!("`{text}` is no precision; there are `f32` and `bf16`"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The product of two stacks of matrices. Its gradients are rounded as it is,
/// and are f32 again where they leave it.
///
/// # Shapes
/// a `[.., N, K]`; b `[.., K, M]` -> `[.., N, M]` in f32
///
/// # Panics
/// When an operand is neither f32 nor of the precision's format.
pub(super) fn product<const D: usize>(
    a: Tensor<D>,
    b: Tensor<D>,
    precision: Precision,
) -> Tensor<D> {
    let format = precision.dtype();
    admit("a matrix product", [a.dtype(), b.dtype()], format);
    a.cast(format).matmul(b.cast(format)).cast(DType::F32)
}

/// Lets operands in that are f32, or of the format the operation rounds to
/// anyway. Every operation asks before it touches a tensor: some backends read
/// the second operand's bytes in the format of the first, without a word.
///
/// # Panics
/// For any other operand.
pub(super) fn admit<const N: usize>(operation: &str, operands: [DType; N], rounded_to: DType) {
    for dtype in operands {
        assert!(
            dtype == DType::F32 || dtype == rounded_to,
            "BUG: {operation} on numbers of the format {dtype:?}: it takes F32 and {rounded_to:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::guarded;
    use burn::tensor::{Device, TensorData};

    fn matrix(values: &[f32], dims: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), dims), &Device::flex())
    }

    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn operands_and_result_are_rounded_and_nothing_between() {
        // 1 + 2^-9 is nearest to 1 among bf16's numbers; their sum 259 lies between 258 and 260,
        // and goes to the even one.
        let (a, b) = (matrix(&[1.0 + 1.0 / 512.0, 256.0], [1, 2]), matrix(&[3.0, 1.0], [2, 1]));
        assert_eq!(numbers(product(a.clone(), b.clone(), Precision::Bf16)), [260.0]);
        assert_eq!(numbers(product(a, b, Precision::F32)), [259.0 + 3.0 / 512.0]);
    }

    #[test]
    fn gradients_come_back_in_f32() {
        let leaf = |values, dims| matrix(values, dims).autodiff().require_grad();
        let (a, b) = (leaf(&[1.0 + 1.0 / 512.0, 2.0], [1, 2]), leaf(&[3.0, 5.0], [2, 1]));
        let mut tape = (product(a.clone(), b.clone(), Precision::Bf16) * 1.004).sum().backward();
        let (da, db) = (a.grad_remove(&mut tape), b.grad_remove(&mut tape));
        let (da, db) = (da.expect("a gradient"), db.expect("a gradient"));
        assert_eq!([da.dtype(), db.dtype()], [DType::F32; 2]);
        // The gradient from above, 1.004, and the operands are rounded before they are multiplied,
        // and then what comes of it: 3.0234375 and 5.0390625.
        let up = 1.0 + 1.0 / 128.0;
        assert_eq!(numbers(db), [up, 2.0 * up]);
        assert_eq!(numbers(da), [3.03125, 5.03125]);
    }

    #[test]
    fn other_formats_do_not_get_through() {
        let (a, b) = (matrix(&[1.0], [1, 1]), matrix(&[1.0], [1, 1]));
        let refused = |a: Tensor<2>, b: Tensor<2>, precision| {
            guarded(|| Ok(product(a, b, precision))).map(drop).expect_err("refused")
        };
        let half = b.clone().cast(DType::F16);
        assert!(refused(a.clone(), half.clone(), Precision::Bf16).contains("F16"));
        assert!(refused(half, a.clone(), Precision::F32).contains("a matrix product"));
        let rounded = b.cast(DType::BF16);
        assert!(refused(a.clone(), rounded.clone(), Precision::F32).contains("BF16"));
        assert_eq!(numbers(product(a, rounded, Precision::Bf16)), [1.0]);
    }
}
