//! Kind `self-feedback`: dialogues and a model -> the dialogues with the
//! model's feedback on each reply (the paper's `f`). Randomness: sampling.

use crate::base::artifact::{ArtifactKind, Dialogues};
use crate::base::failure::Outcome;
use crate::base::spec::{Ref, Use, spec};
use crate::engine::sample::Sampling;
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::Dialogue;
use crate::record::answer;
use crate::record::protocol::Protocol;
use crate::record::template::Prompt;
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, BATCH, Speaker};
use crate::stages::work::Work;

spec! {
    /// Lets a model write feedback on the reply of every dialogue, up to the mark that opens the
    /// refined reply.
    pub struct SelfFeedback {
        /// Model that judges; in self-evolution the one that replied.
        model: Voice,
        /// Dialogues with replies.
        dialogues: Ref<Dialogues>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Softmax temperature; 0 is greedy.
        temperature: f64 = 0.0,
        /// Most tokens of a feedback.
        max_tokens: u64 = 64,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<SelfFeedback>("self-feedback", "stage", 1, true);

impl Stage for SelfFeedback {
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
        let mut all = Foreseen::default();
        let prompt = foresight::prompt(&[dialogues.question, dialogues.reply]);
        all.says(&self.model, given, dialogues.items, prompt, self.max_tokens)?;
        Some(all.with("dialogues", dialogues))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut dialogues: Vec<Dialogue> = work.input("dialogues")?.rows("dialogues.jsonl")?;
        let speaker = Speaker::new(work, &self.model)?;
        let manner = feedback_manner(&self.protocol, self.temperature, self.max_tokens);
        let prompts: Vec<Prompt> =
            dialogues.iter().map(|d| self.protocol.feedback_prompt(&d.problem, &d.reply)).collect();
        let said = speaker.ask("feedback", &prompts, work.seed(), &manner)?;
        work.metric("generated-tokens", speaking::total(&said).written as f64);
        for (dialogue, said) in dialogues.iter_mut().zip(said) {
            dialogue.verdict = Some(answer::verdict(&self.protocol, &said.text));
            dialogue.feedback = Some(said.text);
            dialogue.tokens += said.tokens;
        }
        work.output("dialogues").write_rows("dialogues.jsonl", &dialogues)
    }
}

/// Feedback ends where the refined reply would begin.
pub(super) fn feedback_manner(protocol: &Protocol, temperature: f64, max_tokens: u64) -> Manner {
    Manner {
        sampling: Sampling::at(temperature),
        max_tokens: max_tokens as usize,
        stop: protocol.feedback_stop(),
        logprob: false,
        batch: BATCH,
    }
}
