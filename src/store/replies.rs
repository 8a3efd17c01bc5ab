//! Replies that somebody else gave, and perhaps was paid for: kept for good,
//! by what was asked, for every step of every run.
//!
//! A book is one append-only file of checked lines. Several processes may
//! write into the same one; whoever asks the same again finds the answer. It
//! may lie in the store, or beside a manifest to be published with it. In memory
//! is where each reply lies, never the replies: a book may be larger than that.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::{clock::Throttle, fs},
    store::lines::{Lines, Place},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::HashMap, marker::PhantomData, path::Path, time::Duration};

/// A book, open for reading and writing.
#[derive(Debug)]
pub struct Replies<T> {
    known: HashMap<Digest, Place>,
    lines: Lines,
    syncs: Throttle,
    kind: PhantomData<fn() -> T>,
}

#[derive(Serialize)]
struct RowOut<'a, T> {
    key: Digest,
    asked: &'a Value,
    reply: &'a T,
}

#[derive(Deserialize)]
struct Named {
    key: Digest,
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
        let mut lines = Lines::append_to(path)?;
        let mut known = HashMap::new();
        lines.each(&mut |place, row| {
            if let Ok(Named { key }) = serde_json::from_str(row) {
                known.insert(key, place);
            }
        })?;
        let syncs = Throttle::new(Duration::from_millis(100));
        Ok(Replies { known, lines, syncs, kind: PhantomData })
    }

    /// The reply to what has this key.
    ///
    /// # Errors
    /// When the book cannot be read.
    pub fn get(&mut self, key: &Digest) -> Outcome<Option<T>> {
        let Some(place) = self.known.get(key) else { return Ok(None) };
        let row = self.lines.at(*place)?;
        let read = row.and_then(|row| serde_json::from_str::<RowIn<T>>(&row).ok());
        Ok(read.filter(|row| row.key == *key).map(|row| row.reply))
    }

    /// Keeps the reply to what was asked. After a `kill -9` it is there; a
    /// power cut loses those of the last tenth of a second.
    ///
    /// # Errors
    /// When the disk refuses, or the reply cannot be JSON.
    pub fn put(&mut self, key: Digest, asked: &Value, reply: &T) -> Outcome<()> {
        let text = serde_json::to_string(&RowOut { key, asked, reply })
            .map_err(|error| Failure::bug("keeping a reply").caused_by(error))?;
        let place = self.lines.append_placed(&text)?;
        if self.syncs.allows() {
            self.lines.sync()?;
        }
        self.known.insert(key, place);
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
        book.put(key("one"), &"one".into(), &"1".into()).unwrap();
        other.put(key("two"), &"two".into(), &"2".into()).unwrap();
        assert_eq!(book.get(&key("two")).unwrap(), None, "read when it was opened");
        let whole = std::fs::read(&path).unwrap();
        let mut book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("one")).unwrap().as_deref(), Some("1"));
        assert_eq!(book.get(&key("two")).unwrap().as_deref(), Some("2"));
        drop(book);
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("two")).unwrap(), None);
        book.put(key("two"), &"two".into(), &"3".into()).unwrap();
        let mut book = Replies::<String>::open(&path).unwrap();
        assert_eq!(book.get(&key("two")).unwrap().as_deref(), Some("3"));
    }
}
