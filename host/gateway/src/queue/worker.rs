//! Takes parts out of the queue, sends them, and stores what became of them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::record::{
    DeliveryRecord, DeliveryState, OutcomeRecord, PartItem, PartRecord, RecordError, ResultDetails,
    cancelled, expired, fields, read, stopped, time, written, written_results,
};
use super::state::{QueuedWork, TENANT_PARTS_AT_ONCE};
use crate::duplicates::Duplicates;
use crate::flow_control::{Line, Shared, Stop, Targets};
use crate::gateway::{Gateway, Inner};
use crate::result::{DeliveryResult, IndexedResult};
use crate::retry::interrupted;
use crate::tenants::{KeyId, Permission, Withdrawal};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{DeliveryQueue, QueuedPart, StorageError, StoredDelivery};

/// How often the queue is looked at, unless this node puts something into it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a part waits whose delivery is not accepted yet, or cannot be read or sent now.
const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(5);
/// How often a part is looked at whose delivery starts later.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How long a part is left to another node that has just begun it.
const YIELD: Duration = Duration::from_secs(30);
/// A part whose delivery was not accepted for this long belongs to none.
const ORPHANED: Duration = Duration::from_secs(600);
/// How long it is tried to store what became of a part, and that it is begun.
const LAST_TRY: Duration = Duration::from_secs(900);
const BEGIN: Duration = Duration::from_secs(12);

/// What to do with a part.
enum Verdict {
    /// Its outcome is stored, or it has none.
    Done,
    Later(Duration),
}

/// A part, and the delivery that it belongs to.
struct Work<'a> {
    queue: &'a DeliveryQueue,
    tenant: &'a TenantId,
    place: (&'a str, u32),
    delivery: DeliveryRecord,
    part: PartRecord,
    /// The sequence of its outcome; 0: it has none.
    sequence: u64,
}

impl Gateway {
    /// Begins to work off the queue, if there is one.
    pub(crate) fn run_queue(&self) {
        if let Some(queue) = self.0.registry.queue() {
            tokio::spawn(watch(Arc::downgrade(&self.0), queue));
        }
    }

    /// Starts workers for the parts of a tenant, as many as are allowed.
    fn start_workers(&self, queue: &DeliveryQueue, tenant: &TenantId, parts: usize) {
        let mut busy = self.0.queue.busy.lock();
        let count = busy.get(tenant).copied().unwrap_or(0);
        let wanted = parts.min(TENANT_PARTS_AT_ONCE);
        for _ in count..wanted {
            *busy.entry(tenant.clone()).or_default() += 1;
            let worker = Worker { gateway: self.clone(), tenant: tenant.clone() };
            tokio::spawn(worker.run(queue.clone()));
        }
    }
}

/// Looks for work, for as long as the gateway exists.
async fn watch(gateway: Weak<Inner>, queue: DeliveryQueue) {
    while let Some(gateway) = gateway.upgrade().map(Gateway) {
        if gateway.0.queue.closing.load(Ordering::Relaxed) {
            return;
        }
        match queue.waiting().await {
            Ok(tenants) => {
                let waiting = tenants.iter().map(|(_, parts)| parts).sum();
                gateway.0.queue.waiting.store(waiting, Ordering::Relaxed);
                tenants.iter().for_each(|(tenant, parts)| gateway.start_workers(&queue, tenant, *parts));
            }
            Err(error) => tracing::debug!(%error, "the queue cannot be looked at now"),
        }
        let workers = gateway.0.queue.clone();
        // Not held while it waits.
        drop(gateway);
        let _ = timeout(LOOK, workers.wake.notified()).await;
    }
}

/// Counts itself until it is dropped.
struct Worker {
    gateway: Gateway,
    tenant: TenantId,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let workers = &self.gateway.0.queue;
        let mut busy = workers.busy.lock();
        if let Some(count) = busy.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.tenant);
            }
        }
        drop(busy);
        workers.ended.notify_waiters();
    }
}

impl Worker {
    /// Takes parts of one tenant until there are none.
    async fn run(self, queue: DeliveryQueue) {
        let workers = &self.gateway.0.queue;
        let source = match queue.source(&self.tenant).await {
            Ok(source) => source,
            Err(error) => return tracing::debug!(%error, "parts of deliveries cannot be taken now"),
        };
        // The next permit is another tenant's, if one waits.
        while let Ok(_permit) = workers.parts.acquire().await {
            if workers.closing.load(Ordering::Relaxed) {
                return;
            }
            match source.take().await {
                Ok(Some(part)) => self.work_off(&queue, part).await,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "no part of a delivery can be taken now"),
            }
        }
    }

    /// Brings a part to its end, and holds it meanwhile.
    async fn work_off(&self, queue: &DeliveryQueue, part: QueuedPart) {
        let verdict = {
            let mut work = std::pin::pin!(self.settle(queue, &part));
            loop {
                tokio::select! {
                    verdict = &mut work => break verdict,
                    () = sleep(QueuedPart::PULSE) => part.hold().await,
                }
            }
        };
        match verdict {
            Ok(Verdict::Done) => part.done().await,
            Ok(Verdict::Later(wait)) => part.later(wait).await,
            Err(error) => {
                tracing::warn!(tenant = %self.tenant, delivery = part.delivery, %error, "a part of a delivery waits");
                part.later(LATER).await;
            }
        }
    }

    async fn settle(&self, queue: &DeliveryQueue, part: &QueuedPart) -> Result<Verdict, Error> {
        let (tenant, place) = (&self.tenant, (part.delivery.as_str(), part.number));
        let age = SystemTime::now().duration_since(part.stored).unwrap_or_default();
        let Some(StoredDelivery { text, .. }) = queue.get(tenant, (place.0, None)).await? else {
            return Ok(if age > ORPHANED { Verdict::Done } else { Verdict::Later(SOON) });
        };
        let delivery: DeliveryRecord = match read(&text) {
            Ok(delivery) => delivery,
            // A node with that program takes it.
            Err(RecordError::Newer) => return Ok(Verdict::Later(LATER)),
            Err(error) => return Err(error.into()),
        };
        if delivery.state == DeliveryState::Refused {
            return Ok(Verdict::Done);
        }
        let outcome = queue.get(tenant, (place.0, Some(place.1))).await?;
        let mut sequence = 0;
        if let Some(StoredDelivery { sequence: found, text }) = outcome {
            let outcome: OutcomeRecord = read(&text)?;
            if outcome.results.is_some() {
                return Ok(Verdict::Done);
            }
            sequence = found;
        }
        let part: PartRecord = match read(&part.text) {
            Ok(part) => part,
            Err(RecordError::Newer) => return Ok(Verdict::Later(LATER)),
            Err(error) => return Err(error.into()),
        };
        self.run_part(Work { queue, tenant, place, delivery, part, sequence }).await
    }

    /// Sends a part, unless there is a reason not to, and stores the results.
    async fn run_part(&self, mut work: Work<'_>) -> Result<Verdict, Error> {
        let resumed = work.sequence > 0;
        let permission = match self.gateway.0.tenants.permission(&self.tenant, work.key()) {
            Ok(permission) => permission,
            // It may be known here in a moment; what belongs to a tenant that is gone is dropped with it.
            Err(_) => return Ok(Verdict::Later(LATER)),
        };
        let reason = match permission.withdrawn() {
            Some(Withdrawal::TenantDeleted) => return Ok(Verdict::Done),
            Some(Withdrawal::TenantSuspended) if !work.is_over() => return Ok(Verdict::Later(LATER)),
            Some(why) => Some(stopped(Stop::Withdrawn(why))),
            None if work.delivery.state == DeliveryState::Cancelled => Some(cancelled()),
            None if work.is_over() => Some(expired()),
            None => None,
        };
        if let (None, Some(wait)) = (&reason, work.time_until_start()) {
            // A cancel in the meantime is seen soon.
            return Ok(Verdict::Later(wait.clamp(SOON, LOOK_AGAIN)));
        }
        if resumed && (reason.is_some() || !self.gateway.0.delivery.resend_unknown) {
            return work.end(&interrupted(), HashMap::new()).await;
        }
        if let Some(reason) = reason {
            return work.end(&DeliveryResult::Failed(reason), HashMap::new()).await;
        }
        let lines = work.lines()?;
        let stream = match self
            .gateway
            .stream_of(&self.tenant, work.shared(permission)?, Some(work.seed(resumed)))
            .await
        {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind, Kind::Throttled | Kind::Overloaded) => {
                let wait = error.retry_after.unwrap_or(LATER);
                return Ok(Verdict::Later(wait.clamp(SOON, LATER)));
            }
            Err(_) if resumed => return work.end(&interrupted(), HashMap::new()).await,
            Err(error) => return work.end(&DeliveryResult::Failed(error), HashMap::new()).await,
        };
        if !work.begin().await? {
            return Ok(Verdict::Later(YIELD));
        }
        let (results, stop) = stream.send_all(lines).await;
        let results = results.into_iter().map(|result| (result.index, result)).collect();
        let missing = match stop {
            _ if resumed => interrupted(),
            Some(stop) => DeliveryResult::Failed(stopped(stop)),
            None => DeliveryResult::Failed(Error::internal("a target was lost")),
        };
        work.end(&missing, results).await
    }
}

impl Work<'_> {
    fn key(&self) -> Option<KeyId> {
        self.delivery.key.as_deref().and_then(KeyId::parse)
    }

    fn is_over(&self) -> bool {
        SystemTime::now() > time(self.delivery.expires)
    }

    fn time_until_start(&self) -> Option<Duration> {
        time(self.delivery.not_before?).duration_since(SystemTime::now()).ok()
    }

    fn seed(&self, resumed: bool) -> Box<QueuedWork> {
        Box::new(QueuedWork::new(self.part.seed.as_bytes(), resumed))
    }

    fn shared(&self, permission: Permission) -> Result<Shared, Error> {
        Ok(Shared {
            application_id: self.delivery.application.clone(),
            size: self.delivery.notification.len(),
            notification: fields(&self.delivery.notification)?,
            validate_only: self.delivery.validate_only,
            deadline: self.delivery.deadline.map(Duration::from_millis),
            // They were found when the delivery was accepted.
            duplicates: Duplicates::Send,
            targets: Targets::Open(permission),
            not_before: None,
            capture: false,
            request_id: None,
        })
    }

    /// Takes the targets that are to be sent out of the part.
    fn lines(&mut self) -> Result<Vec<Line>, Error> {
        let (first, mut lines) = (self.part.first, Vec::new());
        let items = std::mem::take(&mut self.part.items);
        for (index, item) in (first..).zip(items) {
            match item {
                PartItem::Target(mut target) => {
                    let own = target.notification.take();
                    let size = own.as_ref().map_or(0, String::len);
                    let notification = own.map(|own| fields(&own)).transpose()?.map(Arc::new);
                    let target = target.recipient();
                    lines.push(Line { index, target, notification, size, held: None });
                    self.part.items.push(PartItem::Sent);
                }
                known => self.part.items.push(known),
            }
        }
        Ok(lines)
    }

    /// Stores that this node sends the part. Returns false if another one was faster.
    async fn begin(&mut self) -> Result<bool, Error> {
        let mark = format!("{} {}", self.queue.node(), uuid::Uuid::new_v4().simple());
        let text = written(&OutcomeRecord { begun: Some(mark.clone()), results: None })?;
        let (start, place) = (Instant::now(), (self.place.0, Some(self.place.1)));
        loop {
            match self.queue.put(self.tenant, place, self.sequence, &text).await {
                Ok(sequence) => {
                    self.sequence = sequence;
                    return Ok(true);
                }
                Err(StorageError::Conflict) => {}
                Err(StorageError::Unreachable(_)) if start.elapsed() < BEGIN => {
                    sleep(SOON).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            // An earlier try of this loop may have been stored although its answer was lost.
            let stored = self.queue.get(self.tenant, place).await?;
            let Some(StoredDelivery { sequence, text }) = stored else { return Ok(false) };
            let is_ours = read::<OutcomeRecord>(&text).is_ok_and(|found| found.begun.as_ref() == Some(&mark));
            self.sequence = sequence;
            return Ok(is_ours);
        }
    }

    /// Stores the result of every target. `missing`: of those that have none.
    async fn end(
        self,
        missing: &DeliveryResult,
        mut results: HashMap<usize, IndexedResult>,
    ) -> Result<Verdict, Error> {
        let of = |(index, item)| match item {
            PartItem::Known(result) => *result,
            PartItem::Target(_) | PartItem::Sent => {
                let missing = || IndexedResult::untried(index, missing.clone());
                ResultDetails::new(results.remove(&index).unwrap_or_else(missing))
            }
        };
        let all = (self.part.first..).zip(self.part.items).map(of).collect();
        let (text, start) = (written_results(all)?, Instant::now());
        loop {
            match self.queue.put(self.tenant, (self.place.0, Some(self.place.1)), self.sequence, &text).await
            {
                Ok(_) => return Ok(Verdict::Done),
                // Stored by a try whose answer was lost; or another node has the part now, and tells its outcome.
                Err(StorageError::Conflict) => return Ok(Verdict::Later(SOON)),
                Err(StorageError::Unreachable(_)) if start.elapsed() < LAST_TRY => sleep(SOON).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
