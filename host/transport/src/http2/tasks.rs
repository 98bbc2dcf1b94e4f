//! The tasks of a pool: one opens and drives each connection to its end, one closes what is idle.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};
use rustls::ClientConfig;
use tokio::time::sleep_until;

use super::connection::{self, ConnectionDriver, FINISH, Http2Connection, KILL, PROBE};
use super::pool::ConnectionPool;
use super::state::ConnectionId;
use crate::TransportSettings;
use crate::dial::{HostResolver, dial};
use crate::error::{DialError, FailureCause};
use crate::peer::jitter;
use crate::request::PeerKey;

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
                // The pool was cut while this connection was being opened.
                if shared.cut {
                    connection.kill();
                }
                shared.last_failure = None;
                shared.connections.push(connection.clone());
                shared.state.opened(now, id, connection.clone());
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
pub async fn drive(pool: Arc<ConnectionPool>, connection: Arc<Http2Connection>, driver: ConnectionDriver) {
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
            self.pool.limit(self.connection.id, limit);
        }
        if self.pong_by.is_some()
            && let Some(Poll::Ready(Ok(_))) = self.ping.as_mut().map(|ping| ping.poll_pong(cx))
        {
            self.pong_by = None;
            self.pool.trust(self.connection.id);
        }
        match end {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(origin = %self.pool.key().origin, %error, "connection ended");
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
            self.finish_by = Some(Instant::now() + self.pool.settings().ping_timeout);
        }
        orders & KILL != 0
    }

    fn send_ping(&mut self) {
        if self.pong_by.is_some() {
            return;
        }
        self.pong_by = Some(Instant::now() + self.pool.settings().ping_timeout);
        if let Some(Err(error)) = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque())) {
            tracing::debug!(%error, "no PING can be sent");
        }
    }

    /// Returns when [`ConnectionTask::is_dead`] must be called again.
    fn due(&self) -> Instant {
        let test = self.connection.record.heard_at() + self.pool.settings().ping_after;
        let due = self.pong_by.unwrap_or(test);
        self.finish_by.map_or(due, |by| due.min(by))
    }

    fn is_dead(&mut self) -> bool {
        let now = Instant::now();
        if self.finish_by.is_some_and(|by| by <= now) || self.pong_by.is_some_and(|by| by <= now) {
            return true;
        }
        if self.connection.record.heard_at() + self.pool.settings().ping_after <= now {
            self.send_ping();
        }
        false
    }
}
