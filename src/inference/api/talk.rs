//! Many questions to one server under way: who asks what next, what is known
//! already, what it costs, and when to stop. The same question twice is asked
//! once, also while the first of the two has no reply yet, and also by steps
//! side by side.
//!
//! Knows nothing of what the questions are about.

use super::{Api, Asking, Usable};
use crate::base::failure::{Failure, Outcome};
use crate::base::hash::Digest;
use crate::host::chat::{Client, Reply, Server};
use crate::inference::annotator::Desk;
use crate::store::replies::Replies;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// The counter of what a step's replies cost.
const DOLLARS: &str = "api-dollars";
/// How often whoever waits for another one's reply looks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Asks every question; replies in their order. A reply that is of no use is
/// asked for again, as often as the table says; then the last one stays.
///
/// # Errors
/// As [`Api::converse`].
pub(super) fn converse(
    api: &Api,
    questions: &[Asking],
    usable: Usable,
    book: &Path,
    desk: &dyn Desk,
) -> Outcome<Vec<Reply>> {
    let server = api.server();
    // A step may ask more than once; its budget is one.
    let before = desk.noted(DOLLARS);
    let talk = Talk {
        api,
        usable,
        desk,
        book: Book::open(book)?,
        client: OnceLock::new(),
        server: &server,
        purse: Mutex::new(Purse { spent: before, ..Purse::default() }),
        next: AtomicUsize::new(0),
        failure: Mutex::new(None),
        replies: Mutex::new(vec![None; questions.len()]),
        done: AtomicUsize::new(0),
    };
    let workers = usize::try_from(api.concurrency).unwrap_or(1).min(questions.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| talk.work(questions));
        }
    });
    let purse = hold(&talk.purse);
    desk.metric("api-replies", purse.replies as f64);
    desk.metric("api-read-tokens", purse.read as f64);
    desk.metric("api-written-tokens", purse.written as f64);
    if api.price_read > 0.0 || api.price_written > 0.0 {
        desk.metric(DOLLARS, purse.spent - before);
    }
    drop(purse);
    if let Some(failure) = hold(&talk.failure).take() {
        return Err(failure);
    }
    let replies = std::mem::take(&mut *hold(&talk.replies));
    let lost = || Failure::bug("a question has no reply");
    replies.into_iter().map(|reply| reply.ok_or_else(lost)).collect()
}

/// What was spent for the replies in use, and what is set aside for those
/// under way.
#[derive(Debug, Default)]
struct Purse {
    replies: u64,
    read: u64,
    written: u64,
    spent: f64,
    aside: f64,
    under_way: u64,
}

/// A book of replies, shared by all who ask out of it in this process.
struct Book {
    pages: Mutex<Pages>,
    /// Told whenever a question is no longer under way.
    answered: Condvar,
}

/// What is known, and what somebody is asking just now.
struct Pages {
    replies: Replies<Reply>,
    asked: BTreeSet<Digest>,
}

/// A question under way; however its asking ends, others may then ask it.
struct Turn<'a> {
    book: &'a Book,
    key: Digest,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        hold(&self.book.pages).asked.remove(&self.key);
        self.book.answered.notify_all();
    }
}

/// The books that somebody has open.
static BOOKS: Mutex<BTreeMap<PathBuf, Weak<Book>>> = Mutex::new(BTreeMap::new());

impl Book {
    /// The book at a path, which is opened where nobody has it open.
    fn open(path: &Path) -> Outcome<Arc<Book>> {
        let mut books = hold(&BOOKS);
        if let Some(book) = books.get(path).and_then(Weak::upgrade) {
            return Ok(book);
        }
        let pages = Pages { replies: Replies::open(path)?, asked: BTreeSet::new() };
        let book = Arc::new(Book { pages: Mutex::new(pages), answered: Condvar::new() });
        books.retain(|_, book| book.strong_count() > 0);
        books.insert(path.to_owned(), Arc::downgrade(&book));
        Ok(book)
    }
}

/// Many questions under way.
struct Talk<'a> {
    api: &'a Api,
    usable: Usable<'a>,
    desk: &'a dyn Desk,
    book: Arc<Book>,
    /// Made by the first question that nobody answered before: without one, no
    /// key is needed.
    client: OnceLock<Client<'a>>,
    server: &'a Server<'a>,
    purse: Mutex<Purse>,
    next: AtomicUsize,
    failure: Mutex<Option<Failure>>,
    replies: Mutex<Vec<Option<Reply>>>,
    done: AtomicUsize,
}

impl Talk<'_> {
    /// Takes one question after the other until there are none, or one failed.
    fn work(&self, questions: &[Asking]) {
        while hold(&self.failure).is_none() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(index) else { return };
            match self.answer(question) {
                Ok(reply) => {
                    hold(&self.replies)[index] = Some(reply);
                    let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                    self.desk.progress(done as u64, questions.len() as u64, &self.note());
                }
                Err(failure) => {
                    // The first one tells; others often follow from it.
                    hold(&self.failure).get_or_insert(failure);
                    return;
                }
            }
        }
    }

    fn answer(&self, question: &Asking) -> Outcome<Reply> {
        let mut last = None;
        for attempt in 0..self.api.attempts {
            self.desk.check()?;
            let reply = self.reply(question, self.api.key(question, attempt))?;
            if (self.usable)(&reply).is_ok() {
                return Ok(reply);
            }
            last = Some(reply);
        }
        last.ok_or_else(|| Failure::bug("a question was asked no time"))
    }

    /// The reply that is known, or that somebody is getting, or a new one.
    fn reply(&self, question: &Asking, key: Digest) -> Outcome<Reply> {
        let mut pages = hold(&self.book.pages);
        loop {
            if let Some(reply) = pages.replies.get(&key)? {
                drop(pages);
                self.pay(&reply);
                return Ok(reply);
            }
            if pages.asked.insert(key) {
                break;
            }
            let waited = self.book.answered.wait_timeout(pages, LOOK);
            pages = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.desk.check()?;
        }
        drop(pages);
        let _turn = Turn { book: &self.book, key };
        self.ask(question, key)
    }

    fn ask(&self, question: &Asking, key: Digest) -> Outcome<Reply> {
        // Four bytes to a token, as is usual for English; it only paces and sets aside.
        let length = question.length() + self.api.system.as_ref().map_or(0, String::len);
        let tokens = length as u64 / 4 + 16;
        let most = self.api.most(question);
        let aside = self.api.dollars(tokens, most);
        self.set_aside(aside)?;
        let asked = self.api.body(question);
        let body = asked.to_string();
        let name = key.to_string();
        let check = || self.desk.check();
        let said = self
            .client()
            .and_then(|client| client.ask(body.as_bytes(), &name, tokens + most, &check));
        {
            let mut purse = hold(&self.purse);
            purse.aside -= aside;
            purse.under_way -= 1;
        }
        let reply = said?;
        // Before anything else: what is written down is never paid for again.
        hold(&self.book.pages).replies.put(key, &asked, &reply)?;
        self.pay(&reply);
        Ok(reply)
    }

    fn client(&self) -> Outcome<&Client<'_>> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let opened = Client::open(self.server)?;
        Ok(self.client.get_or_init(|| opened))
    }

    /// Sets money aside for a reply; where only replies under way are between
    /// it and the budget, waits for what they really cost.
    fn set_aside(&self, dollars: f64) -> Outcome<()> {
        let budget = self.api.budget;
        loop {
            let mut purse = hold(&self.purse);
            if budget <= 0.0 || purse.spent + purse.aside + dollars <= budget {
                purse.aside += dollars;
                purse.under_way += 1;
                return Ok(());
            }
            if purse.under_way == 0 || purse.spent + dollars > budget {
                let what = format!(
                    "the budget of ${budget} is spent: ${:.4} paid, and the next reply may cost \
                     ${dollars:.4}",
                    purse.spent
                );
                return Err(Failure::environment(what)
                    .hint("raise `budget`; every reply is kept, and the same command goes on"));
            }
            drop(purse);
            self.desk.check()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn pay(&self, reply: &Reply) {
        let mut purse = hold(&self.purse);
        purse.replies += 1;
        purse.read += reply.read;
        purse.written += reply.written;
        purse.spent += self.api.dollars(reply.read, reply.written);
    }

    fn note(&self) -> String {
        let purse = hold(&self.purse);
        match purse.spent > 0.0 {
            true => format!("{} ${:.2}", self.api.model, purse.spent),
            false => self.api.model.clone(),
        }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
