//! The built-in annotator: knows the solution, works through it, names what
//! the reply got wrong and by how much, gives a verdict and the right reply.
//!
//! Its working is written one known fact a step, so that a small model can
//! learn to write it; the difference between what was written and what was
//! found comes before the verdict, so that the verdict is one more known fact.

use super::annotator::{Annotation, Annotator, Case, Desk, Remark};
use crate::base::failure::{Failure, Outcome};
use crate::base::spec::spec;
use crate::record::answer::{self, plain_number};
use crate::record::protocol::{AnswerForm, Protocol};
use crate::record::{Operation, Problem, Verdict, overlap};

spec! {
    /// The built-in annotator. It knows the solution of every problem, or the data set's own reply
    /// where answers are words, and needs no network.
    pub struct Reference {
        /// Whether the feedback names the kind of the mistake where it can be told: stopped early,
        /// took away instead of adding.
        explain: bool = false,
    }
}

impl Annotator for Reference {
    fn annotate(
        &self,
        protocol: &Protocol,
        cases: &[Case],
        desk: &dyn Desk,
    ) -> Outcome<Vec<Remark>> {
        let one = |case: &Case| {
            desk.check()?;
            self.assess(protocol, case.problem, case.reply).map(Ok)
        };
        cases.iter().map(one).collect()
    }
}

impl Reference {
    fn assess(&self, protocol: &Protocol, problem: &Problem, reply: &str) -> Outcome<Annotation> {
        if protocol.answer == AnswerForm::Text {
            return beside_worked(protocol, problem, reply);
        }
        let gold = problem.gold.filter(|_| !problem.solution.is_empty()).ok_or_else(|| {
            Failure::input(format!(
                "problem `{}` has no worked solution to annotate by",
                problem.id
            ))
        })?;
        let given = answer::extract(protocol, problem, reply);
        let right = answer::is_equal(given, Some(gold));
        let (verdict, words) = match right {
            true => (Verdict::Correct, &protocol.correct),
            false => (Verdict::Incorrect, &protocol.incorrect),
        };
        let (comparison, refined) = match protocol.answer {
            AnswerForm::Number => (compare_numbers(given, gold), show(gold)),
            AnswerForm::Expression | AnswerForm::Text => {
                (compare_expressions(reply, right), expression(&problem.solution))
            }
        };
        let mistake = match self.explain && !right {
            true => format!(" {} ;", mistake(&problem.solution, given, gold)),
            false => String::new(),
        };
        let work = match protocol.answer {
            AnswerForm::Number => working(&problem.solution),
            AnswerForm::Expression | AnswerForm::Text => plan(&problem.solution),
        };
        Ok(Annotation {
            feedback: format!("{work} {comparison} ;{mistake} {words}"),
            verdict,
            refined: protocol.reply_with(&refined),
        })
    }
}

/// Words of the data set's own reply that feedback names as missing, at most.
const MISSING: usize = 5;

/// Holds a reply against the data set's own: names words that it lacks, rates it
/// by the words that both share, and gives the data set's reply in its place.
fn beside_worked(protocol: &Protocol, problem: &Problem, reply: &str) -> Outcome<Annotation> {
    let worked = problem.worked.as_deref().ok_or_else(|| {
        Failure::input(format!(
            "problem `{}` has no reply of its data set to annotate by",
            problem.id
        ))
        .hint("`alpaca-json` has them; else let an `api` annotate")
    })?;
    // Rounded down: 10 is for the same words only.
    let rating = overlap::rating(reply, worked).floor();
    let mut given: Vec<String> = overlap::words(reply).collect();
    let mut missing = Vec::new();
    for word in overlap::words(worked) {
        match given.iter().position(|known| *known == word) {
            Some(at) => drop(given.swap_remove(at)),
            None => missing.push(word),
        }
    }
    missing.truncate(MISSING);
    let verdict =
        if rating >= protocol.good_rating { Verdict::Correct } else { Verdict::Incorrect };
    let judgement = match (&protocol.rating, verdict) {
        (Some(words), _) => format!("{words} {}", show(rating)),
        (None, Verdict::Correct) => protocol.correct.clone(),
        (None, _) => protocol.incorrect.clone(),
    };
    let missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join(" ") };
    let refined = if rating >= 10.0 { reply } else { worked };
    Ok(Annotation {
        feedback: format!("missing {missing} ; {judgement}"),
        verdict,
        refined: refined.to_owned(),
    })
}

/// `work: 15 - 8 = 7 ; 7 + 3 = 10 ;`
pub fn working(solution: &[Operation]) -> String {
    let mut text = "work:".to_owned();
    for step in solution {
        let operand = |word: &str| resolve(word, solution);
        text += &format!(
            " {} {} {} = {} ;",
            operand(&step.left),
            step.operator,
            operand(&step.right),
            show(step.result)
        );
    }
    text
}

/// `work: number0 - number1 ;`, results of earlier steps being `step1`, `step2`.
fn plan(solution: &[Operation]) -> String {
    let mut text = "work:".to_owned();
    for step in solution {
        let operand = |word: &str| match word.strip_prefix('#').map(str::parse::<usize>) {
            Some(Ok(index)) => format!("step{}", index + 1),
            _ => word.to_owned(),
        };
        text += &format!(" {} {} {} ;", operand(&step.left), step.operator, operand(&step.right));
    }
    text
}

/// `wrote 12 found 10 off 2`
pub fn compare_numbers(given: Option<f64>, found: f64) -> String {
    match given {
        Some(given) => {
            format!(
                "wrote {} found {} off {}",
                show(given),
                show(found),
                show((given - found).abs())
            )
        }
        None => format!("wrote nothing found {}", show(found)),
    }
}

/// `wrote + number0 number1`, and whether that comes to the same.
fn compare_expressions(reply: &str, right: bool) -> String {
    let written: Vec<&str> = reply.split_whitespace().skip(1).take(12).collect();
    let written = if written.is_empty() { "nothing".to_owned() } else { written.join(" ") };
    format!("wrote {written} {}", if right { "same" } else { "differs" })
}

/// The solution as one prefix expression.
pub fn expression(solution: &[Operation]) -> String {
    fn of(word: &str, solution: &[Operation]) -> String {
        match word.strip_prefix('#').map(str::parse::<usize>) {
            Some(Ok(index)) if index < solution.len() => {
                let step = &solution[index];
                let before = &solution[..index];
                format!("{} {} {}", step.operator, of(&step.left, before), of(&step.right, before))
            }
            _ => word.to_owned(),
        }
    }
    match solution.len() {
        0 => String::new(),
        n => of(&format!("#{}", n - 1), solution),
    }
}

fn mistake(solution: &[Operation], given: Option<f64>, gold: f64) -> &'static str {
    let Some(given) = given else { return "no answer" };
    let first = solution.first().and_then(|step| plain_number(&step.left));
    if solution.iter().rev().skip(1).any(|step| step.result == given) || first == Some(given) {
        return "stopped early";
    }
    for (index, step) in solution.iter().enumerate() {
        let rest: f64 = solution[index..].last().map_or(0.0, |last| last.result);
        let Some(operand) = plain_number(&step.right) else { continue };
        let flipped = match step.operator {
            '+' => rest - 2.0 * operand,
            '-' => rest + 2.0 * operand,
            _ => continue,
        };
        if flipped == given && rest == gold {
            return "turned a step around";
        }
    }
    "miscounted"
}

/// What an operand is in numbers.
fn resolve(word: &str, solution: &[Operation]) -> String {
    match word.strip_prefix('#').map(str::parse::<usize>) {
        Some(Ok(index)) => solution.get(index).map_or_else(String::new, |step| show(step.result)),
        _ => word.to_owned(),
    }
}

/// A number without a needless decimal point.
pub fn show(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        format!("{}", value as i64)
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        let step = |left: &str, operator, right: &str, result| Operation {
            left: left.into(),
            operator,
            right: right.into(),
            result,
        };
        Problem {
            id: "p".into(),
            question: "sam has 15 stones . sam eats 8 then buys 3 . how many ?".into(),
            numbers: Vec::new(),
            gold: Some(10.0),
            solution: vec![step("15", '-', "8", 7.0), step("#0", '+', "3", 10.0)],
            worked: None,
            fingerprint: String::new(),
            labels: Default::default(),
        }
    }

    fn protocol(answer: AnswerForm) -> Protocol {
        Protocol {
            reply: "answer {answer}".into(),
            correct: "judgement correct".into(),
            incorrect: "judgement incorrect".into(),
            answer,
            ..Protocol::empty()
        }
    }

    fn annotate(explain: bool, problem: &Problem, reply: &str) -> Annotation {
        let protocol = protocol(AnswerForm::Number);
        Reference { explain }.assess(&protocol, problem, reply).expect("annotates")
    }

    #[test]
    fn feedback_works_through_the_problem_and_names_the_difference() {
        let said = annotate(false, &problem(), "answer 12");
        assert_eq!(
            said.feedback,
            "work: 15 - 8 = 7 ; 7 + 3 = 10 ; wrote 12 found 10 off 2 ; judgement incorrect"
        );
        assert_eq!((said.verdict, said.refined.as_str()), (Verdict::Incorrect, "answer 10"));
        let said = annotate(false, &problem(), "answer 10");
        assert_eq!(said.verdict, Verdict::Correct);
        let said = annotate(false, &problem(), "sam");
        assert!(said.feedback.ends_with("wrote nothing found 10 ; judgement incorrect"));
    }

    #[test]
    fn mistakes_are_named_where_they_can_be_told() {
        for (reply, name) in [
            ("answer 7", "stopped early"),
            ("answer 4", "turned a step around"),
            ("answer 11", "miscounted"),
            ("what", "no answer"),
        ] {
            let said = annotate(true, &problem(), reply);
            assert!(said.feedback.contains(&format!("; {name} ;")), "{}", said.feedback);
        }
    }

    #[test]
    fn expressions_are_worked_in_symbols() {
        let mut p = problem();
        p.numbers = vec![15.0, 8.0, 3.0];
        p.solution[0].left = "number0".into();
        p.solution[0].right = "number1".into();
        p.solution[1].right = "number2".into();
        let annotate = |reply: &str| {
            let protocol = protocol(AnswerForm::Expression);
            Reference { explain: false }.assess(&protocol, &p, reply).expect("annotates")
        };
        let said = annotate("answer - number0 number2");
        assert_eq!(
            said.feedback,
            "work: number0 - number1 ; step1 + number2 ; wrote - number0 number2 differs ; judgement incorrect"
        );
        assert_eq!(said.refined, "answer + - number0 number1 number2");
        let right = annotate(&said.refined);
        assert_eq!(right.verdict, Verdict::Correct);
    }

    #[test]
    fn words_are_rated_beside_the_data_sets_own() {
        let mut p = problem();
        p.worked = Some("Plant the tree in spring".into());
        let protocol = Protocol { rating: Some("Rating:".into()), ..protocol(AnswerForm::Text) };
        let annotate =
            |p: &Problem, reply: &str| Reference { explain: false }.assess(&protocol, p, reply);
        let said = annotate(&p, "plant a tree").expect("annotates");
        // 2 of 3 and of 5 words are shared: F1 is 0.5, which is 5.5 on the scale.
        assert_eq!(said.feedback, "missing the in spring ; Rating: 5");
        assert_eq!(said.verdict, Verdict::Incorrect);
        assert_eq!(said.refined, "Plant the tree in spring");
        let same = annotate(&p, "plant the tree in spring!").expect("annotates");
        assert_eq!(same.feedback, "missing nothing ; Rating: 10");
        assert_eq!(
            (same.verdict, same.refined.as_str()),
            (Verdict::Correct, "plant the tree in spring!")
        );
        p.worked = None;
        assert!(annotate(&p, "x").unwrap_err().what.contains("no reply of its data set"));
    }

    #[test]
    fn a_problem_without_a_solution_is_refused() {
        let mut p = problem();
        p.solution.clear();
        let protocol = protocol(AnswerForm::Number);
        assert!(Reference { explain: false }.assess(&protocol, &p, "answer 10").is_err());
    }
}
