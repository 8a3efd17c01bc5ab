//! What the world did: the one error type of everything that runs.
//!
//! Mistakes a person wrote are `diag::Diagnostic`s and never come here. The
//! text of a failure never repeats its source; the command line walks the
//! chain once.

use serde::{Deserialize, Serialize};
use std::{error::Error, fmt, io};

/// What kind of trouble it is; decides exit code and retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Data or a setting that a person can mend: a corrupt data set, a bad value.
    Input,
    /// The machine: disk, permissions, device, lock, network down.
    Environment,
    /// Worth another try as it is.
    Transient,
    /// A person asked to stop.
    Interrupted,
    /// Our own mistake.
    Bug,
}

/// A step or a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What kind of trouble it is.
    pub class: Class,
    /// What was wrong, or what was being done to which path, step or host.
    pub what: String,
    /// What a person could do about it.
    pub hints: Vec<String>,
    /// The cause, if another error is.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The result of everything that can fail in the world.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure of `class`.
    pub fn new(class: Class, what: impl Into<String>) -> Failure {
        Failure { class, what: what.into(), hints: Vec::new(), source: None }
    }

    /// Data or a setting that a person can mend.
    pub fn input(what: impl Into<String>) -> Failure {
        Failure::new(Class::Input, what)
    }

    /// The machine did not do its part.
    pub fn environment(what: impl Into<String>) -> Failure {
        Failure::new(Class::Environment, what)
    }

    /// Worth another try.
    pub fn transient(what: impl Into<String>) -> Failure {
        Failure::new(Class::Transient, what)
    }

    /// Our own mistake.
    pub fn bug(what: impl Into<String>) -> Failure {
        Failure::new(Class::Bug, what)
    }

    /// A person asked to stop.
    pub fn interrupted() -> Failure {
        Failure::new(Class::Interrupted, "interrupted")
    }

    /// Adds the error that caused this one.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// A failure that another process told: what happened first, then its causes.
    pub fn told(class: Class, chain: Vec<String>, hints: Vec<String>) -> Failure {
        let mut source: Option<Box<dyn Error + Send + Sync>> = None;
        let mut lines = chain.into_iter().rev().peekable();
        while let Some(what) = lines.next() {
            if lines.peek().is_none() {
                return Failure { class, what, hints, source };
            }
            source = Some(Box::new(Failure { class, what, hints: Vec::new(), source }));
        }
        Failure { class, what: "it did not say what happened".to_owned(), hints, source }
    }

    /// The failure and its causes, one line each.
    pub fn chain(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone()];
        let mut next = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = next {
            lines.push(error.to_string());
            next = error.source();
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// Says what was being done when an error of the machine came.
pub trait Doing<T> {
    /// Turns the error into an [`Class::Environment`] failure described by `what`.
    ///
    /// # Errors
    /// The failure, when there was an error.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| {
            let failure = Failure::environment(what()).caused_by(error);
            let cause = failure.source.as_ref().and_then(|error| error.downcast_ref::<io::Error>());
            match cause.map(io::Error::kind) {
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    failure.hint("make room, then run the same command again: what is done is kept")
                }
                _ => failure,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_told_reads_as_it_was() {
        let cause = std::io::Error::other("no space");
        let inner = Failure::environment("writing `x`").caused_by(cause);
        let failure = Failure::transient("step `s`").caused_by(inner).hint("make room");
        let told = Failure::told(failure.class, failure.chain(), failure.hints.clone());
        assert_eq!(told.chain(), ["step `s`", "writing `x`", "no space"]);
        assert_eq!((told.class, told.hints), (Class::Transient, vec!["make room".to_owned()]));
        assert_eq!(Failure::told(Class::Bug, Vec::new(), Vec::new()).chain().len(), 1);
    }
}
