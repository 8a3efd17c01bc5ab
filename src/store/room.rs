//! Making room: which results' contents go first where a store must be smaller.
//!
//! What takes the least time to make again for each byte goes first. Records,
//! metrics, scores, tallies, logs and dialogues never go: they are the evidence.
//! Neither does what came from outside, which may not be there any more, nor what
//! is in doubt, which would come out otherwise. Knows nothing of manifests.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::fs,
    store::{Store, doubt, record::ActionRecord},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A result that gives up contents.
#[derive(Debug)]
pub struct Leaving {
    /// The step that made it first.
    pub step: String,
    /// Bytes that get free.
    pub bytes: u64,
    /// Seconds that it took to make, and would take to make again.
    pub seconds: f64,
    objects: Vec<Digest>,
}

/// How a budget can be kept.
#[derive(Debug, Default)]
pub struct Room {
    /// Bytes of all objects that records speak of.
    pub before: u64,
    /// The same afterwards.
    pub after: u64,
    /// What goes, cheapest first.
    pub leaving: Vec<Leaving>,
}

/// Whether an output's contents may go at all.
fn may_go(record: &ActionRecord, kind: ArtifactKind) -> bool {
    let reads_something = record.identity.lines().any(|line| line.starts_with("input."));
    let bulky = matches!(kind, ArtifactKind::Model | ArtifactKind::Files | ArtifactKind::Examples);
    bulky && reads_something
}

impl Store {
    /// What would have to go so that the objects have at most `budget` bytes.
    /// What was written within `grace` stays.
    ///
    /// # Errors
    /// When the machine cannot read, or a record cannot be read.
    pub fn room(&self, budget: u64, grace: Duration) -> Outcome<Room> {
        let doubts = doubt::all(self)?;
        let mut records = Vec::new();
        for (key, record) in self.records()? {
            records.push(record.map_err(|why| {
                Failure::environment(format!("the record of action {} {why}", key.short()))
                    .hint("`rekindle verify` puts damaged records aside")
            })?);
        }
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut kept: BTreeSet<Digest> = BTreeSet::new();
        for record in &records {
            for output in &record.outputs {
                let stays = doubts.contains(&record.key) || !may_go(record, output.kind);
                for file in &output.files {
                    sizes.insert(file.digest, file.size);
                    if stays {
                        kept.insert(file.digest);
                    }
                }
            }
        }
        sizes.retain(|digest, size| fs::size(&self.object(digest)) == Some(*size));
        let mut room = Room { before: sizes.values().sum(), ..Room::default() };
        room.after = room.before;
        if room.before <= budget {
            return Ok(room);
        }
        // Who makes a content in the least time gives it up for all others.
        records.sort_by(|a, b| a.provenance.seconds.total_cmp(&b.provenance.seconds));
        let mut given = BTreeSet::new();
        let mut candidates = Vec::new();
        for record in &records {
            let files = record.outputs.iter().flat_map(|output| &output.files);
            let objects: Vec<Digest> = files
                .map(|file| file.digest)
                .filter(|digest| sizes.contains_key(digest) && !kept.contains(digest))
                .filter(|digest| fs::age(&self.object(digest)).is_some_and(|(age, _)| age >= grace))
                .filter(|digest| given.insert(*digest))
                .collect();
            let bytes: u64 = objects.iter().map(|digest| sizes[digest]).sum();
            if bytes > 0 {
                let (step, seconds) = (record.provenance.step.clone(), record.provenance.seconds);
                candidates.push(Leaving { step, bytes, seconds, objects });
            }
        }
        let price = |one: &Leaving| one.seconds / one.bytes as f64;
        candidates.sort_by(|a, b| price(a).total_cmp(&price(b)).then_with(|| a.step.cmp(&b.step)));
        for one in candidates {
            if room.after <= budget {
                break;
            }
            room.after -= one.bytes;
            room.leaving.push(one);
        }
        Ok(room)
    }

    /// Takes out what a budget has no room for. Nobody must be running: a step
    /// that reads what goes would fail.
    ///
    /// # Errors
    /// When a step is running, or the machine refuses.
    pub fn make_room(&self, room: &Room) -> Outcome<()> {
        for name in fs::names(&self.root().join("tmp"))? {
            let Ok(key) = name.parse::<Digest>() else { continue };
            if let Err(holder) = self.try_lock(&key)? {
                let what = format!("{holder} works in the store `{}`", self.root().display());
                return Err(Failure::environment(what).hint("wait until it is done"));
            }
        }
        let objects = || room.leaving.iter().flat_map(|one| &one.objects);
        // Marked first: a kill in between leaves what is there, and no damage.
        self.mark_out(objects())?;
        objects().try_for_each(|digest| fs::remove_file(&self.object(digest)))
    }
}
