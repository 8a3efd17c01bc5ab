//! What was found.
pub mod collected;

/// Renders the files of a report.
pub fn render(collected: &collected::Collected) -> Vec<(String, String)> {
    let _ = collected;
    Vec::new()
}
