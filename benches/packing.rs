//! How full the parts of training steps are on the lengths of real examples.
//!
//! ```text
//! cargo bench --bench packing -- path/of/gsm8k/train.jsonl
//! ```
//!
//! For steps of 8, 32 and 128 examples, in the order in which a training sees
//! them: tokens as a share of what is computed when every example is padded to
//! the longest of its part, and of the room of all parts when examples are cut
//! by their number (`accumulate`) and by their length (`part-tokens`).

use rekindle::base::seed::Seed;
use rekindle::engine::batch::{Order, Pieces, cut};
use std::process::ExitCode;

/// Tokens that a part has room for.
const ROOM: usize = 2048;

/// Tokens of a question with its answer: a subword vocabulary of 32,000 has one for
/// about 3.6 characters of such texts; two marks more.
fn length(line: &str) -> Option<usize> {
    let row: serde_json::Value = serde_json::from_str(line).ok()?;
    let characters = |key: &str| Some(row[key].as_str()?.chars().count());
    let characters = characters("question")? + characters("answer")?;
    Some((characters as f64 / 3.6).round() as usize + 2)
}

/// Parts, the largest of them, tokens by the room of all, and by what padding would
/// make of them.
fn measure(lengths: &[usize], batch: usize, pieces: Pieces) -> (usize, usize, f64, f64) {
    let mut order = Order::new(Seed(1), lengths.len(), batch);
    let (mut parts, mut largest, mut tokens, mut padded) = (0, 0, 0, 0);
    for step in 0..order.steps_per_epoch() {
        let members: Vec<usize> = order.at(step).iter().map(|&i| lengths[i as usize]).collect();
        for part in cut(&members, |&n| n, pieces) {
            let sum: usize = part.iter().sum();
            parts += 1;
            largest = largest.max(sum);
            tokens += sum;
            padded += part.len() * part.iter().max().copied().unwrap_or(0);
        }
    }
    let room = (parts * ROOM.max(largest)) as f64;
    (parts, largest, tokens as f64 / room, tokens as f64 / padded as f64)
}

fn run() -> Result<String, String> {
    let path = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let path = path.ok_or("which file of examples? (`-- path/of/train.jsonl`)")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let lengths: Vec<usize> = text.lines().filter_map(length).collect();
    let longest = lengths.iter().max().ok_or_else(|| format!("{path}: no examples"))?;
    let mean = lengths.iter().sum::<usize>() / lengths.len();
    let mut out = format!(
        "{} examples of {mean} tokens on average, {longest} at most; room for {ROOM}\n\n\
         | step | cut | parts | largest | room used | with padding |\n|---|---|---|---|---|---|\n",
        lengths.len()
    );
    for batch in [8, 32, 128] {
        // As few parts of one number as stay within the room.
        let counts = (1..=batch).map(|n| (n, measure(&lengths, batch, Pieces::Count(n))));
        let by_number = counts.into_iter().find(|(_, (_, largest, ..))| *largest <= ROOM);
        let (count, found) = by_number.ok_or("an example is longer than the room")?;
        let by_length = measure(&lengths, batch, Pieces::Tokens(ROOM));
        for (what, (parts, largest, used, padding)) in [
            (format!("`accumulate = {count}`"), found),
            (format!("`part-tokens = {ROOM}`"), by_length),
        ] {
            let (used, padding) = (100.0 * used, 100.0 * padding);
            out += &format!(
                "| {batch} | {what} | {parts} | {largest} | {used:.1} % | {padding:.1} % |\n"
            );
        }
    }
    Ok(out)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is run for")]
fn main() -> ExitCode {
    match run() {
        Ok(table) => print!("{table}"),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
