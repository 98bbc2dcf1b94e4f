//! Processor time that a tenant's requests and components use.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::budget::TokenBucket;
use pushlet_model::error::{Error, Kind};

/// A tenant that uses no more than this part of the processor time that it may use is not queued behind those
/// that do: 50 ms per second, where 200 are allowed.
const LIGHT_FRACTION: f64 = 0.25;
/// What a tenant may compile at one go, in multiples of what it may use for everything else. Compiling has a budget
/// of its own: a component that took a minute to compile must not stop its tenant's sends.
const COMPILING_BURST: u32 = 60;

/// What processor time is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Calls into uploaded components.
    Guest,
    /// Signatures of provider tokens.
    Signing,
    /// Reading bodies that are large.
    Parsing,
    /// Opening credential files that are encrypted with a password.
    KeyDerivation,
    /// Compiling uploaded components.
    Compiling,
}

impl Work {
    pub const ALL: [Self; 5] =
        [Self::Guest, Self::Signing, Self::Parsing, Self::KeyDerivation, Self::Compiling];

    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Signing => "signing",
            Self::Parsing => "parsing",
            Self::KeyDerivation => "key_derivation",
            Self::Compiling => "compiling",
        }
    }
}

/// Bounds for heavy work and for calls of uploaded components.
#[derive(Debug, Clone)]
pub struct WorkLimits {
    /// Jobs that run at once, of all tenants that use little processor time.
    pub calls: usize,
    /// Jobs that run at once, of all others: those that use more than a quarter of what is theirs.
    pub heavy_calls: usize,
    /// Jobs that run at once, of one tenant.
    pub calls_per_tenant: usize,
    /// How long a call of an uploaded component waits for its turn.
    pub wait: Duration,
    /// How long heavy work of a request waits for its turn.
    pub heavy_wait: Duration,
    /// Processor time of a tenant per second of wall-clock time, over long.
    pub cpu_per_second: Duration,
    /// Processor time that it may use at one go after a rest.
    pub cpu_burst: Duration,
}

impl Default for WorkLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            calls: cores * 4,
            // Half of the machine stays free, however many strangers keep the other half busy.
            heavy_calls: (cores / 2).max(1),
            calls_per_tenant: 2,
            wait: Duration::from_secs(2),
            heavy_wait: Duration::from_secs(10),
            cpu_per_second: Duration::from_millis(200),
            cpu_burst: Duration::from_secs(2),
        }
    }
}

/// Processor time by kind of work, in nanoseconds.
#[derive(Default)]
pub(super) struct WorkTotals([AtomicU64; Work::ALL.len()]);

impl WorkTotals {
    pub fn add(&self, work: Work, used: Duration) {
        let nanoseconds = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.0[work as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub fn all(&self) -> [(Work, Duration); Work::ALL.len()] {
        Work::ALL.map(|work| (work, Duration::from_nanos(self.0[work as usize].load(Ordering::Relaxed))))
    }
}

/// What one tenant uses of the processor.
pub(super) struct TenantWork {
    budgets: Mutex<CpuBuckets>,
    pub totals: WorkTotals,
    /// Its jobs that may run at once.
    pub own: Arc<Semaphore>,
    /// Its jobs that wait for a thread or run.
    pub waiting: AtomicUsize,
    pub wait: Duration,
    pub heavy_wait: Duration,
}

pub(super) struct CpuBuckets {
    /// For everything but compiling.
    pub requests: TokenBucket,
    /// While there is some of it, the tenant uses little.
    pub light: TokenBucket,
    pub compiling: TokenBucket,
}

impl TenantWork {
    pub fn new(limits: &WorkLimits) -> Self {
        let now = Instant::now();
        let budget = |burst, part| TokenBucket::new(limits.cpu_per_second, burst, part, now);
        let budgets = CpuBuckets {
            requests: budget(limits.cpu_burst, 1.0),
            light: budget(limits.cpu_burst, LIGHT_FRACTION),
            compiling: budget(limits.cpu_burst.saturating_mul(COMPILING_BURST), 1.0),
        };
        Self {
            budgets: Mutex::new(budgets),
            totals: WorkTotals::default(),
            own: Arc::new(Semaphore::new(limits.calls_per_tenant.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            wait: limits.wait,
            heavy_wait: limits.heavy_wait,
        }
    }

    pub fn set_rate(&self, milliseconds_per_second: NonZeroU64) {
        let mut budgets = self.budgets();
        budgets.requests.set_rate(milliseconds_per_second);
        budgets.light.set_rate(milliseconds_per_second);
        budgets.compiling.set_rate(milliseconds_per_second);
    }

    pub fn budgets(&self) -> MutexGuard<'_, CpuBuckets> {
        self.budgets.lock()
    }
}

pub(super) fn overloaded() -> Error {
    let message = "this server has too much work to begin this in time, try again later";
    Error::new(Kind::Overloaded, "overloaded_processor", message).after(Duration::from_secs(1))
}
