//! What is generated is up to date: the schema of manifests and the README's
//! tables. `UPDATE=1 cargo test --release` rewrites them.

use crate::space::Space;
use std::path::{Path, PathBuf};

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn same(path: &Path, wanted: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "`{}` is out of date; `UPDATE=1 cargo test --release` writes it",
        path.display()
    );
}

/// The text with what stands between two marks replaced.
fn between(text: &str, mark: &str, inside: &str) -> String {
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let start = text.find(&begin).expect("the mark begins") + begin.len();
    let stop = start + text[start..].find(&end).expect("the mark ends");
    format!("{}{}{}", &text[..start], inside, &text[stop..])
}

#[test]
fn the_schema_is_current() {
    let schema = Space::new().run(&["schema"]).ok().out;
    same(&project("schemas/manifest.schema.json"), &schema);
}

#[test]
fn the_readme_lists_every_kind() {
    let kinds = Space::new().run(&["kinds", "--json"]).ok().out;
    let kinds: serde_json::Value = serde_json::from_str(&kinds).unwrap();
    let mut table = String::from("| kind | section | what it does |\n| --- | --- | --- |\n");
    for kind in kinds.as_array().unwrap() {
        let doc = kind["doc"].as_str().unwrap().replace('\n', " ");
        let text = |key: &str| kind[key].as_str().unwrap().to_owned();
        table += &format!("| `{}` | `{}` | {doc} |\n", text("name"), text("section"));
    }
    let path = project("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    same(&path, &between(&readme, "kinds", &table));
}

#[test]
fn every_experiment_is_well_formed() {
    for path in crate::space::list(&project("experiments")) {
        if path.extension().is_some_and(|ending| ending == "toml") {
            let ran = Space::new().run(&["check", path.to_str().unwrap(), "--device", "cpu"]);
            assert_eq!(ran.code, 0, "{}", ran.err);
        }
    }
}
