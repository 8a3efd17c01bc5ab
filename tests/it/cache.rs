//! What is done once is not done again, and what is damaged is.

use crate::space::{CHAIN, Space};

#[test]
fn a_second_run_does_nothing() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log().len(), 4);
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(again.err.contains("nothing to do: 4 steps cached"), "{}", again.err);
    assert_eq!(space.log().len(), 4);
    let quiet = space.run(&["run", "m.toml", "--quiet"]).ok();
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    assert_eq!(std::fs::read_dir(space.path(".rekindle/runs")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(space.path(".rekindle/tmp")).unwrap().count(), 0);
}

#[test]
fn a_changed_field_reruns_what_depends_on_it_and_no_more() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space.run(&["run", "m.toml", "--set", "stage.words.env.TEXT=c a b"]).ok();
    assert_eq!(space.log()[4..], ["words", "sorted", "count"]);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.log().len(), 7, "the first results are still there");
}

#[test]
fn equal_content_stops_the_wave() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space.run(&["run", "m.toml", "--set", "stage.words.env.TEXT=a b"]).ok();
    assert_eq!(
        space.log()[4..],
        ["words", "sorted"],
        "sorted words are the same, so nobody counts"
    );
}

#[test]
fn a_field_that_only_says_how_reruns_nothing() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space.run(&["run", "m.toml", "--set", "stage.words.timeout=100.0"]).ok();
    assert_eq!(space.log().len(), 4);
}

#[test]
fn arms_share_what_they_have_in_common() {
    let sweep = "\n[sweep.axes]\ntext = { path = \"stage.count.revision\", values = [1, 2, 3] }\n";
    let space = Space::with(&(CHAIN.to_owned() + sweep));
    space.run(&["run", "m.toml"]).ok();
    let mut log = space.log();
    log.sort();
    assert_eq!(log, ["beside", "count", "count", "count", "sorted", "words"]);
}

#[test]
fn a_missing_object_is_made_again() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    std::fs::remove_file(space.object_with("b a\n")).unwrap();
    let plan = space.run(&["plan", "m.toml"]).ok();
    assert!(
        plan.out.contains("`words` of output `files` is missing from the store"),
        "{}",
        plan.out
    );
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(again.err.contains("warning: words is made again"), "{}", again.err);
    assert_eq!(space.log()[4..], ["words"]);
}

#[test]
fn a_damaged_object_is_found_by_verify_and_kept_aside() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    let before = space.objects();
    space.damage(&space.object_with("a b "), "a_b ");
    let again = space.run(&["run", "m.toml", "--verify"]).ok();
    assert!(again.err.contains("sorted is made again"), "{}", again.err);
    assert_eq!(space.log()[4..], ["sorted"]);
    assert_eq!(space.objects(), before);
    let quarantine = std::fs::read_dir(space.path(".rekindle/quarantine")).unwrap();
    assert_eq!(quarantine.count(), 2, "the object and the record that vouched for it");
}

#[test]
fn a_damaged_input_never_reaches_a_step() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space.damage(&space.object_with("a b "), "a_b ");
    // `count` must run, so its input is read whole first.
    let again = space.run(&["run", "m.toml", "--set", "stage.count.revision=2"]).ok();
    assert!(again.err.contains("sorted is made again"), "{}", again.err);
    assert_eq!(space.log()[4..], ["sorted", "count"]);
    space.object_with("a b ");
}

#[test]
fn a_flipped_record_is_made_again() {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    let shelf = &crate::space::list(&space.path(".rekindle/actions"))[0];
    let record = &crate::space::list(shelf)[0];
    let mut bytes = std::fs::read(record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(record, bytes).unwrap();
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(
        again.err.contains("its seal does not match") || again.err.contains("is damaged"),
        "{}",
        again.err
    );
    assert_eq!(space.log().len(), 5);
}

#[test]
fn the_exact_manifest_of_an_arm_gives_its_steps() {
    let sweep = "\n[sweep.axes]\ntext = { path = \"stage.count.revision\", values = [1, 2, 3] }\n";
    let space = Space::with(&(CHAIN.to_owned() + sweep));
    assert_eq!(space.run(&["run", "m.toml"]).code, 0);
    let results = space.path("results/chain");
    let manifest = results.join("manifest-2.toml").display().to_string();
    let again = space.run(&["run", &manifest]);
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert!(results.join("arm-2/report.md").is_file(), "{}", again.err);
}

#[test]
fn a_report_is_mended_and_follows_its_manifest() {
    let space = Space::with(CHAIN);
    assert_eq!(space.run(&["run", "m.toml"]).code, 0);
    let page = space.path("results/chain/report.md");
    let whole = std::fs::read(&page).unwrap();
    let said = || space.run(&["run", "m.toml"]).ok().err;
    assert!(said().contains("is as it was"));
    std::fs::write(&page, "edited").unwrap();
    assert!(said().contains("1 of 3 files new"));
    assert_eq!(std::fs::read(&page).unwrap(), whole);
    std::fs::remove_file(&page).unwrap();
    assert!(said().contains("1 of 3 files new"));
    // A description decides nothing, but it is shown.
    let described = CHAIN.replace("name = ", "description = \"shown\"\nname = ");
    space.manifest(&described);
    let said = said();
    assert!(said.contains("nothing to do") && said.contains("2 of 3 files new"), "{said}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("shown"));
}
