//! A model behind OpenAI's protocol: completions, chat and the list of its one
//! model, whole or streamed, many at a time.
//!
//! Read in this order: `wish` (what a request asks for), `desk` (the line of
//! replies to be written), `work` (the one who writes them, in a running
//! batch), `writer` (one reply while it is written), `exchange` (one request's
//! answer, put together). Knows no manifest and no store: it is given a model.

mod complaint;
mod desk;
mod exchange;
mod fields;
mod tally;
mod wish;
mod work;
mod writer;

use crate::base::failure::{Failure, Outcome};
use crate::base::hash::Hasher;
use crate::base::seed::Seed;
use crate::engine::tokenizer::Tokenizer;
use crate::host::clock;
use crate::host::server::{Asked, Back, Bounds, Handler, Server, Unread, Whole};
use crate::host::signal::StopFlag;
use crate::inference::local::Local;
use crate::inference::prompting;
use crate::record::template::{Form, Prompt, Template};
use complaint::Complaint;
use desk::{Desk, Ticket};
use exchange::{Exchange, Head};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wish::{Subject, Wish};

const BOUNDS: Bounds = Bounds {
    body: 4 << 20,
    bodies: 64 << 20,
    connections: 4096,
    patience: Duration::from_secs(60),
};
const PATHS: &str =
    "`/v1/models`, `/v1/completions`, `/v1/chat/completions`, `/health` and `/metrics`";

/// How a conversation is written down for the model.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    /// The template; the model's own if not given.
    pub template: Option<Template>,
    /// A Jinja template in place of the model's own.
    pub jinja: Option<String>,
}

/// How to serve a model.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The address to listen on.
    pub host: String,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The key that clients must have, if any.
    pub key: Option<String>,
    /// What the model is called.
    pub name: String,
    /// Replies written side by side, where there is memory for so many.
    pub slots: usize,
    /// Replies that wait beyond those.
    pub queue: usize,
    /// Tokens of prompt and reply together, at most the model's context.
    pub context: Option<usize>,
    /// How conversations are written down.
    pub speech: Speech,
}

/// A server that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Where it listens.
    pub address: SocketAddr,
    /// Replies written side by side.
    pub slots: usize,
    /// Tokens of prompt and reply together.
    pub context: usize,
}

/// Serves until `stop` is raised and what was begun until then is said;
/// `begun` hears where.
///
/// # Errors
/// When the address cannot be had, there is no memory for one sequence, or the
/// device fails.
pub fn serve(
    local: &Local,
    serving: &Serving,
    stop: &StopFlag,
    begun: &dyn Fn(Begun) -> Outcome<()>,
) -> Outcome<()> {
    let most = local.model().config().max_position_embeddings;
    let context = serving.context.unwrap_or(most).min(most);
    let slots = local.slots_for(serving.slots, context, work::READ_AT_ONCE)?;
    let desk = Arc::new(Desk::new(slots, serving.queue, stop.clone()));
    let service = Service {
        desk: desk.clone(),
        tokenizer: local.tokenizer().clone(),
        vocabulary: local.model().config().vocab_size,
        context,
        name: serving.name.as_str().into(),
        key: serving.key.as_deref().map(digest),
        speech: serving.speech.clone(),
        since: clock::unix_seconds() as u64,
        nonce: Seed(clock::chance().to_bits()).at(u64::from(std::process::id())),
        requests: AtomicU64::new(0),
    };
    let server = Server::start(&serving.host, serving.port, BOUNDS, Arc::new(service))?;
    let done = begun(Begun { address: server.address(), slots, context })
        .and_then(|()| work::work(local, &desk, context));
    server.end();
    done
}

/// Digests say whether keys are the same in a time that tells nothing of them.
fn digest(key: impl AsRef<[u8]>) -> [u8; 32] {
    let mut hasher = Hasher::tagged("rekindle 2026 server key v1");
    hasher.update(key.as_ref());
    *hasher.finish().bytes()
}

/// What answers requests.
struct Service {
    desk: Arc<Desk>,
    tokenizer: Tokenizer,
    /// Tokens that the model knows.
    vocabulary: usize,
    context: usize,
    name: Arc<str>,
    key: Option<[u8; 32]>,
    speech: Speech,
    /// When it began, in seconds of Unix time.
    since: u64,
    /// What makes its ids and its chosen seeds its own.
    nonce: Seed,
    requests: AtomicU64,
}

impl Handler for Service {
    fn answer(&self, asked: Asked, back: Back) {
        match self.route(&asked) {
            Ok(Route::Said(whole)) => {
                self.desk.tally.answered(whole.status);
                back.whole(whole);
            }
            Ok(Route::Wished(wish, is_chat)) => self.write(wish, is_chat, back),
            Err(complaint) => self.refuse(&complaint, &back),
        }
    }

    fn unread(&self, why: Unread) -> Whole {
        let complaint = match why {
            Unread::TooLarge(most) => Complaint::too_large(most),
            Unread::Crowded => Complaint::busy("too many large requests at once", 1),
            Unread::TooSlow => Complaint::too_slow(),
            Unread::Broken => Complaint::wrong("the request broke off"),
            Unread::Unanswered => Complaint::failed("the server ended before it could answer"),
        };
        self.desk.tally.answered(complaint.status());
        complaint.answer()
    }
}

/// Where a request leads.
enum Route {
    Said(Whole),
    /// Something shall be written; whether it is a chat.
    Wished(Wish, bool),
}

impl Service {
    fn route(&self, asked: &Asked) -> Result<Route, Complaint> {
        let said = |whole| Ok(Route::Said(whole));
        let wants = |method: &'static str| match asked.method == method {
            true => Ok(()),
            false => Err(Complaint::wrong_method(&asked.path, method)),
        };
        match asked.path.as_str() {
            "/health" => {
                wants("GET")?;
                if self.desk.is_closing() {
                    return Err(Complaint::closing());
                }
                return said(of_json(&json!({ "status": "ok" })));
            }
            "/metrics" => {
                wants("GET")?;
                let text = self.desk.tally.text(self.desk.waiting(), self.desk.slots());
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                let body = text.into_bytes();
                return said(Whole { status: 200, content_type, headers: Vec::new(), body });
            }
            _ => self.admit(asked)?,
        }
        match asked.path.as_str() {
            "/v1/models" => {
                wants("GET")?;
                said(of_json(&json!({ "object": "list", "data": [self.model()] })))
            }
            "/v1/completions" => {
                wants("POST")?;
                Ok(Route::Wished(Wish::of_completion(&asked.body, &self.name)?, false))
            }
            "/v1/chat/completions" => {
                wants("POST")?;
                Ok(Route::Wished(Wish::of_chat(&asked.body, &self.name)?, true))
            }
            path => match path.strip_prefix("/v1/models/") {
                Some(name) if *name == *self.name => {
                    wants("GET")?;
                    said(of_json(&self.model()))
                }
                Some(name) => Err(Complaint::no_model(name, &self.name)),
                None => Err(Complaint::no_path(path, PATHS)),
            },
        }
    }

    /// Lets in who has the key.
    fn admit(&self, asked: &Asked) -> Result<(), Complaint> {
        let Some(key) = &self.key else { return Ok(()) };
        let shown = asked.authorization.as_deref().and_then(|value| {
            let (scheme, key) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
        });
        match shown {
            Some(shown) if digest(shown.trim_ascii()) == *key => Ok(()),
            _ => Err(Complaint::unknown_key()),
        }
    }

    fn model(&self) -> Value {
        json!({
            "id": &*self.name,
            "object": "model",
            "created": self.since,
            "owned_by": "rekindle",
            "max_model_len": self.context,
        })
    }

    fn refuse(&self, complaint: &Complaint, back: &Back) {
        self.desk.tally.answered(complaint.status());
        back.whole(complaint.answer());
    }

    /// Puts a request into the line.
    fn write(&self, wish: Wish, is_chat: bool, back: Back) {
        let read = self.read(&wish, is_chat);
        let prompts = match read {
            Ok(prompts) => prompts,
            Err(complaint) => return self.refuse(&complaint, &back),
        };
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let own = self.nonce.at(request);
        let head = Head {
            id: format!("{}-{:016x}", if is_chat { "chatcmpl" } else { "cmpl" }, own.0),
            created: clock::unix_seconds() as u64,
            model: self.name.clone(),
            is_chat,
            streams: wish.stream,
            usage: wish.usage,
        };
        let tokens = prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let (tally, choices) = (self.desk.tally.clone(), prompts.len() * wish.n);
        let exchange = Arc::new(Exchange::new(head, back, tally, choices, tokens));
        let seed = wish.seed.unwrap_or(own);
        let stop: Arc<[String]> = wish.stop.into();
        let came = Instant::now();
        let tickets = prompts.iter().enumerate().flat_map(|(i, prompt)| {
            let (exchange, stop) = (&exchange, &stop);
            (0..wish.n).map(move |k| Ticket {
                exchange: exchange.clone(),
                index: i * wish.n + k,
                prompt: prompt.ids.clone(),
                // The first says what a study would say with this seed.
                seed: if k == 0 { seed } else { seed.at(k as u64) },
                sampling: wish.sampling,
                max_tokens: prompt.max_tokens,
                stop: stop.clone(),
                logprobs: wish.logprobs,
                echo: prompt.echo.clone(),
                came,
            })
        });
        if let Err(complaint) = self.desk.submit(tickets.collect()) {
            exchange.fail(&complaint);
        }
    }

    /// The prompts as tokens, each with its bounds.
    fn read(&self, wish: &Wish, is_chat: bool) -> Result<Vec<ReadPrompt>, Complaint> {
        let param = if is_chat { "messages" } else { "prompt" };
        let replies = wish.subjects.len().saturating_mul(wish.n);
        if replies > self.desk.room() {
            return Err(Complaint::about(
                if wish.n > 1 { "n" } else { param },
                format!(
                    "the request asks for {replies} replies; this server has room for {} in all",
                    self.desk.room()
                ),
            ));
        }
        wish.subjects.iter().map(|subject| self.read_one(subject, wish, param)).collect()
    }

    fn read_one(
        &self,
        subject: &Subject,
        wish: &Wish,
        param: &str,
    ) -> Result<ReadPrompt, Complaint> {
        let refused = |failure: Failure| Complaint::refused(param, &failure);
        let ids = self.ids(subject).map_err(refused)?;
        if ids.is_empty() {
            return Err(Complaint::about(param, format!("`{param}` comes to no tokens")));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            let message = format!("there is no token {id}: the model knows {}", self.vocabulary);
            return Err(Complaint::about(param, message));
        }
        let (read, context) = (ids.len(), self.context);
        let most = match wish.max_tokens {
            None if read < context => context - read,
            Some((most, _)) if read.saturating_add(most) <= context => most,
            wanted => {
                let (and, wanted) = match wanted {
                    Some((most, _)) => (format!(" and {most} of the reply"), most),
                    None => (" and at least 1 of the reply".to_owned(), 1),
                };
                let message = format!(
                    "this model's context holds {context} tokens; the request comes to {}: {read} \
                     of `{param}`{and}",
                    read.saturating_add(wanted)
                );
                return Err(Complaint::about(param, message).coded("context_length_exceeded"));
            }
        };
        let echo = match (wish.echo, subject) {
            (true, Subject::Text(text)) => Some(text.as_str().into()),
            (true, _) => Some(self.tokenizer.decode(&[], &ids).map_err(refused)?.into()),
            (false, _) => None,
        };
        Ok(ReadPrompt { ids: ids.into(), max_tokens: most, echo })
    }

    fn ids(&self, subject: &Subject) -> Outcome<Vec<u32>> {
        let (system, prompt) = match subject {
            Subject::Tokens(ids) => return Ok(ids.clone()),
            Subject::Text(text) => {
                let form = Form { template: Template::Plain, ..Form::default() };
                (None, Prompt { form, text: text.clone() })
            }
            Subject::Conversation { system, turns, user } => {
                let template = self.template()?;
                if !template.has_turns() && !turns.is_empty() {
                    let what = format!("the template `{}` has no turns", template.name());
                    return Err(Failure::input(what));
                }
                let chat_template = self.speech.jinja.clone();
                let turns = turns.clone();
                let form = Form { template, chat_template, turns, ..Form::default() };
                (system.as_deref(), Prompt { form, text: user.clone() })
            }
        };
        Ok(prompting::encode_told(&self.tokenizer, system, &prompt, None)?.ids)
    }

    fn template(&self) -> Outcome<Template> {
        match self.speech.template {
            Some(template) => Ok(template),
            None if self.speech.jinja.is_some() || self.tokenizer.chat_template().is_some() => {
                Ok(Template::Model)
            }
            None => Err(Failure::input(
                "this model brings no chat template: ask `/v1/completions`, or start the server \
                 with `--template`",
            )),
        }
    }
}

/// A prompt, read.
struct ReadPrompt {
    ids: Arc<[u32]>,
    max_tokens: usize,
    echo: Option<Arc<str>>,
}

fn of_json(value: &Value) -> Whole {
    let body = value.to_string().into_bytes();
    Whole { status: 200, content_type: "application/json", headers: Vec::new(), body }
}
