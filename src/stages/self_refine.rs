//! Kind `self-refine`: dialogues with feedback and a model -> the dialogues
//! with the model's refined replies (the paper's `r̂`). Randomness: sampling.

use crate::base::artifact::{ArtifactKind, Dialogues};
use crate::base::failure::{Failure, Outcome};
use crate::base::spec::{Ref, Use, spec};
use crate::engine::sample::Sampling;
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::Dialogue;
use crate::record::protocol::Protocol;
use crate::stages::foresight::{self, Extent, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, BATCH, Speaker};
use crate::stages::work::Work;

spec! {
    /// Lets a model write a better reply after the feedback of every dialogue.
    pub struct SelfRefine {
        /// Model that refines.
        model: Voice,
        /// Dialogues with replies and feedback.
        dialogues: Ref<Dialogues>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Softmax temperature; 0 is greedy.
        temperature: f64 = 0.0,
        /// Most tokens of a refined reply.
        max_tokens: u64 = 16,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<SelfRefine>("self-refine", "stage", 1, true);

impl Stage for SelfRefine {
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
        let dialogues = given.one("dialogues")?;
        let Extent { items, question, reply, .. } = dialogues;
        let mut all = Foreseen::default();
        // A feedback is about as long as what it is about.
        let prompt = foresight::prompt(&[question, reply, reply]);
        let reply = all.says(&self.model, given, items, prompt, self.max_tokens)?;
        Some(all.with("dialogues", Extent { reply, ..dialogues }))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut dialogues: Vec<Dialogue> = work.input("dialogues")?.rows("dialogues.jsonl")?;
        let mut prompts = Vec::with_capacity(dialogues.len());
        for d in &dialogues {
            let feedback = d.feedback.as_ref().ok_or_else(|| {
                Failure::input(format!("the dialogue on `{}` has no feedback", d.problem.id))
                    .hint("let a `self-feedback` stage run before `self-refine`")
            })?;
            prompts.push(self.protocol.refine_prompt(&d.problem, &d.reply, feedback));
        }
        let speaker = Speaker::new(work, &self.model)?;
        let manner = Manner {
            sampling: Sampling::at(self.temperature),
            max_tokens: self.max_tokens as usize,
            stop: None,
            logprob: false,
            batch: BATCH,
        };
        let said = speaker.ask("refined", &prompts, work.seed(), &manner)?;
        work.metric("generated-tokens", speaking::total(&said).written as f64);
        for (dialogue, said) in dialogues.iter_mut().zip(said) {
            dialogue.refined = Some(said.text);
            dialogue.tokens += said.tokens;
        }
        work.output("dialogues").write_rows("dialogues.jsonl", &dialogues)
    }
}
