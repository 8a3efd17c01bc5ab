//! Kind `word-problems`: nothing -> arithmetic word problems with worked
//! solutions, drills and comparisons, from a seed.
//!
//! All sets are disjoint in the numbers and operations of their problems (not
//! only in their words), and no drill works out a test problem's numbers; the
//! stage checks this once more on what it made, and fails rather than leak.
//!
//! The numbers of all sets are drawn together and then dealt out, so that every
//! set is as hard as the others: drawn one set after another, the first would
//! use up the short problems, of which there are few.

use crate::base::artifact::ArtifactKind;
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::seed::{Rng, Seed};
use crate::base::spec::{Reading, Use, spec};
use crate::inference::reference::{compare_numbers, show, working};
use crate::record::protocol::Protocol;
use crate::record::{Example, Operation, Problem};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use crate::store::spread::Range;
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
        /// Numbers of operations, each as likely as the others while four fifths of all problems of
        /// that length are enough; the longer ones make up for the rest, equally in every set.
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
pub const KIND: Kind = Kind::of::<WordProblems>("word-problems", "dataset", 2, true);

const NAMES: [&str; 32] = [
    "sam", "ann", "tom", "eva", "ben", "lea", "max", "ida", "leo", "mia", "jon", "zoe", "kai",
    "amy", "rob", "sue", "dan", "liv", "tim", "una", "gus", "fay", "hal", "joy", "ned", "pam",
    "roy", "tia", "vic", "wes", "abe", "dot",
];
const THINGS: [&str; 30] = [
    "stones", "apples", "coins", "books", "shells", "cards", "eggs", "pens", "stamps", "beads",
    "cups", "nuts", "plums", "keys", "kites", "balls", "hats", "rings", "seeds", "toys", "maps",
    "pears", "spoons", "boxes", "leaves", "marbles", "tickets", "candles", "buttons", "ribbons",
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
/// Tries for each item before the numbers are said to be used up. At four fifths
/// of all tuples, more than one try in thirty finds a new one.
const TRIES: u64 = 4000;

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
            cx.error(
                &node.origin,
                format!("`held-out` names `{name}`, which is no set in `problems`"),
            );
        }
    }
}

impl Stage for WordProblems {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        let problems = self.problems.keys().map(|name| (name.clone(), ArtifactKind::Problems));
        let examples = self.drills.keys().chain(self.comparisons.keys());
        problems.chain(examples.map(|name| (name.clone(), ArtifactKind::Examples))).collect()
    }

    fn foresee(&self, _: &Given) -> Option<Foreseen> {
        let of = |(name, &n): (&String, &u64)| {
            (name.clone(), foresight::problems(Range::exact(n as f64)))
        };
        Some(Foreseen { outputs: self.problems.iter().map(of).collect(), ..Foreseen::default() })
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let quotas = self.quotas(self.problems.values().sum())?;
        self.tell_shortage(work, &quotas);
        let sets = self.deal(work.seed().derive("numbers"), &quotas)?;
        let mut used = BTreeSet::new();
        let mut held_out = BTreeSet::new();
        for (name, tuples) in &sets {
            used.extend(tuples);
            if self.held_out.contains(name) {
                held_out.extend(tuples.iter().cloned());
            }
            let mut rng = work.seed().derive("stories").derive(name).rng();
            let problems: Vec<Problem> = tuples
                .iter()
                .enumerate()
                .map(|(i, tuple)| tell(&mut rng, format!("{name}-{i}"), tuple))
                .collect();
            work.output(name).write_rows("problems.jsonl", &problems)?;
        }
        for (name, &count) in &self.drills {
            let mut rng = work.seed().derive("drills").derive(name).rng();
            let mut tuples = Vec::with_capacity(count as usize);
            let mut known = held_out.clone();
            for _ in 0..count {
                let tuple = self.fresh(&mut rng, &self.operations, &mut known);
                tuples.push(tuple.ok_or_else(|| self.used_up(name, count, tuples.len() as u64))?);
            }
            if let Some(leak) = tuples.iter().find(|tuple| held_out.contains(tuple)) {
                return Err(Failure::bug(format!(
                    "drills leak the held-out problem {}",
                    key(leak)
                )));
            }
            let drills = tuples.iter().enumerate().map(|(i, tuple)| self.drill(name, i, tuple));
            work.output(name).write_rows("examples.jsonl", &drills.collect::<Vec<_>>())?;
        }
        for (name, &count) in &self.comparisons {
            let mut rng = work.seed().derive("comparisons").derive(name).rng();
            let rows: Vec<Example> =
                (0..count).map(|i| self.comparison(&mut rng, name, i)).collect();
            work.output(name).write_rows("examples.jsonl", &rows)?;
        }
        let wanted: u64 = self.problems.values().sum();
        if used.len() as u64 != wanted {
            return Err(Failure::bug(format!(
                "{wanted} problems have {} number tuples",
                used.len()
            )));
        }
        work.metric("problems", wanted as f64);
        for (name, tuples) in &sets {
            let all: usize = tuples.iter().map(|tuple| tuple.1.len()).sum();
            work.metric(&format!("operations-{name}"), all as f64 / tuples.len().max(1) as f64);
        }
        Ok(())
    }
}

impl WordProblems {
    /// Warns where there are too few short problems for an equal share.
    fn tell_shortage(&self, work: &Work, quotas: &[(u64, u64)]) {
        let wanted: u64 = self.problems.values().sum();
        for &(steps, quota) in quotas {
            if quota < wanted * self.share(steps) / self.operations.len() as u64 {
                work.warn(format!(
                    "only {quota} of {wanted} problems have {steps} operations: there are but {}",
                    self.capacity(steps)
                ));
            }
        }
    }

    /// How often a length stands in `operations`.
    fn share(&self, steps: u64) -> u64 {
        self.operations.iter().filter(|&&one| one == steps).count() as u64
    }

    /// The tuples of every set: no two alike, every set with the same mixture of lengths.
    fn deal(&self, seed: Seed, quotas: &[(u64, u64)]) -> Outcome<Vec<(&String, Vec<Tuple>)>> {
        let (mut rng, mut known, mut all) = (seed.rng(), BTreeSet::new(), Vec::new());
        for &(steps, quota) in quotas {
            for _ in 0..quota {
                let tuple = self.fresh(&mut rng, &[steps], &mut known);
                let wanted = quotas.iter().map(|(_, quota)| quota).sum();
                let lost = || self.used_up("problems", wanted, all.len() as u64);
                all.push(tuple.ok_or_else(lost)?);
            }
        }
        rng.shuffle(&mut all);
        let mut all = all.into_iter();
        let deal = |(name, &size): (_, &u64)| (name, all.by_ref().take(size as usize).collect());
        Ok(self.problems.iter().map(deal).collect())
    }

    /// How many problems of each length there shall be: equally many, but no more than four fifths
    /// of all that exist; what the short ones cannot give, the longer ones do.
    fn quotas(&self, wanted: u64) -> Outcome<Vec<(u64, u64)>> {
        let lengths: BTreeSet<u64> = self.operations.iter().copied().collect();
        let mut by_capacity: Vec<(u64, u64)> =
            lengths.into_iter().map(|steps| (self.capacity(steps), steps)).collect();
        by_capacity.sort_unstable();
        let (mut left, mut shares) = (wanted, self.operations.len() as u64);
        let mut quotas = Vec::new();
        for (capacity, steps) in by_capacity {
            let share = self.share(steps);
            let quota = (left * share).div_ceil(shares).min(capacity - capacity.div_ceil(5));
            quotas.push((steps, quota));
            left -= quota;
            shares -= share;
        }
        if left > 0 {
            return Err(self.used_up("problems", wanted, wanted - left));
        }
        Ok(quotas)
    }

    /// How many tuples with this many operations there are.
    fn capacity(&self, steps: u64) -> u64 {
        let largest = self.largest as usize;
        // How many ways lead to each value.
        let mut ways: Vec<u64> = (0..=largest).map(|value| u64::from(value > 0)).collect();
        for _ in 0..steps {
            let mut next = vec![0u64; largest + 1];
            for (value, &count) in ways.iter().enumerate() {
                for operand in 1..=self.operand as usize {
                    for to in [value.checked_add(operand), value.checked_sub(operand)] {
                        if let Some(slot) = to.and_then(|to| next.get_mut(to)) {
                            *slot = slot.saturating_add(count);
                        }
                    }
                }
            }
            ways = next;
        }
        ways.into_iter().fold(0, u64::saturating_add)
    }

    /// A tuple that is not in `known`, which it is added to.
    fn fresh(&self, rng: &mut Rng, lengths: &[u64], known: &mut BTreeSet<Tuple>) -> Option<Tuple> {
        (0..TRIES).find_map(|_| {
            let steps = *rng.choose(lengths);
            let tuple = self.tuple(rng, steps)?;
            known.insert(tuple.clone()).then_some(tuple)
        })
    }

    fn used_up(&self, name: &str, wanted: u64, found: u64) -> Failure {
        Failure::input(format!(
            "`{name}` wants {wanted} problems, and after {found} of them new numbers are hard to find"
        ))
        .hint("raise `largest`, allow more `operations`, or ask for fewer problems")
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
        self.protocol.example(
            format!("{name}-{index}"),
            self.protocol.message(without_reply(&prompt)),
            working(&solution(tuple)),
        )
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
        self.protocol.example(
            format!("{name}-{index}"),
            self.protocol.message(format!("{} {before}", without_question(&prompt))),
            format!("off {off} ; {verdict}"),
        )
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
        worked: None,
        fingerprint: key(tuple),
        labels: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn protocol() -> Protocol {
        Protocol {
            question: "Q: {question} A:".into(),
            feedback: "Q: {question} R: {reply} F:".into(),
            refined_marker: "refined:".into(),
            reply: "answer {answer}".into(),
            correct: "judgement correct".into(),
            incorrect: "judgement incorrect".into(),
            ..Protocol::empty()
        }
    }

    fn spec(operations: &[u64]) -> WordProblems {
        WordProblems {
            problems: BTreeMap::new(),
            drills: BTreeMap::new(),
            comparisons: BTreeMap::new(),
            held_out: Vec::new(),
            operations: operations.to_vec(),
            largest: 20,
            operand: 9,
            protocol: Use { name: None, value: protocol() },
        }
    }

    #[test]
    fn tuples_are_counted_as_they_are_drawn() {
        let small = WordProblems { largest: 3, operand: 2, ..spec(&[2]) };
        let (mut rng, mut known) = (Seed(1).rng(), BTreeSet::new());
        while let Some(tuple) = small.fresh(&mut rng, &[2], &mut known) {
            assert_eq!(tuple.1.len(), 2);
        }
        assert_eq!(known.len() as u64, small.capacity(2));
        assert_eq!([1, 2, 3].map(|steps| spec(&[2]).capacity(steps)), [279, 4008, 57429]);
    }

    #[test]
    fn lengths_are_equally_common_while_there_are_enough() {
        assert_eq!(spec(&[2, 3]).quotas(1000).expect("enough"), [(2, 500), (3, 500)]);
        assert_eq!(spec(&[2, 3, 3]).quotas(900).expect("enough"), [(2, 300), (3, 600)]);
        assert_eq!(spec(&[2, 3]).quotas(17_000).expect("enough"), [(2, 3206), (3, 13_794)]);
        let failure = spec(&[1, 2]).quotas(4000).expect_err("too many").to_string();
        assert!(failure.contains("4000") && failure.contains("3429"), "{failure}");
    }

    #[test]
    fn every_set_has_the_same_mixture_and_its_own_numbers() {
        let sizes =
            [("base", 6000), ("meta", 1000), ("pool1", 3000), ("pool3", 6000), ("test", 1000)];
        let problems = sizes.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
        let spec = WordProblems { problems, ..spec(&[2, 3]) };
        let quotas = spec.quotas(17_000).expect("enough");
        let sets = spec.deal(Seed(1), &quotas).expect("deals");
        let all: BTreeSet<&Tuple> = sets.iter().flat_map(|(_, tuples)| tuples).collect();
        assert_eq!(all.len(), 17_000);
        for ((name, tuples), (_, size)) in sets.iter().zip(sizes) {
            assert_eq!(tuples.len() as u64, size, "{name}");
            let short = tuples.iter().filter(|tuple| tuple.1.len() == 2).count() as f64;
            let share = short / tuples.len() as f64;
            assert!((share - 3206.0 / 17_000.0).abs() < 0.04, "{share} of `{name}` are short");
        }
    }

    #[test]
    fn templates_lose_the_part_that_a_drill_does_not_have() {
        assert_eq!(without_reply("Q: 1 + 2 R: {reply} F:"), "Q: 1 + 2 F:");
        assert_eq!(without_question("Q: {question} R: answer 3 F:"), "R: answer 3 F:");
    }
}
