//! Uploaded components: a tenant's providers by name, each in versions by digest.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::storage::{Change, Key, Storage, StorageError, Table};
use super::{Registry, authentic, cut_off, from_unix, unix_milliseconds};
use pushlet_credential::KeyHasher;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// One version of a tenant's provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub tenant: TenantId,
    pub name: String,
    /// SHA-256 of the component file, in hex.
    pub digest: String,
    /// Bytes of the component file.
    pub size: u64,
    pub uploaded: SystemTime,
    /// When it was last made the active one. Of several versions the one with the latest time is active.
    pub activated: SystemTime,
}

/// By tenant, name and digest.
pub(super) type Versions = BTreeMap<(TenantId, String, String), Version>;

/// As it is written, in JSON. Times in milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct Written {
    size: u64,
    uploaded: u64,
    activated: u64,
}

pub(super) fn read(storage: &dyn Storage, hasher: &KeyHasher) -> Result<Versions, StorageError> {
    let mut versions = Versions::new();
    for (key, bytes) in authentic::scan(storage, hasher, Table::Versions)? {
        let [tenant, name, digest] = key.parts().ok_or_else(|| cut_off("a version's key"))?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|_| cut_off("a version"))?;
        let tenant = TenantId::new(&tenant);
        let (uploaded, activated) = (from_unix(written.uploaded), from_unix(written.activated));
        let place = (tenant.clone(), name.clone(), digest.clone());
        versions.insert(place, Version { tenant, name, digest, size: written.size, uploaded, activated });
    }
    Ok(versions)
}

impl Registry {
    /// What is kept of components, of all tenants.
    pub fn versions(&self) -> Vec<Version> {
        self.all_versions().values().cloned().collect()
    }

    /// How many versions the tenant has, and their bytes.
    pub fn component_usage(&self, tenant: &TenantId) -> (usize, u64) {
        let all = self.all_versions();
        let own = all.values().filter(|version| version.tenant == *tenant);
        own.fold((0, 0), |(count, bytes), version| (count + 1, bytes + version.size))
    }

    /// Keeps a version with its file; one with the same digest is replaced. Blocks.
    pub fn put_component(&self, version: &Version, component: &[u8]) -> Result<(), Error> {
        let _order = self.changing();
        let place = (version.tenant.clone(), version.name.clone(), version.digest.clone());
        let key = key(&version.tenant, &version.name, &version.digest);
        self.journal.commit(vec![
            Change::Put(Table::Components, key.clone(), component.to_vec()),
            authentic::put(&self.hasher, Table::Versions, key, &written(version)?),
        ])?;
        self.all_versions_mut().insert(place, version.clone());
        Ok(())
    }

    /// The component file, as it was uploaded; None: it is not kept. Blocks.
    pub fn component(&self, tenant: &TenantId, name: &str, wanted: &str) -> Result<Option<Vec<u8>>, Error> {
        let component = self.storage.get(Table::Components, &key(tenant, name, wanted))?;
        match component {
            Some(bytes) if hex::encode(digest(&SHA256, &bytes)) != wanted => {
                Err(StorageError::Corrupt("a component is not what was uploaded".into()).into())
            }
            component => Ok(component),
        }
    }

    /// Makes a version that is kept the active one. Blocks.
    pub fn activate_component(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: &str,
        at: SystemTime,
    ) -> Result<(), Error> {
        let _order = self.changing();
        let place = (tenant.clone(), name.to_owned(), digest.to_owned());
        let Some(mut version) = self.all_versions().get(&place).cloned() else {
            let message = format!("there is no version {digest} of {name}");
            return Err(Error::new(Kind::NotFound, "version_not_found", message));
        };
        version.activated = at;
        let key = key(tenant, name, digest);
        let change = authentic::put(&self.hasher, Table::Versions, key, &written(&version)?);
        self.journal.commit(vec![change])?;
        self.all_versions_mut().insert(place, version);
        Ok(())
    }

    /// Forgets a version. Blocks.
    pub fn remove_component(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<(), Error> {
        let _order = self.changing();
        let key = key(tenant, name, digest);
        let tables = [Table::Components, Table::Versions];
        self.journal.commit(tables.map(|table| Change::Delete(table, key.clone())).into())?;
        self.all_versions_mut().remove(&(tenant.clone(), name.to_owned(), digest.to_owned()));
        Ok(())
    }

    pub(super) fn forget_versions(&self, tenant: &TenantId) {
        self.all_versions_mut().retain(|(owner, ..), _| owner != tenant);
    }

    fn all_versions(&self) -> std::sync::RwLockReadGuard<'_, Versions> {
        self.versions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_versions_mut(&self) -> std::sync::RwLockWriteGuard<'_, Versions> {
        self.versions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(tenant: &TenantId, name: &str, digest: &str) -> Key {
    Key::new(&[tenant.as_str(), name, digest])
}

fn written(version: &Version) -> Result<Vec<u8>, Error> {
    let written = Written {
        size: version.size,
        uploaded: unix_milliseconds(version.uploaded),
        activated: unix_milliseconds(version.activated),
    };
    serde_json::to_vec(&written).map_err(Error::internal)
}
