//! What the loop of a run waits for beside steps that end: the end of a pause
//! before another try, and a step that says nothing.
//!
//! Knows times only; what is to be done is the loop's.

use crate::base::failure::Failure;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// While a step rests, a wish to stop is looked for this often.
const LOOK: Duration = Duration::from_millis(50);
/// The longest sleep where only silence is waited for: a wish to stop is told by
/// the steps that run.
const LONGEST: Duration = Duration::from_secs(60);

/// When each step was heard of last. Told from many threads.
pub(super) struct Signs {
    start: Instant,
    last: Vec<AtomicU64>, // milliseconds after `start`, by step
}

impl Signs {
    pub(super) fn new(steps: usize) -> Signs {
        Signs { start: Instant::now(), last: (0..steps).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A step was heard of.
    pub(super) fn heard(&self, step: usize) {
        self.last[step].store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long nothing was heard of a step.
    pub(super) fn silence(&self, step: usize) -> Duration {
        let last = Duration::from_millis(self.last[step].load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// A step that failed and is to be tried again.
pub(super) struct Resting {
    pub(super) step: usize,
    pub(super) until: Instant,
    pub(super) failure: Failure,
}

/// Steps of which silence is to be told, and steps that rest.
#[derive(Default)]
pub(super) struct Watch {
    /// Each with the silence that is told next.
    running: Vec<(usize, Duration)>,
    pub(super) resting: Vec<Resting>,
}

impl Watch {
    /// A step runs now; silence as long as `limit` is to be told.
    pub(super) fn begin(&mut self, step: usize, limit: Duration) {
        self.running.push((step, limit));
    }

    pub(super) fn end(&mut self, step: usize) {
        self.running.retain(|(other, _)| *other != step);
    }

    /// Steps whose silence is to be told now, and how long it is. Each time it
    /// is told, twice as much is needed for the next.
    pub(super) fn silent(&mut self, signs: &Signs) -> Vec<(usize, Duration)> {
        let mut silent = Vec::new();
        for (step, limit) in &mut self.running {
            let silence = signs.silence(*step);
            if !limit.is_zero() && silence >= *limit {
                *limit = silence.saturating_mul(2);
                silent.push((*step, silence));
            }
        }
        silent
    }

    /// Steps whose pause is over, or all with `all`.
    pub(super) fn rested(&mut self, all: bool) -> Vec<Resting> {
        let now = Instant::now();
        let over = |one: &mut Resting| all || one.until <= now;
        self.resting.extract_if(.., over).collect()
    }

    /// How long the loop may sleep.
    pub(super) fn sleep(&self, signs: &Signs) -> Duration {
        let silence = self.running.iter().filter(|(_, limit)| !limit.is_zero());
        let silence = silence.map(|(step, limit)| limit.saturating_sub(signs.silence(*step)));
        let next = silence.min().unwrap_or(LONGEST).clamp(Duration::from_millis(1), LONGEST);
        if self.resting.is_empty() { next } else { next.min(LOOK) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_then_at_twice_the_length() {
        let (signs, mut watch) = (Signs::new(2), Watch::default());
        watch.begin(0, Duration::from_millis(30));
        watch.begin(1, Duration::ZERO);
        assert!(watch.sleep(&signs) <= Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(35));
        let told = watch.silent(&signs);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0, told[0].1 >= Duration::from_millis(30)), (0, true));
        assert!(watch.silent(&signs).is_empty(), "it was told a moment ago");
        signs.heard(0);
        assert!(signs.silence(0) < signs.silence(1));
        watch.end(0);
        assert_eq!(watch.sleep(&signs), LONGEST);
    }
}
