//! One choice while it is written: tokens become text, what ends it is looked
//! for, and what is certain to stay is handed on.
//!
//! Knows no JSON and no connection.

use super::complaint::Complaint;
use super::desk::Ticket;
use super::exchange::{Likelihood, Part};
use crate::base::failure::Outcome;
use crate::engine::batcher::{Heard, Job, Listener};
use crate::engine::generate::{Finish, log_probability};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::tokenizer::growing::Growing;
use std::sync::Arc;

/// Tokens before another that decide how it is spelled.
const NEAR: usize = 16;

/// A choice that is being written.
pub(super) struct Writer<'t> {
    ticket: Ticket,
    tokenizer: &'t Tokenizer,
    growing: Growing<'t>,
    /// Tokens written.
    written: Vec<u32>,
    /// Bytes of the text that were looked through for what ends it.
    seen: usize,
    /// Bytes of the text that were handed on.
    sent: usize,
    /// Where the text ends, if what ends it has come up.
    cut: Option<usize>,
    /// Characters of all that was handed on, and of what was not yet.
    offset: usize,
    logs: Vec<Likelihood>,
}

impl<'t> Writer<'t> {
    /// Nothing yet, behind a prompt.
    pub(super) fn behind(tokenizer: &'t Tokenizer, ticket: Ticket) -> Writer<'t> {
        let growing = Growing::behind(tokenizer, &ticket.prompt);
        Writer {
            ticket,
            tokenizer,
            growing,
            written: Vec::new(),
            seen: 0,
            sent: 0,
            cut: None,
            offset: 0,
            logs: Vec::new(),
        }
    }

    /// As a job of a batch.
    pub(super) fn job(self, stop: &Arc<[u32]>) -> Job<Writer<'t>> {
        let Ticket { prompt, seed, sampling, max_tokens, .. } = self.ticket.clone();
        Job { prompt, seed, sampling, max_tokens, stop: stop.clone(), listener: self }
    }

    pub(super) fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Takes the prompt, whose tokens were heard by [`Writer::echo_token`] where
    /// probabilities are wanted, as the beginning of the reply.
    pub(super) fn echo(&mut self) {
        let Some(text) = self.ticket.echo.clone() else { return };
        if self.streams() {
            let logprobs = self.ticket.logprobs.map(|_| std::mem::take(&mut self.logs));
            let part = Part { text: (*text).to_owned(), logprobs };
            self.ticket.exchange.part(self.ticket.index, part);
        }
        self.offset = text.chars().count();
    }

    /// The probability of the prompt's token `at`, behind the logits before it.
    ///
    /// # Errors
    /// When the tokenizer's library refuses the token.
    ///
    /// # Shapes
    /// logits `[V]`; none for the first token
    pub(super) fn echo_token(&mut self, at: usize, logits: Option<&[f32]>) -> Outcome<()> {
        let (before, rest) = self.ticket.prompt.split_at(at);
        let log = likelihood(
            self.tokenizer,
            &before[before.len().saturating_sub(NEAR)..],
            rest[0],
            logits,
            self.ticket.logprobs.unwrap_or(0),
            self.offset,
        )?;
        self.offset += log.token.chars().count();
        self.logs.push(log);
        Ok(())
    }

    /// The reply is complete.
    pub(super) fn finished(mut self, finish: Finish) {
        let text = match self.cut {
            Some(end) => Ok(self.growing.text()[..end].to_owned()),
            None => self.tokenizer.decode(&self.ticket.prompt, &self.written),
        };
        match text {
            Ok(text) => {
                let from = self.sent.max(self.first(&text));
                let mut rest = text.get(from..).unwrap_or_default().to_owned();
                if self.sent == 0 {
                    rest.insert_str(0, self.lead(&rest));
                }
                let echoed = self.ticket.echo.as_deref().filter(|_| !self.streams());
                let text = format!("{}{rest}", echoed.unwrap_or_default());
                let logprobs = self.ticket.logprobs.map(|_| std::mem::take(&mut self.logs));
                let (index, written) = (self.ticket.index, self.written.len());
                self.ticket.exchange.finished(index, Part { text, logprobs }, finish, written);
            }
            Err(failure) => self.ticket.exchange.fail(&Complaint::failed(failure.what)),
        }
    }

    fn streams(&self) -> bool {
        self.ticket.exchange.streams()
    }

    /// Where a reply begins: behind the blank that parts it from its prompt,
    /// which is part of a completion only.
    fn first(&self, text: &str) -> usize {
        usize::from(self.ticket.exchange.is_chat() && text.starts_with(' '))
    }

    /// Whole words have no blank of their own to part them from a prompt.
    fn lead(&self, text: &str) -> &'static str {
        let parted = !self.ticket.exchange.is_chat() && self.tokenizer.is_of_words();
        if parted && !text.is_empty() { " " } else { "" }
    }

    /// Takes a token; whether the reply is complete.
    fn take(&mut self, token: u32) -> Outcome<bool> {
        self.written.push(token);
        self.growing.push(token)?;
        let text = self.growing.text();
        let stops = &self.ticket.stop;
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        // What comes up now begins at most its own length before what is new.
        let from = (self.seen + 1).saturating_sub(longest).max(self.first(text)).min(text.len());
        let from = text.floor_char_boundary(from);
        self.seen = text.len();
        let found = stops.iter().filter_map(|stop| text[from..].find(stop.as_str())).min();
        self.cut = found.map(|at| from + at);
        if self.cut.is_none() && self.streams() {
            self.send(text.len() - held_back(text, stops));
        }
        Ok(self.cut.is_some())
    }

    /// Hands the text on, up to its byte `to`.
    fn send(&mut self, to: usize) {
        let text = self.growing.text();
        let from = self.sent.max(self.first(text));
        if to <= from {
            return;
        }
        let mut new = text[from..to].to_owned();
        if self.sent == 0 {
            new.insert_str(0, self.lead(&new));
        }
        self.sent = to;
        let logprobs = self.ticket.logprobs.map(|_| std::mem::take(&mut self.logs));
        self.ticket.exchange.part(self.ticket.index, Part { text: new, logprobs });
    }
}

impl Listener for Writer<'_> {
    fn hear(&mut self, token: u32, logits: &[f32], stops: bool) -> Outcome<Heard> {
        if stops {
            return Ok(Heard::Enough);
        }
        if let Some(most) = self.ticket.logprobs {
            let before: &[u32] = match &self.written[..] {
                [] => &self.ticket.prompt,
                written => written,
            };
            let before = &before[before.len().saturating_sub(NEAR)..];
            let log = likelihood(self.tokenizer, before, token, Some(logits), most, self.offset)?;
            self.offset += log.token.chars().count();
            self.logs.push(log);
        }
        match self.take(token) {
            Ok(true) => Ok(Heard::Enough),
            Ok(false) => Ok(Heard::GoOn),
            // A text that cannot be read is this request's trouble alone.
            Err(failure) => {
                self.ticket.exchange.fail(&Complaint::failed(failure.what));
                Ok(Heard::Gone)
            }
        }
    }
}

/// Bytes at the end of a text that may be the beginning of what ends it.
fn held_back(text: &str, stops: &[String]) -> usize {
    let of = |stop: &String| {
        let begins = |n: &usize| text.as_bytes().ends_with(&stop.as_bytes()[..*n]);
        (1..stop.len()).rev().find(begins).unwrap_or(0)
    };
    let bytes = stops.iter().map(of).max().unwrap_or(0);
    text.len() - text.floor_char_boundary(text.len() - bytes)
}

/// How a token is spelled behind others.
fn spelled(tokenizer: &Tokenizer, before: &[u32], token: u32) -> Outcome<String> {
    if token == tokenizer.end() {
        return Ok(tokenizer.end_text().to_owned());
    }
    match tokenizer.begin_text() {
        Some(text) if tokenizer.begin_mark() == Some(token) => Ok(text.to_owned()),
        _ => tokenizer.decode(before, &[token]),
    }
}

/// A token's probability and the `most` likeliest alternatives, before
/// temperature and choice.
///
/// # Shapes
/// logits `[V]`; none where nothing is before the token
fn likelihood(
    tokenizer: &Tokenizer,
    before: &[u32],
    token: u32,
    logits: Option<&[f32]>,
    most: usize,
    offset: usize,
) -> Outcome<Likelihood> {
    let text = spelled(tokenizer, before, token)?;
    let Some(logits) = logits else {
        return Ok(Likelihood { token: text, logprob: None, likeliest: Vec::new(), offset });
    };
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let falling =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let most = most.min(ids.len());
    if most > 0 && most < ids.len() {
        ids.select_nth_unstable_by(most - 1, falling);
    }
    ids.truncate(most);
    ids.sort_unstable_by(falling);
    // The sum over the vocabulary is taken once: the others differ by their logits.
    let chosen = log_probability(logits, token);
    let other = |id: u32| logits[id as usize] - logits[token as usize] + chosen;
    let likeliest = ids
        .into_iter()
        .map(|id| Ok((spelled(tokenizer, before, id)?, other(id))))
        .collect::<Outcome<_>>()?;
    Ok(Likelihood { token: text, logprob: Some(chosen), likeliest, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_stop_is_held_back() {
        let stops = ["\n\n".to_owned(), "USER:".to_owned()];
        for (text, held) in
            [("hello", 0), ("hello\n", 1), ("now U", 1), ("now USER", 4), ("US ER", 0), ("", 0)]
        {
            assert_eq!(held_back(text, &stops), held, "{text:?}");
        }
        // No character is cut in two.
        assert_eq!(held_back("x\u{e9}", &["\u{e9}\u{e9}".to_owned()]), 2);
        assert_eq!(held_back("x\u{e8}", &["\u{e9}".to_owned()]), 0);
    }
}
