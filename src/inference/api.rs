//! The resource `[api.X]`: a model behind an OpenAI-compatible server. Many
//! questions side by side, each paid for once: what was answered is found
//! again by what was asked, in this run and in every later one.
//!
//! Knows what a question costs and when the money is spent; not what the
//! replies are for.

mod talk;

use super::annotator::Desk;
use crate::base::failure::Outcome;
use crate::base::hash::Digest;
use crate::base::node::Node;
use crate::base::spec::{Reading, Resource, spec};
use crate::host::chat::{Reply, Server};
use crate::host::patience::Patience;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

const CONTEXT: &str = "rekindle 2026 chat request v1";
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
        /// Whether every draw of a question goes with a `seed` of its own, for servers that draw by
        /// it. For models that answer in place of one of the study's.
        send_seed: bool = false,
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

/// A question to a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// What was said before: messages of the user, each with the reply to it.
    pub before: Vec<(String, String)>,
    /// The message that waits for its reply.
    pub question: String,
    /// How to reply, in place of what the table says.
    pub manner: Option<Saying>,
}

/// How a reply is to come about.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f64,
    /// Share of the probability that the tokens drawn from have.
    pub top_p: f64,
    /// Most tokens.
    pub max_tokens: u64,
    /// What ends it, and is not part of it.
    pub stop: Option<String>,
    /// Which of many draws this is: two draws of one question are two questions.
    pub draw: Option<u64>,
}

impl From<String> for Asking {
    fn from(question: String) -> Asking {
        Asking { before: Vec::new(), question, manner: None }
    }
}

impl Asking {
    /// Bytes of its texts.
    fn length(&self) -> usize {
        let before = self.before.iter().map(|(user, reply)| user.len() + reply.len());
        before.sum::<usize>() + self.question.len()
    }
}

/// Says what is wrong with a reply, where it is of no use.
pub type Usable<'a> = &'a (dyn Fn(&Reply) -> Result<(), &'static str> + Sync);

impl Api {
    /// A table with nothing in it but a model.
    #[cfg(test)]
    pub(super) fn of(model: &str) -> Api {
        use crate::base::node::{Origin, Sources, Table};
        let origin = Origin::new(Sources::default().add("test", ""), 0..0);
        let node = Node::of_json(&json!({ "model": model }), &origin).expect("a table");
        let none = Table::default();
        let mut cx = Reading::new(&none);
        crate::base::spec::Field::parse(&node, &mut cx).expect("it is whole")
    }

    /// Asks every question; replies in their order. A reply that is of no use
    /// is asked for again, `attempts` times in all; then the last one stays.
    ///
    /// # Errors
    /// When the key is missing, the budget is spent, the server refuses or does
    /// not answer, the disk refuses, or a person asked to stop. What was
    /// answered until then is kept.
    pub fn converse(
        &self,
        questions: &[Asking],
        usable: Usable,
        desk: &dyn Desk,
    ) -> Outcome<Vec<Reply>> {
        let path = match &self.cassette {
            Some(file) => PathBuf::from(file),
            None => desk.replies().join(self.book_name()),
        };
        talk::converse(self, questions, usable, &path, desk)
    }

    /// Dollars that all questions of one step cost at most: 0 where there is no price,
    /// none where there is no bound.
    pub fn at_most(&self) -> Option<f64> {
        let is_free = self.price_read == 0.0 && self.price_written == 0.0;
        if is_free { Some(0.0) } else { (self.budget > 0.0).then_some(self.budget) }
    }

    /// Dollars for so many tokens.
    pub fn price(&self, read: f64, written: f64) -> f64 {
        (read * self.price_read + written * self.price_written) / 1e6
    }

    /// Tokens that a reply may have at most.
    pub fn limit(&self) -> u64 {
        self.max_tokens
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

    /// Tokens that a reply may have at most.
    fn most(&self, asking: &Asking) -> u64 {
        asking.manner.as_ref().map_or(self.max_tokens, |manner| manner.max_tokens)
    }

    /// What is sent.
    fn body(&self, asking: &Asking) -> Value {
        let message = |role: &str, content: &str| json!({ "role": role, "content": content });
        let mut messages: Vec<Value> =
            self.system.iter().map(|text| message("system", text)).collect();
        for (user, assistant) in &asking.before {
            messages.push(message("user", user));
            messages.push(message("assistant", assistant));
        }
        messages.push(message("user", &asking.question));
        let temperature =
            asking.manner.as_ref().map_or(self.temperature, |manner| manner.temperature);
        let mut body = Map::new();
        body.insert("model".into(), self.model.as_str().into());
        body.insert("messages".into(), messages.into());
        body.insert("temperature".into(), temperature.into());
        body.insert(self.limit_field.clone(), self.most(asking).into());
        if let Some(manner) = &asking.manner {
            if manner.top_p < 1.0 {
                body.insert("top_p".into(), manner.top_p.into());
            }
            if let Some(stop) = &manner.stop {
                body.insert("stop".into(), json!([stop]));
            }
            if let Some(draw) = manner.draw.filter(|_| self.send_seed) {
                // Servers keep seeds in 64 bits with a sign, some in 32.
                body.insert("seed".into(), (draw & 0x7fff_ffff).into());
            }
        }
        let extra = self.extra.as_ref().and_then(|text| serde_json::from_str(text).ok());
        if let Some(Value::Object(extra)) = extra {
            body.extend(extra);
        }
        Value::Object(body)
    }

    /// The key of a question's reply. Texts of known order only, so that no
    /// library's taste in sorting keys decides what is paid for again.
    fn key(&self, asking: &Asking, attempt: u64) -> Digest {
        let mut parts = vec![
            json!(self.base_url),
            json!(self.model),
            json!(self.system),
            json!(asking.question),
            json!(self.temperature),
            json!(self.limit_field),
            json!(self.max_tokens),
            json!(self.extra),
            json!(attempt),
        ];
        if !asking.before.is_empty() || asking.manner.is_some() {
            // The table's own temperature and limit are not what is sent.
            (parts[4], parts[6]) = (Value::Null, Value::Null);
            parts.push(json!(asking.before));
            parts.push(asking.manner.as_ref().map_or(Value::Null, |manner| {
                json!([
                    manner.temperature,
                    manner.top_p,
                    manner.max_tokens,
                    manner.stop,
                    manner.draw,
                    self.send_seed
                ])
            }));
        }
        Digest::tagged(CONTEXT, Value::from(parts).to_string().as_bytes())
    }

    fn dollars(&self, read: u64, written: u64) -> f64 {
        self.price(read as f64, written as f64)
    }
}
