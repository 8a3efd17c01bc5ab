//! What a study costs that asks a server and is killed over and over: exactly
//! what an undisturbed one costs, where the server heeds `Idempotency-Key`;
//! elsewhere that, and the answers that were under way when it died.
//!
//! The study is the paper's main one, three rounds, with models that are tiny;
//! a server on this machine annotates and judges, and keeps the ledger.

use crate::paper::mirror;
use crate::space::{Ran, Space, list};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Questions under way at once, so answers that one kill can lose.
const CONCURRENCY: usize = 3;

/// When the program is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The n-th answer is billed and never sent.
    Before(usize),
    /// The n-th answer is billed and has just been sent.
    After(usize),
    /// So long after the start, if it is not over then.
    Later(Duration),
}

#[derive(Default)]
struct Ledger {
    /// Times each question was billed: its body, and its name where names are heeded.
    billed: BTreeMap<String, usize>,
    /// Names that were answered, if names are heeded.
    names: Option<BTreeSet<String>>,
    /// Answers given again for nothing.
    free: usize,
    /// Connections that somebody listens to.
    open: usize,
    /// Whom to kill, and when.
    victim: Option<(Child, Moment)>,
}

impl Ledger {
    fn total(&self) -> usize {
        self.billed.values().sum()
    }

    fn strike(&mut self, now: Moment) -> bool {
        match &mut self.victim {
            Some((child, moment)) if *moment == now => child.kill().is_ok(),
            _ => false,
        }
    }
}

struct Server {
    url: String,
    ledger: Arc<Mutex<Ledger>>,
}

impl Server {
    fn start(heeds_names: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let names = heeds_names.then(BTreeSet::new);
        let ledger = Arc::new(Mutex::new(Ledger { names, ..Ledger::default() }));
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.lock().unwrap().open += 1;
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    answer(stream, &shared);
                    shared.lock().unwrap().open -= 1;
                });
            }
        });
        Server { url, ledger }
    }

    /// Billed in all; waits until whatever the dead left on its way has arrived.
    fn settled(&self) -> usize {
        // Connections are taken in their order: behind this one nobody waits.
        let address = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let mut last = TcpStream::connect(address).unwrap();
        last.write_all(b"\r\n").unwrap();
        drop(last);
        while self.ledger.lock().unwrap().open > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ledger.lock().unwrap().total()
    }
}

/// One connection: every question gets its answer at once.
fn answer(mut stream: TcpStream, shared: &Mutex<Ledger>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
        let head = head.to_lowercase();
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        let Some(length) = value("content-length:") else { return };
        let mut body = vec![0; length.parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).unwrap();
        let text = completion(&body);
        let name = value("idempotency-key:").expect("every question has a name");
        let (bill, nth) = {
            let mut ledger = shared.lock().unwrap();
            let is_new = ledger.names.as_mut().is_none_or(|names| names.insert(name));
            if is_new {
                *ledger.billed.entry(body).or_default() += 1;
            } else {
                ledger.free += 1;
            }
            let nth = ledger.total();
            if is_new && ledger.strike(Moment::Before(nth)) {
                return;
            }
            (is_new, nth)
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
        if bill {
            shared.lock().unwrap().strike(Moment::After(nth));
        }
    }
}

/// What the annotator and the judge say, by what they are asked and nothing else.
fn completion(body: &str) -> String {
    let asked: Value = serde_json::from_str(body).unwrap();
    let sum = body.bytes().map(u64::from).sum::<u64>();
    let said = match (asked["model"].as_str().unwrap(), sum % 7) {
        // Asked again, and then left out.
        (_, 0) => "I would rather not say.".to_owned(),
        ("judge", n) => format!("[[{}]]", ["A", "B", "C"][n as usize % 3]),
        (_, n) => format!(
            "The count is off.\nJudgment: {}\nRefined: 3 + {n} = {}\nAnswer: {}",
            if n == 1 { "correct" } else { "incorrect" },
            3 + n,
            3 + n
        ),
    };
    let message = json!({ "message": { "content": said }, "finish_reason": "stop" });
    let usage = json!({ "prompt_tokens": 100, "completion_tokens": 10 });
    json!({ "id": "1", "model": "m", "choices": [message], "usage": usage }).to_string()
}

/// The study over the tiny sibling of the paper's main experiment.
fn study(server: &Server) -> (Space, Vec<String>) {
    let space = Space::new();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/self/tiny/E03.toml");
    space.manifest(&format!(
        r#"
rekindle = 1
extends = '{}'
name = "billed"
results = "results"
[api.labeller]
base-url = "{url}"
model = "annotator"
concurrency = {CONCURRENCY}
pause = 0.001
[annotator.labeller]
kind = "api"
api = "labeller"
[api.judge]
base-url = "{url}"
model = "judge"
concurrency = {CONCURRENCY}
pause = 0.001
[judge.judge]
kind = "api"
api = "judge"
[rubric.pair]
[stage.judged]
kind = "judge"
replies = "gsm8k-last.dialogues"
against = "gsm8k-base.dialogues"
judge = "judge"
rubric = "pair"
"#,
        tiny.display(),
        url = server.url,
    ));
    let mut arguments = vec!["run".to_owned(), "m.toml".to_owned()];
    arguments.extend(["--mirror", "mirror"].map(str::to_owned));
    // Less to learn and to say, and more to ask.
    let mut sets = mirror(&space);
    sets.push("dataset.slices.sets={ meta=36, pool1=6, corpus=0 }".to_owned());
    for (stage, value) in [("base", "epochs=1"), ("collect", "balance=1.0")] {
        sets.push(format!("stage.{stage}.{value}"));
    }
    for stage in ["collect", "answers", "feedback", "refine", "filter"] {
        sets.push(format!("stage.{stage}.max-tokens=16"));
    }
    for set in ["gsm8k", "svamp"] {
        for model in ["base", "dqa", "meta", "meta-only", "evolve", "control", "last"] {
            for limit in ["max-tokens", "feedback-tokens"] {
                sets.push(format!("stage.{set}-{model}.{limit}=16"));
            }
        }
    }
    for set in sets {
        arguments.extend(["--set".to_owned(), set]);
    }
    (space, arguments)
}

/// Replies that are written down.
fn recorded(space: &Space) -> usize {
    let books = list(&space.path(".rekindle/replies"));
    let lines = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // A line that was cut short has no end, or is no good and was paid for in vain.
        text.split_inclusive('\n').filter(|line| line.ends_with("}\n")).count()
    };
    books.iter().map(lines).sum()
}

/// Runs the study to its end through kills at these moments; how many answers
/// died on their way at each of them.
fn through(server: &Server, moments: &[Moment], space: &Space, arguments: &[String]) -> Vec<usize> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut lost = Vec::new();
    for &moment in moments {
        let known: usize = lost.iter().sum();
        let child = program(space, &arguments).stderr(Stdio::null()).spawn().unwrap();
        server.ledger.lock().unwrap().victim = Some((child, moment));
        let start = std::time::Instant::now();
        loop {
            let mut ledger = server.ledger.lock().unwrap();
            let (child, _) = ledger.victim.as_mut().unwrap();
            if child.try_wait().unwrap().is_some() {
                break;
            }
            if matches!(moment, Moment::Later(wait) if start.elapsed() >= wait) {
                child.kill().unwrap();
            }
            drop(ledger);
            std::thread::sleep(Duration::from_millis(3));
        }
        server.ledger.lock().unwrap().victim = None;
        lost.push(server.settled() + server.ledger.lock().unwrap().free - known - recorded(space));
    }
    Ran::of(&mut program(space, &arguments)).ok();
    lost
}

fn program(space: &Space, arguments: &[&str]) -> Command {
    let mut command = space.command(arguments);
    command.env("OPENAI_API_KEY", "sk-of-nobody");
    command
}

/// Moments of all kinds, other ones each time, with what they were drawn from.
fn moments(answers: usize) -> (u64, Vec<Moment>) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let mut chance = rekindle::base::seed::Seed(seed).rng();
    let mut nth: Vec<usize> =
        (0..4).map(|_| 1 + (chance.unit_f64() * (answers - 1) as f64) as usize).collect();
    nth.sort_unstable();
    let later = Moment::Later(Duration::from_secs_f64(0.1 + 1.4 * chance.unit_f64()));
    let moments = vec![
        Moment::Before(nth[0]),
        Moment::After(nth[1].max(nth[0] + 1)),
        later,
        Moment::Before(nth[2].max(nth[0] + 2)),
        Moment::After(nth[3].max(nth[0] + 3)),
    ];
    (seed, moments)
}

#[test]
fn a_study_killed_at_random_moments_is_billed_as_an_undisturbed_one() {
    let whole = Server::start(false);
    let (space, arguments) = study(&whole);
    assert_eq!(through(&whole, &[], &space, &arguments), [0; 0]);
    let once = whole.settled();
    assert!(once > 36, "{once} answers");
    assert_eq!(recorded(&space), once);

    // A server that heeds the names of questions.
    let (seed, drawn) = moments(once);
    let heedful = Server::start(true);
    let (killed, arguments) = study(&heedful);
    let lost = through(&heedful, &drawn, &killed, &arguments);
    let told = format!("seed {seed}, {drawn:?}, lost {lost:?}");
    assert_eq!(heedful.settled(), once, "{told}");
    let free = heedful.ledger.lock().unwrap().free;
    assert_eq!(free, lost.iter().sum::<usize>(), "{told}");
    assert!(free >= 1, "no answer was lost on its way: {told}");
    assert_eq!(killed.objects(), space.objects(), "{told}");

    // One that does not: what died on its way is paid for again, and nothing else.
    let (seed, drawn) = moments(once);
    let plain = Server::start(false);
    let (killed, arguments) = study(&plain);
    let lost = through(&plain, &drawn, &killed, &arguments);
    let told = format!("seed {seed}, {drawn:?}, lost {lost:?}");
    assert!(lost.iter().all(|&n| n <= CONCURRENCY), "{told}");
    assert_eq!(plain.settled(), once + lost.iter().sum::<usize>(), "{told}");
    assert_eq!(recorded(&killed), once, "{told}");
    assert_eq!(killed.objects(), space.objects(), "{told}");
    let ledgers = (plain.ledger.lock().unwrap(), whole.ledger.lock().unwrap());
    assert!(ledgers.0.billed.keys().eq(ledgers.1.billed.keys()), "other questions: {told}");
}
