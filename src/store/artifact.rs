//! An artifact as a stage reads it: files by name, out of the store.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Doing, Failure, Outcome},
        hash::Digest,
    },
    host::fs,
    store::{Store, record::Output},
};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// An input of a running stage.
#[derive(Clone, Debug)]
pub struct Artifact {
    store: Store,
    output: Output,
    from: String,
}

impl Artifact {
    /// The artifact `output`, made by the step `from`.
    pub fn new(store: &Store, output: Output, from: &str) -> Artifact {
        Artifact { store: store.clone(), output, from: from.to_owned() }
    }

    /// Digest of its content.
    pub fn digest(&self) -> Digest {
        self.output.digest
    }

    /// What it is.
    pub fn kind(&self) -> ArtifactKind {
        self.output.kind
    }

    /// What the store knows of it.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The step that made it.
    pub fn maker(&self) -> &str {
        &self.from
    }

    /// Names of its files, sorted.
    pub fn files(&self) -> Vec<&str> {
        self.output.files.iter().map(|file| file.name.as_str()).collect()
    }

    /// Path of a file inside the store, to be read only.
    ///
    /// # Errors
    /// When the artifact has no such file, or it is not as it was.
    pub fn file(&self, name: &str) -> Outcome<PathBuf> {
        self.store.file(&self.output, name)
    }

    /// Content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Outcome<Vec<u8>> {
        fs::read(&self.file(name)?)?
            .ok_or_else(|| Failure::environment(format!("{} is gone", self.describe(name))))
    }

    /// A JSON file.
    ///
    /// # Errors
    /// When it cannot be read as a `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Outcome<T> {
        serde_json::from_slice(&self.read(name)?)
            .doing(|| format!("reading {}", self.describe(name)))
    }

    /// The rows of a file with one JSON value on each line.
    ///
    /// # Errors
    /// When a row cannot be read as a `T`.
    pub fn rows<T: DeserializeOwned>(&self, name: &str) -> Outcome<Vec<T>> {
        self.read(name)?
            .split(|&byte| byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .map(|(i, line)| {
                serde_json::from_slice(line)
                    .doing(|| format!("reading line {} of {}", i + 1, self.describe(name)))
            })
            .collect()
    }

    fn describe(&self, name: &str) -> String {
        format!("`{name}` of `{}.{}`", self.from, self.output.name)
    }
}
