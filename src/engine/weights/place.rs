//! Where tensors lie in files, whatever the files' format: what both readers
//! find and what the writer of safetensors takes.
//!
//! Copies bytes, never looks at numbers; knows no model.

use super::tensors::head;
use crate::base::failure::{Doing, Failure, Outcome};
use crate::host::disk::Out;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// No header of a checkpoint is larger; one that says so is damaged.
const LARGEST_HEADER: u64 = 100 << 20;

/// Hears how many bytes are written and how many there are; may end it.
pub type Heard<'a> = &'a mut dyn FnMut(u64, u64) -> Outcome<()>;

/// Where one tensor lies, row by row without gaps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte in the file.
    pub(super) start: u64,
}

impl Place {
    /// Bytes of the tensor.
    pub(super) fn length(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// Every tensor of a safetensors file with its first byte, sorted by name;
/// `what` names the file in messages.
///
/// # Errors
/// `Input` when the file is cut off or its header is damaged.
pub(super) fn layout(
    file: &mut (impl Read + Seek),
    what: &str,
) -> Outcome<Vec<(String, TensorInfo, u64)>> {
    let doing = || format!("reading {what}");
    let damaged = |why: String| {
        Failure::input(format!("{what} is not a whole safetensors file: {why}"))
            .hint("fetch or copy it again")
    };
    let size = file.seek(SeekFrom::End(0)).doing(doing)?;
    file.seek(SeekFrom::Start(0)).doing(doing)?;
    let mut length = [0; 8];
    if size < 8 {
        return Err(damaged(format!("it has {size} bytes")));
    }
    file.read_exact(&mut length).doing(doing)?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER || length > size - 8 {
        return Err(damaged(format!("its header would have {length} bytes, the file has {size}")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).doing(doing)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    let whole = 8 + length + metadata.data_len() as u64;
    if whole != size {
        return Err(damaged(format!("it has {size} bytes, its header speaks of {whole}")));
    }
    let start = |info: &TensorInfo| 8 + length + info.data_offsets.0 as u64;
    let tensors = metadata.tensors().into_iter();
    let mut found: Vec<_> = tensors.map(|(name, info)| (name, info.clone(), start(info))).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The tensors of a safetensors file, sorted by name.
///
/// # Errors
/// `Input` when the file is cut off or its header is damaged.
pub(super) fn of_safetensors(path: &Path) -> Outcome<Vec<(String, Place)>> {
    let mut file = File::open(path).doing(|| format!("reading `{}`", path.display()))?;
    let found = layout(&mut file, &format!("`{}`", path.display()))?;
    let place = |(name, TensorInfo { dtype, shape, .. }, start)| {
        (name, Place { file: path.to_owned(), dtype, shape, start })
    };
    Ok(found.into_iter().map(place).collect())
}

/// Writes tensors as one safetensors file, the widest number format first and
/// then by name, as the format's library does. Holds no tensor in memory.
///
/// # Errors
/// When a tensor cannot be read or the file not be written, and what `heard`
/// returns.
pub(super) fn write_safetensors(
    path: &Path,
    mut tensors: Vec<(String, Place)>,
    heard: Heard,
) -> Outcome<()> {
    tensors.sort_by(|(a_name, a), (b_name, b)| b.dtype.cmp(&a.dtype).then(a_name.cmp(b_name)));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, place)| {
        let start = end;
        end += place.length() as usize;
        let (dtype, shape) = (place.dtype, place.shape.clone());
        (name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let head = head(infos.collect())?;
    let doing = || format!("writing `{}`", path.display());
    let mut out = io::BufWriter::with_capacity(1 << 20, Out::create(path).doing(doing)?);
    out.write_all(&head).doing(doing)?;
    let (all, mut done) = (end as u64, 0);
    for (name, place) in &tensors {
        heard(done, all)?;
        let doing = || format!("copying `{name}` from `{}`", place.file.display());
        let mut file = File::open(&place.file).doing(doing)?;
        file.seek(SeekFrom::Start(place.start)).doing(doing)?;
        let copied = io::copy(&mut file.take(place.length()), &mut out).doing(doing)?;
        if copied != place.length() {
            return Err(Failure::input(format!("`{}` is cut off", place.file.display())));
        }
        done += copied;
    }
    out.flush().doing(doing)?;
    heard(done, all)
}

/// Whether two tensors are the same to the byte.
///
/// # Errors
/// When one cannot be read.
pub(super) fn same_content(a: &Place, b: &Place) -> Outcome<bool> {
    let open = |place: &Place| {
        let doing = || format!("reading `{}`", place.file.display());
        let mut file = File::open(&place.file).doing(doing)?;
        file.seek(SeekFrom::Start(place.start)).doing(doing)?;
        Ok::<_, Failure>(io::BufReader::with_capacity(1 << 20, file).take(place.length()))
    };
    if a.dtype != b.dtype || a.shape != b.shape {
        return Ok(false);
    }
    let (mut left, mut right) = (open(a)?, open(b)?);
    let doing = || format!("comparing tensors of `{}`", a.file.display());
    loop {
        let (x, y) = (left.fill_buf().doing(doing)?, right.fill_buf().doing(doing)?);
        let n = x.len().min(y.len());
        if n == 0 || x[..n] != y[..n] {
            // At the end of both they are the same.
            return Ok(x.is_empty() && y.is_empty());
        }
        left.consume(n);
        right.consume(n);
    }
}
