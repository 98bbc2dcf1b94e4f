//! From an origin to a TLS connection: look up, check, race the addresses, shake hands. Pools speak HTTP over it;
//! providers with a protocol of their own have it as a [`ByteStream`].
//!
//! Names are looked up with `getaddrinfo`, so that `/etc/hosts`, `nsswitch.conf` and the search domains of containers
//! count as they do for every other program of the machine. It blocks a thread until the last name server has been
//! given up, which nothing can shorten. Therefore lookups use few of the runtime's blocking threads, divided among
//! tenants, and a lookup whose caller has left keeps its permit until the thread is free again.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{DialError, SendError};
use super::request::{ClientIdentity, Origin};
use super::route::Route;
use super::tls::TlsConfigs;
use super::{FailureCause, TransportSettings, guard};
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairPermits;

/// Head start of each address over the next (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// How the names of one peer are looked up.
#[derive(Clone)]
pub(super) struct HostResolver {
    pub lookups: DnsLookups,
    /// The tenant whose share a lookup is taken from.
    pub tenant: TenantId,
    pub route: Route,
    /// Only public addresses are returned.
    pub guarded: bool,
}

/// Opens a TLS connection that speaks HTTP/2.
pub(super) async fn dial(
    origin: &Origin,
    tls: &Arc<ClientConfig>,
    resolver: &HostResolver,
    within: Duration,
) -> Result<TlsStream<TcpStream>, DialError> {
    let stream = dial_any(origin, tls, resolver, within).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        let why = "the server does not speak HTTP/2: it chose no ALPN protocol";
        return Err(DialError::new(FailureCause::Tls, why));
    }
    Ok(stream)
}

/// Opens a TLS connection that speaks what both sides like best.
pub(super) async fn dial_any(
    origin: &Origin,
    tls: &Arc<ClientConfig>,
    resolver: &HostResolver,
    within: Duration,
) -> Result<TlsStream<TcpStream>, DialError> {
    timeout(within, connect(origin, tls, resolver)).await.unwrap_or_else(|_| {
        Err(DialError::new(FailureCause::ConnectTimeout, format!("no connection within {within:?}")))
    })
}

async fn connect(
    origin: &Origin,
    tls: &Arc<ClientConfig>,
    resolver: &HostResolver,
) -> Result<TlsStream<TcpStream>, DialError> {
    let socket = open(origin, resolver).await?;
    let failed = |error: &dyn std::fmt::Display| DialError::new(FailureCause::Tls, error.to_string());
    // A push is a small write that must not wait for the acknowledgement of the one before it (Nagle).
    socket.set_nodelay(true).map_err(|error| DialError::new(FailureCause::Connect, error.to_string()))?;
    let name = origin.server_name().ok_or_else(|| failed(&"the host is no valid server name"))?;
    TlsConnector::from(tls.clone()).connect(name, socket).await.map_err(|error| {
        // A failure below TLS may be gone at the next try; a failed handshake is not.
        let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        if is_tls { failed(&error) } else { DialError::new(FailureCause::Connect, error.to_string()) }
    })
}

/// Opens a connection to the origin, or a tunnel through a proxy.
async fn open(origin: &Origin, resolver: &HostResolver) -> Result<TcpStream, DialError> {
    let (host, port) = (origin.host(), origin.port());
    // A recorder is reached without a proxy.
    let proxy = match resolver.lookups.redirect {
        Some(_) => None,
        None => resolver.route.proxy(origin)?,
    };
    let Some(proxy) = proxy else {
        return race(resolver.resolve(&host, port).await?, &resolver.route).await;
    };
    // What is checked must be what is reached, so a proxy does not look up names that came with a request.
    let host = match resolver.guarded {
        true => resolver.resolve(&host, port).await?.first().map(|address| address.ip().to_string()),
        false => None,
    }
    .unwrap_or_else(|| host.to_string());
    let proxies = HostResolver { guarded: false, ..resolver.clone() };
    let socket = race(proxies.resolve(proxy.host(), proxy.port()).await?, &resolver.route).await?;
    proxy.tunnel(socket, (&host, port)).await
}

impl HostResolver {
    /// Looks up the addresses of a host, in the order in which they are tried.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(address) = self.lookups.redirect {
            return Ok(vec![address]);
        }
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.lookups.addresses(&self.tenant, host, port).await?,
        };
        if found.is_empty() {
            return Err(DialError::new(FailureCause::Dns, format!("{host} has no address")));
        }
        let may = |address: &SocketAddr| !self.guarded || guard::may_be_dialled(address.ip());
        let allowed = found.iter().copied().filter(may);
        let mut allowed = allowed.peekable();
        if allowed.peek().is_none() {
            return Err(DialError::new(
                FailureCause::ForbiddenAddress,
                format!("{host} has no public address"),
            ));
        }
        let addresses = self.route.order(allowed);
        if addresses.is_empty() {
            let why = format!(
                "{host} has no address of the family that delivery.address_family and delivery.bind allow"
            );
            return Err(DialError::new(FailureCause::Dns, why));
        }
        Ok(addresses)
    }
}

/// Returns the first socket that opens. When an address fails, the next one is tried at once.
async fn race(addresses: Vec<SocketAddr>, route: &Route) -> Result<TcpStream, DialError> {
    let mut left = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = DialError::new(FailureCause::Connect, "no address");
    loop {
        attempts.extend(left.next().map(|address| async move { (address, route.connect(address).await) }));
        tokio::select! {
            // A failed address starts the next one at once, before the timer is looked at.
            biased;
            Some((address, result)) = attempts.next() => match result {
                Ok(socket) => return Ok(socket),
                Err(error) => last = DialError::new(cause_of(&error), format!("{address}: {error}")),
            },
            () = sleep(STAGGER), if left.len() > 0 => {}
            else => return Err(last),
        }
        if attempts.is_empty() && left.len() == 0 {
            return Err(last);
        }
    }
}

/// Returns the cause of a failed connect. The system may give up before we do.
fn cause_of(error: &std::io::Error) -> FailureCause {
    match error.kind() {
        std::io::ErrorKind::TimedOut => FailureCause::ConnectTimeout,
        _ => FailureCause::Connect,
    }
}

/// Lookups at the same time, of the 512 blocking threads of the runtime.
const MOST_AT_ONCE: usize = 64;
/// Lookups of one tenant that wait.
const MOST_WAITING: usize = 10_000;

type SystemLookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct DnsLookups {
    /// Where every host is, whatever its name.
    redirect: Option<SocketAddr>,
    permits: FairPermits<TenantId>,
    system: Arc<SystemLookup>,
}

impl DnsLookups {
    /// Through the system's resolver. `redirect`: in its place, the address of every host.
    pub fn new(redirect: Option<SocketAddr>) -> Self {
        let system = Self::through(|host, port| Ok((host, port).to_socket_addrs()?.collect()));
        Self { redirect, ..system }
    }

    fn through(system: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let permits = FairPermits::new(MOST_AT_ONCE, MOST_WAITING);
        Self { redirect: None, permits, system: Arc::new(system) }
    }

    /// Looks up the addresses of a host. The caller bounds the wait by dropping the future.
    pub async fn addresses(
        &self,
        tenant: &TenantId,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let permit = self.permits.acquire(tenant).await.map_err(|_| {
            DialError::new(
                FailureCause::Overloaded,
                "too many of the tenant's host names wait to be looked up",
            )
        })?;
        let (system, name) = (self.system.clone(), host.to_owned());
        let looking_up = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            system(&name, port)
        });
        let found = looking_up.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        found.map_err(|error| DialError::new(FailureCause::Dns, format!("{host}: {error}")))
    }
}

/// A connection, on which both sides write when they like.
pub type ByteStream = TlsStream<TcpStream>;

/// Where a connection goes, and as whom.
#[derive(Clone)]
pub struct StreamPeer {
    /// The tenant whose share lookups are taken from.
    pub tenant: TenantId,
    pub origin: Origin,
    pub identity: ClientIdentity,
    /// Only public addresses are dialled.
    pub guarded: bool,
}

/// Opens connections.
pub(super) struct StreamDialer {
    tls: Arc<TlsConfigs>,
    settings: Arc<TransportSettings>,
    lookups: DnsLookups,
}

impl StreamDialer {
    pub fn new(tls: Arc<TlsConfigs>, settings: Arc<TransportSettings>, lookups: DnsLookups) -> Self {
        Self { tls, settings, lookups }
    }

    pub async fn connect(&self, peer: &StreamPeer) -> Result<ByteStream, SendError> {
        // One configuration for each connection: they live long, and no session is resumed.
        let tls = self
            .tls
            .config(&peer.identity, &[])
            .map_err(|error| SendError::not_sent(FailureCause::Tls, error.to_string()))?;
        let resolver = HostResolver {
            lookups: self.lookups.clone(),
            tenant: peer.tenant.clone(),
            route: self.settings.route.clone(),
            guarded: peer.guarded,
        };
        dial_any(&peer.origin, &Arc::new(tls), &resolver, self.settings.connect_timeout)
            .await
            .map_err(|error| SendError::not_sent(error.cause, error.detail))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Returns an address that refuses connections.
    async fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    /// Returns an address whose backlog is full, so that connects hang.
    async fn silent() -> (SocketAddr, TcpListener, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        (address, listener, TcpStream::connect(address).await.unwrap())
    }

    #[tokio::test]
    async fn the_first_address_that_answers_wins() {
        let (silent, _listener, _queued) = silent().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let socket =
            race(vec![closed().await, silent, closed().await, open], &Route::default()).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), open);
    }

    #[tokio::test]
    async fn when_none_answers_the_last_reason_is_told() {
        let (one, two) = (closed().await, closed().await);
        let error = race(vec![one, two], &Route::default()).await.unwrap_err();
        assert_eq!(error.cause, FailureCause::Connect);
        assert!(error.detail.starts_with(&two.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_redirection_is_for_every_host_and_needs_no_lookup() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let lookups = DnsLookups { redirect: Some(address), ..DnsLookups::through(|_, _| unreachable!()) };
        let route = Route::default();
        let resolver = HostResolver { lookups, tenant: TenantId::new("one"), route, guarded: true };
        for host in ["push.example", "10.0.0.1", "::1"] {
            assert_eq!(resolver.resolve(host, 443).await.unwrap(), [address], "{host}");
        }
    }

    /// A resolver that answers `slow` names only when the gate opens.
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        waiting: AtomicUsize,
    }

    fn gated() -> (Arc<Gate>, DnsLookups) {
        let gate =
            Arc::new(Gate { open: Mutex::new(false), opened: Condvar::new(), waiting: AtomicUsize::new(0) });
        let its = gate.clone();
        let lookups = DnsLookups::through(move |host, port| {
            if host.starts_with("slow") {
                its.waiting.fetch_add(1, Ordering::SeqCst);
                let open = its.opened.wait_while(its.open.lock().unwrap(), |open| !*open).unwrap();
                drop(open);
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        (gate, lookups)
    }

    #[tokio::test]
    async fn slow_names_of_one_tenant_delay_nobody_else() {
        let (gate, lookups) = gated();
        let slow: Vec<_> = (0..1_000)
            .map(|number| {
                let lookups = lookups.clone();
                let tenant = TenantId::new("slow");
                tokio::spawn(async move { lookups.addresses(&tenant, &format!("slow{number}"), 1).await })
            })
            .collect();
        while gate.waiting.load(Ordering::SeqCst) < MOST_AT_ONCE / 4 {
            tokio::task::yield_now().await;
        }
        // They wait for the resolver: callers that leave do not make room for others of the same tenant.
        slow.iter().skip(100).for_each(tokio::task::JoinHandle::abort);
        let other = lookups.addresses(&TenantId::new("other"), "push.example", 7).await;
        assert_eq!(other.unwrap(), [SocketAddr::from(([127, 0, 0, 1], 7))]);
        // The blocking threads that are left serve everything else.
        assert_eq!(tokio::task::spawn_blocking(|| 1).await.unwrap(), 1);
        assert_eq!(gate.waiting.load(Ordering::SeqCst), MOST_AT_ONCE / 4);
        *gate.open.lock().unwrap() = true;
        gate.opened.notify_all();
        for lookup in slow.into_iter().take(100) {
            lookup.await.unwrap().unwrap();
        }
    }
}
