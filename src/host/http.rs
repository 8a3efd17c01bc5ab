//! Files from the network: resumed, bounded, tried again with patience, and
//! checked by their digest. No file is ever whole in memory.
//!
//! Knows nothing of data sets and of hubs. What arrives is kept beside the
//! caller until it is whole, so that a next attempt, or a next run, goes on
//! where this one stopped.

use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::text;
use crate::host::patience::{self, Patience};
use crate::host::{clock, fs};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};

/// The environment variable that names a folder with copies of remote files.
pub const MIRROR: &str = "REKINDLE_MIRROR";

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// What a file must hold, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// SHA-256 of its bytes.
    Sha256(String),
    /// SHA-1 of its bytes behind git's header of a blob.
    GitBlob(String),
    /// Anything.
    Any,
}

/// Why there is no file.
pub enum Trouble<'a> {
    /// The server answered something else.
    Refused(&'a Response<ureq::Body>),
    /// It never came to an answer that was worth anything.
    GaveUp,
    /// It is another file.
    OtherContent,
}

/// A file to get.
pub struct Wanted<'a> {
    /// Where it is.
    pub url: &'a str,
    /// What it must hold.
    pub content: Content,
    /// Where to keep what has arrived; goes away when the file is whole.
    pub partial: &'a Path,
    /// Most bytes it may have.
    pub limit: u64,
    /// What proves to this server, and to no other that it points to, who asks.
    pub token: Option<&'a str>,
    /// What a person can do about a trouble.
    pub advice: &'a dyn Fn(&Trouble) -> Vec<String>,
}

/// Names the folder with copies of remote files for this process; the first
/// call counts.
pub fn use_mirror(folder: PathBuf) {
    // A second call changes nothing, as documented.
    let _ = CHOSEN.set(folder);
}

/// The folder with copies of remote files: as chosen, else of the environment.
pub fn mirror() -> Option<PathBuf> {
    let named = || std::env::var_os(MIRROR).filter(|value| !value.is_empty()).map(PathBuf::from);
    CHOSEN.get().cloned().or_else(named)
}

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gets a file to `target`, which is on the file system of `partial` and
/// appears whole or not at all. `watch` hears bytes done and in all (0 where
/// unknown) and ends it all by an error.
///
/// # Errors
/// `Environment` when the network or the server gives up, `Input` for a wrong
/// address, a file that is too large or one with another digest, and what
/// `watch` returns.
pub fn download(
    wanted: &Wanted,
    target: &Path,
    patience: &Patience,
    watch: &dyn Fn(u64, u64) -> Outcome<()>,
) -> Outcome<()> {
    let tag = RefCell::default();
    let transfer = Transfer { wanted, patience, watch, agent: agent(patience), tag };
    loop {
        let kept = transfer.size();
        transfer.complete()?;
        let Some(found) = other_content(wanted.partial, &wanted.content, watch)? else {
            fs::sync_file(wanted.partial)?;
            return fs::rename(wanted.partial, target);
        };
        transfer.forget()?;
        // The beginning may be of another version of the file: once more from nothing.
        if kept == 0 {
            let failure = mismatch(&format!("`{}`", wanted.url), &wanted.content, &found);
            return Err(advised(failure, wanted, &Trouble::OtherContent));
        }
    }
}

/// Gets a file that is small enough for the memory, by way of `wanted.partial`.
///
/// # Errors
/// As [`download`].
pub fn read(
    wanted: &Wanted,
    patience: &Patience,
    watch: &dyn Fn(u64, u64) -> Outcome<()>,
) -> Outcome<Vec<u8>> {
    let whole = wanted.partial.with_extension("whole");
    download(wanted, &whole, patience, watch)?;
    let bytes = fs::read(&whole)?.unwrap_or_default();
    fs::remove_file(&whole)?;
    Ok(bytes)
}

impl Content {
    /// The digest of bytes, if it is not the wanted one.
    pub fn differs(&self, bytes: &[u8]) -> Option<String> {
        let hearing = |hear: &mut dyn FnMut(&[u8])| {
            hear(bytes);
            Ok(())
        };
        self.other_than(bytes.len() as u64, hearing).ok().flatten()
    }

    /// The digest of what `through` tells of, `all` bytes, if it is not the wanted one.
    fn other_than(
        &self,
        all: u64,
        through: impl FnOnce(&mut dyn FnMut(&[u8])) -> Outcome<()>,
    ) -> Outcome<Option<String>> {
        let (wanted, found) = match self {
            Content::Any => return Ok(None),
            Content::Sha256(wanted) => {
                let mut hasher = Sha256::new();
                through(&mut |bytes| hasher.update(bytes))?;
                (wanted, hexadecimal(&hasher.finalize()))
            }
            Content::GitBlob(wanted) => {
                let mut hasher = Sha1::new_with_prefix(format!("blob {all}\0"));
                through(&mut |bytes| hasher.update(bytes))?;
                (wanted, hexadecimal(&hasher.finalize()))
            }
        };
        Ok((found != wanted.to_ascii_lowercase()).then_some(found))
    }
}

/// The digest of a file, if it is not the wanted one.
fn other_content(
    path: &Path,
    content: &Content,
    watch: &dyn Fn(u64, u64) -> Outcome<()>,
) -> Outcome<Option<String>> {
    let all = fs::size(path).unwrap_or(0);
    let doing = || format!("reading `{}`", path.display());
    content.other_than(all, |hear| {
        let mut file = File::open(path).doing(doing)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = file.read(&mut buffer).doing(doing)?;
            if count == 0 {
                return Ok(());
            }
            hear(&buffer[..count]);
            watch(all, all)?;
        }
    })
}

/// The failure of a file whose content is not what was pinned.
pub fn mismatch(place: &str, wanted: &Content, found: &str) -> Failure {
    let (name, wanted) = match wanted {
        Content::Sha256(wanted) => ("sha256", wanted.as_str()),
        Content::GitBlob(wanted) => ("git blob sha1", wanted.as_str()),
        Content::Any => ("digest", "another"),
    };
    Failure::input(format!("{place} has the {name} {found}, and {wanted} was expected"))
}

fn advised(failure: Failure, wanted: &Wanted, trouble: &Trouble) -> Failure {
    (wanted.advice)(trouble).into_iter().fold(failure, Failure::hint)
}

fn agent(patience: &Patience) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.connect))
        .timeout_recv_body(Some(patience.body))
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// What came of one request.
enum Answer {
    /// All is there.
    Whole,
    /// Worth another try, after as long as the server asks for.
    Again(Failure, Option<Duration>),
    /// Not worth another try.
    Never(Failure),
}

struct Transfer<'a> {
    wanted: &'a Wanted<'a>,
    patience: &'a Patience,
    watch: &'a dyn Fn(u64, u64) -> Outcome<()>,
    agent: ureq::Agent,
    /// What the server calls the edition whose beginning is kept.
    tag: RefCell<Option<String>>,
}

impl Transfer<'_> {
    /// Tries until the file is whole. A try that got further counts as none.
    fn complete(&self) -> Outcome<()> {
        let mut tries = 0;
        loop {
            let before = self.size();
            let (failure, asked) = match self.request(before) {
                Answer::Whole => return Ok(()),
                Answer::Never(failure) => return Err(failure),
                Answer::Again(failure, asked) => (failure, asked),
            };
            tries = if self.size() > before { 1 } else { tries + 1 };
            if tries >= self.patience.tries {
                return Err(advised(failure, self.wanted, &Trouble::GaveUp));
            }
            let pause = self.patience.pause(tries, asked);
            patience::rest_until(Instant::now() + pause, &|| (self.watch)(self.size(), 0))?;
        }
    }

    /// One request, for what is missing behind the first `kept` bytes.
    fn request(&self, kept: u64) -> Answer {
        let url = self.wanted.url;
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if let Some(token) = self.wanted.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if kept > 0 {
            request = request.header("range", format!("bytes={kept}-"));
            if let Some(tag) = &*self.tag.borrow() {
                request = request.header("if-range", tag);
            }
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Answer::Never(
                    Failure::input(format!("`{url}` is no address")).caused_by(error),
                );
            }
            Err(error) => {
                let failure = Failure::environment(format!("asking for `{url}`")).caused_by(error);
                return Answer::Again(failure, None);
            }
        };
        let status = response.status();
        let start = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(kept) => kept,
            // What is kept is not the beginning of what is there now, or is all of it.
            StatusCode::RANGE_NOT_SATISFIABLE if kept > 0 && total(&response) == Some(kept) => {
                return Answer::Whole;
            }
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT if kept > 0 => {
                let failure =
                    Failure::environment(format!("`{url}` does not go on at byte {kept}"));
                return match self.forget() {
                    Ok(()) => Answer::Again(failure, None),
                    Err(failure) => Answer::Never(failure),
                };
            }
            _ => return refusal(self.wanted, &response),
        };
        // A weak tag (`W/`) may stand for several editions of the bytes.
        let strong = header(&response, "etag").filter(|tag| tag.starts_with('"'));
        self.tag.replace(strong.map(str::to_owned));
        match self.append(start, &mut response) {
            Ok(true) => Answer::Whole,
            Ok(false) => {
                let what = format!("`{url}` closed the connection after {} bytes", self.size());
                Answer::Again(Failure::environment(what), None)
            }
            Err(failure) => Answer::Never(failure),
        }
    }

    /// Writes a body behind the first `start` bytes; whether it came to its end.
    fn append(&self, start: u64, response: &mut Response<ureq::Body>) -> Outcome<bool> {
        let path = self.wanted.partial;
        let doing = || format!("writing `{}`", path.display());
        let length = response.body().content_length();
        let all = length.map_or(0, |length| start + length);
        self.bound(all)?;
        let mut file: File = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(start == 0)
            .open(path)
            .doing(doing)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(start)).doing(doing)?;
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let (mut buffer, mut done) = (vec![0; 1 << 16], start);
        loop {
            let Ok(count) = reader.read(&mut buffer) else { return Ok(false) };
            if count == 0 {
                return Ok(length.is_none() || done == all);
            }
            file.write_all(&buffer[..count]).doing(doing)?;
            done += count as u64;
            self.bound(done)?;
            (self.watch)(done, all)?;
        }
    }

    fn bound(&self, bytes: u64) -> Outcome<()> {
        if bytes <= self.wanted.limit {
            return Ok(());
        }
        self.forget()?;
        let limit = text::bytes(self.wanted.limit);
        Err(Failure::input(format!("`{}` is larger than {limit}", self.wanted.url)))
    }

    fn size(&self) -> u64 {
        fs::size(self.wanted.partial).unwrap_or(0)
    }

    fn forget(&self) -> Outcome<()> {
        fs::remove_file(self.wanted.partial)
    }
}

/// A status without a file.
fn refusal(wanted: &Wanted, response: &Response<ureq::Body>) -> Answer {
    let status = response.status();
    let what = format!("`{}` answered {status}", wanted.url);
    let again = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if !again {
        return Answer::Never(advised(Failure::input(what), wanted, &Trouble::Refused(response)));
    }
    Answer::Again(Failure::environment(what), wait_asked_for(response))
}

/// The pause that `retry-after` asks for, in seconds or up to a date.
pub(super) fn wait_asked_for(response: &Response<ureq::Body>) -> Option<Duration> {
    let value = header(response, "retry-after")?.trim();
    let until = || clock::http_date(value).map(|end| end - clock::unix_seconds());
    let seconds: f64 = value.parse().ok().or_else(until)?;
    seconds.is_finite().then(|| Duration::from_secs_f64(seconds.clamp(0.0, 1e6)))
}

pub(super) fn header<'a>(response: &'a Response<ureq::Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// `5` of `content-range: bytes 5-9/10`.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = header(response, "content-range")?.trim().strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// `10` of `content-range: bytes */10`.
fn total(response: &Response<ureq::Body>) -> Option<u64> {
    header(response, "content-range")?.rsplit('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
