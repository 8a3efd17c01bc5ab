//! What is out: contents that a record speaks of and that were left out of a
//! pack or taken out to save space. A mark stands for each.
//!
//! A result whose contents are out counts as stored, since nothing says that it
//! would come out otherwise; it is made again when a step reads it, or a person
//! wants it back. A content that is missing without a mark is damage.

use crate::{
    base::{failure::Outcome, hash::Digest},
    host::fs,
    store::{Store, record::ActionRecord},
};
use std::{collections::BTreeSet, path::PathBuf};

impl Store {
    fn mark(&self, digest: &Digest) -> PathBuf {
        self.shelved("/out/", digest, "")
    }

    /// Whether an object is missing on purpose.
    pub fn is_out(&self, digest: &Digest) -> bool {
        fs::size(&self.mark(digest)).is_some() && fs::size(&self.object(digest)).is_none()
    }

    /// Whether something that a record speaks of is missing on purpose.
    pub fn has_out(&self, record: &ActionRecord) -> bool {
        let mut files = record.outputs.iter().flat_map(|output| &output.files);
        files.any(|file| self.is_out(&file.digest))
    }

    /// Whether anything at all ever was taken out.
    pub fn has_any_out(&self) -> bool {
        self.root().join("out").exists()
    }

    /// Marks objects as missing on purpose. They are marked on the disk when
    /// this returns, and may be removed then.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mark_out<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Outcome<()> {
        let mut shelves = BTreeSet::new();
        for digest in digests {
            let path = self.mark(digest);
            let shelf = path.parent().expect("a mark is on a shelf").to_owned();
            fs::create_lasting_folder(&shelf)?;
            fs::write(&path, b"")?;
            shelves.insert(shelf);
        }
        shelves.iter().try_for_each(|shelf| fs::sync_folder(shelf))
    }

    /// Forgets that contents of a record are missing on purpose, so that the
    /// next run makes it again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn want_back(&self, record: &ActionRecord) -> Outcome<()> {
        let files = record.outputs.iter().flat_map(|output| &output.files);
        files.map(|file| self.mark(&file.digest)).try_for_each(|mark| fs::remove_file(&mark))
    }
}
