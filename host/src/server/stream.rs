//! Outgoing responses: in pieces, and each HTTP/2 stream with a time limit of its own.
//!
//! A caller that does not read one of its HTTP/2 streams cannot be seen at the socket, since others go on. And where a
//! body is handed over in one piece, the library keeps all of it until it has been read, and the request has ended.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::connection::InFlight;
use super::stall_timeout::{TransferPace, stalled};

/// Bytes that are handed over at once.
const PIECE: usize = 16 << 10;
/// Bytes of the last piece of what is longer. HTTP/2 takes a piece as soon as the window has room for its first byte,
/// so this is all that may still lie in memory, unread, when the request is over.
const LAST_PIECE: usize = 1 << 10;
/// Bytes of results that go to an HTTP/1.1 caller in one chunk: each chunk costs both sides, and the socket's own time
/// limits hold for it.
const CHUNK: usize = 64 << 10;

/// A body on its way to the caller.
pub struct OutgoingBody {
    body: Body,
    /// Of what the body gave last.
    rest: Bytes,
    /// Bytes that are not cut.
    whole: usize,
    stream: Option<Arc<AnswerStream>>,
    _in_flight: InFlight,
}

/// What is known of one HTTP/2 stream's answer.
#[derive(Default)]
pub struct AnswerStream {
    /// Bytes that the library took. It asks for more once the last of them found room in the caller's window.
    taken: AtomicUsize,
    /// A piece waits for room.
    waiting: AtomicBool,
    piece: AtomicUsize,
}

impl OutgoingBody {
    pub fn new(body: Body, stream: Option<Arc<AnswerStream>>, in_flight: InFlight) -> Self {
        let is_chunked = stream.is_none() && body.size_hint().exact().is_none();
        let whole = if is_chunked { CHUNK } else { LAST_PIECE };
        Self { body, rest: Bytes::new(), whole, stream, _in_flight: in_flight }
    }
}

impl hyper::body::Body for OutgoingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(stream) = &this.stream {
            stream.asked();
        }
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = cut(&mut this.rest, this.whole);
        if let Some(stream) = &this.stream {
            stream.handed(piece.len());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        // The bounds in this order: the lower must never be above the upper.
        if let Some(upper) = left.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(left.lower().saturating_add(rest));
        hint
    }
}

/// Cuts off the next piece.
fn cut(rest: &mut Bytes, whole: usize) -> Bytes {
    if rest.len() <= whole {
        return std::mem::take(rest);
    }
    rest.split_to((rest.len() - LAST_PIECE).min(PIECE))
}

impl AnswerStream {
    fn handed(&self, bytes: usize) {
        self.piece.store(bytes, Ordering::Relaxed);
        self.waiting.store(true, Ordering::Relaxed);
    }

    fn asked(&self) {
        if self.waiting.swap(false, Ordering::Relaxed) {
            self.taken.fetch_add(self.piece.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Runs the streams of one HTTP/2 connection, and resets those whose answers are not read.
#[derive(Clone)]
pub struct AnswerStreams {
    /// The stream that the library makes next: it calls the service and hands the future that waits for it here,
    /// with nothing in between.
    next: Arc<Mutex<Option<Arc<AnswerStream>>>>,
    grace: Duration,
    rate: usize,
}

impl AnswerStreams {
    /// `grace`: how far an answer may lag behind. `rate`: bytes per second.
    pub fn new(grace: Duration, rate: usize) -> Self {
        Self { next: Arc::default(), grace, rate }
    }

    /// For the request that the service is called with now.
    pub fn begin(&self) -> Arc<AnswerStream> {
        let stream = Arc::new(AnswerStream::default());
        *self.next.lock() = Some(stream.clone());
        stream
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for AnswerStreams {
    fn execute(&self, future: F) {
        let next = self.next.lock().take();
        let pace = TransferPace::new(self.grace, self.rate);
        match next {
            Some(stream) => drop(tokio::spawn(until_stalled(future, stream, pace))),
            None => drop(tokio::spawn(future)),
        }
    }
}

/// Runs the future until the answer is not read any more: dropping it resets the stream.
fn until_stalled<F: Future>(
    future: F,
    stream: Arc<AnswerStream>,
    mut pace: TransferPace,
) -> impl Future<Output = ()> {
    // Boxed, since it is large, and what is pinned in place is kept twice: where it came from, and where it is pinned.
    let mut future = Box::pin(future);
    let mut counted = 0;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(move |cx| {
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let taken = stream.taken.load(Ordering::Relaxed);
        if taken != counted {
            pace.moved(taken - counted);
            counted = taken;
        }
        if !stream.waiting.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        stalled(&mut timer, pace.wait(), cx).map(|_| tracing::debug!("an answer was not read in time"))
    })
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
