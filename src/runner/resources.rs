//! What there is of the machine, what each step wants of it, and what is free.
//!
//! A step starts when all it wants is free. While the first in the queue waits,
//! what it wants is set aside, so that small steps behind it do not keep it
//! waiting for ever; they may take the rest.
//!
//! Knows nothing of how a machine is asked, and measures nothing: a step is
//! believed.

use crate::{
    base::text,
    stages::kind::{Place, Ready},
};

/// What all steps together may take.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Cores.
    pub cpus: usize,
    /// Bytes of memory; none where nobody knows, and then nothing waits for it.
    pub memory: Option<u64>,
    /// Graphics cards.
    pub cards: Vec<Card>,
}

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name, as programs are told it.
    pub name: String,
    /// The number by which this program would open it.
    pub number: Option<usize>,
}

/// What one step wants while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Cores, if it says how many.
    pub cpus: Option<usize>,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether that is what the step's table says, and no estimate of ours.
    pub is_declared: bool,
    /// Cards.
    pub cards: Cards,
}

/// Which cards a step wants for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cards {
    /// None.
    #[default]
    None,
    /// So many, no matter which.
    Any(usize),
    /// The one at this place.
    This(usize),
}

impl Claim {
    /// What a step wants: what its table says, else what is known of it.
    pub fn of(ready: &Ready, capacity: &Capacity) -> Claim {
        let asked = &ready.execution.resources;
        let own_card = match ready.place {
            Some(Place::Card(Some(number))) => {
                capacity.cards.iter().position(|card| card.number == Some(number))
            }
            _ => None,
        };
        let cards = match (asked.devices, own_card) {
            (Some(0), _) | (None, None) => Cards::None,
            (_, Some(place)) => Cards::This(place),
            (Some(n), None) => Cards::Any(n as usize),
        };
        // The estimate is one for the processor; a card's memory is not shared.
        let on_processor = ready.place == Some(Place::Processor);
        let estimate = || ready.stage.needs().filter(|_| on_processor).map(|need| need.bytes);
        Claim {
            cpus: asked.cpus.map(|n| n as usize),
            memory: asked.memory.map(|bytes| bytes.0).or_else(estimate).unwrap_or(0),
            is_declared: asked.memory.is_some(),
            cards,
        }
    }

    /// What it was asked for that the whole machine does not have: the field
    /// and a phrase. An estimate is no promise, and is not held against it.
    pub fn beyond(&self, capacity: &Capacity) -> Option<(&'static str, String)> {
        if let Some(cpus) = self.cpus.filter(|&cpus| cpus > capacity.cpus) {
            let cores = |n: usize| text::plural(n as u64, "core");
            return Some(("cpus", format!("{}, and there are {}", cores(cpus), capacity.cpus)));
        }
        if let Some(memory) = capacity.memory.filter(|&all| self.is_declared && self.memory > all) {
            let [want, have] = [self.memory, memory].map(text::bytes);
            return Some(("memory", format!("{want} of memory, and there are {have}")));
        }
        match self.cards {
            Cards::Any(n) if n > capacity.cards.len() => {
                let have = capacity.cards.len();
                let want = text::plural(n as u64, "graphics card");
                Some(("devices", format!("{want}, and there are {have}")))
            }
            _ => None,
        }
    }

    /// What it wants in a few words, if anything.
    pub fn words(&self) -> Option<String> {
        let cpus = self.cpus.map(|n| text::plural(n as u64, "core"));
        let memory = (self.is_declared && self.memory > 0).then(|| text::bytes(self.memory));
        let cards = match self.cards {
            Cards::Any(n) => Some(text::plural(n as u64, "graphics card")),
            Cards::None | Cards::This(_) => None,
        };
        let all: Vec<String> = [cpus, memory, cards].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// What is free.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    all: Capacity,
    cpus: usize,
    memory: Option<u64>,
    taken: Vec<bool>, // by card
}

/// What a step was given, to be given back.
#[derive(Clone, Debug, Default)]
pub(super) struct Grant {
    /// Cores, if it said how many.
    pub(super) cpus: Option<usize>,
    memory: u64,
    cards: Vec<usize>,
}

impl Pool {
    pub(super) fn new(all: Capacity) -> Pool {
        let (cpus, memory, taken) = (all.cpus, all.memory, vec![false; all.cards.len()]);
        Pool { all, cpus, memory, taken }
    }

    /// Cores that nobody asked for by number.
    pub(super) fn free_cpus(&self) -> usize {
        self.cpus
    }

    /// Takes all that is wanted, or nothing. More than there is counts as all
    /// there is: whoever is alone may have that.
    pub(super) fn take(&mut self, claim: &Claim) -> Option<Grant> {
        let cpus = claim.cpus.map(|n| n.min(self.all.cpus));
        let memory = self.all.memory.map_or(0, |all| claim.memory.min(all));
        let cards = self.choose(claim.cards, false)?;
        if cpus.unwrap_or(0) > self.cpus || self.memory.is_some_and(|free| memory > free) {
            return None;
        }
        self.cpus -= cpus.unwrap_or(0);
        self.memory = self.memory.map(|free| free - memory);
        cards.iter().for_each(|&card| self.taken[card] = true);
        Some(Grant { cpus, memory, cards })
    }

    /// Keeps what is wanted from others, as far as it is there.
    pub(super) fn set_aside(&mut self, claim: &Claim) {
        self.cpus = self.cpus.saturating_sub(claim.cpus.unwrap_or(0));
        self.memory = self.memory.map(|free| free.saturating_sub(claim.memory));
        let cards = self.choose(claim.cards, true).unwrap_or_default();
        cards.iter().for_each(|&card| self.taken[card] = true);
    }

    pub(super) fn give_back(&mut self, grant: &Grant) {
        self.cpus += grant.cpus.unwrap_or(0);
        self.memory = self.memory.map(|free| free + grant.memory);
        grant.cards.iter().for_each(|&card| self.taken[card] = false);
    }

    /// Names of the cards of a grant.
    pub(super) fn names(&self, grant: &Grant) -> Vec<String> {
        grant.cards.iter().map(|&card| self.all.cards[card].name.clone()).collect()
    }

    /// Free cards that are wanted; with `fewer`, as many as there are.
    fn choose(&self, wanted: Cards, fewer: bool) -> Option<Vec<usize>> {
        let free = |card: &usize| !self.taken[*card];
        match wanted {
            Cards::None => Some(Vec::new()),
            Cards::This(card) => Some(vec![card]).filter(|_| free(&card)),
            Cards::Any(n) => {
                let n = n.min(self.taken.len());
                let found: Vec<usize> = (0..self.taken.len()).filter(free).take(n).collect();
                (found.len() == n || fewer).then_some(found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cards: usize) -> Capacity {
        let card = |n: usize| Card { name: n.to_string(), number: Some(n) };
        Capacity { cpus: 4, memory: Some(100), cards: (0..cards).map(card).collect() }
    }

    fn claim(cpus: usize, memory: u64, cards: Cards) -> Claim {
        Claim { cpus: Some(cpus).filter(|&n| n > 0), memory, is_declared: true, cards }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut pool = Pool::new(machine(2));
        let first = pool.take(&claim(3, 60, Cards::Any(1))).unwrap();
        assert_eq!(pool.names(&first), ["0"]);
        assert!(pool.take(&claim(2, 0, Cards::None)).is_none());
        assert!(pool.take(&claim(0, 41, Cards::None)).is_none());
        assert!(pool.take(&claim(0, 0, Cards::This(0))).is_none());
        let second = pool.take(&claim(1, 40, Cards::This(1))).unwrap();
        pool.give_back(&first);
        let third = pool.take(&claim(3, 60, Cards::Any(1))).unwrap();
        assert_eq!((pool.names(&second), pool.names(&third)), (vec!["1".into()], vec!["0".into()]));
    }

    #[test]
    fn who_is_alone_may_have_all_there_is() {
        let mut pool = Pool::new(machine(1));
        let huge = claim(9, 1000, Cards::Any(3));
        assert!(huge.beyond(&machine(1)).is_some());
        let grant = pool.take(&huge).unwrap();
        assert!(pool.take(&claim(1, 0, Cards::None)).is_none());
        pool.give_back(&grant);
        let estimated = Claim { is_declared: false, ..claim(0, 1000, Cards::None) };
        assert_eq!(estimated.beyond(&machine(1)), None);
        assert!(pool.take(&estimated).is_some());
    }

    #[test]
    fn what_is_set_aside_is_kept_from_others() {
        let mut pool = Pool::new(machine(1));
        pool.take(&claim(0, 70, Cards::None)).unwrap();
        pool.set_aside(&claim(0, 80, Cards::Any(1)));
        assert!(pool.take(&claim(0, 1, Cards::None)).is_none());
        assert!(pool.take(&claim(0, 0, Cards::This(0))).is_none());
        assert!(pool.take(&claim(2, 0, Cards::None)).is_some());
    }
}
