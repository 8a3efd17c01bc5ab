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
        labels: Default::default(),
    };
    let case = Case { problem: &problem, reply: "{question} {x}" };
    let text = ask(PROMPT, &protocol(), &case, "");
    assert!(text.contains("Question:\nWhat is {reply}?\n"), "{text}");
    assert!(text.contains("Response:\n{question} {x}\n"), "{text}");
    assert!(
        text.contains("\"Judgment: correct\"") && text.contains("\"Refined answer:\""),
        "{text}"
    );
    assert!(text.ends_with("in this form: Answer: <answer>"), "{text}");
}

fn rating() -> Protocol {
    Protocol {
        rating: Some("Rating:".into()),
        good_rating: 9.0,
        answer: AnswerForm::Text,
        ..protocol()
    }
}

#[test]
fn ratings_are_read_in_one_spelling_and_none_is_no_annotation() {
    for (text, want) in [
        (
            "Too short.\n**Rating: 4/10**\n\nRefined answer:\nLonger.",
            Ok(("Too short.\nRating: 4", Verdict::Incorrect, "Longer.")),
        ),
        (
            "Fine.\nrating: **9.5** I think\nRefined answer:\nAs it is.",
            Ok(("Fine.\nRating: 9.5", Verdict::Correct, "As it is.")),
        ),
        ("Fine.\nRating: 10", Ok(("Fine.\nRating: 10", Verdict::Correct, "given"))),
        (
            "Poor.\nRating: 2\nA better one.",
            Ok(("Poor.\nRating: 2", Verdict::Incorrect, "A better one.")),
        ),
        ("Poor.\nRating: 2", Err("no refined reply")),
        ("Poor.\nRating: low\nRefined answer:\nx", Err("no rating")),
        ("Poor.\nRating: 11\nRefined answer:\nx", Err("no rating")),
        ("Poor. Refined answer: x. Rating: 9", Err("no rating")),
        ("Judgment: correct. Refined answer: x", Err("no rating")),
    ] {
        let found = read(&rating(), "given", &said(text));
        let want = want.map(|(feedback, verdict, refined)| Annotation {
            feedback: feedback.into(),
            verdict,
            refined: refined.into(),
        });
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn two_questions_ask_for_feedback_and_then_with_it_for_the_reply() {
    let problem = Problem {
        id: "p".into(),
        question: "Write.".into(),
        numbers: Vec::new(),
        gold: None,
        solution: Vec::new(),
        worked: None,
        fingerprint: String::new(),
        labels: Default::default(),
    };
    let case = Case { problem: &problem, reply: "Text." };
    let first = ask(FEEDBACK_PROMPT, &rating(), &case, "");
    assert!(first.contains("\"Rating:\" and a rating from 1 to 10"), "{first}");
    assert!(!first.contains("Refined answer"), "{first}");
    let second = ask(REFINE_PROMPT, &rating(), &case, "Too short.");
    assert!(second.contains("Assessment:\nToo short.\n"), "{second}");
    assert!(second.ends_with("else a better one."), "{second}");
    let math = ask(REFINE_PROMPT, &protocol(), &case, "Wrong.");
    assert!(math.ends_with("in this form: Answer: <answer>"), "{math}");
    let first = ask(FEEDBACK_PROMPT, &protocol(), &case, "");
    assert!(first.contains("\"Judgment: incorrect\" if it does not"), "{first}");
    let one = ask(RATING_PROMPT, &rating(), &case, "");
    assert!(one.contains("\"Refined answer:\" on a line") && !one.contains('{'), "{one}");
    let found = judged(&rating(), &said("Good. *Rating: 7*"));
    assert_eq!(found, Ok(("Good.\nRating: 7".into(), Verdict::Incorrect)));
    assert_eq!(judged(&rating(), &said("Good.")), Err("no rating"));
}
