//! Whether texts hold test items: runs of words that both have, however they
//! are punctuated and capitalized.
//!
//! An item of at least so many words is found by any run of that many of its
//! words, a shorter one by all of them. Knows no files and no data sets.
//!
//! # Source
//! Runs of 13 words: Brown et al., Language models are few-shot learners, arXiv
//! 2005.14165, appendix C.

use super::overlap::words;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Test items, made ready to be looked for.
#[derive(Clone, Debug)]
pub struct Finder {
    run: usize,
    numbers: HashMap<String, usize>,
    /// Runs of words with the items that have them; lengths differ for short items only.
    runs: HashMap<Vec<usize>, Vec<usize>>,
    lengths: BTreeSet<usize>,
    /// Different runs of each item.
    sizes: Vec<usize>,
}

/// A test item found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The item, in the order they were added.
    pub item: usize,
    /// Share of the item's different runs that the text has; 1 where it has the whole item.
    pub share: f64,
    /// The first run found, in the text's words.
    pub words: String,
}

impl Finder {
    /// A finder of runs of so many words.
    pub fn of(run: usize) -> Finder {
        Finder {
            run: run.max(1),
            numbers: HashMap::new(),
            runs: HashMap::new(),
            lengths: BTreeSet::new(),
            sizes: Vec::new(),
        }
    }

    /// Adds a test item. One without words is never found.
    pub fn add(&mut self, text: &str) {
        let item = self.sizes.len();
        let words: Vec<usize> = words(text)
            .map(|word| {
                let next = self.numbers.len();
                *self.numbers.entry(word).or_insert(next)
            })
            .collect();
        let length = self.run.min(words.len());
        let mut size = 0;
        if length > 0 {
            self.lengths.insert(length);
            for run in words.windows(length) {
                let items = self.runs.entry(run.to_vec()).or_default();
                if items.last() != Some(&item) {
                    items.push(item);
                    size += 1;
                }
            }
        }
        self.sizes.push(size);
    }

    /// The items that a text holds a run of, in order.
    pub fn search(&self, text: &str) -> Vec<Match> {
        let said: Vec<String> = words(text).collect();
        let unknown = usize::MAX;
        let numbers: Vec<usize> =
            said.iter().map(|word| self.numbers.get(word).copied().unwrap_or(unknown)).collect();
        let mut found: BTreeMap<usize, (BTreeSet<&[usize]>, usize, usize)> = BTreeMap::new();
        for &length in &self.lengths {
            for (at, run) in numbers.windows(length).enumerate() {
                for &item in self.runs.get(run).into_iter().flatten() {
                    found
                        .entry(item)
                        .or_insert_with(|| (BTreeSet::new(), at, length))
                        .0
                        .insert(run);
                }
            }
        }
        let one = |(item, (runs, at, length)): (usize, (BTreeSet<&[usize]>, usize, usize))| Match {
            item,
            share: runs.len() as f64 / self.sizes[item] as f64,
            words: said[at..at + length].join(" "),
        };
        found.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(run: usize, items: &[&str]) -> Finder {
        let mut finder = Finder::of(run);
        items.iter().for_each(|item| finder.add(item));
        finder
    }

    #[test]
    fn an_item_is_found_whole_or_in_part_whatever_its_punctuation() {
        let finder =
            finder(4, &["Tom has 3 red pens, and 4 more.", "How far?", "", "one two three four"]);
        let found = finder.search("Q: TOM has 3 red pens -- and 4 more! how far? A: 7");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].item, found[0].share), (0, 1.0));
        assert_eq!(found[0].words, "tom has 3 red");
        assert_eq!((found[1].item, found[1].share, found[1].words.as_str()), (1, 1.0, "how far"));
        // Four of its eight words in a row: one of five runs.
        let found = finder.search("he has 3 red pens to sell");
        assert_eq!((found[0].item, found[0].share), (0, 0.2));
        assert_eq!(finder.search("Tom has 3 blue pens, and 5 more. How fast?"), []);
    }

    #[test]
    fn a_run_that_several_items_share_finds_them_all() {
        let finder = finder(3, &["a b c d", "x a b c", "a b c a b c"]);
        let items: Vec<(usize, f64)> =
            finder.search("a b c").iter().map(|found| (found.item, found.share)).collect();
        assert_eq!(items, [(0, 0.5), (1, 0.5), (2, 1.0 / 3.0)]);
    }
}
