//! Two models' replies to the same questions, judged: the outcome of every
//! pair, and what all of them come to, the judge's own leanings included.
//!
//! Plain counting; who judged, and in which words it was asked, is not known.

use super::judgement::{Opinion, Preference, nearer};
use super::metric::{self, Share};
use super::rubric::{Rubric, Ties};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What came of a pair, seen from the contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The contender's reply is better.
    Win,
    /// Neither is, or the judge contradicts itself.
    Tie,
    /// The other reply is better.
    Loss,
    /// Something that was said of the pair could not be read.
    Unread,
}

/// What was shown in one question to the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// Both replies, the contender's first.
    ContenderFirst,
    /// Both replies, the other one first.
    OtherFirst,
    /// The contender's reply alone.
    Contender,
    /// The other reply alone.
    Other,
}

/// One question to the judge and what it said (a part of a row of
/// `judgements.jsonl`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What it was shown.
    pub shown: Shown,
    /// Its words.
    pub said: String,
    /// What they decide, as they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opinion: Option<Opinion>,
    /// Why they decide nothing: `no verdict`, `cut off`, `refused`, `empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// Whether the other way to read them gives something else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disputed: bool,
}

/// A pair of replies and what was said of it (a row of `judgements.jsonl`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The problem.
    pub id: String,
    /// What kind of question it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Words of the contender's reply and of the other one.
    pub words: [u64; 2],
    /// What was asked and said; nothing where both replies are the same text.
    pub judgements: Vec<Judgement>,
}

impl Pair {
    /// What the judgements of a pair come to. The same text twice is a tie.
    pub fn outcome(rubric: &Rubric, judgements: &[Judgement]) -> Outcome {
        let mut signs = Vec::new();
        let (mut total, mut ratings) = (0.0, Vec::new());
        for judgement in judgements {
            let Some(opinion) = judgement.opinion else { return Outcome::Unread };
            let swapped = if judgement.shown == Shown::OtherFirst { -1 } else { 1 };
            match opinion {
                Opinion::Rates(rating) => ratings.push(rating),
                Opinion::Scores(first, second) => total += f64::from(swapped) * (first - second),
                Opinion::Prefers(_) => {}
            }
            signs.push(swapped * sign(opinion.preference(rubric.tie_within)));
        }
        if let [contender, other] = ratings.as_slice() {
            return of_sign(sign(nearer(contender - other, rubric.tie_within)));
        }
        of_sign(match rubric.ties {
            Ties::Agree if signs.windows(2).any(|pair| pair[0] != pair[1]) => 0,
            Ties::Agree => signs.first().copied().unwrap_or(0),
            Ties::Uncontradicted => signs.iter().sum(),
            Ties::Total => sign(nearer(total, rubric.tie_within)),
        })
    }

    /// The preferences in both orders, as positions; nothing where the pair was
    /// not judged so, or a judgement could not be read.
    fn positions(&self, within: f64) -> Option<[Preference; 2]> {
        let at = |shown: Shown| {
            let found = self.judgements.iter().find(|judgement| judgement.shown == shown)?;
            Some(found.opinion?.preference(within))
        };
        Some([at(Shown::ContenderFirst)?, at(Shown::OtherFirst)?])
    }
}

fn sign(preference: Preference) -> i32 {
    match preference {
        Preference::First => 1,
        Preference::Tie => 0,
        Preference::Second => -1,
    }
}

fn of_sign(sign: i32) -> Outcome {
    match sign {
        0 => Outcome::Tie,
        1.. => Outcome::Win,
        _ => Outcome::Loss,
    }
}

/// Pairs counted by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pairs won.
    pub won: u64,
    /// Pairs tied.
    pub tied: u64,
    /// Pairs lost.
    pub lost: u64,
    /// Pairs that could not be read; in none of the rates.
    pub unread: u64,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Win => &mut self.won,
            Outcome::Tie => &mut self.tied,
            Outcome::Loss => &mut self.lost,
            Outcome::Unread => &mut self.unread,
        } += 1;
    }

    /// Pairs with an outcome.
    pub fn judged(&self) -> u64 {
        self.won + self.tied + self.lost
    }

    /// Share of the judged pairs that were won.
    pub fn win_rate(&self) -> Share {
        metric::share(self.won, self.judged())
    }

    /// The same, a tie being half a win.
    pub fn win_and_half_ties(&self) -> Share {
        metric::share_in_halves(2 * self.won + self.tied, self.judged())
    }

    /// Two-sided p of wins and losses being equally likely, ties aside.
    pub fn p(&self) -> f64 {
        metric::sign_test(self.won, self.lost)
    }
}

/// How the judge leans to a place (pairs judged in both orders, all read).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Such pairs.
    pub pairs: u64,
    /// The same reply preferred in both orders, or a tie in both.
    pub consistent: u64,
    /// The reply shown first preferred in both orders.
    pub first_twice: u64,
    /// The reply shown second preferred in both orders.
    pub second_twice: u64,
    /// Judgements of these pairs that prefer one reply.
    pub decided: u64,
    /// Of these, judgements for the reply shown first.
    pub for_first: u64,
}

/// How the judge leans to length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Pairs won or lost whose replies have different numbers of words.
    pub decided: u64,
    /// Of these, pairs in which the longer reply won.
    pub for_longer: u64,
    /// Words of the contender's replies in all, and of the others.
    pub words: [u64; 2],
}

/// What judgements of many pairs come to (`judgements.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgements {
    /// The data set's name.
    pub dataset: String,
    /// The judge, as it or its server calls itself; several where that changed.
    pub judges: Vec<String>,
    /// What it was asked for: `verdict`, `scores` or `rating`.
    pub form: String,
    /// What two orders come to.
    pub ties: String,
    /// All pairs.
    pub counts: Counts,
    /// Pairs by label, as `category`, and its value.
    pub groups: BTreeMap<String, BTreeMap<String, Counts>>,
    /// Pairs of the same text, which were not asked about.
    pub identical: u64,
    /// Questions to the judge.
    pub asked: u64,
    /// Judgements that could not be read, by reason.
    pub unread: BTreeMap<String, u64>,
    /// Judgements that the other way of reading reads differently.
    pub disputed: u64,
    /// Leaning to a place.
    pub position: Position,
    /// Leaning to length.
    pub length: Length,
    /// Mean score or rating of the contender's replies and of the others, where they got any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub means: Option<[f64; 2]>,
}

impl Judgements {
    /// Counts all pairs.
    pub fn of(rubric: &Rubric, dataset: &str, judges: Vec<String>, pairs: &[Pair]) -> Judgements {
        let mut all = Judgements {
            dataset: dataset.to_owned(),
            judges,
            form: rubric.form.name().to_owned(),
            ties: rubric.ties.name().to_owned(),
            ..Judgements::default()
        };
        let mut points: [Vec<f64>; 2] = Default::default();
        for pair in pairs {
            all.counts.add(pair.outcome);
            for (label, value) in &pair.labels {
                let values = all.groups.entry(label.clone()).or_default();
                values.entry(value.clone()).or_default().add(pair.outcome);
            }
            all.identical += u64::from(pair.judgements.is_empty());
            for judgement in &pair.judgements {
                all.asked += 1;
                all.disputed += u64::from(judgement.disputed);
                if let Some(why) = &judgement.unread {
                    *all.unread.entry(why.clone()).or_default() += 1;
                }
                collect_points(judgement, &mut points);
            }
            if let Some(preferred) = pair.positions(rubric.tie_within) {
                all.position.add(preferred);
            }
            all.length.add(pair);
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let [contender, other] = &points;
        if !contender.is_empty() && !other.is_empty() {
            all.means = Some([mean(contender), mean(other)]);
        }
        all
    }
}

fn collect_points(judgement: &Judgement, points: &mut [Vec<f64>; 2]) {
    let [contender, other] = points;
    match (judgement.opinion, judgement.shown) {
        (Some(Opinion::Scores(first, second)), Shown::OtherFirst) => {
            contender.push(second);
            other.push(first);
        }
        (Some(Opinion::Scores(first, second)), _) => {
            contender.push(first);
            other.push(second);
        }
        (Some(Opinion::Rates(rating)), Shown::Other) => other.push(rating),
        (Some(Opinion::Rates(rating)), _) => contender.push(rating),
        _ => {}
    }
}

impl Position {
    fn add(&mut self, preferred: [Preference; 2]) {
        use Preference::{First, Second, Tie};
        self.pairs += 1;
        // The second order shows the other reply first.
        self.consistent +=
            u64::from(matches!(preferred, [First, Second] | [Second, First] | [Tie, Tie]));
        self.first_twice += u64::from(preferred == [First, First]);
        self.second_twice += u64::from(preferred == [Second, Second]);
        for one in preferred {
            self.decided += u64::from(one != Tie);
            self.for_first += u64::from(one == First);
        }
    }
}

impl Length {
    fn add(&mut self, pair: &Pair) {
        let [contender, other] = pair.words;
        self.words[0] += contender;
        self.words[1] += other;
        let won = match pair.outcome {
            Outcome::Win => contender > other,
            Outcome::Loss => other > contender,
            Outcome::Tie | Outcome::Unread => return,
        };
        if contender != other {
            self.decided += 1;
            self.for_longer += u64::from(won);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::rubric::{Form, Orders, Parser};

    fn rubric(form: Form, ties: Ties) -> Rubric {
        Rubric {
            form,
            prompt: None,
            reference_prompt: None,
            parser: Parser::Careful,
            orders: Orders::Both,
            ties,
            tie_within: 0.0,
        }
    }

    fn judgement(shown: Shown, opinion: Option<Opinion>) -> Judgement {
        let unread = opinion.is_none().then(|| "no verdict".to_owned());
        Judgement { shown, said: String::new(), opinion, unread, disputed: false }
    }

    fn both(first: Option<Opinion>, second: Option<Opinion>) -> Vec<Judgement> {
        vec![judgement(Shown::ContenderFirst, first), judgement(Shown::OtherFirst, second)]
    }

    #[test]
    fn two_orders_come_to_what_the_rule_says() {
        use Outcome::{Loss, Tie, Unread, Win};
        let word = |word: &str| match word {
            "A" => Some(Opinion::Prefers(Preference::First)),
            "B" => Some(Opinion::Prefers(Preference::Second)),
            "C" => Some(Opinion::Prefers(Preference::Tie)),
            _ => None,
        };
        // Said when the contender is A, said when it is B; by agreement, without contradiction.
        for (first, second, agreed, uncontradicted) in [
            ("A", "B", Win, Win),
            ("B", "A", Loss, Loss),
            ("A", "A", Tie, Tie),
            ("B", "B", Tie, Tie),
            ("C", "C", Tie, Tie),
            ("A", "C", Tie, Win),
            ("C", "B", Tie, Win),
            ("B", "C", Tie, Loss),
            ("C", "A", Tie, Loss),
            ("A", "?", Unread, Unread),
            ("?", "B", Unread, Unread),
        ] {
            let said = both(word(first), word(second));
            for (ties, want) in [(Ties::Agree, agreed), (Ties::Uncontradicted, uncontradicted)] {
                let outcome = Pair::outcome(&rubric(Form::Verdict, ties), &said);
                assert_eq!(outcome, want, "{first} {second} by {}", ties.name());
            }
        }
        assert_eq!(Pair::outcome(&rubric(Form::Verdict, Ties::Agree), &[]), Tie);
        let once = [judgement(Shown::ContenderFirst, word("B"))];
        assert_eq!(Pair::outcome(&rubric(Form::Verdict, Ties::Agree), &once), Loss);
    }

    #[test]
    fn points_of_both_orders_may_be_added_up() {
        let said = both(Some(Opinion::Scores(9.0, 6.0)), Some(Opinion::Scores(8.0, 7.0)));
        let outcome = |ties| Pair::outcome(&rubric(Form::Scores, ties), &said);
        assert_eq!(outcome(Ties::Total), Outcome::Win, "3 points up, 1 down");
        assert_eq!(outcome(Ties::Agree), Outcome::Tie);
        let rated = |a, b| {
            vec![
                judgement(Shown::Contender, Some(Opinion::Rates(a))),
                judgement(Shown::Other, Some(Opinion::Rates(b))),
            ]
        };
        let of = |a, b| Pair::outcome(&rubric(Form::Rating, Ties::Agree), &rated(a, b));
        assert_eq!(
            [of(7.0, 6.0), of(6.0, 6.0), of(2.0, 3.0)],
            [Outcome::Win, Outcome::Tie, Outcome::Loss]
        );
    }

    fn pair(id: usize, words: [u64; 2], first: Preference, second: Preference) -> Pair {
        let rubric = rubric(Form::Verdict, Ties::Agree);
        let judgements = both(Some(Opinion::Prefers(first)), Some(Opinion::Prefers(second)));
        Pair {
            id: id.to_string(),
            labels: BTreeMap::from([("category".to_owned(), format!("c{}", id % 2))]),
            outcome: Pair::outcome(&rubric, &judgements),
            words,
            judgements,
        }
    }

    #[test]
    fn a_judge_that_always_says_a_is_seen() {
        let rubric = rubric(Form::Verdict, Ties::Agree);
        let pairs: Vec<Pair> =
            (0..9).map(|i| pair(i, [5, 4], Preference::First, Preference::First)).collect();
        let all = Judgements::of(&rubric, "d", vec!["j".into()], &pairs);
        assert_eq!((all.counts.tied, all.counts.judged()), (9, 9));
        assert_eq!((all.position.pairs, all.position.consistent), (9, 0));
        assert_eq!((all.position.first_twice, all.position.second_twice), (9, 0));
        assert_eq!((all.position.decided, all.position.for_first), (18, 18));
        assert_eq!(all.length.decided, 0, "ties say nothing of length");
    }

    #[test]
    fn a_judge_that_likes_length_is_seen_and_groups_add_up() {
        let rubric = rubric(Form::Verdict, Ties::Agree);
        let longer = |i: usize, words: [u64; 2]| match words[0] > words[1] {
            true => pair(i, words, Preference::First, Preference::Second),
            false => pair(i, words, Preference::Second, Preference::First),
        };
        let mut pairs: Vec<Pair> = (0..8).map(|i| longer(i, [i as u64, 4])).collect();
        let mut unread = pair(8, [1, 1], Preference::First, Preference::Second);
        unread.judgements[1] = judgement(Shown::OtherFirst, None);
        unread.outcome = Pair::outcome(&rubric, &unread.judgements);
        pairs.push(unread);
        let all = Judgements::of(&rubric, "d", Vec::new(), &pairs);
        assert_eq!((all.counts.won, all.counts.lost, all.counts.unread), (3, 5, 1));
        assert_eq!((all.length.decided, all.length.for_longer), (7, 7), "of 4 and 4 words none");
        assert_eq!((all.position.pairs, all.position.consistent), (8, 8));
        assert_eq!((all.asked, all.unread["no verdict"]), (18, 1));
        let groups = &all.groups["category"];
        let sum: u64 = groups.values().map(|counts| counts.judged() + counts.unread).sum();
        assert_eq!(sum, 9);
        let rate = all.counts.win_rate();
        assert_eq!((rate.hits, rate.n), (3, 8), "what could not be read is in no rate");
    }
}
