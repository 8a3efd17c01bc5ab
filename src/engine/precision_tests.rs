//! Training and speaking in bf16: what torch's autocast does to the same model,
//! and what f32 does. The numbers are in `tests/fixtures/precision/`, made by
//! the script beside that folder.
//!
//! On the processor bf16 goes through the very operations that a graphics card
//! runs, so these tests are of them too.

use super::batch::{Batch, Pieces, Sequence};
use super::device::Device;
use super::generate::{Decoding, Request, generate};
use super::gradient::{Subject, gradients};
use super::model::Llama;
use super::ops::{Documents, Precision, Slots};
use super::optimizer::{AdamW, Optimizer, Schedule, global_norm};
use super::parity_tests::{
    adapters, cases, config, file, floats, logits, model, off, part, sequences, spoken, stored,
    trainer,
};
use super::sample::Sampling;
use super::weights;
use crate::base::seed::Seed;
use burn::tensor::{DType, Tensor};
use serde_json::Value;
use temp_dir::TempDir;

fn rounded() -> Llama {
    model().computing_in(Precision::Bf16)
}

/// The same model with its matrices in bf16, as one that only speaks has them.
fn kept() -> Llama {
    let space = TempDir::new().expect("a folder");
    let path = space.path().join("model.safetensors");
    std::fs::write(&path, file("model.safetensors")).expect("writes");
    weights::read(config(), &path, &Device::flex(), Precision::Bf16).expect("reads")
}

fn autocast(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/precision/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn recorded() -> Value {
    serde_json::from_slice(&autocast("cases.json")).expect("JSON")
}

#[test]
fn gradients_are_as_near_to_those_of_f32_as_torch_gets() {
    let batch = [Batch::pack(&sequences(&cases()["gradients"]["sequences"]))];
    let (exact, theirs) = (file("gradients.safetensors"), autocast("gradients.safetensors"));
    let subject = Subject::whole(&rounded());
    for recompute in [false, true] {
        let (loss, found) = gradients(&subject, &model().tensors(), &batch, recompute, Seed(0));
        let torch: f64 = part(&recorded()["loss"]);
        assert!((loss / torch - 1.0).abs() < 1e-3, "{loss} against {torch}");
        let mut sum = [0.0; 2];
        for ((name, ..), gradient) in config().parameters().iter().zip(&found) {
            assert_eq!(gradient.dtype(), DType::F32);
            let (exact, theirs) = (stored(&exact, name), stored(&theirs, name));
            let (ours, torch) = (off(&floats(gradient), &exact), off(&theirs, &exact));
            assert!(ours > 1e-4, "{name}: nothing was rounded");
            assert!(ours <= 1.5 * torch, "{name}: off by {ours:e}, torch by {torch:e}");
            sum = [sum[0] + ours, sum[1] + torch];
        }
        assert!(sum[0] <= 1.1 * sum[1], "{sum:?} over all parameters");
    }
}

/// Losses of the 20 steps of the recorded training.
fn losses(precision: Precision) -> Vec<f64> {
    let (settings, case) = trainer();
    let start = model().computing_in(precision);
    let (subject, data) = (Subject::whole(&start), sequences(&case["sequences"]));
    let (batch, accumulate): (usize, usize) = (part(&case["batch"]), part(&case["accumulate"]));
    let mut optimizer = Optimizer::new(settings, subject.decays(), start.tensors());
    let mut losses = Vec::new();
    for step in 0..20 {
        let first = step * batch % data.len();
        let members: Vec<&Sequence> = data[first..first + batch].iter().collect();
        let parts = Batch::split(&members, Pieces::Count(accumulate));
        let (loss, found) = gradients(&subject, &optimizer.weights(), &parts, false, Seed(0));
        let norm = global_norm(&found);
        optimizer.take_step(found, norm, 20);
        losses.push(loss);
    }
    losses
}

#[test]
fn twenty_steps_stay_beside_those_of_f32_and_of_torch() {
    let (ours, exact): (_, Vec<f64>) = (losses(Precision::Bf16), part(&trainer().1["losses"]));
    let torch: Vec<f64> = part(&recorded()["losses"]);
    let apart = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    };
    // Measured: torch's autocast leaves f32 by 1.4e-3 over the same steps.
    assert!(apart(&ours, &exact) <= 3e-3, "{} off f32", apart(&ours, &exact));
    assert!(apart(&ours, &torch) <= 3e-3, "{} off torch", apart(&ours, &torch));
    assert!(apart(&ours, &exact) >= 1e-5, "something was rounded");
}

#[test]
fn steps_below_the_resolution_of_bf16_add_up() {
    // bf16 has no number between 1 and 1 + 2^-7.
    let settings = AdamW {
        rate: 1e-4,
        warmup: 0.0,
        schedule: Schedule::Constant,
        floor: 1.0,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        decay: 0.0,
        clip: 0.0,
    };
    let ones = Tensor::<2>::ones([3, 4], &Device::flex());
    let mut optimizer = Optimizer::new(settings, vec![false], vec![ones.clone()]);
    for _ in 0..100 {
        optimizer.take_step(vec![ones.clone() * -0.5], 1.0, 100);
    }
    let moved = floats(&optimizer.weights()[0]);
    assert!(moved.iter().all(|w| (w - 1.01).abs() < 1e-5), "{moved:?}");
}

#[test]
fn adapters_learn_in_bf16_beside_frozen_f32() {
    let (case, want) = (cases()["lora"].clone(), file("lora.safetensors"));
    let batch = [Batch::pack(&sequences(&case["sequences"]))];
    let adapters = adapters("rslora");
    let subject = Subject::adapters(&rounded(), &adapters.lora);
    for recompute in [false, true] {
        let (_, found) = gradients(&subject, &adapters.weights, &batch, recompute, Seed(0));
        for ((path, ..), gradient) in subject.parameters().iter().zip(&found) {
            let off =
                off(&floats(gradient), &stored(&want, &format!("rslora.base_model.model.{path}")));
            assert!((1e-4..=5e-2).contains(&off), "{path}: off by {off:e}");
        }
    }
    // What is merged is merged in f32.
    let merged = adapters.merge(&rounded());
    assert_eq!(merged.precision(), Precision::Bf16);
    let plain = adapters.merge(&model());
    for (a, b) in merged.tensors().iter().zip(plain.tensors()) {
        assert_eq!(floats(a), floats(&b));
    }
}

#[test]
fn a_model_that_speaks_keeps_its_matrices_in_bf16() {
    let (model, kept) = (model(), kept());
    for ((name, rows, _), tensor) in config().parameters().iter().zip(kept.tensors()) {
        let format = if *rows == 1 { DType::F32 } else { DType::BF16 };
        assert_eq!(tensor.dtype(), format, "{name}");
    }
    let text: Vec<u32> = part(&cases()["lora"]["text"]);
    let (exact, whole) = (logits(&model, &text), logits(&kept, &text));
    let rounding = off(&whole, &exact);
    assert!((1e-4..=2e-2).contains(&rounding), "off by {rounding:e}");

    // The cache is bf16 too, and changes nothing but the order of sums.
    let mut cache = kept.cache(1, text.len());
    let first = text[..4].to_vec().into();
    let mut found = floats(&kept.prefill(&mut cache, &first, &Documents::of_lengths([4]), &[0]));
    for length in 5..=text.len() {
        let slots =
            Slots { capacity: text.len(), of_row: [0].into(), lengths: [length as u32].into() };
        found.extend(floats(&kept.decode(&mut cache, &[text[length - 1]].into(), &slots)));
    }
    let off = off(&found, &whole[3 * config().vocab_size..]);
    assert!(off <= 5e-3, "off by {off:e}");
}

#[test]
fn a_model_in_bf16_says_something_else_only_where_f32_hardly_prefers_it() {
    let all = spoken();
    let said = &all.iter().find(|one| one.model == "training").expect("the model of `kept`").said;
    let requests = said.iter().enumerate().map(|(index, one)| Request {
        index,
        prompt: one.prompt.clone(),
        seed: Seed(0),
        sampling: Sampling::Greedy,
        max_tokens: 8,
        logprobs: false,
    });
    let mut begun = 0;
    let decoding = Decoding { batch: 7, stop: &[], until: None };
    generate(&kept(), requests.collect(), decoding, &mut |reply| {
        let one = &said[reply.index];
        let same = reply.tokens.iter().zip(&one.reply).take_while(|(a, b)| a == b).count();
        begun += usize::from(same > 0);
        if same < reply.tokens.len() {
            let margin = one.margins[same];
            assert!(margin < 0.1, "token {same} of reply {} has {margin}", reply.index);
        }
        Ok(())
    })
    .expect("generates");
    assert!(begun * 5 >= said.len() * 4, "{begun} of {} replies begin alike", said.len());
}
