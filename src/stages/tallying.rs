//! Counting what feedback and filters did, against gold. For reports only:
//! nothing here decides what is kept.

use crate::record::answer;
use crate::record::protocol::Protocol;
use crate::record::{Dialogue, Tally, Verdict};

/// One dialogue, looked at with the gold answer.
pub(super) struct Judged {
    reply_right: bool,
    refined_right: bool,
    verdict: Option<Verdict>,
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
            reply_right: right(&dialogue.reply),
            refined_right: dialogue.refined.as_deref().is_some_and(right),
            verdict: dialogue.verdict,
            dropped,
            tokens: dialogue.tokens,
        }
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
            }
            Some(reason) => *counts.dropped.entry(reason.to_owned()).or_default() += 1,
        }
        let caught = item.verdict == Some(Verdict::Incorrect);
        let agrees = match item.verdict {
            Some(Verdict::Correct) => item.reply_right,
            Some(Verdict::Incorrect) => !item.reply_right,
            Some(Verdict::Unparsed) | None => false,
        };
        counts.verdict_right += u64::from(agrees);
        counts.reply_wrong += u64::from(!item.reply_right);
        counts.wrong_caught += u64::from(!item.reply_right && caught);
        counts.verdict_unparsed += u64::from(item.verdict == Some(Verdict::Unparsed));
        counts.tokens += item.tokens;
    }
    counts
}
