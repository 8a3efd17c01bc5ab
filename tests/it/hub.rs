//! A checkpoint from a hub, through the program: what is fetched, from whom,
//! how often, and what a person hears when the hub does not play along.

use crate::space::{Ran, Space, files, list};
use sha1::Digest as _;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_planted0123456789";
const MANIFEST: &str = r#"
rekindle = 1
name = "hub"
[stage.foreign]
kind = "import"
repository = "org/tiny"
revision = "REVISION"
"#;

/// One request: path, start of the range, and whether the token was with it.
type Asked = (String, Option<u64>, bool);
/// What to answer instead of the file: for the path and the count of earlier requests for it.
type Mischief = fn(&str, usize) -> Option<Trick>;

enum Trick {
    /// This status, with these headers.
    Status(&'static str),
    /// The file's first bytes, then the end of the connection.
    Cut(usize),
    /// The file's first bytes, then nothing for ever.
    Hold(usize),
    /// Other bytes.
    Other,
    /// The same file, but of another server.
    Away,
}

#[derive(Default)]
struct Ledger {
    asked: Vec<Asked>,
    /// Bytes of files that were sent.
    sent: usize,
    held: usize,
}

struct Hub {
    url: String,
    ledger: Arc<(Mutex<Ledger>, Condvar)>,
    /// Of another server, which must never see the token.
    away: Arc<(Mutex<Ledger>, Condvar)>,
}

impl Hub {
    /// Serves a folder of the fixtures; weights are said to be in LFS.
    fn start(checkpoint: &str, mischief: Mischief) -> Hub {
        let folder = fixture(checkpoint);
        let (url, ledger) = listen(folder.clone(), |_, _| None, String::new());
        let away = url.replace("127.0.0.1", "localhost");
        let (url, own) = listen(folder, mischief, away);
        Hub { url, ledger: own, away: ledger }
    }

    fn asked(&self) -> Vec<Asked> {
        self.ledger.0.lock().unwrap().asked.clone()
    }

    fn sent(&self) -> usize {
        self.ledger.0.lock().unwrap().sent
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

fn listen(
    folder: PathBuf,
    mischief: Mischief,
    away: String,
) -> (String, Arc<(Mutex<Ledger>, Condvar)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ledger = Arc::<(Mutex<Ledger>, Condvar)>::default();
    let shared = Arc::clone(&ledger);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (shared, folder, away) = (Arc::clone(&shared), folder.clone(), away.clone());
            std::thread::spawn(move || answer(stream, &folder, mischief, &away, &shared));
        }
    });
    (url, ledger)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of a file's content in the cache, and whether it is in LFS.
fn digest(path: &Path) -> (String, bool) {
    let bytes = std::fs::read(path).unwrap();
    let large = path.extension().is_some_and(|ending| ending == "safetensors" || ending == "bin");
    if large {
        return (hexadecimal(&sha2::Sha256::digest(&bytes)), true);
    }
    let head = format!("blob {}\0", bytes.len());
    (hexadecimal(&sha1::Sha1::digest([head.as_bytes(), &bytes].concat())), false)
}

fn tree(folder: &Path) -> String {
    let entry = |path: PathBuf| {
        let (oid, large) = digest(&path);
        let size = path.metadata().unwrap().len();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut entry = serde_json::json!({"type": "file", "path": name, "oid": oid, "size": size});
        if large {
            entry["oid"] = "f".repeat(40).into();
            entry["lfs"] = serde_json::json!({"oid": oid, "size": size, "pointerSize": 130});
        }
        entry
    };
    serde_json::Value::from(list(folder).into_iter().map(entry).collect::<Vec<_>>()).to_string()
}

fn answer(
    mut stream: TcpStream,
    folder: &Path,
    mischief: Mischief,
    away: &str,
    shared: &(Mutex<Ledger>, Condvar),
) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let lower = head.to_lowercase();
    let range = lower
        .split_once("range: bytes=")
        .and_then(|(_, rest)| rest.split('-').next().and_then(|start| start.parse::<u64>().ok()));
    let mut ledger = shared.0.lock().unwrap();
    let earlier = ledger.asked.iter().filter(|(other, ..)| *other == path).count();
    ledger.asked.push((path.clone(), range, head.contains(TOKEN)));
    let file = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
    let mut body = match file {
        Some(name) => std::fs::read(folder.join(name)).unwrap(),
        None if path.contains("/revision/") => format!("{{\"sha\":\"{COMMIT}\"}}").into_bytes(),
        None => tree(folder).into_bytes(),
    };
    let start = range.unwrap_or(0) as usize;
    let status = match range {
        Some(_) => format!(
            "206 Partial Content\r\ncontent-range: bytes {start}-{}/{}",
            body.len() - 1,
            body.len()
        ),
        None => "200 OK".to_owned(),
    };
    let (mut status, mut hold) = (status + "\r\netag: \"one\"", false);
    body.drain(..start);
    let mut length = body.len();
    match mischief(&path, earlier) {
        None => {}
        Some(Trick::Status(line)) => {
            (status, length) = (line.to_owned(), 0);
            body.clear();
        }
        Some(Trick::Away) => {
            (status, length) = (format!("302 Found\r\nlocation: {away}{path}"), 0);
            body.clear();
        }
        Some(Trick::Other) => body[0] ^= 1,
        Some(Trick::Cut(count)) => body.truncate(count),
        Some(Trick::Hold(count)) => {
            body.truncate(count);
            hold = true;
        }
    }
    ledger.sent += if file.is_some() { body.len() } else { 0 };
    drop(ledger);
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // A client that went away is the client's business.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    if hold {
        shared.0.lock().unwrap().held += 1;
        shared.1.notify_all();
        loop {
            std::thread::park();
        }
    }
}

fn space(revision: &str) -> Space {
    Space::with(&MANIFEST.replace("REVISION", revision))
}

fn command(
    space: &Space,
    arguments: &[&str],
    url: &str,
    more: &[(&str, &str)],
) -> std::process::Command {
    let mut command = space.command(&[arguments, &["--device", "cpu"]].concat());
    for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    let more = more.iter().copied();
    command.env("HF_HOME", space.path("hf")).env("HF_ENDPOINT", url);
    command.env("REKINDLE_RETRY_PAUSE", "0.001").envs(more);
    command
}

fn run_with(space: &Space, url: &str, more: &[(&str, &str)]) -> Ran {
    Ran::of(&mut command(space, &["run", "m.toml"], url, more))
}

/// Files of the cache by the name under which a commit has them.
fn snapshot(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let folder = space.path("hf/hub/models--org--tiny/snapshots").join(COMMIT);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    list(&folder).iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn what_is_needed_comes_once_and_the_token_stays_with_the_hub() {
    let hub = Hub::start("grouped", |path, _| path.ends_with("safetensors").then_some(Trick::Away));
    let space = space(COMMIT);
    let ran = run_with(&space, &hub.url, &[("HF_TOKEN", TOKEN)]).ok();
    assert!(hub.asked().iter().all(|(.., token)| *token), "{:?}", hub.asked());
    let elsewhere = hub.away.0.lock().unwrap().asked.clone();
    assert!(elsewhere.len() == 1 && !elsewhere[0].2, "{elsewhere:?}");

    let wanted = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    let cache = snapshot(&space);
    assert_eq!(cache.keys().collect::<Vec<_>>(), wanted);
    for (name, bytes) in &cache {
        let original = fixture("grouped").join(name);
        assert!(*bytes == std::fs::read(&original).unwrap(), "{name}");
        let link = space.path("hf/hub/models--org--tiny/snapshots").join(COMMIT).join(name);
        let target = Path::new("../../blobs").join(digest(&original).0);
        assert_eq!(std::fs::read_link(link).unwrap(), target);
    }
    assert!(!ran.out.contains(TOKEN) && !ran.err.contains(TOKEN));
    for path in files(&space.path("")) {
        let bytes = std::fs::read(&path).unwrap();
        let is_there = bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!is_there, "{}", path.display());
    }

    // Planned without a request; done anew from the cache without one, too.
    let before = hub.asked().len();
    let plan = command(&space, &["plan", "m.toml"], &hub.url, &[]).output().unwrap();
    assert!(String::from_utf8(plan.stderr).unwrap().contains("nothing to do"));
    std::fs::remove_dir_all(space.path(".rekindle")).unwrap();
    run_with(&space, &hub.url, &[]).ok();
    std::fs::remove_dir_all(space.path(".rekindle")).unwrap();
    run_with(&space, &hub.url, &[("HF_HUB_OFFLINE", "1")]).ok();
    assert_eq!(hub.asked().len(), before);
}

#[test]
fn a_cache_of_the_hubs_own_library_is_enough_and_none_is_told() {
    let space = space(COMMIT);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let ran = run_with(&space, "http://127.0.0.1:1", &offline);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("HF_HUB_OFFLINE allows no request"), "{}", ran.err);

    let shelf = space.path("other/models--org--tiny");
    let snapshot = shelf.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(shelf.join("blobs")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for path in list(&fixture("grouped")) {
        let digest = digest(&path).0;
        std::fs::copy(&path, shelf.join("blobs").join(&digest)).unwrap();
        let target = Path::new("../../blobs").join(digest);
        std::os::unix::fs::symlink(target, snapshot.join(path.file_name().unwrap())).unwrap();
    }
    let hub = Hub::start("grouped", |_, _| None);
    let cache = space.path("other");
    run_with(&space, &hub.url, &[("HF_HUB_CACHE", cache.to_str().unwrap())]).ok();
    assert_eq!(hub.asked(), []);
}

#[test]
fn only_the_better_weights_come_all_parts_of_them() {
    let hub = Hub::start("llama3", |_, _| None);
    let space = space(COMMIT);
    // That folder has no vocabulary, which is told when all else is there.
    let ran = run_with(&space, &hub.url, &[]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("neither `tokenizer.json` nor `tokenizer.model`"), "{}", ran.err);
    assert_eq!(snapshot(&space).len(), 7);
}

#[test]
fn refusals_say_what_to_do_and_are_not_repeated() {
    let refused = |mischief: Mischief, token: &[(&str, &str)]| {
        let hub = Hub::start("grouped", mischief);
        let ran = run_with(&space(COMMIT), &hub.url, token);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert_eq!(hub.asked().len(), 1, "{:?}", hub.asked());
        ran.err
    };
    let text = refused(|_, _| Some(Trick::Status("401 Unauthorized")), &[]);
    assert!(text.contains("401") && text.contains("set HF_TOKEN"), "{text}");
    let text = refused(|_, _| Some(Trick::Status("403 Forbidden")), &[("HF_TOKEN", TOKEN)]);
    assert!(text.contains("HF_TOKEN may not read it") && !text.contains(TOKEN), "{text}");
    let text =
        refused(|_, _| Some(Trick::Status("404 Not Found\r\nx-error-code: RepoNotFound")), &[]);
    assert!(text.contains("no such `repository`"), "{text}");
    let text =
        refused(|_, _| Some(Trick::Status("404 Not Found\r\nx-error-code: RevisionNotFound")), &[]);
    assert!(text.contains("no such `revision`"), "{text}");
}

#[test]
fn busy_hubs_are_asked_again_and_broken_ones_not_for_ever() {
    let hub = Hub::start("grouped", |_, earlier| {
        (earlier == 0).then_some(Trick::Status("429 Too Many Requests\r\nretry-after: 0"))
    });
    run_with(&space(COMMIT), &hub.url, &[]).ok();
    let hub = Hub::start("grouped", |_, _| Some(Trick::Status("500 Internal Server Error")));
    let ran = run_with(&space(COMMIT), &hub.url, &[]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("500") && ran.err.contains("HF_ENDPOINT"), "{}", ran.err);
    assert_eq!(hub.asked().len() % 5, 0, "{:?}", hub.asked());
}

fn size(names: &[&str]) -> usize {
    names.iter().map(|name| fixture("grouped").join(name).metadata().unwrap().len() as usize).sum()
}

const NEEDED: [&str; 4] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];

#[test]
fn what_came_before_a_break_does_not_come_twice() {
    let hub = Hub::start("grouped", |path, earlier| {
        (path.ends_with("safetensors") && earlier < 2).then_some(Trick::Cut(5000))
    });
    run_with(&space(COMMIT), &hub.url, &[]).ok();
    assert_eq!(hub.sent(), size(&NEEDED));
    let starts: Vec<_> = hub.asked().iter().filter_map(|(_, range, _)| *range).collect();
    assert_eq!(starts, [5000, 10000]);
}

#[test]
fn after_a_kill_the_rest_comes() {
    let hub = Hub::start("grouped", |path, earlier| {
        (path.ends_with("safetensors") && earlier == 0).then_some(Trick::Hold(5000))
    });
    let space = space(COMMIT);
    let mut child = command(&space, &["run", "m.toml"], &hub.url, &[]).spawn().unwrap();
    let none = |ledger: &mut Ledger| ledger.held == 0;
    drop(hub.ledger.1.wait_while(hub.ledger.0.lock().unwrap(), none).unwrap());
    let part = || {
        let blobs = list(&space.path("hf/hub/models--org--tiny/blobs"));
        blobs.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "part"))
    };
    while part().and_then(|path| path.metadata().ok()).is_none_or(|meta| meta.len() < 5000) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run_with(&space, &hub.url, &[]).ok();
    assert_eq!(hub.sent(), size(&NEEDED));
    assert_eq!(part(), None);
}

#[test]
fn another_content_is_refused_and_thrown_away() {
    let weights: Mischief = |path, _| path.ends_with("model.safetensors").then_some(Trick::Other);
    let words: Mischief = |path, _| path.ends_with("tokenizer.json").then_some(Trick::Other);
    for (name, mischief) in [("model.safetensors", weights), ("tokenizer.json", words)] {
        let hub = Hub::start("grouped", mischief);
        let space = space(COMMIT);
        let ran = run_with(&space, &hub.url, &[]);
        assert_eq!(ran.code, 4, "{ran:?}");
        let right = digest(&fixture("grouped").join(name)).0;
        assert!(ran.err.contains(&format!("{right} was expected")), "{}", ran.err);
        assert!(ran.err.contains("thrown away"), "{}", ran.err);
        assert!(!snapshot(&space).contains_key(name));
        let blobs = space.path("hf/hub/models--org--tiny/blobs");
        let left = list(&blobs).into_iter().filter(|path| path.to_str().unwrap().contains(&right));
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_branch_is_refused_with_the_commit_it_is_at() {
    let hub = Hub::start("grouped", |_, _| None);
    let ran = run_with(&space("main"), &hub.url, &[]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("`main` is no commit") && ran.err.contains(COMMIT), "{}", ran.err);
    for (old, new, text) in [
        ("revision = \"REVISION\"", "", "needs the `revision`"),
        ("repository = \"org/tiny\"", "", "a `revision` is one of"),
        ("repository = \"org/tiny\"", "repository = \"../tiny\"", "organisation/name"),
        ("repository", "folder = \"x\"\nrepository", "not both"),
    ] {
        let space = Space::with(&MANIFEST.replace(old, new));
        let ran = space.run(&["check", "m.toml"]);
        assert!(ran.code != 0 && ran.err.contains(text), "{}", ran.err);
    }
}
