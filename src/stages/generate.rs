//! Kind `generate`: problems and a model -> dialogues with the model's replies
//! (the paper's `r`). Randomness: sampling, one seed for each problem.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, spec};
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::protocol::Protocol;
use crate::record::template::Prompt;
use crate::record::{Dialogue, Problem};
use crate::stages::foresight::{self, Extent, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, BATCH, Speaker, sampled_at};
use crate::stages::work::Work;

spec! {
    /// Lets a model answer every problem once.
    #[check(sampling)]
    pub struct Generate {
        /// Model that answers.
        model: Voice,
        /// Problems to answer; their gold answers are not looked at.
        problems: Ref<Problems>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Softmax temperature; 0 is greedy.
        temperature: f64 = 0.7,
        /// Sample from so many of the likeliest tokens only; 0 is from all.
        top_k: u64 = 0,
        /// Sample from the fewest of the likeliest tokens that have this share of the probability.
        top_p: f64 = 1.0,
        /// Most tokens of a reply.
        max_tokens: u64 = 16,
        /// Whether to keep, for every reply, the mean natural logarithm of the probability of its
        /// tokens, before temperature and choice of the likeliest.
        logprobs: bool = false,
    }
}

fn sampling(spec: &Generate, node: &Node, cx: &mut Reading) {
    speaking::check_sampling(spec.top_p, node, cx);
    speaking::check_server(&spec.model, spec.top_k, spec.logprobs, node, cx);
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Generate>("generate", "stage", 1, true);

impl Stage for Generate {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("dialogues".into(), ArtifactKind::Dialogues)]
    }

    fn needs_device(&self) -> bool {
        self.model.server().is_none()
    }

    fn outlay(&self) -> Outlay {
        speaking::outlay(&self.model)
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let problems = given.one("problems")?;
        let mut all = Foreseen::default();
        let prompt = foresight::prompt(&[problems.question]);
        let reply = all.says(&self.model, given, problems.items, prompt, self.max_tokens)?;
        Some(all.with("dialogues", Extent { reply, ..problems }))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let speaker = Speaker::new(work, &self.model)?;
        let prompts: Vec<Prompt> =
            problems.iter().map(|p| self.protocol.question_prompt(p)).collect();
        let manner = Manner {
            sampling: sampled_at(self.temperature, self.top_k, self.top_p),
            max_tokens: self.max_tokens as usize,
            stop: None,
            logprob: self.logprobs,
            batch: BATCH,
        };
        let replies = speaker.ask("replies", &prompts, work.seed(), &manner)?;
        work.metric("generated-tokens", speaking::total(&replies).written as f64);
        if let Some(mean) = speaking::mean_logprob(replies.iter().map(|said| &said.logprob)) {
            work.metric("mean-logprob", mean);
        }
        let dialogues: Vec<Dialogue> = problems
            .into_iter()
            .zip(replies)
            .map(|(problem, reply)| Dialogue {
                problem,
                reply: reply.text,
                feedback: None,
                verdict: None,
                refined: None,
                tokens: reply.tokens,
                logprob: reply.logprob,
            })
            .collect();
        work.output("dialogues").write_rows("dialogues.jsonl", &dialogues)
    }
}
