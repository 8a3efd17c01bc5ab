//! Wall-clock time and a few facts about the host. Read by runner and store
//! for provenance only; no result may depend on it.

use crate::base::seed::Seed;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970, UTC.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `2026-11-24T22:55:46Z` for seconds since 1970.
pub fn timestamp(unix: f64) -> String {
    let seconds = unix.max(0.0) as i64;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let rest = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day number since 1970 in the Gregorian calendar
/// (the era arithmetic of Hinnant's public "chrono-compatible" note).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Seconds since 1970 of a date as HTTP writes it, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(text: &str) -> Option<f64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else { return None };
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let time: Vec<i64> = time.split(':').map_while(|part| part.parse().ok()).collect();
    let [hour, minute, second] = time[..] else { return None };
    // The first of the month is found by its calendar: at most 31 days a month from 1970 on.
    let least = (year - 1970) * 365 + (month - 1) * 28;
    let first = (least..).find(|&days| civil(days) == (year, month, 1))?;
    Some(((first + day - 1) * 86_400 + hour * 3600 + minute * 60 + second) as f64)
}

/// A number from 0 up to 1 that is another one each time, for pauses.
pub fn chance() -> f64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    Seed(unix_seconds().to_bits()).at(call).rng().unit_f64()
}

/// Lets something happen at most once in a while.
#[derive(Debug)]
pub struct Throttle {
    start: Instant,
    next: AtomicU64, // microseconds after `start`
    pause: u64,
}

impl Throttle {
    /// At most once in `pause`.
    pub fn new(pause: Duration) -> Throttle {
        Throttle { start: Instant::now(), next: AtomicU64::new(0), pause: pause.as_micros() as u64 }
    }

    /// Whether it may happen now.
    pub fn allows(&self) -> bool {
        let now = self.start.elapsed().as_micros() as u64;
        let next = self.next.load(Ordering::Relaxed);
        now >= next
            && self
                .next
                .compare_exchange(next, now + self.pause, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// The host's name, or `unknown`.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Number of cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        assert_eq!(timestamp(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400.0), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_795_560_946.9), "2026-11-24T22:55:46Z");
        // RFC 9110, section 5.6.7.
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777.0));
        assert_eq!(http_date("tomorrow"), None);
    }
}
