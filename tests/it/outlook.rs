//! What a run will take, as far as what was done before tells it, and budgets
//! that stop a run before it starts, or when its time is over.

use crate::space::Space;

const MANIFEST: &str = r#"
rekindle = 1
name = "outlook"
[stage.one]
kind = "command"
run = ["sh", "-c", "echo one >> LOG; sleep 0.4; head -c 100000 /dev/zero > out/files/x"]
[stage.two]
kind = "command"
run = ["sh", "-c", "echo two >> LOG; sleep 0.4; head -c 100000 /dev/zero > out/files/x"]
"#;

fn outlook(space: &Space, jobs: &str) -> serde_json::Value {
    let plan = space.run(&["plan", "m.toml", "--json", "--jobs", jobs]).ok();
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    plan["outlook"].clone()
}

#[test]
fn what_was_done_tells_what_will_be() {
    let space = Space::with(MANIFEST);
    assert_eq!(outlook(&space, "1")["wall-seconds"]["unknown-steps"], 2);
    space.run(&["run", "m.toml", "--jobs", "1"]).ok();
    assert!(outlook(&space, "1").is_null(), "nothing is to be done");
    space.manifest(&MANIFEST.replace("sleep 0.4", "sleep 0.40"));
    let (alone, together) = (outlook(&space, "1"), outlook(&space, "2"));
    let number = |of: &serde_json::Value, what: &str, end: &str| of[what][end].as_f64().unwrap();
    assert_eq!(alone["steps"], 2);
    for end in ["low", "middle", "high"] {
        let (work, wall) =
            (number(&alone, "work-seconds", end), number(&alone, "wall-seconds", end));
        assert!((work - wall).abs() < 1e-3, "{alone}");
        assert!(number(&together, "wall-seconds", end) < 0.8 * wall, "{together}");
    }
    assert!(number(&alone, "work-seconds", "low") < 0.8, "{alone}");
    assert!(number(&alone, "work-seconds", "middle") >= 0.8, "{alone}");
    assert_eq!(number(&alone, "disk-bytes", "middle"), 200_000.0);
    assert_eq!(number(&alone, "dollars", "high"), 0.0);
    let plan = space.run(&["plan", "m.toml", "--jobs", "2"]).ok().err;
    assert!(plan.contains("  time    about ") && plan.contains(", 2 steps at once"), "{plan}");
    assert!(plan.contains("  disk    about 195.3 KiB") && plan.contains("are free"), "{plan}");
}

#[test]
fn a_budget_that_is_too_small_stops_a_run_before_it_starts() {
    let space = Space::with(MANIFEST);
    space.run(&["run", "m.toml", "--jobs", "1"]).ok();
    space.manifest(&MANIFEST.replace("sleep 0.4", "sleep 0.40"));
    for (budget, what) in [("0.2s", "needs more time"), ("1kB", "needs more room on the disk")] {
        let refused = space.run(&["run", "m.toml", "--jobs", "1", "--budget", budget]);
        assert_eq!(refused.code, 4, "{}", refused.err);
        assert!(refused.err.contains(what), "{}", refused.err);
    }
    assert_eq!(space.log().len(), 2);
    assert_eq!(space.run(&["run", "m.toml", "--budget", "some"]).code, 2);
    let enough = ["run", "m.toml", "--budget", "1h", "--budget", "1GiB", "--budget", "1USD"];
    space.run(&enough).ok();
    assert_eq!(space.log().len(), 4);
}

#[test]
fn a_run_whose_time_is_over_stops_and_can_be_gone_on_with() {
    let chain: String = (0..40)
        .map(|i| {
            let inputs =
                if i > 0 { format!("inputs = {{ it = \"s{}\" }}", i - 1) } else { String::new() };
            let run = "run = [\"sh\", \"-c\", \"echo x >> LOG; sleep 0.2; echo $I > out/files/x\"]";
            format!("[stage.s{i}]\nkind = \"command\"\n{run}\nenv = {{ I = \"{i}\" }}\n{inputs}\n")
        })
        .collect();
    let space = Space::with(&format!("rekindle = 1\nname = \"long\"\n{chain}"));
    let stopped = space.run(&["run", "m.toml", "--budget", "1.5s"]);
    assert_eq!(stopped.code, 130, "{}", stopped.err);
    assert!(stopped.err.contains("the time of 1.5 s is over"), "{}", stopped.err);
    assert!(stopped.err.contains("goes on from here"), "{}", stopped.err);
    let done = space.log().len();
    assert!(done < 40, "{done}");
    space.run(&["run", "m.toml"]).ok();
    assert!((40..=41).contains(&space.log().len()), "at most the one under way was done twice");
}

#[test]
fn a_study_of_which_nothing_was_measured_is_reckoned_by_its_sizes() {
    let experiment = |name: &str| format!("{}/experiments/self/{name}", env!("CARGO_MANIFEST_DIR"));
    let space = Space::new();
    let plan = |name: &str, more: &[&str]| {
        let path = experiment(name);
        let arguments = [&["plan", path.as_str(), "--device", "cpu"][..], more].concat();
        space.run(&arguments).ok()
    };
    // Neither weights nor data nor a key are here.
    let said = plan("E03-self.toml", &[]).err;
    for part in
        ["by sizes, for ", "  tokens  about ", "  money   about $", " h) of one H100", "  disk "]
    {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let sizes = |name: &str, more: &[&str]| {
        let said = plan(name, &[&["--json"], more].concat()).out;
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["outlook"]["by-sizes"].clone()
    };
    let middle = |of: &serde_json::Value, what: &str| of[what]["middle"].as_f64().unwrap();
    let whole = sizes("E03-self.toml", &[]);
    assert_eq!(whole["unknown-steps"], 0, "{whole}");
    // Three rounds and their controls store eight models of 6.74 billion weights, each in f32.
    assert_eq!(middle(&whole, "stored-bytes"), 8.0 * 4.0 * 6.74e9, "{whole}");
    // A quarter more prompts for the annotator are a quarter more money for it.
    let more = ["--set", "dataset.slices.sets={ meta=4375, pool1=0 }"];
    let (paid, paid_more) =
        (middle(&whole, "dollars"), middle(&sizes("E03-self.toml", &more), "dollars"));
    assert!((paid_more / paid - 1.25).abs() < 1e-9, "{paid} {paid_more}");
    // Where a size is not told, the steps behind it are counted and not guessed at.
    let blind = sizes("E12-rlhf.toml", &[]);
    assert!(blind["unknown-steps"].as_u64().unwrap() >= 1, "{blind}");
}
