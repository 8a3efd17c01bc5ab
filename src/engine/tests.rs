//! Properties of the whole engine on a tiny model: what is cached equals what
//! is not, batch mates and thread counts change nothing, a resumed training is
//! the uninterrupted one, bit for bit.

use super::batch::{Batch, Sequence};
use super::config::LlamaConfig;
use super::generate::{Decoding, Finish, Reply, Request, generate};
use super::model::Llama;
use super::ops::{self, Documents};
use super::optimizer::AdamW;
use super::sample::Sampling;
use super::train::{self, Observer, Progress, Snapshot, Training, Wish, train};
use super::weights;
use crate::base::failure::{Class, Outcome};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor};
use std::sync::Arc;

fn config() -> LlamaConfig {
    LlamaConfig {
        model_type: "llama".into(),
        vocab_size: 23,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 32,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: true,
    }
}

fn model() -> Llama {
    Llama::random(config(), 0.3, Seed(5), &Device::flex())
}

/// Copies a number: `n n` is followed by `n n`.
fn data() -> Vec<Sequence> {
    (0..40)
        .map(|i| {
            let n = 3 + i % 20;
            let mut ids = vec![1, n, n];
            ids.extend(vec![n; 1 + i as usize % 3]);
            ids.push(2);
            Sequence { ids, first_target: 3 }
        })
        .collect()
}

fn training() -> Training {
    Training {
        optimizer: AdamW {
            rate: 3e-3,
            warmup: 0.1,
            floor: 0.1,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            decay: 0.01,
            clip: 1.0,
        },
        batch: 8,
        steps: 60,
        seed: Seed(9),
    }
}

#[derive(Default)]
struct Watch {
    snapshot_at: Vec<u64>,
    stop_at: u64,
    kept: Vec<Snapshot>,
    losses: Vec<f64>,
}

impl Observer for Watch {
    fn step(&mut self, progress: &Progress, loss: f64) -> Wish {
        self.losses.push(loss);
        if progress.step == self.stop_at {
            Wish::Stop
        } else if self.snapshot_at.contains(&progress.step) {
            Wish::Snapshot
        } else {
            Wish::Continue
        }
    }

    fn keep(&mut self, snapshot: Snapshot) -> Outcome<()> {
        self.kept.push(snapshot);
        Ok(())
    }
}

fn bytes(model: &Llama) -> Vec<u8> {
    weights::save(model).expect("saves")
}

#[test]
fn training_learns_the_copy() {
    let mut watch = Watch::default();
    let (_, progress) = train(model(), &data(), &training(), None, &mut watch).expect("trains");
    assert!(watch.losses[0] > 2.5, "starts at {}", watch.losses[0]);
    assert!(watch.losses[59] < 0.7 * watch.losses[0], "ends at {}", watch.losses[59]);
    assert_eq!((progress.step, progress.curve.last().map(|p| p.0)), (60, Some(60)));
}

#[test]
fn a_stopped_and_resumed_training_is_the_uninterrupted_one() {
    let mut watch = Watch { snapshot_at: vec![17], ..Watch::default() };
    let whole = train(model(), &data(), &training(), None, &mut watch).expect("trains");
    let from_snapshot = watch.kept.pop();
    let resumed = train(model(), &data(), &training(), from_snapshot, &mut Watch::default());
    let (again, progress) = resumed.expect("resumes");
    assert!(bytes(&again) == bytes(&whole.0));
    assert_eq!(progress, whole.1);

    let mut stopped = Watch { stop_at: 33, ..Watch::default() };
    let failure = train(model(), &data(), &training(), None, &mut stopped).expect_err("stops");
    assert_eq!(failure.class, Class::Interrupted);
    let (again, _) =
        train(model(), &data(), &training(), stopped.kept.pop(), &mut Watch::default())
            .expect("resumes");
    assert!(bytes(&again) == bytes(&whole.0));
}

#[test]
fn gradients_match_the_reference_operations() {
    // The same loss out of plain tensor operations and burn's own autodiff is
    // what `ops::tests` compares piece by piece; here finite differences check
    // the whole model.
    let (config, batch) = (config(), Batch::pack(&data()[..5]));
    let start = model().tensors();
    let (_, gradients) = train::gradients(&config, &start, &batch);
    let loss = |tensors: Vec<Tensor<2>>| train::gradients(&config, &tensors, &batch).0;
    for (index, step) in [(0, 4e-3), (2, 4e-3), (5, 4e-3), (8, 4e-3), (10, 4e-3), (19, 4e-3)] {
        let direction = gradients[index].clone() / ops::sum_of_squares(&gradients[index]).sqrt();
        let moved = |sign: f64| {
            let mut tensors = start.clone();
            tensors[index] = tensors[index].clone() + direction.clone() * (sign * step);
            loss(tensors)
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let norm = ops::sum_of_squares(&gradients[index]).sqrt();
        assert!(
            (slope - norm).abs() < 0.02 * norm + 1e-4,
            "tensor {index}: {slope} against {norm}"
        );
    }
}

#[test]
fn thread_count_changes_no_bit() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let wide = LlamaConfig {
                hidden_size: 128,
                intermediate_size: 336,
                num_attention_heads: 4,
                head_dim: 32,
                ..config()
            };
            let start = Llama::random(wide, 0.1, Seed(2), &Device::flex());
            let training = Training { batch: 40, steps: 3, ..training() };
            // Rows enough for the matrix products to be split over threads.
            let long: Vec<Sequence> = (0..40)
                .map(|i| Sequence {
                    ids: (0..30).map(|j| 3 + (i * j) % 20).collect(),
                    first_target: 1,
                })
                .collect();
            bytes(&train(start, &long, &training, None, &mut Watch::default()).expect("trains").0)
        })
    };
    assert!(run(1) == run(2));
}

fn requests(n: usize, temperature: f64) -> Vec<Request> {
    (0..n)
        .map(|index| Request {
            index,
            prompt: (0..2 + index % 7).map(|j| ((3 + 5 * index + j) % 23) as u32).collect(),
            seed: Seed(4).at(index as u64),
            sampling: Sampling::at(temperature),
            max_tokens: 4 + index % 9,
        })
        .collect()
}

fn replies(requests: Vec<Request>, batch: usize) -> Vec<Reply> {
    let mut all = Vec::new();
    let decoding = Decoding { batch, stop: &[2] };
    generate(&model(), requests, decoding, &mut |reply| {
        all.push(reply);
        Ok(())
    })
    .expect("generates");
    all.sort_by_key(|reply| reply.index);
    all
}

#[test]
fn batch_mates_change_no_token() {
    for temperature in [0.0, 1.0] {
        let alone: Vec<Reply> =
            requests(30, temperature).into_iter().flat_map(|r| replies(vec![r], 1)).collect();
        for batch in [3, 16, 64] {
            assert_eq!(replies(requests(30, temperature), batch), alone, "batch {batch}");
        }
        assert!(alone.iter().any(|r| r.finish == Finish::Length));
    }
}

#[test]
fn cached_decoding_equals_reading_the_whole_text_again() {
    let model = model();
    for reply in replies(requests(8, 0.0), 4) {
        let mut ids = requests(8, 0.0)[reply.index].prompt.clone();
        for &token in &reply.tokens {
            let whole: Arc<[u32]> = ids.clone().into();
            let plan = model.plan(Documents::of_lengths([ids.len()]));
            let last: Arc<[u32]> = vec![ids.len() as u32 - 1].into();
            let hidden = model.last_norm(ops::rows(model.hidden(&whole, &plan), &last));
            let logits = ops::linear(hidden, model.output()).into_data();
            let logits = logits.try_to_vec::<f32>().expect("f32");
            assert_eq!(Sampling::Greedy.choose(&logits, Seed(0), 0), token);
            ids.push(token);
        }
    }
}

#[test]
fn a_prompt_that_fills_the_context_is_refused() {
    let mut request = requests(1, 0.0).remove(0);
    request.prompt = vec![3; 32];
    let refused =
        generate(&model(), vec![request], Decoding { batch: 1, stop: &[] }, &mut |_| Ok(()));
    assert!(refused.expect_err("refused").what.contains("prompt of 32 tokens"));
}
