//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderName};

use pushlet_settings::IpNetworks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of one connection. The server puts it into the extensions of each of its requests.
pub struct Peer {
    address: IpAddr,
    /// The proxies, if this is one of them.
    proxies: Option<Arc<IpNetworks>>,
    /// A request with the right credentials came over this connection.
    authenticated: AtomicBool,
}

impl Peer {
    pub fn new(address: IpAddr, proxies: &Arc<IpNetworks>) -> Self {
        let address = address.to_canonical();
        let proxies = proxies.contains(address).then(|| proxies.clone());
        Self { address, proxies, authenticated: AtomicBool::new(false) }
    }

    /// What connections are counted by; None: there may be any number of them.
    pub fn counted_as(&self) -> Option<IpAddr> {
        let is_shared = self.address.is_loopback() || self.proxies.is_some();
        (!is_shared).then(|| counted_as(self.address))
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    pub fn authenticate(&self) {
        // Nearly always it is set already, and a store would take the cache line from other threads.
        if !self.is_authenticated() {
            self.authenticated.store(true, Ordering::Relaxed);
        }
    }

    /// The caller's address. Of a request that came through a proxy it is the last one in `X-Forwarded-For` that is
    /// no proxy's: what stands before it the caller may have written.
    pub(super) fn client(&self, headers: &HeaderMap) -> IpAddr {
        let Some(proxies) = &self.proxies else { return self.address };
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        let mut last = self.address;
        for entry in entries {
            let Ok(address) = entry.trim().parse::<IpAddr>() else { return last };
            last = address.to_canonical();
            if !proxies.contains(last) {
                return last;
            }
        }
        last
    }
}

/// An address as limits count it: one caller may have all of an IPv6 network of 64 bits.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;
    use pushlet_settings::ConfigLayers;

    fn peer(address: &str) -> Peer {
        let mut layers = ConfigLayers::new().unwrap();
        let toml = "limits.trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1\"]";
        layers.text("test.toml".as_ref(), toml).unwrap();
        let proxies = Arc::new(layers.finish().unwrap().limits.trusted_proxies);
        Peer::new(address.parse().unwrap(), &proxies)
    }

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        self::peer(peer).client(&headers).to_string()
    }

    #[test]
    fn only_a_proxy_is_believed() {
        assert_eq!(client("192.0.2.1", &["203.0.113.5"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.5"]), "203.0.113.5");
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.5"]), "203.0.113.5");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_the_caller_wrote_before_the_proxy_is_not_believed() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.5"]), "203.0.113.5");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.5,10.0.0.9"]), "203.0.113.5");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn proxies_and_this_machine_are_not_counted() {
        for shared in ["127.0.0.1", "::1", "10.9.9.9"] {
            assert_eq!(peer(shared).counted_as(), None, "{shared}");
        }
        let counted = |address: &str| peer(address).counted_as().unwrap().to_string();
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
