//! A registered application, and how it is stored: its readable description, and its secrets, sealed.
//!
//! A record is the length of the readable part (4 bytes, big-endian), the readable part in JSON, and the
//! sealed part. The readable part goes into the seal's identity: changing it breaks the seal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore};

use super::feedback::FeedbackList;
use super::storage::{RecordKey, StorageError, Table, cut_off, from_unix};
use super::{ApplicationEntry, Registry, storage};
use pushlet_credential::{Credential, CredentialSummary, SealError, SealingKey, UploadedSecrets};
use pushlet_model::contract::{self, Environment};
use pushlet_model::error::{Error, Kind, RepeatedWarning};
use pushlet_model::tenant::TenantId;

/// A registered application, ready to send for.
pub struct RegisteredApplication {
    /// What components see of it.
    pub record: contract::Application,
    /// The name of its provider.
    pub provider: String,
    pub credential: Option<Credential>,
    pub feedback: Arc<FeedbackList>,
    /// Permits for its sends in flight.
    pub places: Arc<Semaphore>,
    /// Set once it was needed.
    pub identity: OnceLock<ConnectionIdentity>,
    /// For the log: its push service, or its token endpoint, could not be reached.
    pub unreached: RepeatedWarning,
}

/// What decides which connections an application uses.
pub struct ConnectionIdentity {
    /// The settings that are part of it.
    pub settings: Vec<String>,
    pub digest: [u8; 32],
}

/// The readable part of an application's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationDescription {
    /// The version of the record.
    #[serde(default)]
    v: u32,
    /// The name of its provider.
    pub provider: String,
    /// `production` or `development`.
    environment: String,
    pub settings: Vec<(String, String)>,
    pub credential: Option<CredentialSummary>,
    /// The end of its certificate's validity, if it has one, in seconds since the Unix epoch.
    pub certificate_ends: Option<i64>,
    /// Milliseconds since the Unix epoch.
    pub(super) created: u64,
    /// Milliseconds since the Unix epoch.
    updated: u64,
    /// Of an application that a file describes: a MAC of what the file says. An older program ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
}

const DEVELOPMENT: &str = "development";

impl ApplicationDescription {
    /// Of an application that is registered now, `now` in milliseconds since the Unix epoch.
    pub(super) fn new(application: &RegisteredApplication, now: u64) -> Self {
        let record = &application.record;
        let environment = match record.environment {
            Environment::Production => "production",
            Environment::Development => DEVELOPMENT,
        };
        Self {
            v: storage::RECORD_VERSION,
            provider: application.provider.clone(),
            environment: environment.to_owned(),
            settings: record.settings.clone(),
            credential: application.credential.as_ref().map(Credential::summary),
            certificate_ends: application.credential.as_ref().and_then(Credential::ends_at),
            created: now,
            updated: now,
            file: None,
        }
    }

    /// Returns when it was registered last.
    pub fn updated(&self) -> SystemTime {
        from_unix(self.updated)
    }

    /// Returns true if a file describes it.
    pub fn is_from_file(&self) -> bool {
        self.file.is_some()
    }

    pub fn environment(&self) -> Environment {
        match self.environment.as_str() {
            DEVELOPMENT => Environment::Development,
            _ => Environment::Production,
        }
    }

    /// Returns what components see of the application.
    pub fn record(&self, id: &str) -> contract::Application {
        contract::Application {
            id: id.to_owned(),
            environment: self.environment(),
            settings: self.settings.clone(),
            credential: self.credential.as_ref().map(|summary| summary.credential.clone()),
        }
    }
}

impl Registry {
    pub(super) fn read_applications(&self) -> Result<(), StorageError> {
        let mut all = self.applications_mut();
        for (key, bytes) in self.storage.scan(Table::Applications, &RecordKey::new(&[]))? {
            let [tenant, id] = key.parts().ok_or_else(|| cut_off("an application's key"))?;
            let tenant = TenantId::new(&tenant);
            let description = match ApplicationRecord::from_bytes(&bytes)?.description() {
                Err(StorageError::NewerRecord) => {
                    self.newer.add(Table::Applications, &key);
                    continue;
                }
                description => description?,
            };
            let entry = ApplicationEntry {
                id: id.clone(),
                description,
                feedback: self.new_feedback(&tenant, &id),
                replaced: AtomicBool::new(false),
                ready: OnceCell::new(),
            };
            all.entry(tenant).or_default().insert(id, Arc::new(entry));
        }
        Ok(())
    }
}

/// Applications that files describe.
impl Registry {
    /// Stores an application that a file describes. `mac`: of what the file says. Blocks.
    pub fn put_from_file(
        &self,
        tenant: &TenantId,
        application: RegisteredApplication,
        secrets: &UploadedSecrets,
        mac: String,
    ) -> Result<(Arc<ApplicationEntry>, Option<Arc<ApplicationEntry>>), Error> {
        // The operator's files are above a tenant's limit.
        self.store(tenant, application, secrets, (usize::MAX, Some(mac)))
    }

    /// Says whether files describe applications: those that come from files can only be changed there then.
    pub fn set_files(&self, there_are: bool) {
        self.has_files.store(there_are, Ordering::Relaxed);
    }

    /// Returns a MAC, in hex, of what a file says: the same for the same parts as long as the registry exists.
    pub fn file_mac(&self, parts: &[&[u8]]) -> String {
        let mut all: Vec<&[u8]> = vec![b"application file"];
        all.extend(parts);
        hex::encode(self.hasher.authenticate(&all))
    }

    /// Returns true if the application is as the file with this MAC says.
    pub fn is_as_file(&self, tenant: &TenantId, id: &str, mac: &str) -> bool {
        self.get(tenant, id).is_ok_and(|entry| entry.description.file.as_deref() == Some(mac))
    }

    pub(super) fn check_origin(&self, entry: &ApplicationEntry) -> Result<(), Error> {
        if !entry.description.is_from_file() || !self.has_files.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message =
            "a file of this server describes the application, which is changed there and by a reload";
        Err(Error::new(Kind::Conflict, "application_from_file", message))
    }
}

/// An application as it is written down.
pub(super) struct ApplicationRecord {
    readable: Vec<u8>,
    sealed: Vec<u8>,
}

impl ApplicationRecord {
    pub(super) fn new(
        tenant: &TenantId,
        id: &str,
        description: &ApplicationDescription,
        secrets: &UploadedSecrets,
        key: &SealingKey,
    ) -> Result<Self, StorageError> {
        let readable = serde_json::to_vec(description).map_err(corrupt)?;
        let sealed = key.seal(secrets, &identity(tenant, id, &readable))?;
        Ok(Self { readable, sealed })
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, StorageError> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| corrupt("a record is cut off"))?;
        let parts = rest.split_at_checked(u32::from_be_bytes(*length) as usize);
        let (readable, sealed) = parts.ok_or_else(|| corrupt("a record is cut off"))?;
        Ok(Self { readable: readable.to_vec(), sealed: sealed.to_vec() })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.readable.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes(), self.readable.as_slice(), &self.sealed].concat()
    }

    /// [`StorageError::NewerRecord`]: a newer program wrote it.
    pub(super) fn description(&self) -> Result<ApplicationDescription, StorageError> {
        storage::ensure_version(&self.readable)?;
        serde_json::from_slice(&self.readable).map_err(corrupt)
    }

    /// An error if the record says what this program does not know.
    pub(super) fn ensure_known(&self) -> Result<(), StorageError> {
        storage::ensure_known(&self.readable, &serde_json::to_vec(&self.description()?).map_err(corrupt)?)
    }

    pub(super) fn secrets(
        &self,
        tenant: &TenantId,
        id: &str,
        key: &SealingKey,
    ) -> Result<UploadedSecrets, SealError> {
        key.open(&self.sealed, &identity(tenant, id, &self.readable))
    }

    /// The same under another key.
    pub(super) fn reseal(
        &self,
        tenant: &TenantId,
        id: &str,
        old: &SealingKey,
        new: &SealingKey,
    ) -> Result<Self, SealError> {
        let sealed = old.reseal(&self.sealed, &identity(tenant, id, &self.readable), new)?;
        Ok(Self { readable: self.readable.clone(), sealed })
    }
}

fn identity<'a>(tenant: &'a TenantId, id: &'a str, readable: &'a [u8]) -> [&'a [u8]; 4] {
    [b"application", tenant.as_str().as_bytes(), id.as_bytes(), readable]
}

fn corrupt(why: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt(why.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::FeedbackList;
    use crate::tests::{acme, application, open, secrets, with_both};
    use pushlet_credential::Secret;

    #[test]
    fn a_record_opens_as_itself_alone() {
        let tenant = TenantId::new("acme");
        let key = SealingKey::generate().unwrap();
        let mut secrets = UploadedSecrets::default();
        secrets.insert("gcm_api_key", Secret::new(b"sesame".to_vec()));
        let record = contract::Application {
            id: "app".into(),
            environment: Environment::Development,
            settings: vec![("apns_topic".into(), "com.example".into())],
            credential: None,
        };
        let application = RegisteredApplication {
            record: record.clone(),
            provider: "gcm".into(),
            credential: None,
            feedback: Arc::new(FeedbackList::new(1)),
            places: Arc::new(Semaphore::new(1)),
            identity: OnceLock::new(),
            unreached: Default::default(),
        };
        let description = ApplicationDescription::new(&application, 7);
        let bytes = ApplicationRecord::new(&tenant, "app", &description, &secrets, &key).unwrap().to_bytes();
        let read = ApplicationRecord::from_bytes(&bytes).unwrap();
        assert_eq!(read.description().unwrap(), description);
        assert_eq!(read.description().unwrap().record("app"), record);
        assert!(read.secrets(&tenant, "app", &key).is_ok());
        assert!(read.secrets(&tenant, "other", &key).is_err());
        assert!(read.secrets(&TenantId::new("other"), "app", &key).is_err());

        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("com.example") && !text.contains("sesame"));
        let at = text.find("development").unwrap();
        let mut changed = bytes.clone();
        changed[at] = b'D';
        let changed = ApplicationRecord::from_bytes(&changed).unwrap();
        assert!(changed.description().is_ok() && changed.secrets(&tenant, "app", &key).is_err());
        for length in 0..bytes.len() {
            let cut = ApplicationRecord::from_bytes(&bytes[..length]);
            assert!(cut.is_err() || cut.unwrap().secrets(&tenant, "app", &key).is_err());
        }
    }

    #[test]
    fn an_application_of_a_file_is_changed_by_files_alone() {
        with_both(|storage| {
            let registry = open(&storage);
            let mac = registry.file_mac(&[b"a", b"bc"]);
            assert_ne!(mac, registry.file_mac(&[b"ab", b"c"]));
            let put = |registry: &Registry| {
                registry.put(&acme(), application("app", "a"), &secrets("x"), 9).map(drop)
            };
            registry.put_from_file(&acme(), application("app", "a"), &secrets("x"), mac.clone()).unwrap();
            registry.set_files(true);
            let codes = [put(&registry).unwrap_err(), registry.remove(&acme(), "app").err().unwrap()];
            assert!(codes.iter().all(|error| error.code == "application_from_file"));
            assert!(registry.is_as_file(&acme(), "app", &mac));
            drop(registry);
            let registry = open(&storage);
            assert!(registry.is_as_file(&acme(), "app", &mac) && mac == registry.file_mac(&[b"a", b"bc"]));
            put(&registry).unwrap();
            assert!(!registry.is_as_file(&acme(), "app", &mac), "it is its caller's from now on");
        });
    }
}
