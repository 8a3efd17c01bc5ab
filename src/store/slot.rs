//! The folders that attempts work in. Those of stages that run inside this
//! program are used again and again: to make and remove folders for each of
//! thousands of small steps takes longer than the steps (a file system that
//! must not give out again what was removed a moment ago looks through all of
//! that for each new file).
//!
//! A folder that another program worked in is never used twice: something it
//! left running could still write there. Each folder is named like an action
//! and has a lock of that name, so that [`Store::sweep`] takes away what a
//! crash leaves. Knows nothing of what is done in them.

use crate::{
    base::{failure::Outcome, hash::Digest},
    host::{fs, lock::Lock},
    store::Store,
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const CONTEXT: &str = "rekindle 2026 slot v1";

/// A folder to work in, with a folder `out/<name>` for each output.
#[derive(Debug)]
pub struct Slot {
    folder: PathBuf,
    /// The names of the folders in `out`.
    names: Vec<String>,
    /// Its own lock; none where the folder is that of one attempt only.
    lock: Option<Lock>,
}

impl Slot {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folders of the outputs.
    fn out(&self, name: &str) -> PathBuf {
        self.folder.join("out").join(name)
    }

    /// Gives the folders in `out` these names.
    fn rename(&mut self, wanted: &[String]) -> Outcome<()> {
        let spare = |name: &String| !wanted.contains(name);
        let mut spare: Vec<String> =
            self.names.iter().filter(|name| spare(name)).cloned().collect();
        for name in wanted.iter().filter(|name| !self.names.contains(name)) {
            match spare.pop() {
                Some(old) => fs::rename(&self.out(&old), &self.out(name))?,
                None => fs::create_folder(&self.out(name))?,
            }
        }
        spare.iter().try_for_each(|name| fs::remove_folder(&self.out(name)))?;
        self.names = wanted.to_vec();
        Ok(())
    }

    /// Takes out whatever was left beside the folders of the outputs and in them.
    fn tidy(&mut self) -> Outcome<()> {
        for name in fs::names(&self.folder)? {
            if name != "out" {
                remove(&self.folder.join(name))?;
            }
        }
        for name in std::mem::take(&mut self.names) {
            match fs::names(&self.out(&name))?.is_empty() {
                true => self.names.push(name),
                false => fs::remove_folder(&self.out(&name))?,
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Outcome<()> {
    if path.is_dir() { fs::remove_folder(path) } else { fs::remove_file(path) }
}

/// The folders that wait to be used again.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    slots: Vec<Slot>,
    /// The number of the next one to be made.
    next: u64,
}

impl Slots {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// An empty folder for one attempt at an action, whose lock is held.
    /// `alone` says that another program works in it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn slot(&self, key: &Digest, outputs: &[String], alone: bool) -> Outcome<Slot> {
        // A name with a folder of its own in it is not moved about.
        let mut slot = match alone || outputs.iter().any(|name| name.contains('/')) {
            true => Slot { folder: self.attempt(key)?, names: Vec::new(), lock: None },
            false => self.shared_slot()?,
        };
        slot.rename(outputs)?;
        Ok(slot)
    }

    fn shared_slot(&self) -> Outcome<Slot> {
        let mut free = self.slots.free();
        if let Some(slot) = free.slots.pop() {
            return Ok(slot);
        }
        loop {
            let key = Digest::tagged(CONTEXT, &free.next.to_le_bytes());
            free.next += 1;
            // Another run may have this one.
            if let Ok(lock) = self.try_lock(&key)? {
                let folder = self.attempt(&key)?;
                return Ok(Slot { folder, names: Vec::new(), lock: Some(lock) });
            }
        }
    }

    /// Gives a folder back whose attempt is over.
    ///
    /// # Errors
    /// When what is left in it cannot be removed.
    pub fn leave(&self, mut slot: Slot) -> Outcome<()> {
        if slot.lock.is_none() {
            return fs::remove_folder(&slot.folder);
        }
        slot.tidy()?;
        self.slots.free().slots.push(slot);
        Ok(())
    }

    /// Removes the folders that wait to be used again.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn leave_all(&self) -> Outcome<()> {
        let mut free = self.slots.free();
        free.next = 0;
        free.slots.drain(..).try_for_each(|slot| fs::remove_folder(&slot.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn all(folder: &Path) -> Vec<String> {
        let names = |path: &Path| fs::names(path).unwrap();
        let mut all = names(folder);
        all.extend(names(&folder.join("out")).into_iter().map(|name| format!("out/{name}")));
        all
    }

    #[test]
    fn a_folder_is_used_again_with_nothing_of_the_attempt_before() {
        let folder = temp_dir::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of_blob(b"x");
        let slot = store.slot(&key, &words("a b"), false).unwrap();
        let first = slot.folder().to_owned();
        assert_eq!(all(&first), words("out out/a out/b"));
        std::fs::write(first.join("scratch"), "x").unwrap();
        std::fs::create_dir(first.join("more")).unwrap();
        std::fs::write(first.join("out/a/left"), "x").unwrap();
        // A second at the same time has another one.
        let other = store.slot(&key, &words("a"), false).unwrap();
        assert_ne!(other.folder(), first);
        store.leave(slot).unwrap();
        let slot = store.slot(&key, &words("b c d"), false).unwrap();
        assert_eq!(slot.folder(), first);
        assert_eq!(all(&first), words("out out/b out/c out/d"));
        let empty = |name: &str| fs::names(&first.join("out").join(name)).unwrap().is_empty();
        assert!(["b", "c", "d"].into_iter().all(empty));
        store.leave(slot).unwrap();
        let slot = store.slot(&key, &words("e"), false).unwrap();
        assert_eq!(all(&first), words("out out/e"));
        store.leave(slot).unwrap();
        store.leave(other).unwrap();
        store.leave_all().unwrap();
        assert!(fs::names(&folder.path().join("tmp")).unwrap().is_empty());
    }

    #[test]
    fn another_program_has_a_folder_for_itself() {
        let folder = temp_dir::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of_blob(b"x");
        let slot = store.slot(&key, &words("a"), true).unwrap();
        assert_eq!(slot.folder(), folder.path().join("tmp").join(key.to_string()));
        store.leave(slot).unwrap();
        assert!(fs::names(&folder.path().join("tmp")).unwrap().is_empty());
    }

    #[test]
    fn a_sweep_keeps_what_is_used_and_removes_what_a_crash_left() {
        let folder = temp_dir::TempDir::new().unwrap();
        let (store, beside) =
            (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        let key = Digest::of_blob(b"x");
        let ours = store.slot(&key, &words("a"), false).unwrap();
        let theirs = beside.slot(&key, &words("a"), false).unwrap();
        assert_ne!(ours.folder(), theirs.folder());
        let place = theirs.folder().to_owned();
        drop(theirs);
        store.sweep().unwrap();
        assert!(ours.folder().is_dir() && !place.exists());
    }
}
