//! Conversations as token ids, with what is learnt of them: the parts that a
//! template gives, each tokenized where it stands, special tokens as ids.
//!
//! Whatever makes the tokens others than one would think is counted, never
//! mended in silence. Knows no model.

use crate::base::failure::{Failure, Outcome};
use crate::engine::batch::Sequence;
use crate::engine::tokenizer::{Place, Tokenizer};
use crate::record::template::{Body, Part, Prompt, Speech, render_told};
use crate::record::{Example, TextNotes};

/// A conversation as a model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Tokens `[N]`.
    pub ids: Vec<u32>,
    /// Whether the loss is taken on each `[N]`.
    pub learnt: Vec<bool>,
    /// What a person should know of.
    pub notes: TextNotes,
}

/// A prompt up to where the reply begins, or with its reply, as tokens.
///
/// # Errors
/// `Input` when the template or the tokenizer refuses it.
pub fn encode(tokenizer: &Tokenizer, prompt: &Prompt, reply: Option<&str>) -> Outcome<Encoded> {
    encode_told(tokenizer, None, prompt, reply)
}

/// [`encode`] with what the model is told before anything else.
///
/// # Errors
/// As [`encode`], and where the template has no place for it.
pub fn encode_told(
    tokenizer: &Tokenizer,
    system: Option<&str>,
    prompt: &Prompt,
    reply: Option<&str>,
) -> Outcome<Encoded> {
    let speech = Speech {
        begin: tokenizer.begin_text(),
        end: tokenizer.end_text(),
        chat_template: tokenizer.chat_template(),
    };
    let parts = render_told(system, prompt, reply, &speech)?;
    let mut encoded = tokens(tokenizer, &parts)?;
    let turns = prompt.form.turns.iter().flat_map(|turn| [&turn.user, &turn.reply]);
    let own = [&prompt.text, &prompt.form.begun];
    let messages = own.into_iter().chain(turns).map(String::as_str).chain(reply);
    for message in messages {
        let spelled = tokenizer.encode(message, Place::Start)?;
        if spelled.iter().any(|&id| tokenizer.is_mark(id)) {
            encoded.notes.spelled_marks = 1;
        }
    }
    Ok(encoded)
}

/// Text that was tokenized piece by piece since the last special token.
struct Run {
    text: String,
    place: Place,
    /// Where its ids begin.
    start: usize,
}

fn tokens(tokenizer: &Tokenizer, parts: &[Part]) -> Outcome<Encoded> {
    let (mut ids, mut learnt): (Vec<u32>, Vec<bool>) = (Vec::new(), Vec::new());
    let mut notes = TextNotes { texts: 1, ..TextNotes::default() };
    let mut run: Option<Run> = None;
    let mut at_start = true;
    for part in parts {
        let new = match &part.body {
            Body::Begin => tokenizer.begin().into_iter().collect(),
            Body::End => {
                (run, at_start) = (None, false);
                vec![tokenizer.end()]
            }
            Body::Text(text) => {
                if ids.last().is_some_and(|&id| tokenizer.is_mark(id)) {
                    run = None;
                }
                let place = match (at_start, &run) {
                    (true, _) => Place::Start,
                    (false, None) => Place::AfterMark,
                    (false, Some(_)) => Place::AfterText,
                };
                let new = tokenizer.encode(text, place)?;
                let mut whole =
                    run.take().unwrap_or(Run { text: String::new(), place, start: ids.len() });
                whole.text += text;
                if place == Place::AfterText {
                    let uncut = tokenizer.encode(&whole.text, whole.place)?;
                    let same = uncut.iter().eq(ids[whole.start..].iter().chain(&new));
                    notes.seams |= u64::from(!same);
                }
                // Nothing stands behind a text without tokens.
                at_start &= new.is_empty();
                run = (!at_start).then_some(whole);
                new
            }
        };
        learnt.resize(learnt.len() + new.len(), part.learnt);
        ids.extend(new);
    }
    let begin = tokenizer.begin_mark().filter(|&mark| mark != tokenizer.end());
    let begins = ids.iter().filter(|&&id| Some(id) == begin).count();
    notes.doubled_begins = u64::from(begins > 1);
    Ok(Encoded { ids, learnt, notes })
}

/// A training text as tokens, with what is to be predicted of it.
///
/// # Errors
/// `Input`, naming the example, when the template or the tokenizer refuses it,
/// or when nothing of it is learnt.
pub fn sequence(tokenizer: &Tokenizer, example: &Example) -> Outcome<(Sequence, TextNotes)> {
    let prompt = Prompt { form: example.form.clone(), text: example.prompt.clone() };
    let Encoded { ids, learnt, notes } = encode(tokenizer, &prompt, Some(&example.completion))
        .map_err(|mut failure| {
            let hints = std::mem::take(&mut failure.hints);
            let what = format!("example `{}` cannot be tokenized", example.id);
            Failure { hints, ..Failure::input(what).caused_by(failure) }
        })?;
    // The first token of all is never predicted.
    let first_target = learnt.iter().skip(1).position(|&learnt| learnt).map(|at| at + 1);
    let first_target = first_target.ok_or_else(|| {
        Failure::input(format!("nothing is learnt of example `{}`", example.id))
            .hint("its completion is empty, or the template swallows it")
    })?;
    let mut skipped = Vec::new();
    let mut at = first_target;
    for run in learnt[first_target..].chunk_by(|a, b| a == b) {
        if !run[0] {
            skipped.push(at..at + run.len());
        }
        at += run.len();
    }
    Ok((Sequence { ids, first_target, skipped, weight: 1.0 }, notes))
}

#[cfg(test)]
mod tests;
