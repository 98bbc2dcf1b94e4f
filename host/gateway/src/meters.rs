//! Counts what became of pushes. The series are bounded in number, and a push costs no more than an atomic
//! addition: whoever sends holds the counters of its application.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::status::Status;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// In place of names beyond the bound.
const OTHER: &str = "other";
/// Providers whose other applications are counted apart from those of a tenant's other providers.
const MOST_PROVIDERS: usize = 8;
/// Seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All counters of pushes, and their registry.
pub(super) struct Meters {
    pub registry: Registry,
    pushes: Family<PushLabels, Counter>,
    latency: Family<ProviderLabel, Histogram>,
    wait: Family<ProviderLabel, Histogram>,
    known: RwLock<Known>,
    /// For all that has no place in it.
    rest: OnceLock<Arc<PushMeter>>,
    /// Applications of one tenant with counters of their own.
    most: usize,
}

/// Divided among tenants, so that the names that one of them makes up cost the others nothing.
struct Known {
    applications: FairCache<TenantId, Names, Arc<PushMeter>>,
    /// For what the tenants have beyond their shares.
    others: FairCache<TenantId, Names, Arc<PushMeter>>,
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
            known: RwLock::new(Known {
                applications: FairCache::with_share(most),
                others: FairCache::with_share(most),
            }),
            rest: OnceLock::new(),
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

    /// The counters of an application: its own while its tenant has few, else those of its tenant's other
    /// applications, or, if there are too many tenants, those of all others.
    pub fn of(&self, tenant: &TenantId, application: &str, provider: &str) -> Arc<PushMeter> {
        let own = Names {
            tenant: tenant.as_str().into(),
            application: application.into(),
            provider: provider.into(),
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).applications.get(&own).cloned();
        known.unwrap_or_else(|| self.add(tenant, own))
    }

    /// Applications of one tenant with counters of their own.
    pub fn most(&self) -> usize {
        self.most
    }

    fn add(&self, tenant: &TenantId, own: Names) -> Arc<PushMeter> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Known { applications, others } = &mut *known;
        // A counter that was shown must not vanish: none makes room for another.
        let stays = |_: &Arc<PushMeter>| false;
        let meter = |names: &Names| Arc::new(self.meter(names.clone()));
        if let Ok((known, _)) = applications.get_or_insert_with(tenant, &own, 1, stays, || meter(&own)) {
            return known;
        }
        let other: Arc<str> = OTHER.into();
        let mut names = Names { application: other.clone(), ..own };
        if others.held_by(tenant) >= MOST_PROVIDERS && !others.contains_key(&names) {
            names.provider = other.clone();
        }
        if let Ok((known, _)) = others.get_or_insert_with(tenant, &names, 1, stays, || meter(&names)) {
            return known;
        }
        self.rest
            .get_or_init(|| {
                meter(&Names { tenant: other.clone(), application: other.clone(), provider: other })
            })
            .clone()
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
        for meter in self.of_tenant(tenant) {
            for status in Status::ALL {
                self.pushes.remove(&meter.labels(status));
            }
        }
        let stays = |names: &Names, _: &Arc<PushMeter>| *names.tenant != *tenant.as_str();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.applications.retain(stays);
        known.others.retain(stays);
    }

    /// Everything that was counted for a tenant.
    pub fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<PushMeter>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.applications.values().chain(known.others.values());
        all.filter(|meter| *meter.names.tenant == *tenant.as_str()).cloned().collect()
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

    /// The values of the counters whose labels begin like this.
    fn counts(text: &str, labels: &str) -> Vec<u64> {
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("pushlet_pushes_total{")?.split_once("} "));
        let lines = lines.filter(|(names, _)| names.starts_with(labels));
        lines.map(|(_, count)| count.parse().unwrap()).collect()
    }

    #[test]
    fn applications_and_tenants_beyond_the_bound_share_counters() {
        let meters = Meters::new(4);
        for tenant in 0..40 {
            for application in 0..20 {
                let tenant = TenantId::new(&format!("t{tenant}"));
                meters.of(&tenant, &format!("a{application}"), "apns").count(Status::Rejected);
            }
        }
        let text = text(&meters);
        assert_eq!(counts(&text, "").iter().sum::<u64>(), 800, "none is lost");
        assert!(counts(&text, "").len() <= 4 * 4 + 4 * 4 + 1, "{text}");
        assert_eq!(counts(&text, r#"tenant="t0",application="a"#), [1; 4]);
        assert_eq!(counts(&text, r#"tenant="t0",application="other""#), [16]);
        assert_eq!(counts(&text, r#"tenant="other",application="other",provider="other""#).len(), 1);
        let own = meters.of(&TenantId::new("t0"), "a0", "apns");
        assert_eq!(&*own.names().application, "a0", "who has counters keeps them");
        meters.forget(&TenantId::new("t0"));
        assert!(!self::text(&meters).contains(r#"tenant="t0""#));
    }

    #[test]
    fn the_names_that_one_tenant_makes_up_take_no_counters_from_others() {
        let meters = Meters::new(100);
        for number in 0..10_000 {
            let (application, provider) = (format!("a{number}"), format!("p{}", number % 100));
            meters.of(&TenantId::new("flood"), &application, &provider).count(Status::Rejected);
        }
        let neighbour = TenantId::new("neighbour");
        for number in 0..50 {
            meters.of(&neighbour, &format!("a{number}"), "apns").count(Status::Delivered);
        }
        let text = text(&meters);
        assert_eq!(counts(&text, r#"tenant="neighbour",application="a"#), [1; 50]);
        assert_eq!(counts(&text, r#"tenant="flood",application="a"#).len(), 100);
        let others = counts(&text, r#"tenant="flood",application="other""#);
        assert_eq!((others.len(), others.iter().sum::<u64>()), (MOST_PROVIDERS + 1, 9_900));
    }
}
