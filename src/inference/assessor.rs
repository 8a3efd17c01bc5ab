//! The annotator that asks a model behind a server: puts problem and reply
//! into a prompt, and reads feedback, verdict and refined reply out of what
//! comes back. All of it in one question, or feedback first and then the
//! refined reply; with verdicts, or with ratings where the protocol rates.
//!
//! A reply that cannot be read is never guessed at: it is asked for again, and
//! then counted by what is wrong with it. Feedback is kept in the annotator's
//! words, the verdict in the protocol's, so that models learn one spelling.

use super::annotator::{Annotation, Annotator, Case, Desk, Remark};
use super::api::{Api, Asking};
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::spec::{Reading, Use, choice, spec};
use crate::base::text;
use crate::host::chat::{End, Reply};
use crate::record::Verdict;
use crate::record::answer;
use crate::record::protocol::{AnswerForm, Protocol};

/// Holes of a prompt that the protocol fills, with those that must be there.
const HOLES: [(&str, bool); 6] = [
    ("{question}", true),
    ("{reply}", true),
    ("{correct}", true),
    ("{incorrect}", true),
    ("{refined}", true),
    ("{form}", false),
];

/// The questions where the protocol rates, and those of two calls; `{judgement}`
/// is what the judgement looks like.
const RATING_PROMPT: &str = "Assess a response to a request, then improve it.\n\
    \n\
    Request:\n{question}\n\
    \n\
    Response:\n{reply}\n\
    \n\
    First go through the response: say what it does well, and exactly what is missing, wrong, \
    unclear or not asked for. Then write one line that says {judgement}. Then write \"{refined}\" on \
    a line of its own and, after it, a complete response to the request and nothing else: the same \
    one if its rating is 10, else a better one.";
const FEEDBACK_PROMPT: &str = "Assess a response to a request.\n\
    \n\
    Request:\n{question}\n\
    \n\
    Response:\n{reply}\n\
    \n\
    Go through the response step by step and say exactly what is wrong or could be better, if \
    anything. Do not write a response of your own. End with one line that says {judgement}.";
const REFINE_PROMPT: &str = "Improve a response to a request, following the assessment of it.\n\
    \n\
    Request:\n{question}\n\
    \n\
    Response:\n{reply}\n\
    \n\
    Assessment:\n{feedback}\n\
    \n\
    Write a complete response to the request and nothing else: the same one if the assessment finds \
    nothing to improve, else a better one.{answer}";

/// What models put around words to set them off.
const EMPHASIS: &str = "*_`\"";

const PROMPT: &str = "Assess a response to a question, then improve it.\n\
    \n\
    Question:\n{question}\n\
    \n\
    Response:\n{reply}\n\
    \n\
    First go through the response step by step: work the question out yourself, compare, and say \
    exactly what is wrong, if anything is. Then write one line that says \"{correct}\" if the \
    response answers the question correctly, or \"{incorrect}\" if it does not. Then write \
    \"{refined}\" on a line of its own and, after it, a complete response to the question and \
    nothing else: the same one if it is correct, else a better one. That response has to hold its \
    answer in this form: {form}";

spec! {
    /// A model behind a server judges, explains and improves replies, as GPT-4 does in the paper.
    /// What it says and cannot be read is asked for again, then left out and counted.
    #[check(whole)]
    pub struct Assessor {
        /// The model.
        api: Use<Api>,
        /// What it is asked. Holes: `{question}`, `{reply}`; from the protocol `{correct}`,
        /// `{incorrect}`, `{refined}` (the mark before the refined reply) and `{form}` (how a reply
        /// gives its answer).
        prompt: String = PROMPT.to_owned(),
        /// What it is asked where the protocol rates. Holes: `{question}`, `{reply}`, `{refined}` and
        /// `{judgement}` (what its line with the rating looks like).
        rating_prompt: String = RATING_PROMPT.to_owned(),
        /// Whether feedback and refined reply are asked for in one question or in two.
        calls: Calls = Calls::One,
        /// The first question of two. Holes: `{question}`, `{reply}` and `{judgement}`.
        feedback_prompt: String = FEEDBACK_PROMPT.to_owned(),
        /// The second question of two. Holes: `{question}`, `{reply}`, `{feedback}` and `{answer}`
        /// (how a reply gives its answer, where it is not all in words).
        refine_prompt: String = REFINE_PROMPT.to_owned(),
    }
}

choice! {
    /// In how many questions an annotator is asked.
    pub enum Calls {
        /// Feedback, and the refined reply behind a mark.
        One = "one",
        /// Feedback; then, with it, the refined reply.
        Two = "two",
    }
}

fn whole(assessor: &Assessor, node: &Node, cx: &mut Reading) {
    let needed = HOLES.iter().filter(|(_, needed)| *needed).map(|(hole, _)| *hole);
    let prompts = [
        ("prompt", &assessor.prompt, needed.collect()),
        (
            "rating-prompt",
            &assessor.rating_prompt,
            vec!["{question}", "{reply}", "{judgement}", "{refined}"],
        ),
        (
            "feedback-prompt",
            &assessor.feedback_prompt,
            vec!["{question}", "{reply}", "{judgement}"],
        ),
        ("refine-prompt", &assessor.refine_prompt, vec!["{question}", "{reply}", "{feedback}"]),
    ];
    for (field, prompt, holes) in prompts {
        for hole in holes.iter().filter(|hole| !prompt.contains(**hole)) {
            let at = node.at([field]).unwrap_or(node);
            cx.error(&at.origin, format!("`{field}` has no `{hole}`"));
        }
    }
}

impl Annotator for Assessor {
    fn annotate(
        &self,
        protocol: &Protocol,
        cases: &[Case],
        desk: &dyn Desk,
    ) -> Outcome<Vec<Remark>> {
        match self.calls {
            Calls::One => self.in_one(protocol, cases, desk),
            Calls::Two => self.in_two(protocol, cases, desk),
        }
    }

    fn asks(&self) -> Option<&Api> {
        Some(&self.api)
    }
}

impl Assessor {
    fn in_one(&self, protocol: &Protocol, cases: &[Case], desk: &dyn Desk) -> Outcome<Vec<Remark>> {
        let template = match protocol.rating {
            Some(_) => &self.rating_prompt,
            None => &self.prompt,
        };
        let questions: Vec<Asking> =
            cases.iter().map(|case| ask(template, protocol, case, "").into()).collect();
        let usable = |reply: &Reply| read(protocol, "", reply).map(|_| ());
        let replies = self.api.converse(&questions, &usable, desk)?;
        let read = |(case, reply): (&Case, &Reply)| read(protocol, case.reply, reply);
        Ok(cases.iter().zip(&replies).map(read).collect())
    }

    /// Feedback first; whoever got some that can be read is asked on.
    fn in_two(&self, protocol: &Protocol, cases: &[Case], desk: &dyn Desk) -> Outcome<Vec<Remark>> {
        let questions: Vec<Asking> = cases
            .iter()
            .map(|case| ask(&self.feedback_prompt, protocol, case, "").into())
            .collect();
        let usable = |reply: &Reply| judged(protocol, reply).map(|_| ());
        let said = self.api.converse(&questions, &usable, desk)?;
        let said: Vec<Result<(String, Verdict), &'static str>> =
            said.iter().map(|reply| judged(protocol, reply)).collect();
        let readable =
            || cases.iter().zip(&said).filter_map(|(case, said)| Some((case, said.as_ref().ok()?)));
        let questions: Vec<Asking> = readable()
            .map(|(case, (feedback, _))| ask(&self.refine_prompt, protocol, case, feedback).into())
            .collect();
        let usable = |reply: &Reply| text_of(reply).map(|_| ());
        let mut refined = self.api.converse(&questions, &usable, desk)?.into_iter();
        let remark = |said: Result<(String, Verdict), &'static str>| {
            let (feedback, verdict) = said?;
            let reply = refined.next().ok_or("no refined reply")?;
            Ok(Annotation { feedback, verdict, refined: text_of(&reply)?.trim().to_owned() })
        };
        Ok(said.into_iter().map(remark).collect())
    }
}

/// A prompt with its holes filled.
fn ask(template: &str, protocol: &Protocol, case: &Case, feedback: &str) -> String {
    let form = protocol.reply_with("<answer>");
    let judgement = match &protocol.rating {
        Some(words) => format!(
            "\"{words}\" and a rating from 1 to 10, where 10 means that nothing could be better"
        ),
        None => format!(
            "\"{}\" if the response answers the question correctly, or \"{}\" if it does not",
            protocol.correct, protocol.incorrect
        ),
    };
    let answer = match protocol.answer {
        AnswerForm::Text => String::new(),
        AnswerForm::Number | AnswerForm::Expression => {
            format!(" It has to hold its answer in this form: {form}")
        }
    };
    let fillings = [
        ("{question}", case.problem.question.as_str()),
        ("{reply}", case.reply),
        ("{correct}", &protocol.correct),
        ("{incorrect}", &protocol.incorrect),
        ("{refined}", &protocol.refined_marker),
        ("{form}", &form),
        ("{judgement}", &judgement),
        ("{feedback}", feedback),
        ("{answer}", &answer),
    ];
    text::filled(template, &fillings)
}

/// The words of a reply that is whole.
fn text_of(said: &Reply) -> Result<&str, &'static str> {
    match said.end {
        End::Refused => Err("refused"),
        End::CutOff => Err("cut off"),
        End::Whole if said.text.trim().is_empty() => Err("empty"),
        End::Whole => Ok(&said.text),
    }
}

/// Feedback by itself, and its verdict.
fn judged(protocol: &Protocol, said: &Reply) -> Result<(String, Verdict), &'static str> {
    let text = text_of(said)?;
    let found = judgement(protocol, &Plain::of(text), text, text.len())?;
    Ok((found.feedback, found.verdict))
}

/// A judgement in a text.
struct Judgement {
    verdict: Verdict,
    /// What was said up to it, and the judgement in the protocol's words.
    feedback: String,
    /// Where the text goes on behind it.
    end: usize,
}

/// The last judgement before a place in a text.
fn judgement(
    protocol: &Protocol,
    plain: &Plain,
    text: &str,
    before: usize,
) -> Result<Judgement, &'static str> {
    let last = |words: &str| plain.find_last_before(words, before);
    let (verdict, start, end, words) = match &protocol.rating {
        Some(words) => {
            let (start, end) = last(words).ok_or("no rating")?;
            let rating = answer::rating_at(&text[end..before]).ok_or("no rating")?;
            let good = rating >= protocol.good_rating;
            let verdict = if good { Verdict::Correct } else { Verdict::Incorrect };
            let line = text[end..before].find('\n').map_or(before, |at| end + at);
            (verdict, start, line, format!("{words} {rating}"))
        }
        None => match (last(&protocol.correct), last(&protocol.incorrect)) {
            (Some((start, end)), other) if other.is_none_or(|(no, _)| no < start) => {
                (Verdict::Correct, start, end, protocol.correct.clone())
            }
            (_, Some((start, end))) => (Verdict::Incorrect, start, end, protocol.incorrect.clone()),
            _ => return Err("no verdict"),
        },
    };
    let analysis =
        text[..start].trim_end_matches(|c: char| c.is_whitespace() || EMPHASIS.contains(c));
    let blank = if analysis.is_empty() { "" } else { "\n" };
    let feedback = format!("{}{blank}{words}", analysis.trim_start());
    Ok(Judgement { verdict, feedback, end })
}

/// What a reply says about `reply`.
fn read(protocol: &Protocol, given: &str, said: &Reply) -> Remark {
    let text = text_of(said)?;
    let plain = Plain::of(text);
    let marker = plain.find_last(&protocol.refined_marker);
    // A judgement behind the mark is about the refined reply.
    let before = marker.map_or(text.len(), |(start, _)| start);
    let Judgement { verdict, feedback, end } = judgement(protocol, &plain, text, before)?;
    let refined = behind_mark(&text[marker.map_or(end, |(_, end)| end)..]);
    let refined = match (refined.is_empty(), verdict) {
        (false, _) => refined,
        // The reply was right: saying nothing more is saying it again.
        (true, Verdict::Correct) => given,
        (true, _) => return Err("no refined reply"),
    };
    Ok(Annotation { feedback, verdict, refined: refined.to_owned() })
}

/// What follows a mark or a verdict: without what closes its emphasis or its
/// sentence, and without white space.
fn behind_mark(text: &str) -> &str {
    text.trim_start_matches(|c: char| EMPHASIS.contains(c) || ".:".contains(c)).trim()
}

/// A text as words are looked for in it: lower case, without emphasis, one
/// blank for every run of white space; each character knows where it was.
struct Plain {
    text: String,
    /// For each byte of `text`: start of its character in the original.
    from: Vec<usize>,
    /// For each byte of `text`: end of its character in the original.
    to: Vec<usize>,
}

impl Plain {
    fn of(original: &str) -> Plain {
        let mut plain = Plain { text: String::new(), from: Vec::new(), to: Vec::new() };
        for (at, c) in original.char_indices() {
            let behind = at + c.len_utf8();
            if EMPHASIS.contains(c) {
                continue;
            }
            if c.is_whitespace() {
                if !plain.text.ends_with(' ') {
                    plain.push(' ', at, behind);
                }
                continue;
            }
            for lower in c.to_lowercase() {
                plain.push(lower, at, behind);
            }
        }
        plain
    }

    fn push(&mut self, c: char, from: usize, to: usize) {
        self.text.push(c);
        self.from.resize(self.text.len(), from);
        self.to.resize(self.text.len(), to);
    }

    fn find_last(&self, words: &str) -> Option<(usize, usize)> {
        self.find_last_before(words, usize::MAX)
    }

    /// Where words stand last, as whole words, in the original; before a place
    /// in it.
    fn find_last_before(&self, words: &str, end: usize) -> Option<(usize, usize)> {
        let wanted = Plain::of(words).text;
        let wanted = wanted.trim();
        answer::whole_words(&self.text, wanted)
            .map(|at| (self.from[at], self.to[at + wanted.len() - 1]))
            .find(|&(_, behind)| behind <= end)
    }
}

#[cfg(test)]
mod tests;
