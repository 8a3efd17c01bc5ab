//! An HTTP server: many connections on one thread, requests whole, answers
//! whole or piece by piece. What a client sends is bounded in bytes and time,
//! and so is what all of them send together.
//!
//! Knows no paths and no protocol above HTTP: a [`Handler`] says what is
//! answered. Who answers is told when the client has gone away.

mod answer;

use crate::base::failure::{Doing, Failure, Outcome};
use answer::Pieces;
pub use answer::{Back, Whole};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Threads that make requests out of bytes while connections are served.
const HANDLING: usize = 2;
/// How long the last answers have to reach their clients.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often the largest body is read past its bound, so that its sender hears why.
const READ_PAST: u64 = 16;

/// What clients may take of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one body.
    pub body: u64,
    /// Bytes of all bodies that are not answered yet.
    pub bodies: u64,
    /// Connections at once; more wait until one ends.
    pub connections: usize,
    /// Until headers, and then a body, must be there.
    pub patience: Duration,
}

/// A request as it came.
#[derive(Debug)]
pub struct Asked {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path, without what stands behind a `?`.
    pub path: String,
    /// What proves who asks: the header `authorization`.
    pub authorization: Option<Vec<u8>>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a request never became one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its body has more bytes than this.
    TooLarge(u64),
    /// Others' bodies fill what memory there is for them.
    Crowded,
    /// It did not come in time.
    TooSlow,
    /// It broke off.
    Broken,
    /// Whoever was to answer went away without a word.
    Unanswered,
}

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, now or later; must not wait long.
    fn answer(&self, asked: Asked, back: Back);

    /// What a client hears whose request could not be read.
    fn unread(&self, why: Unread) -> Whole;
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    ending: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens on a port of a host; port 0 is any free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(
        host: &str,
        port: u16,
        bounds: Bounds,
        handler: Arc<dyn Handler>,
    ) -> Outcome<Server> {
        let listening = || format!("listening on {host} port {port}");
        let listener = TcpListener::bind((host, port)).map_err(|error| {
            let hint = "`--port 0` takes any free port, `--host` another address";
            Failure::environment(listening()).caused_by(error).hint(hint)
        })?;
        listener.set_nonblocking(true).doing(listening)?;
        let address = listener.local_addr().doing(listening)?;
        let connections = bounds.connections.min(files_for_connections());
        let bounds = Bounds { connections, ..bounds };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HANDLING)
            .build()
            .doing(listening)?;
        let (ending, ended) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(accept(listener, bounds, handler, ended)))
            .doing(listening)?;
        Ok(Server { address, ending, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and ends when those under way have their
    /// answers, or do not take them.
    pub fn end(self) {
        // Without a receiver the server has ended already.
        let _ = self.ending.send(true);
        let _ = self.thread.join();
    }
}

/// As many connections as this process may open files for, some left for itself.
fn files_for_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Some systems refuse more than a part of the hard limit; what is there then stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(64).max(16)
}

/// What all connections share.
struct Shared {
    bounds: Bounds,
    handler: Arc<dyn Handler>,
    /// Bytes of bodies in memory.
    bodies: AtomicU64,
}

async fn accept(
    listener: TcpListener,
    bounds: Bounds,
    handler: Arc<dyn Handler>,
    ended: watch::Receiver<bool>,
) {
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.expect("BUG: a listener that does not block is refused");
    let room = Arc::new(Semaphore::new(bounds.connections));
    let shared = Arc::new(Shared { bounds, handler, bodies: AtomicU64::new(0) });
    let mut until_end = ended.clone();
    let mut end = pin!(until_end.wait_for(|&ended| ended));
    loop {
        let next = async { (room.clone().acquire_owned().await, listener.accept().await) };
        let Some((place, came)) = first(&mut end, next).await else { break };
        match came {
            Ok((stream, _)) => {
                let (shared, ended) = (shared.clone(), ended.clone());
                tokio::spawn(async move {
                    converse(stream, shared, ended).await;
                    drop(place);
                });
            }
            // No files are left, or the client was too quick to leave.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
    drop(listener);
    let all = u32::try_from(bounds.connections).unwrap_or(u32::MAX);
    let _ = timeout(FAREWELL, room.acquire_many(all)).await;
}

/// What `other` comes to, or nothing if `end` comes first.
async fn first<T>(end: &mut Pin<&mut impl Future>, other: impl Future<Output = T>) -> Option<T> {
    let mut other = pin!(other);
    poll_fn(|cx| {
        if end.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(None);
        }
        other.as_mut().poll(cx).map(Some)
    })
    .await
}

/// One connection, request after request.
async fn converse(stream: TcpStream, shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    // Pieces of an answer are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let patience = shared.bounds.patience;
    let service = service_fn(move |request| one(request, shared.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(1 << 16)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stopped = {
        let mut end = pin!(ended.wait_for(|&ended| ended));
        first(&mut end, connection.as_mut()).await.is_none()
    };
    if stopped {
        connection.as_mut().graceful_shutdown();
        // However it ends, it is over.
        let _ = connection.await;
    }
}

/// One request and its answer.
async fn one(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Pieces>, Infallible> {
    let mut held = Held { shared: &shared, bytes: 0 };
    let (head, body) = request.into_parts();
    let read = timeout(shared.bounds.patience, held.read(body)).await;
    let body = match read.unwrap_or(Err(Unread::TooSlow)) {
        Ok(body) => body,
        Err(why) => return Ok(shared.handler.unread(why).into_response()),
    };
    let asked = Asked {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        authorization: head.headers.get(header::AUTHORIZATION).map(|key| key.as_bytes().to_vec()),
        body,
    };
    let (back, coming) = answer::channel();
    let handler = shared.handler.clone();
    // A handler that panics drops its way back, which is seen below.
    let _ = tokio::task::spawn_blocking(move || handler.answer(asked, back)).await;
    drop(held);
    let response = coming.response().await;
    Ok(response.unwrap_or_else(|| shared.handler.unread(Unread::Unanswered).into_response()))
}

/// Bytes of bodies in memory, for as long as this lives.
struct Held<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Held<'_> {
    async fn read(&mut self, body: Incoming) -> Result<Vec<u8>, Unread> {
        let most = self.shared.bounds.body;
        let mut body = pin!(body);
        let (mut bytes, mut seen, mut refused) = (Vec::new(), 0, None);
        if body.size_hint().lower() > READ_PAST * most {
            return Err(Unread::TooLarge(most));
        }
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            seen += data.len() as u64;
            // The rest of what is refused is read and let go, so that the client, which mostly
            // listens only when it has sent all, hears why.
            if seen > most {
                (bytes, refused) = (Vec::new(), Some(Unread::TooLarge(most)));
                if seen > READ_PAST * most {
                    break;
                }
            } else if refused.is_none() && !self.take(data.len() as u64) {
                (bytes, refused) = (Vec::new(), Some(Unread::Crowded));
            }
            if refused.is_none() {
                bytes.extend_from_slice(&data);
            }
        }
        refused.map_or(Ok(bytes), Err)
    }

    fn take(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let before = self.shared.bodies.fetch_add(bytes, Ordering::Relaxed);
        before + bytes <= self.shared.bounds.bodies
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.bodies.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Names of headers come from this program.
fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}
