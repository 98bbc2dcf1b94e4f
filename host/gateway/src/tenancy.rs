//! What a tenant has here: how much of each limit it uses, and how all of it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Inner, LimitUse, certificates};
use crate::tenants::{Held, Usage};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

impl Inner {
    pub(super) fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        let (components, component_bytes) = self.uploads.held_by(tenant);
        let held = Held { applications: self.registry.count(tenant) as u64, components, component_bytes };
        self.tenants.usage(tenant, held)
    }

    /// For each limit the tenant that is nearest to it, by how much of it is used.
    pub(super) fn nearest_to_limits(&self) -> Vec<LimitUse> {
        let mut nearest: BTreeMap<&'static str, LimitUse> = BTreeMap::new();
        let tenants = self.tenants.list();
        let usages = tenants.iter().filter_map(|tenant| self.usage(&tenant.id).ok());
        for limit in usages.flat_map(|usage| usage.limits) {
            let (Some(used), Some(most)) = (limit.used, limit.most) else { continue };
            let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let own = LimitUse::new(limit.limit, count(used), count(most));
            let known = nearest.entry(limit.limit).or_insert(own);
            if share(&own) > share(known) {
                *known = own;
            }
        }
        nearest.into_values().collect()
    }

    pub(super) async fn remove_tenant(self: &Arc<Self>, tenant: &TenantId) -> Result<(), Error> {
        self.tenants.removable(tenant)?;
        // Until the end nothing is registered or uploaded, and then there is nobody to do it.
        let _registrations = self.tenants.begin_registration(tenant).await?;
        let providers = self.uploads.change(tenant)?;
        self.tenants.end(tenant).await?;
        let entries = self.registry.list(tenant);
        let (tenants, id) = (self.tenants.clone(), tenant.clone());
        tokio::task::spawn_blocking(move || tenants.remove(&id)).await.map_err(Error::internal)??;
        providers.forget();
        self.catalogue.shared().all().for_each(|provider| provider.forget(tenant));
        self.meters.forget(tenant);
        self.recent.forget(tenant);
        for entry in entries {
            certificates::retire(Arc::downgrade(self), tenant.clone(), entry);
        }
        Ok(())
    }
}

/// How much of it is used, from 0 to 1.
fn share(limit: &LimitUse) -> f64 {
    limit.used as f64 / limit.most.max(1) as f64
}
