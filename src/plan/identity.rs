//! The identity of a step: one canonical text of all that decides its result,
//! and nothing else. Its digest is the key; a difference of two such texts is
//! the reason for a rerun, so key and explanation cannot disagree.
//!
//! Never in it: names, arms, paths, hosts, times, threads, the device's number.

use crate::{base::hash::Digest, plan::StepShape};
use std::{collections::BTreeMap, fmt::Write};

/// Context of the keys under which results are stored.
pub const ACTION: &str = "rekindle 2026 action v1";
const PLAN: &str = "rekindle 2026 plan v1";

/// The canonical text: one `path = value` a line.
pub fn text<R: std::fmt::Display, D: std::fmt::Display>(
    shape: &StepShape,
    inputs: impl Iterator<Item = (R, D)>,
) -> String {
    let mut text = String::with_capacity(shape.parameters.len() + 256);
    let written = write_text(&mut text, shape, inputs);
    written.expect("a string takes everything");
    text
}

fn write_text<R: std::fmt::Display, D: std::fmt::Display>(
    text: &mut String,
    shape: &StepShape,
    inputs: impl Iterator<Item = (R, D)>,
) -> std::fmt::Result {
    writeln!(text, "kind = {}\nversion = {}", quoted(&shape.kind), shape.version)?;
    if let Some(seed) = shape.seed {
        writeln!(text, "seed = {seed}")?;
    }
    if let Some(numerics) = &shape.numerics {
        writeln!(text, "numerics = {}", quoted(numerics))?;
    }
    for parameter in shape.parameters.lines() {
        let (path, value) = parameter.split_once(" = ").unwrap_or((parameter, ""));
        ["with.", path, " = ", value, "\n"].iter().for_each(|part| text.push_str(part));
    }
    for (role, digest) in inputs {
        writeln!(text, "input.{role} = {digest}")?;
    }
    for (name, kind) in &shape.outputs {
        ["output.", name, " = ", kind.name(), "\n"].iter().for_each(|part| text.push_str(part));
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// The key under which the result of an identity is stored.
pub fn action_key(text: &str) -> Digest {
    Digest::tagged(ACTION, text.as_bytes())
}

/// The key of a step before anything has run: inputs stand for the keys of
/// the steps that make them.
pub fn plan_key<R: std::fmt::Display>(
    shape: &StepShape,
    inputs: impl Iterator<Item = (R, String)>,
) -> Digest {
    Digest::tagged(PLAN, text(shape, inputs).as_bytes())
}

/// A line that two identities do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path, such as `with.temperature` or `input.model`.
    pub path: String,
    /// Value before; none where the line is new.
    pub old: Option<String>,
    /// Value now; none where the line is gone.
    pub new: Option<String>,
}

/// Where two identities differ, by path.
pub fn diff(old: &str, new: &str) -> Vec<Difference> {
    let lines = |text: &str| -> BTreeMap<String, String> {
        text.lines()
            .map(|line| line.split_once(" = ").unwrap_or((line, "")))
            .map(|(path, value)| (path.to_owned(), value.to_owned()))
            .collect()
    };
    let (old, new) = (lines(old), lines(new));
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| Difference {
            path: path.clone(),
            old: old.get(path).cloned(),
            new: new.get(path).cloned(),
        })
        .collect()
}
