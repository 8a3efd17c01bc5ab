//! Weights as safetensors, under Hugging Face's names and layouts.
//!
//! Every parameter must be there, with its shape, and nothing else. Tensors are
//! read and written one by one, so that a model is in memory once. We write f32;
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
use super::ops::{Moments, Precision};
use crate::base::failure::{Doing, Failure, Outcome};
use crate::host::disk::Out;
use burn::tensor::{Device, Tensor};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;
use tensors::Stored;

/// The model as a safetensors file in memory.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save(model: &Llama) -> Outcome<Vec<u8>> {
    tensors::pack(named(model), tensors::norms_are_vectors)
}

/// The model as a safetensors file, one tensor in memory at a time.
///
/// # Errors
/// When the file cannot be written.
pub fn write(model: &Llama, path: &Path) -> Outcome<()> {
    let doing = || format!("writing `{}`", path.display());
    let mut file = Out::create(path).doing(doing)?;
    tensors::write(&mut file, named(model), tensors::norms_are_vectors)?;
    file.flush().doing(doing)
}

fn named(model: &Llama) -> impl Iterator<Item = (String, Tensor<2>)> {
    let names = model.config().parameters().into_iter().map(|(name, ..)| name);
    names.zip(model.tensors())
}

/// A model from a safetensors file in memory, as it is trained: all of it f32.
///
/// # Errors
/// When the file is damaged, or its tensors are not those of `config`.
pub fn load(config: LlamaConfig, bytes: &[u8], device: &Device) -> Outcome<Llama> {
    let file = Stored::open(Cursor::new(bytes), "the weights' file")?;
    read_model(config, file, device, Precision::F32)
}

/// A model from a safetensors file, one tensor at a time: memory is that of the
/// model. Its products are in `kept`, and its matrices are stored so: f32 if it
/// is to learn.
///
/// # Errors
/// When the file is damaged, or its tensors are not those of `config`.
pub fn read(config: LlamaConfig, path: &Path, device: &Device, kept: Precision) -> Outcome<Llama> {
    let what = format!("`{}`", path.display());
    let file = File::open(path).doing(|| format!("reading {what}"))?;
    read_model(config, Stored::open(file, &what)?, device, kept)
}

fn read_model<R: Read + Seek>(
    config: LlamaConfig,
    mut file: Stored<R>,
    device: &Device,
    kept: Precision,
) -> Outcome<Llama> {
    let parameters = config.parameters();
    only(&file, &parameters)?;
    let mut read = Vec::with_capacity(parameters.len());
    for (name, rows, columns) in parameters {
        let tensor = one(&mut file, &name, [rows, columns], device)?;
        // Norms are added up, not multiplied, and small.
        read.push(if rows == 1 { tensor } else { tensor.cast(kept.dtype()) });
    }
    Ok(Llama::from_tensors(config, read).computing_in(kept))
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
    let mut file = Stored::open(Cursor::new(bytes), "the checkpoint")?;
    only(&file, learns)?;
    let mut read = Vec::with_capacity(learns.len());
    for (name, rows, columns) in learns {
        let mut part =
            |ending: &str| one(&mut file, &format!("{name}{ending}"), [*rows, *columns], device);
        read.push(Moments { w: part("")?, m: part(".m")?, v: part(".v")? });
    }
    Ok(read)
}

fn one<R: Read + Seek>(
    file: &mut Stored<R>,
    name: &str,
    [rows, columns]: [usize; 2],
    device: &Device,
) -> Outcome<Tensor<2>> {
    let (dtype, shape) = file.info(name)?;
    folder::check(name, dtype, shape, rows, columns)?;
    file.in_f32(name, [rows, columns], device)
}

/// Whether a file holds nothing but these tensors and their moments.
fn only<R: Read + Seek>(file: &Stored<R>, known: &[(String, usize, usize)]) -> Outcome<()> {
    let known: BTreeSet<&str> = known.iter().map(|(name, ..)| name.as_str()).collect();
    let is_known = |name: &str| {
        known.contains(name.strip_suffix(".m").or(name.strip_suffix(".v")).unwrap_or(name))
    };
    match file.names().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::input(format!("unexpected tensor `{name}` in the weights"))),
    }
}

#[cfg(test)]
mod tests;
