#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::super::storage::from_unix;
use super::super::tests::{Folder, acme, application, key, open, secrets, version, write_first_format};
use super::super::{FORMAT, Registry, TenantRecord};
use super::*;

fn place(name: &str) -> RecordKey {
    RecordKey::new(&[name])
}

fn put(name: &str, value: &[u8]) -> StorageChange {
    StorageChange::Put(Table::Meta, place(name), value.to_vec())
}

#[test]
fn a_batch_is_made_in_its_order() {
    let folder = Folder::new();
    let file = FileStorage::open(folder.path()).unwrap();
    let tenants = |parts: &[&str]| StorageChange::Put(Table::Tenants, RecordKey::new(parts), b"x".to_vec());
    file.commit(&[
        tenants(&["a", "1"]),
        tenants(&["a", "2"]),
        tenants(&["b", "1"]),
        tenants(&["c", "1"]),
        StorageChange::DeleteAll(Table::Tenants, RecordKey::new(&["a"])),
        tenants(&["a", "3"]),
        StorageChange::Delete(Table::Tenants, RecordKey::new(&["b", "1"])),
    ])
    .unwrap();
    let all = file.scan(Table::Tenants, &RecordKey::new(&[])).unwrap();
    let wanted = [&["a", "3"], &["c", "1"]].map(|parts| (RecordKey::new(parts), b"x".to_vec()));
    assert_eq!(all, wanted);
    file.commit(&[StorageChange::DeleteAll(Table::Tenants, RecordKey::new(&[]))]).unwrap();
    assert!(file.scan(Table::Tenants, &RecordKey::new(&[])).unwrap().is_empty());
}

#[test]
fn one_at_a_time_uses_it_and_nobody_else_can_look_inside() {
    let folder = Folder::new();
    let below = folder.path().join("new");
    let file = FileStorage::open(&below).unwrap();
    assert_eq!(FileStorage::open(&below).err(), Some(StorageError::InUse));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&below), mode(&below.join(FILE))), (0o700, 0o600));
    }
    drop(file);
    assert!(FileStorage::open(&below).is_ok());
}

#[test]
fn what_is_no_registry_is_told() {
    let folder = Folder::new();
    assert!(matches!(FileStorage::open_existing(folder.path()), Err(StorageError::Io(_))));
    std::fs::write(folder.path().join(FILE), b"something else").unwrap();
    assert!(matches!(FileStorage::open(folder.path()), Err(StorageError::Corrupt(_) | StorageError::Io(_))));
    assert!(matches!(FileStorage::open(&folder.path().join(FILE)), Err(StorageError::Io(_))));
}

#[test]
fn an_older_file_is_brought_up_and_a_newer_one_refused() {
    let folder = Folder::new();
    let file = Arc::new(FileStorage::open(folder.path()).unwrap());
    assert_eq!(file.get(Table::Meta, &place("format")).unwrap(), None);
    Registry::open(file.clone(), key(), 1).unwrap();
    let format = file.get(Table::Meta, &place("format")).unwrap().unwrap();
    assert_eq!(format, FORMAT.to_string().as_bytes());
    file.commit(&[put("format", (FORMAT + 1).to_string().as_bytes())]).unwrap();
    let refused = Registry::open(file.clone(), key(), 1).err();
    assert_eq!(refused, Some(StorageError::Newer { found: FORMAT + 1, known: FORMAT }));
    assert_eq!(
        file.get(Table::Meta, &place("format")).unwrap().unwrap(),
        (FORMAT + 1).to_string().as_bytes()
    );
}

/// A disk with room for so many more writes.
#[derive(Debug, Clone)]
struct Disk {
    content: Arc<InMemoryBackend>,
    room: Arc<AtomicUsize>,
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.content.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let take = |room: usize| room.checked_sub(1);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.content.write(offset, data)
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_got_over() {
    for room in 0..12 {
        let disk = Disk { content: Arc::default(), room: Arc::new(AtomicUsize::new(1000)) };
        let opened = disk.clone();
        let opener = move || builder().create_with_backend(opened.clone());
        let file = FileStorage::with(Box::new(opener)).unwrap();
        file.commit(&[put("old", b"1")]).unwrap();
        disk.room.store(room, Ordering::Relaxed);
        let mut kept = 0;
        let full = loop {
            match file.commit(&[put("old", b"2"), put(&format!("new-{kept}"), &[7; 5000])]) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StorageError::Full(_)), "{full}");
        disk.room.store(1000, Ordering::Relaxed);
        let old = file.get(Table::Meta, &place("old")).unwrap().unwrap();
        assert_eq!(old, if kept == 0 { b"1" } else { b"2" }, "room for {room}");
        let all = file.scan(Table::Meta, &RecordKey::new(&[])).unwrap().len();
        assert_eq!(all, 1 + kept, "as a whole or not at all");
        file.commit(&[put("old", b"3")]).unwrap();
        assert_eq!(file.get(Table::Meta, &place("old")).unwrap().unwrap(), b"3");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_and_a_folder_that_is_gone_are_seen() {
    let folder = Folder::new();
    let below = folder.path().join("data");
    let file = FileStorage::open(&below).unwrap();
    file.check().unwrap();
    assert!(!below.join(PROBE).exists());
    // A device that is always full.
    std::os::unix::fs::symlink("/dev/full", below.join(PROBE)).unwrap();
    assert!(matches!(file.check(), Err(StorageError::Full(_))), "{:?}", file.check());
    std::fs::remove_file(below.join(PROBE)).unwrap();
    file.check().unwrap();
    std::fs::rename(&below, folder.path().join("gone")).unwrap();
    assert!(matches!(file.check(), Err(StorageError::Io(_))), "{:?}", file.check());
}

#[test]
fn an_older_file_is_kept_before_its_format_changes_and_can_be_put_back() {
    let folder = Folder::new();
    let kept = folder.path().join("registry.redb.format-1");
    let file = || -> Arc<dyn Storage> { Arc::new(FileStorage::open(folder.path()).unwrap()) };
    write_first_format(&file());
    assert!(!kept.exists(), "nothing is kept of a file that is of this format");
    drop(open(&file()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    std::fs::rename(&kept, folder.path().join("registry.redb")).unwrap();
    let format = file().get(Table::Meta, &RecordKey::new(&["format"])).unwrap().unwrap();
    assert_eq!(format, b"1", "as the program before reads it");
    assert_eq!(open(&file()).tenants().unwrap(), [(acme(), TenantRecord::new(from_unix(5)))]);
}

#[test]
fn a_copy_has_all_records_of_one_moment() {
    let folder = Folder::new();
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(folder.path()).unwrap());
    let registry = open(&storage);
    registry.put_tenant(&acme(), None, &TenantRecord::new(from_unix(5))).unwrap();
    registry.put_component(&version(&acme(), b"one", 1), b"one").unwrap();
    let (entry, _) = registry.put(&acme(), application("app", "a"), &secrets("sesame"), 9).unwrap();
    let mut copy = registry.copy().unwrap().unwrap();
    registry.put(&acme(), application("later", "a"), &secrets("sesame"), 9).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the copy has no name");

    let other = Folder::new();
    let mut file = std::fs::File::create(other.path().join("registry.redb")).unwrap();
    std::io::copy(&mut copy, &mut file).unwrap();
    let copied = open(&(Arc::new(FileStorage::open(other.path()).unwrap()) as Arc<dyn Storage>));
    assert_eq!(copied.tenants().unwrap(), registry.tenants().unwrap());
    assert_eq!(copied.versions(), registry.versions());
    let ids: Vec<_> = copied.list(&acme()).iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(ids, ["app"]);
    let opened = copied.secrets(&acme(), &entry).unwrap();
    assert_eq!(opened.reveal("secret").unwrap(), b"sesame");
    assert!(Registry::in_memory(1).unwrap().copy().unwrap().is_none());
}
