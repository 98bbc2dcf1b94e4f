//! What one tenant may have of the machine for components that it uploaded: calls at once, and CPU time.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::bounds::{Account, Bounds};
use super::lane::{Lane, Lanes, cpu_time};
use super::{Limits, ProviderError};
use crate::tenant::{self, TenantId};

/// Bounds for calls of uploaded components. Built-in components have none of these.
#[derive(Debug, Clone)]
pub struct ShareLimits {
    /// Calls that run at once, of all tenants whose calls take little time.
    pub calls: usize,
    /// Calls that run at once, of all others: those who use more than [`LITTLE`] of what is theirs.
    pub heavy_calls: usize,
    /// Calls that run at once, of one tenant.
    pub calls_per_tenant: usize,
    /// How long a call waits for its turn.
    pub wait: Duration,
    /// CPU time of a tenant's components per second of wall-clock time, over long.
    pub cpu_per_second: Duration,
    /// CPU time that they may use at one go after a rest.
    pub cpu_burst: Duration,
}

impl Default for ShareLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            calls: cores * 4,
            // Half of the machine stays free, however many strangers keep the other half busy.
            heavy_calls: (cores / 2).max(1),
            calls_per_tenant: 2,
            wait: Duration::from_secs(2),
            cpu_per_second: Duration::from_millis(200),
            cpu_burst: Duration::from_secs(2),
        }
    }
}

/// Who uses no more than this part of the CPU time that each may have uses little, and waits for nobody who does
/// not: 50 ms per second, where 200 are allowed.
const LITTLE: f64 = 0.25;

/// Where the tenants' own limits are found.
type LimitsOf = Box<dyn Fn(&TenantId) -> tenant::Limits + Send + Sync>;

/// What a tenant's uploaded components use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantUse {
    /// Bytes of linear memory of all instances.
    pub memory: u64,
    /// Milliseconds of CPU time per second, over the last seconds.
    pub cpu_milliseconds_per_second: u64,
}

/// The shares of all tenants that have uploaded components in use.
pub(super) struct Shares {
    limits: ShareLimits,
    lanes: Arc<Lanes>,
    tenants: Mutex<HashMap<TenantId, Weak<Share>>>,
    limits_of: Arc<OnceLock<LimitsOf>>,
}

impl Shares {
    pub(super) fn new(limits: &ShareLimits) -> io::Result<Self> {
        let lanes = Arc::new(Lanes::new(limits.calls, limits.heavy_calls)?);
        Ok(Self { limits: limits.clone(), lanes, tenants: Mutex::default(), limits_of: Arc::default() })
    }

    /// For what strangers cause beside their calls; it takes no place.
    pub(super) fn background(&self) -> &Lane {
        &self.lanes.heavy
    }

    /// The share of one tenant, the same for all of its components.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Share> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let own = Semaphore::new(self.limits.calls_per_tenant.clamp(1, Semaphore::MAX_PERMITS));
        let share = Arc::new(Share {
            tenant: tenant.clone(),
            limits_of: self.limits_of.clone(),
            account: Arc::default(),
            wait: self.limits.wait,
            lanes: self.lanes.clone(),
            own: Arc::new(own),
            budget: Mutex::new(Budget::new(&self.limits, 1.0, Instant::now())),
            little: Mutex::new(Budget::new(&self.limits, LITTLE, Instant::now())),
        });
        tenants.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }

    pub(super) fn limits_of(&self, limits_of: LimitsOf) {
        let _ = self.limits_of.set(limits_of);
    }

    pub(super) fn used_by(&self, tenant: &TenantId) -> TenantUse {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) else { return TenantUse::default() };
        TenantUse {
            memory: share.account.used() as u64,
            cpu_milliseconds_per_second: share.budget().rate_of_use(Instant::now()),
        }
    }
}

/// What one tenant has.
pub(super) struct Share {
    tenant: TenantId,
    limits_of: Arc<OnceLock<LimitsOf>>,
    pub(super) account: Arc<Account>,
    wait: Duration,
    lanes: Arc<Lanes>,
    own: Arc<Semaphore>,
    budget: Mutex<Budget>,
    /// While there is some of it, the tenant uses little.
    little: Mutex<Budget>,
}

/// The right to make one call.
pub(super) struct Turn {
    lanes: Arc<Lanes>,
    is_light: bool,
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Turn {
    /// Makes the call; the turn ends with it.
    pub(super) async fn run<T: Send + 'static>(
        self,
        call: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<Result<T, ProviderError>, JoinError> {
        let lanes = self.lanes.clone();
        let lane = if self.is_light { &lanes.light } else { &lanes.heavy };
        let running = lane.run(move || {
            let _turn = self;
            call()
        });
        match running {
            Some(running) => running.await,
            None => Ok(Err(ProviderError::Exhausted)),
        }
    }
}

impl Share {
    /// Waits among the tenant's own calls first, so that no tenant has more than a few places in the common
    /// queue, which is served in order. Who used much of late has another queue than who did not.
    pub(super) async fn turn(&self) -> Result<Turn, ProviderError> {
        let both = async {
            let own = self.own.clone().acquire_owned().await.ok()?;
            let is_light = locked(&self.little).admit(Instant::now()).is_ok();
            let lane = if is_light { &self.lanes.light } else { &self.lanes.heavy };
            Some(Turn { lanes: self.lanes.clone(), is_light, _own: own, _place: lane.place().await? })
        };
        match tokio::time::timeout(self.wait, both).await {
            Ok(Some(turn)) => Ok(turn),
            _ => Err(ProviderError::Exhausted),
        }
    }

    /// Starts to measure a call on this thread, unless the tenant's CPU time is used up.
    pub(super) fn meter(&self) -> Result<Meter<'_>, ProviderError> {
        let own = self.limits().cpu_milliseconds_per_second;
        let mut budget = self.budget();
        if let Some(own) = own {
            budget.set_rate(own);
        }
        budget.admit(Instant::now()).map_err(|retry_after| ProviderError::CpuLimit { retry_after })?;
        Ok(Meter { share: self, start: cpu_time() })
    }

    /// A call failed, which may have kept its place for long: no more of the tenant's are light for a while.
    pub(super) fn failed(&self) {
        let mut little = locked(&self.little);
        let all = little.burst;
        little.charge(Duration::try_from_secs_f64(all).unwrap_or_default());
    }

    /// What a call and its instance may use.
    pub(super) fn bounds(&self, limits: &Limits) -> Bounds {
        Bounds::of_tenant(limits, &self.limits(), &self.account)
    }

    fn limits(&self) -> tenant::Limits {
        self.limits_of.get().map(|of| of(&self.tenant)).unwrap_or_default()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        locked(&self.budget)
    }
}

fn locked(budget: &Mutex<Budget>) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Charges the tenant, when dropped, with the CPU time that this thread used meanwhile.
pub(super) struct Meter<'a> {
    share: &'a Share,
    start: Duration,
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        let used = cpu_time().saturating_sub(self.start);
        self.share.budget().charge(used);
        locked(&self.share.little).charge(used);
    }
}

/// A bucket that fills with time and is emptied by use; it may go below zero. Time is an argument.
struct Budget {
    /// Seconds of CPU time.
    level: f64,
    burst: f64,
    rate: f64,
    filled: Instant,
}

impl Budget {
    /// With this part of what is allowed.
    fn new(limits: &ShareLimits, part: f64, now: Instant) -> Self {
        let burst = limits.cpu_burst.as_secs_f64() * part;
        Self { level: burst, burst, rate: limits.cpu_per_second.as_secs_f64() * part, filled: now }
    }

    /// Another rate; what may be used at one go lasts for as long as before.
    fn set_rate(&mut self, milliseconds: NonZeroU64) {
        let rate = milliseconds.get() as f64 / 1000.0;
        let change = rate / self.rate;
        if change != 1.0 {
            self.rate = rate;
            self.burst *= change;
            self.level *= change;
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + elapsed * self.rate).min(self.burst);
        self.filled = now;
    }

    /// Milliseconds per second, over the time that it takes to fill it.
    fn rate_of_use(&mut self, now: Instant) -> u64 {
        self.fill(now);
        ((self.burst - self.level) / self.burst * self.rate * 1000.0).round() as u64
    }

    /// `Err`: the time until there is some again.
    fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.level > 0.0 {
            return Ok(());
        }
        Err(Duration::try_from_secs_f64(-self.level / self.rate).unwrap_or(Duration::MAX))
    }

    fn charge(&mut self, used: Duration) {
        self.level -= used.as_secs_f64();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ShareLimits {
        ShareLimits {
            calls: 1,
            heavy_calls: 1,
            calls_per_tenant: 1,
            wait: Duration::from_millis(10),
            cpu_per_second: SECOND / 4,
            cpu_burst: SECOND,
        }
    }

    #[test]
    fn a_debt_is_paid_with_time_and_a_rest_saves_no_more_than_the_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(&limits(), 1.0, start);
        budget.charge(SECOND / 2);
        assert_eq!(budget.admit(start), Ok(()));
        budget.charge(SECOND);
        assert_eq!(budget.admit(start), Err(2 * SECOND), "half a second of debt at a quarter per second");
        assert_eq!(budget.admit(start + SECOND), Err(SECOND));
        assert_eq!(budget.admit(start + 3 * SECOND), Ok(()));
        budget.admit(start + 3600 * SECOND).unwrap();
        budget.charge(SECOND);
        assert!(budget.admit(start + 3600 * SECOND).is_err());
    }

    #[test]
    fn a_tenant_has_one_share_for_all_its_components() {
        let shares = Shares::new(&limits()).unwrap();
        let (a, b) = (TenantId::new("a"), TenantId::new("b"));
        let share = shares.of(&a);
        assert!(Arc::ptr_eq(&share, &shares.of(&a)));
        assert!(!Arc::ptr_eq(&share, &shares.of(&b)));
        drop(share);
        shares.of(&b);
        assert_eq!(shares.tenants.lock().unwrap().len(), 1, "a share that nobody uses is forgotten");
    }

    #[test]
    fn a_call_is_charged_with_the_time_that_it_used() {
        // Nothing worth mention comes back meanwhile, however long this thread has to wait.
        let limits = ShareLimits { cpu_per_second: Duration::from_nanos(1), ..limits() };
        let share = Shares::new(&limits).unwrap().of(&TenantId::default_tenant());
        share.budget().charge(SECOND - Duration::from_micros(1));
        let meter = share.meter().unwrap();
        let mut work = 0_u64;
        while cpu_time() - meter.start < Duration::from_millis(5) {
            work = std::hint::black_box(work + 1);
        }
        drop(meter);
        assert!(matches!(share.meter().map(|_| ()), Err(ProviderError::CpuLimit { .. })));
    }

    #[tokio::test]
    async fn calls_wait_for_their_turn_and_not_for_ever() {
        let shares = Shares::new(&limits()).unwrap();
        let (a, b) = (shares.of(&TenantId::new("a")), shares.of(&TenantId::new("b")));
        let turn = a.turn().await.unwrap();
        assert_eq!(b.turn().await.map(|_| ()), Err(ProviderError::Exhausted));
        drop(turn);
        b.turn().await.unwrap();
    }

    #[tokio::test]
    async fn who_used_little_does_not_wait_for_those_who_used_much() {
        let shares = Shares::new(&limits()).unwrap();
        let [busy, other] = ["busy", "other"].map(|id| shares.of(&TenantId::new(id)));
        let light = busy.turn().await.unwrap();
        drop(light);
        // Half of what it may use at one go.
        let meter = busy.meter().unwrap();
        locked(&busy.little).charge(SECOND / 2);
        drop(meter);
        let heavy = busy.turn().await.unwrap();
        assert!(!heavy.is_light);
        assert!(other.turn().await.unwrap().is_light);
        let third = shares.of(&TenantId::new("third"));
        locked(&third.little).charge(SECOND / 2);
        assert_eq!(third.turn().await.map(|_| ()), Err(ProviderError::Exhausted), "in the queue of its like");
    }
}
