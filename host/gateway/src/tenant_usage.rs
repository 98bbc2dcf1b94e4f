//! What a tenant has here: how much of each limit it uses, and how all of it goes.

use std::collections::BTreeMap;

use crate::gateway::Gateway;
use crate::stats::LimitGauge;
use crate::tenants::{Held, Usage};
use pushlet_credential::ClockReading;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

impl Gateway {
    /// What a tenant uses of its limits.
    pub fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        let (components, component_bytes) = self.0.uploads.held_by(tenant);
        let held = Held { applications: self.0.registry.count(tenant) as u64, components, component_bytes };
        self.0.tenants.usage(tenant, held)
    }

    /// For each limit the tenant that is nearest to it, by how much of it is used.
    pub(crate) fn nearest_to_limits(&self) -> Vec<LimitGauge> {
        let mut nearest: BTreeMap<&'static str, LimitGauge> = BTreeMap::new();
        let tenants = self.0.tenants.list();
        let usages = tenants.iter().filter_map(|tenant| self.usage(&tenant.id).ok());
        for limit in usages.flat_map(|usage| usage.limits) {
            let (Some(used), Some(most)) = (limit.used, limit.most) else { continue };
            let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let own = LimitGauge::new(limit.limit, count(used), count(most));
            let known = nearest.entry(limit.limit).or_insert(own);
            if share(&own) > share(known) {
                *known = own;
            }
        }
        nearest.into_values().collect()
    }

    /// Removes a tenant with all that it has; its sends in flight finish. Must run to its end.
    pub async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        self.0.tenants.removable(tenant)?;
        // Until the end nothing is registered or uploaded, and then there is nobody to do it.
        let _registrations = self.0.tenants.acquire_registration_permit(tenant).await?;
        let providers = self.0.uploads.change(tenant)?;
        self.0.tenants.end(tenant).await?;
        let entries = self.0.registry.list(tenant);
        let (tenants, id) = (self.0.tenants.clone(), tenant.clone());
        tokio::task::spawn_blocking(move || tenants.remove(&id)).await.map_err(Error::internal)??;
        providers.forget();
        self.0.catalogue.shared().all().for_each(|provider| provider.forget(tenant));
        self.0.meters.forget(tenant);
        self.0.recent.forget(tenant);
        self.0.authorizer.release(tenant, &ClockReading::now());
        for entry in entries {
            self.retire_connections(tenant.clone(), entry);
        }
        Ok(())
    }
}

/// How much of it is used, from 0 to 1.
fn share(limit: &LimitGauge) -> f64 {
    limit.used as f64 / limit.most.max(1) as f64
}
