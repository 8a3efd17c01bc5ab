//! Small rows of every format, and the published files where they are at hand.

use super::*;
use crate::inference::reference::expression;
use crate::record::answer;
use crate::record::protocol::{AnswerForm, Protocol};

const MAWPS: &str = r#"Question,Numbers,Equation,Answer,group_nums
"Ann 's shop has number0 bags of number1 pears , and sells number2 . How many are left ?",5.0 6.0 4.0,- * number0 number1 number2,26.0,"[1, 2]"
Tom pays number0 % of $ number1 . How much is that ?,15 3.33,/ * number0 number1 100.0,0.5,[]
Lea has number0 cats and number1 dogs . How many ?,3 4,+ number0 number1,8.0,[]
"#;

const SVAMP: &str = r#"[
  {"ID": "chal-7", "Body": "A kite costs 12 dollars, and Max has $1,030",
   "Question": "How much is left after 2 kites?", "Equation": "( 1030.0 - ( 12.0 * 2.0 ) )",
   "Answer": 1006.0, "Type": "Subtraction"}
]"#;

fn problems(format: Format, text: &str) -> Vec<Problem> {
    parse(format, Style::Masked, text).expect("parses").problems
}

fn refused(format: Format, text: &str) -> String {
    parse(format, Style::Masked, text).expect_err("is refused").chain().join(": ")
}

/// What the solution, written as a reply, comes to.
fn replied(problem: &Problem) -> Option<f64> {
    let protocol = Protocol {
        question: "Q: {question} A:".into(),
        feedback: "Q: {question} R: {reply} F:".into(),
        refined_marker: "refined:".into(),
        reply: "answer {answer}".into(),
        correct: "judgement correct".into(),
        incorrect: "judgement incorrect".into(),
        answer: AnswerForm::Expression,
        ..Protocol::empty()
    };
    let reply = protocol.reply_with(&expression(&problem.solution));
    answer::extract(&protocol, problem, &reply)
}

#[test]
fn masked_tables_keep_their_masks_and_unround_their_answers() {
    let parsed = parse(Format::MawpsCsv, Style::Masked, MAWPS).expect("parses");
    let [first, second, third] = &parsed.problems[..] else { panic!("three rows") };
    assert_eq!(first.id, "mawps-1");
    assert_eq!(
        first.question,
        "ann 's shop has number0 bags of number1 pears , and sells number2 . how many are left ?"
    );
    assert_eq!((first.numbers.as_slice(), first.gold), ([5.0, 6.0, 4.0].as_slice(), Some(26.0)));
    assert_eq!(expression(&first.solution), "- * number0 number1 number2");
    // 0.4995 is rounded to 0.5 in the file.
    assert!((second.gold.expect("has one") - 0.4995).abs() < 1e-9);
    assert_eq!(second.solution[1].right, "100.0");
    // Three and four are not eight.
    assert!(third.solution.is_empty() && third.gold == Some(8.0));
    let counts = [("gold-unrounded", 1), ("solution-misses-answer", 1), ("without-solution", 1)];
    assert_eq!(parsed.counts, counts.into());
}

#[test]
fn plain_texts_are_masked_and_their_equations_named() {
    let parsed = problems(Format::SvampJson, SVAMP);
    let [one] = &parsed[..] else { panic!("one row") };
    assert_eq!(one.id, "svamp-7");
    assert_eq!(
        one.question,
        "a kite costs number0 dollars , and max has $ number1 how much is left after number2 kites ?"
    );
    assert_eq!(one.numbers, [12.0, 1030.0, 2.0]);
    assert_eq!(expression(&one.solution), "- number1 * number0 number2");
    assert_eq!(replied(one), one.gold);
}

#[test]
fn texts_may_stay_as_they_are() {
    let plain = |format, text| parse(format, Style::Plain, text).expect("parses").problems;
    let one = &plain(Format::SvampJson, SVAMP)[0];
    assert_eq!(
        one.question,
        "A kite costs 12 dollars, and Max has $1,030 How much is left after 2 kites?"
    );
    assert!(one.numbers.is_empty());
    assert_eq!(expression(&one.solution), "- 1030 * 12 2");
    let rows = plain(Format::MawpsCsv, MAWPS);
    assert_eq!(
        rows[0].question,
        "Ann 's shop has 5 bags of 6 pears , and sells 4 . How many are left ?"
    );
    assert_eq!(expression(&rows[0].solution), "- * 5 6 4");
    // Their pools are kept apart as those of masked questions are.
    let masked = problems(Format::SvampJson, SVAMP);
    assert_eq!(one.fingerprint, masked[0].fingerprint);
}

#[test]
fn the_calculators_marks_are_a_way_to_the_answer() {
    let row = |worked: &str, gold: &str| {
        serde_json::json!({ "question": "How many?", "answer": format!("{worked}\n#### {gold}") })
            .to_string()
    };
    let one = |worked: &str, gold: &str| {
        parse(Format::Gsm8kJsonl, Style::Plain, &row(worked, gold))
            .expect("parses")
            .problems
            .remove(0)
    };
    let found = one("May: 48/2 = <<48/2=24>>24.\nAll: <<48+24=72>>72.", "72");
    assert_eq!(found.worked.as_deref(), Some("May: 48/2 = 24.\nAll: 72."));
    let steps: Vec<String> = found
        .solution
        .iter()
        .map(|step| format!("{} {} {} = {}", step.left, step.operator, step.right, step.result))
        .collect();
    assert_eq!(steps, ["48 / 2 = 24", "48 + 24 = 72"]);
    let found = one("<<2*3+4=10>>10 and <<10-1=9>>9", "9");
    assert_eq!(found.solution[1].left, "#0");
    assert_eq!(found.solution[2].left, "10");
    for (worked, gold) in [("none", "3"), ("<<1+1=3>>3", "3"), ("<<1+1=2>>2", "3"), ("<<1+", "1")] {
        assert!(one(worked, gold).solution.is_empty(), "{worked}");
    }
}

#[test]
fn golds_after_the_marks_are_read_with_commas() {
    let text = "{\"question\": \"Eva saves $20 a day. How much in 54 days?\", \"answer\": \
        \"20*54 = <<20*54=1080>>1080\\n#### 1,080\"}\n{\"question\": \"q\", \"answer\": \"#### -3\"}\n";
    let [first, second] = &problems(Format::Gsm8kJsonl, text)[..] else { panic!("two rows") };
    assert_eq!((first.id.as_str(), first.gold), ("gsm8k-1", Some(1080.0)));
    assert_eq!(first.question, "eva saves $ number0 a day . how much in number1 days ?");
    assert_eq!((second.id.as_str(), second.gold), ("gsm8k-2", Some(-3.0)));
}

#[test]
fn our_own_rows_come_back() {
    let rows = problems(Format::MawpsCsv, MAWPS);
    let text: String =
        rows.iter().map(|row| serde_json::to_string(row).expect("is JSON") + "\n").collect();
    assert_eq!(problems(Format::ProblemsJsonl, &text), rows);
}

#[test]
fn unreadable_rows_are_named() {
    for (format, text, words) in [
        (Format::MawpsCsv, MAWPS.replace("+ number0 number1", "+ number0"), "line 4: `+ number0`"),
        (Format::MawpsCsv, MAWPS.replace("15 3.33", "15 x"), "line 3: `15 x`"),
        (Format::MawpsCsv, MAWPS.replace("15 3.33", "15"), "line 3: the equation uses `number1`"),
        (Format::MawpsCsv, MAWPS.replace("8.0", "eight"), "line 4: "),
        (Format::MawpsCsv, MAWPS.replace("Answer", "Gold"), "line 1: there is no column `Answer`"),
        (Format::MawpsCsv, MAWPS.replace(",8.0,[]", ""), "row 3"),
        (
            Format::SvampJson,
            SVAMP.replace("\"Body\"", "\"Text\""),
            "problem 1: missing field `Body`",
        ),
        (Format::SvampJson, SVAMP.replace("* 2.0 )", "* 2.0"), "problem 1: `( 1030.0"),
        (Format::SvampJson, "{".to_owned(), "no JSON list"),
        (
            Format::Gsm8kJsonl,
            "{\"question\": \"q\", \"answer\": \"3\"}".to_owned(),
            "line 1: the answer has no",
        ),
        (
            Format::Gsm8kJsonl,
            "{\"question\": \"q\", \"answer\": \"#### x\"}".to_owned(),
            "line 1: `x`",
        ),
        (Format::ProblemsJsonl, "{\"id\": \"a\"}".to_owned(), "line 1: missing field `question`"),
        (
            Format::FastchatJsonl,
            "{\"question_id\": 1, \"category\": \"c\", \"turns\": []}".to_owned(),
            "line 1: `turns` is empty",
        ),
        (
            Format::EvolInstructJsonl,
            "{\"idx\": 1, \"Skill\": \"s\", \"Difficulty\": 1}".to_owned(),
            "line 1: missing field `Instruction`",
        ),
        (Format::AlpacaJson, "[{}]".to_owned(), "instruction 1: missing field `instruction`"),
        (
            Format::ProblemsJsonl,
            "{\"id\": \"a\", \"question\": \"q\"}\n".repeat(2),
            "two problems are called `a`",
        ),
    ] {
        let said = refused(format, &text);
        assert!(said.contains(words), "`{said}` does not say `{words}`");
    }
}

#[test]
fn instructions_stay_as_they_are_written() {
    let text = r#"{"question_id": 81, "category": "writing", "turns": ["Write 3 Haikus. ", "Again!"]}
{"question_id": 82, "category": "math", "turns": ["Write 4 haikus."]}
{"question_id": 83, "category": "math", "turns": ["write  4 Haikus ."]}"#;
    let parsed = parse(Format::FastchatJsonl, Style::Masked, text).expect("parses");
    assert_eq!(parsed.counts["further-turns-left-out"], 1);
    let [first, second, third] = &parsed.problems[..] else { panic!("three rows") };
    assert_eq!((first.id.as_str(), first.question.as_str()), ("question-81", "Write 3 Haikus."));
    assert_eq!((first.gold, first.labels["category"].as_str()), (None, "writing"));
    assert_ne!(first.fingerprint, second.fingerprint, "numbers tell instructions apart");
    assert_eq!(second.fingerprint, third.fingerprint, "capitals and blanks do not");
    let text = r#"{"idx": 7, "Skill": "Math", "Difficulty": 3, "Instruction": "Add\nthem"}"#;
    let row = &problems(Format::EvolInstructJsonl, text)[0];
    assert_eq!((row.id.as_str(), row.question.as_str()), ("evol-7", "Add\nthem"));
    assert_eq!(row.labels["difficulty"], "03 of 10");
    let text =
        r#"[{"instruction": "Sum up.", "input": "A b.", "output": "A."}, {"instruction": "Go"}]"#;
    let rows = problems(Format::AlpacaJson, text);
    assert_eq!(
        (rows[0].question.as_str(), rows[0].worked.as_deref()),
        ("Sum up.\n\nA b.", Some("A."))
    );
    assert_eq!((rows[1].question.as_str(), rows[1].worked.as_deref()), ("Go", None));
}

#[test]
fn published_replies_are_told_by_their_question() {
    let row =
        |id: &str, choices: &str| format!("{{\"question_id\": {id}, \"choices\": {choices}}}\n");
    let one = r#"[{"index": 0, "turns": ["Hi.", "More."]}]"#;
    let found = fastchat_answers(&(row("81", one) + &row("\"x\"", one))).expect("parses");
    let named: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(named, ["question-81", "question-x"]);
    assert_eq!(found["question-81"], "Hi.");
    for (text, words) in [
        (row("1", "[]"), "line 1: there is no first turn"),
        (row("1", one) + &row("1", one), "line 2: a second reply to `question-1`"),
    ] {
        let said = fastchat_answers(&text).expect_err("is refused").chain().join(": ");
        assert!(said.contains(words), "`{said}` does not say `{words}`");
    }
}

/// The published sets, where a mirror of them is at hand.
#[test]
fn published_instructions_are_all_there() {
    let Some(mirror) = crate::host::http::mirror() else { return };
    for (format, path, count, categories) in [
        (Format::FastchatJsonl, "vicuna_bench/question.jsonl", 80, 9),
        (Format::FastchatJsonl, "mt_bench/question.jsonl", 80, 8),
        (Format::EvolInstructJsonl, "evol_instruct/WizardLM_testset.jsonl", 218, 29),
    ] {
        let Ok(text) = std::fs::read_to_string(mirror.join(path)) else { continue };
        let rows = problems(format, &text);
        let found: BTreeSet<&str> =
            rows.iter().map(|row| row.labels["category"].as_str()).collect();
        assert_eq!((rows.len(), found.len()), (count, categories), "{path}");
    }
}

/// Solutions written as replies give the gold answers, on the rows above and
/// on the published files where a mirror of them is at hand.
#[test]
fn solutions_are_right() {
    let mut rows = problems(Format::MawpsCsv, MAWPS);
    rows.extend(problems(Format::SvampJson, SVAMP));
    if let Some(mirror) = crate::host::http::mirror() {
        for (format, path, count) in [
            (Format::MawpsCsv, "svamp/mawps-asdiv-a_svamp/train.csv", 3138),
            (Format::SvampJson, "svamp/SVAMP.json", 1000),
        ] {
            let Ok(text) = std::fs::read_to_string(mirror.join(path)) else { continue };
            let parsed = parse(format, Style::Masked, &text).expect("parses");
            assert_eq!(parsed.problems.len(), count);
            let solved = parsed.problems.iter().filter(|row| !row.solution.is_empty()).count();
            assert!(solved * 100 >= count * 99, "{path}: only {solved} rows have a solution");
            rows.extend(parsed.problems);
        }
    }
    for row in rows.iter().filter(|row| !row.solution.is_empty()) {
        assert!(answer::is_equal(replied(row), row.gold), "{row:?} gives {:?}", replied(row));
    }
}
