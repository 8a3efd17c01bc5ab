//! Adapters as files, in the format of Hugging Face's peft:
//! `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Bytes in, bytes out. What peft can do and this engine cannot is refused by
//! its name, never ignored.
//!
//! # Source
//! huggingface/peft 0.21, `LoraConfig` and `get_peft_model_state_dict`

use super::config::LlamaConfig;
use super::lora::{Adapters, Lora, Target};
use super::weights::tensors;
use crate::base::failure::{Doing, Failure, Outcome};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::io::Cursor;

/// The settings' file.
pub const SETTINGS: &str = "adapter_config.json";
/// The tensors' file.
pub const TENSORS: &str = "adapter_model.safetensors";

/// What peft puts before a module's path.
const PREFIX: &str = "base_model.model.";

/// The settings and the tensors, as peft writes and reads them.
///
/// # Errors
/// When the format's library refuses, which would be a bug.
pub fn save(adapters: &Adapters, config: &LlamaConfig) -> Outcome<(Value, Vec<u8>)> {
    let lora = &adapters.lora;
    let targets: Vec<&str> = lora.targets.iter().map(|target| target.name()).collect();
    let settings = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilized,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
    });
    let names = lora.parameters(config).into_iter().map(|(name, ..)| format!("{PREFIX}{name}"));
    Ok((settings, tensors::pack(names.zip(adapters.weights.iter().cloned()), tensors::matrix)?))
}

/// Adapters from peft's two files, for a model of this shape.
///
/// # Errors
/// `Input` when a file is damaged, asks for something that this engine cannot
/// do, or does not belong to such a model.
pub fn load(
    settings: &[u8],
    weights: &[u8],
    config: &LlamaConfig,
    device: &Device,
) -> Outcome<Adapters> {
    let settings: Value =
        serde_json::from_slice(settings).doing(|| format!("reading `{SETTINGS}`"))?;
    refuse_unknown_powers(&settings)?;
    let number = |key: &str| settings[key].as_f64().ok_or_else(|| missing(key));
    let rank = settings["r"].as_u64().filter(|&rank| rank > 0).ok_or_else(|| missing("r"))?;
    let mut file = tensors::Stored::open(Cursor::new(weights), &format!("`{TENSORS}`"))?;
    // The tensors say what is adapted; `target_modules` may be a pattern.
    let has = |target: Target| {
        file.names().any(|name| name.contains(&format!(".{}.lora_", target.name())))
    };
    let lora = Lora {
        rank: rank as usize,
        alpha: number("lora_alpha")?,
        targets: Target::ALL.iter().copied().filter(|&target| has(target)).collect(),
        dropout: settings["lora_dropout"].as_f64().unwrap_or(0.0),
        rank_stabilized: settings["use_rslora"].as_bool().unwrap_or(false),
    };
    let parameters: Vec<(String, usize, usize)> = lora
        .parameters(config)
        .into_iter()
        .map(|(name, rows, columns)| (format!("{PREFIX}{name}"), rows, columns))
        .collect();
    for name in file.names() {
        if !parameters.iter().any(|(known, ..)| known == name) {
            return Err(Failure::input(format!("unexpected tensor `{name}` in `{TENSORS}`")).hint(
                "adapters of a block's linear layers can be read, in all blocks of this model",
            ));
        }
    }
    if parameters.is_empty() {
        return Err(Failure::input(format!("`{TENSORS}` holds no adapter of a linear layer")));
    }
    let mut weights = Vec::with_capacity(parameters.len());
    for (name, rows, columns) in &parameters {
        let ((dtype, found), shape) = (file.info(name)?, [*rows, *columns]);
        if !tensors::is_readable(dtype) || found != shape {
            return Err(Failure::input(format!(
                "tensor `{name}` is {dtype:?} {found:?}, not a floating-point {shape:?}"
            )));
        }
        weights.push(file.in_f32(name, shape, device)?);
    }
    Ok(Adapters { lora, weights })
}

fn missing(key: &str) -> Failure {
    Failure::input(format!("`{SETTINGS}` has no usable `{key}`"))
}

/// Settings of peft that change the arithmetic, with the values that leave it alone.
fn refuse_unknown_powers(settings: &Value) -> Outcome<()> {
    let harmless = [
        ("peft_type", json!("LORA")),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("lora_bias", json!(false)),
        ("use_dora", json!(false)),
        ("use_qalora", json!(false)),
        ("use_bdlora", json!(null)),
        ("modules_to_save", json!(null)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
        ("layer_replication", json!(null)),
        ("target_parameters", json!(null)),
        ("trainable_token_indices", json!(null)),
        ("alora_invocation_tokens", json!(null)),
        ("arrow_config", json!(null)),
        ("kasa_config", json!(null)),
    ];
    for (key, harmless) in harmless {
        let value = &settings[key];
        let off = match value {
            Value::Null => key != "peft_type",
            Value::Bool(on) => !on,
            Value::Array(items) => items.is_empty(),
            _ => *value == harmless,
        };
        if !off {
            return Err(Failure::input(format!(
                "`{SETTINGS}`: `{key} = {value}` is not supported"
            ))
            .hint("plain LoRA on linear layers can be read; merge others with peft first"));
        }
    }
    Ok(())
}
