//! What tenants used, by day and month: taken from the counters once a minute, and stored in the registry.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::gateway::{Gateway, Inner};
use crate::result::utc;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{UsageCounts, UsagePeriod};

/// Letters of a date as `2026-11-27`, with which a time begins.
const DATE: usize = 10;

impl Inner {
    /// Stores what was counted since the last time, and when keys were used last. Blocks.
    pub(crate) fn store_usage(&self) {
        // Held to the end: a counter is taken once.
        let mut waiting = self.waiting_usage.lock();
        for meter in self.meters.of_tenants() {
            let names = meter.names();
            for (status, count) in meter.take_new() {
                let counts = waiting.entry(TenantId::new(&names.tenant)).or_default();
                let providers = counts.entry(names.application.to_string()).or_default();
                let outcomes = providers.entry(names.provider.to_string()).or_default();
                *outcomes.entry(status.name().to_owned()).or_default() += count;
            }
        }
        let mut all: Vec<_> = waiting.drain().collect();
        // A tenant that was removed meanwhile has no use that is kept.
        all.retain(|(tenant, _)| self.tenants.get(tenant).is_ok());
        waiting.extend(self.registry.add_usage(all, date));
        drop(waiting);
        self.tenants.store_last_uses();
    }
}

impl Gateway {
    /// Returns what a tenant used, by period; the oldest first.
    pub async fn usage_by(
        &self,
        tenant: &TenantId,
        by: UsagePeriod,
    ) -> Result<BTreeMap<String, UsageCounts>, Error> {
        self.0.tenants.get(tenant)?;
        let (inner, tenant) = (self.0.clone(), tenant.clone());
        let read = move || {
            inner.store_usage();
            inner.registry.usage(&tenant, by)
        };
        Ok(tokio::task::spawn_blocking(read).await.map_err(Error::internal)??)
    }
}

fn date(time: SystemTime) -> String {
    let mut text = utc(time).to_string();
    text.truncate(DATE);
    text
}

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::result::Status;

    #[tokio::test]
    async fn what_was_counted_is_stored_once() {
        let gateway = Gateway::in_memory().unwrap();
        let tenant = TenantId::default_tenant();
        let meter = gateway.0.meters.of(&tenant, "shop", "apns");
        for (new, expected) in [(2, 2), (1, 3), (0, 3)] {
            (0..new).for_each(|_| meter.count(Status::Delivered));
            let months = gateway.usage_by(&tenant, UsagePeriod::Month).await.unwrap();
            let counts: Vec<_> = months.values().map(|month| month["shop"]["apns"]["delivered"]).collect();
            assert_eq!(counts, [expected]);
        }
        let days = gateway.usage_by(&tenant, UsagePeriod::Day).await.unwrap();
        assert!(days.keys().all(|day| day.len() == "2026-11-27".len()), "{days:?}");
        assert!(gateway.usage_by(&TenantId::new("nobody"), UsagePeriod::Day).await.is_err());
    }
}
