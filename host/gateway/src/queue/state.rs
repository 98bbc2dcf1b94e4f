//! What a send from the queue has in addition, and which parts this node works on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::{Notify, Semaphore};

use crate::result::Status;
use pushlet_model::tenant::TenantId;

/// Parts that this node works on at the same time, and those of one tenant.
const PARTS_AT_ONCE: usize = 16;
pub(super) const TENANT_PARTS_AT_ONCE: usize = 4;
/// Deliveries whose counts this node remembers.
const MOST_COUNTED: usize = 1000;

/// What a send from the queue has in addition.
pub(crate) struct QueuedWork {
    seed: hmac::Key,
    /// Another server began to send it, and ended.
    pub resumed: bool,
}

impl QueuedWork {
    pub(super) fn new(seed: &[u8], resumed: bool) -> Self {
        Self { seed: hmac::Key::new(hmac::HMAC_SHA256, seed), resumed }
    }

    /// Fills the randomness of `count` targets from the one with this index on: for each the same at every try.
    pub fn fill(&self, first: usize, count: usize, bytes: &mut [u8]) {
        let size = bytes.len() / count.max(1);
        if size == 0 {
            return;
        }
        for (index, own) in (first as u64..).zip(bytes.chunks_mut(size)) {
            for (block, piece) in (0_u64..).zip(own.chunks_mut(32)) {
                let input = [index.to_be_bytes(), block.to_be_bytes()].concat();
                let random = hmac::sign(&self.seed, &input);
                piece.copy_from_slice(random.as_ref().get(..piece.len()).unwrap_or_default());
            }
        }
    }
}

/// The parts that this node works on, and what it has counted of deliveries.
pub(crate) struct Workers {
    /// Something was put into the queue.
    pub(super) wake: Notify,
    /// Parts in the queue when it was looked at last.
    pub waiting: AtomicUsize,
    pub(super) closing: AtomicBool,
    pub(super) parts: Arc<Semaphore>,
    /// Workers by tenant.
    pub(super) busy: Mutex<HashMap<TenantId, usize>>,
    pub(super) ended: Notify,
    pub(super) counted: Mutex<HashMap<(TenantId, String), Counted>>,
}

/// The results of a delivery, up to a cursor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub cursor: u64,
    pub counts: [usize; Status::ALL.len()],
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            parts: Arc::new(Semaphore::new(PARTS_AT_ONCE)),
            busy: Mutex::default(),
            ended: Notify::new(),
            counted: Mutex::default(),
        }
    }
}

impl Workers {
    /// Takes no more parts, and gives those that are being sent some time.
    pub async fn close(&self, within: Duration) {
        self.closing.store(true, Ordering::Relaxed);
        let ended = async {
            loop {
                let one = self.ended.notified();
                if self.busy.lock().is_empty() {
                    return;
                }
                one.await;
            }
        };
        // What takes longer is another node's, which reports it as begun.
        let _ = tokio::time::timeout(within, ended).await;
    }

    pub(super) fn counted(&self, place: &(TenantId, String)) -> Counted {
        self.counted.lock().get(place).copied().unwrap_or_default()
    }

    pub(super) fn remember(&self, place: (TenantId, String), counted: Counted) {
        let mut all = self.counted.lock();
        if all.len() >= MOST_COUNTED && !all.contains_key(&place) {
            // They are counted again when they are asked for.
            all.clear();
        }
        all.insert(place, counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_has_the_randomness_of_the_first_try_however_it_is_cut() {
        let work = QueuedWork::new(b"seed", false);
        let of = |first: usize, count: usize, size: usize| {
            let mut bytes = vec![0; count * size];
            work.fill(first, count, &mut bytes);
            bytes
        };
        for size in [1, 16, 33, 100] {
            let all = of(7, 5, size);
            let parts = [of(7, 2, size), of(9, 1, size), of(10, 2, size)].concat();
            assert_eq!(all, parts);
            let mut each: Vec<_> = all.chunks(size).collect();
            each.sort_unstable();
            each.dedup();
            assert!(size == 1 || each.len() == 5, "each target has its own");
        }
        assert!(of(0, 3, 0).is_empty());
        let mut other = vec![0; 16];
        QueuedWork::new(b"other", false).fill(7, 1, &mut other);
        assert_ne!(other, of(7, 1, 16));
    }
}
