//! The current state of the gateway and everything below it: for metrics and readiness checks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;
use crate::sessions;
use crate::webhooks::Webhooks;
use pushlet_credential::TokenCounts;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Accounts;
use pushlet_quota::fair::FairCache;
use pushlet_registry::ApplicationEntry;
use pushlet_sandbox::{SandboxStats, UsageStats};
use pushlet_transport::{BreakerState, ConnectionStats};

/// Most servers of one tenant with series of their own; the others are counted together.
const MOST_ORIGINS: usize = 50;
const OTHER: &str = "other";
const DAY: f64 = 24.0 * 3600.0;

/// Whether a server can do its work, and what it sees of the push services.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Readiness {
    /// Why it cannot, if so: the message of the answer then.
    #[serde(skip)]
    pub reason: Option<String>,
    /// False: applications and tenants cannot be changed now. A node of a fleet sends all the same, with what it knows.
    pub registry_writable: bool,
    /// How many are loaded.
    pub providers: usize,
    /// How many uploaded ones are not loaded yet; what needs one waits for it.
    pub loading: usize,
    /// How often one of them is quarantined, by a tenant each.
    pub quarantined: usize,
    pub circuits: Circuits,
}

/// The circuit breakers in front of push services, one for each server and credential.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Circuits {
    /// Requests pass.
    pub closed: usize,
    /// The server could not be reached lately.
    pub open: usize,
    /// It is being tried.
    pub half_open: usize,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy)]
pub struct LimitGauge {
    pub limit: &'static str,
    pub used: usize,
    pub most: usize,
}

impl LimitGauge {
    pub fn new(limit: &'static str, used: usize, most: usize) -> Self {
        Self { limit, used, most }
    }
}

/// Stands for the names of uploaded providers in metrics.
const UPLOADED: &str = "(uploaded)";

type Labels = Vec<(&'static str, String)>;

/// Gauges and counters of one moment.
struct Moment(Registry);

impl Gateway {
    /// Returns whether this gateway can serve now, and what it sees of the push services.
    pub async fn readiness(&self) -> Readiness {
        let providers = self.0.catalogue.shared().all().count();
        let problem = self.0.storage_check.problem(&self.0.registry).await;
        let registry_writable = problem.is_none();
        // A fleet without its registry goes on: a load balancer that took all nodes away would end that.
        let reason = match (providers, problem.filter(|_| !self.0.registry.is_shared())) {
            (0, _) => Some("no provider is loaded".to_owned()),
            (_, Some(problem)) => Some(format!("the registry cannot be written: {problem}")),
            (_, None) => None,
        };
        Readiness {
            reason,
            registry_writable,
            providers,
            loading: self.0.uploads.loading(),
            quarantined: self.quarantined().into_values().sum(),
            circuits: Circuits::of(&self.0.transport.snapshot()),
        }
    }

    /// Writes all metrics of the gateway and of what it uses, in the OpenMetrics text format without its end.
    /// `limits`: those of the caller.
    pub fn encode_metrics(&self, text: &mut String, limits: &[LimitGauge]) -> fmt::Result {
        text::encode_registry(text, &self.0.meters.registry)?;
        let mut now = Moment(Registry::with_prefix("pushlet"));
        let mut limits = limits.to_vec();
        now.connections(&self.0.transport.snapshot());
        now.tokens(self.0.authorizer.counts());
        if let Some(provider) = self.0.catalogue.shared().all().next() {
            let figures = provider.sandbox().figures();
            now.sandbox(&figures);
            limits.push(LimitGauge::new("instances", figures.instances, figures.most_instances));
        }
        let quarantined = self.quarantined().into_iter();
        let quarantined: Vec<_> =
            quarantined.map(|(provider, tenants)| (vec![("provider", provider)], tenants as f64)).collect();
        now.gauge("quarantined", "Tenants that have the provider in quarantine", quarantined);
        if let Some(fleet) = self.0.registry.fleet() {
            // The label is what a query joins this server's other metrics with.
            let node = vec![("node", fleet.node().to_owned())];
            let live = vec![(node, fleet.live_nodes() as f64)];
            now.gauge("fleet_nodes", "Servers of the fleet that live, as this one knows", live);
            let help = "Exact limits per second that cannot be leased: this server grants its share of them";
            now.one_gauge("fleet_rates_without_leases", help, self.0.tenants.rates_without_leases());
            let parts = self.0.queue.waiting.load(Ordering::Relaxed);
            now.one_gauge(
                "fleet_queued_parts",
                "Parts of deliveries in the fleet's queue, as last seen",
                parts,
            );
        }
        let streams = Arc::strong_count(&self.0.open_streams) - 1;
        now.one_gauge("open_streams", "Streams of callers that are open", streams);
        now.webhooks(&self.0.webhooks);
        let applications = self.0.registry.all();
        now.certificates(&applications, self.0.meters.most());
        let accounts = self.0.tenants.accounts();
        let (used, most) = accounts.process_memory();
        limits.push(LimitGauge::new("process_memory_bytes", used, most));
        limits.push(LimitGauge::new(
            "stream_connections",
            self.0.sessions.count(),
            sessions::MOST_CONNECTIONS,
        ));
        now.accounts(accounts);
        limits.extend(self.nearest_to_limits());
        now.limits(&limits);
        now.refusals(self.0.tenants.refusals(), self.0.meters.most());
        text::encode_registry(text, &now.0)
    }

    /// Returns for each limit the tenant that is nearest to it, by the part of the limit that is used.
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

    /// Returns how many tenants have a provider in quarantine, by provider; uploaded ones are counted
    /// together.
    fn quarantined(&self) -> BTreeMap<String, usize> {
        let shared = self.0.catalogue.shared();
        let mut all: BTreeMap<_, _> =
            shared.all().map(|provider| (provider.manifest().name.clone(), provider.quarantined())).collect();
        let uploaded = self.0.catalogue.uploaded();
        all.insert(UPLOADED.to_owned(), uploaded.iter().map(|provider| provider.quarantined()).sum());
        all
    }
}

/// Returns the part of a limit that is used, from 0 to 1.
fn share(limit: &LimitGauge) -> f64 {
    limit.used as f64 / limit.most.max(1) as f64
}

impl Circuits {
    fn of(connections: &[ConnectionStats]) -> Self {
        let mut circuits = Self::default();
        for connection in connections {
            *match connection.breaker {
                BreakerState::Closed => &mut circuits.closed,
                BreakerState::Open(_) => &mut circuits.open,
                BreakerState::HalfOpen => &mut circuits.half_open,
            } += 1;
        }
        circuits
    }
}

impl Moment {
    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn one_gauge(&mut self, name: &str, help: &str, value: usize) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value as f64);
        self.0.register(name, help, gauge);
    }

    fn one_counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstCounter::new(value));
    }

    fn connections(&mut self, all: &[ConnectionStats]) {
        let mut by_origin: BTreeMap<String, [usize; 3]> = BTreeMap::new();
        let mut shown: FairCache<TenantId, String, ()> = FairCache::with_share(MOST_ORIGINS);
        for stats in all {
            let origin = stats.origin.to_string();
            let known = shown.contains_key(&origin)
                || shown.get_or_insert_with(&stats.tenant, &origin, 1, |()| false, || ()).is_ok();
            let sums = by_origin.entry(if known { origin } else { OTHER.to_owned() }).or_default();
            let own = [stats.connections, stats.streams, stats.queued];
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        for (number, (name, help)) in [
            ("connections", "Open HTTP/2 connections to push services"),
            ("streams", "Requests to push services in flight"),
            ("queue_depth", "Requests that wait for their place on a connection to a push service"),
        ]
        .into_iter()
        .enumerate()
        {
            let of = |(origin, sums): (&String, &[usize; 3])| {
                (vec![("origin", origin.clone())], sums[number] as f64)
            };
            self.gauge(name, help, by_origin.iter().map(of));
        }
        let Circuits { closed, open, half_open } = Circuits::of(all);
        let states = [("closed", closed), ("open", open), ("half_open", half_open)];
        let states = states.map(|(state, count)| (vec![("state", state.to_owned())], count as f64));
        self.gauge("circuits", "Circuit breakers, one for each push server and credential", states);
    }

    fn webhooks(&mut self, webhooks: &Webhooks) {
        let help = "Messages of webhooks that have not arrived";
        self.one_gauge("webhook_messages_waiting", help, webhooks.waiting());
        let attempts =
            webhooks.attempts().map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count as f64));
        self.counter("webhook_attempts", "Attempts to send a message of a webhook", attempts);
    }

    fn tokens(&mut self, counts: TokenCounts) {
        self.one_counter("tokens_minted", "Provider tokens that were signed", counts.minted);
        self.one_counter("token_fetches", "Requests to token endpoints", counts.fetches);
        let help = "Requests to token endpoints that gave no token";
        self.one_counter("token_fetch_failures", help, counts.failed_fetches);
    }

    fn sandbox(&mut self, figures: &SandboxStats) {
        self.one_gauge("sandbox_instances", "Provider instances alive", figures.instances);
        self.one_gauge("sandbox_instances_idle", "Provider instances that wait for a call", figures.idle);
        let help = "Linear memory of idle provider instances";
        self.one_gauge("sandbox_idle_memory_bytes", help, figures.idle_memory);
        let by_name = |of: fn(&UsageStats) -> f64| {
            figures.usage.iter().map(move |usage| (vec![("provider", usage.provider.clone())], of(usage)))
        };
        self.counter("sandbox_calls", "Calls into providers", by_name(|usage| usage.calls as f64));
        let help = "Time of all calls into providers";
        self.counter("sandbox_seconds", help, by_name(|usage| usage.time.as_secs_f64()));
        let help = "How often a provider was quarantined";
        self.counter("quarantines", help, by_name(|usage| usage.quarantines as f64));
        let faults = figures.usage.iter().flat_map(|usage| {
            let labels = |code: &str| vec![("provider", usage.provider.clone()), ("code", code.to_owned())];
            usage.faults.iter().map(move |(code, count)| (labels(code), *count as f64))
        });
        self.counter("sandbox_faults", "Calls into providers that ended in a trap or at a limit", faults);
    }

    /// Writes the certificates that expire first, if a tenant has too many.
    fn certificates(&mut self, applications: &[(TenantId, Arc<ApplicationEntry>)], most: usize) {
        let ends = applications.iter().filter_map(|(tenant, entry)| {
            Some((entry.description.certificate_ends?, tenant, entry.id.as_str()))
        });
        let mut ends: Vec<(i64, &TenantId, &str)> = ends.collect();
        ends.sort_unstable();
        let mut shown: FairCache<TenantId, (&TenantId, &str), ()> = FairCache::with_share(most);
        ends.retain(|(_, tenant, id)| {
            shown.get_or_insert_with(tenant, &(*tenant, *id), 1, |()| false, || ()).is_ok()
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let days = ends.into_iter().map(|(end, tenant, id)| {
            let labels = vec![("tenant", tenant.to_string()), ("application", id.to_owned())];
            (labels, (end as f64 - now) / DAY)
        });
        self.gauge("certificate_expiry_days", "Days until the application's certificate ends", days);
    }

    fn accounts(&mut self, accounts: &Accounts) {
        let memory = accounts.memory_by_use().into_iter();
        let memory = memory.map(|(of, bytes)| (vec![("use", of.name().to_owned())], bytes as f64));
        self.gauge(
            "account_memory_bytes",
            "Bytes on the accounts of all tenants, by what they are for",
            memory,
        );
        let work = accounts.work_by_kind().into_iter();
        let work = work.map(|(work, time)| (vec![("work", work.name().to_owned())], time.as_secs_f64()));
        self.counter("account_work_seconds", "Processor time that tenants were charged with", work);
    }

    /// Tenants beyond the first `most` are counted together.
    fn refusals(&mut self, mut all: Vec<(TenantId, BTreeMap<Cow<'static, str>, u64>)>, most: usize) {
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
        for (number, (tenant, refusals)) in all.into_iter().enumerate() {
            let tenant = if number < most { tenant.to_string() } else { OTHER.to_owned() };
            for (code, count) in refusals {
                let limit = code.strip_prefix("limit_").unwrap_or(&code).to_owned();
                *sums.entry((tenant.clone(), limit)).or_default() += count as f64;
            }
        }
        let labelled = |((tenant, limit), count)| (vec![("tenant", tenant), ("limit", limit)], count);
        let help = "Requests and sends over a limit of their tenant";
        self.counter("refusals", help, sums.into_iter().map(labelled));
    }

    fn limits(&mut self, limits: &[LimitGauge]) {
        let labels = |limit: &LimitGauge| vec![("limit", limit.limit.to_owned())];
        let used = limits.iter().map(|limit| (labels(limit), limit.used as f64));
        self.gauge("limit_used", "How much of a limit is used", used);
        let most = limits.iter().map(|limit| (labels(limit), limit.most as f64));
        self.gauge("limit_max", "The limit", most);
    }
}
