//! Changes that nobody waits for: they are kept soon, many at a time, and before all that comes after them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{Change, Storage, StorageError};

/// Changes that may wait at a time; beyond that, as while the disk is full, new ones are lost.
const MOST_WAITING: usize = 100_000;

/// Keeps changes in their order.
pub(super) struct Journal {
    storage: Arc<dyn Storage>,
    waiting: Mutex<Waiting>,
    /// Held while something is being kept, so that the order holds.
    keeping: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    changes: Vec<Change>,
    /// Somebody is at it.
    running: bool,
    lost: u64,
}

impl Journal {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, waiting: Mutex::default(), keeping: Mutex::default() })
    }

    /// Takes changes on. Does not block where there is a Tokio runtime.
    pub(super) fn add(self: &Arc<Self>, changes: impl IntoIterator<Item = Change>) {
        if !self.storage.is_durable() {
            return;
        }
        let begin = {
            let mut waiting = self.waiting();
            for change in changes {
                if waiting.changes.len() < MOST_WAITING {
                    waiting.changes.push(change);
                } else {
                    waiting.lost += 1;
                }
            }
            !std::mem::replace(&mut waiting.running, true)
        };
        if begin {
            let journal = self.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || journal.run())),
                Err(_) => journal.run(),
            }
        }
    }

    /// Keeps what waits, and these changes after it. Blocks.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        let _order = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_with(changes)
    }

    /// Keeps what waits. Blocks.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.commit(Vec::new())
    }

    fn keep_with(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        let waited = std::mem::take(&mut self.waiting().changes);
        let (count, mut all) = (waited.len(), waited);
        all.extend(changes);
        if all.is_empty() {
            return Ok(());
        }
        let kept = self.storage.commit(&all);
        if kept.is_err() {
            // For the next try; the caller's own are the caller's to try again.
            all.truncate(count);
            let mut waiting = self.waiting();
            all.append(&mut waiting.changes);
            waiting.changes = all;
        }
        kept
    }

    /// Until nothing waits, or it can not be kept now.
    fn run(&self) {
        loop {
            let kept = self.flush();
            let mut waiting = self.waiting();
            if let Err(error) = &kept {
                let (count, lost) = (waiting.changes.len(), std::mem::take(&mut waiting.lost));
                tracing::error!(%error, waiting = count, lost, "changes of the registry can not be kept now");
            }
            if kept.is_err() || waiting.changes.is_empty() {
                waiting.running = false;
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
