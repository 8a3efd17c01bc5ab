//! What judges said of models' replies: wins, ties and losses, how far the
//! judge can be trusted, and the same by kind of question.

use super::{
    collected::{CollectedArm, CollectedStep},
    sections::{Look, section},
    summary::Arm,
    words::{NOTHING, interval, interval_of, p_value},
};
use crate::{
    base::{artifact::ArtifactKind, text},
    record::{
        contest::{Counts, Judgements},
        metric::{Share, share},
    },
};
use serde_json::{Map, Value, json};

/// Judgements with the step that asked for them.
pub(super) struct Judged {
    /// Full name of the step.
    pub(super) step: String,
    /// What was said, counted.
    pub(super) all: Judgements,
    /// What it cost, where that is known.
    dollars: Option<f64>,
}

/// What every judge of an arm said.
pub(super) fn read(arm: &CollectedArm, missing: &mut Vec<String>) -> Vec<Judged> {
    let mut found = Vec::new();
    for step in &arm.steps {
        let made = step.outputs.iter().filter(|output| output.kind == ArtifactKind::Judgements);
        for output in made {
            match output.json("judgements.json") {
                Ok(all) => {
                    found.push(Judged { step: step.name.clone(), all, dollars: dollars(step) })
                }
                Err(why) => missing.push(format!("`{}`: {why}", step.name)),
            }
        }
    }
    found
}

fn dollars(step: &CollectedStep) -> Option<f64> {
    step.metrics.get("api-dollars").copied()
}

/// Wins, ties and losses of every judged pair of models.
pub(super) fn outcomes(arm: &Arm, look: Look) -> String {
    let row = |judged: &Judged| {
        let Judgements { dataset, counts, .. } = &judged.all;
        let mut row = vec![judged.step.clone(), format!("`{dataset}`")];
        row.extend(tally(counts));
        row.extend([interval(counts.win_and_half_ties()), p_value(counts.p())]);
        row.push(text::count(judged.all.identical));
        row
    };
    let rows: Vec<Vec<String>> = arm.judged.iter().map(row).collect();
    let names = [
        "step",
        "on",
        "pairs",
        "won",
        "tied",
        "lost",
        "unread",
        "won, %",
        "won and half of tied, %",
        "p",
        "same text",
    ];
    section(
        look,
        "Judged pairs",
        &names,
        &rows,
        "Pairs of replies to the same question, counted for the model whose wins the step counts; \
         unread: something that the judge said of the pair could not be read, so it is in no rate. \
         Shares of the pairs that were read, with Wilson's 95 % interval; p: exact sign test of \
         wins against losses, ties aside, not corrected. Same text: pairs whose replies are equal, \
         ties that nobody was asked about.",
    )
}

fn tally(counts: &Counts) -> Vec<String> {
    let Counts { won, tied, lost, unread } = *counts;
    let mut cells: Vec<String> =
        [counts.judged() + unread, won, tied, lost, unread].map(text::count).to_vec();
    cells.push(interval(counts.win_rate()));
    cells
}

/// How far each judge can be trusted.
pub(super) fn judges(arm: &Arm, look: Look) -> String {
    let row = |judged: &Judged| {
        let all = &judged.all;
        let unread: Vec<String> =
            all.unread.iter().map(|(why, n)| format!("{} {why}", text::count(*n))).collect();
        let unread = if unread.is_empty() { "0".to_owned() } else { unread.join(", ") };
        let n = (all.counts.judged() + all.counts.unread).max(1) as f64;
        let words = all.length.words.map(|words| format!("{:.0}", words as f64 / n));
        let means = all.means.map(|means| means.map(|mean| format!("{mean:.2}")).join(" / "));
        vec![
            judged.step.clone(),
            if all.judges.is_empty() { NOTHING.to_owned() } else { all.judges.join(", ") },
            format!("{}, {}", all.form, all.ties),
            text::count(all.asked),
            unread,
            text::count(all.disputed),
            interval_or_nothing(consistency(all)),
            interval_or_nothing(for_first(all)),
            interval_or_nothing(for_longer(all)),
            words.join(" / "),
            means.unwrap_or(NOTHING.to_owned()),
            judged.dollars.map_or(NOTHING.to_owned(), |dollars| format!("{dollars:.2}")),
        ]
    };
    let rows: Vec<Vec<String>> = arm.judged.iter().map(row).collect();
    let names = [
        "step",
        "judge",
        "asked for, ties by",
        "judgements",
        "not read",
        "read otherwise",
        "same in both orders, %",
        "for the first shown, %",
        "for the longer, %",
        "words",
        "mean score",
        "dollars",
    ];
    section(
        look,
        "The judges",
        &names,
        &rows,
        "Read otherwise: judgements that the other of the two ways to read them reads differently. \
         Same in both orders: of the pairs judged in both, those with the same preference, or a tie \
         twice; a judge that always takes the first scores 0 here and 100 beside it. For the first \
         shown: of the judgements of these pairs that prefer a reply. For the longer: of the pairs \
         won or lost whose replies differ in length; a judge without a leaning need not score 50, \
         longer replies may be better. Words and mean score: of the model whose wins are counted / \
         of the other. Wilson's 95 % intervals.",
    )
}

fn consistency(all: &Judgements) -> Share {
    share(all.position.consistent, all.position.pairs)
}

fn for_first(all: &Judgements) -> Share {
    share(all.position.for_first, all.position.decided)
}

fn for_longer(all: &Judgements) -> Share {
    share(all.length.for_longer, all.length.decided)
}

fn interval_or_nothing(share: Share) -> String {
    if share.n == 0 { NOTHING.to_owned() } else { interval_of(share) }
}

/// The same pairs by kind of question.
pub(super) fn groups(arm: &Arm, look: Look) -> String {
    let mut rows = Vec::new();
    for judged in &arm.judged {
        for (label, values) in &judged.all.groups {
            for (value, counts) in values {
                let mut row =
                    vec![judged.step.clone(), format!("`{}`", judged.all.dataset), label.clone()];
                row.push(value.clone());
                row.extend(tally(counts));
                rows.push(row);
            }
        }
    }
    let names =
        ["step", "on", "label", "value", "pairs", "won", "tied", "lost", "unread", "won, %"];
    section(
        look,
        "Judged pairs by kind of question",
        &names,
        &rows,
        "Labels are the data set's own. Few questions a row: the intervals are wide.",
    )
}

/// All of it for programs.
pub(super) fn json(judged: &Judged) -> Value {
    let all = &judged.all;
    let rates = |counts: &Counts| {
        json!({
            "counts": counts, "won": of(counts.win_rate()),
            "won-and-half-tied": of(counts.win_and_half_ties()), "p": counts.p(),
        })
    };
    let groups: Map<String, Value> = all
        .groups
        .iter()
        .map(|(label, values)| {
            let values: Map<String, Value> =
                values.iter().map(|(value, counts)| (value.clone(), rates(counts))).collect();
            (label.clone(), values.into())
        })
        .collect();
    json!({
        "step": judged.step, "dataset": all.dataset, "judges": all.judges, "form": all.form,
        "ties": all.ties, "pairs": rates(&all.counts), "groups": groups,
        "identical": all.identical, "asked": all.asked, "unread": all.unread,
        "disputed": all.disputed, "position": all.position, "length": all.length,
        "consistent": of(consistency(all)), "for-first": of(for_first(all)),
        "for-longer": of(for_longer(all)), "means": all.means, "dollars": judged.dollars,
    })
}

fn of(share: Share) -> Value {
    super::json::share(share)
}
