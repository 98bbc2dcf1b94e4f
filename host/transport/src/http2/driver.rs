//! The task that drives one connection to its end, and keeps its pool informed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use h2::{Ping, PingPong};
use tokio::time::sleep_until;

use super::connection::{ConnectionDriver, FINISH, Http2Connection, KILL, PROBE};
use super::pool::ConnectionPool;

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

    /// True if the connection must be cut.
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

    /// When [`ConnectionTask::is_dead`] must be asked again.
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
