//! What was concluded before is concluded again from one file; losing,
//! damaging or ageing that file changes no answer.

use crate::space::{CHAIN, Ran, Space, list};
use rekindle::base::hash::Digest;
use std::{path::PathBuf, time::Duration};

/// Files must have been at rest for two seconds to be spoken of.
const REST: Duration = Duration::from_millis(2100);
const ASKED: [&[&str]; 8] = [
    &["run", "m.toml"],
    &["run", "m.toml", "--json", "-q"],
    &["plan", "m.toml"],
    &["plan", "m.toml", "--json"],
    &["status", "m.toml"],
    &["status", "m.toml", "--json"],
    &["why", "m.toml", "count"],
    &["why", "m.toml", "sorted", "--json"],
];

/// A finished experiment whose standing is kept.
fn settled() -> Space {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(standings(&space).len(), 0, "nothing is at rest yet");
    std::thread::sleep(REST);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(standings(&space).len(), 1);
    space
}

fn standings(space: &Space) -> Vec<PathBuf> {
    list(&space.path(".rekindle/standings"))
}

fn standing(space: &Space) -> Vec<u8> {
    std::fs::read(&standings(space)[0]).unwrap()
}

fn put(space: &Space, bytes: &[u8]) {
    std::fs::write(&standings(space)[0], bytes).unwrap();
}

/// Answers without what differs from run to run.
fn answers(space: &Space) -> Vec<(i32, String, String)> {
    let plain = |text: String| -> String {
        let is_time = |line: &&str| line.contains("\"seconds\":") && !line.contains("    ");
        let lines = text.lines().filter(|line| !is_time(line));
        lines.map(|line| line.split(", in ").next().unwrap().to_owned() + "\n").collect()
    };
    let answer = |asked: &&[&str]| {
        let Ran { code, out, err } = space.run(asked);
        (code, plain(out), plain(err))
    };
    ASKED.iter().map(answer).collect()
}

/// The standing with a word changed, sealed again.
fn forged(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let head = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let mut body = bytes[head + 32..].to_vec();
    let place = body.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    body[place..place + to.len()].copy_from_slice(to.as_bytes());
    let seal = Digest::tagged("rekindle 2026 standing v1", &body);
    [&bytes[..head], seal.bytes(), &body].concat()
}

#[test]
fn the_short_way_and_the_long_way_answer_alike() {
    let space = settled();
    let bytes = standing(&space);
    let short = answers(&space);
    std::fs::remove_dir_all(space.path(".rekindle/standings")).unwrap();
    let plan = space.run(&["plan", "m.toml"]).ok();
    assert!(plan.out.contains("sorted"), "{}", plan.out);
    assert_eq!(standings(&space).len(), 0, "only `run` writes");
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(standing(&space), bytes, "it is made again as it was");
    let mut long = Vec::new();
    for at in 0..ASKED.len() {
        std::fs::remove_dir_all(space.path(".rekindle/standings")).unwrap();
        long.push(answers(&space).swap_remove(at));
    }
    for (asked, (short, long)) in ASKED.iter().zip(short.iter().zip(&long)) {
        assert_eq!(short, long, "{asked:?}");
    }
    // The short way is the one that is taken: it believes what is sealed.
    let forgery = forged(&bytes, "\"title\":\"sorted\"", "\"title\":\"forged\"");
    put(&space, &forgery);
    assert!(space.run(&["plan", "m.toml"]).ok().out.contains("forged"));
    assert!(!space.run(&["plan", "m.toml", "--set", "seed=0"]).ok().out.contains("forged"));
}

#[test]
fn a_lost_torn_or_flipped_standing_changes_no_answer() {
    let space = settled();
    let (bytes, before) = (standing(&space), answers(&space));
    let plan = space.run(&["plan", "m.toml", "--json"]).ok().out;
    for step in 0..24 {
        let at = step * bytes.len() / 24;
        put(&space, &bytes[..at]);
        assert_eq!(space.run(&["plan", "m.toml", "--json"]).ok().out, plan, "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (step % 8);
        put(&space, &flipped);
        assert_eq!(space.run(&["plan", "m.toml", "--json"]).ok().out, plan, "flip at {at}");
    }
    let other = [b"rekindle standing 9\n", &bytes[b"rekindle standing 1\n".len()..]].concat();
    for bytes in [b"".as_slice(), b"\0\0", &other] {
        put(&space, bytes);
        assert_eq!(answers(&space), before);
    }
    assert_eq!(space.log().len(), 4, "nothing ran again");
}

#[test]
fn a_standing_of_another_text_setting_or_program_is_not_believed() {
    let space = settled();
    space.run(&["run", "m.toml", "--set", "stage.words.env.TEXT=c a b"]).ok();
    assert_eq!(space.log()[4..], ["words", "sorted", "count"]);
    space.manifest(&CHAIN.replace("wc -c", "wc -w"));
    assert!(space.run(&["plan", "m.toml"]).ok().out.contains("will run"));
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log()[7..], ["count"]);
    space.manifest(&CHAIN.replace("run = ", "rum = "));
    let mistaken = space.run(&["run", "m.toml"]);
    assert_eq!(mistaken.code, space.run(&["check", "m.toml"]).code);
    assert!(mistaken.err.contains("unknown key `rum`"), "{}", mistaken.err);
    space.manifest(CHAIN);
    space.run(&["run", "m.toml"]).ok(); // the history changes with every other result
    std::thread::sleep(REST);
    space.run(&["run", "m.toml"]).ok();
    let version = env!("CARGO_PKG_VERSION");
    let forgery = forged(&standing(&space), "\"title\":\"sorted\"", "\"title\":\"forged\"");
    put(&space, &forgery);
    assert!(space.run(&["plan", "m.toml"]).ok().out.contains("forged"));
    put(
        &space,
        &forged(&forgery, &format!("[\"{version} "), &format!("[\"{} ", "9".repeat(version.len()))),
    );
    assert!(!space.run(&["plan", "m.toml"]).ok().out.contains("forged"));
}

#[test]
fn what_changes_behind_its_back_is_noticed() {
    // (what is done, the steps that run again)
    let cases: [(&str, &[&str]); 7] = [
        ("object removed", &["words"]),
        ("object cut", &["words"]),
        ("record flipped", &["words"]),
        ("record removed", &["words"]),
        ("history removed", &[]),
        ("report edited", &[]),
        ("report removed", &[]),
    ];
    let space = settled();
    for (case, again) in cases {
        let before = space.log().len();
        let object = space.object_with("b a\n");
        let records = list(&space.path(".rekindle/actions"));
        let mut records = records.iter().flat_map(|shelf| list(shelf));
        let of_words = |path: &PathBuf| {
            std::fs::read_to_string(path).unwrap().contains("\"step\":\"chain/words\"")
        };
        let record = records.find(of_words).unwrap();
        let report = space.path("results/chain/report.md");
        match case {
            "object removed" => std::fs::remove_file(&object).unwrap(),
            "object cut" => space.damage(&object, "b"),
            "record flipped" => {
                let mut bytes = std::fs::read(&record).unwrap();
                bytes[10] ^= 1;
                std::fs::write(&record, bytes).unwrap();
            }
            "record removed" => std::fs::remove_file(&record).unwrap(),
            "history removed" => {
                std::fs::remove_file(space.path(".rekindle/history.jsonl")).unwrap()
            }
            "report edited" => std::fs::write(&report, "x").unwrap(),
            _ => std::fs::remove_dir_all(space.path("results")).unwrap(),
        }
        let ran = space.run(&["run", "m.toml"]).ok();
        assert_eq!(space.log()[before..], *again, "{case}: {}", ran.err);
        assert!(std::fs::read_to_string(&report).unwrap().len() > 10, "{case}");
        std::thread::sleep(REST);
        space.run(&["run", "m.toml"]).ok();
        assert_eq!(standings(&space).len(), 1);
    }
}

#[test]
fn two_runners_do_each_step_once_whatever_stood_before() {
    let space = settled();
    space.manifest(&CHAIN.replace("\"b a\"", "\"d c\""));
    let mut runners = [space.start(&["run", "m.toml"]), space.start(&["run", "m.toml"])];
    for runner in &mut runners {
        assert!(runner.wait().unwrap().success());
    }
    let mut log = space.log()[4..].to_vec();
    log.sort();
    assert_eq!(log, ["count", "sorted", "words"]);
}
