//! The resource `[rubric.X]`: how a judge is asked about replies, how what it
//! says is read, and what two askings in swapped order come to.
//!
//! Knows neither who judges nor what it costs.
//!
//! # Source
//! Verdicts, ratings and both orders: Zheng et al., Judging LLM-as-a-judge,
//! arXiv 2306.05685. Pairs of scores: the evaluation published with Vicuna in
//! March 2023. The wordings here are our own.

use crate::base::node::Node;
use crate::base::spec::{Reading, Resource, choice, spec};
use crate::base::text;

choice! {
    /// What a judge is asked for.
    pub enum Form {
        /// Which of two replies is better: `[[A]]`, `[[B]]`, or `[[C]]` for a tie.
        Verdict = "verdict",
        /// A score from 1 to 10 for each of two replies, both on the first line.
        Scores = "scores",
        /// A rating from 1 to 10 for one reply by itself, `[[7]]`; the higher rating wins.
        Rating = "rating",
    }
}

choice! {
    /// How a judge's words are read.
    pub enum Parser {
        /// The last verdict or rating counts, a line with two scores may hold other words, and
        /// nothing outside 0 to 10 is a score.
        Careful = "careful",
        /// As FastChat's `llm_judge` reads verdicts and ratings, and as Vicuna's first evaluation
        /// reads scores: to compare with numbers that were made so.
        Fastchat = "fastchat",
    }
}

choice! {
    /// In which order two replies are shown.
    pub enum Orders {
        /// Both orders, each a question of its own.
        Both = "both",
        /// The contender first, once. Then nothing can be said about position bias.
        One = "one",
    }
}

choice! {
    /// What the two orders come to.
    pub enum Ties {
        /// Whoever wins in both orders wins; anything else is a tie.
        Agree = "agree",
        /// Whoever wins in one order and does not lose in the other wins; anything else is a tie.
        Uncontradicted = "uncontradicted",
        /// Whoever has more points from both orders together wins; `form = "scores"` only.
        Total = "total",
    }
}

/// Holes of prompts.
const PAIR: [&str; 3] = ["{question}", "{a}", "{b}"];
const SINGLE: [&str; 2] = ["{question}", "{reply}"];
const REFERENCE: &str = "{reference}";

const REPLIES: &str = "Question:\n{question}\n\n\
    --- Response of assistant A ---\n{a}\n--- End of response A ---\n\n\
    --- Response of assistant B ---\n{b}\n--- End of response B ---\n\n";
const REPLY: &str = "Question:\n{question}\n\n\
    --- Response ---\n{reply}\n--- End of response ---\n\n";
const KNOWN: &str = "--- Answer to compare with ---\n{reference}\n--- End of that answer ---\n\n";

const VERDICT: &str = "Two AI assistants responded to the question above. Decide which response \
    serves the person who asked better: whether it does what was asked, is correct, relevant, deep \
    enough and clear. Neither the order of the responses nor their length may count, nor the names \
    they were given. Explain your comparison briefly, then end with one line that holds only your \
    verdict: [[A]] if response A is better, [[B]] if response B is better, [[C]] if neither is.";
const SCORES: &str = "Two AI assistants responded to the question above. Score each response from \
    1 to 10 for how helpful, relevant, accurate and detailed it is; a higher score is a better \
    response. Write the score of A and the score of B, separated by one blank and without anything \
    else, on your first line. Explain both scores from the second line on. Neither the order of \
    the responses nor their length may count.";
const RATING: &str = "An AI assistant responded to the question above. Judge how helpful, \
    relevant, accurate, detailed and clear the response is. Explain your judgement briefly, then \
    end with one line that holds only your rating from 1 to 10 in double brackets, such as [[5]].";
const BY_REFERENCE: &str = "Find the mistakes first by comparing with the answer given above. ";

spec! {
    /// How a judge is asked and how its words are read.
    #[check(whole)]
    pub struct Rubric {
        /// What it is asked for.
        form: Form = Form::Verdict,
        /// The question to it, in place of a wording of our own. Holes: `{question}`, `{a}` and `{b}`
        /// (for a rating `{reply}`).
        prompt: Option<String>,
        /// The question to it where there is a reference answer; also has the hole `{reference}`.
        reference_prompt: Option<String>,
        /// How its words are read. How often the other way to read them says something else is
        /// counted.
        parser: Parser = Parser::Careful,
        /// In which order replies are shown.
        orders: Orders = Orders::Both,
        /// What the two orders come to.
        ties: Ties = Ties::Agree,
        /// Scores or ratings no farther apart than this are a tie.
        tie_within: f64 = 0.0,
    }
}

impl Resource for Rubric {
    const SECTION: &'static str = "rubric";
}

fn whole(rubric: &Rubric, node: &Node, cx: &mut Reading) {
    let prompts =
        [("prompt", &rubric.prompt, false), ("reference-prompt", &rubric.reference_prompt, true)];
    for (field, prompt, referring) in prompts {
        let Some(prompt) = prompt else { continue };
        let holes: &[&str] = if rubric.form == Form::Rating { &SINGLE } else { &PAIR };
        for hole in holes.iter().chain(referring.then_some(&REFERENCE)) {
            if !prompt.contains(hole) {
                let at = node.at([field]).unwrap_or(node);
                cx.error(&at.origin, format!("`{field}` has no `{hole}`"));
            }
        }
    }
    if rubric.ties == Ties::Total && rubric.form != Form::Scores {
        let at = node.at(["ties"]).unwrap_or(node);
        cx.error(&at.origin, "`ties = \"total\"` adds scores up; it needs `form = \"scores\"`");
    }
    if rubric.tie_within < 0.0 {
        let at = node.at(["tie-within"]).unwrap_or(node);
        cx.error(&at.origin, "`tie-within` must not be negative");
    }
}

impl Rubric {
    /// The question about one reply, or two in the order they are shown.
    pub fn ask(&self, question: &str, replies: &[&str], reference: Option<&str>) -> String {
        let reply = |index: usize| replies.get(index).copied().unwrap_or_default();
        let fillings = [
            ("{question}", question),
            ("{a}", reply(0)),
            ("{b}", reply(1)),
            ("{reply}", reply(0)),
            (REFERENCE, reference.unwrap_or_default()),
        ];
        text::filled(&self.template(reference.is_some()), &fillings)
    }

    fn template(&self, referring: bool) -> String {
        let own = if referring { &self.reference_prompt } else { &self.prompt };
        if let Some(own) = own {
            return own.clone();
        }
        let (shown, asked) = match self.form {
            Form::Verdict => (REPLIES, VERDICT),
            Form::Scores => (REPLIES, SCORES),
            Form::Rating => (REPLY, RATING),
        };
        match referring {
            true => format!("{shown}{KNOWN}{BY_REFERENCE}{asked}"),
            false => format!("{shown}{asked}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rubric(form: Form) -> Rubric {
        Rubric {
            form,
            prompt: None,
            reference_prompt: None,
            parser: Parser::Careful,
            orders: Orders::Both,
            ties: Ties::Agree,
            tie_within: 0.0,
        }
    }

    #[test]
    fn questions_hold_what_is_judged_and_fill_no_hole_twice() {
        for form in Form::ALL {
            let asked = rubric(*form).ask("What is {a}?", &["one {b}", "two"], Some("three"));
            assert!(asked.contains("What is {a}?") && asked.contains("one {b}"), "{asked}");
            assert_eq!(asked.contains("two"), *form != Form::Rating || asked.contains("Two"));
            assert!(asked.contains("--- Answer to compare with ---\nthree\n"), "{asked}");
            let plain = rubric(*form).ask("q", &["x", "y"], None);
            assert!(!plain.contains("compare with") && !plain.contains('{'), "{plain}");
        }
        let own = Rubric { prompt: Some("{b} or {a}: {question}".into()), ..rubric(Form::Verdict) };
        assert_eq!(own.ask("q", &["x", "y"], None), "y or x: q");
        assert!(own.ask("q", &["x", "y"], Some("z")).contains("\nz\n"), "a wording for each");
    }
}
