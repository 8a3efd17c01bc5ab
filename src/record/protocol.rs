//! The resource `[protocol.X]`: the texts that questions, replies, feedback and
//! refined replies are put into, and the template that makes a conversation of
//! them. With the template `raw`, words are separated by single blanks.
//!
//! Templates are data of the manifest, never of the code: a protocol's content
//! is part of the identity of every step that uses it.

use super::template::{Form, Prompt, Template, Turn, complaint};
use super::{Example, Problem};
use crate::base::node::Node;
use crate::base::spec::{Reading, Resource, choice, spec};

choice! {
    /// What a reply holds as its answer.
    pub enum AnswerForm {
        /// A number: `answer 10`.
        Number = "number",
        /// Prefix arithmetic over the numbers of the question: `answer - number0 number1`.
        Expression = "expression",
        /// The whole reply, in words: nothing to compare with a gold answer.
        Text = "text",
    }
}

spec! {
    /// Texts for questions, replies, feedback and refined replies. Holes are `{question}`,
    /// `{reply}` and `{answer}`.
    #[check(consistent)]
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
        /// The words before a rating from 1 to 10, such as `Rating:`. With them, feedback rates a
        /// reply in place of the two verdicts.
        rating: Option<String>,
        /// The least rating that counts as the verdict that a reply is right.
        good_rating: f64 = 10.0,
        /// What an answer is.
        answer: AnswerForm = AnswerForm::Number,
        /// How these texts are written down for the model.
        template: Template = Template::Raw,
        /// A Hugging Face chat template (Jinja) in place of the model's own; needs
        /// `template = "model"`.
        chat_template: Option<String> = None,
        /// Whether feedback and refined reply are asked for in turns of their own, behind the
        /// question and the reply. Then `feedback` is the second message and `refine` the third.
        turns: bool = false,
        /// The message that asks for a refined reply; for `turns` only.
        refine: String = "Refine your answer according to your feedback.".to_owned(),
    }
}

impl Resource for Protocol {
    const SECTION: &'static str = "protocol";
}

fn consistent(protocol: &Protocol, node: &Node, cx: &mut Reading) {
    let name = protocol.template.name();
    if protocol.turns && !protocol.template.has_turns() {
        cx.error(&node.origin, format!("`turns` needs a chat template; `{name}` has no turns"));
    }
    if !(1.0..=10.0).contains(&protocol.good_rating) {
        let at = node.at(["good-rating"]).unwrap_or(node);
        cx.error(&at.origin, "`good-rating` must be from 1 to 10");
    }
    if protocol.rating.as_ref().is_some_and(|words| words.trim().is_empty()) {
        let at = node.at(["rating"]).unwrap_or(node);
        cx.error(&at.origin, "`rating` must hold the words before a rating");
    }
    if let Some(source) = &protocol.chat_template {
        let at = node.table().and_then(|table| table.get("chat-template"));
        let origin = at.map_or(&node.origin, |at| &at.origin);
        if protocol.template != Template::Model {
            let why = format!("`chat-template` is read with `template = \"model\"`, not `{name}`");
            cx.error(origin, why);
        }
        if let Some(complaint) = complaint(source) {
            cx.error(origin, format!("`chat-template` cannot be read: {complaint}"));
        }
    }
}

impl Protocol {
    /// A protocol without texts, for whoever needs only some of them.
    pub fn empty() -> Protocol {
        Protocol {
            question: String::new(),
            feedback: String::new(),
            refined_marker: String::new(),
            reply: String::new(),
            correct: String::new(),
            incorrect: String::new(),
            rating: None,
            good_rating: 10.0,
            answer: AnswerForm::Number,
            template: Template::Raw,
            chat_template: None,
            turns: false,
            refine: String::new(),
        }
    }

    /// The prompt for a reply.
    pub fn question_prompt(&self, problem: &Problem) -> Prompt {
        self.prompt(Vec::new(), self.question_text(problem))
    }

    /// The prompt for feedback on a reply.
    pub fn feedback_prompt(&self, problem: &Problem, reply: &str) -> Prompt {
        let turns = if self.turns { vec![self.asked(problem, reply)] } else { Vec::new() };
        self.prompt(turns, self.feedback_text(problem, reply))
    }

    /// The prompt for a refined reply.
    pub fn refine_prompt(&self, problem: &Problem, reply: &str, feedback: &str) -> Prompt {
        let asked = self.feedback_text(problem, reply);
        if self.turns {
            let judged = Turn { user: asked, reply: feedback.to_owned(), learnt: false };
            return self.prompt(vec![self.asked(problem, reply), judged], self.refine.clone());
        }
        let begun = self.tidy(&format!("{feedback} {}", self.refined_marker));
        if self.template == Template::Raw {
            return self.prompt(Vec::new(), self.tidy(&format!("{asked} {begun}")));
        }
        let mut prompt = self.prompt(Vec::new(), asked);
        prompt.form.begun = begun;
        prompt
    }

    /// A training text: the loss is taken on the completion.
    pub fn example(&self, id: String, prompt: Prompt, completion: String) -> Example {
        Example { id, prompt: prompt.text, completion, form: prompt.form }
    }

    /// A training text for giving feedback and a refined reply.
    pub fn lesson(
        &self,
        id: String,
        problem: &Problem,
        reply: &str,
        feedback: &str,
        refined: &str,
    ) -> Example {
        if self.turns {
            let mut prompt = self.refine_prompt(problem, reply, feedback);
            prompt.form.turns[1].learnt = true;
            return self.example(id, prompt, refined.to_owned());
        }
        let said = self.tidy(&format!("{feedback} {} {refined}", self.refined_marker));
        self.example(id, self.feedback_prompt(problem, reply), said)
    }

    /// What ends a feedback besides the end mark.
    pub fn feedback_stop(&self) -> Option<String> {
        (!self.turns).then(|| self.refined_marker.clone())
    }

    /// A message of one's own.
    pub fn message(&self, text: String) -> Prompt {
        self.prompt(Vec::new(), text)
    }

    fn prompt(&self, turns: Vec<Turn>, text: String) -> Prompt {
        let (template, chat_template) = (self.template, self.chat_template.clone());
        Prompt { form: Form { template, chat_template, turns, begun: String::new() }, text }
    }

    fn question_text(&self, problem: &Problem) -> String {
        self.question.replace("{question}", &problem.question)
    }

    fn feedback_text(&self, problem: &Problem, reply: &str) -> String {
        let with_question = self.feedback.replace("{question}", &problem.question);
        self.tidy(&with_question.replace("{reply}", reply))
    }

    /// The first turn: the question and the reply.
    fn asked(&self, problem: &Problem, reply: &str) -> Turn {
        Turn { user: self.question_text(problem), reply: reply.to_owned(), learnt: false }
    }

    /// White space as the template wants it.
    fn tidy(&self, text: &str) -> String {
        if self.template == Template::Raw { squeeze(text) } else { text.to_owned() }
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
        let mut all: Vec<&str> =
            fixed.into_iter().flat_map(|text| text.split_whitespace()).collect();
        if let Some(words) = &self.rating {
            all.extend(words.split_whitespace());
        }
        if self.turns {
            all.extend(self.refine.split_whitespace());
        }
        let template = self.template.words();
        all.extend(template.split_whitespace());
        all.into_iter().filter(|word| !word.starts_with('{')).collect::<Vec<_>>().join(" ")
    }
}

/// One blank between words, none at the ends.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
