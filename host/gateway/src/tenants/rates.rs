//! A limit per second of one tenant, as this server grants it: its share of the fleet's, or, if the tenant's limits hold
//! exactly, what it leases out of the fleet's. A lease is taken ahead of need, by a task that no send waits for.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pushlet_quota::{LeasedRate, RateLimiter};
use pushlet_registry::{Lease, LeaseCounter};

/// A lease is for a tenth of a second.
const LEASES_PER_SECOND: u64 = 10;
/// Between two leases: with the size of a lease, it bounds what is held and how often the counter is asked.
const PAUSE: Duration = Duration::from_millis(25);
/// After a failure: the second one in a row says that no lease can be had.
const AGAIN: Duration = Duration::from_millis(250);
const LONGER: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How a limit is shared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    /// The servers that share it, this one included.
    pub servers: u64,
    /// The limit holds exactly.
    pub exact: bool,
}

/// One limit per second.
#[derive(Default)]
pub(super) struct SharedRate {
    /// What this server grants by its share.
    share: RateLimiter,
    leased: LeasedRate,
    /// A task takes leases.
    leasing: AtomicBool,
    /// No lease can be had now: this server grants its share.
    without_leases: AtomicBool,
    /// The last lease could not be had.
    failed: AtomicBool,
}

impl SharedRate {
    /// Takes `amount` at once, or returns how long to wait.
    pub fn take(
        &self,
        amount: u64,
        most: NonZeroU64,
        sharing: Sharing,
        now: Duration,
    ) -> Result<(), Duration> {
        if !sharing.exact || self.is_without_leases() {
            // As if each of the others took as much.
            return self.share.take(amount.saturating_mul(sharing.servers), most, now);
        }
        // No more than its share is let through on credit.
        let credit = most.get().div_ceil(sharing.servers.max(1));
        let wait = |lacking: u64| Duration::from_secs_f64(lacking as f64 / most.get() as f64);
        self.leased.take(amount, credit).map_err(wait)
    }

    /// Returns how much of a second's worth is taken, rounded up.
    pub fn in_use(&self, most: NonZeroU64, sharing: Sharing, now: Duration) -> u64 {
        match sharing.exact && !self.is_without_leases() {
            true => self.leased.lacking(0).saturating_mul(sharing.servers),
            false => self.share.in_use(most, now),
        }
    }

    pub fn is_without_leases(&self) -> bool {
        self.without_leases.load(Ordering::Relaxed)
    }

    /// Returns true if a lease is needed and the caller is the one who has to start [`SharedRate::lease_ahead`].
    pub fn begins_to_lease(&self, most: NonZeroU64) -> bool {
        // A lease at the half keeps the messages few.
        self.leased.lacking(ahead(most)) > ahead(most) / 2
            && !self.leasing.load(Ordering::Relaxed)
            && !self.leasing.swap(true, Ordering::AcqRel)
    }

    /// Takes one lease. Returns how long to pause until the next one; None: enough is held, and the task is over.
    /// `started`: when the clock of [`SharedRate::take`] began.
    pub async fn lease_ahead(
        &self,
        counter: &mut LeaseCounter,
        most: NonZeroU64,
        started: Instant,
    ) -> Option<Duration> {
        let ahead = ahead(most);
        let lacking = self.leased.lacking(ahead);
        if lacking == 0 {
            self.end();
            return None;
        }
        match counter.take(lacking.min(ahead), most).await {
            Ok(lease) => {
                self.failed.store(false, Ordering::Relaxed);
                if self.without_leases.swap(false, Ordering::Relaxed) {
                    tracing::info!("an exact limit is leased again");
                }
                match lease {
                    Lease::Granted(amount) => {
                        self.leased.add(amount, ahead);
                        Some(PAUSE)
                    }
                    Lease::Later(wait) => Some(wait.clamp(PAUSE, LONGEST_WAIT)),
                }
            }
            Err(_) if !self.failed.swap(true, Ordering::Relaxed) => Some(AGAIN),
            Err(error) => {
                if !self.is_without_leases() {
                    tracing::warn!(%error, "an exact limit cannot be leased: this server grants its share of it");
                    // What was leased is used: the share begins with nothing saved.
                    self.share.fill(started.elapsed());
                    self.without_leases.store(true, Ordering::Relaxed);
                }
                Some(LONGER)
            }
        }
    }

    /// The task that leases is over.
    pub fn end(&self) {
        self.without_leases.store(false, Ordering::Relaxed);
        self.leasing.store(false, Ordering::Release);
    }
}

/// Returns what is held ahead of need.
fn ahead(most: NonZeroU64) -> u64 {
    most.get().div_ceil(LEASES_PER_SECOND)
}
