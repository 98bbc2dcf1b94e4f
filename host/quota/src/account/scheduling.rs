//! When a tenant's work may begin, on which threads it runs, and which account is charged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::work::{Work, WorkerPool, join, overloaded, thread_cpu_time};
use super::{Account, AccountTotals};
use pushlet_model::error::Error;

/// Most jobs of one tenant that wait for a thread or run.
const MOST_WAITING: usize = 64;
/// Units of work in a step. A unit is as much as one target takes, some 10 µs.
const UNITS_PER_STEP: usize = 128;

impl Account {
    /// Returns an error (429) if the tenant has used up its processor time for such work.
    pub fn admit_work(&self, work: Work) -> Result<(), Error> {
        self.cpu_wait(work).map_or(Ok(()), |wait| {
            let message = "the tenant's processor time is used up (limit cpu_milliseconds_per_second)";
            Err(self.over_limit("cpu_milliseconds_per_second", message.to_owned()).after(wait))
        })
    }

    /// Returns how long the tenant must wait before it may begin such work, or None if it need not wait.
    pub fn cpu_wait(&self, work: Work) -> Option<Duration> {
        let budget = match work {
            Work::Compiling => &self.work.compiling,
            _ => &self.work.requests,
        };
        budget.admit(self.common.uptime()).err()
    }

    /// Charges processor time after it was used.
    pub fn charge_work(&self, work: Work, used: Duration) {
        self.work.totals.add(work, used);
        self.common.work.add(work, used);
        if work == Work::Compiling {
            return self.work.compiling.charge(used);
        }
        self.work.requests.charge(used);
        self.work.light.charge(used);
    }

    /// Returns a guard that charges, when dropped, the processor time that this thread used meanwhile.
    pub fn meter(&self, work: Work) -> CpuMeter<'_> {
        CpuMeter { account: self, work, start: thread_cpu_time() }
    }

    /// Demotes the tenant: its work occupied a thread for long, so it is served after others for a while.
    pub fn defer(&self) {
        self.work.light.charge_all();
    }

    /// Returns the milliseconds of processor time per second, over the last seconds, without compiling.
    pub fn cpu_milliseconds_per_second(&self) -> u64 {
        self.work.requests.rate_of_use(self.common.uptime())
    }

    /// Returns the processor time since this account was created.
    pub fn work_by_kind(&self) -> [(Work, Duration); Work::ALL.len()] {
        self.work.totals.all()
    }

    /// Runs a job that takes long on a low-priority thread, and charges the tenant with it. It waits among
    /// the tenant's own jobs first, then among those of all tenants; both the wait and the number of waiting
    /// jobs are bounded.
    ///
    /// When the future is dropped, a job that has not begun does not begin; one that has runs to its end.
    pub async fn run_heavy<T: Send + 'static>(
        self: &Arc<Self>,
        work: Work,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.admit_work(work)?;
        let queued = self.queue()?;
        let permit = timeout(self.work.heavy_wait, self.permit()).await.ok().flatten();
        let permit = permit.ok_or_else(overloaded)?;
        let account = self.clone();
        let job = move || {
            let _queued = queued;
            let _meter = account.meter(work);
            job()
        };
        permit.run(job).await.ok_or_else(overloaded)
    }

    /// Waits for a thread. Returns None if the process is shutting down.
    pub(super) async fn permit(self: &Arc<Self>) -> Option<WorkPermit> {
        // Among the tenant's own first, so that no tenant has more than a few places in the common queue, which is served
        // in order.
        let own = self.work.own.clone().acquire_owned().await.ok()?;
        // Asked after the wait: what the tenant used meanwhile counts.
        let is_light = self.is_light();
        let place = pool(&self.common, is_light).place().await?;
        Some(WorkPermit { common: self.common.clone(), is_light, _own: own, _place: place })
    }

    /// Returns true if the tenant is served before those that use much processor time.
    pub(super) fn is_light(&self) -> bool {
        self.work.light.admit(self.common.uptime()).is_ok()
    }

    fn queue(self: &Arc<Self>) -> Result<QueuedJob, Error> {
        // From here on, dropping the value undoes the count.
        let queued = QueuedJob(self.clone());
        if self.work.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            let message =
                format!("{MOST_WAITING} jobs of this tenant wait for the processor (limit queued_work)");
            return Err(self.over_limit("queued_work", message).after(Duration::from_secs(1)));
        }
        Ok(queued)
    }
}

/// Counts one of the tenant's jobs from the queue to its end.
struct QueuedJob(Arc<Account>);

impl Drop for QueuedJob {
    fn drop(&mut self) {
        self.0.work.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A permit to run one job on a low-priority thread.
pub(super) struct WorkPermit {
    common: Arc<AccountTotals>,
    /// It is for a thread of the tenants that use little.
    pub is_light: bool,
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl WorkPermit {
    /// Runs the job and releases the permit after it. Returns None if the process is shutting down.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let common = self.common.clone();
        let running = pool(&common, self.is_light).run(move || {
            let _permit = self;
            job()
        });
        join(running).await
    }
}

fn pool(common: &AccountTotals, is_light: bool) -> &WorkerPool {
    if is_light { &common.pools.light } else { &common.pools.heavy }
}

/// See [`Account::meter`].
pub struct CpuMeter<'a> {
    account: &'a Account,
    work: Work,
    start: Duration,
}

impl Drop for CpuMeter<'_> {
    fn drop(&mut self) {
        self.account.charge_work(self.work, thread_cpu_time().saturating_sub(self.start));
    }
}

/// A computation for many targets, divided into steps of about a millisecond. Between two steps the thread serves
/// everything else that waits for it, and the computations of one tenant take turns: on each thread, they delay others
/// by a step of one of them, however many there are.
pub struct Steps {
    account: Arc<Account>,
    /// In this step.
    units: usize,
}

impl Steps {
    /// What a call into a component costs in addition to its targets.
    pub const CALL: usize = 8;

    pub fn new(account: Arc<Account>) -> Self {
        Self { account, units: 0 }
    }

    /// Call before work for so many targets. Returns at once if that belongs to the current step.
    pub async fn before(&mut self, units: usize) {
        if self.units > 0 && self.units.saturating_add(units) > UNITS_PER_STEP {
            self.units = 0;
            if let Ok(_turn) = self.account.work.turn().acquire().await {
                // Held until the thread has served the others, and no longer: the next of the tenant's computations
                // yields after this one's step, not together with it.
                yield_now().await;
            }
        }
        self.units = self.units.saturating_add(units);
    }
}

#[cfg(test)]
#[path = "scheduling_tests.rs"]
mod tests;
