//! Doubts: results that came out otherwise when they were made again.
//!
//! A doubt lies beside the record and changes nothing about it: the first result
//! stays the one that later steps were made of. Whoever shows results tells of
//! it. Losing a doubt loses a warning, never a result.

use crate::{
    base::{failure::Outcome, hash::Digest},
    host::fs,
    store::{Store, lines},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// What came out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doubt {
    /// The step that was made again.
    pub step: String,
    /// Outputs that differ: name, digest as it is stored, digest of the second making.
    pub outputs: Vec<(String, Digest, Digest)>,
    /// When, in seconds since 1970.
    pub at: f64,
    /// The host of the second making.
    pub host: String,
    /// The program's version then.
    pub program: String,
    /// The device then, as asked for.
    pub device: String,
}

/// Where the doubt of an action is.
pub(super) fn path(store: &Store, key: &Digest) -> PathBuf {
    store.root().join("doubts").join(format!("{key}.json"))
}

impl Doubt {
    /// Keeps a doubt; a later one takes the place of an earlier one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(&self, store: &Store, key: &Digest) -> Outcome<()> {
        let path = path(store, key);
        fs::create_folder(&store.root().join("doubts"))?;
        let line = lines::encode(&serde_json::to_string(self).expect("a doubt is JSON"));
        fs::write_if_different(&path, line.as_bytes()).map(drop)
    }

    /// The doubt of an action, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(store: &Store, key: &Digest) -> Outcome<Option<Doubt>> {
        let line = lines::read(&path(store, key))?;
        Ok(line.first().and_then(|line| serde_json::from_str(line).ok()))
    }
}

/// The actions whose results are in doubt.
///
/// # Errors
/// When the folder cannot be listed.
pub fn all(store: &Store) -> Outcome<BTreeSet<Digest>> {
    let names = fs::names(&store.root().join("doubts"))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}
