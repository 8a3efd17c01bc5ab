//! One request's answer, put together: whole, or as server-sent events while
//! it is written.
//!
//! Knows OpenAI's shapes and nothing of models; what is in the answer comes
//! from those who write its choices.

use super::complaint::Complaint;
use super::tally::Tally;
use crate::engine::generate::Finish;
use crate::host::server::{Back, Whole};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What every part of an answer says of it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: Arc<str>,
    pub(super) is_chat: bool,
    pub(super) streams: bool,
    /// Whether a stream ends with what it took.
    pub(super) usage: bool,
}

/// The probability of a token, and of those it was chosen among.
#[derive(Clone, Debug)]
pub(super) struct Likelihood {
    /// How the token is spelled.
    pub(super) token: String,
    /// Natural logarithm; none for the first token of a prompt.
    pub(super) logprob: Option<f32>,
    /// The likeliest, falling.
    pub(super) likeliest: Vec<(String, f32)>,
    /// Characters of the text before it.
    pub(super) offset: usize,
}

/// A part of a choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) text: String,
    /// None where nobody asked.
    pub(super) logprobs: Option<Vec<Likelihood>>,
}

/// A request under way.
pub(super) struct Exchange {
    head: Head,
    back: Back,
    tally: Arc<Tally>,
    /// Tokens of all its prompts.
    read: usize,
    state: Mutex<State>,
}

struct State {
    /// Finished choices of an answer in one piece.
    choices: Vec<Option<Value>>,
    left: usize,
    written: usize,
    begun: bool,
    over: bool,
}

impl Exchange {
    /// A request of so many choices, whose prompts have so many tokens together.
    pub(super) fn new(
        head: Head,
        back: Back,
        tally: Arc<Tally>,
        choices: usize,
        read: usize,
    ) -> Exchange {
        let choices = vec![None; choices];
        let left = choices.len();
        let state = Mutex::new(State { choices, left, written: 0, begun: false, over: false });
        Exchange { head, back, tally, read, state }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.back.is_gone()
    }

    /// Whether its parts are sent as they come.
    pub(super) fn streams(&self) -> bool {
        self.head.streams
    }

    pub(super) fn is_chat(&self) -> bool {
        self.head.is_chat
    }

    /// Another part of a choice, which is sent at once.
    pub(super) fn part(&self, index: usize, part: Part) {
        let mut state = self.hold();
        self.begin(&mut state);
        self.send_choice(index, Some(part), None);
    }

    /// A choice is complete: its last part of a stream, or all of it.
    pub(super) fn finished(&self, index: usize, part: Part, finish: Finish, written: usize) {
        let mut state = self.hold();
        if state.over {
            return;
        }
        state.written += written;
        state.left -= 1;
        self.tally.written.fetch_add(written as u64, Ordering::Relaxed);
        if self.head.streams {
            self.begin(&mut state);
            if !part.text.is_empty() || part.logprobs.as_ref().is_some_and(|list| !list.is_empty())
            {
                self.send_choice(index, Some(part), None);
            }
            self.send_choice(index, None, Some(finish));
        } else {
            state.choices[index] = Some(self.choice(index, part, finish));
        }
        if state.left == 0 {
            state.over = true;
            self.end(&mut state);
        }
    }

    /// Ends the answer with a complaint.
    pub(super) fn fail(&self, complaint: &Complaint) {
        let mut state = self.hold();
        if state.over {
            return;
        }
        state.over = true;
        self.tally.answered(complaint.status());
        if state.begun {
            self.event(&complaint.json());
        } else {
            self.back.whole(complaint.answer());
        }
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, state: &mut State) {
        self.tally.answered(200);
        if !self.head.streams {
            let choices: Vec<Value> = state.choices.drain(..).flatten().collect();
            let mut body = self.frame(choices.into());
            body.insert("usage".into(), self.usage(state));
            self.back.whole(Whole {
                status: 200,
                content_type: "application/json",
                headers: Vec::new(),
                body: Value::Object(body).to_string().into_bytes(),
            });
            return;
        }
        if self.head.usage {
            let mut body = self.frame(json!([]));
            body.insert("usage".into(), self.usage(state));
            self.event(&body.into());
        }
        self.back.more(b"data: [DONE]\n\n".to_vec());
    }

    fn usage(&self, state: &State) -> Value {
        json!({
            "prompt_tokens": self.read,
            "completion_tokens": state.written,
            "total_tokens": self.read + state.written,
        })
    }

    /// What is around choices.
    fn frame(&self, choices: Value) -> Map<String, Value> {
        let Head { id, created, model, is_chat, streams, .. } = &self.head;
        let object = match (is_chat, streams) {
            (false, _) => "text_completion",
            (true, false) => "chat.completion",
            (true, true) => "chat.completion.chunk",
        };
        let mut frame = Map::new();
        frame.insert("id".into(), json!(id));
        frame.insert("object".into(), json!(object));
        frame.insert("created".into(), json!(created));
        frame.insert("model".into(), json!(&**model));
        frame.insert("choices".into(), choices);
        frame
    }

    /// The first events of a stream.
    fn begin(&self, state: &mut State) {
        if state.begun {
            return;
        }
        state.begun = true;
        self.back.begin("text/event-stream; charset=utf-8");
        if self.head.is_chat {
            for index in 0..state.choices.len() {
                let delta = json!({ "role": "assistant", "content": "" });
                self.chunk(json!({
                    "index": index, "delta": delta, "logprobs": null, "finish_reason": null,
                }));
            }
        }
    }

    fn send_choice(&self, index: usize, part: Option<Part>, finish: Option<Finish>) {
        let finish = finish.map(word);
        let Part { text, logprobs } = part.unwrap_or_default();
        let logprobs = self.likelihoods(logprobs);
        self.chunk(if self.head.is_chat {
            let delta = if finish.is_some() { json!({}) } else { json!({ "content": text }) };
            json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish })
        } else {
            json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
        });
    }

    fn chunk(&self, choice: Value) {
        let mut chunk = self.frame(json!([choice]));
        if self.head.usage {
            chunk.insert("usage".into(), Value::Null);
        }
        self.event(&chunk.into());
    }

    fn event(&self, value: &Value) {
        self.back.more(format!("data: {value}\n\n").into_bytes());
    }

    /// A choice of an answer in one piece.
    fn choice(&self, index: usize, part: Part, finish: Finish) -> Value {
        let Part { text, logprobs } = part;
        let (logprobs, finish) = (self.likelihoods(logprobs), word(finish));
        if self.head.is_chat {
            let message = json!({ "role": "assistant", "content": text, "refusal": null });
            json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish })
        } else {
            json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
        }
    }

    fn likelihoods(&self, list: Option<Vec<Likelihood>>) -> Value {
        let Some(list) = list else { return Value::Null };
        if self.head.is_chat {
            let one = |token: &str, logprob: Option<f32>| {
                // Of a part of a character there is no telling which bytes it is.
                let bytes =
                    (!token.contains(char::REPLACEMENT_CHARACTER)).then_some(token.as_bytes());
                json!({ "token": token, "logprob": logprob, "bytes": bytes })
            };
            let content: Vec<Value> = list
                .iter()
                .map(|log| {
                    let mut entry = one(&log.token, log.logprob);
                    let likeliest = log.likeliest.iter().map(|(token, p)| one(token, Some(*p)));
                    entry["top_logprobs"] = likeliest.collect();
                    entry
                })
                .collect();
            return json!({ "content": content, "refusal": null });
        }
        let likeliest = |log: &Likelihood| {
            let mut map = Map::new();
            for (token, p) in &log.likeliest {
                // Two tokens may be spelled alike; the likelier one comes first.
                map.entry(token.clone()).or_insert_with(|| json!(p));
            }
            if log.logprob.is_some() { Value::Object(map) } else { Value::Null }
        };
        json!({
            "tokens": list.iter().map(|log| log.token.as_str()).collect::<Vec<_>>(),
            "token_logprobs": list.iter().map(|log| log.logprob).collect::<Vec<_>>(),
            "top_logprobs": list.iter().map(likeliest).collect::<Vec<_>>(),
            "text_offset": list.iter().map(|log| log.offset).collect::<Vec<_>>(),
        })
    }
}

fn word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
