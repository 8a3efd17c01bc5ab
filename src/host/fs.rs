//! Files: atomic writes, walks, hashing copies. Every error names the path and
//! what was being done to it.
//!
//! A file that other processes may read appears by rename only, after its
//! content has reached the disk. The changes themselves are made by `disk`.

use crate::base::{
    failure::{Doing, Failure, Outcome},
    hash::{Digest, Hasher},
};
use crate::host::disk::{self, Out};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    time::SystemTime,
};

/// Creates a folder and its parents.
///
/// # Errors
/// When the machine refuses.
pub fn create_folder(path: &Path) -> Outcome<()> {
    disk::create_folder(path).doing(|| format!("creating folder `{}`", path.display()))
}

/// Creates a folder that a power cut does not take away with what is synced in
/// it: its name, and those of the parents made with it, reach the disk too.
///
/// # Errors
/// When the machine refuses.
pub fn create_lasting_folder(path: &Path) -> Outcome<()> {
    /// Folders whose names this process has seen to. One that is there may
    /// have been made a moment ago by somebody who has not synced it yet.
    static LASTING: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let known = || LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = path.is_dir();
    if is_there && known().as_ref().is_some_and(|known| known.contains(path)) {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if !is_there {
        if let Some(parent) = parent.filter(|parent| !parent.exists()) {
            create_lasting_folder(parent)?;
        }
        create_folder(path)?;
    }
    sync_folder(parent.unwrap_or(Path::new(".")))?;
    known().get_or_insert_default().insert(path.to_owned());
    Ok(())
}

/// Writes a new file, or over an old one. For places that nobody else reads yet.
///
/// # Errors
/// When the machine refuses.
pub fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let written = Out::create(path).and_then(|mut file| file.write_all(bytes));
    written.doing(|| format!("writing `{}`", path.display()))
}

/// Makes `to` a copy of the file `from`.
///
/// # Errors
/// When the machine refuses.
pub fn copy(from: &Path, to: &Path) -> Outcome<()> {
    disk::copy(from, to).doing(|| format!("copying `{}` to `{}`", from.display(), to.display()))
}

/// The content of a file, or `None` where there is none.
///
/// # Errors
/// When there is one and it cannot be read.
pub fn read(path: &Path) -> Outcome<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error).doing(|| format!("reading `{}`", path.display())),
    }
}

/// A file's size, or `None` where there is no plain file.
pub fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|meta| meta.len())
}

/// What tells one edition of a file from another without reading it: its size
/// and the time it was last written, in nanoseconds.
pub fn edition(path: &Path) -> Option<(u64, u128)> {
    let meta = fs::metadata(path).ok()?;
    let written = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((meta.len(), written.as_nanos()))
}

/// What changes about a file, or in its folder's entry, whenever somebody
/// writes or replaces it. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Bytes.
    pub size: u64,
    /// When its content was written last, which a program can set.
    pub written: u64,
    /// When anything about it changed last, which only the system sets.
    pub changed: u64,
    /// Its inode.
    pub inode: u64,
}

/// The mark of a plain file, or `None` where there is none.
pub fn mark(path: &Path) -> Option<Mark> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let nanoseconds = |seconds: i64, rest: i64| {
        seconds.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(rest.unsigned_abs())
    };
    Some(Mark {
        size: meta.len(),
        written: nanoseconds(meta.mtime(), meta.mtime_nsec()),
        changed: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
    })
}

/// Bytes that are free where a file would be; the nearest folder above it that
/// is there is asked.
pub fn free(path: &Path) -> Option<u64> {
    let whole = std::path::absolute(path).ok()?;
    let there = whole.ancestors().find(|path| path.exists())?;
    let system = rustix::fs::statvfs(there).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// How long ago a file or folder was last written, and the bytes of a file;
/// `None` where there is none. A time in the future is no time ago.
pub fn age(path: &Path) -> Option<(std::time::Duration, Option<u64>)> {
    let meta = fs::symlink_metadata(path).ok()?;
    let age = meta.modified().ok()?.elapsed().unwrap_or_default();
    Some((age, meta.is_file().then_some(meta.len())))
}

/// Writes a file so that others see all of it or nothing: `temporary` (on the
/// same file system) first, then a rename.
///
/// # Errors
/// When the machine refuses; nothing is left behind.
pub fn write_atomic(path: &Path, temporary: &Path, bytes: &[u8]) -> Outcome<()> {
    write_pieces(path, temporary, &mut std::iter::once(bytes))
}

/// [`write_atomic`] of pieces one after another.
///
/// # Errors
/// When the machine refuses; nothing is left behind.
pub fn write_pieces(
    path: &Path,
    temporary: &Path,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Outcome<()> {
    let made = Out::create(temporary).and_then(|file| fill(file, pieces, path));
    finish(made, path, temporary)
}

/// Writes, syncs and moves to `path` what is in the making.
fn fill(mut file: Out, pieces: &mut dyn Iterator<Item = &[u8]>, path: &Path) -> io::Result<()> {
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync()?;
    disk::rename(file.path(), path)
}

fn finish(made: io::Result<()>, path: &Path, temporary: &Path) -> Outcome<()> {
    if let Err(error) = made {
        // The error is reported; a leftover temporary is only litter.
        let _ = disk::remove_file(temporary);
        return Err(error).doing(|| format!("writing `{}`", path.display()));
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file a person reads: beside it first, and only when it differs.
/// Says whether anything was written.
///
/// The file in the making has one name, so that a killed process leaves no more
/// than one, which the next call takes over or away; its maker holds a lock on it.
///
/// # Errors
/// When the machine refuses.
pub fn write_if_different(path: &Path, bytes: &[u8]) -> Outcome<bool> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}{MAKING}"));
    if read(path)?.is_some_and(|old| old == bytes) {
        let left = temporary.exists().then(|| File::open(&temporary));
        if let Some(Ok(left)) = left
            && left.try_lock().is_ok()
        {
            remove_file(&temporary)?;
        }
        return Ok(false);
    }
    let made =
        lone_making(&temporary).and_then(|file| fill(file, &mut std::iter::once(bytes), path));
    finish(made, path, &temporary)?;
    Ok(true)
}

/// How the name ends of what [`write_if_different`] has in the making.
pub const MAKING: &str = ".making";

/// Opens a file in the making, once whoever else makes it is done.
fn lone_making(path: &Path) -> io::Result<Out> {
    loop {
        let mut file = Out::keep(path)?;
        // Where the file system has no locks, two at once are a matter of luck.
        let _ = file.file().lock();
        let inode = file.file().metadata()?.ino();
        if fs::metadata(path).is_ok_and(|meta| meta.ino() == inode) {
            file.cut()?;
            return Ok(file);
        }
        // It has become the finished file of somebody else.
    }
}

/// Makes sure that files can be created in a folder, which is made if need be.
///
/// # Errors
/// When they cannot.
pub fn try_writing(folder: &Path) -> Outcome<()> {
    create_lasting_folder(folder)?;
    let probe = folder.join(".write-test");
    Out::create(&probe).map(drop).doing(|| format!("writing to folder `{}`", folder.display()))?;
    // Another process may have tried at the same time.
    remove_file(&probe)?;
    // A cut of power must not bring it back when there is nothing left to try for.
    sync_folder(folder)
}

/// Makes a folder's names durable.
///
/// # Errors
/// When the machine refuses.
pub fn sync_folder(path: &Path) -> Outcome<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    disk::sync_folder(path).doing(|| format!("syncing folder `{}`", path.display()))
}

/// Size and digest of a file's content.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> Outcome<(u64, Digest)> {
    let doing = || format!("reading `{}`", path.display());
    let mut file = File::open(path).doing(doing)?;
    let length = file.metadata().doing(doing)?.len();
    if length >= LARGE {
        return digest_large(file).doing(doing);
    }
    let (mut hasher, mut size) = (Hasher::blob(), 0);
    let mut buffer = vec![0; (length as usize + 1).min(1 << 18)];
    loop {
        let n = read_some(&mut file, &mut buffer).doing(doing)?;
        if n == 0 {
            return Ok((size, hasher.finish()));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// A reader that takes size and digest of what goes through it.
pub struct Hashed<R> {
    inner: R,
    size: u64,
    hasher: Hasher,
}

impl<R: Read> Hashed<R> {
    /// Nothing has gone through yet.
    pub fn new(inner: R) -> Hashed<R> {
        Hashed { inner, size: 0, hasher: Hasher::blob() }
    }

    /// Size and digest of what went through.
    pub fn finish(self) -> (u64, Digest) {
        (self.size, self.hasher.finish())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// From this size on a file is read and hashed side by side.
const LARGE: u64 = 1 << 24;

/// One thread reads the next part while all hash the one before. (A mapped
/// file would save the copy, and end the program where the file is cut short.)
fn digest_large(mut file: File) -> std::io::Result<(u64, Digest)> {
    const PART: usize = 1 << 22;
    let (full, parts) = mpsc::sync_channel::<std::io::Result<Vec<u8>>>(1);
    let (back, empty) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut made = 0;
            loop {
                // Two parts go round: one is filled, one is hashed.
                let buffer = if made < 2 { Ok(Vec::new()) } else { empty.recv() };
                made += 1;
                let Ok(mut buffer) = buffer else { return };
                buffer.clear();
                let read = (&mut file).take(PART as u64).read_to_end(&mut buffer);
                let is_last = !matches!(read, Ok(1..));
                if full.send(read.map(|_| buffer)).is_err() || is_last {
                    return;
                }
            }
        });
        let (mut hasher, mut size) = (Hasher::blob(), 0);
        for part in parts {
            let part = part?;
            hasher.update_on_all_cores(&part);
            size += part.len() as u64;
            // The reader may have ended.
            let _ = back.send(part);
        }
        Ok((size, hasher.finish()))
    })
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// All plain files below a folder, with names relative to it, in byte order.
///
/// # Errors
/// When a name is not UTF-8 or something is neither file nor folder.
pub fn walk(root: &Path) -> Outcome<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), root.to_owned())];
    while let Some((prefix, folder)) = open.pop() {
        let doing = || format!("listing `{}`", folder.display());
        for entry in fs::read_dir(&folder).doing(doing)? {
            let entry = entry.doing(doing)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Failure::input(format!(
                    "a file name in `{}` is not UTF-8",
                    folder.display()
                )));
            };
            let name = format!("{prefix}{name}");
            let kind = entry.file_type().doing(doing)?;
            if kind.is_dir() {
                open.push((format!("{name}/"), entry.path()));
            } else if kind.is_file() {
                found.push((name, entry.path()));
            } else {
                return Err(Failure::input(format!(
                    "`{}` is neither a file nor a folder",
                    entry.path().display()
                ))
                .hint("links and devices cannot be stored; copy the content instead"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Names in a folder, sorted; empty where there is no folder.
///
/// # Errors
/// When it cannot be listed.
pub fn names(folder: &Path) -> Outcome<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        other => other.doing(|| format!("listing `{}`", folder.display()))?,
    };
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Removes a folder and all that is in it; fine where there is none.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_folder(path: &Path) -> Outcome<()> {
    match disk::remove_folder(path) {
        Err(error) if !is_absent(&error) => {
            Err(error).doing(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a file; fine where there is none.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_file(path: &Path) -> Outcome<()> {
    match disk::remove_file(path) {
        Err(error) if !is_absent(&error) => {
            Err(error).doing(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Takes write permission from a file.
///
/// # Errors
/// When the machine refuses.
pub fn make_read_only(path: &Path) -> Outcome<()> {
    let doing = || format!("making `{}` read-only", path.display());
    let mut permissions = fs::metadata(path).doing(doing)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions).doing(doing)
}

/// Moves a file, replacing what was there.
///
/// # Errors
/// When the machine refuses.
pub fn rename(from: &Path, to: &Path) -> Outcome<()> {
    disk::rename(from, to).doing(|| format!("moving `{}` to `{}`", from.display(), to.display()))
}

/// Waits until a file's content is on the disk.
///
/// # Errors
/// When the disk refuses.
pub fn sync_file(path: &Path) -> Outcome<()> {
    File::open(path)
        .and_then(|file| disk::sync_file(path, &file))
        .doing(|| format!("syncing `{}`", path.display()))
}

/// Sets the time a file was written to now, whatever its maker made of it.
///
/// # Errors
/// When the machine refuses.
pub fn touch(path: &Path) -> Outcome<()> {
    File::open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .doing(|| format!("setting the time of `{}`", path.display()))
}

/// Whether a name may be a stored file: relative, no `..`, no empty part.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0', '\n'])
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in ["", "/etc/passwd", "a//b", "../x", "a/../b", "a\\b"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
        assert!(is_plain_name("a/b.json"));
    }

    #[test]
    fn a_large_file_has_the_digest_of_its_bytes() {
        let folder = temp_dir::TempDir::new().unwrap();
        for length in [0, 1, LARGE as usize - 1, LARGE as usize, LARGE as usize + 12_345_678] {
            let bytes: Vec<u8> = (0..length).map(|i| ((i * i) >> 7) as u8).collect();
            let path = folder.path().join("file");
            fs::write(&path, &bytes).unwrap();
            assert_eq!(digest(&path).unwrap(), (length as u64, Digest::of_blob(&bytes)));
        }
    }
}
