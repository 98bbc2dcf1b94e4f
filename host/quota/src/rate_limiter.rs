//! So much per second, as the generic cell rate algorithm counts it: one number, no lock, no timer.
//!
//! What is more than a second's worth in itself, as one notification to thousands of devices, is let through
//! when nothing is owed, and paid off afterwards. Ready-made limiters refuse it for ever instead.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// When all that was let through is paid off, in nanoseconds on the caller's clock.
#[derive(Default)]
pub struct RateLimiter(AtomicU64);

impl RateLimiter {
    /// Takes `amount` at once, or tells how long to wait. `now`: on any clock, always the same.
    pub fn take(&self, amount: u64, per_second: NonZeroU64, now: Duration) -> Result<(), Duration> {
        let now = nanoseconds(now);
        let cost = u128::from(amount) * u128::from(SECOND) / u128::from(per_second.get());
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let take = |paid: u64| {
            let owed = paid.saturating_sub(now);
            (owed.saturating_add(cost.min(SECOND)) <= SECOND).then(|| paid.max(now).saturating_add(cost))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map(drop).map_err(|paid| {
            let owed = paid.saturating_sub(now);
            Duration::from_nanos(owed.saturating_add(cost.min(SECOND)).saturating_sub(SECOND))
        })
    }

    /// How much of a second's worth is taken, rounded up; more than that: it is being paid off.
    pub fn in_use(&self, per_second: NonZeroU64, now: Duration) -> u64 {
        let owed = self.0.load(Ordering::Relaxed).saturating_sub(nanoseconds(now));
        let amount = (u128::from(owed) * u128::from(per_second.get())).div_ceil(u128::from(SECOND));
        u64::try_from(amount).unwrap_or(u64::MAX)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // Room above for what is owed; it takes centuries to get here.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).unwrap()
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_seconds_worth_at_once_and_then_one_by_one() {
        let pace = RateLimiter::default();
        for _ in 0..10 {
            assert_eq!(pace.take(1, rate(10), at(5000)), Ok(()));
        }
        assert_eq!(pace.in_use(rate(10), at(5000)), 10);
        assert_eq!(pace.in_use(rate(10), at(5150)), 9);
        assert_eq!(pace.take(1, rate(10), at(5000)), Err(at(100)));
        assert_eq!(pace.take(1, rate(10), at(5099)), Err(at(1)));
        assert_eq!(pace.take(1, rate(10), at(5100)), Ok(()));
        assert_eq!(pace.take(3, rate(10), at(5100)), Err(at(300)));
        assert_eq!(pace.take(10, rate(10), at(60_000)), Ok(()), "a rest saves a second's worth");
        assert_eq!(pace.take(1, rate(10), at(60_000)), Err(at(100)), "and no more");
    }

    #[test]
    fn more_than_a_seconds_worth_is_paid_off_afterwards() {
        let pace = RateLimiter::default();
        assert_eq!(pace.take(50, rate(10), at(1000)), Ok(()));
        assert_eq!(pace.take(1, rate(10), at(1000)), Err(at(4100)));
        assert_eq!(pace.take(50, rate(10), at(5999)), Err(at(1)));
        assert_eq!(pace.take(50, rate(10), at(6000)), Ok(()));
    }

    #[test]
    fn it_holds_when_many_take_at_once() {
        let pace = RateLimiter::default();
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| pace.take(1, rate(500), at(1)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 500);
    }

    #[test]
    fn no_number_is_too_large() {
        let pace = RateLimiter::default();
        assert_eq!(pace.take(u64::MAX, rate(1), at(0)), Ok(()));
        assert!(pace.take(1, rate(1), at(1000)).is_err());
        assert!(RateLimiter::default().take(1, rate(u64::MAX), Duration::MAX).is_ok());
    }
}
