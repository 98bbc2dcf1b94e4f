//! Counts what became of pushes. The series are bounded in number, and a push costs no more than an atomic
//! addition: whoever sends holds the counters of its application.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Status;
use crate::tenant::TenantId;

/// In place of names beyond the bound.
const OTHER: &str = "other";
/// Seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All counters of pushes, and their registry.
pub(super) struct Meters {
    pub registry: Registry,
    pushes: Family<PushLabels, Counter>,
    latency: Family<ProviderLabel, Histogram>,
    wait: Family<ProviderLabel, Histogram>,
    known: RwLock<HashMap<Names, Arc<PushMeter>>>,
    /// Applications with counters of their own.
    most: usize,
}

/// Whose pushes are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Names {
    pub tenant: Arc<str>,
    pub application: Arc<str>,
    pub provider: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    tenant: Arc<str>,
    application: Arc<str>,
    provider: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabel {
    provider: Arc<str>,
}

/// The counters of one application. A counter is a series from its first push on.
pub(super) struct PushMeter {
    names: Names,
    pushes: Family<PushLabels, Counter>,
    outcomes: [OnceLock<Counter>; Status::ALL.len()],
    latency: Histogram,
    wait: Histogram,
}

impl Meters {
    pub fn new(most: usize) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let meters = Self {
            registry: Registry::with_prefix("pushlet"),
            pushes: Family::default(),
            latency: Family::new_with_constructor(histogram),
            wait: Family::new_with_constructor(histogram),
            known: RwLock::default(),
            most,
        };
        meters.registered()
    }

    fn registered(mut self) -> Self {
        let Self { registry, pushes, latency, wait, .. } = &mut self;
        registry.register("pushes", "Targets, by what became of them", pushes.clone());
        let help =
            "Seconds from a request to a push service to its answer, without the wait for a connection";
        registry.register("vendor_latency_seconds", help, latency.clone());
        let help = "Seconds that a request waited for its place on a connection to the push service";
        registry.register("queue_wait_seconds", help, wait.clone());
        self
    }

    /// The counters of an application: its own while there are few, else those of its tenant's others, else
    /// those of everybody's others.
    pub fn of(&self, tenant: &TenantId, application: &str, provider: &str) -> Arc<PushMeter> {
        let own = Names {
            tenant: tenant.as_str().into(),
            application: application.into(),
            provider: provider.into(),
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&own).cloned();
        known.unwrap_or_else(|| self.add(own))
    }

    /// Applications with counters of their own.
    pub fn most(&self) -> usize {
        self.most
    }

    fn add(&self, own: Names) -> Arc<PushMeter> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let other: Arc<str> = OTHER.into();
        let of_tenant = Names { application: other.clone(), ..own.clone() };
        let names = match known.len() {
            count if count < self.most || known.contains_key(&own) => own,
            count if count < 2 * self.most || known.contains_key(&of_tenant) => of_tenant,
            _ => Names { tenant: other.clone(), application: other.clone(), provider: other },
        };
        known.entry(names.clone()).or_insert_with(|| Arc::new(self.meter(names))).clone()
    }

    fn meter(&self, names: Names) -> PushMeter {
        let label = ProviderLabel { provider: names.provider.clone() };
        PushMeter {
            pushes: self.pushes.clone(),
            outcomes: Default::default(),
            latency: self.latency.get_or_create_owned(&label),
            wait: self.wait.get_or_create_owned(&label),
            names,
        }
    }

    /// Drops everything that was counted for a tenant.
    pub fn forget(&self, tenant: &TenantId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|names, meter| {
            let goes = *names.tenant == *tenant.as_str();
            if goes {
                for status in Status::ALL {
                    self.pushes.remove(&meter.labels(status));
                }
            }
            !goes
        });
    }

    /// Everything that was counted for a tenant.
    pub fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<PushMeter>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|meter| *meter.names.tenant == *tenant.as_str()).cloned().collect()
    }
}

impl PushMeter {
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn count(&self, status: Status) {
        let counter = &self.outcomes[status as usize];
        counter.get_or_init(|| self.counter(status)).inc();
    }

    /// A push service answered.
    pub fn answered(&self, latency: Duration, wait: Duration) {
        self.latency.observe(latency.as_secs_f64());
        self.wait.observe(wait.as_secs_f64());
    }

    /// The outcomes that there were, and how often.
    pub fn outcomes(&self) -> impl Iterator<Item = (Status, u64)> {
        let outcomes = Status::ALL.into_iter().zip(&self.outcomes);
        outcomes.filter_map(|(status, counter)| Some((status, counter.get()?.get())))
    }

    fn counter(&self, status: Status) -> Counter {
        self.pushes.get_or_create_owned(&self.labels(status))
    }

    fn labels(&self, status: Status) -> PushLabels {
        let Names { tenant, application, provider } = self.names.clone();
        PushLabels { tenant, application, provider, outcome: status.name() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(meters: &Meters) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &meters.registry).unwrap();
        text
    }

    #[test]
    fn an_outcome_is_a_series_from_its_first_push_on() {
        let meters = Meters::new(10);
        let meter = meters.of(&TenantId::new("acme"), "shop", "apns");
        assert!(!text(&meters).contains("outcome="));
        meter.count(Status::Delivered);
        meters.of(&TenantId::new("acme"), "shop", "apns").count(Status::Delivered);
        let labels = r#"tenant="acme",application="shop",provider="apns",outcome="delivered""#;
        assert!(
            text(&meters).contains(&format!("pushlet_pushes_total{{{labels}}} 2\n")),
            "{}",
            text(&meters)
        );
        assert_eq!(meter.outcomes().collect::<Vec<_>>(), [(Status::Delivered, 2)]);
    }

    #[test]
    fn applications_and_tenants_beyond_the_bound_share_counters() {
        let meters = Meters::new(2);
        for tenant in 0..20 {
            for application in 0..20 {
                let tenant = TenantId::new(&format!("t{tenant}"));
                meters.of(&tenant, &format!("a{application}"), "apns").count(Status::Rejected);
            }
        }
        let text = text(&meters);
        let counts =
            text.lines().filter_map(|line| line.strip_prefix("pushlet_pushes_total")?.split_once("} "));
        let counts: Vec<u64> = counts.map(|(_, count)| count.parse().unwrap()).collect();
        assert_eq!(counts.len(), 5, "{text}");
        assert_eq!(counts.iter().sum::<u64>(), 400, "none is lost");
        assert!(
            text.contains(r#"tenant="t0",application="a0""#)
                && text.contains(r#"tenant="t0",application="other""#)
        );
        assert!(text.contains(r#"tenant="other",application="other",provider="other""#));
        let own = meters.of(&TenantId::new("t0"), "a0", "apns");
        assert_eq!(&*own.names().application, "a0", "who has counters keeps them");
    }
}
