//! `report.md`: the page that people read.

use super::{
    cases,
    collected::{Collected, CollectedArm},
    judged, leaks, published, rules,
    sections::{self, Look, section},
    seeds::{Difference, Group},
    summary::{Arm, Summary},
    words::{NOTHING, head, percent, place, points, table},
};
use crate::base::text;

/// Tables that stand on the page itself.
const PAGE: Look = Look { level: "##", explain: true };

/// The whole page.
pub(super) fn page(summary: &Summary, collected: &Collected, has_chart: bool) -> String {
    let mut out = format!("# {}\n\n", summary.title);
    if let Some(description) = &collected.description {
        out.push_str(&format!("{}\n\n", description.trim_end()));
    }
    out.push_str(&format!("{}\n\n", facts(collected)));
    if has_chart {
        out.push_str("![Accuracy over rounds](accuracy.svg)\n\n");
    }
    match summary.arms.as_slice() {
        [] => out.push_str("There are no results.\n\n"),
        [arm] => out.push_str(&everything(arm, PAGE)),
        arms => {
            out.push_str(&over_seeds(&summary.groups));
            for (i, arm) in arms.iter().enumerate() {
                let name = place(&arm.coordinates);
                // How to read the tables is said once.
                let tables = everything(arm, Look { level: "####", explain: i == 0 });
                if !tables.is_empty() {
                    out.push_str(&format!(
                        "<details>\n<summary>{name}</summary>\n\n### {name}\n\n{tables}</details>\n\n"
                    ));
                }
            }
        }
    }
    out.push_str(&cases::cases(collected));
    out.push_str(&published::unverified(&summary.unverified));
    if summary.shows_models() {
        out.push_str(match summary.arms.len() {
            1 => {
                "Every outcome, with the digest of its text and of the step that made it, is in \
                 `scores.json`.\n"
            }
            _ => {
                "Which items every model of every arm got right, with the digests of the steps \
                 that made them, is in `scores.json`.\n"
            }
        });
    } else {
        out.push_str(&made(collected));
    }
    out
}

/// Manifest, seeds, number of steps.
fn facts(collected: &Collected) -> String {
    let mut seeds: Vec<u64> = collected.arms.iter().map(|arm| arm.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let shown: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let mut keys: Vec<_> =
        collected.arms.iter().flat_map(|arm| &arm.steps).map(|step| step.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut parts = vec![format!("Manifest `{}`", collected.name)];
    parts.push(format!("{} {}", if seeds.len() == 1 { "seed" } else { "seeds" }, shown.join(", ")));
    if collected.rounds > 0 {
        parts.push(text::plural(u64::from(collected.rounds), "round"));
    }
    if collected.arms.len() > 1 {
        parts.push(text::plural(collected.arms.len() as u64, "arm"));
    }
    parts.push(text::plural(keys.len() as u64, "step"));
    parts.join(" · ")
}

/// All tables of an arm.
fn everything(arm: &Arm, look: Look) -> String {
    let mut out = String::new();
    for table in [
        sections::models,
        rules::rules,
        sections::claims,
        judged::outcomes,
        judged::judges,
        judged::groups,
        published::published,
        sections::controls,
        sections::refinement,
        sections::rounds,
        sections::feedback,
        sections::ratings,
        sections::collected,
        leaks::leaks,
    ] {
        out.push_str(&table(arm, look));
    }
    if !arm.missing.is_empty() {
        out.push_str(&format!("{} Missing\n\n", look.level));
        arm.missing.iter().for_each(|what| out.push_str(&format!("- {what}\n")));
        out.push('\n');
    }
    out
}

/// The tables of a sweep.
fn over_seeds(groups: &[Group]) -> String {
    let mut names: Vec<String> = Vec::new();
    for mode in groups.iter().flat_map(|g| &g.models).flat_map(|model| &model.modes) {
        // Votes are few and cost much; the table over arms shows what every model has.
        if matches!(mode.mode.as_str(), "direct" | "refine") && !names.contains(&mode.mode) {
            names.push(mode.mode.clone());
        }
    }
    let mut header = head(&["arms", "model", "seeds", "n"]);
    for name in &names {
        header.push(format!("{name}, %"));
        header.push(format!("{name} - control"));
    }
    let mut rows = Vec::new();
    for group in groups {
        for model in &group.models {
            let modes: Vec<_> =
                names.iter().map(|name| model.modes.iter().find(|m| m.mode == *name)).collect();
            let Some(first) = modes.iter().flatten().next() else { continue };
            let items = first.items.map_or("varies".to_owned(), text::count);
            let (arms, seeds) = (place(&group.coordinates), first.accuracy.n.to_string());
            let items = format!("{items} (`{}`)", model.dataset);
            let mut row = vec![arms, model.label.clone(), seeds, items];
            for mode in modes {
                let accuracy = mode.map(|mode| mode.accuracy);
                row.push(accuracy.map_or(NOTHING.to_owned(), |s| spread(s.mean, s.deviation, s.n)));
                let gain = mode.and_then(|mode| mode.gain.as_ref());
                row.push(gain.map_or(NOTHING.to_owned(), difference));
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("## Over seeds\n\n{}", table(&header, &rows));
    out.push_str(
        "\nMean ± standard deviation over seeds of the accuracy on n problems a seed; beside it \
         the paired difference to the model's control in points, and in how many seeds it is \
         above 0.\n\n",
    );
    out + &claims_over_seeds(groups)
}

fn claims_over_seeds(groups: &[Group]) -> String {
    let mut rows = Vec::new();
    for group in groups {
        for claim in &group.claims {
            let spread = claim.difference.spread;
            let interval = match spread.n {
                1 => NOTHING.to_owned(),
                _ => format!(
                    "[{}, {}]",
                    points(spread.mean - spread.half),
                    points(spread.mean + spread.half)
                ),
            };
            rows.push(vec![
                place(&group.coordinates),
                claim.title.0.clone(),
                format!("{} on `{}`", claim.title.1, claim.dataset),
                difference(&claim.difference),
                interval,
                more_seeds(claim.needed, spread.n),
                claim.expect.map_or(NOTHING.to_owned(), |expect| {
                    let counts: Vec<String> =
                        claim.outcomes.iter().map(|(what, n)| format!("{n} {what}")).collect();
                    format!("{}: {}", expect.name(), counts.join(", "))
                }),
            ]);
        }
    }
    section(
        PAGE,
        "Claims over seeds",
        &["arms", "claim", "mode", "difference", "95 % of the mean", "80 % power with", "expected"],
        &rows,
        "Mean ± standard deviation over seeds of the difference in points, in how many seeds it \
         is above 0, and Student's 95 % interval of the mean (not corrected). Where that interval \
         holds 0: how many more seeds would show a mean as large with a chance of 80 %.",
    )
}

fn more_seeds(needed: Option<u64>, seeds: usize) -> String {
    let more = needed.map(|needed| needed.saturating_sub(seeds as u64).max(1));
    more.map_or(NOTHING.to_owned(), |more| text::plural(more, "more seed"))
}

fn spread(mean: f64, deviation: f64, n: usize) -> String {
    match n {
        1 => percent(mean),
        _ => format!("{} ± {}", percent(mean), percent(deviation)),
    }
}

fn difference(difference: &Difference) -> String {
    let spread = difference.spread;
    let deviation = match spread.n {
        1 => String::new(),
        _ => format!(" ± {}", percent(spread.deviation)),
    };
    let (mean, positive, n) = (points(spread.mean), difference.positive, spread.n);
    format!("{mean}{deviation} ({positive} of {n} above 0)")
}

/// What the steps made, where no models are shown.
fn made(collected: &Collected) -> String {
    let mut out = String::new();
    for arm in &collected.arms {
        let heading = match arm.coordinates.as_slice() {
            [] => "Steps".to_owned(),
            coordinates => format!("Steps of {}", place(coordinates)),
        };
        let names = ["step", "kind", "output", "what", "files", "digest"];
        let reading = "Digests of contents; all of them in full are in `digests.json`.";
        out.push_str(&section(PAGE, &heading, &names, &steps(arm), reading));
    }
    out
}

fn steps(arm: &CollectedArm) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for step in &arm.steps {
        for output in &step.outputs {
            rows.push(vec![
                step.name.clone(),
                step.kind.clone(),
                output.name.clone(),
                output.kind.name().to_owned(),
                output.files.len().to_string(),
                format!("`{}`", output.digest.short()),
            ]);
        }
    }
    rows
}
