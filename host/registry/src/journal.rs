//! A journal of changes: they are written soon, many at a time, and in their order.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::storage::{Storage, StorageChange, StorageError};

/// Bytes of changes that may wait at a time; beyond that, as while the disk is full, new ones are lost.
const MOST_WAITING: usize = 64 << 20;

/// Writes changes in their order.
pub(super) struct ChangeJournal {
    storage: Arc<dyn Storage>,
    waiting: Mutex<PendingChanges>,
    /// Held while changes are written, so that their order holds.
    keeping: Mutex<()>,
}

#[derive(Default)]
struct PendingChanges {
    changes: Vec<StorageChange>,
    /// Bytes of the changes.
    size: usize,
    /// Tasks that wait for the result of their changes.
    callers: Vec<oneshot::Sender<Result<(), StorageError>>>,
    /// A task is writing them.
    running: bool,
    lost: u64,
}

impl ChangeJournal {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, waiting: Mutex::default(), keeping: Mutex::default() })
    }

    /// Queues changes whose result is not awaited. Does not block within a Tokio runtime.
    pub(super) fn add(self: &Arc<Self>, changes: impl IntoIterator<Item = StorageChange>) {
        self.take_on(changes, None);
    }

    /// Writes changes together with those of others; an error says that they are not kept yet.
    pub(super) async fn keep(
        self: &Arc<Self>,
        changes: impl IntoIterator<Item = StorageChange>,
    ) -> Result<(), StorageError> {
        if !self.storage.is_durable() {
            return Ok(());
        }
        let (caller, kept) = oneshot::channel();
        self.take_on(changes, Some(caller));
        kept.await.unwrap_or_else(|_| Err(StorageError::Io("too much waits to be written".into())))
    }

    /// Writes the queued changes, and these after them. Blocks.
    pub(super) fn commit(&self, changes: Vec<StorageChange>) -> Result<(), StorageError> {
        if self.storage.is_shared() && !changes.is_empty() {
            // What is queued is this node's own, and must not wait for the fleet.
            return self.storage.commit(&changes);
        }
        let _order = self.keeping.lock();
        self.keep_with(changes)
    }

    /// Writes the queued changes. Blocks.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.commit(Vec::new())
    }

    fn take_on(
        self: &Arc<Self>,
        changes: impl IntoIterator<Item = StorageChange>,
        caller: Option<oneshot::Sender<Result<(), StorageError>>>,
    ) {
        if !self.storage.is_durable() {
            return;
        }
        let begin = {
            let mut waiting = self.waiting();
            let taken = waiting.take_on(changes);
            // The sender of a caller whose changes are lost is dropped, which is an error for that caller.
            waiting.callers.extend(caller.filter(|_| taken));
            !std::mem::replace(&mut waiting.running, true)
        };
        if begin {
            let journal = self.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || journal.run())),
                // Without a runtime there is no async thread that this could block.
                Err(_) => journal.run(),
            }
        }
    }

    fn keep_with(&self, changes: Vec<StorageChange>) -> Result<(), StorageError> {
        let (waited, callers) = {
            let mut waiting = self.waiting();
            waiting.size = 0;
            (std::mem::take(&mut waiting.changes), std::mem::take(&mut waiting.callers))
        };
        let (count, mut all) = (waited.len(), waited);
        all.extend(changes);
        let kept = if all.is_empty() { Ok(()) } else { self.storage.commit(&all) };
        if kept.is_err() {
            // Queued changes are tried again later; the caller's own are for the caller to try again.
            all.truncate(count);
            self.waiting().put_back(all);
        }
        callers.into_iter().for_each(|caller| drop(caller.send(kept.clone())));
        kept
    }

    /// Runs until nothing waits, or storing fails. A caller that began to wait since gets its result first: no other
    /// task would run for it.
    fn run(&self) {
        loop {
            let kept = self.flush();
            let mut waiting = self.waiting();
            if let Err(error) = &kept {
                let (count, lost) = (waiting.changes.len(), std::mem::take(&mut waiting.lost));
                tracing::error!(%error, waiting = count, lost, "changes of the registry cannot be kept now");
            }
            if waiting.callers.is_empty() && (kept.is_err() || waiting.changes.is_empty()) {
                waiting.running = false;
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, PendingChanges> {
        self.waiting.lock()
    }
}

impl PendingChanges {
    /// Queues changes. Returns false if there was no room for some.
    fn take_on(&mut self, changes: impl IntoIterator<Item = StorageChange>) -> bool {
        let mut all = true;
        for change in changes {
            let size = self.size + change.size();
            if size <= MOST_WAITING {
                self.size = size;
                self.changes.push(change);
            } else {
                self.lost += 1;
                all = false;
            }
        }
        all
    }

    /// Puts changes before all others.
    fn put_back(&mut self, mut changes: Vec<StorageChange>) {
        self.size += changes.iter().map(StorageChange::size).sum::<usize>();
        changes.append(&mut self.changes);
        self.changes = changes;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::record::ChangeLog;
    use crate::storage::{RecordKey, Table};

    /// Notes which keys were put, in their order.
    #[derive(Default)]
    struct Disk {
        kept: Mutex<Vec<RecordKey>>,
        broken: AtomicBool,
        log: ChangeLog,
    }

    impl Storage for Disk {
        fn get(&self, _: Table, _: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
            Ok(None)
        }

        fn scan(&self, _: Table, _: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
            Ok(Vec::new())
        }

        fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(full());
            }
            let keys = changes.iter().filter_map(|change| match change {
                StorageChange::Put(_, key, _) => Some(key.clone()),
                _ => None,
            });
            self.kept.lock().extend(keys);
            Ok(())
        }

        fn log(&self) -> &ChangeLog {
            &self.log
        }

        fn is_durable(&self) -> bool {
            true
        }
    }

    fn full() -> StorageError {
        StorageError::Full("no room".into())
    }

    fn put(name: &str, size: usize) -> [StorageChange; 1] {
        [StorageChange::Put(Table::Meta, RecordKey::new(&[name]), vec![0; size])]
    }

    fn keys(names: &[&str]) -> Vec<RecordKey> {
        names.iter().map(|name| RecordKey::new(&[name])).collect()
    }

    #[test]
    fn what_waits_is_kept_before_what_comes_after() {
        let disk = Arc::new(Disk::default());
        let journal = ChangeJournal::new(disk.clone());
        disk.broken.store(true, Ordering::Relaxed);
        journal.add(put("a", 1));
        assert_eq!(journal.commit(put("b", 1).into()), Err(full()), "the caller tries again or does not");
        journal.add(put("c", 1));
        disk.broken.store(false, Ordering::Relaxed);
        journal.commit(put("d", 1).into()).unwrap();
        assert_eq!(*disk.kept.lock(), keys(&["a", "c", "d"]));
        journal.flush().unwrap();
        assert_eq!(disk.kept.lock().len(), 3);
    }

    #[tokio::test]
    async fn who_waits_is_told_and_no_more_than_so_much_waits() {
        let disk = Arc::new(Disk::default());
        let journal = ChangeJournal::new(disk.clone());
        journal.keep(put("a", 1)).await.unwrap();
        disk.broken.store(true, Ordering::Relaxed);
        assert_eq!(journal.keep(put("b", 1)).await, Err(full()));
        assert!(matches!(journal.keep(put("large", MOST_WAITING)).await, Err(StorageError::Io(_))));
        disk.broken.store(false, Ordering::Relaxed);
        journal.keep(put("c", MOST_WAITING / 2)).await.unwrap();
        journal.keep(put("d", MOST_WAITING / 2)).await.unwrap();
        assert_eq!(*disk.kept.lock(), keys(&["a", "b", "c", "d"]));
    }

    #[tokio::test]
    async fn one_who_tries_again_at_once_is_told_again() {
        let disk = Arc::new(Disk::default());
        let journal = ChangeJournal::new(disk.clone());
        disk.broken.store(true, Ordering::Relaxed);
        // Each try comes while the run of the one before it ends.
        for _ in 0..2_000 {
            let again = tokio::time::timeout(Duration::from_secs(30), journal.keep(put("again", 1))).await;
            assert_eq!(again, Ok(Err(full())));
        }
        disk.broken.store(false, Ordering::Relaxed);
        journal.keep(put("last", 1)).await.unwrap();
        assert_eq!(disk.kept.lock().len(), 2_001);
    }
}
