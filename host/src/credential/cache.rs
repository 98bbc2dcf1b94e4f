//! A map of bounded size that forgets what was not used for longest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keys are digests of everything that decides the value.
pub(super) type Key = [u8; 32];

pub(super) struct Cache<T> {
    entries: HashMap<Key, Entry<T>>,
    uses: u64,
    capacity: usize,
}

struct Entry<T> {
    value: Arc<T>,
    last_use: u64,
}

impl<T: Default> Cache<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), uses: 0, capacity }
    }

    /// The value of this key, new if there is none.
    pub(super) fn entry(&mut self, key: &Key) -> Arc<T> {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(key) {
            self.forget_oldest();
        }
        self.uses += 1;
        let entry =
            self.entries.entry(*key).or_insert_with(|| Entry { value: Arc::new(T::default()), last_use: 0 });
        entry.last_use = self.uses;
        entry.value.clone()
    }

    /// The value of this key, if it is still there.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    /// Makes room for an eighth, so that the search is rare.
    fn forget_oldest(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.last_use).collect();
        let eighth = uses.len() / 8;
        let (_, threshold, _) = uses.select_nth_unstable(eighth);
        let threshold = *threshold;
        self.entries.retain(|_, entry| entry.last_use > threshold);
    }
}

/// Locks a mutex whose data stays whole even if a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
