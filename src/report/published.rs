//! Results beside published values, laid out as the tables they come from, with
//! how sure each published value is and what nobody has checked yet.

use super::{
    claims::{Held, Standing},
    sections::{Look, section},
    summary::Arm,
    words::{NOTHING, interval_of},
};
use crate::base::text;

/// A table for every table of the paper that results are held against.
pub(super) fn published(arm: &Arm, look: Look) -> String {
    let mut out = String::new();
    for table in distinct(arm.held.iter().map(|held| held.table.clone())) {
        let here: Vec<&Held> = arm.held.iter().filter(|held| held.table == table).collect();
        let heading = match &table {
            Some(table) => format!("Published values: {table}"),
            None => "Published values".to_owned(),
        };
        // How to read them is said once, under the last of them.
        out.push_str(&one(&here, Look { explain: false, ..look }, &heading));
    }
    if out.is_empty() {
        return out;
    }
    out.push_str(&format!("{}.\n\n", standings(&arm.held)));
    if look.explain {
        out.push_str(
            "Here: share of right answers (or of verdicts, where that is said) with Wilson's 95 % \
             interval; published: the value in the paper, with the difference in points. \
             Reproduced: near enough, and the interval reaches no further to a side than what is \
             tolerated, or 5 points. Not reproduced: the interval holds nothing that is near \
             enough. Underpowered: neither can be said with so few items.\n\n",
        );
    }
    out
}

/// `2 reproduced, 1 underpowered`.
fn standings(held: &[Held]) -> String {
    let all =
        [Standing::Reproduced, Standing::NotReproduced, Standing::Underpowered, Standing::Missing];
    let mut parts: Vec<String> = Vec::new();
    for standing in all {
        let count = held.iter().filter(|held| held.standing == Some(standing)).count();
        if count > 0 {
            parts.push(format!("{} {}", text::count(count as u64), standing.words()));
        }
    }
    let shown = held.iter().filter(|held| held.standing.is_none()).count();
    if shown > 0 {
        parts.push(format!("{} only shown", text::count(shown as u64)));
    }
    format!("Of {}: {}", text::plural(held.len() as u64, "published value"), parts.join(", "))
}

/// One table: a row for each model and data set, three columns for each number.
fn one(held: &[&Held], look: Look, heading: &str) -> String {
    let numbers = distinct(held.iter().map(|held| number(held)));
    let lines = distinct(held.iter().map(|held| (held.subject.clone(), held.dataset.clone())));
    let mut names = vec!["model".to_owned(), "on".to_owned()];
    for number in &numbers {
        names.push(format!("{number}: here, %"));
        names.push("published, %".to_owned());
        names.push("verdict".to_owned());
    }
    names.push("the published values are".to_owned());
    let row = |(subject, dataset): &(String, String)| {
        let its: Vec<&&Held> =
            held.iter().filter(|h| h.subject == *subject && h.dataset == *dataset).collect();
        let mut row = vec![subject.clone(), format!("`{dataset}`")];
        for wanted in &numbers {
            match its.iter().find(|held| number(held) == *wanted) {
                Some(held) => row.extend(cells(held)),
                None => row.extend([NOTHING, NOTHING, NOTHING].map(str::to_owned)),
            }
        }
        let sure = distinct(its.iter().map(|held| held.source_confidence.clone()));
        row.push(match sure.as_slice() {
            [one] => one.clone(),
            _ => {
                let each = its.iter().map(|h| format!("{}: {}", number(h), h.source_confidence));
                each.collect::<Vec<_>>().join("; ")
            }
        });
        row
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    section(look, heading, &names, &rows, "")
}

fn cells(held: &Held) -> [String; 3] {
    let difference = held.share.filter(|share| share.n > 0).map(|share| share.value - held.paper);
    let difference =
        difference.map_or(String::new(), |by| format!(" ({})", super::words::points(by)));
    [
        held.share.map_or(NOTHING.to_owned(), interval_of),
        format!("{}{difference}", printed(held.paper)),
        held.standing.map_or("shown only", Standing::words).to_owned(),
    ]
}

/// Mode of evaluation, and what was counted where that is not the answers.
fn number(held: &Held) -> String {
    match held.metric {
        "accuracy" => held.mode.clone(),
        metric => format!("{metric}, {}", held.mode),
    }
}

/// A published share with the digits it was printed with, two at most.
fn printed(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Each once, in the order of its first.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// What nobody has checked against the paper, as a list to tick off.
pub(super) fn unverified(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = "## To be checked against the paper\n\n".to_owned();
    lines.iter().for_each(|line| out.push_str(&format!("- [ ] {line}\n")));
    out.push('\n');
    out
}
