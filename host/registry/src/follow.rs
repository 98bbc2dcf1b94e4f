//! What other nodes of the fleet change, taken on by this one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::application::ApplicationRecord;
use super::components::{read_version, version_place};
use super::nats::{DeliveryQueue, Fleet, FleetSettings, NatsStorage};
use super::storage::{RecordKey, StorageError, Table};
use super::{ApplicationEntry, Registry, Revision};
use pushlet_credential::SealingKey;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// How long one question for changes waits: as long as a registry that is dropped is still followed.
const WAIT: Duration = Duration::from_secs(1);
/// A change that could not be read is tried again after this time.
const PAUSE: Duration = Duration::from_secs(1);

/// A change that another node made, or this one; the registry has taken it on.
pub enum RegistryChange {
    /// A tenant was created, changed or removed.
    Tenant(TenantId),
    /// Any tenant may have been.
    Tenants,
    /// An application was registered, replaced or removed: the entry that was there before.
    Application(TenantId, Option<Arc<ApplicationEntry>>),
    /// A tenant has other webhooks.
    Webhooks(TenantId),
    /// A tenant's provider of this name has other versions.
    Provider(TenantId, String),
}

impl Registry {
    /// Opens the registry of a fleet, and takes part in it.
    pub fn join(
        storage: NatsStorage,
        key: SealingKey,
        feedback: usize,
        settings: FleetSettings,
    ) -> Result<Self, StorageError> {
        let fleet = storage.fleet(settings);
        Self::open_with(Arc::new(storage), key, feedback, Some(fleet))
    }

    /// Returns true if other nodes change this registry too.
    pub fn is_shared(&self) -> bool {
        self.fleet.is_some()
    }

    /// Returns what the nodes share apart from this registry; None: this server is alone.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// Returns the queue of deliveries that outlive their callers; None: this server is alone.
    pub fn queue(&self) -> Option<DeliveryQueue> {
        self.fleet.as_ref().map(|fleet| DeliveryQueue::new(fleet.clone(), self.key.clone()))
    }

    /// Returns how many servers share the limits of tenants: 1 for a server that is alone.
    pub fn live_nodes(&self) -> usize {
        self.fleet.as_ref().map_or(1, Fleet::live_nodes)
    }

    /// Takes on what other nodes change, for as long as the registry exists, on a thread of its own, and reports it.
    pub fn follow(
        self: &Arc<Self>,
        report: impl Fn(RegistryChange) + Send + 'static,
    ) -> Result<(), StorageError> {
        if !self.is_shared() {
            return Ok(());
        }
        let (registry, from) = (Arc::downgrade(self), self.opened);
        let follow = move || follow(&registry, from, report);
        let thread = std::thread::Builder::new().name("registry-follow".into()).spawn(follow);
        thread.map(drop).map_err(|error| StorageError::Io(error.to_string()))
    }

    /// Asks the fleet for an application that this node does not know, since it may have been registered a moment ago
    /// elsewhere. Blocks.
    pub fn look_up(&self, tenant: &TenantId, id: &str) -> Result<Arc<ApplicationEntry>, Error> {
        let key = RecordKey::new(&[tenant.as_str(), id]);
        if self.storage.look_up(Table::Applications, &key)? {
            self.take_on_application(&key)?;
        }
        self.get(tenant, id)
    }

    /// Takes on one change, and returns what it was.
    fn take_on(&self, table: Table, key: &RecordKey) -> Result<Option<RegistryChange>, StorageError> {
        Ok(match table {
            Table::Tenants => key.parts::<1>().map(|[id]| RegistryChange::Tenant(TenantId::new(&id))),
            Table::Applications => self.take_on_application(key)?,
            Table::Versions => self.take_on_version(key)?,
            Table::Webhooks => key.parts::<2>().map(|[id, _]| RegistryChange::Webhooks(TenantId::new(&id))),
            Table::Meta
            | Table::Components
            | Table::Feedback
            | Table::Answers
            | Table::Audit
            | Table::Usage
            | Table::Messages => None,
        })
    }

    fn take_on_application(&self, key: &RecordKey) -> Result<Option<RegistryChange>, StorageError> {
        let Some([tenant, id]) = key.parts() else { return Ok(None) };
        let tenant = TenantId::new(&tenant);
        let _order = self.changing();
        let stored = self.storage.get(Table::Applications, key)?;
        let old = self.known(&tenant, &id);
        let Some(bytes) = stored else {
            self.newer.remove(Table::Applications, key);
            let Some(old) = old else { return Ok(None) };
            old.feedback.retire(true);
            if let Some(own) = self.applications_mut().get_mut(&tenant) {
                own.remove(&id);
            }
            return Ok(Some(RegistryChange::Application(tenant, Some(old))));
        };
        let description = match ApplicationRecord::from_bytes(&bytes)?.description() {
            Err(StorageError::NewerRecord) => {
                self.newer.add(Table::Applications, key);
                old.iter().for_each(|old| old.replaced.store(true, Ordering::Relaxed));
                return Ok(None);
            }
            description => description?,
        };
        self.newer.remove(Table::Applications, key);
        if let Some(old) = old.as_ref().filter(|old| old.description == description) {
            old.replaced.store(false, Ordering::Relaxed);
            return Ok(None);
        }
        let feedback = old.as_ref().map(|old| old.feedback.clone());
        let feedback = feedback.unwrap_or_else(|| self.new_feedback(&tenant, &id));
        let (replaced, ready) = (AtomicBool::new(false), OnceCell::new());
        let entry = ApplicationEntry { id: id.clone(), description, feedback, replaced, ready };
        self.applications_mut().entry(tenant.clone()).or_default().insert(id, Arc::new(entry));
        Ok(Some(RegistryChange::Application(tenant, old)))
    }

    fn take_on_version(&self, key: &RecordKey) -> Result<Option<RegistryChange>, StorageError> {
        let Some((tenant, name, digest)) = version_place(key) else { return Ok(None) };
        let _order = self.changing();
        let version = match read_version(&*self.storage, &self.hasher, key) {
            Err(StorageError::NewerRecord) => {
                self.newer.add(Table::Versions, key);
                return Ok(None);
            }
            version => version?,
        };
        self.newer.remove(Table::Versions, key);
        let place = (tenant.clone(), name.clone(), digest);
        let mut all = self.all_versions_mut();
        let changed = all.get(&place) != version.as_ref();
        match version {
            Some(version) => drop(all.insert(place, version)),
            None => drop(all.remove(&place)),
        }
        Ok(changed.then_some(RegistryChange::Provider(tenant, name)))
    }

    /// Takes on everything that differs, after too many changes to know them one by one.
    fn take_on_all(&self, report: &impl Fn(RegistryChange)) -> Result<(), StorageError> {
        let mut keys = BTreeSet::new();
        for table in [Table::Applications, Table::Versions] {
            let stored = self.storage.scan(table, &RecordKey::new(&[]))?;
            keys.extend(stored.into_iter().map(|(key, _)| (table, key)));
        }
        let known = self.all();
        let applications = known.iter().map(|(tenant, entry)| RecordKey::new(&[tenant.as_str(), &entry.id]));
        keys.extend(applications.map(|key| (Table::Applications, key)));
        let versions = self.versions();
        let versions = versions
            .iter()
            .map(|version| RecordKey::new(&[version.tenant.as_str(), &version.name, &version.digest]));
        keys.extend(versions.map(|key| (Table::Versions, key)));
        report(RegistryChange::Tenants);
        keys.into_iter().try_for_each(|(table, key)| self.take_on_and_report(table, &key, report))
    }

    /// An error: the disk failed. A record that is damaged stays as this node knew it, and keeps no other away.
    fn take_on_and_report(
        &self,
        table: Table,
        key: &RecordKey,
        report: &impl Fn(RegistryChange),
    ) -> Result<(), StorageError> {
        match self.take_on(table, key) {
            Ok(change) => change.into_iter().for_each(report),
            Err(error @ (StorageError::Io(_) | StorageError::Full(_))) => return Err(error),
            Err(error) => tracing::error!(%error, "a change of the registry is not taken on"),
        }
        Ok(())
    }
}

fn follow(registry: &Weak<Registry>, from: Revision, report: impl Fn(RegistryChange)) {
    let mut seen = from;
    while let Some(storage) = registry.upgrade().map(|registry| registry.storage.clone()) {
        let changes = storage.log().after(seen, WAIT);
        drop(storage);
        let Some(registry) = registry.upgrade() else { return };
        let taken = match changes.keys {
            Some(keys) => {
                keys.iter().try_for_each(|(table, key)| registry.take_on_and_report(*table, key, &report))
            }
            None => registry.take_on_all(&report),
        };
        drop(registry);
        seen = match taken {
            Ok(()) => changes.until,
            Err(error) => {
                tracing::error!(%error, "changes of the registry cannot be taken on now");
                std::thread::sleep(PAUSE);
                // Of which nothing is known: everything is compared.
                Revision(u64::MAX)
            }
        };
    }
}
