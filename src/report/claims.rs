//! Comparisons of models and results held against published values.
//!
//! A difference counts when Holm's correction over all comparisons of the arm
//! leaves its exact p below 0.05; everything else is noise.

use super::summary::{Model, Pairing, find, modes};
use crate::{
    manifest::{
        Accept, Compare, Expect, Metric, Target,
        compare::{has, in_rounds},
    },
    record::{
        Measure,
        metric::{self, Share},
        power,
    },
};
use std::collections::BTreeMap;

/// The level at which a difference counts.
pub(super) const ALPHA: f64 = 0.05;

/// A comparison that was made.
pub(super) struct Claim {
    /// One side.
    pub(super) a: Side,
    /// The other side.
    pub(super) b: Side,
    /// Data set.
    pub(super) dataset: String,
    /// `a` minus `b`.
    pub(super) pairing: Pairing,
    /// The 95 % bootstrap interval of the difference, as shares.
    pub(super) interval: (f64, f64),
    /// p after correction for all comparisons of the arm.
    pub(super) corrected: f64,
    /// Where the difference does not count: items on which one as large would,
    /// four times of five.
    pub(super) needed: Option<u64>,
    /// What was expected.
    pub(super) expect: Option<Expect>,
}

/// A side of a comparison.
#[derive(Clone, PartialEq)]
pub(super) struct Side {
    /// Label of the model, with what tells its arm from the other side's.
    pub(super) name: String,
    /// Mode of evaluation.
    pub(super) mode: String,
}

impl Claim {
    /// -1, 0 or 1: `a` is lower, no difference counts, `a` is higher.
    fn sign(&self) -> i32 {
        match self.pairing.difference {
            _ if self.corrected >= ALPHA => 0,
            difference if difference > 0.0 => 1,
            _ => -1,
        }
    }

    /// Whose results are compared; one name where a model stands against
    /// itself in another mode.
    pub(super) fn title(&self) -> String {
        match self.a.name == self.b.name {
            true => self.a.name.clone(),
            false => format!("{} against {}", self.a.name, self.b.name),
        }
    }

    /// The modes, in words.
    pub(super) fn mode(&self) -> String {
        match self.a.mode == self.b.mode {
            true => self.a.mode.clone(),
            false => format!("{} against {}", self.a.mode, self.b.mode),
        }
    }

    /// What is concluded.
    pub(super) fn verdict(&self) -> String {
        let higher = |side: &Side| match self.a.name == self.b.name {
            true => format!("{} higher", side.mode),
            false => format!("`{}` higher", side.name),
        };
        match self.sign() {
            0 => "within noise".to_owned(),
            1 => higher(&self.a),
            _ => higher(&self.b),
        }
    }

    /// Whether what was expected came out. A difference within noise leaves
    /// open whether there is one, and speaks against nothing.
    pub(super) fn outcome(&self) -> Option<&'static str> {
        let (holds, fails, open) = ("as expected", "against expectation", "not shown");
        Some(match (self.expect?, self.sign()) {
            (Expect::Higher, 1) | (Expect::Lower, -1) => holds,
            (Expect::NotHigher, -1 | 0) | (Expect::NotLower, 0 | 1) => holds,
            (Expect::Higher | Expect::Lower, 0) => open,
            _ => fails,
        })
    }
}

/// A result beside a published value.
pub(super) struct Held {
    /// Label of the model.
    pub(super) subject: String,
    /// Mode of evaluation.
    pub(super) mode: String,
    /// Data set.
    pub(super) dataset: String,
    /// What is compared.
    pub(super) metric: &'static str,
    /// The result, if there is one.
    pub(super) share: Option<Share>,
    /// The published value, as a share.
    pub(super) paper: f64,
    /// Where it stands.
    pub(super) table: Option<String>,
    /// How sure it is.
    pub(super) source_confidence: String,
    /// Whether the result is near enough; `None` where nothing was asked.
    pub(super) accepted: Option<bool>,
    /// What is concluded; `None` where nothing was asked.
    pub(super) standing: Option<Standing>,
}

/// What a result says of a published value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is near enough, and the interval is narrow enough to mean it.
    Reproduced,
    /// The interval has nothing of what is near enough.
    NotReproduced,
    /// Too few items, or just at the edge: neither can be said.
    Underpowered,
    /// There is no result.
    Missing,
}

impl Standing {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Standing::Reproduced => "reproduced",
            Standing::NotReproduced => "not reproduced",
            Standing::Underpowered => "underpowered",
            Standing::Missing => "no result",
        }
    }
}

/// An interval that reaches further than this to a side, or than what is
/// tolerated, is too wide to reproduce anything.
const WIDEST: f64 = 0.05;

fn standing(share: Option<Share>, paper: f64, accept: &Accept) -> Standing {
    let Some(share) = share.filter(|share| share.n > 0) else { return Standing::Missing };
    let tolerated = match (accept.abs, accept.rel) {
        (Some(abs), _) => abs / 100.0,
        (None, Some(rel)) => rel * paper.abs(),
        (None, None) => 0.0,
    };
    if share.low > paper + tolerated || share.high < paper - tolerated {
        Standing::NotReproduced
    } else if (share.high - share.low) / 2.0 > tolerated.max(WIDEST)
        || !is_near(share, paper, accept)
    {
        Standing::Underpowered
    } else {
        Standing::Reproduced
    }
}

/// The coordinates of a sweep's arm and its models.
type ArmOf<'a> = (&'a [(String, String)], &'a [Model]);

/// Makes the comparisons of arm `number`, `arms` being the coordinates and
/// models of all; one with `{round}` in a label is made in every round.
pub(super) fn claims(
    number: usize,
    arms: &[ArmOf],
    wanted: &[Compare],
    rounds: u32,
    missing: &mut Vec<String>,
) -> Vec<Claim> {
    let coordinates: Vec<_> = arms.iter().map(|(coordinates, _)| *coordinates).collect();
    let mut made: Vec<Claim> = Vec::new();
    for compare in wanted {
        let what = format!("comparison of `{}` with `{}`", compare.a, compare.b);
        let Some(partner) = compare.partner(number, &coordinates) else { continue };
        let Some(partner) = partner else {
            missing.push(format!("{what}: the sweep has no other arm to compare this one with"));
            continue;
        };
        let before = made.len();
        for (a, b) in compare.labels(rounds) {
            made.extend(pairings((arms[number].1, &a), (arms[partner].1, &b), compare));
        }
        if made.len() == before {
            missing.push(format!("{what}: they share no mode and data set"));
        }
    }
    let p: Vec<f64> = made.iter().map(|claim| claim.pairing.paired.p).collect();
    let level = ALPHA / p.len().max(1) as f64;
    for (claim, corrected) in made.iter_mut().zip(metric::holm(&p)) {
        claim.corrected = corrected;
        if claim.sign() == 0 {
            let Pairing { n, paired, .. } = claim.pairing;
            claim.needed = power::items_needed(paired, n, level);
        }
    }
    made
}

/// One comparison in every mode and data set it is asked for.
fn pairings(a: (&[Model], &str), b: (&[Model], &str), compare: &Compare) -> Vec<Claim> {
    let name = |label: &str, arm: &BTreeMap<String, String>| match arm.is_empty() {
        true => label.to_owned(),
        false => {
            let at: Vec<_> = arm.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
            format!("{label} {{{}}}", at.join(", "))
        }
    };
    let is_wanted = |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|w| w == it);
    let mut made = Vec::new();
    for one in a.0.iter().filter(|model| model.label == a.1) {
        let Some(other) = find(b.0, b.1, &one.dataset) else { continue };
        if !is_wanted(&compare.dataset, &one.dataset) {
            continue;
        }
        for mode in modes([one]).into_iter().filter(|mode| is_wanted(&compare.mode, mode)) {
            let b_mode = compare.b_mode.clone().unwrap_or_else(|| mode.clone());
            let Some(pairing) = one.against(&mode, other, &b_mode) else { continue };
            made.push(Claim {
                a: Side { name: name(&one.label, &compare.a_arm), mode },
                b: Side { name: name(&other.label, &compare.b_arm), mode: b_mode },
                dataset: one.dataset.clone(),
                interval: power::bootstrap(pairing.paired, pairing.n),
                pairing,
                corrected: 1.0,
                needed: None,
                expect: compare.expect,
            });
        }
    }
    made
}

/// Holds results of an arm against published values.
pub(super) fn targets(
    (coordinates, models): ArmOf,
    wanted: &[Target],
    rounds: u32,
    missing: &mut Vec<String>,
) -> Vec<Held> {
    let mut held = Vec::new();
    for target in wanted.iter().filter(|target| has(coordinates, &target.arm)) {
        let before = held.len();
        for (subject, _) in in_rounds(&target.subject, "", rounds) {
            let its = models.iter().filter(|model| model.label == subject);
            for model in its {
                if target.dataset.as_deref().is_none_or(|wanted| wanted == model.dataset) {
                    held.push(hold(model, target));
                }
            }
        }
        if held.len() == before {
            missing.push(format!(
                "published value {} for `{}`: no such result",
                target.paper, target.subject
            ));
        }
    }
    held
}

fn hold(model: &Model, target: &Target) -> Held {
    let share = value(model, target.metric, &target.mode);
    let paper = target.paper / 100.0;
    let accepted = match (share, &target.accept) {
        (Some(share), Some(accept)) => Some(is_near(share, paper, accept)),
        (None, Some(_)) => Some(false),
        (_, None) => None,
    };
    Held {
        subject: model.label.clone(),
        mode: target.mode.clone(),
        dataset: model.dataset.clone(),
        metric: target.metric.name(),
        share,
        paper,
        table: target.table.clone(),
        source_confidence: target.source_confidence.clone(),
        accepted,
        standing: target.accept.as_ref().map(|accept| standing(share, paper, accept)),
    }
}

fn is_near(share: Share, paper: f64, accept: &Accept) -> bool {
    let difference = (share.value - paper).abs();
    if let Some(abs) = accept.abs {
        return difference * 100.0 <= abs + 1e-9;
    }
    if let Some(rel) = accept.rel {
        return difference <= rel * paper.abs() + 1e-9;
    }
    share.low <= paper && paper <= share.high
}

/// A number of a model that a published value may be about.
fn value(model: &Model, metric: Metric, mode: &str) -> Option<Share> {
    let feedback = model.feedback.as_ref();
    match metric {
        Metric::Accuracy => model.accuracy(mode),
        Metric::WinRate => model.accuracy(mode).filter(|_| model.measure == Measure::WinRate),
        Metric::WinAndHalfTies => model.with_half_ties(mode),
        Metric::FeedbackAccuracy => feedback.map(|f| metric::share(f.verdict_right, f.judged())),
        Metric::DataAccuracy => {
            model.data.as_ref().map(|data| metric::share(data.kept_right, data.kept_judged()))
        }
        Metric::FeedbackRecall => feedback.map(|f| metric::share(f.wrong_caught, f.reply_wrong)),
    }
}
