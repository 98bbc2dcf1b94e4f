//! How long a call may go on.

use std::time::{Duration, Instant};

use pushlet_quota::account::thread_cpu_time;

/// A call's time is processor time, so that a sound guest is not punished where others keep the processors; but
/// no call takes longer than this many times as much.
const WALL_CLOCK_FACTOR: u32 = 4;

/// How long a call on this thread may go on.
pub(super) struct CallTime {
    timeout: Duration,
    /// None until the first tick: nearly every call ends before it, and reading a thread's processor time costs a
    /// system call.
    end: Option<CallDeadline>,
}

struct CallDeadline {
    /// As [`thread_cpu_time`] tells it.
    cpu: Duration,
    /// None: as good as never.
    wall: Option<Instant>,
}

impl CallTime {
    pub(super) fn of(timeout: Duration) -> Self {
        Self { timeout, end: None }
    }

    /// None: nothing is left. Counts from the first time that it is asked.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let end = self.end.get_or_insert_with(|| CallDeadline::after(self.timeout));
        let cpu = end.cpu.checked_sub(thread_cpu_time())?;
        let wall = end.wall.map_or(Some(cpu), |wall| wall.checked_duration_since(Instant::now()))?;
        Some(cpu.min(wall)).filter(|left| !left.is_zero())
    }
}

impl CallDeadline {
    fn after(timeout: Duration) -> Self {
        let wall = Instant::now().checked_add(timeout.saturating_mul(WALL_CLOCK_FACTOR));
        Self { cpu: thread_cpu_time().saturating_add(timeout), wall }
    }
}
