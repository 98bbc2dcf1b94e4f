//! What every storage promises: one suite, which memory, file and NATS pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use super::record::Revision;
use super::tests::Folder;
use super::*;

/// Runs the suite. `open` returns an empty storage each time.
pub(super) fn run(open: impl Fn() -> Arc<dyn Storage>) {
    an_empty_storage_has_nothing_and_says_so_at_once(&*open());
    records_come_back_in_the_order_of_their_keys(&*open());
    a_batch_is_made_in_its_order(&*open());
    a_record_is_replaced_if_it_is_the_expected_one(&*open());
    a_record_that_was_deleted_can_be_created_again(&*open());
    of_a_batch_with_a_wrong_expectation_nothing_is_made(&*open());
    racing_changes_lose_nothing(&open());
    changes_are_followed_from_a_revision(&open());
    a_follower_that_is_too_far_behind_is_told(&*open());
    large_files_come_back_and_large_records_are_refused_or_kept(&*open());
    many_records_go_together(&*open());
}

/// For a storage that several processes share: `open` returns another handle of the same one.
pub(super) fn run_shared(open: impl Fn() -> Arc<dyn Storage>) {
    let (one, other) = (open(), open());
    for number in 0..50 {
        let id = number.to_string();
        one.commit(&[put(&["acme", &id], id.as_bytes())]).unwrap();
        follow(&*other, |storage| value(storage, &["acme", &id]) == Some(id.clone().into_bytes()));
    }
    // Both know the same record; one change is made.
    let replace = |value: &[u8]| replace(&["acme", "7"], Some(b"7"), value);
    let results = [one.commit(&[replace(b"one")]), other.commit(&[replace(b"other")])];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert!(results.contains(&Err(StorageError::Conflict)));
    // Component files are everywhere, and gone everywhere.
    let (file, key) = (vec![7; 3 << 20], component_key(&[7; 3 << 20]));
    one.commit(&[StorageChange::Put(Table::Components, key.clone(), file.clone())]).unwrap();
    follow(&*other, |storage| storage.get(Table::Components, &key).unwrap().is_some());
    assert!(other.get(Table::Components, &key).unwrap() == Some(file));
    other.commit(&[StorageChange::DeleteAll(Table::Components, RecordKey::new(&["acme"]))]).unwrap();
    follow(&*one, |storage| storage.get(Table::Components, &key).unwrap().is_none());
    // A handle that is opened later has everything from the start.
    let late = open();
    assert_eq!(value(&*late, &["acme", "49"]), Some(b"49".to_vec()));
    assert_eq!(late.scan(Table::Applications, &RecordKey::new(&["acme"])).unwrap().len(), 50);
}

fn follow(storage: &dyn Storage, there: impl Fn(&dyn Storage) -> bool) {
    let mut seen = Revision(0);
    while !there(storage) {
        let next = storage.log().after(seen, Duration::from_secs(30)).until;
        assert_ne!(next, seen, "nothing came");
        seen = next;
    }
}

fn put(parts: &[&str], value: &[u8]) -> StorageChange {
    StorageChange::Put(Table::Applications, RecordKey::new(parts), value.to_vec())
}

fn replace(parts: &[&str], expected: Option<&[u8]>, value: &[u8]) -> StorageChange {
    StorageChange::Replace {
        table: Table::Applications,
        key: RecordKey::new(parts),
        expected: expected.map(<[u8]>::to_vec),
        value: value.to_vec(),
    }
}

fn delete(parts: &[&str]) -> StorageChange {
    StorageChange::Delete(Table::Applications, RecordKey::new(parts))
}

fn value(storage: &dyn Storage, parts: &[&str]) -> Option<Vec<u8>> {
    storage.get(Table::Applications, &RecordKey::new(parts)).unwrap()
}

fn component_key(file: &[u8]) -> RecordKey {
    RecordKey::new(&["acme", "webhook", &hex::encode(ring::digest::digest(&ring::digest::SHA256, file))])
}

fn an_empty_storage_has_nothing_and_says_so_at_once(storage: &dyn Storage) {
    for table in Table::ALL {
        assert!(storage.scan(table, &RecordKey::new(&[])).unwrap().is_empty());
        assert_eq!(storage.get(table, &RecordKey::new(&["a", "b", "c"])).unwrap(), None);
    }
    let changes = storage.log().after(storage.log().last(), Duration::ZERO);
    assert_eq!(changes, Changes { until: storage.log().last(), keys: Some(Vec::new()) });
    storage.check().unwrap();
    storage.commit(&[]).unwrap();
}

fn records_come_back_in_the_order_of_their_keys(storage: &dyn Storage) {
    let ids = ["", "\0", "\u{1}", " ", "*", ".", "..", "=", ">", "a b", "a.b", "ab", "ü", "\u{10ffff}"];
    let all = ids.iter().flat_map(|one| ids.iter().map(move |other| [*one, *other]));
    let all: Vec<_> = all.filter(|parts| !parts[0].is_empty()).collect();
    storage
        .commit(&all.iter().map(|parts| put(parts, parts.concat().as_bytes())).collect::<Vec<_>>())
        .unwrap();
    let found = storage.scan(Table::Applications, &RecordKey::new(&[])).unwrap();
    let mut wanted: Vec<_> =
        all.iter().map(|parts| (RecordKey::new(parts), parts.concat().into_bytes())).collect();
    wanted.sort();
    assert_eq!(found, wanted);
    let own = storage.scan(Table::Applications, &RecordKey::new(&["a"])).unwrap();
    assert!(own.is_empty(), "a prefix is whole parts");
    assert_eq!(storage.scan(Table::Applications, &RecordKey::new(&["a.b"])).unwrap().len(), ids.len());
    assert!(storage.scan(Table::Tenants, &RecordKey::new(&[])).unwrap().is_empty());
}

fn a_batch_is_made_in_its_order(storage: &dyn Storage) {
    storage
        .commit(&[put(&["acme", "a"], b"1"), put(&["acme", "b"], b"1"), put(&["other", "a"], b"1")])
        .unwrap();
    storage
        .commit(&[
            delete(&["acme", "a"]),
            StorageChange::DeleteAll(Table::Applications, RecordKey::new(&["other"])),
            put(&["acme", "c"], b"2"),
            delete(&["acme", "never"]),
        ])
        .unwrap();
    let found = storage.scan(Table::Applications, &RecordKey::new(&[])).unwrap();
    let wanted = [(["acme", "b"], b"1"), (["acme", "c"], b"2")];
    assert_eq!(found, wanted.map(|(parts, value)| (RecordKey::new(&parts), value.to_vec())));
    storage
        .commit(&[
            put(&["new", "1"], b"1"),
            put(&["new", "1"], b"2"),
            put(&["new", "2"], b"1"),
            StorageChange::DeleteAll(Table::Applications, RecordKey::new(&["new"])),
            put(&["new", "3"], b"1"),
            delete(&["acme", "b"]),
            put(&["acme", "b"], b"3"),
            delete(&["acme", "c"]),
        ])
        .unwrap();
    let found = storage.scan(Table::Applications, &RecordKey::new(&[])).unwrap();
    let wanted = [(["acme", "b"], b"3"), (["new", "3"], b"1")];
    assert_eq!(found, wanted.map(|(parts, value)| (RecordKey::new(&parts), value.to_vec())));
}

fn a_record_is_replaced_if_it_is_the_expected_one(storage: &dyn Storage) {
    let key = ["acme", "a"];
    assert_eq!(storage.commit(&[replace(&key, Some(b"0"), b"1")]), Err(StorageError::Conflict));
    storage.commit(&[replace(&key, None, b"1")]).unwrap();
    assert_eq!(storage.commit(&[replace(&key, None, b"2")]), Err(StorageError::Conflict));
    assert_eq!(storage.commit(&[replace(&key, Some(b"0"), b"2")]), Err(StorageError::Conflict));
    storage.commit(&[replace(&key, Some(b"1"), b"2")]).unwrap();
    storage.commit(&[replace(&key, Some(b"2"), b"2")]).unwrap();
    assert_eq!(value(storage, &key), Some(b"2".to_vec()));
}

/// A key-value store that creates by "there must be no message" cannot do this.
fn a_record_that_was_deleted_can_be_created_again(storage: &dyn Storage) {
    let key = ["acme", "a"];
    for _ in 0..3 {
        storage.commit(&[replace(&key, None, b"1")]).unwrap();
        storage.commit(&[delete(&key)]).unwrap();
        assert_eq!(value(storage, &key), None);
        assert_eq!(storage.commit(&[replace(&key, Some(b"1"), b"2")]), Err(StorageError::Conflict));
    }
    storage.commit(&[put(&key, b"")]).unwrap();
    assert_eq!(value(storage, &key), Some(Vec::new()), "an empty record is one");
}

fn of_a_batch_with_a_wrong_expectation_nothing_is_made(storage: &dyn Storage) {
    storage.commit(&[put(&["acme", "a"], b"1"), put(&["acme", "b"], b"1")]).unwrap();
    let refused = storage.commit(&[
        put(&["acme", "a"], b"2"),
        delete(&["acme", "b"]),
        StorageChange::DeleteAll(Table::Applications, RecordKey::new(&["acme"])),
        put(&["acme", "c"], b"2"),
        replace(&["acme", "d"], Some(b"1"), b"2"),
    ]);
    assert_eq!(refused, Err(StorageError::Conflict));
    let found = storage.scan(Table::Applications, &RecordKey::new(&[])).unwrap();
    let wanted = [(["acme", "a"], b"1"), (["acme", "b"], b"1")];
    assert_eq!(found, wanted.map(|(parts, value)| (RecordKey::new(&parts), value.to_vec())));
}

fn racing_changes_lose_nothing(storage: &Arc<dyn Storage>) {
    const EACH: u64 = 25;
    let key = ["acme", "count"];
    let count = |storage: &dyn Storage| {
        value(storage, &key).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap())).unwrap_or_default()
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    loop {
                        let before = value(&**storage, &key);
                        let next = before
                            .as_deref()
                            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
                            + 1;
                        match storage.commit(&[replace(&key, before.as_deref(), &next.to_be_bytes())]) {
                            Ok(()) => break,
                            Err(error) => assert_eq!(error, StorageError::Conflict),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(count(&**storage), 4 * EACH);
}

fn changes_are_followed_from_a_revision(storage: &Arc<dyn Storage>) {
    let start = storage.log().last();
    storage.commit(&[put(&["acme", "a"], b"1")]).unwrap();
    let middle = storage.log().last();
    assert!(middle > start);
    storage.commit(&[put(&["acme", "b"], b"1"), put(&["acme", "c"], b"1")]).unwrap();
    storage.commit(&[delete(&["acme", "a"])]).unwrap();
    let keys = |revision| -> Vec<String> {
        let changes = storage.log().after(revision, Duration::ZERO);
        assert_eq!(changes.until, storage.log().last());
        changes.keys.unwrap().into_iter().map(|(_, key)| key.parts::<2>().unwrap()[1].clone()).collect()
    };
    assert_eq!(keys(start), ["a", "b", "c", "a"]);
    assert_eq!(keys(middle), ["b", "c", "a"]);
    let end = storage.log().last();
    assert!(keys(end).is_empty());
    // What comes with sends is not followed.
    storage
        .commit(&[StorageChange::Put(Table::Answers, RecordKey::new(&["acme", "x"]), Vec::new())])
        .unwrap();
    let writer = storage.clone();
    let thread = std::thread::spawn(move || writer.commit(&[put(&["acme", "d"], b"1")]).unwrap());
    follow(&**storage, |storage| value(storage, &["acme", "d"]).is_some());
    thread.join().unwrap();
    assert_eq!(keys(end), ["d"]);
    assert_eq!(storage.log().after(Revision(u64::MAX), Duration::ZERO).keys, None, "of another storage");
}

fn a_follower_that_is_too_far_behind_is_told(storage: &dyn Storage) {
    let start = storage.log().last();
    for round in 0..3 {
        let many: Vec<_> = (0..500).map(|number| put(&["acme", &number.to_string()], &[round])).collect();
        storage.commit(&many).unwrap();
    }
    assert_eq!(storage.log().after(start, Duration::ZERO).keys, None);
    assert_eq!(storage.log().after(storage.log().last(), Duration::ZERO).keys, Some(Vec::new()));
}

fn large_files_come_back_and_large_records_are_refused_or_kept(storage: &dyn Storage) {
    let file: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let key = component_key(&file);
    let record = StorageChange::Put(Table::Versions, key.clone(), b"x".to_vec());
    storage.commit(&[StorageChange::Put(Table::Components, key.clone(), file.clone()), record]).unwrap();
    assert!(storage.get(Table::Components, &key).unwrap() == Some(file));
    storage.commit(&[StorageChange::Delete(Table::Components, key.clone())]).unwrap();
    assert!(storage.get(Table::Components, &key).unwrap().is_none());
    assert!(storage.get(Table::Versions, &key).unwrap().is_some());

    let large = vec![1; 2 << 20];
    match storage.commit(&[put(&["acme", "small"], b"1"), put(&["acme", "large"], &large)]) {
        Ok(()) => assert!(value(storage, &["acme", "large"]) == Some(large)),
        Err(error) => {
            assert!(matches!(error, StorageError::TooLarge(_)), "{error}");
            assert_eq!(value(storage, &["acme", "small"]), None);
        }
    }
    let whole = vec![1; 900 << 10];
    storage.commit(&[put(&["acme", "whole"], &whole)]).unwrap();
    assert!(value(storage, &["acme", "whole"]) == Some(whole));
}

fn many_records_go_together(storage: &dyn Storage) {
    for part in 0..3 {
        let many = (0..500).map(|number| put(&["acme", &format!("{part}.{number}")], b"1"));
        storage.commit(&many.collect::<Vec<_>>()).unwrap();
    }
    storage.commit(&[put(&["acme2", "a"], b"1")]).unwrap();
    let tables = [Table::Tenants, Table::Applications, Table::Feedback];
    let all = RecordKey::new(&["acme"]);
    storage.commit(&tables.map(|table| StorageChange::DeleteAll(table, all.clone()))).unwrap();
    assert_eq!(storage.scan(Table::Applications, &RecordKey::new(&[])).unwrap().len(), 1);
}

#[test]
fn memory_keeps_what_a_storage_promises() {
    run(|| Arc::new(MemoryStorage::default()));
}

#[test]
fn a_file_keeps_what_a_storage_promises() {
    let folder = Folder::new();
    let count = std::cell::Cell::new(0);
    run(|| {
        count.set(count.get() + 1);
        Arc::new(FileStorage::open(&folder.path().join(count.get().to_string())).unwrap())
    });
}
