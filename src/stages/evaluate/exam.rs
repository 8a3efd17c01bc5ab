//! One evaluation under way: conversations with the model, and what their
//! answers come to. Which of them are wanted is the stage's to say.

use super::Evaluate;
use crate::base::failure::Outcome as Result;
use crate::base::hash::Hasher;
use crate::engine::sample::Sampling;
use crate::inference::local::Manner;
use crate::record::extractor::Extractor;
use crate::record::template::Prompt;
use crate::record::{Dialogue, ModeScores, Outcome, Problem, RuleScores, Tokens, answer, metric};
use crate::stages::self_feedback::feedback_manner;
use crate::stages::speaking::{self, BATCH, Said, Speaker};
use crate::stages::work::Work;

/// A model before its problems.
pub(super) struct Exam<'a> {
    /// What is wanted.
    pub(super) spec: &'a Evaluate,
    /// Where replies are kept.
    pub(super) work: &'a Work<'a>,
    /// The questions.
    pub(super) problems: Vec<Problem>,
    /// The model.
    pub(super) speaker: Speaker<'a>,
}

/// The dialogues that a mode reads its answers out of.
pub(super) struct Answers<'d> {
    /// Those of one problem side by side, in the problems' order.
    pub(super) dialogues: &'d [Dialogue],
    /// How many a problem has.
    pub(super) times: usize,
    /// Whether the refined reply counts, where an answer can be read in it.
    pub(super) refined: bool,
}

impl Exam<'_> {
    /// `times` dialogues on every problem, those of one problem side by side.
    pub(super) fn converse(
        &self,
        topic: &str,
        times: u64,
        sampling: Sampling,
        refine: bool,
    ) -> Result<Vec<Dialogue>> {
        let Evaluate { protocol, .. } = self.spec;
        let repeated: Vec<&Problem> =
            self.problems.iter().flat_map(|p| std::iter::repeat_n(p, times as usize)).collect();
        let prompts: Vec<Prompt> = repeated.iter().map(|p| protocol.question_prompt(p)).collect();
        let manner = Manner { logprob: self.spec.logprobs, ..self.reply_manner(sampling) };
        let replies = self.ask(topic, "replies", &prompts, &manner)?;
        let dialogue = |(problem, said): (&Problem, Said)| Dialogue {
            problem: problem.clone(),
            reply: said.text,
            feedback: None,
            verdict: None,
            refined: None,
            tokens: said.tokens,
            logprob: said.logprob,
        };
        let mut dialogues: Vec<Dialogue> =
            repeated.into_iter().zip(replies).map(dialogue).collect();
        if refine {
            self.refine(topic, &mut dialogues)?;
        }
        Ok(dialogues)
    }

    /// Adds greedy feedback on every reply, and a greedy refined reply.
    fn refine(&self, topic: &str, dialogues: &mut [Dialogue]) -> Result<()> {
        let Evaluate { protocol, .. } = self.spec;
        let manner = feedback_manner(protocol, 0.0, self.spec.feedback_tokens);
        let prompts: Vec<Prompt> =
            dialogues.iter().map(|d| protocol.feedback_prompt(&d.problem, &d.reply)).collect();
        let feedback = self.ask(topic, "feedback", &prompts, &manner)?;
        let prompts: Vec<Prompt> = dialogues
            .iter()
            .zip(&feedback)
            .map(|(d, f)| protocol.refine_prompt(&d.problem, &d.reply, &f.text))
            .collect();
        let refined = self.ask(topic, "refined", &prompts, &self.reply_manner(Sampling::Greedy))?;
        for ((dialogue, f), r) in dialogues.iter_mut().zip(feedback).zip(refined) {
            dialogue.verdict = Some(answer::verdict(protocol, &f.text));
            dialogue.tokens += f.tokens;
            dialogue.tokens += r.tokens;
            dialogue.feedback = Some(f.text);
            dialogue.refined = Some(r.text);
        }
        Ok(())
    }

    /// The second pass of refinement and all after it: what one pass came to is
    /// the reply that the next one starts from.
    pub(super) fn passes(&self, first: &[Dialogue]) -> Result<Vec<Vec<Dialogue>>> {
        let mut passes: Vec<Vec<Dialogue>> = Vec::new();
        for pass in 2..=self.spec.passes {
            let before = passes.last().map_or(first, Vec::as_slice);
            let mut dialogues: Vec<Dialogue> = before.iter().map(|d| self.next(d)).collect();
            self.refine(&format!("pass {pass}"), &mut dialogues)?;
            passes.push(dialogues);
        }
        Ok(passes)
    }

    /// A dialogue about what another one came to.
    fn next(&self, before: &Dialogue) -> Dialogue {
        let readable = |text: &&String| self.read(self.spec.extractor, before, text).is_some();
        let refined = before.refined.as_ref().filter(readable);
        Dialogue {
            problem: before.problem.clone(),
            reply: refined.unwrap_or(&before.reply).clone(),
            feedback: None,
            verdict: None,
            refined: None,
            tokens: Tokens::default(),
            logprob: None,
        }
    }

    /// One refined dialogue on every problem: the first sample whose answer is
    /// the one most samples give, refined. One that was refined already is not
    /// refined again, and its tokens are not counted a second time.
    pub(super) fn voted(&self, sampled: &[Dialogue]) -> Result<Vec<Dialogue>> {
        let rule = self.spec.extractor;
        let first = |dialogues: &[Dialogue]| {
            let reads: Vec<_> = dialogues.iter().map(|d| self.read(rule, d, &d.reply)).collect();
            let winner = rule.vote(&reads);
            let at = reads.iter().position(|read| *read == winner).unwrap_or(0);
            Dialogue { tokens: Tokens::default(), ..dialogues[at].clone() }
        };
        let times = self.spec.samples.max(1) as usize;
        let mut dialogues: Vec<Dialogue> = sampled.chunks(times).map(first).collect();
        if dialogues.iter().any(|d| d.refined.is_none()) {
            self.refine("voted", &mut dialogues)?;
        }
        Ok(dialogues)
    }

    fn reply_manner(&self, sampling: Sampling) -> Manner {
        Manner {
            sampling,
            max_tokens: self.spec.max_tokens as usize,
            stop: None,
            logprob: false,
            batch: BATCH,
        }
    }

    fn ask(
        &self,
        topic: &str,
        what: &str,
        prompts: &[Prompt],
        manner: &Manner,
    ) -> Result<Vec<Said>> {
        let seed = self.work.seed().derive(topic).derive(what);
        self.speaker.ask(&format!("{topic} {what}"), prompts, seed, manner)
    }

    /// What a rule reads out of one text of a dialogue.
    fn read(&self, rule: Extractor, dialogue: &Dialogue, text: &str) -> Option<String> {
        rule.read(&self.spec.protocol, &dialogue.problem, text)
    }

    /// What comes of every problem in a mode, under the rule that decides and
    /// under those beside it.
    pub(super) fn score(&self, mode: &str, answers: &Answers) -> ModeScores {
        let pairs = || self.problems.iter().zip(answers.dialogues.chunks(answers.times));
        let outcomes = pairs().map(|(problem, its)| self.outcome(problem, its, answers.refined));
        let others = self.spec.beside.iter().map(|&rule| {
            let of = |its: &[Dialogue]| rule.vote(&self.reads(rule, its, answers.refined));
            let answers: Vec<_> = pairs().map(|(_, its)| of(its)).collect();
            let right = |(problem, answer): (&Problem, &Option<String>)| {
                rule.is_right(answer.as_deref(), problem.gold)
            };
            let right = self.problems.iter().zip(&answers).map(right).collect();
            RuleScores { rule: rule.name().to_owned(), answers, right }
        });
        let (outcomes, others) = (outcomes.collect(), others.collect());
        ModeScores { mode: mode.to_owned(), outcomes, others }
    }

    /// What a rule reads out of every dialogue on a problem.
    fn reads(&self, rule: Extractor, dialogues: &[Dialogue], refined: bool) -> Vec<Option<String>> {
        let read = |d: &Dialogue| {
            let better = d.refined.as_ref().filter(|_| refined);
            better
                .and_then(|text| self.read(rule, d, text))
                .or_else(|| self.read(rule, d, &d.reply))
        };
        dialogues.iter().map(read).collect()
    }

    fn outcome(&self, problem: &Problem, dialogues: &[Dialogue], refined: bool) -> Outcome {
        let rule = self.spec.extractor;
        let reads = self.reads(rule, dialogues, refined);
        let (answer, correct) = match rule {
            // Numbers vote as numbers here: -0 and 0 are one.
            Extractor::Protocol => {
                let values: Vec<Option<f64>> =
                    reads.iter().map(|read| rule.value(read.as_deref()?)).collect();
                let answer = metric::majority(&values);
                (answer, answer::is_equal(answer, problem.gold))
            }
            _ => {
                let read = rule.vote(&reads);
                let correct = rule.is_right(read.as_deref(), problem.gold);
                (read.and_then(|read| rule.value(&read)), correct)
            }
        };
        let mut text = Hasher::tagged("rekindle 2026 outcome v1");
        for d in dialogues {
            let parts = [
                Some(&d.reply),
                d.feedback.as_ref().filter(|_| refined),
                d.refined.as_ref().filter(|_| refined),
            ];
            for part in parts.into_iter().flatten() {
                text.update(part.as_bytes());
                text.update(b"\n");
            }
        }
        Outcome {
            id: problem.id.clone(),
            answer,
            correct,
            text: text.finish().short(),
            logprob: speaking::mean_logprob(dialogues.iter().map(|d| &d.logprob)),
        }
    }
}
