//! Content digests: BLAKE3 with a context string for every kind of thing that
//! is hashed, so that two different things never share a digest.
//!
//! Deliberately does not know what is hashed: files, canonical texts and
//! journal lines all come here as bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Context of raw file contents.
const BLOB: &str = "rekindle 2026 blob v1";

/// A 256-bit BLAKE3 digest, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digest of a file's content.
    pub fn of_blob(bytes: &[u8]) -> Digest {
        Digest::tagged(BLOB, bytes)
    }

    /// Digest of `bytes` under a context; different contexts never collide.
    pub fn tagged(context: &str, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::tagged(context);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest that was taken apart with [`Digest::bytes`].
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// A digest in the making, for content that arrives in pieces.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts the digest of a file's content.
    pub fn blob() -> Hasher {
        Hasher::tagged(BLOB)
    }

    /// Starts a digest under `context`.
    pub fn tagged(context: &str) -> Hasher {
        Hasher(blake3::Hasher::new_derive_key(context))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds bytes, many of them, on all cores.
    pub fn update_on_all_cores(&mut self, bytes: &[u8]) {
        self.0.update_rayon(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// The text was not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADigest;

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is 64 hexadecimal digits")
    }
}

impl std::error::Error for NotADigest {}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotADigest);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NotADigest);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = ((value(pair[0])? << 4) | value(pair[1])?) as u8;
        }
        Ok(Digest(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        deserializer.deserialize_str(OfText)
    }
}

/// Reads a digest where it stands, without a copy of its text: stores hold
/// tens of thousands of them.
struct OfText;

impl serde::de::Visitor<'_> for OfText {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&NotADigest, f)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_separate_and_text_round_trips() {
        let a = Digest::tagged("one", b"x");
        assert_ne!(a, Digest::tagged("two", b"x"));
        assert_eq!(a.to_string().parse(), Ok(a));
        let json = serde_json::to_string(&a).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), a);
        assert_eq!(serde_json::from_value::<Digest>(a.to_string().into()).unwrap(), a);
        for wrong in ["zz".to_owned(), "é".repeat(32), "g".repeat(64), "+f".repeat(32)] {
            assert_eq!(wrong.parse::<Digest>(), Err(NotADigest));
            assert!(serde_json::from_value::<Digest>(wrong.into()).is_err());
        }
    }
}
