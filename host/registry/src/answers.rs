//! Answers to sends that came with an `Idempotency-Key`, so that a repeat after a restart is not sent.

use std::sync::Arc;
use std::time::SystemTime;

use super::Registry;
use super::journal::ChangeJournal;
use super::storage::{
    RecordKey, Storage, StorageChange, StorageError, Table, cut_off, from_unix, unix_milliseconds,
};
use pushlet_model::tenant::TenantId;

/// The answer to a request with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    pub at: SystemTime,
    /// SHA-256 of the request.
    pub request: [u8; 32],
    /// Of HTTP.
    pub status: u16,
    /// The header's value; empty: there is none.
    pub content_type: Vec<u8>,
    pub body: Vec<u8>,
}

/// All stored answers. Cheap to clone.
#[derive(Clone)]
pub struct AnswerStore {
    storage: Arc<dyn Storage>,
    journal: Arc<ChangeJournal>,
}

impl Registry {
    /// Returns the stored answers; None: the storage does not outlive the process.
    pub fn answers(&self) -> Option<AnswerStore> {
        let answers = || AnswerStore { storage: self.storage.clone(), journal: self.journal.clone() };
        // In a fleet, answers are the fleet's.
        (self.storage.is_durable() && !self.is_shared()).then(answers)
    }
}

impl AnswerStore {
    /// Returns the answers of all tenants, with their keys, the oldest first. Blocks.
    pub fn all(&self) -> Result<Vec<(TenantId, String, StoredAnswer)>, StorageError> {
        let read = |(key, bytes): (RecordKey, Vec<u8>)| {
            let [tenant, key] = key.parts().ok_or_else(|| cut_off("an answer's key"))?;
            let answer = StoredAnswer::read(&bytes).ok_or_else(|| cut_off("an answer"))?;
            Ok((TenantId::new(&tenant), key, answer))
        };
        let all = self.storage.scan(Table::Answers, &RecordKey::new(&[]))?.into_iter().map(read);
        let mut all = all.collect::<Result<Vec<_>, StorageError>>()?;
        all.sort_by_key(|(_, _, answer)| answer.at);
        Ok(all)
    }

    /// Stores an answer in place of one with the same key. It is on the disk when this returns.
    pub async fn put(&self, tenant: &TenantId, key: &str, answer: &StoredAnswer) -> Result<(), StorageError> {
        self.journal.keep([StorageChange::Put(Table::Answers, place(tenant, key), answer.written())]).await
    }

    /// Removes answers, soon.
    pub fn forget(&self, tenant: &TenantId, keys: &[String]) {
        self.journal.add(keys.iter().map(|key| StorageChange::Delete(Table::Answers, place(tenant, key))));
    }
}

impl StoredAnswer {
    /// Returns its stored form: milliseconds since the Unix epoch (8 bytes), the request's digest, the status (2
    /// bytes), the length of the content type (2 bytes), the content type, the body. Numbers are big-endian.
    pub(super) fn written(&self) -> Vec<u8> {
        // Its length is written in two bytes.
        let content_type = self.content_type.get(..usize::from(u16::MAX)).unwrap_or(&self.content_type);
        let length = u16::try_from(content_type.len()).unwrap_or(u16::MAX);
        [
            unix_milliseconds(self.at).to_be_bytes().as_slice(),
            &self.request,
            &self.status.to_be_bytes(),
            &length.to_be_bytes(),
            content_type,
            &self.body,
        ]
        .concat()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk()?;
        let (request, rest) = rest.split_first_chunk()?;
        let (status, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (content_type, body) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some(Self {
            at: from_unix(u64::from_be_bytes(*at)),
            request: *request,
            status: u16::from_be_bytes(*status),
            content_type: content_type.to_vec(),
            body: body.to_vec(),
        })
    }
}

fn place(tenant: &TenantId, key: &str) -> RecordKey {
    RecordKey::new(&[tenant.as_str(), key])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::FileStorage;
    use crate::tests::{Folder, acme, open};

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let answer = StoredAnswer {
            at: from_unix(1_234_567),
            request: [7; 32],
            status: 200,
            content_type: b"application/json".to_vec(),
            body: b"{}".to_vec(),
        };
        let written = answer.written();
        assert_eq!(StoredAnswer::read(&written).unwrap(), answer);
        for length in 0..written.len() - 2 {
            assert_eq!(StoredAnswer::read(&written[..length]), None, "{length}");
        }
    }

    #[tokio::test]
    async fn answers_are_there_after_a_restart() {
        assert!(Registry::in_memory(1).unwrap().answers().is_none());
        let folder = Folder::new();
        let answer = |at: u64, body: &str| StoredAnswer {
            at: from_unix(at),
            request: [1; 32],
            status: 200,
            content_type: Vec::new(),
            body: body.as_bytes().to_vec(),
        };
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(folder.path()).unwrap());
        let registry = open(&storage);
        let answers = registry.answers().unwrap();
        answers.put(&acme(), "a", &answer(9, "old")).await.unwrap();
        let (tenant, one, two) = (acme(), answer(2, "two"), answer(1, "one"));
        let (one, two) = tokio::join!(answers.put(&tenant, "a", &one), answers.put(&tenant, "b", &two));
        one.and(two).unwrap();
        answers.put(&acme(), "c", &answer(3, "three")).await.unwrap();
        answers.forget(&acme(), &["c".to_owned()]);
        registry.flush().unwrap();
        drop((answers, registry));

        let all = open(&storage).answers().unwrap().all().unwrap();
        let wanted = [("b", answer(1, "one")), ("a", answer(2, "two"))];
        assert_eq!(all, wanted.map(|(key, answer)| (acme(), key.to_owned(), answer)));
    }
}
