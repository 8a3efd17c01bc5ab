//! Stamps: what the files of a report were made of, so that a run with nothing
//! to do need not make them again to see that they are as they were.
//!
//! A stamp is only a shortcut. Where it is missing, unreadable or of another
//! program, the report is made; files are held against their digests, so one
//! that was edited or removed is written again. Knows nothing of what is in a
//! report.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::fs,
    store::Store,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// What the files in a folder were made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// Everything the files depend on.
    pub made_of: Digest,
    /// Digests of the files by name.
    pub files: BTreeMap<String, Digest>,
}

impl Stamp {
    /// The stamp of the folder, if it says that the files were made of this
    /// and they are all as they were made.
    pub fn holds(store: &Store, folder: &Path, made_of: Digest) -> bool {
        let Ok(Some(bytes)) = fs::read(&path(store, folder)) else { return false };
        let Ok(stamp) = serde_json::from_slice::<Stamp>(&bytes) else { return false };
        let is_there = |(name, digest): (&String, &Digest)| {
            fs::digest(&folder.join(name)).is_ok_and(|(_, found)| found == *digest)
        };
        stamp.made_of == made_of && stamp.files.iter().all(is_there)
    }

    /// Keeps the stamp of a folder.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(&self, store: &Store, folder: &Path) -> Outcome<()> {
        let path = path(store, folder);
        fs::create_folder(path.parent().unwrap_or(Path::new(".")))?;
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Failure::bug("packing a stamp").caused_by(error))?;
        fs::write_if_different(&path, &bytes).map(drop)
    }
}

fn path(store: &Store, folder: &Path) -> std::path::PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = Digest::tagged("rekindle 2026 stamp v1", folder.as_os_str().as_encoded_bytes());
    store.root().join("reports").join(format!("{}.json", name.short()))
}
