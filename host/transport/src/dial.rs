//! From an origin to a TLS connection: look up, check, race the addresses, shake hands.
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

use super::error::{DialError, FailureCause};
use super::guard;
use super::request::Origin;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairPermits;

/// Head start of each address over the next (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses tried in one connect.
const MOST_ADDRESSES: usize = 16;

/// How the names of one peer are looked up.
#[derive(Clone)]
pub(super) struct HostResolver {
    pub lookups: DnsLookups,
    /// The tenant whose share a lookup is taken from.
    pub tenant: TenantId,
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
    let addresses = resolver.resolve(&origin.host(), origin.port()).await?;
    let socket = race(addresses).await?;
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

impl HostResolver {
    /// Looks up the addresses of a host, IPv6 and IPv4 by turns.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.lookups.addresses(&self.tenant, host, port).await?,
        };
        if found.is_empty() {
            return Err(DialError::new(FailureCause::Dns, format!("{host} has no address")));
        }
        let may = |address: &SocketAddr| !self.guarded || guard::may_be_dialled(address.ip());
        let allowed = found.iter().copied().filter(may);
        let addresses = by_turns(allowed);
        if addresses.is_empty() {
            return Err(DialError::new(
                FailureCause::ForbiddenAddress,
                format!("{host} has no public address"),
            ));
        }
        Ok(addresses)
    }
}

fn by_turns(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    std::iter::from_fn(|| Some([v6.next(), v4.next()]).filter(|pair| pair.iter().any(Option::is_some)))
        .flatten()
        .flatten()
        .take(MOST_ADDRESSES)
        .collect()
}

/// Returns the first socket that opens. When an address fails, the next one is tried at once.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, DialError> {
    let mut left = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = DialError::new(FailureCause::Connect, "no address");
    loop {
        attempts
            .extend(left.next().map(|address| async move { (address, TcpStream::connect(address).await) }));
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
    permits: FairPermits<TenantId>,
    system: Arc<SystemLookup>,
}

impl DnsLookups {
    /// Through the system's resolver.
    pub fn new() -> Self {
        Self::through(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    fn through(system: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { permits: FairPermits::new(MOST_AT_ONCE, MOST_WAITING), system: Arc::new(system) }
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
        let socket = race(vec![closed().await, silent, closed().await, open]).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), open);
    }

    #[tokio::test]
    async fn when_none_answers_the_last_reason_is_told() {
        let (one, two) = (closed().await, closed().await);
        let error = race(vec![one, two]).await.unwrap_err();
        assert_eq!(error.cause, FailureCause::Connect);
        assert!(error.detail.starts_with(&two.to_string()), "{error}");
    }

    #[test]
    fn families_take_turns_and_the_number_is_bounded() {
        let v6 = |n: u16| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, n], 1));
        let v4 = |n: u8| SocketAddr::from(([127, 0, 0, n], 1));
        let given = [v4(1), v4(2), v4(3), v6(1)];
        assert_eq!(by_turns(given.into_iter()), [v6(1), v4(1), v4(2), v4(3)]);
        assert_eq!(by_turns((0..100).map(v4)).len(), MOST_ADDRESSES);
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
