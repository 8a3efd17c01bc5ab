//! Kind `train`: examples and a start -> a checkpoint and a log. The loss is
//! taken on completions only. Randomness: the order of examples, and the
//! weights of a random start.
//!
//! Whether a round restarts from the base or goes on from the last round is
//! the reference in `start`; whether a control arm gets as many steps as
//! another one is `match-steps`.

use crate::base::artifact::{
    ArtifactKind, Examples, Model, Tokenizer as TokenizerArtifact, TrainLog as Log,
};
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Use, spec};
use crate::engine::batch::{Order, Sequence};
use crate::engine::model::Llama;
use crate::engine::optimizer::AdamW;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::train::{Observer, Progress, Snapshot, Training, Wish, train};
use crate::engine::{self, weights};
use crate::inference::local::open_device;
use crate::record::{Example, TrainLog};
use crate::stages::architecture::Architecture;
use crate::stages::kind::{Kind, Stage};
use crate::stages::speaking;
use crate::stages::work::Work;
use std::time::{Duration, Instant};

spec! {
    /// A set of examples in a mixture.
    #[shorthand(from)]
    pub struct Share {
        /// The examples.
        from: Ref<Examples>,
        /// How often each of them is seen in one epoch.
        repeat: u64 = 1,
    }
}

spec! {
    /// Trains a LLaMA on examples, from a checkpoint or from a random start, with AdamW, a linear
    /// warm-up and a cosine. The loss is the mean over all completion tokens of a step. The sets in
    /// `data` are shuffled together.
    #[check(one_start)]
    pub struct Train {
        /// Sets of examples, each a reference or `{ from = .., repeat = n }`.
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
        /// Peak learning rate.
        rate: f64 = 1.5e-3,
        /// Share of the steps over which the rate rises from 0 to its peak.
        warmup: f64 = 0.05,
        /// Share of the peak that the cosine falls to.
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
        /// Seconds between checkpoints.
        #[exec]
        checkpoint_seconds: f64 = 15.0,
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
    }
}

/// Where a training starts.
struct Start {
    model: Llama,
    tokenizer: Tokenizer,
    tokenizer_file: Vec<u8>,
    /// Totals of the trainings behind it: steps, tokens.
    behind: (u64, u64),
}

impl Stage for Train {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("model".into(), ArtifactKind::Model), ("log".into(), ArtifactKind::TrainLog)]
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let Start { model, tokenizer, tokenizer_file, behind } = self.start(work)?;
        let context = model.config().max_position_embeddings;
        let (data, distinct) = self.sequences(work, &tokenizer, context)?;
        let training = Training {
            optimizer: AdamW {
                rate: self.rate,
                warmup: self.warmup,
                floor: self.floor,
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                decay: self.decay,
                clip: self.clip,
            },
            batch: self.batch as usize,
            steps: self.steps(work, data.len())?,
            seed: work.seed().derive("order"),
        };
        let resume = work.load_checkpoint()?;
        let interval = Duration::from_secs_f64(self.checkpoint_seconds.max(0.0));
        let mut watch = Watch { work, total: training.steps, interval, last: Instant::now() };
        let (model, progress) = engine::on_threads(work.threads(), || {
            train(model, &data, &training, resume, &mut watch)
        })?;
        let log = TrainLog {
            steps: progress.step,
            steps_total: behind.0 + progress.step,
            examples: distinct,
            tokens: progress.tokens,
            tokens_supervised: progress.tokens_supervised,
            tokens_total: behind.1 + progress.tokens,
            curve: progress.curve,
        };
        work.metric("train-tokens", log.tokens as f64);
        work.metric("steps", log.steps as f64);
        work.output("log").write_json("train.json", &log)?;
        let out = work.output("model");
        out.write_json("config.json", model.config())?;
        out.write("model.safetensors", &weights::save(&model)?)?;
        out.write("tokenizer.json", &tokenizer_file)?;
        out.write_json("train.json", &log)
    }
}

impl Train {
    fn start(&self, work: &Work) -> Outcome<Start> {
        if let Some(artifact) = work.optional_input("start") {
            let local = speaking::load(work, artifact)?;
            let log: TrainLog = artifact.json("train.json")?;
            return Ok(Start {
                model: local.model().clone(),
                tokenizer: local.tokenizer().clone(),
                tokenizer_file: artifact.read("tokenizer.json")?,
                behind: (log.steps_total, log.tokens_total),
            });
        }
        let architecture =
            self.model.as_ref().ok_or_else(|| Failure::bug("a start from nothing has no shape"))?;
        let tokenizer_file = work.input("tokenizer")?.read("tokenizer.json")?;
        let tokenizer = Tokenizer::from_bytes(&tokenizer_file)?;
        let config = architecture.config(tokenizer.size()).map_err(Failure::input)?;
        let device = open_device(work.device())?.device;
        let seed = work.seed().derive("init");
        let model = Llama::random(config, architecture.init_std, seed, &device);
        Ok(Start { model, tokenizer, tokenizer_file, behind: (0, 0) })
    }

    /// All sequences, repeats included, and the number of distinct examples.
    fn sequences(
        &self,
        work: &Work,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Outcome<(Vec<Sequence>, u64)> {
        let (mut sequences, mut distinct) = (Vec::new(), 0);
        for (share, artifact) in self.data.iter().zip(work.inputs("data")) {
            let rows: Vec<Example> = artifact.rows("examples.jsonl")?;
            distinct += rows.len() as u64;
            let mut set = Vec::with_capacity(rows.len());
            for row in &rows {
                let sequence = sequence(tokenizer, row);
                if sequence.ids.len() > context + 1 {
                    return Err(Failure::input(format!(
                        "example `{}` has {} tokens; the model's context holds {context}",
                        row.id,
                        sequence.ids.len()
                    )));
                }
                set.push(sequence);
            }
            for _ in 0..share.repeat {
                sequences.extend(set.iter().cloned());
            }
        }
        if sequences.is_empty() {
            return Err(Failure::input(
                "there is nothing to train on: all sets in `data` are empty",
            ));
        }
        Ok((sequences, distinct))
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

/// Begin mark, prompt, completion, end mark; the loss begins with the completion.
pub(super) fn sequence(tokenizer: &Tokenizer, example: &Example) -> Sequence {
    let mut ids = vec![tokenizer.bos()];
    ids.extend(tokenizer.encode(&example.prompt));
    let first_target = ids.len();
    ids.extend(tokenizer.encode(&example.completion));
    ids.push(tokenizer.eos());
    Sequence { ids, first_target }
}

/// Reports steps, keeps checkpoints, hears the wish to stop.
struct Watch<'a> {
    work: &'a Work<'a>,
    total: u64,
    interval: Duration,
    last: Instant,
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress, loss: f64) -> Wish {
        let note = format!("loss {loss:.3}");
        self.work.progress(progress.step, self.total, "steps", &note);
        if progress.step == self.total {
            Wish::Continue
        } else if self.work.stopping() {
            Wish::Stop
        } else if self.last.elapsed() >= self.interval {
            self.last = Instant::now();
            Wish::Snapshot
        } else {
            Wish::Continue
        }
    }

    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()> {
        self.work.save_checkpoint(&snapshot).doing(|| "keeping a checkpoint".into())
    }
}
