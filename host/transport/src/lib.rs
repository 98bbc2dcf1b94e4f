//! The sockets: from a request to the response of a push service, or to the reason why there is none.
//!
//! [`Transport::send`] never repeats a request whose outcome is unknown; a request that the peer certainly did
//! not process is sent again within the deadline. The crate knows nothing of notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use request::PeerKey;

use dial::DnsLookups;
use http2::Http2Pools;
use https::HttpsPeers;
use pushlet_model::tenant::TenantId;
use tls::TlsConfigs;

pub use error::{FailureCause, RequestState, SendError, SetupError};
pub use peer::{BreakerState, ConnectionStats};
pub use request::{ClientIdentity, Origin, OriginError, Protocol, Request, TlsCertificate};
pub use response::{ConnectionHandle, Response};
pub use settings::TransportSettings;
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
mod settings;
mod tls;

#[cfg(test)]
mod tests;

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Arc<TransportInner>);

struct TransportInner {
    http2: Http2Pools,
    https: HttpsPeers,
    draining: AtomicBool,
}

impl Transport {
    /// Reads the trusted roots. Opens no connection; must be called in a Tokio runtime.
    pub fn new(settings: TransportSettings) -> Result<Transport, SetupError> {
        let settings = Arc::new(settings);
        let tls = Arc::new(TlsConfigs::new(&settings)?);
        let lookups = DnsLookups::new();
        let http2 = Http2Pools::new(tls.clone(), settings.clone(), lookups.clone());
        let https = HttpsPeers::new(tls, settings, lookups);
        Ok(Transport(Arc::new(TransportInner { http2, https, draining: AtomicBool::new(false) })))
    }

    /// Sends one request and waits for its answer, until the deadline at most.
    ///
    /// If the future is dropped after the request was written, the answer is still awaited in the background.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep the request twice")]
    pub fn send(&self, request: Request) -> impl Future<Output = Result<Response, SendError>> {
        async move {
            let inner = &*self.0;
            // Before any work: nothing that is refused here may have been sent.
            if inner.draining.load(Ordering::Acquire) {
                return Err(SendError::not_sent(FailureCause::ShuttingDown, ""));
            }
            check(&request)?;
            let key = PeerKey {
                origin: request.origin.clone(),
                identity: request.identity.key(&request.tenant),
                guarded: request.guarded,
            };
            match request.protocol {
                Protocol::Http2 => inner.http2.send(&key, &request).await,
                Protocol::Https => Box::pin(inner.https.send(&key, &request)).await,
            }
        }
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
