//! A server of a model as a process of its own, and a client that speaks plain
//! HTTP to it, so that a test sees every byte. Knows nothing of what is asked.

use crate::space::{Space, list};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interop/model")
}

/// A copy of the fixture with another context.
pub(crate) fn model_of_context(space: &Space, context: usize) -> PathBuf {
    let folder = space.path("model");
    std::fs::create_dir(&folder).unwrap();
    for file in list(&fixture()) {
        std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(context);
    std::fs::write(path, config.to_string()).unwrap();
    folder
}

/// A server that goes away with the test.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) told: Value,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let choice = &self.json()["choices"][0];
        let text = choice["text"].as_str().or_else(|| choice["message"]["content"].as_str());
        text.unwrap().to_owned()
    }

    /// The events of a stream; it must have come to its end.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(self.head.contains("text/event-stream"), "{}", self.head);
        let body = self.body.strip_suffix("data: [DONE]\n\n").unwrap();
        body.split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}

impl Served {
    pub(crate) fn start(space: &Space, model: &Path, more: &[&str]) -> Served {
        let mut arguments = vec!["serve", model.to_str().unwrap()];
        arguments.extend(more);
        if !more.contains(&"--device") {
            arguments.extend(["--device", "cpu"]);
        }
        arguments.extend(["--port", "0", "--json"]);
        let mut command = space.command(&arguments);
        let log = std::fs::File::create(space.path("serve.log")).unwrap();
        let mut child = command
            .env("PLANTED", "sk-planted-key")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = std::fs::read_to_string(space.path("serve.log")).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}{log}"));
        let port = told["url"].as_str().unwrap().trim_end_matches("/v1").rsplit(':').next();
        Served { port: port.unwrap().parse().unwrap(), child, told }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses need not read to the end.
        let _ = stream.write_all(body);
        stream
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        hear(self.send(method, path, headers, body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    pub(crate) fn complete(&self, body: Value) -> Answer {
        self.ask("POST", "/v1/completions", "", body.to_string().as_bytes())
    }

    pub(crate) fn chat(&self, body: Value) -> Answer {
        self.ask("POST", "/v1/chat/completions", "", body.to_string().as_bytes())
    }

    /// One of the counters.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with(&format!("rekindle_{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&Served) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// Reads an answer to its end.
pub(crate) fn hear(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // Who refuses a body that is still on its way may reset the connection behind its answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("no answer: {text:?}") };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_lowercase();
    let body =
        if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.into() };
    Answer { status, head, body }
}

pub(crate) fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text += &rest[..size];
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
    text
}
