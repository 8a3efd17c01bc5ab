//! A server on this machine that misbehaves as servers do.

use super::*;
use crate::base::failure::Class;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const BODY: &[u8] = b"one two three four five six seven eight nine ten";

/// Answers one request after the other with `script(number, range)`, and
/// remembers what was asked for.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
}

fn serve(script: impl Fn(usize, Option<u64>) -> Vec<u8> + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/file", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let range = read_request(&stream);
            notes.lock().expect("no panic holds it").push(range);
            // A client that went away is the client's business.
            let _ = stream.write_all(&script(number, range));
        }
    });
    Server { url, asked }
}

/// The start of the range in the request's head.
fn read_request(stream: &TcpStream) -> Option<u64> {
    let mut range = None;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("range: bytes=") {
            range = rest.trim_end_matches('-').parse().ok();
        }
    }
    range
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn whole(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("content-length: {}\r\n", body.len()), body)
}

fn part(body: &[u8], start: u64) -> Vec<u8> {
    let rest = &body[start as usize..];
    let (last, all) = (body.len() - 1, body.len());
    let range =
        format!("content-range: bytes {start}-{last}/{all}\r\ncontent-length: {}\r\n", rest.len());
    answer("206 Partial Content", &range, rest)
}

/// The head of the whole file and its first `count` bytes, then nothing.
fn cut(body: &[u8], count: usize) -> Vec<u8> {
    let mut answer = whole(body);
    answer.truncate(answer.len() - body.len() + count);
    answer
}

fn refused(status: &str, headers: &str) -> Vec<u8> {
    answer(status, &format!("content-length: 0\r\n{headers}"), b"")
}

fn hurried() -> Patience {
    Patience {
        tries: 3,
        first: Duration::from_millis(5),
        longest: Duration::from_millis(200),
        connect: Duration::from_secs(5),
        body: Duration::from_secs(5),
    }
}

fn wanted<'a>(url: &'a str, partial: &'a Path) -> Wanted<'a> {
    let content = Content::Sha256(sha256(BODY));
    let advice = &|_: &Trouble| vec!["what to do".to_owned()];
    Wanted { url, content, partial, limit: 1000, token: None, advice }
}

struct Got {
    result: Outcome<Vec<u8>>,
    asked: Vec<Option<u64>>,
    kept: Option<Vec<u8>>,
}

fn get(
    kept: Option<&[u8]>,
    script: impl Fn(usize, Option<u64>) -> Vec<u8> + Send + 'static,
) -> Got {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let partial = folder.path().join("file.part");
    if let Some(bytes) = kept {
        std::fs::write(&partial, bytes).expect("writes");
    }
    let server = serve(script);
    let result = read(&wanted(&server.url, &partial), &hurried(), &|_, _| Ok(()));
    let asked = server.asked.lock().expect("no panic holds it").clone();
    Got { result, asked, kept: fs::read(&partial).expect("reads") }
}

#[test]
fn sha256_is_the_published_one() {
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b"abc"), abc);
}

#[test]
fn a_file_comes_whole_and_leaves_nothing_behind() {
    let got = get(None, |_, _| whole(BODY));
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!((got.asked, got.kept), (vec![None], None));
    // A body that ends with its connection.
    let got = get(None, |_, _| answer("200 OK", "", BODY));
    assert_eq!(got.result.expect("comes"), BODY);
}

#[test]
fn a_closed_connection_is_resumed_where_it_broke() {
    let got = get(None, |number, range| match (number, range) {
        (0, None) => cut(BODY, 20),
        (_, Some(start)) => part(BODY, start),
        _ => refused("400 Bad Request", ""),
    });
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!(got.asked, [None, Some(20)]);
    // Progress is made on every try: more tries than patience has.
    let got = get(None, |_, range| {
        let start = range.unwrap_or(0);
        let mut answer = part(BODY, start);
        if range.is_none() {
            return cut(BODY, 6);
        }
        let rest = BODY.len() - start as usize;
        answer.truncate(answer.len() - rest + rest.min(6));
        answer
    });
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!(got.asked.len(), 8);
}

#[test]
fn what_a_killed_run_left_is_used() {
    let got = get(Some(&BODY[..30]), |_, range| part(BODY, range.unwrap_or(0)));
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!(got.asked, [Some(30)]);
    // All of it was there.
    let all = BODY.len();
    let got = get(Some(BODY), move |_, _| {
        refused("416 Range Not Satisfiable", &format!("content-range: bytes */{all}\r\n"))
    });
    assert_eq!(got.result.expect("comes"), BODY);
    // A server without ranges begins again.
    let got = get(Some(&BODY[..30]), |_, _| whole(BODY));
    assert_eq!(got.result.expect("comes"), BODY);
}

#[test]
fn the_beginning_of_another_version_is_thrown_away() {
    let got = get(Some(b"ONE TWO"), |_, range| match range {
        Some(start) => part(BODY, start),
        None => whole(BODY),
    });
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!(got.asked, [Some(7), None]);
    // Longer than what is there now.
    let got = get(Some(&[b'x'; 500]), |_, range| match range {
        Some(_) => refused("416 Range Not Satisfiable", "content-range: bytes */48\r\n"),
        None => whole(BODY),
    });
    assert_eq!(got.result.expect("comes"), BODY);
}

#[test]
fn busy_and_broken_servers_are_asked_again() {
    let got = get(None, |number, _| match number {
        0 => refused("429 Too Many Requests", "retry-after: 0\r\n"),
        _ => whole(BODY),
    });
    assert_eq!(got.result.expect("comes"), BODY);
    // A date that has passed is no pause.
    let got = get(None, |number, _| match number {
        0 => refused("429 Too Many Requests", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        _ => whole(BODY),
    });
    assert_eq!(got.result.expect("comes"), BODY);
    let got = get(None, |number, _| match number {
        0 | 1 => refused("500 Internal Server Error", ""),
        _ => whole(BODY),
    });
    assert_eq!(got.result.expect("comes"), BODY);
    assert_eq!(got.asked.len(), 3);
    // An hour is more than our patience; so is a third refusal.
    let got = get(None, |_, _| refused("503 Service Unavailable", "retry-after: 3600\r\n"));
    let failure = got.result.expect_err("gives up");
    assert_eq!((failure.class, got.asked.len()), (Class::Environment, 3));
    assert!(failure.what.contains("503") && failure.hints == ["what to do"]);
}

#[test]
fn wrong_content_names_both_digests() {
    let got = get(None, |_, _| whole(b"something else"));
    let failure = got.result.expect_err("is refused");
    assert_eq!((failure.class, got.asked.len(), got.kept), (Class::Input, 1, None));
    assert!(
        failure.what.contains(&sha256(BODY)) && failure.what.contains(&sha256(b"something else"))
    );
}

#[test]
fn what_will_not_get_better_is_not_asked_again() {
    let got = get(None, |_, _| refused("404 Not Found", ""));
    assert!(got.result.expect_err("is refused").what.contains("404 Not Found"));
    assert_eq!(got.asked.len(), 1);
    for endless in [false, true] {
        let got = get(None, move |_, _| match endless {
            true => answer("200 OK", "", &[b'x'; 5000]),
            false => whole(&[b'x'; 5000]),
        });
        assert!(got.result.expect_err("is refused").what.contains("larger than"));
        assert_eq!((got.asked.len(), got.kept), (1, None));
    }
}

#[test]
fn without_a_server_or_on_a_wish_to_stop_it_ends() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let partial = folder.path().join("file.part");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let url = format!("http://{free}/file");
    let wanted = wanted(&url, &partial);
    let failure = read(&wanted, &hurried(), &|_, _| Ok(())).expect_err("nobody is there");
    assert_eq!(failure.class, Class::Environment);
    let stop = |_, _| Err(Failure::interrupted());
    let failure = read(&wanted, &hurried(), &stop).expect_err("is stopped");
    assert_eq!(failure.class, Class::Interrupted);
}
