//! Kind `import`: a folder in Hugging Face's layout, or a commit of a hub, ->
//! a checkpoint and a tokenizer. Nothing is random; a hub is asked while the
//! step runs and at no other time.
//!
//! What the folder holds is part of the identity, where it lies is not. Number
//! formats of weights stay as they are; they become f32 where they are used.

use crate::base::artifact::{ArtifactKind, Tokenizer as TokenizerArtifact};
use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::hash::{Digest, Hasher};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, Spec, spec};
use crate::engine::config::LlamaConfig;
use crate::engine::tokenizer;
use crate::engine::weights::folder::Weights;
use crate::host::fs;
use crate::host::hub::{self, Hub};
use crate::record::TrainLog;
use crate::stages::foresight::{self, Foreseen, Given};
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::{OutputFolder, Work};
use crate::store::spread::Range;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const CONTEXT: &str = "rekindle 2026 checkpoint folder v1";
const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
/// Any of these is a vocabulary.
const VOCABULARIES: [&str; 2] = ["tokenizer.json", "tokenizer.model"];

spec! {
    /// Takes in a LLaMA checkpoint from a folder in Hugging Face's layout, or from a hub:
    /// `config.json`, weights as safetensors or torch files (one, or several with an index), and its
    /// tokenizer. Pickles are read as data; nothing in them is run.
    #[check(sensible)]
    pub struct Import {
        /// The folder, seen from where the program is started; or else `repository`.
        #[exec]
        folder: Option<String>,
        /// A hub's repository, as `organisation/name`. Its files are taken from the cache of Hugging
        /// Face's libraries, and fetched where they are not in it; HF_TOKEN, HF_ENDPOINT, HF_HOME,
        /// HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to those.
        repository: Option<String>,
        /// The repository's commit, 40 hexadecimal digits.
        revision: Option<String>,
        /// Digest of what is read of the folder, 64 lower-case hexadecimal digits. Without it the folder is
        /// read before every run, plan or report to find it out, and `why` shows it; with it a
        /// stored result needs no folder.
        digest: Option<String>,
        /// How many weights it is known to have, such as 6.74e9: what `plan` reckons with before it is
        /// here.
        #[exec]
        weights: Option<f64>,
        /// Vocabulary to use instead of the folder's.
        tokenizer: Option<Ref<TokenizerArtifact>>,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<Import>("import", "stage", 1, false);

fn sensible(import: &Import, node: &Node, cx: &mut Reading) {
    // One way to write it, so that the same digest is the same identity.
    let is_plain = |text: &String| text.parse::<Digest>().is_ok_and(|d| d.to_string() == *text);
    if !import.digest.as_ref().is_none_or(is_plain) {
        cx.error(&node.origin, "`digest` must be 64 lower-case hexadecimal digits");
    }
    let mistake = match (&import.folder, &import.repository, &import.revision) {
        (Some(_), None, None) => return,
        (None, Some(name), Some(_)) if hub::is_repository(name) => return,
        (None, Some(_), Some(_)) => "`repository` must be `organisation/name`",
        (None, Some(_), None) => "a `repository` needs the `revision`, a commit of it",
        (_, None, Some(_)) => "a `revision` is one of a `repository`",
        (Some(_), Some(_), _) => "either `folder` or `repository` can be given, not both",
        (None, None, None) => "`folder`, or `repository` with `revision`, must be given",
    };
    cx.error(&node.origin, mistake);
}

impl Stage for Import {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("model".into(), ArtifactKind::Model), ("tokenizer".into(), ArtifactKind::Tokenizer)]
    }

    fn pinned(&self) -> Outcome<Option<(Arc<dyn Stage>, String)>> {
        let (None, Some(folder)) = (&self.digest, &self.folder) else { return Ok(None) };
        let digest = Some(self.digest_once(folder)?.to_string());
        let pinned = Import { digest, ..self.clone() };
        let identity = pinned.identity();
        Ok(Some((Arc::new(pinned), identity)))
    }

    fn foresee(&self, _: &Given) -> Option<Foreseen> {
        let size = self.weights?;
        let bytes = Range::exact(foresight::stored(size));
        Some(Foreseen { bytes, ..Foreseen::of("model", foresight::model(size)) })
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let found = match (&self.repository, &self.revision) {
            (Some(repository), Some(revision)) => self.fetched(repository, revision, work)?,
            _ => self.look(Path::new(self.folder.as_deref().unwrap_or_default()))?,
        };
        let config_path = found.folder.join(CONFIG);
        let config_file = fs::read(&config_path)?.unwrap_or_default();
        let config = LlamaConfig::from_json(&config_file, &format!("`{}`", config_path.display()))?;
        let out = work.output("model");
        out.write_json(CONFIG, &config)?;
        found.weights.gather(
            &config,
            &out.path().join("model.safetensors"),
            &mut |done, all| {
                work.progress(done, all, "bytes", "weights");
                work.check()
            },
        )?;
        if !found.beside.iter().any(|name| name == GENERATION) {
            out.write_json(GENERATION, &marks(&config_file)?)?;
        }
        // No training of ours is behind it.
        out.write_json("train.json", &TrainLog::default())?;
        for name in &found.beside {
            let path = found.folder.join(name);
            let bytes = fs::read(&path)?.unwrap_or_default();
            out.write(name, &bytes)?;
            if name != GENERATION {
                work.output("tokenizer").write(name, &bytes)?;
            }
        }
        if let Some(vocabulary) = work.optional_input("tokenizer") {
            for name in vocabulary.files() {
                copy(&vocabulary.file(name)?, work.output("tokenizer"), name)?;
                copy(&vocabulary.file(name)?, out, name)?;
            }
        }
        work.check()?;
        // Read again after all was taken: what is stored is what was pinned.
        let digest = found.digest()?;
        if let Some(wanted) = &self.digest
            && *wanted != digest.to_string()
        {
            return Err(Failure::input(format!(
                "`{}` has the digest {digest}, and {wanted} was expected",
                found.folder.display()
            ))
            .hint("either the folder is another checkpoint, or `digest` is to be changed"));
        }
        work.metric("parameters", config.size() as f64);
        Ok(())
    }
}

/// What is read of a folder.
struct Found {
    folder: PathBuf,
    weights: Weights,
    /// Names of the small files that are kept as they are.
    beside: Vec<String>,
}

impl Import {
    fn look(&self, folder: &Path) -> Outcome<Found> {
        let folder = folder.to_owned();
        if !folder.is_dir() {
            return Err(Failure::input(format!("there is no folder `{}`", folder.display()))
                .hint("`folder` is seen from where the program is started")
                .hint("with its `digest` given, a stored result needs no folder"));
        }
        let there = |name: &&str| fs::size(&folder.join(name)).is_some();
        if !there(&CONFIG) {
            return Err(Failure::input(format!(
                "there is no `{CONFIG}` in `{}`",
                folder.display()
            )));
        }
        let weights = Weights::find(&folder)?;
        let mut beside: Vec<String> =
            [GENERATION].iter().filter(|name| there(name)).map(|n| (*n).into()).collect();
        if self.tokenizer.is_none() {
            if !VOCABULARIES.iter().any(&there) {
                return Err(Failure::input(format!(
                    "there is neither `tokenizer.json` nor `tokenizer.model` in `{}`",
                    folder.display()
                ))
                .hint("copy one of them there, or name a step that makes one in `tokenizer`"));
            }
            let all = tokenizer::FILES.iter().filter(|name| there(name));
            beside.extend(all.map(|name| (*name).to_owned()));
        }
        Ok(Found { folder, weights, beside })
    }

    /// A commit of a hub, from the cache where all that is needed is in it. What makes a
    /// checkpoint whole, its weights, comes last, so that a fetch that was stopped is seen.
    fn fetched(&self, repository: &str, commit: &str, work: &Work) -> Outcome<Found> {
        let hub = Hub::of_environment()?;
        let scratch = work.partial_file("answer.json")?;
        let watch = |done: u64, all: u64| {
            work.progress(done, all, "bytes", repository);
            work.check()
        };
        if !hub::is_commit(commit) {
            let failure = Failure::input(format!("`{commit}` is no commit, and may move"));
            return Err(match hub.commit_of(repository, commit, &scratch, &watch) {
                Ok(now) => failure.hint(format!("now it is at {now}: set `revision` to that")),
                Err(why) => failure
                    .hint("set `revision` to a commit, 40 lower-case hexadecimal digits")
                    .caused_by(why),
            });
        }
        let snapshot = hub.snapshot(repository, commit);
        let missing = match self.look(&snapshot) {
            Ok(found) => return Ok(found),
            Err(missing) => missing.what,
        };
        if hub.is_offline() {
            return Err(Failure::input(format!(
                "`{repository}` is not whole in the cache, and HF_HUB_OFFLINE allows no request: {missing}"
            ))
            .hint("unset HF_HUB_OFFLINE to fetch it, or name the cache that has it in HF_HUB_CACHE"));
        }
        let files = hub.list(repository, commit, &scratch, &watch)?;
        let file = |name: &str| files.iter().find(|file| file.name == name);
        let Some((first, is_index)) = Weights::best(|name| file(name).is_some()) else {
            return Err(Failure::input(format!("`{repository}` at {commit} holds no weights"))
                .hint(
                    "weights are `model.safetensors` or `pytorch_model.bin`, or an index of such",
                ));
        };
        let mut small = vec![CONFIG, GENERATION];
        if self.tokenizer.is_none() {
            small.extend(tokenizer::FILES);
        }
        small.extend(Some(first).filter(|_| is_index));
        let small: Vec<_> = small.into_iter().filter_map(file).collect();
        hub.fetch(repository, commit, &small, &watch)?;
        let weights = match is_index {
            true => Weights::named_by(&snapshot.join(first))?,
            false => BTreeSet::from([first.to_owned()]),
        };
        // One that the commit does not hold is told below.
        let weights: Vec<_> = weights.iter().filter_map(|name| file(name)).collect();
        hub.fetch(repository, commit, &weights, &watch)?;
        self.look(&snapshot)
    }

    /// The folder's digest, read once in a process for all arms of a sweep.
    fn digest_once(&self, folder: &str) -> Outcome<Digest> {
        static READ: Mutex<BTreeMap<(String, bool), Digest>> = Mutex::new(BTreeMap::new());
        let key = (folder.to_owned(), self.tokenizer.is_some());
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = read.get(&key) {
            return Ok(*digest);
        }
        let digest = self.look(Path::new(folder))?.digest()?;
        read.insert(key, digest);
        Ok(digest)
    }
}

impl Found {
    /// Digest over name, size and content of every file that is read.
    fn digest(&self) -> Outcome<Digest> {
        let mut names = self.weights.files();
        names.push(CONFIG.into());
        names.extend(self.beside.iter().cloned());
        names.sort();
        let mut hasher = Hasher::tagged(CONTEXT);
        for name in names {
            let (size, digest) = fs::digest(&self.folder.join(&name))?;
            hasher.update(format!("{digest} {size} {name}\n").as_bytes());
        }
        Ok(hasher.finish())
    }
}

/// The marks that a `config.json` names, as a `generation_config.json` has them.
fn marks(config: &[u8]) -> Outcome<BTreeMap<String, Value>> {
    let config: BTreeMap<String, Value> =
        serde_json::from_slice(config).doing(|| format!("reading `{CONFIG}`"))?;
    let is_mark = |key: &str| ["bos_token_id", "eos_token_id", "pad_token_id"].contains(&key);
    Ok(config.into_iter().filter(|(key, id)| is_mark(key) && !id.is_null()).collect())
}

fn copy(from: &Path, to: OutputFolder, name: &str) -> Outcome<()> {
    to.write(name, &fs::read(from)?.unwrap_or_default())
}
