//! Running a plan: what is ready, what is stored, what must be done, and what
//! to do when something fails or a person wants to stop.
//!
//! ```text
//! judge.rs     is it stored? why not?          (the same for `plan` and `run`)
//! state.rs     one state for each step, and what may follow what
//! drive.rs     the loop of a run
//! turn.rs      its turns: judge, queue, start, end, settle
//! attempt.rs   one step under its lock, from folder to record
//! resources.rs what the machine has, what each step wants, what is free
//! watch.rs     pauses before another try, and steps that say nothing
//! executor.rs  where a stage's code runs
//! isolated.rs  in a process of its own
//! errand.rs    what that process is told, and what it says
//! again.rs     a stored step made again beside the store, to compare
//! outlook.rs   what a run will probably take
//! event.rs     what happened, for those who watch
//! ```
//! Knows nothing of manifests, consoles or tensors.

pub mod again;
pub mod attempt;
pub mod drive;
pub mod errand;
pub mod event;
pub mod executor;
pub mod foreseen;
pub mod isolated;
pub mod judge;
pub mod outlook;
pub mod resources;
pub mod state;
#[cfg(test)]
mod tests;
mod turn;
mod watch;
