//! Keeping a program from reading files it was not given, by Landlock, which
//! Linux has since 5.13 and which needs no rights.
//!
//! Only the reading of files is kept from it, and the running of programs, which
//! the kernel counts as reading. Writing, listing folders and the network are as
//! before. Knows nothing of what a program is for.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// Folders of the system that every program may read.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/dev",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/run/systemd/resolve",
];

/// What a program may read.
#[derive(Clone, Debug, Default)]
pub struct Readable(Vec<PathBuf>);

impl Readable {
    /// The system's folders, and those that programs are looked for in.
    pub fn of_system(search_path: Option<&OsStr>) -> Readable {
        let mut readable = Readable(SYSTEM.iter().map(PathBuf::from).collect());
        for folder in search_path.map(std::env::split_paths).into_iter().flatten() {
            readable.programs(&folder);
        }
        readable
    }

    /// Allows a file, or all below a folder. What is not there is no matter.
    pub fn allow(&mut self, path: &Path) {
        if path.is_absolute() {
            self.0.push(path.to_owned());
        }
    }

    /// Allows a program by its path: its file, and what is installed with it.
    pub fn program(&mut self, path: &Path) {
        self.allow(path);
        for path in [Some(path.to_owned()), path.canonicalize().ok()].into_iter().flatten() {
            self.allow(&path);
            path.parent().into_iter().for_each(|folder| self.installed(folder));
        }
    }

    /// Allows a folder of programs, and what is installed with them.
    fn programs(&mut self, folder: &Path) {
        self.allow(folder);
        self.installed(folder);
        // The interpreter of a virtual environment lies elsewhere.
        for name in ["python", "python3"] {
            let program = folder.join(name);
            if program.is_symlink() && folder.join("../pyvenv.cfg").exists() {
                self.program(&program);
            }
        }
    }

    /// Allows what a `bin` folder was installed with: a virtual environment, or
    /// a prefix with libraries.
    fn installed(&mut self, folder: &Path) {
        let Some(prefix) = folder.parent().filter(|_| folder.ends_with("bin")) else { return };
        // `/bin` was installed with everything.
        if prefix.parent().is_none() {
            return;
        }
        if prefix.join("pyvenv.cfg").exists() || prefix.join("lib").exists() {
            self.allow(prefix);
        }
    }

    /// Whether a path may be read, links followed.
    fn holds(&self, path: &Path) -> bool {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let below = |allowed: &PathBuf| {
            real.starts_with(allowed.canonicalize().unwrap_or_else(|_| allowed.clone()))
        };
        self.0.iter().any(below)
    }

    /// Paths in a program's words of which it says that it was refused, and
    /// which it may not read: as well as that can be seen from outside.
    pub fn refused(&self, words: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for line in words.lines().filter(|line| line.contains("ermission denied")) {
            for (at, _) in line.match_indices('/') {
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'))
                {
                    continue;
                }
                // A path ends before a quote or a colon, or may have blanks in it.
                let rest = &line[at..];
                let ends =
                    rest.match_indices([' ', ':', '\'', '"', '`', ')', ',']).map(|(end, _)| end);
                let mut paths = ends.chain([rest.len()]).map(|end| Path::new(&rest[..end]));
                let named = paths.rfind(|path| path.exists() && path.parent().is_some());
                found.extend(named.filter(|path| !self.holds(path)).map(Path::to_owned));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

/// A kernel that keeps a program to what it may read.
#[cfg(target_os = "linux")]
pub struct Sandbox(landlock::RulesetCreated);

#[cfg(target_os = "linux")]
impl Sandbox {
    /// A sandbox; or why this machine has none.
    ///
    /// # Errors
    /// A phrase for people.
    pub fn new(readable: &Readable) -> Result<Sandbox, String> {
        use landlock::{
            AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
            RulesetCreatedAttr,
        };
        let without = |error: landlock::RulesetError| {
            format!("this kernel has no Landlock, or it is turned off ({error})")
        };
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::ReadFile)
            .and_then(Ruleset::create)
            .map_err(without)?;
        for path in &readable.0 {
            let Ok(file) = PathFd::new(path) else { continue };
            let rule = PathBeneath::new(file, AccessFs::ReadFile);
            ruleset = ruleset.add_rule(rule).map_err(without)?;
        }
        Ok(Sandbox(ruleset))
    }

    /// Keeps the program that `command` starts, and all that it starts, to what
    /// it may read.
    #[expect(unsafe_code, reason = "code between fork and exec; it makes two system calls")]
    pub fn confine(self, command: &mut std::process::Command) {
        use std::os::unix::process::CommandExt;
        let mut ruleset = Some(self.0);
        // SAFETY: the closure only makes system calls, which is allowed after fork.
        unsafe {
            command.pre_exec(move || match ruleset.take().map(|ruleset| ruleset.restrict_self()) {
                Some(Ok(_)) => Ok(()),
                _ => Err(std::io::ErrorKind::PermissionDenied.into()),
            });
        }
    }
}

/// Where the system has nothing of the kind.
#[cfg(not(target_os = "linux"))]
pub struct Sandbox(std::convert::Infallible);

#[cfg(not(target_os = "linux"))]
impl Sandbox {
    /// Why this machine has none.
    ///
    /// # Errors
    /// Always.
    pub fn new(_readable: &Readable) -> Result<Sandbox, String> {
        Err("this system has no Landlock".to_owned())
    }

    /// Never called.
    pub fn confine(self, _command: &mut std::process::Command) {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_paths_are_found_in_what_programs_say() {
        let folder = temp_dir::TempDir::new().unwrap();
        let (open, shut) = (folder.path().join("open"), folder.path().join("shut up"));
        std::fs::write(&open, "").unwrap();
        std::fs::write(&shut, "").unwrap();
        let mut readable = Readable::default();
        readable.allow(&open);
        readable.allow(Path::new("relative"));
        let words = format!(
            "cat: {0}: Permission denied\ncat: {1}: Permission denied\n\
             PermissionError: [Errno 13] Permission denied: '{1}'\n{1} is fine\n\
             cat: /there/is/no/such: Permission denied\n",
            open.display(),
            shut.display()
        );
        assert_eq!(readable.refused(&words), std::slice::from_ref(&shut));
        readable.allow(folder.path());
        assert!(readable.refused(&words).is_empty());
        assert!(Readable::of_system(None).holds(Path::new("/etc/hostname")));
        assert!(!Readable::of_system(None).holds(&shut));
    }

    #[test]
    fn what_is_installed_with_a_program_may_be_read() {
        let folder = temp_dir::TempDir::new().unwrap();
        let bin = folder.path().join("venv/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(folder.path().join("tools/bin")).unwrap();
        std::fs::write(folder.path().join("venv/pyvenv.cfg"), "").unwrap();
        std::fs::write(folder.path().join("tools/secret"), "").unwrap();
        let path = std::env::join_paths([&bin, &folder.path().join("tools/bin")]).unwrap();
        let readable = Readable::of_system(Some(&path));
        assert!(readable.holds(&folder.path().join("venv/pyvenv.cfg")));
        assert!(!readable.holds(&folder.path().join("tools/secret")), "no prefix of libraries");
        let all = std::env::join_paths(["/bin", "/usr/bin", "/sbin"]).unwrap();
        let readable = Readable::of_system(Some(&all));
        assert!(!readable.holds(folder.path()), "`/bin` has `/lib` beside it");
    }
}
