//! Requests, and the identities that send them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::sign::CertifiedKey;
use tokio::time::Instant;

use super::origin::Origin;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/2 only, over few connections that are kept for hours to days (APNs).
    Http2,
    /// HTTP/1.1 or HTTP/2 as the peer likes.
    Https,
}

/// The client's identity towards a peer. Requests of different identities never share an [`Protocol::Http2`] connection.
#[derive(Clone)]
pub enum ClientIdentity {
    Anonymous,
    /// A TLS client certificate.
    Certificate(Arc<TlsCertificate>),
    /// A digest of what decides which provider tokens may share a connection. It is no secret.
    Token([u8; 32]),
}

/// A TLS client certificate with its key.
pub struct TlsCertificate {
    /// A digest of the certificate and of whose it is: two with the same digest are the same identity.
    pub digest: [u8; 32],
    pub key: Arc<CertifiedKey>,
}

/// One request.
#[derive(Clone)]
pub struct Request {
    /// The tenant whose share connections and lookups are taken from.
    pub tenant: TenantId,
    pub origin: Origin,
    pub protocol: Protocol,
    pub identity: ClientIdentity,
    pub method: Method,
    /// Path and query, with a leading `/`.
    pub path: PathAndQuery,
    /// Those that it has in common with others. No pseudo-headers, `host` or `content-length`.
    pub common_headers: Arc<HeaderMap>,
    /// Its own, which win over the common ones of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// The response is not awaited beyond this time.
    pub deadline: Instant,
    /// Whether the origin came from outside, so that only public addresses are dialled.
    pub guarded: bool,
    /// The account that a large response is charged to; None: it is not counted.
    pub payer: Option<Arc<Account>>,
}

impl Request {
    /// All headers. A credential among them is marked as one, to be indexed by nobody on the way (RFC 7541,
    /// section 7.1.3).
    pub(super) fn all_headers(&self) -> HeaderMap {
        let mut all = HeaderMap::with_capacity(self.common_headers.len() + self.headers.len());
        let own = |name: &HeaderName| self.headers.iter().any(|(own, _)| own == name);
        for (name, value) in self.common_headers.iter().filter(|(name, _)| !own(name)) {
            all.append(name, value.clone());
        }
        for (name, value) in &self.headers {
            all.append(name, value.clone());
        }
        if let Some(value) = all.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        all
    }
}

/// Distinguishes identities.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum IdentityKey {
    /// Each tenant has connections of its own, for nothing else tells whose they are.
    Anonymous(TenantId),
    Certificate([u8; 32]),
    Token([u8; 32]),
}

/// Requests with the same key share connections, bounds and a circuit breaker.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    pub origin: Origin,
    pub identity: IdentityKey,
    pub guarded: bool,
}

impl ClientIdentity {
    pub(super) fn key(&self, tenant: &TenantId) -> IdentityKey {
        match self {
            ClientIdentity::Anonymous => IdentityKey::Anonymous(tenant.clone()),
            ClientIdentity::Certificate(certificate) => IdentityKey::Certificate(certificate.digest),
            ClientIdentity::Token(digest) => IdentityKey::Token(*digest),
        }
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (ClientIdentity::Anonymous, ClientIdentity::Anonymous) => true,
            (ClientIdentity::Certificate(one), ClientIdentity::Certificate(other)) => {
                one.digest == other.digest
            }
            (ClientIdentity::Token(one), ClientIdentity::Token(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityKey::Anonymous(_) => f.write_str("anonymous"),
            // Half of a digest is enough to tell them apart.
            IdentityKey::Certificate(digest) => write!(f, "certificate:{}", hex::encode(&digest[..16])),
            IdentityKey::Token(digest) => write!(f, "token:{}", hex::encode(&digest[..16])),
        }
    }
}
