//! Lines that repeat: after the first few of a kind, further ones are counted, and the count becomes a line. A kind is a
//! place in the program. Lines of the levels debug and trace, and lines about requests and changes, are always written.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use super::line::REQUESTS;

/// The target of lines about changes, none of which is left out, as none of those about requests is.
pub const AUDIT: &str = "pushlet::audit";
/// Lines of one kind that are written in one window.
pub(super) const MOST_PER_KIND: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a line that the sum quotes.
const LONGEST_QUOTE: usize = 200;

/// Which kinds of lines were written and left out lately.
#[derive(Default)]
pub(super) struct Repeats {
    kinds: Mutex<HashMap<Identifier, LineKind>>,
    some_left_out: AtomicBool,
}

struct LineKind {
    since: Instant,
    written: u32,
    left_out: u64,
    /// The first one that was left out.
    line: String,
}

impl Repeats {
    /// Counts a line, and returns whether it is to be written.
    pub(super) fn takes(&self, metadata: &Metadata<'_>) -> bool {
        if *metadata.level() > Level::INFO || [REQUESTS, AUDIT].contains(&metadata.target()) {
            return true;
        }
        let now = Instant::now();
        let mut kinds = self.kinds();
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| LineKind::new(now));
        if kind.left_out == 0 && now.duration_since(kind.since) >= WINDOW {
            *kind = LineKind::new(now);
        }
        kind.written = kind.written.saturating_add(1);
        kind.written <= MOST_PER_KIND
    }

    /// Counts a line that is left out. Returns true if it is the first one of its kind.
    pub(super) fn leave_out(&self, kind: &Identifier, line: &str) -> bool {
        let mut kinds = self.kinds();
        let Some(kind) = kinds.get_mut(kind) else { return false };
        kind.left_out += 1;
        if kind.left_out > 1 {
            return false;
        }
        kind.line = line[..line.floor_char_boundary(LONGEST_QUOTE)].trim_end().to_owned();
        self.some_left_out.store(true, Ordering::Release);
        true
    }

    pub(super) fn some_left_out(&self) -> bool {
        self.some_left_out.load(Ordering::Acquire)
    }

    /// Writes a line for each kind of which some were left out in a window that is over, or at the `end` in any window.
    pub(super) fn sum_up(&self, end: bool) {
        if !self.some_left_out() {
            return;
        }
        let now = Instant::now();
        let mut sums = Vec::new();
        {
            let mut kinds = self.kinds();
            let is_over = |kind: &LineKind| end || now.duration_since(kind.since) >= WINDOW;
            for kind in kinds.values_mut().filter(|kind| kind.left_out > 0 && is_over(kind)) {
                let old = mem::replace(kind, LineKind::new(now));
                sums.push((old.left_out, old.line));
            }
            let left = kinds.values().any(|kind| kind.left_out > 0);
            self.some_left_out.store(left, Ordering::Release);
        }
        // Not under the lock: each of these lines takes it again.
        for (count, like) in sums {
            tracing::warn!(target: REQUESTS, count, like, "lines like this one were left out");
        }
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, LineKind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineKind {
    fn new(since: Instant) -> Self {
        Self { since, written: 0, left_out: 0, line: String::new() }
    }
}
