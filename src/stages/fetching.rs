//! A published file, from a mirror folder or from the network, held against
//! the digest it must have. What is in it is not known here.

use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::Reading;
use crate::host::patience::Patience;
use crate::host::{fs, http};
use crate::stages::work::Work;
use std::path::{Component, Path, PathBuf};

/// What to do about a file that is another one.
const OTHER: &str = "get the pinned version of the file, or set its digest (`sha256` or `git-blob`) \
                     to the new one if it is meant";

/// Where a file is to be had, and which one it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// Its address.
    pub(super) url: &'a str,
    /// Its SHA-256.
    pub(super) sha256: Option<&'a str>,
    /// Or the name of its blob in git.
    pub(super) git_blob: Option<&'a str>,
    /// Its path inside a mirror folder.
    pub(super) mirror_path: Option<&'a str>,
    /// That folder; without it the environment's.
    pub(super) mirror: Option<&'a str>,
    /// Most bytes it may have.
    pub(super) limit: u64,
}

impl Source<'_> {
    /// Tells the mistakes of the table it was read from.
    pub(super) fn check(&self, node: &Node, cx: &mut Reading) {
        match (self.sha256, self.git_blob) {
            (Some(digest), None) if !is_hex(digest, 64) => {
                cx.error(&node.origin, "`sha256` must be 64 hexadecimal digits");
            }
            (None, Some(digest)) if !is_hex(digest, 40) => {
                cx.error(&node.origin, "`git-blob` must be 40 hexadecimal digits");
            }
            (Some(_), Some(_)) | (None, None) => {
                cx.error(
                    &node.origin,
                    "one of `sha256` and `git-blob` must say which file is meant",
                );
            }
            _ => {}
        }
        if !["http://", "https://"].iter().any(|scheme| self.url.starts_with(scheme)) {
            cx.error(&node.origin, "`url` must begin with `https://` or `http://`");
        }
        let stays = |part| matches!(part, Component::Normal(_));
        if self.mirror_path.is_some_and(|path| !Path::new(path).components().all(stays)) {
            cx.error(&node.origin, "`mirror-path` must stay inside the mirror folder");
        }
    }

    fn content(&self) -> http::Content {
        match (self.sha256, self.git_blob) {
            (Some(digest), _) => http::Content::Sha256(digest.to_ascii_lowercase()),
            (None, Some(blob)) => http::Content::GitBlob(blob.to_ascii_lowercase()),
            (None, None) => http::Content::Any,
        }
    }

    /// The file's text, and where it came from, for messages.
    ///
    /// # Errors
    /// When it is neither in the mirror nor to be had from its address, when it
    /// is another file, or no UTF-8.
    pub(super) fn text(&self, work: &Work) -> Outcome<(String, String)> {
        let (bytes, place) = self.bytes(work)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Failure::input(format!("{place} is not UTF-8")).caused_by(error))?;
        Ok((text, place))
    }

    fn bytes(&self, work: &Work) -> Outcome<(Vec<u8>, String)> {
        let content = self.content();
        let mirror = self.mirror.map(PathBuf::from).or_else(http::mirror);
        let copy = mirror.zip(self.mirror_path).map(|(folder, path)| folder.join(path));
        if let Some(path) = &copy
            && let Some(bytes) = fs::read(path)?
        {
            let place = format!("`{}`", path.display());
            if let Some(found) = content.differs(&bytes) {
                return Err(http::mismatch(&place, &content, &found).hint(OTHER));
            }
            return Ok((bytes, place));
        }
        let partial = work.partial_file("download")?;
        let wanted = http::Wanted {
            url: self.url,
            content,
            partial: &partial,
            limit: self.limit,
            token: None,
            advice: &advice,
        };
        let bytes = http::read(&wanted, &Patience::of_environment()?, &|done, all| {
            work.progress(done, all, "bytes", "download");
            work.check()
        });
        let bytes = bytes.map_err(|failure| match &copy {
            Some(path) => failure.hint(format!("there is no `{}` either", path.display())),
            None => failure,
        })?;
        Ok((bytes, format!("`{}`", self.url)))
    }
}

fn is_hex(digest: &str, digits: usize) -> bool {
    digest.len() == digits && digest.chars().all(|c| c.is_ascii_hexdigit())
}

fn advice(trouble: &http::Trouble) -> Vec<String> {
    match trouble {
        http::Trouble::Refused(_) => Vec::new(),
        http::Trouble::OtherContent => vec![OTHER.into()],
        http::Trouble::GaveUp => vec![format!(
            "without a network, name a folder with a copy of the file in {}",
            http::MIRROR
        )],
    }
}
