//! Tenants, as they are stored.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::storage::{RecordKey, StorageChange, StorageError, Table, cut_off, from_unix};
use super::{Registry, format, storage};
use pushlet_credential::{KeyHash, KeyId};
use pushlet_model::error::Error;
use pushlet_model::tenant::{Scope, Scopes, TenantId, TenantLimits};

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    pub created: SystemTime,
    pub suspended: bool,
    /// Limits that replace the server's defaults.
    pub limits: TenantLimits,
    pub keys: Vec<KeyRecord>,
    /// A newer program wrote it: this one knows which keys there are, and lets none of them do anything.
    pub is_newer: bool,
}

/// An API key: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub id: KeyId,
    pub hash: KeyHash,
    pub created: SystemTime,
    /// When it stops being valid.
    pub expires: Option<SystemTime>,
    /// What its owner calls it.
    pub label: Option<String>,
    pub scopes: Scopes,
}

/// The JSON form. Times are in milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct StoredTenant {
    #[serde(default)]
    v: u32,
    created: u64,
    #[serde(default)]
    suspended: bool,
    /// By name: a newer program may have more.
    #[serde(default)]
    limits: Map<String, Value>,
    #[serde(default)]
    keys: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
struct WrittenKey {
    id: String,
    hash: String,
    created: u64,
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<Value>>,
}

impl Registry {
    /// Returns all tenants that were kept.
    pub fn tenants(&self) -> Result<Vec<(TenantId, TenantRecord)>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [id] = key.parts().ok_or_else(|| cut_off("a tenant's key"))?;
            let record = TenantRecord::read(&bytes).ok_or_else(|| cut_off("a tenant"))?;
            Ok((TenantId::new(&id), record))
        };
        format::scan_authentic(&*self.storage, &self.hasher, Table::Tenants, &RecordKey::new(&[]))?
            .into_iter()
            .map(read)
            .collect()
    }

    /// Returns a tenant that was kept.
    pub fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StorageError> {
        let key = RecordKey::new(&[id.as_str()]);
        let bytes = format::get_authentic(&*self.storage, &self.hasher, Table::Tenants, &key)?;
        bytes.map(|bytes| TenantRecord::read(&bytes).ok_or_else(|| cut_off("a tenant"))).transpose()
    }

    /// Stores a tenant in place of the record that the caller knows, if that is still the kept one. None: the caller
    /// knows of no kept one. Blocks.
    pub fn put_tenant(
        &self,
        tenant: &TenantId,
        known: Option<&TenantRecord>,
        record: &TenantRecord,
    ) -> Result<(), Error> {
        let _order = self.changing();
        let bytes = record.written().map_err(Error::internal)?;
        let (table, key) = (Table::Tenants, RecordKey::new(&[tenant.as_str()]));
        let expected = self.storage.get(table, &key)?;
        if let Some(stored) = &expected {
            let stored = format::open_authentic(&self.hasher, table, &key, stored)?;
            storage::ensure_version(&stored)?;
            if let Some(read) = TenantRecord::read(&stored) {
                storage::ensure_known(&stored, &read.written().map_err(Error::internal)?)?;
            }
            // As it would be read again: times are kept in milliseconds.
            let known = known.map(TenantRecord::written).transpose().map_err(Error::internal)?;
            if TenantRecord::read(&stored) != known.and_then(|known| TenantRecord::read(&known)) {
                return Err(StorageError::Conflict.into());
            }
        } else if known.is_some() && !tenant.is_default() {
            return Err(StorageError::Conflict.into());
        }
        let value = format::authentic(&self.hasher, table, &key, &bytes);
        Ok(self.journal.commit(vec![StorageChange::Replace { table, key, expected, value }])?)
    }

    /// Removes a tenant and everything that belongs to it. Blocks.
    pub fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        let _order = self.changing();
        let all = RecordKey::new(&[tenant.as_str()]);
        let is_newer = self.tenant(tenant)?.is_some_and(|record| record.is_newer);
        if is_newer || [Table::Applications, Table::Versions].iter().any(|of| self.newer.has_some(*of, &all))
        {
            return Err(StorageError::NewerRecord.into());
        }
        // The keys of all other tables begin with the tenant.
        let owned = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
        let changes = owned.map(|table| StorageChange::DeleteAll(table, all.clone())).collect();
        self.retiring(&self.list(tenant), changes)?;
        if let Some(fleet) = self.fleet() {
            fleet.forget_feedback_later(tenant, None);
            fleet.forget_deliveries_later(tenant);
        }
        self.applications_mut().remove(tenant);
        self.forget_versions(tenant);
        self.forget_audit(tenant);
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
        let limits = TenantLimits::default();
        Self { created, suspended: false, limits, keys: Vec::new(), is_newer: false }
    }

    fn written(&self) -> Result<Vec<u8>, serde_json::Error> {
        let key = |key: &KeyRecord| WrittenKey {
            id: key.id.to_string(),
            hash: hex::encode(key.hash),
            created: super::unix_milliseconds(key.created),
            expires: key.expires.map(super::unix_milliseconds),
            label: key.label.clone(),
            scopes: key.scopes.list().map(|list| list.iter().map(|scope| scope.to_string().into()).collect()),
        };
        let limits = match serde_json::to_value(self.limits)? {
            Value::Object(limits) => limits,
            _ => Map::new(),
        };
        serde_json::to_vec(&StoredTenant {
            v: storage::RECORD_VERSION,
            created: super::unix_milliseconds(self.created),
            suspended: self.suspended,
            limits,
            keys: self.keys.iter().map(key).collect(),
        })
    }

    /// Reads a record; of one that a newer program wrote, as much as can be read.
    fn read(bytes: &[u8]) -> Option<Self> {
        match storage::ensure_version(bytes) {
            Ok(()) => Self::read_known(bytes),
            Err(_) => {
                let known = Self::read_known(bytes).unwrap_or_else(|| Self::new(SystemTime::UNIX_EPOCH));
                Some(Self { is_newer: true, ..known })
            }
        }
    }

    fn read_known(bytes: &[u8]) -> Option<Self> {
        let mut written: StoredTenant = serde_json::from_slice(bytes).ok()?;
        written.limits.retain(|name, _| TenantLimits::NAMES.contains(&name.as_str()));
        let limits = serde_json::from_value(Value::Object(written.limits)).ok()?;
        let key = |key: WrittenKey| {
            let mut hash = KeyHash::default();
            hex::decode_to_slice(key.hash, &mut hash).ok()?;
            Some(KeyRecord {
                id: KeyId::parse(&key.id)?,
                hash,
                created: from_unix(key.created),
                expires: key.expires.map(from_unix),
                label: key.label,
                scopes: key.scopes.map_or(Some(Scopes::ALL), read_scopes)?,
            })
        };
        Some(Self {
            created: from_unix(written.created),
            suspended: written.suspended,
            limits,
            keys: written.keys.into_iter().map(key).collect::<Option<_>>()?,
            is_newer: false,
        })
    }
}

/// Reads scopes. Those that only a newer program knows grant nothing here; a list without any is damaged: it must not
/// become all.
fn read_scopes(list: Vec<Value>) -> Option<Scopes> {
    let is_empty = list.is_empty();
    let known: Vec<Scope> = list.into_iter().filter_map(|scope| serde_json::from_value(scope).ok()).collect();
    if is_empty { None } else { Some(Scopes::only(&known)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::Storage;
    use crate::tests::{acme, open, with_both};
    use crate::{ComponentVersion, WebhookRecord};

    /// What is stored of a record, with more in it, as a newer program would write it.
    fn extend(
        storage: &dyn Storage,
        registry: &Registry,
        table: Table,
        key: &RecordKey,
        more: &[(&str, Value)],
    ) {
        let bytes = format::get_authentic(storage, &registry.hasher, table, key).unwrap().unwrap();
        let mut record: Value = serde_json::from_slice(&bytes).unwrap();
        for (pointer, value) in more {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match record.pointer_mut(parent).unwrap() {
                Value::Array(list) => list.push(value.clone()),
                parent => parent[name] = value.clone(),
            }
        }
        let change =
            format::put_authentic(&registry.hasher, table, key.clone(), record.to_string().as_bytes());
        storage.commit(&[change]).unwrap();
    }

    fn record(scopes: &[Scope]) -> TenantRecord {
        let key = KeyRecord {
            id: KeyId::parse("00000000000000aa").unwrap(),
            hash: KeyHash::default(),
            created: SystemTime::UNIX_EPOCH,
            expires: None,
            label: None,
            scopes: Scopes::of(scopes).unwrap(),
        };
        let limits = TenantLimits { applications: Some(3), ..TenantLimits::default() };
        TenantRecord { keys: vec![key], limits, ..TenantRecord::new(SystemTime::UNIX_EPOCH) }
    }

    #[test]
    fn what_a_newer_program_says_of_a_tenant_is_left_as_it_is() {
        let new: [(&str, Value); 5] = [
            ("/tier", "gold".into()),
            ("/limits/pushes_per_day", 5.into()),
            ("/keys/0/region", "eu".into()),
            ("/keys/0/scopes/-", "audit".into()),
            ("/keys/0/scopes/-", 7.into()),
        ];
        for more in new {
            with_both(|storage| {
                let registry = open(&storage);
                let known = record(&[Scope::Send]);
                registry.put_tenant(&acme(), None, &known).unwrap();
                let key = RecordKey::new(&["acme"]);
                extend(&*storage, &registry, Table::Tenants, &key, std::slice::from_ref(&more));
                let stored = storage.get(Table::Tenants, &key).unwrap();
                // It is read, and grants what it did.
                drop(registry);
                let registry = open(&storage);
                assert_eq!(registry.tenant(&acme()).unwrap().unwrap(), known, "{more:?}");
                let change = TenantRecord { suspended: true, ..known.clone() };
                let refused = registry.put_tenant(&acme(), Some(&known), &change).unwrap_err();
                assert_eq!(refused.code, "registry_newer", "{more:?}");
                assert_eq!(storage.get(Table::Tenants, &key).unwrap(), stored);
            });
        }
    }

    #[test]
    fn a_scope_that_only_a_newer_program_knows_grants_nothing() {
        with_both(|storage| {
            let registry = open(&storage);
            registry.put_tenant(&acme(), None, &record(&[Scope::Read])).unwrap();
            let key = RecordKey::new(&["acme"]);
            extend(&*storage, &registry, Table::Tenants, &key, &[("/keys/0/scopes", vec!["audit"].into())]);
            let read = registry.tenant(&acme()).unwrap().unwrap();
            assert_eq!(read.keys[0].scopes.list(), Some(Vec::new()));
            extend(
                &*storage,
                &registry,
                Table::Tenants,
                &key,
                &[("/keys/0/scopes", Vec::<Value>::new().into())],
            );
            assert!(registry.tenant(&acme()).is_err(), "a list without any is damaged");
        });
    }

    #[test]
    fn nor_is_what_it_says_of_a_webhook_or_a_component_lost() {
        with_both(|storage| {
            let registry = open(&storage);
            let hook = WebhookRecord {
                url: "https://hooks.example".into(),
                events: vec!["token.dead".into()],
                created: 5,
                nonce: "a".into(),
                disabled: None,
            };
            registry.put_webhook(&acme(), "one", &hook).unwrap();
            let fewer = WebhookRecord { events: Vec::new(), ..hook.clone() };
            registry.put_webhook(&acme(), "one", &fewer).unwrap();
            let key = RecordKey::new(&["acme", "one"]);
            extend(&*storage, &registry, Table::Webhooks, &key, &[("/format", "cloudevents".into())]);
            let refused = registry.put_webhook(&acme(), "one", &hook).unwrap_err();
            assert_eq!(refused.code, "registry_newer");

            let version = ComponentVersion {
                tenant: acme(),
                name: "webhook".into(),
                digest: "00".into(),
                size: 1,
                uploaded: SystemTime::UNIX_EPOCH,
                activated: SystemTime::UNIX_EPOCH,
            };
            registry.put_component(&version, b"x").unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
            registry.activate_component(&acme(), "webhook", "00", at).unwrap();
            let key = RecordKey::new(&["acme", "webhook", "00"]);
            extend(&*storage, &registry, Table::Versions, &key, &[("/signed_by", "me".into())]);
            let refused = registry.activate_component(&acme(), "webhook", "00", at).unwrap_err();
            assert_eq!(refused.code, "registry_newer");
        });
    }
}
