//! Files from the network: resumed, bounded, tried again with patience, and
//! checked by their SHA-256.
//!
//! Knows nothing of data sets. What arrives is kept beside the caller until it
//! is whole, so that a next attempt, or a next run, goes on where this one
//! stopped.

use crate::base::failure::{Doing, Failure, Outcome};
use crate::base::text;
use crate::host::{clock, fs};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};
use ureq::http::{Response, StatusCode};

/// The environment variable that names a folder with copies of remote files.
pub const MIRROR: &str = "REKINDLE_MIRROR";

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// A file to get.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: &'a str,
    /// Where to keep what has arrived; goes away when the file is whole.
    pub partial: &'a Path,
    /// Most bytes it may have.
    pub limit: u64,
}

/// How long to wait, and how often to try.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries without any progress.
    pub tries: u32,
    /// Pause after the first; each one is twice as long as the last.
    pub pause: Duration,
    /// Longest pause, also where a server asks for a longer one.
    pub longest: Duration,
    /// For a connection, and for the head of an answer.
    pub connect: Duration,
    /// For the body of one answer; a file that takes longer is resumed.
    pub body: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            tries: 5,
            pause: Duration::from_millis(500),
            longest: Duration::from_secs(60),
            connect: Duration::from_secs(15),
            body: Duration::from_secs(300),
        }
    }
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
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gets a file. `watch` hears bytes done and in all (0 where unknown) and ends
/// it all by an error.
///
/// # Errors
/// `Environment` when the network or the server gives up, `Input` for a wrong
/// address, a file that is too large or one with another digest, and what
/// `watch` returns.
pub fn download(
    wanted: &Wanted,
    patience: &Patience,
    watch: &dyn Fn(u64, u64) -> Outcome<()>,
) -> Outcome<Vec<u8>> {
    let transfer = Transfer { wanted, patience, watch, agent: agent(patience) };
    loop {
        let kept = fs::size(wanted.partial).unwrap_or(0);
        transfer.complete()?;
        let bytes = fs::read(wanted.partial)?.unwrap_or_default();
        let found = sha256(&bytes);
        transfer.forget()?;
        if found == wanted.sha256.to_ascii_lowercase() {
            return Ok(bytes);
        }
        // The beginning may be of another version of the file: once more from nothing.
        if kept == 0 {
            return Err(mismatch(&format!("`{}`", wanted.url), wanted.sha256, &found));
        }
    }
}

/// The failure of a file whose content is not what was pinned.
pub fn mismatch(place: &str, wanted: &str, found: &str) -> Failure {
    Failure::input(format!("{place} has sha256 {found}, and the manifest wants {wanted}"))
        .hint("get the pinned version of the file, or set `sha256` to the new one if it is meant")
}

fn agent(patience: &Patience) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.connect))
        .timeout_recv_body(Some(patience.body))
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
                return Err(failure.hint(format!(
                    "without a network, name a folder with a copy of the file in {MIRROR}"
                )));
            }
            self.rest(asked.unwrap_or_else(|| self.pause(tries)))?;
        }
    }

    /// Twice as long each time, and up to a half less, so that many do not come back at once.
    fn pause(&self, tries: u32) -> Duration {
        let full = self.patience.pause.saturating_mul(1 << tries.saturating_sub(1).min(16));
        full.min(self.patience.longest).mul_f64(1.0 - clock::chance() / 2.0)
    }

    /// Waits, and hears a wish to stop.
    fn rest(&self, pause: Duration) -> Outcome<()> {
        let end = Instant::now() + pause.min(self.patience.longest);
        loop {
            (self.watch)(self.size(), 0)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// One request, for what is missing behind the first `kept` bytes.
    fn request(&self, kept: u64) -> Answer {
        let url = self.wanted.url;
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if kept > 0 {
            request = request.header("range", format!("bytes={kept}-"));
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
            _ => return refusal(url, &response),
        };
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
        match std::fs::remove_file(self.wanted.partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing `{}`", self.wanted.partial.display()))
            }
            _ => Ok(()),
        }
    }
}

/// A status without a file.
fn refusal(url: &str, response: &Response<ureq::Body>) -> Answer {
    let status = response.status();
    let what = format!("`{url}` answered {status}");
    let again = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if !again {
        return Answer::Never(Failure::input(what));
    }
    let seconds = header(response, "retry-after").and_then(|value| value.trim().parse().ok());
    Answer::Again(Failure::environment(what), seconds.map(Duration::from_secs))
}

fn header<'a>(response: &'a Response<ureq::Body>, name: &str) -> Option<&'a str> {
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
