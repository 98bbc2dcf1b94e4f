//! The state of a peer: its circuit breaker (exponential back-off with jitter), its load, and the statistics of its
//! connections. Time and randomness are arguments.

use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::TransportSettings;
use super::request::{Origin, PeerKey, Protocol};
use pushlet_model::tenant::TenantId;

/// Requests in flight at a peer from which a shard opens a connection of its own. Below it, a connection less is worth
/// more than the two wake-ups that a request on another thread's costs.
pub(super) const CROWDED: usize = 4;

/// The pauses between failures.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackoffPolicy {
    /// Failures in a row that open the breaker.
    pub threshold: u32,
    pub base: Duration,
    pub max: Duration,
}

impl BackoffPolicy {
    pub fn of(settings: &TransportSettings) -> Self {
        Self { threshold: settings.breaker_failures, base: settings.backoff_base, max: settings.backoff_max }
    }
}

/// Counts failures in a row.
#[derive(Debug, Clone)]
pub(super) struct CircuitBreaker {
    backoff: BackoffPolicy,
    /// Failures since the peer last responded.
    failures: u32,
    /// Failures since a new connection last worked: the pauses grow with these.
    failed_connects: u32,
    retry_at: Option<Instant>,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused for this long.
    Open(Duration),
    /// The pause is over: the next request is the probe, or the probe is in flight.
    HalfOpen,
}

impl CircuitBreaker {
    pub fn new(backoff: BackoffPolicy) -> Self {
        CircuitBreaker { backoff, failures: 0, failed_connects: 0, retry_at: None }
    }

    /// Records a failure. `jitter` is a random fraction of `u32::MAX`: the pause is between half and the whole of its
    /// nominal length, so that clients that failed together do not come back together.
    pub fn failed(&mut self, now: Instant, jitter: u32) {
        self.failures = self.failures.saturating_add(1);
        // Beyond any maximum already, and the shift must not overflow.
        let doublings = self.failed_connects.min(20);
        self.failed_connects = self.failed_connects.saturating_add(1);
        let nominal = self.backoff.base.saturating_mul(1 << doublings).min(self.backoff.max);
        self.retry_at = Some(now + nominal.mul_f64(0.5 + 0.5 * f64::from(jitter) / f64::from(u32::MAX)));
    }

    /// Records that a new connection works.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.failed_connects = 0;
        self.retry_at = None;
    }

    /// Records that an old connection still works: the peer is not down. That says nothing of further connections,
    /// which it may continue to refuse, so the pause stays.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// Returns true if the peer has answered since the last connect failed.
    pub fn has_answered(&self) -> bool {
        self.failures == 0
    }

    /// Returns when the pause ends, if it has not ended yet.
    pub fn pause_until(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    pub fn state(&self, now: Instant) -> BreakerState {
        if self.failures < self.backoff.threshold {
            return BreakerState::Closed;
        }
        match self.pause_until(now) {
            Some(until) => BreakerState::Open(until - now),
            None => BreakerState::HalfOpen,
        }
    }

    /// Returns the retry time that callers get while a probe is in flight.
    pub fn probe_time(&self) -> Duration {
        self.backoff.base.max(Duration::from_secs(1))
    }
}

/// Returns a random fraction of `u32::MAX`.
pub(super) fn jitter() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness all pauses have their least length; nothing else depends on it.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

/// Statistics of one origin and identity, for metrics.
#[derive(Debug, Clone)]
pub struct ConnectionStats {
    /// The tenant that used it first.
    pub tenant: TenantId,
    pub origin: Origin,
    /// `anonymous`, or `certificate:` or `token:` and the beginning of the digest.
    pub identity: String,
    pub protocol: Protocol,
    /// Open connections; not known, and 0, for [`Protocol::Https`].
    pub connections: usize,
    /// Requests in flight.
    pub streams: usize,
    /// Requests that wait.
    pub queued: usize,
    pub breaker: BreakerState,
}

/// The load of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerLoad {
    pub connections: usize,
    pub streams: usize,
    pub waiting: usize,
    pub breaker: BreakerState,
}

impl ConnectionStats {
    pub(super) fn new(tenant: &TenantId, key: &PeerKey, protocol: Protocol, load: PeerLoad) -> Self {
        ConnectionStats {
            tenant: tenant.clone(),
            origin: key.origin.clone(),
            identity: key.identity.to_string(),
            protocol,
            connections: load.connections,
            streams: load.streams,
            queued: load.waiting,
            breaker: load.breaker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: BackoffPolicy =
        BackoffPolicy { threshold: 3, base: Duration::from_millis(100), max: Duration::from_secs(1) };

    #[test]
    fn opens_after_the_threshold_and_closes_on_success() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(BACKOFF);
        breaker.failed(now, u32::MAX);
        breaker.failed(now, u32::MAX);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        breaker.failed(now, u32::MAX);
        assert_eq!(breaker.state(now), BreakerState::Open(Duration::from_millis(400)));
        assert_eq!(breaker.state(now + Duration::from_millis(400)), BreakerState::HalfOpen);
        breaker.succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.pause_until(now), None);
    }

    #[test]
    fn an_answer_elsewhere_says_that_the_peer_is_up_and_leaves_the_pause() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(BACKOFF);
        for _ in 0..3 {
            breaker.failed(now, u32::MAX);
        }
        assert!(!breaker.has_answered());
        breaker.answered();
        assert!(breaker.has_answered());
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.pause_until(now), Some(now + Duration::from_millis(400)));
        breaker.failed(now, u32::MAX);
        assert_eq!(breaker.pause_until(now), Some(now + Duration::from_millis(800)), "it goes on growing");
    }

    #[test]
    fn the_pause_doubles_up_to_its_maximum_with_jitter() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let mut pause = |jitter| {
            breaker.failed(now, jitter);
            breaker.pause_until(now).map(|until| (until - now).as_millis())
        };
        assert_eq!(pause(u32::MAX), Some(100));
        assert_eq!(pause(0), Some(100));
        assert_eq!(pause(u32::MAX), Some(400));
        assert_eq!(pause(0), Some(400));
        for _ in 0..100 {
            assert_eq!(pause(u32::MAX), Some(1000));
        }
    }
}
