//! A token bucket of processor time: it fills with time and is emptied by use. The level may go below zero, because
//! work is charged after it was done. Time is an argument.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Limits the rate of use, and allows a burst after a rest.
pub(super) struct TokenBucket {
    /// Seconds of processor time.
    level: f64,
    burst: f64,
    rate: f64,
    /// The part of the tenant's rate that this bucket gets.
    part: f64,
    filled: Instant,
}

impl TokenBucket {
    /// Gets `part` of what is allowed.
    pub fn new(per_second: Duration, burst: Duration, part: f64, now: Instant) -> Self {
        let burst = burst.as_secs_f64() * part;
        Self { level: burst, burst, rate: per_second.as_secs_f64() * part, part, filled: now }
    }

    /// Sets the tenant's rate. What may be used at one go lasts for as long as before.
    pub fn set_rate(&mut self, milliseconds: NonZeroU64) {
        let rate = milliseconds.get() as f64 / 1000.0 * self.part;
        let change = rate / self.rate;
        if change != 1.0 {
            self.rate = rate;
            self.burst *= change;
            self.level *= change;
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + elapsed * self.rate).min(self.burst);
        self.filled = now;
    }

    /// Milliseconds per second, over the time that it takes to fill it.
    pub fn rate_of_use(&mut self, now: Instant) -> u64 {
        self.fill(now);
        ((self.burst - self.level) / self.burst * self.rate * 1000.0).round() as u64
    }

    /// `Err`: the time until there is some again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.level > 0.0 {
            return Ok(());
        }
        Err(Duration::try_from_secs_f64(-self.level / self.rate).unwrap_or(Duration::MAX))
    }

    pub fn charge(&mut self, used: Duration) {
        self.level -= used.as_secs_f64();
    }

    /// Takes as much as may be used at one go.
    pub fn charge_all(&mut self) {
        self.level -= self.burst;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_debt_is_paid_with_time_and_a_rest_saves_no_more_than_the_burst() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(SECOND / 4, SECOND, 1.0, start);
        budget.charge(SECOND / 2);
        assert_eq!(budget.admit(start), Ok(()));
        budget.charge(SECOND);
        assert_eq!(budget.admit(start), Err(2 * SECOND), "half a second of debt at a quarter per second");
        assert_eq!(budget.admit(start + SECOND), Err(SECOND));
        assert_eq!(budget.admit(start + 3 * SECOND), Ok(()));
        budget.admit(start + 3600 * SECOND).unwrap();
        budget.charge(SECOND);
        assert!(budget.admit(start + 3600 * SECOND).is_err());
    }

    #[test]
    fn another_rate_changes_the_burst_too() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(SECOND / 4, SECOND, 0.5, start);
        budget.set_rate(NonZeroU64::new(1000).unwrap());
        budget.charge(SECOND * 3 / 2);
        assert_eq!(budget.admit(start), Ok(()), "two seconds at one go");
        budget.charge(SECOND);
        assert_eq!(budget.admit(start), Err(SECOND), "half a second of debt at a half per second");
    }
}
