//! `tokenizer.model`: sentencepiece's byte pairs, with byte fallback, special
//! and user-defined pieces, and the two ways in which transformers' slow
//! LLaMA tokenizer puts a blank in front of a text.
//!
//! Knows nothing of conversations. Unigram models are refused by name.
//!
//! # Source
//! google/sentencepiece `normalizer.cc`, `bpe_model.cc`,
//! `sentencepiece_processor.cc`; transformers `LlamaTokenizer` (slow, v4).

use super::Place;
use super::marks::{Added, Settings};
use super::normalizer::{BLANK, Normalizer};
use super::proto::{Content, damaged, parse, text};
use super::trie::WordSet;
use crate::base::failure::{Failure, Outcome};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte(u8),
}

#[derive(Debug)]
struct Piece {
    text: String,
    score: f32,
    r#type: Type,
}

/// A sentencepiece model with the tokens that were added to it.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pieces: Vec<Piece>,
    /// Pieces that text can become.
    merging: HashMap<String, u32>,
    /// Control, unknown and byte pieces.
    reserved: HashMap<String, u32>,
    bytes: Option<Box<[u32; 256]>>,
    unknown: u32,
    unknown_text: String,
    normalizer: Normalizer,
    user_defined: WordSet,
    legacy: bool,
    prefix_space: bool,
    /// Tokens that text is cut at, and their ids.
    marks: HashMap<String, Added>,
    cuts: WordSet,
    usual: Vec<(&'static str, Vec<String>)>,
    size: usize,
}

impl SentencePiece {
    /// Reads a model; `settings` are what the files beside it say.
    pub(super) fn read(bytes: &[u8], settings: &Settings) -> Outcome<SentencePiece> {
        let mut pieces: Vec<Piece> = Vec::new();
        // A message that comes twice is merged, which is what its bytes in a row are.
        let (mut trainer, mut normalizer): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for (number, content) in parse(bytes)? {
            match (number, content) {
                (1, Content::Bytes(message)) => pieces.push(piece(message)?),
                (2, Content::Bytes(message)) => trainer.extend(message),
                (3, Content::Bytes(message)) => normalizer.extend(message),
                (5, Content::Bytes(message)) => {
                    let table = parse(message)?.into_iter().find(|(number, _)| *number == 2);
                    if matches!(table, Some((_, Content::Bytes(table))) if !table.is_empty()) {
                        return Err(Failure::input(
                            "`tokenizer.model` rewrites texts after decoding, which is not \
                             supported",
                        ));
                    }
                }
                _ => {}
            }
        }
        if pieces.is_empty() {
            return Err(damaged("it holds no pieces"));
        }
        let mut model = 1;
        let mut suffix = false;
        let mut unknown_text = " \u{2047} ".to_owned();
        let mut usual = vec![
            ("unk_token", vec!["<unk>".to_owned()]),
            ("bos_token", vec!["<s>".to_owned()]),
            ("eos_token", vec!["</s>".to_owned()]),
        ];
        for (number, content) in parse(&trainer)? {
            match (number, content) {
                (3, Content::Number(kind)) => model = kind,
                (24, Content::Number(flag)) => suffix = flag != 0,
                (44, content) => unknown_text = text(&content)?,
                (45..=47, content) => usual[number as usize - 45].1 = vec![text(&content)?],
                _ => {}
            }
        }
        if model != 2 {
            let kind = ["unknown", "unigram", "byte-pair", "word", "character"]
                .get(model as usize)
                .unwrap_or(&"unknown");
            return Err(Failure::input(format!(
                "`tokenizer.model` is a {kind} model; only byte-pair ones can be read"
            ))
            .hint("LLaMA, Vicuna, OpenLLaMA and Mistral have byte-pair models"));
        }
        let normalizer = Normalizer::read(&normalizer, suffix)?;
        SentencePiece::build(pieces, normalizer, unknown_text, usual, settings)
    }

    fn build(
        pieces: Vec<Piece>,
        normalizer: Normalizer,
        unknown_text: String,
        usual: Vec<(&'static str, Vec<String>)>,
        settings: &Settings,
    ) -> Outcome<SentencePiece> {
        let (mut merging, mut reserved) = (HashMap::new(), HashMap::new());
        let (mut unknown, mut bytes, mut seen) = (None, Box::new([0_u32; 256]), 0);
        for (id, piece) in pieces.iter().enumerate() {
            let id = id as u32;
            match piece.r#type {
                Type::Unknown => unknown = Some(id),
                Type::Byte(byte) => {
                    bytes[usize::from(byte)] = id;
                    seen += 1;
                }
                _ => {}
            }
            let of_text = matches!(piece.r#type, Type::Normal | Type::UserDefined | Type::Unused);
            let table = if of_text { &mut merging } else { &mut reserved };
            if table.insert(piece.text.clone(), id).is_some() {
                return Err(damaged(format!("it holds the piece `{}` twice", piece.text)));
            }
        }
        let unknown = unknown.ok_or_else(|| damaged("no piece stands for the unknown"))?;
        if seen != 0 && seen != 256 {
            return Err(damaged(format!("it holds {seen} of the 256 byte pieces")));
        }
        let user_defined = pieces.iter().filter(|piece| piece.r#type == Type::UserDefined);
        let user_defined = WordSet::new(user_defined.map(|piece| piece.text.clone()));
        let mut model = SentencePiece {
            size: pieces.len(),
            merging,
            reserved,
            bytes: (seen == 256).then_some(bytes),
            unknown,
            unknown_text,
            normalizer,
            user_defined,
            legacy: settings.legacy,
            prefix_space: settings.prefix_space,
            marks: HashMap::new(),
            cuts: WordSet::new([]),
            usual,
            pieces,
        };
        model.add(settings)?;
        Ok(model)
    }

    /// Takes in the special tokens and those that were added from outside.
    fn add(&mut self, settings: &Settings) -> Outcome<()> {
        for added in &settings.added {
            let known = self.pieces.get(added.id as usize).is_none_or(|p| p.text == added.text);
            if !known {
                return Err(Failure::input(format!(
                    "the added token `{}` has the id {} of the piece `{}`",
                    added.text, added.id, self.pieces[added.id as usize].text
                ))
                .hint("the files beside `tokenizer.model` belong to another one"));
            }
            self.size = self.size.max(added.id as usize + 1);
            self.marks.insert(added.text.clone(), added.clone());
        }
        let usual: Vec<&str> =
            self.usual.iter().flat_map(|(_, texts)| texts).map(String::as_str).collect();
        let more = settings.more_special.iter().map(String::as_str);
        let named: Vec<String> =
            settings.names().chain(usual).chain(more).map(str::to_owned).collect();
        for text in named {
            if let Some(id) = self.id(&text) {
                let strip = self.marks.get(&text).map_or((false, false), |added| added.strip);
                self.marks.insert(text.clone(), Added { id, text, special: true, strip });
            }
        }
        self.cuts = WordSet::new(self.marks.keys().cloned());
        Ok(())
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The usual spellings of the special tokens, as the model itself has them.
    pub(super) fn usual(&self) -> &[(&'static str, Vec<String>)] {
        &self.usual
    }

    pub(super) fn is_mark(&self, id: u32) -> bool {
        self.pieces.get(id as usize).is_some_and(|piece| piece.r#type == Type::Control)
            || self.marks.values().any(|mark| mark.special && mark.id == id)
    }

    /// The id of the token that is spelled so.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let added = self.marks.get(token).map(|mark| mark.id);
        added.or_else(|| self.reserved.get(token).or_else(|| self.merging.get(token)).copied())
    }

    /// A text's ids. With `legacy`, every part between special tokens is a text
    /// of its own, with a blank thought in front; without, only the first is.
    pub(super) fn encode(&self, text: &str, place: Place) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut prepared = String::new();
        if !self.legacy {
            if self.prefix_space && place == Place::Start {
                prepared += BLANK;
            }
            prepared += &text.replace(BLANK, " ");
        }
        let text = if self.legacy { text } else { &prepared };
        let mut parts = self.cuts.split(text);
        self.strip(&mut parts);
        let mut ids = Vec::new();
        for (i, &(part, is_mark)) in parts.iter().enumerate() {
            if is_mark {
                // A blank that was thought in front of nothing but a mark goes.
                let lone = i == 1 && !self.legacy && place == Place::Start && parts[0].0 == BLANK;
                if lone && self.marks[part].special {
                    ids.clear();
                }
                ids.push(self.marks[part].id);
                continue;
            }
            // Inside a text the blank in front is written, never thought.
            let inside = i == 0 && place == Place::AfterText;
            let kept = !self.legacy && part.starts_with([' ', '\u{2581}']);
            let prefix = self.legacy && self.normalizer.dummy_prefix && !inside;
            let normal = self.normalizer.run(part, prefix, inside || kept, &self.user_defined);
            self.merge(&normal, &mut ids);
        }
        ids
    }

    /// Takes away the white space that some added tokens swallow.
    fn strip(&self, parts: &mut Vec<(&str, bool)>) {
        for i in 0..parts.len() {
            let (part, true) = parts[i] else { continue };
            let (left, right) = self.marks[part].strip;
            if left && i > 0 && !parts[i - 1].1 {
                parts[i - 1].0 = parts[i - 1].0.trim_end();
            }
            if right && parts.get(i + 1).is_some_and(|next| !next.1) {
                parts[i + 1].0 = parts[i + 1].0.trim_start();
            }
        }
        parts.retain(|(part, _)| !part.is_empty());
    }

    /// Merges the best pair again and again, as the training did.
    fn merge(&self, normal: &str, ids: &mut Vec<u32>) {
        let mut symbols = self.symbols(normal);
        let mut agenda = BinaryHeap::new();
        // How a piece that must not come out was put together.
        let mut made: HashMap<&str, (&str, &str)> = HashMap::new();
        let mut consider = |symbols: &[Symbol], left: usize, agenda: &mut BinaryHeap<Pair>| {
            let right = symbols[left].next;
            if right == usize::MAX || symbols[left].frozen || symbols[right].frozen {
                return;
            }
            let (a, b) = (&symbols[left], &symbols[right]);
            let whole = &normal[a.start..b.end];
            let Some(&id) = self.merging.get(whole) else { return };
            let piece = &self.pieces[id as usize];
            agenda.push(Pair { score: piece.score, left, right, length: whole.len() });
            if piece.r#type == Type::Unused {
                made.insert(whole, (&normal[a.start..a.end], &normal[b.start..b.end]));
            }
        };
        for left in 0..symbols.len() {
            consider(&symbols, left, &mut agenda);
        }
        while let Some(Pair { left, right, length, .. }) = agenda.pop() {
            let (a, b) = (&symbols[left], &symbols[right]);
            // One of the two has since become part of another symbol.
            let stale = a.start == a.end || b.start == b.end || b.end - a.start != length;
            if stale || a.next != right {
                continue;
            }
            let (end, next) = (b.end, b.next);
            symbols[left].end = end;
            symbols[left].next = next;
            symbols[right].start = symbols[right].end;
            if next != usize::MAX {
                symbols[next].previous = left;
            }
            let previous = symbols[left].previous;
            if previous != usize::MAX {
                consider(&symbols, previous, &mut agenda);
            }
            consider(&symbols, left, &mut agenda);
        }
        let mut at = if symbols.is_empty() { usize::MAX } else { 0 };
        let mut was_unknown = false;
        while at != usize::MAX {
            let symbol = &symbols[at];
            self.emit(&normal[symbol.start..symbol.end], &made, &mut was_unknown, ids);
            at = symbol.next;
        }
    }

    /// The characters of a text, user-defined pieces being one symbol each.
    fn symbols(&self, normal: &str) -> Vec<Symbol> {
        let (mut symbols, mut start): (Vec<Symbol>, usize) = (Vec::new(), 0);
        while let Some(first) = normal[start..].chars().next() {
            let word = self.user_defined.longest(&normal[start..]);
            let end = start + word.map_or(first.len_utf8(), str::len);
            let previous = symbols.len().wrapping_sub(1);
            let next = if end < normal.len() { symbols.len() + 1 } else { usize::MAX };
            symbols.push(Symbol { start, end, previous, next, frozen: word.is_some() });
            start = end;
        }
        symbols
    }

    /// Writes one symbol's ids: a piece, the parts of an unused one, bytes, or
    /// one unknown for a run of them.
    fn emit(
        &self,
        symbol: &str,
        made: &HashMap<&str, (&str, &str)>,
        was_unknown: &mut bool,
        ids: &mut Vec<u32>,
    ) {
        let found = self.reserved.get(symbol).or_else(|| self.merging.get(symbol)).copied();
        let id = found.unwrap_or(self.unknown);
        if self.pieces[id as usize].r#type == Type::Unused
            && let Some((left, right)) = made.get(symbol)
        {
            self.emit(left, made, was_unknown, ids);
            self.emit(right, made, was_unknown, ids);
            return;
        }
        let is_unknown = id == self.unknown;
        match &self.bytes {
            Some(bytes) if is_unknown => ids.extend(symbol.bytes().map(|b| bytes[usize::from(b)])),
            _ if is_unknown && *was_unknown => {}
            _ => ids.push(id),
        }
        *was_unknown = is_unknown;
    }

    /// Ids as text. Control pieces and special tokens are left out, byte pieces
    /// joined before they are read as UTF-8; `from_start` takes the thought
    /// blank away.
    pub(super) fn decode(&self, ids: &[u32], from_start: bool) -> String {
        let (mut out, mut bytes) = (String::new(), Vec::new());
        let (mut at_start, mut taken) = (from_start, false);
        for &id in ids {
            let piece = self.pieces.get(id as usize);
            if let Some(Piece { r#type: Type::Byte(byte), .. }) = piece {
                bytes.push(*byte);
                continue;
            }
            read_bytes(&mut bytes, &mut out);
            at_start &= !taken && out.is_empty();
            taken = false;
            match piece {
                None => {
                    let added = self.marks.values().find(|mark| mark.id == id && !mark.special);
                    out += added.map_or("", |mark| mark.text.as_str());
                }
                Some(piece) if piece.r#type == Type::Control => {}
                Some(piece) if piece.r#type == Type::Unknown => out += &self.unknown_text,
                Some(piece) => {
                    let mut text = piece.text.as_str();
                    let Normalizer { dummy_prefix, squeeze, .. } = self.normalizer;
                    if at_start
                        && (dummy_prefix || squeeze)
                        && let Some(rest) = text.strip_prefix(BLANK)
                    {
                        text = rest;
                        // Where blanks are squeezed, all at the start go.
                        taken = !squeeze;
                    }
                    out += &text.replace(BLANK, " ");
                }
            }
        }
        read_bytes(&mut bytes, &mut out);
        out
    }
}

/// Reads gathered bytes as UTF-8; each byte that is none gives one mark for that.
fn read_bytes(bytes: &mut Vec<u8>, out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| out.push(char::REPLACEMENT_CHARACTER));
    }
    bytes.clear();
}

/// A run of text that is one symbol so far.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
    frozen: bool,
}

/// Two neighbours that could be one; the highest score first, then the leftmost.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

fn piece(message: &[u8]) -> Outcome<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, r#type: Type::Normal };
    let mut kind = 1;
    for (number, content) in parse(message)? {
        match (number, content) {
            (1, content) => piece.text = text(&content)?,
            (2, Content::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Content::Number(number)) => kind = number,
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err(damaged("a piece has no text"));
    }
    piece.r#type = match kind {
        1 => Type::Normal,
        2 => Type::Unknown,
        3 => Type::Control,
        4 => Type::UserDefined,
        5 => Type::Unused,
        6 => {
            let digits = piece.text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            Type::Byte(byte.ok_or_else(|| damaged(format!("`{}` is no byte", piece.text)))?)
        }
        _ => return Err(damaged(format!("the piece `{}` is of the type {kind}", piece.text))),
    };
    Ok(piece)
}
