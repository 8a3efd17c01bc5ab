//! Reading a pack: everything is checked on the way and laid aside, and only
//! when the seal at the end has been found right does the store get to see it.

use super::{HEAD, HISTORY, Head, ORDER, SEAL, Sealing, VERSION};
use crate::{
    base::{
        failure::{Doing, Failure, Outcome},
        hash::Digest,
    },
    host::{
        archive::{self, Entry},
        disk::Out,
        fs::{self, Hashed},
    },
    store::{
        Store, doubt,
        history::{self, History},
        lines,
        record::ActionRecord,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
};

/// No text in a pack is larger; contents may be of any size.
const LONGEST_TEXT: u64 = 1 << 28;

/// What is in a pack that is whole.
#[derive(Debug)]
pub struct Found {
    /// What it says of itself.
    pub head: Head,
    /// Number of records.
    pub records: u64,
    /// Number of contents.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Digest of all of it.
    pub seal: String,
    /// Manifest and report, by names below `manifest/` and `results/`.
    pub texts: BTreeMap<String, Vec<u8>>,
}

/// What the store got of a pack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Records that are new.
    pub new: u64,
    /// Records that were there already.
    pub known: u64,
    /// Records that were there already with another result, which stays.
    pub otherwise: u64,
}

/// Reads a pack and checks all of it; keeps nothing.
///
/// # Errors
/// When it is damaged, cut short, or no pack.
pub fn check(path: &Path) -> Outcome<Found> {
    read(path, None)
}

/// Takes a pack into a store: all of it, or nothing at all.
///
/// # Errors
/// When it is damaged, cut short or no pack, somebody else is taking it, or the
/// disk refuses.
pub fn take(
    store: &Store,
    path: &Path,
    agreed: &dyn Fn(&Found) -> Outcome<()>,
) -> Outcome<(Found, Taken)> {
    // A folder as for an attempt: what is left of a killed one is swept away.
    let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = Digest::tagged("rekindle 2026 unpacking v1", name.as_os_str().as_encoded_bytes());
    let _lock = store.try_lock(&name)?.map_err(|holder| {
        Failure::environment(format!("`{}` is being unpacked by {holder}", path.display()))
    })?;
    let folder = store.attempt(&name)?;
    let read = read(path, Some(&folder)).and_then(|found| {
        agreed(&found)?;
        Ok((publish(store, &folder, &found)?, found))
    });
    let gone = fs::remove_folder(&folder);
    let (taken, found) = read?;
    gone?;
    Ok((found, taken))
}

/// Goes through a pack; with a folder, lays what it holds into it.
fn read(path: &Path, aside: Option<&Path>) -> Outcome<Found> {
    let mut reading = Reading {
        path,
        aside,
        sealing: Sealing::new(),
        last: (0, String::new()),
        head: None,
        needed: BTreeMap::new(),
        objects: BTreeMap::new(),
        keys: BTreeSet::new(),
        texts: BTreeMap::new(),
        seal: None,
    };
    for part in ["records", "objects", "doubts", "runs"] {
        if let Some(folder) = aside {
            fs::create_folder(&folder.join(part))?;
        }
    }
    archive::each(path, &mut |entry| reading.entry(entry))?;
    reading.end()
}

struct Reading<'a> {
    path: &'a Path,
    aside: Option<&'a Path>,
    sealing: Sealing,
    /// Part and name of the last entry.
    last: (usize, String),
    head: Option<Head>,
    /// What the records refer to, with its bytes.
    needed: BTreeMap<Digest, u64>,
    objects: BTreeMap<Digest, u64>,
    keys: BTreeSet<Digest>,
    texts: BTreeMap<String, Vec<u8>>,
    seal: Option<String>,
}

impl Reading<'_> {
    fn wrong(&self, why: &str) -> Failure {
        Failure::input(format!("`{}` is not a pack that can be used: {why}", self.path.display()))
            .hint("nothing of it was taken; copy it again from where it was made")
    }

    fn entry(&mut self, entry: Entry) -> Outcome<()> {
        let Entry { name, size, content } = entry;
        let fits = |part: &'static str| match part.ends_with('/') {
            true => name.len() > part.len() && name.starts_with(part),
            false => name == part,
        };
        let Some(place) = ORDER.iter().position(|part| fits(part)) else {
            return Err(self.wrong(&format!("nothing called `{name}` belongs into one")));
        };
        let here = (place, name.clone());
        let is_first = self.head.is_none() && self.seal.is_none();
        if self.seal.is_some() || (place == 0) != is_first || !is_first && here <= self.last {
            return Err(self.wrong(&format!("`{name}` is not where it belongs")));
        }
        self.last = here;
        let rest = name[ORDER[place].len()..].to_owned();
        if ORDER[place] == "objects/" {
            return self.object(&name, &rest, size, content);
        }
        if size > LONGEST_TEXT {
            return Err(self.wrong(&format!("`{name}` is too large")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let got = content.take(size).read_to_end(&mut bytes);
        if got.map_err(|error| self.wrong(&format!("`{name}` cannot be read")).caused_by(error))?
            as u64
            != size
        {
            return Err(self.wrong(&format!("it ends within `{name}`")));
        }
        if ORDER[place] == SEAL {
            let text = self.sealing.text();
            if bytes != text.as_bytes() {
                return Err(self.wrong("its seal does not match what is in it"));
            }
            self.seal = Some(text.trim().to_owned());
            return Ok(());
        }
        self.sealing.add(&name, size, &Digest::of_blob(&bytes));
        match ORDER[place] {
            HEAD => self.head(&bytes),
            "records/" => self.record(&rest, &bytes),
            "doubts/" => {
                let key = keyed(&rest).filter(|key| self.keys.contains(key));
                let key = key.ok_or_else(|| self.wrong(&format!("`{name}` doubts no record")))?;
                self.lay(&format!("doubts/{key}"), &bytes)
            }
            "runs/" => {
                let run = rest.strip_suffix(".jsonl").filter(|run| is_run(run));
                let run = run.ok_or_else(|| self.wrong(&format!("`{name}` names no run")))?;
                self.lay(&format!("runs/{run}"), &bytes)
            }
            HISTORY => self.lay(HISTORY, &bytes),
            _ if fs::is_plain_name(&rest) => {
                self.texts.insert(name, bytes);
                Ok(())
            }
            _ => Err(self.wrong(&format!("`{name}` leads out of its folder"))),
        }
    }

    fn lay(&self, name: &str, bytes: &[u8]) -> Outcome<()> {
        let Some(folder) = self.aside else { return Ok(()) };
        let path = folder.join(name);
        fs::write(&path, bytes)
    }

    fn head(&mut self, bytes: &[u8]) -> Outcome<()> {
        let version = |value: &serde_json::Value| value.get("rekindle-pack")?.as_u64();
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| self.wrong("its first file cannot be read").caused_by(error))?;
        match version(&value) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(Failure::input(format!(
                    "`{}` has version {version}, and this program reads version {VERSION} only",
                    self.path.display()
                ))
                .hint("it was written by another `rekindle`: use that one"));
            }
            None => return Err(self.wrong("its first file is not that of a pack")),
        }
        let head: Head = serde_json::from_value(value)
            .map_err(|error| self.wrong("its first file cannot be read").caused_by(error))?;
        if !fs::is_plain_name(&head.manifest) || !is_plain_word(&head.experiment) {
            return Err(self.wrong("its first file names what cannot be a name"));
        }
        self.head = Some(head);
        Ok(())
    }

    fn record(&mut self, rest: &str, bytes: &[u8]) -> Outcome<()> {
        let key = keyed(rest).ok_or_else(|| self.wrong(&format!("`{rest}` names no record")))?;
        let record = ActionRecord::decode(bytes, &key)
            .map_err(|why| self.wrong(&format!("the record {} {why}", key.short())))?;
        for file in record.outputs.iter().flat_map(|output| &output.files) {
            if !fs::is_plain_name(&file.name) {
                return Err(self.wrong(&format!("a record names a file `{}`", file.name)));
            }
            if *self.needed.entry(file.digest).or_insert(file.size) != file.size {
                return Err(self.wrong("two records give one content different sizes"));
            }
        }
        self.keys.insert(key);
        self.lay(&format!("records/{key}"), bytes)
    }

    fn object(&mut self, name: &str, rest: &str, size: u64, content: &mut dyn Read) -> Outcome<()> {
        let digest: Option<Digest> =
            rest.parse().ok().filter(|one: &Digest| one.to_string() == rest);
        let Some(digest) = digest.filter(|digest| self.needed.get(digest) == Some(&size)) else {
            return Err(self.wrong(&format!("no record wants `{name}` with {size} bytes")));
        };
        let mut hashed = Hashed::new(content);
        match self.aside {
            Some(folder) => {
                let path = folder.join("objects").join(rest);
                let doing = || format!("writing `{}`", path.display());
                let mut file = Out::create(&path).doing(doing)?;
                std::io::copy(&mut hashed, &mut file).doing(doing)?;
                file.sync().doing(doing)?;
            }
            None => {
                std::io::copy(&mut hashed, &mut std::io::sink()).map_err(|error| {
                    self.wrong(&format!("`{name}` cannot be read")).caused_by(error)
                })?;
            }
        }
        let (read, found) = hashed.finish();
        if read != size {
            return Err(self.wrong(&format!("it ends within `{name}`")));
        }
        if found != digest {
            return Err(self.wrong(&format!("`{name}` has another content than its name says")));
        }
        self.sealing.add(name, size, &digest);
        self.objects.insert(digest, size);
        Ok(())
    }

    fn end(self) -> Outcome<Found> {
        let Some(head) = &self.head else { return Err(self.wrong("it is empty")) };
        let Some(seal) = &self.seal else {
            return Err(self.wrong("it is cut short: its seal is missing"));
        };
        let is_told = |(digest, size): (&Digest, &u64)| {
            self.objects.contains_key(digest) != (head.left_out.get(digest) == Some(size))
        };
        if !self.needed.iter().all(is_told)
            || head.left_out.keys().any(|one| !self.needed.contains_key(one))
        {
            return Err(self.wrong("a content is missing that it does not say was left out"));
        }
        if !self.texts.contains_key(&format!("manifest/{}", head.manifest)) {
            return Err(self.wrong("its manifest is missing"));
        }
        Ok(Found {
            records: self.keys.len() as u64,
            objects: self.objects.len() as u64,
            bytes: self.objects.values().sum(),
            seal: seal.clone(),
            head: head.clone(),
            texts: self.texts,
        })
    }
}

fn keyed(rest: &str) -> Option<Digest> {
    let name = rest.strip_suffix(".json")?;
    name.parse().ok().filter(|key: &Digest| key.to_string() == name)
}

fn is_run(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_plain_word(name: &str) -> bool {
    fs::is_plain_name(name) && !name.contains('/')
}

/// Gives the store what was laid aside: contents, then what stands for those
/// that were left out, then records, then what only explains.
fn publish(store: &Store, folder: &Path, found: &Found) -> Outcome<Taken> {
    let aside = |part: &str, name: &str| -> PathBuf { folder.join(part).join(name) };
    let mut shelves = BTreeSet::new();
    for name in fs::names(&folder.join("objects"))? {
        let digest = digest_of(&name)?;
        let (from, to) = (aside("objects", &name), store.object(&digest));
        fs::make_read_only(&from)?;
        let shelf = to.parent().expect("an object is on a shelf").to_owned();
        fs::create_folder(&shelf)?;
        fs::rename(&from, &to)?;
        shelves.insert(shelf);
    }
    // Records must not be there before what they speak of.
    shelves.iter().try_for_each(|shelf| fs::sync_folder(shelf))?;
    let missing = |digest: &&Digest| fs::size(&store.object(digest)).is_none();
    store.mark_out(found.head.left_out.keys().filter(missing))?;
    let mut taken = Taken::default();
    for name in fs::names(&folder.join("records"))? {
        let key = digest_of(&name)?;
        let bytes = fs::read(&aside("records", &name))?.unwrap_or_default();
        let ours = ActionRecord::decode(&bytes, &key).map_err(Failure::bug)?;
        match store.record(&key)? {
            Some(theirs) if theirs.outputs == ours.outputs => taken.known += 1,
            Some(_) => taken.otherwise += 1,
            None => {
                let path = store.record_path(&key);
                fs::create_folder(path.parent().expect("a record is on a shelf"))?;
                fs::write_atomic(&path, &folder.join("record.json"), &bytes)?;
                taken.new += 1;
            }
        }
    }
    for name in fs::names(&folder.join("doubts"))? {
        let to = doubt::path(store, &digest_of(&name)?);
        fs::create_folder(to.parent().expect("it is in a folder"))?;
        if fs::size(&to).is_none() {
            fs::rename(&aside("doubts", &name), &to)?;
        }
    }
    for name in fs::names(&folder.join("runs"))? {
        let run = store.root().join("runs").join(&name);
        if !run.exists() {
            fs::create_folder(&run)?;
            fs::rename(&aside("runs", &name), &run.join("journal.jsonl"))?;
        }
    }
    let mut history = History::read(store)?;
    for line in lines::read(&folder.join(HISTORY))? {
        let Ok(entry) = serde_json::from_str::<history::Entry>(&line) else { continue };
        // What this machine did itself says more about this machine.
        if history.last(&entry.step).is_none() {
            let (step, key) = (entry.step.clone(), entry.key);
            history.note(store, &step, &key, || entry)?;
        }
    }
    Ok(taken)
}

fn digest_of(name: &str) -> Outcome<Digest> {
    name.parse().map_err(|_| Failure::bug(format!("`{name}` was laid aside")))
}
