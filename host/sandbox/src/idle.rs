//! Instances that wait for their next call. All of them together are bounded in number and memory; when
//! there is no room those that waited longest go, and none waits for ever.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::instance::GuestInstance;
use super::limits::SandboxLimits;
use pushlet_quota::account::Account;

/// The idle instances of all tenants and components, and their totals.
#[derive(Default)]
pub(super) struct IdlePool {
    shelves: Mutex<Vec<Weak<IdleInstances>>>,
    /// Counts sweeps: a clock that costs nothing to read.
    now: AtomicU32,
    /// Bytes of linear memory on all shelves.
    memory: AtomicUsize,
}

/// The idle instances of one tenant and component.
pub(super) struct IdleInstances {
    idle: Arc<IdlePool>,
    account: Option<Arc<Account>>,
    instances: Mutex<VecDeque<IdleInstance>>,
}

struct IdleInstance {
    instance: GuestInstance,
    memory: usize,
    /// The sweep after which it was put here.
    since: u32,
}

impl IdlePool {
    pub(super) fn shelf(self: &Arc<Self>, account: Option<Arc<Account>>) -> Arc<IdleInstances> {
        let shelf = Arc::new(IdleInstances { idle: self.clone(), account, instances: Mutex::default() });
        self.shelves().push(Arc::downgrade(&shelf));
        shelf
    }

    /// Retires the instances that waited for more than `sweeps` sweeps. Called at regular times.
    pub(super) fn sweep(&self, sweeps: u32) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.shelves().retain(|shelf| shelf.strong_count() > 0);
        for shelf in self.alive() {
            drop(shelf.remove_oldest(|waiting| now.wrapping_sub(waiting.since) > sweeps, usize::MAX));
        }
    }

    /// Retires about `count` instances, those first that waited longest. How many they were.
    pub(super) fn evict(&self, count: usize) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        let age =
            |shelf: &IdleInstances| shelf.instances().front().map(|waiting| now.wrapping_sub(waiting.since));
        let mut shelves: Vec<_> =
            self.alive().into_iter().filter_map(|shelf| Some((age(&shelf)?, shelf))).collect();
        shelves.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let mut evicted = 0;
        for (_, shelf) in shelves {
            if evicted >= count {
                break;
            }
            evicted += shelf.remove_oldest(|_| true, count - evicted).len();
        }
        evicted
    }

    /// Retires all instances that are paid for by one account. How many they were.
    pub(super) fn clear(&self, account: Option<&Arc<Account>>) -> usize {
        let Some(account) = account else { return 0 };
        let pays =
            |shelf: &Arc<IdleInstances>| shelf.account.as_ref().is_some_and(|own| Arc::ptr_eq(own, account));
        self.alive().iter().filter(|shelf| pays(shelf)).map(|shelf| shelf.clear()).sum()
    }

    /// How many instances wait, and the bytes of their linear memory.
    pub(super) fn held(&self) -> (usize, usize) {
        let count = self.alive().iter().map(|shelf| shelf.len()).sum();
        (count, self.memory.load(Ordering::Relaxed))
    }

    fn alive(&self) -> Vec<Arc<IdleInstances>> {
        self.shelves().iter().filter_map(Weak::upgrade).collect()
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Weak<IdleInstances>>> {
        self.shelves.lock()
    }
}

impl IdleInstances {
    /// The instance that was used last.
    pub(super) fn take(&self) -> Option<GuestInstance> {
        let waiting = self.instances().pop_back()?;
        self.idle.memory.fetch_sub(waiting.memory, Ordering::Relaxed);
        Some(waiting.instance)
    }

    /// Keeps the instance if there is room for it.
    pub(super) fn put(&self, instance: GuestInstance, limits: &SandboxLimits) {
        let memory = instance.guest().memory();
        let total = self.idle.memory.load(Ordering::Relaxed).saturating_add(memory);
        if total > limits.idle_memory_in_all && self.idle.evict(limits.eviction()) == 0 {
            return;
        }
        let since = self.idle.now.load(Ordering::Relaxed);
        let mut instances = self.instances();
        let own: usize = instances.iter().map(|waiting| waiting.memory).sum();
        if instances.len() < limits.idle && own.saturating_add(memory) <= limits.idle_memory {
            self.idle.memory.fetch_add(memory, Ordering::Relaxed);
            instances.push_back(IdleInstance { instance, memory, since });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.instances().len()
    }

    fn clear(&self) -> usize {
        self.remove_oldest(|_| true, usize::MAX).len()
    }

    /// Takes instances out from the oldest on, for the caller to drop: that takes its time, and no lock
    /// shall be held meanwhile.
    fn remove_oldest(&self, goes: impl Fn(&IdleInstance) -> bool, most: usize) -> Vec<IdleInstance> {
        let mut instances = self.instances();
        let count = instances.iter().take(most).take_while(|waiting| goes(waiting)).count();
        let removed: Vec<_> = instances.drain(..count).collect();
        let memory = removed.iter().map(|waiting| waiting.memory).sum();
        self.idle.memory.fetch_sub(memory, Ordering::Relaxed);
        removed
    }

    fn instances(&self) -> MutexGuard<'_, VecDeque<IdleInstance>> {
        self.instances.lock()
    }
}

impl Drop for IdleInstances {
    fn drop(&mut self) {
        drop(self.remove_oldest(|_| true, usize::MAX));
    }
}
