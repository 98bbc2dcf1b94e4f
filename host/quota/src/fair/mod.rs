//! Fair shares of what is bounded: a cache and a semaphore whose places are divided among owners.
//!
//! Both use dynamic thresholds, as switches do for packet buffers (Choudhury and Hahne, 1998): an owner may
//! hold a quarter of the places that no other owner holds. One owner alone gets a quarter of all places,
//! `n` equally busy owners get `1 / (n + 3)` each, and whatever the others hold, some places stay free for
//! an owner that has none yet.

mod cache;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

pub use cache::{CacheFull, FairCache};

/// An owner may hold one place of so many that no other owner holds.
const FRACTION: usize = 4;

/// Permits for what several owners want to do at the same time. An owner that holds its share waits, and
/// delays none of the others. Cheap to clone.
pub struct FairPermits<O: Clone + Eq + Hash>(Arc<Mutex<PermitState<O>>>);

/// One permit, returned on drop.
pub struct FairPermit<O: Clone + Eq + Hash> {
    permits: FairPermits<O>,
    owner: O,
}

/// The owner's queue is full (back-pressure).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

struct PermitState<O: Clone + Eq + Hash> {
    capacity: usize,
    /// Of each owner.
    most_waiting: usize,
    held: usize,
    /// Those that hold a permit or wait for one.
    owners: HashMap<O, OwnerTurns<O>>,
}

struct OwnerTurns<O: Clone + Eq + Hash> {
    held: usize,
    waiting: VecDeque<oneshot::Sender<FairPermit<O>>>,
}

type GrantedPermit<O> = (oneshot::Sender<FairPermit<O>>, FairPermit<O>);

impl<O: Clone + Eq + Hash> FairPermits<O> {
    pub fn new(capacity: usize, most_waiting: usize) -> Self {
        Self(Arc::new(Mutex::new(PermitState { capacity, most_waiting, held: 0, owners: HashMap::new() })))
    }

    /// Waits for a permit. Requests of one owner are served in order.
    pub async fn acquire(&self, owner: &O) -> Result<FairPermit<O>, QueueFull> {
        let receiver = {
            let mut state = self.lock();
            let most_waiting = state.most_waiting;
            let turns = state.owners.entry(owner.clone()).or_insert_with(OwnerTurns::new);
            if turns.waiting.len() >= most_waiting {
                turns.waiting.retain(|waiter| !waiter.is_closed());
            }
            if turns.waiting.len() >= most_waiting {
                return Err(QueueFull);
            }
            let (sender, receiver) = oneshot::channel();
            turns.waiting.push_back(sender);
            receiver
        };
        self.grant();
        // The sender is dropped without a permit only together with the whole semaphore.
        receiver.await.map_err(|_| QueueFull)
    }

    /// Gives permits to those that may have one now.
    fn grant(&self) {
        let granted: Vec<GrantedPermit<O>> = {
            let mut state = self.lock();
            std::iter::from_fn(|| state.next()).map(|(waiter, owner)| (waiter, self.permit(owner))).collect()
        };
        // After the lock: a permit whose waiter has gone comes back here.
        granted.into_iter().for_each(|(waiter, permit)| drop(waiter.send(permit)));
    }

    fn permit(&self, owner: O) -> FairPermit<O> {
        FairPermit { permits: Self(self.0.clone()), owner }
    }

    fn release(&self, owner: &O) {
        let mut state = self.lock();
        state.held -= 1;
        if let Some(turns) = state.owners.get_mut(owner) {
            turns.held -= 1;
            if turns.held == 0 && turns.waiting.is_empty() {
                state.owners.remove(owner);
            }
        }
        drop(state);
        self.grant();
    }

    fn lock(&self) -> MutexGuard<'_, PermitState<O>> {
        self.0.lock()
    }
}

impl<O: Clone + Eq + Hash> PermitState<O> {
    /// The next waiter that gets a permit: of the owners below their shares, one of that which holds least.
    fn next(&mut self) -> Option<(oneshot::Sender<FairPermit<O>>, O)> {
        for turns in self.owners.values_mut() {
            while turns.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                turns.waiting.pop_front();
            }
        }
        self.owners.retain(|_, turns| turns.held > 0 || !turns.waiting.is_empty());
        let (capacity, held) = (self.capacity, self.held);
        let may = |turns: &OwnerTurns<O>| {
            !turns.waiting.is_empty() && turns.held < share(capacity, held - turns.held)
        };
        let ready = self.owners.iter_mut().filter(|(_, turns)| may(turns));
        let (owner, turns) = ready.min_by_key(|(_, turns)| turns.held)?;
        let waiter = turns.waiting.pop_front()?;
        turns.held += 1;
        self.held += 1;
        Some((waiter, owner.clone()))
    }
}

impl<O: Clone + Eq + Hash> OwnerTurns<O> {
    fn new() -> Self {
        Self { held: 0, waiting: VecDeque::new() }
    }
}

impl<O: Clone + Eq + Hash> Clone for FairPermits<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Clone + Eq + Hash> Drop for FairPermit<O> {
    fn drop(&mut self) {
        self.permits.release(&self.owner);
    }
}

/// How much an owner may hold of `capacity`, if the other owners hold `others`.
fn share(capacity: usize, others: usize) -> usize {
    capacity.saturating_sub(others).div_ceil(FRACTION)
}
