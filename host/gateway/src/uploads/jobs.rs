//! Which component is compiled next. Few are compiled at a time, so uploads wait; a free slot goes to the
//! tenant whose components took the least time lately.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// How long a component waits for a slot.
const WAIT: Duration = Duration::from_secs(60);
/// After this time, half of a tenant's use is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// A use of fewer seconds is forgotten.
const NOTHING: f64 = 0.05;

/// The slots for components that are compiled.
pub(super) struct CompileJobs {
    state: Arc<Mutex<JobQueue>>,
    wait: Duration,
}

struct JobQueue {
    free: usize,
    waiting: Vec<WaitingJob>,
    /// Seconds of slots that were used, by tenant.
    taken: HashMap<TenantId, (f64, Instant)>,
    arrivals: u64,
}

struct WaitingJob {
    tenant: TenantId,
    arrival: u64,
    turn: oneshot::Sender<CompilePermit>,
}

/// A slot, held until this is dropped.
pub(super) struct CompilePermit {
    state: Arc<Mutex<JobQueue>>,
    tenant: TenantId,
    start: Instant,
    /// The slot was never handed over.
    unused: bool,
}

impl CompileJobs {
    /// Creates this many slots, and at least one.
    pub fn new(places: usize) -> Self {
        let state = JobQueue { free: places.max(1), waiting: Vec::new(), taken: HashMap::new(), arrivals: 0 };
        Self { state: Arc::new(Mutex::new(state)), wait: WAIT }
    }

    /// Waits for a slot, for a bounded time.
    pub async fn acquire(&self, tenant: &TenantId) -> Result<CompilePermit, Error> {
        let turn = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(CompilePermit::new(&self.state, tenant.clone()));
            }
            let (turn, waiting) = oneshot::channel();
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.waiting.push(WaitingJob { tenant: tenant.clone(), arrival, turn });
            waiting
        };
        match tokio::time::timeout(self.wait, turn).await {
            Ok(Ok(job)) => Ok(job),
            _ => {
                let message = "too many components wait to be compiled, try again later";
                Err(Error::new(Kind::Overloaded, "compiler_busy", message).after(Duration::from_secs(10)))
            }
        }
    }
}

impl JobQueue {
    /// Returns the job whose turn it is.
    fn next(&mut self, now: Instant) -> Option<WaitingJob> {
        let taken = |tenant: &TenantId| {
            self.taken.get(tenant).map_or(0.0, |(seconds, at)| faded(*seconds, now.duration_since(*at)))
        };
        let order = |one: &WaitingJob, other: &WaitingJob| -> Ordering {
            let by_use = taken(&one.tenant).total_cmp(&taken(&other.tenant));
            by_use.then_with(|| one.arrival.cmp(&other.arrival))
        };
        let all = self.waiting.iter().enumerate();
        let (first, _) = all.min_by(|(_, one), (_, other)| order(one, other))?;
        Some(self.waiting.swap_remove(first))
    }

    fn charge(&mut self, tenant: &TenantId, used: Duration, now: Instant) {
        self.taken.retain(|_, (seconds, at)| faded(*seconds, now.duration_since(*at)) > NOTHING);
        let (seconds, at) = self.taken.entry(tenant.clone()).or_insert((0.0, now));
        *seconds = faded(*seconds, now.duration_since(*at)) + used.as_secs_f64();
        *at = now;
    }
}

impl CompilePermit {
    fn new(state: &Arc<Mutex<JobQueue>>, tenant: TenantId) -> Self {
        Self { state: state.clone(), tenant, start: Instant::now(), unused: false }
    }
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        if self.unused {
            return;
        }
        let now = Instant::now();
        self.state.lock().charge(&self.tenant, now.duration_since(self.start), now);
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.next(now);
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(WaitingJob { tenant, turn, .. }) = next else { return };
            // The waiting job was given up: the slot goes to the next one.
            match turn.send(Self::new(&self.state, tenant)) {
                Ok(()) => return,
                Err(mut job) => job.unused = true,
            }
        }
    }
}

fn faded(seconds: f64, age: Duration) -> f64 {
    seconds * 0.5_f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id)
    }

    async fn waits(jobs: &Arc<CompileJobs>, id: &str) -> tokio::task::JoinHandle<CompilePermit> {
        let (jobs, before) = (jobs.clone(), jobs.state.lock().waiting.len());
        let (state, id) = (jobs.state.clone(), tenant(id));
        let waiting = tokio::spawn(async move { jobs.acquire(&id).await.unwrap() });
        while state.lock().waiting.len() == before {
            tokio::task::yield_now().await;
        }
        waiting
    }

    #[tokio::test]
    async fn a_place_goes_to_the_tenant_that_took_least_of_late() {
        let jobs = Arc::new(CompileJobs::new(1));
        let running = jobs.acquire(&tenant("busy")).await.unwrap();
        jobs.state.lock().charge(&tenant("busy"), Duration::from_secs(20), Instant::now());
        jobs.state.lock().charge(&tenant("other"), Duration::from_secs(1), Instant::now());
        let busy = waits(&jobs, "busy").await;
        let other = waits(&jobs, "other").await;
        let third = waits(&jobs, "third").await;
        drop(running);
        for (expected, waiting) in [("third", third), ("other", other), ("busy", busy)] {
            let job = waiting.await.unwrap();
            assert_eq!(job.tenant, tenant(expected));
        }
        assert_eq!(jobs.state.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_bounded_and_a_job_that_was_given_up_takes_no_slot() {
        let jobs = CompileJobs::new(1);
        let running = jobs.acquire(&tenant("slow")).await.unwrap();
        let error = jobs.acquire(&tenant("other")).await.err().unwrap();
        assert_eq!((error.kind, error.code.as_ref()), (Kind::Overloaded, "compiler_busy"));
        assert!(error.retry_after.is_some());
        drop(running);
        assert!(jobs.state.lock().waiting.is_empty());
        assert_eq!(jobs.state.lock().free, 1, "no place is lost");
    }

    #[test]
    fn what_was_taken_fades_and_is_forgotten() {
        let start = Instant::now();
        let mut state = JobQueue { free: 0, waiting: Vec::new(), taken: HashMap::new(), arrivals: 0 };
        state.charge(&tenant("a"), Duration::from_secs(8), start);
        state.charge(&tenant("a"), Duration::ZERO, start + 2 * HALF_LIFE);
        assert!((state.taken[&tenant("a")].0 - 2.0).abs() < 1e-9);
        state.charge(&tenant("b"), Duration::from_secs(1), start + 60 * HALF_LIFE);
        assert_eq!(state.taken.len(), 1, "a is as good as new");
    }
}
