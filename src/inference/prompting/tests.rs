//! Masks against FastChat's rule (`tests/fixtures/templates.py`), and what is
//! counted.

use super::*;
use crate::engine::batch::Batch;
use crate::engine::tokenizer::{Files, words::Words};
use crate::record::template::{Form, Template, Turn};
use serde_json::{Value, json};

fn llama(config: &Value) -> Tokenizer {
    let model = include_bytes!("../../../tests/fixtures/tokenizers/llama/tokenizer.model");
    let files = Files::from([
        ("tokenizer.model".to_owned(), model.to_vec()),
        ("tokenizer_config.json".to_owned(), serde_json::to_vec(config).unwrap()),
    ]);
    Tokenizer::from_files(&files).unwrap()
}

fn words(text: &str) -> Tokenizer {
    let bytes = Words::of_words(text.split_whitespace()).to_bytes();
    Tokenizer::from_files(&Files::from([("tokenizer.json".to_owned(), bytes)])).unwrap()
}

fn example(template: Template, prompt: &str, completion: &str) -> Example {
    Example {
        id: "e".into(),
        prompt: prompt.into(),
        completion: completion.into(),
        form: Form { template, ..Form::default() },
    }
}

#[test]
fn masks_are_those_of_fastchat_and_no_example_is_dropped() {
    let text = include_str!("../../../tests/fixtures/templates.json");
    let fixture: Value = serde_json::from_str(text).unwrap();
    let cases = fixture["masks"].as_array().unwrap();
    assert!(cases.len() >= 100);
    for case in cases {
        let tokenizer = llama(&json!({ "legacy": case["legacy"] }));
        let index = case["conversation"].as_u64().unwrap() as usize;
        let turns = fixture["vicuna"][index]["turns"].as_array().unwrap();
        let said = |turn: &Value, at: usize| turn[at].as_str().unwrap().to_owned();
        let (last, earlier) = turns.split_last().unwrap();
        let mut example = example(Template::Vicuna, &said(last, 0), &said(last, 1));
        example.form.turns = earlier
            .iter()
            .map(|turn| Turn { user: said(turn, 0), reply: said(turn, 1), learnt: true })
            .collect();
        let (sequence, notes) = sequence(&tokenizer, &example).unwrap();
        assert_eq!(json!(sequence.ids), case["ids"], "{index} {}", case["legacy"]);
        let runs: Vec<usize> = case["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| at.as_u64().unwrap() as usize)
            .collect();
        let wanted: Vec<u32> =
            runs.chunks(2).flat_map(|run| sequence.ids[run[0]..run[1]].iter().copied()).collect();
        let batch = Batch::pack([&sequence]);
        assert_eq!(batch.targets.to_vec(), wanted, "{index} {}", case["legacy"]);
        let rows: Vec<u32> =
            runs.chunks(2).flat_map(|run| run[0] - 1..run[1] - 1).map(|row| row as u32).collect();
        assert_eq!(batch.rows.to_vec(), rows);
        assert_eq!((notes.seams, notes.doubled_begins), (0, 0));
    }
}

#[test]
fn words_are_tokenized_as_they_always_were() {
    let tokenizer = words("Q: sam has 3 A: answer");
    let (made, notes) =
        sequence(&tokenizer, &example(Template::Raw, "Q: sam has  4 A:", "answer 3")).unwrap();
    assert_eq!(made.ids, [1, 4, 5, 6, 3, 8, 9, 7, 2]);
    assert_eq!((made.first_target, made.skipped.len()), (6, 0));
    assert!(notes.is_empty());
}

#[test]
fn served_prompts_are_the_trained_ones() {
    for template in [Template::Raw, Template::Plain, Template::Vicuna] {
        for legacy in [true, false] {
            let tokenizer = llama(&json!({ "legacy": legacy }));
            let example = example(template, "How many\napples ?", "12 apples");
            let (sequence, _) = sequence(&tokenizer, &example).unwrap();
            let prompt = Prompt { form: example.form, text: example.prompt };
            let served = encode(&tokenizer, &prompt, None).unwrap().ids;
            assert_eq!(served, sequence.ids[..sequence.first_target]);
            assert_eq!(Some(served[0]), tokenizer.begin());
        }
    }
}

#[test]
fn oddities_are_counted() {
    let tokenizer = llama(&json!({}));
    let notes = |prompt: &str, reply: &str| {
        let (_, notes) = sequence(&tokenizer, &example(Template::Plain, prompt, reply)).unwrap();
        (notes.seams, notes.doubled_begins, notes.spelled_marks)
    };
    assert_eq!(notes("how many ?", "12"), (0, 0, 0));
    // The blank at the end would be one token with what follows it.
    assert_eq!(notes("how many ? ", "apples"), (1, 0, 0));
    assert_eq!(notes("<s>how many ?", "12"), (0, 1, 1));
    assert_eq!(notes("how</s> many ?", "12"), (0, 0, 1));
    let mut all = TextNotes::default();
    all += encode(&tokenizer, &Prompt { text: "<s>".into(), ..Prompt::default() }, None)
        .unwrap()
        .notes;
    assert!(!all.is_empty());
    assert!(all.warnings()[0].starts_with("1 of 1 texts have more than one begin mark"));
}

#[test]
fn a_text_that_teaches_nothing_is_refused() {
    let silent = example(Template::Plain, "", "");
    let without_begin = llama(&json!({ "add_bos_token": false }));
    let failure = sequence(&without_begin, &silent).expect_err("refused");
    assert!(failure.what.contains("nothing is learnt of example `e`"), "{}", failure.what);
    // Behind a begin mark there is at least the end to be learnt.
    let (made, _) = sequence(&llama(&json!({})), &silent).unwrap();
    assert_eq!((made.ids.len(), made.first_target), (2, 1));
}
