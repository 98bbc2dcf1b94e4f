//! The pool of one origin and identity: a lock and tasks around [`PoolState`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout_at;

use super::connection::Connection;
use super::state::{Action, Admission, Bounds, ConnectionId, PoolState, Ticket};
use crate::breaker::{Backoff, jitter};
use crate::dial::Resolver;
use crate::error::{Cause, DialError, SendError};
use crate::message::PeerKey;
use crate::settings::Settings;
use crate::stats::PeerLoad;
use pushlet_model::tenant::TenantId;
use pushlet_model::warnings::Repeats;

type Answer = Result<Arc<Connection>, Duration>;
type State = PoolState<Arc<Connection>, oneshot::Sender<Answer>>;

pub struct Pool {
    pub(super) key: PeerKey,
    pub(super) resolver: Resolver,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) settings: Arc<Settings>,
    shared: Mutex<Shared>,
    /// The keeper must look at the state anew.
    pub(super) changed: Notify,
    /// Becomes true when the keeper leaves.
    pub(super) ended: watch::Sender<bool>,
    /// A peer that refuses connections does so as often as we try.
    pub(super) failed_connects: Repeats,
    /// Starts the task that opens a connection.
    connect: fn(Arc<Pool>, ConnectionId),
}

pub(super) struct Shared {
    pub(super) state: State,
    pub(super) connections: Vec<Arc<Connection>>,
    /// When the keeper wakes by itself.
    pub(super) wake_at: Option<Instant>,
    /// Why the last connect failed.
    pub(super) last_failure: Option<DialError>,
    /// No new connection is opened any more.
    pub(super) cut: bool,
}

/// Why no stream was had.
pub enum Refusal {
    /// The pool has ended; make a new one.
    Ended,
    Error(SendError),
}

impl Pool {
    /// Makes a pool without a keeper. No connection is opened before the first request.
    pub fn new(
        key: PeerKey,
        resolver: Resolver,
        tls: Arc<ClientConfig>,
        settings: Arc<Settings>,
        connect: fn(Arc<Pool>, ConnectionId),
    ) -> Pool {
        let state = PoolState::new(bounds(&settings));
        let (connections, wake_at, last_failure, cut) = (Vec::new(), None, None, false);
        let shared = Mutex::new(Shared { state, connections, wake_at, last_failure, cut });
        let (changed, ended) = (Notify::new(), watch::Sender::new(false));
        let failed_connects = Repeats::default();
        Pool { key, resolver, tls, settings, shared, changed, ended, failed_connects, connect }
    }

    pub fn key(&self) -> &PeerKey {
        &self.key
    }

    /// The tenant that used it first.
    pub fn tenant(&self) -> &TenantId {
        &self.resolver.tenant
    }

    /// Whether requests are in flight or wait.
    pub fn is_busy(&self) -> bool {
        let PeerLoad { streams, waiting, .. } = self.load();
        streams > 0 || waiting > 0
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A stream on some connection, before the deadline.
    pub async fn acquire(self: &Arc<Self>, deadline: tokio::time::Instant) -> Result<Lease, Refusal> {
        let now = Instant::now();
        let mut answer = None;
        let admission = self.with(now, |shared| {
            shared.state.admit(now, || {
                let (sender, receiver) = oneshot::channel();
                answer = Some(receiver);
                sender
            })
        });
        match (admission, answer) {
            (Admission::Stream(connection), _) => Ok(self.lease(connection)),
            (Admission::Wait(ticket), Some(answer)) => {
                let waiting = Waiting { pool: self, ticket, answer };
                waiting.until(deadline).await.map_err(Refusal::Error)
            }
            (Admission::Ended | Admission::Wait(_), _) => Err(Refusal::Ended),
            (Admission::QueueFull, _) => {
                let error = SendError::not_sent(Cause::Overloaded, "the wait queue is full");
                Err(Refusal::Error(error.retry_after(Duration::from_secs(1))))
            }
            (Admission::PeerDown(pause), _) => Err(Refusal::Error(
                SendError::not_sent(Cause::PeerDown, self.failure().to_string())
                    .behind(Some(self.failure()))
                    .retry_after(pause),
            )),
        }
    }

    pub fn load(&self) -> PeerLoad {
        self.lock().state.load(Instant::now())
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
        let mut shared = self.lock();
        shared.cut = true;
        for connection in &shared.connections {
            connection.kill();
        }
    }

    pub fn retire(self: &Arc<Self>, id: ConnectionId) {
        self.with(Instant::now(), |shared| shared.state.retire(id));
    }

    pub fn limit(self: &Arc<Self>, id: ConnectionId, limit: usize) {
        self.with(Instant::now(), |shared| shared.state.limit(id, limit));
    }

    pub fn trust(self: &Arc<Self>, id: ConnectionId) {
        self.with(Instant::now(), |shared| shared.state.trust(id));
    }

    pub fn suspect(self: &Arc<Self>, connection: &Connection) {
        self.with(Instant::now(), |shared| shared.state.suspect(connection.id));
        connection.probe();
    }

    pub fn closed(self: &Arc<Self>, closed: &Connection) {
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

    fn lease(self: &Arc<Self>, connection: Arc<Connection>) -> Lease {
        Lease { pool: self.clone(), connection, answered: false }
    }

    fn failure(&self) -> DialError {
        let none = || DialError::new(Cause::Connect, "connections ended before they answered anything");
        self.lock().last_failure.clone().unwrap_or_else(none)
    }

    fn why_waiting(&self) -> String {
        match &self.lock().last_failure {
            Some(failure) => format!("no connection: {failure}"),
            None => "no stream became free".to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports an event to the state and carries out what it decides.
    pub(super) fn with<T>(self: &Arc<Self>, now: Instant, event: impl FnOnce(&mut Shared) -> T) -> T {
        let mut shared = self.lock();
        let result = event(&mut shared);
        while let Some(action) = shared.state.next(now) {
            self.carry_out(&mut shared, now, action);
        }
        let wake_at = shared.state.wake_at(now);
        if wake_at.is_some_and(|at| shared.wake_at.is_none_or(|planned| at < planned)) {
            self.changed.notify_one();
        }
        result
    }

    fn carry_out(
        self: &Arc<Self>,
        shared: &mut Shared,
        now: Instant,
        action: Action<Arc<Connection>, oneshot::Sender<Answer>>,
    ) {
        match action {
            Action::Grant(waiter, connection) => {
                if let Err(Ok(connection)) = waiter.send(Ok(connection)) {
                    shared.state.release(now, connection.id, false);
                }
            }
            // A waiter that has gone away needs no answer.
            Action::Refuse(waiter, pause) => drop(waiter.send(Err(pause))),
            Action::Connect(id) => (self.connect)(self.clone(), id),
            Action::Retire(connection) => connection.retire(),
            Action::Finish(connection) => connection.finish(),
        }
    }
}

/// A stream of a connection, for as long as it lives.
pub struct Lease {
    pub pool: Arc<Pool>,
    pub connection: Arc<Connection>,
    /// A response came.
    pub answered: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        self.pool.with(now, |shared| shared.state.release(now, self.connection.id, self.answered));
    }
}

/// A place in the queue.
struct Waiting<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting<'_> {
    async fn until(mut self, deadline: tokio::time::Instant) -> Result<Lease, SendError> {
        match timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(Ok(connection))) => Ok(self.pool.lease(connection)),
            Ok(Ok(Err(pause))) => {
                let DialError { cause, detail } = self.pool.failure();
                Err(SendError::not_sent(cause, detail).retry_after(pause))
            }
            Ok(Err(_)) => Err(SendError::not_sent(Cause::ShuttingDown, "the pool ended")),
            Err(_) => {
                let failure = self.pool.lock().last_failure.clone();
                Err(SendError::not_sent(Cause::Deadline, self.pool.why_waiting()).behind(failure))
            }
        }
    }
}

impl Drop for Waiting<'_> {
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

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        connections: settings.max_connections.max(1),
        streams: settings.max_streams,
        waiting: settings.max_waiting,
        probation: settings.probation,
        idle: settings.idle_timeout,
        backoff: Backoff {
            threshold: settings.breaker_failures,
            base: settings.backoff_base,
            max: settings.backoff_max,
        },
    }
}

/// Where a stream was opened.
#[derive(Default)]
pub struct StreamOrigin {
    pool: Weak<Pool>,
    connection: ConnectionId,
}

impl StreamOrigin {
    pub fn new(lease: &Lease) -> Self {
        StreamOrigin { pool: Arc::downgrade(&lease.pool), connection: lease.connection.id }
    }

    pub fn retire(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.retire(self.connection);
        }
    }
}
