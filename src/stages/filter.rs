//! Kind `filter`: refined dialogues and a model -> `D_evol`, the pairs (p, r̂)
//! that the model's own feedback lets through by verdict or by rating, and a
//! tally of what was dropped and why. No gold answer takes part in the decision. Randomness: sampling.
//!
//! # Source
//! Lu et al., SELF, arXiv 2310.00533, section 3.2: the model judges its own
//! refined reply once more.

use crate::base::artifact::{ArtifactKind, Dialogues};
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::engine::sample::Sampling;
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::answer;
use crate::record::protocol::Protocol;
use crate::record::template::Prompt;
use crate::record::{Dialogue, Tally, Tokens, Verdict};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::self_feedback::feedback_manner;
use crate::stages::speaking::{self, BATCH, Said, Speaker};
use crate::stages::tallying::{Judged, tally};
use crate::stages::work::Work;

choice! {
    /// What lets a refined reply through.
    pub enum Rule {
        /// The model's feedback on the refined reply calls it correct.
        Judgement = "judgement",
        /// Refining the refined reply once more does not change its answer.
        FixedPoint = "fixed-point",
        /// Both of these.
        Both = "both",
        /// The model's feedback rates the refined reply at `least-rating` or more.
        Rating = "rating",
        /// It rates the refined reply `least-gain` or more above the reply.
        Gain = "gain",
        /// One of these two.
        RatingOrGain = "rating-or-gain",
        /// Every refined reply with an answer in it.
        None = "none",
    }
}

spec! {
    /// Keeps the refined replies that the model itself finds right, or good enough.
    #[check(rates)]
    pub struct Filter {
        /// Model that judges; in self-evolution the one that refined.
        model: Voice,
        /// Dialogues with refined replies.
        dialogues: Ref<Dialogues>,
        /// Texts.
        protocol: Use<Protocol>,
        /// What lets a reply through.
        rule: Rule = Rule::Judgement,
        /// Rating that lets a refined reply through, for rules about ratings.
        least_rating: f64 = 10.0,
        /// What its rating must have more than the reply's; 0 is no less.
        least_gain: f64 = 0.0,
        /// Softmax temperature of the feedback on refined replies; 0 is greedy.
        temperature: f64 = 0.0,
        /// Most tokens of that feedback.
        max_tokens: u64 = 64,
    }
}

fn rates(filter: &Filter, node: &Node, cx: &mut Reading) {
    if filter.rule.rates() && filter.protocol.rating.is_none() {
        let at = node.at(["rule"]).unwrap_or(node);
        let rule = filter.rule.name();
        let why = format!("`rule = \"{rule}\"` needs ratings, and the protocol has no `rating`");
        cx.error(&at.origin, why);
    }
}

impl Rule {
    fn rates(self) -> bool {
        matches!(self, Rule::Rating | Rule::Gain | Rule::RatingOrGain)
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Filter>("filter", "stage", 1, true);

/// What the model says of a refined reply.
struct Second {
    verdict: Verdict,
    rating: Option<f64>,
    /// Whether refining it again gives the same answer.
    stable: bool,
    tokens: Tokens,
}

impl Stage for Filter {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("kept".into(), ArtifactKind::Examples), ("tally".into(), ArtifactKind::Tally)]
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
        if self.rule != Rule::None {
            let prompt = foresight::prompt(&[dialogues.question, dialogues.reply]);
            all.says(&self.model, given, dialogues.items, prompt, self.max_tokens)?;
        }
        Some(all.with("kept", foresight::kept(dialogues)))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let dialogues: Vec<Dialogue> = work.input("dialogues")?.rows("dialogues.jsonl")?;
        let seconds = self.judge(work, &dialogues)?;
        let (mut kept, mut judged) = (Vec::new(), Vec::new());
        let mut tokens = Tokens::default();
        for (dialogue, second) in dialogues.iter().zip(&seconds) {
            tokens += second.tokens;
            let dropped = self.reason(dialogue, second);
            let one = Judged::of(&self.protocol, dialogue, dropped);
            judged.push(one.refined_rated(second.rating));
            if let (None, Some(refined)) = (dropped, &dialogue.refined) {
                let prompt = self.protocol.question_prompt(&dialogue.problem);
                let id = format!("evol-{}", dialogue.problem.id);
                kept.push(self.protocol.example(id, prompt, refined.clone()));
            }
        }
        let mut counts: Tally = tally(&judged);
        counts.tokens += tokens;
        work.metric("generated-tokens", tokens.written as f64);
        work.metric("kept", kept.len() as f64);
        work.output("kept").write_rows("examples.jsonl", &kept)?;
        work.output("tally").write_json("tally.json", &counts)
    }
}

impl Filter {
    /// Lets the model look at every refined reply that holds an answer.
    fn judge(&self, work: &Work, dialogues: &[Dialogue]) -> Outcome<Vec<Second>> {
        let speaker = Speaker::new(work, &self.model)?;
        let refined = |d: &Dialogue| d.refined.clone().unwrap_or_default();
        let prompts: Vec<Prompt> = dialogues
            .iter()
            .map(|d| self.protocol.feedback_prompt(&d.problem, &refined(d)))
            .collect();
        let nothing = || vec![silence(); dialogues.len()];
        let feedback = match self.rule {
            Rule::None => nothing(),
            _ => {
                let manner = feedback_manner(&self.protocol, self.temperature, self.max_tokens);
                speaker.ask("judgements", &prompts, work.seed(), &manner)?
            }
        };
        let again = match self.rule {
            Rule::None | Rule::Judgement | Rule::Rating | Rule::Gain | Rule::RatingOrGain => {
                nothing()
            }
            Rule::FixedPoint | Rule::Both => {
                let prompts: Vec<Prompt> = dialogues
                    .iter()
                    .zip(&feedback)
                    .map(|(d, f)| self.protocol.refine_prompt(&d.problem, &refined(d), &f.text))
                    .collect();
                let manner = Manner {
                    sampling: Sampling::at(self.temperature),
                    max_tokens: 16,
                    stop: None,
                    logprob: false,
                    batch: BATCH,
                };
                speaker.ask("second refinements", &prompts, work.seed().derive("again"), &manner)?
            }
        };
        Ok(dialogues
            .iter()
            .zip(feedback.iter().zip(&again))
            .map(|(d, (f, a))| {
                let mut tokens = f.tokens;
                tokens += a.tokens;
                Second {
                    verdict: answer::verdict(&self.protocol, &f.text),
                    rating: answer::rating(&self.protocol, &f.text),
                    stable: answer::is_same(&self.protocol, &d.problem, &refined(d), &a.text),
                    tokens,
                }
            })
            .collect())
    }

    /// Why a refined reply is dropped, if it is.
    fn reason(&self, dialogue: &Dialogue, second: &Second) -> Option<&'static str> {
        let Some(refined) = dialogue.refined.as_deref() else { return Some("not refined") };
        if !answer::is_there(&self.protocol, &dialogue.problem, refined) {
            return Some("no answer");
        }
        let judged = match second.verdict {
            Verdict::Correct => None,
            Verdict::Incorrect => Some("judged incorrect"),
            Verdict::Unparsed => Some("judgement unreadable"),
        };
        let moved = (!second.stable).then_some("changed when refined again");
        match self.rule {
            Rule::None => None,
            Rule::Judgement => judged,
            Rule::FixedPoint => moved,
            Rule::Both => judged.or(moved),
            Rule::Rating => self.too_low(second),
            Rule::Gain => self.no_gain(dialogue, second),
            Rule::RatingOrGain => self.too_low(second).and(self.no_gain(dialogue, second)),
        }
    }

    fn too_low(&self, second: &Second) -> Option<&'static str> {
        match second.rating {
            None => Some("rating unreadable"),
            Some(rating) => (rating < self.least_rating).then_some("rated too low"),
        }
    }

    fn no_gain(&self, dialogue: &Dialogue, second: &Second) -> Option<&'static str> {
        let said = dialogue.feedback.as_deref();
        let before = said.and_then(|said| answer::rating(&self.protocol, said));
        match before.zip(second.rating) {
            None => Some("rating unreadable"),
            Some((before, after)) => {
                (after - before < self.least_gain).then_some("rating did not rise enough")
            }
        }
    }
}

fn silence() -> Said {
    Said { text: String::new(), tokens: Tokens::default(), logprob: None, cut: false }
}
