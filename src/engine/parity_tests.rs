//! What torch, transformers and peft compute on a tiny LLaMA, against what this
//! engine does. The numbers are in `tests/fixtures/training/`, made by the script
//! beside that folder.

use super::batch::{Batch, Pieces, Sequence};
use super::config::LlamaConfig;
use super::generate::{Decoding, Request, generate};
use super::gradient::{Subject, gradients};
use super::lora::{Adapters, Target};
use super::model::Llama;
use super::ops::Documents;
use super::optimizer::{AdamW, Optimizer, Schedule, global_norm};
use super::sample::Sampling;
use super::{peft, weights};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

pub(super) fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/training/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(super) fn cases() -> Value {
    serde_json::from_slice(&file("cases.json")).expect("JSON")
}

pub(super) fn part<T: for<'a> Deserialize<'a>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("the part's form")
}

pub(super) fn config() -> LlamaConfig {
    part(&cases()["config"])
}

pub(super) fn model() -> Llama {
    weights::load(config(), &file("model.safetensors"), &Device::flex()).expect("loads")
}

pub(super) fn sequences(value: &Value) -> Vec<Sequence> {
    let pairs: Vec<(Vec<u32>, usize)> = part(value);
    pairs
        .into_iter()
        .map(|(ids, first_target)| Sequence { ids, first_target, skipped: vec![], weight: 1.0 })
        .collect()
}

pub(super) fn stored(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).expect("safetensors");
    let view = tensors.tensor(name).unwrap_or_else(|_| panic!("`{name}`"));
    view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

pub(super) fn floats(x: &Tensor<2>) -> Vec<f32> {
    x.to_data().try_to_vec().expect("f32")
}

/// Norm of the difference by the norm of what is wanted.
pub(super) fn off(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| a - b));
    (difference / norm(&mut want.iter().copied())).sqrt()
}

fn whole() -> (Subject, Vec<Tensor<2>>) {
    (Subject::whole(&model()), model().tensors())
}

#[test]
fn every_gradient_is_that_of_torch() {
    let (subject, start) = whole();
    let case = &cases()["gradients"];
    let (all, want) = (sequences(&case["sequences"]), file("gradients.safetensors"));
    assert!(all.iter().any(|one| one.first_target > 3), "some prompts bear no loss");
    for recompute in [false, true] {
        let batch = [Batch::pack(&all)];
        let (loss, found) = gradients(&subject, &start, &batch, recompute, Seed(0));
        let torch: f64 = part(&case["loss"]);
        assert!((loss - torch).abs() < 1e-6 * torch, "{loss} against {torch}");
        for ((name, ..), gradient) in config().parameters().iter().zip(&found) {
            let off = off(&floats(gradient), &stored(&want, name));
            assert!(off <= 1e-5, "{name}: off by {off:e}");
        }
    }
}

#[derive(Deserialize)]
struct AdamCase {
    name: String,
    rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    decay: f64,
}

#[test]
fn a_hundred_steps_of_adamw_are_those_of_torch() {
    let (all, stored_at): (Vec<AdamCase>, _) = (part(&cases()["adamw"]), file("adamw.safetensors"));
    for AdamCase { name, rate, beta1, beta2, eps, decay } in all {
        let settings = AdamW {
            rate,
            warmup: 0.0,
            schedule: Schedule::Constant,
            floor: 1.0,
            beta1,
            beta2,
            eps,
            decay,
            clip: 0.0,
        };
        let shapes = [[5, 7], [1, 6]];
        let matrix = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
        };
        let of = |i: usize, what: &str| stored(&stored_at, &format!("{name}.{i}.{what}"));
        let start = (0..2).map(|i| matrix(&of(i, "start"), shapes[i])).collect();
        let mut optimizer = Optimizer::new(settings, vec![true, false], start);
        let gradients = [of(0, "gradients"), of(1, "gradients")];
        for step in 0..100 {
            let now: Vec<Tensor<2>> = (0..2)
                .map(|i| {
                    let size = shapes[i][0] * shapes[i][1];
                    matrix(&gradients[i][step * size..(step + 1) * size], shapes[i])
                })
                .collect();
            let norm = global_norm(&now);
            optimizer.take_step(now, norm, 100);
        }
        for (i, moments) in optimizer.parameters().iter().enumerate() {
            for (what, got, most) in
                [("end", &moments.w, 1e-6), ("m", &moments.m, 1e-6), ("v", &moments.v, 1e-6)]
            {
                let off = off(&floats(got), &of(i, what));
                assert!(off <= most, "{name}.{i}.{what}: off by {off:e}");
            }
        }
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    for (name, schedule) in [
        ("cosine", Schedule::Cosine),
        ("linear", Schedule::Linear),
        ("constant", Schedule::Constant),
    ] {
        let settings = AdamW { rate: 1.0, schedule, ..trainer().0 };
        let want: Vec<f64> = part(&cases()["schedules"][name]);
        for (step, want) in want.into_iter().enumerate() {
            let got = settings.rate_at(step as u64, 20);
            assert!((got - want).abs() < 1e-12, "{name}, step {step}: {got}, not {want}");
        }
    }
}

/// Settings of the recorded training; its case.
pub(super) fn trainer() -> (AdamW, Value) {
    let case = cases()["trainer"].clone();
    let settings = AdamW {
        rate: part(&case["rate"]),
        warmup: part(&case["warmup"]),
        schedule: Schedule::Cosine,
        floor: 0.0,
        beta1: 0.9,
        beta2: part(&case["beta2"]),
        eps: 1e-8,
        decay: part(&case["decay"]),
        clip: 1.0,
    };
    (settings, case)
}

#[test]
fn twenty_steps_are_those_of_the_trainer_of_transformers() {
    let (settings, case) = trainer();
    let (subject, start) = whole();
    let data = sequences(&case["sequences"]);
    let (batch, accumulate): (usize, usize) = (part(&case["batch"]), part(&case["accumulate"]));
    let (losses, norms, rates): (Vec<f64>, Vec<f64>, Vec<f64>) =
        (part(&case["losses"]), part(&case["norms"]), part(&case["rates"]));
    assert_eq!((losses.len(), settings.rate_at(0, 20), rates[0]), (20, 0.0, 0.0));
    let mut optimizer = Optimizer::new(settings, subject.decays(), start);
    let mut largest = [0.0f64; 2];
    for step in 0..20 {
        let first = step * batch % data.len();
        let members: Vec<&Sequence> = data[first..first + batch].iter().collect();
        let parts = Batch::split(&members, Pieces::Count(accumulate));
        assert_eq!(parts.len(), accumulate);
        let (loss, found) = gradients(&subject, &optimizer.weights(), &parts, false, Seed(0));
        let norm = global_norm(&found);
        let rate = settings.rate_at(step as u64, 20);
        assert!((rate - rates[step]).abs() < 1e-12, "step {step}: rate {rate}");
        largest[0] = largest[0].max((loss / losses[step] - 1.0).abs());
        largest[1] = largest[1].max((norm / norms[step] - 1.0).abs());
        assert!(largest[0] <= 1e-5, "step {step}: loss {loss}, not {}", losses[step]);
        assert!(largest[1] <= 1e-4, "step {step}: norm {norm}, not {}", norms[step]);
        optimizer.take_step(found, norm, 20);
    }
}

pub(super) fn adapters(name: &str) -> Adapters {
    let settings = file(&format!("{name}/adapter_config.json"));
    let tensors = file(&format!("{name}/adapter_model.safetensors"));
    peft::load(&settings, &tensors, &config(), &Device::flex()).expect("loads")
}

/// Logits of every token of a text `[N, V]`.
pub(super) fn logits(model: &Llama, text: &[u32]) -> Vec<f32> {
    let ids: Arc<[u32]> = text.to_vec().into();
    let hidden = model.hidden(&ids, &model.plan(Documents::of_lengths([text.len()])));
    floats(&model.to_logits(model.last_norm(hidden)))
}

#[test]
fn adapters_of_peft_give_the_logits_and_gradients_of_peft() {
    let (lora, want) = (cases()["lora"].clone(), file("lora.safetensors"));
    let text: Vec<u32> = part(&lora["text"]);
    for (name, rank, targets) in [("adapter", 4, 2), ("rslora", 3, 7)] {
        let adapters = adapters(name);
        assert_eq!((adapters.lora.rank, adapters.lora.targets.len()), (rank, targets));
        assert_eq!(adapters.lora.rank_stabilized, name == "rslora");
        let expected = stored(&want, &format!("{name}.logits"));
        let factored = logits(&adapters.attach(model(), None), &text);
        let merged = logits(&adapters.merge(&model()), &text);
        let plain = logits(&model(), &text);
        let apart =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart(&factored, &expected) <= 1e-4);
        assert!(apart(&merged, &expected) <= 1e-4);
        assert!(apart(&plain, &expected) > 1e-2, "the adapters do something");

        let subject = Subject::adapters(&model(), &adapters.lora);
        let batch = [Batch::pack(&sequences(&lora["sequences"]))];
        for recompute in [false, true] {
            let (_, found) = gradients(&subject, &adapters.weights, &batch, recompute, Seed(0));
            for ((path, ..), gradient) in subject.parameters().iter().zip(&found) {
                let name = format!("{name}.base_model.model.{path}");
                let off = off(&floats(gradient), &stored(&want, &name));
                assert!(off <= 1e-5, "{name}: off by {off:e}");
            }
        }
    }
}

#[test]
fn adapters_survive_a_round_through_their_files() {
    let before = adapters("rslora");
    let (settings, tensors) = peft::save(&before, &config()).expect("saves");
    let settings = serde_json::to_vec(&settings).expect("JSON");
    let after = peft::load(&settings, &tensors, &config(), &Device::flex()).expect("loads");
    assert_eq!(after.lora, before.lora);
    for (a, b) in after.weights.iter().zip(&before.weights) {
        assert_eq!(floats(a), floats(b));
    }
}

#[test]
fn adapters_that_this_engine_cannot_apply_are_refused_by_name() {
    let tensors = file("adapter/adapter_model.safetensors");
    let refusal = |key: &str, value: Value| {
        let mut settings: Value =
            serde_json::from_slice(&file("adapter/adapter_config.json")).expect("JSON");
        settings[key] = value;
        let settings = serde_json::to_vec(&settings).expect("JSON");
        peft::load(&settings, &tensors, &config(), &Device::flex()).expect_err("refused").what
    };
    assert!(refusal("use_dora", true.into()).contains("use_dora = true"));
    assert!(refusal("bias", "all".into()).contains("bias = \"all\""));
    assert!(refusal("peft_type", "LOHA".into()).contains("LOHA"));
    assert!(refusal("rank_pattern", serde_json::json!({"q_proj": 2})).contains("rank_pattern"));
    assert!(refusal("r", 0.into()).contains("no usable `r`"));
    assert!(refusal("r", 5.into()).contains("not a floating-point [5, 32]"));
    let shallow = LlamaConfig { num_hidden_layers: 1, ..config() };
    let settings = file("adapter/adapter_config.json");
    let error = peft::load(&settings, &tensors, &shallow, &Device::flex()).expect_err("refused");
    assert!(error.what.contains("unexpected tensor `base_model.model.model.layers.1."));
}

#[test]
fn a_fresh_adapter_starts_as_peft_does_and_changes_nothing() {
    let lora = super::lora::Lora {
        rank: 16,
        alpha: 32.0,
        targets: vec![Target::Query, Target::Down],
        dropout: 0.0,
        rank_stabilized: false,
    };
    assert_eq!(lora.scale(), 2.0);
    let fresh = Adapters::fresh(lora, &config(), Seed(3), &Device::flex());
    for ((name, _, inputs), w) in fresh.lora.parameters(&config()).iter().zip(&fresh.weights) {
        let values = floats(w);
        if name.ends_with("lora_B.weight") {
            assert!(values.iter().all(|&x| x == 0.0));
            continue;
        }
        // Uniform within 1 / sqrt(in): its deviation is that by the root of 3.
        let (n, bound) = (values.len() as f64, 1.0 / (*inputs as f64).sqrt());
        let deviation = (values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
        assert!(values.iter().all(|&x| f64::from(x).abs() <= bound));
        assert!((deviation * 3f64.sqrt() / bound - 1.0).abs() < 0.1, "{name}: {deviation}");
    }
    let text: Vec<u32> = part(&cases()["lora"]["text"]);
    assert_eq!(logits(&fresh.attach(model(), None), &text), logits(&model(), &text));
}

#[derive(Deserialize)]
pub(super) struct Spoken {
    /// The fixture whose weights spoke.
    pub(super) model: String,
    config: LlamaConfig,
    pub(super) said: Vec<Said>,
}

#[derive(Deserialize)]
pub(super) struct Said {
    pub(super) prompt: Vec<u32>,
    pub(super) reply: Vec<u32>,
    logprobs: Vec<f32>,
    /// The logit of each token above that of the next likeliest.
    pub(super) margins: Vec<f32>,
}

/// What transformers says greedily.
pub(super) fn spoken() -> Vec<Spoken> {
    let path = format!("{}/tests/fixtures/speaking.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON");
    part(&fixture["models"])
}

/// Every token and its probability; 32 prompts, 64 tokens, three models.
#[test]
fn greedy_replies_and_their_probabilities_are_those_of_transformers() {
    let all = spoken();
    assert_eq!(all.len(), 3);
    for Spoken { model, config, said } in all {
        let folder = format!("{}/tests/fixtures/{model}", env!("CARGO_MANIFEST_DIR"));
        let into = temp_dir::TempDir::new().expect("a folder");
        let gathered = into.child("all.safetensors");
        let found = weights::folder::Weights::find(folder.as_ref()).expect("found");
        found.gather(&config, &gathered, &mut |_, _| Ok(())).expect("gathers");
        let bytes = std::fs::read(gathered).expect("read");
        let llama = weights::load(config, &bytes, &Device::flex()).expect("loads");
        assert_eq!(said.len(), 32);
        let requests = said.iter().enumerate().map(|(index, one)| Request {
            index,
            prompt: one.prompt.clone(),
            seed: Seed(0),
            sampling: Sampling::Greedy,
            max_tokens: 64,
            logprobs: true,
        });
        let mut found = vec![None; said.len()];
        let decoding = Decoding { batch: 7, stop: &[], until: None };
        generate(&llama, requests.collect(), decoding, &mut |reply| {
            let index = reply.index;
            found[index] = Some(reply);
            Ok(())
        })
        .expect("generates");
        let mut off = 0.0f32;
        for (found, Said { prompt, reply, logprobs, margins }) in found.iter().zip(&said) {
            let found = found.as_ref().expect("a reply");
            assert_eq!((reply.len(), found.tokens.len()), (64, 64));
            // No choice of these hangs on the last digits, so that none may differ.
            assert!(margins.iter().all(|&margin| margin > 1e-4), "{model} after {prompt:?}");
            assert_eq!(&found.tokens, reply, "{model} after {prompt:?}");
            let each = found.logprobs.iter().zip(logprobs).map(|(a, b)| (a - b).abs());
            off = off.max(each.fold(0.0, f32::max));
        }
        assert!(off <= 1e-4, "{model}: log-probabilities off by {off:e}");
    }
}
