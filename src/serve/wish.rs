//! What a request asks for, out of its body: every parameter with its type, its
//! default and its bounds, as OpenAI's API has them.
//!
//! Knows no model and no tokens.

use super::complaint::Complaint;
use super::fields::{Fields, Read};
use crate::base::seed::Seed;
use crate::engine::sample::Sampling;
use crate::record::template::Turn;
use serde_json::{Value, json};

/// Most samples of one prompt.
const MOST_SAMPLES: u64 = 128;
/// Most alternatives to a token whose probabilities are told.
const MOST_ALTERNATIVES: u64 = 20;
/// Most texts that end a reply.
const MOST_STOPS: usize = 4;
/// Tokens of a completion where nobody says how many.
const USUAL_COMPLETION: usize = 16;

/// What shall be continued.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    /// A text as it stands.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<u32>),
    /// A conversation that waits for a reply.
    Conversation {
        /// What the model is told before anything else.
        system: Option<String>,
        /// What was said before.
        turns: Vec<Turn>,
        /// The last message.
        user: String,
    },
}

/// What a client wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) subjects: Vec<Subject>,
    /// Replies to each.
    pub(super) n: usize,
    /// Most tokens of a reply, and the name of the parameter; as many as fit if not given.
    pub(super) max_tokens: Option<(usize, &'static str)>,
    pub(super) sampling: Sampling,
    pub(super) seed: Option<Seed>,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    /// Whether a stream ends with what it took.
    pub(super) usage: bool,
    /// Whether probabilities are wanted, and of how many alternatives.
    pub(super) logprobs: Option<usize>,
    /// Whether the prompt is part of the reply.
    pub(super) echo: bool,
}

impl Wish {
    /// What `/v1/completions` was asked.
    pub(super) fn of_completion(body: &[u8], model: &str) -> Read<Wish> {
        let mut fields = Fields::of_body(body)?;
        named(&mut fields, model)?;
        let must =
            "a string, an array of strings, an array of token ids, or an array of such arrays";
        let subjects = fields.get("prompt", must, prompts)?;
        let subjects = subjects.ok_or_else(|| fields.wrong("prompt", must))?;
        let echo = fields.flag("echo")?.unwrap_or(false);
        let most = fields.whole("max_tokens", u64::from(!echo)..=u64::MAX)?;
        let most = most.map_or(USUAL_COMPLETION, size);
        let logprobs = fields.whole("logprobs", 0..=MOST_ALTERNATIVES)?.map(size);
        let n = samples(&mut fields)?;
        fields.idle("best_of", &[json!(n)])?;
        fields.idle("suffix", &[json!("")])?;
        let max_tokens = Some((most, "max_tokens"));
        Wish { subjects, n, max_tokens, logprobs, echo, ..common(&mut fields)? }.checked(fields)
    }

    /// What `/v1/chat/completions` was asked.
    pub(super) fn of_chat(body: &[u8], model: &str) -> Read<Wish> {
        let mut fields = Fields::of_body(body)?;
        named(&mut fields, model)?;
        let messages = fields.any("messages");
        let must = "an array of messages, the last of them the user's";
        let Some(Value::Array(messages)) = messages else {
            return Err(fields.wrong("messages", must));
        };
        let subjects = vec![conversation(messages)?];
        let older = fields.whole("max_tokens", 1..=u64::MAX)?;
        let newer = fields.whole("max_completion_tokens", 1..=u64::MAX)?;
        let max_tokens = match (newer, older) {
            (Some(newer), Some(older)) if newer != older => {
                return Err(fields.wrong("max_tokens", "what `max_completion_tokens` is"));
            }
            (Some(most), _) => Some((size(most), "max_completion_tokens")),
            (None, most) => most.map(|most| (size(most), "max_tokens")),
        };
        let wanted = fields.flag("logprobs")?.unwrap_or(false);
        let alternatives = fields.whole("top_logprobs", 0..=MOST_ALTERNATIVES)?.map(size);
        if alternatives.is_some_and(|n| n > 0) && !wanted {
            return Err(fields.wrong("top_logprobs", "left out where `logprobs` is not true"));
        }
        let logprobs = wanted.then_some(alternatives.unwrap_or(0));
        let n = samples(&mut fields)?;
        for (field, may) in [
            ("tools", json!([])),
            ("functions", json!([])),
            ("tool_choice", json!("none")),
            ("function_call", json!("none")),
            ("response_format", json!({ "type": "text" })),
            ("modalities", json!(["text"])),
            ("service_tier", json!("auto")),
            ("store", json!(false)),
            ("metadata", json!({})),
        ] {
            fields.idle(field, &[may])?;
        }
        fields.idle("parallel_tool_calls", &[json!(true), json!(false)])?;
        Wish { subjects, n, max_tokens, logprobs, ..common(&mut fields)? }.checked(fields)
    }

    fn checked(self, fields: Fields) -> Read<Wish> {
        fields.end()?;
        Ok(self)
    }
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The model must be the one there is, where one is named.
fn named(fields: &mut Fields, served: &str) -> Read<()> {
    match fields.string("model")? {
        Some(asked) if asked != served => Err(Complaint::no_model(&asked, served)),
        _ => Ok(()),
    }
}

fn samples(fields: &mut Fields) -> Read<usize> {
    Ok(fields.whole("n", 1..=MOST_SAMPLES)?.map_or(1, size))
}

/// What both kinds of requests have.
fn common(fields: &mut Fields) -> Read<Wish> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    let top_p = fields.number("top_p", f64::MIN_POSITIVE..=1.0);
    let top_p = top_p.map_err(|_| fields.wrong("top_p", "a number above 0 and up to 1"))?;
    let top_k = fields.whole("top_k", 0..=u64::MAX)?.map_or(0, size);
    let seed = fields.get("seed", "a whole number", |value| {
        value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)).map(Seed)
    })?;
    let must = format!("a string or an array of up to {MOST_STOPS} strings, none of them empty");
    let stop = fields.get("stop", &must, stops)?.unwrap_or_default();
    let stream = fields.flag("stream")?.unwrap_or(false);
    let mut usage = false;
    if let Some(options) = fields.any("stream_options") {
        if !stream {
            return Err(fields.wrong("stream_options", "left out where `stream` is not true"));
        }
        let mut options = Fields::of_value("stream_options", options)?;
        usage = options.flag("include_usage")?.unwrap_or(false);
        options.idle("include_obfuscation", &[json!(false)])?;
        options.end()?;
    }
    for field in ["presence_penalty", "frequency_penalty"] {
        fields.idle(field, &[json!(0)])?;
    }
    fields.idle("logit_bias", &[json!({})])?;
    // Who asks is nothing to a model.
    fields.string("user")?;
    Ok(Wish {
        subjects: Vec::new(),
        n: 1,
        max_tokens: None,
        sampling: Sampling::of_likeliest(temperature, top_k, top_p.unwrap_or(1.0)),
        seed,
        stop,
        stream,
        usage,
        logprobs: None,
        echo: false,
    })
}

fn stops(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    match value {
        Value::Array(list) if list.len() <= MOST_STOPS => list.iter().map(one).collect(),
        other => one(other).map(|stop| vec![stop]),
    }
}

fn prompts(value: &Value) -> Option<Vec<Subject>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = |list: &[Value]| list.iter().map(id).collect::<Option<Vec<u32>>>();
    let text = |value: &Value| value.as_str().map(|text| Subject::Text(text.to_owned()));
    match value {
        Value::String(text) => Some(vec![Subject::Text(text.clone())]),
        Value::Array(list) => match list.first()? {
            Value::String(_) => list.iter().map(text).collect(),
            Value::Number(_) => Some(vec![Subject::Tokens(ids(list)?)]),
            _ => list.iter().map(|one| ids(one.as_array()?).map(Subject::Tokens)).collect(),
        },
        _ => None,
    }
}

/// Messages as turns: a system's at the start if at all, then user and
/// assistant by turns, a user's at the end.
fn conversation(messages: Vec<Value>) -> Read<Subject> {
    let (mut system, mut turns, mut open) = (None, Vec::new(), None);
    for (i, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{i}]");
        let mut fields = Fields::of_value(&place, message)?;
        let role = fields.string("role")?.unwrap_or_default();
        let content = content(&mut fields)?;
        // What a reply of this protocol holds beside its text, when it holds nothing.
        for field in ["refusal", "tool_calls", "function_call", "audio", "annotations"] {
            fields.idle(field, &[json!([])])?;
        }
        let order = |must: &str| Err(Complaint::about(&place, format!("`{place}` {must}")));
        match (role.as_str(), open.take()) {
            ("system" | "developer", None) if i == 0 => system = Some(content),
            ("system" | "developer", _) => return order("may be of the system at the start only"),
            ("user", None) => open = Some(content),
            ("assistant", Some(user)) => turns.push(Turn { user, reply: content, learnt: false }),
            ("user", Some(_)) => return order("must be the assistant's: a user's is before it"),
            ("assistant", None) => return order("must be the user's"),
            _ => {
                let must = "`system`, `developer`, `user` or `assistant`";
                return Err(fields.wrong("role", must));
            }
        }
        fields.end()?;
    }
    let must = "`messages` must end with a message of the user";
    let user = open.ok_or_else(|| Complaint::about("messages", must))?;
    Ok(Subject::Conversation { system, turns, user })
}

/// A message's text, in one piece or in several.
fn content(fields: &mut Fields) -> Read<String> {
    let must = "a string or an array of `{\"type\": \"text\", \"text\": ...}`";
    let part = |part: &Value| {
        let is_text = part.get("type").and_then(Value::as_str) == Some("text");
        part.get("text").and_then(Value::as_str).filter(|_| is_text).map(str::to_owned)
    };
    let read = |value: &Value| match value {
        Value::Array(parts) => parts.iter().map(part).collect::<Option<String>>(),
        other => other.as_str().map(str::to_owned),
    };
    let content = fields.get("content", must, read)?;
    content.ok_or_else(|| fields.wrong("content", must))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: Value, chat: bool) -> Value {
        let body = body.to_string();
        let read = if chat { Wish::of_chat } else { Wish::of_completion };
        read(body.as_bytes(), "tiny").expect_err(&body).json()["error"].clone()
    }

    #[test]
    fn what_a_server_does_not_know_is_refused_by_name() {
        let hello = json!([{ "role": "user", "content": "hello" }]);
        for (name, value, says) in [
            ("temprature", json!(1), "did you mean `temperature`?"),
            ("temperature", json!("hot"), "must be a number from 0 to 2"),
            ("temperature", json!(2.5), "must be a number from 0 to 2"),
            ("top_p", json!(0), "above 0"),
            ("n", json!(0), "from 1 to 128"),
            ("n", json!(1.5), "from 1 to 128"),
            ("seed", json!("7"), "a whole number"),
            ("stop", json!(["a", "b", "c", "d", "e"]), "up to 4"),
            ("stop", json!(""), "none of them empty"),
            ("stream", json!("yes"), "true or false"),
            ("stream_options", json!({}), "left out where `stream` is not true"),
            ("presence_penalty", json!(0.5), "may only be 0 or null"),
            ("logit_bias", json!({ "5": 1 }), "may only be {}"),
            ("tools", json!([{ "type": "function" }]), "may only be []"),
            ("response_format", json!({ "type": "json_object" }), "may only be"),
            ("max_tokens", json!(0), "from 1"),
            ("top_logprobs", json!(3), "`logprobs` is not true"),
            ("logprobs", json!(3), "true or false"),
            ("echo", json!(true), "does not know `echo`"),
        ] {
            let mut body = json!({ "model": "tiny", "messages": hello });
            body[name] = value;
            let error = refused(body, true);
            assert_eq!(error["param"], name, "{error}");
            assert!(error["message"].as_str().unwrap_or("").contains(says), "{error}");
            assert_eq!(error["type"], "invalid_request_error");
        }
        let error = refused(json!({ "model": "large", "prompt": "x" }), false);
        assert_eq!((&error["param"], &error["code"]), (&json!("model"), &json!("model_not_found")));
        for prompt in [json!(null), json!(3), json!([]), json!(["a", 3]), json!([[1, -2]])] {
            let error = refused(json!({ "prompt": prompt }), false);
            assert_eq!(error["param"], "prompt", "{error}");
        }
        let deep = json!({ "prompt": "x", "stream": true, "stream_options": { "usage": true } });
        assert_eq!(refused(deep, false)["param"], "stream_options.usage");
    }

    #[test]
    fn a_conversation_has_its_order() {
        let message = |role: &str| json!({ "role": role, "content": role });
        for (roles, place) in [
            (&["user", "system"][..], "messages[1]"),
            (&["user", "user"], "messages[1]"),
            (&["assistant"], "messages[0]"),
            (&["user", "assistant"], "messages"),
            (&["user", "robot"], "messages[1].role"),
            (&[], "messages"),
        ] {
            let messages: Vec<Value> = roles.iter().map(|role| message(role)).collect();
            let error = refused(json!({ "messages": messages }), true);
            assert_eq!(error["param"], place, "{error}");
        }
        let named = json!([{ "role": "user", "content": "x", "name": "Sam" }]);
        assert_eq!(refused(json!({ "messages": named }), true)["param"], "messages[0].name");
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let body = json!({ "messages": [
            message("system"), message("user"),
            { "role": "assistant", "content": "fine", "refusal": null, "tool_calls": [] },
            { "role": "user", "content": parts },
        ], "presence_penalty": 0.0, "logit_bias": {}, "user": "me", "max_completion_tokens": 9 });
        let wish = Wish::of_chat(body.to_string().as_bytes(), "tiny").expect("is fine");
        let turns = vec![Turn { user: "user".into(), reply: "fine".into(), learnt: false }];
        let (system, user) = (Some("system".to_owned()), "ab".to_owned());
        assert_eq!(wish.subjects, [Subject::Conversation { system, turns, user }]);
        assert_eq!(wish.max_tokens, Some((9, "max_completion_tokens")));
    }
}
