//! Ctrl-C: the first one asks, the second one leaves.
//!
//! This is courtesy, not safety: a kill that cannot be caught must be as safe.

use crate::{
    base::failure::{Doing, Outcome},
    host::process,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that somebody raises when the work shall end soon.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Whether the work shall end.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks for the end.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Raises `flag` on the first interrupt and calls `note`; the second one kills
/// all children and leaves with `exit_code` at once.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn watch(flag: StopFlag, exit_code: i32, note: fn()) -> Outcome<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).doing(|| "installing the Ctrl-C handler".to_owned())?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if flag.is_raised() {
                    process::kill_all();
                    std::process::exit(exit_code);
                }
                flag.raise();
                note();
            }
        })
        .doing(|| "starting the Ctrl-C thread".to_owned())?;
    Ok(())
}
