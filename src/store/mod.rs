//! The store: everything a run made, by content, under one folder.
//!
//! | folder | holds |
//! |---|---|
//! | `objects/` | contents of files, by digest, read-only |
//! | `actions/` | one record for each thing that was done, by action key |
//! | `partial/` | what an unfinished action may go on from |
//! | `runs/` | a journal for each run |
//! | `history.jsonl` | which action each step of each experiment came to |
//! | `known.jsonl` | copies of the records, which save the opening of their files |
//! | `locks/` | one lock file per action, never removed |
//! | `replies/` | what other programs' models said, by what they were asked |
//! | `reports/` | what the files of each report were made of |
//! | `standings/` | which manifests had all their steps stored, and by what that was seen |
//! | `tmp/` | files in the making |
//! | `quarantine/` | what did not match its digest |
//! | `out/` | a mark for each object that was left out or taken out on purpose |
//! | `doubts/` | which results came out otherwise when they were made again |
//!
//! Truth is objects, records and journals; nothing is modified in place, and a
//! name appears only after what it stands for is on the disk (object, record,
//! journal, in this order). Knows nothing of stages or plans.

pub mod artifact;
pub mod doubt;
pub mod history;
pub mod journal;
mod known;
pub mod lines;
pub mod out;
pub mod pack;
pub mod partial;
pub mod record;
pub mod replies;
pub mod room;
pub mod slot;
pub mod spread;
pub mod stamp;
pub mod standing;
pub mod upkeep;

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::{
        fs,
        lock::{self, Lock},
    },
    store::record::{ActionRecord, Output, StoredFile},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Version of the layout that this program writes.
pub const VERSION: u32 = 1;

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    known: Arc<known::Known>,
    slots: Arc<slot::Slots>,
}

/// What is known of an action.
#[derive(Debug)]
pub enum Lookup {
    /// Done, and everything it made is here.
    Hit(Box<ActionRecord>),
    /// Never done here.
    Miss,
    /// Done, but this file (name, reason) is not as it was.
    Damaged(String),
}

impl Store {
    /// Opens the store at `root`, and makes it where there is none.
    ///
    /// # Errors
    /// When the folder cannot be written or belongs to another version.
    pub fn open(root: &Path) -> Outcome<Store> {
        if let Some(store) = Store::open_existing(root)? {
            return Ok(store.written_to());
        }
        let store = Store { root: root.to_owned(), known: Arc::default(), slots: Arc::default() };
        store.known.add();
        fs::create_lasting_folder(root).map_err(unwritable)?;
        for folder in ["objects", "actions", "partial", "runs", "locks", "tmp", "quarantine"] {
            fs::create_folder(&root.join(folder)).map_err(unwritable)?;
        }
        // VERSION says that all of them are there.
        fs::sync_folder(root)?;
        let temporary = root.join("tmp").join(format!("version-{}", std::process::id()));
        let version = format!("{VERSION}\n");
        let written = fs::write_atomic(&root.join("VERSION"), &temporary, version.as_bytes());
        // Where another process made the same store first, all is well.
        if store.check_version()? { Ok(store) } else { written.map(|()| store).map_err(unwritable) }
    }

    /// Opens the store at `root` for reading; `None` where there is none.
    ///
    /// # Errors
    /// When it belongs to another version.
    pub fn open_existing(root: &Path) -> Outcome<Option<Store>> {
        let store = Store { root: root.to_owned(), known: Arc::default(), slots: Arc::default() };
        Ok(store.check_version()?.then_some(store))
    }

    /// The same store, to be written to.
    pub fn written_to(self) -> Store {
        self.known.add();
        self
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn check_version(&self) -> Outcome<bool> {
        let Some(bytes) = fs::read(&self.root.join("VERSION"))? else { return Ok(false) };
        let text = String::from_utf8_lossy(&bytes);
        match text.trim().parse::<u32>() {
            Ok(version) if version == VERSION => Ok(true),
            Ok(version) if version > VERSION => Err(Failure::environment(format!(
                "the store `{}` has version {version}, and this program reads version {VERSION} only",
                self.root.display()
            ))
            .hint("it was written by a newer `rekindle`: use that one, or another folder with `--store`")),
            _ => Err(Failure::environment(format!(
                "`{}` is not a store of this program: its VERSION says `{}`",
                self.root.display(),
                text.trim()
            ))
            .hint("name another folder with `--store`")),
        }
    }

    /// Path of an object.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.shelved("/objects/", digest, "")
    }

    fn record_path(&self, key: &Digest) -> PathBuf {
        self.shelved("/actions/", key, ".json")
    }

    /// A file on one of the 256 shelves of a folder.
    fn shelved(&self, folder: &str, digest: &Digest, ending: &str) -> PathBuf {
        let (name, root) = (digest.to_string(), self.root.as_os_str());
        let mut path = OsString::with_capacity(root.len() + folder.len() + name.len() + 8);
        path.push(root);
        for part in [folder, &name[..2], "/", &name, ending] {
            path.push(part);
        }
        path.into()
    }

    /// Folder of what an unfinished action may go on from.
    pub fn partial(&self, key: &Digest) -> PathBuf {
        self.root.join("partial").join(key.to_string())
    }

    /// Folder of the replies that other programs' models gave, for all actions.
    pub fn replies(&self) -> PathBuf {
        self.root.join("replies")
    }

    /// Takes the lock of an action, or says who has it.
    ///
    /// # Errors
    /// When the machine cannot lock.
    pub fn try_lock(&self, key: &Digest) -> Outcome<Result<Lock, String>> {
        lock::try_lock(&self.root.join("locks").join(key.to_string()))
    }

    /// Keeps [`Store::alone`] waiting: from before the first file of a result
    /// is moved into the store until the record that refers to it is there.
    ///
    /// # Errors
    /// When the machine cannot lock.
    pub fn storing(&self) -> Outcome<Lock> {
        lock::wait_for(&self.root.join("locks").join("storing"), false)
    }

    /// Waits until nobody is storing anything, and keeps it so: whoever looks
    /// for what nothing refers to must not meet a result half stored.
    ///
    /// # Errors
    /// When the machine cannot lock.
    pub fn alone(&self) -> Outcome<Lock> {
        lock::wait_for(&self.root.join("locks").join("storing"), true)
    }

    /// What is known of an action. With `verify`, every byte is read; without,
    /// presence and size of every file are looked at.
    ///
    /// # Errors
    /// When the machine cannot read.
    pub fn look_up(&self, key: &Digest, verify: bool) -> Outcome<Lookup> {
        let (mark, copy) = if verify { (None, None) } else { self.copy_of(key) };
        let record = match copy {
            Some(record) => record,
            None => {
                let Some(bytes) = fs::read(&self.record_path(key))? else {
                    return Ok(Lookup::Miss);
                };
                match ActionRecord::decode(&bytes, key) {
                    Ok(record) => {
                        self.copy_late(key, mark, &bytes);
                        record
                    }
                    Err(why) => {
                        let why = format!("the record of action {} {why}", key.short());
                        return Ok(Lookup::Damaged(why));
                    }
                }
            }
        };
        for output in &record.outputs {
            for file in &output.files {
                // What was taken out on purpose is made again when somebody needs it.
                if let Some(why) = self.damage(file, verify)?
                    && !self.is_out(&file.digest)
                {
                    return Ok(Lookup::Damaged(format!(
                        "`{}` of output `{}` {why}",
                        file.name, output.name
                    )));
                }
            }
        }
        Ok(Lookup::Hit(Box::new(record)))
    }

    /// The record of an action, whatever became of its files.
    ///
    /// # Errors
    /// When the machine cannot read.
    pub fn record(&self, key: &Digest) -> Outcome<Option<ActionRecord>> {
        let bytes = fs::read(&self.record_path(key))?;
        Ok(bytes.and_then(|bytes| ActionRecord::decode(&bytes, key).ok()))
    }

    /// What is wrong with an artifact, every byte of it read.
    ///
    /// # Errors
    /// When the machine cannot read.
    pub fn damage_of(&self, output: &Output) -> Outcome<Option<String>> {
        for file in &output.files {
            if let Some(why) = self.damage(file, true)? {
                return Ok(Some(format!("`{}` of output `{}` {why}", file.name, output.name)));
            }
        }
        Ok(None)
    }

    fn damage(&self, file: &StoredFile, verify: bool) -> Outcome<Option<String>> {
        let path = self.object(&file.digest);
        let Some(size) = fs::size(&path) else {
            return Ok(Some(match self.is_out(&file.digest) {
                true => "was left out or taken out to save space".to_owned(),
                false => "is missing from the store".to_owned(),
            }));
        };
        if size != file.size {
            return Ok(Some(format!("is damaged: it has {size} bytes instead of {}", file.size)));
        }
        if verify {
            let (_, digest) = fs::digest(&path)?;
            if digest != file.digest {
                return Ok(Some(format!(
                    "is damaged: its content has digest {} instead of {}",
                    digest.short(),
                    file.digest.short()
                )));
            }
        }
        Ok(None)
    }

    /// Moves damaged files of an action, and its record, out of the way, so
    /// that the action can be done again.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn quarantine(&self, key: &Digest) -> Outcome<()> {
        let path = self.record_path(key);
        if let Some(bytes) = fs::read(&path)? {
            if let Ok(record) = ActionRecord::decode(&bytes, key) {
                for file in record.outputs.iter().flat_map(|output| &output.files) {
                    let object = self.object(&file.digest);
                    if fs::size(&object).is_some() && self.damage(file, true)?.is_some() {
                        fs::rename(
                            &object,
                            &self.root.join("quarantine").join(file.digest.to_string()),
                        )?;
                    }
                }
            }
            let name = format!("{key}.json");
            fs::rename(&path, &self.root.join("quarantine").join(name))?;
        }
        Ok(())
    }

    /// An empty folder for one attempt at an action. Call with the lock held.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn attempt(&self, key: &Digest) -> Outcome<PathBuf> {
        let folder = self.root.join("tmp").join(key.to_string());
        fs::remove_folder(&folder)?;
        fs::create_folder(&folder).map_err(unwritable)?;
        Ok(folder)
    }

    /// Moves the files of `folder` into the store and returns what they are.
    ///
    /// # Errors
    /// When a file has an impossible name or the disk refuses.
    pub fn take_in(&self, folder: &Path) -> Outcome<Vec<StoredFile>> {
        let mut files = Vec::new();
        for (name, path) in fs::walk(folder)? {
            if !fs::is_plain_name(&name) {
                return Err(Failure::input(format!(
                    "`{name}` cannot be the name of a stored file"
                )));
            }
            let (size, digest) = fs::digest(&path)?;
            // A program may give its files any time; `garbage` goes by it.
            fs::touch(&path)?;
            fs::sync_file(&path)?;
            fs::make_read_only(&path)?;
            let object = self.object(&digest);
            let shelf = object.parent().expect("an object is on a shelf");
            fs::create_lasting_folder(shelf)?;
            // What is there already has the same content or is damaged.
            fs::rename(&path, &object)?;
            fs::sync_folder(shelf)?;
            files.push(StoredFile { name, size, digest });
        }
        Ok(files)
    }

    /// What the files of `folder` are, as [`Store::take_in`] would say; the
    /// store gets none of them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn look_over(&self, folder: &Path) -> Outcome<Vec<StoredFile>> {
        let one = |(name, path): (String, PathBuf)| {
            let (size, digest) = fs::digest(&path)?;
            Ok(StoredFile { name, size, digest })
        };
        fs::walk(folder)?.into_iter().map(one).collect()
    }

    /// Makes a finished action known. Its files must be in the store; `attempt`
    /// is a folder in it for what is in the making.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn publish(&self, record: &ActionRecord, attempt: &Path) -> Outcome<()> {
        let path = self.record_path(&record.key);
        fs::create_lasting_folder(path.parent().expect("a record is on a shelf"))?;
        let content = record.encode();
        fs::write_atomic(&path, &attempt.join("record.json"), &content)?;
        self.copy_new(&record.key, &content);
        fs::remove_folder(&self.partial(&record.key))
    }

    /// Removes what crashed attempts left in `tmp/`, and what actions that were
    /// finished then might have gone on from; those that run are kept.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn sweep(&self) -> Outcome<()> {
        for name in fs::names(&self.root.join("tmp"))? {
            let Ok(key) = name.parse::<Digest>() else {
                // A store in the making that was never made; losing a race here is no loss.
                let _ = fs::remove_file(&self.root.join("tmp").join(name));
                continue;
            };
            if let Ok(_lock) = self.try_lock(&key)? {
                fs::remove_folder(&self.root.join("tmp").join(name))?;
            }
        }
        for name in fs::names(&self.root.join("partial"))? {
            let Ok(key) = name.parse::<Digest>() else { continue };
            if self.record(&key)?.is_some()
                && let Ok(_lock) = self.try_lock(&key)?
            {
                fs::remove_folder(&self.partial(&key))?;
            }
        }
        Ok(())
    }

    /// Path of a file of an output, if it is there with the right size.
    ///
    /// # Errors
    /// When it is not.
    pub fn file(&self, output: &Output, name: &str) -> Outcome<PathBuf> {
        let Some(file) = output.files.iter().find(|file| file.name == name) else {
            let names: Vec<_> =
                output.files.iter().map(|file| format!("`{}`", file.name)).collect();
            return Err(Failure::bug(format!(
                "artifact `{}` has no file `{name}`, only {}",
                output.name,
                if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
            )));
        };
        match self.damage(file, false)? {
            None => Ok(self.object(&file.digest)),
            Some(why) => {
                let way = if self.is_out(&file.digest) { "--refill" } else { "--verify" };
                Err(Failure::environment(format!("`{name}` of artifact `{}` {why}", output.name))
                    .hint(format!("run again with `{way}` to have it made anew")))
            }
        }
    }
}

fn unwritable(failure: Failure) -> Failure {
    failure.hint("the store must be a folder that can be written; name another one with `--store`")
}
