//! The tasks of a pool: one opens each connection, one looks after what comes with time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::time::sleep_until;

use super::pool::ConnectionPool;
use super::state::ConnectionId;
use super::{connection, driver};
use crate::breaker::jitter;
use crate::dial::{HostResolver, dial};
use crate::error::{DialError, FailureCause};
use crate::message::PeerKey;
use crate::settings::TransportSettings;

/// An unused pool is dropped after this long.
const KEEP_UNUSED: Duration = Duration::from_secs(60);

/// Makes a pool and starts its keeper. No connection is opened before the first request.
pub fn start(
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
async fn connect(pool: Arc<ConnectionPool>, id: ConnectionId) {
    let key = &pool.key;
    let opened = match dial(&key.origin, &pool.tls, &pool.resolver, pool.settings.connect_timeout).await {
        Ok(stream) => connection::start(id, stream)
            .await
            .map_err(|error| DialError::new(FailureCause::Connect, error.to_string())),
        Err(error) => Err(error),
    };
    let now = Instant::now();
    match opened {
        Ok((connection, driver)) => {
            pool.with(now, |shared| {
                if shared.cut {
                    connection.kill();
                }
                shared.last_failure = None;
                shared.connections.push(connection.clone());
                shared.state.opened(now, id, connection.clone());
            });
            driver::drive(pool, connection, driver).await;
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

/// Looks after what comes with time: pauses that end, idle connections, the end of the pool.
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
