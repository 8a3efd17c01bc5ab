//! Kind `collect`: problems, a model and an annotator -> `D_meta` and `D_QA`.
//!
//! The model answers (`r`), the annotator writes feedback (`f`) and a refined
//! reply (`r̂`). `D_meta` is (p, r, f, r̂) as examples of one completion, `D_QA`
//! is (p, r̂). Randomness: sampling, and which corrected replies are shown once
//! more as right ones.
//!
//! # Source
//! Lu et al., SELF, arXiv 2310.00533, section 3.1.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, spec};
use crate::inference::annotator::{Annotation, Annotator, AnnotatorSpec, Case, Remark};
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::protocol::{AnswerForm, Protocol};
use crate::record::template::Prompt;
use crate::record::{Dialogue, Example, Problem, Verdict, answer};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, BATCH, Speaker, sampled_at};
use crate::stages::tallying::{Judged, tally};
use crate::stages::work::Work;
use std::collections::BTreeMap;

spec! {
    /// Collects the meta-skill corpus: a model answers, an annotator writes feedback and a refined
    /// reply. Gives `meta` (feedback and refinement to be learnt), `qa` (questions with refined
    /// replies), `dialogues` (everything) and `tally`.
    #[check(sampling)]
    pub struct Collect {
        /// Model that answers.
        model: Voice,
        /// Problems; the annotator may look at the gold answers.
        problems: Ref<Problems>,
        /// Who writes feedback and refined replies.
        annotator: Use<AnnotatorSpec>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Softmax temperature of the answers; 0 is greedy.
        temperature: f64 = 0.7,
        /// Sample from so many of the likeliest tokens only; 0 is from all.
        top_k: u64 = 0,
        /// Sample from the fewest of the likeliest tokens that have this share of the probability.
        top_p: f64 = 1.0,
        /// Most tokens of an answer.
        max_tokens: u64 = 16,
        /// Share of the wrong answers whose refined reply is annotated once more, as a right one,
        /// so that both verdicts are learnt.
        balance: f64 = 0.5,
        /// Whether annotations that contradict themselves are left out: those that find a reply right
        /// and write another answer, or wrong and write the same. They are counted either way.
        drop_contradictions: bool = false,
    }
}

fn sampling(spec: &Collect, node: &Node, cx: &mut Reading) {
    speaking::check_sampling(spec.top_p, node, cx);
    speaking::check_server(&spec.model, spec.top_k, false, node, cx);
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Collect>("collect", "stage", 1, true);

impl Stage for Collect {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![
            ("meta".into(), ArtifactKind::Examples),
            ("qa".into(), ArtifactKind::Examples),
            ("dialogues".into(), ArtifactKind::Dialogues),
            ("tally".into(), ArtifactKind::Tally),
        ]
    }

    fn needs_device(&self) -> bool {
        self.model.server().is_none()
    }

    fn outlay(&self) -> Outlay {
        let annotator = self.annotator.get().asks();
        let annotator = annotator.map_or_else(Outlay::default, Outlay::of_server);
        speaking::outlay(&self.model).and(annotator)
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let annotator = &self.annotator;
        foresight::collected(&self.model, annotator, self.balance, self.max_tokens, given)
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let dialogues = self.answers(work, problems)?;
        let annotator = self.annotator.get();
        let cases: Vec<Case> =
            dialogues.iter().map(|d| Case { problem: &d.problem, reply: &d.reply }).collect();
        let mut remarks = annotator.annotate(&self.protocol, &cases, work)?;
        let contradicted: Vec<bool> = cases
            .iter()
            .zip(&remarks)
            .map(|(case, remark)| {
                remark.as_ref().is_ok_and(|said| contradicts(&self.protocol, case, said))
            })
            .collect();
        if self.drop_contradictions {
            for (remark, _) in remarks.iter_mut().zip(&contradicted).filter(|(_, it)| **it) {
                *remark = Err("contradicts itself");
            }
        }
        let mut again = self.again(work, annotator, &cases, &remarks)?;
        let (mut meta, mut qa) = (Vec::new(), Vec::new());
        let (mut annotated, mut judged) = (Vec::new(), Vec::new());
        for (index, (dialogue, remark)) in dialogues.iter().zip(remarks).enumerate() {
            let contradicted = contradicted[index];
            let mut row = dialogue.clone();
            let why = remark.as_ref().err().copied();
            if let Ok(said) = remark {
                let problem = &dialogue.problem;
                meta.push(self.lesson(problem, &dialogue.reply, &said, "meta"));
                if let Some(said_again) = again.remove(&index) {
                    meta.push(self.lesson(problem, &said.refined, &said_again, "meta-right"));
                }
                let prompt = self.protocol.question_prompt(problem);
                let id = format!("qa-{}", problem.id);
                qa.push(self.protocol.example(id, prompt, said.refined.clone()));
                row.feedback = Some(said.feedback);
                row.verdict = Some(said.verdict);
                row.refined = Some(said.refined);
            }
            judged.push(Judged::of(&self.protocol, &row, why).contradicted(contradicted));
            annotated.push(row);
        }
        let counts = tally(&judged);
        if qa.is_empty() && !annotated.is_empty() {
            let why = counts.dropped.iter().map(|(why, n)| format!("{n} {why}"));
            let why = why.collect::<Vec<_>>().join(", ");
            return Err(Failure::input(format!("the annotator said nothing of use: {why}"))
                .hint("what it was asked and what it said is in the store, under `replies/`"));
        }
        for (why, count) in &counts.dropped {
            work.warn(format!("{count} of {} replies of the annotator: {why}", counts.seen));
        }
        work.output("meta").write_rows("examples.jsonl", &meta)?;
        work.output("qa").write_rows("examples.jsonl", &qa)?;
        work.output("dialogues").write_rows("dialogues.jsonl", &annotated)?;
        work.output("tally").write_json("tally.json", &counts)
    }
}

/// Whether an annotation says one thing in its judgement and another in its
/// refined reply.
fn contradicts(protocol: &Protocol, case: &Case, said: &Annotation) -> bool {
    let (given, refined) = (case.reply, said.refined.as_str());
    match protocol.answer {
        AnswerForm::Text => {
            // A rating of less than 10 leaves room for better, however good it is.
            let perfect = match protocol.rating {
                Some(_) => answer::rating(protocol, &said.feedback) == Some(10.0),
                None => said.verdict == Verdict::Correct,
            };
            perfect != answer::is_same(protocol, case.problem, given, refined)
        }
        AnswerForm::Number | AnswerForm::Expression => {
            let [given, refined] =
                [given, refined].map(|text| answer::extract(protocol, case.problem, text));
            let same = answer::is_equal(given, refined);
            match said.verdict {
                Verdict::Correct => given.is_some() && refined.is_some() && !same,
                Verdict::Incorrect => same,
                Verdict::Unparsed => false,
            }
        }
    }
}

impl Collect {
    fn answers(&self, work: &Work, problems: Vec<Problem>) -> Outcome<Vec<Dialogue>> {
        let prompts: Vec<Prompt> =
            problems.iter().map(|p| self.protocol.question_prompt(p)).collect();
        let manner = Manner {
            sampling: sampled_at(self.temperature, self.top_k, self.top_p),
            max_tokens: self.max_tokens as usize,
            stop: None,
            logprob: false,
            batch: BATCH,
        };
        let said =
            Speaker::new(work, &self.model)?.ask("answers", &prompts, work.seed(), &manner)?;
        work.metric("generated-tokens", speaking::total(&said).written as f64);
        let dialogue = |(problem, said): (Problem, speaking::Said)| Dialogue {
            problem,
            reply: said.text,
            feedback: None,
            verdict: None,
            refined: None,
            tokens: said.tokens,
            logprob: said.logprob,
        };
        Ok(problems.into_iter().zip(said).map(dialogue).collect())
    }

    /// Remarks on some of the corrected replies, by the index of their case, so
    /// that right replies are seen too; only those that find them right.
    fn again(
        &self,
        work: &Work,
        annotator: &dyn Annotator,
        cases: &[Case],
        remarks: &[Remark],
    ) -> Outcome<BTreeMap<usize, Annotation>> {
        let mut chance = work.seed().derive("balance").rng();
        let mut drawn = Vec::new();
        for (index, (case, remark)) in cases.iter().zip(remarks).enumerate() {
            if let Ok(said) = remark
                && said.verdict == Verdict::Incorrect
                && chance.unit_f64() < self.balance
            {
                drawn.push((index, Case { problem: case.problem, reply: &said.refined }));
            }
        }
        let cases: Vec<Case> = drawn.iter().map(|(_, case)| *case).collect();
        let said = annotator.annotate(&self.protocol, &cases, work)?;
        let right = drawn.iter().zip(said).filter_map(|((index, _), remark)| {
            remark.ok().filter(|said| said.verdict == Verdict::Correct).map(|said| (*index, said))
        });
        Ok(right.collect())
    }

    /// How to give feedback and a refined reply.
    fn lesson(&self, problem: &Problem, reply: &str, said: &Annotation, kind: &str) -> Example {
        let id = format!("{kind}-{}", problem.id);
        self.protocol.lesson(id, problem, reply, &said.feedback, &said.refined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_that_says_two_things_is_seen() {
        let number = Protocol { reply: "answer {answer}".into(), ..Protocol::empty() };
        let text = Protocol { answer: AnswerForm::Text, ..number.clone() };
        let rating = Protocol { rating: Some("Rating:".into()), good_rating: 8.0, ..text.clone() };
        let problem = Problem {
            id: "p".into(),
            question: "?".into(),
            numbers: Vec::new(),
            gold: None,
            solution: Vec::new(),
            worked: None,
            fingerprint: String::new(),
            labels: BTreeMap::new(),
        };
        use Verdict::{Correct, Incorrect};
        for (protocol, reply, feedback, verdict, refined, want) in [
            (&number, "answer 7", "", Correct, "so answer 7", false),
            (&number, "answer 7", "", Correct, "answer 8", true),
            (&number, "answer 7", "", Incorrect, "answer 8", false),
            (&number, "answer 7", "", Incorrect, "well, answer 7", true),
            (&number, "none", "", Incorrect, "answer 7", false),
            (&text, "hi", "", Correct, "hi", false),
            (&text, "hi", "", Correct, "hello", true),
            (&text, "hi", "", Incorrect, "hi", true),
            (&rating, "hi", "Rating: 10", Correct, "hi", false),
            (&rating, "hi", "Rating: 10", Correct, "hello", true),
            (&rating, "hi", "Rating: 9", Correct, "hello", false),
            (&rating, "hi", "Rating: 3", Incorrect, "hi", true),
        ] {
            let said = Annotation { feedback: feedback.into(), verdict, refined: refined.into() };
            let case = Case { problem: &problem, reply };
            assert_eq!(contradicts(protocol, &case, &said), want, "{reply} {feedback} {refined}");
        }
    }
}
