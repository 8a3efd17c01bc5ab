//! `verify` and `gc` through the program: what is damaged is found and made
//! again, what nobody refers to goes, and nothing else.

use crate::space::{Space, files};
use std::path::Path;
use std::time::{Duration, SystemTime};

const CHAIN: &str = r#"
rekindle = 1
name = "chain"
[stage.one]
kind = "command"
run = ["sh", "-c", "echo one >> LOG; echo first > out/x/a"]
outputs = ["x"]
[stage.two]
kind = "command"
run = ["sh", "-c", "echo two >> LOG; cat in/p/a > out/x/a; echo second >> out/x/a"]
outputs = ["x"]
inputs = { p = "one.x" }
"#;

fn ran() -> Space {
    let space = Space::with(CHAIN);
    space.run(&["run", "m.toml"]).ok();
    space
}

fn grow_old(path: &Path) {
    let yesterday = SystemTime::now() - Duration::from_secs(30 * 3600);
    std::fs::File::open(path).unwrap().set_modified(yesterday).unwrap();
}

#[test]
fn damage_is_found_put_aside_and_made_again() {
    let space = ran();
    let sound = space.run(&["verify"]).ok();
    assert!(sound.err.contains("2 records and 2 files"), "{}", sound.err);
    assert!(sound.err.contains("all is as it was stored"), "{}", sound.err);
    let objects = space.objects();
    // Of the same size, so that no quick look finds it.
    space.damage(&space.object_with("first\n"), "fIrst\n");
    let found = space.run(&["verify", "--json"]);
    assert_eq!(found.code, 5, "{}", found.err);
    let told: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(told["damaged"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["damaged"][0]["step"], "chain/one");
    space.run(&["run", "m.toml"]).ok();
    // The second step read what the first one makes again, so it is not done again.
    assert_eq!(space.log(), ["one", "two", "one"]);
    assert_eq!(space.objects(), objects);
    space.run(&["verify"]).ok();
    // A torn record is damage too.
    let record = files(&space.path(".rekindle/actions")).remove(0);
    let bytes = std::fs::read(&record).unwrap();
    std::fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(space.run(&["gc", "--dry-run"]).code, 5);
    assert_eq!(space.run(&["verify"]).code, 5);
    space.run(&["run", "m.toml"]).ok();
    assert_eq!(space.objects(), objects);
}

#[test]
fn what_nothing_refers_to_goes_when_it_is_old_and_nothing_else() {
    let space = ran();
    let objects = space.objects();
    let stray = |digit: &str| space.path(".rekindle/objects/aa").join(digit.repeat(64));
    std::fs::create_dir_all(stray("a").parent().unwrap()).unwrap();
    for digit in ["a", "b"] {
        std::fs::write(stray(digit), "nobody wants it").unwrap();
    }
    let aside = space.path(".rekindle/quarantine/broken");
    std::fs::write(&aside, "broken").unwrap();
    grow_old(&stray("a"));
    grow_old(&aside);
    // What is referred to stays, however old it is.
    for object in files(&space.path(".rekindle/objects")) {
        if objects.contains_key(object.file_name().unwrap().to_str().unwrap()) {
            grow_old(&object);
        }
    }
    let shown = space.run(&["gc", "--dry-run"]).ok();
    assert!(shown.err.contains("2 things that nothing refers to, 21 B: would go"), "{}", shown.err);
    assert!(stray("a").exists() && aside.exists());
    space.run(&["gc"]).ok();
    assert!(!stray("a").exists() && !aside.exists());
    assert!(stray("b").exists(), "it may belong to a run beside this one");
    space.run(&["gc", "--older-than", "0"]).ok();
    assert_eq!(space.objects(), objects);
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert_eq!(space.run(&["gc", "--store", "elsewhere"]).code, 5);
}
