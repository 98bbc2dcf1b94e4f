//! The tenants: which exist, their API keys, and how much each may use.

mod keys;
mod permits;
mod rates;
mod tenant;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::history::Timeline;
use keys::LiveKey;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_registry::{Registry, StorageError, TenantRecord};
use tenant::{TenantState, UsageCounters};

pub use pushlet_credential::KeyId;

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
    defaults: RwLock<TenantLimits>,
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
    keys: HashMap<KeyId, Arc<LiveKey>>,
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
            defaults: RwLock::new(settings.defaults),
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

    /// Returns when this server started.
    pub(super) fn since(&self) -> SystemTime {
        SystemTime::now().checked_sub(self.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Returns how many requests of all tenants are in flight.
    pub(super) fn in_flight(&self) -> u64 {
        let live = self.live();
        let counts = live.tenants.values().map(|one| one.counters.requests_in_flight.load(Ordering::Relaxed));
        counts.sum::<usize>() as u64
    }

    /// Returns the ids of all tenants.
    pub(super) fn ids(&self) -> Vec<TenantId> {
        self.live().tenants.keys().cloned().collect()
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
        let mut record = known.clone().unwrap_or_else(|| TenantRecord::new(SystemTime::now()));
        record.suspended = wanted.suspended.unwrap_or(record.suspended);
        record.limits = wanted.limits.unwrap_or(record.limits);
        let key = is_new
            .then(|| keys::create(self.registry.hasher(), id, &mut record, KeyRequest::default()))
            .transpose()?;
        self.keep(id, known.as_ref(), record)?;
        Ok(key)
    }

    /// Removes a tenant and everything that the registry has of it. Blocks.
    ///
    /// The caller holds the tenant's registration permit; no other task gets it any more.
    pub fn remove(&self, id: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        let tenant = self.removable(id)?;
        self.registry.remove_tenant(id)?;
        self.forget(&tenant);
        Ok(())
    }

    fn forget(&self, tenant: &Tenant) {
        // Registrations that wait for a permit fail now: they would add applications to a removed tenant.
        tenant.counters.registrations.close();
        let mut live = self.live.write();
        live.tenants.remove(&tenant.id);
        live.keys.retain(|_, key| key.tenant.id != tenant.id);
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
        let limits = tenant.limits();
        let limits = (&limits, self.sharing(&limits));
        Ok(tenant.counters.usage(limits, held, &tenant.account, self.started.elapsed()))
    }

    /// Records the refusals of `minute`, which has just ended.
    pub(crate) fn sample(&self, minute: u32) {
        self.live().tenants.values().for_each(|tenant| tenant.sample(minute));
    }

    /// Adds what was refused to one tenant, or to all.
    pub(crate) fn add_refused(&self, id: Option<&TenantId>, timeline: &mut Timeline) {
        let live = self.live();
        match id {
            Some(id) => live.tenants.get(id).into_iter().for_each(|tenant| tenant.add_refused(timeline)),
            None => live.tenants.values().for_each(|tenant| tenant.add_refused(timeline)),
        }
    }

    /// Returns how many requests and sends of each tenant were refused, by the code that names the limit.
    pub fn refusals(&self) -> Vec<(TenantId, BTreeMap<Cow<'static, str>, u64>)> {
        let all: Vec<_> = self.live().tenants.values().cloned().collect();
        let of = |tenant: Arc<Tenant>| {
            let refusals = tenant.counters.refused_limits.lock().clone();
            (!refusals.is_empty()).then(|| (tenant.id.clone(), refusals))
        };
        all.into_iter().filter_map(of).collect()
    }

    /// Returns how many requests and sends of a tenant were refused, by the code that names the limit.
    pub(crate) fn refusals_of(&self, id: &TenantId) -> BTreeMap<Cow<'static, str>, u64> {
        let Ok(tenant) = self.get(id) else { return BTreeMap::new() };
        tenant.counters.refused_limits.lock().clone()
    }

    /// Replaces the limits of tenants that have none of their own.
    pub fn set_defaults(&self, defaults: TenantLimits) {
        let _order = self.changing();
        *self.defaults.write() = defaults;
        let all: Vec<_> = self.live().tenants.values().cloned().collect();
        for tenant in all {
            self.set(&tenant.id, tenant.state.load().record.clone());
        }
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
        let live = self.live().keys.get(&id).cloned()?;
        let tenant = live.tenant.clone();
        let state = tenant.state.load_full();
        let record = state.record.keys.iter().find(|record| record.id == id)?;
        let good = self.registry.hasher().matches(tenant.id.as_str(), key, &record.hash);
        let now = SystemTime::now();
        if !good || !record.is_good(now) {
            return None;
        }
        live.record_use(now);
        Some(Permission::with_key(tenant, id))
    }

    /// Returns what a request that came with this key was permitted to do, whether that still holds or not.
    pub(crate) fn permission(&self, id: &TenantId, key: Option<KeyId>) -> Result<Permission, Error> {
        let tenant = self.get(id)?;
        Ok(key.map_or(Permission::without_key(tenant.clone()), |key| Permission::with_key(tenant, key)))
    }

    /// Creates one more key. Blocks.
    pub fn add_key(&self, id: &TenantId, request: KeyRequest) -> Result<NewKey, Error> {
        let _order = self.changing();
        let known = self.get(id)?.state.load().record.clone();
        let mut record = known.clone();
        keys::make_room(&mut record, &request)?;
        let key = keys::create(self.registry.hasher(), id, &mut record, request)?;
        self.keep(id, Some(&known), record)?;
        Ok(key)
    }

    /// Returns the keys that are valid now, the oldest first. Blocks.
    pub fn keys(&self, id: &TenantId) -> Result<Vec<KeyView>, Error> {
        let mut all = keys::list(&self.get(id)?.state.load().record);
        for key in &mut all {
            let here = self.live().keys.get(&key.id).and_then(|live| live.used());
            key.last_used = here.max(self.registry.last_use(id, key.id)?);
        }
        Ok(all)
    }

    /// Stores when keys were used last. Blocks.
    pub(crate) fn store_last_uses(&self) {
        let live = self.live();
        let used = |(id, key): (&KeyId, &Arc<LiveKey>)| Some((key.tenant.id.clone(), *id, key.take_use()?));
        let uses: Vec<_> = live.keys.iter().filter_map(used).collect();
        drop(live);
        if let Err(error) = self.registry.put_last_uses(&uses) {
            tracing::warn!(%error, "when API keys were used last is not kept");
        }
    }

    /// Ends a key at once. Blocks.
    pub fn remove_key(&self, id: &TenantId, key: &str) -> Result<(), Error> {
        let _order = self.changing();
        let known = self.get(id)?.state.load().record.clone();
        let mut record = known.clone();
        keys::remove(&mut record, key)?;
        self.keep(id, Some(&known), record)?;
        KeyId::parse(key).map_or(Ok(()), |key| self.registry.forget_key(id, key))
    }

    /// Takes on what another node made of a tenant. Returns false if it is gone.
    pub(super) fn take_on(&self, id: &TenantId) -> Result<bool, StorageError> {
        let _order = self.changing();
        match self.registry.tenant(id)? {
            Some(record) => {
                if record.is_newer {
                    tracing::error!(tenant = %id, "a newer server of the fleet wrote this tenant: it is not served here");
                }
                let is_new = self.get(id).map_or(true, |tenant| tenant.state.load().record != record);
                if is_new {
                    self.set(id, record);
                }
                Ok(true)
            }
            // The default tenant is there without a record.
            None if id.is_default() => Ok(true),
            None => {
                if let Ok(tenant) = self.get(id) {
                    tenant.suspend();
                    self.forget(&tenant);
                }
                Ok(false)
            }
        }
    }

    /// Stores a record in place of the known one, then applies it.
    fn keep(&self, id: &TenantId, known: Option<&TenantRecord>, record: TenantRecord) -> Result<(), Error> {
        // Stored first: a change that cannot be stored must not take effect.
        self.registry.put_tenant(id, known, &record)?;
        self.set(id, record);
        Ok(())
    }

    fn set(&self, id: &TenantId, record: TenantRecord) {
        let defaults = *self.defaults.read();
        let limits = record.limits.over(defaults);
        let keys: Vec<KeyId> = record.keys.iter().map(|key| key.id).collect();
        let state = Arc::new(TenantState { record, limits, removed: false });
        let mut live = self.live.write();
        let tenant = live.tenants.entry(id.clone()).or_insert_with(|| {
            let state = ArcSwap::new(state.clone());
            let account = self.accounts.of(id);
            Arc::new(Tenant { id: id.clone(), account, state, counters: UsageCounters::default() })
        });
        tenant.account.set_limits(limits.memory_bytes, limits.cpu_milliseconds_per_second);
        let tenant = tenant.clone();
        let old = tenant.state.swap(state);
        let mut before: HashMap<_, _> =
            old.record.keys.iter().filter_map(|key| live.keys.remove_entry(&key.id)).collect();
        let of = |id| (id, before.remove(&id).unwrap_or_else(|| LiveKey::new(tenant.clone())));
        live.keys.extend(keys.into_iter().map(of));
    }

    fn live(&self) -> RwLockReadGuard<'_, LiveTenants> {
        self.live.read()
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }
}

fn not_found(id: &TenantId) -> Error {
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
