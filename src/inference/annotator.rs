//! The annotator: whoever stands where GPT-4 stands in the paper. Gets
//! problems and replies, writes feedback, verdicts and refined replies.

use super::api::Api;
use super::assessor::Assessor;
use super::reference::Reference;
use crate::base::failure::Outcome;
use crate::base::spec::{Resource, one_of};
use crate::record::protocol::Protocol;
use crate::record::{Problem, Verdict};
use std::path::Path;

/// A reply to annotate.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The problem.
    pub problem: &'a Problem,
    /// The reply to it.
    pub reply: &'a str,
}

/// What an annotator says of one reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Feedback in words, the verdict included.
    pub feedback: String,
    /// The verdict.
    pub verdict: Verdict,
    /// A better reply, or the same where it was right.
    pub refined: String,
}

/// An annotation, or why there is none that can be used.
pub type Remark = Result<Annotation, &'static str>;

/// What an annotator may touch of the step it works for.
pub trait Desk: Sync {
    /// The folder for replies of other programs' models.
    fn replies(&self) -> &Path;
    /// Says how far it is.
    fn progress(&self, done: u64, total: u64, note: &str);
    /// An error when it shall end.
    ///
    /// # Errors
    /// When a person asked to stop.
    fn check(&self) -> Outcome<()>;
    /// Adds to a counter.
    fn metric(&self, name: &str, value: f64);
    /// What a counter has come to in this step so far.
    fn noted(&self, name: &str) -> f64;
}

/// Writes feedback on replies.
pub trait Annotator {
    /// Annotates replies, in the words of a protocol; remarks in their order.
    ///
    /// # Errors
    /// When a problem cannot be judged, or whoever judges cannot be reached.
    fn annotate(
        &self,
        protocol: &Protocol,
        cases: &[Case],
        desk: &dyn Desk,
    ) -> Outcome<Vec<Remark>>;

    /// The server it asks, if it asks one.
    fn asks(&self) -> Option<&Api> {
        None
    }
}

one_of! {
    /// Who writes feedback and refined replies for the meta-skill corpus.
    pub enum AnnotatorSpec by "kind" {
        /// Works through the known solution.
        Reference(Reference) = "reference",
        /// A model behind an OpenAI-compatible server.
        Assessor(Assessor) = "api",
    }
}

impl Resource for AnnotatorSpec {
    const SECTION: &'static str = "annotator";
}

impl AnnotatorSpec {
    /// The annotator.
    pub fn get(&self) -> &dyn Annotator {
        match self {
            AnnotatorSpec::Reference(reference) => reference,
            AnnotatorSpec::Assessor(assessor) => assessor,
        }
    }
}
