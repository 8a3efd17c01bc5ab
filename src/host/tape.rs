//! A tape of every change that a folder saw, and what a cut of power after any
//! of them may leave of it.
//!
//! A file's content is safe once the file is synced, a name once its folder is;
//! before that it may be on the disk or not, and content may be torn. A rename
//! does not lose a file: the old name goes only if the new one is there. What
//! is in a folder whose own name was lost is lost too. That is what POSIX
//! promises, and less than ext4, XFS or btrfs keep.
//!
//! Contents are held in memory: tapes are for small studies.

use crate::{
    base::{failure::Outcome, seed::Seed},
    host::{
        disk::{Change, Watcher},
        fs,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A change as it was recorded; paths are relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A folder came to be.
    Folder(PathBuf),
    /// A file came to be, or lost its content.
    Create(PathBuf),
    /// A file came to be unless it was there.
    Open(PathBuf),
    /// Bytes went behind a file's end.
    Append(PathBuf, Vec<u8>),
    /// A file's content was made safe.
    SyncFile(PathBuf),
    /// The names in a folder were made safe.
    SyncFolder(PathBuf),
    /// A file or folder got another name.
    Rename(PathBuf, PathBuf),
    /// A file or an empty folder went.
    Remove(PathBuf),
}

/// A watcher that writes changes down and lets them happen.
pub struct Tape {
    root: PathBuf,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    ops: Vec<Op>,
    disk: Disk,
}

impl Tape {
    /// A tape of the folder `root`, which is empty.
    pub fn new(root: &Path) -> Arc<Tape> {
        Arc::new(Tape { root: root.to_owned(), written: Mutex::default() })
    }

    /// All changes so far.
    pub fn ops(&self) -> Vec<Op> {
        self.written().ops.clone()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }
}

impl Watcher for Tape {
    fn before(&self, change: &Change<'_>) -> io::Result<bool> {
        let at = |path: &Path| self.relative(path);
        let mut written = self.written();
        match *change {
            Change::Folder(path) => written.folders(&at(path)),
            Change::Create(path) => written.add(Op::Create(at(path))),
            Change::Open(path) => written.add(Op::Open(at(path))),
            Change::Append(path, bytes) => written.add(Op::Append(at(path), bytes.to_vec())),
            Change::Copy(from, to) => written.content(at(to), std::fs::read(from)?),
            Change::SyncFile(path) => {
                written.content(at(path), std::fs::read(path)?);
                written.add(Op::SyncFile(at(path)));
            }
            Change::SyncFolder(path) => written.add(Op::SyncFolder(at(path))),
            Change::Rename(from, to) => {
                if from.is_file() {
                    written.content(at(from), std::fs::read(from)?);
                }
                written.add(Op::Rename(at(from), at(to)));
            }
            Change::Remove(path) => written.add(Op::Remove(at(path))),
            Change::RemoveFolder(path) => {
                let below = written.disk.below(&at(path));
                below.into_iter().rev().for_each(|path| written.add(Op::Remove(path)));
            }
        }
        Ok(true)
    }
}

impl Written {
    fn add(&mut self, op: Op) {
        self.disk.apply(&op);
        self.ops.push(op);
    }

    fn folders(&mut self, path: &Path) {
        let missing = |path: &&Path| !self.disk.names.contains_key(*path);
        let mut new: Vec<PathBuf> =
            path.ancestors().take_while(missing).map(Path::to_owned).collect();
        new.retain(|path| !path.as_os_str().is_empty());
        new.into_iter().rev().for_each(|path| self.add(Op::Folder(path)));
    }

    /// Notes what another program made of a file, if it is not known.
    fn content(&mut self, path: PathBuf, bytes: Vec<u8>) {
        if self.disk.content(&path).is_some_and(|known| *known == bytes) {
            return;
        }
        self.folders(path.parent().unwrap_or(Path::new("")));
        self.add(Op::Create(path.clone()));
        self.add(Op::Append(path, bytes));
    }
}

/// What becomes of all that was not synced when the power is cut.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    /// All of it is there, as after a `kill -9`.
    Kept,
    /// Nothing of it is.
    Lost,
    /// Names are there, contents are not.
    Empty,
    /// Names are there, and half of each content.
    Torn,
    /// Each name and content as the dice fall.
    Diced(Seed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// A name that came or went and is not safe yet.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    path: PathBuf,
    /// What has the name now; nothing if it went.
    node: Option<Node>,
    /// Where what went is, if it was moved and not removed.
    behind: Option<u64>,
}

/// A disk in the middle of its work.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, Node>,
    safe: BTreeMap<PathBuf, Node>,
    pending: Vec<Pending>,
    count: u64,
}

impl Disk {
    /// Makes a change.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Folder(path) => drop(self.put(path, Node::Folder)),
            Op::Open(path) => drop(self.file(path)),
            Op::Create(path) => {
                let file = self.file(path);
                self.contents[file].now.clear();
            }
            Op::Append(path, bytes) => {
                let file = self.file(path);
                self.contents[file].now.extend(bytes);
            }
            Op::SyncFile(path) => {
                if let Some(Node::File(file)) = self.names.get(path) {
                    let content = &mut self.contents[*file];
                    content.synced.clone_from(&content.now);
                }
            }
            Op::SyncFolder(path) => self.sync(path),
            Op::Rename(from, to) => {
                for old in self.below(from) {
                    let rest = old.strip_prefix(from).expect("it is below");
                    let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    let put = self.put(&new, self.names[&old]);
                    self.remove(&old, Some(put));
                }
            }
            Op::Remove(path) => self.remove(path, None),
        }
    }

    fn file(&mut self, path: &Path) -> usize {
        if let Some(Node::File(file)) = self.names.get(path) {
            return *file;
        }
        self.contents.push(Content::default());
        let file = self.contents.len() - 1;
        self.put(path, Node::File(file));
        file
    }

    fn put(&mut self, path: &Path, node: Node) -> u64 {
        self.names.insert(path.to_owned(), node);
        self.note(path, Some(node), None)
    }

    fn remove(&mut self, path: &Path, behind: Option<u64>) {
        self.names.remove(path);
        self.note(path, None, behind);
    }

    fn note(&mut self, path: &Path, node: Option<Node>, behind: Option<u64>) -> u64 {
        self.count += 1;
        self.pending.push(Pending { number: self.count, path: path.to_owned(), node, behind });
        self.count
    }

    fn sync(&mut self, folder: &Path) {
        let mut left = Vec::new();
        for one in std::mem::take(&mut self.pending) {
            let is_open = |number: u64| left.iter().any(|other: &Pending| other.number == number);
            if one.path.parent() == Some(folder) && !one.behind.is_some_and(is_open) {
                settle(&mut self.safe, &one);
            } else {
                left.push(one);
            }
        }
        self.pending = left;
    }

    fn content(&self, path: &Path) -> Option<&Vec<u8>> {
        match self.names.get(path)? {
            Node::File(file) => Some(&self.contents[*file].now),
            Node::Folder => None,
        }
    }

    /// A path and all below it, folders before what is in them.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|name| name.starts_with(path)).cloned().collect()
    }

    /// What is there when the power comes back.
    pub fn after(&self, unsynced: Unsynced) -> Left {
        let mut dice = match unsynced {
            Unsynced::Diced(seed) => Some(seed.rng()),
            _ => None,
        };
        let mut names = self.safe.clone();
        let mut lost = BTreeSet::new();
        let mut lost_folders: Vec<&Path> = Vec::new();
        for one in &self.pending {
            let falls = dice.as_mut().map(|dice| dice.below(2) == 0);
            let is_there = falls.unwrap_or(!matches!(unsynced, Unsynced::Lost));
            // Nothing was moved into a folder that is not there: it is where it was.
            let has_folder = !lost_folders.iter().any(|folder| one.path.starts_with(folder));
            let moved = !one.behind.is_some_and(|number| lost.contains(&number));
            if is_there && has_folder && moved {
                settle(&mut names, one);
            } else {
                lost.insert(one.number);
                if matches!(one.node, Some(Node::Folder)) {
                    lost_folders.push(&one.path);
                }
            }
        }
        let mut left = Left::default();
        for (path, node) in &names {
            let parent = path.parent().unwrap_or(Path::new(""));
            if !parent.as_os_str().is_empty() && !left.folders.contains(parent) {
                continue;
            }
            match node {
                Node::Folder => drop(left.folders.insert(path.clone())),
                Node::File(file) => {
                    let Content { now, synced } = &self.contents[*file];
                    let kept = match unsynced {
                        Unsynced::Kept => 2,
                        Unsynced::Lost | Unsynced::Empty => 0,
                        Unsynced::Torn => 1,
                        Unsynced::Diced(_) => dice.as_mut().map_or(0, |dice| dice.below(3)),
                    };
                    let bytes = match kept {
                        0 => synced.clone(),
                        1 => {
                            let whole = if now.starts_with(synced) { synced.len() } else { 0 };
                            now[..whole + (now.len() - whole) / 2].to_vec()
                        }
                        _ => now.clone(),
                    };
                    left.files.insert(path.clone(), bytes);
                }
            }
        }
        left
    }
}

fn settle(names: &mut BTreeMap<PathBuf, Node>, one: &Pending) {
    match one.node {
        Some(node) => drop(names.insert(one.path.clone(), node)),
        None => drop(names.remove(&one.path)),
    }
}

/// What a cut of power left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// Folders.
    pub folders: BTreeSet<PathBuf>,
    /// Files and their content.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Left {
    /// Writes it into the folder `root`, in place of what is there.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn lay_out(&self, root: &Path) -> Outcome<()> {
        fs::remove_folder(root)?;
        fs::create_folder(root)?;
        for folder in &self.folders {
            fs::create_folder(&root.join(folder))?;
        }
        for (path, bytes) in &self.files {
            fs::write(&root.join(path), bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk;

    /// Plays an atomic write into `tape`'s folder and returns its changes.
    fn atomic_write(synced: bool) -> Vec<Op> {
        let folder = temp_dir::TempDir::new().unwrap();
        let tape = Tape::new(folder.path());
        let watch = disk::watch(folder.path(), tape.clone());
        let place = |name: &str| folder.path().join(name);
        fs::create_lasting_folder(&place("shelf")).unwrap();
        fs::write_atomic(&place("shelf/a"), &place("a.tmp"), b"old!").unwrap();
        fs::write_atomic(&place("shelf/a"), &place("a.tmp"), b"new content").unwrap();
        drop(watch);
        let mut ops = tape.ops();
        ops.retain(|op| synced || !matches!(op, Op::SyncFile(_)));
        ops
    }

    fn contents_after(ops: &[Op]) -> BTreeSet<Option<Vec<u8>>> {
        let mut seen = BTreeSet::new();
        let mut disk = Disk::default();
        for (number, op) in ops.iter().enumerate() {
            disk.apply(op);
            let diced = (0..20).map(|i| Unsynced::Diced(Seed(1).at(number as u64).at(i)));
            let fixed = [Unsynced::Kept, Unsynced::Lost, Unsynced::Empty, Unsynced::Torn];
            for unsynced in fixed.into_iter().chain(diced) {
                seen.insert(disk.after(unsynced).files.get(Path::new("shelf/a")).cloned());
            }
        }
        seen
    }

    #[test]
    fn an_atomic_write_is_all_or_nothing_only_if_its_content_is_synced() {
        let whole = BTreeSet::from([None, Some(b"old!".to_vec()), Some(b"new content".to_vec())]);
        assert_eq!(contents_after(&atomic_write(true)), whole);
        let torn = contents_after(&atomic_write(false));
        assert!(
            torn.contains(&Some(b"new c".to_vec())) && torn.contains(&Some(vec![])),
            "{torn:?}"
        );
    }

    #[test]
    fn what_is_in_a_folder_whose_name_is_not_safe_may_be_lost() {
        let ops = atomic_write(true);
        let play = |ops: &[Op]| {
            let mut disk = Disk::default();
            ops.iter().for_each(|op| disk.apply(op));
            disk.after(Unsynced::Lost).files.contains_key(Path::new("shelf/a"))
        };
        assert!(play(&ops));
        let root = Op::SyncFolder(PathBuf::new());
        let hasty: Vec<Op> = ops.into_iter().filter(|op| *op != root).collect();
        assert!(!play(&hasty));
    }

    #[test]
    fn a_moved_file_is_under_one_of_its_names() {
        let folder = temp_dir::TempDir::new().unwrap();
        std::fs::write(folder.path().join("a"), "made by another program").unwrap();
        let tape = Tape::new(folder.path());
        let watch = disk::watch(folder.path(), tape.clone());
        fs::sync_file(&folder.path().join("a")).unwrap();
        fs::sync_folder(folder.path()).unwrap();
        fs::create_folder(&folder.path().join("to")).unwrap();
        fs::rename(&folder.path().join("a"), &folder.path().join("to/b")).unwrap();
        drop(watch);
        let mut disk = Disk::default();
        tape.ops().iter().for_each(|op| disk.apply(op));
        let mut names = BTreeSet::new();
        for i in 0..50 {
            let left = disk.after(Unsynced::Diced(Seed(2).at(i)));
            assert!(left.files.values().any(|bytes| bytes == b"made by another program"));
            names.extend(left.files.into_keys());
        }
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
