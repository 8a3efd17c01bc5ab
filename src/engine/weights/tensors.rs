//! Named tensors as one safetensors file in memory, and out of one. We write
//! f32; f16 and bf16 of others become f32 here.
//!
//! Knows no model: which tensors there must be, and which must not, is known
//! above.

use crate::base::failure::{Doing, Failure, Outcome};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::BTreeMap;

/// The shape a tensor is stored with: its own.
pub(in crate::engine) fn matrix(dims: [usize; 2]) -> Vec<usize> {
    dims.to_vec()
}

/// The shape a tensor is stored with: a vector where there is one row, as a
/// checkpoint has its norms.
pub(super) fn norms_are_vectors([rows, columns]: [usize; 2]) -> Vec<usize> {
    if rows == 1 { vec![columns] } else { vec![rows, columns] }
}

/// Tensors as a file.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub(in crate::engine) fn pack(
    tensors: impl Iterator<Item = (String, Tensor<2>)>,
    shape: fn([usize; 2]) -> Vec<usize>,
) -> Outcome<Vec<u8>> {
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        let shape = shape(tensor.dims());
        let values =
            tensor.into_data().try_to_vec::<f32>().doing(|| format!("reading `{name}`"))?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        stored.insert(name, (shape, bytes));
    }
    let mut views = BTreeMap::new();
    for (name, (shape, bytes)) in &stored {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .map_err(|error| Failure::bug(format!("packing `{name}`")).caused_by(error))?;
        views.insert(name.clone(), view);
    }
    // transformers insists on the format entry.
    let note = [("format".to_owned(), "pt".to_owned())].into();
    serialize(&views, Some(note)).map_err(|error| Failure::bug("packing tensors").caused_by(error))
}

/// A file's tensors; `what` begins the complaint, as in "`a.safetensors` is".
///
/// # Errors
/// `Input` when the file is damaged.
pub(in crate::engine) fn open<'a>(bytes: &'a [u8], what: &str) -> Outcome<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| Failure::input(format!("{what} not a safetensors file")).caused_by(error))
}

/// A tensor as it lies in the file.
///
/// # Errors
/// `Input` when it is missing.
pub(in crate::engine) fn find<'a>(file: &SafeTensors<'a>, name: &str) -> Outcome<TensorView<'a>> {
    file.tensor(name)
        .map_err(|error| Failure::input(format!("tensor `{name}` is missing")).caused_by(error))
}

/// A tensor of a readable format as a matrix of f32.
pub(in crate::engine) fn in_f32(
    view: &TensorView,
    shape: [usize; 2],
    device: &Device,
) -> Tensor<2> {
    Tensor::from_data(numbers(view.dtype(), view.data(), shape), device)
}

/// Whether weights may have this number format.
pub(in crate::engine) fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// The numbers of a tensor in f32; every one of f16 and bf16 is exact in it.
fn numbers(dtype: Dtype, bytes: &[u8], shape: [usize; 2]) -> TensorData {
    let half = |dtype| TensorData::from_bytes_vec(bytes.to_vec(), shape, dtype).convert::<f32>();
    match dtype {
        Dtype::F16 => half(DType::F16),
        Dtype::BF16 => half(DType::BF16),
        _ => {
            let (words, _) = bytes.as_chunks::<4>();
            let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            TensorData::new::<f32, _>(values, shape)
        }
    }
}
