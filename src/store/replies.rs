//! Replies that somebody else gave, and perhaps was paid for: kept for good,
//! by what was asked, for every step of every run.
//!
//! A book is one append-only file of checked lines. Several processes may
//! write into the same one; whoever asks the same again finds the answer. It
//! may lie in the store, or beside a manifest to be published with it.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::{clock::Throttle, fs},
    store::lines::{self, Lines},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::HashMap, path::Path, time::Duration};

/// A book, open for reading and writing.
#[derive(Debug)]
pub struct Replies<T> {
    known: HashMap<Digest, T>,
    lines: Lines,
    syncs: Throttle,
}

#[derive(Serialize)]
struct RowOut<'a, T> {
    key: Digest,
    asked: &'a Value,
    reply: &'a T,
}

#[derive(Deserialize)]
struct RowIn<T> {
    key: Digest,
    reply: T,
}

impl<T: Serialize + DeserializeOwned> Replies<T> {
    /// Opens the book at `path`, and begins it where there is none. A torn or
    /// damaged line is left out.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(path: &Path) -> Outcome<Replies<T>> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_folder(folder)?;
        }
        let read = |row: &String| serde_json::from_str::<RowIn<T>>(row).ok();
        let rows = lines::read(path)?;
        let known = rows.iter().filter_map(read).map(|row| (row.key, row.reply));
        let syncs = Throttle::new(Duration::from_millis(100));
        Ok(Replies { known: known.collect(), lines: Lines::append_to(path)?, syncs })
    }

    /// The reply to what has this key.
    pub fn get(&self, key: &Digest) -> Option<&T> {
        self.known.get(key)
    }

    /// Keeps the reply to what was asked. After a `kill -9` it is there; a
    /// power cut loses those of the last tenth of a second.
    ///
    /// # Errors
    /// When the disk refuses, or the reply cannot be JSON.
    pub fn put(&mut self, key: Digest, asked: &Value, reply: T) -> Outcome<()> {
        let row = RowOut { key, asked, reply: &reply };
        let text = serde_json::to_string(&row)
            .map_err(|error| Failure::bug("keeping a reply").caused_by(error))?;
        self.lines.append(&text)?;
        if self.syncs.allows() {
            self.lines.sync()?;
        }
        self.known.insert(key, reply);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_found_again_and_a_torn_one_is_not() {
        let folder = temp_dir::TempDir::new().unwrap();
        let path = folder.path().join("books").join("a");
        let key = |text: &str| Digest::of_blob(text.as_bytes());
        let mut book = Replies::<String>::open(&path).unwrap();
        let mut other = Replies::<String>::open(&path).unwrap();
        book.put(key("one"), &"one".into(), "1".into()).unwrap();
        other.put(key("two"), &"two".into(), "2".into()).unwrap();
        assert_eq!(book.get(&key("two")), None, "read when it was opened");
        let whole = std::fs::read(&path).unwrap();
        let book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("one")).map(String::as_str), Some("1"));
        assert_eq!(book.get(&key("two")).map(String::as_str), Some("2"));
        drop(book);
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("two")), None);
        book.put(key("two"), &"two".into(), "3".into()).unwrap();
        let book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("two")).map(String::as_str), Some("3"));
    }
}
