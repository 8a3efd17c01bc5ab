//! An annotator behind a server, through the program: paid once for every
//! reply, whatever happens in between; keys stay where they are.

use crate::space::{Ran, Space, files};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// The study up to its collection: a base that knows nothing, 24 problems.
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
model = "judge"
max-tokens = 100
pause = 0.001
attempts = 2
MORE
[annotator.judge]
kind = "api"
api = "local"
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
[stage.collect]
kind = "collect"
model = "base.model"
problems = "words.meta"
annotator = "judge"
protocol = "plain"
"#;

const KEY: &str = "sk-planted-0123456789";

/// What the server counted.
#[derive(Default)]
struct Ledger {
    /// Times each body was answered with a reply.
    billed: BTreeMap<String, usize>,
    /// Requests of all kinds.
    requests: usize,
    /// Bodies that were sent away once.
    sent_away: BTreeSet<String>,
    /// Requests without the key.
    strangers: usize,
    /// When so many replies were given, the next question is held for ever.
    stop_at: Option<usize>,
    /// Questions held.
    held: usize,
}

struct Judge {
    url: String,
    ledger: Arc<(Mutex<Ledger>, Condvar)>,
}

impl Judge {
    fn start() -> Judge {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let ledger = Arc::<(Mutex<Ledger>, Condvar)>::default();
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Judge { url, ledger }
    }

    fn study(&self, more: &str) -> String {
        STUDY.replace("BASE", &self.url).replace("MORE", more)
    }

    /// Replies given in all, and requests.
    fn counts(&self) -> (usize, usize) {
        let ledger = self.ledger.0.lock().unwrap();
        (ledger.billed.values().sum(), ledger.requests)
    }

    fn stop_at(&self, count: Option<usize>) {
        self.ledger.0.lock().unwrap().stop_at = count;
    }

    /// Waits until so many questions are held.
    fn wait_for(&self, count: usize) {
        let few = |ledger: &mut Ledger| ledger.held < count;
        drop(self.ledger.1.wait_while(self.ledger.0.lock().unwrap(), few).unwrap());
    }
}

fn answer(mut stream: TcpStream, shared: &(Mutex<Ledger>, Condvar)) {
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
        let body = String::from_utf8(body).unwrap();
        let mut ledger = shared.0.lock().unwrap();
        ledger.requests += 1;
        ledger.strangers += usize::from(!head.contains(&KEY.to_lowercase()));
        let billed: usize = ledger.billed.values().sum();
        if ledger.stop_at.is_some_and(|most| billed >= most) {
            ledger.held += 1;
            drop(ledger);
            shared.1.notify_all();
            loop {
                std::thread::park();
            }
        }
        let kind = body.bytes().map(usize::from).sum::<usize>() % 6;
        let seen = ledger.billed.get(&body).copied().unwrap_or(0);
        // Every sixth question finds it busy at first; another sixth gets no verdict.
        let busy = kind == 0 && ledger.sent_away.insert(body.clone());
        let said = match kind {
            1 => "I cannot say .",
            _ => "work: 1 + 2 = 3 ;\n**Judgement incorrect**\nrefined: answer 3",
        };
        let (status, text) = if busy {
            let echo = format!("{{\"error\":{{\"message\":\"busy, {KEY}\"}}}}");
            ("429 Too Many Requests\r\nretry-after: 0.005", echo)
        } else {
            ledger.billed.insert(body, seen + 1);
            let said = serde_json::json!({
                "id": "1", "model": "judge",
                "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            });
            ("200 OK", said.to_string())
        };
        drop(ledger);
        shared.1.notify_all();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn run(space: &Space, arguments: &[&str], key: Option<&str>) -> Ran {
    let mut command = space.command(&[&["run", "m.toml", "--device", "cpu"], arguments].concat());
    command.env_remove("JUDGE_KEY");
    if let Some(key) = key {
        command.env("JUDGE_KEY", key);
    }
    Ran::of(&mut command)
}

const WITH_KEY: &str = "key-env = \"JUDGE_KEY\"";

#[test]
fn every_reply_is_paid_once_and_the_key_is_nowhere() {
    let judge = Judge::start();
    let space = Space::with(&judge.study(WITH_KEY));
    let first = run(&space, &[], Some(KEY)).ok();
    assert!(first.err.contains("replies of the annotator: no verdict"), "{}", first.err);
    let (billed, requests) = judge.counts();
    assert!(billed >= 24 && requests > billed, "{billed} of {requests}");
    {
        let ledger = judge.ledger.0.lock().unwrap();
        assert_eq!(ledger.strangers, 0);
        // A reply without a verdict was asked for `attempts` times, others once; a body may be
        // asked for as a first reply and as a corrected one.
        assert!(ledger.billed.values().all(|&times| times <= 2), "{:?}", ledger.billed);
    }
    // Another identity of the step, the same questions: nothing is sent.
    let all = ["--set", "stage.collect.balance=0"];
    run(&space, &all, None).ok();
    assert_eq!(judge.counts(), (billed, requests));
    for file in files(&space.path("")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(KEY), "the key is in {}", file.display());
    }
    assert!(!first.err.contains(KEY) && !first.out.contains(KEY));
}

#[test]
fn a_killed_run_pays_for_no_reply_twice() {
    let whole = Judge::start();
    let space = Space::with(&whole.study(WITH_KEY));
    run(&space, &[], Some(KEY)).ok();

    let judge = Judge::start();
    let killed = Space::with(&judge.study(&format!("{WITH_KEY}\nconcurrency = 1")));
    for (held, stop_at) in [(1, 3), (2, 11), (3, 20)] {
        judge.stop_at(Some(stop_at));
        let mut child = killed
            .command(&["run", "m.toml", "--device", "cpu"])
            .env("JUDGE_KEY", KEY)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The question behind the last reply came: the last reply is on the disk.
        judge.wait_for(held);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    judge.stop_at(None);
    run(&killed, &[], Some(KEY)).ok();
    assert_eq!(judge.counts().0, whole.counts().0);
    assert_eq!(killed.objects(), space.objects());
}

#[test]
fn a_cassette_needs_neither_key_nor_server() {
    let judge = Judge::start();
    let tape = "cassette = \"tape.lines\"\nkey-env = \"JUDGE_KEY\"";
    let space = Space::with(&judge.study(tape));
    run(&space, &[], Some(KEY)).ok();
    let counts = judge.counts();
    let other = Space::with(&judge.study(tape));
    std::fs::copy(space.path("tape.lines"), other.path("tape.lines")).unwrap();
    run(&other, &[], None).ok();
    assert_eq!(judge.counts(), counts);
    assert_eq!(other.objects(), space.objects());
}

#[test]
fn a_missing_key_and_an_empty_purse_stop_the_step_and_lose_nothing() {
    let judge = Judge::start();
    let space = Space::with(&judge.study(WITH_KEY));
    let ran = run(&space, &[], None);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("`JUDGE_KEY` holds no key"), "{}", ran.err);
    assert_eq!(judge.counts(), (0, 0));

    let price = |budget: f64| {
        format!("{WITH_KEY}\nprice-read = 10.0\nprice-written = 30.0\nbudget = {budget}")
    };
    // 100 tokens read and 10 written are $0.0013 a reply.
    space.manifest(&judge.study(&price(0.0139)));
    let ran = run(&space, &[], Some(KEY));
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("the budget of $0.0139 is spent"), "{}", ran.err);
    let (billed, _) = judge.counts();
    assert!((1..=10).contains(&billed), "{billed} replies for $0.0139");
    space.manifest(&judge.study(&price(5.0)));
    run(&space, &[], Some(KEY)).ok();
    let again = Judge::start();
    let fresh = Space::with(&again.study(WITH_KEY));
    run(&fresh, &[], Some(KEY)).ok();
    assert_eq!(judge.counts().0, again.counts().0);
    assert_eq!(fresh.objects(), space.objects());
}

#[test]
fn two_questions_follow_each_other_and_share_one_budget() {
    let judge = Judge::start();
    let study = |more: &str| {
        let two = "[annotator.judge]\ncalls = \"two\"";
        judge.study(more).replace("[annotator.judge]", two)
    };
    let once = ["--set", "stage.collect.balance=0"];
    let space = Space::with(&study(""));
    run(&space, &once, None).ok();
    let (billed, _) = judge.counts();
    assert!(billed > 40, "{billed} replies to 24 problems, most of them asked about twice");
    let lessons: Vec<String> = space
        .object_files()
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter(|text| text.contains("meta-"))
        .collect();
    assert!(lessons.iter().any(|text| text.contains("judgement incorrect refined: work:")));
    // What the first questions cost counts when the second ones are asked.
    let budget = billed as f64 * 0.0013 * 0.75;
    let priced = format!("price-read = 10.0\nprice-written = 30.0\nbudget = {budget}");
    let poor = Space::with(&study(&priced));
    let ran = run(&poor, &once, None);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("is spent"), "{}", ran.err);
    assert!(judge.counts().0 > billed + 24, "it was not spent on the first questions alone");
}

#[test]
fn mistakes_of_an_api_are_told_with_their_place() {
    let more = "budget = 3.0\nextra = \"[1]\"";
    let study = STUDY.replace("BASE", "ftp://key@host").replace("MORE", more);
    let study =
        study.replace("attempts = 2", "attempts = 0").replace("api = \"local\"", "api = \"lokal\"");
    let other = study.replace("api = \"lokal\"", "api = \"local\"\nprompt = \"Judge {reply}\"");
    let ran = Space::with(&study).run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("did you mean `local`?"), "{}", ran.err);
    let ran = Space::with(&other).run(&["check", "m.toml"]);
    assert_eq!(ran.code, 3);
    for part in [
        "must begin with `http://`",
        "`extra` must be one JSON object",
        "`attempts` must be at least 1",
        "a `budget` needs `price-read`",
        "a key in `base-url` would end up in results",
        "`prompt` has no `{question}`",
        "`prompt` has no `{correct}`",
    ] {
        assert!(ran.err.contains(part), "no {part} in {}", ran.err);
    }
}

#[test]
fn a_run_that_may_cost_more_than_its_budget_asks_nobody() {
    let judge = Judge::start();
    let prices = "price-read = 100\nprice-written = 300";
    let space = Space::with(&judge.study(prices));
    let refused = space.run(&["run", "m.toml", "--budget", "5USD"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("in 1 step"), "{}", refused.err);
    // A bound of its own says what it costs at most, with what is asked once more.
    space.manifest(&judge.study(&format!("{prices}\nbudget = 2.5")));
    assert_eq!(space.run(&["run", "m.toml", "--budget", "2.49USD"]).code, 4);
    assert_eq!((judge.counts(), space.path(".rekindle/runs").exists()), ((0, 0), true));
    assert!(files(&space.path(".rekindle/runs")).is_empty(), "nothing was begun");
    space.run(&["run", "m.toml", "--budget", "$2.5"]).ok();
    let asked = judge.counts();
    assert!(asked.0 > 0);
    // Then it is known what such a step costs.
    space.manifest(
        &judge.study(prices).replace("[stage.collect]", "[stage.collect]\nbalance = 0.25"),
    );
    let plan = space.run(&["plan", "m.toml"]).ok().err;
    assert!(plan.contains("  money   about $") && plan.contains("  tokens  about "), "{plan}");
    let refused = space.run(&["run", "m.toml", "--budget", "0.01USD"]);
    assert!(refused.err.contains("the run may cost more than its budget"), "{}", refused.err);
    assert_eq!((refused.code, judge.counts()), (4, asked));
    space.manifest(&judge.study(&format!("{prices}\nbudget = 2.5")));
    let again = space.run(&["verify", "m.toml", "--recompute", "100%"]).ok();
    assert!(again.err.contains("`collect`: could not be made again: it asks"), "{}", again.err);
    assert!(again.err.contains("0 otherwise, 1 unknown"), "{}", again.err);
    assert_eq!(judge.counts(), asked, "nobody pays for a comparison");
}
