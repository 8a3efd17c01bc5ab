//! What several rules of extraction make of the same texts: the score under
//! each, and how often two of them disagree.
//!
//! Which of them decides is the evaluation's to say; the rest stands beside it.

use super::{
    sections::{Look, section},
    summary::{self, Arm, Model},
    words::{NOTHING, interval},
};
use crate::{
    base::text,
    record::metric::{self, Share},
};
use serde_json::{Value, json};

/// One mode of a model under every rule.
pub(super) struct Extraction {
    /// Rules with their scores; the one that decides is first.
    pub(super) rules: Vec<(String, Share)>,
    /// Every two rules, and the items that one of them alone calls right.
    pub(super) apart: Vec<Apart>,
    /// Items that not all rules judge alike.
    pub(super) disputed: u64,
}

/// Two rules that disagree.
pub(super) struct Apart {
    /// Their names.
    pub(super) rules: (String, String),
    /// Items that only the first and only the second calls right.
    pub(super) only: (u64, u64),
}

impl Extraction {
    /// What the rules make of a mode; `None` where one rule alone was asked for.
    pub(super) fn of(model: &Model, mode: &str) -> Option<Extraction> {
        let (outcomes, others) = (model.modes.get(mode)?, model.others.get(mode)?);
        let mut judged: Vec<(&str, Vec<bool>)> =
            vec![(&model.rule, outcomes.iter().map(|outcome| outcome.correct).collect())];
        judged.extend(others.iter().map(|one| (one.rule.as_str(), one.right.clone())));
        let n = outcomes.len();
        if others.is_empty() || judged.iter().any(|(_, right)| right.len() != n) {
            return None;
        }
        let hits = |right: &[bool]| right.iter().filter(|right| **right).count() as u64;
        let score = |(name, right): &(&str, Vec<bool>)| {
            ((*name).to_owned(), metric::share(hits(right), n as u64))
        };
        let mut apart = Vec::new();
        for (i, (a, first)) in judged.iter().enumerate() {
            for (b, second) in &judged[i + 1..] {
                let paired = metric::mcnemar(first, second);
                let only = (paired.only_first, paired.only_second);
                apart.push(Apart { rules: ((*a).to_owned(), (*b).to_owned()), only });
            }
        }
        let differs = |item: &usize| judged.iter().any(|(_, r)| r[*item] != judged[0].1[*item]);
        let disputed = (0..n).filter(differs).count() as u64;
        Some(Extraction { rules: judged.iter().map(score).collect(), apart, disputed })
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let rule = |(name, share): &(String, Share)| json!({ "rule": name, "accuracy": super::json::share(*share) });
        let apart = |apart: &Apart| {
            let ((a, b), (only_a, only_b)) = (&apart.rules, apart.only);
            json!({ "a": a, "b": b, "only-a": only_a, "only-b": only_b })
        };
        json!({
            "rules": self.rules.iter().map(rule).collect::<Vec<_>>(),
            "apart": self.apart.iter().map(apart).collect::<Vec<_>>(),
            "disputed": self.disputed,
        })
    }
}

/// A row for every model and mode that was read by several rules.
pub(super) fn rules(arm: &Arm, look: Look) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for model in &arm.models {
        for mode in summary::modes([model]) {
            let Some(extraction) = Extraction::of(model, &mode) else { continue };
            for (name, _) in &extraction.rules {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            found.push((model, mode, extraction));
        }
    }
    let row = |(model, mode, extraction): &(&Model, String, Extraction)| {
        let cell = |name: &String| {
            let Some((_, share)) = extraction.rules.iter().find(|(known, _)| known == name) else {
                return NOTHING.to_owned();
            };
            let decides = &extraction.rules[0].0;
            let apart =
                extraction.apart.iter().find(|a| a.rules.0 == *decides && a.rules.1 == *name);
            match apart {
                None => format!("**{}**", interval(*share)),
                Some(apart) => {
                    format!("{}<br>+{} -{}", interval(*share), apart.only.1, apart.only.0)
                }
            }
        };
        let mut row = vec![model.label.clone(), format!("{mode} on `{}`", model.dataset)];
        row.push(text::count(extraction.rules[0].1.n));
        row.extend(names.iter().map(cell));
        row.push(text::count(extraction.disputed));
        row
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let mut head = vec!["model", "mode", "n"];
    let columns: Vec<String> = names.iter().map(|name| format!("{name}, %")).collect();
    head.extend(columns.iter().map(String::as_str));
    head.push("disputed");
    section(
        look,
        "The same replies under other rules of extraction",
        &head,
        &rows,
        "Share of right answers with Wilson's 95 % interval; the rule in bold decides everywhere \
         else on this page. Under the others: items that they alone call right (+) and that the \
         deciding rule alone calls right (-). Disputed: items that not all rules judge alike. \
         Every pair of rules is in `scores.json`.",
    )
}
