//! Rules that read a number out of a reply, and judge it: our own, and those of
//! the tools that published results were scored with, bug for bug.
//!
//! The same replies score differently under different rules, so each of them
//! can decide and the others can be shown beside it. Knows no modes and no
//! models.

use super::answer;
use super::metric::most_voted;
use super::protocol::Protocol;
use super::rational::{self, Rational};
use super::{Problem, answer::is_equal};
use crate::base::spec::choice;

choice! {
    /// A rule that reads the answer out of a reply and judges it.
    pub enum Extractor {
        /// The protocol's own: the first number behind the words that its `reply` has before the
        /// answer, else the last number; equal within a ten-thousandth.
        Protocol = "protocol",
        /// As GSM8K's authors score: what follows the first `#### `, without commas, equal as text.
        Gsm8k = "gsm8k",
        /// `strict-match` of lm-evaluation-harness: what follows the first `#### `, equal as text
        /// without commas, dollars and a final point.
        Strict = "lm-eval-strict",
        /// `flexible-extract` of lm-evaluation-harness: the last run of digits, points, commas and
        /// dollars, equal as text as with `lm-eval-strict`.
        Flexible = "lm-eval-flexible",
        /// Whatever way the answer is announced (`####`, `answer is`, `answer:`, the protocol's
        /// words), else the last number: with currency, commas, percent or as a fraction; equal as
        /// exact fractions.
        Canonical = "canonical",
    }
}

/// What people and models announce an answer with, in lower case.
const ANNOUNCED: [&str; 3] = ["####", "answer is", "answer:"];

impl Extractor {
    /// What the rule reads out of a reply, as text; `None` where it reads nothing.
    pub fn read(self, protocol: &Protocol, problem: &Problem, text: &str) -> Option<String> {
        match self {
            Extractor::Protocol => {
                answer::extract(protocol, problem, text).map(|value| value.to_string())
            }
            Extractor::Gsm8k => hashes(text).map(|found| found.replace(',', "")),
            Extractor::Strict => hashes(text).map(str::to_owned),
            Extractor::Flexible => last_run(text).map(str::to_owned),
            Extractor::Canonical => canonical(protocol, text).map(|value| value.to_string()),
        }
    }

    /// Whether what was read is the gold answer, as the rule compares.
    pub fn is_right(self, read: Option<&str>, gold: Option<f64>) -> bool {
        let (Some(read), Some(gold)) = (read, gold) else { return false };
        match self {
            Extractor::Protocol => is_equal(read.parse().ok(), Some(gold)),
            Extractor::Gsm8k => read == gold.to_string(),
            Extractor::Strict | Extractor::Flexible => bare(read) == gold.to_string(),
            Extractor::Canonical => {
                let gold = Rational::shown(gold);
                gold.is_some_and(|gold| gold.to_string() == read)
            }
        }
    }

    /// The number that was read, where it is one.
    pub fn value(self, read: &str) -> Option<f64> {
        match self {
            Extractor::Protocol => read.parse().ok(),
            Extractor::Canonical => rational::first(read).map(Rational::value),
            Extractor::Gsm8k | Extractor::Strict | Extractor::Flexible => {
                let bare = bare(read);
                let plain = bare.starts_with(|c: char| c.is_ascii_digit() || c == '-');
                bare.parse().ok().filter(|_| plain)
            }
        }
    }

    /// What several replies to one question come to: what was read most often,
    /// of several the one that was first. As lm-evaluation-harness has it, its
    /// rules let a reply without an answer vote too.
    ///
    /// # Source
    /// lm-evaluation-harness, `MajorityVoteFilter` in `lm_eval/filters/selection.py`.
    pub fn vote(self, reads: &[Option<String>]) -> Option<String> {
        match self {
            Extractor::Strict | Extractor::Flexible => most_voted(reads.iter().cloned()).flatten(),
            _ => most_voted(reads.iter().flatten().cloned()),
        }
    }
}

/// What the first match of `#### (\-?[0-9\.\,]+)` captures.
///
/// # Source
/// openai/grade-school-math, `grade_school_math/dataset.py`; the same pattern is
/// `strict-match` in `lm_eval/tasks/gsm8k/gsm8k.yaml`.
fn hashes(text: &str) -> Option<&str> {
    const MARK: &str = "#### ";
    let mut from = 0;
    while let Some(at) = text[from..].find(MARK) {
        let rest = &text[from + at + MARK.len()..];
        let sign = usize::from(rest.starts_with('-'));
        let run = rest[sign..].find(|c: char| !matches!(c, '0'..='9' | '.' | ','));
        let run = run.unwrap_or(rest.len() - sign);
        if run > 0 {
            return Some(&rest[..sign + run]);
        }
        // Marks may overlap: `##### 5` holds one from its second hash on.
        from += at + 1;
    }
    None
}

/// The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`.
///
/// # Source
/// `flexible-extract` in `lm_eval/tasks/gsm8k/gsm8k.yaml`, with
/// `group_select: -1`.
fn last_run(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let is_in = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b',' | b'$');
    let mut found = None;
    let mut at = 0;
    while at < bytes.len() {
        let begin = at + usize::from(bytes[at] == b'-');
        let run = bytes[begin..].iter().take_while(|b| is_in(b)).count();
        if run >= 2 || run == 1 && bytes[begin].is_ascii_digit() {
            found = Some(&text[at..begin + run]);
            at = begin + run;
        } else {
            at += 1;
        }
    }
    found
}

/// What lm-evaluation-harness compares: commas and dollars away, everything up
/// to `#### ` away, one final point away, in lower case.
///
/// # Source
/// `regexes_to_ignore` and `ignore_case` of `exact_match` in
/// `lm_eval/tasks/gsm8k/gsm8k.yaml`.
fn bare(read: &str) -> String {
    let bare = read.replace([',', '$'], "");
    let bare = bare.rsplit("#### ").next().unwrap_or_default();
    bare.strip_suffix('.').unwrap_or(bare).to_lowercase()
}

/// The first number behind the last announcement; without any, the last number.
fn canonical(protocol: &Protocol, text: &str) -> Option<Rational> {
    // ASCII letters only, so that places are the same in both texts.
    let lower = text.to_ascii_lowercase();
    let own = protocol.reply.split_once("{answer}").map_or("", |(before, _)| before);
    let own = own.trim().to_ascii_lowercase();
    let behind = |words: &str| lower.rfind(words).map(|at| at + words.len());
    let announced = ANNOUNCED.into_iter().chain((!own.is_empty()).then_some(own.as_str()));
    match announced.filter_map(behind).max() {
        Some(at) => rational::first(&text[at..]),
        None => rational::last(text),
    }
}

#[cfg(test)]
mod tests;
