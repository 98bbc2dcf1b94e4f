//! Limits per second that hold for the fleet exactly: each has a counter, out of which a node takes what it will need next,
//! in one piece. The counter changes by compare-and-set, so all nodes together take no more than there is.
//!
//! It counts as a `RateLimiter` does: its record is the time at which everything that was taken is paid off. The nodes'
//! clocks must agree within seconds; a record that is further ahead than that counts for nothing.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::stream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::connection::{Outgoing, unreachable};
use super::fleet::Fleet;
use crate::storage::StorageError;
use pushlet_model::tenant::TenantId;

const STREAM: &str = "KV_pushlet_leases";
const PREFIX: &str = "$KV.pushlet_leases.";
/// How long a counter is kept that nobody takes from.
const KEPT: Duration = Duration::from_secs(60);
/// Counters of all tenants.
const MOST: i64 = 200_000;
/// Tries to change a counter that others change too.
const TRIES: usize = 5;
/// A counter that does not answer for this long cannot be had.
const LONGEST: Duration = Duration::from_secs(1);

const SECOND: u64 = 1_000_000_000;
/// Clocks that differ by more are wrong.
const SKEW: u64 = 10 * SECOND;

/// The counter of one limit, as this node knew it last.
pub struct LeaseCounter {
    fleet: Fleet,
    subject: String,
    /// Its sequence and the time at which everything is paid off, in nanoseconds since the Unix epoch.
    known: Option<(u64, u64)>,
    /// The last try failed: the servers may have been started again, without what they had in memory.
    failed: bool,
}

/// What a node gets when it asks for a lease.
#[derive(Debug, PartialEq, Eq)]
pub enum Lease {
    /// As much, which may be less than was wanted.
    Granted(u64),
    /// There is nothing for so long.
    Later(Duration),
}

impl Fleet {
    /// Returns the counter of a tenant's limit.
    pub fn lease_counter(&self, tenant: &TenantId, limit: &str) -> LeaseCounter {
        let subject = format!("{PREFIX}{}.{limit}", URL_SAFE_NO_PAD.encode(tenant.as_str()));
        LeaseCounter { fleet: self.clone(), subject, known: None, failed: false }
    }

    /// Runs a task where sends do not wait for it, for as long as this node is part of the fleet.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.connection.spawn(task);
    }
}

impl LeaseCounter {
    /// Takes up to `wanted` out of what all nodes may use together.
    pub async fn take(&mut self, wanted: u64, per_second: NonZeroU64) -> Result<Lease, StorageError> {
        let taken = tokio::time::timeout(LONGEST, self.take_now(wanted, per_second)).await;
        let taken = taken.unwrap_or_else(|_| Err(unreachable("a counter does not answer")));
        self.failed = taken.is_err();
        if self.failed {
            self.known = None;
        }
        taken
    }

    async fn take_now(&mut self, wanted: u64, per_second: NonZeroU64) -> Result<Lease, StorageError> {
        if self.failed {
            self.fleet.0.connection.stream(config()).await?;
        }
        for _ in 0..TRIES {
            let (sequence, paid) = match self.known {
                Some(known) => known,
                None => self.look().await?,
            };
            let (amount, paid) = match grant(paid, unix_nanoseconds(), wanted, per_second) {
                Ok(granted) => granted,
                Err(wait) => {
                    // Others may have taken meanwhile what comes then.
                    self.known = None;
                    return Ok(Lease::Later(wait));
                }
            };
            let payload = Bytes::copy_from_slice(&paid.to_be_bytes());
            let message =
                Outgoing { subject: self.subject.clone(), payload, expected: Some(sequence), deletes: false };
            match self.fleet.0.connection.store(vec![message]).await {
                Ok(sequence) => {
                    self.known = Some((sequence, paid));
                    return Ok(Lease::Granted(amount));
                }
                Err(StorageError::Conflict) => self.known = None,
                Err(error) => return Err(error),
            }
        }
        Ok(Lease::Later(Duration::from_millis(20)))
    }

    async fn look(&self) -> Result<(u64, u64), StorageError> {
        let found = self.fleet.0.connection.last(STREAM, &self.subject).await?;
        let (sequence, record) = found.unwrap_or_default();
        let paid = record.and_then(|record| Some(u64::from_be_bytes(record.as_ref().try_into().ok()?)));
        Ok((sequence, paid.unwrap_or(0)))
    }
}

/// Returns how much of `wanted` is there, and when it will be paid off; or how long nothing is. At most a second's worth is
/// there at once.
fn grant(paid: u64, now: u64, wanted: u64, per_second: NonZeroU64) -> Result<(u64, u64), Duration> {
    let paid = if paid > now + SKEW { now } else { paid.max(now) };
    let rate = u128::from(per_second.get());
    let room = u128::from((now + SECOND).saturating_sub(paid));
    let there = u64::try_from(room * rate / u128::from(SECOND)).unwrap_or(u64::MAX);
    // Drops would cost a message each.
    let least = per_second.get().div_ceil(20).min(wanted);
    let cost = |amount: u64| {
        u64::try_from((u128::from(amount) * u128::from(SECOND)).div_ceil(rate)).unwrap_or(u64::MAX)
    };
    if there < least {
        return Err(Duration::from_nanos(cost(least).saturating_sub(u64::try_from(room).unwrap_or(SECOND))));
    }
    let amount = wanted.min(there);
    Ok((amount, paid.saturating_add(cost(amount))))
}

fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

pub(super) fn config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{PREFIX}>")],
        description: Some("Pushlet: limits per second that hold exactly".to_owned()),
        max_messages: MOST,
        max_messages_per_subject: 1,
        max_age: KEPT,
        // A counter that is lost begins anew: with a second's worth.
        storage: stream::StorageType::Memory,
        allow_rollup: true,
        ..stream::Config::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_together_get_a_seconds_worth_at_once_and_then_the_rate() {
        let rate = NonZeroU64::new(100).unwrap();
        let now = 5_000 * SECOND;
        let (mut paid, mut taken) = (0, 0);
        while let Ok((amount, next)) = grant(paid, now, 10, rate) {
            (paid, taken) = (next, taken + amount);
        }
        assert_eq!((taken, paid), (100, now + SECOND));
        assert_eq!(grant(paid, now, 10, rate), Err(Duration::from_millis(50)), "half of what is wanted");
        assert_eq!(grant(paid, now, 1, rate), Err(Duration::from_millis(10)));
        assert_eq!(grant(paid, now + SECOND / 20, 10, rate), Ok((5, now + SECOND + SECOND / 20)));
        for step in 1..=100 {
            if let Ok((amount, next)) = grant(paid, now + step * SECOND / 10, 1000, rate) {
                (paid, taken) = (next, taken + amount);
            }
        }
        assert_eq!(taken, 100 + 1000, "ten seconds later");
        assert_eq!(grant(now + 100 * SECOND, now, 10, rate).unwrap().0, 10, "of a clock that is wrong");
        let one = NonZeroU64::MIN;
        assert_eq!(grant(0, now, 1, one), Ok((1, now + SECOND)));
        assert_eq!(grant(now + SECOND, now, 1, one), Err(Duration::from_secs(1)));
    }
}
