//! File systems of their own, in a name space that needs no privileges where
//! the kernel allows it: one of 32 MB that fills up, one that is read-only.

use super::{
    Finding, Trouble, demand,
    ground::{Ground, SMALL, Whole, World, last_line},
};
use crate::{
    base::failure::{Doing, Outcome},
    host::fs,
};
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

pub(super) fn rows(ground: &Ground<'_>) -> Vec<Finding> {
    vec![
        Finding::of(
            "full disk (tmpfs of 32 MB)",
            "a clear error and exit code 5; with room again the same command ends the same",
            full(ground),
        ),
        Finding::of(
            "read-only store",
            "what is stored can be looked at and `run` finds nothing to do; what must be done is a clear error",
            read_only(ground),
        ),
    ]
}

/// The second step gets a copy of what the first one made.
const LARGE: &str = r#"rekindle = 1
name = "large"
[stage.a]
kind = "command"
run = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' a > out/files/x"]
[stage.b]
kind = "command"
run = ["sh", "-c", "head -c 1000000 in/a/x > out/files/x"]
inputs = { a = "a" }
"#;

/// Fills the disk, runs, makes room, runs again; then takes out what came of it.
const FILL: &str = r#"
head -c 28800000 /dev/zero > "$1/ballast"
"$2" run "$3" --device cpu --store "$1/store" --set "results=$1/results" 2> "$4/first"
echo $? > "$4/first-code"
rm "$1/ballast"
"$2" run "$3" --device cpu --store "$1/store" --set "results=$1/results" 2> "$4/second"
echo $? > "$4/second-code"
cp -R "$1/store" "$1/results" "$4"
"#;

/// Runs, looks, then runs with something to be done.
const LOOK: &str = r#"
n=0
for words in "run $3" "status $3" "plan $3" "verify" "run $3 --set stage.twice.revision=2"; do
  n=$((n + 1))
  "$2" $words --device cpu --store "$1/store" --set "results=$1/results" > "$4/$n" 2>&1
  echo $? > "$4/$n-code"
done
"#;

/// Runs `script` where `mount` has put a file system onto the world's folder;
/// its fourth argument is a folder outside.
fn mounted(world: &World<'_>, mount: &str, script: &str) -> Result<Answers, Trouble> {
    let answers = world.root.with_extension("answers");
    fs::remove_folder(&answers)?;
    fs::create_folder(&answers)?;
    let program = std::env::current_exe().doing(|| "finding this program".to_owned())?;
    let tried = Command::new("unshare")
        .args(["-rm", "--", "sh", "-c"])
        .arg(format!("({mount}) 2>/dev/null || exit 77\n{script}"))
        .arg("sh")
        .args([&world.root, &program])
        .arg(world.manifest())
        .arg(&answers)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if status.success() => Ok(Answers(answers)),
        Ok(status) if status.code() == Some(77) => {
            Err(Trouble::Cannot("this kernel lets nobody mount it".to_owned()))
        }
        Ok(status) => Err(Trouble::Wrong(format!("the script ended with {status}"))),
        Err(error) => Err(Trouble::Cannot(format!("`unshare` cannot be run: {error}"))),
    }
}

/// What a script left outside.
struct Answers(std::path::PathBuf);

impl Answers {
    fn text(&self, name: &str) -> Outcome<String> {
        let bytes = fs::read(&self.0.join(name))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn demand(&self, name: &str, code: &str, words: &str) -> Result<(), Trouble> {
        let (found, said) = (self.text(&format!("{name}-code"))?, self.text(name)?);
        demand(found == code && said.contains(words), || {
            format!("run {name} ended with {found}: {}", last_line(&said))
        })
    }
}

fn full(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("tmpfs", LARGE)?;
    let whole = world.whole()?;
    let mount = r#"mount -t tmpfs -o size=32m none "$1""#;
    let answers = mounted(&world, mount, FILL)?;
    answers.demand("first", "5", "o space left on device")?;
    answers.demand("first", "5", "hint: make room")?;
    answers.demand("second", "0", "done")?;
    // What was on the tmpfs is a world of its own now.
    for folder in ["store", "results"] {
        fs::rename(&answers.0.join(folder), &world.root.join(folder))?;
    }
    world.must_equal(&whole)?;
    Ok(format!(
        "the first run said `{}`; the second ended the same",
        short(&world, &answers.text("first")?)
    ))
}

fn read_only(ground: &Ground<'_>) -> Result<String, Trouble> {
    let world = ground.world("read-only", SMALL)?;
    let whole: Whole = world.whole()?;
    world.run()?;
    let mount = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1""#;
    let answers = mounted(&world, mount, LOOK)?;
    answers.demand("1", "0", "nothing to do")?;
    for look in ["2", "3", "4"] {
        answers.demand(look, "0", "")?;
    }
    answers.demand("5", "5", "ead-only file system")?;
    world.must_equal(&whole)?;
    let codes: BTreeSet<String> = ["1", "2", "3", "4"]
        .into_iter()
        .map(|look| answers.text(&format!("{look}-code")))
        .collect::<Outcome<_>>()?;
    demand(codes.len() == 1, || format!("exit codes {codes:?}"))?;
    Ok(format!(
        "looked at without fault; with a step to do: `{}`",
        short(&world, &answers.text("5")?)
    ))
}

/// The error with the names of stored files cut short.
fn short(world: &World<'_>, said: &str) -> String {
    let error = last_line(said).replace(&format!("{}/", world.root.display()), "");
    let is_digest = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = error.split('/').map(|part| if is_digest(part) { "…" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
