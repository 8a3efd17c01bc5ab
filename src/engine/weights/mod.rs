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
pub(super) mod tensors;
mod zip;

use super::config::LlamaConfig;
use super::model::Llama;
use super::ops::Moments;
use crate::base::failure::{Failure, Outcome};
use burn::tensor::{Device, Tensor};
use safetensors::tensor::SafeTensors;
use std::collections::BTreeSet;

/// The model as a safetensors file.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save(model: &Llama) -> Outcome<Vec<u8>> {
    let names = model.config().parameters().into_iter().map(|(name, ..)| name);
    tensors::pack(names.zip(model.tensors()), tensors::norms_are_vectors)
}

/// A model from a safetensors file.
///
/// # Errors
/// When the file is damaged, or its tensors are not those of `config`.
pub fn load(config: LlamaConfig, bytes: &[u8], device: &Device) -> Outcome<Llama> {
    let (file, parameters) = (tensors::open(bytes, "the weights are")?, config.parameters());
    only(&file, &parameters)?;
    let read = parameters
        .into_iter()
        .map(|(name, rows, columns)| read(&file, &name, [rows, columns], device))
        .collect::<Outcome<_>>()?;
    Ok(Llama::from_tensors(config, read))
}

/// Weights and moments of what learns as one safetensors file (`<name>`,
/// `<name>.m`, `<name>.v`).
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save_moments(learns: &[(String, usize, usize)], moments: &[Moments]) -> Outcome<Vec<u8>> {
    let named = learns.iter().zip(moments).flat_map(|((name, ..), p)| {
        [
            (format!("{name}.m"), p.m.clone()),
            (format!("{name}.v"), p.v.clone()),
            (name.clone(), p.w.clone()),
        ]
    });
    tensors::pack(named, tensors::matrix)
}

/// What [`save_moments`] wrote.
///
/// # Errors
/// When the file is damaged, or its tensors are not these.
pub fn load_moments(
    learns: &[(String, usize, usize)],
    bytes: &[u8],
    device: &Device,
) -> Outcome<Vec<Moments>> {
    let file = tensors::open(bytes, "the weights are")?;
    only(&file, learns)?;
    let one = |(name, rows, columns): &(String, usize, usize)| {
        let part =
            |ending: &str| read(&file, &format!("{name}{ending}"), [*rows, *columns], device);
        Ok(Moments { w: part("")?, m: part(".m")?, v: part(".v")? })
    };
    learns.iter().map(one).collect()
}

fn read(
    file: &SafeTensors,
    name: &str,
    [rows, columns]: [usize; 2],
    device: &Device,
) -> Outcome<Tensor<2>> {
    let view = tensors::find(file, name)?;
    folder::check(name, view.dtype(), view.shape(), rows, columns)?;
    Ok(tensors::in_f32(&view, [rows, columns], device))
}

/// Whether a file holds nothing but these tensors and their moments.
fn only(file: &SafeTensors, known: &[(String, usize, usize)]) -> Outcome<()> {
    let known: BTreeSet<&str> = known.iter().map(|(name, ..)| name.as_str()).collect();
    let is_known = |name: &str| {
        known.contains(name.strip_suffix(".m").or(name.strip_suffix(".v")).unwrap_or(name))
    };
    match file.names().into_iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::input(format!("unexpected tensor `{name}` in the weights"))),
    }
}

#[cfg(test)]
mod tests;
