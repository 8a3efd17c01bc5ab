//! The judge: whoever says which of two replies is better, or how good one is.
//! Says it in words, in the form a rubric asks for; how they are read is
//! `record`'s, so that what was said once can be read again for nothing.

use super::annotator::Desk;
use super::api::{Api, Asking};
use crate::base::failure::Outcome;
use crate::base::spec::{Resource, Use, one_of, spec};
use crate::host::chat::{End, Reply};
use crate::record::judgement::{self, Preference, nearer};
use crate::record::overlap;
use crate::record::rubric::{Form, Rubric};

/// One question to a judge.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// What the replies answer.
    pub question: &'a str,
    /// One reply, or two in the order they are shown.
    pub replies: Vec<&'a str>,
    /// An answer to compare with, where there is one.
    pub reference: Option<&'a str>,
}

/// Judges replies.
pub trait Judging {
    /// Says something to every question, in the rubric's form; in their order.
    ///
    /// # Errors
    /// When whoever judges cannot be reached or paid, or a person asked to stop.
    fn judge(&self, rubric: &Rubric, asked: &[Asked], desk: &dyn Desk) -> Outcome<Vec<Reply>>;

    /// The server it asks, if it asks one.
    fn asks(&self) -> Option<&Api> {
        None
    }
}

one_of! {
    /// Who judges replies.
    pub enum JudgeSpec by "kind" {
        /// A rule that needs no model.
        Overlap(Overlap) = "overlap",
        /// A model behind an OpenAI-compatible server.
        Model(ModelJudge) = "api",
    }
}

impl Resource for JudgeSpec {
    const SECTION: &'static str = "judge";
}

impl JudgeSpec {
    /// The judge.
    pub fn get(&self) -> &dyn Judging {
        match self {
            JudgeSpec::Overlap(overlap) => overlap,
            JudgeSpec::Model(model) => model,
        }
    }
}

spec! {
    /// Rates a reply by the words it shares with the reference answer, or with the question where
    /// there is none: 1 for none, 10 for the same words as often. It knows no order and likes no
    /// length for its own sake; it understands nothing.
    pub struct Overlap {
        /// Whether reference answers are looked at; if not, all replies are held against their
        /// question.
        references: bool = true,
    }
}

impl Judging for Overlap {
    fn judge(&self, rubric: &Rubric, asked: &[Asked], desk: &dyn Desk) -> Outcome<Vec<Reply>> {
        let one = |asked: &Asked| {
            desk.check()?;
            let reference = asked.reference.filter(|_| self.references);
            let wanted = reference.unwrap_or(asked.question);
            let ratings: Vec<f64> =
                asked.replies.iter().map(|reply| overlap::rating(reply, wanted)).collect();
            let model = "words shared".to_owned();
            let text = said(rubric, &ratings);
            Ok(Reply { text, end: End::Whole, model, id: String::new(), read: 0, written: 0 })
        };
        asked.iter().map(one).collect()
    }
}

/// Ratings in the words a rubric asks for.
fn said(rubric: &Rubric, ratings: &[f64]) -> String {
    match (rubric.form, ratings) {
        (Form::Scores, [a, b]) => format!("{a} {b}"),
        (Form::Verdict, [a, b]) => {
            let mark = match nearer(a - b, rubric.tie_within) {
                Preference::First => "[[A]]",
                Preference::Second => "[[B]]",
                Preference::Tie => "[[C]]",
            };
            format!("A shares {a}, B shares {b}.\n{mark}")
        }
        _ => ratings.iter().map(|rating| format!("[[{rating}]]")).collect(),
    }
}

spec! {
    /// A model behind a server judges. What it says and cannot be read is asked for again, as often
    /// as `attempts` of its `[api.X]` says, then counted.
    pub struct ModelJudge {
        /// The model.
        api: Use<Api>,
    }
}

impl Judging for ModelJudge {
    fn judge(&self, rubric: &Rubric, asked: &[Asked], desk: &dyn Desk) -> Outcome<Vec<Reply>> {
        let questions: Vec<Asking> = asked
            .iter()
            .map(|asked| rubric.ask(asked.question, &asked.replies, asked.reference).into())
            .collect();
        let usable = |reply: &Reply| match judgement::read(rubric, &reply.text) {
            Some(_) => Ok(()),
            None => Err("no verdict"),
        };
        self.api.converse(&questions, &usable, desk)
    }

    fn asks(&self) -> Option<&Api> {
        Some(&self.api)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::judgement::{Opinion, read};
    use crate::record::rubric::{Orders, Parser, Ties};

    #[test]
    fn what_the_rule_says_is_read_both_ways_and_knows_no_order() {
        for form in Form::ALL {
            for parser in Parser::ALL {
                let rubric = Rubric {
                    form: *form,
                    prompt: None,
                    reference_prompt: None,
                    parser: *parser,
                    orders: Orders::Both,
                    ties: Ties::Agree,
                    tie_within: 0.0,
                };
                let opinion = |ratings: &[f64]| read(&rubric, &said(&rubric, ratings));
                match form {
                    Form::Rating => assert_eq!(opinion(&[7.3]), Some(Opinion::Rates(7.3))),
                    Form::Scores => {
                        assert_eq!(opinion(&[7.3, 10.0]), Some(Opinion::Scores(7.3, 10.0)));
                    }
                    Form::Verdict => {
                        use Preference::{First, Second, Tie};
                        let cases = [([3.0, 2.0], First), ([2.0, 3.0], Second), ([2.0, 2.0], Tie)];
                        for (ratings, want) in cases {
                            assert_eq!(opinion(&ratings), Some(Opinion::Prefers(want)));
                        }
                    }
                }
            }
        }
    }
}
