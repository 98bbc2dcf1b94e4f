//! Tenants, as they are stored.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::storage::{RecordKey, StorageChange, StorageError, Table, cut_off, from_unix};
use super::{Registry, format};
use pushlet_credential::{KeyHash, KeyId};
use pushlet_model::error::Error;
use pushlet_model::tenant::{TenantId, TenantLimits};

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    pub created: SystemTime,
    pub suspended: bool,
    /// Limits that replace the server's defaults.
    pub limits: TenantLimits,
    pub keys: Vec<KeyRecord>,
}

/// An API key: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub id: KeyId,
    pub hash: KeyHash,
    pub created: SystemTime,
    /// When it stops being valid.
    pub expires: Option<SystemTime>,
}

/// The JSON form. Times are in milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct StoredTenant {
    created: u64,
    #[serde(default)]
    suspended: bool,
    #[serde(default)]
    limits: TenantLimits,
    #[serde(default)]
    keys: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
struct WrittenKey {
    id: String,
    hash: String,
    created: u64,
    expires: Option<u64>,
}

impl Registry {
    /// Returns all tenants that were kept.
    pub fn tenants(&self) -> Result<Vec<(TenantId, TenantRecord)>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [id] = key.parts().ok_or_else(|| cut_off("a tenant's key"))?;
            let record = TenantRecord::read(&bytes).ok_or_else(|| cut_off("a tenant"))?;
            Ok((TenantId::new(&id), record))
        };
        format::scan_authentic(&*self.storage, &self.hasher, Table::Tenants)?.into_iter().map(read).collect()
    }

    /// Stores a tenant. Blocks.
    pub fn put_tenant(&self, tenant: &TenantId, record: &TenantRecord) -> Result<(), Error> {
        let bytes = record.written().map_err(Error::internal)?;
        let place = RecordKey::new(&[tenant.as_str()]);
        Ok(self.journal.commit(vec![format::put_authentic(&self.hasher, Table::Tenants, place, &bytes)])?)
    }

    /// Removes a tenant and everything that belongs to it. Blocks.
    pub fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        let all = RecordKey::new(&[tenant.as_str()]);
        // The keys of all other tables begin with the tenant.
        let owned = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
        let changes = owned.map(|table| StorageChange::DeleteAll(table, all.clone())).collect();
        self.retiring(&self.list(tenant), changes)?;
        self.applications_mut().remove(tenant);
        self.forget_versions(tenant);
        Ok(())
    }
}

impl KeyRecord {
    pub fn is_good(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl TenantRecord {
    /// Creates a tenant without limits of its own or keys.
    pub fn new(created: SystemTime) -> Self {
        Self { created, suspended: false, limits: TenantLimits::default(), keys: Vec::new() }
    }

    fn written(&self) -> Result<Vec<u8>, serde_json::Error> {
        let key = |key: &KeyRecord| WrittenKey {
            id: key.id.to_string(),
            hash: hex::encode(key.hash),
            created: super::unix_milliseconds(key.created),
            expires: key.expires.map(super::unix_milliseconds),
        };
        serde_json::to_vec(&StoredTenant {
            created: super::unix_milliseconds(self.created),
            suspended: self.suspended,
            limits: self.limits,
            keys: self.keys.iter().map(key).collect(),
        })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let written: StoredTenant = serde_json::from_slice(bytes).ok()?;
        let key = |key: WrittenKey| {
            let mut hash = KeyHash::default();
            hex::decode_to_slice(key.hash, &mut hash).ok()?;
            Some(KeyRecord {
                id: KeyId::parse(&key.id)?,
                hash,
                created: from_unix(key.created),
                expires: key.expires.map(from_unix),
            })
        };
        Some(Self {
            created: from_unix(written.created),
            suspended: written.suspended,
            limits: written.limits,
            keys: written.keys.into_iter().map(key).collect::<Option<_>>()?,
        })
    }
}
