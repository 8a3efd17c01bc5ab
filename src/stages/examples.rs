//! Kind `examples`: problems -> training texts with the direct answer. A share
//! of the answers can be made wrong, for a base model that leaves headroom.
//! Randomness: which answers are wrong, and by how much.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::seed::Rng;
use crate::base::spec::{Ref, Use, choice, spec};
use crate::inference::reference::{expression, show};
use crate::record::Problem;
use crate::record::protocol::{AnswerForm, Protocol};
use crate::stages::foresight::{self, Extent, Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;

choice! {
    /// What a training text replies.
    pub enum Reply {
        /// The answer.
        Answer = "answer",
        /// The working that the data set has, and below it the answer.
        Worked = "worked",
    }
}

spec! {
    /// Turns problems into training texts: the question, and a reply with the answer. Where answers
    /// are words, the reply is the data set's own.
    pub struct Examples {
        /// Problems with gold answers.
        problems: Ref<Problems>,
        /// Texts.
        protocol: Use<Protocol>,
        /// What the reply is: the answer, or the data set's own working and then the answer.
        reply: Reply = Reply::Answer,
        /// Share of the answers that are off by 1 to 3 (numbers only).
        noise: f64 = 0.0,
        /// Answers that are made wrong stay in `0..=largest`.
        largest: u64 = 20,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Examples>("examples", "stage", 1, true);

impl Stage for Examples {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("examples".into(), ArtifactKind::Examples)]
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let problems = given.one("problems")?;
        // A question, and an answer of about its length.
        let question = foresight::prompt(&[problems.question, problems.question]);
        Some(Foreseen::of("examples", Extent { question, ..problems }))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let mut rng = work.seed().rng();
        let mut examples = Vec::with_capacity(problems.len());
        for problem in &problems {
            if self.protocol.answer == AnswerForm::Text {
                // Where answers are words, the data set's own reply is all of it.
                let worked = problem.worked.clone().ok_or_else(|| unworked(problem))?;
                let prompt = self.protocol.question_prompt(problem);
                let id = format!("direct-{}", problem.id);
                examples.push(self.protocol.example(id, prompt, worked));
                continue;
            }
            let gold = problem.gold.ok_or_else(|| {
                Failure::input(format!("problem `{}` has no gold answer", problem.id))
            })?;
            let answer = match self.protocol.answer {
                AnswerForm::Expression | AnswerForm::Text => expression(&problem.solution),
                AnswerForm::Number if rng.unit_f64() < self.noise => {
                    wrong(&mut rng, problem, gold, self.largest)?
                }
                AnswerForm::Number => show(gold),
            };
            examples.push(self.protocol.example(
                format!("direct-{}", problem.id),
                self.protocol.question_prompt(problem),
                match self.reply {
                    Reply::Answer => self.protocol.reply_with(&answer),
                    Reply::Worked => {
                        let worked = problem.worked.as_ref().ok_or_else(|| unworked(problem))?;
                        format!("{worked}\n{}", self.protocol.reply_with(&answer))
                    }
                },
            ));
        }
        work.output("examples").write_rows("examples.jsonl", &examples)
    }
}

fn unworked(problem: &Problem) -> Failure {
    Failure::input(format!("problem `{}` has no working of its data set", problem.id))
        .hint("`gsm8k-jsonl` read with `mask = false` has it, and `alpaca-json`; else `reply = \"answer\"`")
}

/// An answer that is off by 1 to 3 and stays in `0..=largest`.
fn wrong(rng: &mut Rng, problem: &Problem, gold: f64, largest: u64) -> Outcome<String> {
    let fits = |wrong: f64| (0.0..=largest as f64).contains(&wrong);
    if !(1..=3).any(|by| fits(gold + f64::from(by)) || fits(gold - f64::from(by))) {
        return Err(Failure::input(format!(
            "no wrong answer near {} (problem `{}`) is in 0..={largest}",
            show(gold),
            problem.id
        ))
        .hint("raise `largest`, or set `noise` to 0"));
    }
    loop {
        let by = 1.0 + rng.below(3) as f64;
        let wrong = if rng.below(2) == 0 { gold + by } else { gold - by };
        if fits(wrong) {
            return Ok(show(wrong));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed::Seed;

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

    #[test]
    fn wrong_answers_are_near_and_in_range() {
        let mut rng = Seed(1).rng();
        for gold in [0.0, 10.0, 20.0, 23.0] {
            for _ in 0..50 {
                let said = wrong(&mut rng, &problem(gold), gold, 20).expect("there is one");
                let value: f64 = said.parse().expect("a number");
                assert!(
                    (0.0..=20.0).contains(&value) && (1.0..=3.0).contains(&(value - gold).abs())
                );
            }
        }
        // Once it looked for ever.
        assert!(wrong(&mut rng, &problem(24.0), 24.0, 20).is_err());
    }
}
