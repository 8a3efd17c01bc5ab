//! File locks of the operating system. They vanish with their process, so no
//! crash leaves one behind; the lock files themselves are never removed.

use crate::{
    base::failure::{Doing, Outcome},
    host::{clock, disk::Out},
};
use std::{
    fs::TryLockError,
    io::{Read, Seek, Write},
    path::Path,
};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its lock only")] Out);

/// Takes the lock at `path`, or says who has it.
///
/// # Errors
/// When the file cannot be opened or the file system has no locks.
pub fn try_lock(path: &Path) -> Outcome<Result<Lock, String>> {
    let doing = || format!("locking `{}`", path.display());
    let mut file = Out::keep(path).doing(doing)?;
    match file.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
        Err(TryLockError::Error(error)) => return Err(error).doing(doing),
    }
    // The text serves messages only, so an error in writing it is no error.
    let text = format!(
        "process {} on {} since {}\n",
        std::process::id(),
        clock::host_name(),
        clock::timestamp(clock::unix_seconds())
    );
    let _ = file.cut().and_then(|()| file.write_all(text.as_bytes()));
    Ok(Ok(Lock(file)))
}

/// Takes the lock at `path` together with others that share it, or alone; waits
/// for those who have it otherwise.
///
/// # Errors
/// When the file cannot be opened or the file system has no locks.
pub fn wait_for(path: &Path, alone: bool) -> Outcome<Lock> {
    let doing = || format!("locking `{}`", path.display());
    let mut file = Out::keep(path).doing(doing)?;
    match alone {
        true => file.file().lock(),
        false => file.file().lock_shared(),
    }
    .doing(doing)?;
    Ok(Lock(file))
}

fn holder(file: &mut Out) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let text = text.trim();
    if read.is_err() || text.is_empty() { "another process".to_owned() } else { text.to_owned() }
}
