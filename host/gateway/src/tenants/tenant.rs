//! One tenant: what it may use and uses, and what its callers are let in by.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use pushlet_credential::KeyId;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};
use pushlet_quota::RateLimiter;
use pushlet_quota::account::{Account, MemoryUse, Work};
use pushlet_registry::TenantRecord;

/// Registrations of one tenant that may wait for the processor or use it; the others wait behind them.
const REGISTRATIONS: usize = 1;

/// One tenant.
pub struct Tenant {
    pub id: TenantId,
    /// What it uses of the process's memory and processor time.
    pub account: Arc<Account>,
    pub(super) state: ArcSwap<TenantState>,
    pub(super) counters: UsageCounters,
}

pub(super) struct TenantState {
    pub(super) record: TenantRecord,
    /// Those of the record, over the defaults.
    pub(super) limits: TenantLimits,
    /// It is being removed, or is gone.
    pub(super) removed: bool,
}

/// What may be told about a tenant.
pub struct TenantView {
    pub id: TenantId,
    pub created: SystemTime,
    pub suspended: bool,
    /// The tenant's own.
    pub limits: TenantLimits,
}

/// A tenant, and the API key that was shown, if one was. Cheap to clone.
#[derive(Clone)]
pub struct Permission {
    tenant: Arc<Tenant>,
    /// None: the configured login, or a server that is open to everybody.
    key: Option<KeyId>,
}

/// Why a permission does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    TenantSuspended,
    TenantDeleted,
    KeyRevoked,
    KeyExpired,
}

impl Permission {
    /// Without a key of the tenant's own.
    pub fn without_key(tenant: Arc<Tenant>) -> Self {
        Self { tenant, key: None }
    }

    pub(super) fn with_key(tenant: Arc<Tenant>, key: KeyId) -> Self {
        Self { tenant, key: Some(key) }
    }

    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Why it does not hold any more; None: it does. Takes no lock, and reads the clock only for a key that
    /// expires.
    pub fn withdrawn(&self) -> Option<Withdrawal> {
        let state = self.tenant.state.load();
        if state.removed {
            return Some(Withdrawal::TenantDeleted);
        }
        if state.record.suspended {
            return Some(Withdrawal::TenantSuspended);
        }
        let id = self.key?;
        let Some(key) = state.record.keys.iter().find(|key| key.id == id) else {
            return Some(Withdrawal::KeyRevoked);
        };
        let expired = key.expires.is_some() && !key.is_good(SystemTime::now());
        expired.then_some(Withdrawal::KeyExpired)
    }
}

/// The counters of one tenant. An idle tenant's take some bytes, and nothing else.
pub(super) struct UsageCounters {
    requests: RateLimiter,
    pushes: RateLimiter,
    pub(super) registrations: Arc<Semaphore>,
    pub(super) requests_under_way: AtomicUsize,
    sends_under_way: AtomicU64,
    requests_taken: AtomicU64,
    pushes_taken: AtomicU64,
    refused: AtomicU64,
}

/// What a tenant uses, and may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Since the server started.
    pub requests: u64,
    /// Targets of sends, since the server started.
    pub pushes: u64,
    /// Requests and sends over a limit, since the server started.
    pub refused: u64,
    pub limits: Vec<LimitUse>,
    /// Bytes, by what they are for.
    pub memory: [(MemoryUse, usize); MemoryUse::ALL.len()],
    /// Processor time since the server started, by what it was for.
    pub work: [(Work, Duration); Work::ALL.len()],
}

/// How much of one limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// As it is called in [`TenantLimits`].
    pub limit: &'static str,
    /// None: it holds for each call, and nothing is used up.
    pub used: Option<u64>,
    /// None: there is no such limit.
    pub most: Option<u64>,
}

/// What a tenant has elsewhere in this server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    pub applications: u64,
    pub components: u64,
    pub component_bytes: u64,
}

impl Tenant {
    /// Not when it is suspended.
    pub(super) fn may_go_on(&self) -> Result<(), Error> {
        if self.state.load().record.suspended {
            let message = "this tenant is suspended; ask the operator of this server";
            return Err(Error::new(Kind::Forbidden, "tenant_suspended", message));
        }
        Ok(())
    }

    pub(super) fn limits(&self) -> TenantLimits {
        self.state.load().limits
    }

    /// Ends what it has under way, as far as it ends.
    pub(super) fn suspend(&self) {
        self.state.rcu(|state| TenantState {
            record: TenantRecord { suspended: true, ..state.record.clone() },
            limits: state.limits,
            removed: true,
        });
    }

    pub(super) fn view(&self) -> TenantView {
        let state = self.state.load();
        TenantView {
            id: self.id.clone(),
            created: state.record.created,
            suspended: state.record.suspended,
            limits: state.record.limits,
        }
    }
}

impl Default for UsageCounters {
    fn default() -> Self {
        Self {
            requests: RateLimiter::default(),
            pushes: RateLimiter::default(),
            registrations: Arc::new(Semaphore::new(REGISTRATIONS)),
            requests_under_way: AtomicUsize::new(0),
            sends_under_way: AtomicU64::new(0),
            requests_taken: AtomicU64::new(0),
            pushes_taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl UsageCounters {
    /// `now`: time since the server started.
    pub(super) fn take_request(&self, limits: &TenantLimits, now: Duration) -> Result<(), Error> {
        if let Some(most) = limits.requests_per_second {
            self.requests.take(1, most, now).map_err(|wait| {
                let message = format!("more than {most} requests per second (limit requests_per_second)");
                self.refuse("limit_requests_per_second", message, wait)
            })?;
        }
        self.requests_taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How long pushes must wait, if they must; else they are counted.
    pub(super) fn take_pushes(
        &self,
        limits: &TenantLimits,
        count: u64,
        now: Duration,
    ) -> Result<(), Duration> {
        if let Some(most) = limits.pushes_per_second {
            self.pushes.take(count, most, now)?;
        }
        self.pushes_taken.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// The error for pushes that must wait.
    pub(super) fn too_many_pushes(&self, limits: &TenantLimits, wait: Duration) -> Error {
        let most = limits.pushes_per_second.map_or(0, NonZeroU64::get);
        let message = format!("more than {most} pushes per second (limit pushes_per_second)");
        self.refuse("limit_pushes_per_second", message, wait)
    }

    pub(super) fn acquire_send_permit(&self, limits: &TenantLimits) -> Result<(), Error> {
        let most = limits.concurrent_sends.map_or(u64::MAX, NonZeroU64::get);
        let begin = |count: u64| (count < most).then_some(count + 1);
        let begun = self.sends_under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        begun.map(drop).map_err(|_| {
            let message = format!("{most} sends are under way already (limit concurrent_sends)");
            self.refuse("limit_concurrent_sends", message, Duration::from_secs(1))
        })
    }

    pub(super) fn end_send(&self) {
        self.sends_under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// `code` names the limit.
    pub(super) fn refuse(
        &self,
        code: impl Into<Cow<'static, str>>,
        message: String,
        wait: Duration,
    ) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Error::new(Kind::Throttled, code, message).after(wait)
    }

    pub(super) fn usage(&self, limits: &TenantLimits, held: Held, account: &Account, now: Duration) -> Usage {
        let rate =
            |pace: &RateLimiter, most: Option<NonZeroU64>| most.map_or(0, |most| pace.in_use(most, now));
        let count = |limit, used, most: Option<NonZeroU64>| LimitUse {
            limit,
            used: Some(used),
            most: most.map(NonZeroU64::get),
        };
        let each = |limit, most: Option<NonZeroU64>| LimitUse { used: None, ..count(limit, 0, most) };
        let stock = |limit, used, most| LimitUse { limit, used: Some(used), most };
        let sends = self.sends_under_way.load(Ordering::Relaxed);
        let (requests, pushes) = (limits.requests_per_second, limits.pushes_per_second);
        Usage {
            requests: self.requests_taken.load(Ordering::Relaxed),
            pushes: self.pushes_taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed) + account.refused(),
            memory: MemoryUse::ALL.map(|of| (of, account.memory_used_for(of))),
            work: account.work_by_kind(),
            limits: vec![
                count("requests_per_second", rate(&self.requests, requests), requests),
                count("pushes_per_second", rate(&self.pushes, pushes), pushes),
                count("concurrent_sends", sends, limits.concurrent_sends),
                stock("applications", held.applications, limits.applications),
                stock("components", held.components, limits.components),
                stock("component_bytes", held.component_bytes, limits.component_bytes),
                each("call_milliseconds", limits.call_milliseconds),
                count(
                    "cpu_milliseconds_per_second",
                    account.cpu_milliseconds_per_second(),
                    limits.cpu_milliseconds_per_second,
                ),
                each("instance_memory_bytes", limits.instance_memory_bytes),
                count("memory_bytes", account.memory_used() as u64, limits.memory_bytes),
            ],
        }
    }
}

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
