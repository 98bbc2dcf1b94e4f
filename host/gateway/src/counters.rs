//! Where a delivery's outcomes are counted and its failures noted.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::Gateway;
use crate::meters::PushMeter;
use crate::recent::Ring;
use crate::status::Fate;
use pushlet_model::contract::Target;
use pushlet_model::tenant::TenantId;

/// The counters and the ring of one application.
pub(super) struct DeliveryCounters {
    meter: Arc<PushMeter>,
    failures: Arc<Ring>,
    application: Arc<str>,
    provider: Arc<str>,
}

impl DeliveryCounters {
    pub fn new(gateway: &Gateway, tenant: &TenantId, application: &str, provider: &str) -> Self {
        Self {
            meter: gateway.0.meters.of(tenant, application, provider),
            failures: gateway.0.recent.of(tenant),
            application: application.into(),
            provider: provider.into(),
        }
    }

    /// The final fate of a target.
    pub fn settled(&self, target: &Target, fate: &Fate) {
        self.meter.count(fate.status());
        self.failures.record(&self.application, &self.provider, target, fate);
    }

    /// A push service answered, so long after the request was made; it waited for its place meanwhile.
    pub fn answered(&self, all_told: Duration, waited: Duration) {
        self.meter.answered(all_told.saturating_sub(waited), waited);
    }
}
