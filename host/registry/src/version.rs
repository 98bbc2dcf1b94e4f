//! Versions of components, as they are kept.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::authentic;
use super::storage::{Storage, StorageError, Table, cut_off};
use super::time::{from_unix, unix_milliseconds};
use pushlet_credential::KeyHasher;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

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
    size: u64,
    uploaded: u64,
    activated: u64,
}

pub(super) fn read(storage: &dyn Storage, hasher: &KeyHasher) -> Result<ComponentVersions, StorageError> {
    let mut versions = ComponentVersions::new();
    for (key, bytes) in authentic::scan(storage, hasher, Table::Versions)? {
        let [tenant, name, digest] = key.parts().ok_or_else(|| cut_off("a version's key"))?;
        let written: StoredVersion = serde_json::from_slice(&bytes).map_err(|_| cut_off("a version"))?;
        let tenant = TenantId::new(&tenant);
        let (uploaded, activated) = (from_unix(written.uploaded), from_unix(written.activated));
        let place = (tenant.clone(), name.clone(), digest.clone());
        versions.insert(
            place,
            ComponentVersion { tenant, name, digest, size: written.size, uploaded, activated },
        );
    }
    Ok(versions)
}

pub(super) fn written(version: &ComponentVersion) -> Result<Vec<u8>, Error> {
    let written = StoredVersion {
        size: version.size,
        uploaded: unix_milliseconds(version.uploaded),
        activated: unix_milliseconds(version.activated),
    };
    serde_json::to_vec(&written).map_err(Error::internal)
}
