//! Permits: how many requests, sends and registrations of a tenant are in flight.
//!
//! A limit is checked before anything that tenants share, so that a tenant at its limit lengthens no other
//! tenant's queue.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::rates::{SharedRate, Sharing};
use super::tenant::Tenant;
use super::{Tenants, not_found};
use pushlet_model::error::Error;
use pushlet_model::tenant::{TenantId, TenantLimits};
use pushlet_quota::account::Account;
use pushlet_registry::LeaseCounter;

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
        let (limits, counters) = (tenant.limits(), &tenant.counters);
        let taken = counters.take_request(&limits, self.sharing(&limits), self.started.elapsed());
        self.lease(tenant, &limits, RateKind::Requests);
        taken?;
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
        // The queue of deliveries has no request whose permit was refused.
        tenant.ensure_known()?;
        let (limits, counters) = (tenant.limits(), &tenant.counters);
        let sharing = self.sharing(&limits);
        counters.acquire_send_permit(&limits, sharing.servers)?;
        // From here on, dropping the permit undoes the count.
        let place = SendPermit { tenants: self.clone(), tenant: tenant.clone() };
        let now = self.started.elapsed();
        let taken = targets.map(|targets| counters.take_pushes(&limits, (targets, sharing), now));
        self.lease(&place.tenant, &limits, RateKind::Pushes);
        match taken {
            Some(Err(wait)) => Err(counters.too_many_pushes(&limits, wait)),
            _ => Ok(place),
        }
    }

    /// Returns how a tenant's limits are shared with other servers.
    pub(super) fn sharing(&self, limits: &TenantLimits) -> Sharing {
        // A server that is alone is exact anyway.
        let exact = limits.exact_rates == Some(true) && self.registry.is_shared();
        Sharing { servers: self.registry.live_nodes() as u64, exact }
    }

    /// Returns how many exact limits cannot be leased now, so that this server grants its share of them.
    pub(crate) fn rates_without_leases(&self) -> usize {
        let live = self.live();
        let rates = live.tenants.values().flat_map(|one| [&one.counters.requests, &one.counters.pushes]);
        rates.filter(|rate| rate.is_without_leases()).count()
    }

    /// Begins to lease what a tenant will need next of a limit, if that holds exactly.
    fn lease(&self, tenant: &Arc<Tenant>, limits: &TenantLimits, kind: RateKind) {
        let (Some(most), true) = (kind.limit(limits), self.sharing(limits).exact) else { return };
        let Some(fleet) = self.registry.fleet() else { return };
        if kind.rate(tenant).begins_to_lease(most) {
            let counter = fleet.lease_counter(&tenant.id, kind.name());
            fleet.spawn(lease_ahead(Arc::downgrade(tenant), kind, counter, self.started));
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

/// The limits that can be leased.
#[derive(Clone, Copy)]
enum RateKind {
    Requests,
    Pushes,
}

impl RateKind {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Pushes => "pushes",
        }
    }

    fn limit(self, limits: &TenantLimits) -> Option<NonZeroU64> {
        match self {
            Self::Requests => limits.requests_per_second,
            Self::Pushes => limits.pushes_per_second,
        }
    }

    fn rate(self, tenant: &Tenant) -> &SharedRate {
        match self {
            Self::Requests => &tenant.counters.requests,
            Self::Pushes => &tenant.counters.pushes,
        }
    }
}

/// Leases until enough is held, or the tenant or its limit is gone.
async fn lease_ahead(tenant: Weak<Tenant>, kind: RateKind, mut counter: LeaseCounter, started: Instant) {
    while let Some(tenant) = tenant.upgrade() {
        let (rate, limits) = (kind.rate(&tenant), tenant.limits());
        let most = kind.limit(&limits).filter(|_| limits.exact_rates == Some(true));
        let Some(most) = most else { return rate.end() };
        let Some(pause) = rate.lease_ahead(&mut counter, most, started).await else { return };
        drop(tenant);
        tokio::time::sleep(pause).await;
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
        let (now, limits) = (self.tenants.started.elapsed(), self.tenant.limits());
        let sharing = self.tenants.sharing(&limits);
        let taken = self.tenant.counters.take_pushes(&limits, (targets as u64, sharing), now);
        self.tenants.lease(&self.tenant, &limits, RateKind::Pushes);
        // A wait that rounds to nothing would let the stream spin.
        taken.err().map(|wait| wait.max(Duration::from_millis(1)))
    }

    /// Returns the most targets that are taken at a time: a tenth of a second's worth, so that they are not
    /// sent in bursts.
    pub fn batch(&self) -> usize {
        let limits = self.tenant.limits();
        let servers = self.tenants.sharing(&limits).servers;
        let part = |most: NonZeroU64| most.get().div_ceil(10 * servers);
        limits.pushes_per_second.map_or(usize::MAX, |most| usize::try_from(part(most)).unwrap_or(usize::MAX))
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        self.tenant.counters.end_send();
    }
}
