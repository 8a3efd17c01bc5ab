//! Properties of the whole engine on a tiny model: what is cached equals what
//! is not, batch mates and thread counts change nothing, a resumed training is
//! the uninterrupted one, bit for bit.

use super::batch::{Batch, Pieces, Sequence};
use super::batcher::{Batcher, Heard, Job, Listener};
use super::config::LlamaConfig;
use super::generate::{Decoding, Finish, Reply, Request, generate};
use super::gradient::Subject;
use super::lora::{Adapters, Lora, Target};
use super::model::Llama;
use super::ops::{self, Documents};
use super::optimizer::{AdamW, global_norm};
use super::sample::Sampling;
use super::selftest::small::{self, config, training};
use super::train::{Observer, Progress, Snapshot, Texts, Training, Wish, train};
use super::{gradient, weights};
use crate::base::failure::{Class, Outcome};
use crate::base::seed::Seed;
use burn::tensor::{Device, Tensor};
use std::sync::Arc;

fn model() -> Llama {
    small::model(&Device::flex())
}

/// Copies a number: `n n` is followed by `n n`.
fn data() -> Vec<Sequence> {
    (0..40)
        .map(|i| {
            let n = 3 + i % 20;
            let mut ids = vec![1, n, n];
            ids.extend(vec![n; 1 + i as usize % 3]);
            ids.push(2);
            Sequence { ids, first_target: 3, skipped: vec![], weight: 1.0 }
        })
        .collect()
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

    fn name(&self, sequence: usize) -> String {
        format!("text-{sequence}")
    }
}

fn bytes(model: &Llama) -> Vec<u8> {
    weights::save(model).expect("saves")
}

/// The tiny model's training on the copies.
fn run(
    training: &Training,
    resume: Option<Snapshot>,
    watch: &mut Watch,
) -> Outcome<(Vec<u8>, Progress)> {
    run_on(&data(), training, resume, watch)
}

fn run_on(
    seen: &[Sequence],
    training: &Training,
    resume: Option<Snapshot>,
    watch: &mut Watch,
) -> Outcome<(Vec<u8>, Progress)> {
    let texts = Texts { seen, held_out: &[] };
    let trained = train(model(), texts, training, resume, watch)?;
    Ok((bytes(&trained.model), trained.progress))
}

#[test]
fn training_learns_the_copy() {
    let mut watch = Watch::default();
    let (_, progress) = run(&training(), None, &mut watch).expect("trains");
    assert!(watch.losses[0] > 2.5, "starts at {}", watch.losses[0]);
    assert!(watch.losses[59] < 0.7 * watch.losses[0], "ends at {}", watch.losses[59]);
    assert_eq!((progress.step, progress.curve.last().map(|p| p.0)), (60, Some(60)));
}

/// Trainings that a resumption must not change.
fn trainings() -> Vec<Training> {
    let lora = Lora {
        rank: 3,
        alpha: 6.0,
        targets: Target::ALL.to_vec(),
        dropout: 0.2,
        rank_stabilized: false,
    };
    let adapters = Adapters::fresh(lora, &config(), Seed(8), &Device::flex());
    vec![
        training(),
        Training { pieces: Pieces::Count(3), ..training() },
        Training { pieces: Pieces::Count(2), adapters: Some(adapters), ..training() },
        Training { pieces: Pieces::Tokens(12), ..training() },
    ]
}

#[test]
fn a_stopped_and_resumed_training_is_the_uninterrupted_one() {
    for training in trainings() {
        let mut watch = Watch { snapshot_at: vec![17, 60], ..Watch::default() };
        let whole = run(&training, None, &mut watch).expect("trains");
        let last = watch.kept.pop();
        let from_snapshot = watch.kept.pop();
        let mut rest = Watch { snapshot_at: vec![60], ..Watch::default() };
        let again = run(&training, from_snapshot, &mut rest).expect("resumes");
        assert!(again == whole, "weights, counts or curve");
        assert_eq!(rest.losses[..], watch.losses[17..]);
        assert!(rest.kept.pop() == last, "moments");

        let mut stopped = Watch { stop_at: 33, ..Watch::default() };
        let failure = run(&training, None, &mut stopped).expect_err("stops");
        assert_eq!(failure.class, Class::Interrupted);
        let again = run(&training, stopped.kept.pop(), &mut Watch::default()).expect("resumes");
        assert!(again == whole);
    }
}

#[test]
fn gradients_match_the_reference_operations() {
    // The same loss out of plain tensor operations and burn's own autodiff is
    // what `ops::tests` compares piece by piece; here finite differences check
    // the whole model.
    let (subject, batch) = (Subject::whole(&model()), [Batch::pack(&data()[..5])]);
    let start = model().tensors();
    let gradients =
        |tensors: &[Tensor<2>]| gradient::gradients(&subject, tensors, &batch, false, Seed(0));
    let found = gradients(&start).1;
    for (index, step) in [(0, 4e-3), (2, 4e-3), (5, 4e-3), (8, 4e-3), (10, 4e-3), (19, 4e-3)] {
        let direction = found[index].clone() / ops::sum_of_squares(&found[index]).sqrt();
        let moved = |sign: f64| {
            let mut tensors = start.clone();
            tensors[index] = tensors[index].clone() + direction.clone() * (sign * step);
            gradients(&tensors).0
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let norm = ops::sum_of_squares(&found[index]).sqrt();
        assert!(
            (slope - norm).abs() < 0.02 * norm + 1e-4,
            "tensor {index}: {slope} against {norm}"
        );
    }
}

/// Loss and gradients of the same sequences, however they are computed: 1e-6 of
/// the loss and of the norm of all gradients together, which is what a step sees.
/// A gradient that is a small difference of large terms may lose a digit of its own.
fn invariant(what: &str, a: (f64, Vec<Tensor<2>>), b: &(f64, Vec<Tensor<2>>)) {
    assert!((a.0 - b.0).abs() <= 1e-6 * b.0, "{what}: loss {} against {}", a.0, b.0);
    let differences: Vec<Tensor<2>> =
        a.1.into_iter().zip(&b.1).map(|(a, b)| a - b.clone()).collect();
    let off = global_norm(&differences) / global_norm(&b.1);
    assert!(off <= 1e-6, "{what}: the gradient is off by {off:e}");
    for (i, (difference, b)) in differences.iter().zip(&b.1).enumerate() {
        let off = (ops::sum_of_squares(difference) / ops::sum_of_squares(b)).sqrt();
        assert!(off <= 5e-6, "{what}: gradient {i} is off by {off:e}");
    }
}

#[test]
fn parts_packing_and_recomputing_change_no_gradient() {
    let all = data();
    let eight: Vec<&Sequence> = all[3..11].iter().collect();
    assert!(eight.iter().any(|one| one.ids.len() != eight[0].ids.len()), "of unequal lengths");
    for untied in [false, true] {
        let config = LlamaConfig { tie_word_embeddings: !untied, ..config() };
        let start = Llama::random(config.clone(), 0.3, Seed(5), &Device::flex());
        let lora = trainings().remove(2).adapters.expect("adapters").lora;
        let mut adapters = Adapters::fresh(lora.clone(), &config, Seed(1), &Device::flex());
        for (i, w) in adapters.weights.iter_mut().enumerate() {
            *w = w.clone() + 0.01 * (1 + i % 5) as f64;
        }
        let thinned = Lora { dropout: 0.0, ..lora.clone() };
        let subjects = [
            (Subject::whole(&start), start.tensors()),
            (Subject::adapters(&start, &thinned), adapters.weights.clone()),
        ];
        for (subject, weights) in &subjects {
            let run = |parts: usize, recompute: bool| {
                let parts = Batch::split(&eight, Pieces::Count(parts));
                gradient::gradients(subject, weights, &parts, recompute, Seed(7))
            };
            let whole = run(1, false);
            // Eight parts of one sequence each are the training without packing.
            invariant("8 x 1", run(8, false), &whole);
            invariant("4 x 2", run(4, false), &whole);
            invariant("2 x 4", run(2, false), &whole);
            invariant("recomputed", run(1, true), &whole);
            let fitted = Batch::split(&eight, Pieces::Tokens(12));
            let order: Vec<u32> = fitted.iter().flat_map(|part| part.ids.to_vec()).collect();
            let plain = Batch::split(&eight, Pieces::Count(1));
            assert!(fitted.len() > 2 && order != plain[0].ids[..], "packed by length");
            let fitted = gradient::gradients(subject, weights, &fitted, false, Seed(7));
            invariant("packed by length", fitted, &whole);
            invariant("2 x 4, recomputed", run(2, true), &whole);
        }
        // What adapters leave out is left out when a block is computed again.
        let subject = Subject::adapters(&start, &lora);
        let run = |recompute, seed| {
            let parts = Batch::split(&eight, Pieces::Count(2));
            gradient::gradients(&subject, &adapters.weights, &parts, recompute, seed)
        };
        let dropped = run(false, Seed(7));
        invariant("recomputed with dropout", run(true, Seed(7)), &dropped);
        assert!((run(false, Seed(8)).0 - dropped.0).abs() > 1e-6, "the seed matters");
    }
}

#[test]
fn the_loss_of_an_example_does_not_depend_on_what_it_is_packed_with() {
    let (subject, weights, all) = (Subject::whole(&model()), model().tensors(), data());
    let step: Vec<&Sequence> = all[..16].iter().collect();
    let total: usize = step.iter().map(|one| one.targets()).sum();
    for (i, example) in step.iter().enumerate() {
        let alone = [Batch::pack([*example])];
        let alone = gradient::held_out_loss(&subject, &weights, &alone) * example.targets() as f64;
        for pieces in [Pieces::Count(1), Pieces::Count(5), Pieces::Tokens(9), Pieces::Tokens(20)] {
            // The others are there, and weigh nothing.
            let others = step.iter().enumerate().map(|(j, one)| Sequence {
                weight: if i == j { 1.0 } else { 0.0 },
                ..Sequence::clone(one)
            });
            let others: Vec<Sequence> = others.collect();
            let others: Vec<&Sequence> = others.iter().collect();
            let parts = Batch::split(&others, pieces);
            let packed = gradient::held_out_loss(&subject, &weights, &parts) * total as f64;
            assert!((packed / alone - 1.0).abs() <= 1e-6, "{pieces:?}: {packed} against {alone}");
        }
    }
}

#[test]
fn adapters_learn_and_leave_the_base_alone() {
    let training = Training {
        optimizer: AdamW { rate: 2e-2, ..training().optimizer },
        ..trainings().remove(2)
    };
    let all = data();
    let texts = Texts { seen: &all, held_out: &[] };
    let mut watch = Watch::default();
    let start = model();
    let trained = train(start.clone(), texts, &training, None, &mut watch).expect("trains");
    assert!(watch.losses[59] < 0.8 * watch.losses[0], "ends at {}", watch.losses[59]);
    assert!(bytes(&start) == bytes(&model()), "the base is as it was");
    let (adapters, error) = trained.adapters.expect("adapters");
    assert!(error < 1e-4, "merging changes logits by {error}");
    assert!(bytes(&trained.model) == bytes(&adapters.merge(&model())));
    assert!(bytes(&trained.model) != bytes(&model()));
}

#[test]
fn a_weight_scales_its_sequences_share_of_the_gradient() {
    let (subject, start, all) = (Subject::whole(&model()), model().tensors(), data());
    let of = |sequences: &[Sequence]| {
        let parts = [Batch::pack(sequences)];
        gradient::gradients(&subject, &start, &parts, false, Seed(0))
    };
    let (mut first, mut second) = (all[..2].to_vec(), all[2..4].to_vec());
    let targets = |set: &[Sequence]| Batch::pack(set).targets.len() as f64;
    let (n, m) = (targets(&first), targets(&second));
    let (a, b) = (of(&first), of(&second));
    second.iter_mut().for_each(|one| one.weight = 0.25);
    first.extend(second);
    let share = |a: f64, b: f64| (n * a + 0.25 * m * b) / (n + m);
    let terms = a.1.into_iter().zip(b.1);
    let want: Vec<Tensor<2>> = terms.map(|(a, b)| (a * n + b * (0.25 * m)) / (n + m)).collect();
    invariant("weighted", of(&first), &(share(a.0, b.0), want));
}

#[test]
fn held_out_losses_are_told_and_change_nothing() {
    let all = data();
    let (seen, held_out) = all.split_at(30);
    let train_with = |held_out, resume, watch: &mut Watch| {
        train(model(), Texts { seen, held_out }, &training(), resume, watch)
    };
    let mut watch = Watch { snapshot_at: vec![25], ..Watch::default() };
    let blind = train_with(&[], None, &mut Watch::default()).expect("trains");
    let seeing = train_with(held_out, None, &mut watch).expect("trains");
    assert!(bytes(&blind.model) == bytes(&seeing.model));
    assert_eq!(blind.progress.curve, seeing.progress.curve);
    let told = &seeing.progress.held_out;
    assert_eq!(told.iter().map(|point| point.0).collect::<Vec<_>>(), [0, 20, 40, 60]);
    assert!(told[3].1 < told[0].1, "{told:?}");
    // The mean over all tokens of the set, in one piece.
    let subject = Subject::whole(&model());
    let at_once = gradient::held_out_loss(&subject, &model().tensors(), &[Batch::pack(held_out)]);
    assert!((told[0].1 - at_once).abs() < 1e-6 * at_once, "{} against {at_once}", told[0].1);
    let resumed = train_with(held_out, watch.kept.pop(), &mut Watch::default()).expect("resumes");
    assert_eq!(resumed.progress, seeing.progress);
}

#[test]
fn a_loss_that_is_not_finite_stops_and_names_its_examples() {
    // A weight of infinity stands for a broken example: alone it has no finite loss.
    let mut seen = data();
    seen[11].weight = f32::INFINITY;
    let mut watch = Watch { snapshot_at: vec![1], ..Watch::default() };
    let failure = run_on(&seen, &training(), None, &mut watch).expect_err("stops");
    let step = watch.losses.len();
    assert_eq!(failure.class, Class::Input);
    assert!(failure.what.contains(&format!("at step {step}; because of `text-11`")), "{failure:?}");
    // The state before the step is kept, and is good: with the example mended it goes on.
    seen[11].weight = 1.0;
    let kept = watch.kept.pop();
    let whole = run_on(&seen, &training(), None, &mut Watch::default()).expect("trains");
    let mended = run_on(&seen, &training(), kept, &mut Watch::default()).expect("goes on");
    assert!(mended == whole);

    // A rate beyond all measure: weights that are not finite are never kept, wherever it ends.
    let wild = AdamW { rate: 1e38, clip: 0.0, ..training().optimizer };
    for steps in [2, 60] {
        let wild = Training { optimizer: wild, steps, ..training() };
        let mut watch = Watch { snapshot_at: vec![1, 3], ..Watch::default() };
        let failure = run(&wild, None, &mut watch).expect_err("stops");
        assert_eq!(failure.class, Class::Input);
        assert!(failure.what.contains("the weights became infinite within "), "{failure:?}");
        let kept: Vec<Snapshot> = std::mem::take(&mut watch.kept);
        for snapshot in &kept {
            let moments = weights::load_moments(
                &config().parameters(),
                &snapshot["optimizer.safetensors"],
                &Device::flex(),
            );
            let kept: Vec<Tensor<2>> =
                moments.expect("loads").into_iter().map(|one| one.w).collect();
            assert!(global_norm(&kept).is_finite());
        }
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
                    skipped: vec![],
                    weight: 1.0,
                })
                .collect();
            let texts = Texts { seen: &long, held_out: &[] };
            bytes(
                &train(start, texts, &training, None, &mut Watch::default()).expect("trains").model,
            )
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
            logprobs: index % 2 == 1,
        })
        .collect()
}

fn replies(requests: Vec<Request>, batch: usize) -> Vec<Reply> {
    let mut all = Vec::new();
    let decoding = Decoding { batch, stop: &[2], until: None };
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
fn neighbours_with_one_prompt_say_what_each_says_alone() {
    let doubled = || {
        let all = requests(10, 1.0).into_iter().flat_map(|r| [r.clone(), r.clone(), r]);
        all.enumerate().map(|(i, r)| Request { index: i, seed: Seed(9).at(i as u64), ..r })
    };
    let alone: Vec<Reply> = doubled().flat_map(|r| replies(vec![r], 1)).collect();
    for batch in [2, 5, 64] {
        assert_eq!(replies(doubled().collect(), batch), alone, "batch {batch}");
    }
    let differ = |three: &[Reply]| three[0].tokens != three[1].tokens;
    assert!(alone.chunks(3).filter(|three| differ(three)).count() > 5);
}

/// Writes down what it hears, up to a number of tokens.
struct Ear {
    heard: Vec<u32>,
    most: usize,
}

impl Listener for Ear {
    fn hear(&mut self, token: u32, _: &[f32], _: bool) -> crate::base::failure::Outcome<Heard> {
        self.heard.push(token);
        Ok(if self.heard.len() >= self.most { Heard::Gone } else { Heard::GoOn })
    }
}

#[test]
fn who_leaves_a_batch_makes_room_and_changes_nobody() {
    let model = model();
    let job = |index: usize, most: usize| Job {
        prompt: requests(10, 0.0).remove(index).prompt.into(),
        seed: Seed(1).at(index as u64),
        sampling: Sampling::at(1.0),
        max_tokens: 12,
        stop: [].into(),
        listener: Ear { heard: Vec::new(), most },
    };
    let alone = |index: usize| {
        let mut batch = Batcher::new(&model, 1, 32);
        batch.admit(vec![job(index, 99)]).expect("admits");
        loop {
            let ended = batch.step().expect("steps");
            if let Some((ear, finish)) = ended.into_iter().next() {
                assert_eq!((finish, batch.free()), (Finish::Length, 1));
                return ear.heard;
            }
        }
    };
    let mut batch = Batcher::new(&model, 3, 32);
    let mut ended = batch.admit(vec![job(0, 99), job(1, 4), job(2, 99)]).expect("admits");
    assert_eq!(batch.free(), 0);
    assert!(batch.admit(vec![job(3, 99)]).is_err(), "no slot is free");
    for _ in 0..3 {
        ended.extend(batch.step().expect("steps"));
    }
    assert_eq!(batch.free(), 1, "the second wants no fifth token");
    ended.extend(batch.admit(vec![job(3, 99)]).expect("admits"));
    let left = batch.release(|ear| ear.heard == alone(0)[..4]);
    assert_eq!((left.len(), batch.free()), (1, 1));
    ended.extend(batch.admit(vec![job(4, 99)]).expect("admits"));
    while !batch.is_idle() {
        ended.extend(batch.step().expect("steps"));
    }
    let mut said: Vec<Vec<u32>> = ended.into_iter().map(|(ear, _)| ear.heard).collect();
    let mut want: Vec<Vec<u32>> = [2, 3, 4].map(alone).to_vec();
    said.sort();
    want.sort();
    assert_eq!(said, want);
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
            let logits = model.to_logits(hidden).into_data();
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
    let decoding = Decoding { batch: 1, stop: &[], until: None };
    let refused = generate(&model(), vec![request], decoding, &mut |_| Ok(()));
    assert!(refused.expect_err("refused").what.contains("prompt of 32 tokens"));
}
