//! Copies of the records in one file, `known.jsonl`, so that looking at
//! thousands of them takes one reading and no opening of thousands of files.
//!
//! Each line carries its own sum and what the record's file looked like (size,
//! inode, both times). It is believed only while the file still looks so and
//! has been at rest for a while; else the file itself is read. Lost, damaged or
//! behind, the copies cost time and nothing else: what a line says was sealed
//! once, and whether outputs are there is looked at on the disk as ever. Lines
//! are added behind the end, by any number of processes. Knows nothing of why
//! a record is wanted.

use crate::{
    base::hash::Digest,
    host::{
        clock,
        fs::{self, Mark},
    },
    store::{
        Store,
        lines::{self, Lines},
        record::ActionRecord,
    },
};
use std::{
    collections::HashMap,
    ops::Range,
    path::PathBuf,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Nanoseconds that a record's file must have been left alone before a copy
/// stands for it, so that no change can hide behind a clock's tick.
const REST: u64 = 2_000_000_000;
/// Records that are read from their own files before the copies are read.
const FEW: usize = 32;

/// The copies, once they were needed.
#[derive(Debug, Default)]
pub(super) struct Known {
    copies: OnceLock<Copies>,
    /// Records that were asked for.
    asked: AtomicUsize,
    /// Where lines are added; not before the first one is, nor in a store that
    /// is only read.
    adding: Mutex<Option<Lines>>,
    adds: AtomicBool,
}

#[derive(Debug, Default)]
struct Copies {
    bytes: Vec<u8>,
    /// The last copy of each record, and its file's mark.
    places: HashMap<Digest, (Mark, Range<usize>)>,
    /// The time they were read, in nanoseconds since 1970.
    now: u64,
}

impl Known {
    /// Begins to add copies, in a store that is written to.
    pub(super) fn add(&self) {
        self.adds.store(true, Ordering::Relaxed);
    }
}

impl Copies {
    fn read(store: &Store) -> Copies {
        let bytes = fs::read(&path(store)).ok().flatten().unwrap_or_default();
        let mut places = HashMap::with_capacity(bytes.len() / 1000);
        let begin = bytes.as_ptr() as usize;
        for line in lines::good(&bytes) {
            if let Some((key, mark, record)) = taken_apart(line) {
                let start = record.as_ptr() as usize - begin;
                places.insert(key, (mark, start..start + record.len()));
            }
        }
        Copies { bytes, places, now: (clock::unix_seconds() * 1e9) as u64 }
    }

    fn record(&self, key: &Digest, file: &Mark) -> Option<ActionRecord> {
        let (mark, place) = self.places.get(key)?;
        let rests = mark.changed.max(mark.written).saturating_add(REST) < self.now;
        let text = std::str::from_utf8(&self.bytes[place.clone()]).ok()?;
        (mark == file && rests).then(|| ActionRecord::copied(text, key))?
    }
}

impl Store {
    /// Reads the copies of records now, for whoever is going to look at many.
    pub fn look_ahead(&self) {
        self.known.copies.get_or_init(|| Copies::read(self));
    }

    /// A record by its copy, if many are asked for and its file is as it was.
    /// The file's mark comes with it, where it was looked at.
    pub(super) fn copy_of(&self, key: &Digest) -> (Option<Mark>, Option<ActionRecord>) {
        if self.known.asked.fetch_add(1, Ordering::Relaxed) >= FEW {
            self.look_ahead();
        }
        let Some(copies) = self.known.copies.get() else { return (None, None) };
        let Some(mark) = fs::mark(&self.record_path(key)) else { return (None, None) };
        let copy = copies.record(key, &mark);
        (Some(mark), copy)
    }

    /// Adds a copy of a record that was read from its own file, unless there is
    /// one; `mark` is the file's from before it was read, `file` its content.
    pub(super) fn copy_late(&self, key: &Digest, mark: Option<Mark>, file: &[u8]) {
        let (Some(mark), Some(copies)) = (mark, self.known.copies.get()) else { return };
        if copies.places.get(key).is_none_or(|(known, _)| *known != mark) {
            self.copy(key, &mark, file);
        }
    }

    /// Adds a copy of a record whose file, with this content, was just written.
    pub(super) fn copy_new(&self, key: &Digest, file: &[u8]) {
        if let Some(mark) = fs::mark(&self.record_path(key)) {
            self.copy(key, &mark, file);
        }
    }

    fn copy(&self, key: &Digest, mark: &Mark, file: &[u8]) {
        let json = std::str::from_utf8(file).ok().and_then(|text| text.lines().next());
        let (Some(json), true) = (json, self.known.adds.load(Ordering::Relaxed)) else { return };
        let Mark { size, written, changed, inode } = mark;
        let line = format!("[\"{key}\",{size},{written},{changed},{inode},{json}]");
        let mut adding = self.known.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if adding.is_none() {
            *adding = Lines::append_to(&path(self)).ok();
        }
        // What could not be added is read from its own file the next time.
        let added = adding.as_mut().is_some_and(|lines| lines.append(&line).is_ok());
        if !added {
            *adding = None;
        }
    }
}

/// Key, mark and record of a line.
fn taken_apart(line: &str) -> Option<(Digest, Mark, &str)> {
    let mut parts = line.strip_prefix('[')?.strip_suffix(']')?.splitn(6, ',');
    let key = parts.next()?.trim_matches('"').parse().ok()?;
    let mut number = || parts.next()?.parse().ok();
    let (size, written, changed, inode) = (number()?, number()?, number()?, number()?);
    Some((key, Mark { size, written, changed, inode }, parts.next()?))
}

fn path(store: &Store) -> PathBuf {
    store.root().join("known.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::artifact::ArtifactKind,
        plan::identity,
        store::{
            Lookup,
            record::{Output, Provenance},
        },
    };
    use std::{collections::BTreeMap, path::Path, time::SystemTime};

    /// Publishes records of empty results.
    fn publish(store: &Store, numbers: Range<usize>) -> Vec<Digest> {
        let one = |number: usize| {
            let identity = format!("kind = \"command\"\nversion = {number}\n");
            let record = ActionRecord {
                key: identity::action_key(&identity),
                kind: "command".into(),
                identity,
                outputs: vec![Output::new("out", ArtifactKind::Files, vec![])],
                metrics: BTreeMap::from([("n".into(), 0.1)]),
                warnings: vec!["a, \"b\"".into()],
                provenance: Provenance::default(),
            };
            let attempt = store.attempt(&record.key).unwrap();
            store.publish(&record, &attempt).unwrap();
            record.key
        };
        numbers.map(one).collect()
    }

    /// Lets the copies be as old as they must be.
    fn aged(root: &Path) -> Store {
        let store = Store::open_existing(root).unwrap().unwrap();
        let mut copies = Copies::read(&store);
        copies.now += 2 * REST;
        store.known.copies.set(copies).unwrap();
        store
    }

    fn copies(store: &Store, keys: &[Digest]) -> usize {
        keys.iter().filter(|key| store.copy_of(key).1.is_some()).count()
    }

    #[test]
    fn a_copy_stands_for_its_file_only_while_that_is_as_it_was() {
        let folder = temp_dir::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = publish(&store, 0..4);
        let aged = || aged(folder.path());
        assert_eq!(copies(&aged(), &keys), 4);
        for key in &keys {
            assert_eq!(aged().copy_of(key).1, store.record(key).unwrap());
        }
        // Just written, they are read from their files.
        let young = Store::open_existing(folder.path()).unwrap().unwrap();
        young.look_ahead();
        assert_eq!(copies(&young, &keys), 0);
        std::fs::remove_file(store.record_path(&keys[0])).unwrap();
        assert!(matches!(aged().look_up(&keys[0], false), Ok(Lookup::Miss)));
        let touched = std::fs::File::options().write(true).open(store.record_path(&keys[1]));
        let hour = std::time::Duration::from_secs(3600);
        touched.unwrap().set_modified(SystemTime::now() - hour).unwrap();
        assert_eq!(copies(&aged(), &keys), 2);
        let cut = std::fs::read(store.record_path(&keys[2])).unwrap();
        std::fs::write(store.record_path(&keys[2]), &cut[1..]).unwrap();
        assert!(matches!(aged().look_up(&keys[2], false), Ok(Lookup::Damaged(_))));
    }

    #[test]
    fn damage_to_the_copies_costs_copies_and_nothing_else() {
        let folder = temp_dir::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = publish(&store, 0..3);
        let path = path(&store);
        let whole = std::fs::read(&path).unwrap();
        let hits = |store: &Store| {
            let hit = |key: &&Digest| matches!(store.look_up(key, false), Ok(Lookup::Hit(_)));
            keys.iter().filter(hit).count()
        };
        for place in (0..whole.len()).step_by(17) {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let aged = aged(folder.path());
            assert_eq!((copies(&aged, &keys), hits(&aged)), (2, 3), "flip at {place}");
            std::fs::write(&path, &whole[..place]).unwrap();
            assert_eq!(hits(&self::aged(folder.path())), 3, "cut at {place}");
        }
        // A store that is written to gets them again from the files.
        let again = Store::open(folder.path()).unwrap();
        std::fs::write(&path, b"torn").unwrap();
        again.look_ahead();
        assert_eq!((hits(&again), copies(&aged(folder.path()), &keys)), (3, 3));
        assert_eq!(hits(&aged(folder.path())), 3);
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(
            (hits(&Store::open(folder.path()).unwrap()), length),
            (3, { std::fs::metadata(&path).unwrap().len() })
        );
    }

    #[test]
    fn two_who_add_at_once_lose_nothing() {
        let folder = temp_dir::TempDir::new().unwrap();
        let stores = [0, 1].map(|_| Store::open(folder.path()).unwrap());
        let keys = std::thread::scope(|scope| {
            let [a, b] = &stores;
            let (a, b) = (scope.spawn(|| publish(a, 0..50)), scope.spawn(|| publish(b, 50..100)));
            [a.join().unwrap(), b.join().unwrap()].concat()
        });
        assert_eq!(copies(&aged(folder.path()), &keys), 100);
    }
}
