//! Counters of deliveries for operators: how many targets had which status, and each tenant's last failures
//! in the push service's words.
//!
//! The number of series is bounded, and a push costs no more than an atomic addition: a delivery holds the
//! counters of its application.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::result::{DeliveryResult, Status};
use pushlet_model::contract::{Outcome, Target, unix_milliseconds};
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// Stands for names beyond the bound.
const OTHER: &str = "other";
/// Most providers of a tenant for which its applications beyond the bound are counted apart.
const MOST_PROVIDERS: usize = 8;
/// In seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Failures kept for each tenant.
const KEPT: usize = 50;
/// Characters of a target that are shown: enough to recognise it, too few to send to it.
const SHOWN: usize = 12;
/// Characters of a vendor's text.
const LONGEST_TEXT: usize = 300;

/// The counters and the last failures of one application.
pub(super) struct DeliveryCounters {
    meter: Arc<PushMeter>,
    failures: Arc<FailureRing>,
    application: Arc<str>,
    provider: Arc<str>,
}

impl DeliveryCounters {
    pub fn new(
        (meters, recent): (&Meters, &RecentFailures),
        tenant: &TenantId,
        application: &str,
        provider: &str,
    ) -> Self {
        Self {
            meter: meters.of(tenant, application, provider),
            failures: recent.of(tenant),
            application: application.into(),
            provider: provider.into(),
        }
    }

    /// Counts the final result of a target.
    pub fn settled(&self, target: &Target, result: &DeliveryResult) {
        self.meter.count(result.status());
        self.failures.record(&self.application, &self.provider, target, result);
    }

    /// Records the answer of a push service. `all_told`: since the request was made; `waited`: the part of it
    /// that the request waited for its turn on a connection.
    pub fn answered(&self, all_told: Duration, waited: Duration) {
        self.meter.answered(all_told.saturating_sub(waited), waited);
    }
}

/// The counters of all pushes, and their registry.
pub(super) struct Meters {
    pub registry: Registry,
    pushes: Family<PushLabels, Counter>,
    latency: Family<ProviderLabel, Histogram>,
    wait: Family<ProviderLabel, Histogram>,
    known: RwLock<Known>,
    /// For everything beyond the bounds of both caches.
    rest: OnceLock<Arc<PushMeter>>,
    /// Most applications of one tenant with counters of their own.
    most: usize,
}

/// Divided among tenants, so that the names that one tenant makes up cost the others nothing.
struct Known {
    applications: FairCache<TenantId, Names, Arc<PushMeter>>,
    /// For applications beyond their tenant's share.
    others: FairCache<TenantId, Names, Arc<PushMeter>>,
}

/// The names by which pushes are counted.
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

    /// Returns the counters of an application: its own while its tenant has few, otherwise those of its
    /// tenant's other applications, or, if there are too many tenants, those of all others.
    pub fn of(&self, tenant: &TenantId, application: &str, provider: &str) -> Arc<PushMeter> {
        let own = Names {
            tenant: tenant.as_str().into(),
            application: application.into(),
            provider: provider.into(),
        };
        // A shared lock is enough for all but an application's first delivery.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).applications.get(&own).cloned();
        known.unwrap_or_else(|| self.add(tenant, own))
    }

    /// Returns how many applications of one tenant have counters of their own.
    pub fn most(&self) -> usize {
        self.most
    }

    fn add(&self, tenant: &TenantId, own: Names) -> Arc<PushMeter> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Known { applications, others } = &mut *known;
        // A series that was shown must not vanish, so no counter is evicted for another.
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

    /// Drops all counters of a tenant.
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

    /// Returns all counters of a tenant.
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

    /// Records the answer of a push service.
    pub fn answered(&self, latency: Duration, wait: Duration) {
        self.latency.observe(latency.as_secs_f64());
        self.wait.observe(wait.as_secs_f64());
    }

    /// Returns the statuses that occurred, and how often.
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

/// A push that failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RecentFailure {
    /// Seconds since the Unix epoch.
    pub at: u64,
    #[schema(value_type = String)]
    pub application: Arc<str>,
    #[schema(value_type = String)]
    pub provider: Arc<str>,
    /// The beginning of the token, topic or URL.
    pub target: String,
    pub status: Status,
    /// The service's own reason, or ours.
    pub code: Option<String>,
    pub message: Option<String>,
}

/// The failures of all tenants that had some.
#[derive(Default)]
pub(super) struct RecentFailures(RwLock<HashMap<TenantId, Arc<FailureRing>>>);

/// The failures of one tenant.
#[derive(Default)]
pub(super) struct FailureRing(Mutex<VecDeque<RecentFailure>>);

impl RecentFailures {
    pub fn forget(&self, tenant: &TenantId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<FailureRing> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(tenant.clone()).or_default().clone()
        })
    }
}

impl FailureRing {
    /// Records the result if it is a failure; drops the oldest failure if there are too many.
    pub fn record(
        &self,
        application: &Arc<str>,
        provider: &Arc<str>,
        target: &Target,
        result: &DeliveryResult,
    ) {
        let status = result.status();
        if status.is_good() {
            return;
        }
        let (code, message) = match result {
            DeliveryResult::Settled(Outcome { code, message, .. }) => (code.as_deref(), message.as_deref()),
            DeliveryResult::Failed(error) | DeliveryResult::Lost(error) => {
                (Some(&*error.code), Some(&*error.message))
            }
            DeliveryResult::Valid | DeliveryResult::Duplicate(_) => (None, None),
        };
        let failure = RecentFailure {
            at: unix_milliseconds(SystemTime::now()) / 1000,
            application: application.clone(),
            provider: provider.clone(),
            target: beginning(target),
            status,
            code: code.map(excerpt),
            message: message.map(excerpt),
        };
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(failure);
    }

    /// Returns the failures, the newest first.
    pub fn list(&self) -> Vec<RecentFailure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

fn beginning(target: &Target) -> String {
    let (Target::Device(text)
    | Target::Topic(text)
    | Target::Condition(text)
    | Target::Channel(text)
    | Target::Url(text)) = target;
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn excerpt(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
#[path = "meters_tests.rs"]
mod tests;
