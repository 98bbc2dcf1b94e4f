//! From a request to its parts in the queue. Nothing is put there before the whole request is known, and nothing of it is
//! sent before the delivery's own record says that it is accepted.

use std::time::{Duration, SystemTime};

use ring::rand::SecureRandom as _;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::record::{
    DeliveryRecord, DeliveryState, PartItem, PartRecord, PartTarget, ResultDetails, milliseconds, written,
};
use crate::flow_control::{Line, Shared, Targets};
use crate::gateway::Gateway;
use crate::result::{DeliveryResult, IndexedResult};
use crate::stream::Stream;
use crate::tenants::Permission;
use pushlet_model::contract::unix_milliseconds;
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::{MemoryReservation, MemoryUse};
use pushlet_registry::{DeliveryQueue, StorageError};

/// Targets of a part.
const PART: usize = 250;
/// Bytes of a part, apart from its last target.
const PART_BYTES: usize = 256 << 10;
/// How long it is tried to find out whether a delivery was accepted: an election takes up to nine seconds.
const CERTAINTY: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(250);
const FULL: Duration = Duration::from_secs(5);

/// A delivery that is being received. Dropped, it leaves nothing behind.
pub struct PendingDelivery {
    gateway: Gateway,
    queue: DeliveryQueue,
    /// Nothing is sent with it: it knows the provider, and which targets come twice.
    stream: Stream,
    permission: Permission,
    record: DeliveryRecord,
    parts: Vec<Zeroizing<Vec<u8>>>,
    part: PartRecord,
    /// Bytes of the current part.
    size: usize,
    reserved: MemoryReservation,
}

impl Gateway {
    /// Returns true if a delivery can outlive its caller: this server is part of a fleet.
    pub fn has_queue(&self) -> bool {
        self.0.registry.is_shared()
    }

    /// Begins a delivery that is to outlive its caller, and checks what all of its targets share.
    pub async fn begin_delivery(
        &self,
        permission: Permission,
        shared: Shared,
    ) -> Result<PendingDelivery, Error> {
        let queue = self.queue()?;
        let now = SystemTime::now();
        let start = start(now, shared.not_before, queue.window())?;
        let record = DeliveryRecord {
            state: DeliveryState::Accepted,
            application: shared.application_id.clone(),
            notification: json(&shared.notification)?,
            validate_only: shared.validate_only,
            deadline: shared.deadline.map(milliseconds),
            targets: 0,
            created: unix_milliseconds(now),
            not_before: (start > now).then(|| unix_milliseconds(start)),
            expires: unix_milliseconds(start).saturating_add(milliseconds(queue.window())),
            key: permission.key().map(|key| key.to_string()),
        };
        // A dry run: it is neither counted nor delayed.
        let targets = Targets::Open(permission.clone());
        let shared = Shared { validate_only: true, targets, ..shared };
        let stream = self.stream(&permission.tenant().id, shared).await?;
        let reserved = stream.account().reserve_nothing(MemoryUse::ParsedInput);
        let (gateway, part) = (self.clone(), PartRecord::begin(0)?);
        let parts = Vec::new();
        Ok(PendingDelivery { gateway, queue, stream, permission, record, parts, part, size: 0, reserved })
    }

    pub(super) fn queue(&self) -> Result<DeliveryQueue, Error> {
        self.0.registry.queue().ok_or_else(|| {
            let message = "this server keeps no queue: deliveries that outlive their callers need a fleet, see \
                           registry.url; send without Prefer: respond-async";
            Error::new(Kind::Invalid, "async_not_available", message)
        })
    }
}

impl PartRecord {
    fn begin(first: usize) -> Result<Self, Error> {
        let mut seed = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut seed).map_err(Error::internal)?;
        let seed = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { first, seed, items: Vec::new() })
    }
}

impl PendingDelivery {
    /// Returns the name of the provider that will send it.
    pub fn provider(&self) -> &str {
        self.stream.provider()
    }

    /// Returns how many targets were added.
    pub fn targets(&self) -> usize {
        self.record.targets
    }

    /// Adds the next targets: lines, and the results of those that are wrong. Together they are consecutive.
    pub async fn add(&mut self, lines: Vec<Line>, wrong: Vec<(usize, Error)>) -> Result<(), Error> {
        let failed = |(index, error)| IndexedResult::untried(index, DeliveryResult::Failed(error));
        let (lines, known) = self.stream.sort(lines).await;
        let known = known.into_iter().chain(wrong.into_iter().map(failed));
        let known = known.map(|result| (result.index, PartItem::Known(Box::new(ResultDetails::new(result)))));
        let mut items: Vec<_> = known.collect();
        for line in lines {
            let notification = line.notification.as_deref().map(json).transpose()?;
            items.push((line.index, PartItem::Target(PartTarget::new(line.target, notification))));
        }
        items.sort_by_key(|(index, _)| *index);
        for (_, item) in items {
            self.push(item)?;
        }
        Ok(())
    }

    fn push(&mut self, item: PartItem) -> Result<(), Error> {
        if self.part.items.len() >= PART || self.size >= PART_BYTES {
            self.cut()?;
        }
        let size = match &item {
            PartItem::Target(target) => target.size(),
            PartItem::Known(_) | PartItem::Sent => size_of::<ResultDetails>(),
        };
        // Once as an item, and once more as the text that it is written to.
        self.reserved.grow(2 * size)?;
        self.size += size;
        self.record.targets += 1;
        self.part.items.push(item);
        Ok(())
    }

    /// Ends the current part, and begins the next one.
    fn cut(&mut self) -> Result<(), Error> {
        let next = PartRecord::begin(self.record.targets)?;
        self.parts.push(written(&std::mem::replace(&mut self.part, next))?);
        self.size = 0;
        Ok(())
    }

    /// Puts it into the queue. Returns its id once the fleet has it. An error whose kind is [`Kind::TimedOut`]: it may
    /// have it all the same. Must run to its end.
    pub async fn store(mut self) -> Result<String, Error> {
        if self.record.targets == 0 {
            return Err(Error::field("missing_targets", "targets", "there is no target"));
        }
        if !self.part.items.is_empty() {
            self.cut()?;
        }
        let (id, tenant) = (uuid::Uuid::new_v4().simple().to_string(), &self.permission.tenant().id);
        if let Err(error) = self.queue.put_parts(tenant, &id, std::mem::take(&mut self.parts)).await {
            self.refuse(&id).await;
            return Err(not_stored(error));
        }
        let text = written(&self.record)?;
        let start = Instant::now();
        loop {
            match self.queue.put(tenant, (&id, None), 0, &text).await {
                // Conflict: an earlier try was stored, although its answer was lost.
                Ok(_) | Err(StorageError::Conflict) => break,
                Err(StorageError::Unreachable(reason)) if start.elapsed() < CERTAINTY => {
                    tracing::debug!(reason, "whether a delivery was accepted is asked again");
                    sleep(PAUSE).await;
                }
                Err(StorageError::Unreachable(reason)) => return Err(uncertain(&id, &reason)),
                Err(error) => {
                    self.refuse(&id).await;
                    return Err(not_stored(error));
                }
            }
        }
        self.gateway.0.queue.wake.notify_one();
        Ok(id)
    }

    /// Says of parts that are in the queue already that they belong to nothing. If that fails, they are dropped later.
    async fn refuse(&self, id: &str) {
        let record = DeliveryRecord { state: DeliveryState::Refused, ..self.record.clone() };
        if let Ok(text) = written(&record) {
            let _ = self.queue.put(&self.permission.tenant().id, (id, None), 0, &text).await;
        }
    }
}

/// Returns when a delivery may be begun. The fleet keeps it for twice the window, which is from the start on the longest
/// that it may wait.
fn start(now: SystemTime, wanted: Option<SystemTime>, window: Duration) -> Result<SystemTime, Error> {
    let start = wanted.unwrap_or(now).max(now);
    if start.duration_since(now).is_ok_and(|ahead| ahead > window) {
        let window = humantime::format_duration(window);
        let message = format!("not_before is more than {window} ahead (limits.async_window)");
        return Err(Error::field("invalid_not_before", "not_before", message));
    }
    Ok(start)
}

fn json(fields: &Map<String, Value>) -> Result<String, Error> {
    serde_json::to_string(fields).map_err(Error::internal)
}

fn not_stored(error: StorageError) -> Error {
    match error {
        StorageError::Full(reason) => {
            let message = "the queue has no room for so many targets, of this tenant or at all; nothing of this request \
                           is sent";
            Error::new(Kind::Overloaded, "delivery_queue_full", message).after(FULL).caused_by(reason)
        }
        error => error.into(),
    }
}

fn uncertain(id: &str, reason: &str) -> Error {
    let message = format!(
        "whether the delivery was accepted is not known: the registry does not answer; ask /v1/deliveries/{id} before \
         it is sent again"
    );
    Error::new(Kind::TimedOut, "acceptance_unknown", message).caused_by(reason)
}
