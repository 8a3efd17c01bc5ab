//! Weights as safetensors, under Hugging Face's names and layouts.
//!
//! Bytes in, bytes out: which file they are is the caller's business. Every
//! parameter must be there, with its shape, and nothing else.

use super::config::LlamaConfig;
use super::model::Llama;
use super::ops::Moments;
use crate::base::failure::{Doing, Failure, Outcome};
use burn::tensor::{Device, Tensor, TensorData};
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
        if view.dtype() != Dtype::F32 || view.shape().iter().product::<usize>() != rows * columns {
            return Err(Failure::input(format!(
                "tensor `{name}` is {:?} {:?}, not F32 [{rows}, {columns}]",
                view.dtype(),
                view.shape()
            )));
        }
        let (words, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        tensors.push(Tensor::from_data(TensorData::new(values, [rows, columns]), device));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed::Seed;

    fn tiny() -> LlamaConfig {
        LlamaConfig {
            model_type: "llama".into(),
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            max_position_embeddings: 16,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            tie_word_embeddings: false,
        }
    }

    #[test]
    fn weights_round_trip_bit_for_bit() {
        let model = Llama::random(tiny(), 0.1, Seed(1), &Device::flex());
        let bytes = save(&model).expect("saves");
        let again = load(tiny(), &bytes, &Device::flex()).expect("loads");
        assert_eq!(save(&again).expect("saves"), bytes);
    }

    #[test]
    fn damaged_and_foreign_weights_are_refused() {
        let model = Llama::random(tiny(), 0.1, Seed(1), &Device::flex());
        let bytes = save(&model).expect("saves");
        let error =
            |config, bytes: &[u8]| load(config, bytes, &Device::flex()).expect_err("refused").what;
        assert!(error(tiny(), &bytes[..bytes.len() - 3]).contains("not a safetensors file"));
        let deeper = LlamaConfig { num_hidden_layers: 3, ..tiny() };
        assert!(
            error(deeper, &bytes).contains("model.layers.2.input_layernorm.weight` is missing")
        );
        let tied = LlamaConfig { tie_word_embeddings: true, ..tiny() };
        assert!(error(tied, &bytes).contains("unexpected tensor `lm_head.weight`"));
        let wider = LlamaConfig { vocab_size: 12, ..tiny() };
        assert!(error(wider, &bytes).contains("not F32 [12, 8]"));
    }
}
