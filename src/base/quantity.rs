//! Amounts that a person writes with their unit: memory as `"4GiB"`, time as
//! `"2h"`. Each can be a field of a spec and a word of a command line.
//!
//! Knows nothing of what is measured.

use crate::base::{
    diag::Diagnostic,
    node::{Node, Value},
    spec::{Encoder, Field, Reading},
    text,
};
use serde_json::{Value as Json, json};
use std::{fmt, str::FromStr, time::Duration};

const MEMORY: &str = "bytes as a whole number, or a string such as \"512MiB\" or \"4GiB\"";
const TIME: &str = "seconds as a number, or a string such as \"90s\", \"15min\" or \"1h30min\"";

/// Units of memory and their bytes, by their names in lower case.
const BYTES: [(&str, u64); 9] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Units of time and their seconds.
const SECONDS: [(&str, f64); 6] =
    [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// The longest time that is taken for meant: a century.
const LONGEST: f64 = 100.0 * 366.0 * 86_400.0;

/// An amount of memory or disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A length of time, in seconds; never negative.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Span(pub f64);

impl Span {
    /// The same as the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.0).unwrap_or(Duration::MAX)
    }
}

/// Splits a number from the word behind it: `4GiB`, `1.5 h`. What follows the
/// word comes back too.
fn number_and_unit(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], rest[letters..].trim_start()))
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let wrong = || format!("`{text}` is no amount of memory: it is {MEMORY}");
        let (number, unit, rest) = number_and_unit(text.trim()).ok_or_else(wrong)?;
        let unit = if unit.is_empty() { "b" } else { unit }.to_ascii_lowercase();
        let factor = BYTES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let bytes = number * factor as f64;
        if !rest.is_empty() || bytes >= u64::MAX as f64 {
            return Err(wrong());
        }
        Ok(Bytes(bytes as u64))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is no length of time: it is {TIME}");
        let (mut seconds, mut rest) = (0.0, text.trim());
        if let Ok(plain) = rest.parse::<f64>() {
            (seconds, rest) = (plain, "");
        } else if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, unit, behind) = number_and_unit(rest).ok_or_else(wrong)?;
            seconds += number * SECONDS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
            rest = behind;
        }
        if (0.0..=LONGEST).contains(&seconds) { Ok(Span(seconds)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::bytes(self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::duration(self.duration()))
    }
}

/// Reads a quantity that was written as a string.
fn of_text<T: FromStr<Err = String>>(node: &Node, text: &str, cx: &mut Reading) -> Option<T> {
    let read = text.parse();
    if let Err(message) = &read {
        cx.push(Diagnostic::error(format!("`{}`: {message}", cx.path())).at(&node.origin));
    }
    read.ok()
}

impl Field for Bytes {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Bytes> {
        if let Some(text) = node.text() {
            return of_text(node, text, cx);
        }
        let bytes = node.int().and_then(|int| u64::try_from(int).ok());
        if bytes.is_none() {
            cx.mismatch(node, MEMORY);
        }
        bytes.map(Bytes)
    }

    fn encode(&self, out: &mut Encoder) {
        out.int(self.0);
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^ *[0-9.]+ *([KMGTkmgt][Ii]?)?[Bb]? *$" },
        ] })
    }

    fn type_name() -> String {
        MEMORY.to_owned()
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

impl Field for Span {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Span> {
        let seconds = match node.value {
            Value::Text(ref text) => return of_text(node, text, cx),
            Value::Int(int) => int as f64,
            Value::Float(float) => float,
            _ => f64::NAN,
        };
        let good = (0.0..=LONGEST).contains(&seconds);
        if !good {
            cx.mismatch(node, TIME);
        }
        good.then_some(Span(seconds))
    }

    fn encode(&self, out: &mut Encoder) {
        out.float(self.0);
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": "^ *([0-9.]+ *(ms|s|min|m|h|d)? *)+$" },
        ] })
    }

    fn type_name() -> String {
        TIME.to_owned()
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes(" 1.5 kib "), Ok(1536));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
        assert_eq!(bytes("17"), Ok(17));
        for wrong in ["", "GiB", "4G iB", "-1MiB", "4 apples", "1GiB 2", "1e40TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        let span = |text: &str| text.parse::<Span>().map(|span| span.0);
        assert_eq!(span("2h"), Ok(7200.0));
        assert_eq!(span("1h30min"), Ok(5400.0));
        assert_eq!(span("1d 2m 250ms"), Ok(86_520.25));
        assert_eq!(span("0.5"), Ok(0.5));
        for wrong in ["", "h", "2 weeks", "-3s", "1h-2", "inf", "nan", "1e30"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
