//! The one who writes: takes tickets from the desk into a running batch, and
//! hands on what comes of them, until a person wants an end and all is said.
//!
//! Knows no connections; whoever goes away is let go between two tokens.

use super::complaint::Complaint;
use super::desk::{Desk, Ticket};
use super::writer::Writer;
use crate::base::failure::{Failure, Outcome};
use crate::engine::batcher::{Batcher, Ended};
use crate::engine::device::within_memory;
use crate::engine::generate::Finish;
use crate::engine::score;
use crate::inference::local::Local;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most prompt tokens that are read while others wait for their next token.
pub(super) const READ_AT_ONCE: usize = 4096;

/// Writes until the desk is closing and empty.
///
/// # Errors
/// When the device fails; everybody who waited hears of it.
pub(super) fn work(local: &Local, desk: &Desk, context: usize) -> Outcome<()> {
    let done = within_memory(|| write_all(local, desk, context)).unwrap_or_else(|why| {
        let what = "the device ran out of memory";
        let hint = "fewer `--slots` or a shorter `--context` need less";
        Err(Failure::environment(what).hint(hint).caused_by(why))
    });
    if let Err(failure) = &done {
        let complaint = Complaint::failed(failure.chain().join(": "));
        desk.close().iter().for_each(|ticket| ticket.exchange.fail(&complaint));
    }
    done
}

fn write_all(local: &Local, desk: &Desk, context: usize) -> Outcome<()> {
    let stop: Arc<[u32]> = [local.tokenizer().end()].into();
    let mut batch: Batcher<Writer> = Batcher::new(local.model(), desk.slots(), context);
    let mut settled = batch.free();
    loop {
        let left = batch.release(|writer| writer.ticket().exchange.is_gone());
        desk.tally.cancelled.fetch_add(left.len() as u64, Ordering::Relaxed);
        let tickets = desk.take(batch.free(), READ_AT_ONCE.max(context));
        if tickets.is_empty() && batch.is_idle() {
            desk.over(batch.free() - settled);
            settled = batch.free();
            if !desk.wait() {
                return Ok(());
            }
            continue;
        }
        let mut jobs = Vec::new();
        let taken = tickets.len();
        for ticket in tickets {
            let wanted = ticket.max_tokens > 0;
            let writer = begin(local, desk, ticket)?;
            if wanted {
                jobs.push(writer.job(&stop));
            } else {
                writer.finished(Finish::Length);
            }
        }
        let ended = batch.admit(jobs)?;
        hand_over(ended, desk);
        hand_over(batch.step()?, desk);
        // Who was taken and has no slot any more is over.
        desk.over(batch.free() + taken - settled);
        settled = batch.free();
    }
}

fn hand_over(ended: Ended<Writer>, desk: &Desk) {
    for (writer, finish) in ended {
        desk.tally.took(writer.ticket().came.elapsed());
        writer.finished(finish);
    }
}

/// A writer behind its prompt, which is echoed where that is wanted.
fn begin<'l>(local: &'l Local, desk: &Desk, ticket: Ticket) -> Outcome<Writer<'l>> {
    desk.tally.read.fetch_add(ticket.prompt.len() as u64, Ordering::Relaxed);
    let prompt = ticket.prompt.clone();
    let told = ticket.echo.is_some() && ticket.logprobs.is_some();
    let mut writer = Writer::behind(local.tokenizer(), ticket);
    if told {
        writer.echo_token(0, None)?;
        score::each(local.model(), &prompt, &mut |at, logits| {
            writer.echo_token(at + 1, Some(logits))
        })?;
    }
    writer.echo();
    Ok(writer)
}
