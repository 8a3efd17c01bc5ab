//! Plain tar archives: written so that the same entries give the same bytes,
//! read as a stream, one entry at a time.
//!
//! Nothing of an archive is ever unpacked by the names in it: whoever reads
//! gets names and contents and decides. Knows nothing of what is in one.

use crate::base::failure::{Doing, Failure, Outcome};
use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

/// An archive in the making, beside the place where it will be.
pub struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    builder: tar::Builder<BufWriter<File>>,
}

impl Writer {
    /// Begins an archive that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Outcome<Writer> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = File::create(&temporary).doing(|| format!("writing `{}`", path.display()))?;
        let builder = tar::Builder::new(BufWriter::with_capacity(1 << 18, file));
        Ok(Writer { path: path.to_owned(), temporary, builder })
    }

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// When the disk refuses, or `content` does not have that many bytes.
    pub fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Outcome<()> {
        // Owner, time and mode are nobody's, so that they are everybody's.
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let mut counted = Counted { inner: content.take(size), seen: 0 };
        self.builder
            .append_data(&mut header, name, &mut counted)
            .doing(|| format!("writing `{name}` into `{}`", self.path.display()))?;
        if counted.seen != size {
            let what = format!("`{name}` has {} bytes instead of {size}", counted.seen);
            return Err(Failure::environment(what));
        }
        Ok(())
    }

    /// Ends the archive, waits until it is on the disk and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Outcome<()> {
        let doing = || format!("writing `{}`", self.path.display());
        self.builder.finish().doing(doing)?;
        let out = self.builder.get_mut();
        out.flush().and_then(|()| out.get_ref().sync_data()).doing(doing)?;
        fs::rename(&self.temporary, &self.path).doing(doing)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a rename there is none; before one it is only litter.
        let _ = fs::remove_file(&self.temporary);
    }
}

struct Counted<R> {
    inner: R,
    seen: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.seen += n as u64;
        Ok(n)
    }
}

/// One file of an archive: its name, its size by its header, its content.
pub struct Entry<'a> {
    /// The name as it is written, which may be anything.
    pub name: String,
    /// Bytes that its content should have; a torn archive has fewer.
    pub size: u64,
    /// The content, which ends early where the archive is torn.
    pub content: &'a mut dyn Read,
}

/// Goes through an archive from its first file to its last.
///
/// # Errors
/// When it cannot be opened, is no tar archive, or has something in it that is
/// not a plain file; what `visit` returns.
pub fn each(path: &Path, visit: &mut dyn FnMut(Entry) -> Outcome<()>) -> Outcome<()> {
    let file = File::open(path).doing(|| format!("reading `{}`", path.display()))?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 18, file));
    let torn = |error: std::io::Error| {
        Failure::input(format!("`{}` is damaged or cut short", path.display())).caused_by(error)
    };
    for entry in archive.entries().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            let what = format!("`{name}` in `{}` is not a plain file", path.display());
            return Err(Failure::input(what));
        }
        let size = entry.size();
        visit(Entry { name, size, content: &mut entry })?;
    }
    Ok(())
}
