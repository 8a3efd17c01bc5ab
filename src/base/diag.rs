//! What a person wrote wrong: messages with their places and hints, collected
//! so that all mistakes are told at once.
//!
//! Drawing of carets is annotate-snippets' work; nothing here prints.

use crate::base::node::{Origin, Sources, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::collections::BTreeSet;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing may run.
    Error,
    /// Worth knowing.
    Warning,
}

/// One mistake or remark.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// One line, lower case, names in backticks.
    pub message: String,
    /// Places, the one that matters most first, each with a word or none.
    pub labels: Vec<(Span, String)>,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(message: impl Into<String>) -> Diagnostic {
        let (labels, hints) = (Vec::new(), Vec::new());
        Diagnostic { severity: Severity::Error, message: message.into(), labels, hints }
    }

    /// A warning.
    pub fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(message) }
    }

    /// Adds the place of a value, and what carried it away from there.
    pub fn at(self, origin: &Origin) -> Diagnostic {
        self.near(origin, "")
    }

    /// Adds the place of a value with a word on it.
    pub fn near(mut self, origin: &Origin, word: &str) -> Diagnostic {
        let carried = origin.via.iter().filter(|via| via.starts_with("sweep "));
        let mut words: Vec<String> = carried.map(|via| format!("through {via}")).collect();
        if !word.is_empty() {
            words.insert(0, word.to_owned());
        }
        self.labels.push((origin.span.clone(), words.join(", ")));
        self
    }

    /// Adds a place.
    pub fn label(mut self, span: &Span, word: impl Into<String>) -> Diagnostic {
        self.labels.push((span.clone(), word.into()));
        self
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hints.push(hint.into());
        self
    }

    /// The text a person sees, ending in a line break.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        let mut drawn: Vec<usize> = Vec::new();
        for (i, (first, _)) in self.labels.iter().enumerate() {
            if drawn.contains(&i) {
                continue;
            }
            // All labels of one source share a snippet.
            let (name, text) = sources.get(first.source);
            let mut snippet = Snippet::source(text).path(name);
            for (j, (span, word)) in self.labels.iter().enumerate().skip(i) {
                if span.source != first.source {
                    continue;
                }
                drawn.push(j);
                let kind = if j == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                let mut annotation = kind.span(clip(span, text));
                if !word.is_empty() {
                    annotation = annotation.label(word.as_str());
                }
                snippet = snippet.annotation(annotation);
            }
            group = group.element(snippet);
        }
        for hint in &self.hints {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = renderer.render(&[group]);
        text.push('\n');
        text
    }

    /// The form for machines.
    pub fn json(&self, sources: &Sources) -> serde_json::Value {
        let places: Vec<_> = self
            .labels
            .iter()
            .map(|(span, word)| {
                let at = sources.place(span);
                serde_json::json!({
                    "file": at.file, "line": at.line, "column": at.column,
                    "start": span.range.start, "end": span.range.end, "label": word,
                })
            })
            .collect();
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        serde_json::json!({
            "severity": severity, "message": self.message, "places": places, "hints": self.hints,
        })
    }
}

/// A span's bytes within its text, on its first line only.
fn clip(span: &Span, text: &str) -> std::ops::Range<usize> {
    let start = span.bytes().start.min(text.len());
    let end = span.bytes().end.clamp(start, text.len());
    let line = text.get(start..end).and_then(|part| part.find('\n'));
    start..line.map_or(end, |length| start + length)
}

/// Mistakes and remarks, each once.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    seen: BTreeSet<(String, Option<(u32, u32)>)>,
}

impl Diagnostics {
    /// Adds one, unless the same was said of the same place before.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.labels.first().map(|(span, _)| order(span));
        if self.seen.insert((diagnostic.message.clone(), place)) {
            self.items.push(diagnostic);
        }
    }

    /// Adds all of another collection.
    pub fn extend(&mut self, other: Diagnostics) {
        other.items.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether nothing may run.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.items.iter().filter(|item| item.severity == Severity::Error).count()
    }

    /// All of them, by source and place; those without a place come first.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut items: Vec<&Diagnostic> = self.items.iter().collect();
        items.sort_by_key(|item| item.labels.first().map(|(span, _)| order(span)));
        items
    }

    /// The text a person sees: one paragraph each.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let texts: Vec<_> = self.sorted().iter().map(|item| item.render(sources, color)).collect();
        texts.join("\n")
    }

    /// The form for machines: an array.
    pub fn json(&self, sources: &Sources) -> serde_json::Value {
        self.sorted().iter().map(|item| item.json(sources)).collect()
    }
}

fn order(span: &Span) -> (u32, u32) {
    (span.source.number(), span.range.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_place_caret_and_hint() {
        let mut sources = Sources::default();
        let id = sources.add("a.toml", "seed = 7\nmodle = \"x\"\n");
        let origin = Origin { via: vec!["sweep axis `m`".into()], ..Origin::new(id, 9..14) };
        let mut found = Diagnostics::default();
        let one =
            Diagnostic::error("unknown key `modle`").at(&origin).hint("did you mean `model`?");
        found.push(one.clone());
        found.push(one);
        assert_eq!(found.errors(), 1);
        let expected = "\
error: unknown key `modle`
 --> a.toml:2:1
  |
2 | modle = \"x\"
  | ^^^^^ through sweep axis `m`
  |
  = hint: did you mean `model`?
";
        assert_eq!(found.render(&sources, false), expected);
        assert_eq!(found.json(&sources)[0]["places"][0]["line"], 2);
    }
}
