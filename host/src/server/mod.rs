//! The listening side: sockets, TLS, HTTP/1.1 and HTTP/2, their limits, and an orderly end.

mod patience;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

pub use tls::acceptor;

use crate::config::{Config, Limits};
use crate::http::{Refusal, UnderWay};
use patience::Patience;

/// Connections beyond the limit that still get an answer, which is 503.
const SPARE_CONNECTIONS: usize = 64;
/// Bytes of a body that are read with its head.
const READ_AHEAD: u64 = 32 << 10;
/// After a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes; RFC 9113 section 6.5.2 counts 32 for each field beside its text.
const HEADER_BYTES: u32 = 32 << 10;

/// What a server needs beside its listener.
pub struct Server {
    pub router: Router,
    /// What must end before the server may.
    pub under_way: UnderWay,
    /// None: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    pub limits: Limits,
    /// At shutdown: how long to wait for what is under way.
    pub drain: Duration,
}

/// What all connections share.
struct Shared {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    builder: Builder<TokioExecutor>,
    stopping: AtomicBool,
    connections: Arc<Semaphore>,
    under_way: UnderWay,
}

impl Server {
    pub fn new(router: Router, under_way: UnderWay, tls: Option<TlsAcceptor>, config: &Config) -> Self {
        Self { router, under_way, tls, limits: config.limits.clone(), drain: config.delivery.drain }
    }

    /// Serves until `shutdown`, then stops to accept, lets what is under way finish for as long as
    /// `drain`, and returns. New requests on open connections get 503 from then on.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let shared = Arc::new(Shared {
            router: self.router,
            tls: self.tls,
            builder: builder(&self.limits),
            connections: Arc::new(Semaphore::new(self.limits.connections)),
            under_way: self.under_way.clone(),
            limits: self.limits,
            stopping: AtomicBool::new(false),
        });
        let graceful = GracefulShutdown::new();
        let mut tasks = JoinSet::new();
        tokio::select! {
            () = shutdown => {}
            never = accept_all(&listener, &shared, &graceful, &mut tasks) => match never {},
        }
        drop(listener);
        self.under_way.close();
        shared.stopping.store(true, Ordering::Release);
        tracing::info!(connections = tasks.len(), under_way = self.under_way.count(), "stopping");
        let ended = async {
            graceful.shutdown().await;
            self.under_way.ended().await;
        };
        if timeout(self.drain, ended).await.is_err() {
            tracing::warn!(under_way = self.under_way.count(), "stopped before everything was finished");
        }
        tasks.shutdown().await;
    }
}

async fn accept_all(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    graceful: &GracefulShutdown,
    tasks: &mut JoinSet<()>,
) -> Infallible {
    let spare = Arc::new(Semaphore::new(SPARE_CONNECTIONS));
    loop {
        while tasks.try_join_next().is_some() {}
        // One of the spare places is kept free for the connection that is accepted next.
        let Ok(place) = spare.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = shared.connections.clone().try_acquire_owned().ok();
                let busy = served.is_none();
                let place = served.unwrap_or(place);
                tasks.spawn(connection(stream, peer, shared.clone(), graceful.watcher(), place, busy));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end. `busy`: by turning every request away.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
    busy: bool,
) {
    let _counted = (!busy).then(|| shared.under_way.connected());
    let _ = stream.set_nodelay(true);
    let served = match &shared.tls {
        None => serve(stream, &shared, watcher, busy).await,
        Some(acceptor) => match timeout(shared.limits.header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, &shared, watcher, busy).await,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        },
    };
    if let Err(error) = served {
        tracing::debug!(%peer, error, "connection failed");
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    shared: &Arc<Shared>,
    watcher: Watcher,
    busy: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = Patience::new(stream, shared.limits.header_timeout, shared.limits.write_timeout);
    let service = service_fn(|request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(&shared, request.map(Body::new), busy).await) }
    });
    let connection = shared.builder.serve_connection(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

async fn respond(shared: &Shared, mut request: Request<Body>, busy: bool) -> Response<Body> {
    let refusal = if shared.stopping.load(Ordering::Acquire) {
        Some(Refusal::ShuttingDown)
    } else {
        busy.then_some(Refusal::TooManyConnections)
    };
    // HTTP/2 has no such header; there the connection is closed by GOAWAY.
    let may_close = request.version() < Version::HTTP_2;
    let is_large = request.body().size_hint().exact().is_none_or(|size| size > READ_AHEAD);
    let is_refused = refusal.is_some();
    if let Some(refusal) = refusal {
        request.extensions_mut().insert(refusal);
    }
    let Ok(mut response) = shared.router.clone().oneshot(request).await;
    // An error may be told before a body was read that does not fit into the buffer. The connection ends then, and
    // a caller who is not told sends the next request into it.
    let is_unread = is_large && (response.status().is_client_error() || response.status().is_server_error());
    if may_close && (is_refused || is_unread) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(64 << 10)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

#[cfg(test)]
mod tests;
