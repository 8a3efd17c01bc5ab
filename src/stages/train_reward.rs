//! Kind `train-reward`: dialogues with refined replies and a model -> a reward
//! model that scores the refined reply above the first one. Randomness: which
//! pairs are held out, their order, the start of the head and of adapters.
//!
//! Whose the verdicts are does not matter here: a pair is a reply and what it
//! became, and gold answers are not looked at.
//!
//! # Source
//! Stiennon et al., arXiv 2009.01325, section 3.4; Lu et al., SELF, arXiv
//! 2310.00533, the RLHF baseline: pairs of `D_meta`, r̂ preferred over r.

use crate::base::artifact::{ArtifactKind, Dialogues, Model};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::seed::Seed;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::engine::batch::{Order, Pieces};
use crate::engine::device::Opened;
use crate::engine::lora::Adapters;
use crate::engine::model::Llama;
use crate::engine::ops::Precision;
use crate::engine::optimizer::{AdamW, Schedule};
use crate::engine::preference::bradley_terry;
use crate::engine::reward::{Pair, RewardModel, learner};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::train::{Progress, Texts, Training, learn};
use crate::engine::{self, weights};
use crate::inference::local::{open_device, sizes};
use crate::inference::prompting::encode;
use crate::record::protocol::Protocol;
use crate::record::reward::{Judgement, PairCounts, RewardCard};
use crate::record::{AdapterLog, Dialogue, TextNotes, TrainLog, answer};
use crate::stages::fitting::{Outlook, TooLarge};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::low_rank::{self, LowRank};
use crate::stages::speaking;
use crate::stages::watching::Watch;
use crate::stages::work::Work;
use std::sync::Arc;

/// Held-out losses of a training.
const VALIDATIONS: u64 = 10;

/// Tokens that are scored at a time.
pub(super) const SCORED: usize = 8192;

choice! {
    /// When a refined reply is another one than the first.
    pub enum Differ {
        /// When another answer is read out of it, or another text where neither has an answer.
        Answer = "answer",
        /// When its text is another.
        Text = "text",
    }
}

choice! {
    /// What becomes of a pair with a reply that is longer than the model's context.
    pub enum LongPair {
        /// The training does not begin.
        Refuse = "refuse",
        /// It is left out; how many were is in the card.
        Drop = "drop",
    }
}

spec! {
    /// Trains a reward model: a score at the last token of a question with a reply, such that the
    /// refined reply of a dialogue gets a higher one than the first. The loss is Bradley and
    /// Terry's, its mean over the pairs of a step. With `lora`, adapters and the head learn, and
    /// the model stays as it is.
    #[check(sound)]
    pub struct TrainReward {
        /// Model to start from; its output matrix gives way to the head.
        start: Ref<Model>,
        /// Dialogues with refined replies.
        dialogues: Ref<Dialogues>,
        /// Texts.
        protocol: Use<Protocol>,
        /// When a refined reply counts as another one; pairs that are the same are left out, and
        /// how many were is in the card.
        differ: Differ = Differ::Answer,
        /// Dialogues whose pairs are only scored, to tell how well it judges.
        validate: Option<Ref<Dialogues>>,
        /// Without `validate`: share of the pairs that is held out for that.
        held_out: f64 = 0.1,
        /// Passes over the pairs.
        epochs: f64 = 1.0,
        /// Pairs in a step.
        batch: u64 = 64,
        /// Parts that a step is computed in, one after another: less memory, the same loss.
        accumulate: u64 = 1,
        /// Instead of `accumulate`: most tokens of a part, both replies of a pair counted; 0 does not.
        part_tokens: u64 = 0,
        /// Whether each block is computed twice, so that the activations of one only are held.
        recompute: bool = false,
        /// Low-rank adapters that learn in place of the weights; the head learns with either.
        lora: Option<LowRank>,
        /// Peak learning rate.
        rate: f64 = 1e-4,
        /// Share of the steps over which the rate rises from 0 to its peak.
        warmup: f64 = 0.03,
        /// How the rate goes down after the warm-up.
        schedule: Schedule = Schedule::Cosine,
        /// Share of the peak that the rate falls to.
        floor: f64 = 0.0,
        /// Decay of AdamW's first moment.
        beta1: f64 = 0.9,
        /// Decay of AdamW's second moment.
        beta2: f64 = 0.999,
        /// Added to the root of the second moment.
        eps: f64 = 1e-8,
        /// Decoupled weight decay on matrices; norms do not decay.
        decay: f64 = 0.0,
        /// Largest global gradient norm; 0 does not clip.
        clip: f64 = 1.0,
        /// What becomes of a pair with a reply that is longer than the model's context.
        too_long: LongPair = LongPair::Refuse,
        /// Seconds between checkpoints.
        #[exec]
        checkpoint_seconds: f64 = 15.0,
        /// What becomes of the training when it seems to need more memory than is free.
        #[exec]
        too_large: TooLarge = TooLarge::Refuse,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<TrainReward>("train-reward", "stage", 1, true);

fn sound(train: &TrainReward, node: &Node, cx: &mut Reading) {
    let at = |name: &str| node.at([name]).unwrap_or(node).origin.clone();
    if train.batch == 0 {
        cx.error(&at("batch"), "`batch` must be at least 1");
    } else if train.accumulate == 0 || train.accumulate > train.batch {
        cx.error(&at("accumulate"), "`accumulate` cuts a batch: it is from 1 to `batch`");
    } else if train.accumulate > 1 && train.part_tokens > 0 {
        cx.error(&at("part-tokens"), "either `accumulate` or `part-tokens` cuts a batch");
    }
    if !(0.0..1.0).contains(&train.held_out) {
        cx.error(&at("held-out"), "`held-out` is a share: from 0 to below 1");
    }
}

/// The pairs of a training.
#[derive(Default)]
struct Material {
    seen: Vec<Pair>,
    /// Names of these.
    names: Vec<Arc<str>>,
    held_out: Vec<Pair>,
    counts: PairCounts,
    notes: TextNotes,
}

impl Stage for TrainReward {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("reward".into(), ArtifactKind::Reward), ("log".into(), ArtifactKind::TrainLog)]
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        foresight::rewarded(self.epochs, self.recompute, given)
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let opened = open_device(work.device())?;
        let start = work.input("start")?;
        let files = speaking::tokenizer_files(start)?;
        let (config, tokenizer) = sizes(&start.read("config.json")?, &files)?;
        let pairs = self.pairs(work, &tokenizer, config.max_position_embeddings)?;
        let adapters = match &self.lora {
            Some(lora) => Some(lora.adapters(work, &config, &opened.device)?),
            None => None,
        };
        let learns = adapters.as_ref().map(|adapters| adapters.size() as u64);
        let training = self.training(work.seed(), pairs.seen.len(), adapters);
        let outlook = Outlook::of(&config, &training, &opened, &pairs.seen);
        if self.too_large == TooLarge::Refuse {
            outlook.check(&opened)?;
        }
        let mut watch = Watch::new(work, training.steps, self.checkpoint_seconds, &pairs.names);
        let (reward, weights, progress) = engine::on_threads(work.threads(), || {
            work.progress(0, training.steps, "steps", &outlook.words(&opened));
            outlook.guard(&opened, || {
                let trunk = self.trunk(work, &opened)?;
                let (adapters, seed) = (training.adapters.as_ref(), work.seed().derive("head"));
                let (subject, first) = learner(&trunk, adapters, seed);
                drop(trunk);
                let texts = Texts { seen: &pairs.seen[..], held_out: &pairs.held_out };
                let resume = work.load_checkpoint()?;
                let (weights, progress) =
                    learn(&subject, first, &opened.device, texts, &training, resume, &mut watch)?;
                Ok((RewardModel::of(&subject, &weights), weights, progress))
            })
        })?;
        let judged =
            |pairs: &[Pair]| engine::on_threads(work.threads(), || Self::judge(&reward, pairs));
        let card = RewardCard {
            base: start.digest().to_string(),
            adapters: training.adapters.is_some(),
            pairs: pairs.counts,
            learnt: judged(&pairs.seen).ok_or_else(|| Failure::bug("a training of no pairs"))?,
            held_out: judged(&pairs.held_out),
        };
        if let Some(Judgement { accuracy, loss, .. }) = card.held_out {
            work.metric("held-out-accuracy", accuracy);
            work.metric("held-out-loss", loss);
        }
        work.metric("pairs", pairs.counts.learnt as f64);
        let behind: TrainLog = start.json("train.json")?;
        let log = log(progress, &behind, &pairs, learns);
        work.metric("train-tokens", log.tokens as f64);
        work.output("log").write_json("train.json", &log)?;
        let out = work.output("reward");
        out.write_json("reward.json", &card)?;
        out.write("score.safetensors", &reward.save_head()?)?;
        for (name, bytes) in &files {
            out.write(name, bytes)?;
        }
        match training.adapters {
            Some(mut adapters) => {
                adapters.weights = weights[..weights.len() - 1].to_vec();
                low_rank::write(out, &adapters, &config)
            }
            None => {
                out.write_json("config.json", reward.model.config())?;
                weights::write(&reward.model, &out.path().join("model.safetensors"))
            }
        }
    }
}

fn log(progress: Progress, behind: &TrainLog, pairs: &Material, learns: Option<u64>) -> TrainLog {
    TrainLog {
        steps: progress.step,
        steps_total: behind.steps_total + progress.step,
        examples: pairs.counts.learnt,
        tokens: progress.tokens,
        tokens_supervised: progress.tokens_supervised,
        tokens_total: behind.tokens_total + progress.tokens,
        curve: progress.curve,
        held_out: progress.held_out,
        overlong: None,
        // They are not merged into anything.
        adapters: learns.map(|parameters| AdapterLog { parameters, merge_error: 0.0 }),
        notes: pairs.notes,
    }
}

impl TrainReward {
    fn training(&self, seed: Seed, pairs: usize, adapters: Option<Adapters>) -> Training {
        let order = Order::new(seed, pairs, self.batch as usize);
        let steps = (order.steps_per_epoch() as f64 * self.epochs).round() as u64;
        Training {
            optimizer: AdamW {
                rate: self.rate,
                warmup: self.warmup,
                schedule: self.schedule,
                floor: self.floor,
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                decay: self.decay,
                clip: self.clip,
            },
            batch: self.batch as usize,
            pieces: match self.part_tokens {
                0 => Pieces::Count(self.accumulate as usize),
                tokens => Pieces::Tokens(tokens as usize),
            },
            recompute: self.recompute,
            adapters,
            steps,
            validate_every: steps.div_ceil(VALIDATIONS).max(1),
            seed: seed.derive("order"),
            dropout: seed.derive("dropout"),
        }
    }

    /// The model below the head. What stays as it is may be kept rounded.
    fn trunk(&self, work: &Work, opened: &Opened) -> Outcome<Llama> {
        let start = work.input("start")?;
        let (config, _) = sizes(&start.read("config.json")?, &speaking::tokenizer_files(start)?)?;
        let kept = if self.lora.is_some() { opened.precision } else { Precision::F32 };
        let model = weights::read(config, &start.file("model.safetensors")?, &opened.device, kept)?;
        Ok(model.without_output().computing_in(opened.precision))
    }

    /// Pairs to learn from and pairs to be held out.
    fn pairs(&self, work: &Work, tokenizer: &Tokenizer, context: usize) -> Outcome<Material> {
        let mut found = Material::default();
        let dialogues: Vec<Dialogue> = work.input("dialogues")?.rows("dialogues.jsonl")?;
        let mut pairs = self.paired(tokenizer, &dialogues, context, &mut found)?;
        if let Some(other) = work.optional_input("validate") {
            let dialogues: Vec<Dialogue> = other.rows("dialogues.jsonl")?;
            let scored = self.paired(tokenizer, &dialogues, context, &mut found)?;
            found.held_out = scored.into_iter().map(|(_, pair)| pair).collect();
        } else {
            work.seed().derive("held-out").rng().shuffle(&mut pairs);
            let left = pairs.len() - (pairs.len() as f64 * self.held_out).floor() as usize;
            found.held_out = pairs.split_off(left).into_iter().map(|(_, pair)| pair).collect();
        }
        (found.names, found.seen) = pairs.into_iter().unzip();
        let counts = &mut found.counts;
        (counts.learnt, counts.held_out) = (found.seen.len() as u64, found.held_out.len() as u64);
        let PairCounts { dialogues, unrefined, same, overlong, .. } = *counts;
        let what = format!(
            "of {dialogues} dialogues {unrefined} have no refined reply, in {same} it is the same, \
             and {overlong} are longer than the model's context of {context} tokens"
        );
        if overlong > 0 && self.too_long == LongPair::Refuse {
            return Err(Failure::input(what).hint("`too-long = \"drop\"` leaves the long ones out"));
        }
        if found.seen.is_empty() {
            return Err(Failure::input(format!("there is no pair to learn from: {what}"))
                .hint("`differ = \"text\"` takes pairs whose answers are the same, too"));
        }
        if overlong > 0 {
            work.warn(what);
        }
        found.notes.warnings().into_iter().for_each(|warning| work.warn(warning));
        Ok(found)
    }

    /// The pairs of dialogues, with what names them.
    fn paired(
        &self,
        tokenizer: &Tokenizer,
        dialogues: &[Dialogue],
        context: usize,
        found: &mut Material,
    ) -> Outcome<Vec<(Arc<str>, Pair)>> {
        let (counts, mut pairs) = (&mut found.counts, Vec::with_capacity(dialogues.len()));
        counts.dialogues += dialogues.len() as u64;
        for dialogue in dialogues {
            let Some(refined) = &dialogue.refined else {
                counts.unrefined += 1;
                continue;
            };
            if !self.differs(dialogue, refined) {
                counts.same += 1;
                continue;
            }
            let prompt = self.protocol.question_prompt(&dialogue.problem);
            let mut ids = |reply: &str| {
                let encoded = encode(tokenizer, &prompt, Some(reply))?;
                found.notes += encoded.notes;
                Outcome::Ok(encoded.ids)
            };
            let pair = Pair { chosen: ids(refined)?, rejected: ids(&dialogue.reply)? };
            if pair.chosen.len().max(pair.rejected.len()) > context {
                counts.overlong += 1;
                continue;
            }
            pairs.push((dialogue.problem.id.as_str().into(), pair));
        }
        Ok(pairs)
    }

    fn differs(&self, dialogue: &Dialogue, refined: &str) -> bool {
        let text = dialogue.reply.trim() != refined.trim();
        let read = |text: &str| answer::extract(&self.protocol, &dialogue.problem, text);
        match (self.differ, read(&dialogue.reply), read(refined)) {
            (Differ::Text, ..) | (_, None, None) => text,
            (Differ::Answer, first, second) => first != second,
        }
    }

    /// What a reward model says of pairs.
    fn judge(reward: &RewardModel, pairs: &[Pair]) -> Option<Judgement> {
        let texts: Vec<&[u32]> =
            pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
        let scores = reward.scores(&texts, SCORED);
        Judgement::of(scores.as_chunks::<2>().0, |pair| bradley_terry(pair[0], pair[1]).loss)
    }
}
