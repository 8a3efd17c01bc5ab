//! How long to wait for a server, and how often to ask it again.
//!
//! Knows nothing of what is asked.

use crate::base::failure::{Failure, Outcome};
use crate::host::clock;
use std::time::{Duration, Instant};

/// The environment variable with the seconds before a first new try.
pub const PAUSE: &str = "REKINDLE_RETRY_PAUSE";

/// How long to wait, and how often to try.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries without any progress.
    pub tries: u32,
    /// Pause after the first; each one is twice as long as the last.
    pub first: Duration,
    /// Longest pause, also where a server asks for a longer one.
    pub longest: Duration,
    /// For a connection, and for the head of an answer.
    pub connect: Duration,
    /// For the body of one answer; a file that takes longer is resumed.
    pub body: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            tries: 5,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(60),
            connect: Duration::from_secs(15),
            body: Duration::from_secs(300),
        }
    }
}

impl Patience {
    /// As usual, with the pause of the environment where it names one.
    ///
    /// # Errors
    /// `Input` when that is no number of seconds.
    pub fn of_environment() -> Outcome<Patience> {
        let usual = Patience::default();
        let Some(text) = std::env::var(PAUSE).ok().filter(|text| !text.is_empty()) else {
            return Ok(usual);
        };
        let seconds: Option<f64> = text.parse().ok();
        let first = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let first = first.ok_or_else(|| {
            Failure::input(format!("`{text}` in {PAUSE} is no number of seconds"))
        })?;
        Ok(Patience { first, ..usual })
    }

    /// Between tries of a whole step: what is behind it was asked often already.
    ///
    /// # Errors
    /// As [`Patience::of_environment`].
    pub fn between_steps() -> Outcome<Patience> {
        let (usual, given) = (Patience::default(), Patience::of_environment()?);
        let first = if given.first == usual.first { Duration::from_secs(5) } else { given.first };
        Ok(Patience { first, longest: Duration::from_secs(300), ..usual })
    }

    /// How long to wait after so many tries: as long as was asked for, else twice
    /// as long each time, and up to a half less, so that many do not come back
    /// at once.
    pub fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let full = self.first.saturating_mul(1 << tries.saturating_sub(1).min(16));
        let usual = || full.min(self.longest).mul_f64(1.0 - clock::chance() / 2.0);
        asked.unwrap_or_else(usual).min(self.longest)
    }
}

/// Waits; `check` is asked meanwhile, and ends it by an error.
///
/// # Errors
/// What `check` returns.
pub fn rest_until(end: Instant, check: &dyn Fn() -> Outcome<()>) -> Outcome<()> {
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
