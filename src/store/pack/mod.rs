//! Packs: all that a study came to, as one file that another machine can check
//! without asking anybody, and go on from.
//!
//! A pack is a plain tar archive of these files, in this order:
//!
//! | name | is |
//! |---|---|
//! | `pack.json` | what it is a pack of, and which contents were left out |
//! | `records/KEY.json` | action records, as the store has them |
//! | `objects/DIGEST` | contents of files |
//! | `doubts/KEY.json` | results that came out otherwise when they were made again |
//! | `runs/RUN.jsonl` | journals |
//! | `history.jsonl` | which action each step came to |
//! | `manifest/..`, `results/..` | the manifest with what it extends, and the report |
//! | `seal` | a digest of all names, sizes and contents before it |
//!
//! The same results give the same bytes. Nobody's names are trusted: a name that
//! is none of these ends the reading, and what is taken into a store is called by
//! the digest of its content. Knows nothing of manifests or reports but their bytes.

mod reading;
mod writing;

use crate::base::hash::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use reading::{Found, Taken, check, take};
pub use writing::{Contents, Packed, write};

/// Version of the layout.
const VERSION: u32 = 1;
const HEAD: &str = "pack.json";
const HISTORY: &str = "history.jsonl";
const SEAL: &str = "seal";
/// What comes after what; within a part, names ascend.
const ORDER: [&str; 9] =
    [HEAD, "records/", "objects/", "doubts/", "runs/", HISTORY, "manifest/", "results/", SEAL];

/// What a pack says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    /// Version of the layout.
    pub rekindle_pack: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The experiment's name.
    pub experiment: String,
    /// The manifest that was asked for, below `manifest/`.
    pub manifest: String,
    /// What `--set` changed in it.
    pub sets: Vec<String>,
    /// The device it was planned for.
    pub device: String,
    /// Contents that are not in it, with their bytes.
    pub left_out: BTreeMap<Digest, u64>,
}

/// The digest of names, sizes and contents, in the making.
struct Sealing(Hasher);

impl Sealing {
    fn new() -> Sealing {
        Sealing(Hasher::tagged("rekindle 2026 pack v1"))
    }

    fn add(&mut self, name: &str, size: u64, content: &Digest) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&size.to_le_bytes());
        self.0.update(content.bytes());
    }

    fn text(&self) -> String {
        format!("{}\n", self.0.finish())
    }
}
