//! Mistakes in manifests: each told where it stands, with a remedy.

use super::*;

#[test]
fn five_mistakes_are_told_at_once() {
    let text = "\
rekindle = 1
name = \"x\"
seeds = 7
[dataset.pool]
kind = \"aritmetic\"
[stage.base]
kind = \"train\"
steps = \"many\"
rate = = 3
[stage.more]
kind = \"train\"
step = 3
steps = 3
";
    complains(
        text,
        "\
error: unknown key `seeds` at the top of the manifest
 --> a.toml:3:1
  |
3 | seeds = 7
  | ^^^^^
  |
  = hint: did you mean `seed`?

error: there is no kind of dataset called `aritmetic`
 --> a.toml:5:8
  |
5 | kind = \"aritmetic\"
  |        ^^^^^^^^^^^
  |
  = hint: did you mean `arithmetic`?

error: `stage.base.steps` wants a whole number from 0, but this is a string
 --> a.toml:8:9
  |
8 | steps = \"many\"
  |         ^^^^^^

error: extra `=`, expected nothing
 --> a.toml:9:8
  |
9 | rate = = 3
  |        ^

error: unknown key `step` in `stage.more`
  --> a.toml:12:1
   |
12 | step = 3
   | ^^^^
   |
   = hint: did you mean `steps`?
",
    );
}

/// Asserts message, place and hint of the only mistake.
#[track_caller]
fn one(text: &str, sets: &[&str], message: &str, place: &str, hint: &str) {
    let text = format!("{HEAD}{text}");
    let world = read(&[("a.toml", &text)], sets);
    let items = world.found.sorted();
    let all = world.found.render(&world.sources, false);
    assert_eq!(items.len(), 1, "{all}");
    assert_eq!(items[0].message, message, "{all}");
    let at = items[0].labels.first().map(|(span, _)| world.sources.place(span));
    let at = at.map(|at| format!("{}:{}:{}", at.file, at.line, at.column)).unwrap_or_default();
    assert_eq!(at, place, "{all}");
    assert_eq!(items[0].hints.first().map_or("", String::as_str), hint, "{all}");
}

#[test]
fn mistakes_of_steps_name_place_and_remedy() {
    let t = "[stage.t]\nkind = \"train\"\nsteps = 1\n";
    let lacks = "a whole number from 0: Optimizer steps.";
    one("[stage.t]\nkind = \"train\"\n", &[], "`stage.t` lacks `steps`", "a.toml:4:1", lacks);
    let kinds = "kinds of a stage: `train`, `generate`";
    one("[stage.t]\nsteps = 1\n", &[], "`stage.t` lacks `kind`", "a.toml:4:1", kinds);
    let hint = "`train` is a kind of stage: call this table `[stage.t]`";
    one(
        "[dataset.t]\nkind = \"train\"\n",
        &[],
        "there is no kind of dataset called `train`",
        "a.toml:5:8",
        hint,
    );
    one(
        &format!("{t}start = \"restrat\"\n"),
        &[],
        "`stage.t.start` cannot be `restrat`",
        "a.toml:7:9",
        "did you mean `restart`?",
    );
    one(
        &format!("{t}rate = nan\n"),
        &[],
        "`stage.t.rate` wants a finite number, but this is infinite or no number",
        "a.toml:7:8",
        "",
    );
    one(
        &format!("{t}batch = -1\n"),
        &[],
        "`stage.t.batch` wants a whole number from 0, but this is a negative number",
        "a.toml:7:9",
        "",
    );
    one(
        &format!("{t}rate = {{ by-round = [1.0, 2.0] }}\n"),
        &[],
        "`by-round` has a meaning only in steps with `each = \"round\"`",
        "a.toml:7:8",
        "",
    );
    one(&format!("{t}rate = -1\n"), &[], "`rate` must be above 0", "a.toml:7:8", "");
    one(
        &format!("{t}each = \"rund\"\n"),
        &[],
        "`stage.t.each` can only be `\"round\"`",
        "a.toml:7:8",
        "",
    );
    one(
        &format!("{t}rate = {{ by-round = [1.0] }}\neach = \"round\"\n"),
        &[],
        "`by-round` has 1 value for 2 rounds",
        "a.toml:7:8",
        "give one value for each round",
    );
    one(
        "[stage.last]\nkind = \"train\"\nsteps = 1\n",
        &[],
        "a step cannot be called `last`",
        "a.toml:4:8",
        "references use this word for rounds",
    );
    one(
        &format!("{t}[dataset.t]\nkind = \"arithmetic\"\n"),
        &[],
        "there are two steps called `t`",
        "a.toml:4:8",
        "",
    );
    let hint = "`train` is a kind: give a step of your own name `kind = \"train\"`";
    one("[train]\n", &[], "unknown key `train` at the top of the manifest", "a.toml:4:2", hint);
}

#[test]
fn mistakes_of_references_name_the_steps_there_are() {
    let t = "[stage.t]\nkind = \"train\"\nsteps = 1\n";
    let each = format!("{t}each = \"round\"\n[stage.u]\nkind = \"train\"\nsteps = 1\n");
    let model = |reference: &str| format!("{each}model = {reference}\n");
    one(&model("\"tt\""), &[], "there is no step `tt`", "a.toml:11:9", "did you mean `t`?");
    one(
        &model("\"t.model\""),
        &[],
        "`t` runs once in each round; say which one is meant",
        "a.toml:11:9",
        "`last.t.model`, `round1.t.model`, or in a list `rounds.t.model`",
    );
    one(
        &model("\"round3.t\""),
        &[],
        "there is no `round3`",
        "a.toml:11:9",
        "`rounds` is 2: `round1` to `round2`",
    );
    one(
        &model("\"last.u\""),
        &[],
        "`u` runs only once, not in each round",
        "a.toml:11:9",
        "say `u`, or give `u` the line `each = \"round\"`",
    );
    one(
        &model("\"rounds.t\""),
        &[],
        "`rounds.t` is a list, but `stage.u.model` takes one",
        "a.toml:11:9",
        "one of them is `last.t` or `round1.t`",
    );
    one(
        &model("{ previous = \"t\", first = \"u\" }"),
        &[],
        "`previous` has a meaning only in steps with `each = \"round\"`",
        "a.toml:11:9",
        "from outside say `last.t` or `round1.t`",
    );
    one(
        &model("\"last.t\""),
        &["rounds=0"],
        "there is no last round",
        "a.toml:11:9",
        "`rounds` is 0",
    );
    let text = "[protocol.plain]\n[dataset.p]\nkind = \"arithmetic\"\n[stage.t]\nkind = \"train\"\nsteps = 1\n\
        [stage.g]\nkind = \"generate\"\nmodel = \"t\"\nproblems = \"p\"\nprotocol = \"plan\"\n";
    one(text, &[], "there is no `[protocol.plan]`", "a.toml:14:12", "did you mean `plain`?");
    let tagged =
        format!("{}annotator = {{ kind = \"golden\" }}\n", text.replace("plan\"", "plain\""));
    one(
        &tagged,
        &[],
        "`stage.g.annotator.kind` cannot be `golden`",
        "a.toml:15:22",
        "did you mean `gold`?",
    );
}

#[test]
fn mistakes_of_sweeps_and_settings_are_told() {
    let t = "[stage.t]\nkind = \"train\"\nsteps = 1\n";
    let sweep = |text: &str| format!("{t}{text}\n");
    one(
        t,
        &["stage.u.steps=2"],
        "`--set` sets `stage.u.steps`, but there is no `[stage.u]`",
        "--set:1:1",
        "tables in `[stage]`: `t`",
    );
    one(
        t,
        &["stage.t.stepps=2"],
        "unknown key `stepps` in `stage.t`",
        "--set:1:16",
        "did you mean `steps`?",
    );
    one(
        t,
        &["nonsense"],
        "`--set` wants `path=value`, such as `stage.train.steps=100`",
        "--set:1:1",
        "",
    );
    let zip = "[sweep]\nzip = [[\"a\", \"b\"]]\n[sweep.axes]\na = { path = \"seed\", values = [1, 2] }\nb = { path = \"stage.t.steps\", values = [1] }";
    one(
        &sweep(zip),
        &[],
        "zipped axes differ in length: `a` has 2 values, `b` has 1 value",
        "a.toml:8:14",
        "",
    );
    one(
        &sweep("[sweep]\naxis = 1"),
        &[],
        "unknown key `axis` in `sweep`",
        "a.toml:8:1",
        "did you mean `axes`?",
    );
    one(
        &sweep("[sweep.axes]\nsed = [1]"),
        &[],
        "axis `sed` sets `sed`, but `sed` cannot be set",
        "a.toml:8:1",
        "did you mean `seed`?",
    );
    one(
        &sweep("[sweep.axes]\nseed = [1, 1]"),
        &[],
        "axis `seed` has two values `1`",
        "a.toml:8:12",
        "",
    );
    one(
        &sweep("[sweep]\nexclude = [{ seed = 3 }]\n[sweep.axes]\nseed = [1, 2]"),
        &[],
        "axis `seed` has no value `3`",
        "a.toml:8:21",
        "values: `1`, `2`",
    );
    one(
        &sweep("[sweep.axes]\n\"stage.t.start\" = [\"restart\", \"kontinual\"]"),
        &[],
        "`stage.t.start` cannot be `kontinual`",
        "a.toml:8:31",
        "did you mean `continual`?",
    );
}

#[test]
fn files_that_cannot_be_had_are_told() {
    let told = |files: &[(&str, &str)]| {
        let world = read(files, &[]);
        world.found.render(&world.sources, false)
    };
    assert_eq!(told(&[]), "error: cannot read `a.toml`: no such file\n");
    assert_eq!(
        told(&[("a.toml", "<latin 1>")]),
        "error: cannot read `a.toml`: it is not UTF-8 (byte 12)\n"
    );
    let own = format!("extends = \"b.toml\"\n{HEAD}");
    let expected = "\
error: cannot read `b.toml`: no such file
 --> a.toml:1:11
  |
1 | extends = \"b.toml\"
  |           ^^^^^^^^
";
    assert_eq!(told(&[("a.toml", &own)]), expected);
    let expected = "\
error: `extends` goes round in a circle: a.toml -> b.toml -> a.toml
 --> b.toml:1:12
  |
1 | extends = [\"a.toml\"]
  |            ^^^^^^^^
";
    assert_eq!(told(&[("a.toml", &own), ("b.toml", "extends = [\"a.toml\"]\n")]), expected);
}
