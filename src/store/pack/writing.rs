//! Writing a pack: what was loaded is put in order, contents flow from the store.

use super::{HEAD, HISTORY, Head, SEAL, Sealing, VERSION};
use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Doing, Failure, Outcome},
        hash::Digest,
    },
    host::{
        archive::Writer,
        fs::{self, Hashed},
    },
    store::{Store, doubt, history, lines, record::ActionRecord},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};

/// What a pack is made of, besides the contents in the store.
pub struct Contents<'a> {
    /// The experiment's name.
    pub experiment: &'a str,
    /// The manifest that was asked for, as in `manifest`.
    pub entry: &'a str,
    /// What `--set` changed in it.
    pub sets: &'a [String],
    /// The device it was planned for.
    pub device: &'a str,
    /// Every record, perhaps several times.
    pub records: &'a [&'a ActionRecord],
    /// What history says of the steps.
    pub history: &'a [&'a history::Entry],
    /// The manifest and what it extends, by name.
    pub manifest: &'a BTreeMap<String, String>,
    /// The report, by name.
    pub results: &'a BTreeMap<String, String>,
    /// Whether models' contents are left out.
    pub without_models: bool,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    /// Records.
    pub records: u64,
    /// Contents of files.
    pub objects: u64,
    /// Bytes of these contents.
    pub bytes: u64,
    /// Contents that are not in it.
    pub left_out: u64,
}

/// Writes a pack. Every content is held against its digest on the way.
///
/// # Errors
/// When a content is damaged or missing, or the disk refuses; there is no pack
/// then.
pub fn write(store: &Store, contents: &Contents, path: &Path) -> Outcome<Packed> {
    let records: BTreeMap<Digest, &ActionRecord> =
        contents.records.iter().map(|record| (record.key, *record)).collect();
    let (mut objects, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    for output in records.values().flat_map(|record| &record.outputs) {
        let leave = contents.without_models && output.kind == ArtifactKind::Model;
        for file in &output.files {
            let place = match leave || store.is_out(&file.digest) {
                true => &mut left_out,
                false => &mut objects,
            };
            place.insert(file.digest, file.size);
        }
    }
    // A model's file may be another output's too.
    left_out.retain(|digest, _| !objects.contains_key(digest));
    let head = Head {
        rekindle_pack: VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        experiment: contents.experiment.to_owned(),
        manifest: contents.entry.to_owned(),
        sets: contents.sets.to_vec(),
        device: contents.device.to_owned(),
        left_out,
    };
    let packed = Packed {
        records: records.len() as u64,
        objects: objects.len() as u64,
        bytes: objects.values().sum(),
        left_out: head.left_out.len() as u64,
    };
    let mut out = Out { writer: Writer::create(path)?, sealing: Sealing::new() };
    out.text(HEAD, &serde_json::to_vec_pretty(&head).expect("words and digests are JSON"))?;
    for (key, record) in &records {
        out.text(&format!("records/{key}.json"), &record.encode())?;
    }
    for (digest, size) in &objects {
        out.object(store, digest, *size)?;
    }
    for key in records.keys() {
        if let Some(bytes) = fs::read(&doubt::path(store, key))? {
            out.text(&format!("doubts/{key}.json"), &bytes)?;
        }
    }
    let runs: BTreeSet<&str> =
        records.values().map(|record| record.provenance.run.as_str()).collect();
    for run in runs {
        // A journal may be lost; results do not depend on it.
        if let Some(bytes) = fs::read(&store.root().join("runs").join(run).join("journal.jsonl"))? {
            out.text(&format!("runs/{run}.jsonl"), &bytes)?;
        }
    }
    let told: BTreeMap<&str, &history::Entry> =
        contents.history.iter().map(|entry| (entry.step.as_str(), *entry)).collect();
    let line = |entry: &&history::Entry| {
        lines::encode(&serde_json::to_string(entry).expect("an entry is JSON"))
    };
    out.text(HISTORY, told.values().map(line).collect::<String>().as_bytes())?;
    for (folder, files) in [("manifest", contents.manifest), ("results", contents.results)] {
        for (name, text) in files {
            out.text(&format!("{folder}/{name}"), text.as_bytes())?;
        }
    }
    out.end()?;
    Ok(packed)
}

struct Out {
    writer: Writer,
    sealing: Sealing,
}

impl Out {
    fn text(&mut self, name: &str, bytes: &[u8]) -> Outcome<()> {
        self.sealing.add(name, bytes.len() as u64, &Digest::of_blob(bytes));
        self.writer.add(name, bytes.len() as u64, &mut &bytes[..])
    }

    fn object(&mut self, store: &Store, digest: &Digest, size: u64) -> Outcome<()> {
        let path = store.object(digest);
        let file = File::open(&path).doing(|| format!("reading `{}`", path.display()))?;
        let mut content = Hashed::new(file);
        let name = format!("objects/{digest}");
        self.writer.add(&name, size, &mut content)?;
        let (_, found) = content.finish();
        if found != *digest {
            return Err(Failure::environment(format!(
                "the object `{}` is damaged",
                path.display()
            ))
            .hint("`rekindle verify` puts it aside, and the next run makes it again"));
        }
        self.sealing.add(&name, size, digest);
        Ok(())
    }

    fn end(mut self) -> Outcome<()> {
        let text = self.sealing.text();
        self.writer.add(SEAL, text.len() as u64, &mut text.as_bytes())?;
        self.writer.finish()
    }
}
