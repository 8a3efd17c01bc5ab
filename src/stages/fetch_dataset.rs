//! Kind `fetch-dataset`: an address and a digest -> problems, in the file's
//! order. Nothing is random; where the file comes from (network or mirror) is
//! no part of the identity, what it holds is.

use crate::base::artifact::ArtifactKind;
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, spec};
use crate::record::Problem;
use crate::stages::fetching::Source;
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::formats::{self, Format, Style};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use crate::store::spread::Range;
use std::collections::{BTreeMap, BTreeSet};

spec! {
    /// Gets a published data set and reads its problems. The file is taken from a mirror folder
    /// where one is named and holds it, else from the network, and must have the given digest.
    /// Numbers in questions are masked (`number0`, `number1`, ...).
    #[check(sensible)]
    pub struct FetchDataset {
        /// Address of the file, of a fixed version.
        #[exec]
        url: String,
        /// SHA-256 of the file, 64 hexadecimal digits.
        sha256: Option<String>,
        /// In its place: the file's blob in git, 40 hexadecimal digits, where only its repository is
        /// at hand.
        git_blob: Option<String>,
        /// How the file holds its problems.
        format: Format,
        /// Path of the file inside a mirror folder.
        #[exec]
        mirror_path: Option<String>,
        /// Mirror folder; without it the environment's REKINDLE_MIRROR.
        #[exec]
        mirror: Option<String>,
        /// How many problems the file is known to hold: what `plan` reckons with before it is here.
        #[exec]
        rows: Option<u64>,
        /// Most bytes the file may have.
        #[exec]
        limit: u64 = 1 << 30,
        /// Whether questions are brought into one style and their numbers masked; `false` leaves
        /// them as they are written, and keeps the data set's own working where it has one.
        mask: bool = true,
        /// Drops problems without a way to the answer. What is dropped is counted, here and below.
        require_solution: bool = false,
        /// Drops problems that differ from an earlier one in their numbers only.
        distinct: bool = false,
        /// Drops questions of more words; 0 keeps all.
        max_words: u64 = 0,
        /// Keeps this many problems of the rest, the first ones; 0 keeps all.
        first: u64 = 0,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<FetchDataset>("fetch-dataset", "dataset", 1, false);

fn sensible(fetch: &FetchDataset, node: &Node, cx: &mut Reading) {
    fetch.source().check(node, cx);
}

impl Stage for FetchDataset {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("problems".into(), ArtifactKind::Problems)]
    }

    fn foresee(&self, _: &Given) -> Option<Foreseen> {
        let all = self.rows? as f64;
        let most = if self.first > 0 { all.min(self.first as f64) } else { all };
        // How many are dropped shows only when they are there.
        let drops = self.require_solution || self.distinct || self.max_words > 0;
        let low = if drops { most / 2.0 } else { most };
        let items = Range { low, middle: most, high: most };
        Some(Foreseen::of("problems", foresight::problems(items)))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let (text, place) = self.source().text(work)?;
        let style = if self.mask { Style::Masked } else { Style::Plain };
        let parsed = formats::parse(self.format, style, &text).map_err(|mut failure| {
            failure.what = format!("{place}, {}", failure.what);
            failure
        })?;
        work.metric("rows", parsed.problems.len() as f64);
        for (name, &count) in &parsed.counts {
            work.metric(name, count as f64);
        }
        let (problems, dropped) = self.chosen(parsed.problems);
        for (reason, &count) in &dropped {
            work.metric(&format!("dropped-{reason}"), count as f64);
        }
        if problems.is_empty() {
            return Err(Failure::input(format!("no problem of {place} is left")));
        }
        let longest = problems.iter().map(|problem| words(&problem.question)).max().unwrap_or(0);
        work.metric("problems", problems.len() as f64);
        work.metric("longest-words", longest as f64);
        work.output("problems").write_rows("problems.jsonl", &problems)
    }
}

impl FetchDataset {
    fn source(&self) -> Source<'_> {
        Source {
            url: &self.url,
            sha256: self.sha256.as_deref(),
            git_blob: self.git_blob.as_deref(),
            mirror_path: self.mirror_path.as_deref(),
            mirror: self.mirror.as_deref(),
            limit: self.limit,
        }
    }

    /// Problems that stay, in order, and how many do not, by reason.
    fn chosen(&self, problems: Vec<Problem>) -> (Vec<Problem>, BTreeMap<&'static str, u64>) {
        let (mut kept, mut dropped) = (Vec::new(), BTreeMap::new());
        let mut seen = BTreeSet::new();
        for problem in problems {
            let reason = if self.require_solution && problem.solution.is_empty() {
                "without-solution"
            } else if self.max_words > 0 && words(&problem.question) > self.max_words {
                "too-long"
            } else if self.distinct && !seen.insert(shape(&problem)) {
                "repeated"
            } else if self.first > 0 && kept.len() as u64 >= self.first {
                "beyond-first"
            } else {
                kept.push(problem);
                continue;
            };
            *dropped.entry(reason).or_default() += 1;
        }
        (kept, dropped)
    }
}

/// What two problems that differ in their numbers only have in common.
fn shape(problem: &Problem) -> String {
    let known = !problem.fingerprint.is_empty();
    if known { problem.fingerprint.clone() } else { problem.question.clone() }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::Class;
    use crate::base::seed::Seed;
    use crate::host::signal::StopFlag;
    use crate::host::{fs, http};
    use crate::stages::work::Parts;

    const FILE: &str = "Question,Numbers,Equation,Answer\n\
        Ann has number0 cats and gets number1 . How many ?,3 4,+ number0 number1,7\n\
        Ann has number0 cats and gets number1 . How many ?,5 6,+ number0 number1,11\n\
        Tom has number0 dogs . How many ?,2,number0,2\n\
        Lea has number0 cows and sells number1 of them . How many are left ?,9 4,- number0 number1,5\n";

    struct Ran {
        result: Outcome<()>,
        rows: Vec<Problem>,
        metrics: BTreeMap<String, f64>,
    }

    /// Runs with a mirror that holds `file`, and nobody at the address.
    fn run(file: Option<&str>, change: impl Fn(&mut FetchDataset)) -> Ran {
        let folder = temp_dir::TempDir::new().unwrap();
        if let Some(text) = file {
            std::fs::write(folder.path().join("a.csv"), text).unwrap();
        }
        let mut fetch = FetchDataset {
            url: "nowhere".into(),
            sha256: Some(http::sha256(FILE.as_bytes())),
            git_blob: None,
            rows: None,
            format: Format::MawpsCsv,
            mirror_path: Some("a.csv".into()),
            mirror: Some(folder.path().display().to_string()),
            limit: 1000,
            mask: true,
            require_solution: false,
            distinct: false,
            max_words: 0,
            first: 0,
        };
        change(&mut fetch);
        let work = Work::new(Parts {
            granted: Default::default(),
            deadline: None,
            seed: Seed(1),
            inputs: Vec::new(),
            outputs: vec!["problems".into()],
            attempt: folder.path().join("attempt"),
            partial: folder.path().join("partial"),
            replies: folder.path().join("replies"),
            device: "cpu".into(),
            threads: 1,
            stop: StopFlag::default(),
            listener: &|_| (),
        })
        .unwrap();
        let result = fetch.run(&work);
        let path = work.output("problems").path().join("problems.jsonl");
        let text = fs::read(&path).unwrap().unwrap_or_default();
        let rows = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let rows = rows.map(|line| serde_json::from_slice(line).unwrap()).collect();
        let metrics = work.said().metrics.clone();
        Ran { result, rows, metrics }
    }

    fn ids(ran: &Ran) -> Vec<&str> {
        ran.rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn a_mirror_gives_every_row_in_order() {
        let ran = run(Some(FILE), |_| ());
        ran.result.as_ref().unwrap();
        assert_eq!(ids(&ran), ["mawps-1", "mawps-2", "mawps-3", "mawps-4"]);
        assert_eq!((ran.metrics["rows"], ran.metrics["without-solution"]), (4.0, 1.0));
    }

    #[test]
    fn what_is_dropped_is_counted() {
        let ran = run(Some(FILE), |fetch| {
            (fetch.require_solution, fetch.distinct, fetch.max_words) = (true, true, 12);
        });
        ran.result.as_ref().unwrap();
        assert_eq!(ids(&ran), ["mawps-1"]);
        for reason in ["without-solution", "repeated", "too-long"] {
            assert_eq!(ran.metrics[&format!("dropped-{reason}")], 1.0, "{reason}");
        }
        let ran = run(Some(FILE), |fetch| fetch.first = 2);
        assert_eq!((ids(&ran).len(), ran.metrics["dropped-beyond-first"]), (2, 2.0));
        let failure = run(Some(FILE), |fetch| fetch.max_words = 1).result.unwrap_err();
        assert!(failure.what.contains("is left"));
    }

    #[test]
    fn a_changed_mirror_is_refused_with_both_digests() {
        let changed = FILE.replace("cows", "cats");
        let failure = run(Some(&changed), |_| ()).result.unwrap_err();
        assert_eq!(failure.class, Class::Input);
        for part in ["a.csv", &http::sha256(FILE.as_bytes()), &http::sha256(changed.as_bytes())] {
            assert!(failure.what.contains(part), "{}", failure.what);
        }
    }

    #[test]
    fn a_bad_row_names_file_and_line() {
        let broken = FILE.replace("5 6", "5 x");
        let ran = run(Some(&broken), |fetch| fetch.sha256 = Some(http::sha256(broken.as_bytes())));
        let failure = ran.result.unwrap_err();
        assert!(failure.what.contains("a.csv`, line 3: `5 x`"), "{}", failure.what);
    }

    #[test]
    fn without_mirror_and_network_it_says_what_to_do() {
        let failure = run(None, |_| ()).result.unwrap_err();
        assert!(failure.hints.iter().any(|hint| hint.contains("a.csv")), "{failure:?}");
    }
}
