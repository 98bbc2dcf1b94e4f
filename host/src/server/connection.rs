//! One caller's connection: what it does now, and the order to close it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use hyper_util::server::graceful::GracefulConnection;

use pushlet_api::Peer;

/// One request in the lower half of the counter, where those in flight are counted, and one in the upper half, where
/// all are.
const ONE: u64 = 1 << 32 | 1;

/// What the tasks of one connection share with the table of all connections. Nothing here reads a clock: the table
/// looks from time to time whether something has changed.
pub struct ConnectionState {
    pub peer: Arc<Peer>,
    requests: AtomicU64,
    /// HTTP/2: what comes in between requests (PING, WINDOW_UPDATE) is no beginning of another.
    http2: AtomicBool,
    /// Bytes came that may be the beginning of a request.
    head: AtomicBool,
    closing: AtomicBool,
    waker: AtomicWaker,
}

/// A request, until its answer has been written.
pub struct InFlight(Arc<ConnectionState>);

/// What a connection does. If it is the same at two looks, nothing happened between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectionActivity {
    requests: u64,
    pub is_http2: bool,
    /// A request's head has begun to arrive.
    pub head: bool,
}

impl ConnectionState {
    pub fn new(peer: Arc<Peer>) -> Self {
        let (requests, http2, head, closing, waker) = Default::default();
        Self { peer, requests, http2, head, closing, waker }
    }

    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(ONE, Ordering::Relaxed);
        self.head.store(false, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Bytes came in.
    pub fn heard(&self) {
        if !self.http2.load(Ordering::Relaxed) {
            self.head.store(true, Ordering::Relaxed);
        }
    }

    pub fn speaks_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
        self.head.store(false, Ordering::Relaxed);
    }

    pub fn activity(&self) -> ConnectionActivity {
        ConnectionActivity {
            requests: self.requests.load(Ordering::Relaxed),
            is_http2: self.http2.load(Ordering::Relaxed),
            head: self.head.load(Ordering::Relaxed),
        }
    }

    /// Lets requests in flight end, takes no further ones, and closes.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    #[cfg(test)]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns what comes of `work`; None: [`ConnectionState::close`] was called before.
    pub fn unless_closed<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        let (mut work, mut last_look) = (Box::pin(work), None);
        poll_fn(move |cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_closing(&mut last_look, cx).map(|()| None),
        })
    }

    /// Runs the protocol to its end, which comes early if [`ConnectionState::close`] is called.
    pub fn drive<C: GracefulConnection>(
        &self,
        mut protocol: Pin<Box<C>>,
    ) -> impl Future<Output = Result<(), C::Error>> {
        let (mut last_look, mut closed) = (None, false);
        poll_fn(move |cx| {
            if let Poll::Ready(ended) = protocol.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if closed {
                return Poll::Pending;
            }
            ready!(self.poll_closing(&mut last_look, cx));
            closed = true;
            protocol.as_mut().graceful_shutdown();
            protocol.as_mut().poll(cx)
        })
    }

    /// Completes after [`ConnectionState::close`], when the runtime has looked at its sockets once more: a request that
    /// has arrived by then is answered.
    fn poll_closing(&self, last_look: &mut Option<BoxFuture<'static, ()>>, cx: &mut Context<'_>) -> Poll<()> {
        // In this order: an order that comes between the two wakes this task.
        self.waker.register(cx.waker());
        if !self.closing.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        last_look.get_or_insert_with(|| tokio::task::yield_now().boxed()).as_mut().poll(cx)
    }
}

impl InFlight {
    pub fn connection(&self) -> &ConnectionState {
        &self.0
    }
}

impl ConnectionActivity {
    pub fn in_flight(self) -> bool {
        self.requests as u32 > 0
    }

    /// Returns how many requests came since an earlier reading.
    pub fn requests_since(self, earlier: Self) -> u32 {
        ((self.requests >> 32) as u32).wrapping_sub((earlier.requests >> 32) as u32)
    }

    /// No request came yet.
    pub fn is_fresh(self) -> bool {
        self.requests == 0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Bytes of its body that were read after its head are no beginning of the next. Where the next request was
        // sent already and has arrived in part, that part is not seen as a head, and may take as long as an idle
        // connection stays open.
        self.0.head.store(false, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use axum::body::Body;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A caller, and the server's side of its connection.
    async fn connected() -> (TcpStream, tokio::net::TcpStream, Arc<ConnectionState>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        (caller, stream, Arc::new(ConnectionState::new(Arc::new(Peer::new(address.ip(), &Arc::default())))))
    }

    #[tokio::test]
    async fn a_request_that_has_arrived_is_answered_before_the_connection_is_closed() {
        let (mut caller, stream, connection) = connected().await;
        let service = service_fn(|_| async { Ok::<_, Infallible>(hyper::Response::new(Body::empty())) });
        let protocol = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let driven = connection.clone();
        let task = tokio::spawn(async move { driven.drive(Box::pin(protocol)).await });
        // It waits for its first request.
        tokio::task::yield_now().await;
        // Nothing else runs on this thread until the next `await`.
        caller.write_all(REQUEST).unwrap();
        connection.close();
        task.await.unwrap().unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn first_bytes_that_have_arrived_are_seen_before_the_connection_is_closed() {
        let (mut caller, stream, connection) = connected().await;
        let watched = connection.clone();
        let task = tokio::spawn(async move { watched.unless_closed(stream.peek(&mut [0])).await.is_some() });
        tokio::task::yield_now().await;
        caller.write_all(REQUEST).unwrap();
        connection.close();
        assert!(task.await.unwrap());
    }
}
