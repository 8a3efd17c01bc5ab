//! What an unfinished action may go on from: memos record by record, and
//! checkpoints. Only the identical action sees them, and only under its lock.

use crate::{
    base::{
        failure::{Doing, Failure, Outcome},
        hash::{Digest, Hasher},
    },
    host::fs,
    store::lines::Lines,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// Results by id, each on the disk as soon as it is put.
///
/// What comes back after a crash is what was put, to the last bit.
#[derive(Debug)]
pub struct Memo<T> {
    known: HashMap<String, T>,
    lines: Lines,
}

#[derive(Serialize)]
struct RowOut<'a, T> {
    id: &'a str,
    value: &'a T,
}

#[derive(Deserialize)]
struct RowIn<T> {
    id: String,
    value: T,
}

impl<T: Serialize + DeserializeOwned> Memo<T> {
    /// Opens the memo `name` in `folder`. A torn or damaged record is dropped.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(folder: &Path, name: &str) -> Outcome<Memo<T>> {
        fs::create_folder(folder)?;
        let (rows, lines) = Lines::recover(&folder.join(format!("{name}.memo")))?;
        let known = rows
            .iter()
            .filter_map(|row| serde_json::from_str::<RowIn<T>>(row).ok())
            .map(|row| (row.id, row.value))
            .collect();
        Ok(Memo { known, lines })
    }

    /// What was put for `id`.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.known.get(id)
    }

    /// Remembers `value` for `id`. Returns after it is safe from `kill -9`.
    ///
    /// # Errors
    /// When the disk refuses or `value` cannot be JSON.
    pub fn put(&mut self, id: &str, value: &T) -> Outcome<()> {
        let text = serde_json::to_string(&RowOut { id, value })
            .map_err(|error| Failure::bug(format!("remembering `{id}`")).caused_by(error))?;
        self.lines.append(&text)?;
        // Reading our own text back gives the caller what a resumed run gets.
        let row: RowIn<T> = serde_json::from_str(&text).map_err(|error| {
            Failure::bug(format!("a memo value of `{id}` does not read back")).caused_by(error)
        })?;
        self.known.insert(row.id, row.value);
        Ok(())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// First line of a checkpoint file.
#[derive(Serialize, Deserialize)]
struct Head {
    parts: Vec<(String, u64)>,
    digest: Digest,
}

/// Stores a checkpoint in `folder` and forgets all but the last two.
///
/// # Errors
/// When the disk refuses; the earlier ones are then still there.
pub fn save_checkpoint(folder: &Path, parts: &BTreeMap<String, Vec<u8>>) -> Outcome<()> {
    fs::create_lasting_folder(folder)?;
    let mut hasher = Hasher::blob();
    parts.values().for_each(|bytes| hasher.update(bytes));
    let head = Head {
        parts: parts.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect(),
        digest: hasher.finish(),
    };
    let mut first = serde_json::to_vec(&head).expect("names and sizes are JSON");
    first.push(b'\n');
    // A training's state is large: it is never in memory a second time.
    let mut pieces = std::iter::once(&first).chain(parts.values()).map(Vec::as_slice);
    let numbers = checkpoints(folder)?;
    let number = numbers.last().map_or(0, |last| last + 1);
    fs::write_pieces(&file(folder, number), &folder.join("checkpoint.tmp"), &mut pieces)?;
    for old in numbers.iter().rev().skip(1) {
        fs::remove_file(&file(folder, *old))?;
    }
    Ok(())
}

/// The newest checkpoint that is whole, if there is one.
///
/// # Errors
/// When the disk refuses.
pub fn load_checkpoint(folder: &Path) -> Outcome<Option<BTreeMap<String, Vec<u8>>>> {
    for number in checkpoints(folder)?.into_iter().rev() {
        let path = file(folder, number);
        let opened = File::open(&path).doing(|| format!("reading `{}`", path.display()))?;
        if let Some(parts) = decode(BufReader::new(opened)) {
            return Ok(Some(parts));
        }
    }
    Ok(None)
}

/// The parts of a checkpoint that is whole.
fn decode(mut from: impl BufRead) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut first = Vec::new();
    from.read_until(b'\n', &mut first).ok()?;
    let head: Head = serde_json::from_slice(first.strip_suffix(b"\n")?).ok()?;
    let (mut parts, mut hasher) = (BTreeMap::new(), Hasher::blob());
    for (name, size) in head.parts {
        let mut part = Vec::new();
        from.by_ref().take(size).read_to_end(&mut part).ok()?;
        if part.len() as u64 != size {
            return None;
        }
        hasher.update(&part);
        parts.insert(name, part);
    }
    let at_end = from.fill_buf().ok()?.is_empty();
    (at_end && hasher.finish() == head.digest).then_some(parts)
}

fn checkpoints(folder: &Path) -> Outcome<Vec<u64>> {
    let mut numbers: Vec<u64> = fs::names(folder)?
        .iter()
        .filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn file(folder: &Path, number: u64) -> std::path::PathBuf {
    folder.join(format!("checkpoint-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_gives_back_the_same_bits() {
        let folder = temp_dir::TempDir::new().unwrap();
        let values: Vec<f64> = (1..2000).map(|i| (f64::from(i) * 0.37).sin() * 1e-3).collect();
        let mut memo = Memo::open(folder.path(), "replies").unwrap();
        for (i, value) in values.iter().enumerate() {
            memo.put(&i.to_string(), value).unwrap();
        }
        drop(memo);
        let memo = Memo::<f64>::open(folder.path(), "replies").unwrap();
        for (i, value) in values.iter().enumerate() {
            assert_eq!(memo.get(&i.to_string()).unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before() {
        let folder = temp_dir::TempDir::new().unwrap();
        for step in 0..4u8 {
            let parts = BTreeMap::from([("a".to_owned(), vec![step; 5]), ("b".to_owned(), vec![])]);
            save_checkpoint(folder.path(), &parts).unwrap();
        }
        assert_eq!(checkpoints(folder.path()).unwrap(), [2, 3]);
        let newest = file(folder.path(), 3);
        let mut bytes = std::fs::read(&newest).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&newest, bytes).unwrap();
        assert_eq!(load_checkpoint(folder.path()).unwrap().unwrap()["a"], [2; 5]);
    }
}
