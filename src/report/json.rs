//! `scores.json` and `digests.json`: what a program reads. Keys are sorted,
//! short values stand on one line, and evaluations that arms share are there
//! once, by the key of their step.

use super::{
    claims::{Claim, Held, Side, Standing},
    collected::{Collected, CollectedArm},
    judged,
    rules::Extraction,
    seeds::{Difference, Group, Over},
    summary::{self, Arm, Counted, Model, Pairing, Summary},
};
use crate::{
    base::{artifact::ArtifactKind, hash::Digest},
    manifest::Expect,
    record::{
        ModeScores, Scores,
        metric::{Share, Spread},
    },
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A value no longer than this is written on one line.
const LINE: usize = 100;

/// All numbers of a report and all outcomes behind them.
pub(super) fn scores(summary: &Summary, collected: &Collected) -> String {
    let arms: Vec<Value> =
        summary.arms.iter().zip(&collected.arms).map(|(arm, its)| self::arm(arm, its)).collect();
    let groups: Vec<Value> = summary.groups.iter().map(group).collect();
    let mut all = json!({
        "name": collected.name,
        "rounds": collected.rounds,
        "arms": arms,
        "over-seeds": groups,
        "evaluations": evaluations(summary, collected),
    });
    if summary.arms.len() > 1 {
        all["items"] = item_lists(collected);
    }
    write(&all)
}

/// What every step made.
pub(super) fn digests(collected: &Collected) -> String {
    let arms: Vec<Value> = collected
        .arms
        .iter()
        .map(|arm| {
            json!({
                "coordinates": coordinates(&arm.coordinates),
                "seed": arm.seed,
                "steps": steps(arm),
            })
        })
        .collect();
    write(&json!({ "name": collected.name, "rounds": collected.rounds, "arms": arms }))
}

fn coordinates(coordinates: &[(String, String)]) -> Value {
    let pairs = coordinates.iter().map(|(axis, label)| (axis.clone(), label.as_str().into()));
    Value::Object(pairs.collect())
}

fn steps(arm: &CollectedArm) -> Vec<Value> {
    let step = |step: &super::collected::CollectedStep| {
        let outputs: Map<String, Value> = step
            .outputs
            .iter()
            .map(|output| {
                let files: Map<String, Value> = output
                    .files
                    .iter()
                    .map(|file| (file.name.clone(), file.digest.to_string().into()))
                    .collect();
                let kind = output.kind.name();
                let digest = output.digest.to_string();
                (output.name.clone(), json!({ "kind": kind, "digest": digest, "files": files }))
            })
            .collect();
        let metrics = &step.metrics;
        json!({
            "name": step.name, "kind": step.kind, "round": step.round,
            "key": step.key.to_string(), "inputs": step.inputs, "metrics": metrics,
            "outputs": outputs,
        })
    };
    arm.steps.iter().map(step).collect()
}

fn arm(arm: &Arm, its: &CollectedArm) -> Value {
    let models: Vec<Value> = arm.models.iter().map(|one| model(arm, one, its)).collect();
    let mut all = json!({
        "coordinates": coordinates(&arm.coordinates),
        "seed": arm.seed,
        "models": models,
        "tallies": arm.tallies.iter().map(counted).collect::<Vec<_>>(),
        "claims": arm.claims.iter().map(claim).collect::<Vec<_>>(),
        "targets": arm.held.iter().map(held).collect::<Vec<_>>(),
        "missing": arm.missing,
        "steps": steps(its),
    });
    if !arm.judged.is_empty() {
        all["judged"] = arm.judged.iter().map(judged::json).collect();
    }
    if !arm.leaks.is_empty() {
        all["leaks"] = arm.leaks.iter().map(super::leaks::json).collect();
    }
    all
}

fn model(arm: &Arm, model: &Model, its: &CollectedArm) -> Value {
    let control = arm.control(model);
    let mut modes = Map::new();
    for mode in summary::modes([model]) {
        let against = control.and_then(|control| model.against(&mode, control, &mode));
        let accuracy = model.accuracy(&mode).map(share);
        let against = against.map(pairing);
        let mut one = json!({ "accuracy": accuracy, "against-control": against });
        if let Some(extraction) = Extraction::of(model, &mode) {
            one["extraction"] = extraction.json();
        }
        modes.insert(mode, one);
    }
    let key = |name: &String| {
        let step = its.steps.iter().find(|step| step.name == *name);
        step.map(|step| step.key.to_string())
    };
    let mut all = json!({
        "label": model.label, "dataset": model.dataset, "control": model.control,
        "round": model.round, "modes": modes, "training": model.log, "feedback": model.feedback,
        "tokens": model.tokens,
        "evaluations": model.evaluations.iter().filter_map(key).collect::<Vec<_>>(),
    });
    if !model.measure.is_default() {
        all["measure"] = json!(model.measure);
    }
    all
}

fn counted(counted: &Counted) -> Value {
    json!({
        "step": counted.step, "round": counted.round, "tally": counted.tally,
        "generated-tokens": counted.generated,
        "trained-tokens": counted.trained.as_ref().map(|log| log.tokens),
    })
}

fn side(side: &Side) -> Value {
    json!({ "model": side.name, "mode": side.mode })
}

fn claim(claim: &Claim) -> Value {
    json!({
        "a": side(&claim.a), "b": side(&claim.b), "dataset": claim.dataset,
        "pairing": pairing(claim.pairing), "interval": [claim.interval.0, claim.interval.1],
        "items-needed": claim.needed, "p-holm": claim.corrected, "verdict": claim.verdict(),
        "expected": claim.expect.map(Expect::name), "outcome": claim.outcome(),
    })
}

fn held(held: &Held) -> Value {
    json!({
        "subject": held.subject, "mode": held.mode, "dataset": held.dataset,
        "metric": held.metric, "value": held.share.map(share), "paper": held.paper,
        "table": held.table, "source-confidence": held.source_confidence,
        "accepted": held.accepted, "standing": held.standing.map(Standing::words),
    })
}

fn group(group: &Group) -> Value {
    let models: Vec<Value> = group
        .models
        .iter()
        .map(|model| {
            let mode = |mode: &super::seeds::ModeOver| {
                let gain = mode.gain.as_ref().map(difference);
                let accuracy = spread(mode.accuracy);
                let it = json!({ "n": mode.items, "accuracy": accuracy, "against-control": gain });
                (mode.mode.clone(), it)
            };
            let modes: Map<String, Value> = model.modes.iter().map(mode).collect();
            let Over { label, dataset, control, .. } = model;
            json!({
                "label": label, "dataset": dataset, "control": control, "modes": modes,
            })
        })
        .collect();
    let claim = |claim: &super::seeds::ClaimOver| {
        json!({
            "a": side(&claim.a), "b": side(&claim.b), "dataset": claim.dataset,
            "difference": difference(&claim.difference), "seeds-needed": claim.needed,
            "expected": claim.expect.map(Expect::name), "outcomes": claim.outcomes,
        })
    };
    let claims: Vec<Value> = group.claims.iter().map(claim).collect();
    json!({
        "coordinates": coordinates(&group.coordinates), "seeds": group.seeds,
        "models": models, "claims": claims,
    })
}

pub(super) fn share(share: Share) -> Value {
    let Share { hits, n, value, low, high } = share;
    json!({ "hits": hits, "n": n, "value": value, "low": low, "high": high })
}

fn pairing(pairing: Pairing) -> Value {
    let Pairing { n, difference, paired } = pairing;
    json!({
        "n": n, "difference": difference, "only-first": paired.only_first,
        "only-second": paired.only_second, "p": paired.p,
    })
}

fn spread(spread: Spread) -> Value {
    // One value has no interval; JSON has no infinity.
    let half = (spread.n > 1).then_some(spread.half);
    json!({ "n": spread.n, "mean": spread.mean, "deviation": spread.deviation, "half": half })
}

fn difference(difference: &Difference) -> Value {
    json!({ "spread": spread(difference.spread), "positive": difference.positive })
}

/// Outcomes of every evaluation that models are shown of, by the step's key.
fn evaluations(summary: &Summary, collected: &Collected) -> Value {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for (arm, its) in summary.arms.iter().zip(&collected.arms) {
        let names: Vec<&String> = arm.models.iter().flat_map(|model| &model.evaluations).collect();
        for step in its.steps.iter().filter(|step| names.contains(&&step.name)) {
            let scores = step.outputs.iter().filter(|one| one.kind == ArtifactKind::Scores);
            for scores in scores.filter_map(|one| one.json::<Scores>("scores.json").ok()) {
                // Hundreds of evaluations in full would be too much to keep beside a study;
                // the digests of their files say what they were.
                found.entry(step.key.to_string()).or_insert_with(|| match summary.arms.len() {
                    1 => evaluation(&scores),
                    _ => marks(&scores),
                });
            }
        }
    }
    Value::Object(found.into_iter().collect())
}

/// Every outcome in full.
fn evaluation(scores: &Scores) -> Value {
    let mut modes = Map::new();
    for mode in &scores.modes {
        let rows: Vec<Value> =
            mode.outcomes.iter().map(|o| json!([o.id, o.answer, o.correct, o.text])).collect();
        modes.insert(
            mode.mode.clone(),
            json!({ "columns": ["id", "answer", "correct", "text"], "rows": rows }),
        );
    }
    json!({ "dataset": scores.dataset, "modes": modes, "tokens": scores.tokens })
}

/// What was right, as a text of 0 and 1 in the order of `items`; evaluations of
/// the same problems have the same items, told by their digest.
fn marks(scores: &Scores) -> Value {
    let mut modes = Map::new();
    for mode in &scores.modes {
        let marks: String =
            mode.outcomes.iter().map(|o| if o.correct { '1' } else { '0' }).collect();
        modes.insert(mode.mode.clone(), json!({ "items": items(mode).0, "right": marks }));
    }
    json!({ "dataset": scores.dataset, "modes": modes, "tokens": scores.tokens })
}

/// The problems of a mode, and a digest that names the list.
fn items(mode: &ModeScores) -> (String, Vec<&str>) {
    let ids: Vec<&str> = mode.outcomes.iter().map(|outcome| outcome.id.as_str()).collect();
    (Digest::of_blob(ids.join("\n").as_bytes()).short(), ids)
}

/// The lists of problems that the marks of a sweep are in the order of.
fn item_lists(collected: &Collected) -> Value {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    let outputs = collected.arms.iter().flat_map(|arm| &arm.steps).flat_map(|step| &step.outputs);
    let scores = outputs.filter(|one| one.kind == ArtifactKind::Scores);
    for scores in scores.filter_map(|one| one.json::<Scores>("scores.json").ok()) {
        for mode in &scores.modes {
            let (digest, ids) = items(mode);
            found.entry(digest).or_insert_with(|| ids.into());
        }
    }
    Value::Object(found.into_iter().collect())
}

/// Writes a value: sorted keys, short values on one line.
fn write(value: &Value) -> String {
    let mut out = String::new();
    lay_out(value, 0, &mut out);
    out.push('\n');
    out
}

fn lay_out(value: &Value, depth: usize, out: &mut String) {
    let start = out.len();
    if one_line(value, start, LINE.saturating_sub(2 * depth), out) {
        return;
    }
    out.truncate(start);
    let (open, close, items) = match value {
        Value::Array(items) => {
            ('[', ']', items.iter().map(|item| (None, item)).collect::<Vec<_>>())
        }
        Value::Object(map) => {
            ('{', '}', sorted(map).into_iter().map(|(key, item)| (Some(key), item)).collect())
        }
        leaf => return out.push_str(&leaf.to_string()),
    };
    out.push(open);
    for (i, (key, item)) in items.into_iter().enumerate() {
        out.push_str(if i > 0 { ",\n" } else { "\n" });
        out.push_str(&"  ".repeat(depth + 1));
        if let Some(key) = key {
            out.push_str(&format!("{}: ", Value::from(key.as_str())));
        }
        lay_out(item, depth + 1, out);
    }
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    out.push(close);
}

/// Appends the value on one line; stops and says no once there are more than
/// `room` characters from `start` on, so that a long value costs no more than
/// a short one.
fn one_line(value: &Value, start: usize, room: usize, out: &mut String) -> bool {
    let fits = |out: &String| out.len() - start <= room || out[start..].chars().nth(room).is_none();
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                if !one_line(item, start, room, out) {
                    return false;
                }
            }
            out.push(']');
        }
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Object(map) => {
            for (i, (key, item)) in sorted(map).into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "{ " });
                out.push_str(&format!("{}: ", Value::from(key.as_str())));
                if !one_line(item, start, room, out) {
                    return false;
                }
            }
            out.push_str(" }");
        }
        leaf => out.push_str(&leaf.to_string()),
    }
    fits(out)
}

/// The order of a map's keys depends on features of `serde_json` that any
/// other package may switch on; here it does not.
fn sorted(map: &Map<String, Value>) -> BTreeMap<&String, &Value> {
    map.iter().collect()
}
