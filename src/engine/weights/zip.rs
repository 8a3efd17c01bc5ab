//! Where the parts of a zip archive lie, for the archives that torch writes:
//! nothing compressed, sizes beyond 4 GB allowed.
//!
//! Reads no tensor; checks no checksums.
//!
//! # Source
//! PKWARE, APPNOTE 6.3.10, sections 4.3 and 4.5.3

use std::io::{Read, Seek, SeekFrom};

/// The record at the end, with the longest comment.
const LONGEST_END: u64 = 22 + 65535;
/// No directory of a checkpoint is larger, and no list of its tensors.
const LARGEST_DIRECTORY: u64 = 100 << 20;

/// A part of an archive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    /// First byte of its content.
    pub(super) start: u64,
    /// Bytes of its content.
    pub(super) length: u64,
}

/// All parts, in the order of the directory; what is wrong otherwise.
pub(super) fn parts(file: &mut (impl Read + Seek)) -> Result<Vec<Part>, String> {
    let size = file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
    let (start, length) = directory(file, size)?;
    if length > LARGEST_DIRECTORY || start.checked_add(length).is_none_or(|end| end > size) {
        return Err("its directory does not lie in the file".into());
    }
    let bytes = read_at(file, start, length)?;
    let mut parts = Vec::new();
    let mut rest = &bytes[..];
    while rest.len() >= 46 && rest[..4] == *b"PK\x01\x02" {
        let method = u16_at(rest, 10);
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(rest, at)));
        let [name_end, extra_end, end] =
            [46 + lengths[0], 46 + lengths[0] + lengths[1], 46 + lengths.iter().sum::<usize>()];
        if rest.len() < end {
            break;
        }
        let name = String::from_utf8_lossy(&rest[46..name_end]).into_owned();
        let wide = |narrow: [u32; 3]| widen(narrow, &rest[name_end..extra_end]);
        let [length, packed, header] = wide([u32_at(rest, 24), u32_at(rest, 20), u32_at(rest, 42)]);
        if method != 0 || packed != length {
            return Err(format!("`{name}` in it is compressed, which torch never does"));
        }
        let local = read_at(file, header, 30)?;
        let skip = 30 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let start = header.saturating_add(skip);
        if local[..4] != *b"PK\x03\x04" || start.checked_add(length).is_none_or(|end| end > size) {
            return Err(format!("`{name}` does not lie in the file"));
        }
        parts.push(Part { name, start, length });
        rest = &rest[end..];
    }
    Ok(parts)
}

/// The content of a part that is no tensor.
pub(super) fn content(file: &mut (impl Read + Seek), part: &Part) -> Result<Vec<u8>, String> {
    if part.length > LARGEST_DIRECTORY {
        return Err(format!("`{}` in it has {} bytes", part.name, part.length));
    }
    read_at(file, part.start, part.length)
}

/// First byte and size of the directory.
fn directory(file: &mut (impl Read + Seek), size: u64) -> Result<(u64, u64), String> {
    let tail_start = size.saturating_sub(LONGEST_END);
    let tail = read_at(file, tail_start, size - tail_start)?;
    let end = (0..=tail.len().saturating_sub(22))
        .rev()
        .find(|&at| tail.len() >= at + 22 && tail[at..at + 4] == *b"PK\x05\x06")
        .ok_or("it has no directory at its end: it is cut off or no zip archive")?;
    if let Some(at) = end.checked_sub(20)
        && tail[at..at + 4] == *b"PK\x06\x07"
    {
        let wide = read_at(file, u64_at(&tail, at + 8), 56)?;
        if wide[..4] == *b"PK\x06\x06" {
            return Ok((u64_at(&wide, 48), u64_at(&wide, 40)));
        }
    }
    Ok((u32_at(&tail, end + 16).into(), u32_at(&tail, end + 12).into()))
}

/// Sizes that do not fit 32 bits are in an extra field, in the same order.
fn widen(narrow: [u32; 3], mut extra: &[u8]) -> [u64; 3] {
    let mut values = narrow.map(u64::from);
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(content) = extra.get(4..4 + length) else { break };
        if id == 1 {
            let mut words = content.chunks_exact(8);
            for value in values.iter_mut().filter(|value| **value == u64::from(u32::MAX)) {
                if let Some(word) = words.next() {
                    *value = u64_at(word, 0);
                }
            }
        }
        extra = &extra[4 + length..];
    }
    values
}

fn read_at(file: &mut (impl Read + Seek), start: u64, length: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| format!("{length} bytes at {start} cannot be read: {error}"))?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const CONTENT: &[u8] = b"numbers";

    /// An archive of one part, with its sizes and places in 32 or in 64 bits.
    fn archive(is_wide: bool) -> Vec<u8> {
        let narrow = |value: u64| if is_wide { u32::MAX } else { value as u32 };
        let length = CONTENT.len() as u64;
        // Something before it, so that no place is 0.
        let mut bytes = b"....".to_vec();
        bytes.extend(b"PK\x03\x04");
        bytes.extend([0; 22]);
        bytes.extend([3, 0, 2, 0]); // a name of 3 bytes, 2 more to skip
        bytes.extend(b"a/b");
        bytes.extend([0; 2]);
        bytes.extend(CONTENT);
        let directory = bytes.len() as u64;
        bytes.extend(b"PK\x01\x02");
        bytes.extend([0; 16]);
        bytes.extend(narrow(length).to_le_bytes());
        bytes.extend(narrow(length).to_le_bytes());
        let extra: u16 = if is_wide { 4 + 24 } else { 0 };
        bytes.extend([3, 0]);
        bytes.extend(extra.to_le_bytes());
        bytes.extend([0; 10]);
        bytes.extend(narrow(4).to_le_bytes());
        bytes.extend(b"a/b");
        if is_wide {
            bytes.extend([1, 0, 24, 0]);
            [length, length, 4].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        let (end, size) = (bytes.len() as u64, bytes.len() as u64 - directory);
        if is_wide {
            bytes.extend(b"PK\x06\x06");
            bytes.extend([0; 36]);
            bytes.extend(size.to_le_bytes());
            bytes.extend(directory.to_le_bytes());
            bytes.extend(b"PK\x06\x07");
            bytes.extend([0; 4]);
            bytes.extend(end.to_le_bytes());
            bytes.extend([1, 0, 0, 0]);
        }
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0; 8]);
        bytes.extend(narrow(size).to_le_bytes());
        bytes.extend(narrow(directory).to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    }

    #[test]
    fn parts_are_found_with_small_and_with_large_sizes() {
        for is_wide in [false, true] {
            let mut file = Cursor::new(archive(is_wide));
            let found = parts(&mut file).expect("reads");
            let part = Part { name: "a/b".into(), start: 4 + 30 + 3 + 2, length: 7 };
            assert_eq!(found, [part], "wide: {is_wide}");
            assert_eq!(content(&mut file, &found[0]).expect("reads"), CONTENT);
        }
    }

    #[test]
    fn cut_archives_are_refused() {
        for is_wide in [false, true] {
            let whole = archive(is_wide);
            for end in 0..whole.len() {
                assert!(parts(&mut Cursor::new(&whole[..end])).is_err(), "cut at {end}");
            }
        }
    }
}
