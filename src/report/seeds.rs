//! Arms that differ in the seed only, put together: means, spreads and how
//! often a difference has the same sign.

use super::{
    claims::{Claim, Side},
    summary::{self, Arm, Model},
};
use crate::{
    manifest::Expect,
    record::{
        metric::{self, Spread},
        power,
    },
};
use std::collections::BTreeMap;

/// Axis and label, in the order of the axes.
type Coordinates = Vec<(String, String)>;

/// Arms with the same labels on every axis but the seed.
pub(super) struct Group {
    /// The other axes.
    pub(super) coordinates: Coordinates,
    /// Their seeds.
    pub(super) seeds: Vec<u64>,
    /// Models over seeds, in the report's order.
    pub(super) models: Vec<Over>,
    /// Comparisons over seeds.
    pub(super) claims: Vec<ClaimOver>,
}

/// A model over seeds.
pub(super) struct Over {
    /// Name in tables.
    pub(super) label: String,
    /// Data set.
    pub(super) dataset: String,
    /// Label of its control.
    pub(super) control: Option<String>,
    /// Place on the chart.
    pub(super) round: Option<u64>,
    /// Modes in the order of tables.
    pub(super) modes: Vec<ModeOver>,
}

/// A mode of a model over seeds.
pub(super) struct ModeOver {
    /// Its name.
    pub(super) mode: String,
    /// Items of each seed, where they are as many.
    pub(super) items: Option<u64>,
    /// Accuracy.
    pub(super) accuracy: Spread,
    /// Accuracy minus the control's on the same items.
    pub(super) gain: Option<Difference>,
}

/// A difference over seeds.
pub(super) struct Difference {
    /// Its mean and spread.
    pub(super) spread: Spread,
    /// Seeds in which it is above 0.
    pub(super) positive: usize,
}

/// A comparison over seeds.
pub(super) struct ClaimOver {
    /// One side.
    pub(super) a: Side,
    /// The other side.
    pub(super) b: Side,
    /// What is compared, and in which modes, in words.
    pub(super) title: (String, String),
    /// Data set.
    pub(super) dataset: String,
    /// `a` minus `b`.
    pub(super) difference: Difference,
    /// Where the interval of the mean holds 0: seeds in all with which a mean as
    /// large would be shown, four times of five.
    pub(super) needed: Option<u64>,
    /// What was expected.
    pub(super) expect: Option<Expect>,
    /// In how many seeds each of the possible outcomes came.
    pub(super) outcomes: BTreeMap<&'static str, usize>,
}

impl Difference {
    fn of(values: &[f64]) -> Option<Difference> {
        let positive = values.iter().filter(|value| **value > 0.0).count();
        Some(Difference { spread: metric::spread(values)?, positive })
    }
}

/// Puts arms together; nothing where there is but one.
pub(super) fn groups(arms: &[Arm]) -> Vec<Group> {
    if arms.len() < 2 {
        return Vec::new();
    }
    let axes: Vec<&str> = arms[0].coordinates.iter().map(|(axis, _)| axis.as_str()).collect();
    let is_seed = |axis: &&str| {
        let label = |arm: &Arm| label(arm, axis).and_then(|label| label.parse::<u64>().ok());
        arms.iter().all(|arm| label(arm) == Some(arm.seed))
    };
    let seed_axis = axes.into_iter().find(is_seed);
    let mut groups: Vec<(Coordinates, Vec<&Arm>)> = Vec::new();
    for arm in arms {
        let rest: Coordinates = arm
            .coordinates
            .iter()
            .filter(|(axis, _)| Some(axis.as_str()) != seed_axis)
            .cloned()
            .collect();
        match groups.iter_mut().find(|(known, _)| *known == rest) {
            Some((_, members)) => members.push(arm),
            None => groups.push((rest, vec![arm])),
        }
    }
    groups.into_iter().map(|(coordinates, members)| group(coordinates, &members)).collect()
}

fn label<'a>(arm: &'a Arm, axis: &str) -> Option<&'a str> {
    let found = arm.coordinates.iter().find(|(name, _)| name == axis)?;
    Some(found.1.as_str())
}

fn group(coordinates: Coordinates, members: &[&Arm]) -> Group {
    let mut known: Vec<&Model> = Vec::new();
    for model in members.iter().flat_map(|arm| &arm.models) {
        let same = |k: &&Model| k.label == model.label && k.dataset == model.dataset;
        if !known.iter().any(same) {
            known.push(model);
        }
    }
    let models = known.into_iter().map(|model| over(model, members)).collect();
    let mut firsts: Vec<&Claim> = Vec::new();
    for claim in members.iter().flat_map(|arm| &arm.claims) {
        if !firsts.iter().any(|first| is_same(first, claim)) {
            firsts.push(claim);
        }
    }
    let claims = firsts.into_iter().filter_map(|first| claim_over(first, members)).collect();
    Group { coordinates, seeds: members.iter().map(|arm| arm.seed).collect(), models, claims }
}

fn over(model: &Model, members: &[&Arm]) -> Over {
    let here: Vec<(&Arm, &Model)> = members
        .iter()
        .filter_map(|arm| Some((*arm, summary::find(&arm.models, &model.label, &model.dataset)?)))
        .collect();
    let mode_over = |mode: String| {
        let shares: Vec<_> = here.iter().filter_map(|(_, one)| one.accuracy(&mode)).collect();
        let values: Vec<f64> = shares.iter().map(|share| share.value).collect();
        let gains: Vec<f64> = here
            .iter()
            .filter_map(|(arm, one)| Some(one.against(&mode, arm.control(one)?, &mode)?.difference))
            .collect();
        let items = shares.first().map(|share| share.n);
        Some(ModeOver {
            accuracy: metric::spread(&values)?,
            gain: Difference::of(&gains),
            items: items.filter(|n| shares.iter().all(|share| share.n == *n)),
            mode,
        })
    };
    Over {
        label: model.label.clone(),
        dataset: model.dataset.clone(),
        control: model.control.clone(),
        round: model.round,
        modes: summary::modes(here.iter().map(|(_, one)| *one))
            .into_iter()
            .filter_map(mode_over)
            .collect(),
    }
}

fn is_same(one: &Claim, other: &Claim) -> bool {
    (&one.a, &one.b, &one.dataset) == (&other.a, &other.b, &other.dataset)
}

fn claim_over(first: &Claim, members: &[&Arm]) -> Option<ClaimOver> {
    let same: Vec<&Claim> = members
        .iter()
        .flat_map(|arm| arm.claims.iter().find(|claim| is_same(claim, first)))
        .collect();
    let values: Vec<f64> = same.iter().map(|claim| claim.pairing.difference).collect();
    let mut outcomes = BTreeMap::new();
    for outcome in same.iter().filter_map(|claim| claim.outcome()) {
        *outcomes.entry(outcome).or_default() += 1;
    }
    let difference = Difference::of(&values)?;
    let Spread { n, mean, deviation, half } = difference.spread;
    let needed = (n > 1 && mean.abs() <= half).then(|| power::seeds_needed(mean, deviation));
    Some(ClaimOver {
        a: first.a.clone(),
        b: first.b.clone(),
        title: (first.title(), first.mode()),
        dataset: first.dataset.clone(),
        difference,
        needed: needed.flatten(),
        expect: first.expect,
        outcomes,
    })
}
