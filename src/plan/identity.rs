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
pub fn text<D: std::fmt::Display>(
    shape: &StepShape,
    inputs: impl Iterator<Item = (String, D)>,
) -> String {
    let mut text = String::new();
    let mut line = |path: &str, value: &str| {
        writeln!(text, "{path} = {value}").expect("a string takes everything");
    };
    line("kind", &quoted(&shape.kind));
    line("version", &shape.version.to_string());
    if let Some(seed) = shape.seed {
        line("seed", &seed.to_string());
    }
    if let Some(numerics) = &shape.numerics {
        line("numerics", &quoted(numerics));
    }
    shape.parameters.lines().for_each(|parameter| {
        let (path, value) = parameter.split_once(" = ").unwrap_or((parameter, ""));
        line(&format!("with.{path}"), value);
    });
    inputs.for_each(|(role, digest)| line(&format!("input.{role}"), &digest.to_string()));
    shape.outputs.iter().for_each(|(name, kind)| line(&format!("output.{name}"), kind.name()));
    text
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
pub fn plan_key(shape: &StepShape, inputs: impl Iterator<Item = (String, String)>) -> Digest {
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
