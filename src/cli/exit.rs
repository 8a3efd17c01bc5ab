//! The codes the program ends with: the one table, shown by `--help` and
//! checked by tests.

use crate::base::failure::{Class, Failure};
use std::process::ExitCode;

/// All went well.
pub const OK: u8 = 0;
/// A mistake in the program itself.
pub const BUG: u8 = 1;
/// The command line makes no sense.
pub const ARGUMENTS: u8 = 2;
/// The manifest has mistakes.
pub const MANIFEST: u8 = 3;
/// A step failed, or is not done yet.
pub const STEP: u8 = 4;
/// The machine did not do its part: disk, lock, device, network.
pub const ENVIRONMENT: u8 = 5;
/// What a study was to show did not come out.
pub const NOT_SHOWN: u8 = 6;
/// A person stopped it.
pub const INTERRUPTED: u8 = 130;

/// The table as `--help` shows it.
pub const HELP: &str = "Exit codes:
    0  all is well
    1  a bug in this program
    2  wrong arguments
    3  mistakes in the manifest
    4  a step failed, or is not done yet
    5  the machine failed: disk, store, device or network
    6  `report --check`: what the study was to show did not come out
  130  interrupted; run the same command again to go on

Results and --json go to stdout, everything else to stderr.
REKINDLE_STORE names the store, NO_COLOR turns colour off.";

/// The code for a failure outside of steps.
pub fn of(failure: &Failure) -> u8 {
    match failure.class {
        Class::Input => STEP,
        Class::Environment | Class::Transient => ENVIRONMENT,
        Class::Interrupted => INTERRUPTED,
        Class::Bug => BUG,
    }
}

/// The code for failures of steps: a bug before the machine before the rest.
pub fn of_steps<'a>(failures: impl Iterator<Item = &'a Failure>) -> u8 {
    let code = |failure: &Failure| match failure.class {
        Class::Bug => BUG,
        Class::Environment => ENVIRONMENT,
        _ => STEP,
    };
    let mut codes: Vec<u8> = failures.map(code).collect();
    codes.sort_by_key(|code| [BUG, ENVIRONMENT, STEP].iter().position(|one| one == code));
    codes.first().copied().unwrap_or(OK)
}

/// For `main`.
pub fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}
