//! Instruction sets: questions that have no one right answer. They are kept as
//! they are written, numbers and capitals too, with the data set's own word for
//! what kind of question each is.
//!
//! Knows nothing of who answers them or how answers are judged.

use super::{Parsed, fingerprint, lines, text};
use crate::base::failure::{Failure, Outcome};
use crate::record::Problem;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct FastchatRow {
    question_id: serde_json::Value,
    category: String,
    turns: Vec<String>,
}

/// Questions of FastChat's judge. Later turns are left out and counted: what
/// they ask leans on a reply to the first.
pub(super) fn fastchat(text: &str, out: &mut Parsed) -> Outcome<()> {
    for (index, row) in lines::<FastchatRow>(text)?.into_iter().enumerate() {
        let [first, further @ ..] = row.turns.as_slice() else {
            return Err(Failure::input(format!("line {}: `turns` is empty", index + 1)));
        };
        if !further.is_empty() {
            *out.counts.entry("further-turns-left-out").or_default() += 1;
        }
        let labels = [("category", row.category)];
        out.problems.push(instruction(question_id(&row.question_id), first, labels, None));
    }
    Ok(())
}

/// The name of a question of FastChat's judge, in its questions and in the
/// files of replies to them: `question-81`.
fn question_id(id: &serde_json::Value) -> String {
    match id.as_str() {
        Some(text) => format!("question-{text}"),
        None => format!("question-{id}"),
    }
}

#[derive(Deserialize)]
struct AnswerRow {
    question_id: serde_json::Value,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    turns: Vec<String>,
}

/// Replies in FastChat's files of answers, by the name of their question: the
/// first turn of the first choice.
///
/// # Errors
/// `Input`, naming the line, where one holds no reply or a question has two.
pub(crate) fn fastchat_answers(text: &str) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (index, row) in lines::<AnswerRow>(text)?.into_iter().enumerate() {
        let at = |what: &str| Failure::input(format!("line {}: {what}", index + 1));
        let choice = row.choices.into_iter().next();
        let reply = choice.and_then(|choice| choice.turns.into_iter().next());
        let reply = reply.ok_or_else(|| at("there is no first turn of a first choice"))?;
        let id = question_id(&row.question_id);
        if found.insert(id.clone(), reply).is_some() {
            return Err(at(&format!("a second reply to `{id}`")));
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EvolRow {
    #[serde(rename = "idx")]
    id: u64,
    skill: String,
    difficulty: u64,
    instruction: String,
}

pub(super) fn evol_instruct(text: &str, out: &mut Parsed) -> Outcome<()> {
    for row in lines::<EvolRow>(text)? {
        // Two digits, so that words sort as numbers do.
        let labels =
            [("category", row.skill), ("difficulty", format!("{:02} of 10", row.difficulty))];
        let id = format!("evol-{}", row.id);
        out.problems.push(instruction(id, &row.instruction, labels, None));
    }
    Ok(())
}

#[derive(Deserialize)]
struct AlpacaRow {
    instruction: String,
    #[serde(default)]
    input: String,
    #[serde(default)]
    output: String,
}

/// Instruction and input are joined by an empty line.
pub(super) fn alpaca(text: &str, out: &mut Parsed) -> Outcome<()> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| Failure::input("the file is no JSON list").caused_by(error))?;
    for (index, row) in rows.into_iter().enumerate() {
        let row: AlpacaRow = serde_json::from_value(row)
            .map_err(|error| Failure::input(format!("instruction {}: {error}", index + 1)))?;
        let asked = match row.input.trim() {
            "" => row.instruction.trim().to_owned(),
            input => format!("{}\n\n{input}", row.instruction.trim()),
        };
        let worked = Some(row.output.trim().to_owned()).filter(|text| !text.is_empty());
        out.problems.push(instruction(format!("alpaca-{}", index + 1), &asked, [], worked));
    }
    Ok(())
}

fn instruction<const N: usize>(
    id: String,
    question: &str,
    labels: [(&str, String); N],
    worked: Option<String>,
) -> Problem {
    let question = question.trim().to_owned();
    Problem {
        id,
        numbers: Vec::new(),
        gold: None,
        solution: Vec::new(),
        worked,
        // Numbers matter in instructions, capitals and blanks do not.
        fingerprint: fingerprint(&text::tidied(&question)),
        labels: BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value))),
        question,
    }
}
