//! The listening side: sockets, TLS, HTTP/1.1 and HTTP/2, their limits, and an orderly end.

mod connection;
mod connections;
mod listener;
mod shards;
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
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use connection::InFlight;
use connections::{AdmittedConnection, ConnectionTable};
use listener::CallerStream;
use pushlet_api::{InFlightRequests, Peer, Refusal};
use pushlet_settings::{Config, IpNetworks, LimitsConfig};
use stall_timeout::StallTimeout;
use stream::{AnswerStreams, OutgoingBody};

pub use listener::{
    InheritedSockets, Listeners, ServerCertificate, acceptor, reloadable_acceptor,
    that_fit as connections_that_fit,
};
pub use shards::{ShardThreads, Shards};

/// How long requests are still answered after the last connection was accepted, where callers were asked to go.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long connections are accepted that wait when no more may come.
const ACCEPT_REST: Duration = Duration::from_millis(20);
/// Bytes of a body that are read with its head.
const READ_AHEAD: u64 = 32 << 10;
/// After a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of the first line and the fields in HTTP/1.1. The library's buffer grows to 8, 24, 56 and 112 KiB, and what fits
/// into it is taken: the limit holds where it is one of these.
const HEAD_BYTES: usize = 56 << 10;
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
    /// At shutdown: how long to go on while callers are asked to go elsewhere.
    pub lame_duck: Duration,
    /// After that: how long to wait for requests in flight.
    pub drain: Duration,
    /// The threads that serve connections; None: those of the runtime.
    pub shards: Option<Shards>,
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
    shards: Option<Shards>,
}

impl Server {
    pub fn new(
        router: Router,
        in_flight: InFlightRequests,
        tls: Option<TlsAcceptor>,
        config: &Config,
    ) -> Self {
        let (limits, delivery) = (config.limits.clone(), &config.delivery);
        let (lame_duck, drain) = (delivery.lame_duck, delivery.drain);
        Self { router, in_flight, tls, limits, lame_duck, drain, shards: None }
    }

    /// Serves until `shutdown`. Then it goes on for `lame_duck`, while each response asks its caller to connect again;
    /// stops accepting; lets requests in flight finish for as long as `drain`, and returns. New requests on open
    /// connections get 503 in that time.
    pub async fn run(self, listeners: impl Into<Listeners>, shutdown: impl Future<Output = ()>) {
        let listeners = listeners.into();
        let shared = Arc::new(ServerShared {
            router: self.router,
            tls: self.tls,
            connections: ConnectionTable::new(&self.limits),
            proxies: Arc::new(self.limits.trusted_proxies.clone()),
            in_flight: self.in_flight.clone(),
            limits: self.limits,
            stopping: AtomicBool::new(false),
            shards: self.shards,
        });
        let mut tasks = JoinSet::new();
        let watching = tokio::spawn({
            let connections = shared.connections.clone();
            async move { connections.watch().await }
        });
        tokio::select! {
            () = shutdown => {}
            never = accept_all(&listeners, &shared, &mut tasks) => match never {},
        }
        self.in_flight.leave();
        if !self.lame_duck.is_zero() {
            tracing::info!(lame_duck = ?self.lame_duck, "leaving: not ready any more, and still serving");
            shared.connections.close_http2();
            go_on(&listeners, &shared, &mut tasks, self.lame_duck).await;
        }
        // From here on the kernel refuses connections, so that callers go elsewhere.
        drop(listeners);
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

/// Accepts for some more time, then those that wait already, and lets all of them have the answer to a request.
async fn go_on(listeners: &Listeners, shared: &Arc<ServerShared>, tasks: &mut JoinSet<()>, time: Duration) {
    let _ = timeout(time, accept_all(listeners, shared, tasks)).await;
    listeners.refuse_new();
    let _ = timeout(ACCEPT_REST, accept_all(listeners, shared, tasks)).await;
    tokio::time::sleep(LAST_CALL.min(time)).await;
}

async fn accept_all(
    listeners: &Listeners,
    shared: &Arc<ServerShared>,
    tasks: &mut JoinSet<()>,
) -> Infallible {
    loop {
        while tasks.try_join_next().is_some() {}
        match listeners.accept().await {
            Ok((stream, peer)) => {
                let admitted = shared.connections.admit(Peer::new(peer.ip(), &shared.proxies));
                let id = admitted.id();
                let connection = connection(stream, peer, shared.clone(), admitted);
                let task = match &shared.shards {
                    Some(shards) => shards.spawn(tasks, connection),
                    None => tasks.spawn(connection),
                };
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
    stream: CallerStream,
    peer: SocketAddr,
    shared: Arc<ServerShared>,
    admitted: AdmittedConnection,
) {
    let _counted = admitted.refusal.is_none().then(|| shared.in_flight.connected());
    let served = match stream {
        CallerStream::Tcp(stream) => serve_tcp(stream, &shared, &admitted).await,
        // Who may open it is a matter of its file's permissions.
        CallerStream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => serve(stream, Protocol::Unknown, &shared, &admitted).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = served {
        tracing::debug!(%peer, error, "connection failed");
    }
}

async fn serve_tcp(
    stream: std::net::TcpStream,
    shared: &Arc<ServerShared>,
    admitted: &AdmittedConnection,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::from_std(stream)?;
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = &shared.tls else {
        let Some(protocol) = admitted.connection.unless_closed(Protocol::of(&stream)).await else {
            return Ok(());
        };
        return serve(stream, protocol, shared, admitted).await;
    };
    // Boxed, so that a connection without TLS keeps no room for it.
    Box::pin(async {
        let accepted = timeout(shared.limits.header_timeout, acceptor.accept(stream)).await;
        let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        serve(stream, Protocol::Unknown, shared, admitted).await
    })
    .await
}

/// Serves HTTP to its end. The library's state is boxed: the task of a connection is small, and nothing in it is moved.
fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    protocol: Protocol,
    shared: &Arc<ServerShared>,
    admitted: &AdmittedConnection,
) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> {
    let (limits, refusal) = (&shared.limits, admitted.refusal);
    let stream = StallTimeout::new(stream, admitted.connection.clone(), limits);
    let streams = AnswerStreams::new(limits.write_timeout, limits.min_data_rate);
    let (shared, connection) = (shared.clone(), admitted.connection.clone());
    let builder = protocol.restrict(builder(limits, streams.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let in_flight = connection.begin();
        let stream = (request.version() == Version::HTTP_2).then(|| streams.begin());
        respond(&shared, &in_flight, request.map(Body::new), refusal).map(move |response| {
            Ok::<_, Infallible>(response.map(|body| OutgoingBody::new(body, stream, in_flight)))
        })
    });
    let protocol = Box::pin(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    admitted.connection.drive(protocol)
}

/// `beyond`: why the connection is refused, if it is.
fn respond(
    shared: &Arc<ServerShared>,
    in_flight: &InFlight,
    mut request: Request<Body>,
    beyond: Option<Refusal>,
) -> impl Future<Output = Response<Body>> + use<> {
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
    let shared = shared.clone();
    shared.router.clone().oneshot(request).map(move |responded| {
        let Ok(mut response) = responded;
        // An error may be sent before a body that does not fit into the buffer was read. The connection ends then, and
        // without this header a caller would send the next request into it.
        let is_unread =
            is_large && (response.status().is_client_error() || response.status().is_server_error());
        if may_close && (is_refused || is_unread || shared.in_flight.is_leaving()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}

/// RFC 9112, section 3.2: who reads another one of two than a proxy before it serves what that one refused.
fn has_one_host(request: &Request<Body>) -> bool {
    match request.headers().get_all(HOST).iter().take(2).count() {
        0 => request.version() != Version::HTTP_11,
        count => count == 1,
    }
}

/// What a caller speaks.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    /// The library reads the first bytes by themselves to tell, which costs the connection another buffer of 8 KiB.
    Unknown,
}

impl Protocol {
    /// Waits for the first bytes, which stay to be read.
    async fn of(stream: &TcpStream) -> Self {
        let mut first = [0; 3];
        match stream.peek(&mut first).await {
            // RFC 9113, section 3.4. No method of HTTP/1.1 is called so.
            Ok(3) if first == *b"PRI" => Self::Http2,
            Ok(3) => Self::Http1,
            // A failure is seen again by who reads.
            _ => Self::Unknown,
        }
    }

    fn restrict(self, builder: Builder<AnswerStreams>) -> Builder<AnswerStreams> {
        match self {
            Self::Http1 => builder.http1_only(),
            Self::Http2 => builder.http2_only(),
            Self::Unknown => builder,
        }
    }
}

fn builder(limits: &LimitsConfig, streams: AnswerStreams) -> Builder<AnswerStreams> {
    let mut builder = Builder::new(streams);
    // The library has one time for a request's head and for the wait for it: `ConnectionTable` has two.
    builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES).half_close(true);
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
