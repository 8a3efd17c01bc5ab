//! What `[[compare]]` says of its two sides is held to, before anything runs.

use crate::space::{Ran, Space};

/// Checks the sweep with these comparisons beside its own.
fn check(more: &str, sets: &[&str]) -> Ran {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/quickstart-seeds.toml");
    let space =
        Space::with(&format!("rekindle = 1\nextends = \"{base}\"\nname = \"compared\"\n{more}"));
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["check", "m.toml"].into_iter().chain(sets).collect();
    space.run(&arguments)
}

const ROUNDS: &str = "[[compare]]\na = \"round {round}\"\nb = \"control {round}\"\n";

#[test]
fn sides_that_differ_in_more_than_they_say_are_a_mistake() {
    let compare =
        ROUNDS.to_owned() + "differs-only = [\"train.data\", \"epochs\", \"match-steps\"]\n";
    let ran = check(&compare, &[]);
    assert_eq!((ran.code, ran.err.contains("warning")), (0, false), "{}", ran.err);
    let ran = check(&compare, &["stage.control.warmup=0.5"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    for part in [
        "`round {round}` and `control {round}` differ also in `train.warmup` (",
        "and 0.5)",
        "m.toml:7:16",
        "`control` has its `warmup` from here",
        "name the field here too",
    ] {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
}

#[test]
fn a_field_in_which_nothing_differs_is_pointed_out() {
    let compare = ROUNDS.to_owned() + "differs-only = [\"train\", \"modes\"]\n";
    let ran = check(&compare, &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("do not differ in `modes`"), "{}", ran.err);
    assert!(ran.err.contains("they do in `train.data"), "{}", ran.err);
}

#[test]
fn arms_of_a_sweep_are_compared() {
    let compare = |axis: &str, label: &str, only: &str| {
        format!(
            "[[compare]]\na = \"round 3\"\nb = \"round 3\"\na-arm = {{ {axis} = \"{label}\" }}\n\
             b-arm = {{ filter = \"none\" }}\ndiffers-only = [\"{only}\"]\n"
        )
    };
    let ran = check(&compare("filter", "judgement", "filter.rule"), &[]);
    assert_eq!((ran.code, ran.err.contains("warning")), (0, false), "{}", ran.err);
    let ran = check(&compare("filter", "judgement", "rate"), &[]);
    assert!(ran.err.contains("differ also in `filter.rule` (absent and \"none\")"), "{}", ran.err);
    let ran = check(&compare("filtre", "judgement", "filter.rule"), &[]);
    assert!(ran.err.contains("no axis `filtre`"), "{}", ran.err);
    assert!(ran.err.contains("did you mean `filter`?"), "{}", ran.err);
    let ran = check(&compare("filter", "judgment", "filter.rule"), &[]);
    assert!(ran.err.contains("axis `filter` has no label `judgment`"), "{}", ran.err);
    assert!(ran.err.contains("did you mean `judgement`?"), "{}", ran.err);
}

#[test]
fn a_side_cannot_be_its_own_other() {
    let same = "[[compare]]\na = \"base\"\nb = \"base\"\nmode = \"refine\"\n";
    let ran = check(same, &[]);
    assert!(ran.err.contains("`base` is compared with itself"), "{}", ran.err);
    let ran = check(&(same.to_owned() + "b-mode = \"direct\"\n"), &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}
