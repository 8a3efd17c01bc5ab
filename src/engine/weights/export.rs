//! A folder that Hugging Face's libraries load: configuration, weights in one
//! file or several, and what a tokenizer needs; or files as they are, such as
//! those of an adapter. It appears as a whole.
//!
//! Weights keep their numbers and their format. transformers puts no begin mark
//! before a text for a vocabulary of whole words; this program does.

use super::place::{self, Place};
use crate::base::failure::{Failure, Outcome};
use crate::engine::config::LlamaConfig;
use crate::engine::tokenizer::Tokenizer;
use crate::host::fs;
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Ids that both configurations of transformers know.
const MARKS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// A checkpoint to be written.
#[derive(Debug)]
pub struct Export<'a> {
    /// Its sizes.
    pub config: LlamaConfig,
    /// Its safetensors file.
    pub weights: &'a Path,
    /// Small files that go with it as they are, such as `tokenizer.json`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Most bytes of tensors in one file.
    pub shard_bytes: u64,
}

impl Export<'_> {
    /// Writes the folder `to`; what was in it before must be nothing. Returns
    /// the names of its files.
    ///
    /// # Errors
    /// `Input` when there is something at `to`, or the checkpoint is damaged.
    pub fn write(&self, to: &Path) -> Outcome<Vec<String>> {
        appear(to, |folder| self.fill(folder))
    }

    fn fill(&self, folder: &Path) -> Outcome<()> {
        let tensors = place::of_safetensors(self.weights)?;
        for (name, bytes) in &self.files {
            put(folder, name, bytes)?;
        }
        let marks = self.marks()?;
        put_json(folder, "config.json", &self.config_json(&tensors, &marks)?)?;
        if !self.files.contains_key(GENERATION) {
            put_json(folder, GENERATION, &Value::Object(marks.clone()))?;
        }
        if let Some(tokenizer) = self.files.get(TOKENIZER)
            && !self.files.contains_key(TOKENIZER_CONFIG)
        {
            let longest = self.config.max_position_embeddings;
            put_json(folder, TOKENIZER_CONFIG, &tokenizer_json(tokenizer, &marks, longest)?)?;
        }
        self.put_weights(folder, tensors)
    }

    /// Ids of the marks: those that came with the checkpoint, else the tokenizer's.
    fn marks(&self) -> Outcome<Map<String, Value>> {
        let mut marks = Map::new();
        if let Some(bytes) = self.files.get(GENERATION) {
            let given: Map<String, Value> = parse(GENERATION, bytes)?;
            marks.extend(given.into_iter().filter(|(key, _)| MARKS.contains(&key.as_str())));
        } else if let Some(bytes) = self.files.get(TOKENIZER) {
            let tokenizer = Tokenizer::from_files(&self.files)?;
            if let Some(begin) = tokenizer.begin_mark() {
                marks.insert("bos_token_id".into(), begin.into());
            }
            marks.insert("eos_token_id".into(), tokenizer.end().into());
            let file: Value = parse(TOKENIZER, bytes)?;
            if let Some(pad) = added(&file, |token| token["content"] == "<pad>") {
                marks.insert("pad_token_id".into(), pad["id"].clone());
            }
        }
        Ok(marks)
    }

    fn config_json(
        &self,
        tensors: &[(String, Place)],
        marks: &Map<String, Value>,
    ) -> Outcome<Value> {
        let mut config = serde_json::to_value(&self.config)
            .map_err(|error| Failure::bug("writing `config.json`").caused_by(error))?;
        let formats: Vec<Dtype> = tensors.iter().map(|(_, place)| place.dtype).collect();
        let one = formats.first().filter(|first| formats.iter().all(|dtype| dtype == *first));
        config["torch_dtype"] = match one {
            Some(Dtype::F16) => "float16",
            Some(Dtype::BF16) => "bfloat16",
            _ => "float32",
        }
        .into();
        config["architectures"] = json!(["LlamaForCausalLM"]);
        config["hidden_act"] = "silu".into();
        config["attention_bias"] = false.into();
        config["mlp_bias"] = false.into();
        for (key, id) in marks {
            config[key] = id.clone();
        }
        Ok(config)
    }

    /// One file where all tensors fit into one, else several and an index.
    fn put_weights(&self, folder: &Path, tensors: Vec<(String, Place)>) -> Outcome<()> {
        let total: u64 = tensors.iter().map(|(_, place)| place.length()).sum();
        let mut shards: Vec<Vec<(String, Place)>> = Vec::new();
        let mut room = 0;
        for (name, place) in tensors {
            let length = place.length();
            if shards.is_empty() || length > room {
                shards.push(Vec::new());
                room = self.shard_bytes;
            }
            room = room.saturating_sub(length);
            shards.last_mut().expect("just made").push((name, place));
        }
        if shards.len() <= 1 {
            let only = shards.into_iter().flatten().collect();
            return place::write_safetensors(
                &folder.join("model.safetensors"),
                only,
                &mut |_, _| Ok(()),
            );
        }
        let (count, mut map) = (shards.len(), Map::new());
        for (i, shard) in shards.into_iter().enumerate() {
            let file = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
            map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone().into())));
            place::write_safetensors(&folder.join(file), shard, &mut |_, _| Ok(()))?;
        }
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        put_json(folder, "model.safetensors.index.json", &index)
    }
}

/// Writes the folder `to` with these files, or nothing. What was in it before
/// must be nothing. Returns their names.
///
/// # Errors
/// `Input` when there is something at `to`, and what the system says.
pub fn write_files(to: &Path, files: &BTreeMap<String, Vec<u8>>) -> Outcome<Vec<String>> {
    appear(to, |folder| files.iter().try_for_each(|(name, bytes)| put(folder, name, bytes)))
}

/// Makes the folder `to` as a whole; `fill` gets one that nobody knows yet.
fn appear(to: &Path, fill: impl FnOnce(&Path) -> Outcome<()>) -> Outcome<Vec<String>> {
    let taken = || {
        Failure::input(format!("`{}` is there already and not empty", to.display()))
            .hint("name another folder; nothing is ever overwritten")
    };
    if fs::size(to).is_some() || !fs::names(to)?.is_empty() {
        return Err(taken());
    }
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(name) = name else {
        return Err(Failure::input(format!("`{}` is no name of a folder", to.display())));
    };
    let making = to.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::create_folder(&making)?;
    let written = fill(&making).and_then(|()| {
        for (_, path) in fs::walk(&making)? {
            fs::sync_file(&path)?;
        }
        fs::sync_folder(&making)?;
        // An empty folder is replaced; one that was filled meanwhile is not.
        fs::rename(&making, to)
    });
    if let Err(failure) = written {
        // The failure is reported; what is left of the attempt is only litter.
        let _ = fs::remove_folder(&making);
        return Err(failure);
    }
    fs::names(to)
}

/// What transformers needs besides `tokenizer.json` to have one by itself.
fn tokenizer_json(tokenizer: &[u8], marks: &Map<String, Value>, longest: usize) -> Outcome<Value> {
    let file: Value = parse(TOKENIZER, tokenizer)?;
    let content = |id: &Value| Some(added(&file, |token| token["id"] == *id)?["content"].clone());
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": false,
    });
    for (key, id) in marks {
        if let (Some(token), Some(name)) = (content(id), key.strip_suffix("_id")) {
            config[name] = token;
        }
    }
    if let Some(unknown) = file["model"]["unk_token"].as_str() {
        config["unk_token"] = unknown.into();
    }
    Ok(config)
}

/// The first token of a `tokenizer.json` beside its vocabulary that is meant.
fn added(file: &Value, is_meant: impl Fn(&Value) -> bool) -> Option<&Value> {
    file["added_tokens"].as_array()?.iter().find(|token| is_meant(token))
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::input(format!("`{name}` is damaged")).caused_by(error))
}

fn put_json(folder: &Path, name: &str, value: &Value) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value).expect("a value is JSON") + "\n";
    put(folder, name, text.as_bytes())
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Outcome<()> {
    let path = folder.join(name);
    fs::create_folder(path.parent().unwrap_or(folder))?;
    fs::write(&path, bytes)
}
