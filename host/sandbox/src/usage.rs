//! What calls into components cost, and how they end: for metrics. Counted by the provider's name, so that the
//! figures go on when a component is replaced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::error::ProviderError;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// Uploaded providers of one tenant with counters of their own.
const MOST: usize = 200;
/// The others'.
const OTHER: &str = "other";
const FAULTS: [&str; 5] =
    ["provider_timeout", "provider_memory", "provider_panicked", "provider_bad_output", "provider_refused"];

/// The counters of one provider.
#[derive(Default)]
pub(super) struct ProviderUsage {
    calls: AtomicU64,
    /// Nanoseconds.
    time: AtomicU64,
    faults: [AtomicU64; FAULTS.len()],
    quarantines: AtomicU64,
}

/// What one provider's components used since this process began.
#[derive(Debug, Clone)]
pub struct UsageStats {
    pub provider: String,
    pub calls: u64,
    /// Wall-clock time of all calls.
    pub time: Duration,
    /// How often calls ended with which error code.
    pub faults: Vec<(&'static str, u64)>,
    /// How often it was quarantined, by a tenant each.
    pub quarantines: u64,
}

/// What the sandbox holds now.
#[derive(Debug, Clone)]
pub struct SandboxStats {
    /// Instances alive, in use or idle.
    pub instances: usize,
    pub most_instances: usize,
    pub idle: usize,
    /// Bytes of linear memory of the idle ones.
    pub idle_memory: usize,
    pub usage: Vec<UsageStats>,
}

impl ProviderUsage {
    pub(super) fn called(&self, time: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.time.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &ProviderError) {
        if let Some(number) = FAULTS.iter().position(|code| *code == error.code()) {
            self.faults[number].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn quarantined(&self) {
        self.quarantines.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what another one counted.
    fn add(&self, other: &Self) {
        let add = |sum: &AtomicU64, other: &AtomicU64| {
            sum.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        add(&self.calls, &other.calls);
        add(&self.time, &other.time);
        self.faults.iter().zip(&other.faults).for_each(|(sum, other)| add(sum, other));
        add(&self.quarantines, &other.quarantines);
    }

    fn figures(&self, provider: &str) -> UsageStats {
        let faults = FAULTS.into_iter().zip(&self.faults);
        UsageStats {
            provider: provider.to_owned(),
            calls: self.calls.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.time.load(Ordering::Relaxed)),
            faults: faults.map(|(code, count)| (code, count.load(Ordering::Relaxed))).collect(),
            quarantines: self.quarantines.load(Ordering::Relaxed),
        }
    }
}

/// The counters of all providers.
pub(super) struct ProviderUsages(Mutex<UsageCounters>);

struct UsageCounters {
    /// Those of this server's own providers, by name.
    built_in: BTreeMap<String, Arc<ProviderUsage>>,
    /// Those of uploaded ones, by name, divided among tenants; those of one name are counted together.
    uploaded: FairCache<TenantId, String, Arc<ProviderUsage>>,
    /// Those beyond the bound, and what is left of those that made room for others.
    other: Arc<ProviderUsage>,
}

impl ProviderUsages {
    pub(super) fn new() -> Self {
        let (built_in, other) = (BTreeMap::new(), Arc::default());
        Self(Mutex::new(UsageCounters { built_in, uploaded: FairCache::with_share(MOST), other }))
    }

    pub(super) fn of_built_in(&self, provider: &str) -> Arc<ProviderUsage> {
        self.lock().built_in.entry(provider.to_owned()).or_default().clone()
    }

    /// Returns the counters of a provider that a tenant uploaded.
    pub(super) fn of_uploaded(&self, tenant: &TenantId, provider: &str) -> Arc<ProviderUsage> {
        let mut all = self.lock();
        let UsageCounters { built_in, uploaded, other } = &mut *all;
        // A shared provider of this name, or one that another tenant has too.
        if let Some(known) = built_in.get(provider).or_else(|| uploaded.get(provider)) {
            return known.clone();
        }
        // Held by instances: they are still counting.
        let unused = |usage: &Arc<ProviderUsage>| Arc::strong_count(usage) == 1;
        match uploaded.get_or_insert_with(tenant, &provider.to_owned(), 1, unused, Arc::default) {
            Ok((usage, evicted)) => {
                evicted.iter().for_each(|usage| other.add(usage));
                usage
            }
            Err(_) => other.clone(),
        }
    }

    pub(super) fn figures(&self) -> Vec<UsageStats> {
        let all = self.lock();
        let built_in = all.built_in.iter().map(|(provider, usage)| usage.figures(provider));
        let uploaded = all.uploaded.iter().filter(|(provider, _)| *provider != OTHER);
        let mut figures: Vec<_> =
            built_in.chain(uploaded.map(|(provider, usage)| usage.figures(provider))).collect();
        let other = ProviderUsage::default();
        other.add(&all.other);
        all.uploaded.get(OTHER).into_iter().for_each(|usage| other.add(usage));
        if other.calls.load(Ordering::Relaxed) > 0 {
            figures.push(other.figures(OTHER));
        }
        figures.sort_by(|one, other| one.provider.cmp(&other.provider));
        figures
    }

    fn lock(&self) -> MutexGuard<'_, UsageCounters> {
        self.0.lock()
    }
}

/// Counts an instance for as long as it lives.
pub(super) struct InstanceGuard(Arc<AtomicUsize>);

impl InstanceGuard {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(figures: &[UsageStats], of: fn(&UsageStats) -> u64) -> u64 {
        figures.iter().map(of).sum()
    }

    #[test]
    fn names_beyond_the_bound_share_counters() {
        let usages = ProviderUsages::new();
        usages.of_built_in("apns").called(Duration::from_millis(1));
        let tenant = TenantId::new("flood");
        let held: Vec<_> =
            (0..2 * MOST).map(|number| usages.of_uploaded(&tenant, &format!("p{number}"))).collect();
        for usage in &held {
            usage.called(Duration::from_millis(1));
            usage.failed(&ProviderError::TimedOut);
            usage.failed(&ProviderError::Exhausted);
        }
        let figures = usages.figures();
        assert_eq!(figures.len(), 1 + MOST + 1);
        assert_eq!(sum(&figures, |usage| usage.calls), 1 + 2 * MOST as u64);
        let faults = |usage: &UsageStats| usage.faults.iter().map(|(_, count)| count).sum();
        assert_eq!(sum(&figures, faults), 2 * MOST as u64);
        let others = usages.of_uploaded(&TenantId::new("other"), "webhook");
        others.called(Duration::from_millis(1));
        assert!(usages.figures().iter().any(|usage| usage.provider == "webhook" && usage.calls == 1));
    }

    #[test]
    fn names_that_are_no_longer_used_make_room_and_nothing_that_they_counted_is_lost() {
        let usages = ProviderUsages::new();
        let tenant = TenantId::new("acme");
        for number in 0..10 * MOST {
            usages.of_uploaded(&tenant, &format!("p{number}")).called(Duration::from_millis(1));
        }
        usages.of_uploaded(&tenant, OTHER).called(Duration::from_millis(1));
        let figures = usages.figures();
        assert_eq!(figures.len(), MOST, "one of them is called like the others");
        assert_eq!(sum(&figures, |usage| usage.calls), 10 * MOST as u64 + 1);
    }
}
