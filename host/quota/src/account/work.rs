//! Processor time that a tenant's requests and components use, and the threads for strangers' code and for heavy work: the
//! kernel serves them after all other threads of this server, so that what runs there takes only what others leave.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::call_queue::CallQueue;
use crate::{RateLimiter, Shard};
use pushlet_model::error::{Error, Kind};
use pushlet_model::named_enum;

/// A tenant that uses no more than this part of its processor time is not queued behind those that use more:
/// 50 ms per second, if 200 are allowed.
const LIGHT_FRACTION: f64 = 0.25;
/// What a tenant may compile in a burst, in multiples of the burst of everything else. Compiling has a budget
/// of its own: a component that took a minute to compile must not stop its tenant's sends.
const COMPILING_BURST: u32 = 60;
/// Nice values: if other threads want the processor, these threads get a thirtieth or a seventieth of it.
const LIGHT: i32 = 15;
const HEAVY: i32 = 19;

named_enum! {
    /// What processor time is used for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Work {
        /// Calls into uploaded components.
        Guest = "guest",
        /// Signatures of provider tokens.
        Signing = "signing",
        /// Parsing large bodies.
        Parsing = "parsing",
        /// Opening credential files that are encrypted with a password.
        KeyDerivation = "key_derivation",
        /// Compiling uploaded components.
        Compiling = "compiling",
    }
}

/// Bounds for heavy work and for calls of uploaded components.
#[derive(Debug, Clone)]
pub struct WorkLimits {
    /// Jobs that run at once, of all tenants that use little processor time.
    pub calls: usize,
    /// Jobs that run at once, of all other tenants: those that use more than a quarter of their processor
    /// time.
    pub heavy_calls: usize,
    /// Jobs that run at once, of one tenant.
    pub calls_per_tenant: usize,
    /// How long a call of an uploaded component waits for its turn.
    pub wait: Duration,
    /// How long heavy work of a request waits for its turn.
    pub heavy_wait: Duration,
    /// Processor time of a tenant per second of wall-clock time, in the long run.
    pub cpu_per_second: Duration,
    /// Processor time that a tenant may use in a burst after a rest.
    pub cpu_burst: Duration,
    /// Whether the threads for all of this get the processor only when no other thread of the machine wants it.
    pub low_priority: bool,
}

impl Default for WorkLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            calls: cores * 4,
            // Half of the machine stays free, whatever uploaded components do.
            heavy_calls: (cores / 2).max(1),
            calls_per_tenant: 2,
            wait: Duration::from_secs(2),
            heavy_wait: Duration::from_secs(10),
            cpu_per_second: Duration::from_millis(200),
            cpu_burst: Duration::from_secs(2),
            low_priority: true,
        }
    }
}

/// Processor time by kind of work, in nanoseconds.
#[derive(Default)]
pub(super) struct WorkTotals([AtomicU64; Work::ALL.len()]);

impl WorkTotals {
    pub fn add(&self, work: Work, used: Duration) {
        self.0[work as usize].fetch_add(nanoseconds(used), Ordering::Relaxed);
    }

    pub fn all(&self) -> [(Work, Duration); Work::ALL.len()] {
        Work::ALL.map(|work| (work, Duration::from_nanos(self.0[work as usize].load(Ordering::Relaxed))))
    }
}

/// The processor time of one tenant, and its jobs.
pub(super) struct TenantWork {
    /// For everything but compiling.
    pub requests: CpuBudget,
    /// While some of it is left, the tenant counts as light.
    pub light: CpuBudget,
    pub compiling: CpuBudget,
    pub totals: WorkTotals,
    /// Its jobs that may run at once.
    pub own: Arc<Semaphore>,
    /// Its jobs that wait for a thread or run.
    pub waiting: AtomicUsize,
    /// Its calls of uploaded components that wait.
    pub calls: Mutex<CallQueue>,
    /// Tasks that run them.
    pub most_runners: usize,
    pub wait: Duration,
    pub heavy_wait: Duration,
    /// One permit for each shard, and one for all other threads. See [`Steps`](super::Steps).
    turns: Box<[Semaphore]>,
}

impl TenantWork {
    /// `now`: on the clock of all budgets.
    pub fn new(limits: &WorkLimits, now: Duration) -> Self {
        let budget = |burst, part| CpuBudget::new(limits.cpu_per_second, burst, part, now);
        let at_once = limits.calls_per_tenant.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            requests: budget(limits.cpu_burst, 1.0),
            light: budget(limits.cpu_burst, LIGHT_FRACTION),
            compiling: budget(limits.cpu_burst.saturating_mul(COMPILING_BURST), 1.0),
            totals: WorkTotals::default(),
            own: Arc::new(Semaphore::new(at_once)),
            waiting: AtomicUsize::new(0),
            calls: Mutex::default(),
            most_runners: at_once,
            wait: limits.wait,
            heavy_wait: limits.heavy_wait,
            turns: (0..=Shard::count()).map(|_| Semaphore::new(1)).collect(),
        }
    }

    /// Returns the permit for the tenant's next step on this thread.
    pub fn turn(&self) -> &Semaphore {
        &self.turns[Shard::current().place()]
    }

    pub fn set_rate(&self, milliseconds_per_second: NonZeroU64) {
        for budget in [&self.requests, &self.light, &self.compiling] {
            budget.set_rate(milliseconds_per_second);
        }
    }
}

/// Processor time that may be used at a rate, and in a burst after a rest. It is charged after it was used, so a tenant
/// can be in debt.
pub(super) struct CpuBudget {
    limiter: RateLimiter,
    /// Nanoseconds of processor time per second.
    rate: AtomicU64,
    /// How long it takes to use up what may be used at one go; it stays the same when the rate changes.
    burst: Duration,
    /// The part of the tenant's rate that this budget gets.
    part: f64,
}

impl CpuBudget {
    /// Creates a budget that gets `part` of what is allowed.
    fn new(per_second: Duration, burst: Duration, part: f64, now: Duration) -> Self {
        // Kept as a time, so that the burst grows and shrinks with the rate.
        let burst = paid_off_in(burst, nanoseconds(per_second));
        let rate = AtomicU64::new(nanoseconds(per_second.mul_f64(part)));
        Self { limiter: RateLimiter::starting_at(now), rate, burst, part }
    }

    fn set_rate(&self, milliseconds: NonZeroU64) {
        let rate = Duration::from_millis(milliseconds.get()).mul_f64(self.part);
        self.rate.store(nanoseconds(rate), Ordering::Relaxed);
    }

    /// Admits work, or returns the time until some budget is left again.
    pub fn admit(&self, now: Duration) -> Result<(), Duration> {
        self.limiter.admit(self.burst, now)
    }

    pub fn charge(&self, used: Duration) {
        self.limiter.charge(paid_off_in(used, self.rate.load(Ordering::Relaxed)));
    }

    /// Takes a whole burst.
    pub fn charge_all(&self) {
        self.limiter.charge(self.burst);
    }

    /// Returns the milliseconds per second that were used, over the time of a burst.
    pub fn rate_of_use(&self, now: Duration) -> u64 {
        let part = self.limiter.owed(now).as_secs_f64() / self.burst.as_secs_f64();
        (part * self.rate.load(Ordering::Relaxed) as f64 / 1e6).round() as u64
    }
}

/// Returns how long it takes to pay for processor time at a rate, which is in nanoseconds per second.
fn paid_off_in(used: Duration, rate: u64) -> Duration {
    let time = used.as_nanos().saturating_mul(1_000_000_000) / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn overloaded() -> Error {
    let message = "this server has too much work to begin this in time, try again later";
    Error::new(Kind::Overloaded, "overloaded_processor", message).after(Duration::from_secs(1))
}

/// The pools for light and for heavy tenants; neither waits for a permit of the other.
pub(super) struct WorkerPools {
    pub light: WorkerPool,
    pub heavy: WorkerPool,
}

/// A number of permits, and the threads that jobs run on.
pub(super) struct WorkerPool {
    places: Arc<Semaphore>,
    /// Only the runtime's blocking pool is used; its threads exit when idle.
    threads: Option<Runtime>,
}

impl WorkerPools {
    /// Creates the pools.
    pub fn new(limits: &WorkLimits) -> io::Result<Self> {
        let pool = |places, niceness| WorkerPool::new(places, limits.low_priority.then_some(niceness));
        Ok(Self { light: pool(limits.calls, LIGHT)?, heavy: pool(limits.heavy_calls, HEAVY)? })
    }
}

impl WorkerPool {
    fn new(places: usize, niceness: Option<i32>) -> io::Result<Self> {
        let threads = Builder::new_current_thread()
            .thread_name("worker")
            .on_thread_start(move || niceness.into_iter().for_each(be_nice))
            .build()?;
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { places, threads: Some(threads) })
    }

    /// Waits for a permit, in order. Returns None if the pool is closed.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// Runs `job` on a thread of its own. Returns None if the pool is being dropped.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        Some(self.threads.as_ref()?.spawn_blocking(job))
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        // This may happen on a thread of another runtime, which must not block.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Waits for a job. A panic in it is resumed here. Returns None if the pool is being dropped.
pub(super) async fn join<T>(running: Option<JoinHandle<T>>) -> Option<T> {
    match running?.await {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Sets the nice value of this thread. Elsewhere than on Linux it belongs to the process, and is not changed.
fn be_nice(niceness: i32) {
    if cfg!(target_os = "linux") {
        // If this is not permitted, the threads are served like all others.
        let _ = rustix::process::nice(niceness);
    }
}

/// Returns the processor time that this thread has used. Costs a system call.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
