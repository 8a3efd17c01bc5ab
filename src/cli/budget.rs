//! Budgets: how much time, money or room on the disk a run may take, and whether
//! it will probably keep to that.

use crate::{
    base::{
        failure::{Failure, Outcome},
        text,
    },
    cli::{plan::span, talk::Talk},
    host::signal::StopFlag,
    runner::outlook::{Outlook, Share},
};
use std::{str::FromStr, time::Duration};

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// Dollars.
    Dollars(f64),
    /// Seconds from start to end.
    Seconds(f64),
    /// Bytes on the disk.
    Bytes(f64),
}

/// A unit, and the bound that a number of them is.
type Unit = (&'static str, fn(f64) -> Budget);

const UNITS: [Unit; 17] = [
    ("usd", Budget::Dollars),
    ("s", Budget::Seconds),
    ("sec", Budget::Seconds),
    ("m", |n| Budget::Seconds(60.0 * n)),
    ("min", |n| Budget::Seconds(60.0 * n)),
    ("h", |n| Budget::Seconds(3600.0 * n)),
    ("d", |n| Budget::Seconds(86400.0 * n)),
    ("b", Budget::Bytes),
    ("kb", |n| Budget::Bytes(1e3 * n)),
    ("mb", |n| Budget::Bytes(1e6 * n)),
    ("gb", |n| Budget::Bytes(1e9 * n)),
    ("tb", |n| Budget::Bytes(1e12 * n)),
    ("kib", |n| Budget::Bytes(1024.0 * n)),
    ("mib", |n| Budget::Bytes(1024f64.powi(2) * n)),
    ("gib", |n| Budget::Bytes(1024f64.powi(3) * n)),
    ("tib", |n| Budget::Bytes(1024f64.powi(4) * n)),
    ("dollars", Budget::Dollars),
];

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        const FORMS: &str = "it is money, time or room: `5USD`, `2h`, `90min`, `20GiB`";
        let text = text.trim();
        let text = text.strip_prefix('$').map_or(text.to_owned(), |rest| format!("{rest}usd"));
        let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| FORMS.to_owned())?;
        let unit = unit.trim().to_ascii_lowercase();
        let found = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| FORMS.to_owned())?;
        Ok(found.1(number))
    }
}

/// A number of bytes, such as `20GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    match text.parse::<Budget>()? {
        Budget::Bytes(bytes) => Ok(bytes as u64),
        _ => Err("it is a size, such as `20GiB`".to_owned()),
    }
}

/// Refuses a run that will probably not keep to its budgets. What may cost
/// money must show that it keeps to one; for time and room, what is unknown is
/// let pass, since time is kept to while it runs.
///
/// # Errors
/// Which budget is too small, and for what.
pub(crate) fn check(budgets: &[Budget], outlook: &Outlook) -> Outcome<()> {
    for budget in budgets {
        let refusal = match *budget {
            Budget::Dollars(most) => over_money(most, outlook),
            Budget::Seconds(most) => over(most, &outlook.wall, "time", &span),
            Budget::Bytes(most) => {
                over(most, &outlook.disk, "room on the disk", &|n| text::bytes(n as u64))
            }
        };
        if let Some(refusal) = refusal {
            return Err(refusal
                .hint("nothing was started; `rekindle plan` shows what is expected of each step"));
        }
    }
    Ok(())
}

fn over(most: f64, share: &Share, what: &str, say: &dyn Fn(f64) -> String) -> Option<Failure> {
    (share.range.middle > most).then(|| {
        Failure::input(format!(
            "the run needs more {what} than its budget: about {} ({} to {}), and {} is given",
            say(share.range.middle),
            say(share.range.low),
            say(share.range.high),
            say(most)
        ))
    })
}

fn over_money(most: f64, outlook: &Outlook) -> Option<Failure> {
    let say = |dollars: f64| format!("${dollars:.2}");
    if outlook.dollars_at_most.is_some_and(|bound| bound <= most) {
        return None;
    }
    if outlook.dollars.unknown > 0 {
        let steps = text::plural(outlook.dollars.unknown, "step");
        return Some(
            Failure::input(format!("nobody knows yet what asking a server will cost in {steps}"))
                .hint("set `budget` in the `[api.X]` that they use: then they stop before it is spent"),
        );
    }
    (outlook.dollars.range.high > most).then(|| {
        Failure::input(format!(
            "the run may cost more than its budget: about {}, at most {}, and {} is given",
            say(outlook.dollars.range.middle),
            say(outlook.dollars_at_most.unwrap_or(outlook.dollars.range.high)),
            say(most)
        ))
    })
}

/// Asks the run to end when the shortest time among the budgets is over, as
/// Ctrl-C does: steps save what they have, and the same command goes on.
pub(crate) fn keep_time(budgets: &[Budget], stop: &StopFlag, talk: Talk) {
    let time = |budget: &Budget| match budget {
        Budget::Seconds(seconds) => Some(*seconds),
        _ => None,
    };
    let Some(seconds) = budgets.iter().filter_map(time).min_by(f64::total_cmp) else { return };
    let stop = stop.clone();
    // It ends with the program.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        talk.must_say(&format!(
            "the time of {} is over: running steps save what they have",
            span(seconds)
        ));
        stop.raise();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_with_their_units() {
        assert_eq!("5USD".parse(), Ok(Budget::Dollars(5.0)));
        assert_eq!("$2.5".parse(), Ok(Budget::Dollars(2.5)));
        assert_eq!("1.5 h".parse(), Ok(Budget::Seconds(5400.0)));
        assert_eq!("90min".parse(), Ok(Budget::Seconds(5400.0)));
        assert_eq!(bytes("20GiB"), Ok(20 << 30));
        for wrong in ["", "5", "h", "-1h", "5 parsecs", "1.2.3h"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
        assert!(bytes("2h").is_err());
    }
}
