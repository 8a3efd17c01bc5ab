//! Weights as safetensors, under Hugging Face's names and layouts.
//!
//! Bytes in, bytes out: which file they are is the caller's business. Every
//! parameter must be there, with its shape, and nothing else. We write f32;
//! what came from elsewhere may be f16 or bf16 and becomes f32 here. Folders
//! of others are read in `folder` and written in `export`.

pub mod export;
pub mod folder;
mod pickle;
mod place;
mod zip;

use super::config::LlamaConfig;
use super::model::Llama;
use super::ops::Moments;
use crate::base::failure::{Doing, Failure, Outcome};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::BTreeMap;

/// The model as a safetensors file.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save(model: &Llama) -> Outcome<Vec<u8>> {
    let names = model.config().parameters().into_iter().map(|(name, ..)| name);
    pack(names.zip(model.tensors()))
}

/// A model from a safetensors file.
///
/// # Errors
/// When the file is damaged, or its tensors are not those of `config`.
pub fn load(config: LlamaConfig, bytes: &[u8], device: &Device) -> Outcome<Llama> {
    let tensors = unpack(&config, bytes, "", device)?;
    Ok(Llama::from_tensors(config, tensors))
}

/// Weights and moments as one safetensors file (`<name>`, `<name>.m`, `<name>.v`).
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save_moments(config: &LlamaConfig, parameters: &[Moments]) -> Outcome<Vec<u8>> {
    let named = config.parameters().into_iter().zip(parameters).flat_map(|((name, ..), p)| {
        [
            (format!("{name}.m"), p.m.clone()),
            (format!("{name}.v"), p.v.clone()),
            (name, p.w.clone()),
        ]
    });
    pack(named)
}

/// What [`save_moments`] wrote.
///
/// # Errors
/// When the file is damaged, or its tensors are not those of `config`.
pub fn load_moments(config: &LlamaConfig, bytes: &[u8], device: &Device) -> Outcome<Vec<Moments>> {
    let w = unpack(config, bytes, "", device)?;
    let m = unpack(config, bytes, ".m", device)?;
    let v = unpack(config, bytes, ".v", device)?;
    Ok(w.into_iter().zip(m).zip(v).map(|((w, m), v)| Moments { w, m, v }).collect())
}

fn pack(tensors: impl Iterator<Item = (String, Tensor<2>)>) -> Outcome<Vec<u8>> {
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        let [rows, columns] = tensor.dims();
        let shape = if rows == 1 { vec![columns] } else { vec![rows, columns] };
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

fn unpack(
    config: &LlamaConfig,
    bytes: &[u8],
    suffix: &str,
    device: &Device,
) -> Outcome<Vec<Tensor<2>>> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        Failure::input("the weights are not a safetensors file").caused_by(error)
    })?;
    let parameters = config.parameters();
    if suffix.is_empty() {
        let known: std::collections::BTreeSet<&str> =
            parameters.iter().map(|(name, ..)| name.as_str()).collect();
        for name in file.names() {
            let base = name.strip_suffix(".m").or(name.strip_suffix(".v")).unwrap_or(name);
            if !known.contains(base) {
                return Err(Failure::input(format!("unexpected tensor `{name}` in the weights")));
            }
        }
    }
    let mut tensors = Vec::with_capacity(parameters.len());
    for (name, rows, columns) in parameters {
        let name = name + suffix;
        let view = file.tensor(&name).map_err(|error| {
            Failure::input(format!("tensor `{name}` is missing")).caused_by(error)
        })?;
        folder::check(&name, view.dtype(), view.shape(), rows, columns)?;
        tensors.push(Tensor::from_data(in_f32(view.dtype(), view.data(), [rows, columns]), device));
    }
    Ok(tensors)
}

/// The numbers of a tensor in f32; every one of f16 and bf16 is exact in it.
fn in_f32(dtype: Dtype, bytes: &[u8], shape: [usize; 2]) -> TensorData {
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

#[cfg(test)]
mod tests;
