#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

type Cache = FairCache<&'static str, u32, u32>;

/// An entry whose value is its key.
fn add(
    cache: &mut Cache,
    owner: &'static str,
    key: u32,
    may_go: impl Fn(&u32) -> bool,
) -> Result<Vec<u32>, CacheFull> {
    cache.get_or_insert_with(&owner, &key, 1, may_go, || key).map(|(value, evicted)| {
        assert_eq!(value, key);
        evicted
    })
}

fn fill(cache: &mut Cache, owner: &'static str, keys: std::ops::Range<u32>) {
    keys.for_each(|key| drop(add(cache, owner, key, |_| true)));
}

#[test]
fn an_owner_alone_holds_a_quarter_and_its_oldest_entries_go() {
    let mut cache = Cache::new(100);
    fill(&mut cache, "a", 0..40);
    assert_eq!(cache.held_by(&"a"), 25);
    assert!((15..40).all(|key| cache.contains_key(&key)));
}

#[test]
fn what_was_used_stays() {
    let mut cache = Cache::new(16);
    fill(&mut cache, "a", 0..4);
    assert_eq!(cache.get(&0), Some(&0));
    assert_eq!(cache.get_owned(&"a", &2), Some(&2));
    assert_eq!(cache.get_owned(&"b", &1), None, "it does not belong to b, and is not used by it");
    assert_eq!(add(&mut cache, "a", 4, |_| true), Ok(vec![1]));
    assert_eq!(add(&mut cache, "a", 5, |_| true), Ok(vec![3]));
}

#[test]
fn a_flood_of_one_owner_takes_nothing_from_the_others() {
    let mut cache = Cache::new(100);
    fill(&mut cache, "small", 0..5);
    fill(&mut cache, "flood", 100..10_000);
    assert!((0..5).all(|key| cache.contains_key(&key)));
    assert_eq!(cache.held_by(&"flood"), 24);
}

#[test]
fn an_owner_that_comes_later_takes_from_the_largest() {
    let mut cache = Cache::new(100);
    for (owner, first) in [("a", 1_000), ("b", 2_000), ("c", 3_000), ("d", 4_000), ("e", 5_000)] {
        fill(&mut cache, owner, first..first + 100);
    }
    fill(&mut cache, "late", 0..100);
    let held = cache.held_by(&"late");
    assert!(held >= 100 / (6 + 3), "{held}");
    assert!(cache.held_by(&"a") < 25);
}

#[test]
fn what_may_not_go_stays_and_the_newcomer_is_refused() {
    let mut cache = Cache::new(100);
    (0..25).for_each(|key| drop(add(&mut cache, "a", key, |_| false)));
    assert_eq!(add(&mut cache, "a", 99, |_| false), Err(CacheFull));
    assert!((0..25).all(|key| cache.contains_key(&key)) && !cache.contains_key(&99));
    assert!(add(&mut cache, "b", 99, |_| false).is_ok(), "others have room");
    assert_eq!(add(&mut cache, "a", 98, |key| *key == 24), Ok(vec![24]), "one of them may go now");
}

#[test]
fn an_entry_of_two_owners_lives_until_both_have_lost_it() {
    let mut cache = Cache::new(16);
    fill(&mut cache, "a", 0..1);
    fill(&mut cache, "b", 0..1);
    assert_eq!(cache.held_by(&"b"), 1);
    fill(&mut cache, "a", 10..20);
    assert_eq!(cache.get_owned(&"a", &0), None);
    assert_eq!(cache.get_owned(&"b", &0), Some(&0));
    fill(&mut cache, "b", 20..30);
    assert!(!cache.contains_key(&0));
}

#[test]
fn a_heavy_entry_counts_for_more() {
    let mut cache = FairCache::<&str, u32, u32>::new(400);
    let mut insert = |owner: &'static str, key, weight| {
        cache.get_or_insert_with(&owner, &key, weight, |_| true, || key).map(|(_, evicted)| evicted)
    };
    assert_eq!(insert("a", 0, 101), Err(CacheFull));
    assert_eq!(insert("a", 1, 50), Ok(vec![]));
    assert_eq!(insert("a", 2, 50), Ok(vec![]));
    assert_eq!(insert("a", 3, 10), Ok(vec![1]));
    cache.set_weight(&3, 40);
    assert_eq!(cache.held_by(&"a"), 90);
    cache.retain(|key, _| *key != 3);
    assert_eq!(cache.held_by(&"a"), 50);
    assert_eq!(cache.remove(&2), Some(2));
    assert_eq!((cache.held_by(&"a"), cache.values().count()), (0, 0));
}

const OWNERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What the map must hold to, whatever happens: an owner, a key, whether the key is looked up or removed, and
/// which keys may go now.
fn keeps_its_promises(capacity: usize, steps: &[(usize, u32, u8, u32)]) {
    let mut cache = Cache::new(capacity);
    for &(owner, key, action, stays) in steps {
        let owner = OWNERS[owner];
        let before: HashMap<_, _> = OWNERS.iter().map(|owner| (*owner, owned(&cache, owner))).collect();
        match action {
            0 => drop(cache.get(&key).copied()),
            1 => drop(cache.remove(&key)),
            _ => {
                let held = cache.held_by(&owner);
                let total: usize = before.values().map(HashSet::len).sum();
                let may_go = |key: &u32| *key % 7 != stays;
                let added = add(&mut cache, owner, key, may_go);
                let after: HashMap<_, _> =
                    OWNERS.iter().map(|owner| (*owner, owned(&cache, owner))).collect();
                assert!(added.is_err() || after[owner].contains(&key));
                assert!(held > 0 || total >= capacity || added.is_ok(), "who has nothing finds room");
                for other in OWNERS {
                    let lost: Vec<_> = before[other].difference(&after[other]).collect();
                    assert!(lost.iter().all(|key| may_go(key)), "what must stay stays");
                    let is_smaller = other != owner && before[other].len() <= held;
                    assert!(!is_smaller || lost.is_empty(), "a smaller owner loses nothing");
                }
            }
        }
        let held: usize = OWNERS.iter().map(|owner| cache.held_by(owner)).sum();
        assert!(held <= capacity);
        for owner in OWNERS {
            assert_eq!(owned(&cache, owner).len(), cache.held_by(&owner));
            assert!(cache.held_by(&owner) <= capacity.div_ceil(FRACTION));
        }
    }
}

fn owned(cache: &Cache, owner: &'static str) -> HashSet<u32> {
    cache.keys_of(&owner).into_iter().collect()
}

proptest! {
    #[test]
    fn the_cache_keeps_its_promises(
        capacity in 1_usize..40,
        steps in prop::collection::vec((0_usize..6, 0_u32..60, 0_u8..8, 0_u32..8), 0..200),
    ) {
        keeps_its_promises(capacity, &steps);
    }

    #[test]
    fn permits_are_never_more_than_the_capacity(
        capacity in 1_usize..20,
        steps in prop::collection::vec((0_usize..6, 0_u8..3, any::<prop::sample::Index>()), 0..200),
    ) {
        permits_keep_their_promises(capacity, &steps);
    }
}

fn permits_keep_their_promises(capacity: usize, steps: &[(usize, u8, prop::sample::Index)]) {
    let permits = FairPermits::new(capacity, 1_000);
    let mut waiting = Vec::new();
    let mut held: Vec<(&str, FairPermit<&str>)> = Vec::new();
    for (owner, action, which) in steps {
        match action {
            0 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
            1 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
            _ => {
                let (owner, permits) = (OWNERS[*owner], permits.clone());
                waiting.push((owner, Box::pin(async move { permits.acquire(&owner).await })));
            }
        }
        let mut still = Vec::new();
        for (owner, mut one) in waiting.drain(..) {
            match one.as_mut().now_or_never() {
                Some(permit) => held.push((owner, permit.unwrap())),
                None => still.push((owner, one)),
            }
        }
        waiting = still;
        assert!(held.len() <= capacity);
        let idle = |owner: &str| held.iter().all(|(other, _)| *other != owner);
        let starving = waiting.iter().any(|(owner, _)| idle(owner));
        assert!(!starving || held.len() == capacity, "who holds nothing waits only if all are taken");
    }
}

#[test]
fn an_owner_that_holds_its_share_delays_nobody_else() {
    let permits = FairPermits::new(16, 2);
    let acquire = |owner: &'static str| permits.acquire(&owner).now_or_never();
    let held: Vec<_> = (0..4).map(|_| acquire("flood").unwrap().unwrap()).collect();
    let mut next = Box::pin(permits.acquire(&"flood"));
    assert!(next.as_mut().now_or_never().is_none());
    let gone = Box::pin(permits.acquire(&"flood"));
    assert!(acquire("neighbour").is_some());
    drop(gone);
    drop(held);
    assert!(next.as_mut().now_or_never().unwrap().is_ok(), "its turn has come");
}

#[test]
fn the_queue_of_an_owner_is_bounded() {
    let permits = FairPermits::new(4, 1);
    let _held = permits.acquire(&"a").now_or_never().unwrap().unwrap();
    let mut waiting = Box::pin(permits.acquire(&"a"));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(matches!(permits.acquire(&"a").now_or_never(), Some(Err(QueueFull))));
}
