//! Kind `train`: examples and a start -> a checkpoint and a log. The loss is
//! taken on completions only. Randomness: the order of examples, the weights of
//! a random start, the start of adapters and what they leave out.
//!
//! Whether a round restarts from the base or goes on from the last round is
//! the reference in `start`; whether a control arm gets as many steps as
//! another one is `match-steps`.

use crate::base::artifact::{
    ArtifactKind, Examples, Model, Tokenizer as TokenizerArtifact, TrainLog as Log,
};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::base::text;
use crate::engine::batch::{Order, Pieces, Sequence};
use crate::engine::config::LlamaConfig;
use crate::engine::device::Opened;
use crate::engine::model::Llama;
use crate::engine::ops::Precision;
use crate::engine::optimizer::{AdamW, Schedule};
use crate::engine::tokenizer::{Files, Tokenizer};
use crate::engine::train::{Texts, Trained, Training, train};
use crate::engine::{self, weights};
use crate::inference::local::{open_device, sizes};
use crate::inference::prompting::sequence;
use crate::record::{AdapterLog, Example, Overlong, TextNotes, TrainLog};
use crate::stages::architecture::Architecture;
use crate::stages::fitting::{self, Outlook, TooLarge};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Need, Outlay, Stage};
use crate::stages::low_rank::{self, LowRank};
use crate::stages::speaking;
use crate::stages::watching::Watch;
use crate::stages::work::Work;
use std::sync::Arc;

/// Held-out losses of a training, if the manifest does not say how many.
const VALIDATIONS: u64 = 10;

spec! {
    /// A set of examples in a mixture.
    #[shorthand(from)]
    pub struct Share {
        /// The examples.
        from: Ref<Examples>,
        /// How often each of them is seen in one epoch.
        repeat: u64 = 1,
        /// Weight of each of their tokens in the loss, against 1 for another's. The loss of a step
        /// is the weighted sum over its tokens by their number, so a weight is that of a term of
        /// the loss.
        weight: f64 = 1.0,
    }
}

choice! {
    /// What becomes of an example that is longer than the model's context.
    pub enum TooLong {
        /// The training does not begin.
        Refuse = "refuse",
        /// It is left out; how many were is in the log.
        Drop = "drop",
        /// Its completion loses its end, or it is left out where its prompt fills the context; how
        /// many were is in the log.
        Cut = "cut",
    }
}

spec! {
    /// Trains a LLaMA on examples, from a checkpoint or from a random start, with AdamW, a linear
    /// warm-up and a cosine. The loss is the mean over all completion tokens of a step. The sets in
    /// `data` are shuffled together. With `lora`, adapters learn in place of the weights: they are
    /// the output `adapter`, and are merged into the output `model`.
    #[check(one_start)]
    pub struct Train {
        /// Sets of examples, each a reference or `{ from = .., repeat = n, weight = w }`.
        data: Vec<Share>,
        /// Checkpoint to start from.
        start: Option<Ref<Model>>,
        /// Shape of a model to start from nothing.
        model: Option<Use<Architecture>>,
        /// Vocabulary of a model that starts from nothing.
        tokenizer: Option<Ref<TokenizerArtifact>>,
        /// Passes over the data.
        epochs: f64 = 3.0,
        /// Instead of `epochs`: as many optimizer steps as these trainings took together.
        match_steps: Vec<Ref<Log>> = Vec::new(),
        /// Sequences in a step.
        batch: u64 = 8,
        /// Parts that a step is computed in, one after another: less memory, the same loss. Every
        /// token of the step counts the same, in whichever part it is.
        accumulate: u64 = 1,
        /// Instead of `accumulate`: most tokens of a part. The sequences of a step are packed by
        /// length, the longest first, into as few parts as that takes; 0 does not.
        part_tokens: u64 = 0,
        /// Whether each block is computed twice, so that the activations of one only are held: less
        /// memory, more time, the same gradients.
        recompute: bool = false,
        /// Low-rank adapters that learn in place of the weights.
        lora: Option<LowRank>,
        /// Peak learning rate.
        rate: f64 = 1.5e-3,
        /// Share of the steps over which the rate rises from 0 to its peak.
        warmup: f64 = 0.05,
        /// How the rate goes down after the warm-up.
        schedule: Schedule = Schedule::Cosine,
        /// Share of the peak that the rate falls to.
        floor: f64 = 0.05,
        /// Decay of AdamW's first moment.
        beta1: f64 = 0.9,
        /// Decay of AdamW's second moment.
        beta2: f64 = 0.98,
        /// Added to the root of the second moment.
        eps: f64 = 1e-8,
        /// Decoupled weight decay on matrices; norms do not decay.
        decay: f64 = 0.01,
        /// Largest global gradient norm; 0 does not clip.
        clip: f64 = 1.0,
        /// What becomes of an example that is longer than the model's context.
        too_long: TooLong = TooLong::Refuse,
        /// Examples whose loss is taken now and then and written to the log. They change nothing.
        validate: Option<Ref<Examples>>,
        /// Steps between two such losses; 0 gives ten over the training. The first is taken before
        /// the first step, the last after the last.
        validate_every: u64 = 0,
        /// Seconds between checkpoints.
        #[exec]
        checkpoint_seconds: f64 = 15.0,
        /// What becomes of the training when it seems to need more memory than is free.
        #[exec]
        too_large: TooLarge = TooLarge::Refuse,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Train>("train", "stage", 1, true);

fn one_start(train: &Train, node: &Node, cx: &mut Reading) {
    let complaint = match (&train.start, &train.model, &train.tokenizer) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => None,
        (Some(_), ..) => Some("`start` already brings a model and its tokenizer"),
        (None, Some(_), None) => Some("a model that starts from nothing needs a `tokenizer`"),
        (None, ..) => Some("either `start`, or `model` and `tokenizer` must be given"),
    };
    if let Some(complaint) = complaint {
        cx.error(&node.origin, complaint);
    }
    if let Some(model) = &train.model
        && let Err(complaint) = model.config(1)
    {
        cx.error(&node.origin, complaint);
    }
    if train.batch == 0 {
        cx.error(&node.origin, "`batch` must be at least 1");
    } else if train.accumulate == 0 || train.accumulate > train.batch {
        cx.error(&node.origin, "`accumulate` cuts a batch: it is from 1 to `batch`");
    } else if train.accumulate > 1 && train.part_tokens > 0 {
        cx.error(&node.origin, "either `accumulate` or `part-tokens` cuts a batch");
    }
    if train.data.iter().any(|share| !(0.0..=f64::from(f32::MAX)).contains(&share.weight)) {
        cx.error(&node.origin, "a `weight` in `data` is below 0 or beyond all measure");
    }
    if train.lora.is_some() && train.start.is_none() {
        cx.error(&node.origin, "`lora` adapts a trained model: it needs a `start`");
    }
    if train.validate.is_none() && train.validate_every > 0 {
        cx.error(&node.origin, "`validate-every` without `validate` has nothing to look at");
    }
}

/// Where a training starts, before its weights are there.
struct Start {
    config: LlamaConfig,
    tokenizer: Tokenizer,
    tokenizer_files: Files,
    /// Totals of the trainings behind it: steps, tokens.
    behind: (u64, u64),
}

impl Stage for Train {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        let mut outputs =
            vec![("model".into(), ArtifactKind::Model), ("log".into(), ArtifactKind::TrainLog)];
        if self.lora.is_some() {
            outputs.push(("adapter".into(), ArtifactKind::Files));
        }
        outputs
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn needs(&self) -> Option<Need> {
        fitting::at_most(self.model.as_ref()?, self.batch, self.pieces(), self.recompute)
    }

    fn outlay(&self) -> Outlay {
        // Two checkpoints and one in the making, each with weights and two moments of them.
        let checkpoints = if self.lora.is_some() { 0 } else { 9 };
        let bytes = self.model.as_ref().and_then(|model| fitting::stored(model));
        Outlay { bytes, checkpoints, ..Outlay::default() }
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        foresight::trained(self, given)
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let opened = open_device(work.device())?;
        let Start { config, tokenizer, tokenizer_files, behind } = self.start(work)?;
        let texts = self.texts(work, &tokenizer, config.max_position_embeddings)?;
        let steps = self.steps(work, texts.seen.len())?;
        let adapters = match &self.lora {
            Some(lora) => Some(lora.adapters(work, &config, &opened.device)?),
            None => None,
        };
        let training = Training {
            optimizer: self.optimizer(),
            batch: self.batch as usize,
            pieces: self.pieces(),
            recompute: self.recompute,
            adapters,
            steps,
            validate_every: match self.validate_every {
                0 => steps.div_ceil(VALIDATIONS).max(1),
                every => every,
            },
            seed: work.seed().derive("order"),
            dropout: work.seed().derive("dropout"),
        };
        let outlook = Outlook::of(&config, &training, &opened, &texts.seen);
        if self.too_large == TooLarge::Refuse {
            outlook.check(&opened)?;
        }
        let mut watch = Watch::new(work, training.steps, self.checkpoint_seconds, &texts.names);
        let Trained { model, adapters, progress } = engine::on_threads(work.threads(), || {
            work.progress(0, training.steps, "steps", &outlook.words(&opened));
            let texts = Texts { seen: &texts.seen, held_out: &texts.held_out };
            outlook.guard(&opened, || {
                let model = self.model(work, &config, &opened)?;
                train(model, texts, &training, work.load_checkpoint()?, &mut watch)
            })
        })?;
        let log = TrainLog {
            steps: progress.step,
            steps_total: behind.0 + progress.step,
            examples: texts.distinct,
            tokens: progress.tokens,
            tokens_supervised: progress.tokens_supervised,
            tokens_total: behind.1 + progress.tokens,
            curve: progress.curve,
            held_out: progress.held_out,
            overlong: Some(texts.overlong).filter(|overlong| *overlong != Overlong::default()),
            adapters: adapters.as_ref().map(|(adapters, merge_error)| AdapterLog {
                parameters: adapters.size() as u64,
                merge_error: *merge_error,
            }),
            // Word vocabularies came first: their logs, and so the digests of all that is made
            // of them, stay what they were. Warnings are given for them as for the others.
            notes: if tokenizer.is_of_words() { TextNotes::default() } else { texts.notes },
        };
        work.metric("train-tokens", log.tokens as f64);
        work.metric("steps", log.steps as f64);
        work.output("log").write_json("train.json", &log)?;
        if let Some((adapters, _)) = &adapters {
            low_rank::write(work.output("adapter"), adapters, &config)?;
        }
        let out = work.output("model");
        out.write_json("config.json", model.config())?;
        weights::write(&model, &out.path().join("model.safetensors"))?;
        for (name, bytes) in &tokenizer_files {
            out.write(name, bytes)?;
        }
        out.write_json("train.json", &log)
    }
}

impl Train {
    fn start(&self, work: &Work) -> Outcome<Start> {
        if let Some(artifact) = work.optional_input("start") {
            let tokenizer_files = speaking::tokenizer_files(artifact)?;
            let (config, tokenizer) = sizes(&artifact.read("config.json")?, &tokenizer_files)?;
            let log: TrainLog = artifact.json("train.json")?;
            let behind = (log.steps_total, log.tokens_total);
            return Ok(Start { config, tokenizer, tokenizer_files, behind });
        }
        let tokenizer_files = speaking::tokenizer_files(work.input("tokenizer")?)?;
        let tokenizer = Tokenizer::from_files(&tokenizer_files)?;
        let config = self.shape()?.config(tokenizer.size()).map_err(Failure::input)?;
        Ok(Start { config, tokenizer, tokenizer_files, behind: (0, 0) })
    }

    fn shape(&self) -> Outcome<&Use<Architecture>> {
        self.model.as_ref().ok_or_else(|| Failure::bug("a start from nothing has no shape"))
    }

    /// The model that it starts with.
    fn model(&self, work: &Work, config: &LlamaConfig, opened: &Opened) -> Outcome<Llama> {
        let (config, device) = (config.clone(), &opened.device);
        let model = match work.optional_input("start") {
            Some(artifact) => {
                let weights = artifact.file("model.safetensors")?;
                weights::read(config, &weights, device, Precision::F32)?
            }
            None => {
                let seed = work.seed().derive("init");
                Llama::random(config, self.shape()?.init_std, seed, device)
            }
        };
        Ok(model.computing_in(opened.precision))
    }

    fn pieces(&self) -> Pieces {
        match self.part_tokens {
            0 => Pieces::Count(self.accumulate as usize),
            tokens => Pieces::Tokens(tokens as usize),
        }
    }

    fn optimizer(&self) -> AdamW {
        AdamW {
            rate: self.rate,
            warmup: self.warmup,
            schedule: self.schedule,
            floor: self.floor,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            decay: self.decay,
            clip: self.clip,
        }
    }

    /// All sequences, repeats included, as the context allows.
    fn texts(&self, work: &Work, tokenizer: &Tokenizer, context: usize) -> Outcome<Material> {
        let mut fitting = Fitting { policy: self.too_long, context, long: Vec::new(), seen: 0 };
        let mut material = Material::default();
        for (share, artifact) in self.data.iter().zip(work.inputs("data")) {
            let rows: Vec<Example> = artifact.rows("examples.jsonl")?;
            let mut set = Vec::with_capacity(rows.len());
            for row in rows {
                let (sequence, noted) = sequence(tokenizer, &row)?;
                material.notes += noted;
                let sequence = Sequence { weight: share.weight as f32, ..sequence };
                set.extend(fitting.fit(&row.id, sequence, &mut material.overlong));
            }
            material.distinct += set.len() as u64;
            for _ in 0..share.repeat {
                material.seen.extend(set.iter().map(|(_, sequence)| sequence.clone()));
                material.names.extend(set.iter().map(|(name, _)| name.clone()));
            }
        }
        if let Some(artifact) = work.optional_input("validate") {
            for row in artifact.rows::<Example>("examples.jsonl")? {
                let (sequence, noted) = sequence(tokenizer, &row)?;
                material.notes += noted;
                let fits = fitting.fit(&row.id, sequence, &mut material.overlong);
                material.held_out.extend(fits.map(|(_, sequence)| sequence));
            }
            if material.held_out.is_empty() {
                return Err(Failure::input("`validate` holds no example to take a loss on"));
            }
        }
        fitting.report(work, &material.overlong)?;
        if material.seen.is_empty() {
            return Err(Failure::input(
                "there is nothing to train on: all sets in `data` are empty",
            ));
        }
        material.notes.warnings().into_iter().for_each(|warning| work.warn(warning));
        Ok(material)
    }

    fn steps(&self, work: &Work, sequences: usize) -> Outcome<u64> {
        if self.match_steps.is_empty() {
            let order = Order::new(work.seed(), sequences, self.batch as usize);
            return Ok((order.steps_per_epoch() as f64 * self.epochs).round() as u64);
        }
        let mut steps = 0;
        for log in work.inputs("match-steps") {
            steps += log.json::<TrainLog>("train.json")?.steps;
        }
        Ok(steps)
    }
}

/// The texts of a training.
#[derive(Default)]
struct Material {
    /// Those it learns from, repeats included.
    seen: Vec<Sequence>,
    /// Names of these.
    names: Vec<Arc<str>>,
    /// Those it is watched with.
    held_out: Vec<Sequence>,
    /// Examples among these, each once.
    distinct: u64,
    /// What became of those that were too long.
    overlong: Overlong,
    /// What their tokenization should make a person know.
    notes: TextNotes,
}

/// Makes sequences fit the context, and remembers those that did not.
struct Fitting {
    policy: TooLong,
    context: usize,
    /// Name and length of each that was too long.
    long: Vec<(String, usize)>,
    seen: usize,
}

impl Fitting {
    fn fit(
        &mut self,
        name: &str,
        mut sequence: Sequence,
        overlong: &mut Overlong,
    ) -> Option<(Arc<str>, Sequence)> {
        self.seen += 1;
        // The last token is predicted and never read.
        let most = self.context + 1;
        if sequence.ids.len() > most {
            self.long.push((name.to_owned(), sequence.ids.len()));
            if self.policy != TooLong::Cut || sequence.first_target >= most {
                overlong.dropped += 1;
                return None;
            }
            sequence.ids.truncate(most);
            if sequence.targets() == 0 {
                overlong.dropped += 1;
                return None;
            }
            overlong.cut += 1;
        }
        Some((name.into(), sequence))
    }

    /// Says how many examples were too long; refuses them if that is the policy.
    fn report(&self, work: &Work, overlong: &Overlong) -> Outcome<()> {
        let Some((name, longest)) = self.long.iter().max_by_key(|(_, tokens)| tokens) else {
            return Ok(());
        };
        let (long, seen, context) = (self.long.len(), self.seen, self.context);
        let what = format!(
            "{long} of {} are longer than the model's context of {context} tokens; the longest, \
             `{name}`, has {longest}",
            text::plural(seen as u64, "example")
        );
        if self.policy == TooLong::Refuse {
            return Err(Failure::input(what)
                .hint("`too-long = \"drop\"` leaves them out, `too-long = \"cut\"` cuts them"));
        }
        let Overlong { dropped, cut } = overlong;
        work.warn(format!("{what}: {dropped} left out, {cut} cut"));
        Ok(())
    }
}
