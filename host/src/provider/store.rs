//! Where the bytes of uploaded components are kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::Error;
use crate::tenant::TenantId;

/// One version of a tenant's provider, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    pub tenant: TenantId,
    pub name: String,
    /// SHA-256 of the component file, in hex.
    pub digest: String,
    /// Bytes of the component file.
    pub size: usize,
    pub uploaded: SystemTime,
    /// When it was last made the active one. Of several versions the one with the latest time is active.
    pub activated: SystemTime,
}

/// Keeps components, for as long as the implementation promises.
pub trait Store: Send + Sync {
    /// Everything that is kept, of all tenants.
    fn list(&self) -> Result<Vec<StoredVersion>, Error>;
    /// The component file; None: it is not kept.
    fn component(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<Option<Vec<u8>>, Error>;
    /// Keeps a version with its file; one with the same digest is replaced.
    fn put(&self, version: &StoredVersion, component: &[u8]) -> Result<(), Error>;
    fn set_activated(&self, tenant: &TenantId, name: &str, digest: &str, at: SystemTime)
    -> Result<(), Error>;
    fn delete(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<(), Error>;
}

/// A store that ends with the process.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<Key, Kept>>);

/// Tenant, name, digest.
type Key = (TenantId, String, String);
type Kept = (StoredVersion, Arc<[u8]>);

impl MemoryStore {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(tenant: &TenantId, name: &str, digest: &str) -> Key {
    (tenant.clone(), name.to_owned(), digest.to_owned())
}

impl Store for MemoryStore {
    fn list(&self) -> Result<Vec<StoredVersion>, Error> {
        Ok(self.kept().values().map(|(version, _)| version.clone()).collect())
    }

    fn component(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        let component = self.kept().get(&key(tenant, name, digest)).map(|(_, component)| component.clone());
        Ok(component.map(|component| component.to_vec()))
    }

    fn put(&self, version: &StoredVersion, component: &[u8]) -> Result<(), Error> {
        let key = key(&version.tenant, &version.name, &version.digest);
        self.kept().insert(key, (version.clone(), component.into()));
        Ok(())
    }

    fn set_activated(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: &str,
        at: SystemTime,
    ) -> Result<(), Error> {
        if let Some((version, _)) = self.kept().get_mut(&key(tenant, name, digest)) {
            version.activated = at;
        }
        Ok(())
    }

    fn delete(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<(), Error> {
        self.kept().remove(&key(tenant, name, digest));
        Ok(())
    }
}
