//! The clock that interrupts guests.

use super::*;

/// A clock, and how often it has ticked.
fn counting() -> (EpochClock, Arc<AtomicU64>) {
    let ticks = Arc::new(AtomicU64::new(0));
    let counted = ticks.clone();
    let clock = EpochClock::start(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    (clock, ticks)
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(TICK);
    }
}

#[test]
fn it_stands_still_without_calls_and_ticks_during_each() {
    let (clock, ticks) = counting();
    for _ in 0..3 {
        wait_until(|| clock.calls.stands_still.load(Ordering::SeqCst));
        let call = clock.call();
        let before = ticks.load(Ordering::Relaxed);
        // Longer than it takes to stand still.
        wait_until(|| ticks.load(Ordering::Relaxed) > before + 2 * u64::from(QUIET));
        drop(call);
    }
    assert_eq!(clock.calls.counts(), (false, 3));
}

#[test]
fn no_call_is_missed_however_it_coincides_with_standing_still() {
    let (clock, ticks) = counting();
    for _ in 0..200 {
        // About when it decides to stand still, sooner or later.
        clock.calls.stands_still.store(true, Ordering::SeqCst);
        let _call = clock.call();
        let before = ticks.load(Ordering::Relaxed);
        wait_until(|| ticks.load(Ordering::Relaxed) > before);
    }
}
