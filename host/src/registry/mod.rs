//! What the server knows: tenants, their applications with sealed secrets, their dead tokens, their uploaded
//! components. It is kept by a [`Storage`]; what every request needs is in memory too.
//!
//! A change is answered when it is kept. An application's secrets are opened and parsed when it is first
//! sent for, so that a start takes no longer for thousands of applications, and an expired one hurts nobody.

mod components;
mod feedback;
mod file;
mod format;
mod journal;
mod memory;
mod record;
mod storage;
mod tenants;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::OnceCell;

use crate::contract;
use crate::credential::{Credential, KeyHasher, SealingKey, Uploads};
use crate::error::{Error, Kind};
use crate::tenant::TenantId;
use journal::Journal;
use record::Record;

pub use components::Version;
pub use feedback::{DeadToken, Feedback};
pub use file::File;
pub use format::{FORMAT, rotate_key};
pub use memory::Memory;
pub use record::Description;
pub use storage::{Change, Key, Storage, StorageError, Table};
pub use tenants::{KeyRecord, TenantRecord};

/// A registered application, ready to send for.
pub struct Application {
    /// What components see of it.
    pub record: contract::Application,
    /// The name of its provider.
    pub provider: String,
    pub credential: Option<Credential>,
    pub feedback: Arc<Feedback>,
}

/// An application that is known; its secrets may not be opened yet.
pub struct Entry {
    pub id: String,
    pub description: Description,
    pub feedback: Arc<Feedback>,
    /// What came of opening them, once somebody has.
    ready: OnceCell<Result<Arc<Application>, Error>>,
}

/// All that is known, of all tenants.
pub struct Registry {
    storage: Arc<dyn Storage>,
    key: SealingKey,
    hasher: KeyHasher,
    journal: Arc<Journal>,
    applications: RwLock<HashMap<TenantId, HashMap<String, Arc<Entry>>>>,
    versions: RwLock<components::Versions>,
    /// Held from the check of a change to its end, so that what is kept and what is in memory agree.
    changing: Mutex<()>,
    /// Most dead tokens per application.
    feedback: usize,
}

impl Registry {
    /// Reads what is kept. `feedback`: most dead tokens per application.
    pub fn open(storage: Arc<dyn Storage>, key: SealingKey, feedback: usize) -> Result<Self, StorageError> {
        format::migrate(&*storage)?;
        let registry = Self {
            hasher: format::hasher(&*storage, &key)?,
            journal: Journal::new(storage.clone()),
            versions: RwLock::new(components::read(&*storage)?),
            storage,
            key,
            applications: RwLock::default(),
            changing: Mutex::default(),
            feedback,
        };
        registry.read_applications()?;
        registry.read_feedback()?;
        Ok(registry)
    }

    /// One that ends with the process.
    pub fn in_memory(feedback: usize) -> Result<Self, StorageError> {
        Self::open(Arc::new(Memory::default()), SealingKey::generate()?, feedback)
    }

    /// Hashes API keys.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Keeps an application; one with the same id is replaced, and sends under way finish with the old one.
    /// `most`: applications of the tenant. Blocks.
    pub fn put(
        &self,
        tenant: &TenantId,
        mut application: Application,
        secrets: &Uploads,
        most: Option<NonZeroU64>,
    ) -> Result<(), Error> {
        let _order = self.changing();
        let id = application.record.id.clone();
        let old = self.applications().get(tenant).and_then(|own| own.get(&id)).cloned();
        if old.is_none() {
            within(self.count(tenant), most, "applications")?;
        }
        let summary = application.credential.as_ref().map(Credential::summary);
        let now = unix_milliseconds(SystemTime::now());
        let mut description = Description::new(&application.provider, &application.record, summary, now);
        if let Some(old) = &old {
            description.created = old.description.created;
        }
        let record = Record::new(tenant, &id, &description, secrets, &self.key)?;
        let place = Key::new(&[tenant.as_str(), &id]);
        self.journal.commit(vec![Change::Put(Table::Applications, place, record.to_bytes())])?;
        let feedback = old.map_or_else(|| self.new_feedback(tenant, &id), |old| old.feedback.clone());
        application.feedback = feedback.clone();
        let ready = OnceCell::new_with(Some(Ok(Arc::new(application))));
        let entry = Entry { id: id.clone(), description, feedback, ready };
        self.applications_mut().entry(tenant.clone()).or_default().insert(id, Arc::new(entry));
        Ok(())
    }

    /// The tenant's applications, by id.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<Entry>> {
        let mut own: Vec<_> =
            self.applications().get(tenant).into_iter().flat_map(HashMap::values).cloned().collect();
        own.sort_by(|one, other| one.id.cmp(&other.id));
        own
    }

    /// How many applications the tenant has.
    pub fn count(&self, tenant: &TenantId) -> u64 {
        self.applications().get(tenant).map_or(0, |own| own.len() as u64)
    }

    pub fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<Entry>, Error> {
        self.applications().get(tenant).and_then(|own| own.get(id)).cloned().ok_or_else(not_found)
    }

    /// Forgets an application; sends under way finish with it. Blocks.
    pub fn remove(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let _order = self.changing();
        let entry = self.get(tenant, id)?;
        entry.feedback.retire();
        let place = Key::new(&[tenant.as_str(), id]);
        self.journal.commit(vec![
            Change::Delete(Table::Applications, place.clone()),
            Change::DeleteAll(Table::Feedback, place),
        ])?;
        if let Some(own) = self.applications_mut().get_mut(tenant) {
            own.remove(id);
        }
        Ok(())
    }

    /// The secrets that an application was registered with. Blocks.
    pub fn secrets(&self, tenant: &TenantId, id: &str) -> Result<Uploads, Error> {
        let place = Key::new(&[tenant.as_str(), id]);
        let bytes = self.storage.get(Table::Applications, &place)?.ok_or_else(not_found)?;
        Ok(Record::from_bytes(&bytes)?.secrets(tenant, id, &self.key).map_err(StorageError::from)?)
    }

    /// Keeps what is not kept yet. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.journal.flush()
    }

    fn read_applications(&self) -> Result<(), StorageError> {
        let mut all = self.applications_mut();
        for (key, bytes) in self.storage.scan(Table::Applications, &Key::new(&[]))? {
            let [tenant, id] = key.parts().ok_or_else(|| cut_off("an application's key"))?;
            let tenant = TenantId::new(&tenant);
            let description = Record::from_bytes(&bytes)?.description()?;
            let feedback = self.new_feedback(&tenant, &id);
            let entry = Entry { id: id.clone(), description, feedback, ready: OnceCell::new() };
            all.entry(tenant).or_default().insert(id, Arc::new(entry));
        }
        Ok(())
    }

    fn read_feedback(&self) -> Result<(), StorageError> {
        for (key, value) in self.storage.scan(Table::Feedback, &Key::new(&[]))? {
            let [tenant, id, order] = key.parts().ok_or_else(|| cut_off("a report's key"))?;
            let order = u64::from_str_radix(&order, 16).map_err(|_| cut_off("a report's order"))?;
            let dead = DeadToken::read(&value).ok_or_else(|| cut_off("a report"))?;
            if let Ok(entry) = self.get(&TenantId::new(&tenant), &id) {
                entry.feedback.restore(order, dead);
            }
        }
        Ok(())
    }

    fn new_feedback(&self, tenant: &TenantId, id: &str) -> Arc<Feedback> {
        let kept = feedback::Kept {
            journal: self.journal.clone(),
            tenant: tenant.clone(),
            application: id.to_owned(),
        };
        Arc::new(Feedback::kept(self.feedback, kept))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applications(&self) -> RwLockReadGuard<'_, HashMap<TenantId, HashMap<String, Arc<Entry>>>> {
        self.applications.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn applications_mut(&self) -> RwLockWriteGuard<'_, HashMap<TenantId, HashMap<String, Arc<Entry>>>> {
        self.applications.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The application, ready to send for; `open` makes it so, and only one caller at a time does. The outer
    /// error is one that the next try may not meet; the inner one stays until the application is replaced.
    pub async fn application<F>(&self, open: impl FnOnce() -> F) -> Result<Arc<Application>, Error>
    where
        F: Future<Output = Result<Result<Application, Error>, Error>>,
    {
        if let Some(ready) = self.ready.get() {
            return ready.clone();
        }
        let opened = self.ready.get_or_try_init(|| async {
            Ok::<_, Error>(open().await?.map(Arc::new))
        });
        opened.await?.clone()
    }
}

/// Is there room for one more? The error names the limit.
fn within(count: u64, most: Option<NonZeroU64>, name: &'static str) -> Result<(), Error> {
    match most {
        Some(most) if count >= most.get() => {
            let message = format!("this tenant has {count} {name}, and {most} are allowed (limit {name})");
            Err(Error::new(Kind::Throttled, format!("limit_{name}"), message))
        }
        _ => Ok(()),
    }
}

fn not_found() -> Error {
    let message = "no application found for the provided application_id";
    Error::new(Kind::NotFound, "application_not_found", message)
}

fn cut_off(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} can not be read"))
}

/// Milliseconds since the Unix epoch.
fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of so many milliseconds since the Unix epoch.
fn from_unix(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
