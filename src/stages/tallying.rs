//! Counting what feedback and filters did, against gold. For reports only:
//! nothing here decides what is kept. Items without a gold answer are in none
//! of the counts of what is right.

use crate::record::answer;
use crate::record::protocol::Protocol;
use crate::record::{Dialogue, Tally, Verdict};

/// One dialogue, looked at with the gold answer.
pub(super) struct Judged {
    /// Whether the right answer is known.
    known: bool,
    reply_right: bool,
    refined_right: bool,
    verdict: Option<Verdict>,
    /// Ratings of the reply and of the refined one, where the protocol rates.
    rates: bool,
    rating: Option<f64>,
    refined_rating: Option<f64>,
    contradicted: bool,
    /// Why it was dropped; `None` when it was kept.
    dropped: Option<&'static str>,
    tokens: crate::record::Tokens,
}

impl Judged {
    /// Reads the answers out of a dialogue.
    pub(super) fn of(
        protocol: &Protocol,
        dialogue: &Dialogue,
        dropped: Option<&'static str>,
    ) -> Judged {
        let right = |text: &str| answer::is_right(protocol, &dialogue.problem, text);
        Judged {
            known: dialogue.problem.gold.is_some(),
            reply_right: right(&dialogue.reply),
            refined_right: dialogue.refined.as_deref().is_some_and(right),
            verdict: dialogue.verdict,
            rates: protocol.rating.is_some(),
            rating: dialogue.feedback.as_deref().and_then(|said| answer::rating(protocol, said)),
            refined_rating: None,
            contradicted: false,
            dropped,
            tokens: dialogue.tokens,
        }
    }

    /// With the rating that the refined reply got.
    pub(super) fn refined_rated(mut self, rating: Option<f64>) -> Judged {
        self.refined_rating = rating;
        self
    }

    /// With whether the annotator contradicts itself.
    pub(super) fn contradicted(mut self, contradicted: bool) -> Judged {
        self.contradicted = contradicted;
        self
    }
}

/// Counts them.
pub(super) fn tally(judged: &[Judged]) -> Tally {
    let mut counts = Tally::default();
    for item in judged {
        counts.seen += 1;
        counts.reply_right += u64::from(item.reply_right);
        counts.refined_right += u64::from(item.refined_right);
        match item.dropped {
            None => {
                counts.kept += 1;
                counts.kept_right += u64::from(item.refined_right);
                counts.kept_without_gold += u64::from(!item.known);
            }
            Some(reason) => *counts.dropped.entry(reason.to_owned()).or_default() += 1,
        }
        counts.contradicted += u64::from(item.contradicted);
        count_ratings(&mut counts, item);
        let caught = item.verdict == Some(Verdict::Incorrect);
        let agrees = match item.verdict {
            Some(Verdict::Correct) => item.reply_right,
            Some(Verdict::Incorrect) => item.known && !item.reply_right,
            Some(Verdict::Unparsed) | None => false,
        };
        counts.verdict_right += u64::from(agrees);
        let wrong = item.known && !item.reply_right;
        counts.reply_wrong += u64::from(wrong);
        counts.wrong_caught += u64::from(wrong && caught);
        counts.without_gold += u64::from(!item.known);
        counts.verdict_unparsed += u64::from(item.verdict == Some(Verdict::Unparsed));
        counts.tokens += item.tokens;
    }
    counts
}

fn count_ratings(counts: &mut Tally, item: &Judged) {
    if !item.rates {
        return;
    }
    let ratings = counts.ratings.get_or_insert_default();
    let add = |count: &mut u64, sum: &mut f64, rating: Option<f64>| {
        *count += u64::from(rating.is_some());
        *sum += rating.unwrap_or(0.0);
    };
    add(&mut ratings.replies, &mut ratings.replies_sum, item.rating);
    add(&mut ratings.refined, &mut ratings.refined_sum, item.refined_rating);
    let gain = item.rating.zip(item.refined_rating).map(|(before, after)| after - before);
    add(&mut ratings.both, &mut ratings.gain_sum, gain);
}
