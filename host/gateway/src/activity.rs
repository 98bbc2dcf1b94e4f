//! What became of pushes in the last hour and since the server started: of one tenant, and for the operator of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use crate::applications::Expiring;
use crate::gateway::Gateway;
use crate::history::{FailureReason, MINUTE, Minute, RecentFailure, Timeline};
use crate::meters::PushMeter;
use crate::tenants::LimitUse;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::Provider;

/// Targets by what became of them.
type Outcomes = BTreeMap<&'static str, u64>;

/// What of a tenant's status is wanted.
#[derive(Debug, Clone, Default)]
pub struct StatusQuery {
    /// Only what is of this application.
    pub application: Option<String>,
    /// Whether the counts of each application are left out.
    pub without_applications: bool,
}

/// One tenant's view of this server.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct TenantStatus {
    pub tenant: String,
    /// Targets since this process began, by what became of them.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub outcomes: Outcomes,
    /// The last hour; the last one is the running minute.
    pub minutes: Vec<Minute>,
    /// The outcomes by application; those beyond the bound of metrics together, as `other`.
    pub applications: Vec<ApplicationOutcomes>,
    pub providers: Vec<ProviderState>,
    /// The newest first.
    pub failures: Vec<RecentFailure>,
    /// How often pushes failed, by provider, status and code; the one that occurred last is the first.
    pub reasons: Vec<FailureReason>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApplicationOutcomes {
    #[schema(value_type = String)]
    pub application: Arc<str>,
    #[schema(value_type = String)]
    pub provider: Arc<str>,
    #[schema(value_type = BTreeMap<String, u64>)]
    pub outcomes: Outcomes,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProviderState {
    pub name: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// Seconds until it is called again, if it is quarantined.
    pub quarantined: Option<u64>,
    /// Instances of this tenant that wait for a call.
    pub warm: usize,
    /// Calls of this tenant that ended in a trap, a time-out or a limit.
    pub failures: u64,
}

/// One tenant as the operator sees it.
#[derive(Debug, Clone)]
pub struct TenantActivity {
    /// Targets of each of the last minutes that were delivered or needed no delivery; the last is the running one.
    pub delivered: Vec<u64>,
    /// The other targets.
    pub undelivered: Vec<u64>,
    /// Requests and sends over a limit.
    pub refused: Vec<u64>,
    /// The limit of which the largest part is used.
    pub nearest_limit: Option<LimitUse>,
    pub applications: u64,
    /// Certificates that end within 30 days, or have ended.
    pub expiring: usize,
    /// When the first certificate ends.
    pub first_end: Option<SystemTime>,
}

impl Gateway {
    /// Returns the outcomes, providers and last failures of a tenant.
    pub fn tenant_status(&self, tenant: &TenantId, query: &StatusQuery) -> Result<TenantStatus, Error> {
        let wanted = query.application.as_deref();
        let mut meters = self.0.meters.of_tenant(tenant);
        if let Some(id) = wanted {
            self.0.registry.get(tenant, id)?;
            meters.retain(|meter| *meter.names().application == *id);
        }
        let mut outcomes = Outcomes::new();
        let mut applications = Vec::new();
        for meter in &meters {
            let own = outcomes_of(meter);
            own.iter().for_each(|(name, count)| *outcomes.entry(*name).or_default() += count);
            if !query.without_applications {
                let (application, provider) =
                    (meter.names().application.clone(), meter.names().provider.clone());
                applications.push(ApplicationOutcomes { application, provider, outcomes: own });
            }
        }
        applications.sort_by(|one, other| one.application.cmp(&other.application));
        let (mut failures, mut reasons) = self.0.recent.of(tenant).list();
        failures.retain(|failure| wanted.is_none_or(|id| *failure.application == *id));
        reasons.retain(|reason| wanted.is_none_or(|id| *reason.last.application == *id));
        let providers = self.0.catalogue.of_tenant(tenant);
        let (timeline, into) = self.timeline(&meters, |timeline| {
            if wanted.is_none() {
                self.0.tenants.add_refused(Some(tenant), timeline);
            }
        });
        Ok(TenantStatus {
            tenant: tenant.to_string(),
            outcomes,
            minutes: timeline.minutes(into),
            applications,
            providers: providers.all().map(|own| ProviderState::of(own, tenant)).collect(),
            failures,
            reasons,
        })
    }

    /// Returns what became of an application's targets since the server started. None: it is not counted by itself,
    /// because its tenant has too many.
    pub fn application_outcomes(
        &self,
        tenant: &TenantId,
        application: &str,
        provider: &str,
    ) -> Option<Outcomes> {
        match self.0.meters.of_application(tenant, application, provider) {
            Some(meter) => Some(outcomes_of(&meter)),
            None => self.0.meters.has_room(tenant).then(Outcomes::new),
        }
    }

    /// Returns the last hour of all tenants.
    pub fn minutes(&self) -> Vec<Minute> {
        let add = |timeline: &mut Timeline| self.0.tenants.add_refused(None, timeline);
        let (timeline, into) = self.timeline(&self.0.meters.all(), add);
        timeline.minutes(into)
    }

    /// Returns what a tenant did in the last hour, and where its operator should look.
    pub fn tenant_activity(&self, tenant: &TenantId) -> Result<TenantActivity, Error> {
        let usage = self.usage(tenant)?;
        let meters = self.0.meters.of_tenant(tenant);
        let (timeline, _) =
            self.timeline(&meters, |timeline| self.0.tenants.add_refused(Some(tenant), timeline));
        let (delivered, undelivered) = timeline.good_and_bad();
        let entries = self.0.registry.list(tenant);
        let now = SystemTime::now();
        let ends = entries.iter().filter_map(|entry| u64::try_from(entry.description.certificate_ends?).ok());
        let used = usage.limits.into_iter().filter(|limit| limit.used.is_some() && limit.most.is_some());
        Ok(TenantActivity {
            delivered,
            undelivered,
            refused: timeline.refused(),
            nearest_limit: used.max_by(|one, other| share(one).total_cmp(&share(other))),
            applications: entries.len() as u64,
            first_end: ends.min().and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end))),
            expiring: entries.iter().filter_map(|entry| Expiring::of(tenant, entry, now)).count(),
        })
    }

    /// Samples all counters once a minute, for as long as the gateway exists.
    pub(crate) fn sample_minutes(&self) {
        let gateway = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut minutes = interval(MINUTE);
            minutes.set_missed_tick_behavior(MissedTickBehavior::Skip);
            minutes.tick().await;
            loop {
                minutes.tick().await;
                let Some(inner) = gateway.upgrade() else { return };
                let ended = inner.meters.minute().0.saturating_sub(1);
                inner.meters.all().iter().for_each(|meter| meter.sample(ended));
                inner.tenants.sample(ended);
                inner.captures.clean();
                // Not awaited: a disk that hangs must not keep the next minute away.
                drop(tokio::task::spawn_blocking(move || inner.store_usage()));
            }
        });
    }

    /// Returns the last hour of these counters, and how far the running minute is.
    fn timeline(
        &self,
        meters: &[Arc<PushMeter>],
        refused: impl FnOnce(&mut Timeline),
    ) -> (Timeline, Duration) {
        let (now, into) = self.0.meters.minute();
        let mut timeline = Timeline::new(now);
        meters.iter().for_each(|meter| meter.add_to(&mut timeline));
        refused(&mut timeline);
        (timeline, into)
    }
}

impl ProviderState {
    fn of(provider: &Arc<Provider>, tenant: &TenantId) -> Self {
        let instances = provider.instances(tenant);
        Self {
            name: provider.manifest().name.clone(),
            digest: provider.digest().to_owned(),
            quarantined: instances.quarantined().map(|left| left.as_secs().max(1)),
            warm: instances.idle(),
            failures: instances.failures(),
        }
    }
}

fn outcomes_of(meter: &PushMeter) -> Outcomes {
    meter.outcomes().map(|(status, count)| (status.name(), count)).collect()
}

/// Returns the part of a limit that is used, from 0 to 1.
fn share(limit: &LimitUse) -> f64 {
    limit.used.unwrap_or(0) as f64 / limit.most.unwrap_or(u64::MAX).max(1) as f64
}

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::result::Status;

    fn delivered(gateway: &Gateway) -> Vec<u64> {
        let status = gateway.tenant_status(&TenantId::default_tenant(), &StatusQuery::default()).unwrap();
        status.minutes.iter().map(|minute| minute.outcomes.get("delivered").copied().unwrap_or(0)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn minutes_are_sampled_while_nobody_asks() {
        let gateway = Gateway::in_memory().unwrap();
        let meter = gateway.0.meters.of(&TenantId::default_tenant(), "shop", "apns");
        tokio::time::sleep(MINUTE / 2).await;
        for pushes in [2, 0, 1] {
            (0..pushes).for_each(|_| meter.count(Status::Delivered));
            tokio::time::sleep(MINUTE).await;
        }
        meter.count(Status::Delivered);
        assert_eq!(delivered(&gateway), [2, 0, 1, 1]);
        assert_eq!(gateway.minutes().len(), 4);
        tokio::time::sleep(100 * MINUTE).await;
        assert_eq!(delivered(&gateway), [0; 60]);
    }

    #[tokio::test]
    async fn an_application_that_is_not_counted_by_itself_has_no_outcomes() {
        let gateway = Gateway::in_memory().unwrap();
        let tenant = TenantId::default_tenant();
        assert_eq!(gateway.application_outcomes(&tenant, "shop", "apns"), Some(Outcomes::new()));
        for number in 0..=gateway.0.meters.most() {
            gateway.0.meters.of(&tenant, &format!("a{number}"), "apns").count(Status::Delivered);
        }
        assert_eq!(
            gateway.application_outcomes(&tenant, "a0", "apns"),
            Some(Outcomes::from([("delivered", 1)]))
        );
        assert_eq!(gateway.application_outcomes(&tenant, "shop", "apns"), None);
    }
}
