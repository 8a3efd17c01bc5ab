//! Exact numbers as people write them: `1,080`, `-$12.50`, `3/4`, `45 %`.
//!
//! Nothing is rounded: `0.1` is a tenth, and a number too long for 128 bits is
//! none. Knows nothing of questions and answers.

use std::fmt;

/// A fraction in lowest terms, the denominator above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    over: i128,
    under: i128,
}

/// A number found in a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// What it is.
    pub value: Rational,
    /// The byte behind it.
    pub end: usize,
}

impl Rational {
    fn of(over: i128, under: i128) -> Option<Rational> {
        if under == 0 {
            return None;
        }
        let divisor = i128::try_from(gcd(over.unsigned_abs(), under.unsigned_abs())).ok()?;
        let sign = if under < 0 { -1 } else { 1 };
        let over = (over / divisor.max(1)).checked_mul(sign)?;
        Some(Rational { over, under: (under / divisor.max(1)).checked_mul(sign)? })
    }

    /// The number that a float shows as: 0.1 is one tenth.
    pub fn shown(value: f64) -> Option<Rational> {
        let text = value.to_string();
        let found = number_at(&text, 0)?;
        (found.end == text.len()).then_some(found.value)
    }

    /// The nearest float.
    pub fn value(self) -> f64 {
        // Both are exact below 2^53, so that whole numbers and short decimals are.
        self.over as f64 / self.under as f64
    }
}

impl fmt::Display for Rational {
    /// As a whole number, as a decimal where that ends, else as a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.under == 1 {
            return write!(f, "{}", self.over);
        }
        let (mut places, mut scale) = (0usize, 1i128);
        while places < 30 && scale % self.under != 0 {
            places += 1;
            scale *= 10;
        }
        let digits = (scale % self.under == 0).then(|| self.over.checked_mul(scale / self.under));
        let Some(Some(digits)) = digits else {
            return write!(f, "{}/{}", self.over, self.under);
        };
        let sign = if digits < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", digits.unsigned_abs(), width = places + 1);
        let (whole, part) = digits.split_at(digits.len() - places);
        write!(f, "{sign}{whole}.{part}")
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The first number of a text.
pub fn first(text: &str) -> Option<Rational> {
    numbers(text).next().map(|found| found.value)
}

/// The last number of a text.
pub fn last(text: &str) -> Option<Rational> {
    numbers(text).last().map(|found| found.value)
}

/// All numbers of a text in order; one that cannot be held is passed over.
fn numbers(text: &str) -> impl Iterator<Item = Found> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at = start(text, at)?;
            match number_at(text, at) {
                Some(found) => {
                    at = found.end;
                    return Some(found);
                }
                // Of a number too long to hold, the rest is no other number.
                None => {
                    let rest = &text[at..];
                    let run = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    at += run.max(rest.chars().next()?.len_utf8());
                }
            }
        }
    })
}

/// Where the next number can begin: at its sign, its currency, its point or its
/// first digit.
fn start(text: &str, from: usize) -> Option<usize> {
    let begins = |c: char| c.is_ascii_digit() || is_minus(c) || is_currency(c) || c == '.';
    text[from..].find(begins).map(|at| from + at)
}

fn is_minus(c: char) -> bool {
    matches!(c, '-' | '\u{2212}')
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '€' | '£')
}

/// The number that begins at this byte, if one does.
fn number_at(text: &str, begin: usize) -> Option<Found> {
    let mut at = begin;
    let mut negative = false;
    // A dash behind a word or a number is no sign: `10-3`, `step-2`.
    let before = text[..begin].chars().next_back();
    let joined = before.is_some_and(|c| c.is_alphanumeric() || c == ')');
    for _ in 0..2 {
        let Some(c) = text[at..].chars().next() else { break };
        if is_minus(c) && !negative {
            if joined && at == begin {
                return None;
            }
            negative = true;
        } else if !is_currency(c) {
            break;
        }
        at += c.len_utf8();
        // TeX writes the dollar as `\$`.
        if negative && text[at..].starts_with("\\$") {
            at += 1;
        }
    }
    let (value, mut end) = decimal(text, at)?;
    let mut value = value;
    if let Some(rest) = text[end..].strip_prefix('/')
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && let Some((under, behind)) = decimal(text, end + 1)
        && let Some(fraction) = divided(value, under)
    {
        (value, end) = (fraction, behind);
    }
    if negative {
        value.over = -value.over;
    }
    Some(Found { value, end })
}

fn divided(over: Rational, under: Rational) -> Option<Rational> {
    Rational::of(over.over.checked_mul(under.under)?, over.under.checked_mul(under.over)?)
}

/// Digits, in groups of three behind commas or not, with or without a part
/// behind a point: `1080`, `1,080`, `12.50`, `.5`.
fn decimal(text: &str, begin: usize) -> Option<(Rational, usize)> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = begin;
    let mut whole = text[at..at + digits(at)].to_owned();
    at += whole.len();
    if (1..=3).contains(&whole.len()) {
        while bytes.get(at) == Some(&b',') && digits(at + 1) == 3 {
            whole += &text[at + 1..at + 4];
            at += 4;
        }
    }
    let mut part = "";
    if bytes.get(at) == Some(&b'.') && digits(at + 1) > 0 {
        part = &text[at + 1..at + 1 + digits(at + 1)];
        at += 1 + part.len();
    }
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let part = part.trim_end_matches('0');
    let scale = 10i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let over: i128 = format!("0{whole}{part}").parse().ok()?;
    Some((Rational::of(over, scale)?, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: Option<Rational>) -> Option<String> {
        value.map(|value| value.to_string())
    }

    #[test]
    fn numbers_are_read_exactly_and_shown_shortly() {
        for (text, want) in [
            ("1,080 pens", "1080"),
            ("$12.50", "12.5"),
            ("-$3", "-3"),
            ("$-3", "-3"),
            ("\u{2212}7", "-7"),
            ("3/4 of it", "0.75"),
            ("1/3", "1/3"),
            (".5", "0.5"),
            ("18.", "18"),
            ("18.00", "18"),
            ("0.1", "0.1"),
            ("x=5", "5"),
            ("10-3", "10"),
            ("1,2", "1"),
            ("12,345,678", "12345678"),
            ("4/0", "4"),
        ] {
            assert_eq!(shown(first(text)).as_deref(), Some(want), "{text}");
        }
        assert_eq!(first("none . , - $"), None);
        assert_eq!(shown(last("10-3")).as_deref(), Some("3"));
        assert_eq!(first(&"9".repeat(60)), None);
        // What comes behind a number that cannot be held is still found.
        assert_eq!(shown(last(&format!("{} 7", "9".repeat(60)))).as_deref(), Some("7"));
    }

    #[test]
    fn floats_are_the_decimals_they_show_as() {
        for value in [0.1, 145.0, -2.5, 1e15] {
            assert_eq!(Rational::shown(value).map(Rational::value), Some(value));
        }
        assert_eq!(Rational::shown(0.1), first("0.10"));
        assert_eq!(Rational::shown(f64::NAN), None);
        assert_eq!(Rational::shown(f64::INFINITY), None);
    }
}
