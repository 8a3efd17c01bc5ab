//! A whole study of self-evolution through the program: what `kill -9` leaves
//! behind goes on to the very same results, and other ways to run it give them
//! too.

use crate::space::Space;
use std::{path::Path, thread::sleep, time::Duration};

fn study() -> Space {
    let space = Space::new();
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    for name in ["quickstart.toml", "smoke.toml"] {
        std::fs::copy(experiments.join(name), space.path(name)).unwrap();
    }
    space
}

fn results(space: &Space) -> Vec<(String, Vec<u8>)> {
    crate::space::list(&space.path("results/smoke"))
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn a_study_killed_at_three_moments_ends_as_if_nothing_had_happened() {
    let whole = study();
    whole.run(&["run", "smoke.toml", "--device", "cpu"]).ok();
    assert!(!results(&whole).is_empty());

    let space = study();
    let mut redone = 0;
    for wait in [350, 700, 1100] {
        let mut child = space.start(&["run", "smoke.toml", "--device", "cpu"]);
        sleep(Duration::from_millis(wait));
        child.kill().unwrap(); // SIGKILL
        redone += u32::from(!child.wait().unwrap().success());
    }
    assert!(redone > 0, "every run was over before it was killed");
    space.run(&["run", "smoke.toml", "--device", "cpu", "--jobs", "1"]).ok();
    assert_eq!(space.objects(), whole.objects());
    assert!(results(&space) == results(&whole), "the reports differ");

    let again = space.run(&["run", "smoke.toml", "--device", "cpu"]).ok();
    assert!(again.err.contains("nothing to do"), "{}", again.err);
}

#[test]
fn a_changed_filter_reruns_only_what_depends_on_it() {
    let space = study();
    space.run(&["run", "smoke.toml", "--device", "cpu"]).ok();
    let set = ["--set", "stage.filter.rule=none"];
    let plan = space.run(&[&["plan", "smoke.toml", "--device", "cpu"][..], &set].concat()).ok();
    let line = |name: &str| {
        let found = plan.out.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no line for `{name}` in\n{}", plan.out)).to_owned()
    };
    for name in ["base ", "meta ", "round1.refine ", "eval-meta "] {
        assert!(line(name).contains("cached"), "{}", line(name));
    }
    assert!(line("round1.filter ").contains("will run"), "{}", line("round1.filter "));
    assert!(line("round1.evolve ").contains("waits for"), "{}", line("round1.evolve "));
    let why =
        space.run(&[&["why", "smoke.toml", "round1.filter", "--device", "cpu"][..], &set].concat());
    let said = format!("{}{}", why.out, why.err);
    for part in ["rule", "judgement", "none", "--set"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
}
