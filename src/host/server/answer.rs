//! The way back to a client: whole, or a head and then piece by piece from any
//! thread; and the body that hands the pieces to the connection.
//!
//! Knows nothing of what is said. When the connection goes away, so does its
//! end of the channel, and the other end knows.

use super::name;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// An answer in one piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// The status, such as 200.
    pub status: u16,
    /// `application/json` and so on.
    pub content_type: &'static str,
    /// More headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Whole {
    pub(super) fn into_response(self) -> Response<Pieces> {
        let Whole { status, content_type, headers, body } = self;
        let mut response = Response::new(Pieces::Whole(Some(body.into())));
        *response.status_mut() = status.try_into().expect("BUG: a status that is none");
        let map = response.headers_mut();
        map.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (key, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                map.insert(name(key), value);
            }
        }
        response
    }
}

/// Bytes of an answer that may wait for a client that reads slowly; one that
/// lets more of them wait is taken for gone.
const MOST_WAITING: usize = 32 << 20;

/// The end at which an answer is made. Dropping it ends the answer.
#[derive(Debug)]
pub struct Back {
    to: UnboundedSender<Piece>,
    /// Bytes of pieces that were not taken yet.
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Piece {
    Whole(Whole),
    /// The first of many pieces, of this type.
    Begin(&'static str),
    More(Bytes),
}

impl Back {
    /// Answers in one piece.
    pub fn whole(&self, whole: Whole) {
        // Nobody is left to be told that nobody is left.
        let _ = self.to.send(Piece::Whole(whole));
    }

    /// Begins an answer with status 200 of pieces.
    pub fn begin(&self, content_type: &'static str) {
        let _ = self.to.send(Piece::Begin(content_type));
    }

    /// Another piece.
    pub fn more(&self, bytes: Vec<u8>) {
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        let _ = self.to.send(Piece::More(bytes.into()));
    }

    /// Whether the client has gone away, or does not take what it asked for.
    pub fn is_gone(&self) -> bool {
        self.to.is_closed() || self.waiting.load(Ordering::Relaxed) > MOST_WAITING
    }
}

/// The end at which an answer is waited for.
pub(super) struct Coming(Pipe);

/// Pieces on their way.
pub(super) struct Pipe {
    from: UnboundedReceiver<Piece>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn channel() -> (Back, Coming) {
    let (to, from) = unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    (Back { to, waiting: waiting.clone() }, Coming(Pipe { from, waiting }))
}

impl Coming {
    /// The answer once it begins; none when nobody is left to give one.
    pub(super) async fn response(mut self) -> Option<Response<Pieces>> {
        match self.0.from.recv().await? {
            Piece::Whole(whole) => Some(whole.into_response()),
            Piece::Begin(content_type) => {
                let mut response = Response::new(Pieces::Many(self.0));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                headers.insert(name("cache-control"), HeaderValue::from_static("no-cache"));
                Some(response)
            }
            Piece::More(_) => None,
        }
    }
}

/// The body of an answer.
pub(super) enum Pieces {
    Whole(Option<Bytes>),
    Many(Pipe),
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes| Some(Ok(Frame::data(bytes)));
        match self.get_mut() {
            Pieces::Whole(bytes) => Poll::Ready(bytes.take().and_then(frame)),
            Pieces::Many(pipe) => pipe.from.poll_recv(cx).map(|piece| match piece {
                Some(Piece::More(bytes)) => {
                    pipe.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                    frame(bytes)
                }
                _ => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Pieces::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Pieces::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Pieces::Many(_) => SizeHint::default(),
        }
    }
}
