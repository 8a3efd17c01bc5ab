//! What torch computes of the losses that learn from preferences and from
//! rewards, in double precision, against what this engine does; the numbers are
//! in `tests/fixtures/ppo.json`, made by the script beside it. And what PPO has to
//! do on a tiny model: reach higher scores, stay near its reference, go on from
//! any stop to the same bits.

use super::batch::Pieces;
use super::gradient::gradients;
use super::lora::{Adapters, Lora, Target};
use super::model::Llama;
use super::optimizer::{AdamW, Schedule};
use super::parity_tests::{config, file, floats, model, off, part};
use super::peft;
use super::ppo::{
    Clipping, Episode, Ppo, Progress, Watcher, improve, learner as policy, ppo, said,
};
use super::preference::{
    Divergence, Term, advantages, bradley_terry, policy_loss, token_rewards, value_loss, whiten,
};
use super::reward::{Pair, Pairs, RewardModel, learner};
use super::selftest::small;
use super::train::{Lesson, Snapshot, Wish};
use crate::base::failure::{Failure, Outcome};
use crate::base::seed::Seed;
use crate::record::reward::PpoBatch;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

fn cases() -> Value {
    let path = format!("{}/tests/fixtures/ppo.json", env!("CARGO_MANIFEST_DIR"));
    part(&serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON"))
}

/// The largest difference by the largest number that is wanted, or by 1.
fn apart(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    got.iter().zip(want).fold(0.0f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn every_term_and_its_slope_are_those_of_torch() {
    let case = &cases()["terms"];
    let list = |name: &str| -> Vec<f64> { part(&case[name]) };
    let one = |name: &str| -> f64 { part(&case[name]) };
    let same = |name: &str, found: Vec<Term>| {
        let (losses, slopes): (Vec<f64>, Vec<f64>) =
            found.iter().map(|term| (term.loss, term.slope)).unzip();
        for (what, got) in [("loss", losses), ("slope", slopes)] {
            let apart = apart(&got, &part::<Vec<f64>>(&case[name][what]));
            assert!(apart <= 1e-12, "{what} of {name}: {apart:e}");
        }
    };
    let three = |a: &str, b: &str, c: &str| {
        let (a, b, c) = (list(a), list(b), list(c));
        a.into_iter().zip(b).zip(c).map(|((a, b), c)| (a, b, c)).collect::<Vec<_>>()
    };
    let found: Vec<Term> = three("new", "old", "advantage")
        .into_iter()
        .map(|(new, old, advantage)| policy_loss(new, old, advantage, one("clip")))
        .collect();
    assert!(found.iter().any(|term| term.clipped) && found.iter().any(|term| !term.clipped));
    same("policy", found);
    let found: Vec<Term> = three("value_new", "value_old", "value_target")
        .into_iter()
        .map(|(new, old, target)| value_loss(new, old, target, one("value_clip")))
        .collect();
    assert!(found.iter().any(|term| term.clipped) && found.iter().any(|term| !term.clipped));
    same("value", found);
    let pairs = list("chosen").into_iter().zip(list("rejected"));
    same("bradley_terry", pairs.map(|(a, b)| bradley_terry(a, b)).collect());

    let rewards = token_rewards(&list("own"), &list("reference"), one("coefficient"), one("score"));
    assert!(apart(&rewards, &list("rewards")) <= 1e-12);
    let mut found = advantages(&rewards, &list("values"), one("gamma"), one("lambda"));
    assert!(apart(&found, &list("advantages")) <= 1e-12);
    let returns: Vec<f64> = found.iter().zip(list("values")).map(|(a, v)| a + v).collect();
    assert!(apart(&returns, &list("returns")) <= 1e-12);
    whiten(found.iter_mut());
    assert!(apart(&found, &list("whitened")) <= 1e-12);
}

/// The adapter of the training fixture.
fn adapter() -> Adapters {
    let (settings, weights) =
        (file("adapter/adapter_config.json"), file("adapter/adapter_model.safetensors"));
    peft::load(&settings, &weights, &config(), &Device::flex()).expect("loads")
}

fn row(values: &[f64]) -> Tensor<2> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    let shape = [1, values.len()];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn narrow(values: &Value) -> Vec<f32> {
    part::<Vec<f64>>(values).into_iter().map(|x| x as f32).collect()
}

#[test]
fn a_reward_models_scores_and_gradients_are_those_of_torch() {
    let case = &cases()["reward_model"];
    let trunk = model().without_output();
    let (subject, mut weights) = learner(&trunk, Some(&adapter()), Seed(1));
    *weights.last_mut().expect("the head") = row(&part::<Vec<f64>>(&case["head"]));
    let pairs: Vec<Pair> = part::<Vec<(Vec<u32>, Vec<u32>)>>(&case["pairs"])
        .into_iter()
        .map(|(chosen, rejected)| Pair { chosen, rejected })
        .collect();
    let reward = RewardModel::of(&subject, &weights);
    let texts: Vec<&[u32]> =
        pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
    let scores = part::<Vec<[f64; 2]>>(&case["scores"]).concat();
    for tokens in [1000, 30, 1] {
        assert!(apart(&reward.scores(&texts, tokens), &scores) <= 1e-6);
    }
    let all: Vec<&Pair> = pairs.iter().collect();
    for (pieces, recompute) in
        [(Pieces::Count(1), false), (Pieces::Count(3), false), (Pieces::Tokens(40), true)]
    {
        let parts: Vec<Pairs> = Pair::parts(&all, pieces);
        let (loss, found) = gradients(&subject, &weights, &parts, recompute, Seed(0));
        let want: f64 = part(&case["loss"]);
        assert!((loss - want).abs() <= 1e-6 * want, "{loss} against {want}");
        for ((name, ..), gradient) in subject.parameters().iter().zip(&found) {
            let want = match name.as_str() {
                "score.weight" => narrow(&case["head_gradient"]),
                name => narrow(&case["gradients"][name]),
            };
            let off = off(&floats(gradient), &want);
            assert!(off <= 2e-6, "{name}: off by {off:e}");
        }
    }
}

/// Settings of the batch of PPO that torch took.
fn asked(case: &Value) -> Ppo {
    let one = |name: &str| -> f64 { part(&case["settings"][name]) };
    Ppo {
        optimizer: AdamW {
            rate: part(&case["rate"]),
            warmup: 0.0,
            schedule: Schedule::Constant,
            floor: 1.0,
            beta1: 0.9,
            beta2: part(&case["beta2"]),
            eps: 1e-8,
            decay: 0.0,
            clip: 1.0,
        },
        clipping: Clipping {
            clip: one("clip"),
            value_clip: one("value_clip"),
            value_weight: one("value_weight"),
            discount: one("gamma"),
            lambda: one("lambda"),
            temperature: part(&case["temperature"]),
        },
        divergence: Divergence { coefficient: one("coefficient"), target: None, gain: 0.1 },
        ..tiny()
    }
}

#[test]
fn a_batch_of_ppo_is_that_of_torch() {
    let case = &cases()["step"];
    let (trunk, start, asked) = (model(), adapter(), asked(case));
    let mut episodes: Vec<Episode> = part::<Vec<(Vec<u32>, usize)>>(&case["episodes"])
        .into_iter()
        .map(|(ids, reply)| Episode { ids, reply, ..Episode::default() })
        .collect();
    let subject = policy(&trunk, &start);
    let mut weights = start.weights.clone();
    weights.push(row(&part::<Vec<f64>>(&case["value_head"]["weight"])));
    weights.push(row(&part::<Vec<f64>>(&case["value_head"]["bias"])));

    // What is known of the replies before a step.
    let model = subject.model(&weights, None);
    let own = said(&model, subject.heads(&weights), &episodes, &asked.clipping, 40);
    let other = said(&trunk, &[], &episodes, &asked.clipping, 1000);
    let scores: Vec<f64> = part(&case["scores"]);
    for (at, episode) in episodes.iter_mut().enumerate() {
        (episode.old, episode.values) = (own[at].log_probabilities.clone(), own[at].values.clone());
        (episode.reference, episode.entropy) =
            (other[at].log_probabilities.clone(), own[at].entropy);
        episode.reward(scores[at], asked.divergence.coefficient, &asked.clipping);
    }
    whiten(episodes.iter_mut().flat_map(|episode| &mut episode.advantages));
    for (at, episode) in episodes.iter().enumerate() {
        let known = &case["known"][at];
        let entropy = [episode.entropy];
        for (name, got) in [
            ("old", &episode.old[..]),
            ("reference", &episode.reference),
            ("values", &episode.values),
            ("returns", &episode.returns),
            ("advantages", &episode.advantages),
            ("entropy", &entropy),
        ] {
            let want: Vec<f64> = match name {
                "entropy" => vec![part(&known[name])],
                _ => part(&known[name]),
            };
            let apart = apart(got, &want);
            assert!(apart <= 1e-6, "{name} of reply {at}: {apart:e}");
        }
    }

    // The gradients of the first step, at once and in parts.
    let minibatches: Vec<Vec<usize>> = part(&case["minibatches"]);
    let members = |step: usize| minibatches[step].iter().map(|&i| &episodes[i]).collect::<Vec<_>>();
    for (tokens, recompute) in [(1000, false), (20, false), (1000, true)] {
        let parts = super::ppo::Replies::split(&members(0), &asked.clipping, tokens);
        let (_, found) = gradients(&subject, &weights, &parts, recompute, Seed(0));
        for ((name, ..), gradient) in subject.parameters().iter().zip(&found) {
            let off = off(&floats(gradient), &narrow(&case["first_gradients"][name]));
            assert!(off <= 2e-6, "{name}: off by {off:e}");
        }
    }

    let mut optimizer =
        super::optimizer::Optimizer::new(asked.optimizer, subject.decays(), weights);
    for step in 0..minibatches.len() {
        let (losses, norm) =
            improve(&subject, &mut optimizer, &members(step), &asked, 4).expect("finite");
        let want = &case["steps"][step];
        for (name, got) in [
            ("policy", losses.policy),
            ("value", losses.value),
            ("clipped", losses.clipped),
            ("ratio", losses.ratio),
            ("norm", norm),
        ] {
            let apart = apart(&[got], &[part(&want[name])]);
            // What came before a step is in double precision; four steps of f32 add up.
            let most = if step == 0 { 1e-6 } else { 1e-5 };
            assert!(apart <= most, "{name} of step {step}: {apart:e}");
        }
    }
    for ((name, ..), w) in subject.parameters().iter().zip(optimizer.weights()) {
        let off = off(&floats(&w), &narrow(&case["end"][name]));
        assert!(off <= 1e-5, "{name}: off by {off:e}");
    }
}

/// Settings of a run of a few seconds.
fn tiny() -> Ppo {
    Ppo {
        optimizer: AdamW { rate: 5e-3, warmup: 0.0, decay: 0.0, ..small::training().optimizer },
        clipping: Clipping {
            clip: 0.2,
            value_clip: 0.2,
            value_weight: 0.1,
            discount: 1.0,
            lambda: 0.95,
            temperature: 1.0,
        },
        divergence: Divergence { coefficient: 0.05, target: None, gain: 0.1 },
        batches: 12,
        batch: 32,
        epochs: 2,
        minibatches: 2,
        whiten: true,
        score_clip: 0.0,
        unfinished: 0.0,
        max_tokens: 6,
        side_by_side: 16,
        part_tokens: 1000,
        recompute: false,
        end: 2,
        seed: Seed(4),
    }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..40).map(|i| vec![1, 3 + i % 20, 3 + i / 2]).collect()
}

fn start() -> Adapters {
    let lora = Lora { rank: 4, alpha: 8.0, targets: Target::ALL.to_vec(), ..Lora::default() };
    Adapters::fresh(lora, &small::config(), Seed(6), &Device::flex())
}

/// A reward model with likes of its own: nobody taught it.
fn judge() -> RewardModel {
    let model = Llama::random(small::config(), 0.3, Seed(77), &Device::flex());
    let mut rng = Seed(78).rng();
    let head: Vec<f64> = (0..small::config().hidden_size).map(|_| 0.3 * rng.normal()).collect();
    RewardModel { model, head: row(&head) }
}

#[derive(Default)]
struct Watch {
    snapshot_at: Vec<u64>,
    stop_at: u64,
    /// Calls in the middle of batches until one of them ends it.
    calls: Option<u64>,
    kept: Vec<Snapshot>,
}

impl Watcher for Watch {
    fn goes_on(&mut self, _: u64, _: &str) -> Outcome<()> {
        match &mut self.calls {
            Some(0) => Err(Failure::interrupted()),
            Some(calls) => {
                *calls -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn batch(&mut self, done: &PpoBatch) -> Wish {
        if done.batch == self.stop_at {
            Wish::Stop
        } else if self.snapshot_at.contains(&done.batch) {
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

fn run(
    asked: &Ppo,
    resume: Option<Snapshot>,
    watch: &mut Watch,
) -> Outcome<(Vec<Vec<f32>>, Progress)> {
    let (trunk, reward) = (small::model(&Device::flex()), judge());
    let score = |texts: &[&[u32]]| reward.scores(texts, 500);
    let (adapters, progress) = ppo(&trunk, &start(), &prompts(), &score, asked, resume, watch)?;
    Ok((adapters.weights.iter().map(floats).collect(), progress))
}

/// Means over the last four batches of a run.
fn settled(batches: &[PpoBatch], of: fn(&PpoBatch) -> f64) -> f64 {
    batches[batches.len() - 4..].iter().map(of).sum::<f64>() / 4.0
}

#[test]
fn scores_rise_and_divergence_is_bounded_by_what_it_costs() {
    // A point for every even token, a point less for every odd one.
    let taste = |texts: &[&[u32]]| -> Vec<f64> {
        let point = |id: &u32| if id.is_multiple_of(2) { 1.0 } else { -1.0 };
        texts.iter().map(|text| text.iter().map(point).sum()).collect()
    };
    let fared = |coefficient: f64| {
        let divergence = Divergence { coefficient, ..tiny().divergence };
        let asked = Ppo { batches: 24, divergence, ..tiny() };
        let (trunk, mut watch) = (small::model(&Device::flex()), Watch::default());
        let came = ppo(&trunk, &start(), &prompts(), &taste, &asked, None, &mut watch);
        came.expect("learns").1.batches
    };
    let [cheap, dear] = [0.05, 2.0].map(fared);
    for all in [&cheap, &dear] {
        let first = all[0];
        // Adapters start as no change at all.
        assert!(first.kl.abs() < 1e-5, "{first:?}");
        // 32 replies of the first batch against the 80 of the last four.
        let deviation = settled(all, |one| one.score_deviation);
        let error = (first.score_deviation.powi(2) / 32.0 + deviation.powi(2) / 80.0).sqrt();
        let (gain, kl) = (settled(all, |one| one.score) - first.score, settled(all, |one| one.kl));
        // Nothing is paid for more than it brings: E[score] - coefficient * KL is not below that
        // of the reference, which diverges from nothing.
        assert!(0.0 < kl && first.coefficient * kl <= gain + 3.0 * error, "{gain} for {kl}");
        if first.coefficient < 0.1 {
            assert!(gain > 5.0 * error, "{gain} +- {error}: chance");
        }
    }
    let kl = |all: &[PpoBatch]| settled(all, |one| one.kl);
    assert!(kl(&dear) < 0.5 * kl(&cheap), "{} against {}", kl(&dear), kl(&cheap));
}

#[test]
fn the_coefficient_leads_the_divergence_to_its_target() {
    let divergence = Divergence { coefficient: 0.05, target: Some(0.5), gain: 1.0 };
    let asked = Ppo { divergence, ..tiny() };
    let (_, progress) = run(&asked, None, &mut Watch::default()).expect("learns");
    for pair in progress.batches.windows(2) {
        let wanted = divergence.next(pair[0].coefficient, pair[0].kl);
        assert_eq!(pair[1].coefficient, wanted);
    }
    assert_ne!(progress.coefficient, 0.05);
}

#[test]
fn a_run_that_was_stopped_anywhere_goes_on_to_the_same_bits() {
    let asked = Ppo {
        batches: 4,
        divergence: Divergence { coefficient: 0.1, target: Some(0.3), gain: 0.5 },
        part_tokens: 60,
        ..tiny()
    };
    let mut watch = Watch { snapshot_at: vec![2], ..Watch::default() };
    let whole = run(&asked, None, &mut watch).expect("learns");
    let snapshot = watch.kept.pop();
    assert!(snapshot.is_some());
    assert!(run(&asked, snapshot, &mut Watch::default()).expect("resumes") == whole);
    // Asked to stop between batches, and in the middle of writing, of judging, of learning.
    for mut stopped in [
        Watch { stop_at: 1, ..Watch::default() },
        Watch { calls: Some(5), ..Watch::default() },
        Watch { calls: Some(33), ..Watch::default() },
        Watch { calls: Some(36), ..Watch::default() },
        Watch { calls: Some(80), ..Watch::default() },
    ] {
        let failure = run(&asked, None, &mut stopped).expect_err("stopped");
        assert_eq!(failure.what, "interrupted");
        let last = stopped.kept.pop();
        assert!(last.is_some());
        assert!(run(&asked, last, &mut Watch::default()).expect("resumes") == whole);
    }
    // Threads, parts and mates of a batch change nothing that is written.
    let other = Ppo { side_by_side: 3, ..asked };
    assert!(run(&other, None, &mut Watch::default()).expect("learns") == whole);
}

#[test]
fn what_is_not_finite_stops_at_its_step_and_the_state_before_is_kept() {
    let trunk = small::model(&Device::flex());
    let failing = |judge: &super::ppo::Judge, asked: &Ppo| {
        let mut watch = Watch::default();
        let failure = ppo(&trunk, &start(), &prompts(), judge, asked, None, &mut watch)
            .expect_err("is not finite");
        (failure.what, watch.kept.len())
    };
    let nan = |texts: &[&[u32]]| vec![f64::NAN; texts.len()];
    let (what, kept) = failing(&nan, &tiny());
    assert_eq!((what.as_str(), kept), ("the score of reply 1 became NaN in batch 1", 1));
    let vast = |texts: &[&[u32]]| vec![1e200; texts.len()];
    let (what, kept) = failing(&vast, &tiny());
    assert!(what.ends_with("in batch 1, epoch 1, minibatch 1 (optimizer step 0)"), "{what}");
    assert!(what.starts_with("the loss became") && kept == 1, "{what}");
    // Scores that are held within bounds are no trouble.
    let held = Ppo { score_clip: 5.0, batches: 1, ..tiny() };
    let mut watch = Watch::default();
    ppo(&trunk, &start(), &prompts(), &vast, &held, None, &mut watch).expect("learns");
}
