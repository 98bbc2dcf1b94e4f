//! The audit log: who changed what, and when.
//!
//! What a tenant does is kept among its own entries, what the operator does apart from them; so neither a tenant's many
//! changes nor its deletion removes what the operator did. Entries are authenticated as tenants are ([`format`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::storage::{RecordKey, StorageChange, StorageError, Table, cut_off};
use super::{Registry, format};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// Entries kept for each tenant, and for the operator; the oldest are removed.
const MOST_ENTRIES: usize = 1000;
/// Entries above that before some are removed: removing reads all of them.
const SLACK: usize = 100;
/// The owner of the operator's entries. No tenant has this id.
const OPERATOR: &str = "-operator";

/// Whose credentials a change came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    Operator,
    /// A tenant's API key.
    Key,
    /// The name and password of the configuration.
    Login,
    /// The server requires no credentials.
    Anyone,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub actor: Actor,
    /// The id of the API key.
    pub key: Option<String>,
    /// The caller's address.
    pub address: Option<IpAddr>,
    pub request_id: String,
    /// The tenant whose property was changed.
    pub tenant: String,
    /// As `application.put`.
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
    /// By field, never a secret.
    pub changes: Map<String, Value>,
}

/// What is known of the stored entries.
#[derive(Default)]
pub(super) struct AuditState {
    /// How many there are, by owner; read from the storage with an owner's first change.
    counts: Mutex<HashMap<String, usize>>,
    /// The time of the newest entry, in microseconds since the Unix epoch.
    last: AtomicU64,
}

impl AuditState {
    /// Returns the time now, later than that of all entries of this process.
    fn next(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let later = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).unwrap_or(now);
        now.max(last.saturating_add(1))
    }
}

impl Registry {
    /// Stores an entry. Blocks.
    pub fn add_audit_entry(&self, entry: &AuditEntry) -> Result<(), Error> {
        let owner = if entry.actor == Actor::Operator { OPERATOR } else { &entry.tenant };
        let mut counts = self.audit.counts.lock();
        let id = format!("{:016x}", self.audit.next());
        let bytes = serde_json::to_vec(entry).map_err(Error::internal)?;
        let place = RecordKey::new(&[owner, &id]);
        let mut changes = vec![format::put_authentic(&self.hasher, Table::Audit, place, &bytes)];
        let count = match counts.get(owner) {
            Some(count) => *count,
            None => self.storage.scan(Table::Audit, &RecordKey::new(&[owner]))?.len(),
        };
        let mut left = count + 1;
        if left > MOST_ENTRIES + SLACK {
            let all = self.storage.scan(Table::Audit, &RecordKey::new(&[owner]))?;
            let surplus = (all.len() + 1).saturating_sub(MOST_ENTRIES);
            left = all.len() + 1 - surplus;
            changes.extend(
                all.into_iter().take(surplus).map(|(key, _)| StorageChange::Delete(Table::Audit, key)),
            );
        }
        self.journal.commit(changes)?;
        counts.insert(owner.to_owned(), left);
        Ok(())
    }

    /// Returns what a tenant did, and what the operator did to it, with their times in microseconds since the Unix
    /// epoch, which are unique; the oldest first. None: all that the operator did. Blocks.
    pub fn audit_entries(&self, tenant: Option<&TenantId>) -> Result<Vec<(u64, AuditEntry)>, StorageError> {
        let mut entries = self.audit_entries_of(OPERATOR)?;
        if let Some(tenant) = tenant {
            entries.retain(|(_, entry)| entry.tenant == tenant.as_str());
            entries.extend(self.audit_entries_of(tenant.as_str())?);
            entries.sort_by_key(|(at, _)| *at);
        }
        Ok(entries)
    }

    /// Forgets how many entries a removed tenant had.
    pub(super) fn forget_audit(&self, tenant: &TenantId) {
        self.audit.counts.lock().remove(tenant.as_str());
    }

    fn audit_entries_of(&self, owner: &str) -> Result<Vec<(u64, AuditEntry)>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [_, id] = key.parts().ok_or_else(|| cut_off("an audit entry's key"))?;
            let at = u64::from_str_radix(&id, 16).map_err(|_| cut_off("an audit entry's time"))?;
            Ok((at, serde_json::from_slice(&bytes).map_err(|_| cut_off("an audit entry"))?))
        };
        let prefix = RecordKey::new(&[owner]);
        let all = format::scan_authentic(&*self.storage, &self.hasher, Table::Audit, &prefix)?;
        all.into_iter().map(read).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tests::{Folder, key};
    use crate::{FileStorage, MemoryStorage, Storage};

    fn entry(actor: Actor, tenant: &str, subject: &str) -> AuditEntry {
        AuditEntry {
            actor,
            key: Some("0123".into()),
            address: Some("192.0.2.1".parse().unwrap()),
            request_id: "one".into(),
            tenant: tenant.into(),
            action: "application.put".into(),
            subject: subject.into(),
            changes: serde_json::from_str(r#"{"suspended":{"from":false,"to":true}}"#).unwrap(),
        }
    }

    fn subjects(registry: &Registry, tenant: Option<&str>) -> Vec<String> {
        let all = registry.audit_entries(tenant.map(TenantId::new).as_ref()).unwrap();
        all.into_iter().map(|(_, entry)| entry.subject).collect()
    }

    #[test]
    fn entries_outlive_the_process_and_those_of_the_operator_the_tenant() {
        let folder = Folder::new();
        let open = || Registry::open(Arc::new(FileStorage::open(folder.path()).unwrap()), key(), 10).unwrap();
        let registry = open();
        registry.add_audit_entry(&entry(Actor::Operator, "acme", "made")).unwrap();
        registry.add_audit_entry(&entry(Actor::Key, "acme", "own")).unwrap();
        registry.add_audit_entry(&entry(Actor::Operator, "other", "else")).unwrap();
        registry.add_audit_entry(&entry(Actor::Operator, "acme", "changed")).unwrap();
        drop(registry);
        let registry = open();
        assert_eq!(subjects(&registry, Some("acme")), ["made", "own", "changed"]);
        assert_eq!(subjects(&registry, None), ["made", "else", "changed"]);
        let (_, first) = registry.audit_entries(Some(&TenantId::new("acme"))).unwrap().remove(0);
        assert_eq!(first, entry(Actor::Operator, "acme", "made"));
        registry.remove_tenant(&TenantId::new("acme")).unwrap();
        assert_eq!(subjects(&registry, Some("acme")), ["made", "changed"]);
    }

    #[test]
    fn only_the_newest_are_kept_and_nobody_loses_entries_to_another() {
        let registry = Registry::in_memory(10).unwrap();
        registry.add_audit_entry(&entry(Actor::Key, "other", "kept")).unwrap();
        for number in 0..=MOST_ENTRIES + SLACK {
            registry.add_audit_entry(&entry(Actor::Key, "acme", &number.to_string())).unwrap();
        }
        let own = subjects(&registry, Some("acme"));
        assert_eq!((own.len(), own[0].as_str()), (MOST_ENTRIES, (SLACK + 1).to_string().as_str()));
        assert_eq!(subjects(&registry, Some("other")), ["kept"]);
    }

    #[test]
    fn an_entry_that_was_changed_in_the_file_is_seen() {
        let storage = Arc::new(MemoryStorage::default());
        let registry = Registry::open(storage.clone(), key(), 10).unwrap();
        registry.add_audit_entry(&entry(Actor::Key, "acme", "one")).unwrap();
        let (place, mut bytes) = storage.scan(Table::Audit, &RecordKey::new(&[])).unwrap().remove(0);
        *bytes.last_mut().unwrap() ^= 1;
        storage.commit(&[StorageChange::Put(Table::Audit, place, bytes)]).unwrap();
        let error = registry.audit_entries(Some(&TenantId::new("acme"))).unwrap_err();
        assert_eq!(error, StorageError::Changed("audit"));
    }
}
