//! How figures are written in a report: shares, points, p values, tables.

use crate::{base::text, record::metric::Share};

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "-";

/// `0.3125` -> `31.2`: percent with one decimal.
pub(super) fn percent(value: f64) -> String {
    format!("{:.1}", value * 100.0)
}

/// `31.2 [28.4, 34.1]`, or nothing where nothing was counted.
pub(super) fn interval(share: Share) -> String {
    match share.n {
        0 => NOTHING.to_owned(),
        _ => format!("{} [{}, {}]", percent(share.value), percent(share.low), percent(share.high)),
    }
}

/// `31.2 [28.4, 34.1] of 1,000`.
pub(super) fn interval_of(share: Share) -> String {
    match share.n {
        0 => NOTHING.to_owned(),
        n => format!("{} of {}", interval(share), text::count(n)),
    }
}

/// A difference of shares in points: `+3.1`.
pub(super) fn points(difference: f64) -> String {
    // Adding zero takes the sign from a negative zero.
    let rounded = (difference * 1000.0).round() / 10.0 + 0.0;
    format!("{rounded:+.1}")
}

/// `0.032`, `< 0.001`.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// `p 0.032`, `p < 0.001`.
pub(super) fn p_of(p: f64) -> String {
    format!("p {}", p_value(p))
}

/// A count, or nothing.
pub(super) fn count(n: Option<u64>) -> String {
    n.map_or(NOTHING.to_owned(), text::count)
}

/// A Markdown table: columns of figures to the right, columns of words to the left.
pub(super) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = line(head);
    let is_figure = |cell: &String| cell.starts_with(|c: char| "0123456789+-<".contains(c));
    let figures = |i: usize| i > 0 && rows.iter().filter_map(|row| row.get(i)).all(is_figure);
    let rule: Vec<&str> =
        (0..head.len()).map(|i| if figures(i) { "---:" } else { "---" }).collect();
    out.push_str(&format!("| {} |\n", rule.join(" | ")));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out
}

/// Text that a cell can hold.
fn escape(cell: &str) -> String {
    cell.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A table's head.
pub(super) fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The coordinates of an arm: `start = restart, filter = none`.
pub(super) fn place(coordinates: &[(String, String)]) -> String {
    let parts: Vec<String> =
        coordinates.iter().map(|(axis, label)| format!("{axis} = {label}")).collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}
