//! The rules of the house, as tests: imports go down, packages have one home,
//! pure floors stay pure, files have headers and fit on a few screens.

use std::path::{Path, PathBuf};

/// Floor, what it may import, packages that only it may name.
const FLOORS: &[(&str, &[&str], &[&str])] = &[
    ("base", &[], &["blake3", "annotate_snippets"]),
    ("record", &["base"], &["minijinja", "minijinja_contrib"]),
    ("manifest", &["base"], &["toml"]),
    ("plan", &["base", "manifest", "record"], &["petgraph"]),
    ("report", &["base", "manifest", "record"], &[]),
    (
        "host",
        &["base"],
        &[
            "landlock",
            "rustix",
            "ureq",
            "signal_hook",
            "sha1",
            "sha2",
            "tar",
            "hyper",
            "hyper_util",
            "tokio",
        ],
    ),
    ("store", &["base", "host", "plan", "record"], &[]),
    (
        "engine",
        &["base", "host", "record"],
        &["burn", "burn_flex", "cubecl", "cudarc", "pulp", "rayon", "safetensors", "tokenizers"],
    ),
    ("inference", &["base", "host", "record", "store", "engine"], &[]),
    (
        "stages",
        &["base", "host", "record", "manifest", "plan", "store", "engine", "inference"],
        &["csv"],
    ),
    ("serve", &["base", "host", "record", "engine", "inference"], &[]),
    ("runner", &["base", "host", "plan", "store", "stages"], &[]),
    (
        "cli",
        &[
            "base",
            "host",
            "record",
            "manifest",
            "plan",
            "report",
            "store",
            "stages",
            "runner",
            "engine",
            "inference",
            "serve",
        ],
        &["clap", "indicatif"],
    ),
];

/// Floors that know no machine.
const PURE: &[&str] = &["base", "record", "manifest", "plan", "report"];
/// A file longer than this has outgrown its room.
const MOST_LINES: usize = 620;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in crate::space::list(folder) {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let floor = name.split('/').next().unwrap().to_owned();
            (name, floor, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Lines of code, comments taken out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn imports_go_down_only() {
    for (name, floor, text) in sources() {
        let Some((_, may, _)) = FLOORS.iter().find(|(one, ..)| *one == floor) else { continue };
        for (other, ..) in FLOORS {
            let used = code(&text).any(|line| {
                line.contains(&format!("crate::{other}::"))
                    || text.contains("use crate::{")
                        && line
                            .strip_prefix("    ")
                            .is_some_and(|inner| inner.starts_with(&format!("{other}::")))
            });
            assert!(
                !used || *other == floor || may.contains(other),
                "`{name}` imports `{other}`, which is not below `{floor}`"
            );
        }
    }
}

#[test]
fn a_package_is_named_on_one_floor() {
    for (name, floor, text) in sources() {
        for (home, _, packages) in FLOORS {
            for package in *packages {
                let used = code(&text).any(|line| {
                    line.contains(&format!("use {package}::"))
                        || line.contains(&format!(" {package}::"))
                        || line.contains(&format!("({package}::"))
                });
                assert!(
                    !used || *home == floor,
                    "`{name}` names `{package}`, whose home is `{home}`"
                );
            }
        }
    }
}

#[test]
fn pure_floors_know_no_machine() {
    let banned =
        ["std::fs", "std::env", "std::net", "std::process", "std::thread", "Instant", "SystemTime"];
    for (name, floor, text) in sources() {
        if !PURE.contains(&floor.as_str()) || name.ends_with("tests.rs") {
            continue;
        }
        for word in banned {
            assert!(!code(&text).any(|line| line.contains(word)), "`{name}` uses `{word}`");
        }
    }
}

#[test]
fn the_disk_is_changed_by_the_host_only() {
    // `disk::watch` sees every change, or the faults it brings about are not all there are.
    let banned = [
        "File::create",
        "OpenOptions",
        "create_dir",
        "std::fs::write",
        "std::fs::copy",
        "std::fs::rename",
        "std::fs::remove",
        "hard_link",
        ".set_len(",
        ".sync_all(",
        ".sync_data(",
    ];
    for (name, floor, text) in sources() {
        if floor == "host" || name.ends_with("tests.rs") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for word in banned {
            assert!(!code(text).any(|line| line.contains(word)), "`{name}` uses `{word}`");
        }
    }
}

#[test]
fn files_have_a_header_and_fit_their_room() {
    for (name, _, text) in sources() {
        if name != "main.rs" {
            assert!(text.starts_with("//!"), "`{name}` does not begin with a header");
        }
        let lines = text.lines().count();
        let may = if name.ends_with("tests.rs") { 2 * MOST_LINES } else { MOST_LINES };
        assert!(lines <= may, "`{name}` has {lines} lines");
    }
}

#[test]
fn every_file_of_stages_with_a_kind_is_in_the_table() {
    let table = std::fs::read_to_string(root().join("stages/mod.rs")).unwrap();
    for path in crate::space::list(&root().join("stages")) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if text.contains("pub const KIND: Kind") && stem != "kind" {
            assert!(table.contains(&format!("&{stem}::KIND")), "`{stem}` is not in KINDS");
        }
    }
}
