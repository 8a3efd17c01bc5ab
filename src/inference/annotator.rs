//! The annotator: whoever stands where GPT-4 stands in the paper. Gets a
//! problem and a reply, writes feedback, a verdict and a refined reply.

use super::reference::Reference;
use crate::base::failure::Outcome;
use crate::base::spec::{Resource, one_of};
use crate::record::{Problem, Verdict};

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

/// Writes feedback on replies.
pub trait Annotator {
    /// Annotates one reply.
    ///
    /// # Errors
    /// When the problem cannot be judged, or whoever judges cannot be reached.
    fn annotate(&self, problem: &Problem, reply: &str) -> Outcome<Annotation>;
}

one_of! {
    /// Who writes feedback and refined replies for the meta-skill corpus.
    pub enum AnnotatorSpec by "kind" {
        /// Works through the known solution.
        Reference(Reference) = "reference",
    }
}

impl Resource for AnnotatorSpec {
    const SECTION: &'static str = "annotator";
}

impl AnnotatorSpec {
    /// The annotator.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn open(&self) -> Outcome<&dyn Annotator> {
        match self {
            AnnotatorSpec::Reference(reference) => Ok(reference),
        }
    }
}
