//! Tokenizers against the references that made the fixtures
//! (`tests/fixtures/tokenizers.py`), and what is done with bad files.

use super::growing::{Growing, Until};
use super::*;
use crate::host::http::sha256;
use serde_json::Value;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn files(name: &str, config: &Value) -> Files {
    let mut files = Files::new();
    for file in FILES {
        if let Ok(bytes) = std::fs::read(folder().join(name).join(file)) {
            files.insert(file.to_owned(), bytes);
        }
    }
    files.insert("tokenizer_config.json".to_owned(), serde_json::to_vec(config).unwrap());
    files
}

fn llama() -> Files {
    files("llama", &Value::Null)
}

/// As `digests` of the script that made the fixtures.
fn digests<T: serde::Serialize>(rows: &[T], group: usize) -> Vec<String> {
    let digest = |rows: &[T]| sha256(&serde_json::to_vec(rows).unwrap())[..12].to_owned();
    rows.chunks(group).map(digest).collect()
}

#[test]
fn ids_and_texts_are_those_of_the_references() {
    let bytes = std::fs::read(folder().join("tokenizers.json")).unwrap();
    let fixture: Value = serde_json::from_slice(&bytes).unwrap();
    let texts: Vec<&str> =
        fixture["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let group = fixture["group"].as_u64().unwrap() as usize;
    let cases = fixture["cases"].as_array().unwrap();
    assert!(texts.len() > 1900 && cases.len() == 7);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let files = files(case["folder"].as_str().unwrap(), &case["config"]);
        let tokenizer = Tokenizer::from_files(&files).unwrap_or_else(|f| panic!("{name}: {f}"));
        let ids: Vec<Vec<u32>> =
            texts.iter().map(|text| tokenizer.encode(text, Place::Start).unwrap()).collect();
        let back: Vec<String> = ids.iter().map(|ids| tokenizer.decode(&[], ids).unwrap()).collect();
        for (at, want) in case["some"].as_object().unwrap() {
            let at: usize = at.parse().unwrap();
            assert_eq!(&serde_json::json!(ids[at]), want, "{name}: {:?}", texts[at]);
        }
        for (at, want) in case["some_back"].as_object().unwrap() {
            let at: usize = at.parse().unwrap();
            assert_eq!(&serde_json::json!(back[at]), want, "{name}: {:?} back", texts[at]);
        }
        for (what, ours, theirs) in [
            ("ids", digests(&ids, group), &case["ids"]),
            ("texts", digests(&back, group), &case["back"]),
        ] {
            let theirs = theirs.as_array().unwrap();
            assert_eq!(ours.len(), theirs.len());
            let other: Vec<usize> = (0..ours.len()).filter(|&i| theirs[i] != ours[i]).collect();
            assert!(
                other.is_empty(),
                "{name}: {what} differ in the groups {other:?}, such as {:?}",
                &texts[other[0] * group..((other[0] + 1) * group).min(texts.len())]
            );
        }
    }
}

#[test]
fn text_in_pieces_has_the_tokens_of_the_whole() {
    for (name, config) in [
        ("llama", serde_json::json!({ "legacy": true })),
        ("llama", serde_json::json!({ "legacy": false })),
        ("rewriting", Value::Null),
        ("bytes", Value::Null),
        ("converted", Value::Null),
    ] {
        let tokenizer = Tokenizer::from_files(&files(name, &config)).unwrap();
        let (context, reply) = ("USER: how many ? ASSISTANT:", " there are 12  apples\n");
        let whole = tokenizer.encode(&format!("{context}{reply}"), Place::Start).unwrap();
        let mut pieces = tokenizer.encode(context, Place::Start).unwrap();
        let said = tokenizer.encode(reply, Place::AfterText).unwrap();
        pieces.extend(&said);
        assert_eq!(pieces, whole, "{name} {config}");
        // What a model says behind a prompt keeps its blank.
        let text = tokenizer.decode(&pieces[..pieces.len() - said.len()], &said).unwrap();
        assert!(text.starts_with(" there are 12"), "{name}: {text:?}");
        assert!(!tokenizer.decode(&[], &whole).unwrap().starts_with(' '), "{name}");
    }
}

/// Every text of the fixture behind a prompt, token by token: what is held back
/// is never more than a character, and stops come up with the token that completes them.
#[test]
fn a_growing_text_is_that_of_its_tokens_so_far() {
    let bytes = std::fs::read(folder().join("tokenizers.json")).unwrap();
    let fixture: Value = serde_json::from_slice(&bytes).unwrap();
    let mut held_back = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let files = files(case["folder"].as_str().unwrap(), &case["config"]);
        let tokenizer = Tokenizer::from_files(&files).unwrap();
        let prompt = tokenizer.encode("how many apples ?", Place::Start).unwrap();
        for text in fixture["texts"].as_array().unwrap().iter().step_by(5) {
            let ids = tokenizer.encode(text.as_str().unwrap(), Place::AfterText).unwrap();
            let all = tokenizer.decode(&prompt, &ids).unwrap();
            let mut growing = Growing::behind(&tokenizer, &prompt);
            let so_far: Vec<String> = (1..=ids.len())
                .map(|n| {
                    growing.push(ids[n - 1]).unwrap();
                    let whole = tokenizer.decode(&prompt, &ids[..n]).unwrap();
                    let end = whole.trim_end_matches(char::REPLACEMENT_CHARACTER);
                    let so_far = growing.text();
                    let at = format!("{} {text} at {n}: {so_far:?}", case["name"]);
                    if end.len() == whole.len() {
                        assert_eq!(so_far, end, "{at}");
                    } else {
                        // Some libraries take back a whole run of bytes, what was whole of it too.
                        held_back += 1;
                        assert!(so_far.starts_with(end) && all.starts_with(so_far), "{at}");
                    }
                    so_far.to_owned()
                })
                .collect();
            let Some(last) = so_far.last() else { continue };
            let said = last.strip_prefix(' ').unwrap_or(last);
            let stop: String = said.chars().skip(said.chars().count() / 3).take(3).collect();
            if stop.is_empty() {
                continue;
            }
            let first = so_far
                .iter()
                .position(|text| text.strip_prefix(' ').unwrap_or(text).contains(&stop));
            let mut until = Until::behind(&tokenizer, &prompt, &stop);
            let ended = ids.iter().position(|&id| until.push(id).unwrap());
            assert_eq!(ended, first, "{} {text} until {stop:?}", case["name"]);
        }
    }
    assert!(held_back > 500, "{held_back}");
}

#[test]
fn words_grow_with_blanks_between_them() {
    let words = words::Words::of_words(["sam", "has", "3", "apples"]);
    let files = Files::from([("tokenizer.json".to_owned(), words.to_bytes())]);
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    let ids = tokenizer.encode("sam has 3 apples 3", Place::Start).unwrap();
    let mut growing = Growing::behind(&tokenizer, &ids[..1]);
    for n in 2..=ids.len() {
        growing.push(ids[n - 1]).unwrap();
        assert_eq!(growing.text(), tokenizer.decode(&ids[..1], &ids[1..n]).unwrap());
    }
    assert_eq!(growing.text(), "has 3 apples 3");
}

#[test]
fn special_tokens_are_those_that_the_files_name() {
    let bare = Tokenizer::from_files(&llama()).unwrap();
    assert_eq!((bare.begin(), bare.end_text()), (bare.id("<s>"), "</s>"));
    assert!(bare.is_mark(bare.end()) && !bare.is_mark(bare.id("<unk>").unwrap()));
    let size = bare.size() as u32;
    let config = serde_json::json!({
        "add_bos_token": false,
        "eos_token": { "content": "<|end|>", "lstrip": false },
        "chat_template": [{ "name": "default", "template": "{{ messages }}" }],
        "added_tokens_decoder": { size.to_string(): { "content": "<|end|>", "special": true, "rstrip": true } },
    });
    let told = Tokenizer::from_files(&files("llama", &config)).unwrap();
    assert_eq!((told.begin(), told.end(), told.size()), (None, size, size as usize + 1));
    assert_eq!(told.begin_mark(), bare.begin());
    assert_eq!(told.chat_template(), Some("{{ messages }}"));
    // The added token takes the blanks behind it with it.
    let ids = told.encode("a<|end|>  a", Place::Start).unwrap();
    assert_eq!(
        ids,
        [
            told.encode("a", Place::Start).unwrap(),
            vec![size],
            told.encode("a", Place::Start).unwrap()
        ]
        .concat()
    );
    // A map beside the configuration fills what that leaves open.
    let mut both = files("bytes", &serde_json::json!({ "bos_token": null }));
    both.insert(
        "special_tokens_map.json".into(),
        br#"{"eos_token":"<pad>","bos_token":"</s>"}"#.to_vec(),
    );
    let both = Tokenizer::from_files(&both).unwrap();
    assert_eq!((both.begin_mark(), both.end_text()), (None, "<pad>"));
    // By its post-processing alone.
    let bytes = Tokenizer::from_files(&files("bytes", &Value::Null)).unwrap();
    assert_eq!((bytes.begin(), bytes.end()), (Some(0), 1));
}

#[test]
fn bad_files_are_refused_by_name() {
    let refused = |files: &Files| Tokenizer::from_files(files).expect_err("refused").what;
    let with = |name: &str, bytes: &[u8]| {
        let mut files = llama();
        files.insert(name.to_owned(), bytes.to_vec());
        files
    };
    let whole = llama().remove("tokenizer.model").unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 40, 0] {
        let what = refused(&with("tokenizer.model", &whole[..length]));
        assert!(what.contains("`tokenizer.model` is damaged"), "{length}: {what}");
    }
    // Appended, a message is merged: a trainer that says unigram.
    let unigram = [&whole[..], &[0x12, 2, 3 << 3, 1]].concat();
    assert!(refused(&with("tokenizer.model", &unigram)).contains("unigram"));
    let twice = [&whole[..], &[0x0a, 3, 0x0a, 1, b'a']].concat();
    assert!(refused(&with("tokenizer.model", &twice)).contains("`a` twice"));
    let json = |text: &str| Files::from([("tokenizer.json".to_owned(), text.as_bytes().to_vec())]);
    assert!(refused(&json("{")).contains("`tokenizer.json` is not JSON"));
    assert!(refused(&json(r#"{"model":{"type":"Odd"}}"#)).contains("a Odd model"));
    assert!(refused(&Files::new()).contains("neither"));
    let config = |text: &str| with("tokenizer_config.json", text.as_bytes());
    assert!(refused(&config("{")).contains("`tokenizer_config.json` is not JSON"));
    let absent = refused(&config(r#"{"eos_token":"<|im_end|>"}"#));
    assert!(absent.contains("`<|im_end|>` is not in the vocabulary"), "{absent}");
    assert!(refused(&config(r#"{"eos_token":null}"#)).contains("which token ends a text"));
    let clash = r#"{"added_tokens_decoder":{"5":{"content":"<|x|>"}}}"#;
    assert!(refused(&config(clash)).contains("the id 5 of the piece"));
}
