//! What can be read out of a model's words, and what cannot.

use super::*;
use crate::record::Problem;
use crate::record::protocol::AnswerForm;

fn protocol() -> Protocol {
    Protocol {
        reply: "Answer: {answer}".into(),
        correct: "Judgment: correct".into(),
        incorrect: "Judgment: incorrect".into(),
        refined_marker: "Refined answer:".into(),
        answer: AnswerForm::Number,
        ..Protocol::empty()
    }
}

fn said(text: &str) -> Reply {
    Reply {
        text: text.into(),
        end: End::Whole,
        model: String::new(),
        id: String::new(),
        read: 0,
        written: 0,
    }
}

fn annotation(text: &str) -> Annotation {
    read(&protocol(), "Answer: 7", &said(text)).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn an_assessment_is_read_as_models_write_it() {
    let texts = [
        "3 + 4 is 7, not 8.\nJudgment: incorrect\nRefined answer:\n3 + 4 = 7\nAnswer: 7",
        "3 + 4 is 7, not 8.\n\n**Judgment:** Incorrect.\n\n**Refined answer:**\n\n3 + 4 = 7\nAnswer: 7\n",
        "3 + 4 is 7, not 8. JUDGMENT:  INCORRECT\n*Refined Answer*: 3 + 4 = 7\nAnswer: 7",
        "3 + 4 is 7, not 8.\n`Judgment: incorrect`\n3 + 4 = 7\nAnswer: 7",
        "3 + 4 is 7, not 8.\nJudgment: incorrect\nRefined answer: 3 + 4 = 7\nAnswer: 7",
    ];
    for text in texts {
        let found = annotation(text);
        assert_eq!(found.verdict, Verdict::Incorrect, "{text}");
        assert_eq!(found.feedback, "3 + 4 is 7, not 8.\nJudgment: incorrect", "{text}");
        assert_eq!(found.refined, "3 + 4 = 7\nAnswer: 7", "{text}");
    }
}

#[test]
fn the_last_verdict_before_the_mark_counts() {
    let text = "At first: Judgment: correct. But no.\nJudgment: incorrect\nRefined answer:\nAnswer: 7 \
                (Judgment: correct)";
    assert_eq!(annotation(text).verdict, Verdict::Incorrect);
    let text = "It is not so that judgment: incorrect fits.\nJudgment: correct";
    assert_eq!(annotation(text).verdict, Verdict::Correct);
    // `incorrect` is not `correct`, and `correctly` is neither.
    let short = Protocol { correct: "correct".into(), incorrect: "incorrect".into(), ..protocol() };
    let found = read(&short, "", &said("It answers correctly, I thought. incorrect Answer: 1"));
    assert_eq!(found.expect("reads").verdict, Verdict::Incorrect);
}

#[test]
fn a_right_reply_needs_no_better_one() {
    assert_eq!(annotation("3 + 4 = 7. Judgment: correct").refined, "Answer: 7");
    assert_eq!(annotation("Yes.\nJudgment: correct\nRefined answer:\n").refined, "Answer: 7");
    let emphasis = annotation("Judgment: correct\n**Refined answer:**\n**Step 1** is fine.");
    assert_eq!(emphasis.refined, "**Step 1** is fine.");
    assert_eq!(emphasis.feedback, "Judgment: correct");
}

#[test]
fn what_cannot_be_read_has_a_name() {
    let name = |reply: &Reply| read(&protocol(), "Answer: 7", reply).expect_err("unusable");
    assert_eq!(name(&said(" \n")), "empty");
    assert_eq!(name(&said("It is wrong.")), "no verdict");
    assert_eq!(name(&said("Refined answer: 7. Judgment: correct")), "no verdict");
    assert_eq!(name(&said("Judgment: incorrect")), "no refined reply");
    assert_eq!(name(&said("Judgment: incorrect.\n**Refined answer:**\n")), "no refined reply");
    assert_eq!(name(&Reply { end: End::CutOff, ..said("Judgment: correct") }), "cut off");
    assert_eq!(name(&Reply { end: End::Refused, ..said("") }), "refused");
    for garbage in ["\u{0}\u{1}", "İİİ ß", "{{{}}}", "Judgment:", "🦀🦀", "ﬁ"] {
        assert_eq!(name(&said(garbage)), "no verdict", "{garbage}");
    }
}

#[test]
fn offsets_survive_letters_that_change_their_length() {
    let text = "İstanbul has ÅÅ ﬁ 7. judgment: INCORRECT. refined answer: İyi, Answer: 7";
    let found = annotation(text);
    assert_eq!(found.feedback, "İstanbul has ÅÅ ﬁ 7.\nJudgment: incorrect");
    assert_eq!(found.refined, "İyi, Answer: 7");
}

#[test]
fn a_prompt_holds_what_it_should_and_fills_no_hole_twice() {
    let problem = Problem {
        id: "p".into(),
        question: "What is {reply}?".into(),
        numbers: Vec::new(),
        gold: None,
        solution: Vec::new(),
        worked: None,
        fingerprint: String::new(),
    };
    let api = Api {
        base_url: "http://127.0.0.1:1/v1".into(),
        model: "m".into(),
        key_env: None,
        system: None,
        temperature: 0.0,
        max_tokens: 16,
        limit_field: "max_tokens".into(),
        extra: None,
        attempts: 1,
        concurrency: 1,
        requests_per_minute: 0,
        tokens_per_minute: 0,
        timeout: 1,
        tries: 1,
        pause: 0.0,
        price_read: 0.0,
        price_written: 0.0,
        budget: 0.0,
        cassette: None,
    };
    let assessor = Assessor { api: Use { name: None, value: api }, prompt: PROMPT.to_owned() };
    let text = assessor.ask(&protocol(), &Case { problem: &problem, reply: "{question} {x}" });
    assert!(text.contains("Question:\nWhat is {reply}?\n"), "{text}");
    assert!(text.contains("Response:\n{question} {x}\n"), "{text}");
    assert!(
        text.contains("\"Judgment: correct\"") && text.contains("\"Refined answer:\""),
        "{text}"
    );
    assert!(text.ends_with("in this form: Answer: <answer>"), "{text}");
}
