//! Reading answers and verdicts out of generated text. One place for every
//! rule; each says where it comes from.
//!
//! Nothing is guessed: a text without an answer has none, feedback without a
//! verdict is `Unparsed`, and both are counted.

use super::protocol::{AnswerForm, Protocol};
use super::{Problem, Verdict};

/// Two answers closer than this are equal (absolutely, or relative to the gold answer).
const TOLERANCE: f64 = 1e-4;

/// The answer that a reply gives, if one can be read.
pub fn extract(protocol: &Protocol, problem: &Problem, text: &str) -> Option<f64> {
    match protocol.answer {
        AnswerForm::Number => number(around(protocol).0, text),
        AnswerForm::Expression => {
            let (marker, ending) = around(protocol);
            expression(marker, ending, text, &problem.numbers)
        }
        AnswerForm::Text => None,
    }
}

/// Whether a reply holds an answer that can be read; where answers are words,
/// whether it says anything.
pub fn is_there(protocol: &Protocol, problem: &Problem, text: &str) -> bool {
    match protocol.answer {
        AnswerForm::Text => !text.trim().is_empty(),
        AnswerForm::Number | AnswerForm::Expression => extract(protocol, problem, text).is_some(),
    }
}

/// Whether two replies hold an answer, and the same one; where answers are
/// words, the same text.
pub fn is_same(protocol: &Protocol, problem: &Problem, one: &str, other: &str) -> bool {
    if protocol.answer == AnswerForm::Text {
        return is_there(protocol, problem, one) && one.trim() == other.trim();
    }
    let answer = extract(protocol, problem, one);
    answer.is_some() && answer == extract(protocol, problem, other)
}

/// Whether a reply gives the gold answer.
pub fn is_right(protocol: &Protocol, problem: &Problem, text: &str) -> bool {
    is_equal(extract(protocol, problem, text), problem.gold)
}

/// Whether an answer is the gold answer.
pub fn is_equal(answer: Option<f64>, gold: Option<f64>) -> bool {
    match (answer, gold) {
        (Some(answer), Some(gold)) => (answer - gold).abs() <= TOLERANCE * gold.abs().max(1.0),
        _ => false,
    }
}

/// What feedback judges a reply to be: the verdict that comes last, as whole
/// words, whatever its capitals.
///
/// Where the protocol rates, it is the rating that decides.
pub fn verdict(protocol: &Protocol, feedback: &str) -> Verdict {
    if protocol.rating.is_some() {
        return match rating(protocol, feedback) {
            Some(rating) if rating >= protocol.good_rating => Verdict::Correct,
            Some(_) => Verdict::Incorrect,
            None => Verdict::Unparsed,
        };
    }
    let text = feedback.to_lowercase();
    let last = |words: &str| whole_words(&text, &words.to_lowercase()).next();
    match (last(&protocol.correct), last(&protocol.incorrect)) {
        (Some(yes), Some(no)) if yes > no => Verdict::Correct,
        (Some(_), None) => Verdict::Correct,
        (_, Some(_)) => Verdict::Incorrect,
        (None, None) => Verdict::Unparsed,
    }
}

/// The rating that feedback gives a reply, where the protocol rates and one can
/// be read: the number from 1 to 10 behind the last of its words that have one.
pub fn rating(protocol: &Protocol, feedback: &str) -> Option<f64> {
    let text = feedback.to_lowercase();
    let words = protocol.rating.as_ref()?.to_lowercase();
    let words = words.trim();
    whole_words(&text, words).find_map(|at| rating_at(&text[at + words.len()..]))
}

/// The rating that a text begins with, marks around it aside: `8`, `**8.5**`,
/// `[8]`, `8/10`, `8 out of 10`.
pub fn rating_at(text: &str) -> Option<f64> {
    let bare = text.trim_start_matches(|c: char| c.is_whitespace() || "*_`:=[(".contains(c));
    let end = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
    let (number, behind) = (bare[..end].trim_end_matches('.'), &bare[end..]);
    // `8/20` and `85%` are on other scales, `1-10` names this one.
    let scale = behind.trim_start_matches(['*', '_', '`', ']', ')', ' ']);
    let other = match scale.strip_prefix('/') {
        Some(whole) => {
            let whole = whole.trim_start();
            !whole.starts_with("10") || whole[2..].starts_with(|c: char| c.is_ascii_digit())
        }
        None => {
            let range = scale.strip_prefix(['-', '\u{2013}']).map(str::trim_start);
            let range = range.is_some_and(|to| to.starts_with(|c: char| c.is_ascii_digit()));
            range || scale.starts_with('%')
        }
    };
    let joined = behind.starts_with(char::is_alphanumeric);
    let value = number.parse::<f64>().ok()?;
    (!other && !joined && (1.0..=10.0).contains(&value)).then_some(value)
}

/// Where words stand, the last place first, not as a part of longer ones.
pub fn whole_words<'t>(text: &'t str, words: &'t str) -> impl Iterator<Item = usize> + 't {
    let joins = |a: Option<char>, b: Option<char>| {
        a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric)
    };
    let whole = move |&at: &usize| {
        let (before, behind) = (text[..at].chars().next_back(), &text[at + words.len()..]);
        !joins(before, words.chars().next())
            && !joins(words.chars().next_back(), behind.chars().next())
    };
    let places = text.rmatch_indices(words).map(|(at, _)| at);
    places.filter(move |_| !words.is_empty()).filter(whole)
}

/// The words of the reply template before and behind the answer.
fn around(protocol: &Protocol) -> (&str, &str) {
    let (before, behind) = protocol.reply.split_once("{answer}").unwrap_or((&protocol.reply, ""));
    (before.trim(), behind.trim())
}

/// What follows the last marker, or everything where there is none.
fn after_marker<'a>(marker: &str, text: &'a str) -> (&'a str, bool) {
    match text.rfind(marker) {
        Some(at) if !marker.is_empty() => (&text[at + marker.len()..], true),
        _ => (text, false),
    }
}

/// The first number after the last marker; without a marker, the last number.
///
/// # Source
/// The flexible rule of lm-evaluation-harness for GSM8K takes the last number
/// of the text; a marker of our own comes first.
fn number(marker: &str, text: &str) -> Option<f64> {
    let (rest, marked) = after_marker(marker, text);
    let mut numbers = rest.split_whitespace().filter_map(plain_number);
    if marked { numbers.next() } else { numbers.next_back() }
}

/// A number as people write it: `1,080`, `$5`, `12.50`, `-3`, `7.`.
pub fn plain_number(word: &str) -> Option<f64> {
    let bare: String = word
        .trim_start_matches(['$', '€', '£'])
        .trim_end_matches(['.', '%', '!', '?', ';', ':'])
        .chars()
        .filter(|&c| c != ',')
        .collect();
    let digits = bare.strip_prefix('-').unwrap_or(&bare);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if plain { bare.parse().ok() } else { None }
}

/// The value of the prefix expression after the last marker, up to the ending
/// that the template puts behind an answer.
fn expression(marker: &str, ending: &str, text: &str, numbers: &[f64]) -> Option<f64> {
    let (rest, _) = after_marker(marker, text);
    let rest = rest.trim_end();
    let mut words = rest.strip_suffix(ending).unwrap_or(rest).split_whitespace();
    let value = prefix(&mut words, numbers, 0)?;
    // Something behind a whole expression makes it another one.
    words.next().is_none().then_some(value).filter(|value| value.is_finite())
}

/// Reads one prefix expression: an operator and two of them, or an operand.
fn prefix<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    numbers: &[f64],
    depth: u32,
) -> Option<f64> {
    // Deeper than any text we generate; keeps garbage from exhausting the stack.
    if depth > 64 {
        return None;
    }
    let word = words.next()?;
    match word {
        "+" | "-" | "*" | "/" => {
            let left = prefix(words, numbers, depth + 1)?;
            let right = prefix(words, numbers, depth + 1)?;
            Some(match word {
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                _ => left / right,
            })
        }
        _ => match word.strip_prefix("number") {
            Some(index) => numbers.get(index.parse::<usize>().ok()?).copied(),
            None => plain_number(word),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(numbers: &[f64]) -> Problem {
        Problem {
            id: "p".into(),
            question: "?".into(),
            numbers: numbers.to_vec(),
            gold: Some(8.0),
            solution: Vec::new(),
            worked: None,
            fingerprint: String::new(),
            labels: Default::default(),
        }
    }

    fn protocol(answer: AnswerForm) -> Protocol {
        Protocol {
            question: "Q: {question} A:".into(),
            feedback: "Q: {question} R: {reply} F:".into(),
            refined_marker: "refined:".into(),
            reply: "answer {answer}".into(),
            correct: "judgement correct".into(),
            incorrect: "judgement incorrect".into(),
            answer,
            ..Protocol::empty()
        }
    }

    #[test]
    fn numbers_are_read_as_written() {
        let p = protocol(AnswerForm::Number);
        for (text, want) in [
            ("answer 10", Some(10.0)),
            ("answer 3 or answer 4 .", Some(4.0)),
            ("answer 3 or 4", Some(3.0)),
            ("it is 1,080 .", Some(1080.0)),
            ("costs $12.50 .", Some(12.5)),
            ("costs £3 .", Some(3.0)),
            ("12 then -3", Some(-3.0)),
            ("answer", None),
            ("answer nothing", None),
            ("", None),
            ("1.2.3", None),
        ] {
            assert_eq!(extract(&p, &problem(&[]), text), want, "{text}");
        }
    }

    #[test]
    fn expressions_are_computed_over_the_questions_numbers() {
        let p = protocol(AnswerForm::Expression);
        for (text, want) in [
            ("answer - number0 number1", Some(8.0)),
            ("answer * + number0 2 number1", Some(56.0)),
            ("answer / number0 4", Some(3.0)),
            ("answer number7", None),
            ("answer - number0", None),
            ("answer - number0 number1 number1", None),
            ("answer / number0 0", None),
            ("answer", None),
        ] {
            assert_eq!(extract(&p, &problem(&[12.0, 4.0]), text), want, "{text}");
        }
        let dotted = Protocol { reply: "so {answer} .".into(), ..p.clone() };
        for text in ["so - number0 number1 .", "so - number0 number1"] {
            assert_eq!(extract(&dotted, &problem(&[12.0, 4.0]), text), Some(8.0), "{text}");
        }
        let deep = format!("answer {}", "+ ".repeat(100_000));
        assert_eq!(extract(&p, &problem(&[]), &deep), None);
        assert!(is_right(&p, &problem(&[12.0, 4.0]), "answer - number0 number1"));
    }

    #[test]
    fn the_last_verdict_counts_and_none_is_unparsed() {
        let p = protocol(AnswerForm::Number);
        for (text, want) in [
            ("work: ; judgement correct", Verdict::Correct),
            ("judgement incorrect", Verdict::Incorrect),
            ("judgement correct ; no , judgement incorrect", Verdict::Incorrect),
            ("judgement incorrect ; no , judgement correct", Verdict::Correct),
            ("judgement", Verdict::Unparsed),
            ("prejudgement correct", Verdict::Unparsed),
            ("judgement correctly", Verdict::Unparsed),
            ("So it is wrong.\n**Judgement Incorrect.**", Verdict::Incorrect),
            ("(judgement correct)", Verdict::Correct),
        ] {
            assert_eq!(verdict(&p, text), want, "{text}");
        }
    }

    #[test]
    fn ratings_are_read_on_their_scale_and_decide_where_the_protocol_rates() {
        let p = Protocol {
            rating: Some("Rating:".into()),
            good_rating: 8.0,
            ..protocol(AnswerForm::Text)
        };
        for (text, want) in [
            ("Clear. Rating: 7", Some(7.0)),
            ("rating: 8.5.", Some(8.5)),
            ("**Rating:** 9", Some(9.0)),
            ("Rating: [6]", Some(6.0)),
            ("Rating: **10/10**", Some(10.0)),
            ("Rating: 9 / 10", Some(9.0)),
            ("Rating: 9 out of 10", Some(9.0)),
            ("Rating: 3. No, Rating: 4", Some(4.0)),
            ("Rating: 3. My rating: high", Some(3.0)),
            ("Rating: 0", None),
            ("Rating: 11", None),
            ("Rating: 85%", None),
            ("Rating: 8/100", None),
            ("Rating: 1-10", None),
            ("Rating: 8 - it is short", Some(8.0)),
            ("Rating: 7th", None),
            ("Rating: high", None),
            ("Overrating: 7", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(rating(&p, text), want, "{text}");
        }
        assert_eq!(verdict(&p, "Rating: 8"), Verdict::Correct);
        assert_eq!(verdict(&p, "judgement correct. Rating: 7.9"), Verdict::Incorrect);
        assert_eq!(verdict(&p, "judgement correct"), Verdict::Unparsed);
        assert_eq!(rating(&protocol(AnswerForm::Text), "Rating: 8"), None, "it does not rate");
    }

    #[test]
    fn words_are_answers_by_themselves() {
        let (text, number) = (protocol(AnswerForm::Text), protocol(AnswerForm::Number));
        let p = problem(&[]);
        assert!(is_there(&text, &p, "hello") && !is_there(&text, &p, " \n"));
        assert!(!is_right(&text, &p, "answer 8"));
        assert!(is_same(&text, &p, "hello ", "hello") && !is_same(&text, &p, "hello", "hallo"));
        assert!(!is_same(&text, &p, "", ""));
        assert!(is_same(&number, &p, "so answer 8", "answer 8") && !is_same(&number, &p, "x", "x"));
    }

    #[test]
    fn equality_has_a_tolerance_and_no_answer_is_wrong() {
        assert!(is_equal(Some(2.0 / 3.0), Some(0.66667)));
        assert!(!is_equal(Some(0.67), Some(0.66667)));
        assert!(!is_equal(None, Some(1.0)));
        assert!(!is_equal(Some(1.0), None));
    }
}
