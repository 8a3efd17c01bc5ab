//! The engine's promises on a small model: the device agrees with the
//! processor, and a cache, batch mates, packing, a second run and a stop in the
//! middle change nothing.
//!
//! On the processor sums have one order whatever their size, so that "nothing"
//! means no bit; a graphics card may choose another kernel for another size.

use super::small::{config, model, training};
use super::{Check, difference, numbers};
use crate::base::failure::Outcome;
use crate::base::seed::Seed;
use crate::engine::{
    batch::{Batch, Pieces, Sequence},
    gradient::{self, Subject},
    model::Llama,
    ops::{Documents, Precision, Slots},
    train::{Observer, Progress, Snapshot, Texts, Training, Wish, train},
    weights,
};
use burn::tensor::{Device, Tensor};
use std::sync::Arc;

pub(super) const OVER_A_CACHE: &str = "logits over a cache against the whole text";
pub(super) const AMONG_OTHERS: &str = "logits alone against logits among 15 others";
pub(super) const PACKED: &str = "logits packed against one text at a time";

const TEXT: [u32; 10] = [1, 7, 3, 3, 20, 4, 9, 9, 2, 5];

pub(super) fn checks(is_cpu: bool) -> Vec<Check<'static>> {
    let or = |exact: f64, near: f64| if is_cpu { exact } else { near };
    let mut all = vec![
        Check::new(OVER_A_CACHE, or(1e-5, 1e-4), |device| over_a_cache(&model(device), &TEXT)),
        Check::new(AMONG_OTHERS, or(0.0, 1e-4), |device| among_others(&model(device), &texts(16))),
        Check::new(PACKED, or(0.0, 1e-4), |device| packed_logits(&model(device), &texts(16))),
        Check::new("gradients packed against one text at a time", or(2e-6, 2e-5), packed),
        Check::new("gradients in parts and recomputed against at once", or(2e-6, 2e-5), in_parts),
        Check::new("a training against the same again", or(0.0, 1e-4), twice),
        Check::new("a training against one stopped in the middle", or(0.0, 1e-4), stopped),
    ];
    if !is_cpu {
        all.push(Check::new("logits against the processor's", 1e-4, logits_here_and_there));
        all.push(Check::new("gradients against the processor's", 1e-4, gradients_here_and_there));
    }
    all
}

/// Checks of a device that can compute in bf16: it has to stay as near to f32 as
/// the processor does, which was measured to be half of what is allowed.
pub(super) fn in_bf16() -> Vec<Check<'static>> {
    vec![
        Check::new("gradients in bf16 against the processor's in f32", 3e-2, rounded_gradients),
        Check::new("logits in bf16 over a cache against those in f32", 3e-2, rounded_over_a_cache),
    ]
}

fn rounded(device: &Device) -> Llama {
    model(device).computing_in(Precision::Bf16)
}

/// Norm of the difference by the norm of what it is from.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let off = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
    if a.len() == b.len() && !off.is_nan() { off.sqrt() } else { f64::INFINITY }
}

fn rounded_gradients(device: &Device) -> Result<f64, String> {
    let exact = gradients(&model(&Device::flex()), &texts(6), 1, false)?;
    Ok(apart(&gradients(&rounded(device), &texts(6), 2, true)?, &exact))
}

fn rounded_over_a_cache(device: &Device) -> Result<f64, String> {
    let exact = numbers(logits(&model(&Device::flex()), &TEXT))?;
    let found = step_by_step(&rounded(device), &TEXT, 4)?;
    Ok(apart(&found, &exact[3 * config().vocab_size..]))
}

/// Texts of different lengths; each begins with a number and goes on with it.
pub(super) fn texts(n: u32) -> Vec<Sequence> {
    (0..n)
        .map(|i| {
            let number = 3 + i % 20;
            let mut ids = vec![1, number, number];
            ids.extend(vec![number; 1 + i as usize % 9]);
            ids.push(2);
            Sequence { ids, first_target: 3, skipped: vec![], weight: 1.0 }
        })
        .collect()
}

/// Logits of every token of a text read in one go `[N, V]`.
pub(super) fn logits(model: &Llama, ids: &[u32]) -> Tensor<2> {
    read(model, ids.into(), Documents::of_lengths([ids.len()]))
}

/// The same of several texts, one behind the other.
fn read(model: &Llama, ids: Arc<[u32]>, documents: Documents) -> Tensor<2> {
    let hidden = model.hidden(&ids, &model.plan(documents));
    model.to_logits(model.last_norm(hidden))
}

/// A text of at least five tokens: the first four at once, then one at a time.
pub(super) fn over_a_cache(model: &Llama, ids: &[u32]) -> Result<f64, String> {
    let (whole, read) = (numbers(logits(model, ids))?, 4);
    let found = step_by_step(model, ids, read)?;
    difference(&found, &whole[(read - 1) * model.config().vocab_size..])
}

/// Logits after the first `read` tokens, read together, and after each one more,
/// over a cache.
fn step_by_step(model: &Llama, ids: &[u32], read: usize) -> Result<Vec<f32>, String> {
    let mut cache = model.cache(1, ids.len());
    let prompt: Arc<[u32]> = ids[..read].into();
    let mut found =
        numbers(model.prefill(&mut cache, &prompt, &Documents::of_lengths([read]), &[0]))?;
    for length in read + 1..=ids.len() {
        let slots =
            Slots { capacity: ids.len(), of_row: [0].into(), lengths: [length as u32].into() };
        let token: Arc<[u32]> = [ids[length - 1]].into();
        found.extend(numbers(model.decode(&mut cache, &token, &slots))?);
    }
    Ok(found)
}

/// What is said next to each of some texts of at most 15 tokens, read and then
/// decoded side by side.
pub(super) fn among_others(model: &Llama, texts: &[Sequence]) -> Result<f64, String> {
    let last = |texts: &[Sequence]| {
        let ids: Arc<[u32]> = texts.iter().flat_map(|text| text.ids.iter().copied()).collect();
        let documents = Documents::of_lengths(texts.iter().map(|text| text.ids.len()));
        let slots: Vec<u32> = (0..texts.len() as u32).collect();
        let mut cache = model.cache(texts.len(), 16);
        let mut found = numbers(model.prefill(&mut cache, &ids, &documents, &slots))?;
        let slots = Slots {
            capacity: 16,
            of_row: slots.into(),
            lengths: texts.iter().map(|text| text.ids.len() as u32 + 1).collect(),
        };
        let next: Arc<[u32]> = texts.iter().map(|text| text.ids[1]).collect();
        found.extend(numbers(model.decode(&mut cache, &next, &slots))?);
        Ok::<_, String>(found)
    };
    let together = last(texts)?;
    let (width, mut worst) = (model.config().vocab_size, 0.0f64);
    for (i, text) in texts.iter().enumerate() {
        let alone = last(std::slice::from_ref(text))?;
        let (read, spoken) = together.split_at(texts.len() * width);
        let row = |of: &[f32]| of[i * width..(i + 1) * width].to_vec();
        worst = worst.max(difference(&[row(read), row(spoken)].concat(), &alone)?);
    }
    Ok(worst)
}

pub(super) fn packed_logits(model: &Llama, texts: &[Sequence]) -> Result<f64, String> {
    let ids = texts.iter().flat_map(|text| text.ids.iter().copied()).collect();
    let documents = Documents::of_lengths(texts.iter().map(|text| text.ids.len()));
    let together = numbers(read(model, ids, documents))?;
    let alone = texts.iter().map(|text| numbers(logits(model, &text.ids)));
    difference(&together, &alone.collect::<Result<Vec<_>, _>>()?.concat())
}

/// The gradient of all parameters, one after another, of a step in so many parts.
fn gradients(
    model: &Llama,
    texts: &[Sequence],
    parts: usize,
    recompute: bool,
) -> Result<Vec<f32>, String> {
    let texts: Vec<&Sequence> = texts.iter().collect();
    let parts = Batch::split(&texts, Pieces::Count(parts));
    let (_, gradients) =
        gradient::gradients(&Subject::whole(model), &model.tensors(), &parts, recompute, Seed(0));
    let all = gradients.into_iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
    Ok(all.concat())
}

fn packed(device: &Device) -> Result<f64, String> {
    let (model, texts) = (model(device), texts(6));
    let targets = |text: &Sequence| text.targets() as f32;
    let total: f32 = texts.iter().map(targets).sum();
    let mut apart: Vec<f32> = Vec::new();
    for text in &texts {
        let one = gradients(&model, std::slice::from_ref(text), 1, false)?;
        apart.resize(one.len(), 0.0);
        let share = targets(text) / total;
        apart.iter_mut().zip(one).for_each(|(sum, x)| *sum += share * x);
    }
    difference(&gradients(&model, &texts, 1, false)?, &apart)
}

fn in_parts(device: &Device) -> Result<f64, String> {
    let (model, texts) = (model(device), texts(6));
    let whole = gradients(&model, &texts, 1, false)?;
    let mut worst = 0.0f64;
    for (parts, recompute) in [(3, false), (6, false), (1, true), (3, true)] {
        worst = worst.max(difference(&gradients(&model, &texts, parts, recompute)?, &whole)?);
    }
    Ok(worst)
}

/// Keeps the snapshot of one step.
#[derive(Default)]
struct Keep {
    at: u64,
    kept: Option<Snapshot>,
}

impl Observer for Keep {
    fn step(&mut self, progress: &Progress, _loss: f64) -> Wish {
        if progress.step == self.at { Wish::Snapshot } else { Wish::Continue }
    }

    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()> {
        self.kept = Some(snapshot);
        Ok(())
    }

    fn name(&self, sequence: usize) -> String {
        format!("text {sequence}")
    }
}

/// The weights after eight steps, and the snapshot after step `at`.
fn trained(
    device: &Device,
    resume: Option<Snapshot>,
    at: u64,
) -> Result<(Vec<f32>, Option<Snapshot>), String> {
    let training = Training { pieces: Pieces::Count(2), steps: 8, ..training() };
    let mut keep = Keep { at, kept: None };
    let texts = Texts { seen: &texts(40), held_out: &[] };
    let trained = train(model(device), texts, &training, resume, &mut keep);
    let model = trained.map_err(|failure| failure.what)?.model;
    let weights = model.tensors().into_iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
    // What is kept is what was trained.
    let bytes = weights::save(&model).map_err(|failure| failure.what)?;
    let read = weights::load(config(), &bytes, device).map_err(|failure| failure.what)?;
    let read = read.tensors().into_iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
    match read == weights {
        true => Ok((weights.concat(), keep.kept)),
        false => Err("weights differ once they are written and read".to_owned()),
    }
}

fn twice(device: &Device) -> Result<f64, String> {
    difference(&trained(device, None, 0)?.0, &trained(device, None, 0)?.0)
}

fn stopped(device: &Device) -> Result<f64, String> {
    let (whole, snapshot) = trained(device, None, 5)?;
    difference(&trained(device, snapshot, 0)?.0, &whole)
}

fn logits_here_and_there(device: &Device) -> Result<f64, String> {
    let of = |device: &Device| numbers(logits(&model(device), &TEXT));
    difference(&of(device)?, &of(&Device::flex())?)
}

fn gradients_here_and_there(device: &Device) -> Result<f64, String> {
    let of = |device: &Device| gradients(&model(device), &texts(6), 1, false);
    difference(&of(device)?, &of(&Device::flex())?)
}
