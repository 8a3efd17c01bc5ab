//! Which tokens begin, end and fill up texts: read out of the small files that
//! lie beside a tokenizer, never assumed by number.
//!
//! Knows names of files and of settings, not how a vocabulary is built.

use super::Files;
use crate::base::failure::{Failure, Outcome};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A special token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u32,
    pub(super) text: String,
}

/// The special tokens of a vocabulary.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) bos: Option<Mark>,
    pub(super) eos: Mark,
    /// What stands for whatever is not in the vocabulary.
    pub(super) unknown: Option<u32>,
    /// Whether every text begins with `bos`.
    pub(super) adds_bos: bool,
    /// All of them, the named and the added special ones.
    pub(super) all: BTreeSet<u32>,
    pub(super) chat_template: Option<String>,
}

/// A token that was added to a vocabulary from outside.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) text: String,
    pub(super) special: bool,
    /// Takes the white space to its left, to its right, with it.
    pub(super) strip: (bool, bool),
}

/// What the small files say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// `bos_token`, `eos_token`, ... as they are spelled; `None` where one is
    /// said not to exist.
    named: BTreeMap<String, Option<String>>,
    pub(super) more_special: Vec<String>,
    adds_bos: Option<bool>,
    /// Whether a blank is thought in front of every piece between special tokens.
    pub(super) legacy: bool,
    pub(super) prefix_space: bool,
    pub(super) added: Vec<Added>,
    chat_template: Option<String>,
}

const NAMED: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

impl Settings {
    pub(super) fn read(files: &Files) -> Outcome<Settings> {
        let json = |name: &str| -> Outcome<Value> {
            let Some(bytes) = files.get(name) else { return Ok(Value::Null) };
            serde_json::from_slice(bytes)
                .map_err(|error| Failure::input(format!("`{name}` is not JSON")).caused_by(error))
        };
        let (map, config) = (json("special_tokens_map.json")?, json("tokenizer_config.json")?);
        let mut settings = Settings {
            // A file from before the switch existed means the old behaviour.
            legacy: config["legacy"].as_bool().unwrap_or(true),
            prefix_space: config["add_prefix_space"].as_bool().unwrap_or(true),
            adds_bos: config["add_bos_token"].as_bool(),
            ..Settings::default()
        };
        // The configuration has the last word, as it has in transformers.
        for source in [&map, &config] {
            for name in NAMED {
                if let Some(value) = source.get(name) {
                    settings.named.insert(name.to_owned(), spelled(value));
                }
            }
            for name in ["additional_special_tokens", "extra_special_tokens"] {
                let more = source[name].as_array().into_iter().flatten();
                settings.more_special.extend(more.filter_map(spelled));
            }
        }
        if let Some(added) = json("added_tokens.json")?.as_object() {
            for (text, id) in added {
                let id = number("added_tokens.json", id.as_u64(), text)?;
                let (special, strip) = (false, (false, false));
                settings.added.push(Added { id, text: text.clone(), special, strip });
            }
        }
        if let Some(added) = config["added_tokens_decoder"].as_object() {
            for (id, token) in added {
                let text = spelled(token).unwrap_or_default();
                let id = number("tokenizer_config.json", id.parse().ok(), &text)?;
                settings.added.retain(|other| other.text != text);
                let flag = |name: &str| token[name].as_bool().unwrap_or(false);
                let strip = (flag("lstrip"), flag("rstrip"));
                settings.added.push(Added { id, text, special: flag("special"), strip });
            }
        }
        settings.chat_template = match files.get("chat_template.jinja") {
            Some(bytes) => Some(String::from_utf8(bytes.clone()).map_err(|error| {
                Failure::input("`chat_template.jinja` is not UTF-8").caused_by(error)
            })?),
            None => template(&config["chat_template"]),
        };
        Ok(settings)
    }

    /// The spelling of every named token.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.named.values().filter_map(Option::as_deref)
    }
}

/// A token, written as text or as a table with its `content`.
fn spelled(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// A template, written as text or as a list of named ones with a `default`.
fn template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let default = value.as_array()?.iter().find(|one| one["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}

fn number(file: &str, id: Option<u64>, text: &str) -> Outcome<u32> {
    id.and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| Failure::input(format!("`{file}` gives the token `{text}` no id")))
}

impl Marks {
    /// Finds the special tokens: by the settings, and where these are silent by
    /// the `usual` spellings, name by name, the first that the vocabulary has.
    pub(super) fn find(
        settings: &Settings,
        usual: &[(&str, Vec<String>)],
        adds_bos: bool,
        id: &dyn Fn(&str) -> Option<u32>,
    ) -> Outcome<Marks> {
        let look = |which: &str| -> Outcome<Option<Mark>> {
            let mark = |text: &str| Some(Mark { id: id(text)?, text: text.to_owned() });
            match settings.named.get(which) {
                Some(Some(text)) => mark(text).map(Some).ok_or_else(|| {
                    Failure::input(format!("the `{which}` `{text}` is not in the vocabulary"))
                        .hint("the files beside the tokenizer belong to another one")
                }),
                Some(None) => Ok(None),
                None => {
                    let texts = usual.iter().filter(|(name, _)| *name == which);
                    Ok(texts.flat_map(|(_, texts)| texts).find_map(|text| mark(text)))
                }
            }
        };
        let bos = look("bos_token")?;
        let eos = look("eos_token")?.ok_or_else(|| {
            Failure::input("nothing says which token ends a text").hint(
                "put the `tokenizer_config.json` that belongs to the tokenizer beside it; \
                 its `eos_token` is what is missing",
            )
        })?;
        let mut all: BTreeSet<u32> =
            [Some(eos.id), bos.as_ref().map(|m| m.id)].into_iter().flatten().collect();
        all.extend(look("pad_token")?.map(|mark| mark.id));
        let unknown = look("unk_token")?.map(|mark| mark.id);
        all.extend(settings.more_special.iter().filter_map(|text| id(text)));
        Ok(Marks {
            adds_bos: bos.is_some() && settings.adds_bos.unwrap_or(adds_bos),
            bos,
            eos,
            unknown,
            all,
            chat_template: settings.chat_template.clone(),
        })
    }
}
