//! What flows along the edges: the rows of the artifacts.
//!
//! Every row is one line of JSON. A row carries what made it, so that any
//! number in a report can be followed back to the text it came from. Nothing
//! here knows of files, models or stages.

pub mod answer;
pub mod contest;
pub mod extractor;
pub mod judgement;
pub mod metric;
pub mod overlap;
pub mod power;
pub mod protocol;
mod rational;
pub mod reward;
pub mod rouge;
pub mod rubric;
pub mod runs;
pub mod template;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A question with what is known about its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Unique within its data set, such as `test-17`.
    pub id: String,
    /// The text shown to a model.
    pub question: String,
    /// Values of `number0`, `number1`, ... where the text is masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<f64>,
    /// The right answer. Only annotators and reports may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// The way to the answer, one operation after another, where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub solution: Vec<Operation>,
    /// The way to the answer in a person's words, where the data set has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked: Option<String>,
    /// What two problems must not share to count as different ones (number
    /// tuple and operations, say); pools are disjoint in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// What kind of question it is, where the data set says: `category`, `difficulty`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One step of a worked solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Left operand as written: a number, `number0`, or `#0` for step 0's result.
    pub left: String,
    /// One of `+ - * /`.
    pub operator: char,
    /// Right operand as written.
    pub right: String,
    /// What it comes to.
    pub result: f64,
}

/// A training text. The loss is taken on the completion and the end mark only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Unique within its set; names the item it was made of.
    pub id: String,
    /// Context without loss.
    pub prompt: String,
    /// What the model shall say.
    pub completion: String,
    /// How it is written down, and what was said before.
    #[serde(default, skip_serializing_if = "template::Form::is_raw")]
    pub form: template::Form,
}

/// What somebody judged a reply to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The reply answers the question.
    Correct,
    /// It does not.
    Incorrect,
    /// The feedback holds no verdict that can be read.
    Unparsed,
}

/// A question, a reply, and what was said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// The question.
    pub problem: Problem,
    /// The reply `r`, as generated.
    pub reply: String,
    /// The feedback `f`, as generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    /// What the feedback judges the reply to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The refined reply `r̂`, as generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refined: Option<String>,
    /// Tokens read as prompts and written in making this row.
    #[serde(default)]
    pub tokens: Tokens,
    /// Mean natural logarithm of the probability of a token of the reply, its end mark included,
    /// where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f64>,
}

impl Dialogue {
    /// A question with a reply that nothing was said about yet.
    pub fn of(problem: Problem, reply: String) -> Dialogue {
        Dialogue {
            problem,
            reply,
            feedback: None,
            verdict: None,
            refined: None,
            tokens: Tokens::default(),
            logprob: None,
        }
    }
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens read as prompts.
    pub read: u64,
    /// Tokens written.
    pub written: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Tokens) {
        self.read += other.read;
        self.written += other.written;
    }
}

/// What a filter or an annotator did, in numbers (`tally.json`).
///
/// Gold answers are used for these figures only, never for a decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Items that came in.
    pub seen: u64,
    /// Items that went on.
    pub kept: u64,
    /// Items that did not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Items of `seen` whose reply `r` was right.
    pub reply_right: u64,
    /// Items of `seen` whose refined reply was right.
    pub refined_right: u64,
    /// Items of `kept` whose refined reply was right.
    pub kept_right: u64,
    /// Items whose verdict on `r` agrees with gold.
    pub verdict_right: u64,
    /// Items with a wrong `r`.
    pub reply_wrong: u64,
    /// Items with a wrong `r` that the verdict calls incorrect.
    pub wrong_caught: u64,
    /// Items of `seen` whose right answer nobody knows, so that they are in no count of right and
    /// wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_gold: u64,
    /// Those of them that went on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_without_gold: u64,
    /// Items whose feedback held no verdict.
    pub verdict_unparsed: u64,
    /// Items whose annotator contradicts itself: it finds the reply right and writes another answer,
    /// or wrong and writes the same one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub contradicted: u64,
    /// Ratings, where feedback rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings: Option<Ratings>,
    /// Tokens read and written.
    pub tokens: Tokens,
}

impl Tally {
    /// Items of `seen` whose right answer is known.
    pub fn judged(&self) -> u64 {
        self.seen.saturating_sub(self.without_gold)
    }

    /// Items of `kept` whose right answer is known.
    pub fn kept_judged(&self) -> u64 {
        self.kept.saturating_sub(self.kept_without_gold)
    }
}

/// Ratings from 1 to 10, of replies and of refined ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratings {
    /// Replies `r` whose feedback holds a rating.
    pub replies: u64,
    /// Sum of their ratings.
    pub replies_sum: f64,
    /// Refined replies that were rated.
    pub refined: u64,
    /// Sum of their ratings.
    pub refined_sum: f64,
    /// Items of which both were rated.
    pub both: u64,
    /// Sum of what the refined reply has more.
    pub gain_sum: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a search for test items in training data found (`leaks.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// Length in words of a run that is a leak.
    pub words: u64,
    /// Texts of the training data that were searched.
    pub texts: u64,
    /// The test sets.
    pub tests: Vec<TestSet>,
    /// Whether what was found was left out of them.
    pub dropped: bool,
    /// The items that were found, each where the largest part of it stands.
    pub found: Vec<Leak>,
}

/// A test set that was looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestSet {
    /// Its name.
    pub name: String,
    /// Its items.
    pub items: u64,
    /// Items of it that were found.
    pub leaked: u64,
}

/// A test item that stands in training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Name of its test set.
    pub test: String,
    /// Its id.
    pub item: String,
    /// The input it was found in, such as `problems.0`.
    pub source: String,
    /// Id of the text there.
    pub text: String,
    /// Share of the item's runs of words that this text has.
    pub share: f64,
    /// The first run that both have.
    pub words: String,
}

/// What a training did (`train.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainLog {
    /// Optimizer steps of this training.
    pub steps: u64,
    /// Optimizer steps since the random start, over the chain of models.
    pub steps_total: u64,
    /// Distinct examples.
    pub examples: u64,
    /// Tokens seen, prompts and repeats included.
    pub tokens: u64,
    /// Tokens with loss.
    pub tokens_supervised: u64,
    /// Tokens seen since the random start, over the chain of models.
    pub tokens_total: u64,
    /// Mean loss in nats per supervised token, at evenly spaced steps: (step, loss).
    pub curve: Vec<(u64, f64)>,
    /// Mean loss in nats per supervised token on texts it did not learn from: (step, loss).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out: Vec<(u64, f64)>,
    /// Examples longer than the context, where there were any and the manifest allowed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlong: Option<Overlong>,
    /// What adapters did, where they learnt in place of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<AdapterLog>,
    /// What tokenization did that a person should know of; absent where there is nothing, and
    /// for vocabularies of whole words.
    #[serde(default, skip_serializing_if = "TextNotes::is_empty")]
    pub notes: TextNotes,
}

/// Examples that were longer than the context, held-out ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlong {
    /// Left out.
    pub dropped: u64,
    /// Without the end of their completion.
    pub cut: u64,
}

/// What is known of adapters after a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterLog {
    /// Numbers that learnt.
    pub parameters: u64,
    /// Largest change of a logit by merging them into the weights, on a few examples.
    pub merge_error: f64,
}

/// What tokenization did that a person should know of, in numbers of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextNotes {
    /// Texts.
    pub texts: u64,
    /// Of these, texts whose tokens would be others, were they not cut where the reply begins.
    pub seams: u64,
    /// Texts with more than one begin mark.
    pub doubled_begins: u64,
    /// Texts with a special token spelled out in a message.
    pub spelled_marks: u64,
}

impl TextNotes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.seams == 0 && self.doubled_begins == 0 && self.spelled_marks == 0
    }

    /// What there is to tell, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let said = |count: u64, what: &str| {
            (count > 0).then(|| format!("{count} of {} texts {what}", self.texts))
        };
        let all = [
            said(self.seams, "have other tokens when they are not cut where the reply begins"),
            said(self.doubled_begins, "have more than one begin mark"),
            said(self.spelled_marks, "spell out a special token, which was read as one"),
        ];
        all.into_iter().flatten().collect()
    }
}

impl std::ops::AddAssign for TextNotes {
    fn add_assign(&mut self, other: TextNotes) {
        self.texts += other.texts;
        self.seams += other.seams;
        self.doubled_begins += other.doubled_begins;
        self.spelled_marks += other.spelled_marks;
    }
}

/// Outcomes of an evaluation (`scores.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The data set's name.
    pub dataset: String,
    /// What counts as a success.
    #[serde(default, skip_serializing_if = "Measure::is_default")]
    pub measure: Measure,
    /// The rule of extraction that decided, where it was not the protocol's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// One entry for each mode asked for.
    pub modes: Vec<ModeScores>,
    /// Verdicts of the model's own feedback on its direct replies, if it wrote any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<Tally>,
    /// Tokens read and written.
    pub tokens: Tokens,
}

/// What counts as a success of a model on a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Its answer is the gold answer.
    #[default]
    Accuracy,
    /// A judge finds its reply better than another model's; `answer` is 1 for a win, 0.5 for a tie
    /// and 0 for a loss.
    WinRate,
}

impl Measure {
    /// Whether it is what most data sets are scored by.
    pub fn is_default(&self) -> bool {
        *self == Measure::default()
    }
}

/// Outcomes of one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeScores {
    /// `direct`, `refine`, `consistency` or `consistency-refine`; of what was judged the first two.
    pub mode: String,
    /// One entry for each problem, in the data set's order.
    pub outcomes: Vec<Outcome>,
    /// What other rules of extraction make of the same texts, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<RuleScores>,
}

/// What one rule of extraction reads out of the texts of a mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleScores {
    /// The rule's name.
    pub rule: String,
    /// What it reads for each problem, in the data set's order.
    pub answers: Vec<Option<String>>,
    /// Whether it calls that right.
    pub right: Vec<bool>,
}

/// What came of one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The problem.
    pub id: String,
    /// The answer that was read out of the text, if one could be.
    pub answer: Option<f64>,
    /// Whether it is the gold answer.
    pub correct: bool,
    /// Digest of everything that was generated for it.
    pub text: String,
    /// Mean over its replies of their mean natural logarithm of the probability of a token, where
    /// it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f64>,
}
