//! Where records are kept: tables of bytes, changed by batches that happen as a whole or not at all; and how the
//! common parts of records are written.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use super::record::ChangeLog;
pub use super::record::{RecordKey, Table};
use pushlet_credential::SealError;
use pushlet_model::error::{Error, Kind};

/// Stores records, for as long as the implementation promises. All methods block.
///
/// What every implementation promises is in one suite of tests (`conformance.rs`), which all of them pass.
pub trait Storage: Send + Sync {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError>;

    /// Returns all records whose key begins with the parts of `prefix`, in the order of their keys.
    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError>;

    /// Makes all changes, in their order, or none. They are kept, and seen by [`Storage::get`], when it returns.
    /// [`StorageError::Conflict`]: a [`StorageChange::Replace`] did not find what it expected.
    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError>;

    /// Returns the log of the keys that change, whoever changes them.
    fn log(&self) -> &ChangeLog;

    /// Returns true if other processes change the records too, so that the log has to be followed.
    fn is_shared(&self) -> bool {
        false
    }

    /// Asks for a record that was just written elsewhere, if there are others who write. Returns true if it is there now.
    fn look_up(&self, _table: Table, _key: &RecordKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// Checks that there is room for changes and that they can be written.
    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns a file of [`super::FileStorage`] with all records of one moment, without a name; None: they are in no
    /// file.
    fn copy(&self) -> Result<Option<File>, StorageError> {
        Ok(None)
    }

    /// Keeps a copy of the records as they are, before they are brought from this format to the next.
    fn keep_format(&self, _format: u32) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns true if records outlive the process.
    fn is_durable(&self) -> bool;
}

/// One change of a batch.
#[derive(Debug, Clone)]
pub enum StorageChange {
    Put(Table, RecordKey, Vec<u8>),
    /// Puts a record in place of one that is known: compare and set.
    Replace {
        table: Table,
        key: RecordKey,
        /// None: there must be no such record.
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    },
    Delete(Table, RecordKey),
    /// All records whose key begins with these parts.
    DeleteAll(Table, RecordKey),
}

impl StorageChange {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Put(table, ..) | Self::Delete(table, _) | Self::DeleteAll(table, _) => *table,
            Self::Replace { table, .. } => *table,
        }
    }

    /// Returns about how many bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        let (key, value) = match self {
            Self::Put(_, key, value) => (key, value.len()),
            Self::Replace { key, expected, value, .. } => {
                (key, value.len() + expected.as_ref().map_or(0, Vec::len))
            }
            Self::Delete(_, key) | Self::DeleteAll(_, key) => (key, 0),
        };
        key.as_bytes().len() + value + 64
    }
}

/// Why records cannot be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The operator must make room.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The operator must check the disk.
    #[error("the file cannot be read or written: {0}")]
    Io(String),
    #[error("the file is in use by another process")]
    InUse,
    /// The fleet's registry cannot be reached, or has no quorum. A change may have been made all the same.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// Another change was faster.
    #[error("a record was changed meanwhile")]
    Conflict,
    #[error("a record is too large for the registry: {0}")]
    TooLarge(String),
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    #[error(
        "the file is of format {found}, written by a newer version of this program; this one knows {known}"
    )]
    Newer { found: u32, known: u32 },
    /// Changing it here would lose what this program does not know.
    #[error("the record was written by a newer version of this program")]
    NewerRecord,
    #[error("a record of the table {0} was not written by a server that has the key")]
    Changed(&'static str),
    #[error("the key is not the one that this registry is sealed with")]
    WrongKey,
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full(_) | StorageError::Io(_) | StorageError::InUse => {
                let message = "this server cannot keep anything now, try again later";
                Self::new(Kind::Overloaded, "registry_unavailable", message)
                    .after(Duration::from_secs(5))
                    .caused_by(error)
            }
            StorageError::Unreachable(_) => {
                let message =
                    "the registry of this fleet cannot be changed now, try again later; sends go on";
                Self::new(Kind::Overloaded, "registry_unreachable", message)
                    .after(Duration::from_secs(5))
                    .caused_by(error)
            }
            StorageError::Conflict => {
                let message = "another request changed the same thing at the same moment, try again";
                Self::new(Kind::Conflict, "changed_meanwhile", message)
            }
            StorageError::NewerRecord => {
                let message = "a newer server of this fleet wrote this, and this one can neither use nor change it: ask that one";
                Self::new(Kind::Overloaded, "registry_newer", message)
            }
            StorageError::TooLarge(_) => {
                let message = "this is too large to be kept";
                Self::new(Kind::Invalid, "too_large_to_keep", message).caused_by(error)
            }
            _ => Self::internal(error),
        }
    }
}

/// The version of this program's records of tenants, applications and components. A newer program, which writes a greater
/// one, may mean other things by the same fields: such a record is neither used nor changed. A record without a version is
/// of an older one.
pub(super) const RECORD_VERSION: u32 = 1;

#[derive(Deserialize)]
struct VersionedRecord {
    #[serde(default)]
    v: u32,
}

/// An error if a newer program wrote a record, which is JSON.
pub(super) fn ensure_version(record: &[u8]) -> Result<(), StorageError> {
    match serde_json::from_slice::<VersionedRecord>(record) {
        Ok(record) if record.v > RECORD_VERSION => Err(StorageError::NewerRecord),
        // Whoever reads the record says what is wrong with it.
        _ => Ok(()),
    }
}

/// An error if a record has something that the same record lacks when this program writes it: a newer one did, and what
/// it says must not be lost. Both are JSON.
pub(super) fn ensure_known(stored: &[u8], written: &[u8]) -> Result<(), StorageError> {
    ensure_version(stored)?;
    let parse = |bytes| serde_json::from_slice::<Value>(bytes).map_err(|_| cut_off("a record"));
    match is_covered(&parse(stored)?, &parse(written)?) {
        true => Ok(()),
        false => Err(StorageError::NewerRecord),
    }
}

fn is_covered(stored: &Value, written: &Value) -> bool {
    match (stored, written) {
        (Value::Object(stored), Value::Object(written)) => stored.iter().all(|(name, value)| {
            value.is_null() || written.get(name).is_some_and(|written| is_covered(value, written))
        }),
        (Value::Array(stored), Value::Array(written)) => {
            stored.len() == written.len()
                && stored.iter().zip(written).all(|(stored, written)| is_covered(stored, written))
        }
        _ => true,
    }
}

pub(super) fn cut_off(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} cannot be read"))
}

/// Returns milliseconds since the Unix epoch.
pub(super) fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time that is this many milliseconds after the Unix epoch.
pub(super) fn from_unix(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

/// The default storage: records that end with the process.
#[derive(Default)]
pub struct MemoryStorage {
    records: RwLock<MemoryRecords>,
    log: ChangeLog,
}

type MemoryRecords = BTreeMap<(Table, RecordKey), Vec<u8>>;
/// What changes replaced, in their order.
type Replaced = Vec<((Table, RecordKey), Option<Vec<u8>>)>;

impl Storage for MemoryStorage {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.records.read().get(&(table, key.clone())).cloned())
    }

    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
        let records = self.records.read();
        Ok(within(&records, table, prefix).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError> {
        let mut records = self.records.write();
        let mut replaced = Replaced::new();
        let applied = changes.iter().try_for_each(|change| apply(&mut records, change, &mut replaced));
        if let Err(error) = applied {
            for (place, old) in replaced.into_iter().rev() {
                match old {
                    Some(old) => records.insert(place, old),
                    None => records.remove(&place),
                };
            }
            return Err(error);
        }
        self.log.append(replaced.into_iter().map(|(place, _)| place));
        Ok(())
    }

    fn log(&self) -> &ChangeLog {
        &self.log
    }

    fn is_durable(&self) -> bool {
        false
    }
}

fn apply(
    records: &mut MemoryRecords,
    change: &StorageChange,
    replaced: &mut Replaced,
) -> Result<(), StorageError> {
    match change {
        StorageChange::Put(table, key, value) | StorageChange::Replace { table, key, value, .. } => {
            let place = (*table, key.clone());
            if let StorageChange::Replace { expected, .. } = change
                && records.get(&place) != expected.as_ref()
            {
                return Err(StorageError::Conflict);
            }
            let old = records.insert(place.clone(), value.clone());
            replaced.push((place, old));
        }
        StorageChange::Delete(table, key) => {
            let place = (*table, key.clone());
            replaced.extend(records.remove(&place).map(|old| (place, Some(old))));
        }
        StorageChange::DeleteAll(table, prefix) => {
            let places: Vec<_> = within(records, *table, prefix).map(|(place, _)| place.clone()).collect();
            for place in places {
                replaced.extend(records.remove(&place).map(|old| (place, Some(old))));
            }
        }
    }
    Ok(())
}

fn within<'a>(
    records: &'a MemoryRecords,
    table: Table,
    prefix: &RecordKey,
) -> impl Iterator<Item = (&'a (Table, RecordKey), &'a Vec<u8>)> + use<'a> {
    let end = prefix.end().map(|end| (table, end));
    let all = records.range((Bound::Included((table, prefix.clone())), Bound::Unbounded));
    all.take_while(move |(key, _)| key.0 == table && end.as_ref().is_none_or(|end| *key < end))
}
