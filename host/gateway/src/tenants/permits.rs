//! Permits: how many requests, sends and registrations of a tenant are in flight.
//!
//! A limit is checked before anything that tenants share, so that a tenant at its limit lengthens no other
//! tenant's queue.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::tenant::Tenant;
use super::{Tenants, not_found};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;

/// The permit for a request in flight.
pub struct RequestPermit {
    tenants: Arc<Tenants>,
    tenant: Arc<Tenant>,
}

/// The permit for a send in flight.
pub struct SendPermit {
    tenants: Arc<Tenants>,
    tenant: Arc<Tenant>,
}

impl Tenants {
    /// Admits a request, if its tenant's limits allow one more.
    ///
    /// If there are several tenants, none may have more requests in flight than each of the active tenants
    /// and one more could have; so one active tenant gets half of them.
    pub fn acquire_request_permit(self: &Arc<Self>, tenant: &Arc<Tenant>) -> Result<RequestPermit, Error> {
        tenant.may_go_on()?;
        let counters = &tenant.counters;
        counters.take_request(&tenant.limits(), self.shares(), self.started.elapsed())?;
        let before = counters.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
        }
        // From here on, dropping the permit undoes the count.
        let place = RequestPermit { tenants: self.clone(), tenant: tenant.clone() };
        let share = (self.settings.requests / (self.active.load(Ordering::Relaxed) + 1)).max(1);
        if before >= share && self.are_many() {
            let message = format!(
                "{before} requests are in flight, the tenant's share of this server (limit concurrent_requests)"
            );
            return Err(counters.refuse("limit_concurrent_requests", message, Duration::from_secs(1)));
        }
        Ok(place)
    }

    /// Admits a send. `targets`: how many it has; None: a stream, whose targets are delayed instead, see
    /// [`SendPermit::take`].
    pub fn acquire_send_permit(
        self: &Arc<Self>,
        id: &TenantId,
        targets: Option<u64>,
    ) -> Result<SendPermit, Error> {
        let tenant = self.get(id)?;
        let (limits, counters) = (tenant.limits(), &tenant.counters);
        let shares = self.shares();
        counters.acquire_send_permit(&limits, shares)?;
        // From here on, dropping the permit undoes the count.
        let place = SendPermit { tenants: self.clone(), tenant: tenant.clone() };
        let now = self.started.elapsed();
        let taken = targets.map(|targets| counters.take_pushes(&limits, (targets, shares), now));
        match taken {
            Some(Err(wait)) => Err(counters.too_many_pushes(&limits, wait)),
            _ => Ok(place),
        }
    }

    /// Waits for the tenant's one registration permit: registrations wait for each other before they wait for
    /// the processor.
    pub async fn acquire_registration_permit(&self, id: &TenantId) -> Result<OwnedSemaphorePermit, Error> {
        let places = self.get(id)?.counters.registrations.clone();
        // The semaphore is closed when the tenant is removed.
        places.acquire_owned().await.map_err(|_| not_found(id))
    }
}

impl RequestPermit {
    /// Returns the account that the request is charged to.
    pub fn account(&self) -> &Arc<Account> {
        &self.tenant.account
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.tenant.counters.requests_in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.tenants.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl SendPermit {
    /// Returns the account that the send is charged to.
    pub fn account(&self) -> &Arc<Account> {
        &self.tenant.account
    }

    /// Takes this many targets of a stream. Returns how long to wait if they exceed the limit.
    pub fn take(&self, targets: usize) -> Option<Duration> {
        let now = self.tenants.started.elapsed();
        let taken = self.tenant.counters.take_pushes(
            &self.tenant.limits(),
            (targets as u64, self.tenants.shares()),
            now,
        );
        // A wait that rounds to nothing would let the stream spin.
        taken.err().map(|wait| wait.max(Duration::from_millis(1)))
    }

    /// Returns the most targets that are taken at a time: a tenth of a second's worth, so that they are not
    /// sent in bursts.
    pub fn batch(&self) -> usize {
        let most = self.tenant.limits().pushes_per_second;
        let part = |most: NonZeroU64| most.get().div_ceil(10 * self.tenants.shares());
        most.map_or(usize::MAX, |most| usize::try_from(part(most)).unwrap_or(usize::MAX))
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        self.tenant.counters.end_send();
    }
}
