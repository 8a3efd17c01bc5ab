//! Judges' words read both ways: held against what FastChat reads in a few
//! hundred awkward texts, and by our own reading where it is another.

use super::*;
use crate::record::rubric::{Orders, Ties};
use serde_json::Value;

fn fixture(form: &str) -> Vec<(String, Value)> {
    let text = include_str!("../../../tests/fixtures/judgements.json");
    let all: Value = serde_json::from_str(text).unwrap();
    assert_eq!(all["fschat"], "0.2.36");
    serde_json::from_value(all[form].clone()).unwrap()
}

fn careful(form: Form, text: &str) -> Option<Opinion> {
    read_as(form, Parser::Careful, text)
}

#[test]
fn verdicts_are_read_as_fastchat_reads_them() {
    let cases = fixture("verdict");
    assert!(cases.len() >= 200, "{}", cases.len());
    for (text, want) in cases {
        let want: Option<Preference> = serde_json::from_value(want).unwrap();
        assert_eq!(first_verdict(&text), want, "{text:?}");
    }
}

#[test]
fn ratings_are_read_as_fastchat_reads_them() {
    let cases = fixture("rating");
    assert!(cases.len() >= 200, "{}", cases.len());
    for (text, want) in cases {
        // What stops that tool is no rating here; the next text is read all the same.
        let want = if want == "crash" { None } else { serde_json::from_value(want).unwrap() };
        assert_eq!(first_rating(&text), want, "{text:?}");
    }
}

#[test]
fn scores_are_read_as_vicunas_evaluation_reads_them() {
    let cases = fixture("scores");
    assert!(cases.len() >= 150, "{}", cases.len());
    for (text, want) in cases {
        // Digits of other alphabets are digits to Python; no judge writes them.
        if text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
            continue;
        }
        let want: Option<(f64, f64)> = serde_json::from_value(want).unwrap();
        assert_eq!(bare_scores(&text), want.map(|(a, b)| Opinion::Scores(a, b)), "{text:?}");
    }
}

#[test]
fn the_last_verdict_is_what_a_judge_decides_for() {
    use Preference::{First, Second, Tie};
    for (text, want) in [
        ("I first leaned to [[A]], but B is correct: [[B]]", Some(Second)),
        ("Not [[B]]. So [[A]].", Some(First)),
        ("[[ c ]]", Some(Tie)),
        ("[[**B**]]", Some(Second)),
        ("[[tie]]", Some(Tie)),
        ("[[A]]. Score: [[7]]", Some(First)),
        ("[[[A]]]", Some(First)),
        ("[A]", None),
        ("[[A or B]]", None),
        ("A is better", None),
        ("]] [[A", None),
        ("", None),
    ] {
        assert_eq!(careful(Form::Verdict, text), want.map(Opinion::Prefers), "{text:?}");
    }
}

#[test]
fn scores_may_be_named_and_must_be_two_on_the_scale() {
    for (text, want) in [
        ("8 9", Some((8.0, 9.0))),
        ("\n 8.5,  9 \nwords 3", Some((8.5, 9.0))),
        ("(8, 9)", Some((8.0, 9.0))),
        ("**8** / **7**", Some((8.0, 7.0))),
        ("8/10 7/10", Some((8.0, 7.0))),
        ("Assistant 1: 8, Assistant 2: 7.", Some((8.0, 7.0))),
        ("Assistant 1 : 8 Assistant 2 : 7", Some((8.0, 7.0))),
        ("A:8 B:9", Some((8.0, 9.0))),
        ("Scores: 8 and 9", Some((8.0, 9.0))),
        ("85 90", None),
        ("8 9 7", None),
        ("8", None),
        ("8-9", None),
        ("Both are good.\n8 9", None),
        ("", None),
    ] {
        let want = want.map(|(a, b)| Opinion::Scores(a, b));
        assert_eq!(careful(Form::Scores, text), want, "{text:?}");
    }
}

#[test]
fn the_last_rating_on_the_scale_counts() {
    for (text, want) in [
        ("[[3]] no, [[4.5]]", Some(4.5)),
        ("As in [1], [[2]]", Some(2.0)),
        ("[[ **7** ]]", Some(7.0)),
        ("[[7/10]]", Some(7.0)),
        ("[1] is wrong: [6]", Some(6.0)),
        ("[[11]]", None),
        ("[[x]] 7", None),
    ] {
        assert_eq!(careful(Form::Rating, text), want.map(Opinion::Rates), "{text:?}");
    }
}

#[test]
fn disputed_words_are_those_that_decide_something_else() {
    let rubric = |form| Rubric {
        form,
        prompt: None,
        reference_prompt: None,
        parser: Parser::Careful,
        orders: Orders::Both,
        ties: Ties::Agree,
        tie_within: 0.0,
    };
    for (form, text, disputed) in [
        (Form::Verdict, "Not [[A]] but [[B]]", true),
        (Form::Verdict, "[[B]]", false),
        (Form::Verdict, "neither", false),
        (Form::Scores, "(8, 9)", true),
        (Form::Scores, "8 9", false),
        (Form::Rating, "[[3]] [[4]]", true),
        (Form::Rating, "[[3]]", false),
    ] {
        assert_eq!(is_disputed(&rubric(form), text), disputed, "{text}");
    }
    assert_eq!(Opinion::Scores(7.0, 7.1).preference(0.1 + 1e-9), Preference::Tie);
    assert_eq!(Opinion::Scores(7.0, 7.1).preference(0.0), Preference::Second);
}
