//! The part of the protobuf format that a `tokenizer.model` needs: numbered
//! fields, each a whole number, four bytes, eight bytes or a run of bytes.
//!
//! Knows the wire, and how a broken file is told; what a field means is
//! `sentencepiece`'s business.

use crate::base::failure::{Failure, Outcome};

/// One field's content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content<'a> {
    /// A whole number, or true and false.
    Number(u64),
    /// Four bytes, such as a float.
    Four([u8; 4]),
    /// A text, a run of bytes, or a message.
    Bytes(&'a [u8]),
    /// Eight bytes; nothing we read has them.
    Eight,
}

/// The file is not as it was made.
pub(super) fn damaged(what: impl std::fmt::Display) -> Failure {
    Failure::input(format!("`tokenizer.model` is damaged: {what}"))
        .hint("fetch or copy the file again and compare its digest")
}

/// Splits a message into its fields.
///
/// # Errors
/// `Input` when it ends in the middle of a field, or is no protobuf.
pub(super) fn parse(message: &[u8]) -> Outcome<Vec<(u64, Content<'_>)>> {
    fields(message).map_err(|at| damaged(format!("byte {at} begins nothing that is whole")))
}

/// A field that is text.
///
/// # Errors
/// `Input` when it is something else.
pub(super) fn text(content: &Content) -> Outcome<String> {
    match content {
        Content::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map_err(|error| damaged("a text in it is not UTF-8").caused_by(error)),
        _ => Err(damaged("a number stands where a text should")),
    }
}

/// The fields of a message, or at which byte it ends in the middle of one.
///
/// # Source
/// Protocol Buffers documentation, "Encoding".
fn fields(message: &[u8]) -> Result<Vec<(u64, Content<'_>)>, usize> {
    let mut at = 0;
    let mut found = Vec::new();
    while at < message.len() {
        let start = at;
        let key = varint(message, &mut at).ok_or(start)?;
        let content = match key & 7 {
            0 => Content::Number(varint(message, &mut at).ok_or(start)?),
            1 => {
                take(message, &mut at, 8).ok_or(start)?;
                Content::Eight
            }
            2 => {
                let length = varint(message, &mut at).ok_or(start)?;
                let length = usize::try_from(length).map_err(|_| start)?;
                Content::Bytes(take(message, &mut at, length).ok_or(start)?)
            }
            5 => {
                let bytes = take(message, &mut at, 4).ok_or(start)?;
                Content::Four([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            _ => return Err(start),
        };
        found.push((key >> 3, content));
    }
    Ok(found)
}

fn take<'a>(message: &'a [u8], at: &mut usize, length: usize) -> Option<&'a [u8]> {
    let bytes = message.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(bytes)
}

fn varint(message: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
