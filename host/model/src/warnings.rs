//! Warnings that would repeat with every push are counted instead.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// At most one line in this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Decides for one kind of warning whether it is logged.
#[derive(Default)]
pub struct RepeatedWarning(Mutex<RepeatCount>);

#[derive(Default)]
struct RepeatCount {
    logged_at: Option<Instant>,
    /// Since then.
    counted: u64,
}

impl RepeatedWarning {
    /// It happened again. If it is to be logged: how often it happened since the last line and was only counted.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.logged_at.is_some_and(|at| now < at + PAUSE) {
            state.counted += 1;
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_next_are_counted_for_a_while() {
        let (repeats, start) = (RepeatedWarning::default(), Instant::now());
        assert_eq!(repeats.due(start), Some(0));
        for seconds in [0, 1, 59] {
            assert_eq!(repeats.due(start + Duration::from_secs(seconds)), None);
        }
        assert_eq!(repeats.due(start + PAUSE), Some(3));
        assert_eq!(repeats.due(start + PAUSE), None);
        assert_eq!(repeats.due(start + 2 * PAUSE), Some(1));
    }
}
