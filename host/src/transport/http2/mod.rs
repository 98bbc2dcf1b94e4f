//! HTTP/2 over few connections that are kept: one pool per origin and identity.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::uri::PathAndQuery;
use tokio::time::timeout;

use super::error::{Cause, SendError};
use super::message::{IdentityKey, PeerKey, Request, Response};
use super::tls::Tls;
use super::{ConnectionStats, Settings};
use pool::{Lease, Pool, Refusal};
use state::ConnectionId;

pub(super) use state::Figures;

mod connection;
mod exchange;
mod observer;
mod pool;
mod state;

const SHARDS: usize = 16;

/// All pools.
pub(super) struct Http2 {
    tls: Arc<Tls>,
    settings: Arc<Settings>,
    hasher: RandomState,
    shards: [Mutex<HashMap<PeerKey, Arc<Pool>>>; SHARDS],
    /// No new pools are made.
    draining: AtomicBool,
}

/// Where a stream was opened.
#[derive(Default)]
pub(super) struct StreamOrigin {
    pool: Weak<Pool>,
    connection: ConnectionId,
}

impl StreamOrigin {
    fn new(lease: &Lease) -> Self {
        StreamOrigin { pool: Arc::downgrade(&lease.pool), connection: lease.connection.id }
    }

    pub fn retire(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.retire(self.connection);
        }
    }
}

impl Http2 {
    pub fn new(tls: Arc<Tls>, settings: Arc<Settings>) -> Self {
        Http2 {
            tls,
            settings,
            hasher: RandomState::new(),
            shards: Default::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Sends the request, again where the peer certainly did not process it.
    pub async fn send(&self, key: &PeerKey, request: &Request) -> Result<Response, SendError> {
        let path = PathAndQuery::try_from(request.path.as_str())
            .map_err(|error| SendError::not_sent(Cause::InvalidRequest, format!("path: {error}")))?;
        let mut last: Option<SendError> = None;
        let (mut attempt, mut waited) = (1, Duration::ZERO);
        loop {
            let asked = Instant::now();
            let lease = match (self.acquire(key, request).await, last.take()) {
                (Ok(lease), _) => lease,
                // What the peer said to the request tells more than that there is no connection for another try.
                (Err(error), Some(last)) if error.cause != Cause::Deadline => {
                    return Err(SendError { retry_after: error.retry_after, ..last });
                }
                (Err(error), _) => return Err(error),
            };
            waited += asked.elapsed();
            let error = match exchange::exchange(lease, request, &path).await {
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
        self.pools().iter().map(|pool| ConnectionStats::of_pool(pool.key(), pool.figures())).collect()
    }

    /// Lets the streams of an identity end and closes its connections. A later request gets a new pool.
    pub fn retire(&self, identity: &IdentityKey) {
        self.pools().iter().filter(|pool| pool.key().identity == *identity).for_each(Pool::drain);
    }

    /// Lets all streams end and closes the connections; cuts what is left after `within`.
    pub async fn drain(&self, within: Duration) {
        // Set before the shards are read: a pool that is not among them is not made any more.
        self.draining.store(true, Ordering::SeqCst);
        let pools = self.pools();
        pools.iter().for_each(Pool::drain);
        let ended = join_all(pools.iter().map(|pool| pool.until_ended()));
        if timeout(within, ended).await.is_err() {
            pools.iter().for_each(|pool| pool.cut());
        }
    }

    async fn acquire(&self, key: &PeerKey, request: &Request) -> Result<Lease, SendError> {
        loop {
            let pool = self.pool(key, request)?;
            match pool.acquire(request.deadline).await {
                Ok(lease) => return Ok(lease),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Ended) => {}
            }
        }
    }

    /// The pool of the key, made if there is none.
    fn pool(&self, key: &PeerKey, request: &Request) -> Result<Arc<Pool>, SendError> {
        let mut shard = self.shard(key);
        if let Some(pool) = shard.get(key).filter(|pool| !pool.has_ended()) {
            return Ok(pool.clone());
        }
        if self.draining.load(Ordering::SeqCst) {
            return Err(SendError::not_sent(Cause::ShuttingDown, ""));
        }
        shard.retain(|_, pool| !pool.has_ended());
        if shard.len() >= self.settings.max_peers.div_ceil(SHARDS) {
            return Err(
                SendError::not_sent(Cause::Overloaded, "too many peers").retry_after(Duration::from_secs(60))
            );
        }
        let config = self.tls.config(&request.identity, &[b"h2"]);
        let config = config.map_err(|error| SendError::not_sent(Cause::Tls, error.to_string()))?;
        let pool = Pool::start(key.clone(), Arc::new(config), self.settings.clone());
        shard.insert(key.clone(), pool.clone());
        Ok(pool)
    }

    fn shard(&self, key: &PeerKey) -> MutexGuard<'_, HashMap<PeerKey, Arc<Pool>>> {
        let hash = self.hasher.hash_one(key);
        let [first, ..] = &self.shards;
        let shard = self.shards.get(hash as usize % SHARDS).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        let shard = |shard: &Mutex<HashMap<_, Arc<Pool>>>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(shard).collect()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.pools().iter().for_each(Pool::drain);
    }
}
