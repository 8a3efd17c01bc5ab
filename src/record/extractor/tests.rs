//! Every rule on texts that `tests/fixtures/extraction.py` had the tools
//! themselves read, or wrote with a known answer.

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    known: Vec<Known>,
    votes: Vec<Votes>,
    published: Vec<Published>,
}

/// A text, and for each tool what it reads and whether it calls it right.
#[derive(Deserialize)]
struct Case {
    text: String,
    gold: f64,
    gsm8k: (Option<String>, bool),
    strict: (Option<String>, bool),
    flexible: (Option<String>, bool),
}

/// A text that was written around an answer; none where it holds none.
#[derive(Deserialize)]
struct Known {
    text: String,
    answer: Option<String>,
}

#[derive(Deserialize)]
struct Votes {
    texts: Vec<String>,
    winner: Option<String>,
}

/// A gold solution as the data set has it.
#[derive(Deserialize)]
struct Published {
    text: String,
    gold: f64,
}

fn fixture() -> Fixture {
    let text = include_str!("../../../tests/fixtures/extraction.json");
    serde_json::from_str(text).expect("the fixture reads")
}

fn problem(gold: f64) -> Problem {
    Problem {
        id: "p".into(),
        question: "?".into(),
        numbers: Vec::new(),
        gold: Some(gold),
        solution: Vec::new(),
        worked: None,
        fingerprint: String::new(),
        labels: Default::default(),
    }
}

fn protocol(reply: &str) -> Protocol {
    Protocol { reply: reply.into(), ..Protocol::empty() }
}

fn judged(rule: Extractor, text: &str, gold: f64) -> (Option<String>, bool) {
    let read = rule.read(&protocol("Answer: {answer}"), &problem(gold), text);
    let right = rule.is_right(read.as_deref(), Some(gold));
    (read, right)
}

#[test]
fn the_tools_rules_read_and_judge_as_the_tools_do() {
    let fixture = fixture();
    assert!(fixture.cases.len() >= 200, "{}", fixture.cases.len());
    for case in &fixture.cases {
        for (rule, want) in [
            (Extractor::Gsm8k, &case.gsm8k),
            (Extractor::Strict, &case.strict),
            (Extractor::Flexible, &case.flexible),
        ] {
            let got = judged(rule, &case.text, case.gold);
            assert_eq!(got, *want, "{} of {:?}", rule.name(), case.text);
        }
    }
    // Cases on which all agree would show nothing.
    let apart = fixture
        .cases
        .iter()
        .filter(|case| case.gsm8k.1 != case.flexible.1 || case.strict.1 != case.flexible.1);
    assert!(apart.count() > 30);
}

#[test]
fn the_canonical_rule_finds_the_answer_that_a_text_was_written_around() {
    let fixture = fixture();
    assert!(fixture.known.len() >= 200, "{}", fixture.known.len());
    for Known { text, answer } in &fixture.known {
        let read = Extractor::Canonical.read(&protocol("So: {answer}"), &problem(0.0), text);
        assert_eq!(read, *answer, "{text:?}");
        let Some(answer) = answer else { continue };
        let Some(gold) = rational::first(answer) else { panic!("{answer} is no number") };
        let exact = Rational::shown(gold.value()) == Some(gold);
        assert_eq!(Extractor::Canonical.is_right(read.as_deref(), Some(gold.value())), exact);
        assert_eq!(Extractor::Canonical.value(answer), Some(gold.value()));
        assert!(!Extractor::Canonical.is_right(read.as_deref(), Some(gold.value() + 1.0)));
    }
}

#[test]
fn lm_evals_vote_counts_texts_and_lets_nothing_vote() {
    for Votes { texts, winner } in fixture().votes {
        let read =
            |text: &String| Extractor::Strict.read(&protocol("x {answer}"), &problem(0.0), text);
        let reads: Vec<_> = texts.iter().map(read).collect();
        assert_eq!(Extractor::Strict.vote(&reads), winner, "{texts:?}");
    }
    // Ours lets only answers vote.
    let reads = [None, None, Some("4".to_owned())];
    assert_eq!(Extractor::Canonical.vote(&reads).as_deref(), Some("4"));
    assert_eq!(Extractor::Strict.vote(&reads), None);
}

#[test]
fn published_gold_solutions_are_read_as_their_answer_by_every_rule() {
    let published = fixture().published;
    assert!(published.len() >= 40, "{}", published.len());
    for Published { text, gold } in &published {
        for &rule in Extractor::ALL {
            let protocol = protocol("#### {answer}");
            let read = rule.read(&protocol, &problem(*gold), text);
            assert!(rule.is_right(read.as_deref(), Some(*gold)), "{} of {text:?}", rule.name());
            assert_eq!(rule.value(&read.expect("read")), Some(*gold));
        }
    }
}

#[test]
fn the_protocols_rule_is_the_one_that_always_was() {
    let (rule, texts) = (Extractor::Protocol, ["Answer: 10", "it is 1,080 .", "Answer: none"]);
    for text in texts {
        let protocol = protocol("Answer: {answer}");
        let read = rule.read(&protocol, &problem(10.0), text);
        let was = answer::extract(&protocol, &problem(10.0), text);
        assert_eq!(read.as_deref().and_then(|read| rule.value(read)), was);
        let right = answer::is_right(&protocol, &problem(10.0), text);
        assert_eq!(rule.is_right(read.as_deref(), Some(10.0)), right);
    }
}
