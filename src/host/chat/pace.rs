//! How fast one may ask: an evenly spaced slot for every request, and for its
//! tokens. Knows nothing of what is sent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The next free slots of all threads together.
pub(super) struct Pace {
    /// Seconds between two requests.
    request: f64,
    /// Seconds for each token.
    token: f64,
    next: Mutex<Next>,
}

struct Next {
    request: Instant,
    token: Instant,
}

impl Pace {
    /// So many requests and tokens a minute; 0 is without limit.
    pub(super) fn new(requests: u64, tokens: u64) -> Pace {
        let seconds = |rate: u64| if rate == 0 { 0.0 } else { 60.0 / rate as f64 };
        let now = Instant::now();
        Pace {
            request: seconds(requests),
            token: seconds(tokens),
            next: Mutex::new(Next { request: now, token: now }),
        }
    }

    /// When a request with so many tokens may go out; its slot is taken.
    pub(super) fn admit(&self, tokens: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Slots that nobody took are gone: no burst after a quiet time.
        let start = now.max(next.request).max(next.token);
        next.request = start + Duration::from_secs_f64(self.request);
        next.token = next.token.max(now) + Duration::from_secs_f64(self.token * tokens as f64);
        start
    }

    /// Gives back, or takes, the difference to what was admitted.
    pub(super) fn settle(&self, admitted: u64, used: u64) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |tokens: u64| Duration::from_secs_f64(self.token * tokens as f64);
        next.token += part(used);
        next.token = next.token.checked_sub(part(admitted)).unwrap_or(next.token);
    }

    /// Nobody goes before `until`.
    pub(super) fn hold(&self, until: Instant) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.request = next.request.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds from `start` to the last of `count` slots, no time passing.
    fn last(pace: &Pace, count: usize, tokens: u64) -> f64 {
        let start = Instant::now();
        let slots: Vec<Instant> = (0..count).map(|_| pace.admit(tokens)).collect();
        slots.last().expect("some").saturating_duration_since(start).as_secs_f64()
    }

    #[test]
    fn slots_keep_the_rate_of_requests_and_of_tokens() {
        let seconds = last(&Pace::new(600, 0), 101, 0);
        assert!((seconds - 10.0).abs() < 0.1, "{seconds}");
        let seconds = last(&Pace::new(0, 60_000), 11, 500);
        assert!((seconds - 5.0).abs() < 0.05, "{seconds}");
        let free = Pace::new(0, 0);
        assert!(last(&free, 1000, 1000) < 1.0);
    }

    #[test]
    fn tokens_that_were_not_used_are_given_back() {
        let pace = Pace::new(0, 60_000);
        for _ in 0..10 {
            pace.admit(1000);
            pace.settle(1000, 100);
        }
        let seconds = last(&pace, 1, 0);
        assert!((seconds - 1.0).abs() < 0.05, "{seconds}");
    }

    #[test]
    fn all_wait_when_the_server_asks_one_to() {
        let pace = Pace::new(0, 0);
        let until = Instant::now() + Duration::from_secs(3);
        pace.hold(until);
        assert!(pace.admit(1) >= until);
    }
}
