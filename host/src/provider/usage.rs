//! What calls into components cost, and how they end: for metrics. Counted by the provider's name, so that the
//! figures go on when a component is replaced.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ProviderError;

/// Providers with counters of their own.
const MOST: usize = 200;
/// The others'.
const OTHER: &str = "other";
const FAULTS: [&str; 5] =
    ["provider_timeout", "provider_memory", "provider_panicked", "provider_bad_output", "provider_refused"];

/// The counters of one provider.
#[derive(Default)]
pub(super) struct Usage {
    calls: AtomicU64,
    /// Nanoseconds.
    time: AtomicU64,
    faults: [AtomicU64; FAULTS.len()],
    quarantines: AtomicU64,
}

/// What one provider's components used since this process began.
#[derive(Debug, Clone)]
pub struct UsageFigures {
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
pub struct SandboxFigures {
    /// Instances alive, in use or idle.
    pub instances: usize,
    pub most_instances: usize,
    pub idle: usize,
    /// Bytes of linear memory of the idle ones.
    pub idle_memory: usize,
    pub usage: Vec<UsageFigures>,
}

impl Usage {
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

    fn figures(&self, provider: &str) -> UsageFigures {
        let faults = FAULTS.into_iter().zip(&self.faults);
        UsageFigures {
            provider: provider.to_owned(),
            calls: self.calls.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.time.load(Ordering::Relaxed)),
            faults: faults.map(|(code, count)| (code, count.load(Ordering::Relaxed))).collect(),
            quarantines: self.quarantines.load(Ordering::Relaxed),
        }
    }
}

/// The counters of all providers.
#[derive(Default)]
pub(super) struct Usages(Mutex<BTreeMap<String, Arc<Usage>>>);

impl Usages {
    pub(super) fn of(&self, provider: &str) -> Arc<Usage> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.len() < MOST || all.contains_key(provider);
        all.entry(if own { provider } else { OTHER }.to_owned()).or_default().clone()
    }

    pub(super) fn figures(&self) -> Vec<UsageFigures> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(provider, usage)| usage.figures(provider)).collect()
    }
}

/// Counts an instance for as long as it lives.
pub(super) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_share_counters() {
        let usages = Usages::default();
        for number in 0..2 * MOST {
            let usage = usages.of(&format!("p{number}"));
            usage.called(Duration::from_millis(1));
            usage.failed(&ProviderError::TimedOut);
            usage.failed(&ProviderError::Exhausted);
        }
        let figures = usages.figures();
        assert_eq!(figures.len(), MOST + 1);
        let sum = |of: fn(&UsageFigures) -> u64| figures.iter().map(of).sum::<u64>();
        assert_eq!(sum(|usage| usage.calls), 2 * MOST as u64);
        assert_eq!(sum(|usage| usage.faults.iter().map(|(_, count)| count).sum()), 2 * MOST as u64);
    }
}
