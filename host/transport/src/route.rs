//! The way to a push service: from which addresses of this machine, over IPv4 or IPv6, and through which proxy.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tower::{Service as _, service_fn};

use super::error::{DialError, FailureCause};
use super::request::Origin;

/// Addresses tried in one connect.
const MOST_ADDRESSES: usize = 16;

/// Which family of addresses is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// Both, IPv6 first (RFC 8305).
    #[default]
    Any,
    /// Both, IPv4 first.
    PreferIpv4,
    Ipv4,
    Ipv6,
}

/// The way of all connections to push services. Cheap to clone.
#[derive(Clone, Default)]
pub struct Route(Arc<RouteSettings>);

#[derive(Default)]
struct RouteSettings {
    /// None: no proxy.
    proxies: Option<Matcher>,
    /// Origins on this machine are reached directly: the proxy is that of the environment.
    skips_loopback: bool,
    local: Vec<IpAddr>,
    family: AddressFamily,
}

/// A proxy that opens tunnels by HTTP CONNECT (RFC 9110, section 9.3.6).
pub(super) struct Proxy {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

impl Route {
    /// `local`: addresses of this machine, at most one of each family; if there is one, families without are not used.
    pub fn new(family: AddressFamily, local: Vec<IpAddr>) -> Self {
        Self(Arc::new(RouteSettings { family, local, ..RouteSettings::default() }))
    }

    /// Returns the route through a proxy, `http://[user:password@]host:port`. `except`: names, addresses and networks
    /// that are reached directly, joined by commas, as in `NO_PROXY`. The error completes "KEY: ", without the URL.
    pub fn through(self, proxy: &str, except: &str) -> Result<Self, &'static str> {
        let matcher = Matcher::builder().https(proxy.to_owned()).no(except.to_owned()).build();
        let somewhere = Uri::from_static("https://push.invalid");
        // `*` in the exceptions would hide a proxy that is wrong.
        let alone = Matcher::builder().https(proxy.to_owned()).build();
        let found =
            alone.intercept(&somewhere).ok_or("not the URL of a proxy, as http://proxy.example:3128")?;
        Proxy::of(found.uri(), None).ok_or("only proxies with an http:// URL are supported")?;
        Ok(self.with(Some(matcher), false))
    }

    /// Returns the route through the proxy of the environment, if it has one: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    pub fn through_environment(self) -> Self {
        self.with(Some(Matcher::from_env()), true)
    }

    fn with(self, proxies: Option<Matcher>, skips_loopback: bool) -> Self {
        let RouteSettings { local, family, .. } = &*self.0;
        Self(Arc::new(RouteSettings { proxies, skips_loopback, local: local.clone(), family: *family }))
    }

    /// Returns the proxy through which an origin is reached, or None if it is reached directly.
    pub(super) fn proxy(&self, origin: &Origin) -> Result<Option<Proxy>, DialError> {
        let Some(matcher) = &self.0.proxies else { return Ok(None) };
        let host = origin.host();
        let is_local =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.0.skips_loopback && is_local {
            return Ok(None);
        }
        let Ok(uri) = Uri::try_from(origin.as_str()) else { return Ok(None) };
        let Some(found) = matcher.intercept(&uri) else { return Ok(None) };
        let unsupported =
            || DialError::new(FailureCause::Connect, "the proxy's URL does not begin with http://");
        Proxy::of(found.uri(), found.basic_auth().cloned()).ok_or_else(unsupported).map(Some)
    }

    /// Returns the addresses that may be used, in the order in which they are tried: the families take turns.
    pub(super) fn order(&self, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let usable = addresses.filter(|address| self.may_use(address));
        let (v6, v4): (Vec<_>, Vec<_>) = usable.partition(SocketAddr::is_ipv6);
        let (first, second) = if self.0.family == AddressFamily::PreferIpv4 { (v4, v6) } else { (v6, v4) };
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        std::iter::from_fn(|| {
            Some([first.next(), second.next()]).filter(|pair| pair.iter().any(Option::is_some))
        })
        .flatten()
        .flatten()
        .take(MOST_ADDRESSES)
        .collect()
    }

    fn may_use(&self, address: &SocketAddr) -> bool {
        let family = match self.0.family {
            AddressFamily::Any | AddressFamily::PreferIpv4 => true,
            AddressFamily::Ipv4 => address.is_ipv4(),
            AddressFamily::Ipv6 => address.is_ipv6(),
        };
        family && (self.0.local.is_empty() || self.local_for(address).is_some())
    }

    fn local_for(&self, address: &SocketAddr) -> Option<IpAddr> {
        self.0.local.iter().copied().find(|local| local.is_ipv4() == address.is_ipv4())
    }

    /// Opens a connection to one address.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let Some(local) = self.local_for(&address) else { return TcpStream::connect(address).await };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(local, 0))?;
        socket.connect(address).await
    }
}

/// Without the proxy, whose URL may hold a password.
impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteSettings { proxies, local, family, .. } = &*self.0;
        let has_proxy = proxies.is_some();
        f.debug_struct("Route")
            .field("has_proxy", &has_proxy)
            .field("local", local)
            .field("family", family)
            .finish()
    }
}

impl Proxy {
    fn of(uri: &Uri, authorization: Option<HeaderValue>) -> Option<Self> {
        let is_plain = uri.scheme_str() == Some("http");
        let host = uri.host().filter(|_| is_plain)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: uri.port_u16().unwrap_or(80), authorization })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a tunnel to `host:port` over a connection to the proxy.
    pub async fn tunnel(self, socket: TcpStream, (host, port): (&str, u16)) -> Result<TcpStream, DialError> {
        let failed = |error: &dyn fmt::Display| {
            DialError::new(FailureCause::Connect, format!("the proxy {}:{}: {error}", self.host, self.port))
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target = Uri::builder().scheme("https").authority(format!("{host}:{port}")).path_and_query("/");
        let target = target.build().map_err(|error| failed(&error))?;
        let mut socket = Some(TokioIo::new(socket));
        // The library opens the connection itself: it gets the one that is open already.
        let opened = service_fn(move |_: Uri| {
            let socket = socket.take().ok_or(io::ErrorKind::NotConnected);
            async move { socket.map_err(io::Error::from) }
        });
        let tunnel = Tunnel::new(Uri::from_static("http://proxy"), opened);
        let mut tunnel = match &self.authorization {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        };
        Ok(tunnel.call(target).await.map_err(|error| failed(&error))?.into_inner())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns_and_the_number_is_bounded() {
        let v6 = |n: u16| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, n], 1));
        let v4 = |n: u8| SocketAddr::from(([127, 0, 0, n], 1));
        let given = [v4(1), v4(2), v4(3), v6(1)];
        let order = |family, local| Route::new(family, local).order(given.into_iter());
        assert_eq!(order(AddressFamily::Any, vec![]), [v6(1), v4(1), v4(2), v4(3)]);
        assert_eq!(order(AddressFamily::PreferIpv4, vec![]), [v4(1), v6(1), v4(2), v4(3)]);
        assert_eq!(order(AddressFamily::Ipv4, vec![]), [v4(1), v4(2), v4(3)]);
        assert_eq!(order(AddressFamily::Ipv6, vec![]), [v6(1)]);
        assert_eq!(order(AddressFamily::Any, vec!["::1".parse().unwrap()]), [v6(1)]);
        assert_eq!(Route::default().order((0..100).map(v4)).len(), MOST_ADDRESSES);
    }

    #[test]
    fn a_proxy_is_used_for_all_but_the_exceptions() {
        let proxied = |route: &Route, text: &str| {
            let proxy = route.proxy(&origin(text)).unwrap();
            proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
        };
        let route = Route::default()
            .through("http://me:secret@proxy.example:3128", "push.example, 10.0.0.0/8")
            .unwrap();
        assert_eq!(proxied(&route, "https://api.push.apple.com").as_deref(), Some("proxy.example:3128"));
        assert_eq!(proxied(&route, "https://127.0.0.1:8443").as_deref(), Some("proxy.example:3128"));
        for direct in ["https://push.example", "https://api.push.example", "https://10.1.2.3"] {
            assert_eq!(proxied(&route, direct), None, "{direct}");
        }
        let authorization = route.proxy(&origin("https://a.example")).unwrap().unwrap().authorization;
        assert_eq!(authorization.unwrap(), "Basic bWU6c2VjcmV0");
        assert!(!format!("{route:?}").contains("secret"));
        assert_eq!(proxied(&Route::default(), "https://a.example"), None);
        for wrong in ["", "::", "https://proxy.example", "socks5://proxy.example"] {
            assert!(Route::default().through(wrong, "*").is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_it_is_bound_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = Route::new(AddressFamily::Any, vec!["127.0.0.9".parse().unwrap()]);
        let stream = route.connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.9");
    }
}
