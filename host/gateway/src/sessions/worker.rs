//! The worker of one application: what waits, what is in flight on its connection, and when to connect again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Connection, OpenFailure, SessionPeer};
use crate::result::{DeliveryResult, unknown};
use pushlet_model::contract::session::{Event, Submission};
use pushlet_model::contract::{Notification, Recipient, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::{FairPermit, FairPermits};
use pushlet_sandbox::ProviderError;

/// Submissions that a worker holds besides those in flight.
const MOST_WAITING: usize = 10_000;
/// A connection without submissions is closed after this long, and the worker ends.
const IDLE: Duration = Duration::from_secs(300);
/// The pause after a connection that came to nothing; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a component may take to end a connection in order.
const FINISH: Duration = Duration::from_secs(30);

/// Sends for one application.
pub(super) struct Worker {
    peer: Arc<SessionPeer>,
    submissions: mpsc::Receiver<QueuedSubmission>,
    permits: FairPermits<TenantId>,
    waiting: VecDeque<QueuedSubmission>,
    /// Nothing more comes.
    is_last: bool,
    /// Connections in a row that came to nothing.
    failures: u32,
    _alive: AliveGuard,
}

/// One target on its way to a worker.
pub(crate) struct QueuedSubmission {
    pub notification: Arc<Notification>,
    pub recipient: Recipient,
    pub ticket: Arc<Ticket>,
    pub reply: oneshot::Sender<DeliveryResult>,
}

/// Says whether a submission may have been written. The caller gives up at its deadline, the worker submits when it
/// can, and only one of them comes first.
#[derive(Default)]
pub(crate) struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const SUBMITTED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Ticket {
    /// Returns true if the caller still wants it sent.
    fn submit(&self) -> bool {
        self.0.compare_exchange(WAITING, SUBMITTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The service has certainly not processed it: it may be submitted elsewhere.
    fn take_back(&self) {
        let _ = self.0.compare_exchange(SUBMITTED, WAITING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns true if it was not submitted and will not be.
    pub fn give_up(&self) -> bool {
        self.0.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Counts workers.
struct AliveGuard(Arc<AtomicUsize>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is in flight on one connection.
#[derive(Default)]
struct InFlight {
    submissions: HashMap<u64, QueuedSubmission>,
    next: u64,
    /// To be submitted on another connection, in their order.
    again: Vec<QueuedSubmission>,
    /// Something was settled.
    came_to_something: bool,
}

impl Worker {
    pub fn new(
        peer: SessionPeer,
        submissions: mpsc::Receiver<QueuedSubmission>,
        permits: FairPermits<TenantId>,
        alive: &Arc<AtomicUsize>,
    ) -> Self {
        alive.fetch_add(1, Ordering::AcqRel);
        Self {
            peer: Arc::new(peer),
            submissions,
            permits,
            waiting: VecDeque::new(),
            is_last: false,
            failures: 0,
            _alive: AliveGuard(alive.clone()),
        }
    }

    /// Connects whenever something waits, until nothing more comes.
    pub async fn run(mut self) {
        loop {
            if self.waiting.is_empty() && !self.wait_for_work().await {
                return;
            }
            match self.connect().await {
                Ok(connection) => self.serve(connection).await,
                Err(result) => {
                    self.failures += 1;
                    self.fail_waiting(&result);
                }
            }
            if self.failures > 0 {
                let doublings = self.failures.min(10) - 1;
                let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
                sleep_until(Instant::now() + pause).await;
            }
        }
    }

    /// Returns false if nothing more comes, or nothing came for long.
    async fn wait_for_work(&mut self) -> bool {
        if let Ok(first) = timeout(IDLE, self.submissions.recv()).await {
            self.waiting.extend(first);
            return !self.waiting.is_empty();
        }
        // What comes now finds another worker; what came just before this is still served.
        self.submissions.close();
        self.take_queued();
        !self.waiting.is_empty()
    }

    /// Opens a connection, for which the tenant's share of all connections must have room.
    async fn connect(&self) -> Result<Connection, DeliveryResult> {
        let permit = permit(&self.permits, &self.peer).await.map_err(DeliveryResult::Failed)?;
        Connection::open(&self.peer, permit).await.map_err(|failure| {
            self.warn(&failure);
            failure.result()
        })
    }

    fn warn(&self, failure: &OpenFailure) {
        let OpenFailure::Unreached(error) = failure else { return };
        let application = &self.peer.application;
        if let Some(repeated) = application.unreached.due(std::time::Instant::now()) {
            let (provider, cause) = (&application.provider, error.to_string());
            let application = &application.record.id;
            tracing::warn!(application, provider, cause, repeated, "the push service could not be reached");
        }
    }

    fn fail_waiting(&mut self, result: &DeliveryResult) {
        self.take_queued();
        self.waiting.drain(..).for_each(|submission| submission.settle(result.clone()));
    }

    fn take_queued(&mut self) {
        while let Ok(submission) = self.submissions.try_recv() {
            self.waiting.push_back(submission);
        }
    }

    /// Uses a connection until it ends. Everything that was submitted on it is settled, or waits for the next one.
    async fn serve(&mut self, mut connection: Connection) {
        let mut in_flight = InFlight::default();
        let ended = self.serve_until_end(&mut connection, &mut in_flight).await;
        in_flight.note(&self.peer, &mut connection);
        let result = match ended {
            // What the component was told may have been delivered, and it cannot say any more what became of it.
            Err(error) => DeliveryResult::Lost(error.into()),
            Ok(()) => DeliveryResult::Settled(unknown(
                "the connection ended before the push service answered; it may or may not have been delivered",
            )),
        };
        in_flight.submissions.into_values().for_each(|submission| submission.settle(result.clone()));
        self.failures = if in_flight.came_to_something { 0 } else { self.failures + 1 };
        for submission in in_flight.again.into_iter().rev() {
            submission.ticket.take_back();
            self.waiting.push_front(submission);
        }
    }

    async fn serve_until_end(
        &mut self,
        connection: &mut Connection,
        in_flight: &mut InFlight,
    ) -> Result<(), ProviderError> {
        let mut idle_at = Instant::now() + IDLE;
        let mut finish_by = None;
        while !connection.is_over() {
            in_flight.note(&self.peer, connection);
            self.submit(connection, in_flight).await?;
            let is_idle = in_flight.submissions.is_empty() && self.waiting.is_empty();
            if !is_idle {
                idle_at = Instant::now() + IDLE;
            }
            if finish_by.is_none() && is_idle && (self.is_last || Instant::now() >= idle_at) {
                finish_by = Some(Instant::now() + FINISH);
                connection.finish().await?;
                continue;
            }
            let has_room = !self.is_last && self.waiting.len() < MOST_WAITING;
            tokio::select! {
                happened = connection.wait() => connection.handle(happened).await?,
                submission = self.submissions.recv(), if has_room => match submission {
                    Some(submission) => {
                        self.waiting.push_back(submission);
                        self.take_queued();
                    }
                    None => self.is_last = true,
                },
                () = sleep_until(idle_at), if is_idle && finish_by.is_none() => {}
                () = sleep_until(finish_by.unwrap_or(idle_at)), if finish_by.is_some() => connection.end().await?,
            }
        }
        Ok(())
    }

    /// Submits what waits, as far as the component's window and the peer's speed allow.
    async fn submit(
        &mut self,
        connection: &mut Connection,
        in_flight: &mut InFlight,
    ) -> Result<(), ProviderError> {
        while connection.takes_submissions() && !self.waiting.is_empty() {
            let most = connection.window.min(self.peer.batch);
            let submissions = self.next_batch(most, in_flight);
            let Some(first) = submissions.first().and_then(|first| in_flight.submissions.get(&first.id))
            else {
                continue;
            };
            let notification = first.notification.clone();
            let ids: Vec<u64> = submissions.iter().map(|submission| submission.id).collect();
            if let Err(error) = connection.submit(notification, submissions).await {
                // Nothing of these was written.
                let result = DeliveryResult::Failed(error.clone().into());
                let unwritten = ids.iter().filter_map(|id| in_flight.submissions.remove(id));
                unwritten.for_each(|submission| submission.settle(result.clone()));
                return Err(error);
            }
            in_flight.note(&self.peer, connection);
        }
        Ok(())
    }

    /// Takes submissions of one notification from those that wait. Those whose callers gave up are left out.
    fn next_batch(&mut self, most: usize, in_flight: &mut InFlight) -> Vec<Submission> {
        let mut batch: Vec<Submission> = Vec::new();
        let mut notification = None;
        while batch.len() < most
            && let Some(next) = self.waiting.pop_front_if(|next| {
                notification.as_ref().is_none_or(|known| Arc::ptr_eq(known, &next.notification))
            })
        {
            if !next.ticket.submit() {
                continue;
            }
            notification.get_or_insert_with(|| next.notification.clone());
            let id = in_flight.next;
            in_flight.next += 1;
            batch.push(Submission { id, recipient: next.recipient.clone() });
            in_flight.submissions.insert(id, next);
        }
        batch
    }
}

impl InFlight {
    /// Handles the events of a connection.
    fn note(&mut self, peer: &SessionPeer, connection: &mut Connection) {
        for event in std::mem::take(&mut connection.events) {
            let (id, result) = match event {
                Event::Settled((id, outcome)) => (id, DeliveryResult::Settled(outcome)),
                Event::Refused((id, rejection)) => (id, DeliveryResult::Failed(rejection.into())),
                Event::Resubmit(id) => {
                    self.again.extend(self.submissions.remove(&id));
                    continue;
                }
                dead @ Event::Dead(_) => {
                    report_dead(peer, dead);
                    continue;
                }
            };
            self.came_to_something = true;
            // The sandbox has checked that it is in flight.
            if let Some(submission) = self.submissions.remove(&id) {
                submission.settle(result);
            }
        }
    }
}

impl QueuedSubmission {
    /// A caller that has gone needs no result.
    fn settle(self, result: DeliveryResult) {
        let _ = self.reply.send(result);
    }
}

/// Waits until the tenant's share of all connections has room for one more.
pub(super) async fn permit(
    permits: &FairPermits<TenantId>,
    peer: &SessionPeer,
) -> Result<FairPermit<TenantId>, Error> {
    permits.acquire(&peer.peer.tenant).await.map_err(|_| {
        let message = "this tenant has as many connections as its share of this server allows (limit peers)";
        Error::new(Kind::Throttled, "limit_peers", message)
    })
}

/// Records a token that the service reported dead.
pub(super) fn report_dead(peer: &SessionPeer, event: Event) {
    let Event::Dead((Target::Device(token) | Target::Url(token), since)) = event else { return };
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since));
    peer.application.feedback.report(&token, since.unwrap_or_else(SystemTime::now), None);
}
