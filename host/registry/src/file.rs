//! Records in one file, by redb: a copy-on-write B-tree whose commits are on the disk when they return.
//!
//! After a failure of the disk redb refuses everything until the file is opened again, so that is done then.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable as _, TableDefinition, TableError,
};

use super::record::ChangeLog;
use super::storage::{RecordKey, Storage, StorageChange, StorageError, Table};

/// In the folder that the operator chose.
const FILE: &str = "registry.redb";
/// What a node of a fleet knows of its registry.
const SNAPSHOT: &str = "fleet.redb";
/// A copy that is being made.
const COPY: &str = ".copy.redb";
/// A file that is written to the same folder to test whether there is room, and its size.
const PROBE: &str = ".probe";
const PROBE_SIZE: usize = 64 << 10;
/// Bytes of the file that are held in memory; redb's own choice is 1 GiB.
const CACHE: usize = 8 << 20;

type RecordTable = TableDefinition<'static, &'static [u8], &'static [u8]>;
type StorageOpener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The storage that outlives the process.
pub struct FileStorage {
    /// None: the file must be opened again.
    database: RwLock<Option<Database>>,
    opener: StorageOpener,
    /// None: it is not in a folder.
    folder: Option<PathBuf>,
    log: ChangeLog,
    /// Held while a copy is made.
    copying: Mutex<()>,
}

impl FileStorage {
    /// Opens the file in this folder; creates both if they do not exist.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Self::open_named(folder, FILE)
    }

    /// Opens the file in which a node of a fleet keeps what it knows; creates it if it does not exist.
    pub fn open_snapshot(folder: &Path) -> Result<Self, StorageError> {
        Self::open_named(folder, SNAPSHOT)
    }

    fn open_named(folder: &Path, name: &str) -> Result<Self, StorageError> {
        make_private(folder).map_err(|error| of_io(&error))?;
        let path = folder.join(name);
        let file = Self::with(Box::new(move || {
            let database = builder().create(&path)?;
            // Device tokens, settings and answers are readable in it.
            restrict(&path, 0o600)?;
            Ok(database)
        }))?;
        Ok(Self { folder: Some(folder.to_owned()), ..file })
    }

    /// Opens the file in this folder, which must exist.
    pub fn open_existing(folder: &Path) -> Result<Self, StorageError> {
        if folder.join(FILE).is_file() {
            Self::open(folder)
        } else {
            Err(StorageError::Io(format!("there is no {FILE}")))
        }
    }

    fn with(opener: StorageOpener) -> Result<Self, StorageError> {
        let (database, copying) = (RwLock::new(None), Mutex::new(()));
        let file = Self { database, opener, folder: None, log: ChangeLog::default(), copying };
        file.reopen()?;
        Ok(file)
    }

    fn run<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        let open = self.database.read();
        if open.is_none() {
            drop(open);
            self.reopen()?;
            return self.run_once(&work);
        }
        drop(open);
        self.run_once(&work)
    }

    fn run_once<T>(&self, work: &impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        let open = self.database.read();
        let Some(database) = &*open else { return Err(StorageError::Io("it could not be opened".into())) };
        let result = work(database);
        drop(open);
        result.map_err(|error| {
            // redb refuses everything after a failure of the disk, until the file is opened again.
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                *self.database.write() = None;
            }
            of_redb(error)
        })
    }

    fn reopen(&self) -> Result<(), StorageError> {
        let mut open = self.database.write();
        if open.is_none() {
            let database = (self.opener)().map_err(|error| of_redb(error.into()))?;
            make_tables(&database).map_err(of_redb)?;
            *open = Some(database);
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
        self.run(|database| {
            let table = database.begin_read()?.open_table(definition(table))?;
            Ok(table.get(key.as_bytes())?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
        self.run(|database| {
            let table = database.begin_read()?.open_table(definition(table))?;
            let end = prefix.end();
            let range = match &end {
                Some(end) => table.range(prefix.as_bytes()..end.as_bytes())?,
                None => table.range(prefix.as_bytes()..)?,
            };
            let mut found = Vec::new();
            for record in range {
                let (key, value) = record?;
                found.push((RecordKey::from_bytes(key.value()), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError> {
        let changed = self.run(|database| {
            let mut transaction = database.begin_write()?;
            // So that opening the file after a crash takes no time, however large it is.
            transaction.set_quick_repair(true);
            let mut changed = Vec::new();
            for change in changes {
                if !apply(&transaction, change, &mut changed)? {
                    transaction.abort()?;
                    return Ok(None);
                }
            }
            transaction.commit()?;
            Ok(Some(changed))
        })?;
        self.log.append(changed.ok_or(StorageError::Conflict)?);
        Ok(())
    }

    fn log(&self) -> &ChangeLog {
        &self.log
    }

    /// The database has free pages in its file for a while, so a separate file is written to test for room.
    fn check(&self) -> Result<(), StorageError> {
        self.run(|database| Ok(database.begin_read().map(drop)?))?;
        let Some(folder) = &self.folder else { return Ok(()) };
        probe(&folder.join(PROBE)).map_err(|error| of_io(&error))
    }

    fn copy(&self) -> Result<Option<File>, StorageError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let _one = self.copying.lock();
        let path = self.copied(folder)?;
        let file = File::open(&path).map_err(|error| of_io(&error));
        // The open file needs no name, and is gone once it is closed.
        let _ = std::fs::remove_file(&path);
        file.map(Some)
    }

    fn keep_format(&self, format: u32) -> Result<(), StorageError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let _one = self.copying.lock();
        let kept = folder.join(format!("{FILE}.format-{format}"));
        std::fs::rename(self.copied(folder)?, kept).map_err(|error| of_io(&error))
    }

    fn is_durable(&self) -> bool {
        true
    }
}

impl FileStorage {
    /// Copies all records of one moment into a file of the folder, and returns its path. The caller holds `copying`.
    fn copied(&self, folder: &Path) -> Result<PathBuf, StorageError> {
        let path = folder.join(COPY);
        // Of a process that was killed.
        let _ = std::fs::remove_file(&path);
        let copied = self.run(|database| copy_records(database, &path));
        if copied.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        copied.map(|()| path)
    }
}

/// Copies what one transaction sees, so that changes go on meanwhile and none is there in part.
fn copy_records(database: &Database, path: &Path) -> Result<(), redb::Error> {
    let reading = database.begin_read()?;
    let copy = builder().create(path)?;
    restrict(path, 0o600).map_err(redb::Error::Io)?;
    let mut writing = copy.begin_write()?;
    writing.set_quick_repair(true);
    for table in Table::ALL {
        let mut target = writing.open_table(definition(table))?;
        for record in reading.open_table(definition(table))?.range::<&[u8]>(..)? {
            let (key, value) = record?;
            target.insert(key.value(), value.value())?;
        }
    }
    Ok(writing.commit()?)
}

fn probe(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(&[0; PROBE_SIZE])?;
    file.sync_data()?;
    std::fs::remove_file(path)
}

/// Makes a change, and notes the keys. Returns false if the record is not the expected one.
fn apply(
    transaction: &redb::WriteTransaction,
    change: &StorageChange,
    changed: &mut Vec<(Table, RecordKey)>,
) -> Result<bool, redb::Error> {
    match change {
        StorageChange::Put(table, key, value) => {
            transaction.open_table(definition(*table))?.insert(key.as_bytes(), value.as_slice())?;
            changed.push((*table, key.clone()));
        }
        StorageChange::Replace { table, key, expected, value } => {
            let mut records = transaction.open_table(definition(*table))?;
            let found = records.get(key.as_bytes())?.map(|found| found.value().to_vec());
            if found != *expected {
                return Ok(false);
            }
            records.insert(key.as_bytes(), value.as_slice())?;
            changed.push((*table, key.clone()));
        }
        StorageChange::Delete(table, key) => {
            transaction.open_table(definition(*table))?.remove(key.as_bytes())?;
            changed.push((*table, key.clone()));
        }
        StorageChange::DeleteAll(table, prefix) => {
            let mut records = transaction.open_table(definition(*table))?;
            let mut remove = |key: &[u8], _: &[u8]| {
                changed.extend(table.is_logged().then(|| (*table, RecordKey::from_bytes(key))));
                false
            };
            match prefix.end() {
                Some(end) => records.retain_in(prefix.as_bytes()..end.as_bytes(), &mut remove)?,
                None => records.retain(&mut remove)?,
            }
        }
    }
    Ok(true)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

fn definition(table: Table) -> RecordTable {
    RecordTable::new(table.name())
}

/// Creates all tables: one without records could not be read otherwise.
fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let reading = database.begin_read()?;
    let missing = |table: &Table| {
        matches!(reading.open_table(definition(*table)), Err(TableError::TableDoesNotExist(_)))
    };
    // Without this check, every start would write to the disk.
    if !Table::ALL.iter().any(missing) {
        return Ok(());
    }
    drop(reading);
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    Ok(transaction.commit()?)
}

fn of_redb(error: redb::Error) -> StorageError {
    match error {
        redb::Error::Io(error) => of_io(&error),
        redb::Error::DatabaseAlreadyOpen => StorageError::InUse,
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            StorageError::Io(error.to_string())
        }
        error => StorageError::Corrupt(error.to_string()),
    }
}

fn of_io(error: &std::io::Error) -> StorageError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StorageError::Full(error.to_string())
        }
        _ => StorageError::Io(error.to_string()),
    }
}

/// Creates a folder that only this user can read, unless it exists.
fn make_private(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    restrict(folder, 0o700)
}

fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = (path, mode);
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
