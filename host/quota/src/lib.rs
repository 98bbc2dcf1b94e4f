//! How much of this process each tenant may use: accounts for memory and processor time, rate limits, and fair shares of
//! caches and permits; and the threads that all of this is about.

pub mod account;
pub mod fair;

use std::cell::Cell;
use std::io;
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// A rate limiter that counts as the generic cell rate algorithm does: one number, no lock, no timer.
///
/// It counts time: how long it takes, at the caller's rate, to pay for what was used. Two kinds of use are limited:
/// - [`take`](RateLimiter::take): what is known before it is used, as requests and pushes. What is more than a second's
///   worth in itself, as one notification to thousands of devices, is let through when nothing is owed, and paid off
///   afterwards. Ready-made limiters refuse it for ever instead.
/// - [`admit`](RateLimiter::admit) and [`charge`](RateLimiter::charge): what is known only afterwards, as processor time.
///
/// Holds the time at which everything that was used is paid off, in nanoseconds on the caller's clock.
#[derive(Default)]
pub struct RateLimiter(AtomicU64);

impl RateLimiter {
    /// Creates a limiter on whose clock it is `now`, of which nothing is used.
    pub fn starting_at(now: Duration) -> Self {
        Self(AtomicU64::new(nanoseconds(now)))
    }

    /// Takes `amount` at once, or returns how long to wait. `now`: on any clock, always the same.
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

    /// Lets nothing through at once: as if a second's worth had just been taken.
    pub fn fill(&self, now: Duration) {
        self.0.fetch_max(nanoseconds(now).saturating_add(SECOND), Ordering::Relaxed);
    }

    /// Returns how much of a second's worth is taken, rounded up; more than a second's worth while it is paid off.
    pub fn in_use(&self, per_second: NonZeroU64, now: Duration) -> u64 {
        let amount = (self.owed(now).as_nanos() * u128::from(per_second.get())).div_ceil(u128::from(SECOND));
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    /// Admits use that is charged afterwards, unless as much is owed as may be; then returns how long to wait.
    pub fn admit(&self, most_owed: Duration, now: Duration) -> Result<(), Duration> {
        let now = nanoseconds(now);
        // A charge has no clock: it counts from the last admission, so that a rest before it does not pay for it.
        let owed = self.0.fetch_max(now, Ordering::Relaxed).saturating_sub(now);
        let most = nanoseconds(most_owed);
        if owed < most { Ok(()) } else { Err(Duration::from_nanos(owed - most)) }
    }

    /// Charges use that takes so long to pay off.
    pub fn charge(&self, cost: Duration) {
        let add = |paid: u64| Some(paid.saturating_add(nanoseconds(cost)));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Returns how long it takes until everything is paid off.
    pub fn owed(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).saturating_sub(nanoseconds(now)))
    }
}

/// What this server holds of a rate that several share: it leases amounts ahead of need. So that nothing waits for a lease,
/// use is let through on credit, which the next leases pay off.
///
/// Holds an amount; below 0: what is owed.
#[derive(Default)]
pub struct LeasedRate(AtomicI64);

impl LeasedRate {
    /// Takes `amount` at once, or returns how much is lacking. `credit`: what may be owed. As with a [`RateLimiter`], more
    /// than that in itself is let through when nothing is owed.
    pub fn take(&self, amount: u64, credit: u64) -> Result<(), u64> {
        let (amount, credit) = (signed(amount), signed(credit));
        let least = amount.min(credit) - credit;
        let take = |held: i64| (held >= least).then(|| held.saturating_sub(amount));
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|held| least.abs_diff(held))
    }

    /// Returns how much is to be leased so that `ahead` is held.
    pub fn lacking(&self, ahead: u64) -> u64 {
        u64::try_from(signed(ahead).saturating_sub(self.0.load(Ordering::Relaxed))).unwrap_or(0)
    }

    /// Adds what was leased. No more than `ahead` is held, so that a rest saves nothing.
    pub fn add(&self, amount: u64, ahead: u64) {
        let add = |held: i64| Some(held.saturating_add(signed(amount)).min(signed(ahead)));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

fn signed(amount: u64) -> i64 {
    // Room below for what is owed.
    i64::try_from(amount).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

fn nanoseconds(time: Duration) -> u64 {
    // Room above for what is owed; it takes centuries to get here.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

/// One of the threads that serve callers, or any other thread of the process.
///
/// Each has a runtime of its own, which polls one task after the other: what one task does at one go delays all others of
/// the thread, those that drive connections to push services too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shard(u32);

/// A thread that has had work without a break for this long is avoided where there is a choice.
const BEHIND: Duration = Duration::from_millis(50);

thread_local! {
    static CURRENT: Cell<Shard> = const { Cell::new(Shard::NONE) };
}

/// For each shard: when its thread last woke, in milliseconds since [`STARTED`] and at least 1; 0: it waits for work.
static BUSY_SINCE: [AtomicU64; Shard::MOST] = [const { AtomicU64::new(0) }; Shard::MOST];
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Shard {
    /// Every thread that is no shard. They count as one.
    pub const NONE: Self = Self(0);
    /// The number of shards that there may be.
    const MOST: usize = 256;

    /// Returns the shard of this number, from 0.
    pub const fn new(number: u32) -> Self {
        Self(number.saturating_add(1))
    }

    /// Returns how many shards this machine has use for: one for each processor that this process may use.
    pub fn count() -> u32 {
        static COUNT: LazyLock<usize> =
            LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
        (*COUNT).min(Self::MOST) as u32
    }

    /// Returns its place in a list that has one more place than there are shards: the first is that of all other
    /// threads.
    pub fn place(self) -> usize {
        if self.0 <= Self::count() { self.0 as usize } else { 0 }
    }

    /// Returns the shard of the calling thread.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Makes the calling thread this shard.
    pub fn enter(self) {
        CURRENT.set(self);
    }

    /// Records that the shard's thread waits for work from now on.
    pub fn parks(self) {
        self.set_busy_since(0);
    }

    /// Records that the shard's thread has work from now on.
    pub fn unparks(self) {
        self.set_busy_since(milliseconds().max(1));
    }

    /// Returns true if the shard's thread has had work without a break for long: what comes now waits longer there than
    /// elsewhere.
    pub fn is_behind(self) -> bool {
        let since = self.busy_since().map_or(0, |since| since.load(Ordering::Relaxed));
        since > 0 && milliseconds().saturating_sub(since) > BEHIND.as_millis() as u64
    }

    fn set_busy_since(self, since: u64) {
        if let Some(busy_since) = self.busy_since() {
            busy_since.store(since, Ordering::Relaxed);
        }
    }

    fn busy_since(self) -> Option<&'static AtomicU64> {
        BUSY_SINCE.get((self.0 as usize).checked_sub(1)?)
    }
}

/// A thread that ends when this is dropped, which waits for it.
pub struct OwnedThread<S> {
    /// The thread ends when this is gone.
    stop: Option<S>,
    thread: Option<JoinHandle<()>>,
}

impl<S> OwnedThread<S> {
    /// Starts a thread that `run`s until the other end of `stop` is dropped.
    pub fn start(name: String, stop: S, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let thread = thread::Builder::new().name(name).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl<S> Drop for OwnedThread<S> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

fn milliseconds() -> u64 {
    STARTED.elapsed().as_millis() as u64
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
        let limiter = RateLimiter::default();
        for _ in 0..10 {
            assert_eq!(limiter.take(1, rate(10), at(5000)), Ok(()));
        }
        assert_eq!(limiter.in_use(rate(10), at(5000)), 10);
        assert_eq!(limiter.in_use(rate(10), at(5150)), 9);
        assert_eq!(limiter.take(1, rate(10), at(5000)), Err(at(100)));
        assert_eq!(limiter.take(1, rate(10), at(5099)), Err(at(1)));
        assert_eq!(limiter.take(1, rate(10), at(5100)), Ok(()));
        assert_eq!(limiter.take(3, rate(10), at(5100)), Err(at(300)));
        assert_eq!(limiter.take(10, rate(10), at(60_000)), Ok(()), "a rest saves a second's worth");
        assert_eq!(limiter.take(1, rate(10), at(60_000)), Err(at(100)), "and no more");
        limiter.fill(at(90_000));
        assert_eq!(limiter.take(1, rate(10), at(90_000)), Err(at(100)), "as if it had been taken");
    }

    #[test]
    fn more_than_a_seconds_worth_is_paid_off_afterwards() {
        let limiter = RateLimiter::default();
        assert_eq!(limiter.take(50, rate(10), at(1000)), Ok(()));
        assert_eq!(limiter.take(1, rate(10), at(1000)), Err(at(4100)));
        assert_eq!(limiter.take(50, rate(10), at(5999)), Err(at(1)));
        assert_eq!(limiter.take(50, rate(10), at(6000)), Ok(()));
    }

    #[test]
    fn what_is_charged_afterwards_is_paid_off_with_time() {
        let limiter = RateLimiter::starting_at(at(1000));
        limiter.charge(at(1500));
        assert_eq!(limiter.admit(at(2000), at(1000)), Ok(()));
        limiter.charge(at(1000));
        assert_eq!(limiter.owed(at(1000)), at(2500));
        assert_eq!(limiter.admit(at(2000), at(1000)), Err(at(500)));
        assert_eq!(limiter.admit(at(2000), at(60_000)), Ok(()));
        limiter.charge(at(2000));
        assert_eq!(limiter.admit(at(2000), at(60_000)), Err(at(0)), "a rest does not pay for later use");
    }

    #[test]
    fn it_holds_when_many_take_at_once() {
        let limiter = RateLimiter::default();
        let taken: usize = thread::scope(|scope| {
            let take = || (0..1000).filter(|_| limiter.take(1, rate(500), at(1)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 500);
    }

    #[test]
    fn a_lease_pays_off_what_was_used_on_credit() {
        let rate = LeasedRate::default();
        assert_eq!(rate.lacking(10), 10);
        for _ in 0..30 {
            assert_eq!(rate.take(1, 30), Ok(()), "on credit");
        }
        assert_eq!((rate.take(1, 30), rate.lacking(10)), (Err(1), 40));
        rate.add(5, 10);
        assert_eq!((rate.take(6, 30), rate.take(5, 30)), (Err(1), Ok(())));
        rate.add(30, 10);
        assert_eq!(rate.take(500, 30), Ok(()), "more than may be owed, when nothing is");
        assert_eq!((rate.take(1, 30), rate.lacking(0)), (Err(471), 500));
        rate.add(u64::MAX, 10);
        assert_eq!((rate.lacking(10), rate.lacking(11)), (0, 1), "no more is held");
        assert!(rate.take(u64::MAX, 1).is_ok() && rate.take(u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn no_number_is_too_large() {
        let limiter = RateLimiter::default();
        assert_eq!(limiter.take(u64::MAX, rate(1), at(0)), Ok(()));
        assert!(limiter.take(1, rate(1), at(1000)).is_err());
        assert!(RateLimiter::default().take(1, rate(u64::MAX), Duration::MAX).is_ok());
    }

    #[test]
    fn a_thread_that_waits_for_work_is_not_behind() {
        let shard = Shard::new(200);
        assert!(!shard.is_behind());
        shard.set_busy_since(1);
        LazyLock::force(&STARTED);
        thread::sleep(BEHIND + Duration::from_millis(5));
        assert!(shard.is_behind());
        shard.unparks();
        assert!(!shard.is_behind());
        shard.set_busy_since(1);
        shard.parks();
        assert!(!shard.is_behind());
        assert!(!Shard::NONE.is_behind());
        assert!(!Shard::new(u32::MAX).is_behind());
    }
}
