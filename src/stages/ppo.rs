//! Kind `ppo`: problems, a model and a reward model -> a model whose replies the
//! reward model scores higher, and which stays near the one it was.
//! Randomness: the order of problems, the sampling of replies (one seed for each),
//! the order of minibatches, the start of adapters.
//!
//! One frozen model is policy, reference and, where it started there, the reward
//! model too, each with adapters of its own or none. Gold answers are not looked
//! at.
//!
//! # Source
//! Schulman et al., arXiv 1707.06347; Stiennon et al., arXiv 2009.01325; Ouyang et
//! al., arXiv 2203.02155. Where a default is not theirs, the field says whose.

use crate::base::artifact::{ArtifactKind, Model, Problems, Reward};
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, spec};
use crate::base::text;
use crate::engine::batch::{Batch, Sequence};
use crate::engine::config::LlamaConfig;
use crate::engine::device::{Opened, within_memory};
use crate::engine::estimate::{self, Part, Plan};
use crate::engine::lora::{Adapters, Lora};
use crate::engine::model::Llama;
use crate::engine::ops::Precision;
use crate::engine::optimizer::{AdamW, Schedule};
use crate::engine::ppo::{Clipping, Ppo as Asked, Progress, Watcher, ppo};
use crate::engine::preference::Divergence;
use crate::engine::reward::{RewardModel, load_head};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::train::{Snapshot, Wish};
use crate::engine::{self, peft, weights};
use crate::inference::local::{open_device, sizes};
use crate::inference::prompting::encode;
use crate::record::protocol::Protocol;
use crate::record::reward::{PpoBatch, RewardCard};
use crate::record::{AdapterLog, Problem, TextNotes, TrainLog};
use crate::stages::fitting::TooLarge;
use crate::stages::kind::{Kind, Stage};
use crate::stages::low_rank::{self, LowRank};
use crate::stages::speaking::{self, BATCH};
use crate::stages::train_reward::SCORED;
use crate::stages::watching::Pace;
use crate::stages::work::Work;
use crate::store::artifact::Artifact;

/// Prompts whose logits tell what merging adapters costs.
const MERGE_PROBE: usize = 8;

spec! {
    /// Proximal policy optimization: lets a model write replies, has a reward model score them, and
    /// trains adapters and a value head on them, at a cost for every nat that the replies diverge
    /// from those of the model before. The adapters are the output `adapter`, and are merged into
    /// the output `model`; `log` has a row for every batch.
    #[check(sound)]
    pub struct Ppo {
        /// Model to start from; as it is, it is the reference.
        start: Ref<Model>,
        /// What scores replies.
        reward: Ref<Reward>,
        /// The model that the reward model's adapters belong to, where that is not `start`. It is
        /// in memory beside it.
        reward_base: Option<Ref<Model>>,
        /// Problems to answer; their gold answers are not looked at.
        problems: Ref<Problems>,
        /// Texts.
        protocol: Use<Protocol>,
        /// Batches of replies.
        batches: u64 = 100,
        /// Replies of a batch, each to another problem (trlx: 128).
        batch: u64 = 128,
        /// Passes over a batch.
        epochs: u64 = 4,
        /// Optimizer steps of a pass (trlx: 4).
        minibatches: u64 = 4,
        /// Most tokens of a reply.
        max_tokens: u64 = 16,
        /// Softmax temperature that replies are sampled and judged at.
        temperature: f64 = 1.0,
        /// How far a token's ratio of probabilities may be from 1 (ε).
        clip_range: f64 = 0.2,
        /// How far a value may be from the value before.
        value_clip_range: f64 = 0.2,
        /// Weight of the value loss (trl: 0.1).
        value_weight: f64 = 0.1,
        /// Discount of later rewards (γ).
        gamma: f64 = 1.0,
        /// From advantages of one token (0) to those of the whole reply (1) (λ).
        lambda: f64 = 0.95,
        /// Whether advantages are whitened over a batch.
        whiten: bool = true,
        /// What a nat of divergence from the reference costs, in scores (trl: 0.05).
        kl: f64 = 0.05,
        /// Nats a reply that the cost leads the divergence to; 0 leaves the cost as it is.
        kl_target: f64 = 0.0,
        /// How fast it does so: the cost's relative change for an error of 100 %, of which 20 %
        /// count at most in a batch (Ziegler et al., arXiv 1909.08593, section 2.2).
        kl_gain: f64 = 0.1,
        /// Scores are held within this distance of the mean score of the better replies that the
        /// reward model learnt from, which counts as 0; 0 does not hold them (trlx: 10).
        score_clip: f64 = 10.0,
        /// What is taken from the score of a reply that does not end.
        missing_end_penalty: f64 = 0.0,
        /// Adapters that learn; without the table those of its defaults.
        lora: Option<LowRank>,
        /// Most tokens that are computed at a time.
        part_tokens: u64 = 4096,
        /// Whether each block is computed twice, so that the activations of one only are held.
        recompute: bool = false,
        /// Peak learning rate (trlx: 3e-5).
        rate: f64 = 3e-5,
        /// Share of the steps over which the rate rises from 0 to its peak.
        warmup: f64 = 0.0,
        /// How the rate goes down after the warm-up.
        schedule: Schedule = Schedule::Constant,
        /// Share of the peak that the rate falls to.
        floor: f64 = 0.0,
        /// Decay of AdamW's first moment.
        beta1: f64 = 0.9,
        /// Decay of AdamW's second moment (trlx: 0.95).
        beta2: f64 = 0.95,
        /// Added to the root of the second moment.
        eps: f64 = 1e-8,
        /// Decoupled weight decay on matrices.
        decay: f64 = 0.0,
        /// Largest global gradient norm; 0 does not clip.
        clip: f64 = 1.0,
        /// Seconds between checkpoints, which are taken between batches.
        #[exec]
        checkpoint_seconds: f64 = 15.0,
        /// What becomes of the training when it seems to need more memory than is free.
        #[exec]
        too_large: TooLarge = TooLarge::Refuse,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Ppo>("ppo", "stage", 1, true);

fn sound(spec: &Ppo, node: &Node, cx: &mut Reading) {
    let mut complain = |name: &str, what: &str| {
        let at = node.at([name]).unwrap_or(node);
        cx.error(&at.origin, format!("`{name}` {what}"));
    };
    for (name, count) in [
        ("batches", spec.batches),
        ("batch", spec.batch),
        ("epochs", spec.epochs),
        ("max-tokens", spec.max_tokens),
        ("part-tokens", spec.part_tokens),
    ] {
        if count == 0 {
            complain(name, "must be at least 1");
        }
    }
    if spec.minibatches == 0 || spec.minibatches > spec.batch {
        complain("minibatches", "cuts a batch: it is from 1 to `batch`");
    }
    if spec.temperature.is_nan() || spec.temperature <= 0.0 {
        complain("temperature", "must be above 0: greedy replies teach nothing");
    }
    for (name, share) in [("gamma", spec.gamma), ("lambda", spec.lambda)] {
        if !(0.0..=1.0).contains(&share) {
            complain(name, "is from 0 to 1");
        }
    }
    for (name, range) in [
        ("clip-range", spec.clip_range),
        ("value-clip-range", spec.value_clip_range),
        ("value-weight", spec.value_weight),
        ("kl", spec.kl),
        ("kl-target", spec.kl_target),
        ("kl-gain", spec.kl_gain),
        ("score-clip", spec.score_clip),
    ] {
        if !(0.0..f64::INFINITY).contains(&range) {
            complain(name, "is a finite number and not below 0");
        }
    }
    if spec.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
        complain(
            "lora",
            "has a `dropout`: the ratio of probabilities would differ from 1 by chance",
        );
    }
}

impl Stage for Ppo {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![
            ("model".into(), ArtifactKind::Model),
            ("log".into(), ArtifactKind::TrainLog),
            ("adapter".into(), ArtifactKind::Files),
        ]
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let opened = open_device(work.device())?;
        let start = work.input("start")?;
        let files = speaking::tokenizer_files(start)?;
        let (config, tokenizer) = sizes(&start.read("config.json")?, &files)?;
        let prompts = self.prompts(work, &tokenizer, config.max_position_embeddings)?;
        let lora = match &self.lora {
            Some(lora) => lora.adapters(work, &config, &opened.device)?,
            None => {
                let seed = work.seed().derive("lora");
                Adapters::fresh(Lora::default(), &config, seed, &opened.device)
            }
        };
        let asked = self.asked(work, &config, &lora, &opened, &prompts.0, tokenizer.end())?;
        let run = || -> Outcome<(Adapters, Progress)> {
            let trunk = read(start, &opened)?;
            let (reward, zero) = self.reward_model(work, &trunk, &opened)?;
            let judge = |texts: &[&[u32]]| -> Vec<f64> {
                reward.scores(texts, SCORED).into_iter().map(|score| score - zero).collect()
            };
            let pace = Pace::new(self.checkpoint_seconds);
            let mut watch = Watch { work, total: self.batches, pace, said: String::new() };
            ppo(&trunk, &lora, &prompts.0, &judge, &asked, work.load_checkpoint()?, &mut watch)
        };
        engine::on_threads(work.threads(), || {
            let came = within_memory(run).unwrap_or_else(|why| {
                Err(Failure::environment(format!("{} ran out of memory", opened.name))
                    .hint("a smaller `part-tokens`, `recompute = true` or a smaller `batch` need less")
                    .caused_by(why))
            })?;
            self.write(work, &config, &opened, &prompts, came)
        })
    }
}

/// A stored model as one that does not learn.
fn read(artifact: &Artifact, opened: &Opened) -> Outcome<Llama> {
    let config = LlamaConfig::from_json(&artifact.read("config.json")?, "`config.json`")?;
    let weights = artifact.file("model.safetensors")?;
    weights::read(config, &weights, &opened.device, opened.precision)
}

impl Ppo {
    /// What the engine is asked to do, in the memory that is free.
    fn asked(
        &self,
        work: &Work,
        config: &LlamaConfig,
        adapters: &Adapters,
        opened: &Opened,
        prompts: &[Vec<u32>],
        end: u32,
    ) -> Outcome<Asked> {
        Ok(Asked {
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
            clipping: Clipping {
                clip: self.clip_range,
                value_clip: self.value_clip_range,
                value_weight: self.value_weight,
                discount: self.gamma,
                lambda: self.lambda,
                temperature: self.temperature,
            },
            divergence: Divergence {
                coefficient: self.kl,
                target: Some(self.kl_target).filter(|&target| target > 0.0),
                gain: self.kl_gain,
            },
            batches: self.batches,
            batch: self.batch as usize,
            epochs: self.epochs,
            minibatches: self.minibatches as usize,
            whiten: self.whiten,
            score_clip: self.score_clip,
            unfinished: self.missing_end_penalty,
            max_tokens: self.max_tokens as usize,
            side_by_side: self.side_by_side(work, config, adapters, opened, prompts)?,
            part_tokens: self.part_tokens as usize,
            recompute: self.recompute,
            end,
            seed: work.seed(),
        })
    }

    /// How many replies are written side by side.
    ///
    /// # Errors
    /// `Environment` when not even one fits, or the training does not.
    fn side_by_side(
        &self,
        work: &Work,
        config: &LlamaConfig,
        adapters: &Adapters,
        opened: &Opened,
        prompts: &[Vec<u32>],
    ) -> Outcome<usize> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let tokens = self.part_tokens;
        let part = Part { tokens, targets: tokens, squares: tokens * (longest + self.max_tokens) };
        let plan = Plan {
            config,
            precision: opened.precision,
            fused: opened.is_fused(),
            lora: Some(&adapters.lora),
            recompute: self.recompute,
            in_parts: true,
            part,
        };
        // The plan is of a training in f32; the frozen models are kept as products need them.
        let model = estimate::model(config, opened.precision);
        let own = plan.memory().peak - estimate::model(config, Precision::F32);
        let card: RewardCard = work.input("reward")?.json("reward.json")?;
        let shared = card.adapters && card.base == work.input("start")?.digest().to_string();
        let models = if shared { model } else { 2 * model };
        let speaking = |slots: u64| {
            let capacity = longest + self.max_tokens;
            estimate::speaking(config, opened.precision, slots, capacity, slots * longest)
        };
        let Some(free) = opened.free_memory() else { return Ok(BATCH) };
        let fewer = std::iter::successors(Some(BATCH), |n| Some(n / 2).filter(|&n| n > 0));
        let fits = |slots: &usize| models + own.max(speaking(*slots as u64)) <= free;
        match fewer.into_iter().find(fits) {
            Some(slots) => Ok(slots),
            None if self.too_large == TooLarge::Try => Ok(1),
            None => {
                let [needed, models, free] =
                    [models + own.max(speaking(1)), models, free].map(text::bytes);
                Err(Failure::environment(format!(
                    "this training needs about {needed} of memory, and {free} are free on {}",
                    opened.name
                ))
                .hint(format!(
                    "{models} are of frozen models; a smaller `part-tokens` and `recompute = true` \
                     need less beside them, `too-large = \"try\"` begins anyway"
                )))
            }
        }
    }

    /// Prompts of all problems, each with room for a reply.
    fn prompts(
        &self,
        work: &Work,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Outcome<(Vec<Vec<u32>>, TextNotes)> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let (mut prompts, mut notes) = (Vec::with_capacity(problems.len()), TextNotes::default());
        for problem in &problems {
            let encoded = encode(tokenizer, &self.protocol.question_prompt(problem), None)?;
            let needed = encoded.ids.len() + self.max_tokens as usize;
            if needed > context {
                return Err(Failure::input(format!(
                    "problem `{}` and a reply need {needed} tokens; the model's context holds \
                     {context}",
                    problem.id
                ))
                .hint("lower `max-tokens`, or leave long problems out where they are fetched"));
            }
            notes += encoded.notes;
            prompts.push(encoded.ids);
        }
        if prompts.is_empty() {
            return Err(Failure::input("there is no problem to answer: `problems` is empty"));
        }
        for warning in notes.warnings() {
            work.warn(format!("prompts: {warning}"));
        }
        Ok((prompts, notes))
    }

    /// The reward model, beside the trunk where it started there; and the score
    /// that counts as 0.
    fn reward_model(
        &self,
        work: &Work,
        trunk: &Llama,
        opened: &Opened,
    ) -> Outcome<(RewardModel, f64)> {
        let (start, reward) = (work.input("start")?, work.input("reward")?);
        let card: RewardCard = reward.json("reward.json")?;
        if speaking::tokenizer_files(start)? != speaking::tokenizer_files(reward)? {
            return Err(Failure::input("`reward` reads other tokens than `start` writes")
                .hint("train it from `start`, or from a model with the same tokenizer"));
        }
        let is_base = |one: &&Artifact| one.digest().to_string() == card.base;
        let model = if !card.adapters {
            read(reward, opened)?
        } else {
            let base = if is_base(&start) {
                trunk.clone()
            } else {
                let other = work.optional_input("reward-base").filter(is_base);
                let missing = || {
                    Failure::input(format!(
                        "the adapters of `reward` belong to the model {}, which is neither `start` \
                         nor `reward-base`",
                        &card.base[..card.base.len().min(12)]
                    ))
                    .hint("give `reward-base` the model that `train-reward` started from")
                };
                read(other.ok_or_else(missing)?, opened)?
            };
            let (settings, tensors) = (reward.read(peft::SETTINGS)?, reward.read(peft::TENSORS)?);
            let adapters = peft::load(&settings, &tensors, base.config(), &opened.device)?;
            adapters.attach(base.without_output(), None)
        };
        let head = load_head(
            &reward.read("score.safetensors")?,
            "`score.safetensors` of `reward`",
            model.config().hidden_size,
            &opened.device,
        )?;
        Ok((RewardModel { model: model.computing_in(opened.precision), head }, card.learnt.chosen))
    }

    fn write(
        &self,
        work: &Work,
        config: &LlamaConfig,
        opened: &Opened,
        (prompts, notes): &(Vec<Vec<u32>>, TextNotes),
        (adapters, progress): (Adapters, Progress),
    ) -> Outcome<()> {
        let start = work.input("start")?;
        let path = start.file("model.safetensors")?;
        // Merged in f32, whatever the products were rounded to, and rounded by nobody.
        let base = weights::read(config.clone(), &path, &opened.device, Precision::F32)?;
        let merged = adapters.merge(&base);
        let probe: Vec<Sequence> = prompts
            .iter()
            .filter(|ids| ids.len() > 1)
            .take(MERGE_PROBE)
            .map(|ids| Sequence { ids: ids.clone(), first_target: 1, weight: 1.0, skipped: vec![] })
            .collect();
        let merge_error = match probe.is_empty() {
            true => 0.0,
            false => adapters.merge_error(&base, &merged, &Batch::pack(&probe)),
        };
        let behind: TrainLog = start.json("train.json")?;
        let log = TrainLog {
            steps: progress.step,
            steps_total: behind.steps_total + progress.step,
            examples: prompts.len() as u64,
            tokens: progress.tokens,
            tokens_supervised: progress.tokens_supervised,
            tokens_total: behind.tokens_total + progress.tokens,
            curve: progress.batches.iter().map(|one| (one.steps, one.loss)).collect(),
            held_out: Vec::new(),
            overlong: None,
            adapters: Some(AdapterLog { parameters: adapters.size() as u64, merge_error }),
            notes: *notes,
        };
        if let (Some(first), Some(last)) = (progress.batches.first(), progress.batches.last()) {
            work.metric("score-first", first.score);
            work.metric("score-last", last.score);
            work.metric("kl-last", last.kl);
        }
        work.metric("train-tokens", log.tokens as f64);
        work.output("log").write_json("train.json", &log)?;
        work.output("log").write_json("ppo.json", &progress.batches)?;
        low_rank::write(work.output("adapter"), &adapters, config)?;
        let out = work.output("model");
        out.write_json("config.json", merged.config())?;
        weights::write(&merged, &out.path().join("model.safetensors"))?;
        for (name, bytes) in &speaking::tokenizer_files(start)? {
            out.write(name, bytes)?;
        }
        out.write_json("train.json", &log)
    }
}

/// Reports batches, keeps checkpoints, hears the wish to stop.
struct Watch<'a> {
    work: &'a Work<'a>,
    total: u64,
    pace: Pace,
    /// What is known of the last batch.
    said: String,
}

impl Watcher for Watch<'_> {
    fn goes_on(&mut self, batch: u64, doing: &str) -> Outcome<()> {
        let note = format!("{}{doing}", self.said);
        self.work.progress(batch, self.total, "batches", &note);
        self.work.check()
    }

    fn batch(&mut self, done: &PpoBatch) -> Wish {
        let PpoBatch { batch, score, kl, clip_fraction, .. } = *done;
        let clipped = 100.0 * clip_fraction;
        self.said = format!("reward {score:.3}, KL {kl:.3}, clipped {clipped:.1} %; ");
        self.work.progress(batch, self.total, "batches", self.said.trim_end_matches("; "));
        if batch == self.total {
            Wish::Continue
        } else if self.work.stopping() {
            Wish::Stop
        } else if self.pace.is_due() {
            Wish::Snapshot
        } else {
            Wish::Continue
        }
    }

    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()> {
        self.work.save_checkpoint(&snapshot).doing(|| "keeping a checkpoint".into())
    }
}
