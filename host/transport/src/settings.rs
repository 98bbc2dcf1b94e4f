//! What the operator may set.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

/// How the transport behaves. Every bound is per origin and identity unless it says otherwise.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Trusted in addition to the system's root certificates.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Connections of one HTTP/2 pool.
    pub max_connections: usize,
    /// Streams of one HTTP/2 connection, where the peer allows that many.
    pub max_streams: usize,
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
