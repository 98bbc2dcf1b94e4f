//! Who the tenants are, which keys open the door to them, and how much each may use.
//!
//! A limit is checked before anything that tenants share, so that one at its limit lengthens nobody's queue.

mod keys;
mod permission;
mod rate_limiter;
mod share;
mod usage_counters;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::OwnedSemaphorePermit;

use pushlet_credential::KeyId;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};
use pushlet_quota::account::{Account, AccountSettings, Accounts};
use pushlet_registry::{Registry, StorageError, TenantRecord};
use usage_counters::UsageCounters;

pub use keys::{KeyRequest, KeyView, NewKey, looks_like_a_key};
pub use permission::{Permission, Withdrawal};
pub use share::RequestPermit;
pub use usage_counters::{Held, LimitUse, Usage};

/// How long a tenant that shall be removed is waited for.
const LONGEST_END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// How tenants are treated that nobody said more about.
#[derive(Clone, Default)]
pub struct Settings {
    pub defaults: TenantLimits,
    /// Requests at a time that the server takes on, of all tenants.
    pub requests: usize,
}

/// All tenants.
pub struct Tenants {
    registry: Arc<Registry>,
    settings: Settings,
    accounts: Arc<Accounts>,
    started: Instant,
    live: RwLock<Live>,
    /// Held from the check of a change to its end.
    changing: Mutex<()>,
    /// Tenants with a request under way.
    active: AtomicUsize,
}

#[derive(Default)]
struct Live {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: HashMap<KeyId, Arc<Tenant>>,
}

/// One tenant.
pub struct Tenant {
    pub id: TenantId,
    /// What it uses of the process's memory and processor time.
    pub account: Arc<Account>,
    state: ArcSwap<State>,
    counters: UsageCounters,
}

struct State {
    record: TenantRecord,
    /// Those of the record, over the defaults.
    limits: TenantLimits,
    /// It is being removed, or is gone.
    removed: bool,
}

/// What may be told about a tenant.
pub struct TenantView {
    pub id: TenantId,
    pub created: SystemTime,
    pub suspended: bool,
    /// The tenant's own.
    pub limits: TenantLimits,
}

/// What a tenant shall be; None: as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub suspended: Option<bool>,
    pub limits: Option<TenantLimits>,
}

/// A send of a tenant, while it is under way.
pub struct SendPermit {
    tenants: Arc<Tenants>,
    tenant: Arc<Tenant>,
}

impl SendPermit {
    /// The account that pays for the send.
    pub fn account(&self) -> &Arc<Account> {
        &self.tenant.account
    }

    /// Takes so many targets of a stream. `Some`: not now, but after this wait.
    pub fn take(&self, targets: usize) -> Option<Duration> {
        let now = self.tenants.started.elapsed();
        let taken = self.tenant.counters.take_pushes(&self.tenant.limits(), targets as u64, now);
        taken.err().map(|wait| wait.max(Duration::from_millis(1)))
    }

    /// The most targets that are taken at a time, so that they do not come in bursts.
    pub fn batch(&self) -> usize {
        let most = self.tenant.limits().pushes_per_second;
        most.map_or(usize::MAX, |most| usize::try_from(most.get().div_ceil(10)).unwrap_or(usize::MAX))
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        self.tenant.counters.end_send();
    }
}

impl Tenants {
    /// Reads those that are kept. The default tenant is always there.
    pub fn open(
        registry: Arc<Registry>,
        settings: Settings,
        accounts: Arc<Accounts>,
    ) -> Result<Self, StorageError> {
        let tenants = Self {
            accounts,
            started: Instant::now(),
            live: RwLock::default(),
            changing: Mutex::default(),
            active: AtomicUsize::new(0),
            settings,
            registry,
        };
        tenants.set(&TenantId::default_tenant(), TenantRecord::new(SystemTime::now()));
        for (id, record) in tenants.registry.tenants()? {
            tenants.set(&id, record);
        }
        Ok(tenants)
    }

    /// Tenants that end with the process.
    pub fn in_memory() -> Result<Self, StorageError> {
        let settings = Settings { defaults: TenantLimits::default(), requests: usize::MAX };
        let accounts =
            Accounts::new(AccountSettings::default()).map_err(|error| StorageError::Io(error.to_string()))?;
        Self::open(Arc::new(Registry::in_memory(1)?), settings, accounts)
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    pub fn get(&self, id: &TenantId) -> Result<Arc<Tenant>, Error> {
        self.live().tenants.get(id).cloned().ok_or_else(|| not_found(id))
    }

    pub fn view(&self, id: &TenantId) -> Result<TenantView, Error> {
        Ok(self.get(id)?.view())
    }

    /// By id.
    pub fn list(&self) -> Vec<TenantView> {
        let mut all: Vec<_> = self.live().tenants.values().map(|tenant| tenant.view()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Are there tenants beside the default one?
    pub fn are_many(&self) -> bool {
        self.live().tenants.len() > 1
    }

    /// Makes a tenant, with its first key, or changes one. Blocks.
    pub fn put(&self, id: &TenantId, wanted: Wanted) -> Result<Option<NewKey>, Error> {
        let _order = self.changing();
        let known = self.get(id).ok().map(|tenant| tenant.state.load().record.clone());
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| TenantRecord::new(SystemTime::now()));
        record.suspended = wanted.suspended.unwrap_or(record.suspended);
        record.limits = wanted.limits.unwrap_or(record.limits);
        let key = is_new.then(|| self.new_key(id, &mut record, None)).transpose()?;
        self.keep(id, record)?;
        Ok(key)
    }

    /// Forgets a tenant and all that the registry has of it. Blocks.
    ///
    /// The caller holds the tenant's place for registrations; nobody else gets it any more.
    pub fn remove(&self, id: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        let tenant = self.removable(id)?;
        self.registry.remove_tenant(id)?;
        tenant.counters.registrations.close();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.tenants.remove(id);
        live.keys.retain(|_, owner| owner.id != *id);
        Ok(())
    }

    /// Takes no more requests of a tenant that shall be removed, and gives those under way some time to end.
    pub async fn end(&self, id: &TenantId) -> Result<(), Error> {
        let tenant = self.removable(id)?;
        tenant.suspend();
        let ended = async {
            while tenant.counters.requests_under_way.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // What takes longer goes on without a tenant: it is not waited for.
        let _ = tokio::time::timeout(LONGEST_END, ended).await;
        Ok(())
    }

    /// A tenant that may be removed.
    pub fn removable(&self, id: &TenantId) -> Result<Arc<Tenant>, Error> {
        if id.is_default() {
            let message = "the default tenant can be suspended, but not removed";
            return Err(Error::new(Kind::Conflict, "default_tenant", message));
        }
        self.get(id)
    }

    /// `held`: what it has elsewhere.
    pub fn usage(&self, id: &TenantId, held: Held) -> Result<Usage, Error> {
        let tenant = self.get(id)?;
        Ok(tenant.counters.usage(&tenant.limits(), held, &tenant.account, self.started.elapsed()))
    }

    /// The limits that hold for a tenant.
    pub fn limits(&self, id: &TenantId) -> Result<TenantLimits, Error> {
        Ok(self.get(id)?.limits())
    }

    /// The error for one more of something that the tenant has too many of already.
    pub fn over_limit(&self, id: &TenantId, limit: &str, message: &str) -> Error {
        let message = format!("{message} (limit {limit})");
        match self.get(id) {
            Ok(tenant) => tenant.counters.refuse(format!("limit_{limit}"), message, Duration::from_secs(1)),
            Err(error) => error,
        }
    }

    /// Lets a send begin. `targets`: how many it has; None: a stream, whose targets are paced, see
    /// [`SendPermit::take`].
    pub fn acquire_send_permit(
        self: &Arc<Self>,
        id: &TenantId,
        targets: Option<u64>,
    ) -> Result<SendPermit, Error> {
        let tenant = self.get(id)?;
        let (limits, counters) = (tenant.limits(), &tenant.counters);
        counters.acquire_send_permit(&limits)?;
        // From here on, dropping it gives the place back.
        let place = SendPermit { tenants: self.clone(), tenant: tenant.clone() };
        let taken = targets.map(|targets| counters.take_pushes(&limits, targets, self.started.elapsed()));
        match taken {
            Some(Err(wait)) => Err(counters.too_many_pushes(&limits, wait)),
            _ => Ok(place),
        }
    }

    /// The tenant's one place for registrations, which wait for each other before they wait for the processor.
    pub async fn acquire_registration_permit(&self, id: &TenantId) -> Result<OwnedSemaphorePermit, Error> {
        let places = self.get(id)?.counters.registrations.clone();
        // It is closed when the tenant is removed.
        places.acquire_owned().await.map_err(|_| not_found(id))
    }

    /// Keeps a record, and then goes by it.
    fn keep(&self, id: &TenantId, record: TenantRecord) -> Result<(), Error> {
        self.registry.put_tenant(id, &record)?;
        self.set(id, record);
        Ok(())
    }

    fn set(&self, id: &TenantId, record: TenantRecord) {
        let limits = record.limits.over(self.settings.defaults);
        let keys: Vec<KeyId> = record.keys.iter().map(|key| key.id).collect();
        let state = Arc::new(State { record, limits, removed: false });
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let tenant = live.tenants.entry(id.clone()).or_insert_with(|| {
            let state = ArcSwap::new(state.clone());
            let account = self.accounts.of(id);
            Arc::new(Tenant { id: id.clone(), account, state, counters: UsageCounters::default() })
        });
        tenant.account.set_limits(limits.memory_bytes, limits.cpu_milliseconds_per_second);
        let tenant = tenant.clone();
        let old = tenant.state.swap(state);
        old.record.keys.iter().for_each(|key| drop(live.keys.remove(&key.id)));
        live.keys.extend(keys.into_iter().map(|key| (key, tenant.clone())));
    }

    fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    /// Not when it is suspended.
    fn may_go_on(&self) -> Result<(), Error> {
        if self.state.load().record.suspended {
            let message = "this tenant is suspended; ask the operator of this server";
            return Err(Error::new(Kind::Forbidden, "tenant_suspended", message));
        }
        Ok(())
    }

    fn limits(&self) -> TenantLimits {
        self.state.load().limits
    }

    /// Ends what it has under way, as far as it ends.
    fn suspend(&self) {
        self.state.rcu(|state| State {
            record: TenantRecord { suspended: true, ..state.record.clone() },
            limits: state.limits,
            removed: true,
        });
    }

    fn view(&self) -> TenantView {
        let state = self.state.load();
        TenantView {
            id: self.id.clone(),
            created: state.record.created,
            suspended: state.record.suspended,
            limits: state.record.limits,
        }
    }
}

fn not_found(id: &TenantId) -> Error {
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
