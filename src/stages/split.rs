//! Kind `split`: problems -> disjoint sets of them. Randomness: which problem
//! goes where.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, spec};
use crate::record::Problem;
use crate::stages::foresight::{Extent, Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use crate::store::spread::Range;
use std::collections::BTreeMap;

spec! {
    /// Shuffles problems and deals them out to named sets. No problem is in two of them.
    #[check(sensible)]
    pub struct Split {
        /// Problems.
        problems: Ref<Problems>,
        /// Sets and their sizes; they are dealt out in the order of their names. One set may have
        /// the size 0: it gets all that the others leave.
        sets: BTreeMap<String, u64>,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Split>("split", "dataset", 1, true);

fn sensible(split: &Split, node: &Node, cx: &mut Reading) {
    if split.sets.is_empty() {
        cx.error(&node.origin, "`sets` is empty");
    }
    if split.sets.values().filter(|&&size| size == 0).count() > 1 {
        cx.error(&node.origin, "only one set can get the rest (size 0)");
    }
}

impl Stage for Split {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        self.sets.keys().map(|name| (name.clone(), ArtifactKind::Problems)).collect()
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let all = given.one("problems")?;
        let named = self.sets.values().sum::<u64>() as f64;
        let rest = |n: f64| (n - named).max(0.0);
        let Range { low, middle, high } = all.items;
        let of = |(name, &n): (&String, &u64)| {
            let items = match n {
                0 => Range { low: rest(low), middle: rest(middle), high: rest(high) },
                n => Range::exact(n as f64),
            };
            (name.clone(), Extent { items, ..all })
        };
        Some(Foreseen { outputs: self.sets.iter().map(of).collect(), ..Foreseen::default() })
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let mut problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let (wanted, all) = (self.sets.values().sum::<u64>(), problems.len() as u64);
        if wanted > all {
            return Err(Failure::input(format!("the sets want {wanted} problems of {all}")));
        }
        work.seed().rng().shuffle(&mut problems);
        for (name, set) in dealt(&self.sets, &mut problems) {
            work.metric(&format!("problems-{name}"), set.len() as f64);
            work.output(name).write_rows("problems.jsonl", &set)?;
        }
        work.metric("left-over", problems.len() as f64);
        Ok(())
    }
}

/// The sets, each taken from the front; the one without a size comes last.
fn dealt<'a, T>(sets: &'a BTreeMap<String, u64>, items: &mut Vec<T>) -> Vec<(&'a str, Vec<T>)> {
    let mut order: Vec<(&str, u64)> =
        sets.iter().map(|(name, &size)| (name.as_str(), size)).collect();
    order.sort_by_key(|&(_, size)| size == 0);
    let mut deal = |size: u64| match size {
        0 => std::mem::take(items),
        size => items.drain(..(size as usize).min(items.len())).collect(),
    };
    order.into_iter().map(|(name, size)| (name, deal(size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_share_nothing_and_one_may_get_the_rest() {
        let sets =
            BTreeMap::from([("b", 2), ("a", 0), ("c", 1)].map(|(name, n)| (name.to_owned(), n)));
        let mut items: Vec<u32> = (0..6).collect();
        let want = [("b", vec![0, 1]), ("c", vec![2]), ("a", vec![3, 4, 5])];
        assert_eq!(dealt(&sets, &mut items), want);
        assert!(items.is_empty());
        let sets = BTreeMap::from([("a".to_owned(), 2)]);
        let mut items: Vec<u32> = (0..6).collect();
        assert_eq!(dealt(&sets, &mut items), [("a", vec![0, 1])]);
        assert_eq!(items.len(), 4);
    }
}
