//! The registry: tenants, their applications with sealed secrets, their dead tokens, their uploaded
//! components. Records are kept by a [`Storage`]; what every request needs is in memory too.
//!
//! With [`FileStorage`] it outlives the process: every acknowledged change is on the disk, whenever the process is
//! killed. Reports of dead tokens are written soon, and in order; a kill in between can lose the newest ones, which
//! the responses to their sends have reported already. The secrets of applications and the key that API keys are
//! hashed with are sealed; device tokens, settings and answers are readable. Write access to the file is not enough to
//! create a tenant, add a key, lift a limit or run another component ([`format`]).
//!
//! A change is acknowledged once it is kept. An application's secrets are opened and parsed when it is first
//! sent for, so that a start takes no longer for thousands of applications, and an expired one does no harm.

mod answers;
mod application;
mod audit;
mod components;
mod feedback;
mod file;
mod follow;
mod format;
mod journal;
mod nats;
mod record;
mod storage;
mod tenants;
mod usage;
mod webhooks;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::OnceCell;

use application::ApplicationRecord;
use journal::ChangeJournal;
use pushlet_credential::{KeyHasher, SealingKey, UploadedSecrets};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use record::NewerRecords;
use storage::{cut_off, unix_milliseconds};

pub use answers::{AnswerStore, StoredAnswer};
pub use application::{ApplicationDescription, ConnectionIdentity, RegisteredApplication};
pub use audit::{Actor, AuditEntry};
pub use components::ComponentVersion;
pub use feedback::{DeadToken, FeedbackList, FeedbackPage};
pub use file::FileStorage;
pub use follow::RegistryChange;
pub use format::{FORMAT, rotate_key};
pub use nats::{
    Claim, ClaimedKey, DeliveryQueue, Fleet, FleetSettings, Lease, LeaseCounter, NatsLogin, NatsSettings,
    NatsStorage, NodeView, PartSource, QueuedPart, SharedQuarantine, StoredDelivery,
};
pub use record::{ChangeLog, Changes, Revision};
pub use storage::{MemoryStorage, RecordKey, Storage, StorageChange, StorageError, Table};
pub use tenants::{KeyRecord, TenantRecord};
pub use usage::{UsageCounts, UsagePeriod};
pub use webhooks::{StoredMessage, WebhookRecord};

/// A registered application, whose secrets may not have been opened yet.
pub struct ApplicationEntry {
    pub id: String,
    pub description: ApplicationDescription,
    pub feedback: Arc<FeedbackList>,
    /// A newer program replaced it by what this one cannot use.
    replaced: AtomicBool,
    /// Set once they have been opened.
    ready: OnceCell<Arc<RegisteredApplication>>,
}

/// The records of all tenants.
pub struct Registry {
    storage: Arc<dyn Storage>,
    key: Arc<SealingKey>,
    hasher: KeyHasher,
    journal: Arc<ChangeJournal>,
    audit: audit::AuditState,
    applications: RwLock<HashMap<TenantId, HashMap<String, Arc<ApplicationEntry>>>>,
    versions: RwLock<components::ComponentVersions>,
    newer: NewerRecords,
    /// Held from the check of a change to its end, so that the storage and the memory agree.
    changing: Mutex<()>,
    /// Most dead tokens per application.
    feedback: usize,
    /// Applications that come from files are changed there alone.
    has_files: AtomicBool,
    /// The storage's revision before it was read.
    opened: Revision,
    fleet: Option<Fleet>,
}

impl Registry {
    /// Reads the storage. `feedback`: maximum of dead tokens per application.
    pub fn open(storage: Arc<dyn Storage>, key: SealingKey, feedback: usize) -> Result<Self, StorageError> {
        Self::open_with(storage, key, feedback, None)
    }

    fn open_with(
        storage: Arc<dyn Storage>,
        key: SealingKey,
        feedback: usize,
        fleet: Option<Fleet>,
    ) -> Result<Self, StorageError> {
        let opened = storage.log().last();
        format::migrate(&*storage, &key)?;
        let hasher = format::hasher(&*storage, &key)?;
        let registry = Self {
            journal: ChangeJournal::new(storage.clone()),
            audit: audit::AuditState::default(),
            versions: RwLock::default(),
            newer: NewerRecords::default(),
            hasher,
            storage,
            key: Arc::new(key),
            applications: RwLock::default(),
            changing: Mutex::default(),
            feedback,
            has_files: AtomicBool::new(false),
            opened,
            fleet,
        };
        registry.read_versions()?;
        registry.read_applications()?;
        registry.read_feedback()?;
        Ok(registry)
    }

    /// Creates a registry that ends with the process.
    pub fn in_memory(feedback: usize) -> Result<Self, StorageError> {
        Self::open(Arc::new(MemoryStorage::default()), SealingKey::generate()?, feedback)
    }

    /// Checks that changes can be written, and writes those that waited for a working disk. Blocks.
    pub fn check_storage(&self) -> Result<(), StorageError> {
        self.storage.check()?;
        self.journal.flush()
    }

    /// Hashes API keys.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Stores an application. One with the same id is replaced; sends in flight finish with the old one.
    /// `most`: applications of the tenant. Returns the new one, and the one that was replaced. Blocks.
    pub fn put(
        &self,
        tenant: &TenantId,
        application: RegisteredApplication,
        secrets: &UploadedSecrets,
        most: usize,
    ) -> Result<(Arc<ApplicationEntry>, Option<Arc<ApplicationEntry>>), Error> {
        self.store(tenant, application, secrets, (most, None))
    }

    fn store(
        &self,
        tenant: &TenantId,
        mut application: RegisteredApplication,
        secrets: &UploadedSecrets,
        (most, file): (usize, Option<String>),
    ) -> Result<(Arc<ApplicationEntry>, Option<Arc<ApplicationEntry>>), Error> {
        let _order = self.changing();
        let id = application.record.id.clone();
        let place = RecordKey::new(&[tenant.as_str(), &id]);
        let expected = self.storage.get(Table::Applications, &place)?;
        if let Some(stored) = &expected {
            ApplicationRecord::from_bytes(stored)?.ensure_known()?;
        }
        let old = self.get(tenant, &id).ok();
        if let (Some(old), None) = (&old, &file) {
            self.check_origin(old)?;
        }
        if old.is_none() && self.count(tenant) >= most {
            let message =
                format!("there are {most} applications, the most that is allowed (limit applications)");
            return Err(Error::new(Kind::Throttled, "limit_applications", message));
        }
        let now = unix_milliseconds(SystemTime::now());
        let mut description = ApplicationDescription::new(&application, now);
        description.file = file;
        if let Some(old) = &old {
            description.created = old.description.created;
        }
        let record = ApplicationRecord::new(tenant, &id, &description, secrets, &self.key)?;
        // Before it is in memory: no request sees an application that a crash could still undo.
        let table = Table::Applications;
        let value = record.to_bytes();
        self.journal.commit(vec![StorageChange::Replace { table, key: place, expected, value }])?;
        let feedback = old.as_ref().map(|old| old.feedback.clone());
        let feedback = feedback.unwrap_or_else(|| self.new_feedback(tenant, &id));
        application.feedback = feedback.clone();
        let ready = OnceCell::new_with(Some(Arc::new(application)));
        let replaced = AtomicBool::new(false);
        let entry = Arc::new(ApplicationEntry { id: id.clone(), description, feedback, replaced, ready });
        self.applications_mut().entry(tenant.clone()).or_default().insert(id, entry.clone());
        Ok((entry, old))
    }

    /// Returns the applications of all tenants.
    pub fn all(&self) -> Vec<(TenantId, Arc<ApplicationEntry>)> {
        let all = self.applications();
        let of = |(tenant, own): (&TenantId, &HashMap<String, Arc<ApplicationEntry>>)| {
            own.values().map(|entry| (tenant.clone(), entry.clone())).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    /// Returns the tenant's applications, by id.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<ApplicationEntry>> {
        let mut own: Vec<_> =
            self.applications().get(tenant).into_iter().flat_map(HashMap::values).cloned().collect();
        own.sort_by(|one, other| one.id.cmp(&other.id));
        own
    }

    /// Returns how many applications the tenant has.
    pub fn count(&self, tenant: &TenantId) -> usize {
        self.applications().get(tenant).map_or(0, HashMap::len)
    }

    /// Returns an application. An error also if a newer program wrote what it is now.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<ApplicationEntry>, Error> {
        match self.known(tenant, id) {
            Some(entry) if !entry.replaced.load(Ordering::Relaxed) => Ok(entry),
            None if !self.newer.has(Table::Applications, &RecordKey::new(&[tenant.as_str(), id])) => {
                Err(not_found())
            }
            _ => Err(StorageError::NewerRecord.into()),
        }
    }

    /// Returns what this node knew last of an application.
    fn known(&self, tenant: &TenantId, id: &str) -> Option<Arc<ApplicationEntry>> {
        self.applications().get(tenant).and_then(|own| own.get(id)).cloned()
    }

    /// Removes an application and returns it; sends in flight finish with it. Blocks.
    pub fn remove(&self, tenant: &TenantId, id: &str) -> Result<Arc<ApplicationEntry>, Error> {
        let _order = self.changing();
        let entry = self.get(tenant, id)?;
        self.check_origin(&entry)?;
        self.remove_entry(tenant, entry)
    }

    /// Removes an application whose file is gone. Blocks.
    pub fn remove_from_file(&self, tenant: &TenantId, id: &str) -> Result<Arc<ApplicationEntry>, Error> {
        let _order = self.changing();
        let entry = self.get(tenant, id)?;
        self.remove_entry(tenant, entry)
    }

    fn remove_entry(
        &self,
        tenant: &TenantId,
        entry: Arc<ApplicationEntry>,
    ) -> Result<Arc<ApplicationEntry>, Error> {
        let id = entry.id.as_str();
        let place = RecordKey::new(&[tenant.as_str(), id]);
        let changes = vec![
            StorageChange::Delete(Table::Applications, place.clone()),
            StorageChange::DeleteAll(Table::Feedback, place),
        ];
        self.retiring(std::slice::from_ref(&entry), changes)?;
        if let Some(fleet) = &self.fleet {
            fleet.forget_feedback_later(tenant, Some(id));
        }
        if let Some(own) = self.applications_mut().get_mut(tenant) {
            own.remove(id);
        }
        Ok(entry)
    }

    /// Returns a file with all records as they are now, which can take the place of the registry's; None: they are kept
    /// in no file. Blocks.
    pub fn copy(&self) -> Result<Option<std::fs::File>, Error> {
        self.journal.flush()?;
        Ok(self.storage.copy()?)
    }

    /// Returns the secrets that an application was registered with. Blocks.
    pub fn secrets(&self, tenant: &TenantId, entry: &ApplicationEntry) -> Result<UploadedSecrets, Error> {
        let place = RecordKey::new(&[tenant.as_str(), &entry.id]);
        let bytes = self.storage.get(Table::Applications, &place)?.ok_or_else(not_found)?;
        let record = ApplicationRecord::from_bytes(&bytes)?;
        // The stored record may be newer than the entry that the caller holds.
        if record.description()? != entry.description {
            let message = "the application is being replaced, try again";
            return Err(Error::new(Kind::Overloaded, "application_replaced", message));
        }
        Ok(record.secrets(tenant, &entry.id, &self.key).map_err(StorageError::from)?)
    }

    /// Writes everything that is queued. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.journal.flush()
    }

    fn read_feedback(&self) -> Result<(), StorageError> {
        for (key, value) in self.storage.scan(Table::Feedback, &RecordKey::new(&[]))? {
            let [tenant, id, order] = key.parts().ok_or_else(|| cut_off("a report's key"))?;
            let order = u64::from_str_radix(&order, 16).map_err(|_| cut_off("a report's order"))?;
            let dead = DeadToken::read(&value).ok_or_else(|| cut_off("a report"))?;
            if let Ok(entry) = self.get(&TenantId::new(&tenant), &id) {
                entry.feedback.restore(order, dead);
            }
        }
        Ok(())
    }

    /// Stores the changes that remove these applications; reports that come meanwhile are not kept.
    fn retiring(
        &self,
        entries: &[Arc<ApplicationEntry>],
        changes: Vec<StorageChange>,
    ) -> Result<(), StorageError> {
        entries.iter().for_each(|entry| entry.feedback.retire(true));
        let kept = self.journal.commit(changes);
        if kept.is_err() {
            entries.iter().for_each(|entry| entry.feedback.retire(false));
        }
        kept
    }

    fn new_feedback(&self, tenant: &TenantId, id: &str) -> Arc<FeedbackList> {
        if let Some(fleet) = &self.fleet {
            let fleet = fleet.clone();
            return Arc::new(FeedbackList::shared(self.feedback, fleet, tenant.clone(), id.to_owned()));
        }
        let kept = feedback::FeedbackLocation {
            journal: self.journal.clone(),
            tenant: tenant.clone(),
            application: id.to_owned(),
        };
        Arc::new(FeedbackList::kept(self.feedback, kept))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    fn applications(&self) -> RwLockReadGuard<'_, HashMap<TenantId, HashMap<String, Arc<ApplicationEntry>>>> {
        self.applications.read()
    }

    fn applications_mut(
        &self,
    ) -> RwLockWriteGuard<'_, HashMap<TenantId, HashMap<String, Arc<ApplicationEntry>>>> {
        self.applications.write()
    }
}

impl ApplicationEntry {
    /// Returns the application, ready to send for. `open` loads it; only one caller at a time does.
    pub async fn application<F>(&self, open: impl FnOnce() -> F) -> Result<Arc<RegisteredApplication>, Error>
    where
        F: Future<Output = Result<RegisteredApplication, Error>>,
    {
        let opened = || async { open().await.map(Arc::new) };
        self.ready.get_or_try_init(opened).await.cloned()
    }

    /// Returns the application, if it was opened already.
    pub fn opened(&self) -> Option<&Arc<RegisteredApplication>> {
        self.ready.get()
    }
}

fn not_found() -> Error {
    let message = "no application found for the provided application_id";
    Error::new(Kind::NotFound, "application_not_found", message)
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
