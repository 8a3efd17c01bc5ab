//! Chat templates through the program: a whole study written down as a Vicuna
//! conversation of three turns, and templates that cannot be used.

use crate::space::Space;
use std::path::Path;

fn study(more: &str) -> Space {
    let space = Space::new();
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    for name in ["quickstart.toml", "smoke.toml"] {
        std::fs::copy(experiments.join(name), space.path(name)).unwrap();
    }
    let head = "rekindle = 1\nextends = \"smoke.toml\"\nname = \"chat\"\nrounds = 1\n";
    space.write("chat.toml", format!("{head}[protocol.arithmetic]\n{more}\n"));
    space
}

#[test]
fn a_study_runs_as_a_conversation_of_three_turns() {
    let space = study(
        "template = \"vicuna-v1.1\"\nturns = true\nfeedback = \"Is {reply} right ?\"\n\
         refine = \"Then refine it .\"\n[model.small]\ncontext = 192",
    );
    space.run(&["run", "chat.toml", "--device", "cpu"]).ok();
    let mut seen = 0;
    for path in space.object_files() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("\"completion\":")) {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(row["form"]["template"], "vicuna-v1.1", "{line}");
            let Some(turns) = row["form"]["turns"].as_array() else { continue };
            seen += 1;
            assert_eq!(row["prompt"], "Then refine it .");
            assert_eq!((turns.len(), &turns[1]["learnt"]), (2, &serde_json::json!(true)));
            assert_eq!(turns[0]["learnt"], serde_json::Value::Null);
            let asked = format!("Is {} right ?", turns[0]["reply"].as_str().unwrap());
            assert_eq!(turns[1]["user"], asked);
        }
    }
    assert!(seen >= 40, "{seen} lessons of three turns");
}

#[test]
fn templates_that_cannot_be_used_are_told_before_anything_runs() {
    for (more, parts) in [
        ("template = \"vicuna-v1\"", &["chat.toml:6:12", "did you mean `vicuna-v1.1`?"][..]),
        (
            "template = \"model\"\nchat-template = \"\"\"a\n{% endfor %}\"\"\"",
            &["chat.toml:7:17", "at line 2: `{% endfor %}`"],
        ),
        ("chat-template = \"x\"", &["`chat-template` is read with `template = \"model\"`"]),
        ("turns = true\ntemplate = \"plain\"", &["`plain` has no turns"]),
    ] {
        let space = study(more);
        let ran = space.run(&["run", "chat.toml", "--device", "cpu"]);
        assert_eq!(ran.code, 3, "{}", ran.err);
        for part in parts {
            assert!(ran.err.contains(part), "no {part} in {}", ran.err);
        }
        assert!(!space.path(".rekindle").exists());
    }
}
