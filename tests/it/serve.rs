//! A model behind OpenAI's protocol, through the program and a real port: what
//! it answers, whatever else is asked, and what it does with those who ask too
//! much, wrongly, or go away.

use crate::served::{Answer, Served, fixture, hear, model_of_context};
use crate::space::{Space, list};
use rekindle::base::seed::Seed;
use rekindle::engine::sample::Sampling;
use rekindle::engine::tokenizer::{FILES, Files};
use rekindle::inference::local::{Local, Manner, Question, open_device};
use rekindle::record::template::{Form, Prompt, Template};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn completions_and_chat_are_answered_as_openai_answers() {
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &["--name", "tiny", "--slots", "3"]);
    assert_eq!(served.told["model"], "tiny");
    assert_eq!(served.get("/health").json(), json!({ "status": "ok" }));
    let models = served.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("tiny")));
    assert_eq!(served.get("/v1/models/tiny").json(), models["data"][0]);

    let asked = json!({ "model": "tiny", "prompt": ["how many ?", "apples"], "n": 2, "seed": 3,
        "max_tokens": 9, "temperature": 1.0 });
    let answer = served.complete(asked.clone()).json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("text_completion"), &json!("tiny")));
    let choices = answer["choices"].as_array().unwrap();
    let indices: Vec<u64> = choices.iter().map(|one| one["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_ne!(choices[0]["text"], choices[1]["text"], "two samples of one prompt");
    let usage = &answer["usage"];
    let total =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(served.complete(asked).json()["choices"], answer["choices"], "the seed decides");

    // Samples and prompts together say what each says alone.
    let alone = |prompt: &str| {
        let body = json!({ "prompt": prompt, "seed": 3, "max_tokens": 9 });
        served.complete(body).text()
    };
    assert_eq!(choices[0]["text"], alone("how many ?"));
    assert_eq!(choices[2]["text"], alone("apples"));

    let chat = served
        .chat(json!({ "messages": user("how many ?"), "max_tokens": 5, "temperature": 0,
        "logprobs": true, "top_logprobs": 3 }));
    let choice = &chat.json()["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(chat.json()["usage"]["completion_tokens"], content.len());
    for token in content {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(
            token["top_logprobs"][0]["logprob"], token["logprob"],
            "greedy is the likeliest"
        );
        assert!(token["logprob"].as_f64().unwrap() < 0.0);
    }
}

#[test]
fn a_prompt_is_scored_as_harnesses_ask_for_it() {
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &[]);
    let prompt: Vec<u32> = vec![1, 40, 41, 42, 43];
    let body = json!({ "prompt": [prompt], "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1 });
    let answer = served.complete(body).json();
    let logs = &answer["choices"][0]["logprobs"];
    let list = |name: &str| logs[name].as_array().unwrap().clone();
    assert_eq!(list("tokens").len(), 6);
    assert_eq!(list("token_logprobs")[0], Value::Null);
    assert_eq!(list("top_logprobs")[0], Value::Null);
    for at in 1..6 {
        let own = list("token_logprobs")[at].as_f64().unwrap();
        let best = list("top_logprobs")[at].as_object().unwrap().values().next().unwrap().as_f64();
        assert!(own <= best.unwrap(), "the likeliest is the likeliest");
    }
    let last = list("top_logprobs")[5].as_object().unwrap().values().next().unwrap().as_f64();
    assert_eq!(list("token_logprobs")[5].as_f64(), last, "what is written is greedy");
    // What is scored is what a model that writes it would say of it.
    let written =
        json!({ "prompt": [1, 40, 41, 42], "max_tokens": 1, "temperature": 0, "logprobs": 20 });
    let likeliest = &served.complete(written).json()["choices"][0]["logprobs"]["top_logprobs"][0];
    let spelled = list("tokens")[4].as_str().unwrap().to_owned();
    if let Some(same) = likeliest.get(&spelled) {
        assert_eq!(same, &list("token_logprobs")[4]);
    }
    let best = list("top_logprobs")[4]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .map(|(k, v)| (k.clone(), v.clone()));
    let (token, p) = best.unwrap();
    assert_eq!(likeliest[&token], p);
    // And nothing need be written.
    let body = json!({ "prompt": "how many ?", "max_tokens": 0, "echo": true, "logprobs": 0 });
    let answer = served.complete(body).json();
    assert_eq!(answer["choices"][0]["text"], "how many ?");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn a_stream_says_what_a_whole_answer_says() {
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &["--slots", "4"]);
    let mut stops = 0;
    for seed in 0..6 {
        let body = |stop: Option<&str>, stream: bool| {
            let mut body = json!({ "messages": user("how many apples ?"), "seed": seed, "n": 2,
                "max_tokens": 40, "stop": stop });
            if stream {
                body["stream"] = json!(true);
                body["stream_options"] = json!({ "include_usage": true });
            }
            body
        };
        let whole = served.chat(body(None, false)).text();
        let characters: Vec<char> = whole.chars().collect();
        let middle: String = characters[characters.len() / 2..].iter().take(2).collect();
        for stop in [None, Some(middle.as_str())].into_iter().filter(|stop| *stop != Some("")) {
            let answer = served.chat(body(stop, false)).json();
            let events = served.chat(body(stop, true)).events();
            let (last, chunks) = events.split_last().unwrap();
            assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &answer["usage"]));
            for index in 0..2 {
                let of = |event: &&Value| event["choices"][0]["index"] == index;
                let own: Vec<&Value> = chunks.iter().filter(of).collect();
                assert_eq!(own[0]["choices"][0]["delta"]["role"], "assistant");
                let text: String = own
                    .iter()
                    .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
                    .collect();
                let want = &answer["choices"][index];
                assert_eq!(text, want["message"]["content"].as_str().unwrap(), "{stop:?}");
                let finish = &own.last().unwrap()["choices"][0]["finish_reason"];
                assert_eq!(finish, &want["finish_reason"]);
            }
            if let Some(stop) = stop {
                let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
                assert_eq!(text, &whole[..whole.find(stop).unwrap()]);
                assert_eq!(answer["choices"][0]["finish_reason"], "stop");
                stops += 1;
            }
        }
    }
    assert!(stops > 2, "{stops}");
    let events =
        served.complete(json!({ "prompt": "apples", "seed": 1, "stream": true, "logprobs": 2 }));
    let events = events.events();
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    let whole = served.complete(json!({ "prompt": "apples", "seed": 1, "logprobs": 2 }));
    assert_eq!(text, whole.text());
    let tokens: Vec<Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["tokens"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(whole.json()["choices"][0]["logprobs"]["tokens"], json!(tokens));
}

#[test]
fn a_seed_says_the_same_whatever_else_runs_and_what_a_stage_says() {
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &["--slots", "5", "--queue", "500"]);
    let asked = |seed: u64| {
        json!({ "messages": user("how many apples ?"), "seed": seed, "max_tokens": 30,
            "temperature": 0.8, "top_p": 0.9 })
    };
    let alone: Vec<String> = (0..12).map(|seed| served.chat(asked(seed)).text()).collect();
    let among: Vec<String> = std::thread::scope(|scope| {
        let ask = |seed: u64| {
            let served = &served;
            let other = json!({ "prompt": "sam has", "max_tokens": 1 + 7 * seed % 60, "n": 3 });
            scope.spawn(move || served.complete(other));
            scope.spawn(move || served.chat(asked(seed)).text())
        };
        let asked: Vec<_> = (0..12).map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(among, alone);

    let read = |name: &str| std::fs::read(fixture().join(name)).unwrap();
    let names = FILES.iter().filter(|name| fixture().join(name).exists());
    let files: Files = names.map(|name| ((*name).to_owned(), read(name))).collect();
    let weights = fixture().join("model.safetensors");
    let local = Local::load(&read("config.json"), &weights, &files, &open_device("cpu").unwrap());
    let form = Form { template: Template::Model, ..Form::default() };
    let prompt = Prompt { form, text: "how many apples ?".into() };
    let question =
        |index: usize| Question { index, prompt: prompt.clone(), seed: Seed(index as u64) };
    let questions: Vec<Question> = (0..12).map(question).collect();
    let sampling = Sampling::of_likeliest(0.8, 0, 0.9);
    let manner = Manner { sampling, max_tokens: 30, stop: None, logprob: false, batch: 7 };
    let mut said = vec![String::new(); 12];
    local
        .unwrap()
        .speak(&questions, &manner, &mut |one| {
            said[one.index] = one.text;
            Ok(())
        })
        .unwrap();
    assert_eq!(said, alone);
}

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    let space = Space::new();
    let served =
        Served::start(&space, &fixture(), &["--name", "tiny", "--slots", "2", "--queue", "6"]);
    let message = |answer: &Answer| answer.json()["error"]["message"].as_str().unwrap().to_owned();
    for (body, status, says) in [
        (&b"{\"prompt\": \"a\""[..], 400, "not JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b"", 400, "not JSON"),
        (b"{\"prompt\": \"\xff\xfe\"}", 400, "not UTF-8: byte 12"),
        (b"{\"prompt\": \"a\", \"max_token\": 3}", 400, "did you mean `max_tokens`?"),
        (b"{\"prompt\": \"a\", \"max_tokens\": \"3\"}", 400, "`max_tokens` must be a whole number"),
        (b"{\"prompt\": \"a\", \"model\": \"huge\"}", 404, "the one that is served is `tiny`"),
        (b"{\"prompt\": [1, 560]}", 400, "there is no token 560: the model knows 560"),
        (b"{\"prompt\": [[]]}", 400, "comes to no tokens"),
        (b"{\"prompt\": \"a\", \"max_tokens\": 600}", 400, "context holds 512 tokens"),
        (b"{\"prompt\": \"a\", \"n\": 9}", 400, "asks for 9 replies; this server has room for 8"),
    ] {
        let answer = served.ask("POST", "/v1/completions", "", body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(message(&answer).contains(says), "{answer:?}");
    }
    let long = "apples ".repeat(600);
    let answer = served.chat(json!({ "messages": user(&long) }));
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    assert!(message(&answer).contains("this model's context holds 512 tokens"), "{answer:?}");

    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/embeddings", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/other", 404),
    ] {
        let answer = served.ask(method, path, "", b"");
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(status == 405, answer.head.contains("allow: "), "{answer:?}");
    }
    let large = vec![b' '; (4 << 20) + 1];
    let answer = served.ask("POST", "/v1/completions", "", &large);
    assert_eq!(answer.status, 413);
    assert!(message(&answer).contains("at most 4194304 bytes"));
    // What is no HTTP at all is answered, and harms nobody.
    let mut stream = served.connect();
    stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").unwrap();
    assert_eq!(hear(stream).status, 400);
    // And all of it left the server well.
    assert_eq!(served.count("running"), 0);
    served.complete(json!({ "prompt": "a", "max_tokens": 2 })).text();
}

#[test]
fn who_goes_away_leaves_the_slot() {
    let space = Space::new();
    let model = model_of_context(&space, 60_000);
    let served = Served::start(&space, &model, &["--slots", "1", "--queue", "4"]);
    for stream in [true, false] {
        let before = served.count("cancelled_total");
        // Nobody would wait for so much.
        let body = json!({ "prompt": "apples", "n": 3, "max_tokens": 50_000, "stream": stream,
            "temperature": 0 });
        let mut asked = served.send("POST", "/v1/completions", "", body.to_string().as_bytes());
        served.wait_until("it is written", |served| served.count("running") == 1);
        if stream {
            let mut some = [0; 300];
            asked.read_exact(&mut some).unwrap();
        }
        drop(asked);
        served.wait_until("it is let go", |served| {
            served.count("running") == 0 && served.count("cancelled_total") > before
        });
        assert_eq!(served.count("waiting"), 0);
        served.complete(json!({ "prompt": "apples", "max_tokens": 2 })).text();
    }
}

#[test]
fn who_reads_nothing_is_taken_for_gone() {
    let space = Space::new();
    let model = model_of_context(&space, 60_000);
    let served = Served::start(&space, &model, &["--slots", "16", "--context", "20000"]);
    assert_eq!(served.told["context"], 20_000);
    // With 20 alternatives to every token, it is far more than any socket keeps.
    let body = json!({ "messages": user("apples"), "n": 16, "stream": true, "temperature": 0,
        "logprobs": true, "top_logprobs": 20 });
    let asked = served.send("POST", "/v1/chat/completions", "", body.to_string().as_bytes());
    served.wait_until("it is let go", |served| served.count("cancelled_total") >= 16);
    assert_eq!(served.count("running"), 0);
    drop(asked);
}

#[test]
fn a_full_line_says_when_to_come_again() {
    let space = Space::new();
    let model = model_of_context(&space, 60_000);
    let served = Served::start(&space, &model, &["--slots", "1", "--queue", "1"]);
    let long = json!({ "prompt": "apples", "n": 2, "max_tokens": 50_000, "temperature": 0 });
    let asked = served.send("POST", "/v1/completions", "", long.to_string().as_bytes());
    served.wait_until("it is written", |served| served.count("running") == 1);
    let answer = served.complete(json!({ "prompt": "apples", "max_tokens": 2 }));
    assert_eq!(answer.status, 429, "{answer:?}");
    let seconds = answer.head.split("retry-after: ").nth(1).unwrap().lines().next().unwrap();
    assert!((1..=60).contains(&seconds.parse::<u32>().unwrap()));
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    drop(asked);
    served.wait_until("there is room", |served| {
        served.complete(json!({ "prompt": "apples", "max_tokens": 2 })).status == 200
    });
}

/// Bytes of memory that a process has had at most; nothing where the system
/// does not tell.
fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}

#[test]
fn a_thousand_connections_are_answered_or_told_to_come_again() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &["--slots", "4", "--queue", "20"]);
    served.complete(json!({ "prompt": "apples" })).text();
    let before = peak(served.child.id());
    let streams: Vec<TcpStream> = (0..1000).map(|_| served.connect()).collect();
    let body = json!({ "prompt": "apples", "max_tokens": 300, "seed": 1, "n": 4 }).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for mut stream in &streams {
        stream.write_all(head.as_bytes()).unwrap();
    }
    for mut stream in &streams {
        stream.write_all(body.as_bytes()).unwrap();
    }
    let mut counts = std::collections::BTreeMap::new();
    let mut texts = std::collections::BTreeSet::new();
    for stream in streams {
        let answer = hear(stream);
        *counts.entry(answer.status).or_insert(0) += 1;
        if answer.status == 200 {
            texts.insert(answer.json()["choices"].to_string());
        }
    }
    assert_eq!(counts.values().sum::<usize>(), 1000);
    assert!(counts.keys().eq(&[200, 429]), "{counts:?}");
    assert!(counts[&200] >= 6, "{counts:?}");
    assert_eq!(texts.len(), 1, "all say the same");
    if let (Some(before), Some(after)) = (before, peak(served.child.id())) {
        assert!(after - before < 96 << 20, "{} MiB more", (after - before) >> 20);
    }
}

#[test]
fn the_first_signal_finishes_what_was_begun_and_the_second_does_not() {
    use rustix::process::Signal;
    let space = Space::new();
    let model = model_of_context(&space, 60_000);
    let mut served = Served::start(&space, &model, &["--slots", "2"]);
    let body = |most: usize| {
        json!({ "prompt": "apples", "max_tokens": most, "temperature": 0, "stream": true })
            .to_string()
    };
    let asked = served.send("POST", "/v1/completions", "", body(3000).as_bytes());
    served.wait_until("it is written", |served| served.count("running") == 1);
    served.signal(Signal::TERM);
    served.wait_until("it takes nothing new", |served| served.get("/health").status == 503);
    let refused = served.complete(json!({ "prompt": "apples" }));
    assert_eq!((refused.status, refused.head.contains("retry-after")), (503, true), "{refused:?}");
    let events = hear(asked).events();
    assert!(events.last().unwrap()["choices"][0]["finish_reason"].is_string());
    assert_eq!(served.code(), Some(0));

    let mut served = Served::start(&space, &model, &["--slots", "2"]);
    let asked = served.send("POST", "/v1/completions", "", body(50_000).as_bytes());
    served.wait_until("it is written", |served| served.count("running") == 1);
    served.signal(Signal::INT);
    served.wait_until("it takes nothing new", |served| served.get("/health").status == 503);
    served.signal(Signal::INT);
    assert_eq!(served.code(), Some(130));
    drop(asked);
}

#[test]
fn a_key_is_wanted_where_one_is_set_and_is_told_to_nobody() {
    let space = Space::new();
    let served = Served::start(&space, &fixture(), &["--key-env", "PLANTED"]);
    assert_eq!(served.get("/health").status, 200);
    for headers in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: sk-planted-key\r\n",
        "authorization: Bearer sk-planted-key2\r\n",
    ] {
        let answer = served.ask("GET", "/v1/models", headers, b"");
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (401, &json!("invalid_api_key"))
        );
    }
    let answer = served.ask("GET", "/v1/models", "authorization: Bearer sk-planted-key\r\n", b"");
    assert_eq!(answer.status, 200);
    let log = std::fs::read_to_string(space.path("serve.log")).unwrap();
    assert!(!log.contains("sk-planted") && !served.get("/metrics").body.contains("sk-planted"));
    let ran = space.run(&["serve", fixture().to_str().unwrap(), "--key-env", "NO_SUCH_KEY"]);
    assert!(ran.code == 2 && ran.err.contains("`NO_SUCH_KEY` holds no key"), "{ran:?}");
}

#[test]
fn a_model_that_is_deleted_goes_on_speaking() {
    let space = Space::new();
    let model = model_of_context(&space, 512);
    let served = Served::start(&space, &model, &[]);
    let body = json!({ "prompt": "apples", "seed": 4 });
    let before = served.complete(body.clone()).text();
    for file in list(&model) {
        std::fs::remove_file(file).unwrap();
    }
    std::fs::remove_dir(&model).unwrap();
    assert_eq!(served.complete(body).text(), before);
    let ran = space.run(&["serve", "model", "--device", "cpu"]);
    assert!(ran.code == 2 && ran.err.contains("`model` is no folder"), "{ran:?}");
}

/// A study that asks its own small model, and the server at BASE.
const STUDY: &str = r#"
rekindle = 1
name = "annotated"
[protocol.plain]
[model.small]
width = 16
layers = 1
heads = 2
kv-heads = 2
feed-forward = 32
context = 96
[api.local]
base-url = "BASE"
model = "tiny"
max-tokens = 30
pause = 0.001
concurrency = 16
[dataset.words]
kind = "word-problems"
problems = { base = 20, meta = 24 }
protocol = "plain"
[stage.corpus]
kind = "examples"
problems = "words.base"
protocol = "plain"
[stage.vocabulary]
kind = "tokenizer"
examples = ["corpus"]
problems = ["words.meta"]
protocol = "plain"
[stage.base]
kind = "train"
model = "small"
tokenizer = "vocabulary"
data = ["corpus"]
[stage.said]
kind = "generate"
model = "base.model"
problems = "words.meta"
protocol = "plain"
temperature = 0.0
max-tokens = 8
[stage.asked]
kind = "generate"
model = { api = "local" }
problems = "words.meta"
protocol = "plain"
temperature = 0.0
max-tokens = 30
"#;

#[test]
fn a_study_asks_a_server_of_its_own_kind_and_serves_what_it_trained() {
    let space = Space::new();
    let other = model_of_context(&space, 4096);
    let served = Served::start(&space, &other, &["--name", "tiny", "--slots", "5"]);
    space.manifest(&STUDY.replace("BASE", served.told["url"].as_str().unwrap()));
    let ran = space.run(&["run", "m.toml", "--device", "cpu"]).ok();
    let metrics = served.get("/metrics").body;
    let answers = |status: u16| {
        let start = format!("rekindle_answers_total{{status=\"{status}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(start.as_str()));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert!(answers(200) == 24 && answers(400) == 0, "{metrics}{}", ran.err);
    drop(served);

    // A step's model, asked as the study asked it, says what the study has of it.
    let exported = space.path("said");
    let to = exported.to_str().unwrap();
    space.run(&["export", "m.toml", "said.dialogues", "--to", to, "--device", "cpu"]).ok();
    let rows = std::fs::read_to_string(exported.join("dialogues.jsonl")).unwrap();
    let manifest = PathBuf::from("m.toml");
    let served = Served::start(&space, &manifest, &["base.model", "--template", "raw"]);
    assert_eq!(served.told["model"], "base.model");
    let mut said = 0;
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        // As the protocol words it.
        let question = format!("Q: {} A:", row["problem"]["question"].as_str().unwrap());
        let body = json!({ "messages": user(&question), "temperature": 0, "max_tokens": 8 });
        assert_eq!(served.chat(body.clone()).text(), row["reply"].as_str().unwrap());
        let mut streamed = body;
        streamed["stream"] = json!(true);
        let events = served.chat(streamed).events();
        let text: String = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, row["reply"].as_str().unwrap());
        said += usize::from(!text.is_empty());
    }
    assert!(said > 12, "{said}");
    drop(served);

    // Without a template it is told how to have one; completions need none.
    let served = Served::start(&space, &manifest, &["base.model"]);
    let answer = served.chat(json!({ "messages": user("how many ?") }));
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("start the server with `--template`"), "{answer:?}");
    served.complete(json!({ "prompt": "how many ?", "max_tokens": 3 })).text();
    drop(served);

    for (arguments, code, says) in [
        (&["serve", "m.toml", "corpus"][..], 2, "has no output that is a model"),
        (&["serve", "m.toml", "nothing.model"], 2, "there is no step `nothing.model`"),
        (&["serve", "m.toml"], 2, "behind a manifest name a step"),
        (&["serve", "m.toml", "base.model", "--template", "vicuna"], 2, "no template and no file"),
        (&["serve", "m.toml", "base.model", "--store", "other"], 4, "step `base` is not done"),
    ] {
        let ran = space.run(&[arguments, &["--device", "cpu", "--port", "0"]].concat());
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{arguments:?}: {}", ran.err);
    }
}
