//! Steps share the machine as they say: no step starts before what it wants is
//! free, and none begins that can never have it.

use crate::space::Space;

/// Steps that fail if another one of them runs at the same time.
fn alone(wants: &str, machine: &str) -> String {
    let mut text = format!("rekindle = 1\nname = \"machine\"\n{machine}\n");
    for name in ["a", "b", "c"] {
        text += &format!(
            "[stage.{name}]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"mkdir LOG.d && sleep 0.1 && \
             rmdir LOG.d && echo {name} > out/files/x\"]\nresources = {{ {wants} }}\n"
        );
    }
    text
}

#[test]
fn steps_that_want_the_same_do_not_run_together() {
    for (wants, machine) in [
        ("memory = \"60MiB\"", "[resources]\nmemory = \"100MiB\""),
        ("cpus = 3", "[resources]\ncpus = 4"),
        ("devices = 1", "[resources]\ndevices = [\"GPU-7\"]"),
    ] {
        Space::with(&alone(wants, machine)).run(&["run", "m.toml", "-j", "4"]).ok();
        // The options come before the manifest, here with room for all of them.
        let roomy = ["--cpus", "9", "--memory", "1GiB", "--devices", "1,2,3"];
        let roomy: Vec<&str> = ["run", "m.toml", "-j", "4"].into_iter().chain(roomy).collect();
        let ran = Space::with(&alone(wants, machine)).run(&roomy);
        assert_eq!(ran.code, 4, "with room for all they meet: {}", ran.err);
    }
}

const TOLD: &str = r#"
rekindle = 1
name = "told"
[resources]
devices = [3, "GPU-7"]
cpus = 4
[stage.one]
kind = "command"
run = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES $REKINDLE_DEVICES $REKINDLE_CPUS > out/files/x"]
resources = { devices = 2, cpus = 3 }
[stage.none]
kind = "command"
run = ["sh", "-c", "env | grep -c -e DEVICES -e CPUS > out/files/x; true"]
"#;

#[test]
fn a_program_learns_what_it_was_given() {
    let space = Space::with(TOLD);
    let ran = space.run(&["run", "m.toml"]).ok();
    assert!(ran.err.contains("one starts on cards 3,GPU-7"), "{}", ran.err);
    space.object_with("3,GPU-7 3,GPU-7 3\n");
    space.object_with("0\n");
    // How a step is run is no part of what it is.
    space.manifest(&TOLD.replace("devices = 2, cpus = 3", "devices = 1, memory = 5"));
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(again.err.contains("nothing to do"), "{}", again.err);
}

#[test]
fn what_can_never_run_is_told_before_anything_does() {
    let text = alone("memory = \"2GiB\"", "[resources]\nmemory = \"1GiB\"");
    let space = Space::with(&text);
    for command in ["check", "plan"] {
        let told = space.run(&[command, "m.toml"]).ok();
        assert!(
            told.err.contains("`a` wants 2.0 GiB of memory, and there are 1.0 GiB"),
            "{told:?}"
        );
        assert!(told.err.contains("m.toml:8:24"), "{}", told.err);
    }
    let plan = space.run(&["plan", "m.toml", "--json"]).ok().out;
    assert!(plan.contains("\"cannot-run\": \"it wants 2.0 GiB"), "{plan}");
    let refused = space.run(&["run", "m.toml"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("error: 3 steps cannot run on this machine"), "{}", refused.err);
    assert!(!space.path(".rekindle").exists(), "nothing was begun");
    space.run(&["run", "m.toml", "--memory", "3GiB"]).ok();
    // What is stored needs nothing any more.
    let stored = space.run(&["run", "m.toml"]).ok();
    assert!(stored.err.contains("nothing to do"), "{}", stored.err);
    let wants = |wants: &str| {
        let space = Space::with(&alone(wants, "[resources]\ncpus = 2\ndevices = 1"));
        space.run(&["run", "m.toml"])
    };
    assert!(wants("cpus = 3").err.contains("`a` wants 3 cores, and there are 2"));
    assert!(wants("devices = 2").err.contains("`a` wants 2 graphics cards, and there are 1"));
}

#[test]
fn slips_are_told_with_what_was_meant() {
    for (wrong, told) in [
        ("resources = { memory = \"4 apples\" }", "`4 apples` is no amount of memory"),
        ("resources = { cpus = -1 }", "`stage.a.resources.cpus` wants a whole number from 0"),
        ("resources = { gpus = 1 }", "unknown key `gpus` in `stage.a.resources`"),
        ("resorces = {}", "did you mean `resources`?"),
    ] {
        let text =
            "rekindle = 1\nname = \"slip\"\n[stage.a]\nkind = \"command\"\nrun = [\"true\"]\n";
        let ran = Space::with(&format!("{text}{wrong}\n")).run(&["check", "m.toml"]);
        assert_eq!(ran.code, 3, "{wrong}");
        assert!(ran.err.contains(told), "{wrong}: {}", ran.err);
    }
    let head = "rekindle = 1\nname = \"slip\"\n[resources]\ndevices = [1, 1]\n";
    let ran = Space::with(head).run(&["check", "m.toml"]);
    assert!(ran.err.contains("card `1` is named twice"), "{}", ran.err);
}
