//! The tenants: which exist, their API keys, and how much each may use.

mod keys;
mod permits;
mod tenant;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use pushlet_credential::KeyId;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_registry::{Registry, StorageError, TenantRecord};
use tenant::{TenantState, UsageCounters};

pub use keys::{KeyRequest, KeyView, NewKey, looks_like_a_key};
pub use permits::{RequestPermit, SendPermit};
pub use tenant::{Held, LimitUse, Permission, Tenant, TenantView, Usage, Withdrawal};

/// How long the removal of a tenant waits for its requests in flight.
const LONGEST_END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Settings for all tenants.
#[derive(Clone, Default)]
pub struct Settings {
    pub defaults: TenantLimits,
    /// Most requests of all tenants that the server handles at a time.
    pub requests: usize,
}

/// All tenants.
pub struct Tenants {
    registry: Arc<Registry>,
    settings: Settings,
    accounts: Arc<Accounts>,
    started: Instant,
    live: RwLock<LiveTenants>,
    /// Held from the check of a change to its end.
    changing: Mutex<()>,
    /// Tenants with a request in flight.
    active: AtomicUsize,
}

#[derive(Default)]
struct LiveTenants {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: HashMap<KeyId, Arc<Tenant>>,
}

/// A change of a tenant; None leaves a property as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub suspended: Option<bool>,
    pub limits: Option<TenantLimits>,
}

impl Tenants {
    /// Reads the stored tenants. The default tenant always exists.
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

    /// Creates tenants that are not stored anywhere.
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

    /// Returns all tenants, by id.
    pub fn list(&self) -> Vec<TenantView> {
        let mut all: Vec<_> = self.live().tenants.values().map(|tenant| tenant.view()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Returns true if there is a tenant apart from the default one.
    pub fn are_many(&self) -> bool {
        self.live().tenants.len() > 1
    }

    /// Creates a tenant, with its first key, or changes one. Blocks.
    pub fn put(&self, id: &TenantId, wanted: Wanted) -> Result<Option<NewKey>, Error> {
        let _order = self.changing();
        let known = self.get(id).ok().map(|tenant| tenant.state.load().record.clone());
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| TenantRecord::new(SystemTime::now()));
        record.suspended = wanted.suspended.unwrap_or(record.suspended);
        record.limits = wanted.limits.unwrap_or(record.limits);
        let key = is_new.then(|| keys::create(self.registry.hasher(), id, &mut record, None)).transpose()?;
        self.keep(id, record)?;
        Ok(key)
    }

    /// Removes a tenant and everything that the registry has of it. Blocks.
    ///
    /// The caller holds the tenant's registration permit; no other task gets it any more.
    pub fn remove(&self, id: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        let tenant = self.removable(id)?;
        self.registry.remove_tenant(id)?;
        // Registrations that wait for a permit fail now: they would add applications to a removed tenant.
        tenant.counters.registrations.close();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.tenants.remove(id);
        live.keys.retain(|_, owner| owner.id != *id);
        Ok(())
    }

    /// Accepts no more requests of a tenant that is being removed, and gives those in flight some time to
    /// finish.
    pub async fn end(&self, id: &TenantId) -> Result<(), Error> {
        let tenant = self.removable(id)?;
        tenant.suspend();
        let ended = async {
            while tenant.counters.requests_in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Requests that take longer go on without a tenant.
        let _ = tokio::time::timeout(LONGEST_END, ended).await;
        Ok(())
    }

    /// Returns a tenant, unless it cannot be removed.
    pub fn removable(&self, id: &TenantId) -> Result<Arc<Tenant>, Error> {
        if id.is_default() {
            let message = "the default tenant can be suspended, but not removed";
            return Err(Error::new(Kind::Conflict, "default_tenant", message));
        }
        self.get(id)
    }

    /// Returns how much of its limits a tenant uses. `held`: what it holds outside of this module.
    pub fn usage(&self, id: &TenantId, held: Held) -> Result<Usage, Error> {
        let tenant = self.get(id)?;
        Ok(tenant.counters.usage(&tenant.limits(), held, &tenant.account, self.started.elapsed()))
    }

    /// Returns the limits that apply to a tenant.
    pub fn limits(&self, id: &TenantId) -> Result<TenantLimits, Error> {
        Ok(self.get(id)?.limits())
    }

    /// Returns the error for a request that would exceed a limit, and counts it.
    pub fn over_limit(&self, id: &TenantId, limit: &str, message: &str) -> Error {
        let message = format!("{message} (limit {limit})");
        match self.get(id) {
            Ok(tenant) => tenant.counters.refuse(format!("limit_{limit}"), message, Duration::from_secs(1)),
            Err(error) => error,
        }
    }

    /// Returns what an API key permits, if it is valid.
    pub fn by_key(&self, key: &str) -> Option<Permission> {
        let id = KeyId::of_key(key)?;
        let tenant = self.live().keys.get(&id).cloned()?;
        let state = tenant.state.load_full();
        let record = state.record.keys.iter().find(|record| record.id == id)?;
        let good = self.registry.hasher().matches(tenant.id.as_str(), key, &record.hash);
        (good && record.is_good(SystemTime::now())).then(|| Permission::with_key(tenant, id))
    }

    /// Creates one more key. Blocks.
    pub fn add_key(&self, id: &TenantId, request: KeyRequest) -> Result<NewKey, Error> {
        let _order = self.changing();
        let mut record = self.get(id)?.state.load().record.clone();
        keys::make_room(&mut record, request)?;
        let key = keys::create(self.registry.hasher(), id, &mut record, request.expires_in)?;
        self.keep(id, record)?;
        Ok(key)
    }

    /// Returns the keys that are valid now, the oldest first.
    pub fn keys(&self, id: &TenantId) -> Result<Vec<KeyView>, Error> {
        Ok(keys::list(&self.get(id)?.state.load().record))
    }

    /// Ends a key at once. Blocks.
    pub fn remove_key(&self, id: &TenantId, key: &str) -> Result<(), Error> {
        let _order = self.changing();
        let mut record = self.get(id)?.state.load().record.clone();
        keys::remove(&mut record, key)?;
        self.keep(id, record)
    }

    /// Stores a record, then applies it.
    fn keep(&self, id: &TenantId, record: TenantRecord) -> Result<(), Error> {
        // Stored first: a change that cannot be stored must not take effect.
        self.registry.put_tenant(id, &record)?;
        self.set(id, record);
        Ok(())
    }

    fn set(&self, id: &TenantId, record: TenantRecord) {
        let limits = record.limits.over(self.settings.defaults);
        let keys: Vec<KeyId> = record.keys.iter().map(|key| key.id).collect();
        let state = Arc::new(TenantState { record, limits, removed: false });
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

    fn live(&self) -> RwLockReadGuard<'_, LiveTenants> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(id: &TenantId) -> Error {
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
