//! Kind `evaluate`: a model and problems -> scores for every problem in every
//! mode asked for, under one rule of extraction or several, and all texts.
//! Direct and refined replies are greedy; the samples of self-consistency are
//! drawn, one seed for each sample.
//!
//! # Source
//! Modes: Lu et al., SELF, arXiv 2310.00533, section 4; self-consistency: Wang
//! et al., arXiv 2203.11171; refinement in several passes: Madaan et al.,
//! Self-Refine, arXiv 2303.17651.

mod exam;

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::Outcome as Result;
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::engine::sample::Sampling;
use crate::inference::voice::Voice;
use crate::record::extractor::Extractor;
use crate::record::protocol::{AnswerForm, Protocol};
use crate::record::{Dialogue, Measure, Problem, Scores, Tokens};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, Speaker, sampled_at};
use crate::stages::tallying::{Judged, tally};
use crate::stages::work::Work;
use exam::{Answers, Exam};

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
        /// The refined version of the first sample that gives the answer most of them give.
        VoteRefine = "vote-refine",
    }
}

spec! {
    /// Scores a model on problems with gold answers.
    #[check(sampling)]
    pub struct Evaluate {
        /// Model to score.
        model: Voice,
        /// Problems to answer.
        problems: Ref<Problems>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Name of the data set in reports.
        dataset: String = "test".to_owned(),
        /// How answers are come by.
        modes: Vec<Mode> = vec![Mode::Direct, Mode::Refine],
        /// How often a reply is refined for the mode `refine`, each time after new feedback. From
        /// the second on, every pass has a score of its own: `refine-2`, `refine-3`, ...
        passes: u64 = 1,
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
        /// The rule that reads answers out of replies and decides what is right.
        extractor: Extractor = Extractor::Protocol,
        /// More rules, whose scores on the same texts are shown beside.
        beside: Vec<Extractor> = Vec::new(),
    }
}

fn sampling(spec: &Evaluate, node: &Node, cx: &mut Reading) {
    speaking::check_sampling(spec.top_p, node, cx);
    speaking::check_server(&spec.model, spec.top_k, spec.logprobs, node, cx);
    let at = |field: &str| node.at([field]).unwrap_or(node).origin.clone();
    if spec.passes == 0 || spec.passes > 1 && !spec.modes.contains(&Mode::Refine) {
        let why = "`passes` is at least 1, and above 1 only with `refine` among the `modes`";
        cx.error(&at("passes"), why);
    }
    let reads_numbers = spec.protocol.answer == AnswerForm::Number;
    for (field, rules) in [("extractor", vec![spec.extractor]), ("beside", spec.beside.clone())] {
        if !reads_numbers && rules.iter().any(|&rule| rule != Extractor::Protocol) {
            let why =
                format!("`{field}`: answers that are expressions are read by `protocol` only");
            cx.error(&at(field), why);
        }
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Evaluate>("evaluate", "stage", 1, true);

impl Stage for Evaluate {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("scores".into(), ArtifactKind::Scores), ("dialogues".into(), ArtifactKind::Dialogues)]
    }

    fn needs_device(&self) -> bool {
        self.model.server().is_none()
    }

    fn outlay(&self) -> Outlay {
        speaking::outlay(&self.model)
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        foresight::evaluated(self, given)
    }

    fn run(&self, work: &Work) -> Result<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let exam = Exam { spec: self, work, problems, speaker: Speaker::new(work, &self.model)? };
        let wants = |mode| self.modes.contains(&mode);
        let greedy = exam.converse("greedy", 1, Sampling::Greedy, wants(Mode::Refine))?;
        let passes = exam.passes(&greedy)?;
        let sampled = match self.wants_samples() {
            false => Vec::new(),
            true => exam.converse(
                "samples",
                self.samples,
                sampled_at(self.temperature, self.top_k, self.top_p),
                wants(Mode::ConsistencyRefine),
            )?,
        };
        let voted = if wants(Mode::VoteRefine) { exam.voted(&sampled)? } else { Vec::new() };
        let mut modes = Vec::new();
        for &mode in &self.modes {
            modes.push(exam.score(
                mode.name(),
                &match mode {
                    Mode::Direct => Answers { dialogues: &greedy, times: 1, refined: false },
                    Mode::Refine => Answers { dialogues: &greedy, times: 1, refined: true },
                    Mode::Consistency => self.of_samples(&sampled, false),
                    Mode::ConsistencyRefine => self.of_samples(&sampled, true),
                    Mode::VoteRefine => Answers { dialogues: &voted, times: 1, refined: true },
                },
            ));
        }
        for (pass, dialogues) in (2..).zip(&passes) {
            let answers = Answers { dialogues, times: 1, refined: true };
            modes.push(exam.score(&format!("refine-{pass}"), &answers));
        }
        let feedback = wants(Mode::Refine).then(|| {
            let judged: Vec<Judged> =
                greedy.iter().map(|d| Judged::of(&self.protocol, d, None)).collect();
            tally(&judged)
        });
        let mut tokens = Tokens::default();
        let later = passes.iter().flatten().chain(&voted);
        greedy.iter().chain(&sampled).chain(later).for_each(|d| tokens += d.tokens);
        work.metric("generated-tokens", tokens.written as f64);
        if let Some(mean) = speaking::mean_logprob(greedy.iter().map(|d| &d.logprob)) {
            work.metric("mean-logprob", mean);
        }
        let rule = (self.extractor != Extractor::Protocol).then(|| self.extractor.name().into());
        let (dataset, measure) = (self.dataset.clone(), Measure::Accuracy);
        let scores = Scores { dataset, measure, rule, modes, feedback, tokens };
        work.output("scores").write_json("scores.json", &scores)?;
        let out = work.output("dialogues");
        out.write_rows("dialogues.jsonl", &greedy)?;
        out.write_rows("samples.jsonl", &sampled)?;
        for (pass, dialogues) in (2..).zip(&passes) {
            out.write_rows(&format!("pass-{pass}.jsonl"), dialogues)?;
        }
        if voted.is_empty() {
            return Ok(());
        }
        out.write_rows("voted.jsonl", &voted)
    }
}

impl Evaluate {
    fn wants_samples(&self) -> bool {
        let of_one = |mode: &Mode| matches!(mode, Mode::Direct | Mode::Refine);
        !self.modes.iter().all(of_one)
    }

    fn of_samples<'d>(&self, sampled: &'d [Dialogue], refined: bool) -> Answers<'d> {
        Answers { dialogues: sampled, times: self.samples.max(1) as usize, refined }
    }
}
