//! Processor time that a tenant's requests and components use, and the threads that such work runs on.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::Budget;
use super::workers::{WorkerPool, join, thread_cpu_time};
use super::{Account, Common};
use pushlet_model::error::{Error, Kind};

/// A tenant that uses no more than this part of the processor time that it may use is not queued behind those
/// that do: 50 ms per second, where 200 are allowed.
const LIGHT_FRACTION: f64 = 0.25;
/// What a tenant may compile at one go, in multiples of what it may use for everything else. Compiling has a budget
/// of its own: a component that took a minute to compile must not stop its tenant's sends.
const COMPILING_BURST: u32 = 60;
/// Jobs of one tenant that wait for a thread or run.
const MOST_WAITING: usize = 64;

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
    fn add(&self, work: Work, used: Duration) {
        let nanoseconds = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.0[work as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub fn all(&self) -> [(Work, Duration); Work::ALL.len()] {
        Work::ALL.map(|work| (work, Duration::from_nanos(self.0[work as usize].load(Ordering::Relaxed))))
    }
}

/// What one tenant uses of the processor.
pub(super) struct TenantWork {
    budgets: Mutex<Budgets>,
    totals: WorkTotals,
    own: Arc<Semaphore>,
    waiting: AtomicUsize,
    wait: Duration,
    heavy_wait: Duration,
}

struct Budgets {
    /// For everything but compiling.
    requests: Budget,
    /// While there is some of it, the tenant uses little.
    light: Budget,
    compiling: Budget,
}

impl TenantWork {
    pub fn new(limits: &WorkLimits) -> Self {
        let now = Instant::now();
        let budget = |burst, part| Budget::new(limits.cpu_per_second, burst, part, now);
        let budgets = Budgets {
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

    fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// May the tenant begin such work now? `Err`: it used up its processor time (429).
    pub fn admit_work(&self, work: Work) -> Result<(), Error> {
        self.cpu_wait(work).map_or(Ok(()), |wait| {
            let message = "the tenant's processor time is used up (limit cpu_milliseconds_per_second)";
            Err(self.over_limit("cpu_milliseconds_per_second", message.to_owned()).after(wait))
        })
    }

    /// How long the tenant must wait before it may begin such work. None: not at all.
    pub fn cpu_wait(&self, work: Work) -> Option<Duration> {
        let mut budgets = self.work.budgets();
        let budget = match work {
            Work::Compiling => &mut budgets.compiling,
            _ => &mut budgets.requests,
        };
        budget.admit(Instant::now()).err()
    }

    /// Charges processor time that was used.
    pub fn charge_work(&self, work: Work, used: Duration) {
        self.work.totals.add(work, used);
        self.common.work.add(work, used);
        let mut budgets = self.work.budgets();
        if work == Work::Compiling {
            return budgets.compiling.charge(used);
        }
        budgets.requests.charge(used);
        budgets.light.charge(used);
    }

    /// Charges, when dropped, the processor time that this thread used meanwhile.
    pub fn meter(&self, work: Work) -> Meter<'_> {
        Meter { account: self, work, start: thread_cpu_time() }
    }

    /// The tenant's work kept its place for long without an end: it is served after others for a while.
    pub fn defer(&self) {
        self.work.budgets().light.charge_all();
    }

    /// Milliseconds of processor time per second, over the last seconds; compiling is not in it.
    pub fn cpu_milliseconds_per_second(&self) -> u64 {
        self.work.budgets().requests.rate_of_use(Instant::now())
    }

    /// Processor time since this account was made.
    pub fn work_by_kind(&self) -> [(Work, Duration); Work::ALL.len()] {
        self.work.totals.all()
    }

    /// Runs a job that takes long on a low-priority thread, and charges the tenant with it. It waits among the
    /// tenant's own jobs first, then among all tenants'; not for ever, and not with any number of others.
    ///
    /// When the future is dropped, a job that has not begun does not begin; one that has runs to its end.
    pub async fn run_heavy<T: Send + 'static>(
        self: &Arc<Self>,
        work: Work,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.admit_work(work)?;
        let queued = self.queue()?;
        let permit = self.permit_within(self.work.heavy_wait).await.ok_or_else(overloaded)?;
        let account = self.clone();
        let job = move || {
            let _queued = queued;
            let _meter = account.meter(work);
            job()
        };
        permit.run(job).await.ok_or_else(overloaded)
    }

    /// Waits for the right to call an uploaded component. None: it took too long.
    pub async fn permit(self: &Arc<Self>) -> Option<WorkPermit> {
        self.permit_within(self.work.wait).await
    }

    async fn permit_within(self: &Arc<Self>, wait: Duration) -> Option<WorkPermit> {
        let both = async {
            // Among the tenant's own first, so that no tenant has more than a few places in the common queue, which
            // is served in order.
            let own = self.work.own.clone().acquire_owned().await.ok()?;
            let is_light = self.work.budgets().light.admit(Instant::now()).is_ok();
            let place = pool(&self.common, is_light).place().await?;
            Some(WorkPermit { common: self.common.clone(), is_light, _own: own, _place: place })
        };
        tokio::time::timeout(wait, both).await.ok()?
    }

    fn queue(self: &Arc<Self>) -> Result<Queued, Error> {
        // From here on, dropping it gives the place back.
        let queued = Queued(self.clone());
        if self.work.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            let message =
                format!("{MOST_WAITING} jobs of this tenant wait for the processor (limit queued_work)");
            return Err(self.over_limit("queued_work", message).after(Duration::from_secs(1)));
        }
        Ok(queued)
    }
}

/// One of the tenant's jobs, from its queue to its end.
struct Queued(Arc<Account>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.work.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to run one job on a low-priority thread.
pub struct WorkPermit {
    common: Arc<Common>,
    is_light: bool,
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl WorkPermit {
    /// Runs the job; the permit ends with it. None: the process is going down.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let common = self.common.clone();
        let running = pool(&common, self.is_light).run(move || {
            let _permit = self;
            job()
        });
        join(running).await
    }
}

fn pool(common: &Common, is_light: bool) -> &WorkerPool {
    if is_light { &common.pools.light } else { &common.pools.heavy }
}

pub(super) fn overloaded() -> Error {
    let message = "this server has too much work to begin this in time, try again later";
    Error::new(Kind::Overloaded, "overloaded_processor", message).after(Duration::from_secs(1))
}

/// See [`Account::meter`].
pub struct Meter<'a> {
    account: &'a Account,
    work: Work,
    start: Duration,
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.account.charge_work(self.work, thread_cpu_time().saturating_sub(self.start));
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
