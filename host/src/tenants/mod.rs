//! Who the tenants are, which keys open the door to them, and how much each may use.
//!
//! A limit is checked before anything that tenants share, so that one at its limit lengthens nobody's queue.

mod allowance;
mod keys;
mod pace;
mod share;

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::credential::KeyId;
use crate::error::{Error, Kind};
use crate::registry::{Registry, StorageError, TenantRecord};
use crate::tenant::{Limits, TenantId};
use allowance::Allowance;

pub use allowance::Usage;
pub use keys::{KeyRequest, KeyView, NewKey};
pub use share::RequestPlace;

/// How tenants are treated that nobody said more about.
#[derive(Clone, Default)]
pub struct Settings {
    pub defaults: Limits,
    /// Requests at a time that the server takes on, of all tenants.
    pub requests: usize,
}

/// All tenants.
pub struct Tenants {
    registry: Arc<Registry>,
    settings: Settings,
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
    state: ArcSwap<State>,
    allowance: Allowance,
}

struct State {
    record: TenantRecord,
    /// Those of the record, over the defaults.
    limits: Limits,
}

/// What may be told about a tenant.
pub struct TenantView {
    pub id: TenantId,
    pub created: SystemTime,
    pub suspended: bool,
    /// Those that hold.
    pub limits: Limits,
    /// Those that are the tenant's own.
    pub own_limits: Limits,
}

/// What a tenant shall be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub suspended: bool,
    pub limits: Limits,
}

/// A send of a tenant, while it is under way.
pub struct SendPlace(Arc<Tenant>);

impl Drop for SendPlace {
    fn drop(&mut self) {
        self.0.allowance.end_send();
    }
}

impl Tenants {
    /// Reads those that are kept. The default tenant is always there.
    pub fn open(registry: Arc<Registry>, settings: Settings) -> Result<Self, StorageError> {
        let tenants = Self {
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
        let Wanted { suspended, limits } = wanted;
        if let Ok(known) = self.get(id) {
            let record = known.state.load().record.clone();
            self.keep(id, TenantRecord { suspended, limits, ..record })?;
            return Ok(None);
        }
        let mut record = TenantRecord { suspended, limits, ..TenantRecord::new(SystemTime::now()) };
        let key = self.new_key(id, &mut record, None)?;
        self.keep(id, record)?;
        Ok(Some(key))
    }

    /// Forgets a tenant and all that belongs to it. Blocks.
    pub fn remove(&self, id: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        self.get(id)?;
        if id.is_default() {
            let message = "the default tenant can be suspended, but not removed";
            return Err(Error::new(Kind::Conflict, "default_tenant", message));
        }
        self.registry.remove_tenant(id)?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.tenants.remove(id);
        live.keys.retain(|_, owner| owner.id != *id);
        Ok(())
    }

    pub fn usage(&self, id: &TenantId) -> Result<Usage, Error> {
        let tenant = self.get(id)?;
        let (components, bytes) = self.registry.component_usage(id);
        Ok(tenant.allowance.usage(self.registry.count(id) as u64, (components as u64, bytes)))
    }

    /// The limits that hold for a tenant.
    pub fn limits(&self, id: &TenantId) -> Result<Limits, Error> {
        Ok(self.get(id)?.limits())
    }

    /// Lets a send with so many targets begin.
    pub fn begin_send(&self, id: &TenantId, targets: u64) -> Result<SendPlace, Error> {
        let place = self.begin_stream(id)?;
        let (limits, allowance) = (place.0.limits(), &place.0.allowance);
        match allowance.take_pushes(&limits, targets, self.started.elapsed()) {
            Ok(()) => Ok(place),
            Err(wait) => Err(allowance.too_many_pushes(&limits, wait)),
        }
    }

    /// Lets a stream begin; its targets are paced, see [`Self::pace`].
    pub fn begin_stream(&self, id: &TenantId) -> Result<SendPlace, Error> {
        let tenant = self.get(id)?;
        tenant.allowance.begin_send(&tenant.limits())?;
        Ok(SendPlace(tenant))
    }

    /// Waits until so many targets of a stream may be sent.
    pub async fn pace(&self, place: &SendPlace, targets: u64) {
        let tenant = &place.0;
        while let Err(wait) = tenant.allowance.take_pushes(&tenant.limits(), targets, self.started.elapsed())
        {
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    /// Where the tenant's registrations wait for each other, before they wait for the processor.
    pub fn registrations(&self, id: &TenantId) -> Result<Arc<Semaphore>, Error> {
        Ok(self.get(id)?.allowance.registrations.clone())
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
        let state = Arc::new(State { record, limits });
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let tenant = live.tenants.entry(id.clone()).or_insert_with(|| {
            let state = ArcSwap::new(state.clone());
            Arc::new(Tenant { id: id.clone(), state, allowance: Allowance::default() })
        });
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
    pub fn is_suspended(&self) -> bool {
        self.state.load().record.suspended
    }

    fn limits(&self) -> Limits {
        self.state.load().limits
    }

    fn view(&self) -> TenantView {
        let state = self.state.load();
        TenantView {
            id: self.id.clone(),
            created: state.record.created,
            suspended: state.record.suspended,
            limits: state.limits,
            own_limits: state.record.limits,
        }
    }
}

fn not_found(id: &TenantId) -> Error {
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
