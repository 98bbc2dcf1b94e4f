//! HTTPS for peers that are not pinned to HTTP/2.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{timeout, timeout_at};

use super::TransportSettings;
use super::dial::{DnsLookups, HostResolver};
use super::error::{DialError, FailureCause, SendError};
use super::guard;
use super::https_client::{self, HttpsClient};
use super::peer::{BackoffPolicy, BreakerState, CROWDED, CircuitBreaker, ConnectionStats, PeerLoad, jitter};
use super::request::{IdentityKey, PeerKey, Protocol, Request};
use super::response::Response;
use super::tls::TlsConfigs;
use pushlet_model::tenant::TenantId;
use pushlet_quota::Shard;
use pushlet_quota::fair::FairCache;

/// A client with connections of its own, and a bulkhead, for each origin and identity.
pub(super) struct HttpsPeers {
    tls: Arc<TlsConfigs>,
    settings: Arc<TransportSettings>,
    lookups: DnsLookups,
    peers: Arc<PeerTable>,
}

type PeerTable = RwLock<FairCache<TenantId, PeerKey, Arc<HttpsPeer>>>;

/// Keeps one origin and identity from taking more than its share. Streams of a connection are a share
/// too, which is why it has connections of its own.
struct HttpsPeer {
    key: PeerKey,
    tenant: TenantId,
    clients: ShardClients<HttpsClient>,
    permits: Semaphore,
    most: usize,
    waiting: AtomicUsize,
    fate: Mutex<PeerHealth>,
}

struct PeerHealth {
    breaker: CircuitBreaker,
    /// A probe is in flight that decides whether the peer is back.
    probing: bool,
    last_failure: Option<DialError>,
    used_at: Instant,
}

impl HttpsPeers {
    pub fn new(tls: Arc<TlsConfigs>, settings: Arc<TransportSettings>, lookups: DnsLookups) -> Self {
        let peers = Arc::new(RwLock::new(FairCache::new(settings.max_peers)));
        tokio::spawn(forget_idle(Arc::downgrade(&peers), settings.https_idle_timeout));
        HttpsPeers { tls, settings, lookups, peers }
    }

    pub async fn send(&self, key: &PeerKey, request: &Request) -> Result<Response, SendError> {
        if key.guarded && request.origin.address().is_some_and(|address| !guard::may_be_dialled(address)) {
            return Err(SendError::not_sent(FailureCause::ForbiddenAddress, request.origin.to_string()));
        }
        let peer = self.peer(key, request)?;
        let asked = Instant::now();
        let _permit = peer.enter(request.deadline, self.settings.max_waiting).await?;
        let waited = asked.elapsed();
        let mut attempt = 1;
        loop {
            let trial = peer.trial()?;
            let client = peer.clients.get(peer.in_flight(), || self.client(key, request))?;
            let result = https_client::exchange(client, request, self.settings.max_response).await;
            trial.end(&result);
            match result {
                Err(error) if error.may_resend(attempt, request.deadline) => {
                    error.pause(attempt, request.deadline).await;
                }
                result => return result.map(|response| Response { waited, ..response }),
            }
            attempt += 1;
        }
    }

    pub fn snapshot(&self) -> Vec<ConnectionStats> {
        let now = Instant::now();
        let of = |peer: &Arc<HttpsPeer>| {
            ConnectionStats::new(&peer.tenant, &peer.key, Protocol::Https, peer.load(now))
        };
        self.all().iter().map(of).collect()
    }

    /// Forgets an identity; its connections close when its last request has ended.
    pub fn retire(&self, identity: &IdentityKey) {
        self.peers.write().retain(|key, _| key.identity != *identity);
    }

    /// Waits until no request is in flight, at most `within`.
    pub async fn drain(&self, within: Duration) {
        let peers = self.all();
        let all = async {
            for peer in &peers {
                let most = u32::try_from(peer.most).unwrap_or(u32::MAX);
                drop(peer.permits.acquire_many(most).await);
            }
        };
        // What is still in flight after that is left to its own deadline.
        let _ = timeout(within, all).await;
        peers.iter().for_each(|peer| peer.permits.close());
    }

    fn peer(&self, key: &PeerKey, request: &Request) -> Result<Arc<HttpsPeer>, SendError> {
        let tenant = &request.tenant;
        {
            let peers = self.peers.read();
            if let Some(peer) = peers.get_owned(tenant, key) {
                return Ok(peer.clone());
            }
        }
        // Made before the lock is taken, since that takes a while; it is dropped if another one was faster.
        let client = self.client(key, request)?;
        let mut peers = self.peers.write();
        let make = || Arc::new(HttpsPeer::new(key.clone(), tenant.clone(), client, &self.settings));
        let found = peers.get_or_insert_with(tenant, key, 1, |peer| !peer.is_busy(), make);
        let (peer, _evicted) = found.map_err(|_| SendError::too_many_peers(&request.origin))?;
        Ok(peer)
    }

    fn client(&self, key: &PeerKey, request: &Request) -> Result<HttpsClient, SendError> {
        let (lookups, tenant, guarded) = (self.lookups.clone(), request.tenant.clone(), key.guarded);
        let resolver = HostResolver { lookups, tenant, guarded, route: self.settings.route.clone() };
        https_client::connect(&self.tls, &self.settings, key, &request.identity, resolver)
            .map_err(|error| SendError::not_sent(FailureCause::Tls, error))
    }

    fn all(&self) -> Vec<Arc<HttpsPeer>> {
        self.peers.read().values().cloned().collect()
    }
}

/// Forgets peers without requests, for as long as there is a transport. A client takes some kilobytes, and a tenant
/// that sent to thousands of origins may never send again.
async fn forget_idle(peers: Weak<PeerTable>, after: Duration) {
    loop {
        tokio::time::sleep(after / 6).await;
        let Some(peers) = peers.upgrade() else { return };
        let now = Instant::now();
        let is_used = |peer: &HttpsPeer| peer.is_busy() || peer.fate.lock().used_at + after > now;
        peers.write().retain(|_, peer| is_used(peer));
    }
}

impl HttpsPeer {
    fn new(key: PeerKey, tenant: TenantId, client: HttpsClient, settings: &TransportSettings) -> Self {
        let breaker = CircuitBreaker::new(BackoffPolicy::of(settings));
        let fate = PeerHealth { breaker, probing: false, last_failure: None, used_at: Instant::now() };
        let most = settings.max_requests.clamp(1, Semaphore::MAX_PERMITS);
        let (permits, waiting, fate) = (Semaphore::new(most), AtomicUsize::new(0), Mutex::new(fate));
        HttpsPeer { key, tenant, clients: ShardClients::new(client), permits, most, waiting, fate }
    }

    /// Waits for a permit.
    async fn enter(
        &self,
        deadline: tokio::time::Instant,
        max_waiting: usize,
    ) -> Result<SemaphorePermit<'_>, SendError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = QueuePlace::take(&self.waiting);
        if place.before >= max_waiting {
            let error = SendError::not_sent(FailureCause::Overloaded, "the wait queue is full");
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        match timeout_at(deadline, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is closed when the transport has been drained.
            Ok(Err(_)) => Err(SendError::not_sent(FailureCause::ShuttingDown, "")),
            Err(_) => Err(SendError::not_sent(FailureCause::Deadline, "its turn did not come")),
        }
    }

    /// Starts a request if the breaker allows it; after a pause one request at a time passes.
    fn trial(&self) -> Result<RequestTrial<'_>, SendError> {
        let now = Instant::now();
        let mut fate = self.fate.lock();
        fate.used_at = now;
        let pause = match fate.breaker.state(now) {
            BreakerState::Open(pause) => Some(pause),
            BreakerState::HalfOpen if fate.probing => Some(fate.breaker.probe_time()),
            BreakerState::HalfOpen => {
                fate.probing = true;
                return Ok(RequestTrial { peer: self, is_probe: true });
            }
            BreakerState::Closed => None,
        };
        match pause {
            Some(pause) => {
                let error = SendError::not_sent(FailureCause::PeerDown, "the last connects failed")
                    .retry_after(pause);
                Err(error.behind(fate.last_failure.clone()))
            }
            None => Ok(RequestTrial { peer: self, is_probe: false }),
        }
    }

    fn load(&self, now: Instant) -> PeerLoad {
        PeerLoad {
            connections: 0,
            streams: self.in_flight(),
            waiting: self.waiting.load(Ordering::Relaxed),
            breaker: self.fate.lock().breaker.state(now),
        }
    }

    fn is_busy(&self) -> bool {
        self.in_flight() > 0
    }

    fn in_flight(&self) -> usize {
        self.most - self.permits.available_permits()
    }
}

/// Clients of a peer, each with connections that the thread of one shard drives; those of all other threads share one.
struct ShardClients<C> {
    clients: Box<[OnceLock<C>]>,
    /// The shard that sent first.
    first: usize,
}

impl<C> ShardClients<C> {
    fn new(client: C) -> Self {
        let mut clients: Box<[_]> = (0..=Shard::count()).map(|_| OnceLock::new()).collect();
        let first = Shard::current().place();
        clients[first] = OnceLock::from(client);
        Self { clients, first }
    }

    /// Returns the client of this shard. It has none before many requests are in flight: until then it uses that of
    /// the first.
    fn get<E>(&self, in_flight: usize, make: impl FnOnce() -> Result<C, E>) -> Result<&C, E> {
        let own = &self.clients[Shard::current().place()];
        match own.get().or_else(|| self.clients[self.first].get().filter(|_| in_flight < CROWDED)) {
            Some(client) => Ok(client),
            None => make().map(|made| own.get_or_init(|| made)),
        }
    }
}

/// A request in the queue.
struct QueuePlace<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> QueuePlace<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        QueuePlace { waiting, before: waiting.fetch_add(1, Ordering::AcqRel) }
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request that the circuit breaker let pass.
struct RequestTrial<'a> {
    peer: &'a HttpsPeer,
    is_probe: bool,
}

impl RequestTrial<'_> {
    /// Records whether the peer could be reached, if the result shows it.
    fn end<T>(self, result: &Result<T, SendError>) {
        let mut fate = self.peer.fate.lock();
        if result.is_ok() {
            fate.breaker.succeeded();
        } else if let Err(SendError { cause, detail, .. }) = result
            && cause.is_failed_connect()
        {
            fate.breaker.failed(Instant::now(), jitter());
            fate.last_failure = Some(DialError::new(cause.clone(), detail));
        }
    }
}

impl Drop for RequestTrial<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.peer.fate.lock().probing = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_a_client_of_its_own_once_that_of_another_is_crowded() {
        let clients = ShardClients::new(1);
        assert_eq!(clients.get(1000, || Err(())), Ok(&1), "it is this thread's own");
        Shard::new(0).enter();
        assert_eq!(clients.get(CROWDED - 1, || Err(())), Ok(&1));
        assert_eq!(clients.get(CROWDED, || Err("cannot be made")), Err("cannot be made"));
        assert_eq!(clients.get(CROWDED, || Ok::<_, ()>(2)), Ok(&2));
        assert_eq!(clients.get(0, || Err(())), Ok(&2), "it is kept");
        Shard::NONE.enter();
        assert_eq!(clients.get(1000, || Err(())), Ok(&1));
    }
}
