//! Requests, the origins that they go to, and the identities that send them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::time::Instant;
use url::{Host, Url};

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

/// The client's identity towards a peer. Requests of different identities never share an [`Protocol::Http2`]
/// connection.
#[derive(Clone, PartialEq)]
pub enum ClientIdentity {
    Anonymous,
    /// A TLS client certificate.
    Certificate(Arc<TlsCertificate>),
    /// A digest of what decides which provider tokens may share a connection. It is no secret.
    Token([u8; 32]),
}

/// A TLS client certificate with its key.
pub struct TlsCertificate {
    /// A digest of the certificate and of its owner: two with the same digest are the same identity.
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
    /// Returns each header that is sent: of the common ones those that it has not itself.
    pub(super) fn each_header(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let is_own = |name: &HeaderName| self.headers.iter().any(|(own, _)| own == name);
        let common = self.common_headers.iter().filter(move |(name, _)| !is_own(name));
        common.chain(self.headers.iter().map(|(name, value)| (name, value)))
    }

    /// Returns all headers. A credential among them is marked as sensitive, so that no proxy indexes it (RFC 7541,
    /// section 7.1.3).
    pub(super) fn all_headers(&self) -> HeaderMap {
        let mut all = HeaderMap::with_capacity(self.common_headers.len() + self.headers.len());
        for (name, value) in self.each_header() {
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

impl PartialEq for TlsCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
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

/// Scheme `https`, a host and a port, written `https://host[:port]`. Cheap to clone.
#[derive(Clone)]
pub struct Origin(Arc<OriginParts>);

struct OriginParts {
    host: Host<String>,
    port: u16,
    authority: Authority,
    /// `https://` and the authority.
    text: String,
}

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("not a URL: {0}")]
    NotUrl(#[from] url::ParseError),
    #[error("the scheme must be https")]
    NotHttps,
    #[error("there is no host")]
    NoHost,
    #[error("a user name or password is not allowed")]
    UserInfo,
    #[error("a path, query or fragment is not allowed")]
    NotBare,
}

impl Origin {
    /// Returns the origin of a URL, whatever its path and query are.
    pub fn of(url: &Url) -> Result<Origin, OriginError> {
        if url.scheme() != "https" {
            return Err(OriginError::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::UserInfo);
        }
        let host = url.host().ok_or(OriginError::NoHost)?.to_owned();
        let port = url.port_or_known_default().ok_or(OriginError::NotHttps)?;
        let text = if port == 443 { host.to_string() } else { format!("{host}:{port}") };
        let authority = Authority::try_from(text.as_str()).map_err(|_| OriginError::NoHost)?;
        let text = format!("https://{text}");
        Ok(Origin(Arc::new(OriginParts { host, port, authority, text })))
    }

    /// Host name, or address without brackets.
    pub fn host(&self) -> String {
        match &self.0.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// `https://host[:port]`.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns the address, if the host is written as one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.0.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        match self.address() {
            Some(address) => Some(ServerName::from(address)),
            None => ServerName::try_from(self.host()).ok(),
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text)?;
        let origin = Self::of(&url)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(OriginError::NotBare);
        }
        Ok(origin)
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.authority.as_str() == other.0.authority.as_str()
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.authority.as_str().hash(state);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_and_port() {
        let origin: Origin = "https://api.push.apple.com".parse().unwrap();
        assert_eq!((origin.host().as_str(), origin.port()), ("api.push.apple.com", 443));
        assert_eq!(origin.to_string(), "https://api.push.apple.com");
        let origin: Origin = "https://[::1]:8443/".parse().unwrap();
        assert_eq!((origin.host().as_str(), origin.port()), ("::1", 8443));
        assert_eq!(origin.to_string(), "https://[::1]:8443");
        assert_eq!("https://EXAMPLE.com:443".parse(), Ok("https://example.com".parse::<Origin>().unwrap()));
    }

    #[test]
    fn an_address_in_disguise_is_an_address() {
        for text in ["https://2130706433", "https://0x7f.1", "https://0177.0.0.1", "https://127.1"] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(origin.address(), Some(IpAddr::from([127, 0, 0, 1])), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_origin() {
        let error = |text: &str| text.parse::<Origin>().unwrap_err();
        assert_eq!(error("http://example.com"), OriginError::NotHttps);
        assert_eq!(error("https://user@example.com"), OriginError::UserInfo);
        assert_eq!(error("https://:secret@example.com"), OriginError::UserInfo);
        assert_eq!(error("https://example.com/path"), OriginError::NotBare);
        assert_eq!(error("https://example.com?q"), OriginError::NotBare);
        assert_eq!(error("https://example.com#f"), OriginError::NotBare);
        assert!(matches!(error("example.com"), OriginError::NotUrl(_)));
        assert!(matches!(error("https://"), OriginError::NotUrl(_)));
        assert!(matches!(error("https://example.com:70000"), OriginError::NotUrl(_)));
    }
}
