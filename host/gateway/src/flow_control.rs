//! How much of one stream is in flight.
//!
//! [`ConcurrencyWindow`] bounds the targets: enough of them to keep a distant push service busy, and no more,
//! since each costs memory. [`Gate`] bounds the bytes of large lines.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::duplicates::Duplicates;
use crate::result::{DeliveryResult, IndexedResult, SendTally};
use crate::tenants::{Permission, Withdrawal};
use pushlet_model::contract::Recipient;
use pushlet_model::error::Error;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// The window of a new stream.
const FIRST: usize = 256;
/// A wider window is worth its memory if the stream gets this much faster.
const WORTH: f64 = 1.4;
/// Below this part of the best rate, the best rate is too old for a comparison.
const STALE: f64 = 0.5;
/// Bytes that the large lines of one stream, and those with a notification of their own, may take while they
/// are in flight: some hundred notifications of the size that push services accept.
const IN_FLIGHT: u32 = 4 << 20;
/// Bytes of a line that is not counted: as many such lines fit into the usual window.
const SMALL: usize = 4 << 10;

/// A number of targets in flight that grows while growing makes the stream faster, up to a bound.
pub(super) struct ConcurrencyWindow {
    allowed: usize,
    most: usize,
    /// Targets that completed since the last measurement, and the best rate measured, in targets per second.
    settled: usize,
    best: f64,
}

impl ConcurrencyWindow {
    pub(super) fn new(most: usize) -> Self {
        Self { allowed: FIRST.min(most), most, settled: 0, best: 0.0 }
    }

    /// Returns how many targets may be in flight.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Records `count` completed targets; `since`: the time since the last measurement. Returns true if this
    /// call took a measurement.
    pub(super) fn settled(&mut self, count: usize, since: Duration) -> bool {
        self.settled += count;
        if self.settled < 2 * self.allowed {
            return false;
        }
        let pace = self.settled as f64 / since.as_secs_f64().max(1e-6);
        if pace > self.best * WORTH || pace < self.best * STALE {
            self.best = pace;
            self.allowed = (2 * self.allowed).min(self.most);
        }
        self.settled = 0;
        true
    }
}

/// Admits the lines of one stream, so that together they take no more than [`IN_FLIGHT`], whatever the window
/// is. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    room: Arc<Semaphore>,
    /// The size of the shared notification, which each line with fields of its own copies.
    shared: usize,
    account: Arc<Account>,
}

/// The bytes of a line in flight, counted in its gate and on the tenant's account.
pub struct HeldLine {
    _room: OwnedSemaphorePermit,
    _reserved: MemoryReservation,
}

/// What all targets of a stream share.
pub struct Shared {
    pub application_id: String,
    pub notification: Map<String, Value>,
    /// About how many bytes the notification takes.
    pub size: usize,
    /// Check that everything a send needs is there, and send nothing.
    pub validate_only: bool,
    /// For each target; None: the configured deadline.
    pub deadline: Option<Duration>,
    pub duplicates: Duplicates,
    pub targets: Targets,
    /// Nothing is sent before; only for a delivery that outlives its caller.
    pub not_before: Option<SystemTime>,
    /// Return what was done for each of the first lines.
    pub capture: bool,
    /// Of the HTTP request, for the provider's log.
    pub request_id: Option<Arc<str>>,
}

/// The targets of a stream.
pub enum Targets {
    /// This many, all known: the tenant's limits must allow all of them at once.
    Counted(usize),
    /// They come one by one and are delayed by the tenant's limits, for as long as this permission holds.
    Open(Permission),
}

/// One target of a stream.
pub struct Line {
    /// Counts the caller's lines from 0.
    pub index: usize,
    pub target: Recipient,
    /// Fields that replace those of the shared notification; null removes one. Several targets may share
    /// them.
    pub notification: Option<Arc<Map<String, Value>>>,
    /// About how many bytes these fields take.
    pub size: usize,
    /// The memory that the line takes while it is in flight, if that is counted.
    pub held: Option<HeldLine>,
}

/// Why a stream was stopped before its lines ended. Lines without a result were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Withdrawn(Withdrawal),
    ApplicationDeleted,
}

/// How a stream ended.
pub struct StreamResult {
    /// None: its lines ended, or its results were not taken any more.
    pub stop: Option<Stop>,
    /// All targets that got a result, whether it was taken or not.
    pub tally: SendTally,
}

impl Gate {
    pub fn new(shared: usize, account: Arc<Account>) -> Self {
        Self { room: Arc::new(Semaphore::new(IN_FLIGHT as usize)), shared, account }
    }

    /// Waits until there is room for a line. `size`: its bytes; `own`: it has fields of its own. Returns None
    /// if the line is too small to be counted.
    pub async fn pass(&self, size: usize, own: bool) -> Result<Option<HeldLine>, Error> {
        let size = if own { size.saturating_add(self.shared) } else { size };
        if size <= SMALL {
            return Ok(None);
        }
        // A line that is larger than the whole room passes alone.
        let room = u32::try_from(size).unwrap_or(IN_FLIGHT).min(IN_FLIGHT);
        let room = self.room.clone().acquire_many_owned(room).await.map_err(Error::internal)?;
        let reserved = self.account.reserve(MemoryUse::ParsedInput, size)?;
        Ok(Some(HeldLine { _room: room, _reserved: reserved }))
    }

    /// Lets lines pass one after another, until one of the receivers is gone. One that may not pass has that as its
    /// result.
    pub(crate) async fn feed(
        self,
        lines: Vec<Line>,
        to_send: mpsc::Sender<Line>,
        refused: mpsc::Sender<IndexedResult>,
    ) {
        for mut line in lines {
            let passed = match self.pass(line.size, line.notification.is_some()).await {
                Ok(held) => {
                    line.held = held;
                    to_send.send(line).await.is_ok()
                }
                Err(error) => {
                    let result = IndexedResult::untried(line.index, DeliveryResult::Failed(error));
                    refused.send(result).await.is_ok()
                }
            };
            if !passed {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a window see a service that completes what is in flight in `latency`, and no more than `fastest` a second.
    fn seen(window: &mut ConcurrencyWindow, latency: f64, fastest: f64) {
        for _ in 0..20 {
            let pace = (window.allowed() as f64 / latency).min(fastest);
            let count = 2 * window.allowed();
            assert!(window.settled(count, Duration::from_secs_f64(count as f64 / pace)));
        }
    }

    #[test]
    fn it_is_wide_for_a_service_that_is_far_away_and_narrow_for_a_near_one() {
        let mut far = ConcurrencyWindow::new(2000);
        seen(&mut far, 0.1, 1e6);
        assert_eq!(far.allowed(), 2000);
        let mut near = ConcurrencyWindow::new(2000);
        seen(&mut near, 0.001, 30_000.0);
        assert_eq!(near.allowed(), 2 * FIRST, "one step tells that it does not pay");
    }

    #[test]
    fn it_grows_when_a_service_becomes_slow() {
        let mut window = ConcurrencyWindow::new(2000);
        seen(&mut window, 0.001, 30_000.0);
        seen(&mut window, 0.2, 30_000.0);
        assert_eq!(window.allowed(), 2000);
    }

    #[test]
    fn it_keeps_within_its_bound() {
        let mut window = ConcurrencyWindow::new(7);
        assert_eq!(window.allowed(), 7);
        assert!(!window.settled(13, Duration::from_secs(1)));
        seen(&mut window, 1.0, 1e6);
        assert_eq!(window.allowed(), 7);
    }
}
