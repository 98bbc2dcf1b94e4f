//! Fair shares of what is bounded: a cache and a semaphore whose places are divided among owners.
//!
//! Both use dynamic thresholds, as switches do for packet buffers (Choudhury and Hahne, 1998): an owner may
//! hold a quarter of the places that no other owner holds. One owner alone gets a quarter of all places,
//! `n` equally busy owners get `1 / (n + 3)` each, and whatever the others hold, some places stay free for
//! an owner that has none yet.

mod cache;
mod permits;
#[cfg(test)]
mod tests;

pub use cache::{CacheFull, FairCache};
pub use permits::{FairPermit, FairPermits, QueueFull};

/// An owner may hold one place of so many that no other owner holds.
const FRACTION: usize = 4;

/// How much an owner may hold of `capacity`, if the other owners hold `others`.
fn share(capacity: usize, others: usize) -> usize {
    capacity.saturating_sub(others).div_ceil(FRACTION)
}
