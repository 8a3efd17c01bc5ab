//! Chat completions of any server that speaks OpenAI's protocol: asked again
//! where that can help, and never faster than a person allowed.
//!
//! Knows nothing of what is asked or of what a reply is good for: an empty or
//! a cut-off reply is a reply. The key is read from the environment, sent to
//! the one server it is for, and cut out of every text that comes back.

mod pace;

use crate::base::failure::{Failure, Outcome};
use crate::host::http;
use crate::host::patience::{Patience, rest_until};
use pace::Pace;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, Instant};
use ureq::http::StatusCode;

/// Most bytes of one answer that are read.
const LIMIT: u64 = 16 << 20;
/// Most characters of a server's own words that are shown.
const SHOWN: usize = 300;

/// Which server, and how it wants to be treated.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// Its address up to `/v1`.
    pub base_url: &'a str,
    /// The environment variable that holds its key, if it wants one.
    pub key_env: Option<&'a str>,
    /// Requests a minute; 0 for as many as go.
    pub requests_per_minute: u64,
    /// Tokens a minute, read and written; 0 for as many as go.
    pub tokens_per_minute: u64,
    /// How long to wait, and how often to try; `body` is for one whole answer.
    pub patience: Patience,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// By itself, or at a stop string.
    Whole,
    /// At the limit of tokens.
    CutOff,
    /// The server, or the model, would not say it.
    Refused,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The text of the first choice.
    pub text: String,
    /// How it ended.
    pub end: End,
    /// The model, as the server names it.
    #[serde(default)]
    pub model: String,
    /// The server's name for this request.
    #[serde(default)]
    pub id: String,
    /// Tokens read; 0 where the server does not say.
    #[serde(default)]
    pub read: u64,
    /// Tokens written; 0 where the server does not say.
    #[serde(default)]
    pub written: u64,
}

/// A connection to a server, for many threads at once.
pub struct Client<'a> {
    server: &'a Server<'a>,
    url: String,
    key: Option<String>,
    agent: ureq::Agent,
    pace: Pace,
}

/// What came of one try.
enum Answer {
    Said(Reply),
    /// Worth another try, after as long as the server asks for.
    Again(Failure, Option<Duration>),
    /// Not worth another try.
    Never(Failure),
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl<'a> Client<'a> {
    /// Reads the key; sends nothing.
    ///
    /// # Errors
    /// When the variable that should hold the key is not set.
    pub fn open(server: &'a Server<'a>) -> Outcome<Client<'a>> {
        let key = match server.key_env {
            None => None,
            Some(name) => match std::env::var(name) {
                Ok(key) if !key.trim().is_empty() => Some(key.trim().to_owned()),
                _ => {
                    let what = format!("the environment variable `{name}` holds no key");
                    return Err(Failure::input(what)
                        .hint(format!("set it to your key for `{}`", server.base_url))
                        .hint("nothing was sent"));
                }
            },
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0) // A key goes to the server it is for and nowhere else.
            .timeout_connect(Some(server.patience.connect.min(server.patience.body)))
            .timeout_global(Some(server.patience.body))
            .max_idle_connections_per_host(64)
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Client {
            server,
            url: format!("{}/chat/completions", server.base_url.trim_end_matches('/')),
            key,
            agent,
            pace: Pace::new(server.requests_per_minute, server.tokens_per_minute),
        })
    }

    /// Asks until there is a reply. `name` goes as `Idempotency-Key` with every
    /// try, so that a server which heeds it charges once for a question whose
    /// first answer got lost on the way; `tokens` is what it may cost of the
    /// rate; `check` is asked while waiting, and ends it by an error.
    ///
    /// # Errors
    /// `Input` when the server refuses what is asked, `Environment` when it
    /// does not answer well after all tries, and what `check` returns.
    pub fn ask(
        &self,
        body: &[u8],
        name: &str,
        tokens: u64,
        check: &dyn Fn() -> Outcome<()>,
    ) -> Outcome<Reply> {
        let mut tries = 0;
        loop {
            rest_until(self.pace.admit(tokens), check)?;
            let (failure, asked) = match self.once(body, name) {
                Answer::Said(reply) => {
                    self.pace.settle(tokens, reply.read + reply.written);
                    return Ok(reply);
                }
                Answer::Never(failure) => return Err(failure),
                Answer::Again(failure, asked) => (failure, asked),
            };
            self.pace.settle(tokens, 0);
            tries += 1;
            let patience = &self.server.patience;
            if tries >= patience.tries {
                let hint = format!("asked {tries} times; what was answered is kept, try again");
                return Err(failure.hint(hint));
            }
            if let Some(asked) = asked {
                // What it asks of one it asks of all.
                self.pace.hold(Instant::now() + asked.min(patience.longest));
            }
            // A server that asks for no pause at all gets the usual one.
            let usual = patience.pause(tries, None);
            let pause = asked.map_or(usual, |asked| asked.clamp(usual, patience.longest));
            rest_until(Instant::now() + pause, check)?;
        }
    }

    fn once(&self, body: &[u8], name: &str) -> Answer {
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        let mut request = request.header("idempotency-key", name);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let url = &self.url;
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                let why = self.scrub(&error.to_string());
                return Answer::Never(Failure::input(format!("`{url}` is no address: {why}")));
            }
            Err(error) => {
                let why = self.scrub(&error.to_string());
                return Answer::Again(Failure::environment(format!("asking `{url}`: {why}")), None);
            }
        };
        let status = response.status();
        let asked = http::wait_asked_for(&response);
        let text = response.body_mut().with_config().limit(LIMIT).read_to_vec();
        let text = match text {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let what = format!("`{url}` answered more than {} MiB", LIMIT >> 20);
                return Answer::Never(Failure::environment(what));
            }
            Err(error) => {
                let why = self.scrub(&error.to_string());
                let what = format!("`{url}` stopped in the middle of an answer: {why}");
                return Answer::Again(Failure::environment(what), asked);
            }
        };
        if status != StatusCode::OK {
            return self.refusal(status, &text, asked);
        }
        match serde_json::from_str::<Body>(&text).ok().and_then(reply) {
            Some(reply) => Answer::Said(reply),
            None => {
                let what = format!("`{url}` answered no chat completion: {}", self.shown(&text));
                Answer::Again(Failure::environment(what), asked)
            }
        }
    }

    fn refusal(&self, status: StatusCode, text: &str, asked: Option<Duration>) -> Answer {
        let (said, code) = complaint(text);
        let said = self.shown(&said);
        let colon = if said.is_empty() { "" } else { ": " };
        let what = format!("`{}` answered {status}{colon}{said}", self.url);
        if code == "insufficient_quota" || status == StatusCode::PAYMENT_REQUIRED {
            let hint = "the account has nothing left; what was answered is kept";
            return Answer::Never(Failure::environment(what).hint(hint));
        }
        let again = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT
            );
        if again {
            return Answer::Again(Failure::environment(what), asked);
        }
        let failure = Failure::input(what);
        Answer::Never(match (status, self.server.key_env) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(name)) => {
                failure.hint(format!("is the key in `{name}` the right one?"))
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => failure
                .hint("it wants a key: name the environment variable that has it with `key-env`"),
            _ if status.is_redirection() => {
                failure.hint("keys do not follow redirections: name the right address")
            }
            _ => failure,
        })
    }

    /// A server's words, without the key, short, on one line.
    fn shown(&self, text: &str) -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = self.scrub(&line);
        match line.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("{}...", &line[..at]),
            None => line,
        }
    }

    fn scrub(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        }
    }
}

fn reply(body: Body) -> Option<Reply> {
    let choice = body.choices.into_iter().next()?;
    let Message { content, refusal } = choice.message;
    let refused = refusal.is_some_and(|words| !words.is_empty());
    let end = match choice.finish_reason.as_deref() {
        _ if refused => End::Refused,
        Some("content_filter") => End::Refused,
        Some("length") => End::CutOff,
        _ => End::Whole,
    };
    let usage = body.usage.unwrap_or(Usage { prompt_tokens: 0, completion_tokens: 0 });
    Some(Reply {
        text: content.unwrap_or_default(),
        end,
        model: body.model.unwrap_or_default(),
        id: body.id.unwrap_or_default(),
        read: usage.prompt_tokens,
        written: usage.completion_tokens,
    })
}

/// The message and the code of an error, or all of the text.
fn complaint(text: &str) -> (String, String) {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return (text.to_owned(), String::new());
    };
    let error = value.get("error").unwrap_or(&value);
    let part = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    let message = error.as_str().map(str::to_owned).or_else(|| part("message"));
    let detail = || value.get("detail").map(Value::to_string);
    let code = part("code").or_else(|| part("type")).unwrap_or_default();
    (message.or_else(detail).unwrap_or_else(|| text.to_owned()), code)
}

#[cfg(test)]
mod tests;
