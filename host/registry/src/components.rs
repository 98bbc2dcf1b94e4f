//! Uploaded components: a tenant's providers by name, each in versions by digest, and how versions are stored.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::storage::{
    RecordKey, Storage, StorageChange, StorageError, Table, cut_off, from_unix, unix_milliseconds,
};
use super::{Registry, format, storage};
use pushlet_credential::KeyHasher;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

impl Registry {
    /// Returns the versions of all tenants.
    pub fn versions(&self) -> Vec<ComponentVersion> {
        self.all_versions().values().cloned().collect()
    }

    /// Returns the versions of one provider of a tenant.
    pub fn versions_of(&self, tenant: &TenantId, name: &str) -> Vec<ComponentVersion> {
        let all = self.all_versions();
        all.values().filter(|version| version.tenant == *tenant && version.name == name).cloned().collect()
    }

    /// Returns how many versions the tenant has, and their bytes.
    pub fn component_usage(&self, tenant: &TenantId) -> (usize, u64) {
        let all = self.all_versions();
        let own = all.values().filter(|version| version.tenant == *tenant);
        own.fold((0, 0), |(count, bytes), version| (count + 1, bytes + version.size))
    }

    /// Stores a version with its file; one with the same digest is replaced. Blocks.
    pub fn put_component(&self, version: &ComponentVersion, component: &[u8]) -> Result<(), Error> {
        let _order = self.changing();
        let place = (version.tenant.clone(), version.name.clone(), version.digest.clone());
        let key = key(&version.tenant, &version.name, &version.digest);
        self.ensure_version_known(&key)?;
        // In one batch: no version without its file, and no file without its version.
        self.journal.commit(vec![
            StorageChange::Put(Table::Components, key.clone(), component.to_vec()),
            format::put_authentic(&self.hasher, Table::Versions, key, &write_version(version)?),
        ])?;
        self.all_versions_mut().insert(place, version.clone());
        Ok(())
    }

    /// Returns the component file, as it was uploaded; None: it is not kept. Blocks.
    pub fn component(&self, tenant: &TenantId, name: &str, wanted: &str) -> Result<Option<Vec<u8>>, Error> {
        let component = self.storage.get(Table::Components, &key(tenant, name, wanted))?;
        match component {
            // The file has no MAC of its own; its digest is part of the version's key, which has one.
            Some(bytes) if hex::encode(digest(&SHA256, &bytes)) != wanted => {
                Err(StorageError::Corrupt("a component is not what was uploaded".into()).into())
            }
            component => Ok(component),
        }
    }

    /// Makes a stored version the active one. Blocks.
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
        // Only in place of the version that this node knows: another one may have removed it.
        let (expected, written) = (self.storage.get(Table::Versions, &key)?, write_version(&version)?);
        if let Some(stored) = &expected {
            let stored = format::open_authentic(&self.hasher, Table::Versions, &key, stored)?;
            storage::ensure_known(&stored, &written)?;
        }
        let value = format::authentic(&self.hasher, Table::Versions, &key, &written);
        let table = Table::Versions;
        self.journal.commit(vec![StorageChange::Replace { table, key, expected, value }])?;
        self.all_versions_mut().insert(place, version);
        Ok(())
    }

    /// Removes a version. Blocks.
    pub fn remove_component(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<(), Error> {
        let _order = self.changing();
        let key = key(tenant, name, digest);
        self.ensure_version_known(&key)?;
        let tables = [Table::Components, Table::Versions];
        self.journal.commit(tables.map(|table| StorageChange::Delete(table, key.clone())).into())?;
        self.all_versions_mut().remove(&(tenant.clone(), name.to_owned(), digest.to_owned()));
        Ok(())
    }

    /// Returns true if a newer program wrote a version of this provider, which this one cannot use.
    pub fn has_newer_version(&self, tenant: &TenantId, name: &str) -> bool {
        self.newer.has_some(Table::Versions, &RecordKey::new(&[tenant.as_str(), name]))
    }

    /// An error if a newer program wrote what is there.
    fn ensure_version_known(&self, key: &RecordKey) -> Result<(), StorageError> {
        let stored = format::get_authentic(&*self.storage, &self.hasher, Table::Versions, key)?;
        stored.map_or(Ok(()), |stored| storage::ensure_version(&stored))
    }

    pub(super) fn read_versions(&self) -> Result<(), StorageError> {
        let all =
            format::scan_authentic(&*self.storage, &self.hasher, Table::Versions, &RecordKey::new(&[]))?;
        for (key, bytes) in all {
            let place = version_place(&key).ok_or_else(|| cut_off("a version's key"))?;
            match parse_version(place.clone(), &bytes) {
                Ok(version) => drop(self.all_versions_mut().insert(place, version)),
                Err(StorageError::NewerRecord) => self.newer.add(Table::Versions, &key),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn forget_versions(&self, tenant: &TenantId) {
        self.all_versions_mut().retain(|(owner, ..), _| owner != tenant);
    }

    pub(super) fn all_versions(&self) -> parking_lot::RwLockReadGuard<'_, ComponentVersions> {
        self.versions.read()
    }

    pub(super) fn all_versions_mut(&self) -> parking_lot::RwLockWriteGuard<'_, ComponentVersions> {
        self.versions.write()
    }
}

fn key(tenant: &TenantId, name: &str, digest: &str) -> RecordKey {
    RecordKey::new(&[tenant.as_str(), name, digest])
}

/// One version of a tenant's provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentVersion {
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
pub(super) type ComponentVersions = BTreeMap<(TenantId, String, String), ComponentVersion>;

/// The JSON form. Times are in milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct StoredVersion {
    #[serde(default)]
    v: u32,
    size: u64,
    uploaded: u64,
    activated: u64,
}

/// Reads one version; None: there is none.
pub(super) fn read_version(
    storage: &dyn Storage,
    hasher: &KeyHasher,
    key: &RecordKey,
) -> Result<Option<ComponentVersion>, StorageError> {
    let Some(bytes) = format::get_authentic(storage, hasher, Table::Versions, key)? else { return Ok(None) };
    let place = version_place(key).ok_or_else(|| cut_off("a version's key"))?;
    parse_version(place, &bytes).map(Some)
}

/// Returns the tenant, the name and the digest.
pub(super) fn version_place(key: &RecordKey) -> Option<(TenantId, String, String)> {
    let [tenant, name, digest] = key.parts()?;
    Some((TenantId::new(&tenant), name, digest))
}

fn parse_version(
    (tenant, name, digest): (TenantId, String, String),
    bytes: &[u8],
) -> Result<ComponentVersion, StorageError> {
    storage::ensure_version(bytes)?;
    let written: StoredVersion = serde_json::from_slice(bytes).map_err(|_| cut_off("a version"))?;
    let (uploaded, activated) = (from_unix(written.uploaded), from_unix(written.activated));
    Ok(ComponentVersion { tenant, name, digest, size: written.size, uploaded, activated })
}

pub(super) fn write_version(version: &ComponentVersion) -> Result<Vec<u8>, Error> {
    let written = StoredVersion {
        v: storage::RECORD_VERSION,
        size: version.size,
        uploaded: unix_milliseconds(version.uploaded),
        activated: unix_milliseconds(version.activated),
    };
    serde_json::to_vec(&written).map_err(Error::internal)
}
