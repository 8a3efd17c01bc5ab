//! What a server has done since it began, as Prometheus reads it.
//!
//! Counts only; knows no request.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Statuses that this server answers with.
const STATUSES: [u16; 10] = [200, 400, 401, 404, 405, 408, 413, 429, 500, 503];
/// The share of the newest reply in the mean time of replies.
const NEWEST: f64 = 0.1;

/// Counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answers: [AtomicU64; STATUSES.len()],
    /// Prompt tokens read.
    pub(super) read: AtomicU64,
    /// Tokens written.
    pub(super) written: AtomicU64,
    /// Replies that nobody waited for any more.
    pub(super) cancelled: AtomicU64,
    /// Replies that are written now.
    pub(super) running: AtomicU64,
    /// Mean seconds of a reply, the latest ones mostly; none before the first.
    seconds: Mutex<Option<f64>>,
}

impl Tally {
    /// An answer with this status.
    pub(super) fn answered(&self, status: u16) {
        if let Some(at) = STATUSES.iter().position(|one| *one == status) {
            self.answers[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reply took so long.
    pub(super) fn took(&self, time: Duration) {
        let mut mean = self.seconds.lock().unwrap_or_else(|poison| poison.into_inner());
        let time = time.as_secs_f64();
        *mean = Some(mean.map_or(time, |mean| mean + NEWEST * (time - mean)));
    }

    /// Seconds until `waiting` replies are written, so many side by side; at
    /// least one, at most a minute.
    pub(super) fn seconds_for(&self, waiting: usize, slots: usize) -> u64 {
        let mean = *self.seconds.lock().unwrap_or_else(|poison| poison.into_inner());
        let turns = waiting as f64 / slots.max(1) as f64;
        (turns * mean.unwrap_or(1.0)).ceil().clamp(1.0, 60.0) as u64
    }

    /// All counters as text.
    pub(super) fn text(&self, waiting: usize, slots: usize) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, about: &str, rows: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP rekindle_{name} {about}\n# TYPE rekindle_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "rekindle_{name}{labels} {value}");
            }
        };
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let one = |value: u64| vec![(String::new(), value)];
        let statuses = STATUSES.iter().zip(&self.answers);
        let answers: Vec<(String, u64)> = statuses
            .map(|(status, count)| (format!("{{status=\"{status}\"}}"), of(count)))
            .collect();
        put("answers_total", "counter", "Answers by status.", &answers);
        put("prompt_tokens_total", "counter", "Tokens read.", &one(of(&self.read)));
        put("written_tokens_total", "counter", "Tokens written.", &one(of(&self.written)));
        put(
            "cancelled_total",
            "counter",
            "Replies that nobody waited for any more.",
            &one(of(&self.cancelled)),
        );
        put("running", "gauge", "Replies being written.", &one(of(&self.running)));
        put("waiting", "gauge", "Replies that wait for a slot.", &one(waiting as u64));
        put("slots", "gauge", "Replies that can be written side by side.", &one(slots as u64));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_early_hears_when_to_come() {
        let tally = Tally::default();
        assert_eq!(tally.seconds_for(0, 4), 1);
        assert_eq!(tally.seconds_for(64, 4), 16, "a second each as long as nothing is known");
        tally.took(Duration::from_millis(100));
        assert_eq!(tally.seconds_for(64, 4), 2);
        tally.took(Duration::from_secs(10));
        assert_eq!(tally.seconds_for(64, 4), 18);
        assert_eq!(tally.seconds_for(64_000, 4), 60);
    }
}
