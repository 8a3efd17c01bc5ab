//! A folder of its own with the program run in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use temp_dir::TempDir;

/// A folder that goes away.
pub(crate) struct Space(TempDir);

/// What came of running the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Space {
    pub(crate) fn new() -> Space {
        Space(TempDir::new().unwrap())
    }

    /// A space with the manifest `m.toml`; `LOG` in it becomes the path that
    /// [`Space::log`] reads.
    pub(crate) fn with(manifest: &str) -> Space {
        let space = Space::new();
        space.manifest(manifest);
        space
    }

    pub(crate) fn manifest(&self, text: &str) {
        let log = self.path("log").display().to_string();
        self.write("m.toml", text.replace("LOG", &log));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The words that steps appended to `LOG`.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("REKINDLE_STORE")
            .env("NO_COLOR", "1");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The files of all objects of the store.
    pub(crate) fn object_files(&self) -> Vec<PathBuf> {
        list(&self.path(".rekindle/objects")).iter().flat_map(|shelf| list(shelf)).collect()
    }

    /// All objects of the store with their contents' sizes.
    pub(crate) fn objects(&self) -> BTreeMap<String, u64> {
        let one = |object: PathBuf| {
            let name = object.file_name().unwrap().to_str().unwrap().to_owned();
            (name, object.metadata().unwrap().len())
        };
        self.object_files().into_iter().map(one).collect()
    }

    /// The object whose content is `text`.
    pub(crate) fn object_with(&self, text: &str) -> PathBuf {
        let mut objects = self.object_files().into_iter();
        objects.find(|object| std::fs::read(object).unwrap() == text.as_bytes()).unwrap()
    }

    /// Overwrites an object, as a failing disk would.
    pub(crate) fn damage(&self, object: &Path, text: &str) {
        std::fs::remove_file(object).unwrap();
        std::fs::write(object, text).unwrap();
    }
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Three steps in a row and one beside them; each says in the log that it ran.
pub(crate) const CHAIN: &str = r#"
rekindle = 1
name = "chain"

[stage.words]
kind = "command"
run = ["sh", "-c", "echo words >> LOG; echo $TEXT > out/files/words"]
env = { TEXT = "b a" }

[stage.sorted]
kind = "command"
run = ["sh", "-c", "echo sorted >> LOG; tr ' ' '\n' < in/text/words | sort | tr '\n' ' ' > out/files/words"]
inputs = { text = "words" }

[stage.count]
kind = "command"
run = ["sh", "-c", "echo count >> LOG; wc -c < in/text/words > out/files/count"]
inputs = { text = "sorted" }

[stage.beside]
kind = "command"
run = ["sh", "-c", "echo beside >> LOG; echo x > out/files/x"]
"#;

/// All files of a folder and of those in it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    list(folder).into_iter().flat_map(below).collect()
}
