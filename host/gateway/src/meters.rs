//! Counters of deliveries for operators: how many targets had which status.
//!
//! The number of series is bounded, and a push costs no more than an atomic addition or two: a delivery holds the
//! counters of its application.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::codes::CodeCounters;
use crate::history::{CounterHistory, FailureLog, MINUTE, RecentFailures, Timeline};
use crate::result::{DeliveryResult, Status};
use crate::webhooks::{TenantWebhooks, Webhooks};
use pushlet_model::contract::Target;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// Stands for names beyond the bound.
const OTHER: &str = "other";
/// Most providers of a tenant for which its applications beyond the bound are counted apart.
const MOST_PROVIDERS: usize = 8;
/// In seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The counters and the last failures of one application.
pub(super) struct DeliveryCounters {
    /// None: the tenant uploaded the provider, which may make up as many reasons as it likes.
    codes: Option<CodeCounters>,
    meter: Arc<PushMeter>,
    failures: Arc<FailureLog>,
    webhooks: Arc<TenantWebhooks>,
    application: Arc<str>,
    provider: Arc<str>,
}

impl DeliveryCounters {
    pub fn new(
        (meters, recent, webhooks): (&Meters, &RecentFailures, &Webhooks),
        tenant: &TenantId,
        application: &str,
        (provider, is_own): (&str, bool),
    ) -> Self {
        Self {
            codes: (!is_own).then(|| meters.codes.clone()),
            meter: meters.of(tenant, application, provider),
            failures: recent.of(tenant),
            webhooks: webhooks.of(tenant),
            application: application.into(),
            provider: provider.into(),
        }
    }

    /// Counts the final result of a target.
    pub fn settled(&self, target: &Target, result: &DeliveryResult) {
        let status = result.status();
        self.meter.count(status);
        if let (Some(codes), Some(code)) = (&self.codes, result.code().filter(|_| !status.is_good())) {
            codes.count(&self.provider, code);
        }
        self.failures.record(&self.application, &self.provider, target, result);
        if self.webhooks.is_active() {
            self.webhooks.settled(&self.application, &self.provider, target, result);
        }
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
    codes: CodeCounters,
    known: RwLock<Known>,
    /// For everything beyond the bounds of both caches.
    rest: OnceLock<Arc<PushMeter>>,
    /// Most applications of one tenant with counters of their own.
    most: usize,
    started: Instant,
}

/// Divided among tenants, so that the names that one tenant makes up cost the others nothing.
struct Known {
    applications: FairCache<TenantId, Names, Arc<PushMeter>>,
    /// For applications beyond their tenant's share.
    others: FairCache<TenantId, Names, Arc<PushMeter>>,
    /// For tenants beyond both bounds: counters without a series, so that what a tenant uses is known all the same.
    unnamed: HashMap<TenantId, Arc<PushMeter>>,
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
    outcomes: [OnceLock<OutcomeCounter>; Status::ALL.len()],
    /// What was taken of each outcome, see [`PushMeter::take_new`].
    taken: [AtomicU64; Status::ALL.len()],
    /// Counts as well.
    rest: Option<Arc<PushMeter>>,
    latency: Histogram,
    wait: Histogram,
}

struct OutcomeCounter {
    counter: Counter,
    history: CounterHistory,
}

impl Meters {
    pub fn new(most: usize) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let meters = Self {
            registry: Registry::with_prefix("pushlet"),
            pushes: Family::default(),
            latency: Family::new_with_constructor(histogram),
            wait: Family::new_with_constructor(histogram),
            codes: CodeCounters::default(),
            known: RwLock::new(Known {
                applications: FairCache::with_share(most),
                others: FairCache::with_share(most),
                unnamed: HashMap::new(),
            }),
            rest: OnceLock::new(),
            most,
            started: Instant::now(),
        };
        meters.registered()
    }

    fn registered(mut self) -> Self {
        let Self { registry, pushes, latency, wait, codes, .. } = &mut self;
        registry.register("pushes", "Targets, by what became of them", pushes.clone());
        let help =
            "Seconds from a request to a push service to its answer, without the wait for a connection";
        registry.register("vendor_latency_seconds", help, latency.clone());
        let help = "Seconds that a request waited for its place on a connection to the push service";
        registry.register("queue_wait_seconds", help, wait.clone());
        let help = "Targets that were not delivered, by the reason of the push service or ours";
        registry.register("failures", help, codes.family().clone());
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
        let known = self.known.read().applications.get(&own).cloned();
        known.unwrap_or_else(|| self.add(tenant, own))
    }

    /// Returns how many applications of one tenant have counters of their own.
    pub fn most(&self) -> usize {
        self.most
    }

    fn add(&self, tenant: &TenantId, own: Names) -> Arc<PushMeter> {
        let mut known = self.known.write();
        let Known { applications, others, unnamed } = &mut *known;
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
        let names = |tenant| Names { tenant, application: other.clone(), provider: other.clone() };
        let rest = self.rest.get_or_init(|| meter(&names(other.clone()))).clone();
        let own = || PushMeter {
            pushes: Family::default(),
            rest: Some(rest),
            ..self.meter(names(tenant.as_str().into()))
        };
        unnamed.entry(tenant.clone()).or_insert_with(|| Arc::new(own())).clone()
    }

    fn meter(&self, names: Names) -> PushMeter {
        let label = ProviderLabel { provider: names.provider.clone() };
        PushMeter {
            pushes: self.pushes.clone(),
            outcomes: Default::default(),
            taken: Default::default(),
            rest: None,
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
        let mut known = self.known.write();
        known.applications.retain(stays);
        known.others.retain(stays);
        known.unnamed.remove(tenant);
    }

    /// Returns the counters of an application that has its own.
    pub fn of_application(
        &self,
        tenant: &TenantId,
        application: &str,
        provider: &str,
    ) -> Option<Arc<PushMeter>> {
        let names = Names {
            tenant: tenant.as_str().into(),
            application: application.into(),
            provider: provider.into(),
        };
        self.known.read().applications.get(&names).cloned()
    }

    /// Returns true if another application of the tenant would get counters of its own.
    pub fn has_room(&self, tenant: &TenantId) -> bool {
        self.known.read().applications.held_by(tenant) < self.most
    }

    /// Returns all counters that belong to a tenant.
    pub fn of_tenants(&self) -> Vec<Arc<PushMeter>> {
        let known = self.known.read();
        let all = known.applications.values().chain(known.others.values()).chain(known.unnamed.values());
        all.cloned().collect()
    }

    /// Returns all counters that have a series: what they count together is what all tenants did.
    pub fn all(&self) -> Vec<Arc<PushMeter>> {
        let known = self.known.read();
        let all = known.applications.values().chain(known.others.values()).chain(self.rest.get());
        all.cloned().collect()
    }

    /// Returns the minutes since the counters exist, and how far the running one is.
    pub fn minute(&self) -> (u32, Duration) {
        let seconds = self.started.elapsed().as_secs();
        let minute = u32::try_from(seconds / MINUTE.as_secs()).unwrap_or(u32::MAX);
        (minute, Duration::from_secs(seconds % MINUTE.as_secs()))
    }

    /// Returns all counters of a tenant.
    pub fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<PushMeter>> {
        let known = self.known.read();
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
        let new = || OutcomeCounter { counter: self.counter(status), history: CounterHistory::default() };
        counter.get_or_init(new).counter.inc();
        if let Some(rest) = &self.rest {
            rest.count(status);
        }
    }

    /// Returns what was counted since the last call. One caller at a time.
    pub fn take_new(&self) -> Vec<(Status, u64)> {
        let new = |(status, count): (Status, u64)| {
            let taken = self.taken[status as usize].swap(count, Ordering::Relaxed);
            (count > taken).then_some((status, count - taken))
        };
        self.outcomes().filter_map(new).collect()
    }

    /// Records the answer of a push service.
    pub fn answered(&self, latency: Duration, wait: Duration) {
        self.latency.observe(latency.as_secs_f64());
        self.wait.observe(wait.as_secs_f64());
    }

    /// Returns the statuses that occurred, and how often.
    pub fn outcomes(&self) -> impl Iterator<Item = (Status, u64)> {
        let outcomes = Status::ALL.into_iter().zip(&self.outcomes);
        outcomes.filter_map(|(status, counter)| Some((status, counter.get()?.counter.get())))
    }

    /// Records what was counted in `minute`, which has just ended.
    pub fn sample(&self, minute: u32) {
        for OutcomeCounter { counter, history } in self.outcomes.iter().filter_map(OnceLock::get) {
            history.sample(counter.get(), minute);
        }
    }

    pub fn add_to(&self, timeline: &mut Timeline) {
        for (status, counter) in Status::ALL.into_iter().zip(&self.outcomes) {
            if let Some(OutcomeCounter { counter, history }) = counter.get() {
                timeline.add_outcomes(status, history, counter.get());
            }
        }
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
#[path = "meters_tests.rs"]
mod tests;
