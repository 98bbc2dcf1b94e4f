//! A fair share of the places for requests: whoever is there, there is room for one more tenant.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Tenant, Tenants};
use pushlet_model::error::Error;
use pushlet_quota::account::Account;

/// A request of a tenant, while it is under way.
pub struct RequestPermit {
    tenants: Arc<Tenants>,
    tenant: Arc<Tenant>,
}

impl Tenants {
    /// Lets a request begin, if its tenant's limits allow one more.
    ///
    /// With more than one tenant none may have more places than each of the active ones and another one
    /// could have; so a tenant alone gets half of them.
    pub fn acquire_request_permit(self: &Arc<Self>, tenant: &Arc<Tenant>) -> Result<RequestPermit, Error> {
        tenant.may_go_on()?;
        let counters = &tenant.counters;
        counters.take_request(&tenant.limits(), self.started.elapsed())?;
        let before = counters.requests_under_way.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
        }
        // From here on, dropping it gives the place back.
        let place = RequestPermit { tenants: self.clone(), tenant: tenant.clone() };
        let share = (self.settings.requests / (self.active.load(Ordering::Relaxed) + 1)).max(1);
        if before >= share && self.are_many() {
            let message = format!(
                "{before} requests are under way, the tenant's share of this server (limit concurrent_requests)"
            );
            return Err(counters.refuse("limit_concurrent_requests", message, Duration::from_secs(1)));
        }
        Ok(place)
    }
}

impl RequestPermit {
    /// The account that pays for the request.
    pub fn account(&self) -> &Arc<Account> {
        &self.tenant.account
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.tenant.counters.requests_under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.tenants.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
