//! The part of Python's pickle language that a torch file of tensors needs,
//! read as data. Nothing is called, imported or run: a file that asks for
//! anything else than tensors, their storages and dictionaries of them is
//! refused, and what it asked for is named.
//!
//! Knows no files; a storage is the name that the archive has for it.
//!
//! # Source
//! CPython `Lib/pickletools.py` (meaning of the opcodes, protocol 2) and
//! PyTorch `torch/_utils.py`, `torch/serialization.py` (what they build)

use safetensors::tensor::Dtype;
use std::collections::BTreeMap;

/// A tensor as the file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// Name of its storage in the archive.
    pub(super) storage: String,
    /// Format of its numbers.
    pub(super) dtype: Dtype,
    /// Its sizes; rows lie one after another without gaps.
    pub(super) shape: Vec<usize>,
    /// Numbers of the storage before its first one.
    pub(super) offset: u64,
}

/// What stands on the stack. Parts of containers are numbers of entries in the
/// machine's tables, so that no value holds another and none is ever nested.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    /// None, true or false: nothing that tensors are made of.
    Other,
    Int(i64),
    Text(&'a str),
    Tuple(usize),
    Dictionary(usize),
    Name(Name),
    Storage(Dtype, &'a str),
    Tensor(usize),
}

/// What a file may ask for by name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    OrderedDictionary,
    RebuildTensor,
    Storage(Dtype),
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dictionaries: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<Stored>,
}

/// The tensors of a pickled dictionary, in its order; what is wrong or asked
/// for too much otherwise.
pub(super) fn tensors(bytes: &[u8]) -> Result<Vec<(String, Stored)>, String> {
    let mut machine = Machine { rest: bytes, ..Machine::default() };
    while machine.step()? {}
    let Some(Value::Dictionary(top)) = machine.stack.pop() else {
        return Err("it holds no dictionary of tensors".into());
    };
    let entries = machine.dictionaries[top].iter().map(|(key, value)| match (key, value) {
        (Value::Text(name), Value::Tensor(tensor)) => {
            Ok(((*name).to_owned(), machine.tensors[*tensor].clone()))
        }
        (Value::Text(name), _) => Err(format!("`{name}` in it is no tensor")),
        _ => Err("a tensor in it has no name".to_owned()),
    });
    entries.collect()
}

impl<'a> Machine<'a> {
    /// Does what the next opcode says; false at the end.
    fn step(&mut self) -> Result<bool, String> {
        match self.byte()? {
            0x80 => match self.byte()? {
                2 => {}
                other => return Err(format!("it is pickled by protocol {other}, torch's is 2")),
            },
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_tuple(Vec::new()),
            b't' => {
                let items = self.marked()?;
                self.push_tuple(items);
            }
            count @ 0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(count - 0x84));
                let items = self.stack.split_off(at.ok_or_else(short)?);
                self.push_tuple(items);
            }
            b'}' => self.push_dictionary(),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(&items)?;
            }
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b'K' => {
                let value = self.byte()?.into();
                self.stack.push(Value::Int(value));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.word()?).into();
                self.stack.push(Value::Int(value));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.word()?).into();
                self.stack.push(Value::Int(value));
            }
            0x8a => {
                let bytes = usize::from(self.byte()?);
                let value = long(self.take(bytes)?)?;
                self.stack.push(Value::Int(value));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.word()?) as usize;
                let text = std::str::from_utf8(self.take(length)?).map_err(|e| e.to_string())?;
                self.stack.push(Value::Text(text));
            }
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.word()?);
                self.remember(key)?;
            }
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.word()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Name(known(module, name)?));
            }
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            b'b' => {
                // The attributes of a dictionary, such as torch's versions of modules.
                self.pop()?;
                if !matches!(self.stack.last(), Some(Value::Dictionary(_))) {
                    return Err("it gives attributes to something else than a dictionary".into());
                }
            }
            other => {
                return Err(format!(
                    "it uses the opcode {} (0x{other:02x}), which no tensor needs",
                    opcode_name(other)
                ));
            }
        }
        Ok(true)
    }

    /// A storage, out of `('storage', type, name, where it was, numbers)`.
    fn storage(&mut self) -> Result<(), String> {
        let Value::Tuple(parts) = self.pop()? else {
            return Err("a storage in it has no description".into());
        };
        match self.tuples[parts][..] {
            [Value::Text("storage"), Value::Name(Name::Storage(dtype)), Value::Text(name), ..] => {
                self.stack.push(Value::Storage(dtype, name));
                Ok(())
            }
            _ => Err("a storage in it is described in another way than torch does".into()),
        }
    }

    /// What a call of one of the known names gives.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Name(name)) = (arguments, name) else {
            return Err("it calls something that has no name".into());
        };
        match (name, &self.tuples[arguments][..]) {
            (Name::OrderedDictionary, []) => {
                self.push_dictionary();
                Ok(())
            }
            (
                Name::RebuildTensor,
                &[
                    Value::Storage(dtype, storage),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ],
            ) => {
                let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
                if !is_contiguous(&shape, &strides) {
                    return Err(format!(
                        "a tensor of shape {shape:?} in it has the strides {strides:?}, not row after row"
                    ));
                }
                let offset = u64::try_from(offset).map_err(|error| error.to_string())?;
                let storage = storage.to_owned();
                self.tensors.push(Stored { storage, dtype, shape, offset });
                self.stack.push(Value::Tensor(self.tensors.len() - 1));
                Ok(())
            }
            _ => Err("it calls a known name in another way than torch does".into()),
        }
    }

    fn sizes(&self, tuple: usize) -> Result<Vec<usize>, String> {
        let sizes = self.tuples[tuple].iter().map(|value| match value {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        });
        sizes.collect::<Option<_>>().ok_or_else(|| "a size in it is no number".into())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let Some(Value::Dictionary(at)) = self.stack.last() else {
            return Err("it sets an entry of something else than a dictionary".into());
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("an entry in it has no value".into());
        }
        self.dictionaries[*at].extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.tuples.push(items);
        self.stack.push(Value::Tuple(self.tuples.len() - 1));
    }

    fn push_dictionary(&mut self) {
        self.dictionaries.push(Vec::new());
        self.stack.push(Value::Dictionary(self.dictionaries.len() - 1));
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.stack.pop().ok_or_else(short)
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(short)?))
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        self.memo.insert(key, *self.stack.last().ok_or_else(short)?);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        self.stack.push(*self.memo.get(&key).ok_or_else(short)?);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.word::<1>()?[0])
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (word, rest) = self.rest.split_first_chunk().ok_or_else(short)?;
        self.rest = rest;
        Ok(*word)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or_else(short)?;
        let line = self.take(end)?;
        self.byte()?;
        std::str::from_utf8(line).map_err(|error| error.to_string())
    }
}

/// What a name stands for; any other name is refused.
fn known(module: &str, name: &str) -> Result<Name, String> {
    let dtype = match (module, name) {
        ("collections", "OrderedDict") => return Ok(Name::OrderedDictionary),
        ("torch._utils", "_rebuild_tensor_v2") => return Ok(Name::RebuildTensor),
        ("torch", "FloatStorage") => Dtype::F32,
        ("torch", "HalfStorage") => Dtype::F16,
        ("torch", "BFloat16Storage") => Dtype::BF16,
        ("torch", "DoubleStorage") => Dtype::F64,
        ("torch", "LongStorage") => Dtype::I64,
        ("torch", "IntStorage") => Dtype::I32,
        ("torch", "BoolStorage") => Dtype::BOOL,
        _ => {
            return Err(format!(
                "it asks for `{module}.{name}`; only tensors are read, and nothing is ever run"
            ));
        }
    };
    Ok(Name::Storage(dtype))
}

/// Whether rows lie one after another; a stride along a size of 1 is free.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut wanted = Some(1usize);
    let dense = shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || wanted == Some(stride);
        wanted = wanted.and_then(|wanted| wanted.checked_mul(size));
        fits
    });
    shape.len() == strides.len() && dense && wanted.is_some()
}

/// A whole number of up to eight bytes, least first, with a sign.
fn long(bytes: &[u8]) -> Result<i64, String> {
    if bytes.len() > 8 {
        return Err("a number in it is larger than any size".into());
    }
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    Ok(i64::from_le_bytes(std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(fill))))
}

fn short() -> String {
    "its description of the tensors breaks off or is damaged".into()
}

/// Names of opcodes that are refused, for messages.
fn opcode_name(opcode: u8) -> &'static str {
    match opcode {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' | b'G' => "FLOAT",
        b'I' | b'L' => "INT",
        b'P' => "PERSID",
        b'S' | b'T' | b'U' => "STRING",
        b'V' => "UNICODE",
        b'a' | b'e' => "APPEND",
        b'd' => "DICT",
        b'g' | b'p' => "GET or PUT",
        b'i' => "INST",
        b'l' | b']' => "LIST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x82..=0x84 => "EXT",
        0x8b => "LONG4",
        b'B' | b'C' | 0x8e => "BYTES",
        0x8c | 0x8d => "UNICODE of protocol 4",
        0x8f..=0x91 => "SET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        0x97 | 0x98 => "BUFFER",
        _ => "without a name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{'w': <[2, 3] of storage 0, from its fifth number on>}` as torch writes it.
    fn file(name: &str, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
        let mut bytes =
            b"\x80\x02}q\x00(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n".to_vec();
        bytes.extend(b"((X\x07\x00\x00\x00storage");
        bytes.extend(format!("c{name}\n").as_bytes());
        bytes.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x64tQK\x05");
        bytes.extend([b'K', shape[0], b'K', shape[1], 0x86]);
        bytes.extend([b'K', strides[0], b'K', strides[1], 0x86]);
        bytes.extend(b"\x89ccollections\nOrderedDict\n)Rtq\x01Ru.");
        bytes
    }

    #[test]
    fn a_tensor_is_read_and_nothing_else_is_done() {
        let found = tensors(&file("torch\nHalfStorage", [2, 3], [3, 1])).expect("reads");
        let stored =
            Stored { storage: "0".into(), dtype: Dtype::F16, shape: vec![2, 3], offset: 5 };
        assert_eq!(found, [("w".to_owned(), stored)]);
        let transposed = tensors(&file("torch\nHalfStorage", [2, 3], [1, 2])).expect_err("refused");
        assert!(transposed.contains("strides [1, 2]"), "{transposed}");
    }

    #[test]
    fn every_other_name_and_opcode_is_refused_by_name() {
        let refused = |bytes: &[u8]| tensors(bytes).expect_err("refused");
        assert!(refused(&file("os\nsystem", [1, 1], [1, 1])).contains("`os.system`"));
        assert!(
            refused(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x00x\x85R.")
                .contains("`builtins.eval`")
        );
        assert!(refused(b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.").contains("INST"));
        assert!(refused(b"\x80\x02ctorch\nFloatStorage\n)\x81.").contains("NEWOBJ"));
        assert!(refused(b"\x80\x04\x95").contains("protocol 4"));
        assert!(refused(b"\x80\x02ctorch\nFloatStorage\n)R.").contains("in another way"));
        assert!(refused(b"\x80\x02}X\x01\x00\x00\x00aK\x01s.").contains("`a` in it is no tensor"));
    }

    #[test]
    fn damaged_descriptions_are_refused_and_never_panic() {
        let whole = file("torch\nFloatStorage", [2, 3], [3, 1]);
        for end in 0..whole.len() {
            assert!(tensors(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            for change in [0, b'(', b't', b'u', b'R', b'Q', b'b', 0x85, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = change;
                // Either it still reads as something, or it says why not.
                if let Err(why) = tensors(&bytes) {
                    assert!(!why.is_empty());
                }
            }
        }
    }

    #[test]
    fn whole_numbers_keep_their_sign() {
        assert_eq!((long(&[]), long(&[0xff]), long(&[0xff, 0])), (Ok(0), Ok(-1), Ok(255)));
        assert!(long(&[1; 9]).is_err());
    }
}
