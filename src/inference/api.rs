//! The resource `[api.X]`: a model behind an OpenAI-compatible server. Many
//! questions side by side, each paid for once: what was answered is found
//! again by what was asked, in this run and in every later one.
//!
//! Knows what a question costs and when the money is spent; not what the
//! replies are for.

use super::annotator::Desk;
use crate::base::failure::{Failure, Outcome};
use crate::base::hash::Digest;
use crate::base::node::Node;
use crate::base::spec::{Reading, Resource, spec};
use crate::host::chat::{Client, Reply, Server};
use crate::host::patience::Patience;
use crate::store::replies::Replies;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const CONTEXT: &str = "rekindle 2026 chat request v1";
/// The counter of what a step's replies cost.
const DOLLARS: &str = "api-dollars";

spec! {
    /// A model behind a server that speaks OpenAI's chat-completions protocol: GPT-4, or one's own
    /// vLLM, llama.cpp or `transformers serve`. Every reply is kept in the store by what was asked, and
    /// never asked, or paid, for again.
    #[check(sensible)]
    pub struct Api {
        /// Address of the server, up to `/v1`.
        base_url: String = "https://api.openai.com/v1".to_owned(),
        /// The model, as the server names it.
        model: String,
        /// Environment variable with the key. Without it no key is sent.
        #[exec]
        key_env: Option<String>,
        /// What the model is told before anything else.
        system: Option<String>,
        /// Softmax temperature; 0 is greedy.
        temperature: f64 = 0.0,
        /// Most tokens of a reply.
        max_tokens: u64 = 1024,
        /// The field that holds `max-tokens`: newer OpenAI models want `max_completion_tokens`.
        limit_field: String = "max_tokens".to_owned(),
        /// More fields of the request, as one JSON object: `{"top_p": 0.9}`.
        extra: Option<String>,
        /// How often a question is asked whose replies are of no use.
        attempts: u64 = 2,
        /// Requests under way at once.
        #[exec]
        concurrency: u64 = 8,
        /// Requests a minute; 0 is as many as go.
        #[exec]
        requests_per_minute: u64 = 0,
        /// Tokens a minute, read and written; 0 is as many as go.
        #[exec]
        tokens_per_minute: u64 = 0,
        /// Seconds until an answer must be there.
        #[exec]
        timeout: u64 = 300,
        /// How often one request is tried: busy servers, broken connections, garbage.
        #[exec]
        tries: u64 = 6,
        /// Seconds after the first try that failed; each pause is twice the last, up to a minute.
        #[exec]
        pause: f64 = 1.0,
        /// Dollars for a million tokens read.
        #[exec]
        price_read: f64 = 0.0,
        /// Dollars for a million tokens written.
        #[exec]
        price_written: f64 = 0.0,
        /// Dollars that one step may cost in all; the step stops before it would cost more. 0 is no
        /// bound.
        #[exec]
        budget: f64 = 0.0,
        /// File of replies to use and to add to in place of the store's, so that it can be published:
        /// whoever has it needs no key. Seen from where the program is started.
        #[exec]
        cassette: Option<String>,
    }
}

impl Resource for Api {
    const SECTION: &'static str = "api";
}

fn sensible(api: &Api, node: &Node, cx: &mut Reading) {
    let mut complain = |field: &str, why: &str| {
        let at = node.at([field]).unwrap_or(node);
        cx.error(&at.origin, why);
    };
    if let Some(extra) = &api.extra
        && !serde_json::from_str::<Value>(extra).is_ok_and(|value| value.is_object())
    {
        complain("extra", "`extra` must be one JSON object, such as `{\"top_p\": 0.9}`");
    }
    if !api.base_url.starts_with("http://") && !api.base_url.starts_with("https://") {
        complain("base-url", "`base-url` must begin with `http://` or `https://`");
    }
    if api.base_url.contains('@') {
        complain("base-url", "a key in `base-url` would end up in results; use `key-env`");
    }
    for (field, count) in
        [("attempts", api.attempts), ("concurrency", api.concurrency), ("tries", api.tries)]
    {
        if count == 0 {
            complain(field, &format!("`{field}` must be at least 1"));
        }
    }
    if api.budget > 0.0 && api.price_read == 0.0 && api.price_written == 0.0 {
        complain("budget", "a `budget` needs `price-read` and `price-written`");
    }
    if !(api.pause >= 0.0 && api.pause <= 3600.0) {
        complain("pause", "`pause` must be between 0 and 3600 seconds");
    }
}

/// Says what is wrong with a reply, where it is of no use.
pub type Usable<'a> = &'a (dyn Fn(&Reply) -> Result<(), &'static str> + Sync);

impl Api {
    /// Asks every question, each one message; replies in their order. A reply
    /// that is of no use is asked for again, `attempts` times in all; then the
    /// last one stays.
    ///
    /// # Errors
    /// When the key is missing, the budget is spent, the server refuses or does
    /// not answer, the disk refuses, or a person asked to stop. What was
    /// answered until then is kept.
    pub fn converse(
        &self,
        questions: &[String],
        usable: Usable,
        desk: &dyn Desk,
    ) -> Outcome<Vec<Reply>> {
        let path = match &self.cassette {
            Some(file) => PathBuf::from(file),
            None => desk.replies().join(self.book_name()),
        };
        let server = self.server();
        // A step may ask more than once; its budget is one.
        let before = desk.noted(DOLLARS);
        let talk = Talk {
            api: self,
            usable,
            desk,
            book: Mutex::new(Replies::open(&path)?),
            client: OnceLock::new(),
            server: &server,
            purse: Mutex::new(Purse { spent: before, ..Purse::default() }),
            next: AtomicUsize::new(0),
            failure: Mutex::new(None),
            replies: Mutex::new(vec![None; questions.len()]),
            done: AtomicUsize::new(0),
        };
        let workers = usize::try_from(self.concurrency).unwrap_or(1).min(questions.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| talk.work(questions));
            }
        });
        let purse = hold(&talk.purse);
        desk.metric("api-replies", purse.replies as f64);
        desk.metric("api-read-tokens", purse.read as f64);
        desk.metric("api-written-tokens", purse.written as f64);
        if self.price_read > 0.0 || self.price_written > 0.0 {
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

    /// Dollars that all questions of one step cost at most: 0 where there is no price,
    /// none where there is no bound.
    pub fn at_most(&self) -> Option<f64> {
        let is_free = self.price_read == 0.0 && self.price_written == 0.0;
        if is_free { Some(0.0) } else { (self.budget > 0.0).then_some(self.budget) }
    }

    /// One file for each server and model.
    fn book_name(&self) -> String {
        let about = format!("{}\n{}", self.base_url, self.model);
        format!("{}.lines", Digest::tagged(CONTEXT, about.as_bytes()).short())
    }

    fn server(&self) -> Server<'_> {
        Server {
            base_url: &self.base_url,
            key_env: self.key_env.as_deref(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            patience: Patience {
                tries: u32::try_from(self.tries).unwrap_or(u32::MAX),
                first: Duration::from_secs_f64(self.pause),
                body: Duration::from_secs(self.timeout.max(1)),
                ..Patience::default()
            },
        }
    }

    /// What is sent.
    fn body(&self, question: &str) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), self.model.as_str().into());
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let asked = json!({"role": "user", "content": question});
        body.insert("messages".into(), system.chain([asked]).collect());
        body.insert("temperature".into(), self.temperature.into());
        body.insert(self.limit_field.clone(), self.max_tokens.into());
        let extra = self.extra.as_ref().and_then(|text| serde_json::from_str(text).ok());
        if let Some(Value::Object(extra)) = extra {
            body.extend(extra);
        }
        Value::Object(body)
    }

    /// The key of a question's reply. Texts of known order only, so that no
    /// library's taste in sorting keys decides what is paid for again.
    fn key(&self, question: &str, attempt: u64) -> Digest {
        let parts = json!([
            self.base_url,
            self.model,
            self.system,
            question,
            self.temperature,
            self.limit_field,
            self.max_tokens,
            self.extra,
            attempt,
        ]);
        Digest::tagged(CONTEXT, parts.to_string().as_bytes())
    }

    fn dollars(&self, read: u64, written: u64) -> f64 {
        (read as f64 * self.price_read + written as f64 * self.price_written) / 1e6
    }
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

/// Many questions under way.
struct Talk<'a> {
    api: &'a Api,
    usable: Usable<'a>,
    desk: &'a dyn Desk,
    book: Mutex<Replies<Reply>>,
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
    fn work(&self, questions: &[String]) {
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

    fn answer(&self, question: &str) -> Outcome<Reply> {
        let mut last = None;
        for attempt in 0..self.api.attempts {
            self.desk.check()?;
            let key = self.api.key(question, attempt);
            let known = hold(&self.book).get(&key).cloned();
            let reply = match known {
                Some(reply) => {
                    self.pay(&reply);
                    reply
                }
                None => self.ask(question, key)?,
            };
            if (self.usable)(&reply).is_ok() {
                return Ok(reply);
            }
            last = Some(reply);
        }
        last.ok_or_else(|| Failure::bug("a question was asked no time"))
    }

    fn ask(&self, question: &str, key: Digest) -> Outcome<Reply> {
        // Four bytes to a token, as is usual for English; it only paces and sets aside.
        let length = question.len() + self.api.system.as_ref().map_or(0, String::len);
        let tokens = length as u64 / 4 + 16;
        let aside = self.api.dollars(tokens, self.api.max_tokens);
        self.set_aside(aside)?;
        let asked = self.api.body(question);
        let body = asked.to_string();
        let check = || self.desk.check();
        let said = self
            .client()
            .and_then(|client| client.ask(body.as_bytes(), tokens + self.api.max_tokens, &check));
        {
            let mut purse = hold(&self.purse);
            purse.aside -= aside;
            purse.under_way -= 1;
        }
        let reply = said?;
        self.pay(&reply);
        hold(&self.book).put(key, &asked, reply.clone())?;
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
