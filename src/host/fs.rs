//! Files: atomic writes, walks, hashing copies. Every error names the path and
//! what was being done to it.
//!
//! A file that other processes may read appears by rename only, after its
//! content has reached the disk.

use crate::base::{
    failure::{Doing, Failure, Outcome},
    hash::{Digest, Hasher},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
};

/// Creates a folder and its parents.
///
/// # Errors
/// When the machine refuses.
pub fn create_folder(path: &Path) -> Outcome<()> {
    fs::create_dir_all(path).doing(|| format!("creating folder `{}`", path.display()))
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

/// How long ago a file or folder was last written; `None` where there is none.
/// A time in the future is no time ago.
pub fn age(path: &Path) -> Option<std::time::Duration> {
    let written = fs::symlink_metadata(path).ok()?.modified().ok()?;
    Some(written.elapsed().unwrap_or_default())
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
    let doing = || format!("writing `{}`", path.display());
    let written = File::create(temporary).and_then(|mut file| {
        for piece in pieces {
            file.write_all(piece)?;
        }
        file.sync_data()
    });
    if let Err(error) = written.and_then(|()| fs::rename(temporary, path)) {
        // The error is reported; a leftover temporary is only litter.
        let _ = fs::remove_file(temporary);
        return Err(error).doing(doing);
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file a person reads: beside it first, and only when it differs.
/// Says whether anything was written.
///
/// # Errors
/// When the machine refuses.
pub fn write_if_different(path: &Path, bytes: &[u8]) -> Outcome<bool> {
    if read(path)?.is_some_and(|old| old == bytes) {
        return Ok(false);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    write_atomic(path, &temporary, bytes)?;
    Ok(true)
}

/// Makes sure that files can be created in a folder, which is made if need be.
///
/// # Errors
/// When they cannot.
pub fn try_writing(folder: &Path) -> Outcome<()> {
    create_folder(folder)?;
    let probe = folder.join(format!(".write-test.{}", std::process::id()));
    File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .doing(|| format!("writing to folder `{}`", folder.display()))
}

/// Makes a folder's names durable.
///
/// # Errors
/// When the machine refuses.
pub fn sync_folder(path: &Path) -> Outcome<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .doing(|| format!("syncing folder `{}`", path.display()))
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
    match fs::remove_dir_all(path) {
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
    match fs::remove_file(path) {
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
    fs::rename(from, to).doing(|| format!("moving `{}` to `{}`", from.display(), to.display()))
}

/// Waits until a file's content is on the disk.
///
/// # Errors
/// When the disk refuses.
pub fn sync_file(path: &Path) -> Outcome<()> {
    File::open(path)
        .and_then(|file| file.sync_data())
        .doing(|| format!("syncing `{}`", path.display()))
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
