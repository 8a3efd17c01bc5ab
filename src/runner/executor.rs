//! Where a stage's code runs. In this process for now; a child process takes
//! the same stage and the same work.

use crate::{
    base::failure::{Failure, Outcome},
    stages::{kind::Stage, work::Work},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A place where stages run. Called from one thread for each step.
pub trait Executor: Sync {
    /// Runs a stage to its end; `title` names the step.
    ///
    /// # Errors
    /// What the stage failed with, or a bug when it panicked.
    fn execute(&self, title: &str, stage: &dyn Stage, work: &Work) -> Outcome<()>;
}

/// Runs stages in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Executor for InProcess {
    fn execute(&self, title: &str, stage: &dyn Stage, work: &Work) -> Outcome<()> {
        catch_unwind(AssertUnwindSafe(|| stage.run(work))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Failure::bug(format!("step `{title}` panicked: {text}"))
                .hint("this is a mistake in `rekindle`, not in the manifest"))
        })
    }
}
