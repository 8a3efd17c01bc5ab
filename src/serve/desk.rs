//! Where replies wait for a slot: a line of bounded length between those who
//! take requests and the one who writes.
//!
//! Knows how many there are, not what they say.

use super::complaint::Complaint;
use super::exchange::Exchange;
use super::tally::Tally;
use crate::base::seed::Seed;
use crate::engine::sample::Sampling;
use crate::host::signal::StopFlag;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often who waits for work looks whether a person wants an end.
const GLANCE: Duration = Duration::from_millis(100);

/// A reply that shall be written.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) exchange: Arc<Exchange>,
    /// Which of the exchange's choices it is.
    pub(super) index: usize,
    pub(super) prompt: Arc<[u32]>,
    pub(super) seed: Seed,
    pub(super) sampling: Sampling,
    pub(super) max_tokens: usize,
    /// Texts that end it.
    pub(super) stop: Arc<[String]>,
    /// Whether probabilities are wanted, and of how many alternatives.
    pub(super) logprobs: Option<usize>,
    /// The prompt's text, where it is part of the reply.
    pub(super) echo: Option<Arc<str>>,
    /// When it came.
    pub(super) came: Instant,
}

/// The line.
pub(super) struct Desk {
    line: Mutex<Line>,
    bell: Condvar,
    slots: usize,
    /// Most replies that wait or are written.
    room: usize,
    closing: StopFlag,
    pub(super) tally: Arc<Tally>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Ticket>,
    /// Replies that were taken and are not over.
    running: usize,
    closed: bool,
}

impl Desk {
    /// An empty line before so many slots. Once `closing` is raised nothing new is taken.
    pub(super) fn new(slots: usize, queue: usize, closing: StopFlag) -> Desk {
        let (line, bell) = (Mutex::default(), Condvar::new());
        Desk { line, bell, slots, room: slots + queue, closing, tally: Arc::default() }
    }

    /// Replies that can be written side by side.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Most replies that wait or are written.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Whether nothing new is taken.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_raised()
    }

    /// Replies that wait.
    pub(super) fn waiting(&self) -> usize {
        self.hold().waiting.len()
    }

    /// Takes all these tickets, or none.
    pub(super) fn submit(&self, tickets: Vec<Ticket>) -> Result<(), Complaint> {
        let mut line = self.hold();
        if line.closed || self.closing.is_raised() {
            return Err(Complaint::closing());
        }
        if line.waiting.len() + line.running + tickets.len() > self.room {
            self.sweep(&mut line);
        }
        let ahead = line.waiting.len() + line.running;
        if ahead + tickets.len() > self.room {
            let (slots, seconds) = (self.slots, self.tally.seconds_for(ahead, self.slots));
            let message = format!(
                "{ahead} replies are written or wait, and there is room for {}: {slots} side by \
                 side and {} in line",
                self.room,
                self.room - slots
            );
            return Err(Complaint::busy(message, seconds));
        }
        line.waiting.extend(tickets);
        drop(line);
        self.bell.notify_one();
        Ok(())
    }

    /// The next tickets, at most `most` and with prompts of at most `tokens`
    /// together, one in any case; those that nobody waits for go.
    pub(super) fn take(&self, most: usize, tokens: usize) -> Vec<Ticket> {
        let mut line = self.hold();
        self.sweep(&mut line);
        let (mut taken, mut read): (Vec<Ticket>, usize) = (Vec::new(), 0);
        while taken.len() < most {
            let Some(next) = line.waiting.front() else { break };
            let same = taken.last().is_some_and(|last| Arc::ptr_eq(&last.prompt, &next.prompt));
            read += if same { 0 } else { next.prompt.len() };
            if read > tokens && !taken.is_empty() {
                break;
            }
            taken.extend(line.waiting.pop_front());
        }
        line.running += taken.len();
        self.tally.running.store(line.running as u64, Ordering::Relaxed);
        taken
    }

    /// So many replies are over, however they ended.
    pub(super) fn over(&self, count: usize) {
        let mut line = self.hold();
        line.running = line.running.saturating_sub(count);
        self.tally.running.store(line.running as u64, Ordering::Relaxed);
    }

    /// Waits a moment for tickets; whether there will be any more. Where there
    /// are none and there is no need of more, the line is closed.
    pub(super) fn wait(&self) -> bool {
        let mut line = self.hold();
        if line.waiting.is_empty() && self.closing.is_raised() {
            line.closed = true;
            return false;
        }
        if line.waiting.is_empty() {
            // Whether it rang or not is seen by looking.
            drop(self.bell.wait_timeout(line, GLANCE));
        }
        true
    }

    /// Closes the line; those that wait in it.
    pub(super) fn close(&self) -> Vec<Ticket> {
        let mut line = self.hold();
        line.closed = true;
        line.waiting.drain(..).collect()
    }

    fn sweep(&self, line: &mut Line) {
        let before = line.waiting.len();
        line.waiting.retain(|ticket| !ticket.exchange.is_gone());
        let gone = before - line.waiting.len();
        self.tally.cancelled.fetch_add(gone as u64, Ordering::Relaxed);
    }

    fn hold(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
