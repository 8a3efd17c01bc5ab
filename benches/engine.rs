//! One measurement of the engine on the processor, for `benches/engine.py`,
//! which runs it in turn with its peers on the same weights and tokens.
//!
//! ```text
//! cargo bench --bench engine -- WORK.json
//! ```
//!
//! The file says what to do; one JSON line on stdout says how long it took. The
//! first step or request of a kind is done once before the clock starts, as the
//! peers do it.

use rekindle::base::seed::Seed;
use rekindle::engine::batch::{Batch, Pieces, Sequence};
use rekindle::engine::config::LlamaConfig;
use rekindle::engine::device::{DeviceChoice, open};
use rekindle::engine::generate::{Decoding, Request, generate};
use rekindle::engine::gradient::{Subject, gradients};
use rekindle::engine::model::Llama;
use rekindle::engine::on_threads;
use rekindle::engine::optimizer::{AdamW, Optimizer, Schedule, global_norm};
use rekindle::engine::sample::Sampling;
use rekindle::engine::weights;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What to measure.
#[derive(Deserialize)]
struct Work {
    /// `train` or `generate`.
    what: String,
    /// A folder with `config.json` and `model.safetensors`.
    model: PathBuf,
    threads: usize,
    /// Texts to train on, or prompts.
    rows: Vec<Vec<u32>>,
    /// Texts of a step, or sequences side by side.
    batch: usize,
    /// Tokens that each reply is to have.
    #[serde(default)]
    lengths: Vec<usize>,
    /// Most tokens of a part of a step; whole steps without.
    room: Option<usize>,
    #[serde(default)]
    rate: f64,
}

type Said<T> = Result<T, Box<dyn std::error::Error>>;

fn model(folder: &Path) -> Said<Llama> {
    let config = LlamaConfig::from_json(&std::fs::read(folder.join("config.json"))?, "config")
        .map_err(|failure| failure.what)?;
    let device = open(&DeviceChoice::Cpu).map_err(|failure| failure.what)?.device;
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    Ok(weights::load(config, &bytes, &device).map_err(|failure| failure.what)?)
}

/// Optimizer steps over the rows in their order, each timed; its loss.
fn train(work: &Work) -> Said<serde_json::Value> {
    let model = model(&work.model)?;
    let subject = Subject::whole(&model);
    let settings = AdamW {
        rate: work.rate,
        warmup: 0.0,
        schedule: Schedule::Constant,
        floor: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        decay: 0.0,
        clip: 1.0,
    };
    let mut optimizer = Optimizer::new(settings, subject.decays(), model.tensors());
    drop(model);
    let texts: Vec<Sequence> = work
        .rows
        .iter()
        .map(|ids| Sequence { ids: ids.clone(), first_target: 1, weight: 1.0, skipped: vec![] })
        .collect();
    let (mut seconds, mut losses, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    let total = texts.len().div_ceil(work.batch) as u64;
    for step in texts.chunks(work.batch) {
        let started = Instant::now();
        let items: Vec<&Sequence> = step.iter().collect();
        let parts = Batch::split(&items, work.room.map_or(Pieces::Count(1), Pieces::Tokens));
        let (loss, found) = gradients(&subject, &optimizer.weights(), &parts, false, Seed(1));
        let norm = global_norm(&found);
        optimizer.take_step(found, norm, total);
        seconds.push(started.elapsed().as_secs_f64());
        losses.push(loss);
        tokens.push(parts.iter().map(|part| part.ids.len()).sum::<usize>());
    }
    Ok(json!({ "seconds": seconds, "losses": losses, "tokens": tokens }))
}

/// Greedy replies of given lengths to all rows.
fn speak(work: &Work) -> Said<serde_json::Value> {
    let model = model(&work.model)?;
    let request = |(index, prompt): (usize, &Vec<u32>)| Request {
        index,
        prompt: prompt.clone(),
        seed: Seed(1),
        sampling: Sampling::Greedy,
        max_tokens: work.lengths[index],
        logprobs: false,
    };
    let decoding = Decoding { batch: work.batch, stop: &[], until: None };
    let warm = Request { max_tokens: 2, ..request((0, &work.rows[0])) };
    generate(&model, vec![warm], decoding, &mut |_| Ok(())).map_err(|failure| failure.what)?;
    let mut texts = vec![Vec::new(); work.rows.len()];
    let started = Instant::now();
    generate(&model, work.rows.iter().enumerate().map(request).collect(), decoding, &mut |reply| {
        texts[reply.index] = reply.tokens;
        Ok(())
    })
    .map_err(|failure| failure.what)?;
    let seconds = started.elapsed().as_secs_f64();
    let tokens: usize = texts.iter().map(Vec::len).sum();
    Ok(json!({ "seconds": [seconds], "tokens": [tokens], "texts": texts }))
}

/// Largest resident size so far, in KiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn run() -> Said<String> {
    let path = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let work: Work = serde_json::from_slice(&std::fs::read(path.ok_or("which WORK.json?")?)?)?;
    let done = |work: &Work| match work.what.as_str() {
        "train" => train(work),
        "generate" => speak(work),
        other => Err(format!("`{other}` is neither `train` nor `generate`").into()),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    on_threads(work.threads, || {
        let _ = sender.send(done(&work).map_err(|error| error.to_string()));
    });
    let mut said = receiver.recv()??;
    said["peak_kib"] = json!(peak());
    Ok(said.to_string())
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
