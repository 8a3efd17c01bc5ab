//! Comparisons of models and results held against published values.
//!
//! A difference counts when Holm's correction over all comparisons of the arm
//! leaves its exact p below 0.05; everything else is noise.

use super::summary::{Model, Pairing, find, modes};
use crate::{
    manifest::{Accept, Compare, Target},
    record::metric::{self, Share},
};

/// The level at which a difference counts.
pub(super) const ALPHA: f64 = 0.05;

/// A comparison that was made.
pub(super) struct Claim {
    /// Label of one model.
    pub(super) a: String,
    /// Label of the other.
    pub(super) b: String,
    /// Mode of evaluation.
    pub(super) mode: String,
    /// Data set.
    pub(super) dataset: String,
    /// `a` minus `b`.
    pub(super) pairing: Pairing,
    /// p after correction for all comparisons of the arm.
    pub(super) corrected: f64,
}

impl Claim {
    /// What is concluded.
    pub(super) fn verdict(&self) -> String {
        match self.pairing.difference {
            _ if self.corrected >= ALPHA => "within noise".to_owned(),
            difference if difference > 0.0 => format!("`{}` higher", self.a),
            _ => format!("`{}` higher", self.b),
        }
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
    pub(super) metric: String,
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
}

/// Makes the comparisons; one with `{round}` in a label is made in every round.
pub(super) fn claims(
    models: &[Model],
    wanted: &[Compare],
    rounds: u32,
    missing: &mut Vec<String>,
) -> Vec<Claim> {
    let mut made: Vec<Claim> = Vec::new();
    for compare in wanted {
        let before = made.len();
        for (a, b) in in_rounds(&compare.a, &compare.b, rounds) {
            made.extend(pairings(models, compare, &a, &b));
        }
        let what = format!("comparison of `{}` with `{}`", compare.a, compare.b);
        if compare.metric != "accuracy" {
            missing.push(format!("{what}: `{}` cannot be paired, only `accuracy`", compare.metric));
        } else if made.len() == before {
            missing.push(format!("{what}: they share no mode and data set"));
        }
        if !compare.differs_only.is_empty() {
            missing.push(format!("{what}: `differs-only` was not checked"));
        }
    }
    let p: Vec<f64> = made.iter().map(|claim| claim.pairing.paired.p).collect();
    for (claim, corrected) in made.iter_mut().zip(metric::holm(&p)) {
        claim.corrected = corrected;
    }
    made
}

/// One comparison in every mode and data set it is asked for.
fn pairings(models: &[Model], compare: &Compare, label_a: &str, label_b: &str) -> Vec<Claim> {
    let mut made = Vec::new();
    if compare.metric != "accuracy" {
        return made;
    }
    let is_wanted = |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|w| w == it);
    for a in models.iter().filter(|model| model.label == label_a) {
        let Some(b) = find(models, label_b, &a.dataset) else { continue };
        if !is_wanted(&compare.dataset, &a.dataset) {
            continue;
        }
        for mode in modes([a]).into_iter().filter(|mode| is_wanted(&compare.mode, mode)) {
            let Some(pairing) = a.against(b, &mode) else { continue };
            made.push(Claim {
                a: a.label.clone(),
                b: b.label.clone(),
                mode,
                dataset: a.dataset.clone(),
                pairing,
                corrected: 1.0,
            });
        }
    }
    made
}

/// Holds results against published values.
pub(super) fn targets(
    models: &[Model],
    wanted: &[Target],
    rounds: u32,
    missing: &mut Vec<String>,
) -> Vec<Held> {
    let mut held = Vec::new();
    for target in wanted {
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
    let share = value(model, &target.metric, &target.mode);
    // Published accuracies are written in percent, as papers do, or as shares.
    let paper = if target.paper > 1.0 { target.paper / 100.0 } else { target.paper };
    let accepted = match (share, &target.accept) {
        (Some(share), Some(accept)) => Some(is_near(share, paper, accept, target.paper > 1.0)),
        (None, Some(_)) => Some(false),
        (_, None) => None,
    };
    Held {
        subject: model.label.clone(),
        mode: target.mode.clone(),
        dataset: model.dataset.clone(),
        metric: target.metric.clone(),
        share,
        paper,
        table: target.table.clone(),
        source_confidence: target.source_confidence.clone(),
        accepted,
    }
}

/// A tolerance is written in the unit of the published value.
fn is_near(share: Share, paper: f64, accept: &Accept, in_percent: bool) -> bool {
    let unit = if in_percent { 100.0 } else { 1.0 };
    let difference = (share.value - paper).abs();
    if let Some(abs) = accept.abs {
        return difference * unit <= abs + 1e-9;
    }
    if let Some(rel) = accept.rel {
        return difference <= rel * paper.abs() + 1e-9;
    }
    share.low <= paper && paper <= share.high
}

/// A number of a model that a published value may be about.
fn value(model: &Model, metric: &str, mode: &str) -> Option<Share> {
    let feedback = model.feedback.as_ref();
    match metric {
        "accuracy" => model.accuracy(mode),
        "feedback-accuracy" => feedback.map(|f| metric::share(f.verdict_right, f.seen)),
        "feedback-recall" => feedback.map(|f| metric::share(f.wrong_caught, f.reply_wrong)),
        _ => None,
    }
}

/// Two labels as they are in every round, or as they are.
fn in_rounds(a: &str, b: &str, rounds: u32) -> Vec<(String, String)> {
    if !a.contains("{round}") && !b.contains("{round}") {
        return vec![(a.to_owned(), b.to_owned())];
    }
    let one = |text: &str, round: u32| text.replace("{round}", &round.to_string());
    (1..=rounds).map(|round| (one(a, round), one(b, round))).collect()
}
