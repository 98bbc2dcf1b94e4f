//! The pool of one origin and identity: a lock and tasks around [`PoolState`].

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout_at;

use super::connection::Http2Connection;
use super::state::{ConnectionId, PoolAction, PoolLimits, PoolState, QueueTicket, StreamAdmission};
use crate::TransportSettings;
use crate::dial::HostResolver;
use crate::error::{DialError, FailureCause, SendError};
use crate::peer::{BackoffPolicy, CROWDED, PeerLoad, jitter};
use crate::request::PeerKey;
use pushlet_model::error::RepeatedWarning;
use pushlet_quota::Shard;

type StreamGrant = Result<Arc<Http2Connection>, Duration>;
type ConnectionPoolState = PoolState<Arc<Http2Connection>, oneshot::Sender<StreamGrant>>;

pub struct ConnectionPool {
    pub(super) key: PeerKey,
    pub(super) resolver: HostResolver,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) settings: Arc<TransportSettings>,
    shared: Mutex<PoolShared>,
    /// Wakes the keeper: the state has changed.
    pub(super) changed: Notify,
    /// Becomes true when the keeper leaves.
    pub(super) ended: watch::Sender<bool>,
    /// A peer that refuses connections does so as often as we try.
    pub(super) failed_connects: RepeatedWarning,
    /// Starts the task that opens a connection.
    connect: fn(Arc<ConnectionPool>, ConnectionId),
}

pub(super) struct PoolShared {
    pub(super) state: ConnectionPoolState,
    pub(super) connections: Vec<Arc<Http2Connection>>,
    /// When the keeper wakes by itself.
    pub(super) wake_at: Option<Instant>,
    /// Why the last connect failed.
    pub(super) last_failure: Option<DialError>,
    /// No new connection is opened any more.
    pub(super) cut: bool,
}

/// Why no stream was acquired.
pub enum AcquireError {
    /// The pool has ended; make a new one.
    Ended,
    Error(SendError),
}

impl ConnectionPool {
    /// Makes a pool without a keeper. No connection is opened before the first request.
    pub fn new(
        key: PeerKey,
        resolver: HostResolver,
        tls: Arc<ClientConfig>,
        settings: Arc<TransportSettings>,
        connect: fn(Arc<ConnectionPool>, ConnectionId),
    ) -> ConnectionPool {
        let state = PoolState::new(bounds(&settings));
        let (connections, wake_at, last_failure, cut) = (Vec::new(), None, None, false);
        let shared = Mutex::new(PoolShared { state, connections, wake_at, last_failure, cut });
        let (changed, ended) = (Notify::new(), watch::Sender::new(false));
        let failed_connects = RepeatedWarning::default();
        ConnectionPool { key, resolver, tls, settings, shared, changed, ended, failed_connects, connect }
    }

    /// Returns true if requests are in flight or waiting.
    pub fn is_busy(&self) -> bool {
        let PeerLoad { streams, waiting, .. } = self.load();
        streams > 0 || waiting > 0
    }

    /// Acquires a stream on some connection, before the deadline.
    pub async fn acquire(
        self: &Arc<Self>,
        deadline: tokio::time::Instant,
    ) -> Result<StreamLease, AcquireError> {
        let now = Instant::now();
        let mut answer = None;
        let admission = self.with(now, |shared| {
            shared.state.admit(now, Shard::current(), || {
                let (sender, receiver) = oneshot::channel();
                answer = Some(receiver);
                sender
            })
        });
        match (admission, answer) {
            (StreamAdmission::Stream(connection), _) => Ok(self.lease(connection, now, Duration::ZERO)),
            (StreamAdmission::Wait(ticket), Some(answer)) => {
                let waiting = QueuedRequest { pool: self, ticket, answer, since: now };
                waiting.until(deadline).await.map_err(AcquireError::Error)
            }
            (StreamAdmission::Ended | StreamAdmission::Wait(_), _) => Err(AcquireError::Ended),
            (StreamAdmission::QueueFull, _) => {
                let error = SendError::not_sent(FailureCause::Overloaded, "the wait queue is full");
                Err(AcquireError::Error(error.retry_after(Duration::from_secs(1))))
            }
            (StreamAdmission::PeerDown(pause), _) => Err(AcquireError::Error(
                SendError::not_sent(FailureCause::PeerDown, self.failure().to_string())
                    .behind(Some(self.failure()))
                    .retry_after(pause),
            )),
        }
    }

    pub fn load(&self) -> PeerLoad {
        self.shared.lock().state.load(Instant::now())
    }

    /// Closes connections as they fall idle; requests that wait are still served.
    pub fn drain(self: &Arc<Self>) {
        self.with(Instant::now(), |shared| shared.state.drain());
        self.changed.notify_one();
    }

    /// Waits until a drained pool has closed its last connection.
    pub async fn until_ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        let mut shared = self.shared.lock();
        shared.cut = true;
        for connection in &shared.connections {
            connection.kill();
        }
    }

    pub fn retire(self: &Arc<Self>, id: ConnectionId) {
        self.with(Instant::now(), |shared| shared.state.retire(id));
    }

    pub fn suspect(self: &Arc<Self>, connection: &Http2Connection) {
        self.with(Instant::now(), |shared| shared.state.suspect(connection.id));
        connection.probe();
    }

    pub fn closed(self: &Arc<Self>, closed: &Http2Connection) {
        let now = Instant::now();
        let failure = closed.failure();
        let lasting = failure.as_ref().is_some_and(DialError::is_lasting);
        self.with(now, |shared| {
            shared.connections.retain(|connection| connection.id != closed.id);
            shared.last_failure = failure.or(shared.last_failure.take());
            shared.state.closed(now, closed.id, jitter(), lasting);
        });
        self.changed.notify_one();
    }

    fn lease(
        self: &Arc<Self>,
        connection: Arc<Http2Connection>,
        since: Instant,
        waited: Duration,
    ) -> StreamLease {
        StreamLease { pool: self.clone(), connection, since, waited, answered: false }
    }

    fn failure(&self) -> DialError {
        let none =
            || DialError::new(FailureCause::Connect, "connections ended before they answered anything");
        self.shared.lock().last_failure.clone().unwrap_or_else(none)
    }

    fn why_waiting(&self) -> String {
        match &self.shared.lock().last_failure {
            Some(failure) => format!("no connection: {failure}"),
            None => "no stream became free".to_owned(),
        }
    }

    /// Reports an event to the state and carries out what it decides.
    pub(super) fn with<T>(self: &Arc<Self>, now: Instant, event: impl FnOnce(&mut PoolShared) -> T) -> T {
        let mut shared = self.shared.lock();
        let result = event(&mut shared);
        while let Some(action) = shared.state.next(now) {
            self.carry_out(&mut shared, now, action);
        }
        let wake_at = shared.state.wake_at(now);
        // The keeper sleeps until the time that it planned; only an earlier one must wake it.
        if wake_at.is_some_and(|at| shared.wake_at.is_none_or(|planned| at < planned)) {
            self.changed.notify_one();
        }
        result
    }

    fn carry_out(
        self: &Arc<Self>,
        shared: &mut PoolShared,
        now: Instant,
        action: PoolAction<Arc<Http2Connection>, oneshot::Sender<StreamGrant>>,
    ) {
        match action {
            PoolAction::Grant(waiter, connection) => {
                if let Err(Ok(connection)) = waiter.send(Ok(connection)) {
                    shared.state.release(now, connection.id, false);
                }
            }
            // A waiter that has gone away needs no answer.
            PoolAction::Refuse(waiter, pause) => drop(waiter.send(Err(pause))),
            PoolAction::Connect(id) => (self.connect)(self.clone(), id),
            PoolAction::Retire(connection) => connection.retire(),
            PoolAction::Finish(connection) => connection.finish(),
        }
    }
}

/// A stream of a connection, for as long as it lives.
pub struct StreamLease {
    pub pool: Arc<ConnectionPool>,
    pub connection: Arc<Http2Connection>,
    /// When it was granted.
    pub since: Instant,
    /// How long there was no stream.
    pub waited: Duration,
    /// A response came.
    pub answered: bool,
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        let now = Instant::now();
        self.pool.with(now, |shared| shared.state.release(now, self.connection.id, self.answered));
    }
}

/// A request in the queue.
struct QueuedRequest<'a> {
    pool: &'a Arc<ConnectionPool>,
    ticket: QueueTicket,
    answer: oneshot::Receiver<StreamGrant>,
    since: Instant,
}

impl QueuedRequest<'_> {
    async fn until(mut self, deadline: tokio::time::Instant) -> Result<StreamLease, SendError> {
        match timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(Ok(connection))) => {
                let now = Instant::now();
                Ok(self.pool.lease(connection, now, now - self.since))
            }
            Ok(Ok(Err(pause))) => {
                let DialError { cause, detail } = self.pool.failure();
                Err(SendError::not_sent(cause, detail).retry_after(pause))
            }
            Ok(Err(_)) => Err(SendError::not_sent(FailureCause::ShuttingDown, "the pool ended")),
            Err(_) => {
                let failure = self.pool.shared.lock().last_failure.clone();
                Err(SendError::not_sent(FailureCause::Deadline, self.pool.why_waiting()).behind(failure))
            }
        }
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.answer.close();
        let now = Instant::now();
        self.pool.with(now, |shared| {
            let waits = shared.state.withdraw(self.ticket);
            // A stream that was granted meanwhile goes back.
            if !waits && let Ok(Ok(connection)) = self.answer.try_recv() {
                shared.state.release(now, connection.id, false);
            }
        });
    }
}

fn bounds(settings: &TransportSettings) -> PoolLimits {
    PoolLimits {
        connections: settings.max_connections.max(1),
        streams: settings.max_streams,
        crowded: CROWDED,
        is_behind: Shard::is_behind,
        waiting: settings.max_waiting,
        probation: settings.probation,
        idle: settings.idle_timeout,
        backoff: BackoffPolicy::of(settings),
    }
}

/// Where a stream was opened.
#[derive(Default)]
pub struct StreamOrigin {
    pool: Weak<ConnectionPool>,
    connection: ConnectionId,
}

impl StreamOrigin {
    pub fn new(lease: &StreamLease) -> Self {
        StreamOrigin { pool: Arc::downgrade(&lease.pool), connection: lease.connection.id }
    }

    pub fn retire(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.retire(self.connection);
        }
    }
}
