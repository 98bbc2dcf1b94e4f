//! Records that end with the process.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::storage::{RecordKey, Storage, StorageChange, StorageError, Table};

/// The default storage.
#[derive(Default)]
pub struct MemoryStorage(RwLock<MemoryRecords>);

type MemoryRecords = BTreeMap<(Table, RecordKey), Vec<u8>>;

impl Storage for MemoryStorage {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
        let records = self.0.read();
        Ok(records.get(&(table, key.clone())).cloned())
    }

    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
        let records = self.0.read();
        Ok(within(&records, table, prefix).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError> {
        let mut records = self.0.write();
        for change in changes {
            match change {
                StorageChange::Put(table, key, value) => {
                    records.insert((*table, key.clone()), value.clone());
                }
                StorageChange::Delete(table, key) => {
                    records.remove(&(*table, key.clone()));
                }
                StorageChange::DeleteAll(table, prefix) => {
                    let keys: Vec<_> = within(&records, *table, prefix).map(|(key, _)| key.clone()).collect();
                    keys.iter().for_each(|key| drop(records.remove(key)));
                }
            }
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

fn within<'a>(
    records: &'a MemoryRecords,
    table: Table,
    prefix: &RecordKey,
) -> impl Iterator<Item = (&'a (Table, RecordKey), &'a Vec<u8>)> {
    let end = prefix.end().map(|end| (table, end));
    let all = records.range((Bound::Included((table, prefix.clone())), Bound::Unbounded));
    all.take_while(move |(key, _)| key.0 == table && end.as_ref().is_none_or(|end| *key < end))
}
