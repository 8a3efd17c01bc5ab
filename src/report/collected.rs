//! What a report is made of: the results of every arm, as plain data.
//!
//! Holds nothing that differs between two runs of the same experiment: no
//! times, hosts, paths or names of runs.

use crate::{
    base::{artifact::ArtifactKind, hash::Digest},
    manifest::Findings,
};
use std::collections::BTreeMap;

/// The results of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Number of rounds.
    pub rounds: u32,
    /// One entry for each arm, in the order of the sweep.
    pub arms: Vec<CollectedArm>,
}

/// The results of an arm.
#[derive(Clone, Debug)]
pub struct CollectedArm {
    /// Axis and label; empty without a sweep.
    pub coordinates: Vec<(String, String)>,
    /// The seed that all its randomness is derived from.
    pub seed: u64,
    /// What the manifest wants to see of it.
    pub findings: Findings,
    /// Its steps in the order of declaration.
    pub steps: Vec<CollectedStep>,
}

/// The results of a step.
#[derive(Clone, Debug)]
pub struct CollectedStep {
    /// Full name, such as `round2.evaluate`.
    pub name: String,
    /// Name of its table, such as `evaluate`.
    pub base: String,
    /// Its round, from 1.
    pub round: Option<u32>,
    /// Its kind.
    pub kind: String,
    /// Digest of its identity.
    pub key: Digest,
    /// The canonical text of its identity.
    pub identity: String,
    /// Names of the steps whose outputs it reads, by role.
    pub inputs: BTreeMap<String, String>,
    /// Counters it reported.
    pub metrics: BTreeMap<String, f64>,
    /// What it made.
    pub outputs: Vec<CollectedOutput>,
}

/// An artifact.
#[derive(Clone, Debug)]
pub struct CollectedOutput {
    /// Name of the output.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// Digest of the whole.
    pub digest: Digest,
    /// Its files.
    pub files: Vec<CollectedFile>,
}

/// A file of an artifact.
#[derive(Clone, Debug)]
pub struct CollectedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its content.
    pub digest: Digest,
    /// Its content: only where the artifact is scores, a tally, a training log or what leaks, or
    /// its texts are shown.
    pub content: Option<Vec<u8>>,
}

impl CollectedArm {
    /// What a reference such as `round2.evaluate.scores` means: an output, and
    /// the step that made it.
    pub fn find(&self, reference: &str) -> Option<(&CollectedStep, &CollectedOutput)> {
        let step = |name: &str| self.steps.iter().find(|step| step.name == name);
        if let Some(found) = step(reference) {
            return found
                .outputs
                .first()
                .filter(|_| found.outputs.len() == 1)
                .map(|one| (found, one));
        }
        let (name, output) = reference.rsplit_once('.')?;
        let found = step(name)?;
        Some((found, found.outputs.iter().find(|one| one.name == output)?))
    }
}

impl CollectedOutput {
    /// The rows of one of its files, a JSON value a line.
    ///
    /// # Errors
    /// As with [`CollectedOutput::json`].
    pub fn rows<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, String> {
        let read = |line: &str| serde_json::from_str(line);
        let rows: Result<Vec<T>, _> = self.text(name)?.lines().map(read).collect();
        rows.map_err(|error| format!("`{name}` of `{}`: {error}", self.name))
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let file = self.files.iter().find(|file| file.name == name);
        let content = file.and_then(|file| file.content.as_ref());
        let content =
            content.ok_or_else(|| format!("output `{}` has no `{name}` here", self.name))?;
        std::str::from_utf8(content).map_err(|error| format!("`{name}`: {error}"))
    }

    /// The JSON of one of its files.
    ///
    /// # Errors
    /// When there is no such file, its content was not collected, or it is not
    /// a `T`.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        serde_json::from_str(self.text(name)?)
            .map_err(|error| format!("`{name}` of `{}`: {error}", self.name))
    }
}
