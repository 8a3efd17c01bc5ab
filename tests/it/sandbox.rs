//! What a program reads without having been given it: kept from it and named,
//! where the kernel can; and said to be unchecked, where it cannot.

use crate::space::{Ran, Space};

const READS: &str = r#"
rekindle = 1
name = "reads"
[stage.made]
kind = "command"
run = ["sh", "-c", "echo given > out/files/x"]
[stage.s]
kind = "command"
run = ["sh", "-c", "cat in/made/x EXTRA > out/files/x && mktemp > /dev/null && echo again >> out/files/x && cat out/files/x > out/files/y"]
inputs = { made = "made" }
sandbox = "strict"
MORE
"#;

fn run(space: &Space, extra: &str, more: &str) -> Ran {
    space.manifest(&READS.replace("EXTRA", extra).replace("MORE", more));
    space.run(&["run", "m.toml"])
}

/// Whether a step that reads `LOG`, which nobody declared, is kept from it here.
fn is_checked(ran: &Ran) -> bool {
    !ran.err.contains("what it reads was not checked")
}

#[test]
fn an_undeclared_read_is_caught_and_named() {
    let space = Space::new();
    let ran = run(&space, "", "").ok();
    let hidden = space.path("log").display().to_string();
    space.write("log", "hidden\n");
    let caught = run(&space, "LOG", "");
    if !is_checked(&ran) {
        caught.ok();
        return;
    }
    assert_eq!(caught.code, 4, "{}", caught.err);
    let told = format!("it may not read `{hidden}`, which is not declared");
    assert!(caught.err.contains(&told), "{}", caught.err);
    assert!(caught.err.contains("cat: "), "the program's own words: {}", caught.err);
    // A folder above it, or the same without a check, or a name in `env`, is a declaration.
    let folder = format!("reads = [{:?}]", space.path("").display().to_string());
    run(&space, "LOG", &folder).ok();
    space.object_with("given\nhidden\nagain\n");
    run(&Space::new(), "/etc/passwd", "").ok();
    run(&Space::new(), "$FILE", &format!("env = {{ FILE = {hidden:?} }}")).ok();
}

#[test]
fn a_program_of_ones_own_is_no_hidden_input() {
    let space = Space::new();
    space.write("tool", "#!/bin/sh\ncat in/made/x > out/files/x\n");
    let tool = space.path("tool");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&tool, mode).unwrap();
    let manifest = format!(
        "rekindle = 1\nname = \"own\"\n[stage.made]\nkind = \"command\"\n\
         run = [\"sh\", \"-c\", \"echo given > out/files/x\"]\n[stage.s]\nkind = \"command\"\n\
         run = [{:?}]\ninputs = {{ made = \"made\" }}\nsandbox = \"strict\"\n",
        tool.display().to_string()
    );
    space.manifest(&manifest);
    space.run(&["run", "m.toml"]).ok();
    space.object_with("given\n");
}

#[test]
fn without_the_check_nothing_is_kept_from_a_program() {
    let space = Space::new();
    space.write("log", "hidden\n");
    space.manifest(
        &READS.replace("EXTRA", "LOG").replace("MORE", "").replace("\"strict\"", "\"off\""),
    );
    space.run(&["run", "m.toml"]).ok();
    space.object_with("given\nhidden\nagain\n");
}
