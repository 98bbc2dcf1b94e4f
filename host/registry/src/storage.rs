//! Where records are kept: tables of bytes, changed by batches that happen as a whole or not at all; and how the
//! common parts of records are written.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use pushlet_credential::SealError;
use pushlet_model::error::{Error, Kind};

/// Stores records, for as long as the implementation promises. All methods block.
pub trait Storage: Send + Sync {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError>;

    /// Returns all records whose key begins with the parts of `prefix`, in the order of their keys.
    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError>;

    /// Makes all changes, in their order, or none. They are kept when it returns.
    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError>;

    /// Checks that there is room for changes and that they can be written.
    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns true if records outlive the process.
    fn is_durable(&self) -> bool;
}

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Records of the registry itself: `format`, `key`.
    Meta,
    /// By tenant.
    Tenants,
    /// By tenant and application.
    Applications,
    /// By tenant, application and order.
    Feedback,
    /// Metadata of a component: by tenant, name and digest.
    Versions,
    /// The component file: by tenant, name and digest.
    Components,
    /// Answers by `Idempotency-Key`: by tenant and key.
    Answers,
}

impl Table {
    pub const ALL: [Self; 7] = [
        Self::Meta,
        Self::Tenants,
        Self::Applications,
        Self::Feedback,
        Self::Versions,
        Self::Components,
        Self::Answers,
    ];

    /// Returns its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tenants => "tenants",
            Self::Applications => "applications",
            Self::Feedback => "feedback",
            Self::Versions => "versions",
            Self::Components => "components",
            Self::Answers => "answers",
        }
    }
}

/// A sequence of parts; sorted by the first, then the second. Each part ends with a byte 0, so that the
/// key of the first parts is the beginning of the whole one; a 0 or 1 within a part is written as two bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(Vec<u8>);

const END: u8 = 0;
const ESCAPE: u8 = 1;

impl RecordKey {
    pub fn new(parts: &[&str]) -> Self {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            for byte in part.bytes() {
                match byte {
                    END | ESCAPE => bytes.extend([ESCAPE, byte + 1]),
                    _ => bytes.push(byte),
                }
            }
            bytes.push(END);
        }
        Self(bytes)
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the first key that does not begin with this one; None: every key does.
    pub fn end(&self) -> Option<Self> {
        let mut bytes = self.0.clone();
        *bytes.last_mut()? = END + 1;
        Some(Self(bytes))
    }

    /// Returns the parts, if it is a key of `N` parts.
    pub fn parts<const N: usize>(&self) -> Option<[String; N]> {
        // Within a part, END is escaped: each one that is left ends a part.
        let whole = self.0.strip_suffix(&[END])?;
        let parts = whole.split(|byte| *byte == END).map(|part| String::from_utf8(unescaped(part)).ok());
        parts.collect::<Option<Vec<_>>>()?.try_into().ok()
    }
}

fn unescaped(part: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.iter();
    while let Some(byte) = rest.next() {
        match *byte {
            ESCAPE => bytes.extend(rest.next().map(|escaped| escaped.saturating_sub(1))),
            byte => bytes.push(byte),
        }
    }
    bytes
}

/// One change of a batch.
#[derive(Debug, Clone)]
pub enum StorageChange {
    Put(Table, RecordKey, Vec<u8>),
    Delete(Table, RecordKey),
    /// All records whose key begins with these parts.
    DeleteAll(Table, RecordKey),
}

impl StorageChange {
    /// Returns about how many bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        let (key, value) = match self {
            Self::Put(_, key, value) => (key, value.len()),
            Self::Delete(_, key) | Self::DeleteAll(_, key) => (key, 0),
        };
        key.0.len() + value + 64
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
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    #[error(
        "the file is of format {found}, written by a newer version of this program; this one knows {known}"
    )]
    Newer { found: u32, known: u32 },
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
            _ => Self::internal(error),
        }
    }
}

pub(super) fn cut_off(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} cannot be read"))
}

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

/// Returns milliseconds since the Unix epoch.
pub(super) fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time that is this many milliseconds after the Unix epoch.
pub(super) fn from_unix(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_their_parts_and_come_apart_again() {
        let parts = ["a\0b\u{1}c".to_owned(), String::new(), "ü".to_owned()];
        let key = RecordKey::new(&[&parts[0], &parts[1], &parts[2]]);
        assert_eq!(key.parts::<3>().unwrap(), parts);
        assert_eq!(key.parts::<2>(), None);
        let mut keys =
            [&["a", "b"][..], &["a\0", "a"], &["a", "a", "z"], &["a!", "a"], &["b"]].map(RecordKey::new);
        keys.sort();
        assert_eq!(
            keys,
            [&["a", "a", "z"][..], &["a", "b"], &["a\0", "a"], &["a!", "a"], &["b"]].map(RecordKey::new)
        );
    }

    #[test]
    fn a_prefix_covers_its_own_and_no_namesake() {
        let prefix = RecordKey::new(&["acme"]);
        let within = |key: &RecordKey| *key >= prefix && *key < prefix.end().unwrap();
        for own in [&["acme"][..], &["acme", ""], &["acme", "\0"], &["acme", "\u{10ffff}"]] {
            assert!(within(&RecordKey::new(own)), "{own:?}");
        }
        for other in [&["acm"][..], &["acme2"], &["acme\0", "a"], &["acme\u{1}", "a"], &["b"]] {
            assert!(!within(&RecordKey::new(other)), "{other:?}");
        }
        assert_eq!(RecordKey::new(&[]).end(), None);
    }
}
