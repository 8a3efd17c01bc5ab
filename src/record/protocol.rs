//! The resource `[protocol.X]`: the texts that questions, replies, feedback and
//! refined replies are put into. Words are separated by single blanks.
//!
//! Templates are data of the manifest, never of the code: a protocol's content
//! is part of the identity of every step that uses it.

use super::Problem;
use crate::base::spec::{Resource, choice, spec};

choice! {
    /// What a reply holds as its answer.
    pub enum AnswerForm {
        /// A number: `answer 10`.
        Number = "number",
        /// Prefix arithmetic over the numbers of the question: `answer - number0 number1`.
        Expression = "expression",
    }
}

spec! {
    /// Texts for questions, replies, feedback and refined replies. Holes are `{question}`,
    /// `{reply}` and `{answer}`.
    pub struct Protocol {
        /// A question, up to where the reply begins.
        question: String = "Q: {question} A:".to_owned(),
        /// A question with a reply, up to where the feedback begins.
        feedback: String = "Q: {question} R: {reply} F:".to_owned(),
        /// The word between feedback and refined reply.
        refined_marker: String = "refined:".to_owned(),
        /// A reply that gives an answer.
        reply: String = "answer {answer}".to_owned(),
        /// The verdict that a reply is right.
        correct: String = "judgement correct".to_owned(),
        /// The verdict that it is not.
        incorrect: String = "judgement incorrect".to_owned(),
        /// What an answer is.
        answer: AnswerForm = AnswerForm::Number,
    }
}

impl Resource for Protocol {
    const SECTION: &'static str = "protocol";
}

impl Protocol {
    /// The prompt for a reply.
    pub fn question_prompt(&self, problem: &Problem) -> String {
        self.question.replace("{question}", &problem.question)
    }

    /// The prompt for feedback on a reply.
    pub fn feedback_prompt(&self, problem: &Problem, reply: &str) -> String {
        squeeze(&self.feedback.replace("{question}", &problem.question).replace("{reply}", reply))
    }

    /// The prompt for a refined reply.
    pub fn refine_prompt(&self, problem: &Problem, reply: &str, feedback: &str) -> String {
        let before = self.feedback_prompt(problem, reply);
        squeeze(&format!("{before} {feedback} {}", self.refined_marker))
    }

    /// Feedback and refined reply as one completion.
    pub fn feedback_completion(&self, feedback: &str, refined: &str) -> String {
        squeeze(&format!("{feedback} {} {refined}", self.refined_marker))
    }

    /// A reply that gives this answer.
    pub fn reply_with(&self, answer: &str) -> String {
        self.reply.replace("{answer}", answer)
    }

    /// Every fixed word, for a vocabulary.
    pub fn words(&self) -> String {
        let fixed = [
            &self.question,
            &self.feedback,
            &self.refined_marker,
            &self.reply,
            &self.correct,
            &self.incorrect,
        ];
        let all: Vec<&str> = fixed.into_iter().flat_map(|text| text.split_whitespace()).collect();
        all.into_iter().filter(|word| !word.starts_with('{')).collect::<Vec<_>>().join(" ")
    }
}

/// One blank between words, none at the ends.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
