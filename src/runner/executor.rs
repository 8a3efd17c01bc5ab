//! Where a stage's code runs: here, or in a process of its own
//! ([`crate::runner::isolated`]). Both take the same stage and the same work.

use crate::{
    base::failure::{Failure, Outcome},
    plan::Step,
    stages::{
        kind::{Execution, Place, Ready, Stage},
        work::Work,
    },
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// What is to be run.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The step's title.
    pub title: &'a str,
    /// The stage's kind.
    pub kind: &'a str,
    /// The canonical text of the stage's parameters.
    pub parameters: &'a str,
    /// The class of arithmetic that the result belongs to, if it does to one.
    pub numerics: Option<&'a str>,
    /// The stage.
    pub stage: &'a dyn Stage,
    /// The folder of the store.
    pub store: &'a Path,
    /// Where it computes, if on a device.
    pub place: Option<Place>,
    /// How it is to be run; none where that is settled.
    pub execution: Option<&'a Execution>,
}

impl<'a> Job<'a> {
    /// A step's stage.
    pub fn of(step: &'a Step, ready: &'a Ready, store: &'a Path) -> Job<'a> {
        let shape = &step.shape;
        Job {
            title: &step.title,
            kind: &shape.kind,
            parameters: &shape.parameters,
            numerics: shape.numerics.as_deref(),
            stage: &*ready.stage,
            store,
            place: ready.place,
            execution: Some(&ready.execution),
        }
    }

    /// A stage that is to be run right here.
    pub fn of_stage(title: &'a str, stage: &'a dyn Stage) -> Job<'a> {
        Job {
            title,
            kind: "",
            parameters: "",
            numerics: None,
            stage,
            store: Path::new(""),
            place: None,
            execution: None,
        }
    }
}

/// A place where stages run. Called from one thread for each step.
pub trait Executor: Sync {
    /// Runs a stage to its end.
    ///
    /// # Errors
    /// What the stage failed with, or a bug when it panicked.
    fn execute(&self, job: &Job<'_>, work: &Work) -> Outcome<()>;
}

/// Runs stages in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Executor for InProcess {
    fn execute(&self, job: &Job<'_>, work: &Work) -> Outcome<()> {
        catch_unwind(AssertUnwindSafe(|| job.stage.run(work))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Failure::bug(format!("step `{}` panicked: {text}", job.title))
                .hint("this is a mistake in `rekindle`, not in the manifest"))
        })
    }
}
