//! Judged replies, through the program: what a judge says is paid for once,
//! read anew for nothing, and its leanings stand in the report.

use crate::space::{Ran, Space};
use rekindle::host::http::sha256;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Questions; replies of two models to them, the second's to one fewer.
const QUESTIONS: usize = 12;

/// How the server judges what it is asked.
type Mind = fn(&str) -> String;

#[derive(Default)]
struct Ledger {
    /// Times each body was answered.
    billed: BTreeMap<String, usize>,
    /// When so many were answered, the next question is held for ever.
    stop_at: Option<usize>,
    held: usize,
}

struct Server {
    url: String,
    ledger: Arc<(Mutex<Ledger>, Condvar)>,
}

impl Server {
    fn start(mind: Mind) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let ledger = Arc::<(Mutex<Ledger>, Condvar)>::default();
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, mind, &shared));
            }
        });
        Server { url, ledger }
    }

    fn billed(&self) -> usize {
        self.ledger.0.lock().unwrap().billed.values().sum()
    }

    fn stop_at(&self, count: Option<usize>) {
        self.ledger.0.lock().unwrap().stop_at = count;
    }

    fn wait_for(&self, held: usize) {
        let few = |ledger: &mut Ledger| ledger.held < held;
        drop(self.ledger.1.wait_while(self.ledger.0.lock().unwrap(), few).unwrap());
    }
}

fn answer(mut stream: TcpStream, mind: Mind, shared: &(Mutex<Ledger>, Condvar)) {
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
        let said = mind(asked["messages"][0]["content"].as_str().unwrap());
        let mut ledger = shared.0.lock().unwrap();
        if ledger.stop_at.is_some_and(|most| ledger.billed.values().sum::<usize>() >= most) {
            ledger.held += 1;
            drop(ledger);
            shared.1.notify_all();
            loop {
                std::thread::park();
            }
        }
        *ledger.billed.entry(String::from_utf8(body).unwrap()).or_default() += 1;
        drop(ledger);
        let said = json!({
            "id": "1", "model": "judge-0613",
            "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        });
        let text = said.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// The two responses in a prompt of ours.
fn shown(prompt: &str) -> [&str; 2] {
    let between =
        |from: &str, to: &str| prompt.split(from).nth(1).unwrap().split(to).next().unwrap();
    [
        between("Response of assistant A ---\n", "\n--- End of response A"),
        between("Response of assistant B ---\n", "\n--- End of response B"),
    ]
}

/// Prefers what is longer, whatever the order; says so with a mark it does not mean first.
fn fair(prompt: &str) -> String {
    let [a, b] = shown(prompt).map(str::len);
    match a.cmp(&b) {
        std::cmp::Ordering::Greater => "Not [[B]], rather [[A]]".into(),
        std::cmp::Ordering::Less => "Not [[A]], rather [[B]]".into(),
        std::cmp::Ordering::Equal => "[[C]]".into(),
    }
}

fn always_a(_: &str) -> String {
    "[[A]]".into()
}

/// Scores by length, and by no rule where a response speaks of seven.
fn scoring(prompt: &str) -> String {
    let [a, b] = shown(prompt);
    match a.contains("seven") || b.contains("seven") {
        true => "Both are fine.".into(),
        false => format!("{} {}\nBecause.", a.len().min(40) / 4, b.len().min(40) / 4),
    }
}

/// A mirror with the questions and both models' replies; the study's text.
fn study(space: &Space, url: &str, more: &str, rubric: &str) -> String {
    let row = |k: usize| {
        let category = ["writing", "math"][k % 2];
        json!({ "question_id": k, "category": category, "turns": [format!("Question {k}?")] })
    };
    let reply = |k: usize, text: String| json!({ "question_id": k, "choices": [{ "index": 0, "turns": [text] }] });
    // Ours is longer on the first 6, the same text on the 7th, shorter on the others.
    let ours = |k: usize| match k {
        0..6 => "a long and good reply".to_owned() + &" more".repeat(k),
        6 => "the same".to_owned(),
        7 => "seven".to_owned(),
        _ => "short".to_owned(),
    };
    let theirs =
        |k: usize| if k == 6 { "the same".to_owned() } else { format!("middling text {k:02}") };
    let lines = |rows: Vec<Value>| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let files = [
        ("questions", lines((0..QUESTIONS).map(row).collect())),
        ("ours", lines((0..QUESTIONS).map(|k| reply(k, ours(k))).collect())),
        ("theirs", lines((0..QUESTIONS - 1).map(|k| reply(k, theirs(k))).collect())),
    ];
    let mut text = "rekindle = 1\nname = \"judged\"\n".to_owned();
    std::fs::create_dir_all(space.path("mirror")).unwrap();
    for (name, content) in files {
        space.write(&format!("mirror/{name}.jsonl"), &content);
        let kind = match name {
            "questions" => "kind = \"fetch-dataset\"\nformat = \"fastchat-jsonl\"",
            _ => "kind = \"fetch-replies\"\nproblems = \"questions\"",
        };
        text += &format!(
            "[dataset.{name}]\n{kind}\nurl = \"http://127.0.0.1:1/{name}\"\nmirror = \"mirror\"\n\
             mirror-path = \"{name}.jsonl\"\nsha256 = \"{}\"\n",
            sha256(content.as_bytes())
        );
    }
    text + &format!(
        r#"
[api.local]
base-url = "{url}"
model = "judge"
pause = 0.001
{more}
[judge.it]
kind = "api"
api = "local"
[rubric.pair]
{rubric}
[stage.judged]
kind = "judge"
replies = "ours"
against = "theirs"
judge = "it"
rubric = "pair"
dataset = "set"
[report]
models = [{{ label = "ours", scores = "judged.scores" }}]
[[target]]
subject = "ours"
metric = "win-rate"
paper = 65.0
source-confidence = "made up"
[[target]]
subject = "ours"
metric = "win-and-half-ties"
paper = 66.0
source-confidence = "made up"
"#
    )
}

fn run(space: &Space) -> Ran {
    space.run(&["run", "m.toml"])
}

/// The report's page and what a program reads.
fn report(space: &Space) -> (String, Value) {
    let read =
        |name: &str| std::fs::read_to_string(space.path("results/judged").join(name)).unwrap();
    (read("report.md"), serde_json::from_str(&read("scores.json")).unwrap())
}

#[test]
fn wins_ties_and_losses_stand_in_the_report_and_are_read_anew_for_nothing() {
    let server = Server::start(fair);
    let space = Space::new();
    space.manifest(&study(&space, &server.url, "", ""));
    let ran = run(&space).ok();
    assert!(ran.err.contains("1 of 12 dialogues of `replies`"), "{}", ran.err);
    // 11 pairs, one of them the same text twice: that one is asked of nobody.
    assert_eq!(server.billed(), 20);
    let (page, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!(judged["pairs"]["counts"], json!({ "won": 6, "tied": 1, "lost": 4, "unread": 0 }));
    assert_eq!(judged["judges"], json!(["judge-0613"]));
    assert_eq!((&judged["identical"], &judged["disputed"]), (&json!(1), &json!(10)));
    assert_eq!(judged["consistent"]["value"], 1.0);
    assert_eq!(judged["for-first"]["value"], 0.5);
    assert_eq!(judged["for-longer"]["value"], 1.0);
    assert_eq!(judged["groups"]["category"]["writing"]["counts"]["won"], 3);
    let model = &all["arms"][0]["models"][0];
    assert_eq!((&model["measure"], &model["dataset"]), (&json!("win-rate"), &json!("set")));
    for part in ["Win rate on `set`", "54.5 [", "| 65 (-10.5) |", "59.1 [", "made up", "judge-0613"]
    {
        assert!(page.contains(part), "no `{part}` in {page}");
    }
    // The other way to read the same words takes every pair for a contradiction.
    space.manifest(&study(&space, &server.url, "", "parser = \"fastchat\""));
    run(&space).ok();
    assert_eq!(server.billed(), 20, "nothing is asked again");
    let (_, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!(judged["pairs"]["counts"]["tied"], 11);
    assert_eq!(judged["consistent"]["value"], 0.0);
}

#[test]
fn a_judge_that_always_takes_the_first_is_seen() {
    let server = Server::start(always_a);
    let space = Space::new();
    space.manifest(&study(&space, &server.url, "", "ties = \"uncontradicted\""));
    run(&space).ok();
    let (page, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!(judged["pairs"]["counts"], json!({ "won": 0, "tied": 11, "lost": 0, "unread": 0 }));
    assert_eq!(
        (&judged["consistent"]["value"], &judged["consistent"]["n"]),
        (&json!(0.0), &json!(10))
    );
    assert_eq!(judged["for-first"]["value"], 1.0);
    assert!(page.contains("0.0 [0.0, 27.8] of 10 | 100.0 [83.9, 100.0] of 20"), "{page}");
    // In one order only it wins everything, and nothing shows.
    space.manifest(&study(&space, &server.url, "", "orders = \"one\""));
    run(&space).ok();
    let (_, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!(
        (&judged["pairs"]["counts"]["won"], &judged["consistent"]["n"]),
        (&json!(10), &json!(0))
    );
}

#[test]
fn scores_that_cannot_be_read_are_asked_for_again_and_counted() {
    let server = Server::start(scoring);
    let space = Space::new();
    space.manifest(&study(
        &space,
        &server.url,
        "attempts = 3",
        "form = \"scores\"\nties = \"total\"",
    ));
    let ran = run(&space).ok();
    assert!(ran.err.contains("2 of 20 judgements: no verdict"), "{}", ran.err);
    assert_eq!(server.billed(), 18 + 2 * 3, "both orders of one pair, three times each");
    let (_, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!(judged["pairs"]["counts"], json!({ "won": 6, "tied": 1, "lost": 3, "unread": 1 }));
    assert_eq!(judged["unread"], json!({ "no verdict": 2 }));
    assert_eq!(judged["pairs"]["won"]["n"], 10, "what is unread is in no rate");
    assert!(judged["means"][0].as_f64() > judged["means"][1].as_f64());
}

#[test]
fn a_killed_judge_is_paid_once_and_stops_at_its_budget() {
    let whole = Server::start(fair);
    let space = Space::new();
    space.manifest(&study(&space, &whole.url, "", ""));
    run(&space).ok();

    let server = Server::start(fair);
    let killed = Space::new();
    killed.manifest(&study(&killed, &server.url, "concurrency = 1", ""));
    for (held, stop_at) in [(1, 4), (2, 13)] {
        server.stop_at(Some(stop_at));
        let mut child = killed.start(&["run", "m.toml"]);
        server.wait_for(held);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    server.stop_at(None);
    killed.manifest(&study(&killed, &server.url, "concurrency = 1", ""));
    run(&killed).ok();
    assert_eq!(server.billed(), whole.billed());
    assert_eq!(killed.objects(), space.objects());
    let poor = Space::new();
    // 100 tokens read and 10 written are $0.0013 a judgement.
    let priced = "price-read = 10.0\nprice-written = 30.0\nmax-tokens = 20\nbudget = 0.01";
    poor.manifest(&study(&poor, &server.url, priced, ""));
    let ran = run(&poor);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("the budget of $0.01 is spent"), "{}", ran.err);
}

#[test]
fn a_rule_that_needs_no_model_judges_and_mistakes_are_told() {
    let space = Space::new();
    let text = study(&space, "http://127.0.0.1:1/v1", "", "form = \"rating\"");
    let by_rule = text.replace("kind = \"api\"\napi = \"local\"", "kind = \"overlap\"");
    space.manifest(&by_rule);
    run(&space).ok();
    let (_, all) = report(&space);
    let judged = &all["arms"][0]["judged"][0];
    assert_eq!((&judged["form"], &judged["judges"]), (&json!("rating"), &json!(["words shared"])));
    assert_eq!(judged["position"]["pairs"], 0, "a reply by itself has no place");
    assert_eq!(judged["asked"], 20);
    space.manifest(&study(
        &space,
        "http://127.0.0.1:1/v1",
        "",
        "ties = \"total\"\nprompt = \"{a}\"\ntie-within = -1.0",
    ));
    let ran = space.run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    for part in ["it needs `form = \"scores\"`", "`prompt` has no `{b}`", "must not be negative"] {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
}
