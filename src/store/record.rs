//! Action records: what was done, from what, and what came of it.
//!
//! A record is two lines: JSON, and a digest of the JSON. It carries the text
//! its key is the hash of, so a record that does not belong to its key is
//! recognised, and the reason for a rerun is a difference of two texts.

use crate::{
    base::{artifact::ArtifactKind, hash::Digest},
    plan::identity,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const SEAL_CONTEXT: &str = "rekindle 2026 record v1";
const TREE_CONTEXT: &str = "rekindle 2026 tree v1";

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Name within the artifact, such as `scores.json`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the content.
    pub digest: Digest,
}

/// An artifact that an action made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Name of the output, such as `model`.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// Digest of the whole: of the canonical JSON of `files`.
    pub digest: Digest,
    /// Its files, sorted by name.
    pub files: Vec<StoredFile>,
}

impl Output {
    /// An artifact of these files.
    pub fn new(name: &str, kind: ArtifactKind, mut files: Vec<StoredFile>) -> Output {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let digest = tree_digest(&files);
        Output { name: name.to_owned(), kind, digest, files }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

fn tree_digest(files: &[StoredFile]) -> Digest {
    let text = serde_json::to_string(files).expect("names, sizes and digests are JSON");
    Digest::tagged(TREE_CONTEXT, text.as_bytes())
}

/// What was done once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Digest of `identity`.
    pub key: Digest,
    /// The stage's kind.
    pub kind: String,
    /// The canonical text of all that decides the result.
    pub identity: String,
    /// What came of it.
    pub outputs: Vec<Output>,
    /// Counters the stage reported.
    pub metrics: BTreeMap<String, f64>,
    /// What the stage found worth saying.
    pub warnings: Vec<String>,
    /// How it came about; nothing depends on it.
    pub provenance: Provenance,
}

/// Where, when and how long. Never part of an identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The step that was run first with this identity.
    pub step: String,
    /// The run.
    pub run: String,
    /// The host.
    pub host: String,
    /// Version of the program.
    pub program: String,
    /// The device, as it was asked for.
    pub device: String,
    /// Start, seconds since 1970.
    pub started: f64,
    /// Wall time of all attempts that were continued, in seconds.
    pub seconds: f64,
}

impl ActionRecord {
    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("a record is JSON");
        let seal = Digest::tagged(SEAL_CONTEXT, json.as_bytes());
        format!("{json}\n{seal}\n").into_bytes()
    }

    /// Reads a file's content and checks that it is the record of `key`.
    ///
    /// # Errors
    /// What is wrong with it, to be put behind "the record".
    pub fn decode(bytes: &[u8], key: &Digest) -> Result<ActionRecord, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is damaged: not UTF-8")?;
        let (json, seal) = text
            .strip_suffix('\n')
            .and_then(|text| text.split_once('\n'))
            .ok_or("is damaged: it is torn")?;
        if seal.parse() != Ok(Digest::tagged(SEAL_CONTEXT, json.as_bytes())) {
            return Err("is damaged: its seal does not match".to_owned());
        }
        let record: ActionRecord =
            serde_json::from_str(json).map_err(|error| format!("cannot be read: {error}"))?;
        if record.key != *key || identity::action_key(&record.identity) != *key {
            return Err("belongs to another action".to_owned());
        }
        if record.outputs.iter().any(|output| output.digest != tree_digest(&output.files)) {
            return Err("is damaged: an artifact's digest does not match its files".to_owned());
        }
        Ok(record)
    }

    /// Reads a record of `key` whose text was sealed when it was copied, and
    /// whose copy has a good sum.
    pub(super) fn copied(json: &str, key: &Digest) -> Option<ActionRecord> {
        let record: ActionRecord = serde_json::from_str(json).ok()?;
        (record.key == *key && identity::action_key(&record.identity) == *key).then_some(record)
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_is_noticed() {
        let identity = "kind = \"command\"\n".to_owned();
        let key = identity::action_key(&identity);
        let file = StoredFile { name: "a".into(), size: 1, digest: Digest::of_blob(b"x") };
        let record = ActionRecord {
            key,
            kind: "command".into(),
            identity,
            outputs: vec![Output::new("out", ArtifactKind::Files, vec![file])],
            metrics: BTreeMap::from([("tokens".into(), 0.1)]),
            warnings: vec![],
            provenance: Provenance::default(),
        };
        let bytes = record.encode();
        assert_eq!(ActionRecord::decode(&bytes, &key), Ok(record));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(ActionRecord::decode(&damaged, &key).is_err(), "byte {place}");
            assert!(ActionRecord::decode(&bytes[..place], &key).is_err(), "cut at {place}");
        }
    }
}
