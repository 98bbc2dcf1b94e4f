//! HTTP/2 over few connections that are kept: one pool per origin and identity, with a task for each of its connections
//! and one that closes what is idle.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use h2::{Ping, PingPong};
use parking_lot::{Mutex, MutexGuard};
use rustls::ClientConfig;
use tokio::time::{sleep_until, timeout};

use super::TransportSettings;
use super::dial::{DnsLookups, HostResolver, dial};
use super::error::{DialError, FailureCause, SendError};
use super::peer::{ConnectionStats, jitter};
use super::request::{IdentityKey, PeerKey, Protocol, Request};
use super::response::Response;
use super::tls::TlsConfigs;
use connection::{ConnectionDriver, FINISH, Http2Connection, KILL, PROBE};
use pool::{AcquireError, ConnectionPool, StreamLease};
use pushlet_model::tenant::TenantId;
use pushlet_quota::Shard;
use pushlet_quota::fair::FairCache;

mod connection;
mod exchange;
mod heads;
mod hpack;
pub(super) mod pool;
mod state;

const SHARDS: usize = 16;
/// How often pools that have ended are removed.
const SWEEP: Duration = Duration::from_secs(10);
/// An unused pool is dropped after this long.
const KEEP_UNUSED: Duration = Duration::from_secs(60);

/// All connection pools, divided into shards so that pushes do not wait for one lock.
pub(super) struct Http2Pools {
    tls: Arc<TlsConfigs>,
    settings: Arc<TransportSettings>,
    lookups: DnsLookups,
    hasher: RandomState,
    shards: Arc<Shards>,
    /// No new pools are made.
    draining: AtomicBool,
}

type Shards = [Mutex<Pools>; SHARDS];
type Pools = FairCache<TenantId, PeerKey, Arc<ConnectionPool>>;

impl Http2Pools {
    pub fn new(tls: Arc<TlsConfigs>, settings: Arc<TransportSettings>, lookups: DnsLookups) -> Self {
        let most = settings.max_peers.div_ceil(SHARDS);
        let shards: Arc<Shards> = Arc::new(std::array::from_fn(|_| Mutex::new(FairCache::new(most))));
        tokio::spawn(forget_ended(Arc::downgrade(&shards)));
        Http2Pools {
            tls,
            settings,
            lookups,
            hasher: RandomState::new(),
            shards,
            draining: AtomicBool::new(false),
        }
    }

    /// Sends the request, again where the peer certainly did not process it.
    pub async fn send(&self, key: &PeerKey, request: &Request) -> Result<Response, SendError> {
        let mut last: Option<SendError> = None;
        let (mut attempt, mut waited) = (1, Duration::ZERO);
        loop {
            let lease = match (self.acquire(key, request).await, last.take()) {
                (Ok(lease), _) => lease,
                // What the peer said to the request tells more than that there is no connection for another try.
                (Err(error), Some(last)) if error.cause != FailureCause::Deadline => {
                    return Err(SendError { retry_after: error.retry_after, ..last });
                }
                (Err(error), _) => return Err(error),
            };
            waited += lease.waited;
            let error = match exchange::exchange(lease, request).await {
                Ok(response) => return Ok(Response { waited, ..response }),
                Err(error) => error,
            };
            if !error.may_resend(attempt, request.deadline) {
                return Err(error);
            }
            Box::pin(error.pause(attempt, request.deadline)).await;
            last = Some(error);
            attempt += 1;
        }
    }

    pub fn snapshot(&self) -> Vec<ConnectionStats> {
        self.pools()
            .iter()
            .map(|pool| ConnectionStats::new(&pool.resolver.tenant, &pool.key, Protocol::Http2, pool.load()))
            .collect()
    }

    /// Lets the streams of an identity end and closes its connections. A later request gets a new pool.
    pub fn retire(&self, identity: &IdentityKey) {
        self.pools().iter().filter(|pool| pool.key.identity == *identity).for_each(ConnectionPool::drain);
    }

    /// Lets all streams end and closes the connections; cuts what is left after `within`.
    pub async fn drain(&self, within: Duration) {
        // Set before the shards are read: a pool that is not among them is not made any more.
        self.draining.store(true, Ordering::SeqCst);
        let pools = self.pools();
        pools.iter().for_each(ConnectionPool::drain);
        let ended = join_all(pools.iter().map(|pool| pool.until_ended()));
        if timeout(within, ended).await.is_err() {
            pools.iter().for_each(|pool| pool.cut());
        }
    }

    async fn acquire(&self, key: &PeerKey, request: &Request) -> Result<StreamLease, SendError> {
        loop {
            let pool = self.pool(key, request)?;
            match pool.acquire(request.deadline).await {
                Ok(lease) => return Ok(lease),
                Err(AcquireError::Error(error)) => return Err(error),
                // The pool ended after it was looked up: the next look-up creates another.
                Err(AcquireError::Ended) => {}
            }
        }
    }

    /// Returns the pool of the key; creates one if there is none.
    fn pool(&self, key: &PeerKey, request: &Request) -> Result<Arc<ConnectionPool>, SendError> {
        if let Some(pool) = self.shard(key).get_owned(&request.tenant, key)
            && !pool.has_ended()
        {
            return Ok(pool.clone());
        }
        let (pool, evicted) = self.add_pool(key, request)?;
        evicted.iter().for_each(ConnectionPool::drain);
        Ok(pool)
    }

    /// Returns the pool of the key for a further tenant, or a new one; and the pools that were evicted for it.
    fn add_pool(
        &self,
        key: &PeerKey,
        request: &Request,
    ) -> Result<(Arc<ConnectionPool>, Vec<Arc<ConnectionPool>>), SendError> {
        let tenant = &request.tenant;
        // Created before the lock is taken, since that takes a while.
        let config = self.tls.config(&request.identity, &[b"h2"]);
        let config = config.map_err(|error| SendError::not_sent(FailureCause::Tls, error.to_string()))?;
        let (lookups, guarded) = (self.lookups.clone(), key.guarded);
        let resolver =
            HostResolver { lookups, tenant: tenant.clone(), guarded, route: self.settings.route.clone() };
        let mut pools = self.shard(key);
        if self.draining.load(Ordering::SeqCst) {
            return Err(SendError::not_sent(FailureCause::ShuttingDown, ""));
        }
        if pools.get(key).is_some_and(|pool| pool.has_ended()) {
            pools.remove(key);
        }
        let make = || start_pool(key.clone(), resolver, Arc::new(config), self.settings.clone());
        let found = pools.get_or_insert_with(tenant, key, 1, |pool| !pool.is_busy(), make);
        found.map_err(|_| SendError::too_many_peers(&request.origin))
    }

    fn shard(&self, key: &PeerKey) -> MutexGuard<'_, Pools> {
        let hash = self.hasher.hash_one(key);
        let [first, ..] = &*self.shards;
        self.shards.get(hash as usize % SHARDS).unwrap_or(first).lock()
    }

    fn pools(&self) -> Vec<Arc<ConnectionPool>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// Removes pools that have ended, for as long as there is a transport: a tenant that is gone asks for no other.
async fn forget_ended(shards: Weak<Shards>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(shards) = shards.upgrade() else { return };
        shards.iter().for_each(|shard| shard.lock().retain(|_, pool| !pool.has_ended()));
    }
}

impl Drop for Http2Pools {
    fn drop(&mut self) {
        self.pools().iter().for_each(ConnectionPool::drain);
    }
}

/// Makes a pool and starts the task that keeps it. No connection is opened before the first request.
fn start_pool(
    key: PeerKey,
    resolver: HostResolver,
    tls: Arc<ClientConfig>,
    settings: Arc<TransportSettings>,
) -> Arc<ConnectionPool> {
    let spawn = |pool, id| drop(tokio::spawn(connect(pool, id)));
    let pool = Arc::new(ConnectionPool::new(key, resolver, tls, settings, spawn));
    tokio::spawn(keep(pool.clone()));
    pool
}

/// Opens one connection and drives it to its end.
async fn connect(pool: Arc<ConnectionPool>, id: state::ConnectionId) {
    let key = &pool.key;
    let opened = match dial(&key.origin, &pool.tls, &pool.resolver, pool.settings.connect_timeout).await {
        Ok(stream) => connection::start(id, &key.origin, stream)
            .await
            .map_err(|error| DialError::new(FailureCause::Connect, error.to_string())),
        Err(error) => Err(error),
    };
    let now = Instant::now();
    match opened {
        Ok((connection, driver)) => {
            pool.with(now, |shared| {
                // The pool was cut while this connection was being opened.
                if shared.cut {
                    connection.kill();
                }
                shared.last_failure = None;
                shared.connections.push(connection.clone());
                shared.state.opened(now, Shard::current(), id, connection.clone());
            });
            drive(pool, connection, driver).await;
        }
        Err(error) => {
            if let Some(repeated) = pool.failed_connects.due(now) {
                let (origin, identity) = (&key.origin, &key.identity);
                tracing::warn!(%origin, %identity, cause = %error.cause, detail = error.detail, repeated, "connect failed");
            }
            pool.with(now, |shared| {
                shared.state.open_failed(now, jitter(), error.is_lasting());
                shared.last_failure = Some(error);
            });
            pool.changed.notify_one();
        }
    }
}

/// Handles timed events: pauses that end, idle connections, the end of the pool.
async fn keep(pool: Arc<ConnectionPool>) {
    let mut unused_since = None;
    loop {
        let now = Instant::now();
        let (wake_at, ended) = pool.with(now, |shared| {
            let unused = shared.state.is_unused();
            let since = unused.then(|| *unused_since.get_or_insert(now));
            unused_since = since;
            let due = since.map(|since| since + KEEP_UNUSED);
            let ended = shared.state.end_if_unused(due.is_some_and(|due| due <= now));
            shared.wake_at = shared.state.wake_at(now).into_iter().chain(due).min();
            (shared.wake_at, ended)
        });
        if ended {
            pool.ended.send_replace(true);
            return;
        }
        let forever = now + Duration::from_secs(24 * 3600);
        tokio::select! {
            () = pool.changed.notified() => {}
            () = sleep_until(wake_at.unwrap_or(forever).into()) => {}
        }
    }
}

/// Runs the connection to its end and keeps the pool informed.
async fn drive(pool: Arc<ConnectionPool>, connection: Arc<Http2Connection>, driver: ConnectionDriver) {
    let mut run = ConnectionTask::new(&pool, &connection, driver);
    run.until_end().await;
    drop(run);
    connection.ended.send_replace(true);
    pool.closed(&connection);
}

struct ConnectionTask<'a> {
    pool: &'a Arc<ConnectionPool>,
    connection: &'a Http2Connection,
    driver: ConnectionDriver,
    ping: Option<PingPong>,
    limit: usize,
    /// When the outstanding PING must have been answered.
    pong_by: Option<Instant>,
    finish_by: Option<Instant>,
}

impl<'a> ConnectionTask<'a> {
    fn new(
        pool: &'a Arc<ConnectionPool>,
        connection: &'a Http2Connection,
        mut driver: ConnectionDriver,
    ) -> Self {
        let ping = driver.ping_pong();
        ConnectionTask { pool, connection, driver, ping, limit: 1, pong_by: None, finish_by: None }
    }

    async fn until_end(&mut self) {
        loop {
            let due = self.due().into();
            let connection = self.connection;
            tokio::select! {
                biased;
                () = poll_fn(|cx| self.poll(cx)) => return,
                () = connection.ordered.notified() => if self.obey() { return },
                () = sleep_until(due) => if self.is_dead() { return },
            }
        }
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First, since this reads the frames that everything below looks at.
        let end = Pin::new(&mut self.driver).poll(cx);
        if self.connection.record.goaway_came() {
            self.pool.retire(self.connection.id);
        }
        let limit = self.driver.max_concurrent_send_streams();
        if limit != self.limit {
            self.limit = limit;
            self.pool.with(Instant::now(), |shared| shared.state.limit(self.connection.id, limit));
        }
        if self.pong_by.is_some()
            && let Some(Poll::Ready(Ok(_))) = self.ping.as_mut().map(|ping| ping.poll_pong(cx))
        {
            self.pong_by = None;
            self.pool.with(Instant::now(), |shared| shared.state.trust(self.connection.id));
        }
        match end {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(origin = %self.pool.key.origin, %error, "connection ended");
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Carries out orders. Returns true if the connection must be cut.
    fn obey(&mut self) -> bool {
        let orders = self.connection.orders.swap(0, Ordering::AcqRel);
        if orders & PROBE != 0 {
            self.send_ping();
        }
        if orders & FINISH != 0 {
            self.finish_by = Some(Instant::now() + self.pool.settings.ping_timeout);
        }
        orders & KILL != 0
    }

    fn send_ping(&mut self) {
        if self.pong_by.is_some() {
            return;
        }
        self.pong_by = Some(Instant::now() + self.pool.settings.ping_timeout);
        if let Some(Err(error)) = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque())) {
            tracing::debug!(%error, "no PING can be sent");
        }
    }

    /// Returns when [`ConnectionTask::is_dead`] must be called again.
    fn due(&self) -> Instant {
        let test = self.connection.record.heard_at() + self.pool.settings.ping_after;
        let due = self.pong_by.unwrap_or(test);
        self.finish_by.map_or(due, |by| due.min(by))
    }

    fn is_dead(&mut self) -> bool {
        let now = Instant::now();
        if self.finish_by.is_some_and(|by| by <= now) || self.pong_by.is_some_and(|by| by <= now) {
            return true;
        }
        if self.connection.record.heard_at() + self.pool.settings.ping_after <= now {
            self.send_ping();
        }
        false
    }
}
