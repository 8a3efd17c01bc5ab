//! The weights in a folder that Hugging Face's libraries wrote: one file or
//! several with an index, safetensors or torch's pickles. They come in as one
//! safetensors file, each tensor in the number format it has.
//!
//! Every tensor of the model must be there, with its shape, and no other; the
//! folder is read and never written. Knows no tokenizers.

use super::pickle;
use super::place::{self, Heard, Place};
use super::tensors::is_readable;
use super::zip;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::engine::config::LlamaConfig;
use crate::host::fs;
use safetensors::tensor::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where weights may be, what is better first; `true` for an index of several files.
const PLACES: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Names that a complaint lists.
const SHOWN: usize = 3;

/// Number formats that weights may have, as a person would say them.
pub(super) const FORMATS: &str = "F32, F16 and BF16";

/// The files that hold a folder's weights.
#[derive(Clone, Debug)]
pub struct Weights {
    folder: PathBuf,
    /// Which file has which tensor, if the folder says so.
    index: Option<(String, BTreeMap<String, String>)>,
    /// Names of the files with tensors.
    files: Vec<String>,
}

impl Weights {
    /// Which of the files of a checkpoint leads to its weights, the best one
    /// if there are several, and whether it is an index of others.
    pub fn best(is_there: impl Fn(&str) -> bool) -> Option<(&'static str, bool)> {
        PLACES.into_iter().find(|(name, _)| is_there(name))
    }

    /// Names of the files with tensors that an index names, sorted.
    ///
    /// # Errors
    /// `Input` when it is none, or names something outside its folder.
    pub fn named_by(index: &Path) -> Outcome<BTreeSet<String>> {
        let files: BTreeSet<String> = read_index(index)?.into_values().collect();
        match files.iter().find(|file| !fs::is_plain_name(file)) {
            Some(file) => Err(outside(index, file, "is no path inside the folder")),
            None => Ok(files),
        }
    }

    /// Looks for weights in a folder; reads no tensor.
    ///
    /// # Errors
    /// `Input` when there are none, or an index names a file that is not there.
    pub fn find(folder: &Path) -> Outcome<Weights> {
        let there = |name: &str| fs::size(&folder.join(name)).is_some();
        let Some((name, indexed)) = Self::best(there) else {
            let names: Vec<_> = PLACES.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(Failure::input(format!("there are no weights in `{}`", folder.display()))
                .hint(format!("looked for {}", names.join(", "))));
        };
        let found = Weights { folder: folder.to_owned(), index: None, files: vec![name.into()] };
        if !indexed {
            return Ok(found);
        }
        let map = read_index(&folder.join(name))?;
        let files: BTreeSet<&String> = map.values().collect();
        for file in &files {
            let problem = match () {
                () if !fs::is_plain_name(file) => "is no path inside the folder",
                () if !there(file) => "is not in the folder",
                () => continue,
            };
            return Err(outside(&folder.join(name), file, problem));
        }
        let files = files.into_iter().cloned().collect();
        Ok(Weights { index: Some((name.into(), map)), files, ..found })
    }

    /// Names of all files that are read, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut files = self.files.clone();
        files.extend(self.index.iter().map(|(name, _)| name.clone()));
        files.sort();
        files
    }

    /// Writes the weights of a model as one safetensors file, number formats
    /// as they are; at most one buffer of them is in memory. `heard` gets the
    /// bytes written and those to write, and may end it by an error.
    ///
    /// # Errors
    /// `Input` when a file is damaged, or its tensors are not those of
    /// `config`, and what `heard` returns.
    pub fn gather(&self, config: &LlamaConfig, to: &Path, heard: Heard) -> Outcome<()> {
        let chosen = choose(config, self.places()?)
            .map_err(|failure| at(failure, &self.folder.display().to_string()))?;
        place::write_safetensors(to, chosen, heard)
    }

    /// Every tensor of every file.
    fn places(&self) -> Outcome<BTreeMap<String, Place>> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for file in &self.files {
            let path = self.folder.join(file);
            let is_pickle = !file.ends_with(".safetensors");
            let found = if is_pickle { of_torch(&path)? } else { place::of_safetensors(&path)? };
            for (name, place) in found {
                if let Some(other) = places.insert(name.clone(), place) {
                    return Err(Failure::input(format!(
                        "tensor `{name}` is in `{}` and in `{}`",
                        other.file.display(),
                        path.display()
                    )));
                }
            }
        }
        for (name, file) in self.index.iter().flat_map(|(_, map)| map) {
            let path = self.folder.join(file);
            if places.get(name).is_none_or(|place| place.file != path) {
                return Err(Failure::input(format!(
                    "tensor `{name}` is not in `{}`, where the index says it is",
                    path.display()
                )));
            }
        }
        Ok(places)
    }
}

/// The tensors of a model out of all that were found.
fn choose(
    config: &LlamaConfig,
    mut places: BTreeMap<String, Place>,
) -> Outcome<Vec<(String, Place)>> {
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    for (name, rows, columns) in config.parameters() {
        let Some(place) = places.remove(&name) else {
            missing.push(name);
            continue;
        };
        check(&name, place.dtype, &place.shape, rows, columns)?;
        chosen.push((name, place));
    }
    if config.tie_word_embeddings
        && let Some(head) = places.remove("lm_head.weight")
        && let Some((_, embedding)) = chosen.iter().find(|(name, _)| name == EMBEDDING)
        && !place::same_content(&head, embedding)?
    {
        return Err(Failure::input(
            "`config.json` ties the embeddings, and `lm_head.weight` is another matrix than the embedding",
        )
        .hint("set `tie_word_embeddings` to false in `config.json` to use both"));
    }
    // Old checkpoints carry frequencies.
    let unexpected: Vec<String> =
        places.into_keys().filter(|name| !name.ends_with("rotary_emb.inv_freq")).collect();
    for (names, what) in [(missing, "missing"), (unexpected, "of another kind of model")] {
        if !names.is_empty() {
            let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = names.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Failure::input(format!("tensors are {what}: {}{more}", shown.join(", ")))
                .hint("`config.json` and the weights must be of the same LLaMA for causal language modelling"));
        }
    }
    Ok(chosen)
}

/// Whether a tensor is what the configuration says.
///
/// # Shapes
/// `[rows, columns]`, or `[columns]` where there is one row
///
/// # Errors
/// `Input` when its shape or its number format is another.
pub(super) fn check(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    rows: usize,
    columns: usize,
) -> Outcome<()> {
    if !is_readable(dtype) {
        return Err(Failure::input(format!(
            "the numbers of tensor `{name}` are {dtype:?}; only {FORMATS} can be read"
        )));
    }
    if shape == [rows, columns] || rows == 1 && shape == [columns] {
        return Ok(());
    }
    Err(Failure::input(format!(
        "tensor `{name}` has the shape {shape:?}, `config.json` makes it [{rows}, {columns}]"
    )))
}

fn outside(index: &Path, file: &str, problem: &str) -> Failure {
    Failure::input(format!("`{}` names the file `{file}`, which {problem}", index.display()))
        .hint("fetch the whole checkpoint again")
}

fn at(mut failure: Failure, place: &str) -> Failure {
    failure.what = format!("`{place}`: {}", failure.what);
    failure
}

/// Which file has which tensor, as an index says.
fn read_index(path: &Path) -> Outcome<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = fs::read(path)?.unwrap_or_default();
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::input(format!("`{}` is no index of weights", path.display())).caused_by(error)
    })?;
    Ok(index.weight_map)
}

/// The tensors of a file that `torch.save` wrote.
fn of_torch(path: &Path) -> Outcome<Vec<(String, Place)>> {
    let refused = |why: String| {
        Failure::input(format!("`{}` cannot be read: {why}", path.display()))
            .hint("only tensors saved by torch 1.6 or newer can be; safetensors are safer to fetch")
    };
    let doing = || format!("reading `{}`", path.display());
    let mut file = File::open(path).doing(doing)?;
    let parts = zip::parts(&mut file).map_err(refused)?;
    let is_list = |part: &&zip::Part| part.name.ends_with("/data.pkl");
    let list = parts.iter().find(is_list).ok_or_else(|| refused("it has no `data.pkl`".into()))?;
    let root = list.name.strip_suffix("data.pkl").unwrap_or_default();
    let part = |name: &str| parts.iter().find(|part| part.name == format!("{root}{name}"));
    let mut content = |part: &zip::Part| zip::content(&mut file, part).map_err(refused);
    if let Some(order) = part("byteorder")
        && content(order)? != b"little"
    {
        return Err(refused("its numbers are not least byte first".into()));
    }
    let stored = pickle::tensors(&content(list)?).map_err(refused)?;
    let by_name: BTreeMap<&str, &zip::Part> =
        parts.iter().map(|part| (part.name.as_str(), part)).collect();
    let mut places = Vec::with_capacity(stored.len());
    for (name, tensor) in stored {
        let storage = by_name.get(format!("{root}data/{}", tensor.storage).as_str());
        // In 128 bits nothing that a file can say overflows.
        let bytes = tensor.dtype.bitsize() as u128 / 8;
        let start = u128::from(tensor.offset) * bytes;
        let length = tensor.shape.iter().map(|&n| n as u128).try_fold(bytes, u128::checked_mul);
        let fits = |part: &&&zip::Part| {
            length.is_some_and(|length| start + length <= u128::from(part.length))
        };
        let Some(storage) = storage.filter(fits) else {
            return Err(refused(format!("tensor `{name}` does not lie in its storage")));
        };
        let (dtype, shape) = (tensor.dtype, tensor.shape);
        let start = storage.start + start as u64;
        places.push((name, Place { file: path.to_owned(), dtype, shape, start }));
    }
    Ok(places)
}
