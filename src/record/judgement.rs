//! Reading what a judge says: which of two replies it prefers, the scores it
//! gives, or the rating of one. Two ways to read the same words: our own, and
//! that of the tools whose published numbers one may want to compare with.
//!
//! Nothing is guessed: words without a verdict have none, and who asks counts
//! them. What a verdict decides is not known here.

use super::rubric::{Form, Parser, Rubric};
use serde::{Deserialize, Serialize};

/// Which of two shown replies is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// The one that was shown first.
    First,
    /// The one that was shown second.
    Second,
    /// Neither.
    Tie,
}

/// What a judge said, as far as it decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opinion {
    /// One of two replies is better, or neither.
    Prefers(Preference),
    /// A score for the first and for the second reply shown.
    Scores(f64, f64),
    /// A rating of one reply.
    Rates(f64),
}

/// The scale of scores and ratings; our own reading takes nothing outside it.
const SCALE: std::ops::RangeInclusive<f64> = 0.0..=10.0;

impl Opinion {
    /// Which reply is preferred; scores that differ by no more than `within`
    /// are a tie. A rating of one reply prefers none.
    pub fn preference(self, within: f64) -> Preference {
        match self {
            Opinion::Prefers(preference) => preference,
            Opinion::Scores(first, second) => nearer(first - second, within),
            Opinion::Rates(_) => Preference::Tie,
        }
    }
}

/// Who is ahead by a difference of points.
pub fn nearer(difference: f64, within: f64) -> Preference {
    match difference {
        _ if difference.abs() <= within => Preference::Tie,
        _ if difference > 0.0 => Preference::First,
        _ => Preference::Second,
    }
}

/// What a judge's words say in the form they were asked for, read as the rubric
/// says.
pub fn read(rubric: &Rubric, text: &str) -> Option<Opinion> {
    read_as(rubric.form, rubric.parser, text)
}

/// Whether the other way to read the same words gives something else.
pub fn is_disputed(rubric: &Rubric, text: &str) -> bool {
    let [one, other] =
        [Parser::Careful, Parser::Fastchat].map(|parser| read_as(rubric.form, parser, text));
    let preferred = |opinion: Option<Opinion>| {
        opinion.map(|opinion| (opinion.preference(rubric.tie_within), rating(opinion)))
    };
    preferred(one) != preferred(other)
}

fn rating(opinion: Opinion) -> Option<f64> {
    match opinion {
        Opinion::Rates(rating) => Some(rating),
        _ => None,
    }
}

fn read_as(form: Form, parser: Parser, text: &str) -> Option<Opinion> {
    match (form, parser) {
        (Form::Verdict, Parser::Fastchat) => first_verdict(text).map(Opinion::Prefers),
        (Form::Verdict, Parser::Careful) => last_verdict(text).map(Opinion::Prefers),
        (Form::Scores, Parser::Fastchat) => bare_scores(text),
        (Form::Scores, Parser::Careful) => labelled_scores(text),
        (Form::Rating, Parser::Fastchat) => first_rating(text).map(Opinion::Rates),
        (Form::Rating, Parser::Careful) => last_rating(text).map(Opinion::Rates),
    }
}

const VERDICTS: [(&str, Preference); 3] =
    [("[[A]]", Preference::First), ("[[B]]", Preference::Second), ("[[C]]", Preference::Tie)];

/// The mark that comes first in the alphabet, wherever it stands: a judge that
/// speaks of `[[A]]` before it decides for `[[B]]` is read as `A`.
///
/// # Source
/// FastChat 0.2.36, `llm_judge/common.py`, `run_judge_pair`.
fn first_verdict(text: &str) -> Option<Preference> {
    VERDICTS.iter().find(|(mark, _)| text.contains(mark)).map(|(_, preference)| *preference)
}

/// The mark that comes last, whatever its capitals, blanks and emphasis.
fn last_verdict(text: &str) -> Option<Preference> {
    brackets(text, "[[", "]]").rev().find_map(|inner| {
        let word: String = inner.chars().filter(|c| !c.is_whitespace() && *c != '*').collect();
        match word.to_ascii_uppercase().as_str() {
            "A" => Some(Preference::First),
            "B" => Some(Preference::Second),
            "C" | "TIE" => Some(Preference::Tie),
            _ => None,
        }
    })
}

/// What stands between brackets, shortest first: of `[[[x]]` the inner pair.
fn brackets<'t>(
    text: &'t str,
    open: &'t str,
    close: &'t str,
) -> impl DoubleEndedIterator<Item = &'t str> {
    let inner = |(at, _): (usize, &str)| {
        let start = &text[..at];
        let from = start.rfind(open)? + open.len();
        Some(&start[from..])
    };
    text.match_indices(close).filter_map(inner).collect::<Vec<_>>().into_iter()
}

/// Two numbers and nothing else on the first line, one blank or comma between
/// them.
///
/// # Source
/// The evaluation published with Vicuna (lm-sys/vicuna-blog-eval),
/// `eval_gpt_review.py`: commas become blanks, the line is split at every
/// single blank, and exactly two pieces must be numbers as Python reads them.
fn bare_scores(text: &str) -> Option<Opinion> {
    let line = text.split('\n').next()?.replace(',', " ");
    let pieces: Vec<&str> = line.split(' ').collect();
    let [first, second] = pieces.as_slice() else { return None };
    Some(Opinion::Scores(python_float(first)?, python_float(second)?))
}

/// A finite number as Python's `float` reads it: white space around it, and
/// underscores between digits.
fn python_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let lone = |at: usize| bytes[at] == b'_' && !(digit(at.checked_sub(1)) && digit(Some(at + 1)));
    if (0..bytes.len()).any(lone) {
        return None;
    }
    text.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite())
}

/// The two numbers from 0 to 10 on the first line that holds anything, other
/// words and marks aside. A number behind which a colon stands is a name
/// (`Assistant 1: 8`), and so is one behind `assistant`.
fn labelled_scores(text: &str) -> Option<Opinion> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let line = line.replace(" :", ":").replace(":", ": ");
    let apart = |c: char| c.is_whitespace() || ",;()[]{}*_|`\"".contains(c);
    let mut scores = Vec::new();
    let mut before = String::new();
    for word in line.split(apart).filter(|word| !word.is_empty()) {
        let named = word.ends_with(':')
            || ["assistant", "response", "answer", "reply"].contains(&before.as_str());
        if !named && word.starts_with(|c: char| c.is_ascii_digit()) {
            scores.push(scaled(word.trim_end_matches('.'))?);
        }
        before = word.to_lowercase();
    }
    match scores.as_slice() {
        [first, second] => Some(Opinion::Scores(*first, *second)),
        _ => None,
    }
}

/// A number on the scale, as `8`, `8.5` or `8/10`.
fn scaled(word: &str) -> Option<f64> {
    let number = word.strip_suffix("/10").unwrap_or(word);
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number.parse::<f64>().ok().filter(|value| plain && SCALE.contains(value))
}

/// The first number in double brackets, else the first in single ones, however
/// large.
///
/// # Source
/// FastChat 0.2.36, `llm_judge/common.py`, `run_judge_single`: the patterns
/// `\[\[(\d+\.?\d*)\]\]` and `\[(\d+\.?\d*)\]`, the match being read as a
/// Python literal, which `08` is not.
fn first_rating(text: &str) -> Option<f64> {
    let number = matched(text, "[[", "]]").or_else(|| matched(text, "[", "]"))?;
    let whole = number.bytes().all(|byte| byte.is_ascii_digit());
    let is_literal = !whole || !number.starts_with('0') || number.bytes().all(|byte| byte == b'0');
    number.parse().ok().filter(|_| is_literal)
}

/// The first place where `open`, digits with at most one point behind the
/// first, and `close` stand together.
fn matched<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    (0..text.len()).filter(|&at| text.is_char_boundary(at)).find_map(|at| {
        let rest = text[at..].strip_prefix(open)?;
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let mut length = digits(rest);
        if length == 0 {
            return None;
        }
        if rest[length..].starts_with('.') {
            length += 1 + digits(&rest[length + 1..]);
        }
        rest[length..].starts_with(close).then(|| &rest[..length])
    })
}

/// The last number from 0 to 10 in double brackets, else the last in single
/// ones.
fn last_rating(text: &str) -> Option<f64> {
    let last = |open, close| {
        brackets(text, open, close).rev().find_map(|inner| scaled(inner.trim_matches([' ', '*'])))
    };
    last("[[", "]]").or_else(|| last("[", "]"))
}

#[cfg(test)]
mod tests;
