//! Kind `self-instruct`: problems and a model -> problems of the model's own
//! making, none too like another one, and a tally of what was dropped and why.
//! Randomness: which problems are shown, and sampling; one seed for each request.
//!
//! Requests go out in waves; a wave is as large as what is missing, and no
//! request depends on another one of its wave, so that any of them can be
//! gone on from.
//!
//! # Source
//! Wang et al., Self-Instruct, arXiv 2212.10560: examples shown, likeness by
//! ROUGE-L. Lu et al., SELF, arXiv 2310.00533, makes the questions of its second
//! and third rounds so.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::seed::Seed;
use crate::base::spec::{Reading, Ref, Use, choice, spec};
use crate::base::text;
use crate::inference::local::Manner;
use crate::inference::voice::Voice;
use crate::record::protocol::Protocol;
use crate::record::rouge::Pool;
use crate::record::template::Prompt;
use crate::record::{Problem, Tally};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::speaking::{self, BATCH, Said, Speaker, sampled_at};
use crate::stages::work::Work;
use crate::store::spread::Range;
use std::ops::RangeInclusive;

choice! {
    /// What a new question must be.
    pub enum Form {
        /// Any text.
        Any = "any",
        /// It holds a number and ends in a question mark.
        WordProblem = "word-problem",
    }
}

const PROMPT: &str = "Here are some problems:\n\
    \n\
    {examples}\n\
    \n\
    Write {number} new problems of this kind. Each must differ from all others in its story, its \
    numbers and the steps it takes, and have one number as its answer. Number them as above and \
    write the problems only, without answers.";

spec! {
    /// Lets a model make up new problems after examples: asks again and again until there are
    /// enough, drops what has the wrong form or is too like a problem there is already, and counts
    /// everything. Gives `problems`, without gold answers, and `tally`.
    #[check(sensible)]
    pub struct SelfInstruct {
        /// Model that writes.
        model: Voice,
        /// Problems that examples are drawn from; new ones must differ from all of them.
        seeds: Ref<Problems>,
        /// More problems that new ones must differ from: other pools, and test sets.
        known: Vec<Ref<Problems>> = Vec::new(),
        /// Its template; its texts are not used.
        protocol: Use<Protocol>,
        /// What the model is asked. Holes: `{examples}`, a numbered list; `{number}`, how many new
        /// ones are asked for.
        prompt: String = PROMPT.to_owned(),
        /// New problems wanted.
        count: u64,
        /// Fewer new problems than this are a failure, so many or more a warning.
        least: u64 = 1,
        /// Examples shown in a request.
        shown: u64 = 8,
        /// New problems asked for in a request. One is the whole reply; several are read as a
        /// numbered list.
        asked: u64 = 8,
        /// Most requests, as a multiple of how many it would take if every reply were of use.
        patience: u64 = 4,
        /// ROUGE-L of two problems from which on they are too like.
        similarity: f64 = 0.7,
        /// Fewest words of a problem.
        min_words: u64 = 8,
        /// Most words of a problem.
        max_words: u64 = 150,
        /// What a problem must look like.
        form: Form = Form::WordProblem,
        /// Softmax temperature; 0 is greedy.
        temperature: f64 = 0.7,
        /// Sample from so many of the likeliest tokens only; 0 is from all.
        top_k: u64 = 0,
        /// Sample from the fewest of the likeliest tokens that have this share of the probability.
        top_p: f64 = 1.0,
        /// Most tokens of a reply.
        max_tokens: u64 = 1024,
    }
}

fn sensible(spec: &SelfInstruct, node: &Node, cx: &mut Reading) {
    speaking::check_sampling(spec.top_p, node, cx);
    speaking::check_server(&spec.model, spec.top_k, false, node, cx);
    let mut complain = |field: &str, why: &str| {
        cx.error(&node.at([field]).unwrap_or(node).origin, why);
    };
    if !spec.prompt.contains("{examples}") {
        complain("prompt", "`prompt` has no `{examples}`");
    }
    for (field, value) in [
        ("count", spec.count),
        ("shown", spec.shown),
        ("asked", spec.asked),
        ("patience", spec.patience),
    ] {
        if value == 0 {
            complain(field, &format!("`{field}` must be at least 1"));
        }
    }
    if spec.least > spec.count {
        complain("least", "`least` is more than `count`");
    }
    if spec.min_words > spec.max_words {
        complain("min-words", "`min-words` is more than `max-words`");
    }
    if !(spec.similarity > 0.0 && spec.similarity <= 1.0) {
        complain("similarity", "`similarity` must be above 0 and at most 1");
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<SelfInstruct>("self-instruct", "stage", 1, true);

impl Stage for SelfInstruct {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("problems".into(), ArtifactKind::Problems), ("tally".into(), ArtifactKind::Tally)]
    }

    fn needs_device(&self) -> bool {
        self.model.server().is_none()
    }

    fn outlay(&self) -> Outlay {
        speaking::outlay(&self.model)
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let seeds = given.one("seeds")?;
        let least = self.count.div_ceil(self.asked) as f64;
        let requests = Range {
            low: least,
            middle: least * (self.patience as f64).min(2.0),
            high: least * self.patience as f64,
        };
        let mut all = Foreseen::default();
        let prompt = foresight::prompt(&[seeds.question.times(self.shown as f64)]);
        all.says(&self.model, given, requests, prompt, self.max_tokens)?;
        let count = self.count as f64;
        let items = Range { low: self.least as f64, middle: count, high: count };
        Some(all.with("problems", foresight::problems(items)))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let seeds: Vec<Problem> = work.input("seeds")?.rows("problems.jsonl")?;
        if seeds.is_empty() {
            return Err(Failure::input("there are no problems to show as examples")
                .hint("`seeds` must be a set that holds some"));
        }
        let mut sieve = self.sieve();
        seeds.iter().for_each(|problem| sieve.pool.add(&problem.question));
        for input in work.inputs("known") {
            let known: Vec<Problem> = input.rows("problems.jsonl")?;
            known.iter().for_each(|problem| sieve.pool.add(&problem.question));
        }
        let speaker = Speaker::new(work, &self.model)?;
        let mut left = self.count.div_ceil(self.asked).saturating_mul(self.patience);
        let mut requests = 0;
        for wave in 0u64.. {
            let size = sieve.missing().div_ceil(self.asked).min(left);
            if size == 0 {
                break;
            }
            left -= size;
            requests += size;
            let topic = format!("wave {wave}");
            let seed = work.seed().derive(&topic);
            let prompts: Vec<Prompt> = (0..size)
                .map(|index| self.request(&seeds, seed.derive("shown").at(index)))
                .collect();
            for said in speaker.ask(&topic, &prompts, seed, &self.manner())? {
                sieve.sift(&said);
            }
        }
        let Sieve { made, mut tally, .. } = sieve;
        let (wanted, got) = (text::count(self.count), text::count(made.len() as u64));
        if made.len() < usize::try_from(self.least).unwrap_or(usize::MAX) {
            let dropped: Vec<String> =
                tally.dropped.iter().map(|(why, n)| format!("{n} {why}")).collect();
            return Err(Failure::input(format!(
                "{got} new problems of {wanted} came out of {} ({})",
                text::plural(requests, "request"),
                text::list(dropped.iter().map(String::as_str))
            ))
            .hint("`patience` allows more requests, `least` fewer problems; or look at `prompt`"));
        }
        if (made.len() as u64) < self.count {
            work.warn(format!(
                "{got} new problems of {wanted}; `patience` allows no more requests"
            ));
        }
        work.metric("requests", requests as f64);
        work.metric("generated-tokens", tally.tokens.written as f64);
        tally.kept = made.len() as u64;
        tally.without_gold = tally.seen;
        tally.kept_without_gold = tally.kept;
        work.output("problems").write_rows("problems.jsonl", &made)?;
        work.output("tally").write_json("tally.json", &tally)
    }
}

impl SelfInstruct {
    fn manner(&self) -> Manner {
        Manner {
            sampling: sampled_at(self.temperature, self.top_k, self.top_p),
            max_tokens: self.max_tokens as usize,
            stop: None,
            logprob: false,
            batch: BATCH,
        }
    }

    /// One request, with examples drawn without repeats.
    fn request(&self, seeds: &[Problem], seed: Seed) -> Prompt {
        let mut rng = seed.rng();
        let mut places: Vec<usize> = (0..seeds.len()).collect();
        let shown = usize::try_from(self.shown).unwrap_or(usize::MAX).min(places.len());
        // The first places of a shuffle, without shuffling the rest.
        for at in 0..shown {
            let other = at + rng.below(places.len() - at);
            places.swap(at, other);
        }
        let example = |(number, place): (usize, &usize)| {
            format!("{number}. {}", one_line(&seeds[*place].question))
        };
        let examples: Vec<String> = (1..).zip(&places[..shown]).map(example).collect();
        let text = self.prompt.replace("{number}", &self.asked.to_string());
        self.protocol.message(text.replace("{examples}", &examples.join("\n")))
    }

    fn sieve(&self) -> Sieve {
        Sieve {
            count: self.count,
            listed: self.asked > 1,
            similarity: self.similarity,
            words: self.min_words..=self.max_words,
            form: self.form,
            pool: Pool::default(),
            made: Vec::new(),
            tally: Tally::default(),
        }
    }
}

/// What is of use, and what was dropped.
struct Sieve {
    count: u64,
    listed: bool,
    similarity: f64,
    words: RangeInclusive<u64>,
    form: Form,
    /// All problems that new ones must differ from, the new ones too.
    pool: Pool,
    made: Vec<Problem>,
    tally: Tally,
}

impl Sieve {
    /// Problems that are still wanted.
    fn missing(&self) -> u64 {
        self.count - self.made.len() as u64
    }

    /// Takes what is of use out of a reply, and counts the rest.
    fn sift(&mut self, said: &Said) {
        self.tally.tokens += said.tokens;
        let items = match self.listed {
            false => vec![unnumbered(&one_line(&said.text)).to_owned()],
            true => listed(&said.text),
        };
        if items.is_empty() {
            self.tally.seen += 1;
            self.drop("no list");
        }
        let last = items.len().saturating_sub(1);
        for (place, question) in items.into_iter().enumerate() {
            self.tally.seen += 1;
            if let Some(why) = self.unfit(&question, said.cut && place == last) {
                self.drop(why);
                continue;
            }
            self.pool.add(&question);
            self.made.push(Problem {
                id: format!("made-{}", self.made.len()),
                question,
                numbers: Vec::new(),
                gold: None,
                solution: Vec::new(),
                worked: None,
                fingerprint: String::new(),
                labels: Default::default(),
            });
        }
    }

    fn drop(&mut self, why: &str) {
        *self.tally.dropped.entry(why.to_owned()).or_default() += 1;
    }

    /// Why a text is no new problem, if it is none.
    fn unfit(&mut self, question: &str, cut: bool) -> Option<&'static str> {
        let words = question.split_whitespace().count() as u64;
        let is_number = |word: &str| word.contains(|c: char| c.is_ascii_digit());
        let is_problem = self.form == Form::WordProblem;
        if self.missing() == 0 {
            Some("more than wanted")
        } else if cut {
            Some("cut off")
        } else if words < *self.words.start() {
            Some("too short")
        } else if words > *self.words.end() {
            Some("too long")
        } else if is_problem && !question.ends_with('?') {
            Some("not a question")
        } else if is_problem && !question.split_whitespace().any(is_number) {
            Some("no number")
        } else {
            self.pool.like(question, self.similarity).map(|_| "too like another")
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line without the number it may begin with: `3. `, `3) `, `3: `.
fn unnumbered(line: &str) -> &str {
    number_of(line).map_or(line, str::trim_start)
}

/// What is behind the number that a line begins with.
fn number_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix(['.', ')', ':']).filter(|_| rest.len() < line.len())?;
    // `1.5 apples` is no item of a list.
    rest.starts_with(char::is_whitespace).then_some(rest)
}

/// The items of a numbered list, each on one line. What stands before the
/// first and behind a blank line is none of them.
fn listed(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if let Some(rest) = number_of(line) {
            items.push(one_line(rest));
            open = true;
        } else if line.trim().is_empty() {
            open = false;
        } else if let (true, Some(item)) = (open, items.last_mut()) {
            *item = one_line(&format!("{item} {line}"));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tokens;

    fn sieve(count: u64, listed: bool) -> Sieve {
        let mut pool = Pool::default();
        pool.add("Tom has 3 apples and buys 4 more. How many apples has Tom?");
        Sieve {
            count,
            listed,
            similarity: 0.7,
            words: 4..=20,
            form: Form::WordProblem,
            pool,
            made: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn said(text: &str, cut: bool) -> Said {
        Said { text: text.to_owned(), tokens: Tokens { read: 5, written: 7 }, logprob: None, cut }
    }

    #[test]
    fn new_problems_fit_and_differ_and_everything_else_is_counted() {
        let mut sieve = sieve(2, true);
        sieve.sift(&said("I cannot do that.", false));
        sieve.sift(&said(
            "1. Tom has 5 apples and buys 6 more. How many apples has Tom?\n\
             2. A train goes 60 miles in an hour. How far in 3 hours?\n\
             3. A train goes 70 miles in an hour. How far in 4 hours?\n\
             4. How many?\n\
             5. Ann likes trees and birds. Which of them more?\n\
             6. Ann buys 4 trees and plants them.\n\
             7. Ann plants 4 trees each day of a",
            true,
        ));
        assert_eq!(sieve.missing(), 1);
        sieve.sift(&said("1. Each of 3 hens lays 2 eggs a week. How many eggs in 5 weeks?", false));
        sieve.sift(&said("1. A book of 90 pages is read in 6 days. How many pages a day?", false));
        let made: Vec<&str> = sieve.made.iter().map(|problem| problem.id.as_str()).collect();
        assert_eq!(made, ["made-0", "made-1"]);
        let want = [
            ("cut off", 1),
            ("more than wanted", 1),
            ("no list", 1),
            ("no number", 1),
            ("not a question", 1),
            ("too like another", 2),
            ("too short", 1),
        ];
        let got: Vec<(&str, u64)> =
            sieve.tally.dropped.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        assert_eq!(got, want);
        assert_eq!(sieve.tally.seen, 10);
        assert_eq!(sieve.tally.tokens.written, 28);
    }

    #[test]
    fn one_problem_a_request_is_the_whole_reply() {
        let mut sieve = sieve(1, false);
        sieve.sift(&said("3. Each of 3 hens lays\n2 eggs. How many eggs?", false));
        assert_eq!(sieve.made[0].question, "Each of 3 hens lays 2 eggs. How many eggs?");
    }

    #[test]
    fn lists_are_read_item_by_item() {
        let text = "Sure!\n1. Tom has 3 pens.\n   How many?\n\n2) Ann has 1.5 l.\n1.5 more. How much?\nbye\n\nDone.\n10: Last one?";
        let want =
            ["Tom has 3 pens. How many?", "Ann has 1.5 l. 1.5 more. How much? bye", "Last one?"];
        assert_eq!(listed(text), want);
        assert_eq!(listed("no list at all"), Vec::<String>::new());
        assert_eq!(unnumbered("7. Tom has 3?"), "Tom has 3?");
        assert_eq!(unnumbered("7 pens"), "7 pens");
    }
}
