//! Kind `judge`: two models' replies to the same problems and a judge -> who
//! wins, item by item, with everything the judge said. Nothing is random here;
//! a model that judges may be.
//!
//! What was said is kept by what was asked, for every later step: reading it
//! another way asks nothing again.
//!
//! # Source
//! Both orders, position bias: Zheng et al., Judging LLM-as-a-judge, arXiv
//! 2306.05685. Win rates against another model: Lu et al., SELF, arXiv
//! 2310.00533, section 4.

use crate::base::artifact::{ArtifactKind, Dialogues};
use crate::base::failure::{Failure, Outcome};
use crate::base::spec::{Ref, Use, choice, spec};
use crate::host::chat::{End, Reply};
use crate::inference::judge::{Asked, JudgeSpec};
use crate::record::contest::{self, Judgement, Judgements, Pair, Shown};
use crate::record::rubric::{Form, Orders, Rubric};
use crate::record::{
    self, Dialogue, Measure, ModeScores, Problem, Scores, Tokens, judgement, overlap,
};
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Outlay, Stage};
use crate::stages::work::Work;
use std::collections::{BTreeMap, BTreeSet};

choice! {
    /// Which text of a dialogue is judged.
    pub enum Side {
        /// The reply.
        Reply = "reply",
        /// The refined reply; the reply where that is empty.
        Refined = "refined",
    }
}

impl Side {
    fn of(self, dialogue: &Dialogue) -> &str {
        let refined = dialogue.refined.as_deref().filter(|text| !text.trim().is_empty());
        match self {
            Side::Reply => &dialogue.reply,
            Side::Refined => refined.unwrap_or(&dialogue.reply),
        }
    }

    /// The mode of evaluation that gives such a text.
    fn mode(self) -> &'static str {
        match self {
            Side::Reply => "direct",
            Side::Refined => "refine",
        }
    }
}

spec! {
    /// Lets a judge compare a model's replies with another's, on the problems that both answered.
    /// Gives `scores` (a win counts as right, so that win rates stand in tables, tests and targets
    /// as accuracies do) and `judgements` (everything that was said, leanings of the judge).
    pub struct Judge {
        /// Replies of the contender, whose wins are counted.
        replies: Ref<Dialogues>,
        /// Replies it is judged against.
        against: Ref<Dialogues>,
        /// Which text of the contender is judged.
        side: Side = Side::Reply,
        /// Which text it is judged against.
        against_side: Side = Side::Reply,
        /// Reference answers for the judge to compare with, where there are any. Without them, those
        /// that the data set itself has.
        references: Option<Ref<Dialogues>>,
        /// Who judges.
        judge: Use<JudgeSpec>,
        /// How it is asked and read.
        rubric: Use<Rubric>,
        /// Name of the data set in reports.
        dataset: String = "test".to_owned(),
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Judge>("judge", "stage", 1, false);

/// Two texts on one problem.
struct Match<'a> {
    problem: &'a Problem,
    contender: &'a str,
    other: &'a str,
    reference: Option<&'a str>,
}

impl Stage for Judge {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![
            ("scores".into(), ArtifactKind::Scores),
            ("judgements".into(), ArtifactKind::Judgements),
        ]
    }

    fn outlay(&self) -> Outlay {
        self.judge.get().asks().map_or_else(Outlay::default, Outlay::of_server)
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let [ours, theirs] = [given.one("replies")?, given.one("against")?];
        let mut all = Foreseen::default();
        if let Some(api) = self.judge.get().asks() {
            let orders = match self.rubric.orders {
                Orders::Both if self.rubric.form != Form::Rating => 2.0,
                _ => 1.0,
            };
            let pairs = if ours.items.high < theirs.items.high { ours } else { theirs };
            let asked = pairs.items.times(orders);
            let prompt = foresight::prompt(&[ours.question, ours.reply, theirs.reply]);
            all.asks(api, asked.by(prompt), asked.by(foresight::filled(api.limit())));
        }
        Some(all)
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let read =
            |role: &str| -> Outcome<Vec<Dialogue>> { work.input(role)?.rows("dialogues.jsonl") };
        let (contenders, others) = (read("replies")?, read("against")?);
        let references = match &self.references {
            Some(_) => read("references")?,
            None => Vec::new(),
        };
        let matches = self.matches(work, &contenders, &others, &references)?;
        let (asked, shown): (Vec<Asked>, Vec<(usize, Shown)>) = self.questions(&matches).unzip();
        let said = self.judge.get().judge(&self.rubric, &asked, work)?;
        let mut judgements: Vec<Vec<Judgement>> = matches.iter().map(|_| Vec::new()).collect();
        let mut judges = BTreeSet::new();
        let mut tokens = Tokens::default();
        for ((index, shown), reply) in shown.into_iter().zip(&said) {
            judgements[index].push(self.judgement(shown, reply));
            tokens += Tokens { read: reply.read, written: reply.written };
            judges.insert(reply.model.clone());
        }
        let pairs: Vec<Pair> =
            matches.iter().zip(judgements).map(|(one, said)| self.pair(one, said)).collect();
        let judges = judges.into_iter().filter(|name| !name.is_empty()).collect();
        let all = Judgements::of(&self.rubric, &self.dataset, judges, &pairs);
        for (why, count) in &all.unread {
            work.warn(format!("{count} of {} judgements: {why}", all.asked));
        }
        if all.counts.judged() == 0 {
            let why = all.unread.iter().map(|(why, n)| format!("{n} {why}"));
            let why = why.collect::<Vec<_>>().join(", ");
            return Err(Failure::input(format!("the judge said nothing of use: {why}"))
                .hint("what it was asked and what it said is in the store, under `replies/`"));
        }
        work.metric("judgements", all.asked as f64);
        work.metric("judgements-unread", all.unread.values().sum::<u64>() as f64);
        work.metric("pairs-unread", all.counts.unread as f64);
        work.output("scores").write_json("scores.json", &self.scores(&pairs, tokens))?;
        let out = work.output("judgements");
        out.write_rows("judgements.jsonl", &pairs)?;
        out.write_json("judgements.json", &all)
    }
}

impl Judge {
    /// The problems that both have replies to, in the contender's order.
    fn matches<'a>(
        &self,
        work: &Work,
        contenders: &'a [Dialogue],
        others: &'a [Dialogue],
        references: &'a [Dialogue],
    ) -> Outcome<Vec<Match<'a>>> {
        let by_id = |dialogues: &'a [Dialogue]| -> BTreeMap<&'a str, &'a Dialogue> {
            dialogues.iter().map(|dialogue| (dialogue.problem.id.as_str(), dialogue)).collect()
        };
        let (others_by, references) = (by_id(others), by_id(references));
        let matches: Vec<Match> = contenders
            .iter()
            .filter_map(|dialogue| {
                let problem = &dialogue.problem;
                let other = others_by.get(problem.id.as_str())?;
                let reference = references.get(problem.id.as_str());
                Some(Match {
                    problem,
                    contender: self.side.of(dialogue),
                    other: self.against_side.of(other),
                    reference: reference
                        .map(|known| known.reply.as_str())
                        .or(problem.worked.as_deref()),
                })
            })
            .collect();
        for (name, dialogues) in [("replies", contenders), ("against", others)] {
            let alone = dialogues.len() - matches.len();
            if alone > 0 {
                work.warn(format!(
                    "{alone} of {} dialogues of `{name}` are on problems the other side has not",
                    dialogues.len()
                ));
            }
        }
        if matches.is_empty() {
            return Err(Failure::input("`replies` and `against` share no problem")
                .hint("let both models answer the same problems"));
        }
        Ok(matches)
    }

    /// Every question to the judge, with the place of its match. The same text
    /// twice is a tie that nobody need be asked about.
    fn questions<'a>(
        &self,
        matches: &'a [Match<'a>],
    ) -> impl Iterator<Item = (Asked<'a>, (usize, Shown))> {
        let orders: &[Shown] = match (self.rubric.form, self.rubric.orders) {
            (Form::Rating, _) => &[Shown::Contender, Shown::Other],
            (_, Orders::Both) => &[Shown::ContenderFirst, Shown::OtherFirst],
            (_, Orders::One) => &[Shown::ContenderFirst],
        };
        let different = |(_, one): &(usize, &Match)| one.contender != one.other;
        matches.iter().enumerate().filter(different).flat_map(|(index, one)| {
            let Match { problem, contender, other, reference } = *one;
            orders.iter().map(move |&shown| {
                let replies = match shown {
                    Shown::ContenderFirst => vec![contender, other],
                    Shown::OtherFirst => vec![other, contender],
                    Shown::Contender => vec![contender],
                    Shown::Other => vec![other],
                };
                (Asked { question: &problem.question, replies, reference }, (index, shown))
            })
        })
    }

    fn judgement(&self, shown: Shown, reply: &Reply) -> Judgement {
        let said = reply.text.clone();
        let opinion = match reply.end {
            End::Refused => None,
            End::Whole | End::CutOff => judgement::read(&self.rubric, &said),
        };
        let unread = match (opinion, reply.end) {
            (Some(_), _) => None,
            (None, End::Refused) => Some("refused"),
            (None, End::CutOff) => Some("cut off"),
            (None, End::Whole) if said.trim().is_empty() => Some("empty"),
            (None, End::Whole) => Some("no verdict"),
        };
        let disputed = judgement::is_disputed(&self.rubric, &said);
        Judgement { shown, said, opinion, unread: unread.map(str::to_owned), disputed }
    }

    fn pair(&self, one: &Match, judgements: Vec<Judgement>) -> Pair {
        let words = |text: &str| overlap::words(text).count() as u64;
        Pair {
            id: one.problem.id.clone(),
            labels: one.problem.labels.clone(),
            outcome: Pair::outcome(&self.rubric, &judgements),
            words: [words(one.contender), words(one.other)],
            judgements,
        }
    }

    /// Wins as successes; pairs that could not be read are in no rate.
    fn scores(&self, pairs: &[Pair], tokens: Tokens) -> Scores {
        let outcomes = pairs.iter().filter_map(|pair| {
            let points = match pair.outcome {
                contest::Outcome::Win => 1.0,
                contest::Outcome::Tie => 0.5,
                contest::Outcome::Loss => 0.0,
                contest::Outcome::Unread => return None,
            };
            let mut text = crate::base::hash::Hasher::tagged("rekindle 2026 judged outcome v1");
            for judgement in &pair.judgements {
                text.update(judgement.said.as_bytes());
                text.update(b"\n");
            }
            Some(record::Outcome {
                id: pair.id.clone(),
                answer: Some(points),
                correct: pair.outcome == contest::Outcome::Win,
                text: text.finish().short(),
                logprob: None,
            })
        });
        let mode = ModeScores {
            mode: self.side.mode().to_owned(),
            outcomes: outcomes.collect(),
            others: Vec::new(),
        };
        Scores {
            dataset: self.dataset.clone(),
            measure: Measure::WinRate,
            rule: None,
            modes: vec![mode],
            feedback: None,
            tokens,
        }
    }
}
