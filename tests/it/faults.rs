//! What kills, disks and clocks do, brought about for small studies by
//! `doctor --faults`: every row of its table must hold.

use crate::space::Space;

#[test]
fn no_kill_disk_or_clock_harms_a_result() {
    let space = Space::new();
    let mut command = space.command(&["doctor", "--faults", "--kills", "30", "--json"]);
    let ran = crate::space::Ran::of(command.env("TMPDIR", space.path("")));
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    for row in &rows {
        assert_ne!(row["verdict"], "FAILS", "{row:#}");
    }
    assert_eq!(ran.code, 0, "{ran:?}");
    let held = |fault: &str| {
        let row = rows.iter().find(|row| row["fault"].as_str().unwrap().contains(fault)).unwrap();
        assert_eq!(row["verdict"], "holds", "{row:#}");
        row["happened"].as_str().unwrap().to_owned()
    };
    // Rows that no machine may skip, and numbers that show that something was done.
    let number = |text: &str| -> u64 {
        let word = text.split_whitespace().next().unwrap();
        word.replace(',', "").parse().unwrap_or_else(|_| panic!("{text}"))
    };
    assert!(number(&held("after any change")) > 80);
    assert!(number(&held("power cut")) > 80);
    assert!(number(&held("input/output error")) > 20);
    assert!(number(&held("disk full from any change")) > 20);
    assert!(number(&held("of the runner")) >= 30);
    assert_eq!(number(&held("two runners")), 80);
    assert!(crate::space::list(&space.path("")).is_empty(), "left behind by the check itself");
}
