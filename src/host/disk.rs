//! The door to the disk: what this program creates, writes, syncs, moves or
//! removes goes through here. A watcher of a folder sees every such change
//! before it is made, and may refuse it or leave it out; that is how the
//! program is held against failing disks and cut power (`doctor --faults`).
//! With nobody watching, a change costs one look at a counter.
//!
//! Errors are the system's own, to be told in words by `fs`. Not seen are what
//! other programs write, and downloads, which count for nothing before they
//! were held against their digests. Knows nothing of stores.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A folder comes to be, and those it is in.
    Folder(&'a Path),
    /// A file comes to be, or loses its content.
    Create(&'a Path),
    /// A file comes to be, unless it is there.
    Open(&'a Path),
    /// Bytes are put behind what is in a file.
    Append(&'a Path, &'a [u8]),
    /// A file becomes a copy of another one.
    Copy(&'a Path, &'a Path),
    /// A file's content is to reach the disk.
    SyncFile(&'a Path),
    /// The names in a folder are to reach the disk.
    SyncFolder(&'a Path),
    /// A file or folder gets another name, in place of what had it.
    Rename(&'a Path, &'a Path),
    /// A file goes.
    Remove(&'a Path),
    /// A folder goes with all that is in it.
    RemoveFolder(&'a Path),
}

impl Change<'_> {
    /// Where it happens; what is moved counts where it goes.
    pub fn path(&self) -> &Path {
        match self {
            Change::Folder(path)
            | Change::Create(path)
            | Change::Open(path)
            | Change::Append(path, _)
            | Change::Copy(_, path)
            | Change::SyncFile(path)
            | Change::SyncFolder(path)
            | Change::Rename(_, path)
            | Change::Remove(path)
            | Change::RemoveFolder(path) => path,
        }
    }

    /// Whether it only waits for the disk.
    pub fn is_sync(&self) -> bool {
        matches!(self, Change::SyncFile(_) | Change::SyncFolder(_))
    }
}

/// Somebody who sees changes before they are made, from several threads.
pub trait Watcher: Send + Sync {
    /// Whether the change shall be made; where not, its maker believes that it was.
    ///
    /// # Errors
    /// The error that the disk shall seem to have.
    fn before(&self, change: &Change<'_>) -> io::Result<bool>;
}

type Watched = (PathBuf, Arc<dyn Watcher>);

static WATCHED: RwLock<Vec<Watched>> = RwLock::new(Vec::new());
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// A watcher at its place; dropping it sends the watcher home.
pub struct Watch(PathBuf);

/// Lets `watcher` see every change below `folder`, an absolute path.
pub fn watch(folder: &Path, watcher: Arc<dyn Watcher>) -> Watch {
    let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
    watched.push((folder.to_owned(), watcher));
    WATCHERS.store(watched.len(), Ordering::SeqCst);
    Watch(folder.to_owned())
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(folder, _)| *folder != self.0);
        WATCHERS.store(watched.len(), Ordering::SeqCst);
    }
}

/// Makes a change, if nobody minds.
fn make(change: Change<'_>, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if asks(change)? { act() } else { Ok(()) }
}

fn asks(change: Change<'_>) -> io::Result<bool> {
    if WATCHERS.load(Ordering::Relaxed) == 0 {
        return Ok(true);
    }
    let watcher = {
        let watched = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
        let here = watched.iter().find(|(folder, _)| change.path().starts_with(folder));
        here.map(|(_, watcher)| watcher.clone())
    };
    watcher.map_or(Ok(true), |watcher| watcher.before(&change))
}

pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    // Most are there, and a change that changes nothing is none.
    if path.is_dir() {
        return Ok(());
    }
    make(Change::Folder(path), || fs::create_dir_all(path))
}

pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    make(Change::Copy(from, to), || fs::copy(from, to).map(drop))
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    make(Change::Rename(from, to), || fs::rename(from, to))
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    make(Change::Remove(path), || fs::remove_file(path))
}

pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    make(Change::RemoveFolder(path), || fs::remove_dir_all(path))
}

pub(super) fn sync_file(path: &Path, file: &File) -> io::Result<()> {
    make(Change::SyncFile(path), || file.sync_data())
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    make(Change::SyncFolder(path), || File::open(path)?.sync_all())
}

/// A file that is written from its beginning or behind its end.
#[derive(Debug)]
pub struct Out {
    path: PathBuf,
    file: File,
}

impl Out {
    /// A new file, or an old one without its content.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Out> {
        // Who is told that there is a new file must be able to write to something.
        asks(Change::Create(path))?;
        Ok(Out { path: path.to_owned(), file: File::create(path)? })
    }

    /// A file as it is, to be read and to be written behind its end; it is
    /// made where there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn append(path: &Path) -> io::Result<Out> {
        Out::open(path, OpenOptions::new().read(true).append(true).create(true))
    }

    /// A file as it is, to be read and, once it was [`Out::cut`], to be
    /// written; it is made where there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(path: &Path) -> io::Result<Out> {
        Out::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
    }

    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Out> {
        asks(Change::Open(path))?;
        Ok(Out { path: path.to_owned(), file: options.open(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the content out.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&mut self) -> io::Result<()> {
        make(Change::Create(&self.path), || self.file.set_len(0))?;
        self.file.rewind()
    }

    /// Waits until the content is on the disk.
    ///
    /// # Errors
    /// The system's. The file is then not to be trusted again, not even after
    /// another sync that seems to go well.
    pub fn sync(&self) -> io::Result<()> {
        sync_file(&self.path, &self.file)
    }

    /// The file itself, for what changes no content.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = &mut self.file;
        make(Change::Append(&self.path, bytes), || file.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Out {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Out {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
