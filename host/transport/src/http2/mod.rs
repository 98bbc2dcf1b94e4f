//! HTTP/2 over few connections that are kept: one pool per origin and identity.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::TransportSettings;
use super::dial::{DnsLookups, HostResolver};
use super::error::{FailureCause, SendError};
use super::peer::ConnectionStats;
use super::request::{IdentityKey, PeerKey, Protocol, Request};
use super::response::Response;
use super::tls::TlsConfigs;
use pool::{AcquireError, ConnectionPool, StreamLease};
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

mod connection;
mod exchange;
pub(super) mod pool;
mod state;
mod tasks;

const SHARDS: usize = 16;
/// How often pools that have ended are removed.
const SWEEP: Duration = Duration::from_secs(10);

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
            let asked = Instant::now();
            let lease = match (self.acquire(key, request).await, last.take()) {
                (Ok(lease), _) => lease,
                // What the peer said to the request tells more than that there is no connection for another try.
                (Err(error), Some(last)) if error.cause != FailureCause::Deadline => {
                    return Err(SendError { retry_after: error.retry_after, ..last });
                }
                (Err(error), _) => return Err(error),
            };
            waited += asked.elapsed();
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
            .map(|pool| ConnectionStats::new(pool.tenant(), pool.key(), Protocol::Http2, pool.load()))
            .collect()
    }

    /// Lets the streams of an identity end and closes its connections. A later request gets a new pool.
    pub fn retire(&self, identity: &IdentityKey) {
        self.pools().iter().filter(|pool| pool.key().identity == *identity).for_each(ConnectionPool::drain);
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
        let resolver = HostResolver { lookups, tenant: tenant.clone(), guarded };
        let mut pools = self.shard(key);
        if self.draining.load(Ordering::SeqCst) {
            return Err(SendError::not_sent(FailureCause::ShuttingDown, ""));
        }
        if pools.get(key).is_some_and(|pool| pool.has_ended()) {
            pools.remove(key);
        }
        let make = || tasks::start(key.clone(), resolver, Arc::new(config), self.settings.clone());
        let found = pools.get_or_insert_with(tenant, key, 1, |pool| !pool.is_busy(), make);
        found.map_err(|_| SendError::too_many_peers(&request.origin))
    }

    fn shard(&self, key: &PeerKey) -> MutexGuard<'_, Pools> {
        let hash = self.hasher.hash_one(key);
        let [first, ..] = &*self.shards;
        let shard = self.shards.get(hash as usize % SHARDS).unwrap_or(first);
        shard.lock()
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
