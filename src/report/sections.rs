//! The tables of one arm: models, paired tests, rounds, feedback, comparisons
//! and published values. Numbers come from `summary`; here they are laid out.

use super::{
    summary::{self, Arm, Counted, Model, Pairing},
    words::{NOTHING, count, head, interval, interval_of, p_of, p_value, percent, points, table},
};
use crate::{
    base::text,
    record::{Measure, Tally, metric::share},
};

/// How tables are set.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Marks of a heading.
    pub(super) level: &'static str,
    /// Whether it is said how to read them.
    pub(super) explain: bool,
}

impl Look {
    /// What stands under a table.
    fn reading(self, text: &str) -> String {
        if self.explain { format!("\n{text}\n\n") } else { "\n".to_owned() }
    }
}

/// One table for each data set: a row for each model, a column for each mode.
pub(super) fn models(arm: &Arm, look: Look) -> String {
    let mut out = String::new();
    for dataset in arm.datasets() {
        let here: Vec<&Model> =
            arm.models.iter().filter(|model| model.dataset == dataset).collect();
        let modes = summary::modes(here.iter().copied());
        let is_judged = here.iter().any(|model| model.measure == Measure::WinRate);
        let what = if is_judged { "Win rate" } else { "Accuracy" };
        out.push_str(&format!("{} {what} on `{dataset}`\n\n", look.level));
        let mut names = vec!["model".to_owned(), "n".to_owned()];
        names.extend(modes.iter().map(|mode| format!("{mode}, %")));
        names.extend(head(&["steps", "tokens trained", "tokens generated"]));
        let rows: Vec<Vec<String>> =
            here.iter().map(|model| model_row(arm, model, &modes)).collect();
        out.push_str(&table(&names, &rows));
        out.push_str(&look.reading(if is_judged { JUDGED } else { SCORED }));
    }
    out
}

/// How to read a table of accuracies.
const SCORED: &str = "n problems each; share of right answers with Wilson's 95 % interval, and under it the \
    exact McNemar p against the model's control (two-sided, item by item, not corrected). \
    Steps and tokens trained count from the random start, tokens generated are those of the \
    evaluation.";

/// How to read a table of win rates.
const JUDGED: &str = "n pairs each, of replies to the same question, that the judge said something readable \
    of; share of pairs won with Wilson's 95 % interval, and under it the exact McNemar p \
    against the model's control (which questions each of them wins; two-sided, not \
    corrected). Steps and tokens trained count from the random start, tokens generated are \
    the judge's, where it counts them.";

fn model_row(arm: &Arm, model: &Model, modes: &[String]) -> Vec<String> {
    let control = arm.control(model);
    let cell = |mode: &String| {
        let Some(accuracy) = model.accuracy(mode) else { return NOTHING.to_owned() };
        let pairing = control.and_then(|control| model.against(mode, control, mode));
        let p = pairing.map(|pairing| format!("<br>{}", p_of(pairing.paired.p)));
        interval(accuracy) + &p.unwrap_or_default()
    };
    let mut sizes: Vec<u64> =
        modes.iter().filter_map(|mode| model.accuracy(mode)).map(|share| share.n).collect();
    sizes.dedup();
    let sizes: Vec<String> = sizes.into_iter().map(text::count).collect();
    let mut row = vec![model.label.clone(), sizes.join(", ")];
    row.extend(modes.iter().map(cell));
    row.push(count(model.log.as_ref().map(|log| log.steps_total)));
    row.push(count(model.log.as_ref().map(|log| log.tokens_total)));
    row.push(count(Some(model.tokens.written)));
    row
}

/// Every model against its control, mode by mode.
pub(super) fn controls(arm: &Arm, look: Look) -> String {
    let mut rows = Vec::new();
    for model in &arm.models {
        let Some(control) = arm.control(model) else { continue };
        for mode in summary::modes([model]) {
            let Some(pairing) = model.against(&mode, control, &mode) else { continue };
            let mut row = vec![model.label.clone(), control.label.clone(), mode];
            row.push(steps_of_both(model, control));
            row.extend(pairing_cells(arm, model, pairing));
            row.push(p_value(pairing.paired.p));
            rows.push(row);
        }
    }
    let names = [
        "model",
        "control",
        "mode",
        "steps of both",
        "n",
        "difference",
        "only model",
        "only control",
        "p",
    ];
    section(
        look,
        "Against the controls",
        &names,
        &rows,
        "Difference in points on the same problems; only model, only control: problems that one \
         of the two got right and the other did not; p: exact McNemar, not corrected. Optimizer \
         steps since the random start: where the control has fewer, more training may explain \
         the difference.",
    )
}

/// `412, both`, `412 and 390`.
fn steps_of_both(model: &Model, control: &Model) -> String {
    let steps = |model: &Model| model.log.as_ref().map(|log| log.steps_total);
    match (steps(model), steps(control)) {
        (Some(one), Some(other)) if one == other => format!("{}, both", text::count(one)),
        (None, None) => NOTHING.to_owned(),
        (one, other) => format!("{} and {}", count(one), count(other)),
    }
}

/// What refinement changes in every model.
pub(super) fn refinement(arm: &Arm, look: Look) -> String {
    let known = [
        ("refine", "direct"),
        ("consistency-refine", "consistency"),
        ("vote-refine", "consistency"),
    ];
    let mut pairs: Vec<(String, String)> =
        known.iter().map(|(refined, plain)| ((*refined).to_owned(), (*plain).to_owned())).collect();
    // A later pass is held against the first: that is what the further ones add.
    let later = summary::modes(&arm.models).into_iter().filter(|mode| summary::is_pass(mode));
    pairs.splice(1..1, later.map(|mode| (mode, "refine".to_owned())));
    let mut rows = Vec::new();
    for (refined, plain) in &pairs {
        for model in &arm.models {
            let Some(pairing) = model.against(refined, model, plain) else { continue };
            let mut row = vec![model.label.clone(), format!("{refined} - {plain}")];
            row.extend(pairing_cells(arm, model, pairing));
            row.push(p_value(pairing.paired.p));
            rows.push(row);
        }
    }
    let names = ["model", "modes", "n", "difference", "repaired", "spoilt", "p"];
    section(
        look,
        "What refinement changes",
        &names,
        &rows,
        "Difference in points on the same problems; repaired: wrong without and right with \
         refinement; spoilt: the other way round; p: exact McNemar, not corrected.",
    )
}

fn pairing_cells(arm: &Arm, model: &Model, pairing: Pairing) -> [String; 4] {
    let n = text::count(pairing.n);
    // Where there are several data sets the number of problems does not name one.
    let n = if arm.datasets().len() > 1 { format!("{n} (`{}`)", model.dataset) } else { n };
    let paired = pairing.paired;
    [n, points(pairing.difference), text::count(paired.only_first), text::count(paired.only_second)]
}

/// What each round made of its prompts.
pub(super) fn rounds(arm: &Arm, look: Look) -> String {
    let made = |counted: &&Counted| counted.round.is_some();
    let rows: Vec<Vec<String>> = arm.tallies.iter().filter(made).map(round_row).collect();
    let names = [
        "round",
        "prompts",
        "kept",
        "dropped",
        "reply r right, %",
        "refined r̂ right, %",
        "kept r̂ right, %",
        "precision, %",
        "recall, %",
        "tokens generated",
        "tokens trained",
    ];
    section(
        look,
        "The data of each round",
        &names,
        &rows,
        "Shares with Wilson's 95 % interval: r and r̂ of all prompts, r̂ after the filter of what \
         was kept. Precision of the filter: right among the kept; recall: kept among the right. \
         Gold answers are used for this table only. Tokens generated are those of replies, \
         feedback, refinements and judgements of the round; tokens trained are those of the \
         round's training.",
    )
}

fn round_row(counted: &Counted) -> Vec<String> {
    let Tally { seen, kept, reply_right, refined_right, kept_right, .. } = counted.tally;
    vec![
        counted.step.clone(),
        text::count(seen),
        text::count(kept),
        dropped(&counted.tally),
        interval(share(reply_right, counted.tally.judged())),
        interval(share(refined_right, counted.tally.judged())),
        interval(share(kept_right, counted.tally.kept_judged())),
        of(kept_right, counted.tally.kept_judged()),
        of(kept_right, refined_right),
        count(counted.generated),
        count(counted.trained.as_ref().map(|log| log.tokens)),
    ]
}

/// `81.2 (812 of 1,000)`.
fn of(hits: u64, n: u64) -> String {
    match n {
        0 => NOTHING.to_owned(),
        _ => {
            let value = percent(hits as f64 / n as f64);
            format!("{value} ({} of {})", text::count(hits), text::count(n))
        }
    }
}

fn dropped(tally: &Tally) -> String {
    let reasons: Vec<String> =
        tally.dropped.iter().map(|(why, n)| format!("{} {why}", text::count(*n))).collect();
    if reasons.is_empty() { "0".to_owned() } else { reasons.join(", ") }
}

/// What annotators outside the rounds made.
pub(super) fn collected(arm: &Arm, look: Look) -> String {
    let row = |counted: &Counted| {
        let Tally { seen, kept, reply_right, refined_right, .. } = counted.tally;
        vec![
            counted.step.clone(),
            text::count(seen),
            text::count(kept),
            dropped(&counted.tally),
            interval(share(reply_right, counted.tally.judged())),
            interval(share(refined_right, counted.tally.judged())),
            count(counted.generated),
        ]
    };
    let rows: Vec<Vec<String>> =
        arm.tallies.iter().filter(|counted| counted.round.is_none()).map(row).collect();
    let names = [
        "step",
        "prompts",
        "kept",
        "dropped",
        "reply r right, %",
        "refined r̂ right, %",
        "tokens generated",
    ];
    section(
        look,
        "Collected data",
        &names,
        &rows,
        "Shares of all prompts with Wilson's 95 % interval: r is the model's reply, r̂ the \
         refined one.",
    )
}

/// How good the feedback is, on test problems and on what it filtered.
pub(super) fn feedback(arm: &Arm, look: Look) -> String {
    let row = |name: &str, place: String, tally: &Tally| {
        vec![
            name.to_owned(),
            place,
            interval_of(share(tally.verdict_right, tally.judged())),
            interval_of(share(tally.wrong_caught, tally.reply_wrong)),
            of(tally.verdict_unparsed, tally.seen),
        ]
    };
    let mut rows = Vec::new();
    for model in &arm.models {
        if let Some(tally) = &model.feedback {
            rows.push(row(&model.label, format!("`{}`", model.dataset), tally));
        }
    }
    for counted in &arm.tallies {
        rows.push(row(&counted.step, "its prompts".to_owned(), &counted.tally));
    }
    let names = ["who", "on", "verdicts right, %", "wrong replies caught, %", "no verdict, %"];
    section(
        look,
        "Feedback",
        &names,
        &rows,
        "Verdicts on the reply r that agree with the gold answer, and the share of wrong replies \
         that are called incorrect, with Wilson's 95 % interval. Saying `correct` to everything \
         scores the accuracy of r on the first and 0 on the second.",
    )
}

/// Ratings in what was collected and filtered, and annotators that contradict
/// themselves.
pub(super) fn ratings(arm: &Arm, look: Look) -> String {
    let mean = |sum: f64, n: u64| match n {
        0 => NOTHING.to_owned(),
        _ => format!("{:.2} of {}", sum / n as f64, text::count(n)),
    };
    let row = |counted: &Counted| {
        let Tally { seen, contradicted, verdict_unparsed, ratings, .. } = counted.tally;
        let rated = ratings.unwrap_or_default();
        vec![
            counted.step.clone(),
            text::count(seen),
            mean(rated.replies_sum, rated.replies),
            mean(rated.refined_sum, rated.refined),
            mean(rated.gain_sum, rated.both),
            of(verdict_unparsed, seen),
            of(contradicted, seen),
        ]
    };
    let tells =
        |counted: &&Counted| counted.tally.ratings.is_some() || counted.tally.contradicted > 0;
    let rows: Vec<Vec<String>> = arm.tallies.iter().filter(tells).map(row).collect();
    let names = [
        "step",
        "prompts",
        "rating of r",
        "rating of r̂",
        "gain",
        "no judgement, %",
        "contradicted, %",
    ];
    section(
        look,
        "Ratings",
        &names,
        &rows,
        "Means of ratings from 1 to 10 and of how many; gain: r̂ minus r where both were rated. \
         Contradicted: the annotator finds r right and writes another answer, or wrong and writes \
         the same one.",
    )
}

/// The comparisons the manifest asks for.
pub(super) fn claims(arm: &Arm, look: Look) -> String {
    let row = |claim: &super::claims::Claim| {
        let Pairing { n, difference, paired } = claim.pairing;
        vec![
            claim.title(),
            format!("{} on `{}`", claim.mode(), claim.dataset),
            text::count(n),
            points(difference),
            format!("[{}, {}]", points(claim.interval.0), points(claim.interval.1)),
            format!("{} / {}", text::count(paired.only_first), text::count(paired.only_second)),
            p_value(paired.p),
            p_value(claim.corrected),
            claim.verdict(),
            claim.needed.map_or(NOTHING.to_owned(), |n| format!("{} items", text::count(n))),
            claim.expect.zip(claim.outcome()).map_or(NOTHING.to_owned(), |(expect, outcome)| {
                format!("{}: {outcome}", expect.name())
            }),
        ]
    };
    let rows: Vec<Vec<String>> = arm.claims.iter().map(row).collect();
    let names = [
        "claim",
        "mode",
        "n",
        "difference",
        "95 %",
        "only first / second",
        "p",
        "p, Holm",
        "verdict",
        "80 % power with",
        "expected",
    ];
    section(
        look,
        "Claims",
        &names,
        &rows,
        "Difference in points on the same problems with its 95 % bootstrap interval, problems that \
         only one of the two got right, exact McNemar p, and p after Holm's correction over \
         this table. A difference counts where the latter is below 0.05; where it does not, so \
         many items would show one as large with a chance of 80 %, at the level of Holm's first \
         step. One training run a model: the test speaks of these models, not of other seeds.",
    )
}

/// A heading, a table and how to read it; nothing without rows.
pub(super) fn section(
    look: Look,
    heading: &str,
    names: &[&str],
    rows: &[Vec<String>],
    reading: &str,
) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("{} {heading}\n\n{}{}", look.level, table(&head(names), rows), look.reading(reading))
}
