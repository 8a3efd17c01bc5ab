//! Looking after a store: reading every byte of it again, and taking away what
//! nothing refers to any more.
//!
//! Records, replies and what unfinished actions may go on from are never taken
//! away. Knows nothing of manifests.

use crate::{
    base::{
        failure::{Failure, Outcome},
        hash::Digest,
    },
    host::fs,
    store::{Store, record::ActionRecord},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// What a look at every byte found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Records that were read.
    pub records: u64,
    /// Files behind them, each counted once.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Steps whose results are damaged, and how; they were put aside and will be made again.
    pub damaged: Vec<(String, String)>,
}

/// Something that nothing refers to.
#[derive(Debug)]
pub struct Garbage {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes, those of all files of a folder.
    pub bytes: u64,
}

impl Store {
    /// Reads every record and every file behind it. What does not have its
    /// digest any more is put aside, so that the next run makes it again.
    /// `watch` hears bytes read and in all, and ends it by an error.
    ///
    /// # Errors
    /// When the machine cannot read or move; what `watch` returns.
    pub fn verify(&self, watch: &dyn Fn(u64, u64) -> Outcome<()>) -> Outcome<Verified> {
        let mut found = Verified::default();
        let mut sound = Vec::new();
        for (key, record) in self.records()? {
            found.records += 1;
            match record {
                Ok(record) => sound.push(record),
                Err(why) => {
                    found
                        .damaged
                        .push((format!("action {}", key.short()), format!("its record {why}")));
                    self.quarantine(&key)?;
                }
            }
        }
        let files = || sound.iter().flat_map(|record| &record.outputs).flat_map(|out| &out.files);
        let sizes: BTreeMap<Digest, u64> = files().map(|file| (file.digest, file.size)).collect();
        (found.files, found.bytes) = (sizes.len() as u64, sizes.values().sum());
        let (mut read, mut seen) = (0, BTreeMap::new());
        for file in files() {
            if seen.contains_key(&file.digest) {
                continue;
            }
            watch(read, found.bytes)?;
            let why = self.damage(file, true)?.filter(|_| !self.is_out(&file.digest));
            seen.insert(file.digest, why);
            read += file.size;
        }
        watch(found.bytes, found.bytes)?;
        for record in &sound {
            let files = record.outputs.iter().flat_map(|output| &output.files);
            let why = files
                .filter_map(|file| Some((file, seen.get(&file.digest)?.as_ref()?)))
                .map(|(file, why)| format!("`{}` {why}", file.name));
            let why: Vec<String> = why.collect();
            if !why.is_empty() {
                found.damaged.push((record.provenance.step.clone(), why.join("; ")));
                self.quarantine(&record.key)?;
            }
        }
        Ok(found)
    }

    /// What nothing refers to and nobody has touched for `grace`: files of no
    /// record, what was put aside, what finished actions might have gone on
    /// from. A run beside it loses nothing: what it stores is younger.
    ///
    /// # Errors
    /// When the machine cannot read, or a record cannot be read, since nobody
    /// knows then what it refers to.
    pub fn garbage(&self, grace: Duration) -> Outcome<Vec<Garbage>> {
        let mut kept = BTreeSet::new();
        let mut done = BTreeSet::new();
        for (key, record) in self.records()? {
            let record = record.map_err(|why| {
                Failure::environment(format!("the record of action {} {why}", key.short()))
                    .hint("`rekindle verify` puts damaged records aside")
            })?;
            done.insert(key);
            let files = record.outputs.iter().flat_map(|output| &output.files);
            kept.extend(files.map(|file| file.digest));
        }
        let mut found = Vec::new();
        let mut add = |path: PathBuf| -> Outcome<()> {
            if let Some((age, size)) = fs::age(&path)
                && age >= grace
            {
                let bytes = match size {
                    Some(bytes) => bytes,
                    None => fs::walk(&path)?.iter().filter_map(|(_, path)| fs::size(path)).sum(),
                };
                found.push(Garbage { path, bytes });
            }
            Ok(())
        };
        let objects = self.root().join("objects");
        for shelf in fs::names(&objects)? {
            for name in fs::names(&objects.join(&shelf))? {
                // What has no digest for a name is not ours to judge.
                if name.parse().is_ok_and(|digest: Digest| !kept.contains(&digest)) {
                    add(objects.join(&shelf).join(name))?;
                }
            }
        }
        let partial = self.root().join("partial");
        for name in fs::names(&partial)? {
            if name.parse().is_ok_and(|key: Digest| done.contains(&key)) {
                add(partial.join(name))?;
            }
        }
        let quarantine = self.root().join("quarantine");
        for name in fs::names(&quarantine)? {
            add(quarantine.join(name))?;
        }
        Ok(found)
    }

    /// Takes garbage away.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn take_out(&self, garbage: &[Garbage]) -> Outcome<()> {
        for Garbage { path, .. } in garbage {
            match path.is_dir() {
                true => fs::remove_folder(path)?,
                false => fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    /// All records by key, or what is wrong with one.
    pub(super) fn records(&self) -> Outcome<Vec<(Digest, Result<ActionRecord, String>)>> {
        let actions = self.root().join("actions");
        let mut found = Vec::new();
        for shelf in fs::names(&actions)? {
            for name in fs::names(&actions.join(&shelf))? {
                let Some(key) = name.strip_suffix(".json").and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                let path = actions.join(&shelf).join(&name);
                let Some(bytes) = fs::read(&path)? else { continue };
                found.push((key, ActionRecord::decode(&bytes, &key)));
            }
        }
        Ok(found)
    }
}
