//! The limits of components: those of the sandbox, those of one call, those of one tenant, and who wrote the code.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::breaker::BreakerPolicy;
use super::error::ProviderError;
use pushlet_model::tenant;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, Accounts, CpuMeter, Work, thread_cpu_time};

/// What a component may use.
#[derive(Debug, Clone)]
pub struct SandboxLimits {
    /// Bytes of linear memory per instance, summed over its memories.
    pub memory: usize,
    /// Table elements per instance, summed over its tables.
    pub table_elements: usize,
    /// Bytes that one call may hand to the host, for a call about a single target.
    pub result: usize,
    /// Additional bytes for each target.
    pub result_per_target: usize,
    /// Resource handles alive at once.
    pub handles: usize,
    /// Processor time of one call; it may take four times as long where others keep the processors.
    pub call_timeout: Duration,
    /// Instances alive at once in the whole process.
    pub instances: u32,
    /// Idle instances kept per tenant and component.
    pub idle: usize,
    /// Bytes of linear memory that these may have.
    pub idle_memory: usize,
    /// Bytes of linear memory that all idle instances may have.
    pub idle_memory_in_all: usize,
    /// For how long an idle instance is kept.
    pub idle_for: Duration,
    /// Calls after which an instance is retired.
    pub calls_per_instance: u32,
    /// Bytes of a component file.
    pub component: usize,
    pub isolation: InstanceIsolation,
    pub breaker: BreakerPolicy,
}

impl SandboxLimits {
    /// Returns how many idle instances are dropped at once when there is no room for another.
    pub(super) fn eviction(&self) -> usize {
        (self.instances as usize / 16).max(1)
    }
}

/// The origin of a component's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentTrust {
    /// This server's own. Its calls are short, and run wherever they are made.
    BuiltIn,
    /// Anyone's. Its calls wait for their turn, and their CPU time is counted.
    Uploaded,
}

/// When an instance is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceIsolation {
    /// For many calls of one tenant.
    Warm,
    /// Never: every call gets a fresh instance.
    PerCall,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 100_000,
            result: 256 << 10,
            result_per_target: 8 << 10,
            handles: 1024,
            call_timeout: Duration::from_millis(250),
            instances: 1000,
            idle: 4,
            idle_memory: 64 << 20,
            idle_memory_in_all: 2 << 30,
            idle_for: Duration::from_secs(60),
            calls_per_instance: 100_000,
            component: 32 << 20,
            isolation: InstanceIsolation::Warm,
            breaker: BreakerPolicy::default(),
        }
    }
}

/// The bounds of one call and of the instance that answers it.
#[derive(Clone)]
pub(super) struct CallBounds {
    /// Bytes of linear memory, summed over the instance's memories.
    pub memory: usize,
    pub call_timeout: Duration,
    /// The account that memory is charged to; None: it is not counted.
    pub account: Option<Arc<Account>>,
}

impl CallBounds {
    /// Returns the sandbox's own limits.
    pub fn of(limits: &SandboxLimits) -> Self {
        Self { memory: limits.memory, call_timeout: limits.call_timeout, account: None }
    }

    /// Returns the narrower of the sandbox's limits and the tenant's.
    pub fn of_tenant(limits: &SandboxLimits, own: &tenant::TenantLimits, account: &Arc<Account>) -> Self {
        let bytes = |most: std::num::NonZeroU64| usize::try_from(most.get()).unwrap_or(usize::MAX);
        Self {
            memory: own.instance_memory_bytes.map_or(limits.memory, bytes).min(limits.memory),
            call_timeout: own
                .call_milliseconds
                .map_or(limits.call_timeout, |most| Duration::from_millis(most.get()))
                .min(limits.call_timeout),
            account: Some(account.clone()),
        }
    }
}

/// How often a running guest looks whether its time is up.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// A call's time is processor time, so that a sound guest is not punished where others keep the processors; but
/// no call takes longer than this many times as much.
const WALL_CLOCK_FACTOR: u32 = 4;

/// How long a call on this thread may go on.
pub(super) struct CallTime {
    timeout: Duration,
    /// None until the first tick: nearly every call ends before it, and reading a thread's processor time costs a
    /// system call.
    end: Option<CallDeadline>,
}

struct CallDeadline {
    /// As [`thread_cpu_time`] tells it.
    cpu: Duration,
    /// None: as good as never.
    wall: Option<Instant>,
}

impl CallTime {
    pub(super) fn of(timeout: Duration) -> Self {
        Self { timeout, end: None }
    }

    /// Returns the time that is left; None: nothing is. It counts from the first call.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let end = self.end.get_or_insert_with(|| CallDeadline::after(self.timeout));
        let cpu = end.cpu.checked_sub(thread_cpu_time())?;
        let wall = end.wall.map_or(Some(cpu), |wall| wall.checked_duration_since(Instant::now()))?;
        Some(cpu.min(wall)).filter(|left| !left.is_zero())
    }
}

impl CallDeadline {
    fn after(timeout: Duration) -> Self {
        let wall = Instant::now().checked_add(timeout.saturating_mul(WALL_CLOCK_FACTOR));
        Self { cpu: thread_cpu_time().saturating_add(timeout), wall }
    }
}

/// Where the tenants' own limits are found.
type LimitsOf = Box<dyn Fn(&TenantId) -> tenant::TenantLimits + Send + Sync>;

/// The quotas of all tenants.
pub(super) struct TenantQuotas {
    accounts: Arc<Accounts>,
    limits_of: Arc<OnceLock<LimitsOf>>,
}

impl TenantQuotas {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        Self { accounts, limits_of: Arc::default() }
    }

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Returns the quota of one tenant; all of its components are on the same account.
    pub(super) fn of(&self, tenant: &TenantId) -> TenantQuota {
        TenantQuota { account: self.accounts.of(tenant), limits_of: self.limits_of.clone() }
    }

    pub(super) fn limits_of(&self, limits_of: LimitsOf) {
        let _ = self.limits_of.set(limits_of);
    }
}

/// The quota of one tenant.
#[derive(Clone)]
pub(super) struct TenantQuota {
    pub(super) account: Arc<Account>,
    limits_of: Arc<OnceLock<LimitsOf>>,
}

impl TenantQuota {
    /// Runs a call of a component when it is the tenant's turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        self.account.run_call(call).await.unwrap_or(Err(ProviderError::Exhausted))
    }

    /// Starts to measure a call on this thread, unless the tenant's CPU time is used up.
    pub(super) fn meter(&self) -> Result<CpuMeter<'_>, ProviderError> {
        match self.account.cpu_wait(Work::Guest) {
            None => Ok(self.account.meter(Work::Guest)),
            Some(retry_after) => Err(ProviderError::CpuLimit { retry_after }),
        }
    }

    /// A call failed, which may have kept its place for long: no more of the tenant's are light for a while.
    pub(super) fn failed(&self) {
        self.account.defer();
    }

    /// Returns the bounds of a call and its instance.
    pub(super) fn bounds(&self, limits: &SandboxLimits) -> CallBounds {
        let own = self.limits_of.get().map(|of| of(self.account.tenant())).unwrap_or_default();
        CallBounds::of_tenant(limits, &own, &self.account)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use pushlet_model::tenant::TenantId;
    use pushlet_quota::account::{AccountSettings, Accounts};

    #[test]
    fn a_tenants_limits_hold_where_they_are_narrower() {
        let limits = SandboxLimits {
            memory: 1000,
            call_timeout: Duration::from_millis(100),
            ..SandboxLimits::default()
        };
        let accounts = Accounts::new(AccountSettings::default()).unwrap();
        let account = accounts.of(&TenantId::default_tenant());
        let own = |memory, time| tenant::TenantLimits {
            instance_memory_bytes: NonZeroU64::new(memory),
            call_milliseconds: NonZeroU64::new(time),
            ..tenant::TenantLimits::default()
        };
        let bounds = CallBounds::of_tenant(&limits, &own(10, 20), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (10, Duration::from_millis(20)));
        let bounds = CallBounds::of_tenant(&limits, &own(5000, 5000), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (1000, Duration::from_millis(100)));
    }
}
