//! What a provider is told of the world: the time, and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use pushlet_model::contract::Context;

/// The context of a call at this time.
pub(crate) fn context_at(now: SystemTime, entropy: Vec<u8>) -> Context {
    Context { now: unix_milliseconds(now), entropy }
}

/// Milliseconds since the Unix epoch, as the contract counts.
pub(crate) fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
