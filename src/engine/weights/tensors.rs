//! Named tensors as a safetensors file, and out of one, one tensor in memory at
//! a time. We write f32; f16 and bf16 of others become f32 here.
//!
//! Knows no model: which tensors there must be, and which must not, is known
//! above.

use super::place;
use crate::base::failure::{Doing, Failure, Outcome};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};

/// Bytes that are read or written at a time; a whole number of every format's.
const PIECE: usize = 1 << 20;

/// The shape a tensor is stored with: its own.
pub(in crate::engine) fn matrix(dims: [usize; 2]) -> Vec<usize> {
    dims.to_vec()
}

/// The shape a tensor is stored with: a vector where there is one row, as a
/// checkpoint has its norms.
pub(super) fn norms_are_vectors([rows, columns]: [usize; 2]) -> Vec<usize> {
    if rows == 1 { vec![columns] } else { vec![rows, columns] }
}

/// The head of a safetensors file: the length of the header, and the header.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub(super) fn head(infos: Vec<(String, TensorInfo)>) -> Outcome<Vec<u8>> {
    let doing = || Failure::bug("laying out tensors");
    // transformers insists on the format entry.
    let note = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(note), infos).map_err(|error| doing().caused_by(error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| doing().caused_by(error))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    Ok(head)
}

/// Writes tensors as a file, sorted by name as the format's library does.
///
/// # Errors
/// When they cannot be written.
pub(super) fn write(
    out: &mut impl Write,
    tensors: impl Iterator<Item = (String, Tensor<2>)>,
    shape: fn([usize; 2]) -> Vec<usize>,
) -> Outcome<()> {
    let sorted: BTreeMap<String, Tensor<2>> = tensors.collect();
    let mut end = 0;
    let infos = sorted.iter().map(|(name, tensor)| {
        let (start, dims) = (end, tensor.dims());
        end += dims.iter().product::<usize>() * size_of::<f32>();
        let data_offsets = (start, end);
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape(dims), data_offsets })
    });
    let head = head(infos.collect())?;
    let doing = || "writing tensors".to_owned();
    out.write_all(&head).doing(doing)?;
    let mut piece = Vec::with_capacity(PIECE);
    for (name, tensor) in sorted {
        let values =
            tensor.into_data().try_to_vec::<f32>().doing(|| format!("reading `{name}`"))?;
        for values in values.chunks(PIECE / size_of::<f32>()) {
            piece.clear();
            piece.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            out.write_all(&piece).doing(doing)?;
        }
    }
    Ok(())
}

/// Tensors as a file in memory.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub(in crate::engine) fn pack(
    tensors: impl Iterator<Item = (String, Tensor<2>)>,
    shape: fn([usize; 2]) -> Vec<usize>,
) -> Outcome<Vec<u8>> {
    let tensors: Vec<_> = tensors.collect();
    // Room for all of it, so that it is never moved.
    let numbers: usize = tensors.iter().map(|(_, t)| t.dims().iter().product::<usize>()).sum();
    let mut file = Vec::with_capacity(numbers * size_of::<f32>() + 256 * (tensors.len() + 1));
    write(&mut file, tensors.into_iter(), shape)?;
    Ok(file)
}

/// A safetensors file whose tensors are read one by one.
pub(in crate::engine) struct Stored<R> {
    from: R,
    /// The file's name, for messages.
    what: String,
    /// Format, shape and first byte of each.
    tensors: BTreeMap<String, (Dtype, Vec<usize>, u64)>,
}

impl<R: Read + Seek> Stored<R> {
    /// Reads the header; `what` names the file, as in "`a.safetensors`".
    ///
    /// # Errors
    /// `Input` when the file is cut off or its header is damaged.
    pub(in crate::engine) fn open(mut from: R, what: &str) -> Outcome<Stored<R>> {
        let found = place::layout(&mut from, what)?;
        let tensors =
            found.into_iter().map(|(name, info, start)| (name, (info.dtype, info.shape, start)));
        Ok(Stored { tensors: tensors.collect(), from, what: what.to_owned() })
    }

    /// Names of the tensors, sorted.
    pub(in crate::engine) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Format and shape of a tensor.
    ///
    /// # Errors
    /// `Input` when it is missing.
    pub(in crate::engine) fn info(&self, name: &str) -> Outcome<(Dtype, &[usize])> {
        let found = self.tensors.get(name).map(|(dtype, shape, _)| (*dtype, shape.as_slice()));
        found.ok_or_else(|| Failure::input(format!("tensor `{name}` is missing in {}", self.what)))
    }

    /// A tensor of a readable format as a matrix of f32; every number of f16 and
    /// bf16 is one of f32.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(in crate::engine) fn in_f32(
        &mut self,
        name: &str,
        shape: [usize; 2],
        device: &Device,
    ) -> Outcome<Tensor<2>> {
        let (dtype, _) = self.info(name)?;
        let start = self.tensors.get(name).map_or(0, |(.., start)| *start);
        let doing = || format!("reading `{name}` of {}", self.what);
        self.from.seek(SeekFrom::Start(start)).doing(doing)?;
        let (count, width) = (shape.iter().product::<usize>(), dtype.bitsize() / 8);
        let mut values: Vec<f32> = Vec::with_capacity(count);
        let mut piece = vec![0; PIECE];
        while values.len() < count {
            let n = (count - values.len()).min(PIECE / width);
            let bytes = &mut piece[..n * width];
            self.from.read_exact(bytes).doing(doing)?;
            match dtype {
                Dtype::F16 => values.extend(halves(bytes, DType::F16)?),
                Dtype::BF16 => values.extend(halves(bytes, DType::BF16)?),
                _ => {
                    let (words, _) = bytes.as_chunks::<4>();
                    values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
                }
            }
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// Whether weights may have this number format.
pub(in crate::engine) fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Numbers of two bytes in f32.
fn halves(bytes: &[u8], dtype: DType) -> Outcome<Vec<f32>> {
    let data = TensorData::from_bytes_vec(bytes.to_vec(), [bytes.len() / 2], dtype);
    data.convert::<f32>().try_to_vec().doing(|| "widening numbers".to_owned())
}
