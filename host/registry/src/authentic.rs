//! Records that grant something: a tenant with its keys and limits, a component that is run. Each is written with
//! an HMAC-SHA256 before it, over its table, its key and itself, under a secret that is sealed with the
//! registry's key: one who can write to the file and does not have that key cannot change one or move it to
//! another place. What cannot be told is that a record is missing, or that an older file was put back.

use super::storage::{RecordKey, Storage, StorageChange, StorageError, Table};
use pushlet_credential::{KeyHash, KeyHasher};

/// The tables of such records.
const TABLES: [Table; 2] = [Table::Tenants, Table::Versions];

/// Puts a record.
pub(super) fn put(hasher: &KeyHasher, table: Table, key: RecordKey, record: &[u8]) -> StorageChange {
    let mac = hasher.authenticate(&identity(table, &key, record));
    StorageChange::Put(table, key, [mac.as_slice(), record].concat())
}

/// All records of a table, by key. `Err`: also where one is not as it was put.
pub(super) fn scan(
    storage: &dyn Storage,
    hasher: &KeyHasher,
    table: Table,
) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
    let read = |(key, bytes): (RecordKey, Vec<u8>)| {
        let (mac, record) = bytes.split_first_chunk::<{ size_of::<KeyHash>() }>().ok_or(changed(table))?;
        if !hasher.is_authentic(&identity(table, &key, record), mac) {
            return Err(changed(table));
        }
        Ok((key, record.to_vec()))
    };
    storage.scan(table, &RecordKey::new(&[]))?.into_iter().map(read).collect()
}

/// All such records as they are put, from a registry that has them bare.
pub(super) fn bare(storage: &dyn Storage) -> Result<Vec<(Table, RecordKey, Vec<u8>)>, StorageError> {
    let mut all = Vec::new();
    for table in TABLES {
        let records = storage.scan(table, &RecordKey::new(&[]))?;
        all.extend(records.into_iter().map(|(key, record)| (table, key, record)));
    }
    Ok(all)
}

fn identity<'a>(table: Table, key: &'a RecordKey, record: &'a [u8]) -> [&'a [u8]; 3] {
    [table.name().as_bytes(), key.as_bytes(), record]
}

fn changed(table: Table) -> StorageError {
    StorageError::Changed(table.name())
}
