//! Which lines the chart over rounds has: accuracy of the models that have a
//! round, of their controls, and of models without a round as levels.

use super::{
    chart::{Chart, Curve, Level, Point},
    seeds::{Group, Over},
    summary::{Arm, Model, Summary},
    words::place,
};
use std::collections::BTreeSet;

/// The chart of accuracy over rounds; none where fewer than two rounds have models.
pub(super) fn accuracy(summary: &Summary) -> Option<Chart> {
    let mut chart = Chart {
        title: format!("{}: accuracy over rounds", summary.title),
        x: "round".to_owned(),
        y: "right answers, %".to_owned(),
        note: String::new(),
        curves: Vec::new(),
        levels: Vec::new(),
    };
    match summary.arms.as_slice() {
        [] => return None,
        [arm] => one_arm(arm, &mut chart),
        _ => over_seeds(&summary.groups, &mut chart),
    }
    let rounds: BTreeSet<u64> =
        chart.curves.iter().flat_map(|curve| &curve.points).map(|point| point.x).collect();
    (rounds.len() >= 2).then_some(chart)
}

/// Direct and refined answers, and the controls' direct ones, on the first data set.
fn one_arm(arm: &Arm, chart: &mut Chart) {
    let Some(dataset) = arm.datasets().first().copied() else { return };
    let here: Vec<&Model> = arm.models.iter().filter(|model| model.dataset == dataset).collect();
    let n = here.iter().find_map(|model| model.accuracy("direct")).map(|share| share.n);
    let n = n.map(|n| format!(", n = {n}")).unwrap_or_default();
    chart.note = format!("data set {dataset}{n}; bars: Wilson's 95 % interval");
    let controls: BTreeSet<&str> = here
        .iter()
        .filter(|model| model.round.is_some())
        .filter_map(|model| model.control.as_deref())
        .collect();
    let is_control = |model: &&&Model| controls.contains(model.label.as_str());
    let curve = |name: &str, mode: &str, wanted: bool, dashed: bool, colour: usize| {
        let points = here.iter().filter(|model| is_control(model) == wanted).filter_map(|model| {
            let share = model.accuracy(mode).filter(|share| share.n > 0)?;
            Some(Point { x: model.round?, y: share.value, low: share.low, high: share.high })
        });
        Curve::new(name, points.collect(), dashed, colour)
    };
    chart.curves.extend(curve("direct", "direct", false, false, 0));
    chart.curves.extend(curve("refine", "refine", false, false, 1));
    chart.curves.extend(curve("control, direct", "direct", true, true, 2));
    for model in here.iter().filter(|model| model.round.is_none()) {
        if let Some(share) = model.accuracy("direct").filter(|share| share.n > 0) {
            chart.levels.push(Level { name: format!("{}, direct", model.label), y: share.value });
        }
    }
}

/// Direct answers of every group of arms, mean over seeds.
fn over_seeds(groups: &[Group], chart: &mut Chart) {
    let first = |group: &Group| group.models.first().map(|model| model.dataset.clone());
    let Some(dataset) = groups.iter().find_map(first) else { return };
    chart.note =
        format!("data set {dataset}; direct answers, mean over seeds; bars: standard deviation");
    for (colour, group) in groups.iter().enumerate() {
        let here: Vec<&Over> =
            group.models.iter().filter(|model| model.dataset == dataset).collect();
        let controls: BTreeSet<&str> = here
            .iter()
            .filter(|model| model.round.is_some())
            .filter_map(|model| model.control.as_deref())
            .collect();
        let points = |wanted: bool| -> Vec<Point> {
            here.iter()
                .filter(|model| controls.contains(model.label.as_str()) == wanted)
                .filter_map(|model| {
                    let direct = model.modes.iter().find(|mode| mode.mode == "direct")?.accuracy;
                    let (low, high) =
                        (direct.mean - direct.deviation, direct.mean + direct.deviation);
                    Some(Point { x: model.round?, y: direct.mean, low, high })
                })
                .collect()
        };
        let name = place(&group.coordinates);
        chart.curves.extend(Curve::new(&name, points(false), false, colour));
        chart.curves.extend(Curve::new(&format!("{name}: control"), points(true), true, colour));
    }
}
