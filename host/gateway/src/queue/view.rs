//! What callers see of a delivery: how far it is, the results, and that they can cancel it.

use std::time::SystemTime;

use super::record::{DeliveryRecord, DeliveryState, OutcomeRecord, ResultDetails, read, time, written};
use crate::gateway::Gateway;
use crate::result::Status;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Steps;
use pushlet_registry::{DeliveryQueue, StoredDelivery};

/// Tries to change a record that others change too.
const TRIES: usize = 5;
/// Results that are looked at in a unit of [`Steps`].
const LOOKS_PER_UNIT: usize = 32;

/// A delivery, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    pub id: String,
    pub application: String,
    pub targets: usize,
    pub created: SystemTime,
    /// When it may be begun, if that was later.
    pub not_before: Option<SystemTime>,
    /// When what is not sent by then is given up.
    pub expires: SystemTime,
    pub cancelled: bool,
    /// Targets by status, in the order of [`Status::ALL`].
    pub counts: [usize; Status::ALL.len()],
}

/// Some deliveries of a tenant; what became of them is not counted.
pub struct DeliveryPage {
    pub deliveries: Vec<DeliveryView>,
    /// Where the next page begins; None: this is the last one.
    pub next: Option<u64>,
}

impl DeliveryView {
    /// Returns how many targets have their result.
    pub fn done(&self) -> usize {
        self.counts.iter().sum()
    }

    fn new(id: &str, record: DeliveryRecord) -> Self {
        Self {
            id: id.to_owned(),
            targets: record.targets,
            created: time(record.created),
            not_before: record.not_before.map(time),
            expires: time(record.expires),
            cancelled: record.state == DeliveryState::Cancelled,
            counts: Default::default(),
            application: record.application,
        }
    }
}

impl Gateway {
    /// Returns a delivery, and how many of its targets have which result.
    pub async fn delivery(&self, tenant: &TenantId, id: &str) -> Result<DeliveryView, Error> {
        let queue = self.0.registry.queue().ok_or_else(not_found)?;
        let (_, record) = known(&queue, tenant, id).await?;
        let mut view = DeliveryView::new(id, record);
        let place = (tenant.clone(), id.to_owned());
        let mut counted = self.0.queue.counted(&place);
        while counted.counts.iter().sum::<usize>() < view.targets {
            let Some((cursor, results)) = self.next_results(&queue, tenant, id, counted.cursor).await? else {
                break;
            };
            counted.cursor = cursor;
            results.iter().for_each(|result| counted.counts[result.status as usize] += 1);
        }
        self.0.queue.remember(place, counted);
        view.counts = counted.counts;
        Ok(view)
    }

    /// Returns the tenant's deliveries whose records are newer than a cursor; those that were changed last come last.
    pub async fn deliveries(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<DeliveryPage, Error> {
        let none = DeliveryPage { deliveries: Vec::new(), next: None };
        let Some(queue) = self.0.registry.queue() else { return Ok(none) };
        let (mut deliveries, mut cursor) = (Vec::new(), after);
        while deliveries.len() < limit {
            let Some((id, stored)) = queue.next_delivery(tenant, cursor).await? else {
                return Ok(DeliveryPage { deliveries, next: None });
            };
            cursor = stored.sequence;
            let record: DeliveryRecord = read(&stored.text)?;
            if record.state != DeliveryState::Refused {
                deliveries.push(DeliveryView::new(&id, record));
            }
        }
        Ok(DeliveryPage { deliveries, next: Some(cursor) })
    }

    /// Returns the results that were stored next after a cursor, with the next cursor; None: there are none now.
    pub async fn delivery_results(
        &self,
        tenant: &TenantId,
        id: &str,
        after: u64,
    ) -> Result<Option<(u64, Vec<ResultDetails>)>, Error> {
        let queue = self.0.registry.queue().ok_or_else(not_found)?;
        ensure_id(id)?;
        self.next_results(&queue, tenant, id, after).await
    }

    /// Sends no more of a delivery. Targets that are in flight finish. Returns also whether this call cancelled it.
    pub async fn cancel_delivery(&self, tenant: &TenantId, id: &str) -> Result<(DeliveryView, bool), Error> {
        let queue = self.0.registry.queue().ok_or_else(not_found)?;
        let mut cancelled = false;
        for _ in 0..TRIES {
            let (sequence, record) = known(&queue, tenant, id).await?;
            if record.state == DeliveryState::Cancelled {
                break;
            }
            let record = DeliveryRecord { state: DeliveryState::Cancelled, ..record };
            match queue.put(tenant, (id, None), sequence, &written(&record)?).await {
                Ok(_) => {
                    cancelled = true;
                    break;
                }
                Err(pushlet_registry::StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((self.delivery(tenant, id).await?, cancelled))
    }

    async fn next_results(
        &self,
        queue: &DeliveryQueue,
        tenant: &TenantId,
        id: &str,
        after: u64,
    ) -> Result<Option<(u64, Vec<ResultDetails>)>, Error> {
        let mut steps = Steps::new(self.0.tenants.get(tenant)?.account.clone());
        let mut cursor = after;
        while let Some(StoredDelivery { sequence, text }) = queue.next_outcome(tenant, id, cursor).await? {
            cursor = sequence;
            let outcome: OutcomeRecord = read(&text)?;
            if let Some(results) = outcome.results {
                steps.before(results.len().div_ceil(LOOKS_PER_UNIT)).await;
                return Ok(Some((cursor, results)));
            }
        }
        Ok(None)
    }
}

/// Returns a delivery's record and its sequence.
async fn known(queue: &DeliveryQueue, tenant: &TenantId, id: &str) -> Result<(u64, DeliveryRecord), Error> {
    ensure_id(id)?;
    let StoredDelivery { sequence, text } = queue.get(tenant, (id, None)).await?.ok_or_else(not_found)?;
    let record: DeliveryRecord = read(&text)?;
    match record.state {
        DeliveryState::Refused => Err(not_found()),
        _ => Ok((sequence, record)),
    }
}

/// An id becomes a part of subjects, where other texts would mean other things.
fn ensure_id(id: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (id.len() == 32 && id.bytes().all(plain)).then_some(()).ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::new(Kind::NotFound, "delivery_not_found", "there is no delivery with this id, or it is too old")
}
