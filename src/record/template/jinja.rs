//! Hugging Face chat templates: Jinja with the settings, functions and methods
//! that such templates count on.
//!
//! Nothing here reads a clock: a template that asks for the date is refused,
//! as a result would depend on the day.
//!
//! # Source
//! transformers `utils/chat_template_utils.py`.

use super::{Body, Part, Prompt, Speech, Turn, mark, text};
use crate::base::failure::{Failure, Outcome};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// Stands for the rest of a reply that has only begun; no text holds it.
const REST: char = '\u{F8FF}';
/// The name under which errors speak of the template.
const NAME: &str = "chat_template";

#[derive(Clone, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

/// What is wrong with a template's syntax, if anything.
pub(super) fn complaint(source: &str) -> Option<String> {
    let source = without_generation(source);
    environment(&source).err().map(|error| explain(&source, &error))
}

fn environment(source: &str) -> Result<Environment<'_>, Error> {
    let mut jinja = Environment::new();
    jinja.set_trim_blocks(true);
    jinja.set_lstrip_blocks(true);
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |said: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("it says: {said}")))
    });
    jinja.add_function("strftime_now", |_: String| -> Result<Value, Error> {
        let why = "it asks for the date, so that what is trained would depend on the day";
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    jinja.add_filter("tojson", to_json);
    jinja.add_template(NAME, source)?;
    Ok(jinja)
}

/// JSON as Python writes it: no escapes for HTML, a blank behind `,` and `:`.
fn to_json(value: Value) -> Result<String, Error> {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
        ) -> std::io::Result<()> {
            out.write_all(b": ")
        }
    }
    let refused = |error: serde_json::Error| {
        Error::new(ErrorKind::BadSerialization, "no JSON").with_source(error)
    };
    let mut bytes = Vec::new();
    let mut to = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    value.serialize(&mut to).map_err(refused)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The tags `{% generation %}` and `{% endgeneration %}`, which mark what is
/// learnt for other tools, as a condition that always holds.
fn without_generation(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(at) = rest.find("{%") {
        let end = rest[at..].find("%}").map_or(rest.len(), |length| at + length);
        let inside = rest[at + 2..end].trim_matches(['-', '+']).trim();
        let becomes = match inside {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        };
        out.push_str(&rest[..at]);
        out.push_str(&match becomes == inside {
            true => rest[at..end].to_owned(),
            false => rest[at..end].replace(inside, becomes),
        });
        rest = &rest[end..];
    }
    out + rest
}

/// The error with the line of the template that it is about.
fn explain(source: &str, error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line().and_then(|line| Some((line, source.lines().nth(line.checked_sub(1)?)?))) {
        Some((line, text)) => format!("{what}, at line {line}: `{}`", clip(text.trim())),
        None => what,
    }
}

/// Templates are often one very long line.
fn clip(line: &str) -> String {
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    }
}

/// Renders messages as the reference does.
fn run(
    jinja: &Environment,
    source: &str,
    messages: &[Message],
    open: bool,
    speech: &Speech,
) -> Outcome<String> {
    let rendered = jinja.get_template(NAME).and_then(|template| {
        template.render(context! {
            messages => messages,
            add_generation_prompt => open,
            bos_token => speech.begin.unwrap_or_default(),
            eos_token => speech.end,
        })
    });
    rendered.map_err(|error| {
        Failure::input(format!(
            "the chat template refuses a conversation of {} messages: {}",
            messages.len(),
            explain(source, &error)
        ))
        .hint("give another one as `chat-template` in the protocol, or choose another `template`")
    })
}

/// The conversation as parts. Every reply is what the template adds to the
/// prompt that leads to it, up to and including the end mark.
pub(super) fn render(
    source: &str,
    system: Option<&str>,
    prompt: &Prompt,
    reply: Option<&str>,
    speech: &Speech,
) -> Outcome<Vec<Part>> {
    let source = &without_generation(source);
    let jinja = environment(source).map_err(|error| {
        Failure::input(format!("the chat template cannot be read: {}", explain(source, &error)))
    })?;
    let begun = &prompt.form.begun;
    let whole = |reply: &str| match (begun.is_empty(), reply.is_empty()) {
        (true, _) => reply.to_owned(),
        (false, true) => begun.clone(),
        (false, false) => format!("{begun} {reply}"),
    };
    let mut turns = prompt.form.turns.clone();
    let last = Turn { user: prompt.text.clone(), reply: whole(reply.unwrap_or("")), learnt: true };
    turns.push(last);
    let (mut parts, mut written) = (Vec::new(), String::new());
    let system = system.map(|content| Message { role: "system", content });
    let mut messages: Vec<Message> = system.into_iter().collect();
    for (i, turn) in turns.iter().enumerate() {
        messages.push(Message { role: "user", content: &turn.user });
        let is_last = i + 1 == turns.len();
        let context = if is_last && !begun.is_empty() {
            let opened = whole(&REST.to_string());
            let mut started = messages.clone();
            started.push(Message { role: "assistant", content: &opened });
            let text = run(&jinja, source, &started, false, speech)?;
            let before = text.split(REST).next().unwrap_or_default();
            before.strip_suffix(' ').unwrap_or(before).to_owned()
        } else {
            run(&jinja, source, &messages, true, speech)?
        };
        parts.push(text(behind(&context, &written)?, false));
        if is_last && reply.is_none() {
            return Ok(parts);
        }
        messages.push(Message { role: "assistant", content: &turn.reply });
        let finished = run(&jinja, source, &messages, false, speech)?;
        let said = behind(&finished, &context)?;
        let end = said.rfind(speech.end).map(|at| at + speech.end.len());
        let said = &said[..end.unwrap_or(said.len())];
        parts.push(text(said, turn.learnt));
        if end.is_none() && is_last {
            // Without an end a model never learns to stop.
            parts.push(mark(Body::End, true));
        }
        written = context + said;
    }
    Ok(parts)
}

/// What `longer` adds to `shorter`.
fn behind<'a>(longer: &'a str, shorter: &str) -> Outcome<&'a str> {
    longer.strip_prefix(shorter).ok_or_else(|| {
        let same = longer.chars().zip(shorter.chars()).take_while(|(a, b)| a == b).count();
        let near: String = shorter.chars().skip(same.saturating_sub(20)).take(40).collect();
        Failure::input(format!(
            "the chat template writes a finished conversation otherwise than the prompt that \
             leads to it, from its character {same} on (near `{near}`)"
        ))
        .hint("what is trained would not be what is served; give a template that only appends")
    })
}
