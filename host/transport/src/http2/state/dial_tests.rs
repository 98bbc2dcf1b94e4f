//! When the pool dials.

#![allow(clippy::panic)]

use super::tests::BOUNDS;
use super::*;

/// A service that allows fewer connections than wanted closes further ones as they come.
#[test]
fn answers_on_another_connection_do_not_end_the_pause_of_a_failed_dial() {
    let start = Instant::now();
    let mut pool = PoolState::<u64, u32>::new(BOUNDS);
    let mut dials = 0;
    assert!(matches!(pool.admit(start, Shard::NONE, || 0), StreamAdmission::Wait(_)));
    assert_eq!(pool.next(start), Some(PoolAction::Connect(1)));
    pool.opened(start, Shard::NONE, 1, 1);
    assert_eq!(pool.next(start), Some(PoolAction::Grant(0, 1)));
    // Someone always waits, and for a minute the only stream is answered every 10 ms.
    assert!(matches!(pool.admit(start, Shard::NONE, || 0), StreamAdmission::Wait(_)));
    for tick in 1..=6_000 {
        let now = start + Duration::from_millis(tick * 10);
        pool.release(now, 1, true);
        while let Some(action) = pool.next(now) {
            match action {
                PoolAction::Connect(_) => {
                    dials += 1;
                    pool.open_failed(now, u32::MAX, false);
                }
                PoolAction::Grant(_, 1) => {
                    assert!(matches!(pool.admit(now, Shard::NONE, || 0), StreamAdmission::Wait(_)))
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Pauses of 1, 2, 4 and then 8 seconds.
    assert!((8..=12).contains(&dials), "{dials} dials in a minute");
    // Once the good connection is gone, a new one is dialled at once: the peer is not down.
    let now = start + Duration::from_secs(61);
    pool.closed(now, 1, u32::MAX, false);
    assert!(matches!(pool.next(now), Some(PoolAction::Connect(_))));
}

#[test]
fn a_pool_ends_only_when_nobody_uses_it() {
    let now = Instant::now();
    let mut pool = PoolState::<u64, u32>::new(BOUNDS);
    assert!(!pool.end_if_unused(false));
    assert!(matches!(pool.admit(now, Shard::NONE, || 0), StreamAdmission::Wait(_)));
    assert!(!pool.end_if_unused(true));
    assert_eq!(pool.next(now), Some(PoolAction::Connect(1)));
    pool.opened(now, Shard::NONE, 1, 1);
    assert_eq!(pool.next(now), Some(PoolAction::Grant(0, 1)));
    pool.drain();
    assert_eq!(pool.next(now), None);
    pool.release(now, 1, true);
    assert_eq!(pool.next(now), Some(PoolAction::Retire(1)));
    assert_eq!(pool.next(now), Some(PoolAction::Finish(1)));
    assert!(!pool.end_if_unused(false));
    pool.closed(now, 1, 0, false);
    assert!(pool.end_if_unused(false));
    assert_eq!(pool.admit(now, Shard::NONE, || 1), StreamAdmission::Ended);
}
