//! Files: atomic writes, walks, hashing copies. Every error names the path and
//! what was being done to it.
//!
//! A file that other processes may read appears by rename only, after its
//! content has reached the disk.

use crate::base::{
    failure::{Doing, Failure, Outcome},
    hash::{Digest, Hasher},
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
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
    let (mut hasher, mut size, mut buffer) = (Hasher::blob(), 0, vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hasher.finish())),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing(doing),
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
}
