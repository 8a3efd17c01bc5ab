//! A server on this machine that misbehaves as servers do.

use super::*;
use crate::base::failure::Class;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One request, as it came.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: String,
}

struct Local {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// Answers the n-th request with what `script` says, and closes.
fn serve(script: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> Local {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            notes.lock().expect("no panic holds it").push(request(&stream));
            // A client that went away is the client's business.
            let _ = stream.write_all(&script(number));
        }
    });
    Local { url, seen }
}

fn request(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("a whole request");
    Request { head, body: String::from_utf8(body).expect("text") }
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn completion(text: &str, finish: &str) -> String {
    json(&serde_json::json!({
        "id": "c-1", "object": "chat.completion", "model": "m@main",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                     "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }))
}

fn json(value: &Value) -> String {
    value.to_string()
}

fn said(text: &str) -> Vec<u8> {
    answer("200 OK", "content-type: application/json\r\n", &completion(text, "stop"))
}

fn hurried<'a>(url: &'a str, key_env: Option<&'a str>) -> Server<'a> {
    Server {
        base_url: url,
        key_env,
        requests_per_minute: 0,
        tokens_per_minute: 0,
        patience: Patience {
            tries: 3,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(200),
            body: Duration::from_secs(5),
            ..Patience::default()
        },
    }
}

fn ask(url: &str) -> Outcome<Reply> {
    let server = hurried(url, None);
    Client::open(&server)?.ask(b"{\"model\":\"m\"}", "q1", 10, &|| Ok(()))
}

fn refused(url: &str) -> Failure {
    ask(url).expect_err("it should fail")
}

#[test]
fn a_reply_comes_with_its_ending_and_its_cost() {
    let server = serve(|_| said("four"));
    let reply = ask(&server.url).expect("answers");
    assert_eq!((reply.text.as_str(), reply.end), ("four", End::Whole));
    assert_eq!((reply.read, reply.written, reply.model.as_str()), (11, 3, "m@main"));
    let seen = server.seen.lock().expect("whole")[0].clone();
    assert!(seen.head.starts_with("POST /v1/chat/completions "), "{}", seen.head);
    assert_eq!(seen.body, "{\"model\":\"m\"}");
    assert!(!seen.head.to_lowercase().contains("authorization"));
    let server = serve(|_| answer("200 OK", "", &completion("fo", "length")));
    assert_eq!(ask(&server.url).expect("answers").end, End::CutOff);
    let server = serve(|_| answer("200 OK", "", &completion("", "content_filter")));
    assert_eq!(ask(&server.url).expect("answers").end, End::Refused);
    let body = r#"{"choices":[{"message":{"content":null,"refusal":"I will not"}}]}"#;
    let server = serve(move |_| answer("200 OK", "", body));
    let reply = ask(&server.url).expect("answers");
    assert_eq!((reply.text.as_str(), reply.end, reply.read), ("", End::Refused, 0));
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let bad: Vec<Vec<u8>> = vec![
        answer("429 Too Many Requests", "retry-after: 0.02\r\n", "{}"),
        answer("500 Internal Server Error", "", "oops"),
        answer("503 Service Unavailable", "", "<html>busy</html>"),
        answer("200 OK", "content-type: text/html\r\n", "<html>a proxy</html>"),
        answer("200 OK", "", "{\"choices\":[]}"),
        answer("200 OK", "", "{\"choices\":"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\"".to_vec(),
        b"\x16\x03\x01garbage".to_vec(),
        Vec::new(),
    ];
    for first in bad {
        let shown = String::from_utf8_lossy(&first).into_owned();
        let server = serve(move |n| if n < 2 { first.clone() } else { said("four") });
        let reply = ask(&server.url).unwrap_or_else(|failure| panic!("{failure} after {shown}"));
        assert_eq!(reply.text, "four");
        assert_eq!(server.seen.lock().expect("whole").len(), 3, "{shown}");
    }
}

#[test]
fn trouble_that_stays_is_told_and_what_cannot_get_better_is_not_tried_again() {
    let server =
        serve(|_| answer("500 Internal Server Error", "", r#"{"error":{"message":"on fire"}}"#));
    let failure = refused(&server.url);
    assert_eq!(failure.class, Class::Environment);
    assert!(failure.what.ends_with("500 Internal Server Error: on fire"), "{}", failure.what);
    assert_eq!(server.seen.lock().expect("whole").len(), 3);

    let unknown =
        r#"{"error":{"message":"The model `m` does not exist","code":"model_not_found"}}"#;
    let server = serve(move |_| answer("404 Not Found", "", unknown));
    let failure = refused(&server.url);
    assert_eq!(failure.class, Class::Input);
    assert!(failure.what.contains("The model `m` does not exist"), "{}", failure.what);
    assert_eq!(server.seen.lock().expect("whole").len(), 1);

    let empty = r#"{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}"#;
    let server = serve(move |_| answer("429 Too Many Requests", "", empty));
    assert!(refused(&server.url).hints[0].contains("nothing left"));
    assert_eq!(server.seen.lock().expect("whole").len(), 1);

    let server =
        serve(|_| answer("422 Unprocessable", "", r#"{"detail":"Unexpected fields {'x'}"}"#));
    assert!(refused(&server.url).what.contains("Unexpected fields"));

    let server =
        serve(|_| answer("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", ""));
    assert!(refused(&server.url).hints[0].contains("redirections"));

    let huge = " ".repeat(17 << 20);
    let server = serve(move |_| answer("200 OK", "", &huge));
    assert!(refused(&server.url).what.contains("more than 16 MiB"));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let mut server = hurried(&url, None);
    (server.patience.body, server.patience.tries) = (Duration::from_millis(80), 2);
    let client = Client::open(&server).expect("no key is needed");
    let failure = client.ask(b"{}", "q", 0, &|| Ok(())).expect_err("nobody answers");
    assert_eq!(failure.class, Class::Environment);
    let calls = AtomicUsize::new(0);
    let stop = || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(Failure::interrupted()),
    };
    let failure = client.ask(b"{}", "q", 0, &stop).expect_err("it was stopped");
    assert_eq!(failure.class, Class::Interrupted);
}

#[test]
fn a_missing_key_is_named_before_anything_is_sent() {
    let server = hurried("http://127.0.0.1:1/v1", Some("REKINDLE_TEST_NO_SUCH_KEY"));
    let failure = Client::open(&server).err().expect("no key");
    assert!(failure.what.contains("REKINDLE_TEST_NO_SUCH_KEY"), "{}", failure.what);
}

#[test]
fn many_at_once_share_the_connections_and_each_gets_an_answer() {
    let server = serve(|_| said("four"));
    let wanted = hurried(&server.url, None);
    let client = Client::open(&wanted).expect("no key is needed");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(
                        client.ask(b"{}", "q", 1, &|| Ok(())).expect("answers").text,
                        "four"
                    );
                }
            });
        }
    });
    assert_eq!(server.seen.lock().expect("whole").len(), 80);
}
