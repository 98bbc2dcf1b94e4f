//! Lines that would be written again and again: after the first few of a kind the others of the same second are
//! counted, and the count becomes a line.
//!
//! A kind is a place in the program. What the operator asked for at a finer level, and lines about requests, are
//! never left out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use super::REQUESTS;

/// Lines of one kind in one window.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a line that is quoted.
const LONGEST: usize = 200;

/// What was written and left out lately.
#[derive(Default)]
pub(super) struct Repeats {
    kinds: Mutex<HashMap<Identifier, Kind>>,
    some_left_out: AtomicBool,
}

struct Kind {
    since: Instant,
    written: u32,
    left_out: u64,
    /// The first one that was left out.
    line: String,
}

impl Repeats {
    /// Is the next line of this kind to be written?
    pub(super) fn takes(&self, metadata: &Metadata<'_>) -> bool {
        if *metadata.level() > Level::INFO || metadata.target() == REQUESTS {
            return true;
        }
        let now = Instant::now();
        let mut kinds = self.kinds();
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| Kind::new(now));
        if kind.left_out == 0 && now.duration_since(kind.since) >= WINDOW {
            *kind = Kind::new(now);
        }
        kind.written = kind.written.saturating_add(1);
        kind.written <= MOST
    }

    /// Counts a line that is not written. True: it is the first one of its kind.
    pub(super) fn leave_out(&self, kind: &Identifier, line: &str) -> bool {
        let mut kinds = self.kinds();
        let Some(kind) = kinds.get_mut(kind) else { return false };
        kind.left_out += 1;
        if kind.left_out > 1 {
            return false;
        }
        kind.line = line[..line.floor_char_boundary(LONGEST)].trim_end().to_owned();
        self.some_left_out.store(true, Ordering::Release);
        true
    }

    pub(super) fn some_left_out(&self) -> bool {
        self.some_left_out.load(Ordering::Acquire)
    }

    /// Writes a line for each kind of which some were left out in a window that is over, or, at the `end`, in any.
    pub(super) fn sum_up(&self, end: bool) {
        if !self.some_left_out() {
            return;
        }
        let now = Instant::now();
        let mut sums = Vec::new();
        {
            let mut kinds = self.kinds();
            let is_over = |kind: &Kind| end || now.duration_since(kind.since) >= WINDOW;
            for kind in kinds.values_mut().filter(|kind| kind.left_out > 0 && is_over(kind)) {
                let old = std::mem::replace(kind, Kind::new(now));
                sums.push((old.left_out, old.line));
            }
            let left = kinds.values().any(|kind| kind.left_out > 0);
            self.some_left_out.store(left, Ordering::Release);
        }
        for (count, like) in sums {
            tracing::warn!(target: REQUESTS, count, like, "lines like this one were left out");
        }
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn new(since: Instant) -> Self {
        Self { since, written: 0, left_out: 0, line: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::queue::Queue;
    use super::*;

    #[test]
    fn repeats_are_counted_and_summed_up() {
        let repeats = Arc::<Repeats>::default();
        let queue = Queue::new(repeats.clone(), false);
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(queue.clone());
        tracing::subscriber::with_default(lines.finish(), || {
            for number in 0..1_000 {
                tracing::warn!(number, "outcome unknown");
                tracing::info!(target: REQUESTS, "request");
            }
            tracing::warn!("another kind");
            repeats.sum_up(false);
            assert!(!queue.waiting().contains("left out"), "the window is not over");
            repeats.sum_up(true);
        });
        let text = queue.waiting();
        assert_eq!(text.matches("outcome unknown number=").count(), MOST as usize + 1, "{text}");
        assert_eq!(text.matches("request\n").count(), 1_000);
        assert_eq!(text.matches("another kind").count(), 1);
        let sum = text.lines().last().unwrap_or_default();
        assert!(sum.contains("count=990") && sum.contains("outcome unknown number=10"), "{sum}");
        assert!(!repeats.some_left_out());
    }
}
