//! The annotator that asks a model behind a server: puts problem and reply
//! into a prompt, and reads feedback, verdict and refined reply out of what
//! comes back.
//!
//! A reply that cannot be read is never guessed at: it is asked for again, and
//! then counted by what is wrong with it. Feedback is kept in the annotator's
//! words, the verdict in the protocol's, so that models learn one spelling.

use super::annotator::{Annotation, Annotator, Case, Desk, Remark};
use super::api::Api;
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::spec::{Reading, Use, spec};
use crate::host::chat::{End, Reply};
use crate::record::Verdict;
use crate::record::answer;
use crate::record::protocol::Protocol;

/// Holes of a prompt that the protocol fills, with those that must be there.
const HOLES: [(&str, bool); 6] = [
    ("{question}", true),
    ("{reply}", true),
    ("{correct}", true),
    ("{incorrect}", true),
    ("{refined}", true),
    ("{form}", false),
];

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
    }
}

fn whole(assessor: &Assessor, node: &Node, cx: &mut Reading) {
    let at = node.at(["prompt"]).unwrap_or(node);
    for (hole, _) in HOLES.iter().filter(|(_, needed)| *needed) {
        if !assessor.prompt.contains(hole) {
            cx.error(&at.origin, format!("`prompt` has no `{hole}`"));
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
        let questions: Vec<String> = cases.iter().map(|case| self.ask(protocol, case)).collect();
        let usable = |reply: &Reply| read(protocol, "", reply).map(|_| ());
        let replies = self.api.converse(&questions, &usable, desk)?;
        let read = |(case, reply): (&Case, &Reply)| read(protocol, case.reply, reply);
        Ok(cases.iter().zip(&replies).map(read).collect())
    }
}

impl Assessor {
    /// The prompt. Holes are filled in one pass, so that a reply that spells
    /// out a hole stays what it is.
    fn ask(&self, protocol: &Protocol, case: &Case) -> String {
        let form = protocol.reply_with("<answer>");
        let fillings = [
            case.problem.question.as_str(),
            case.reply,
            &protocol.correct,
            &protocol.incorrect,
            &protocol.refined_marker,
            &form,
        ];
        let mut rest = self.prompt.as_str();
        let mut text = String::new();
        while let Some(at) = rest.find('{') {
            text += &rest[..at];
            rest = &rest[at..];
            let found = HOLES.iter().zip(fillings).find(|((hole, _), _)| rest.starts_with(hole));
            let (hole, filling) = found.map_or(("{", "{"), |((hole, _), filling)| (*hole, filling));
            text += filling;
            rest = &rest[hole.len()..];
        }
        text + rest
    }
}

/// What a reply says about `reply`.
fn read(protocol: &Protocol, given: &str, said: &Reply) -> Remark {
    match said.end {
        End::Refused => return Err("refused"),
        End::CutOff => return Err("cut off"),
        End::Whole if said.text.trim().is_empty() => return Err("empty"),
        End::Whole => {}
    }
    let plain = Plain::of(&said.text);
    let marker = plain.find_last(&protocol.refined_marker);
    // A verdict behind the mark is about the refined reply.
    let before = marker.map_or(said.text.len(), |(start, _)| start);
    let last = |words: &str| plain.find_last_before(words, before);
    let (verdict, start, end, words) = match (last(&protocol.correct), last(&protocol.incorrect)) {
        (Some((start, end)), other) if other.is_none_or(|(no, _)| no < start) => {
            (Verdict::Correct, start, end, &protocol.correct)
        }
        (_, Some((start, end))) => (Verdict::Incorrect, start, end, &protocol.incorrect),
        _ => return Err("no verdict"),
    };
    let behind = marker.map_or(end, |(_, end)| end);
    let refined = behind_mark(&said.text[behind..]);
    let refined = match (refined.is_empty(), verdict) {
        (false, _) => refined,
        // The reply was right: saying nothing more is saying it again.
        (true, Verdict::Correct) => given,
        (true, _) => return Err("no refined reply"),
    };
    let analysis =
        said.text[..start].trim_end_matches(|c: char| c.is_whitespace() || EMPHASIS.contains(c));
    let blank = if analysis.is_empty() { "" } else { "\n" };
    let feedback = format!("{}{blank}{words}", analysis.trim_start());
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
