//! Kind `evaluate`: a model and problems -> scores for every problem in up to
//! four modes, and all texts. Direct and refined replies are greedy; the
//! samples of self-consistency are drawn, one seed for each sample.
//!
//! # Source
//! Modes: Lu et al., SELF, arXiv 2310.00533, section 4; self-consistency: Wang
//! et al., arXiv 2203.11171.

use crate::base::artifact::{ArtifactKind, Model, Problems};
use crate::base::failure::Outcome as Result;
use crate::base::hash::Hasher;
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::engine::sample::Sampling;
use crate::inference::local::Manner;
use crate::record::protocol::Protocol;
use crate::record::template::Prompt;
use crate::record::{Dialogue, ModeScores, Outcome, Problem, Scores, Tokens, answer, metric};
use crate::stages::kind::{Kind, Stage};
use crate::stages::self_feedback::feedback_manner;
use crate::stages::speaking::{self, BATCH, Said, Speaker, sampled_at};
use crate::stages::tallying::{Judged, tally};
use crate::stages::work::Work;

choice! {
    /// How an answer is come by.
    pub enum Mode {
        /// One greedy reply.
        Direct = "direct",
        /// A greedy reply, the model's feedback on it, and its refined reply. The reply counts
        /// where no refined answer can be read.
        Refine = "refine",
        /// The answer that most of `samples` sampled replies give.
        Consistency = "consistency",
        /// The answer that most of the refined versions of these samples give.
        ConsistencyRefine = "consistency-refine",
    }
}

spec! {
    /// Scores a model on problems with gold answers.
    #[check(sampling)]
    pub struct Evaluate {
        /// Model to score.
        model: Ref<Model>,
        /// Problems to answer.
        problems: Ref<Problems>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Name of the data set in reports.
        dataset: String = "test".to_owned(),
        /// How answers are come by.
        modes: Vec<Mode> = vec![Mode::Direct, Mode::Refine],
        /// Samples a problem gets for self-consistency.
        samples: u64 = 5,
        /// Softmax temperature of these samples.
        temperature: f64 = 0.7,
        /// Sample from so many of the likeliest tokens only; 0 is from all.
        top_k: u64 = 0,
        /// Sample from the fewest of the likeliest tokens that have this share of the probability.
        top_p: f64 = 1.0,
        /// Most tokens of a reply.
        max_tokens: u64 = 16,
        /// Most tokens of a feedback.
        feedback_tokens: u64 = 64,
        /// Whether to keep, for every problem, the mean natural logarithm of the probability of a
        /// token of its replies, before temperature and choice of the likeliest.
        logprobs: bool = false,
    }
}

fn sampling(spec: &Evaluate, node: &Node, cx: &mut Reading) {
    speaking::check_sampling(spec.top_p, node, cx);
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Evaluate>("evaluate", "stage", 1, true);

impl Stage for Evaluate {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("scores".into(), ArtifactKind::Scores), ("dialogues".into(), ArtifactKind::Dialogues)]
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn run(&self, work: &Work) -> Result<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let exam = Exam { spec: self, work, problems, speaker: Speaker::new(work)? };
        let greedy =
            exam.converse("greedy", 1, Sampling::Greedy, self.modes.contains(&Mode::Refine))?;
        let sampled = match self.wants_samples() {
            false => Vec::new(),
            true => exam.converse(
                "samples",
                self.samples,
                sampled_at(self.temperature, self.top_k, self.top_p),
                self.modes.contains(&Mode::ConsistencyRefine),
            )?,
        };
        let modes = self.modes.iter().map(|&mode| exam.score(mode, &greedy, &sampled)).collect();
        let feedback = self.modes.contains(&Mode::Refine).then(|| {
            let judged: Vec<Judged> =
                greedy.iter().map(|d| Judged::of(&self.protocol, d, None)).collect();
            tally(&judged)
        });
        let mut tokens = Tokens::default();
        greedy.iter().chain(&sampled).for_each(|d| tokens += d.tokens);
        work.metric("generated-tokens", tokens.written as f64);
        if let Some(mean) = speaking::mean_logprob(greedy.iter().map(|d| &d.logprob)) {
            work.metric("mean-logprob", mean);
        }
        let scores = Scores { dataset: self.dataset.clone(), modes, feedback, tokens };
        work.output("scores").write_json("scores.json", &scores)?;
        let out = work.output("dialogues");
        out.write_rows("dialogues.jsonl", &greedy)?;
        out.write_rows("samples.jsonl", &sampled)
    }
}

impl Evaluate {
    fn wants_samples(&self) -> bool {
        let of_samples = |m: &Mode| matches!(m, Mode::Consistency | Mode::ConsistencyRefine);
        self.modes.iter().any(of_samples)
    }
}

/// One evaluation under way.
struct Exam<'a> {
    spec: &'a Evaluate,
    work: &'a Work<'a>,
    problems: Vec<Problem>,
    speaker: Speaker<'a>,
}

impl Exam<'_> {
    /// `times` dialogues on every problem, those of one problem side by side.
    fn converse(
        &self,
        topic: &str,
        times: u64,
        sampling: Sampling,
        refine: bool,
    ) -> Result<Vec<Dialogue>> {
        let Evaluate { protocol, .. } = self.spec;
        let seed = self.work.seed().derive(topic);
        let repeated: Vec<&Problem> =
            self.problems.iter().flat_map(|p| std::iter::repeat_n(p, times as usize)).collect();
        let prompts: Vec<Prompt> = repeated.iter().map(|p| protocol.question_prompt(p)).collect();
        let reply = |sampling| Manner {
            sampling,
            max_tokens: self.spec.max_tokens as usize,
            stop: None,
            logprob: false,
            batch: BATCH,
        };
        let ask = |what: &str, prompts: &[Prompt], manner: &Manner| -> Result<Vec<Said>> {
            let topic = format!("{topic} {what}");
            self.speaker.ask(&topic, prompts, seed.derive(what), manner)
        };
        let manner = Manner { logprob: self.spec.logprobs, ..reply(sampling) };
        let replies = ask("replies", &prompts, &manner)?;
        let mut dialogues: Vec<Dialogue> = repeated
            .into_iter()
            .zip(replies)
            .map(|(problem, said)| Dialogue {
                problem: problem.clone(),
                reply: said.text,
                feedback: None,
                verdict: None,
                refined: None,
                tokens: said.tokens,
                logprob: said.logprob,
            })
            .collect();
        if !refine {
            return Ok(dialogues);
        }
        let manner = feedback_manner(protocol, 0.0, self.spec.feedback_tokens);
        let prompts: Vec<Prompt> =
            dialogues.iter().map(|d| protocol.feedback_prompt(&d.problem, &d.reply)).collect();
        let feedback = ask("feedback", &prompts, &manner)?;
        let prompts: Vec<Prompt> = dialogues
            .iter()
            .zip(&feedback)
            .map(|(d, f)| protocol.refine_prompt(&d.problem, &d.reply, &f.text))
            .collect();
        let refined = ask("refined", &prompts, &reply(Sampling::Greedy))?;
        for ((dialogue, f), r) in dialogues.iter_mut().zip(feedback).zip(refined) {
            dialogue.verdict = Some(answer::verdict(protocol, &f.text));
            dialogue.tokens += f.tokens;
            dialogue.tokens += r.tokens;
            dialogue.feedback = Some(f.text);
            dialogue.refined = Some(r.text);
        }
        Ok(dialogues)
    }

    fn score(&self, mode: Mode, greedy: &[Dialogue], sampled: &[Dialogue]) -> ModeScores {
        let (dialogues, times) = match mode {
            Mode::Direct | Mode::Refine => (greedy, 1),
            Mode::Consistency | Mode::ConsistencyRefine => {
                (sampled, self.spec.samples.max(1) as usize)
            }
        };
        let outcomes = self
            .problems
            .iter()
            .zip(dialogues.chunks(times))
            .map(|(problem, dialogues)| self.outcome(mode, problem, dialogues))
            .collect();
        ModeScores { mode: mode.name().to_owned(), outcomes }
    }

    fn outcome(&self, mode: Mode, problem: &Problem, dialogues: &[Dialogue]) -> Outcome {
        let protocol = &self.spec.protocol;
        let read = |text: &str| answer::extract(protocol, problem, text);
        let answers: Vec<Option<f64>> = dialogues
            .iter()
            .map(|d| match mode {
                Mode::Direct | Mode::Consistency => read(&d.reply),
                Mode::Refine | Mode::ConsistencyRefine => {
                    d.refined.as_deref().and_then(read).or_else(|| read(&d.reply))
                }
            })
            .collect();
        let answer = metric::majority(&answers);
        let mut text = Hasher::tagged("rekindle 2026 outcome v1");
        for d in dialogues {
            let refined = matches!(mode, Mode::Refine | Mode::ConsistencyRefine);
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
            correct: answer::is_equal(answer, problem.gold),
            text: text.finish().short(),
            logprob: speaking::mean_logprob(dialogues.iter().map(|d| &d.logprob)),
        }
    }
}
