//! What was found: the results of every arm as Markdown, JSON and SVG.
//!
//! Text in, text out. Knows neither files nor times nor machines, so the same
//! results give the same bytes.

mod cases;
mod chart;
mod claims;
pub mod collected;
mod curves;
mod json;
mod judged;
mod leaks;
mod markdown;
mod published;
mod rules;
mod sections;
mod seeds;
mod summary;
#[cfg(test)]
mod tests;
pub mod verdicts;
mod words;

use collected::Collected;

/// Renders the files of a report: their names and contents.
///
/// Every experiment gets a `report.md`; one that shows models gets their
/// outcomes (`scores.json`) and a chart (`accuracy.svg`) where there are
/// rounds, any other one the digests of what it made (`digests.json`).
pub fn render(collected: &Collected) -> Vec<(String, String)> {
    let summary = summary::Summary::of(collected);
    let chart = curves::accuracy(&summary).map(|chart| chart.svg());
    let page = markdown::page(&summary, collected, chart.is_some());
    let mut files = vec![("report.md".to_owned(), page)];
    if summary.shows_models() {
        files.push(("scores.json".to_owned(), json::scores(&summary, collected)));
    } else {
        files.push(("digests.json".to_owned(), json::digests(collected)));
    }
    files.extend(chart.map(|svg| ("accuracy.svg".to_owned(), svg)));
    files
}
