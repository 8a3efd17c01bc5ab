//! Texts as token sequences, and the order in which training sees them.
//!
//! A batch is a pure function of (seed, step): a resumed training needs no
//! cursor but the step. Sequences are packed one after another, nothing is
//! padded.

use super::ops::Documents;
use crate::base::seed::Seed;
use std::ops::Range;
use std::sync::Arc;

/// One training text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Prompt and completion, with begin and end marks.
    pub ids: Vec<u32>,
    /// Index of the first token that is to be predicted.
    pub first_target: usize,
    /// Weight of its tokens in the loss; 1 is that of any other.
    pub weight: f32,
    /// Tokens behind it that are not, such as messages between two replies.
    pub skipped: Vec<Range<usize>>,
}

impl Sequence {
    /// Indices of the tokens that are to be predicted.
    fn predicted(&self) -> impl Iterator<Item = usize> + '_ {
        let all = self.first_target..self.ids.len();
        all.filter(|i| !self.skipped.iter().any(|range| range.contains(i)))
    }

    /// Tokens that are to be predicted.
    pub fn targets(&self) -> usize {
        self.predicted().count()
    }
}

/// Sequences packed into one row of tokens, with their targets.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Tokens `[N]`.
    pub ids: Arc<[u32]>,
    /// Bounds of the sequences.
    pub documents: Documents,
    /// Rows whose next token counts `[M]`.
    pub rows: Arc<[u32]>,
    /// That next token `[M]`.
    pub targets: Arc<[u32]>,
    /// Weight of each in the loss: its sequence's, by the targets of the step `[M]`.
    pub weights: Arc<[f32]>,
}

impl Batch {
    /// Packs sequences. The loss is the weighted sum over all their targets by
    /// the number of targets.
    pub fn pack<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Batch {
        let sequences: Vec<&Sequence> = sequences.into_iter().collect();
        let packed = Packed::of(&sequences);
        let targets = packed.targets.len();
        packed.batch(targets)
    }

    /// The sequences of one optimizer step in batches, to be computed one after
    /// another. Their losses and gradients add up to those of the whole: each
    /// target counts the same, in however long a part it is.
    pub fn split(sequences: &[&Sequence], pieces: Pieces) -> Vec<Batch> {
        let parts = cut(sequences, |sequence| sequence.ids.len() - 1, pieces);
        let parts: Vec<Packed> = parts.iter().map(|part| Packed::of(part)).collect();
        let targets = parts.iter().map(|packed| packed.targets.len()).sum();
        parts.into_iter().map(|packed| packed.batch(targets)).collect()
    }
}

/// How a step is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// At most so many of the same number of sequences, in their order.
    Count(usize),
    /// As few as hold at most so many tokens each; a longer sequence is a part
    /// alone.
    Tokens(usize),
}

/// Cuts the sequences of a step into parts; `length` gives one's tokens.
///
/// By tokens the longest goes first, each into the first part that has room for
/// it, which needs at most 11/9 of the fewest parts possible and one more. Ties
/// stay in the order of the step, and so do the sequences of a part.
///
/// # Source
/// Johnson, Near-optimal bin packing algorithms, 1973, for the bound
pub fn cut<T: Copy>(sequences: &[T], length: impl Fn(&T) -> usize, pieces: Pieces) -> Vec<Vec<T>> {
    let room = match pieces {
        Pieces::Count(parts) => {
            let size = sequences.len().div_ceil(parts.max(1)).max(1);
            return sequences.chunks(size).map(<[T]>::to_vec).collect();
        }
        Pieces::Tokens(room) => room,
    };
    let mut longest_first: Vec<usize> = (0..sequences.len()).collect();
    longest_first.sort_by_key(|&i| std::cmp::Reverse(length(&sequences[i])));
    let mut parts: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in longest_first {
        let needed = length(&sequences[i]);
        match parts.iter_mut().find(|(taken, _)| taken + needed <= room) {
            Some((taken, part)) => {
                *taken += needed;
                part.push(i);
            }
            None => parts.push((needed, vec![i])),
        }
    }
    let members = parts.into_iter().map(|(_, mut part)| {
        part.sort_unstable();
        part.into_iter().map(|i| sequences[i]).collect()
    });
    members.collect()
}

/// A batch before the targets of its step are counted.
#[derive(Default)]
struct Packed {
    ids: Vec<u32>,
    lengths: Vec<usize>,
    rows: Vec<u32>,
    targets: Vec<u32>,
    /// Weight of each target's sequence.
    weights: Vec<f32>,
}

impl Packed {
    fn of(sequences: &[&Sequence]) -> Packed {
        let mut packed = Packed::default();
        for sequence in sequences {
            let start = packed.ids.len();
            // The last token predicts nothing, so it need not be read.
            let inputs = &sequence.ids[..sequence.ids.len() - 1];
            packed.ids.extend_from_slice(inputs);
            packed.lengths.push(inputs.len());
            for i in sequence.predicted() {
                packed.rows.push((start + i - 1) as u32);
                packed.targets.push(sequence.ids[i]);
                packed.weights.push(sequence.weight);
            }
        }
        packed
    }

    /// The batch as part of a step with so many targets.
    fn batch(self, step_targets: usize) -> Batch {
        let unit = 1.0 / step_targets.max(1) as f32;
        Batch {
            ids: self.ids.into(),
            documents: Documents::of_lengths(self.lengths),
            weights: self.weights.into_iter().map(|weight| weight * unit).collect(),
            rows: self.rows.into(),
            targets: self.targets.into(),
        }
    }
}

/// Which sequences each step sees: every epoch a new shuffle, cut into batches.
#[derive(Debug)]
pub struct Order {
    seed: Seed,
    sequences: usize,
    batch: usize,
    /// The epoch that `shuffled` belongs to.
    epoch: Option<u64>,
    shuffled: Vec<u32>,
}

impl Order {
    /// The order of `sequences` sequences in batches of `batch`.
    pub fn new(seed: Seed, sequences: usize, batch: usize) -> Order {
        Order { seed, sequences, batch, epoch: None, shuffled: Vec::new() }
    }

    /// Steps of one epoch; the last batch may be smaller.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sequences.div_ceil(self.batch) as u64
    }

    /// Indices of the sequences that step `step` (from 0) sees.
    pub fn at(&mut self, step: u64) -> &[u32] {
        let epoch = step / self.steps_per_epoch();
        if self.epoch != Some(epoch) {
            self.shuffled = (0..self.sequences as u32).collect();
            self.seed.at(epoch).rng().shuffle(&mut self.shuffled);
            self.epoch = Some(epoch);
        }
        let start = (step % self.steps_per_epoch()) as usize * self.batch;
        &self.shuffled[start..(start + self.batch).min(self.sequences)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_targets_with_their_sequence() {
        let a = Sequence { ids: vec![1, 5, 6, 2], first_target: 2, skipped: vec![], weight: 1.0 };
        let b = Sequence { ids: vec![1, 7, 2], first_target: 1, skipped: vec![], weight: 1.0 };
        let batch = Batch::pack([&a, &b]);
        assert_eq!(&batch.ids[..], [1, 5, 6, 1, 7]);
        assert_eq!(&batch.rows[..], [1, 2, 3, 4]);
        assert_eq!(&batch.targets[..], [6, 2, 7, 2]);
        assert_eq!(&batch.documents.positions()[..], [0, 1, 2, 0, 1]);
        assert_eq!(batch.weights.iter().sum::<f32>(), 1.0);
    }

    #[test]
    fn parts_of_a_step_share_its_number_of_targets() {
        let sequence = |n: usize, weight| Sequence {
            ids: (0..n as u32).collect(),
            first_target: 1,
            skipped: vec![],
            weight,
        };
        let all = [sequence(2, 1.0), sequence(6, 1.0), sequence(3, 0.5), sequence(5, 1.0)];
        let step: Vec<&Sequence> = all.iter().collect();
        for (parts, sizes) in
            [(1, vec![12]), (2, vec![6, 6]), (3, vec![6, 6]), (9, vec![1, 5, 2, 4])]
        {
            let batches = Batch::split(&step, Pieces::Count(parts));
            assert_eq!(batches.iter().map(|b| b.targets.len()).collect::<Vec<_>>(), sizes);
            let weights: Vec<f32> = batches.iter().flat_map(|b| b.weights.to_vec()).collect();
            assert_eq!(weights[..6], [1.0 / 12.0; 6]);
            assert_eq!(weights[6..8], [0.5 / 12.0; 2]);
        }
    }

    #[test]
    fn the_longest_goes_first_into_the_first_part_with_room() {
        let fitted = |lengths: &[usize], room| cut(lengths, |&n| n, Pieces::Tokens(room));
        assert_eq!(fitted(&[3, 7, 2, 5, 3], 10), [vec![3, 7], vec![2, 5, 3]]);
        // One that fits nowhere is alone, and one that is empty takes no room.
        assert_eq!(fitted(&[2, 30, 0], 10), [vec![30], vec![2, 0]]);
        assert!(fitted(&[], 10).is_empty());
        // Whatever the lengths: nothing is lost, no part is too full, no two could be one.
        let mut rng = Seed(2).rng();
        for _ in 0..50 {
            let lengths: Vec<usize> =
                (0..40).map(|_| 1 + (rng.unit_f64() * 60.0) as usize).collect();
            let parts = fitted(&lengths, 64);
            let sums: Vec<usize> = parts.iter().map(|part| part.iter().sum()).collect();
            assert!(sums.iter().all(|&sum| sum <= 64));
            let mut all = parts.concat();
            all.sort_unstable();
            let mut wanted = lengths.clone();
            wanted.sort_unstable();
            assert_eq!(all, wanted);
            let two: usize = sums.iter().map(|sum| usize::from(*sum <= 32)).sum();
            assert!(two <= 1, "{sums:?}");
        }
    }

    #[test]
    fn every_epoch_sees_every_sequence_once_in_an_order_of_its_own() {
        let mut order = Order::new(Seed(3), 10, 4);
        let epoch = |order: &mut Order, e: u64| {
            (0..3).flat_map(|i| order.at(e * 3 + i).to_vec()).collect::<Vec<_>>()
        };
        let (first, second) = (epoch(&mut order, 0), epoch(&mut order, 1));
        assert_ne!(first, second);
        for mut seen in [first.clone(), second] {
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(epoch(&mut Order::new(Seed(3), 10, 4), 0), first);
    }
}
