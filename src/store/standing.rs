//! Standings: that all steps of a manifest were stored, and what that was
//! concluded from, in one file, so that asking again takes no reading of the
//! manifest's meaning and no reading of records.
//!
//! A standing is only a shortcut. Each of its premises is looked at again
//! before it is believed: the texts, the program and what it was asked, the
//! history, every record by size, inode and the two times of its file, every
//! object by presence and size, as without it. Lost, damaged, older or of
//! another program, it costs time and nothing else. It is kept only when all
//! files it speaks of were at rest for a while, so that no change can hide
//! behind a clock's tick. Knows nothing of manifests and plans.

use crate::{
    base::{failure::Outcome, hash::Digest},
    host::fs::{self, Mark},
    store::{Store, record::ActionRecord},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The first line of the file; another layout has another number.
const MAGIC: &[u8] = b"rekindle standing 1\n";
const SEAL: &str = "rekindle 2026 standing v1";
/// Nanoseconds that a file must have been left alone before it is spoken of.
const REST: u64 = 2_000_000_000;
/// Files that one more thread is worth.
const SHARE: usize = 2_000;

/// What was asked, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The program, the settings and whatever else the reading depended on.
    pub asked: Vec<String>,
    /// Names and digests of the texts that were read.
    pub sources: Vec<(String, Digest)>,
    /// Devices that were asked for their class of arithmetic, and that class.
    pub classes: BTreeMap<String, String>,
    /// The experiment's name.
    pub experiment: String,
    /// The device as asked for.
    pub device: String,
    /// The folder of its report.
    pub results: String,
    /// Digest of all that the report is made of.
    pub report: Digest,
    /// Number of steps.
    pub steps: u64,
    /// The history that knew all of them.
    pub history: Option<Mark>,
}

/// A step whose result is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stood {
    /// Its name for people.
    pub title: String,
    /// Its names in the arms.
    pub names: Vec<String>,
    /// The stage it unrolls.
    pub base: String,
    /// Its kind.
    pub kind: String,
    /// The key of its record.
    pub key: Digest,
    /// The steps it reads, one for each input.
    pub reads: Vec<usize>,
    /// Seconds it would probably take.
    pub estimate: Option<f64>,
    /// Seconds it took.
    pub seconds: f64,
    /// What it counted.
    pub metrics: BTreeMap<String, f64>,
}

/// A standing as it was kept.
pub struct Standing {
    /// What was asked, and what it came to.
    pub about: About,
    bytes: Vec<u8>,
    files: std::ops::Range<usize>,
}

/// A record's file or an object's, and what is expected of it.
enum Expected {
    Record(Digest, Mark),
    Object(Digest, u64),
}

impl Standing {
    /// The standing of a manifest; `None` where there is none to be read.
    pub fn read(store: &Store, manifest: &Path) -> Option<Standing> {
        let bytes = fs::read(&path(store, manifest)).ok()??;
        let sealed = bytes.strip_prefix(MAGIC)?;
        let (seal, body) = sealed.split_first_chunk::<32>()?;
        if Digest::tagged(SEAL, body) != Digest::from_bytes(*seal) {
            return None;
        }
        let mut rest = body;
        let about = serde_json::from_slice(part(&mut rest)?).ok()?;
        let length = part(&mut rest)?.len();
        let end = bytes.len() - rest.len();
        Some(Standing { about, files: end - length..end, bytes })
    }

    /// Whether the history is as it was.
    pub fn knows_history(&self, store: &Store) -> bool {
        fs::mark(&store.root().join("history.jsonl")) == self.about.history
    }

    /// Whether history, records and objects are as they were.
    pub fn holds(&self, store: &Store) -> bool {
        self.knows_history(store) && self.files().is_some_and(|files| all_hold(store, &files))
    }

    fn files(&self) -> Option<Vec<Expected>> {
        let mut rest = &self.bytes[self.files.clone()];
        let mut found = Vec::with_capacity(rest.len() / 40);
        for _ in 0..number(&mut rest)? {
            let key = digest(&mut rest)?;
            let mut next = || number(&mut rest);
            let (size, written, changed, inode) = (next()?, next()?, next()?, next()?);
            found.push(Expected::Record(key, Mark { size, written, changed, inode }));
        }
        for _ in 0..number(&mut rest)? {
            found.push(Expected::Object(digest(&mut rest)?, number(&mut rest)?));
        }
        Some(found)
    }

    /// The steps.
    pub fn steps(&self) -> Option<Vec<Stood>> {
        serde_json::from_slice(&self.bytes[self.files.end..]).ok()
    }

    /// Keeps a standing, unless something it speaks of is too fresh; `since`
    /// is when the looking began, in nanoseconds since 1970.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(
        store: &Store,
        manifest: &Path,
        since: u64,
        mut about: About,
        steps: &[Stood],
        records: &[&ActionRecord],
    ) -> Outcome<()> {
        let at_rest = |mark: &Mark| mark.changed.max(mark.written).saturating_add(REST) < since;
        about.history = fs::mark(&store.root().join("history.jsonl"));
        if !about.history.as_ref().is_some_and(at_rest) {
            return Ok(());
        }
        let (mut marks, mut objects) = (BTreeMap::new(), BTreeSet::new());
        for record in records {
            let Some(mark) = fs::mark(&store.record_path(&record.key)).filter(at_rest) else {
                return Ok(());
            };
            marks.insert(record.key, mark);
            let files = record.outputs.iter().flat_map(|output| &output.files);
            objects.extend(files.map(|file| (file.digest, file.size)));
        }
        if store.has_any_out() {
            objects.retain(|(digest, _)| !store.is_out(digest));
        }
        let mut files = Vec::with_capacity(64 * marks.len() + 40 * objects.len() + 16);
        files.extend((marks.len() as u64).to_le_bytes());
        for (key, mark) in &marks {
            files.extend(key.bytes());
            let Mark { size, written, changed, inode } = *mark;
            [size, written, changed, inode].iter().for_each(|n| files.extend(n.to_le_bytes()));
        }
        files.extend((objects.len() as u64).to_le_bytes());
        for (digest, size) in &objects {
            files.extend(digest.bytes());
            files.extend(size.to_le_bytes());
        }
        let about = serde_json::to_vec(&about).expect("words and digests are JSON");
        let mut body = Vec::with_capacity(about.len() + files.len() + 300 * steps.len());
        for part in [&about, &files] {
            body.extend((part.len() as u64).to_le_bytes());
            body.extend(part);
        }
        serde_json::to_writer(&mut body, steps).expect("names and numbers are JSON");
        let seal = Digest::tagged(SEAL, &body);
        let path = path(store, manifest);
        fs::create_folder(path.parent().unwrap_or(Path::new(".")))?;
        fs::write_if_different(&path, &[MAGIC, seal.bytes(), &body].concat()).map(drop)
    }
}

/// Looks at all files, in several threads where there are many.
fn all_hold(store: &Store, files: &[Expected]) -> bool {
    let threads = (files.len() / SHARE).clamp(1, crate::host::clock::cores());
    if threads == 1 {
        return hold(store, files);
    }
    std::thread::scope(|scope| {
        let parts = files.chunks(files.len().div_ceil(threads));
        let looks: Vec<_> = parts.map(|part| scope.spawn(|| hold(store, part))).collect();
        looks.into_iter().all(|look| look.join().unwrap_or(false))
    })
}

fn hold(store: &Store, files: &[Expected]) -> bool {
    files.iter().all(|file| match file {
        Expected::Record(key, mark) => fs::mark(&store.record_path(key)).as_ref() == Some(mark),
        Expected::Object(digest, size) => fs::size(&store.object(digest)) == Some(*size),
    })
}

/// Cuts a part off that has its length before it.
fn part<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn digest(rest: &mut &[u8]) -> Option<Digest> {
    let (bytes, after) = rest.split_first_chunk::<32>()?;
    *rest = after;
    Some(Digest::from_bytes(*bytes))
}

fn path(store: &Store, manifest: &Path) -> PathBuf {
    let manifest = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let name = Digest::tagged(SEAL, manifest.as_os_str().as_encoded_bytes());
    store.root().join("standings").join(name.short())
}
