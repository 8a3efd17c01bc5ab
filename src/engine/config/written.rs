//! A `config.json` as others write it: transformers 4 and 5, and the first
//! LLaMA checkpoints. What is left out means what transformers takes it to
//! mean; what changes the arithmetic and is not ours is refused by name.
//!
//! Knows no weights: whether they fit these sizes is told by their reader.

use super::{LlamaConfig, RopeScaling};
use serde::Deserialize;
use serde_json::{Map, Value};

/// No size of a model that fits on a machine is larger; products of two of
/// them are far from overflowing.
const LARGEST: usize = 1 << 28;

/// No context is longer; the table of rotary positions has this many rows.
const LONGEST: usize = 1 << 22;

/// The fields that matter, as they are found.
#[derive(Debug, Deserialize)]
pub(super) struct Written {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    quantization_config: Option<Value>,
}

impl TryFrom<Written> for LlamaConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<LlamaConfig, String> {
        written.refuse_others()?;
        let (rope_theta, rope_scaling) = written.rope()?;
        let heads = written.num_attention_heads;
        let config = LlamaConfig {
            model_type: "llama".into(),
            vocab_size: written.vocab_size,
            hidden_size: written.hidden_size,
            intermediate_size: written.intermediate_size,
            num_hidden_layers: written.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: written.num_key_value_heads.unwrap_or(heads),
            head_dim: written.head_dim.unwrap_or(written.hidden_size / heads.max(1)),
            max_position_embeddings: written.max_position_embeddings.unwrap_or(2048),
            rms_norm_eps: written.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: written.tie_word_embeddings.unwrap_or(false),
        };
        sensible(&config)?;
        Ok(config)
    }
}

impl Written {
    fn refuse_others(&self) -> Result<(), String> {
        match self.model_type.as_deref() {
            Some("llama") => {}
            Some(other) => {
                return Err(format!("`model_type` is `{other}`, and only `llama` can be run"));
            }
            None => return Err("there is no `model_type`, and only `llama` can be run".into()),
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|act| !["silu", "swish"].contains(act))
        {
            return Err(format!("`hidden_act` is `{act}`, and only `silu` can be run"));
        }
        for (name, given) in [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)]
        {
            if given == Some(true) {
                return Err(format!("`{name}` is true, and only layers without biases can be run"));
            }
        }
        if self.quantization_config.as_ref().is_some_and(|given| !given.is_null()) {
            return Err(
                "there is a `quantization_config`, and only plain weights can be read".into()
            );
        }
        let parts =
            self.rope_parameters.as_ref().and_then(|table| number(table, "partial_rotary_factor"));
        match self.partial_rotary_factor.or(parts) {
            Some(part) if part != 1.0 => Err(format!(
                "`partial_rotary_factor` is {part}, and only heads that turn as a whole can be run"
            )),
            _ => Ok(()),
        }
    }

    /// Base and stretching of the rotary frequencies, from the one table of
    /// transformers 5 or the two fields of transformers 4.
    fn rope(&self) -> Result<(f64, Option<RopeScaling>), String> {
        let empty = Map::new();
        let table = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()).unwrap_or(&empty);
        let base = number(table, "rope_theta").or(self.rope_theta).unwrap_or(10_000.0);
        let kind = ["rope_type", "type"].iter().find_map(|key| table.get(*key)?.as_str());
        let need = |key: &str| {
            let kind = kind.unwrap_or_default();
            let found = number(table, key).filter(|value| *value > 0.0 && value.is_finite());
            found.ok_or_else(|| format!("rotary positions of type `{kind}` need a `{key}` above 0"))
        };
        let scaling = match kind {
            None | Some("default") => None,
            Some("linear") => Some(RopeScaling::Linear { factor: need("factor")? }),
            Some("llama3") => {
                let original = number(table, "original_max_position_embeddings")
                    .or(self.max_position_embeddings.map(|n| n as f64));
                let scaling = RopeScaling::Llama3 {
                    factor: need("factor")?,
                    low_freq_factor: need("low_freq_factor")?,
                    high_freq_factor: need("high_freq_factor")?,
                    original_max_position_embeddings: original.unwrap_or(2048.0) as usize,
                };
                if need("high_freq_factor")? <= need("low_freq_factor")? {
                    return Err("`high_freq_factor` must be above `low_freq_factor`".into());
                }
                Some(scaling)
            }
            Some(other) => {
                return Err(format!(
                    "rotary positions of type `{other}` cannot be run, only `default`, `linear` and `llama3`"
                ));
            }
        };
        Ok((base, scaling))
    }
}

fn number(table: &Map<String, Value>, key: &str) -> Option<f64> {
    table.get(key)?.as_f64()
}

/// What no model can have, told before anything is allocated for it.
fn sensible(config: &LlamaConfig) -> Result<(), String> {
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
        ("head_dim", config.head_dim),
    ];
    let context = ("max_position_embeddings", config.max_position_embeddings, LONGEST);
    let bounded = sizes.into_iter().map(|(name, size)| (name, size, LARGEST)).chain([context]);
    for (name, size, most) in bounded {
        if !(1..=most).contains(&size) {
            return Err(format!("`{name}` is {size}; it must be between 1 and {most}"));
        }
    }
    if !config.num_attention_heads.is_multiple_of(config.num_key_value_heads) {
        return Err(format!(
            "`num_key_value_heads` {} does not divide `num_attention_heads` {}",
            config.num_key_value_heads, config.num_attention_heads
        ));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(format!(
            "`head_dim` is {}; rotary positions need an even one",
            config.head_dim
        ));
    }
    for (name, value) in [("rms_norm_eps", config.rms_norm_eps), ("rope_theta", config.rope_theta)]
    {
        if !(value > 0.0 && value.is_finite()) {
            return Err(format!("`{name}` is {value}; it must be above 0"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: &str = r#"{
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4
    }"#;

    fn read(changes: Value) -> Result<LlamaConfig, String> {
        let mut file: Value = serde_json::from_str(PLAIN).expect("JSON");
        for (key, value) in changes.as_object().expect("a table") {
            file[key] = value.clone();
        }
        LlamaConfig::from_json(file.to_string().as_bytes(), "`config.json`")
            .map_err(|failure| failure.chain().join(": "))
    }

    #[test]
    fn what_is_left_out_means_what_transformers_takes_it_to_mean() {
        let config = read(json!({})).expect("reads");
        assert_eq!((config.head_dim, config.num_key_value_heads), (8, 4));
        assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10_000.0));
        assert_eq!((config.max_position_embeddings, config.tie_word_embeddings), (2048, false));
        assert_eq!(config.rope_scaling, None);
        let config = read(json!({ "head_dim": 100, "rms_norm_eps": 1e-5, "rope_scaling": null }));
        assert_eq!(config.map(|c| (c.head_dim, c.rms_norm_eps)), Ok((100, 1e-5)));
    }

    #[test]
    fn rotary_positions_are_read_in_both_dialects() {
        let of = |changes| read(changes).map(|c| (c.rope_theta, c.rope_scaling));
        let linear = Some(RopeScaling::Linear { factor: 4.0 });
        for word in ["type", "rope_type"] {
            let old = json!({ "rope_theta": 5e5, "rope_scaling": { word: "linear", "factor": 4 } });
            assert_eq!(of(old), Ok((5e5, linear)));
        }
        let new = json!({ "rope_parameters": { "rope_type": "linear", "factor": 4.0, "rope_theta": 5e5 } });
        assert_eq!(of(new), Ok((5e5, linear)));
        let llama3 = json!({ "max_position_embeddings": 128, "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8, "low_freq_factor": 1,
            "high_freq_factor": 4, "original_max_position_embeddings": 64,
        } });
        let (_, scaling) = of(llama3).expect("reads");
        assert!(matches!(
            scaling,
            Some(RopeScaling::Llama3 { original_max_position_embeddings: 64, .. })
        ));
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused_by_name() {
        for (changes, name) in [
            (json!({ "model_type": "mistral" }), "`mistral`"),
            (json!({ "hidden_act": "gelu" }), "`gelu`"),
            (json!({ "attention_bias": true }), "`attention_bias`"),
            (json!({ "mlp_bias": true }), "`mlp_bias`"),
            (json!({ "quantization_config": { "bits": 4 } }), "`quantization_config`"),
            (json!({ "partial_rotary_factor": 0.5 }), "`partial_rotary_factor`"),
            (json!({ "rope_scaling": { "type": "yarn", "factor": 4 } }), "`yarn`"),
            (json!({ "rope_scaling": { "type": "linear" } }), "`factor`"),
            (json!({ "head_dim": 7 }), "`head_dim`"),
            (json!({ "num_key_value_heads": 3 }), "`num_key_value_heads` 3"),
            (json!({ "vocab_size": 0 }), "`vocab_size`"),
            (json!({ "vocab_size": 1u64 << 40 }), "`vocab_size`"),
            (json!({ "max_position_embeddings": 1 << 23 }), "`max_position_embeddings`"),
            (json!({ "num_attention_heads": 0 }), "`num_attention_heads`"),
            (json!({ "hidden_size": "wide" }), "expected usize"),
        ] {
            let refused = read(changes).expect_err(name);
            assert!(refused.contains(name) && refused.contains("`config.json`"), "{refused}");
        }
    }

    #[test]
    fn what_we_write_we_read() {
        let scaled = json!({ "rope_scaling": { "type": "linear", "factor": 2.5 } });
        for changes in [json!({}), scaled] {
            let config = read(changes).expect("reads");
            let bytes = serde_json::to_vec(&config).expect("writes");
            assert_eq!(serde_json::from_slice::<LlamaConfig>(&bytes).expect("reads"), config);
        }
    }
}
