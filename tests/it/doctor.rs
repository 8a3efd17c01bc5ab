//! `doctor` checks devices and says what it found.

use crate::space::Space;

#[test]
fn the_processor_is_checked_and_holds() {
    let space = Space::new();
    let ran = space.run(&["doctor", "--device", "cpu"]).ok();
    assert!(ran.err.contains("checks in") && ran.err.contains("all hold"), "{}", ran.err);
    let row = "a training against one stopped in the middle";
    let line = ran.out.lines().find(|line| line.starts_with(row)).unwrap_or_default();
    let words: Vec<&str> = line[row.len()..].split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("none", "none"), "{}", ran.out);
    assert_eq!(words.last(), Some(&"holds"), "{}", ran.out);
    let json = space.run(&["doctor", "--device", "cpu", "--json", "--quiet"]).ok();
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(answer[0]["device"], "cpu (flex)");
    let checks = answer[0]["checks"].as_array().unwrap();
    assert!(checks.len() > 10 && checks.iter().all(|check| check["holds"] == true), "{}", json.out);
}

#[test]
fn a_device_that_is_not_there_is_a_clear_failure() {
    let ran = Space::new().run(&["doctor", "--device", "cuda:4096"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("device `cuda:4096`: "), "{}", ran.err);
    let ran = Space::new().run(&["doctor", "--device", "gpu"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("`gpu` is no device"), "{}", ran.err);
}
