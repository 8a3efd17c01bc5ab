//! Child processes in groups of their own, so that a whole family can be
//! stopped, and so that none outlives the program.
//!
//! Against a `kill -9` of this program there are two guards: the kernel kills
//! the leader of each group, and a small process of the same program, started
//! with the first group, kills the rest when its end of a pipe closes.

use crate::base::failure::{Doing, Outcome};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

/// The word that makes this program the guard of another one's groups.
pub const WATCH: &str = "__watch-groups";

/// Groups that are running now, and the guard that knows of them.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { running: Vec::new(), guard: None });

struct Groups {
    running: Vec<u32>,
    guard: Option<ChildStdin>,
}

/// Where programs are looked for.
pub fn search_path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

/// The ends of a process's pipes.
pub struct Pipes {
    /// What it reads.
    pub input: ChildStdin,
    /// What it says.
    pub output: ChildStdout,
    /// What it complains of.
    pub errors: ChildStderr,
}

/// A running process group.
pub struct Group {
    child: Child,
}

impl Group {
    /// Starts a command as the leader of a new group. The kernel kills the
    /// leader when the thread that started it ends, so start it from the
    /// thread that waits for it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> Outcome<Group> {
        let name = command.get_program().to_string_lossy().into_owned();
        let guard = groups().guard()?;
        command.process_group(0);
        never_outlive_us(command, guard);
        let spawned = command.spawn();
        let mut groups = groups();
        match spawned {
            Ok(ref child) => groups.add(child.id()),
            Err(_) => groups.forget_unknown(),
        }
        drop(groups);
        spawned.map(|child| Group { child }).doing(|| format!("starting `{name}`"))
    }

    /// The pipes of a leader that was started with three, once.
    ///
    /// # Panics
    /// When it was not.
    pub fn pipes(&mut self) -> Pipes {
        let Child { stdin, stdout, stderr, .. } = &mut self.child;
        let (input, output, errors) = (stdin.take(), stdout.take(), stderr.take());
        let all = input.zip(output).zip(errors);
        let ((input, output), errors) = all.expect("BUG: it was started without pipes");
        Pipes { input, output, errors }
    }

    /// Kills the whole group.
    pub fn kill(&self) {
        kill(self.child.id());
    }

    /// Waits until the leader ends; `stop` is asked now and then, and where it
    /// says yes the group is ended and `None` comes back.
    ///
    /// # Errors
    /// When the machine cannot say what became of the process.
    pub fn wait(&mut self, stop: &dyn Fn() -> bool) -> Outcome<Option<ExitStatus>> {
        const LONGEST: Duration = Duration::from_millis(20);
        let end = EndOf::child(&self.child);
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) =
                self.child.try_wait().doing(|| "waiting for a process".to_owned())?
            {
                return Ok(Some(status));
            }
            if stop() {
                return Ok(None);
            }
            match &end {
                Some(end) => end.await_for(LONGEST),
                None => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// What becomes readable when a child ends, where the kernel has that.
#[cfg(target_os = "linux")]
struct EndOf(OwnedFd);

#[cfg(target_os = "linux")]
impl EndOf {
    fn child(child: &Child) -> Option<EndOf> {
        let id = rustix::process::Pid::from_child(child);
        rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok().map(EndOf)
    }

    fn await_for(&self, longest: Duration) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let longest = Timespec::try_from(longest).unwrap_or_default();
        // Woken early or not at all, the caller looks for itself.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&longest));
    }
}

#[cfg(not(target_os = "linux"))]
struct EndOf;

#[cfg(not(target_os = "linux"))]
impl EndOf {
    fn child(_child: &Child) -> Option<EndOf> {
        None
    }

    fn await_for(&self, longest: Duration) {
        std::thread::sleep(longest);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.child.id());
        groups().remove(self.child.id());
        // It is dead or unkillable; either way there is nothing to report.
        let _ = self.child.wait();
    }
}

/// Kills every group that is running: the last act before leaving at once.
pub fn kill_all() {
    groups().running.iter().for_each(|&id| kill(id));
}

/// Kills one process, such as a program that a step runs.
pub fn kill_one(id: u32) {
    if let Some(id) = rustix::process::Pid::from_raw(id.cast_signed()) {
        // One that is gone is what was wanted.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
    }
}

/// All processes of this machine that can be seen; none where there is no `/proc`.
pub fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process is the first of its group, as each is that a step starts.
pub fn leads_group(id: u32) -> bool {
    let id = rustix::process::Pid::from_raw(id.cast_signed());
    id.is_some() && rustix::process::getpgid(id).ok() == id
}

/// The folder a process works in, if that can be seen.
pub fn working_folder(id: u32) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{id}/cwd")).ok()
}

/// What the guard does: reads which groups start (`7`), which end (`-7`) and
/// when to forget all (`0`), and kills those that are left when nobody can
/// write any more.
pub fn watch_groups() {
    let mut running = BTreeSet::new();
    let (mut input, mut word) = (std::io::stdin().lock(), [0; 4]);
    while input.read_exact(&mut word).is_ok() {
        match i32::from_ne_bytes(word) {
            0 => running.clear(),
            ended @ ..0 => drop(running.remove(&ended.unsigned_abs())),
            started => drop(running.insert(started.unsigned_abs())),
        }
    }
    running.into_iter().for_each(kill);
}

impl Groups {
    /// The pipe to the guard, which is started if there is none.
    fn guard(&mut self) -> Outcome<OwnedFd> {
        let doing = || "starting the guard of child processes".to_owned();
        if self.guard.is_none() {
            let program = std::env::current_exe().doing(doing)?;
            let mut guard = Command::new(program)
                .arg(WATCH)
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .doing(doing)?;
            self.guard = guard.stdin.take();
            self.forget_unknown();
        }
        let pipe = self.guard.as_ref().expect("started above");
        pipe.as_fd().try_clone_to_owned().doing(doing)
    }

    fn add(&mut self, id: u32) {
        self.running.push(id);
        self.tell(id.cast_signed());
    }

    fn remove(&mut self, id: u32) {
        self.running.retain(|&other| other != id);
        self.tell(-id.cast_signed());
    }

    /// A child that could not become its program has told its number.
    fn forget_unknown(&mut self) {
        self.tell(0);
        for id in self.running.clone() {
            self.tell(id.cast_signed());
        }
    }

    fn tell(&mut self, word: i32) {
        if let Some(guard) = &mut self.guard {
            // A guard that is gone is replaced with the next group.
            if guard.write_all(&word.to_ne_bytes()).is_err() {
                self.guard = None;
            }
        }
    }
}

fn groups() -> std::sync::MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn kill(group: u32) {
    if let Some(group) = rustix::process::Pid::from_raw(group.cast_signed()) {
        // A group that is gone is what was wanted.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[expect(
    unsafe_code,
    reason = "code between fork and exec; it makes system calls and allocates nothing"
)]
fn never_outlive_us(command: &mut Command, guard: OwnedFd) {
    #[cfg(target_os = "linux")]
    let parent = rustix::process::getpid();
    // SAFETY: the closure only makes system calls, which is allowed after fork.
    unsafe {
        command.pre_exec(move || {
            // The child tells its number itself: its parent may be dead by now.
            let own = rustix::process::getpid().as_raw_nonzero().get();
            rustix::io::write(&guard, &own.to_ne_bytes())?;
            #[cfg(target_os = "linux")]
            {
                use rustix::process::{Signal, getppid, set_parent_process_death_signal};
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() != Some(parent) {
                    return Err(std::io::ErrorKind::Interrupted.into());
                }
            }
            Ok(())
        });
    }
}
