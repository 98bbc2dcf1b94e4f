//! The listening side: sockets, TLS, HTTP/1.1 and HTTP/2, their limits, and an orderly end.

mod connection;
mod connections;
mod listener;
mod stall_timeout;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HOST};
use axum::http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use connection::InFlight;
use connections::{AdmittedConnection, ConnectionTable};
use pushlet_api::{InFlightRequests, Peer, Refusal};
use pushlet_settings::{Config, IpNetworks, LimitsConfig};
use stall_timeout::StallTimeout;
use stream::{AnswerStreams, OutgoingBody};

pub use listener::{acceptor, listen, that_fit as connections_that_fit};

/// Bytes of a body that are read with its head.
const READ_AHEAD: u64 = 32 << 10;
/// After a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes; RFC 9113 section 6.5.2 adds 32 for each field.
const HEADER_BYTES: u32 = 32 << 10;

/// Everything that a server needs in addition to its listener.
pub struct Server {
    pub router: Router,
    /// What must end before the server may.
    pub in_flight: InFlightRequests,
    /// None: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    pub limits: LimitsConfig,
    /// At shutdown: how long to wait for requests in flight.
    pub drain: Duration,
}

/// What all connections share.
struct ServerShared {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: LimitsConfig,
    proxies: Arc<IpNetworks>,
    stopping: AtomicBool,
    connections: Arc<ConnectionTable>,
    in_flight: InFlightRequests,
}

impl Server {
    pub fn new(
        router: Router,
        in_flight: InFlightRequests,
        tls: Option<TlsAcceptor>,
        config: &Config,
    ) -> Self {
        Self { router, in_flight, tls, limits: config.limits.clone(), drain: config.delivery.drain }
    }

    /// Serves until `shutdown`, then stops accepting, lets requests in flight finish for as long as
    /// `drain`, and returns. New requests on open connections get 503 from then on.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let shared = Arc::new(ServerShared {
            router: self.router,
            tls: self.tls,
            connections: ConnectionTable::new(&self.limits),
            proxies: Arc::new(self.limits.trusted_proxies.clone()),
            in_flight: self.in_flight.clone(),
            limits: self.limits,
            stopping: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let watching = tokio::spawn({
            let connections = shared.connections.clone();
            async move { connections.watch().await }
        });
        tokio::select! {
            () = shutdown => {}
            never = accept_all(&listener, &shared, &mut tasks) => match never {},
        }
        // From here on the kernel refuses connections, so that callers go elsewhere.
        drop(listener);
        self.in_flight.close();
        shared.stopping.store(true, Ordering::Release);
        tracing::info!(connections = tasks.len(), under_way = self.in_flight.count(), "stopping");
        shared.connections.close();
        let ended = async {
            while tasks.join_next().await.is_some() {}
            self.in_flight.ended().await;
        };
        if timeout(self.drain, ended).await.is_err() {
            tracing::warn!(under_way = self.in_flight.count(), "stopped before everything was finished");
        }
        watching.abort();
        tasks.shutdown().await;
    }
}

async fn accept_all(
    listener: &TcpListener,
    shared: &Arc<ServerShared>,
    tasks: &mut JoinSet<()>,
) -> Infallible {
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let admitted = shared.connections.admit(Peer::new(peer.ip(), &shared.proxies));
                let id = admitted.id();
                let task = tasks.spawn(connection(stream, peer, shared.clone(), admitted));
                shared.connections.started(id, task);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end. One beyond the limit is served by turning its requests away.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<ServerShared>,
    admitted: AdmittedConnection,
) {
    let _counted = admitted.refusal.is_none().then(|| shared.in_flight.connected());
    let _ = stream.set_nodelay(true);
    let served = match &shared.tls {
        None => serve(stream, &shared, &admitted).await,
        Some(acceptor) => match timeout(shared.limits.header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, &shared, &admitted).await,
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
    shared: &Arc<ServerShared>,
    admitted: &AdmittedConnection,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (limits, refusal) = (&shared.limits, admitted.refusal);
    let stream = StallTimeout::new(stream, admitted.connection.clone(), limits);
    let streams = AnswerStreams::new(limits.write_timeout, limits.min_data_rate);
    let (shared, connection) = (shared.clone(), admitted.connection.clone());
    let builder = builder(limits, streams.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let in_flight = connection.begin();
        let stream = (request.version() == Version::HTTP_2).then(|| streams.begin());
        let shared = shared.clone();
        async move {
            let response = respond(&shared, &in_flight, request.map(Body::new), refusal).await;
            Ok::<_, Infallible>(response.map(|body| OutgoingBody::new(body, stream, in_flight)))
        }
    });
    let protocol = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    admitted.connection.drive(protocol).await
}

/// `beyond`: why the connection is refused, if it is.
async fn respond(
    shared: &ServerShared,
    in_flight: &InFlight,
    mut request: Request<Body>,
    beyond: Option<Refusal>,
) -> Response<Body> {
    let refusal = if shared.stopping.load(Ordering::Acquire) {
        Some(Refusal::ShuttingDown)
    } else if has_one_host(&request) {
        beyond
    } else {
        Some(Refusal::InvalidHost)
    };
    // HTTP/2 has no such header; there the connection is closed by GOAWAY.
    let may_close = request.version() < Version::HTTP_2;
    let is_large = request.body().size_hint().exact().is_none_or(|size| size > READ_AHEAD);
    let is_refused = refusal.is_some();
    if let Some(refusal) = refusal {
        request.extensions_mut().insert(refusal);
    }
    if beyond.is_some() {
        in_flight.connection().close();
    }
    request.extensions_mut().insert(in_flight.connection().peer.clone());
    let Ok(mut response) = shared.router.clone().oneshot(request).await;
    // An error may be sent before a body that does not fit into the buffer was read. The connection ends then, and
    // without this header a caller would send the next request into it.
    let is_unread = is_large && (response.status().is_client_error() || response.status().is_server_error());
    if may_close && (is_refused || is_unread) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// RFC 9112, section 3.2: who reads another one of two than a proxy before it serves what that one refused.
fn has_one_host(request: &Request<Body>) -> bool {
    match request.headers().get_all(HOST).iter().take(2).count() {
        0 => request.version() != Version::HTTP_11,
        count => count == 1,
    }
}

fn builder(limits: &LimitsConfig, streams: AnswerStreams) -> Builder<AnswerStreams> {
    let mut builder = Builder::new(streams);
    // The library has one time for a request's head and for the wait for it: `ConnectionTable` has two.
    builder.http1().header_read_timeout(None).max_buf_size(64 << 10).half_close(true);
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
