//! What a step probably takes before anything like it was run: from the numbers
//! of items, limits and weights that a manifest gives, without data, weights or
//! keys. Coarse on purpose, and told with how coarse it is.
//!
//! Every assumption about how people write is a constant of this file. Knows no
//! plan: what a step is given comes from whoever goes through one.

use crate::inference::annotator::AnnotatorSpec;
use crate::inference::api::Api;
use crate::inference::assessor::Calls;
use crate::inference::voice::Voice;
use crate::stages::evaluate::{Evaluate, Mode};
use crate::stages::train::Train;
use crate::store::spread::Range;

/// Tokens of a question: those of GSM8K have 45 to 90, instructions 10 to 200.
const QUESTION: Range = Range { low: 30.0, middle: 70.0, high: 150.0 };
/// Tokens of the fixed words around what is asked.
const WORDS: Range = Range { low: 40.0, middle: 120.0, high: 250.0 };
/// Share of its limit that a reply has: few are as long as they may be.
const FILLED: Range = Range { low: 0.125, middle: 0.25, high: 1.0 };
/// Share of what a filter sees that it keeps.
const KEPT: Range = Range { low: 0.1, middle: 0.6, high: 1.0 };
/// Vocabulary of a model whose vocabulary is still to be made.
const VOCABULARY: usize = 32_000;
/// Bytes of a stored weight.
const WEIGHT: f64 = 4.0;
/// Operations for each weight and token: forward only, with gradients, and with the forward
/// once more.
///
/// # Source
/// Kaplan et al., Scaling Laws for Neural Language Models, arXiv 2001.08361, section 2.1.
const FORWARD: f64 = 2.0;
const LEARNT: f64 = 6.0;
const RECOMPUTED: f64 = 8.0;

/// What flows along an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extent {
    /// Problems, dialogues or examples.
    pub items: Range,
    /// Tokens of an item's question; of a whole example.
    pub question: Range,
    /// Tokens of an item's reply, where it has one.
    pub reply: Range,
    /// Weights of a model; tokens learnt of a training's log.
    pub size: f64,
}

/// What is known of a step's inputs, by role.
pub struct Given<'a>(pub Vec<(&'a str, Option<Extent>)>);

impl Given<'_> {
    /// What came in a role.
    pub fn one(&self, role: &str) -> Option<Extent> {
        self.0.iter().find(|(name, _)| *name == role)?.1
    }

    /// What came in the roles `role.0`, `role.1.from`, `role.name`, ...; none where one is unknown.
    pub fn all(&self, role: &str) -> Option<Vec<Extent>> {
        let is_part =
            |name: &str| name.strip_prefix(role).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().filter(|(name, _)| is_part(name)).map(|(_, extent)| *extent).collect()
    }
}

/// What a step probably takes, and gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreseen {
    /// Its outputs by name, as far as later steps ask.
    pub outputs: Vec<(String, Extent)>,
    /// Tokens read and written by models of the study, and learnt from.
    pub tokens: Range,
    /// Tokens read and written by servers.
    pub asked: Range,
    /// Dollars for them.
    pub dollars: Range,
    /// Operations of models that read and write.
    pub generation: Range,
    /// Operations of models that learn.
    pub training: Range,
    /// Bytes stored.
    pub bytes: Range,
}

impl Foreseen {
    /// A step that takes nothing to speak of, and gives this.
    pub fn of(name: &str, extent: Extent) -> Foreseen {
        Foreseen::default().with(name, extent)
    }

    /// The same with one more output.
    #[must_use]
    pub fn with(mut self, name: &str, extent: Extent) -> Foreseen {
        self.outputs.push((name.to_owned(), extent));
        self
    }

    /// A model of so many weights that learns from so many tokens.
    fn learns(&mut self, size: f64, tokens: Range, each: f64) {
        self.tokens = self.tokens.plus(tokens);
        self.training = self.training.plus(tokens.times(size * each));
    }

    /// So many questions to whoever answers; tokens of a reply.
    pub fn says(
        &mut self,
        voice: &Voice,
        given: &Given,
        questions: Range,
        prompt: Range,
        limit: u64,
    ) -> Option<Range> {
        let reply = filled(limit);
        let (read, written) = (questions.by(prompt), questions.by(reply));
        match voice {
            Voice::Server(responder) => self.asks(&responder.api, read, written),
            Voice::Model(_) => {
                let size = given.one("model")?.size;
                let tokens = read.plus(written);
                self.tokens = self.tokens.plus(tokens);
                self.generation = self.generation.plus(tokens.times(FORWARD * size));
            }
        }
        Some(reply)
    }

    /// So many tokens read and written by a server.
    pub fn asks(&mut self, api: &Api, read: Range, written: Range) {
        self.asked = self.asked.plus(read).plus(written);
        let most = api.at_most().unwrap_or(f64::INFINITY);
        let price = |read, written| api.price(read, written).min(most);
        self.dollars = self.dollars.plus(Range {
            low: price(read.low, written.low),
            middle: price(read.middle, written.middle),
            high: price(read.high, written.high),
        });
    }
}

/// So many problems whose texts nobody has seen.
pub fn problems(items: Range) -> Extent {
    Extent { items, question: QUESTION, ..Extent::default() }
}

/// A model of so many weights.
pub fn model(size: f64) -> Extent {
    Extent { size, ..Extent::default() }
}

/// Bytes of a stored model of so many weights.
pub fn stored(size: f64) -> f64 {
    WEIGHT * size
}

/// Tokens of a reply that may have so many.
pub fn filled(limit: u64) -> Range {
    FILLED.times(limit as f64)
}

/// A prompt about texts of such lengths.
pub fn prompt(texts: &[Range]) -> Range {
    texts.iter().fold(WORDS, |sum, text| sum.plus(*text))
}

/// What a filter leaves: questions with refined replies.
pub fn kept(dialogues: Extent) -> Extent {
    let Extent { items, question, reply, .. } = dialogues;
    let whole = question.plus(reply);
    Extent { items: items.by(KEPT), question: whole, ..Extent::default() }
}

/// A corpus of meta-skills: answers, annotations, and the two sets of lessons.
pub fn collected(
    voice: &Voice,
    annotator: &AnnotatorSpec,
    balance: f64,
    limit: u64,
    given: &Given,
) -> Option<Foreseen> {
    let Extent { items, question, .. } = given.one("problems")?;
    let mut all = Foreseen::default();
    let reply = all.says(voice, given, items, prompt(&[question]), limit)?;
    // Wrong replies, once refined, are shown once more.
    let shown = Range { low: 1.0, middle: 1.0 + balance / 2.0, high: 1.0 + balance };
    let annotated = items.by(shown);
    let mut said = reply;
    if let AnnotatorSpec::Assessor(assessor) = annotator {
        let times = match assessor.calls {
            Calls::One => 1.0,
            Calls::Two => 2.0,
        };
        said = filled(assessor.api.limit());
        let asked = annotated.times(times);
        let read = asked.by(prompt(&[question, reply]));
        all.asks(&assessor.api, read, asked.by(said));
    }
    let lesson = prompt(&[question, reply, said]);
    let meta = Extent { items: annotated, question: lesson, ..Extent::default() };
    let qa = Extent { items, question: question.plus(reply), ..Extent::default() };
    let dialogues = Extent { items, question, reply, size: 0.0 };
    Some(all.with("meta", meta).with("qa", qa).with("dialogues", dialogues))
}

/// A training.
pub fn trained(train: &Train, given: &Given) -> Option<Foreseen> {
    let size = match &train.model {
        Some(shape) => shape.config(VOCABULARY).ok()?.size() as f64,
        None => given.one("start")?.size,
    };
    let tokens = if train.match_steps.is_empty() {
        let sets = given.all("data")?;
        let repeats = train.data.iter().map(|share| share.repeat as f64);
        let each = sets.iter().zip(repeats).map(|(set, n)| set.items.by(set.question).times(n));
        each.fold(Range::default(), Range::plus).times(train.epochs)
    } else {
        // As many steps over other data: as many tokens, roughly.
        let logs = given.all("match-steps")?;
        logs.iter().fold(Range::default(), |sum, log| sum.plus(log.question))
    };
    let mut all = Foreseen::default();
    all.learns(size, tokens, if train.recompute { RECOMPUTED } else { LEARNT });
    all.bytes = Range::exact(stored(size));
    let log = Extent { question: tokens, ..Extent::default() };
    Some(all.with("model", model(size)).with("log", log))
}

/// A reward model that learns from pairs of replies.
pub fn rewarded(epochs: f64, recompute: bool, given: &Given) -> Option<Foreseen> {
    let size = given.one("start")?.size;
    let Extent { items, question, reply, .. } = given.one("dialogues")?;
    let tokens = items.by(prompt(&[question, reply])).times(2.0 * epochs);
    let mut all = Foreseen::default();
    all.learns(size, tokens, if recompute { RECOMPUTED } else { LEARNT });
    Some(all.with("reward", model(size)))
}

/// An evaluation in all its modes.
pub fn evaluated(exam: &Evaluate, given: &Given) -> Option<Foreseen> {
    let Extent { items, question, .. } = given.one("problems")?;
    let wants = |mode| exam.modes.contains(&mode);
    let mut all = Foreseen::default();
    let mut reply = Range::default();
    let mut say = |times: f64, refined: f64| -> Option<()> {
        let asked = items.times(times);
        reply = all.says(&exam.model, given, asked, prompt(&[question]), exam.max_tokens)?;
        let again = items.times(refined);
        let about = prompt(&[question, reply]);
        let said = all.says(&exam.model, given, again, about, exam.feedback_tokens)?;
        all.says(&exam.model, given, again, about.plus(said), exam.max_tokens)?;
        Some(())
    };
    say(1.0, if wants(Mode::Refine) { exam.passes as f64 } else { 0.0 })?;
    let sampled = [Mode::Consistency, Mode::ConsistencyRefine, Mode::VoteRefine];
    if sampled.into_iter().any(wants) {
        let samples = exam.samples as f64;
        let refined = match (wants(Mode::ConsistencyRefine), wants(Mode::VoteRefine)) {
            (true, _) => samples,
            (false, true) => 1.0,
            (false, false) => 0.0,
        };
        say(samples, refined)?;
    }
    Some(all.with("dialogues", Extent { items, question, reply, size: 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::node::{Node, Origin, Sources, Table};
    use crate::base::spec::{Field, Reading};

    fn read<T: Field>(table: &serde_json::Value) -> T {
        let origin = Origin::new(Sources::default().add("test", ""), 0..0);
        let none = Table::default();
        let mut cx = Reading::new(&none);
        T::parse(&Node::of_json(table, &origin).expect("a table"), &mut cx).expect("it is whole")
    }

    fn given(roles: &[(&'static str, Extent)]) -> Given<'static> {
        Given(roles.iter().map(|(name, extent)| (*name, Some(*extent))).collect())
    }

    #[test]
    fn a_training_takes_six_operations_for_each_weight_and_token() {
        let table = serde_json::json!({ "start": "m", "data": [{ "from": "a", "repeat": 2 }, "b"], "epochs": 3.0 });
        let train: Train = read(&table);
        let set = |items, tokens| Extent {
            items: Range::exact(items),
            question: Range::exact(tokens),
            ..Extent::default()
        };
        let roles =
            [("start", model(7e9)), ("data.0", set(100.0, 50.0)), ("data.1", set(10.0, 20.0))];
        let all = trained(&train, &given(&roles)).expect("all is known");
        let tokens = 3.0 * (2.0 * 100.0 * 50.0 + 10.0 * 20.0);
        assert_eq!(all.tokens, Range::exact(tokens));
        assert_eq!(all.training, Range::exact(6.0 * 7e9 * tokens));
        assert_eq!(all.bytes, Range::exact(28e9));
        assert!(trained(&train, &given(&roles[1..])).is_none(), "nobody knows its weights");
    }

    #[test]
    fn every_mode_of_an_evaluation_is_counted() {
        let exam = |modes: &[&str]| -> Evaluate {
            read(&serde_json::json!({
                "model": "m", "problems": "p", "protocol": {}, "modes": modes, "samples": 5,
                "max-tokens": 100, "feedback-tokens": 100,
            }))
        };
        let roles = [("model", model(1e9)), ("problems", problems(Range::exact(10.0)))];
        let written = |modes: &[&str]| {
            let all = evaluated(&exam(modes), &given(&roles)).expect("all is known");
            // At most 100 tokens written a reply; what is read grows with them.
            all.tokens.high
        };
        let one = written(&["direct"]);
        assert_eq!(one, 10.0 * (WORDS.high + QUESTION.high + 100.0));
        assert!(written(&["direct", "refine"]) > 3.0 * one);
        let votes = written(&["consistency"]);
        assert_eq!(votes, 6.0 * one);
        assert!(written(&["vote-refine"]) > votes);
        assert!(written(&["consistency-refine"]) > written(&["vote-refine"]));
    }
}
