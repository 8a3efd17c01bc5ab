//! Kind `word-problems`: nothing -> arithmetic word problems with worked
//! solutions, drills and comparisons, from a seed.
//!
//! All sets are disjoint in the numbers and operations of their problems (not
//! only in their words), and no drill works out a test problem's numbers; the
//! stage checks this once more on what it made, and fails rather than leak.

use crate::base::artifact::ArtifactKind;
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::seed::Rng;
use crate::base::spec::{Reading, Use, spec};
use crate::inference::reference::{compare_numbers, show, working};
use crate::record::protocol::Protocol;
use crate::record::{Example, Operation, Problem};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use std::collections::{BTreeMap, BTreeSet};

spec! {
    /// Makes arithmetic word problems: somebody has some things, gets and loses some, how many are
    /// there? Every number from 0 to `largest` is one word; every result on the way stays in that
    /// range.
    #[check(sensible)]
    pub struct WordProblems {
        /// Sets of problems and their sizes. No two problems of any sets share start and operations.
        problems: BTreeMap<String, u64>,
        /// Sets of drills and their sizes: bare expressions, worked out as the annotator does. None
        /// of them works out a problem of the sets in `held-out`.
        drills: BTreeMap<String, u64> = BTreeMap::new(),
        /// Sets of comparisons and their sizes: two numbers, how far apart, and the verdict.
        comparisons: BTreeMap<String, u64> = BTreeMap::new(),
        /// Sets of problems that no drill may touch.
        held_out: Vec<String> = vec!["test".to_owned()],
        /// Numbers of operations, each as likely as the others.
        operations: Vec<u64> = vec![2, 3],
        /// Largest number.
        largest: u64 = 20,
        /// Largest number that is added or taken away at once.
        operand: u64 = 9,
        /// Texts of drills and comparisons.
        protocol: Use<Protocol>,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<WordProblems>("word-problems", "dataset", 1, true);

const NAMES: [&str; 32] = [
    "sam", "ann", "tom", "eva", "ben", "lea", "max", "ida", "leo", "mia", "jon", "zoe", "kai", "amy",
    "rob", "sue", "dan", "liv", "tim", "una", "gus", "fay", "hal", "joy", "ned", "pam", "roy", "tia",
    "vic", "wes", "abe", "dot",
];
const THINGS: [&str; 30] = [
    "stones", "apples", "coins", "books", "shells", "cards", "eggs", "pens", "stamps", "beads", "cups",
    "nuts", "plums", "keys", "kites", "balls", "hats", "rings", "seeds", "toys", "maps", "pears",
    "spoons", "boxes", "leaves", "marbles", "tickets", "candles", "buttons", "ribbons",
];
const GAINS: [&str; 12] = [
    "buys", "finds", "gets", "picks", "wins", "makes", "adds", "earns", "borrows", "collects",
    "receives", "gathers",
];
const LOSSES: [&str; 12] = [
    "eats", "sells", "loses", "gives", "drops", "breaks", "lends", "throws", "spends", "hides",
    "mails", "burns",
];
/// How a story begins; `N` is the name, `S` the number, `T` the things.
const OPENINGS: [&str; 8] = [
    "N has S T .",
    "N starts with S T .",
    "at first N has S T .",
    "there are S T in the box of N .",
    "N owns S T .",
    "this morning N counts S T .",
    "N keeps S T at home .",
    "in the bag of N are S T .",
];
/// How a story ends.
const QUESTIONS: [&str; 6] = [
    "how many ?",
    "how many now ?",
    "how many are left ?",
    "how many T are there ?",
    "how many does N have ?",
    "what is the count now ?",
];
/// Tries for each item before the numbers are said to be used up.
const TRIES: u64 = 400;

/// A start and the operations on it.
type Tuple = (u64, Vec<(char, u64)>);

fn sensible(spec: &WordProblems, node: &Node, cx: &mut Reading) {
    if spec.operations.is_empty() || spec.operations.contains(&0) {
        cx.error(&node.origin, "`operations` must name at least one number, none of them 0");
    }
    if spec.largest < spec.operand || spec.operand == 0 {
        cx.error(&node.origin, "`operand` must be between 1 and `largest`");
    }
    for name in &spec.held_out {
        if !spec.problems.contains_key(name) && name != "test" {
            cx.error(&node.origin, format!("`held-out` names `{name}`, which is no set in `problems`"));
        }
    }
}

impl Stage for WordProblems {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        let problems = self.problems.keys().map(|name| (name.clone(), ArtifactKind::Problems));
        let examples = self.drills.keys().chain(self.comparisons.keys());
        problems.chain(examples.map(|name| (name.clone(), ArtifactKind::Examples))).collect()
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut used = BTreeSet::new();
        let mut held_out = BTreeSet::new();
        for (name, &count) in &self.problems {
            let mut rng = work.seed().derive("problems").derive(name).rng();
            let tuples = self.tuples(&mut rng, count, name, &mut used, &BTreeSet::new())?;
            if self.held_out.contains(name) {
                held_out.extend(tuples.iter().cloned());
            }
            let problems: Vec<Problem> = tuples
                .into_iter()
                .enumerate()
                .map(|(i, tuple)| tell(&mut rng, format!("{name}-{i}"), &tuple))
                .collect();
            work.output(name).write_rows("problems.jsonl", &problems)?;
        }
        for (name, &count) in &self.drills {
            let mut rng = work.seed().derive("drills").derive(name).rng();
            let tuples = self.tuples(&mut rng, count, name, &mut BTreeSet::new(), &held_out)?;
            if let Some(leak) = tuples.iter().find(|tuple| held_out.contains(tuple)) {
                return Err(Failure::bug(format!("drills leak the held-out problem {}", key(leak))));
            }
            let drills = tuples.iter().enumerate().map(|(i, tuple)| self.drill(name, i, tuple));
            work.output(name).write_rows("examples.jsonl", &drills.collect::<Vec<_>>())?;
        }
        for (name, &count) in &self.comparisons {
            let mut rng = work.seed().derive("comparisons").derive(name).rng();
            let rows: Vec<Example> = (0..count).map(|i| self.comparison(&mut rng, name, i)).collect();
            work.output(name).write_rows("examples.jsonl", &rows)?;
        }
        // `used` grew by one for every problem, or two sets share one.
        let wanted: u64 = self.problems.values().sum();
        if used.len() as u64 != wanted {
            return Err(Failure::bug(format!("{wanted} problems have {} number tuples", used.len())));
        }
        work.metric("problems", wanted as f64);
        Ok(())
    }
}

impl WordProblems {
    /// New tuples that are neither in `used` nor in `forbidden`; adds them to `used`.
    fn tuples(
        &self,
        rng: &mut Rng,
        count: u64,
        name: &str,
        used: &mut BTreeSet<Tuple>,
        forbidden: &BTreeSet<Tuple>,
    ) -> Outcome<Vec<Tuple>> {
        let mut tuples = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let fresh = (0..TRIES).find_map(|_| {
                let steps = *rng.choose(&self.operations);
                let tuple = self.tuple(rng, steps)?;
                let fresh = !forbidden.contains(&tuple) && used.insert(tuple.clone());
                fresh.then_some(tuple)
            });
            tuples.push(fresh.ok_or_else(|| {
                Failure::input(format!(
                    "set `{name}` wants {count} problems, and after {} of them new numbers are hard to find",
                    tuples.len()
                ))
                .hint("raise `largest`, allow more `operations`, or ask for fewer problems")
            })?);
        }
        Ok(tuples)
    }

    /// A random tuple; `None` when a result on the way leaves the range.
    fn tuple(&self, rng: &mut Rng, steps: u64) -> Option<Tuple> {
        let start = 1 + rng.below(self.largest as usize) as u64;
        let mut value = start;
        let mut operations = Vec::with_capacity(steps as usize);
        for _ in 0..steps {
            let operator = *rng.choose(&['+', '-']);
            let operand = 1 + rng.below(self.operand as usize) as u64;
            value = match operator {
                '+' => value + operand,
                _ => value.checked_sub(operand)?,
            };
            if value > self.largest {
                return None;
            }
            operations.push((operator, operand));
        }
        Some((start, operations))
    }

    fn drill(&self, name: &str, index: usize, tuple: &Tuple) -> Example {
        let question: Vec<String> = std::iter::once(tuple.0.to_string())
            .chain(tuple.1.iter().map(|(operator, operand)| format!("{operator} {operand}")))
            .collect();
        let prompt = self.protocol.feedback.replace("{question}", &question.join(" "));
        Example {
            id: format!("{name}-{index}"),
            prompt: without_reply(&prompt),
            completion: working(&solution(tuple)),
        }
    }

    /// A reply, what was found, and the verdict; the loss is on the difference and the verdict.
    fn comparison(&self, rng: &mut Rng, name: &str, index: u64) -> Example {
        let written = rng.below(self.largest as usize + 1) as i64;
        let found = match rng.below(4) {
            0 => written,
            1 => rng.below(self.largest as usize + 1) as i64,
            _ => (written + rng.below(7) as i64 - 3).clamp(0, self.largest as i64),
        };
        let verdict = match written == found {
            true => &self.protocol.correct,
            false => &self.protocol.incorrect,
        };
        let said = compare_numbers(Some(written as f64), found as f64);
        let (before, off) = said.split_once(" off ").unwrap_or((&said, ""));
        let reply = self.protocol.reply_with(&written.to_string());
        let prompt = self.protocol.feedback.replace("{reply}", &reply);
        Example {
            id: format!("{name}-{index}"),
            prompt: format!("{} {before}", without_question(&prompt)),
            completion: format!("off {off} ; {verdict}"),
        }
    }
}

/// The feedback template from the question on, without the part that shows a reply.
fn without_reply(prompt: &str) -> String {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let Some(hole) = words.iter().position(|word| *word == "{reply}") else {
        return words.join(" ");
    };
    let kept = words[..hole.saturating_sub(1)].iter().chain(&words[hole + 1..]);
    kept.copied().collect::<Vec<_>>().join(" ")
}

/// The feedback template without the part that shows the question.
fn without_question(prompt: &str) -> String {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    match words.iter().position(|word| *word == "{question}") {
        Some(hole) => words[hole + 1..].join(" "),
        None => words.join(" "),
    }
}

fn solution(tuple: &Tuple) -> Vec<Operation> {
    let mut value = tuple.0 as f64;
    let mut steps = Vec::with_capacity(tuple.1.len());
    for (index, &(operator, operand)) in tuple.1.iter().enumerate() {
        let left = match index {
            0 => show(value),
            _ => format!("#{}", index - 1),
        };
        value = if operator == '+' { value + operand as f64 } else { value - operand as f64 };
        steps.push(Operation { left, operator, right: operand.to_string(), result: value });
    }
    steps
}

fn key(tuple: &Tuple) -> String {
    let operations = tuple.1.iter().map(|(operator, operand)| format!("{operator}{operand}"));
    std::iter::once(tuple.0.to_string()).chain(operations).collect::<Vec<_>>().join(" ")
}

/// Puts numbers into a story.
fn tell(rng: &mut Rng, id: String, tuple: &Tuple) -> Problem {
    let (name, things) = (*rng.choose(&NAMES), *rng.choose(&THINGS));
    let start = tuple.0.to_string();
    let fill = |template: &str| {
        let words = template.split_whitespace().map(|word| match word {
            "N" => name,
            "S" => start.as_str(),
            "T" => things,
            other => other,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let (opening, question) = (*rng.choose(&OPENINGS), *rng.choose(&QUESTIONS));
    let mut text = fill(opening);
    for (index, (operator, operand)) in tuple.1.iter().enumerate() {
        let verb = rng.choose(if *operator == '+' { &GAINS } else { &LOSSES });
        let who = if index == 0 { name } else { "then" };
        text += &format!(" {who} {verb} {operand}");
    }
    text += " . ";
    text += &fill(question);
    let solution = solution(tuple);
    Problem {
        id,
        question: text,
        numbers: Vec::new(),
        gold: solution.last().map(|step| step.result),
        solution,
        fingerprint: key(tuple),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed::Seed;

    #[test]
    fn stories_are_whole_and_their_answers_right() {
        let mut rng = Seed(3).rng();
        let tuple = (15, vec![('-', 8), ('+', 3)]);
        for i in 0..200 {
            let problem = tell(&mut rng, format!("p-{i}"), &tuple);
            assert_eq!(problem.gold, Some(10.0));
            assert_eq!(problem.fingerprint, "15 -8 +3");
            assert!(problem.question.contains("15") && problem.question.ends_with('?'));
            assert!(!problem.question.split(' ').any(|word| ["N", "S", "T", ""].contains(&word)));
        }
    }

    #[test]
    fn templates_lose_the_part_that_a_drill_does_not_have() {
        assert_eq!(without_reply("Q: 1 + 2 R: {reply} F:"), "Q: 1 + 2 F:");
        assert_eq!(without_question("Q: {question} R: answer 3 F:"), "R: answer 3 F:");
    }
}
