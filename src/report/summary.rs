//! The numbers of a report: what the collected results say about the models
//! that a manifest wants to see. How they are shown is not known here.

use super::{
    claims::{self, Claim, Held},
    collected::{Collected, CollectedArm, CollectedStep},
    judged::{self, Judged},
    leaks::{self, Checked},
    seeds::{self, Group},
};
use crate::{
    base::artifact::ArtifactKind,
    manifest::ReportModel,
    record::{
        Measure, Outcome, RuleScores, Scores, Tally, Tokens, TrainLog,
        extractor::Extractor,
        metric::{self, Paired, Share},
    },
};
use std::collections::BTreeMap;

/// The modes of evaluation in the order of tables; others follow.
const MODES: [&str; 5] = ["direct", "refine", "consistency", "consistency-refine", "vote-refine"];

/// All numbers of a report.
pub(super) struct Summary {
    /// Heading.
    pub(super) title: String,
    /// One entry for each arm.
    pub(super) arms: Vec<Arm>,
    /// The arms that differ in the seed only, put together; empty without a sweep.
    pub(super) groups: Vec<Group>,
    /// What nobody has checked against the paper.
    pub(super) unverified: Vec<String>,
}

/// The numbers of an arm.
pub(super) struct Arm {
    /// Axis and label.
    pub(super) coordinates: Vec<(String, String)>,
    /// Root seed.
    pub(super) seed: u64,
    /// Models in the report's order, one for each label and data set.
    pub(super) models: Vec<Model>,
    /// What filters and annotators did, in the order of the steps.
    pub(super) tallies: Vec<Counted>,
    /// What judges said, in the order of the steps.
    pub(super) judged: Vec<Judged>,
    /// What searches for test items in training data found.
    pub(super) leaks: Vec<Checked>,
    /// The comparisons.
    pub(super) claims: Vec<Claim>,
    /// Results held against published values.
    pub(super) held: Vec<Held>,
    /// What could not be read, and why.
    pub(super) missing: Vec<String>,
}

/// A model with everything that was found about it.
pub(super) struct Model {
    /// Name in tables.
    pub(super) label: String,
    /// What it was evaluated on.
    pub(super) dataset: String,
    /// What counts as a success in its outcomes.
    pub(super) measure: Measure,
    /// Label of the model it is tested against.
    pub(super) control: Option<String>,
    /// Place on the chart.
    pub(super) round: Option<u64>,
    /// Outcomes by mode.
    pub(super) modes: BTreeMap<String, Vec<Outcome>>,
    /// The rule of extraction that decided them.
    pub(super) rule: String,
    /// What other rules make of the same texts, by mode.
    pub(super) others: BTreeMap<String, Vec<RuleScores>>,
    /// Its training.
    pub(super) log: Option<TrainLog>,
    /// Verdicts of its feedback.
    pub(super) feedback: Option<Tally>,
    /// The filtering of the data it was trained on.
    pub(super) data: Option<Tally>,
    /// Tokens of its evaluations.
    pub(super) tokens: Tokens,
    /// Full names of the steps that evaluated it.
    pub(super) evaluations: Vec<String>,
}

/// A tally with the step that made it.
pub(super) struct Counted {
    /// Full name of the step.
    pub(super) step: String,
    /// Its round.
    pub(super) round: Option<u32>,
    /// The counts.
    pub(super) tally: Tally,
    /// Tokens written in making and judging its items, over the steps of the round.
    pub(super) generated: Option<u64>,
    /// The training that used what was kept.
    pub(super) trained: Option<TrainLog>,
}

/// A paired comparison with what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairing {
    /// Items both were scored on.
    pub(super) n: u64,
    /// First minus second, as a share.
    pub(super) difference: f64,
    /// Discordant counts and exact p.
    pub(super) paired: Paired,
}

impl Summary {
    /// Works everything out.
    pub(super) fn of(collected: &Collected) -> Summary {
        let report = collected.arms.iter().find_map(|arm| arm.findings.report.as_ref());
        let title = report.and_then(|report| report.title.clone());
        let unverified = report.map_or(Vec::new(), |report| report.unverified.clone());
        let mut arms: Vec<Arm> =
            collected.arms.iter().map(|arm| Arm::of(arm, collected.rounds)).collect();
        // Some comparisons are between arms, so they wait until all are read.
        let claims: Vec<_> = (0..arms.len())
            .map(|number| {
                let sides: Vec<_> = arms
                    .iter()
                    .map(|arm| (arm.coordinates.as_slice(), arm.models.as_slice()))
                    .collect();
                let wanted = &collected.arms[number].findings.compare;
                let mut missing = Vec::new();
                let made = claims::claims(number, &sides, wanted, collected.rounds, &mut missing);
                (made, missing)
            })
            .collect();
        for (arm, (made, missing)) in arms.iter_mut().zip(claims) {
            arm.claims = made;
            arm.missing.extend(missing);
        }
        let groups = seeds::groups(&arms);
        Summary { title: title.unwrap_or_else(|| collected.name.clone()), arms, groups, unverified }
    }

    /// Whether there is any model to show.
    pub(super) fn shows_models(&self) -> bool {
        self.arms.iter().any(|arm| !arm.models.is_empty())
    }
}

impl Arm {
    fn of(arm: &CollectedArm, rounds: u32) -> Arm {
        let mut missing = Vec::new();
        let mut models: Vec<Model> = Vec::new();
        let report = arm.findings.report.as_ref();
        for wanted in report.into_iter().flat_map(|report| &report.models) {
            if let Some(model) = Model::read(arm, wanted, &mut missing) {
                Model::add(&mut models, model);
            }
        }
        for model in &models {
            let (label, dataset) = (&model.label, &model.dataset);
            let Some(control) = model.control.as_deref() else { continue };
            if find(&models, control, dataset).is_none() {
                missing.push(format!(
                    "`{label}`: no scores of its control `{control}` on `{dataset}`"
                ));
            }
        }
        let tallies = tallies(arm, &mut missing);
        let judged = judged::read(arm, &mut missing);
        let leaks = leaks::checked(arm, &mut missing);
        let held = claims::targets(
            (&arm.coordinates, &models),
            &arm.findings.target,
            rounds,
            &mut missing,
        );
        let (coordinates, seed) = (arm.coordinates.clone(), arm.seed);
        Arm { coordinates, seed, models, tallies, judged, leaks, claims: Vec::new(), held, missing }
    }

    /// Data sets in the order of the models.
    pub(super) fn datasets(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for model in &self.models {
            if !names.contains(&model.dataset.as_str()) {
                names.push(&model.dataset);
            }
        }
        names
    }

    /// The control of a model, evaluated on the same data set.
    pub(super) fn control(&self, model: &Model) -> Option<&Model> {
        find(&self.models, model.control.as_deref()?, &model.dataset)
    }
}

/// The model with this label, evaluated on this data set.
pub(super) fn find<'a>(models: &'a [Model], label: &str, dataset: &str) -> Option<&'a Model> {
    models.iter().find(|model| model.label == label && model.dataset == dataset)
}

/// The modes of several models, in the order of tables.
pub(super) fn modes<'a>(models: impl IntoIterator<Item = &'a Model>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for mode in models.into_iter().flat_map(|model| model.modes.keys()) {
        if !found.contains(mode) {
            found.push(mode.clone());
        }
    }
    let rank = |mode: &String| {
        // `refine-2` and later passes follow the first.
        let family = if is_pass(mode) { "refine" } else { mode.as_str() };
        MODES.iter().position(|known| *known == family).unwrap_or(MODES.len())
    };
    found.sort_by(|a, b| (rank(a), a.len(), a).cmp(&(rank(b), b.len(), b)));
    found
}

/// Whether a mode is a later pass of refinement, such as `refine-2`.
pub(super) fn is_pass(mode: &str) -> bool {
    mode.strip_prefix("refine-").is_some_and(|pass| pass.parse::<u64>().is_ok())
}

impl Model {
    fn read(arm: &CollectedArm, wanted: &ReportModel, missing: &mut Vec<String>) -> Option<Model> {
        let label = &wanted.label;
        let reference = &wanted.scores.reference;
        let Some((step, output)) = arm.find(reference) else {
            missing.push(format!("`{label}`: there is no result `{reference}`"));
            return None;
        };
        let scores: Scores = output
            .json("scores.json")
            .map_err(|why| missing.push(format!("`{label}`: {why}")))
            .ok()?;
        let log = wanted.log.as_ref();
        let log = log.and_then(|log| beside(arm, label, &log.reference, "train.json", missing));
        let data = wanted.tally.as_ref();
        let data = data.and_then(|it| beside(arm, label, &it.reference, "tally.json", missing));
        let (mut modes, mut others) = (BTreeMap::new(), BTreeMap::new());
        for mode in scores.modes {
            others.insert(mode.mode.clone(), mode.others);
            modes.insert(mode.mode, mode.outcomes);
        }
        Some(Model {
            label: label.clone(),
            dataset: scores.dataset,
            measure: scores.measure,
            control: wanted.control.clone(),
            round: wanted.round,
            modes,
            rule: scores.rule.unwrap_or_else(|| Extractor::Protocol.name().to_owned()),
            others,
            log,
            feedback: scores.feedback,
            data,
            tokens: scores.tokens,
            evaluations: vec![step.name.clone()],
        })
    }

    /// Adds a model, or what is new in it to the one with its label and data set.
    fn add(models: &mut Vec<Model>, new: Model) {
        let same = |known: &&mut Model| known.label == new.label && known.dataset == new.dataset;
        let Some(known) = models.iter_mut().find(same) else { return models.push(new) };
        for (mode, outcomes) in new.modes {
            known.modes.entry(mode).or_insert(outcomes);
        }
        for (mode, others) in new.others {
            known.others.entry(mode).or_insert(others);
        }
        known.control = known.control.take().or(new.control);
        known.round = known.round.or(new.round);
        known.log = known.log.take().or(new.log);
        known.feedback = known.feedback.take().or(new.feedback);
        known.data = known.data.take().or(new.data);
        known.tokens += new.tokens;
        known.evaluations.extend(new.evaluations);
    }

    /// Share of right answers in a mode.
    pub(super) fn accuracy(&self, mode: &str) -> Option<Share> {
        let outcomes = self.modes.get(mode)?;
        let hits = outcomes.iter().filter(|outcome| outcome.correct).count();
        Some(metric::share(hits as u64, outcomes.len() as u64))
    }

    /// The same with half a success for a tie, of outcomes that a judge gave.
    pub(super) fn with_half_ties(&self, mode: &str) -> Option<Share> {
        let outcomes = self.modes.get(mode).filter(|_| self.measure == Measure::WinRate)?;
        let halves: f64 = outcomes.iter().filter_map(|outcome| outcome.answer).sum();
        Some(metric::share_in_halves((2.0 * halves) as u64, outcomes.len() as u64))
    }

    /// A mode of this model and one of another, or of this one, item by item.
    pub(super) fn against(&self, mode: &str, other: &Model, others: &str) -> Option<Pairing> {
        pair(self.modes.get(mode)?, other.modes.get(others)?)
    }
}

/// What another output says of a model.
fn beside<T: serde::de::DeserializeOwned>(
    arm: &CollectedArm,
    label: &str,
    reference: &str,
    file: &str,
    missing: &mut Vec<String>,
) -> Option<T> {
    let Some((_, output)) = arm.find(reference) else {
        missing.push(format!("`{label}`: there is no result `{reference}`"));
        return None;
    };
    output.json(file).map_err(|why| missing.push(format!("`{label}`: {why}"))).ok()
}

/// Compares outcomes of the items that both lists hold.
fn pair(first: &[Outcome], second: &[Outcome]) -> Option<Pairing> {
    let others: BTreeMap<&str, bool> =
        second.iter().map(|outcome| (outcome.id.as_str(), outcome.correct)).collect();
    let (a, b): (Vec<bool>, Vec<bool>) = first
        .iter()
        .filter_map(|outcome| Some((outcome.correct, *others.get(outcome.id.as_str())?)))
        .unzip();
    let n = a.len();
    if n == 0 {
        return None;
    }
    let paired = metric::mcnemar(&a, &b);
    let difference = (paired.only_first as f64 - paired.only_second as f64) / n as f64;
    Some(Pairing { n: n as u64, difference, paired })
}

/// What every filter and annotator of an arm counted.
fn tallies(arm: &CollectedArm, missing: &mut Vec<String>) -> Vec<Counted> {
    let mut found = Vec::new();
    for step in &arm.steps {
        for output in step.outputs.iter().filter(|output| output.kind == ArtifactKind::Tally) {
            match output.json("tally.json") {
                Ok(tally) => found.push(Counted {
                    step: step.name.clone(),
                    round: step.round,
                    tally,
                    generated: generated(arm, step),
                    trained: trained(arm, step),
                }),
                Err(why) => missing.push(format!("`{}`: {why}", step.name)),
            }
        }
    }
    found
}

/// Tokens written for what a step counts: its own, and those of the steps of
/// its round that it was made of.
fn generated(arm: &CollectedArm, step: &CollectedStep) -> Option<u64> {
    let mut names = vec![step.name.as_str()];
    let mut total = None;
    let mut at = 0;
    while let Some(name) = names.get(at).copied() {
        at += 1;
        let Some(found) = arm.steps.iter().find(|step| step.name == name) else { continue };
        if let Some(tokens) = found.metrics.get("generated-tokens") {
            total = Some(total.unwrap_or(0) + *tokens as u64);
        }
        for input in found.inputs.values() {
            let made_by = input.rsplit_once('.').map_or(input.as_str(), |(step, _)| step);
            let same_round = arm
                .steps
                .iter()
                .any(|one| one.name == made_by && step.round.is_some() && one.round == step.round);
            if same_round && !names.contains(&made_by) {
                names.push(made_by);
            }
        }
    }
    total
}

/// The first training of the same round that reads what a step made.
fn trained(arm: &CollectedArm, step: &CollectedStep) -> Option<TrainLog> {
    let reads = |other: &&CollectedStep| {
        other.round == step.round
            && other
                .inputs
                .values()
                .any(|input| input.rsplit_once('.').is_some_and(|(maker, _)| maker == step.name))
    };
    let log = |other: &CollectedStep| {
        let made = other.outputs.iter().find(|output| output.kind == ArtifactKind::TrainLog)?;
        made.json("train.json").ok()
    };
    arm.steps.iter().filter(reads).find_map(log)
}
