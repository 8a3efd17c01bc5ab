//! A hub of repositories as Hugging Face's: what a commit holds, and its files
//! in the cache that the hub's own libraries share.
//!
//! Knows nothing of models; which files are needed is the caller's business.
//! The token is sent to the endpoint and goes nowhere else.
//!
//! The cache: `models--<org>--<name>/blobs/<digest>` holds content, and
//! `snapshots/<commit>/<file>` are links to it. A link appears after its
//! content was checked, so what is there is whole.

use crate::base::failure::{Doing, Failure, Outcome};
use crate::host::http::{self, Content, Trouble, Wanted};
use crate::host::patience::Patience;
use crate::host::{fs, lock};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A list of files larger than this is none.
const LIST_LIMIT: u64 = 16 << 20;

/// Where the hub is, and where its files are kept.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
    offline: bool,
    patience: Patience,
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    content: Content,
}

/// Hears bytes done and in all, and may end it by an error.
pub type Watch<'a> = &'a dyn Fn(u64, u64) -> Outcome<()>;

/// Whether a revision is a full commit, which always means the same files.
pub fn is_commit(revision: &str) -> bool {
    is_digits(revision, 40)
}

/// Whether a name can be a repository's: `name` or `organisation/name`.
pub fn is_repository(name: &str) -> bool {
    let is_plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split('/').count() <= 2 && name.split('/').all(is_plain)
}

fn is_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl Hub {
    /// The hub that the environment names: `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// `Input` when one of them makes no sense.
    ///
    /// # Source
    /// The environment variables of huggingface_hub's documentation.
    pub fn of_environment() -> Outcome<Hub> {
        let user = || {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")))
        };
        let home = variable("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(user()?.join("huggingface")))
            .ok_or_else(|| {
                Failure::input("there is no place for files of a hub")
                    .hint("name a folder in HF_HOME")
            })?;
        let mut token = variable("HF_TOKEN");
        if token.is_none() {
            let path = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
            let text = fs::read(&path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            token = Some(text).filter(|text| !text.is_empty());
        }
        if token.as_ref().is_some_and(|text| !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Failure::input("the hub's token has characters that no token has")
                .hint("set HF_TOKEN to the token alone"));
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(Failure::input(format!("`{endpoint}` in HF_ENDPOINT is no address"))
                .hint("it begins with `https://` or `http://`"));
        }
        let is_true =
            |text: String| ["1", "on", "yes", "true"].contains(&text.to_ascii_lowercase().as_str());
        Ok(Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_true),
            patience: Patience::of_environment()?,
        })
    }

    /// Whether no request may be made.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The folder of a commit's files in the cache, there or not.
    pub fn snapshot(&self, repository: &str, commit: &str) -> PathBuf {
        self.shelf(repository).join("snapshots").join(commit)
    }

    fn shelf(&self, repository: &str) -> PathBuf {
        self.cache.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// The commit that a branch or a tag points to now. `scratch` is a file
    /// that nobody else uses.
    ///
    /// # Errors
    /// When the hub does not say.
    pub fn commit_of(
        &self,
        repository: &str,
        revision: &str,
        scratch: &Path,
        watch: Watch,
    ) -> Outcome<String> {
        #[derive(serde::Deserialize)]
        struct Info {
            sha: String,
        }
        let path = format!("api/models/{repository}/revision/{}", encoded(revision));
        let info: Info = self.ask(&path, scratch, watch)?;
        if is_commit(&info.sha) {
            return Ok(info.sha);
        }
        Err(Failure::environment(format!("`{}` names no commit", self.endpoint)))
    }

    /// The files in the first folder of a commit. `scratch` is a file that
    /// nobody else uses.
    ///
    /// # Errors
    /// `Input` when there is no such repository or commit, `Environment` when
    /// the hub does not say.
    pub fn list(
        &self,
        repository: &str,
        commit: &str,
        scratch: &Path,
        watch: Watch,
    ) -> Outcome<Vec<Remote>> {
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(rename = "type")]
            kind: String,
            path: String,
            oid: String,
            #[serde(default)]
            size: u64,
            lfs: Option<Large>,
        }
        #[derive(serde::Deserialize)]
        struct Large {
            oid: String,
            size: u64,
        }
        let path = format!("api/models/{repository}/tree/{commit}");
        let entries: Vec<Entry> = self.ask(&path, scratch, watch)?;
        let files = entries.into_iter().filter(|entry| entry.kind == "file");
        files
            .map(|entry| {
                let (digits, size, content) = match entry.lfs {
                    Some(large) => (64, large.size, Content::Sha256(large.oid)),
                    None => (40, entry.size, Content::GitBlob(entry.oid)),
                };
                // Both become names of files of ours.
                if !is_digits(digest_of(&content), digits) || !fs::is_plain_name(&entry.path) {
                    let what = format!("`{}` lists a file without a digest", self.endpoint);
                    return Err(Failure::environment(what));
                }
                Ok(Remote { name: entry.path, size, content })
            })
            .collect()
    }

    /// Brings files of a commit into the cache, those that are there already
    /// not again; `watch` hears the bytes of all of them.
    ///
    /// # Errors
    /// `Input` when the hub refuses a file or it is another one,
    /// `Environment` when the hub or the disk gives up, and what `watch`
    /// returns.
    pub fn fetch(
        &self,
        repository: &str,
        commit: &str,
        files: &[&Remote],
        watch: Watch,
    ) -> Outcome<()> {
        let (shelf, snapshot) = (self.shelf(repository), self.snapshot(repository, commit));
        let locks = self.cache.join(".locks").join(shelf.file_name().unwrap_or_default());
        for folder in [&shelf.join("blobs"), &snapshot, &locks] {
            fs::create_folder(folder)?;
        }
        let all = files.iter().map(|file| file.size).sum();
        let mut before = 0;
        for file in files {
            let digest = digest_of(&file.content);
            let blob = shelf.join("blobs").join(digest);
            let heard = |done: u64, _: u64| watch(before + done.min(file.size), all);
            // The lock that the hub's own library takes for this content.
            let path = locks.join(format!("{digest}.lock"));
            let _held = loop {
                match lock::try_lock(&path)? {
                    Ok(held) => break held,
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
                heard(0, 0)?;
            };
            if fs::size(&blob) != Some(file.size) {
                let name = encoded(&file.name);
                let wanted = Wanted {
                    url: &format!("{}/{repository}/resolve/{commit}/{name}", self.endpoint),
                    content: file.content.clone(),
                    partial: &blob.with_extension("part"),
                    limit: file.size,
                    token: self.token.as_deref(),
                    advice: &|trouble| self.advice(trouble),
                };
                http::download(&wanted, &blob, &self.patience, &heard)?;
            }
            let link = snapshot.join(&file.name);
            if fs::size(&link) != Some(file.size) {
                let doing = || format!("linking `{}`", link.display());
                // A link to nothing, which a cleaned cache has.
                let _ = std::fs::remove_file(&link);
                let target = Path::new("../../blobs").join(digest);
                std::os::unix::fs::symlink(target, &link).doing(doing)?;
            }
            before += file.size;
        }
        watch(all, all)
    }

    /// An answer in JSON.
    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        scratch: &Path,
        watch: Watch,
    ) -> Outcome<T> {
        let url = format!("{}/{path}", self.endpoint);
        if self.offline {
            let what = format!("`{url}` is not asked, as HF_HUB_OFFLINE says");
            return Err(Failure::input(what).hint("unset HF_HUB_OFFLINE to ask the hub"));
        }
        let wanted = Wanted {
            url: &url,
            content: Content::Any,
            partial: scratch,
            limit: LIST_LIMIT,
            token: self.token.as_deref(),
            advice: &|trouble| self.advice(trouble),
        };
        // The beginning of an earlier answer is of no use.
        let _ = std::fs::remove_file(scratch);
        let bytes = http::read(&wanted, &self.patience, &|_, _| watch(0, 0))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::environment(format!("`{url}` is no answer of a hub"))
                .caused_by(error)
                .hint("HF_ENDPOINT names the hub")
        })
    }

    fn advice(&self, trouble: &Trouble) -> Vec<String> {
        let response = match trouble {
            Trouble::Refused(response) => response,
            Trouble::GaveUp => {
                return vec![
                    "the same command goes on where it stopped".into(),
                    "HF_ENDPOINT names another hub; `folder` takes files that were copied".into(),
                ];
            }
            Trouble::OtherContent => {
                return vec![
                    "what came is thrown away; try again, or ask another HF_ENDPOINT".into(),
                ];
            }
        };
        let code = http::header(response, "x-error-code").unwrap_or_default();
        let hint = match (response.status().as_u16(), code, &self.token) {
            (401 | 403, _, None) => {
                "the repository is not there, private or gated: set HF_TOKEN to a token that may read it"
            }
            (401 | 403, _, Some(_)) => {
                "the token of HF_TOKEN may not read it: set HF_TOKEN to another, or accept the model's terms on its page"
            }
            (404, "RevisionNotFound", _) => "the repository has no such `revision`",
            (404, "RepoNotFound", _) => "there is no such `repository`, or HF_TOKEN may not see it",
            (404, ..) => "check `repository` and `revision`; HF_ENDPOINT names the hub",
            _ => "HF_ENDPOINT names the hub",
        };
        vec![hint.into()]
    }
}

fn digest_of(content: &Content) -> &str {
    match content {
        Content::Sha256(digest) | Content::GitBlob(digest) => digest,
        Content::Any => "",
    }
}

/// A part of an address with all but letters, digits and `-_.~` in per cent signs.
fn encoded(part: &str) -> String {
    let one = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    part.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_refused() {
        for good in ["gpt2", "org/name", "Org-1/a_b.c"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "a/b/c", "../x", "org/", "/x", "a b", "org/.x", "a?b"] {
            assert!(!is_repository(bad), "{bad}");
        }
        assert!(is_commit(&"0a".repeat(20)) && !is_commit(&"0A".repeat(20)) && !is_commit("main"));
        assert_eq!(encoded("refs/pr/1 é"), "refs%2Fpr%2F1%20%C3%A9");
    }
}
