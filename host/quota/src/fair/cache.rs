//! A map of bounded size that several owners fill. No owner can evict the entries of smaller owners.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{FRACTION, share};

/// Most entries that one insertion examines; it bounds the time for which the map is locked.
const MOST_EXAMINED: usize = 64;
/// Most owners whose entries one insertion examines.
const MOST_VICTIMS: usize = 8;

/// The owner's share is in use, and no entry may be evicted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheFull;

/// A bounded map from `K` to `V`, divided among owners.
///
/// Room for an entry is made by the largest owner: by the one that inserts, or by others that hold more than
/// it does. So an owner loses entries to smaller owners only. Within an owner the entry that was not used for
/// longest goes first (second chance, so that a lookup needs no exclusive access), unless the caller says that
/// it must stay.
///
/// An entry may have several owners. It counts for each of them in full, and lives until the last one has
/// lost it.
pub struct FairCache<O, K, V> {
    capacity: usize,
    /// Sum of what all owners hold.
    held: usize,
    entries: HashMap<K, CacheEntry<O, V>>,
    owners: HashMap<O, OwnerShare<K>>,
    next_turn: u64,
}

struct CacheEntry<O, V> {
    value: V,
    weight: usize,
    /// Looked up since it was last examined.
    used: AtomicBool,
    /// Its owners, each with the entry's turn in the owner's order. Nearly always one.
    owners: Vec<(O, u64)>,
}

struct OwnerShare<K> {
    weight: usize,
    /// In the order in which they are examined.
    order: BTreeMap<u64, K>,
}

impl<O, K, V> FairCache<O, K, V>
where
    O: Clone + Eq + Hash,
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// Creates a cache. `capacity`: the sum of the weights of all entries, each counted once per owner.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, held: 0, entries: HashMap::new(), owners: HashMap::new(), next_turn: 0 }
    }

    /// Creates a cache of which one owner alone may fill this much, and all together four times that.
    pub fn with_share(most: usize) -> Self {
        Self::new(most.saturating_mul(FRACTION))
    }

    /// Returns the value of a key of any owner.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(CacheEntry::touch)
    }

    /// Returns the value of a key, if it belongs to this owner.
    pub fn get_owned(&self, owner: &O, key: &K) -> Option<&V> {
        let entry = self.entries.get(key)?;
        entry.owners.iter().any(|(own, _)| own == owner).then(|| entry.touch())
    }

    /// Returns the value of a key for this owner, made if there is none, and the evicted values that made
    /// room for it.
    ///
    /// `may_go`: whether an entry may be evicted now. If there is still not enough room, the evicted values
    /// are dropped.
    pub fn get_or_insert_with(
        &mut self,
        owner: &O,
        key: &K,
        weight: usize,
        may_go: impl Fn(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> Result<(V, Vec<V>), CacheFull> {
        if let Some(value) = self.get_owned(owner, key) {
            return Ok((value.clone(), Vec::new()));
        }
        // An entry has one weight, whichever owner asks for it.
        let weight = self.entries.get(key).map_or(weight, |entry| entry.weight);
        // The value is kept apart, since making room may evict the entry itself.
        let known = self.entries.get(key).map(|entry| entry.value.clone());
        let evicted = self.make_room(owner, weight, may_go)?;
        let value = known.unwrap_or_else(make);
        self.link(owner, key, value.clone(), weight);
        Ok((value, evicted))
    }

    /// Changes the weight of an entry, for its owners' next insertions.
    pub fn set_weight(&mut self, key: &K, weight: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let old = std::mem::replace(&mut entry.weight, weight);
        for (owner, _) in &entry.owners {
            self.held = self.held + weight - old;
            if let Some(holding) = self.owners.get_mut(owner) {
                holding.weight = holding.weight + weight - old;
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        for (owner, turn) in &entry.owners {
            self.unlist(owner, *turn, entry.weight);
        }
        Some(entry.value)
    }

    /// Removes all entries that do not satisfy the predicate.
    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let unwanted = self.entries.iter().filter(|(key, entry)| !keep(key, &entry.value));
        let unwanted: Vec<K> = unwanted.map(|(key, _)| key.clone()).collect();
        for key in &unwanted {
            self.remove(key);
        }
        self.shrink();
    }

    /// Takes all entries from an owner that is gone, except for the latest `most_kept` of those that must stay.
    pub fn release(&mut self, owner: &O, most_kept: usize, must_stay: impl Fn(&V) -> bool) {
        let order = self.owners.get(owner).map(|holding| &holding.order).into_iter().flatten();
        let latest_first: Vec<(u64, K)> = order.rev().map(|(turn, key)| (*turn, key.clone())).collect();
        let mut kept = 0;
        for (turn, key) in latest_first {
            if kept < most_kept && self.entries.get(&key).is_some_and(|entry| must_stay(&entry.value)) {
                kept += 1;
            } else {
                self.unlink(owner, &key, turn, &mut Vec::new());
            }
        }
        self.shrink();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the weight of what an owner holds.
    pub fn held_by(&self, owner: &O) -> usize {
        self.owners.get(owner).map_or(0, |holding| holding.weight)
    }

    #[cfg(test)]
    pub fn keys_of(&self, owner: &O) -> Vec<K> {
        self.owners.get(owner).into_iter().flat_map(|holding| holding.order.values().cloned()).collect()
    }

    /// Makes room for this weight of the owner's entries, and returns what was evicted.
    fn make_room(
        &mut self,
        owner: &O,
        weight: usize,
        may_go: impl Fn(&V) -> bool,
    ) -> Result<Vec<V>, CacheFull> {
        let own = self.held_by(owner);
        if own + weight <= share(self.capacity, self.held - own) {
            return Ok(Vec::new());
        }
        if weight > self.capacity.div_ceil(FRACTION) {
            return Err(CacheFull);
        }
        let (mut evicted, mut freed, mut examined) = (Vec::new(), 0, 0);
        // What is freed is used at once: the room that is kept for new owners does not shrink.
        for victim in self.victims(owner, own) {
            while freed < weight {
                let Some(weight) = self.evict_one(&victim, &mut examined, &may_go, &mut evicted) else {
                    break;
                };
                freed += weight;
            }
        }
        if freed >= weight { Ok(evicted) } else { Err(CacheFull) }
    }

    /// Returns the owners that make room: those that hold more than this one, the largest first, and then
    /// this one.
    fn victims(&self, owner: &O, own: usize) -> Vec<O> {
        let larger = self.owners.iter().filter(|(_, holding)| holding.weight > own);
        let mut larger: Vec<(usize, &O)> = larger.map(|(other, holding)| (holding.weight, other)).collect();
        larger.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        larger.truncate(MOST_VICTIMS);
        larger.into_iter().map(|(_, other)| other).chain([owner]).cloned().collect()
    }

    /// Takes one entry from an owner, and returns its weight.
    fn evict_one(
        &mut self,
        owner: &O,
        examined: &mut usize,
        may_go: impl Fn(&V) -> bool,
        evicted: &mut Vec<V>,
    ) -> Option<usize> {
        let mut second_choice = None;
        for _ in 0..self.owners.get(owner)?.order.len() {
            if *examined == MOST_EXAMINED {
                break;
            }
            *examined += 1;
            let (turn, key) = self.owners.get(owner)?.order.first_key_value()?;
            let (turn, key) = (*turn, key.clone());
            let entry = self.entries.get(&key)?;
            let may_go = may_go(&entry.value);
            if may_go && !entry.used.swap(false, Ordering::Relaxed) {
                return Some(self.unlink(owner, &key, turn, evicted));
            }
            // Used lately, or not allowed to go: it gets a second chance at the end of the order.
            let turn = self.postpone(owner, &key, turn);
            if may_go && second_choice.is_none() {
                second_choice = Some((turn, key));
            }
        }
        let (turn, key) = second_choice?;
        Some(self.unlink(owner, &key, turn, evicted))
    }

    fn link(&mut self, owner: &O, key: &K, value: V, weight: usize) {
        let turn = self.next_turn();
        let new = || CacheEntry { value, weight, used: AtomicBool::new(false), owners: Vec::new() };
        let entry = self.entries.entry(key.clone()).or_insert_with(new);
        entry.owners.push((owner.clone(), turn));
        let none = || OwnerShare { weight: 0, order: BTreeMap::new() };
        let holding = self.owners.entry(owner.clone()).or_insert_with(none);
        holding.order.insert(turn, key.clone());
        holding.weight += weight;
        self.held += weight;
    }

    /// Removes an entry from an owner, and the entry itself if this was its last owner. Returns the weight.
    fn unlink(&mut self, owner: &O, key: &K, turn: u64, evicted: &mut Vec<V>) -> usize {
        let Some(entry) = self.entries.get_mut(key) else { return 0 };
        entry.owners.retain(|(other, _)| other != owner);
        let (weight, is_last) = (entry.weight, entry.owners.is_empty());
        if is_last {
            evicted.extend(self.entries.remove(key).map(|entry| entry.value));
        }
        self.unlist(owner, turn, weight);
        weight
    }

    fn unlist(&mut self, owner: &O, turn: u64, weight: usize) {
        let Some(holding) = self.owners.get_mut(owner) else { return };
        holding.order.remove(&turn);
        holding.weight -= weight;
        self.held -= weight;
        if holding.order.is_empty() {
            self.owners.remove(owner);
        }
    }

    /// Moves an entry to the end of its owner's order, and returns its new turn.
    fn postpone(&mut self, owner: &O, key: &K, turn: u64) -> u64 {
        let new = self.next_turn();
        if let Some(holding) = self.owners.get_mut(owner) {
            holding.order.remove(&turn);
            holding.order.insert(new, key.clone());
        }
        let owners = self.entries.get_mut(key).into_iter().flat_map(|entry| &mut entry.owners);
        owners.filter(|(other, _)| other == owner).for_each(|(_, turn)| *turn = new);
        new
    }

    /// Shrinks the map, which does not free memory by itself.
    fn shrink(&mut self) {
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }
}

impl<O, V> CacheEntry<O, V> {
    fn touch(&self) -> &V {
        // Not written if it is set already, so that readers do not take the cache line from each other.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        &self.value
    }
}
