//! A model behind a server in place of one of the study's, through the program:
//! all modes of inference, each reply paid for once, mistakes told early.

use crate::space::{Ran, Space};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Nothing is trained here: data, and a server that answers.
const STUDY: &str = r#"
rekindle = 1
name = "answered"
seed = 5
[protocol.plain]
template = "vicuna-v1.1"
question = "{question} Think."
feedback = "Question: {question} Response: {reply} Review it."
[api.local]
base-url = "BASE"
model = "gpt"
pause = 0.001
price-read = 1.0
price-written = 2.0
budget = 1.0
MORE
[dataset.words]
kind = "word-problems"
problems = { test = 8 }
protocol = "plain"
[stage.score]
kind = "evaluate"
model = { api = "local" }
problems = "words.test"
protocol = "plain"
modes = ["direct", "refine", "consistency", "consistency-refine", "vote-refine"]
samples = 3
temperature = 0.7
top-p = 0.9
max-tokens = 40
feedback-tokens = 30
[stage.answers]
kind = "generate"
model = { api = "local" }
problems = "words.test"
protocol = "plain"
temperature = 0.0
max-tokens = 40
[stage.feedback]
kind = "self-feedback"
model = { api = "local" }
dialogues = "answers"
protocol = "plain"
max-tokens = 30
[stage.refine]
kind = "self-refine"
model = { api = "local", go-on = "On with it." }
dialogues = "feedback"
protocol = "plain"
max-tokens = 40
[report]
models = [{ label = "gpt", scores = "score.scores" }]
"#;

#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, usize>>);

fn serve() -> (String, Arc<Ledger>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let ledger = Arc::<Ledger>::default();
    let shared = Arc::clone(&ledger);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || answer(stream, &shared));
        }
    });
    (url, ledger)
}

fn answer(mut stream: TcpStream, shared: &Ledger) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
        let head = head.to_lowercase();
        let Some((_, rest)) = head.split_once("content-length:") else { return };
        let mut body = vec![0; rest.lines().next().unwrap().trim().parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let last = asked["messages"].as_array().unwrap().last().unwrap();
        let last = last["content"].as_str().unwrap();
        // Drawn replies differ from one another as often as they are asked for.
        let sum: u64 = body.iter().copied().map(u64::from).sum();
        let drawn = asked["temperature"].as_f64().unwrap() > 0.0;
        let said = match () {
            () if last.contains("Review it.") => {
                "It is short. judgement incorrect refined: not asked for yet".to_owned()
            }
            () if drawn => format!("answer {}", sum % 3),
            () => format!("I think: answer {}", last.len() % 10),
        };
        *shared.0.lock().unwrap().entry(String::from_utf8(body).unwrap()).or_default() += 1;
        let said = json!({
            "id": "1", "model": "gpt-0125",
            "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 10},
        });
        let text = said.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn space(url: &str, more: &str) -> Space {
    Space::with(&STUDY.replace("BASE", url).replace("MORE", more))
}

fn run(space: &Space) -> Ran {
    space.run(&["run", "m.toml", "--device", "cpu"])
}

fn bodies(ledger: &Ledger) -> Vec<(Value, usize)> {
    let all = ledger.0.lock().unwrap();
    all.iter().map(|(body, &n)| (serde_json::from_str(body).unwrap(), n)).collect()
}

#[test]
fn a_server_answers_in_every_mode_and_every_reply_is_paid_once() {
    let (url, ledger) = serve();
    let space = space(&url, "send-seed = true");
    run(&space).ok();
    let asked = bodies(&ledger);
    let total: usize = asked.iter().map(|(_, n)| n).sum();
    // 8 replies, 8 feedbacks, 8 refined ones; 24 draws, 24 feedbacks, 24 refined ones at most. The
    // stages beside ask what was asked, save for another word to go on.
    assert!((8 * 3 + 24 + 8..=8 * 3 + 24 * 3 + 8).contains(&total), "{total}");
    assert!(asked.iter().all(|(_, n)| *n == 1), "the same was asked twice");
    let drawn: Vec<&Value> =
        asked.iter().map(|(body, _)| body).filter(|body| body["temperature"] == 0.7).collect();
    assert_eq!(drawn.len(), 24);
    assert!(drawn.iter().all(|body| body["top_p"] == 0.9 && body["seed"].is_u64()));
    for (body, _) in &asked {
        let messages = body["messages"].as_array().unwrap();
        let last = messages.last().unwrap()["content"].as_str().unwrap();
        let (limit, stop) = (&body["max_tokens"], &body["stop"]);
        match last.contains("Review it.") {
            true => assert_eq!((limit, stop), (&json!(30), &json!(["refined:"]))),
            false => assert_eq!((limit, stop), (&json!(40), &Value::Null)),
        }
        if messages.len() == 3 {
            assert_eq!(messages[1]["role"], "assistant");
            let begun = messages[1]["content"].as_str().unwrap();
            // The feedback was cut where the server left its stop string in.
            assert_eq!(begun, "It is short. judgement incorrect refined:");
            assert!(last == "On with it." || last.starts_with("Go on exactly"), "{last}");
        }
    }
    let report = space.path("results/answered");
    let scores = std::fs::read_to_string(report.join("scores.json")).unwrap();
    let scores: Value = serde_json::from_str(&scores).unwrap();
    let modes = scores["arms"][0]["models"][0]["modes"].as_object().unwrap().len();
    assert_eq!(modes, 5, "{scores}");

    // Another identity of the step: what was drawn then is drawn still, for nothing.
    space.run(&["run", "m.toml", "--set", "stage.score.beside=[\"gsm8k\"]"]).ok();
    let again = space.run(&["run", "m.toml"]).ok();
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert_eq!(bodies(&ledger).iter().map(|(_, n)| n).sum::<usize>(), total);
}

#[test]
fn a_run_that_asks_a_server_knows_what_it_may_cost() {
    let (url, ledger) = serve();
    let space = space(&url, "");
    // Four steps with a budget of a dollar each.
    let refused = space.run(&["run", "m.toml", "--device", "cpu", "--budget", "3.9USD"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(ledger.0.lock().unwrap().is_empty());
    space.run(&["run", "m.toml", "--device", "cpu", "--budget", "4USD"]).ok();
    assert!(!ledger.0.lock().unwrap().is_empty());
}

#[test]
fn what_servers_have_no_word_for_is_told_with_its_place() {
    let text = STUDY.replace("BASE", "http://127.0.0.1:1/v1").replace("MORE", "");
    let wrong = text.replace("top-p = 0.9", "top-k = 40\nlogprobs = true");
    let ran = Space::with(&wrong).run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    for part in
        ["`top-k` is not in the protocol", "`logprobs` is for models of the study", "m.toml:"]
    {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
    let wrong = text.replace("{ api = \"local\", go-on", "{ api = \"lokal\", goon");
    let ran = Space::with(&wrong).run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    for part in ["did you mean `local`?", "did you mean `go-on`?"] {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
    // A server has no weights to start a training from.
    let train =
        "[stage.more]\nkind = \"train\"\nstart = { api = \"local\" }\ndata = [\"answers\"]\n";
    let ran = Space::with(&(text + train)).run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
}
