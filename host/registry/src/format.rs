//! The registry's own records: the version of its format, the secret that is sealed with its key, and the MACs of the
//! records that grant something.
//!
//! A tenant with its keys and limits, and a component that is run, are each stored behind an HMAC-SHA256 over their
//! table, their key and themselves, under a secret that is sealed with the registry's key. Without that key, write
//! access to the file is not enough to change such a record or to move it. Two things cannot be detected: that a record
//! is missing, and that an older file was put back.

use std::time::Duration;

use super::application::ApplicationRecord;
use super::storage::{RecordKey, Storage, StorageChange, StorageError, Table};
use pushlet_credential::{KeyHash, KeyHasher, SealError, SealingKey};
use pushlet_model::tenant::TenantId;

/// The version of this program's format. What changes it comes with a step in [`STEPS`].
pub const FORMAT: u32 = 3;

/// Brings a registry of format `n` (its index) to format `n + 1`; the new number is written with it.
type FormatStep = fn(&dyn Storage, &SealingKey) -> Result<Vec<StorageChange>, StorageError>;
/// Format 0 is a file that nothing was written to yet.
const STEPS: [FormatStep; FORMAT as usize] = [|_, _| Ok(Vec::new()), authenticate, restrict];

/// How long the records of another node that starts at the same moment are waited for.
const LONGEST_SETTLE: Duration = Duration::from_secs(10);

const FORMAT_KEY: &str = "format";
pub(super) const HASH_KEY: &str = "key";
const IDENTITY: &[&[u8]] = &[b"meta", b"key"];

/// Brings the registry to this program's format, step by step.
pub(super) fn migrate(storage: &dyn Storage, key: &SealingKey) -> Result<(), StorageError> {
    migrate_by(storage, key, &STEPS)
}

fn migrate_by(storage: &dyn Storage, key: &SealingKey, steps: &[FormatStep]) -> Result<(), StorageError> {
    let found = version(storage)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StorageError::Newer { found, known });
    }
    if (1..known).contains(&found) {
        storage.keep_format(found)?;
    }
    for (number, step) in (1..).zip(steps).skip(found as usize) {
        let mut changes = step(storage, key)?;
        let number: u32 = number;
        // In the step's own batch: a crash between two steps repeats neither, and of two nodes one takes it.
        changes.push(StorageChange::Replace {
            table: Table::Meta,
            key: RecordKey::new(&[FORMAT_KEY]),
            expected: storage.get(Table::Meta, &RecordKey::new(&[FORMAT_KEY]))?,
            value: number.to_string().into_bytes(),
        });
        match storage.commit(&changes) {
            // Another node took the step.
            Err(StorageError::Conflict) if storage.is_shared() => return settle(storage, known),
            kept => kept?,
        }
    }
    Ok(())
}

/// Waits until the steps that another node takes have been taken.
fn settle(storage: &dyn Storage, wanted: u32) -> Result<(), StorageError> {
    let mut seen = storage.log().last();
    for _ in 0..LONGEST_SETTLE.as_secs() {
        if version(storage)? >= wanted {
            return Ok(());
        }
        seen = storage.log().after(seen, Duration::from_secs(1)).until;
    }
    Err(StorageError::Conflict)
}

fn version(storage: &dyn Storage) -> Result<u32, StorageError> {
    let Some(bytes) = storage.get(Table::Meta, &RecordKey::new(&[FORMAT_KEY]))? else { return Ok(0) };
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| StorageError::Corrupt("the version of its format cannot be read".into()))
}

/// Format 2: records that grant something are authenticated. What is sealed says from then on that they are, so
/// that an attacker cannot have forged records authenticated by calling the file an older one.
fn authenticate(storage: &dyn Storage, key: &SealingKey) -> Result<Vec<StorageChange>, StorageError> {
    let (place, records) = (RecordKey::new(&[HASH_KEY]), scan_bare(storage)?);
    let Some(sealed) = storage.get(Table::Meta, &place)? else {
        let is_new = records.is_empty().then(Vec::new);
        return is_new
            .ok_or_else(|| StorageError::Corrupt("what its records are authenticated with is gone".into()));
    };
    let mut secret = key.open(&sealed, IDENTITY).map_err(wrong_key)?;
    if !KeyHasher::begin_to_authenticate(&mut secret) {
        return Err(StorageError::Corrupt("it is not of the format that it says".into()));
    }
    let hasher = KeyHasher::new(secret).ok_or(StorageError::WrongKey)?;
    let mut changes = vec![StorageChange::Put(Table::Meta, place, key.seal(hasher.secret(), IDENTITY)?)];
    let put = |(table, key, record): (Table, RecordKey, Vec<u8>)| put_authentic(&hasher, table, key, &record);
    changes.extend(records.into_iter().map(put));
    Ok(changes)
}

/// Format 3: API keys may have scopes. A program that does not know them would let such a key do everything, so it
/// must not open the file.
fn restrict(_: &dyn Storage, _: &SealingKey) -> Result<Vec<StorageChange>, StorageError> {
    Ok(Vec::new())
}

/// Returns the secret that API keys are hashed with and records authenticated. If it opens, `key` is the right one.
pub(super) fn hasher(storage: &dyn Storage, key: &SealingKey) -> Result<KeyHasher, StorageError> {
    let place = RecordKey::new(&[HASH_KEY]);
    if let Some(sealed) = storage.get(Table::Meta, &place)? {
        let secret = key.open(&sealed, IDENTITY).map_err(wrong_key)?;
        return KeyHasher::new(secret).ok_or(StorageError::WrongKey);
    }
    let hasher = KeyHasher::generate().map_err(SealError::from)?;
    let value = key.seal(hasher.secret(), IDENTITY)?;
    let first = StorageChange::Replace { table: Table::Meta, key: place.clone(), expected: None, value };
    match storage.commit(&[first]) {
        Ok(()) => Ok(hasher),
        // Another node was faster: its secret is the fleet's.
        Err(StorageError::Conflict) if storage.is_shared() => {
            let mut seen = storage.log().last();
            while storage.get(Table::Meta, &place)?.is_none() {
                let next = storage.log().after(seen, LONGEST_SETTLE).until;
                if std::mem::replace(&mut seen, next) == next {
                    return Err(StorageError::Conflict);
                }
            }
            self::hasher(storage, key)
        }
        Err(error) => Err(error),
    }
}

/// Seals everything under another key, as a whole. Returns the number of records.
pub fn rotate_key(storage: &dyn Storage, old: &SealingKey, new: &SealingKey) -> Result<usize, StorageError> {
    migrate(storage, old)?;
    // A wrong old key must be refused before anything is sealed again.
    hasher(storage, old)?;
    let mut changes = Vec::new();
    let place = RecordKey::new(&[HASH_KEY]);
    if let Some(sealed) = storage.get(Table::Meta, &place)? {
        changes.push(StorageChange::Put(Table::Meta, place, old.reseal(&sealed, IDENTITY, new)?));
    }
    for (key, bytes) in storage.scan(Table::Applications, &RecordKey::new(&[]))? {
        let [tenant, id] = key.parts().ok_or_else(|| StorageError::Corrupt("a key is cut off".into()))?;
        let record = ApplicationRecord::from_bytes(&bytes)?.reseal(&TenantId::new(&tenant), &id, old, new)?;
        changes.push(StorageChange::Put(Table::Applications, key, record.to_bytes()));
    }
    storage.commit(&changes)?;
    Ok(changes.len())
}

fn wrong_key(error: SealError) -> StorageError {
    match error {
        SealError::NotOurs => StorageError::WrongKey,
        other => other.into(),
    }
}

/// The tables of such records.
const TABLES: [Table; 2] = [Table::Tenants, Table::Versions];

/// Puts a record.
pub(super) fn put_authentic(
    hasher: &KeyHasher,
    table: Table,
    key: RecordKey,
    record: &[u8],
) -> StorageChange {
    let value = authentic(hasher, table, &key, record);
    StorageChange::Put(table, key, value)
}

/// Returns a record as it is stored.
pub(super) fn authentic(hasher: &KeyHasher, table: Table, key: &RecordKey, record: &[u8]) -> Vec<u8> {
    let mac = hasher.authenticate(&mac_input(table, key, record));
    [mac.as_slice(), record].concat()
}

/// Returns the records of a table whose key begins with the parts of `prefix`, by key. An error too if one of them was changed.
pub(super) fn scan_authentic(
    storage: &dyn Storage,
    hasher: &KeyHasher,
    table: Table,
    prefix: &RecordKey,
) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
    let read = |(key, bytes): (RecordKey, Vec<u8>)| {
        let record = open_authentic(hasher, table, &key, &bytes)?;
        Ok((key, record))
    };
    storage.scan(table, prefix)?.into_iter().map(read).collect()
}

/// Returns one record; None: there is none. An error too if it was changed.
pub(super) fn get_authentic(
    storage: &dyn Storage,
    hasher: &KeyHasher,
    table: Table,
    key: &RecordKey,
) -> Result<Option<Vec<u8>>, StorageError> {
    let stored = storage.get(table, key)?;
    stored.map(|bytes| open_authentic(hasher, table, key, &bytes)).transpose()
}

/// Returns a stored record, if it is authentic.
pub(super) fn open_authentic(
    hasher: &KeyHasher,
    table: Table,
    key: &RecordKey,
    bytes: &[u8],
) -> Result<Vec<u8>, StorageError> {
    let (mac, record) = bytes.split_first_chunk::<{ size_of::<KeyHash>() }>().ok_or(changed(table))?;
    if !hasher.is_authentic(&mac_input(table, key, record), mac) {
        return Err(changed(table));
    }
    Ok(record.to_vec())
}

/// Returns all such records of a registry of format 1, which has them without a MAC.
pub(super) fn scan_bare(storage: &dyn Storage) -> Result<Vec<(Table, RecordKey, Vec<u8>)>, StorageError> {
    let mut all = Vec::new();
    for table in TABLES {
        let records = storage.scan(table, &RecordKey::new(&[]))?;
        all.extend(records.into_iter().map(|(key, record)| (table, key, record)));
    }
    Ok(all)
}

fn mac_input<'a>(table: Table, key: &'a RecordKey, record: &'a [u8]) -> [&'a [u8]; 3] {
    [table.name().as_bytes(), key.as_bytes(), record]
}

fn changed(table: Table) -> StorageError {
    StorageError::Changed(table.name())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::MemoryStorage;
    use super::*;

    fn put(storage: &MemoryStorage, key: &str, value: &[u8]) {
        storage.commit(&[StorageChange::Put(Table::Meta, RecordKey::new(&[key]), value.to_vec())]).unwrap();
    }

    #[test]
    fn a_new_registry_gets_this_format() {
        let (storage, key) = (MemoryStorage::default(), SealingKey::generate().unwrap());
        migrate(&storage, &key).unwrap();
        assert_eq!(version(&storage).unwrap(), FORMAT);
        migrate(&storage, &key).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_with_a_sentence() {
        let (storage, key) = (MemoryStorage::default(), SealingKey::generate().unwrap());
        put(&storage, FORMAT_KEY, b"9");
        let error = migrate(&storage, &key).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the file is of format 9, written by a newer version of this program; this one knows {FORMAT}"
            )
        );
        put(&storage, FORMAT_KEY, b"one");
        assert!(matches!(migrate(&storage, &key), Err(StorageError::Corrupt(_))));
    }

    #[test]
    fn every_step_is_taken_once_and_with_its_number() {
        let rename: FormatStep = |storage, _| {
            let value = storage.get(Table::Meta, &RecordKey::new(&["old"]))?.unwrap_or_default();
            let new = StorageChange::Put(Table::Meta, RecordKey::new(&["new"]), value);
            Ok(vec![new, StorageChange::Delete(Table::Meta, RecordKey::new(&["old"]))])
        };
        let fails: FormatStep = |_, _| Err(StorageError::Io("full".into()));
        let (storage, key) = (MemoryStorage::default(), SealingKey::generate().unwrap());
        put(&storage, "old", b"value");
        put(&storage, FORMAT_KEY, b"1");
        assert!(migrate_by(&storage, &key, &[fails, rename, fails]).is_err());
        assert_eq!(version(&storage).unwrap(), 2, "what was done is kept");
        assert_eq!(storage.get(Table::Meta, &RecordKey::new(&["new"])).unwrap().unwrap(), b"value");
        assert_eq!(storage.get(Table::Meta, &RecordKey::new(&["old"])).unwrap(), None);
        migrate_by(&storage, &key, &[fails, fails]).unwrap();
    }

    #[test]
    fn another_key_is_told_at_once() {
        let storage = MemoryStorage::default();
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        migrate(&storage, &key).unwrap();
        let hash = hasher(&storage, &key).unwrap().hash("acme", "key");
        assert_eq!(hasher(&storage, &key).unwrap().hash("acme", "key"), hash);
        assert_eq!(hasher(&storage, &other).err(), Some(StorageError::WrongKey));
        assert_eq!(rotate_key(&storage, &other, &key).err(), Some(StorageError::WrongKey));
        rotate_key(&storage, &key, &other).unwrap();
        assert_eq!(hasher(&storage, &other).unwrap().hash("acme", "key"), hash);
        assert_eq!(hasher(&storage, &key).err(), Some(StorageError::WrongKey));
    }
}
