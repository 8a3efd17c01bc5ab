//! A study as one file: what comes out on another machine is what went in, and
//! what was damaged or forged on the way is not taken at all.

use crate::space::{CHAIN, Ran, Space, files};
use std::{collections::BTreeMap, path::Path};

fn ran() -> Space {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space
}

/// A packed study, and the bytes of the pack.
fn packed() -> (Space, Vec<u8>) {
    let space = ran();
    space.run(&["pack", "m.toml", "-o", "study.rkpack"]).ok();
    let bytes = std::fs::read(space.path("study.rkpack")).unwrap();
    (space, bytes)
}

/// Everything below a folder, by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let named = |path: std::path::PathBuf| {
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    files(folder).into_iter().map(named).collect()
}

/// Another machine, to which these bytes were brought.
fn elsewhere(bytes: &[u8]) -> Space {
    let space = Space::new();
    space.write("study.rkpack", bytes);
    space
}

fn unpack(space: &Space) -> Ran {
    space.run(&["unpack", "study.rkpack"])
}

#[test]
fn a_pack_is_the_same_bytes_and_all_is_there_elsewhere() {
    let (space, bytes) = packed();
    space.run(&["pack", "m.toml", "-o", "again.rkpack"]).ok();
    assert!(std::fs::read(space.path("again.rkpack")).unwrap() == bytes);
    let other = elsewhere(&bytes);
    let checked = other.run(&["unpack", "--check", "study.rkpack"]).ok();
    assert!(checked.err.contains("is whole: `chain`, 4 records, 4 files"), "{}", checked.err);
    assert!(!other.path(".rekindle").exists() && !other.path("chain").exists());
    unpack(&other).ok();
    assert_eq!(other.objects(), space.objects());
    other.run(&["verify"]).ok();
    let there = other.path("chain/manifest");
    assert_eq!(
        std::fs::read(there.join("m.toml")).unwrap(),
        std::fs::read(space.path("m.toml")).unwrap()
    );
    let asked = |words: &[&str]| {
        Ran::of(other.command(words).current_dir(&there).env("REKINDLE_STORE", "../../.rekindle"))
            .ok()
    };
    assert!(asked(&["plan", "m.toml"]).err.contains("nothing to do: all of 4 steps cached"));
    let why = asked(&["why", "m.toml", "count"]);
    assert!(why.out.contains("is up to date\n  made by run 2"), "{}", why.out);
    assert!(asked(&["status", "m.toml"]).out.contains("done in"), "the journal is there");
    // The report that came with it is the report that is made of it.
    asked(&["report", "m.toml"]);
    let came = contents(&other.path("chain/results"));
    assert!(!came.is_empty());
    assert_eq!(contents(&there.join("results/chain")), came);
    assert_eq!(contents(&space.path("results/chain")), came);
    // A second time nothing is new, and a folder with something in it stays.
    assert_eq!(unpack(&other).code, 4);
    let again = other.run(&["unpack", "study.rkpack", "--to", "second"]).ok();
    assert!(again.err.contains("0 records new") && again.err.contains("4 known"), "{}", again.err);
    // And a changed step knows what it was before.
    std::fs::write(there.join("m.toml"), CHAIN.replace("b a", "c a").replace("LOG", "log"))
        .unwrap();
    assert!(asked(&["why", "m.toml", "words"]).out.contains("because it changed"));
}

#[test]
fn a_damaged_or_torn_pack_is_refused_as_a_whole() {
    let (_, bytes) = packed();
    // The archive ends with two empty blocks and padding, which hold nothing.
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    let mut harmless = 0;
    for place in (0..=end).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x20;
        let other = elsewhere(&damaged);
        let ran = unpack(&other);
        if ran.code == 0 {
            // Only bytes that nothing reads: what came out must be all right.
            harmless += 1;
            assert!(bytes[place] == 0, "byte {place} went unnoticed");
            other.run(&["verify"]).ok();
            continue;
        }
        assert_eq!(ran.code, 4, "byte {place}: {}", ran.err);
        assert!(ran.err.contains("study.rkpack"), "byte {place}: {}", ran.err);
        nothing_taken(&other, place);
    }
    assert!(harmless * 4 < end / 211 * 3, "{harmless} of {} flips went unnoticed", end / 211);
    for length in (0..=end).step_by(1009).chain([end]) {
        let other = elsewhere(&bytes[..length]);
        let ran = unpack(&other);
        assert_eq!(ran.code, 4, "cut at {length}: {}", ran.err);
        nothing_taken(&other, length);
    }
}

fn nothing_taken(space: &Space, place: usize) {
    for folder in ["objects", "actions", "runs", "out", "doubts", "tmp"] {
        let left = files(&space.path(".rekindle").join(folder));
        assert_eq!(left.len(), 0, "{place}: {left:?}");
    }
    assert!(!space.path("chain").exists(), "{place}");
}

/// A tar archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar  \0");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn names_that_lead_out_are_refused() {
    const HEAD: &str = r#"{"rekindle-pack":1,"program":"0","experiment":"NAME","manifest":"MAIN",
        "sets":[],"device":"cpu","left-out":{}}"#;
    let head = |name: &str, main: &str| HEAD.replace("NAME", name).replace("MAIN", main);
    let plain = head("chain", "m.toml");
    for (head, name) in [
        (plain.as_str(), "../../evil"),
        (&plain, "/etc/evil"),
        (&plain, "manifest/../../evil"),
        (&plain, "manifest//evil"),
        (&plain, "results/../evil"),
        (&plain, "runs/../../evil.jsonl"),
        (&plain, "objects/../../evil"),
        (&plain, "records/../evil.json"),
        (&plain, "doubts/../evil.json"),
        (&plain, "pack.json"),
        (&head("../evil", "m.toml"), "manifest/m.toml"),
        (&head("chain", "../evil"), "manifest/m.toml"),
        (&head("chain", "m.toml").replace(":1,", ":2,"), "manifest/m.toml"),
        ("{}", "manifest/m.toml"),
    ] {
        let other = elsewhere(&archive(&[("pack.json", head.as_bytes()), (name, b"evil")]));
        let ran = unpack(&other);
        assert_eq!(ran.code, 4, "{name} {head}: {}", ran.err);
        assert!(ran.err.contains("study.rkpack"), "{name}: {}", ran.err);
        nothing_taken(&other, 0);
        assert!(!other.path("evil").exists() && !other.path("../evil").exists());
    }
    let other = elsewhere(b"no archive at all");
    assert_eq!(unpack(&other).code, 4);
    assert_eq!(other.run(&["unpack", "gone.rkpack"]).code, 2);
}

#[test]
fn what_is_not_done_is_not_packed() {
    let space = Space::with(CHAIN);
    let ran = space.run(&["pack", "m.toml"]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("4 steps not done"), "{}", ran.err);
    space.run(&["run", "m.toml"]).ok();
    let object = space.object_with("a b ");
    space.damage(&object, "A B ");
    let ran = space.run(&["pack", "m.toml", "-o", "study.rkpack"]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("is damaged"), "{}", ran.err);
    let names = files(&space.path("")).into_iter().map(|path| path.display().to_string());
    assert_eq!(names.filter(|name| name.contains("rkpack")).count(), 0, "nothing is left of it");
}
