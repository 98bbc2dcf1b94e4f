//! One tenant: its limits, what it uses of them, and whether a caller's permission still holds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::rates::{SharedRate, Sharing};
use crate::history::{CounterHistory, Timeline};
use pushlet_credential::KeyId;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{Scope, TenantId, TenantLimits};
use pushlet_quota::account::{Account, MemoryUse, Work};
use pushlet_registry::{StorageError, TenantRecord};

/// Registrations of one tenant that may wait for the processor or use it; others wait behind them.
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
    /// The record's limits, completed by the defaults.
    pub(super) limits: TenantLimits,
    /// The tenant is being removed, or has been.
    pub(super) removed: bool,
}

/// What may be shown of a tenant.
pub struct TenantView {
    pub id: TenantId,
    pub created: SystemTime,
    pub suspended: bool,
    /// The tenant's own limits, without the defaults.
    pub limits: TenantLimits,
}

/// A tenant, and the API key of the request, if there was one. Cheap to clone.
#[derive(Clone)]
pub struct Permission {
    tenant: Arc<Tenant>,
    /// None: the request came with the configured login, or the server requires no authentication.
    key: Option<KeyId>,
}

/// Why a permission no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    TenantSuspended,
    TenantDeleted,
    KeyRevoked,
    KeyExpired,
}

impl Permission {
    /// Creates the permission of a request without an API key.
    pub fn without_key(tenant: Arc<Tenant>) -> Self {
        Self { tenant, key: None }
    }

    pub(super) fn with_key(tenant: Arc<Tenant>, key: KeyId) -> Self {
        Self { tenant, key: Some(key) }
    }

    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Returns the id of the API key, if the request came with one.
    pub fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// Returns an error unless the API key has one of these scopes. Without a key, everything may be done.
    pub fn allows(&self, any: &[Scope]) -> Result<(), Error> {
        let Some(id) = self.key else { return Ok(()) };
        let state = self.tenant.state.load();
        let key = state.record.keys.iter().find(|key| key.id == id);
        if key.is_none_or(|key| any.iter().any(|scope| key.scopes.has(*scope))) {
            return Ok(());
        }
        let names: Vec<_> = any.iter().map(Scope::to_string).collect();
        let message = format!("this API key lacks the scope {}", names.join(" or "));
        Err(Error::new(Kind::Forbidden, "scope_required", message))
    }

    /// Returns why the permission no longer holds, or None if it does. Takes no lock, and reads the clock
    /// only for a key that expires.
    pub fn withdrawn(&self) -> Option<Withdrawal> {
        let state = self.tenant.state.load();
        // A tenant that is being removed is suspended too, so this is checked first.
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

/// The counters of one tenant. Those of an idle tenant take some bytes, and nothing else.
pub(super) struct UsageCounters {
    pub(super) requests: SharedRate,
    pub(super) pushes: SharedRate,
    pub(super) registrations: Arc<Semaphore>,
    pub(super) requests_in_flight: AtomicUsize,
    sends_in_flight: AtomicU64,
    requests_taken: AtomicU64,
    pushes_taken: AtomicU64,
    refused: AtomicU64,
    refusals: CounterHistory,
    /// By the error's code, which names the limit.
    pub(super) refused_limits: Mutex<BTreeMap<Cow<'static, str>, u64>>,
}

/// How much a tenant uses of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Since the server started.
    pub requests: u64,
    /// Targets of sends, since the server started.
    pub pushes: u64,
    /// Requests and sends over a limit, since the server started.
    pub refused: u64,
    pub limits: Vec<LimitUse>,
    /// Bytes, by use.
    pub memory: [(MemoryUse, usize); MemoryUse::ALL.len()],
    /// Processor time since the server started, by kind of work.
    pub work: [(Work, Duration); Work::ALL.len()],
}

/// How much of one limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// The name of the field in [`TenantLimits`].
    pub limit: &'static str,
    /// None: the limit applies to each call, and is not used up.
    pub used: Option<u64>,
    /// None: there is no such limit.
    pub most: Option<u64>,
}

/// What a tenant holds elsewhere in this server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    pub applications: u64,
    pub components: u64,
    pub component_bytes: u64,
}

impl Tenant {
    /// Returns an error if a newer program wrote what the tenant is now.
    pub(super) fn ensure_known(&self) -> Result<(), Error> {
        match self.state.load().record.is_newer {
            true => Err(StorageError::NewerRecord.into()),
            false => Ok(()),
        }
    }

    /// Returns an error if the tenant is suspended, or not known as it is now.
    pub(super) fn may_go_on(&self) -> Result<(), Error> {
        self.ensure_known()?;
        if self.state.load().record.suspended {
            let message = "this tenant is suspended; ask the operator of this server";
            return Err(Error::new(Kind::Forbidden, "tenant_suspended", message));
        }
        Ok(())
    }

    pub(super) fn limits(&self) -> TenantLimits {
        self.state.load().limits
    }

    /// Records the refusals of `minute`, which has just ended.
    pub(super) fn sample(&self, minute: u32) {
        self.counters.refusals.sample(self.counters.refused(&self.account), minute);
    }

    pub(super) fn add_refused(&self, timeline: &mut Timeline) {
        timeline.add_refused(&self.counters.refusals, self.counters.refused(&self.account));
    }

    /// Suspends the tenant for good: its streams end.
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
            requests: SharedRate::default(),
            pushes: SharedRate::default(),
            registrations: Arc::new(Semaphore::new(REGISTRATIONS)),
            requests_in_flight: AtomicUsize::new(0),
            sends_in_flight: AtomicU64::new(0),
            requests_taken: AtomicU64::new(0),
            pushes_taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusals: CounterHistory::default(),
            refused_limits: Mutex::default(),
        }
    }
}

impl UsageCounters {
    /// Counts a request, or returns an error. `now`: the time since the server started.
    pub(super) fn take_request(
        &self,
        limits: &TenantLimits,
        sharing: Sharing,
        now: Duration,
    ) -> Result<(), Error> {
        if let Some(most) = limits.requests_per_second {
            self.requests.take(1, most, sharing, now).map_err(|wait| {
                let message = format!("more than {most} requests per second (limit requests_per_second)");
                self.refuse("limit_requests_per_second", message, wait)
            })?;
        }
        self.requests_taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts pushes, or returns how long they must wait.
    pub(super) fn take_pushes(
        &self,
        limits: &TenantLimits,
        (count, sharing): (u64, Sharing),
        now: Duration,
    ) -> Result<(), Duration> {
        if let Some(most) = limits.pushes_per_second {
            self.pushes.take(count, most, sharing, now)?;
        }
        self.pushes_taken.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the error for pushes that exceed the limit.
    pub(super) fn too_many_pushes(&self, limits: &TenantLimits, wait: Duration) -> Error {
        let most = limits.pushes_per_second.map_or(0, NonZeroU64::get);
        let message = format!("more than {most} pushes per second (limit pushes_per_second)");
        self.refuse("limit_pushes_per_second", message, wait)
    }

    pub(super) fn acquire_send_permit(&self, limits: &TenantLimits, shares: u64) -> Result<(), Error> {
        let most = limits.concurrent_sends.map_or(u64::MAX, NonZeroU64::get);
        let most = (most / shares.max(1)).max(1);
        let begin = |count: u64| (count < most).then_some(count + 1);
        let begun = self.sends_in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        begun.map(drop).map_err(|_| {
            let message = format!("{most} sends are in flight already (limit concurrent_sends)");
            self.refuse("limit_concurrent_sends", message, Duration::from_secs(1))
        })
    }

    pub(super) fn end_send(&self) {
        self.sends_in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the error for a request over a limit, and counts it. `code` names the limit.
    pub(super) fn refuse(
        &self,
        code: impl Into<Cow<'static, str>>,
        message: String,
        wait: Duration,
    ) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let code = code.into();
        // The codes are those of the limits, so there are few.
        let mut refusals = self.refused_limits.lock();
        *refusals.entry(code.clone()).or_default() += 1;
        drop(refusals);
        Error::new(Kind::Throttled, code, message).after(wait)
    }

    fn refused(&self, account: &Account) -> u64 {
        self.refused.load(Ordering::Relaxed) + account.refused()
    }

    pub(super) fn usage(
        &self,
        (limits, sharing): (&TenantLimits, Sharing),
        held: Held,
        account: &Account,
        now: Duration,
    ) -> Usage {
        let rate = |rate: &SharedRate, most: Option<NonZeroU64>| {
            most.map_or(0, |most| rate.in_use(most, sharing, now))
        };
        let count = |limit, used, most: Option<NonZeroU64>| LimitUse {
            limit,
            used: Some(used),
            most: most.map(NonZeroU64::get),
        };
        let each = |limit, most: Option<NonZeroU64>| LimitUse { used: None, ..count(limit, 0, most) };
        let stock = |limit, used, most| LimitUse { limit, used: Some(used), most };
        let sends = self.sends_in_flight.load(Ordering::Relaxed);
        let (requests, pushes) = (limits.requests_per_second, limits.pushes_per_second);
        Usage {
            requests: self.requests_taken.load(Ordering::Relaxed),
            pushes: self.pushes_taken.load(Ordering::Relaxed),
            refused: self.refused(account),
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
