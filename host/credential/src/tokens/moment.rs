//! Time as tokens need it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// What is written into tokens. It can jump.
    pub wall: SystemTime,
    /// Never jumps, but stands still while the machine sleeps.
    pub steady: Instant,
}

impl ClockReading {
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// The time since `earlier` by the clock that says more: neither a sleep nor a wall clock that is
    /// set back makes a token look younger than it is.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.steady.saturating_duration_since(earlier.steady))
    }

    /// Returns true if the wall clock has been set back, so that a token of `earlier` claims to be from the future.
    pub(crate) fn precedes(&self, earlier: &Self) -> bool {
        /// Clock corrections smaller than this are normal.
        const SLACK: Duration = Duration::from_secs(60);
        earlier.wall.duration_since(self.wall).is_ok_and(|lead| lead > SLACK)
    }

    pub(crate) fn unix_seconds(&self) -> u64 {
        self.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
