//! Kind `leak-check`: test sets, and what models learn from -> the same test
//! sets, and which of their items stand in the training data. What is read
//! through it cannot be scored before it is known to be clean.

use crate::base::artifact::{ArtifactKind, Examples, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, choice, spec};
use crate::base::text;
use crate::record::runs::Finder;
use crate::record::{Example, Leak, Leaks, Problem, TestSet};
use crate::stages::foresight::{Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use std::collections::{BTreeMap, BTreeSet};

choice! {
    /// What becomes of test items that stand in training data.
    pub enum Found {
        /// Nothing goes on; the first of them are named.
        Refuse = "refuse",
        /// They are left out of the test sets.
        Drop = "drop",
        /// They stay, and the report counts and names them.
        Report = "report",
    }
}

spec! {
    /// Looks for test items in training data: for whole questions, and for runs of words that both
    /// have. Passes every test set on under its name, and gives `leaks`, which items were found
    /// where. Evaluations that read a test set from here wait until it is known to be clean.
    #[check(sensible)]
    pub struct LeakCheck {
        /// Test sets; each is an output of its name.
        tests: BTreeMap<String, Ref<Problems>>,
        /// Problems that models are trained on, or that training data is made of.
        problems: Vec<Ref<Problems>> = Vec::new(),
        /// Training texts.
        examples: Vec<Ref<Examples>> = Vec::new(),
        /// Length in words of a run that is a leak; a shorter question is looked for whole.
        words: u64 = 13,
        /// Smallest share of a question's runs that one text must have for a leak; 0 is any run.
        share: f64 = 0.0,
        /// What becomes of items that were found.
        found: Found = Found::Refuse,
    }
}

fn sensible(check: &LeakCheck, node: &Node, cx: &mut Reading) {
    let mut complain = |field: &str, why: &str| {
        cx.error(&node.at([field]).unwrap_or(node).origin, why);
    };
    if check.tests.is_empty() {
        complain("tests", "`tests` is empty");
    }
    if check.tests.contains_key(LEAKS) {
        complain("tests", "`leaks` is the name of another output; call the test set otherwise");
    }
    if check.problems.is_empty() && check.examples.is_empty() {
        complain("problems", "there is nothing to look in: give `problems` or `examples`");
    }
    if check.words == 0 {
        complain("words", "`words` must be at least 1");
    }
    if !(0.0..=1.0).contains(&check.share) {
        complain("share", "`share` is between 0 and 1");
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<LeakCheck>("leak-check", "stage", 1, false);

/// The output that says what was found.
const LEAKS: &str = "leaks";

impl Stage for LeakCheck {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        let tests = self.tests.keys().map(|name| (name.clone(), ArtifactKind::Problems));
        tests.chain([(LEAKS.to_owned(), ArtifactKind::Leaks)]).collect()
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let of = |name: &String| Some((name.clone(), given.one(&format!("tests.{name}"))?));
        let outputs = self.tests.keys().map(of).collect::<Option<Vec<_>>>()?;
        Some(Foreseen { outputs, ..Foreseen::default() })
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut finder = Finder::of(usize::try_from(self.words).unwrap_or(usize::MAX));
        let (mut sets, mut owners) = (Vec::new(), Vec::new());
        for name in self.tests.keys() {
            let problems: Vec<Problem> =
                work.input(&format!("tests.{name}"))?.rows("problems.jsonl")?;
            for problem in &problems {
                finder.add(&problem.question);
                owners.push((name.as_str(), problem.id.clone()));
            }
            sets.push((name.as_str(), problems));
        }
        let (best, share) = (BTreeMap::new(), self.share);
        let mut search = Search { finder, owners, share, best, texts: 0 };
        for (place, input) in work.inputs("problems").into_iter().enumerate() {
            for problem in input.rows::<Problem>("problems.jsonl")? {
                search.look(&format!("problems.{place}"), &problem.id, &problem.question);
                work.check()?;
            }
        }
        for (place, input) in work.inputs("examples").into_iter().enumerate() {
            for example in input.rows::<Example>("examples.jsonl")? {
                // What was said before stands in the form; all of it is learnt from or read.
                let turns = example.form.turns.iter().flat_map(|turn| [&turn.user, &turn.reply]);
                let parts: Vec<&str> = turns
                    .chain([&example.prompt, &example.completion])
                    .map(String::as_str)
                    .collect();
                search.look(&format!("examples.{place}"), &example.id, &parts.join("\n"));
                work.check()?;
            }
        }
        let texts = search.texts;
        let found = search.found();
        work.metric("texts", texts as f64);
        work.metric("leaks", found.len() as f64);
        if self.found == Found::Refuse && !found.is_empty() {
            return Err(refusal(&found));
        }
        let hit: BTreeSet<(&str, &str)> =
            found.iter().map(|leak| (leak.test.as_str(), leak.item.as_str())).collect();
        let mut tests = Vec::new();
        for (name, mut problems) in sets {
            let items = problems.len() as u64;
            let leaked = problems.iter().filter(|p| hit.contains(&(name, p.id.as_str()))).count();
            if self.found == Found::Drop {
                problems.retain(|problem| !hit.contains(&(name, problem.id.as_str())));
            }
            tests.push(TestSet { name: name.to_owned(), items, leaked: leaked as u64 });
            work.output(name).write_rows("problems.jsonl", &problems)?;
        }
        if !found.is_empty() {
            work.warn(stand_there(&found));
        }
        let dropped = self.found == Found::Drop;
        let leaks = Leaks { words: self.words, texts, tests, dropped, found };
        work.output(LEAKS).write_json("leaks.json", &leaks)
    }
}

/// A search through training data.
struct Search<'a> {
    finder: Finder,
    /// Test set and id of each item of the finder.
    owners: Vec<(&'a str, String)>,
    /// Smallest share that is a leak.
    share: f64,
    /// Where the largest part of each item was found.
    best: BTreeMap<usize, Leak>,
    texts: u64,
}

impl Search<'_> {
    fn look(&mut self, source: &str, id: &str, text: &str) {
        self.texts += 1;
        for found in self.finder.search(text) {
            let more = |known: &Leak| found.share > known.share;
            if found.share >= self.share && self.best.get(&found.item).is_none_or(more) {
                let (test, item) = &self.owners[found.item];
                let leak = Leak {
                    test: (*test).to_owned(),
                    item: item.clone(),
                    source: source.to_owned(),
                    text: id.to_owned(),
                    share: found.share,
                    words: found.words,
                };
                self.best.insert(found.item, leak);
            }
        }
    }

    /// What was found, in the items' order.
    fn found(self) -> Vec<Leak> {
        self.best.into_values().collect()
    }
}

/// How many there are, in words.
fn stand_there(found: &[Leak]) -> String {
    let verb = if found.len() == 1 { "stands" } else { "stand" };
    let count = text::plural(found.len() as u64, "test item");
    format!("{count} {verb} in the training data")
}

fn refusal(found: &[Leak]) -> Failure {
    let one = |leak: &Leak| {
        format!(
            "`{}` of `{}` in `{}` of `{}` ({} % of it, \"{}\")",
            leak.item,
            leak.test,
            leak.text,
            leak.source,
            (leak.share * 100.0).round(),
            leak.words
        )
    };
    let shown: Vec<String> = found.iter().take(5).map(one).collect();
    Failure::input(format!("{}: {}", stand_there(found), shown.join("; "))).hint(
        "a test set or a slice may be mixed up; where they shall be there, `found = \"drop\"` \
         leaves them out of the test sets and `found = \"report\"` only counts them",
    )
}
