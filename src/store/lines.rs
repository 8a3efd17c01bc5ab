//! Append-only files of checked lines: sixteen hexadecimal digits of a digest,
//! a space, one line of JSON.
//!
//! A line is written by one system call, so a killed process loses the line in
//! flight at most, and what is torn or damaged is recognised and left out.

use crate::base::{
    failure::{Doing, Outcome},
    hash::Digest,
};
use crate::host::{disk::Out, fs};
use std::{
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The context of a line's digest.
const CONTEXT: &str = "rekindle 2026 line v1";
/// Digits of it before each line.
const SUM: usize = 16;

/// Where a payload is in its file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    start: u64,
    length: u64,
}

/// A file of lines, open for appending.
#[derive(Debug)]
pub struct Lines {
    file: Out,
}

impl Lines {
    /// Opens a file for appending, without reading it. Several processes may
    /// append to the same file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn append_to(path: &Path) -> Outcome<Lines> {
        let doing = || format!("opening `{}`", path.display());
        let mut file = Out::append(path).doing(doing)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last).doing(doing)?;
        }
        let mut lines = Lines { file };
        if last != [b'\n'] {
            lines.write(b"\n")?; // ends a torn line, which readers then leave out
        }
        Ok(lines)
    }

    /// Reads a file and opens it for appending; damage is cut out of it. Only
    /// one process may have it open.
    ///
    /// # Errors
    /// When it cannot be read or mended.
    pub fn recover(path: &Path) -> Outcome<(Vec<String>, Lines)> {
        let bytes = fs::read(path)?.unwrap_or_default();
        let (good, damaged) = decode(&bytes);
        if damaged {
            let text: String = good.iter().map(|payload| encode(payload)).collect();
            fs::write_atomic(path, &path.with_extension("mending"), text.as_bytes())?;
        }
        Ok((good, Lines::append_to(path)?))
    }

    /// Appends a line. After a `kill -9` it is there; after a power cut it may
    /// not be, unless [`Lines::sync`] was called.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, payload: &str) -> Outcome<()> {
        self.write(encode(payload).as_bytes())
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Outcome<()> {
        self.file.sync().doing(|| format!("syncing `{}`", self.file.path().display()))
    }

    /// Appends a line; where its payload is in the file, in bytes, also where
    /// other processes append too.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_placed(&mut self, payload: &str) -> Outcome<Place> {
        self.append(payload)?;
        // What is opened for appending stands behind its own last write.
        let end = self.file.stream_position();
        let end = end.doing(|| format!("appending to `{}`", self.file.path().display()))?;
        let length = payload.len() as u64;
        Ok(Place { start: end.saturating_sub(length + 1), length })
    }

    /// Goes through all good lines there are, one in memory at a time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each(&mut self, hear: &mut dyn FnMut(Place, &str)) -> Outcome<()> {
        let path = self.file.path().to_owned();
        let doing = || format!("reading `{}`", path.display());
        self.file.rewind().doing(doing)?;
        let mut reader = BufReader::with_capacity(1 << 18, &mut self.file);
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).doing(doing)?;
            if read == 0 {
                return Ok(());
            }
            let whole = line.strip_suffix(b"\n");
            let found = whole.and_then(|line| payload(line).or_else(|| behind_a_torn_one(line)));
            if let Some(found) = found {
                // A payload reaches to the end of its line.
                let length = found.len() as u64;
                hear(Place { start: at + read as u64 - 1 - length, length }, found);
            }
            at += read as u64;
        }
    }

    /// The payload at a place; none where it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn at(&mut self, place: Place) -> Outcome<Option<String>> {
        let Some(begin) = place.start.checked_sub(SUM as u64 + 1) else { return Ok(None) };
        let path = self.file.path().to_owned();
        let doing = || format!("reading `{}`", path.display());
        self.file.seek(SeekFrom::Start(begin)).doing(doing)?;
        let mut line = Vec::new();
        let whole = SUM as u64 + 1 + place.length;
        (&mut self.file).take(whole).read_to_end(&mut line).doing(doing)?;
        Ok(payload(&line).map(str::to_owned))
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        let written = self.file.write_all(bytes);
        written.doing(|| format!("appending to `{}`", self.file.path().display()))
    }
}

/// All good lines of a file; none where there is no file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Outcome<Vec<String>> {
    Ok(decode(&fs::read(path)?.unwrap_or_default()).0)
}

/// The good lines among some bytes of a file.
pub fn payloads(bytes: &[u8]) -> Vec<String> {
    decode(bytes).0
}

/// The good lines among some bytes, where they are. One that stands behind a
/// torn one in the same line is left out.
pub(super) fn good(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|&byte| byte == b'\n').filter_map(payload)
}

pub(super) fn encode(payload: &str) -> String {
    debug_assert!(!payload.contains('\n'), "a payload is one line");
    format!("{} {payload}\n", check(payload))
}

fn check(payload: &str) -> String {
    Digest::tagged(CONTEXT, payload.as_bytes()).to_string()[..SUM].to_owned()
}

/// Whether `sum` is what [`check`] gives, without the making of a text.
fn is_sum(sum: &str, payload: &str) -> bool {
    let digest = Digest::tagged(CONTEXT, payload.as_bytes());
    let digits = sum.as_bytes();
    let digit = |half: u8| char::from_digit(half.into(), 16).map(|digit| digit as u8);
    let fits = |(pair, byte): (&[u8], &u8)| {
        digit(byte >> 4) == Some(pair[0]) && digit(byte & 15) == Some(pair[1])
    };
    digits.len() == 16 && digits.chunks_exact(2).zip(digest.bytes()).all(fits)
}

/// The good payloads, and whether there was anything else.
fn decode(bytes: &[u8]) -> (Vec<String>, bool) {
    let (mut good, mut damaged) = (Vec::new(), false);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n");
        match line.and_then(payload) {
            Some(payload) => good.push(payload.to_owned()),
            None => {
                damaged = true;
                good.extend(line.and_then(behind_a_torn_one).map(str::to_owned));
            }
        }
    }
    (good, damaged)
}

fn payload(line: &[u8]) -> Option<&str> {
    let (sum, payload) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    is_sum(sum, payload).then_some(payload)
}

/// The whole line that another process put behind one that a full disk or a
/// `kill -9` cut short.
fn behind_a_torn_one(line: &[u8]) -> Option<&str> {
    let starts = 1..line.len().saturating_sub(SUM);
    let begins = |start: &usize| {
        let (sum, rest) = line[*start..].split_at(SUM);
        rest[0] == b' ' && sum.iter().all(u8::is_ascii_hexdigit)
    };
    starts.filter(begins).find_map(|start| payload(&line[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torn_or_flipped_tail_leaves_the_lines_before_it() {
        let whole = format!("{}{}", encode("{\"a\":1}"), encode("{\"b\":2}"));
        let first = encode("{\"a\":1}").len();
        for cut in first..whole.len() {
            let (good, damaged) = decode(&whole.as_bytes()[..cut]);
            assert_eq!((good.len(), damaged), (1, cut != first), "cut at {cut}");
            let mut flipped = whole.clone().into_bytes();
            flipped[cut] ^= 1;
            let (good, damaged) = decode(&flipped);
            assert_eq!((good, damaged), (vec!["{\"a\":1}".to_owned()], true), "flip at {cut}");
        }
    }

    #[test]
    fn a_line_behind_a_torn_one_of_another_process_is_read() {
        let (torn, whole) = (encode("{\"a\":1}"), encode("{\"b\":\"0123456789abcdef é\"}"));
        for cut in 1..torn.len() - 1 {
            let text = format!("{}{whole}{torn}", &torn[..cut]);
            let read = decode(text.as_bytes());
            let expected =
                vec!["{\"b\":\"0123456789abcdef é\"}".to_owned(), "{\"a\":1}".to_owned()];
            assert_eq!(read, (expected, true), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_gone_through_line_by_line_is_found_again_at_its_place() {
        let folder = temp_dir::TempDir::new().unwrap();
        let path = folder.path().join("book");
        let torn = encode("{\"a\":1}");
        std::fs::write(&path, format!("{}{}junk", &torn[..9], encode("{\"b\":\"é\"}"))).unwrap();
        let (mut one, mut two) =
            (Lines::append_to(&path).unwrap(), Lines::append_to(&path).unwrap());
        let mut placed = vec![one.append_placed("3").unwrap(), two.append_placed("44").unwrap()];
        placed.push(one.append_placed("555").unwrap());
        let mut seen = Vec::new();
        one.each(&mut |place, text| seen.push((place, text.to_owned()))).unwrap();
        let texts: Vec<&str> = seen.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, read(&path).unwrap());
        assert_eq!(texts, ["{\"b\":\"é\"}", "3", "44", "555"]);
        assert_eq!(seen[1..].iter().map(|(place, _)| *place).collect::<Vec<_>>(), placed);
        for (place, text) in &seen {
            assert_eq!(two.at(*place).unwrap().as_ref(), Some(text));
        }
        // Reading moves nothing of what is written after it.
        let next = two.append_placed("6").unwrap();
        assert_eq!(one.at(next).unwrap().as_deref(), Some("6"));
        std::fs::write(&path, "x".repeat(400)).unwrap();
        assert_eq!(one.at(next).unwrap(), None);
    }

    #[test]
    fn recovery_cuts_the_damage_out() {
        let folder = temp_dir::TempDir::new().unwrap();
        let path = folder.path().join("memo");
        std::fs::write(&path, format!("{}torn", encode("1"))).unwrap();
        let (good, mut lines) = Lines::recover(&path).unwrap();
        assert_eq!(good, ["1"]);
        lines.append("2").unwrap();
        assert_eq!(read(&path).unwrap(), ["1", "2"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), encode("1") + &encode("2"));
    }
}
