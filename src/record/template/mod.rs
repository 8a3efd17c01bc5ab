//! How a conversation is written down for a model: one renderer for training,
//! generation and evaluation, so that what is served is what was trained.
//!
//! Gives parts, each a mark or a text, learnt or not. Knows nothing of tokens.

mod jinja;

#[cfg(test)]
mod tests;

use crate::base::failure::{Failure, Outcome};
use crate::base::spec::choice;
use serde::{Deserialize, Serialize};

choice! {
    /// How messages are written down for a model.
    pub enum Template {
        /// As `plain`, with every run of white space in a prompt made one blank. For
        /// vocabularies of whole words.
        Raw = "raw",
        /// The begin mark, the prompt as it stands, a blank, the reply, the end mark. For base
        /// models, such as OpenLLaMA.
        Plain = "plain",
        /// The conversation of Vicuna 1.1, 1.3 and 1.5, byte for byte as FastChat writes it.
        Vicuna = "vicuna-v1.1",
        /// The chat template that the model brings (`chat_template` in `tokenizer_config.json`, or
        /// `chat_template.jinja`), or the protocol's `chat-template`.
        Model = "model",
    }
}

/// How FastChat opens a Vicuna conversation: 154 bytes, one blank between the sentences.
///
/// # Source
/// lm-sys/FastChat `conversation.py`, template `vicuna_v1.1`.
const VICUNA_SYSTEM: &str = "A chat between a curious user and an artificial intelligence \
    assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.";
const _: () = assert!(VICUNA_SYSTEM.len() == 154);

impl Template {
    /// Whether there are messages of a user and of an assistant, and not only a text.
    pub fn has_turns(self) -> bool {
        matches!(self, Template::Vicuna | Template::Model)
    }

    /// Its fixed words, for a vocabulary.
    pub fn words(self) -> String {
        match self {
            Template::Vicuna => format!("USER: ASSISTANT: {VICUNA_SYSTEM}"),
            Template::Raw | Template::Plain | Template::Model => String::new(),
        }
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Template, D::Error> {
        let word = String::deserialize(from)?;
        let found = Template::ALL.iter().find(|template| template.name() == word);
        let unknown = || serde::de::Error::custom(format!("there is no template `{word}`"));
        found.copied().ok_or_else(unknown)
    }
}

/// What was said before: a message and its reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// The user's message.
    pub user: String,
    /// The assistant's reply.
    pub reply: String,
    /// Whether the loss is taken on the reply too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learnt: bool,
}

/// How a prompt is written down, and what was said before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// The template.
    pub template: Template,
    /// A Jinja template in place of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Earlier turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// How the reply begins, where that is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub begun: String,
}

impl Default for Form {
    fn default() -> Form {
        Form {
            template: Template::Raw,
            chat_template: None,
            turns: Vec::new(),
            begun: String::new(),
        }
    }
}

impl Form {
    /// Whether it is a bare text, as word-level models have it.
    pub fn is_raw(&self) -> bool {
        *self == Form::default()
    }
}

/// A message that waits for its reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// How it is written down.
    pub form: Form,
    /// The message.
    pub text: String,
}

/// Special tokens and template of the model that shall read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speech<'a> {
    /// How its begin mark is spelled.
    pub begin: Option<&'a str>,
    /// How its end mark is spelled.
    pub end: &'a str,
    /// The Jinja template that it brings.
    pub chat_template: Option<&'a str>,
}

/// A piece of a conversation as a model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is.
    pub body: Body,
    /// Whether the loss is taken on it.
    pub learnt: bool,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The mark that begins a text, where the tokenizer wants one.
    Begin,
    /// The mark that ends a reply.
    End,
    /// Text.
    Text(String),
}

fn text(text: impl Into<String>, learnt: bool) -> Part {
    Part { body: Body::Text(text.into()), learnt }
}

fn mark(body: Body, learnt: bool) -> Part {
    Part { body, learnt }
}

/// Writes a conversation down: up to where the reply shall begin, or with the reply.
///
/// # Errors
/// `Input` for a template that cannot be read or refuses the conversation,
/// with the line of the template; and for one that writes a finished
/// conversation otherwise than the prompt that leads to it.
pub fn render(prompt: &Prompt, reply: Option<&str>, speech: &Speech) -> Outcome<Vec<Part>> {
    render_told(None, prompt, reply, speech)
}

/// [`render`] with what the model is told before anything else: the system's
/// message of a chat template, or the words that open a Vicuna conversation.
///
/// # Errors
/// As [`render`]; `Input` for a template that has no place for it.
pub fn render_told(
    system: Option<&str>,
    prompt: &Prompt,
    reply: Option<&str>,
    speech: &Speech,
) -> Outcome<Vec<Part>> {
    let form = &prompt.form;
    if system.is_some() && !form.template.has_turns() {
        let what = format!("the template `{}` has no system message", form.template.name());
        return Err(Failure::input(what));
    }
    if form.template == Template::Model {
        let source = form.chat_template.as_deref().or(speech.chat_template).ok_or_else(|| {
            Failure::input("the model brings no chat template")
                .hint("give one as `chat-template` in the protocol, or choose another `template`")
        })?;
        return jinja::render(source, system, prompt, reply, speech);
    }
    let mut parts = vec![mark(Body::Begin, false)];
    let mut context = String::new();
    if form.template == Template::Vicuna {
        context = format!("{} ", system.unwrap_or(VICUNA_SYSTEM));
        for turn in &form.turns {
            parts.push(text(format!("{context}USER: {} ASSISTANT:", turn.user), false));
            parts.extend(answer(" ", &turn.reply, turn.learnt));
            context.clear();
        }
        context += &format!("USER: {} ASSISTANT:", prompt.text);
    } else {
        context += &prompt.text;
    }
    if !form.begun.is_empty() {
        context += gap(&context);
        context += &form.begun;
    }
    let gap = gap(&context);
    parts.push(text(context, false));
    if let Some(reply) = reply {
        parts.extend(answer(gap, reply, true));
    }
    Ok(parts)
}

/// The blank in front of a reply, unless the prompt ends in white space.
fn gap(context: &str) -> &'static str {
    if context.is_empty() || context.ends_with(char::is_whitespace) { "" } else { " " }
}

/// A reply and its end; an empty one has no blank.
fn answer(gap: &str, reply: &str, learnt: bool) -> impl Iterator<Item = Part> {
    let said = (!reply.is_empty()).then(|| text(format!("{gap}{reply}"), learnt));
    said.into_iter().chain([mark(Body::End, learnt)])
}

/// What is wrong with a Jinja template, if anything.
pub fn complaint(source: &str) -> Option<String> {
    jinja::complaint(source)
}
