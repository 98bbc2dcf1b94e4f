//! The sockets: from a request to the response of a push service, or to the reason why there is none.
//!
//! [`Transport::send`] never repeats a request whose outcome is unknown; a request that the peer certainly did
//! not process is sent again within the deadline. The crate knows nothing of notifications.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use request::PeerKey;

use dial::{DnsLookups, StreamDialer};
use http2::Http2Pools;
use https::HttpsPeers;
use pushlet_model::tenant::TenantId;
use tls::TlsConfigs;

pub use dial::{ByteStream, StreamPeer};
pub use rustls::pki_types::CertificateDer;

pub use error::{FailureCause, RequestState, SendError, SetupError};
pub use peer::{BreakerState, ConnectionStats};
pub use request::{ClientIdentity, Origin, OriginError, Protocol, Request, TlsCertificate};
pub use response::{ConnectionHandle, Response};
pub use route::{AddressFamily, Route};
pub use tls::{ClientError, http_client, read_certificates};

mod dial;
mod error;
mod frames;
mod guard;
mod http2;
mod https;
mod https_client;
mod peer;
mod request;
mod response;
mod route;
mod tls;

#[cfg(test)]
mod tests;

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Arc<TransportInner>);

struct TransportInner {
    http2: Http2Pools,
    https: HttpsPeers,
    streams: StreamDialer,
    tls: Arc<TlsConfigs>,
    draining: AtomicBool,
}

impl Transport {
    /// Reads the trusted roots. Opens no connection; must be called in a Tokio runtime.
    pub fn new(settings: TransportSettings) -> Result<Transport, SetupError> {
        let settings = Arc::new(settings);
        let tls = Arc::new(TlsConfigs::new(&settings)?);
        let lookups = DnsLookups::new(settings.redirect);
        let http2 = Http2Pools::new(tls.clone(), settings.clone(), lookups.clone());
        let https = HttpsPeers::new(tls.clone(), settings.clone(), lookups.clone());
        let streams = StreamDialer::new(tls.clone(), settings, lookups);
        let draining = AtomicBool::new(false);
        Ok(Transport(Arc::new(TransportInner { http2, https, streams, tls, draining })))
    }

    /// Sends one request and waits for its answer, until the deadline at most.
    ///
    /// If the future is dropped after the request was written, the answer is still awaited in the background.
    pub async fn send(&self, request: &Request) -> Result<Response, SendError> {
        let inner = &*self.0;
        // Before any work: nothing that is refused here may have been sent.
        if inner.draining.load(Ordering::Acquire) {
            return Err(SendError::not_sent(FailureCause::ShuttingDown, ""));
        }
        check(request)?;
        let key = PeerKey {
            origin: request.origin.clone(),
            identity: request.identity.key(&request.tenant),
            guarded: request.guarded,
        };
        match request.protocol {
            Protocol::Http2 => inner.http2.send(&key, request).await,
            Protocol::Https => Box::pin(inner.https.send(&key, request)).await,
        }
    }

    /// Opens a connection without HTTP. It belongs to the caller.
    pub async fn connect(&self, peer: &StreamPeer) -> Result<ByteStream, SendError> {
        match self.0.draining.load(Ordering::Acquire) {
            true => Err(SendError::not_sent(FailureCause::ShuttingDown, "")),
            false => self.0.streams.connect(peer).await,
        }
    }

    /// Trusts the system's authorities, read again, and these, for connections that are opened from now on.
    pub fn set_extra_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), SetupError> {
        self.0.tls.set_extra_roots(roots)
    }

    /// Open connections, and requests in flight and waiting.
    pub fn snapshot(&self) -> Vec<ConnectionStats> {
        let mut all = self.0.http2.snapshot();
        all.extend(self.0.https.snapshot());
        all
    }

    /// The identity is no longer used: closes its connections once their open streams finish.
    /// An anonymous identity is that of `tenant`.
    pub fn retire(&self, tenant: &TenantId, identity: &ClientIdentity) {
        let identity = identity.key(tenant);
        self.0.http2.retire(&identity);
        self.0.https.retire(&identity);
    }

    /// Refuses new requests with [`FailureCause::ShuttingDown`], lets those in flight finish, and closes the
    /// connections in order. Cuts what is left after `within`.
    pub async fn drain(&self, within: Duration) {
        self.0.draining.store(true, Ordering::Release);
        tokio::join!(self.0.http2.drain(within), self.0.https.drain(within));
    }
}

/// How the transport behaves. Every bound is per origin and identity unless it says otherwise.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Trusted in addition to the system's root certificates.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Where every connection goes, whatever its host, which keeps its name in TLS and HTTP: a recorder, while a
    /// provider is written. No address is forbidden then.
    pub redirect: Option<SocketAddr>,
    /// Time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Connections of one HTTP/2 pool.
    pub max_connections: usize,
    /// Streams of one HTTP/2 connection, where the peer allows that many.
    pub max_streams: usize,
    /// The way to all origins.
    pub route: Route,
    /// Requests that wait for a stream or, over HTTPS, for their turn.
    pub max_waiting: usize,
    /// Requests in flight over HTTPS.
    pub max_requests: usize,
    /// Pairs of origin and identity in the whole process, each for HTTP/2 and for HTTPS, divided among tenants:
    /// one alone gets a quarter.
    pub max_peers: usize,
    /// How long a fresh connection may be the reason not to open another one.
    pub probation: Duration,
    /// An HTTP/2 connection without a stream for this long is closed. Apple wants connections to be kept.
    pub idle_timeout: Duration,
    /// An HTTPS connection without requests is closed after this long, and a peer without requests forgotten.
    pub https_idle_timeout: Duration,
    /// Silence on an HTTP/2 connection after which it is tested with a PING.
    pub ping_after: Duration,
    /// How long the answer to a PING may take, and the orderly close of a connection.
    pub ping_timeout: Duration,
    /// Connects that must fail in a row for the circuit breaker to open.
    pub breaker_failures: u32,
    /// Pause after the first failed connect; it doubles with each further one.
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Bytes of a response's body.
    pub max_response: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        TransportSettings {
            extra_roots: Vec::new(),
            route: Route::default(),
            redirect: None,
            connect_timeout: Duration::from_secs(5),
            max_connections: 4,
            max_streams: 1_000,
            max_waiting: 10_000,
            max_requests: 256,
            max_peers: 40_000,
            probation: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(12 * 3600),
            https_idle_timeout: Duration::from_secs(90),
            ping_after: Duration::from_secs(3600),
            ping_timeout: Duration::from_secs(5),
            breaker_failures: 5,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            max_response: 64 * 1024,
        }
    }
}

/// Refuses a request that cannot be sent: an invalid path, fields that belong to the connection
/// (RFC 9113, section 8.2.2), and fields that the transport writes itself.
fn check(request: &Request) -> Result<(), SendError> {
    let invalid = |detail: String| SendError::not_sent(FailureCause::InvalidRequest, detail);
    if !request.path.as_str().starts_with('/') {
        return Err(invalid("the path must start with '/'".to_owned()));
    }
    let mut names = request.common_headers.keys().chain(request.headers.iter().map(|(name, _)| name));
    match names.find(|name| RESERVED_HEADERS.contains(&name.as_str())) {
        Some(name) => Err(invalid(format!("the header {name} is reserved"))),
        None => Ok(()),
    }
}

const RESERVED_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
