//! Webhooks: where a tenant wants to hear of events, and the messages that have not arrived there yet.
//!
//! Webhooks are authenticated as tenants are ([`format`]): device tokens go to where they say. Messages are each server's
//! own; in a fleet, the server that saw an event tells it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::storage::{RecordKey, StorageChange, StorageError, Table, cut_off};
use super::{Registry, format, storage};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// A webhook, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRecord {
    pub url: String,
    /// The types of events that are sent.
    pub events: Vec<String>,
    /// In milliseconds since the Unix epoch.
    pub created: u64,
    /// What the secret is made from, apart from the registry's own.
    pub nonce: String,
    /// When it was switched off, in milliseconds since the Unix epoch; None: it is on.
    pub disabled: Option<u64>,
}

/// A message of one webhook: its number, by which messages are sorted, and its content.
pub type StoredMessage = (u64, Vec<u8>);

impl Registry {
    /// Returns all webhooks of a tenant, or of all tenants: each with its tenant and id. Blocks.
    pub fn webhooks(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(TenantId, String, WebhookRecord)>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [tenant, id] = key.parts().ok_or_else(|| cut_off("a webhook's key"))?;
            let record = serde_json::from_slice(&bytes).map_err(|_| cut_off("a webhook"))?;
            Ok((TenantId::new(&tenant), id, record))
        };
        let prefix = tenant.map_or_else(|| RecordKey::new(&[]), |tenant| RecordKey::new(&[tenant.as_str()]));
        let all = format::scan_authentic(&*self.storage, &self.hasher, Table::Webhooks, &prefix)?;
        all.into_iter().map(read).collect()
    }

    /// Stores a webhook. Blocks.
    pub fn put_webhook(&self, tenant: &TenantId, id: &str, record: &WebhookRecord) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(Error::internal)?;
        let key = RecordKey::new(&[tenant.as_str(), id]);
        if let Some(stored) = format::get_authentic(&*self.storage, &self.hasher, Table::Webhooks, &key)? {
            let known: WebhookRecord = serde_json::from_slice(&stored).map_err(Error::internal)?;
            storage::ensure_known(&stored, &serde_json::to_vec(&known).map_err(Error::internal)?)?;
        }
        let change = format::put_authentic(&self.hasher, Table::Webhooks, key, &bytes);
        Ok(self.journal.commit(vec![change])?)
    }

    /// Removes a webhook with its messages. Blocks.
    pub fn remove_webhook(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let key = RecordKey::new(&[tenant.as_str(), id]);
        let changes = vec![
            StorageChange::Delete(Table::Webhooks, key.clone()),
            StorageChange::DeleteAll(Table::Messages, key),
        ];
        Ok(self.journal.commit(changes)?)
    }

    /// Returns what the messages of a webhook are signed with. It is made, not kept: whoever reads the storage cannot
    /// sign.
    pub fn webhook_secret(&self, tenant: &TenantId, id: &str, record: &WebhookRecord) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 4] =
            [b"webhook secret", tenant.as_str().as_bytes(), id.as_bytes(), record.nonce.as_bytes()];
        Zeroizing::new(self.hasher.authenticate(&parts))
    }

    /// Returns the messages of a webhook that have not arrived, the oldest first. Blocks.
    pub fn messages(&self, tenant: &TenantId, id: &str) -> Result<Vec<StoredMessage>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [_, _, number] = key.parts().ok_or_else(|| cut_off("a message's key"))?;
            let number = u64::from_str_radix(&number, 16).map_err(|_| cut_off("a message's number"))?;
            Ok((number, bytes))
        };
        let all = self.storage.scan(Table::Messages, &RecordKey::new(&[tenant.as_str(), id]))?;
        all.into_iter().map(read).collect()
    }

    /// Stores messages, or other states of them. Blocks.
    pub fn put_messages(
        &self,
        tenant: &TenantId,
        id: &str,
        messages: Vec<StoredMessage>,
    ) -> Result<(), StorageError> {
        let change =
            |(number, bytes)| StorageChange::Put(Table::Messages, message_key(tenant, id, number), bytes);
        self.journal.commit(messages.into_iter().map(change).collect())
    }

    /// Removes messages that have arrived, or are given up. Blocks.
    pub fn remove_messages(&self, tenant: &TenantId, id: &str, numbers: &[u64]) -> Result<(), StorageError> {
        let change = |number: &u64| StorageChange::Delete(Table::Messages, message_key(tenant, id, *number));
        self.journal.commit(numbers.iter().map(change).collect())
    }
}

fn message_key(tenant: &TenantId, id: &str, number: u64) -> RecordKey {
    RecordKey::new(&[tenant.as_str(), id, &format!("{number:016x}")])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tests::{acme, open, with_both};

    #[test]
    fn webhooks_and_their_messages_are_there_after_a_restart() {
        with_both(|storage| {
            let registry = open(&storage);
            let record = |nonce: &str| WebhookRecord {
                url: "https://hooks.example/x".into(),
                events: vec!["token.dead".into()],
                created: 5,
                nonce: nonce.into(),
                disabled: None,
            };
            let one = record("a");
            registry.put_webhook(&acme(), "one", &one).unwrap();
            registry.put_webhook(&TenantId::new("other"), "one", &record("a")).unwrap();
            registry
                .put_messages(&acme(), "one", vec![(9, b"nine".to_vec()), (10, b"ten".to_vec())])
                .unwrap();
            let secret = registry.webhook_secret(&acme(), "one", &one);
            drop(registry);
            let registry = open(&storage);
            assert_eq!(registry.webhooks(Some(&acme())).unwrap(), [(acme(), "one".into(), one.clone())]);
            assert_eq!(registry.webhooks(None).unwrap().len(), 2);
            let all = [(9, b"nine".to_vec()), (10, b"ten".to_vec())];
            assert_eq!(registry.messages(&acme(), "one").unwrap(), all);
            registry.remove_messages(&acme(), "one", &[9]).unwrap();
            assert_eq!(registry.messages(&acme(), "one").unwrap(), all[1..]);
            // One secret for each tenant, webhook and nonce.
            assert_eq!(registry.webhook_secret(&acme(), "one", &one), secret);
            for (tenant, id, nonce) in [("other", "one", "a"), ("acme", "two", "a"), ("acme", "one", "b")] {
                let other = registry.webhook_secret(&TenantId::new(tenant), id, &record(nonce));
                assert_ne!(other, secret, "{tenant} {id} {nonce}");
            }
            registry.remove_webhook(&acme(), "one").unwrap();
            assert!(registry.webhooks(Some(&acme())).unwrap().is_empty());
            assert!(registry.messages(&acme(), "one").unwrap().is_empty());
        });
    }

    #[test]
    fn a_webhook_that_was_changed_in_the_file_is_seen() {
        with_both(|storage| {
            let registry = open(&storage);
            let record = WebhookRecord {
                url: "https://hooks.example".into(),
                events: Vec::new(),
                created: 5,
                nonce: "a".into(),
                disabled: None,
            };
            registry.put_webhook(&acme(), "one", &record).unwrap();
            let (place, bytes) = storage.scan(Table::Webhooks, &RecordKey::new(&[])).unwrap().remove(0);
            let text = String::from_utf8_lossy(&bytes[32..]).replace("hooks.example", "hooks.evil.com");
            let forged = [&bytes[..32], text.as_bytes()].concat();
            storage.commit(&[StorageChange::Put(Table::Webhooks, place, forged)]).unwrap();
            assert_eq!(registry.webhooks(None).unwrap_err(), StorageError::Changed("webhooks"));
        });
    }
}
