//! Published data sets as problems: text in, rows out, nothing guessed. A row
//! that cannot be read is an error that names its line; a row without a way to
//! its answer is kept and counted, and the caller decides.
//!
//! Texts are brought into one style, that of the masked MAWPS files: lower
//! case, single blanks, punctuation apart, `number0` for the first number. Or
//! they stay as they were written, for models that read what people write.

mod equation;
mod instructions;
mod text;

use crate::base::failure::{Failure, Outcome};
use crate::base::hash::Digest;
use crate::base::spec::choice;
use crate::record::{Operation, Problem};
use equation::Term;
pub(crate) use instructions::fastchat_answers;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

choice! {
    /// How a file holds its problems.
    pub enum Format {
        /// One JSON list with `ID`, `Body`, `Question`, `Equation` (infix) and `Answer`.
        SvampJson = "svamp-json",
        /// Comma-separated with `Question` (masked), `Numbers`, `Equation` (prefix) and `Answer`.
        MawpsCsv = "mawps-csv",
        /// One JSON value a line with `question` and `answer`; gold follows `####`.
        Gsm8kJsonl = "gsm8k-jsonl",
        /// Questions of FastChat's judge, one JSON value a line with `question_id`, `category` and
        /// `turns`: Vicuna's 80, MT-bench. The first turn is asked, as written whatever `mask`
        /// says; there is no gold answer.
        FastchatJsonl = "fastchat-jsonl",
        /// Evol-Instruct's test set, one JSON value a line with `idx`, `Skill`, `Difficulty` and
        /// `Instruction`, as written whatever `mask` says; there is no gold answer.
        EvolInstructJsonl = "evol-instruct-jsonl",
        /// One JSON list with `instruction`, `input` and `output`, as of Stanford Alpaca, as written
        /// whatever `mask` says; there is no gold answer, the output is kept as a worked one.
        AlpacaJson = "alpaca-json",
        /// Problems as this program writes them, one JSON value a line.
        ProblemsJsonl = "problems-jsonl",
    }
}

/// How texts are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// In one style, numbers masked.
    Masked,
    /// As written, numbers too.
    Plain,
}

impl Style {
    /// A question as it is kept, and the numbers that were masked in it.
    fn question(self, text: &str) -> (String, Vec<f64>) {
        match self {
            Style::Masked => text::masked(text),
            Style::Plain => (text.trim().to_owned(), Vec::new()),
        }
    }
}

/// A way to the answer that misses it by more than this share is none.
const AGREES: f64 = 1e-3;

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Problems in the file's order.
    pub problems: Vec<Problem>,
    /// Remarkable rows, counted by what is remarkable.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Reads the text of a file.
///
/// # Errors
/// `Input`, naming the line (of JSON lists and tables: the row) and what is
/// wrong with it.
pub(crate) fn parse(format: Format, style: Style, text: &str) -> Outcome<Parsed> {
    let mut parsed = Parsed::default();
    match format {
        Format::SvampJson => svamp(text, style, &mut parsed)?,
        Format::MawpsCsv => mawps(text, style, &mut parsed)?,
        Format::Gsm8kJsonl => gsm8k(text, style, &mut parsed)?,
        Format::FastchatJsonl => instructions::fastchat(text, &mut parsed)?,
        Format::EvolInstructJsonl => instructions::evol_instruct(text, &mut parsed)?,
        Format::AlpacaJson => instructions::alpaca(text, &mut parsed)?,
        Format::ProblemsJsonl => parsed.problems = lines(text)?,
    }
    let mut seen = BTreeSet::new();
    for problem in &parsed.problems {
        if !seen.insert(&problem.id) {
            return Err(Failure::input(format!("two problems are called `{}`", problem.id)));
        }
    }
    let bare = parsed.problems.iter().filter(|problem| problem.solution.is_empty()).count();
    parsed.counts.insert("without-solution", bare as u64);
    Ok(parsed)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SvampRow {
    #[serde(rename = "ID")]
    id: String,
    body: String,
    question: String,
    equation: String,
    answer: f64,
}

/// Body and question are joined by a blank and by nothing else, also where the
/// body has no full stop: in a third of the rows the question goes on with its
/// sentence.
fn svamp(text: &str, style: Style, out: &mut Parsed) -> Outcome<()> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| Failure::input("the file is no JSON list").caused_by(error))?;
    for (index, row) in rows.into_iter().enumerate() {
        let at = |what: String| Failure::input(format!("problem {}: {what}", index + 1));
        let row: SvampRow = serde_json::from_value(row).map_err(|error| at(error.to_string()))?;
        let joined = format!("{} {}", row.body.trim(), row.question.trim());
        let (question, numbers) = style.question(&joined);
        let mut term = equation::infix(&row.equation).map_err(&at)?;
        match style {
            Style::Masked => term.name_numbers(&numbers),
            Style::Plain => term.spell_out(&[]),
        }
        let id = row.id.strip_prefix("chal-").map_or(row.id.clone(), |n| format!("svamp-{n}"));
        let solution = solution(&term, &numbers, row.answer, out);
        out.problems.push(problem(id, question, numbers, row.answer, solution));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MawpsRow {
    question: String,
    numbers: String,
    equation: String,
    answer: f64,
}

fn mawps(text: &str, style: Style, out: &mut Parsed) -> Outcome<()> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers =
        reader.headers().map_err(|error| Failure::input("reading the header").caused_by(error))?;
    for wanted in ["Question", "Numbers", "Equation", "Answer"] {
        if !headers.iter().any(|name| name == wanted) {
            return Err(Failure::input(format!("line 1: there is no column `{wanted}`")));
        }
    }
    let headers = headers.clone();
    for (index, record) in reader.records().enumerate() {
        // The errors of the reader name their line.
        let record = record
            .map_err(|error| Failure::input(format!("row {}", index + 1)).caused_by(error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let at = |what: String| Failure::input(format!("line {line}: {what}"));
        let row: MawpsRow =
            record.deserialize(Some(&headers)).map_err(|error| at(error.to_string()))?;
        let numbers = row
            .numbers
            .split_whitespace()
            .map(|word| word.parse::<f64>().ok().filter(|value| value.is_finite()))
            .collect::<Option<Vec<f64>>>()
            .ok_or_else(|| at(format!("`{}` are not all numbers", row.numbers)))?;
        let mut term = equation::prefix(&row.equation).map_err(&at)?;
        term.check(numbers.len()).map_err(&at)?;
        if style == Style::Plain {
            term.spell_out(&numbers);
        }
        let solution = solution(&term, &numbers, row.answer, out);
        // Answers are rounded in the file; what the solution comes to is not.
        let gold = solution.last().map_or(row.answer, |step| step.result);
        if gold != row.answer {
            *out.counts.entry("gold-unrounded").or_default() += 1;
        }
        let id = format!("mawps-{}", index + 1);
        let (question, numbers) = match style {
            Style::Masked => (text::tidied(&row.question), numbers),
            Style::Plain => (text::unmasked(&row.question, &numbers), Vec::new()),
        };
        out.problems.push(problem(id, question, numbers, gold, solution));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Gsm8kRow {
    question: String,
    answer: String,
}

fn gsm8k(text: &str, style: Style, out: &mut Parsed) -> Outcome<()> {
    for (index, row) in lines::<Gsm8kRow>(text)?.into_iter().enumerate() {
        let line = index + 1;
        let at = |what: String| Failure::input(format!("line {line}: {what}"));
        let (worked, written) = row
            .answer
            .rsplit_once("####")
            .ok_or_else(|| at("the answer has no `####` before its last number".to_owned()))?;
        let bare: String = written.trim().chars().filter(|c| !matches!(c, ',' | '$')).collect();
        let gold: f64 =
            bare.parse().map_err(|_| at(format!("`{}` is no number", written.trim())))?;
        let (question, numbers) = style.question(&row.question);
        let id = format!("gsm8k-{line}");
        let plain = style == Style::Plain;
        let solution = if plain { calculations(worked, gold) } else { Vec::new() };
        let mut one = problem(id, question, numbers, gold, solution);
        one.worked = plain.then(|| text::without_calculations(worked).trim().to_owned());
        out.problems.push(one);
    }
    Ok(())
}

/// The steps that the calculator's marks in a worked solution name
/// (`<<48/2=24>>`), or none where they cannot be followed to the answer.
fn calculations(worked: &str, gold: f64) -> Vec<Operation> {
    let mut steps: Vec<Operation> = Vec::new();
    for mark in worked.split("<<").skip(1) {
        let Some((left, right)) = mark.split(">>").next().and_then(|m| m.split_once('=')) else {
            return Vec::new();
        };
        let spaced: String = left
            .chars()
            .flat_map(|c| if "+-*/".contains(c) { vec![' ', c, ' '] } else { vec![c] })
            .collect();
        let (Ok(term), Ok(result)) = (equation::infix(&spaced), right.trim().parse::<f64>()) else {
            return Vec::new();
        };
        let first = steps.len();
        for mut step in term.steps(&[]) {
            // Steps of one mark count from its own first.
            for operand in [&mut step.left, &mut step.right] {
                if let Some(Ok(index)) = operand.strip_prefix('#').map(str::parse::<usize>) {
                    *operand = format!("#{}", first + index);
                }
            }
            steps.push(step);
        }
        let agrees = |a: f64, b: f64| (a - b).abs() <= AGREES * b.abs().max(1.0);
        if !steps.last().is_some_and(|step| agrees(step.result, result)) {
            return Vec::new();
        }
    }
    let follows = steps.last().is_some_and(|step| step.result == gold);
    if follows { steps } else { Vec::new() }
}

/// One JSON value a line; empty lines at the end are none.
fn lines<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<Vec<T>> {
    text.trim_end()
        .lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| Failure::input(format!("line {}", index + 1)).caused_by(error))
        })
        .collect()
}

/// The steps of an equation, or none where they miss the answer.
fn solution(term: &Term, numbers: &[f64], answer: f64, out: &mut Parsed) -> Vec<Operation> {
    let steps = term.steps(numbers);
    let agrees = |step: &Operation| (step.result - answer).abs() <= AGREES * answer.abs().max(1.0);
    match steps.last() {
        Some(last) if !agrees(last) => {
            *out.counts.entry("solution-misses-answer").or_default() += 1;
            Vec::new()
        }
        _ => steps,
    }
}

fn problem(
    id: String,
    question: String,
    numbers: Vec<f64>,
    gold: f64,
    solution: Vec<Operation>,
) -> Problem {
    // Masked, two questions that differ in their numbers only are one.
    let fingerprint = fingerprint(&text::masked(&question).0);
    let (worked, labels) = (None, BTreeMap::new());
    Problem { id, question, numbers, gold: Some(gold), solution, worked, fingerprint, labels }
}

/// What two questions share that are one.
fn fingerprint(text: &str) -> String {
    Digest::of_blob(text.as_bytes()).short()
}

#[cfg(test)]
mod tests;
