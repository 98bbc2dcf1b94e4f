//! The account of each tenant: the memory and processor time that it uses of this process, and how much it
//! may use.
//!
//! There is one [`Account`] per tenant, whatever the memory or the work is for:
//! - [`memory`]: bytes are reserved before they are taken, and given back when a [`MemoryReservation`] is dropped.
//!   A reservation is two atomic additions; there is no lock and no clock.
//! - [`work`]: processor time is charged after it was used. A tenant that is in debt waits. Work that takes long
//!   runs on low-priority threads, a few pieces of each tenant at a time ([`Account::run_heavy`]).
//!
//! Over a tenant's own limit the error is 429 and names the limit; over the process's limit it is 503.

mod call_queue;
mod calls;
mod memory;
mod scheduling;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

pub use memory::{MemoryUse, default_memory};
pub use scheduling::{CpuMeter, Steps};
pub use work::{Work, WorkLimits, thread_cpu_time};

use memory::{MemoryShortage, ProcessMemory, TenantMemory};
use parking_lot::Mutex;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use work::{TenantWork, WorkTotals, WorkerPools};

/// The limits of all accounts.
#[derive(Debug, Clone)]
pub struct AccountSettings {
    /// Bytes that all tenants together may reserve. One tenant alone gets at most half of them.
    pub process_memory: usize,
    /// Bytes that a tenant may reserve until [`Account::set_limits`] says otherwise.
    pub tenant_memory: usize,
    pub work: WorkLimits,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self { process_memory: default_memory(), tenant_memory: usize::MAX, work: WorkLimits::default() }
    }
}

/// Frees memory on an account that is full. Returns true if it freed any.
type MemoryReclaim = Box<dyn Fn(&Arc<Account>) -> bool + Send + Sync>;

/// Totals and limits of the whole process.
struct AccountTotals {
    started: Instant,
    memory: ProcessMemory,
    work: WorkTotals,
    pools: WorkerPools,
    reclaim: OnceLock<MemoryReclaim>,
}

/// The accounts of all tenants: memory that is reserved, and processor time behind a rate limit.
pub struct Accounts {
    settings: AccountSettings,
    common: Arc<AccountTotals>,
    tenants: Mutex<KnownAccounts>,
}

/// Weak references: an account lives for as long as anything uses it.
#[derive(Default)]
struct KnownAccounts {
    by_tenant: HashMap<TenantId, Weak<Account>>,
    /// The number of entries at which dead ones are removed.
    prune_at: usize,
}

/// The account of one tenant: what it uses, and its limits.
pub struct Account {
    tenant: TenantId,
    common: Arc<AccountTotals>,
    memory: TenantMemory,
    work: TenantWork,
    refused: AtomicU64,
}

/// Bytes that are counted on an account until this is dropped.
pub struct MemoryReservation {
    account: Arc<Account>,
    of: MemoryUse,
    bytes: usize,
}

impl AccountTotals {
    /// Returns the time on the clock of all budgets.
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Accounts {
    /// Creates the accounts. Fails only if no thread can be started.
    pub fn new(settings: AccountSettings) -> io::Result<Arc<Self>> {
        let common = AccountTotals {
            started: Instant::now(),
            memory: ProcessMemory::new(settings.process_memory),
            work: WorkTotals::default(),
            pools: WorkerPools::new(&settings.work)?,
            reclaim: OnceLock::new(),
        };
        Ok(Arc::new(Self { settings, common: Arc::new(common), tenants: Mutex::default() }))
    }

    /// Returns the account of a tenant: always the same one, while anything uses it. Takes a lock, so it is
    /// not called for each push.
    pub fn of(&self, tenant: &TenantId) -> Arc<Account> {
        let mut known = self.tenants.lock();
        if let Some(account) = known.by_tenant.get(tenant).and_then(Weak::upgrade) {
            return account;
        }
        if known.by_tenant.len() >= known.prune_at {
            known.by_tenant.retain(|_, account| account.strong_count() > 0);
            // Doubling keeps the cost of pruning constant for each account.
            known.prune_at = (2 * known.by_tenant.len()).max(64);
        }
        let account = Arc::new(Account {
            tenant: tenant.clone(),
            common: self.common.clone(),
            memory: TenantMemory::new(self.settings.tenant_memory),
            work: TenantWork::new(&self.settings.work, self.common.uptime()),
            refused: AtomicU64::new(0),
        });
        known.by_tenant.insert(tenant.clone(), Arc::downgrade(&account));
        account
    }

    /// Sets the function that frees memory when a tenant's own limit is reached: what is kept only for speed
    /// is dropped first. Only the first call has an effect.
    pub fn on_full(&self, reclaim: impl Fn(&Arc<Account>) -> bool + Send + Sync + 'static) {
        let _ = self.common.reclaim.set(Box::new(reclaim));
    }

    /// Returns the bytes that all tenants have reserved, and how many they may reserve.
    pub fn process_memory(&self) -> (usize, usize) {
        (self.common.memory.used(), self.common.memory.limit())
    }

    /// Returns the bytes that all tenants have reserved, by use.
    pub fn memory_by_use(&self) -> [(MemoryUse, usize); MemoryUse::ALL.len()] {
        let accounts: Vec<_> = {
            let known = self.tenants.lock();
            known.by_tenant.values().filter_map(Weak::upgrade).collect()
        };
        MemoryUse::ALL.map(|of| (of, accounts.iter().map(|account| account.memory.used_for(of)).sum()))
    }

    /// Returns the processor time that was charged since the process began, by kind of work.
    pub fn work_by_kind(&self) -> [(Work, Duration); Work::ALL.len()] {
        self.common.work.all()
    }

    /// Runs a job that belongs to no tenant's account on the threads with the lowest priority. It needs no
    /// permit.
    pub async fn in_background<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        work::join(self.common.pools.heavy.run(job)).await.ok_or_else(work::overloaded)
    }
}

impl Account {
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Sets the tenant's own limits; None removes one.
    pub fn set_limits(&self, memory: Option<NonZeroU64>, cpu_milliseconds_per_second: Option<NonZeroU64>) {
        let bytes = |most: NonZeroU64| usize::try_from(most.get()).unwrap_or(usize::MAX);
        self.memory.set_limit(memory.map_or(usize::MAX, bytes));
        if let Some(milliseconds) = cpu_milliseconds_per_second {
            self.work.set_rate(milliseconds);
        }
    }

    /// Returns how many requests and pieces of work were refused because of this account.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, error: Error) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        error
    }

    fn over_limit(&self, limit: &str, message: String) -> Error {
        self.refuse(Error::new(Kind::Throttled, format!("limit_{limit}"), message))
    }
}

impl Account {
    /// Reserves bytes that are about to be allocated, if there is room for them.
    pub fn reserve(self: &Arc<Self>, of: MemoryUse, bytes: usize) -> Result<MemoryReservation, Error> {
        let mut reservation = self.reserve_nothing(of);
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Returns an empty reservation that can grow.
    pub fn reserve_nothing(self: &Arc<Self>, of: MemoryUse) -> MemoryReservation {
        MemoryReservation { account: self.clone(), of, bytes: 0 }
    }

    /// Returns the bytes reserved for one use.
    pub fn memory_used_for(&self, of: MemoryUse) -> usize {
        self.memory.used_for(of)
    }

    /// Returns the bytes reserved for all uses.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// Returns the most bytes that may be reserved.
    pub fn memory_limit(&self) -> usize {
        self.memory.limit()
    }

    fn take(self: &Arc<Self>, of: MemoryUse, bytes: usize) -> Result<(), Error> {
        let take = || self.memory.take(&self.common.memory, of, bytes);
        let shortage = match take() {
            Ok(()) => return Ok(()),
            Err(shortage) => shortage,
        };
        // An instance that grows has others of its tenant dropped itself, after its call.
        let reclaim = self.common.reclaim.get().filter(|_| of != MemoryUse::Instances);
        // Only once: what cannot be freed now is refused, so that a request never loops here.
        if reclaim.is_some_and(|reclaim| reclaim(self)) && take().is_ok() {
            return Ok(());
        }
        Err(self.short(&shortage))
    }

    fn short(&self, shortage: &MemoryShortage) -> Error {
        let error = match shortage {
            MemoryShortage::Tenant => {
                let most = self.memory_limit().min(self.common.memory.limit());
                let message = format!(
                    "what this tenant has in flight and keeps takes {most} bytes (limit memory_bytes)"
                );
                self.over_limit("memory_bytes", message)
            }
            MemoryShortage::Process => {
                let message = "this server is short of memory, try again later";
                self.refuse(Error::new(Kind::Overloaded, "overloaded_memory", message))
            }
        };
        error.after(Duration::from_secs(1))
    }
}

impl MemoryReservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves more bytes. If there is no room for them, the bytes reserved before stay reserved.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > 0 {
            self.account.take(self.of, bytes)?;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Gives back the bytes above this number.
    pub fn shrink_to(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        if over > 0 {
            self.account.memory.give_back(&self.account.common.memory, self.of, over);
            self.bytes -= over;
        }
    }
}

impl fmt::Debug for MemoryReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes of {})", self.bytes, self.of.name())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests;
