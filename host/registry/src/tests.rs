#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;

use super::storage::from_unix;
use super::*;
use pushlet_credential::{ApiKey, Secret};
use pushlet_model::contract::{self, Environment};
use pushlet_model::tenant::{Scope, Scopes, TenantLimits};

/// A folder that is gone at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("pushlet-registry-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn key() -> SealingKey {
    SealingKey::from_hex(&"5e".repeat(32)).unwrap()
}

pub(super) fn application(id: &str, setting: &str) -> RegisteredApplication {
    RegisteredApplication {
        record: contract::Application {
            id: id.to_owned(),
            environment: Environment::Development,
            settings: vec![("setting".into(), setting.to_owned())],
            credential: None,
        },
        provider: "gcm".into(),
        credential: None,
        feedback: Arc::new(FeedbackList::new(3)),
        places: Arc::new(Semaphore::new(1)),
        identity: OnceLock::new(),
        unreached: Default::default(),
    }
}

pub(super) fn secrets(value: &str) -> UploadedSecrets {
    let mut secrets = UploadedSecrets::default();
    secrets.insert("secret", Secret::new(value.as_bytes().to_vec()));
    secrets
}

pub(super) fn version(tenant: &TenantId, component: &[u8], activated: u64) -> ComponentVersion {
    ComponentVersion {
        tenant: tenant.clone(),
        name: "webhook".into(),
        digest: hex::encode(digest(&SHA256, component)),
        size: component.len() as u64,
        uploaded: from_unix(1),
        activated: from_unix(activated),
    }
}

pub(super) fn open(storage: &Arc<dyn Storage>) -> Registry {
    Registry::open(storage.clone(), key(), 3).unwrap()
}

pub(super) fn acme() -> TenantId {
    TenantId::new("acme")
}

fn tokens(dead: &[DeadToken]) -> Vec<&str> {
    dead.iter().map(|dead| dead.device_token.as_str()).collect()
}

/// Runs a test with both kinds of storage.
pub(super) fn with_both(test: impl Fn(Arc<dyn Storage>)) {
    test(Arc::new(MemoryStorage::default()));
    let folder = Folder::new();
    test(Arc::new(FileStorage::open(folder.path()).unwrap()));
}

#[test]
fn applications_are_there_after_a_restart() {
    with_both(|storage| {
        let registry = open(&storage);
        let other = TenantId::new("acme2");
        registry.put(&acme(), application("b", "old"), &secrets("sesame"), 2).unwrap();
        let (new, old) = registry.put(&acme(), application("b", "new"), &secrets("sesame2"), 2).unwrap();
        let old = old.unwrap();
        assert_eq!(old.description.settings[0].1, "old");
        assert_eq!(new.description.created, old.description.created);
        assert!(new.description.updated() >= old.description.updated());
        registry.put(&acme(), application("a", "x"), &UploadedSecrets::default(), 2).unwrap();
        registry.put(&other, application("a", "theirs"), &UploadedSecrets::default(), 2).unwrap();
        let full =
            registry.put(&acme(), application("c", "x"), &UploadedSecrets::default(), 2).err().unwrap();
        assert_eq!(full.code, "limit_applications");

        let registry = open(&storage);
        let ids: Vec<_> = registry.list(&acme()).iter().map(|entry| entry.id.clone()).collect();
        assert_eq!((ids, registry.all().len()), (vec!["a".to_owned(), "b".to_owned()], 3));
        let entry = registry.get(&acme(), "b").unwrap();
        assert!(entry.opened().is_none());
        assert_eq!(entry.description, new.description);
        assert_eq!(entry.description.record("b"), application("b", "new").record);
        assert_eq!(registry.secrets(&acme(), &entry).unwrap().reveal("secret"), Some(&b"sesame2"[..]));

        registry.remove(&acme(), "b").unwrap();
        assert_eq!(registry.remove(&acme(), "b").err().unwrap().code, "application_not_found");
        assert_eq!(registry.secrets(&acme(), &entry).err().unwrap().code, "application_not_found");
        assert_eq!(open(&storage).get(&acme(), "b").err().unwrap().code, "application_not_found");
    });
}

#[tokio::test]
async fn an_application_is_opened_once_and_an_error_is_tried_again() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    open(&storage).put(&acme(), application("a", "x"), &UploadedSecrets::default(), 1).unwrap();
    let registry = open(&storage);
    let entry = registry.get(&acme(), "a").unwrap();
    let failed = entry.application(|| async { Err(Error::internal("no")) }).await;
    assert!(failed.is_err() && entry.opened().is_none());
    let first = entry.application(|| async { Ok(application("a", "x")) }).await.unwrap();
    let second = entry.application(|| async { Err(Error::internal("no")) }).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn secrets_of_a_replaced_application_are_not_taken_for_the_old_one() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let registry = open(&storage);
    let (old, _) = registry.put(&acme(), application("a", "old"), &secrets("one"), 1).unwrap();
    registry.put(&acme(), application("a", "new"), &secrets("two"), 1).unwrap();
    assert_eq!(registry.secrets(&acme(), &old).err().unwrap().code, "application_replaced");
}

#[test]
fn feedback_is_there_after_a_restart_until_it_is_read() {
    let folder = Folder::new();
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(folder.path()).unwrap());
    let registry = open(&storage);
    registry.put(&acme(), application("a", "x"), &UploadedSecrets::default(), 1).unwrap();
    for (token, since) in [("one", 1), ("two", 2), ("three", 3), ("four", 4), ("two", 5)] {
        registry.get(&acme(), "a").unwrap().feedback.report(token, from_unix(since), None);
    }
    // A new registration of the application keeps them.
    registry.put(&acme(), application("a", "y"), &UploadedSecrets::default(), 1).unwrap();

    let fewer = Registry::open(storage.clone(), key(), 2).unwrap();
    assert_eq!(storage.scan(Table::Feedback, &RecordKey::new(&[])).unwrap().len(), 2, "the newest stay");
    fewer.get(&acme(), "a").unwrap().feedback.report("five", from_unix(6), None);
    let dead = open(&storage).get(&acme(), "a").unwrap().feedback.take();
    assert_eq!(tokens(&dead), ["two", "five"]);
    assert_eq!(dead[0].since, from_unix(5));
    assert!(open(&storage).get(&acme(), "a").unwrap().feedback.take().is_empty());
}

#[test]
fn what_is_reported_of_a_removed_application_is_not_kept() {
    let folder = Folder::new();
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(folder.path()).unwrap());
    let registry = open(&storage);
    registry.put(&acme(), application("a", "x"), &UploadedSecrets::default(), 1).unwrap();
    let removed = registry.remove(&acme(), "a").unwrap();
    removed.feedback.report("late", from_unix(1), None);
    registry.put(&acme(), application("a", "x"), &UploadedSecrets::default(), 1).unwrap();
    assert!(open(&storage).get(&acme(), "a").unwrap().feedback.take().is_empty());
}

#[test]
fn components_are_there_after_a_restart() {
    with_both(|storage| {
        let registry = open(&storage);
        for (component, activated) in [(b"one", 1), (b"two", 2)] {
            registry.put_component(&version(&acme(), component, activated), component).unwrap();
        }
        let one = version(&acme(), b"one", 3);
        registry.activate_component(&acme(), "webhook", &one.digest, one.activated).unwrap();
        let unknown = registry.activate_component(&acme(), "webhook", "00", from_unix(4)).unwrap_err();
        assert_eq!(unknown.code, "version_not_found");

        let registry = open(&storage);
        assert!(registry.versions().contains(&one));
        assert_eq!(registry.component_usage(&acme()), (2, 6));
        assert_eq!(registry.component(&acme(), "webhook", &one.digest).unwrap().unwrap(), b"one");
        assert_eq!(registry.component(&TenantId::new("other"), "webhook", &one.digest).unwrap(), None);
        registry.remove_component(&acme(), "webhook", &one.digest).unwrap();
        let registry = open(&storage);
        assert_eq!(registry.versions(), [version(&acme(), b"two", 2)]);
        assert_eq!(registry.component(&acme(), "webhook", &one.digest).unwrap(), None);
    });
}

#[test]
fn a_component_that_was_changed_is_not_loaded() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let registry = open(&storage);
    let one = version(&acme(), b"one", 1);
    registry.put_component(&one, b"one").unwrap();
    let place = RecordKey::new(&["acme", "webhook", &one.digest]);
    storage.commit(&[StorageChange::Put(Table::Components, place, b"two".to_vec())]).unwrap();
    assert!(registry.component(&acme(), "webhook", &one.digest).is_err());
}

#[test]
fn a_tenant_goes_with_all_that_is_its_own() {
    with_both(|storage| {
        let registry = open(&storage);
        let (acme, other) = (acme(), TenantId::new("acme2"));
        let key = ApiKey::generate().unwrap();
        let hash = registry.hasher().hash("acme", key.reveal());
        let record = TenantRecord {
            suspended: true,
            limits: TenantLimits { components: Some(7), ..TenantLimits::default() },
            keys: vec![KeyRecord {
                id: key.id(),
                hash,
                created: from_unix(5),
                expires: Some(from_unix(9)),
                label: Some("ci".into()),
                scopes: Scopes::of(&[Scope::Send]).unwrap(),
            }],
            ..TenantRecord::new(from_unix(5))
        };
        for tenant in [&acme, &other] {
            registry.put_tenant(tenant, None, &record).unwrap();
            registry.put(tenant, application("a", "x"), &UploadedSecrets::default(), 1).unwrap();
            registry.get(tenant, "a").unwrap().feedback.report("dead", from_unix(1), None);
            registry.put_component(&version(tenant, b"one", 1), b"one").unwrap();
        }
        let registry = open(&storage);
        assert_eq!(
            registry.tenants().unwrap(),
            [(acme.clone(), record.clone()), (other.clone(), record.clone())]
        );
        assert!(registry.hasher().matches("acme", key.reveal(), &hash));

        registry.remove_tenant(&acme).unwrap();
        assert_eq!((registry.count(&acme), registry.component_usage(&acme)), (0, (0, 0)));
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
            assert!(storage.scan(table, &RecordKey::new(&["acme"])).unwrap().is_empty(), "{table:?}");
        }
        let registry = open(&storage);
        assert_eq!(registry.tenants().unwrap(), [(other.clone(), record.clone())]);
        assert_eq!((registry.count(&other), registry.component_usage(&other)), (1, (1, 3)));
    });
}

/// What one can do who may write to the file and does not have the key.
#[test]
fn who_has_no_key_grants_nothing() {
    with_both(|storage| {
        let registry = open(&storage);
        let suspended = TenantRecord { suspended: true, ..TenantRecord::new(from_unix(5)) };
        registry.put_tenant(&acme(), None, &suspended).unwrap();
        registry.put_tenant(&TenantId::new("other"), None, &TenantRecord::new(from_unix(5))).unwrap();
        for component in [b"one", b"two"] {
            registry.put_component(&version(&acme(), component, 1), component).unwrap();
        }
        drop(registry);
        let refused = |table: Table, place: &RecordKey, record: Vec<u8>| {
            let before = storage.get(table, place).unwrap();
            storage.commit(&[StorageChange::Put(table, place.clone(), record)]).unwrap();
            let opened = Registry::open(storage.clone(), key(), 3).and_then(|registry| registry.tenants());
            assert_eq!(opened.err(), Some(StorageError::Changed(table.name())));
            let back = before.map_or(StorageChange::Delete(table, place.clone()), |before| {
                StorageChange::Put(table, place.clone(), before)
            });
            storage.commit(&[back]).unwrap();
            assert!(Registry::open(storage.clone(), key(), 3).unwrap().tenants().is_ok());
        };
        for table in [Table::Tenants, Table::Versions] {
            let all = storage.scan(table, &RecordKey::new(&[])).unwrap();
            let [(place, record), (_, other)] = &all[..] else { panic!("two of each") };
            for at in 0..record.len() {
                let mut changed = record.clone();
                changed[at] ^= 1;
                refused(table, place, changed);
            }
            if record != other {
                refused(table, place, other.clone());
            }
            refused(table, &RecordKey::new(&["planted"]), record.clone());
            refused(table, place, record[32..].to_vec());
            refused(table, place, Vec::new());
        }
        // Nor by having the file brought up to this format once more, nor by taking what is sealed away.
        storage
            .commit(&[StorageChange::Put(Table::Meta, RecordKey::new(&["format"]), b"1".to_vec())])
            .unwrap();
        let again = Registry::open(storage.clone(), key(), 3).err();
        assert!(matches!(again, Some(StorageError::Corrupt(_))), "{again:?}");
        storage.commit(&[StorageChange::Delete(Table::Meta, RecordKey::new(&["key"]))]).unwrap();
        let anew = Registry::open(storage.clone(), key(), 3).err();
        assert!(matches!(anew, Some(StorageError::Corrupt(_))), "{anew:?}");
    });
}

#[test]
fn records_of_the_first_format_are_authenticated_once() {
    with_both(|storage| {
        write_first_format(&storage);
        let registry = open(&storage);
        assert_eq!(registry.tenants().unwrap(), [(acme(), TenantRecord::new(from_unix(5)))]);
        assert_eq!(registry.versions(), [version(&acme(), b"one", 1)]);
        assert_eq!(open(&storage).versions().len(), 1);
    });
}

pub(super) fn write_first_format(storage: &Arc<dyn Storage>) {
    {
        let registry = open(storage);
        registry.put_tenant(&acme(), None, &TenantRecord::new(from_unix(5))).unwrap();
        registry.put_component(&version(&acme(), b"one", 1), b"one").unwrap();
        drop(registry);
        // As the first format had them: bare, and the secret without a note.
        for table in [Table::Tenants, Table::Versions] {
            for (place, record) in storage.scan(table, &RecordKey::new(&[])).unwrap() {
                storage.commit(&[StorageChange::Put(table, place, record[32..].to_vec())]).unwrap();
            }
        }
        let (place, identity): (_, &[&[u8]]) = (RecordKey::new(&["key"]), &[b"meta", b"key"]);
        let sealed = storage.get(Table::Meta, &place).unwrap().unwrap();
        let mut first = UploadedSecrets::default();
        let secret = key().open(&sealed, identity).unwrap();
        first.insert("api_key_hash_key", Secret::new(secret.reveal("api_key_hash_key").unwrap().to_vec()));
        let format = StorageChange::Put(Table::Meta, RecordKey::new(&["format"]), b"1".to_vec());
        let sealed = key().seal(&first, identity).unwrap();
        storage.commit(&[StorageChange::Put(Table::Meta, place, sealed), format]).unwrap();
    }
}

#[test]
fn another_key_opens_after_rotation_and_the_old_one_does_not() {
    with_both(|storage| {
        let new = || SealingKey::from_hex(&"0a".repeat(32)).unwrap();
        let registry = open(&storage);
        registry.put(&acme(), application("a", "x"), &secrets("sesame"), 9).unwrap();
        registry.put(&TenantId::new("b"), application("a", "x"), &secrets("sesame2"), 9).unwrap();
        let hash = registry.hasher().hash("acme", "key");
        drop(registry);
        assert_eq!(Registry::open(storage.clone(), new(), 3).err(), Some(StorageError::WrongKey));
        assert_eq!(rotate_key(&*storage, &key(), &new()).unwrap(), 3);

        assert_eq!(Registry::open(storage.clone(), key(), 3).err(), Some(StorageError::WrongKey));
        let registry = Registry::open(storage, new(), 3).unwrap();
        assert_eq!(registry.hasher().hash("acme", "key"), hash);
        for (tenant, secret) in [("acme", "sesame"), ("b", "sesame2")] {
            let tenant = TenantId::new(tenant);
            let entry = registry.get(&tenant, "a").unwrap();
            let opened = registry.secrets(&tenant, &entry).unwrap();
            assert_eq!(opened.reveal("secret"), Some(secret.as_bytes()));
        }
    });
}

#[test]
fn no_secret_stands_in_the_file() {
    let folder = Folder::new();
    let registry = open(&(Arc::new(FileStorage::open(folder.path()).unwrap()) as Arc<dyn Storage>));
    registry.put(&acme(), application("a", "in the clear"), &secrets("open sesame"), 1).unwrap();
    drop(registry);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file).unwrap()).collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("in the clear") && !holds("open sesame") && !holds(&"5e".repeat(32)));
}
