//! What a study was to show, and whether it did: the one list that decides
//! whether a reproduction holds.
//!
//! Where arms differ in the seed, what they say together counts, not what each
//! says by itself.

use super::{
    claims::{Claim, Standing},
    collected::Collected,
    seeds::ClaimOver,
    summary::Summary,
    words::place,
};
use crate::manifest::Expect;

/// Whether something wanted came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It did.
    Yes,
    /// The data do not tell, or there are none.
    Open,
    /// The opposite did.
    No,
}

/// One thing a manifest wants, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was wanted, in words.
    pub what: String,
    /// What came of it, in words.
    pub outcome: String,
    /// Whether it holds.
    pub holds: Holds,
}

/// What came of every expectation and every published value of a study.
pub fn verdicts(collected: &Collected) -> Vec<Verdict> {
    let summary = Summary::of(collected);
    let mut found = Vec::new();
    let several = |group: &&super::seeds::Group| group.seeds.len() > 1;
    let together: Vec<_> = summary.groups.iter().filter(several).collect();
    for group in &together {
        let at = at(&group.coordinates);
        for claim in &group.claims {
            found.extend(claim.expect.map(|expect| over_seeds(claim, expect, &at)));
        }
    }
    for arm in &summary.arms {
        let at = at(&arm.coordinates);
        let alone = together.is_empty();
        for claim in arm.claims.iter().filter(|_| alone) {
            found.extend(claim.outcome().map(|outcome| of_claim(claim, outcome, &at)));
        }
        for held in &arm.held {
            let Some(standing) = held.standing else { continue };
            let what = format!(
                "{at}`{}` {} on `{}` as published ({})",
                held.subject, held.mode, held.dataset, held.source_confidence
            );
            let holds = match standing {
                Standing::Reproduced => Holds::Yes,
                Standing::Underpowered | Standing::Missing => Holds::Open,
                Standing::NotReproduced => Holds::No,
            };
            found.push(Verdict { what, outcome: standing.words().to_owned(), holds });
        }
        for missing in &arm.missing {
            let (what, outcome) = (format!("{at}{missing}"), "missing".to_owned());
            found.push(Verdict { what, outcome, holds: Holds::Open });
        }
    }
    found
}

/// `seed = 2: `, nothing without a sweep.
fn at(coordinates: &[(String, String)]) -> String {
    if coordinates.is_empty() { String::new() } else { format!("{}: ", place(coordinates)) }
}

fn of_claim(claim: &Claim, outcome: &'static str, at: &str) -> Verdict {
    let holds = match outcome {
        "as expected" => Holds::Yes,
        "not shown" => Holds::Open,
        _ => Holds::No,
    };
    let expect = claim.expect.map_or("", Expect::name);
    let what = format!("{at}{} {expect}, {} on `{}`", claim.title(), claim.mode(), claim.dataset);
    Verdict { what, outcome: outcome.to_owned(), holds }
}

/// The interval of the mean over seeds against what was expected.
fn over_seeds(claim: &ClaimOver, expect: Expect, at: &str) -> Verdict {
    let spread = claim.difference.spread;
    let sign = match (spread.mean - spread.half, spread.mean + spread.half) {
        (low, _) if low > 0.0 => 1,
        (_, high) if high < 0.0 => -1,
        _ => 0,
    };
    let (outcome, holds) = match (expect, sign) {
        (Expect::Higher, 1) | (Expect::Lower, -1) => ("as expected", Holds::Yes),
        (Expect::NotHigher, -1 | 0) | (Expect::NotLower, 0 | 1) => ("as expected", Holds::Yes),
        (Expect::Higher | Expect::Lower, 0) => ("not shown", Holds::Open),
        _ => ("against expectation", Holds::No),
    };
    let (title, mode) = &claim.title;
    let seeds = spread.n;
    let what =
        format!("{at}{title} {}, {mode} on `{}`, {seeds} seeds", expect.name(), claim.dataset);
    Verdict { what, outcome: outcome.to_owned(), holds }
}
