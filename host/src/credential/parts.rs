//! A digest of parts that does not depend on where one ends and the next begins.

use ring::digest::{Context, SHA256};

use super::cache::Key;

/// SHA-256 over parts, each with its length before it.
pub(super) struct Parts(Context);

impl Parts {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&part.len().to_be_bytes());
        self.0.update(part);
    }

    pub(super) fn finish(self) -> Key {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.finish().as_ref());
        key
    }

    /// Of all parts at once.
    pub(super) fn of(parts: &[&[u8]]) -> Key {
        let mut all = Self::new();
        parts.iter().for_each(|part| all.add(part));
        all.finish()
    }
}
