//! Whether memory stays flat under fire.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::caller::{Caller, Setup};
use crate::ledger::{Ledger, Told};
use crate::peer::{Certificate, Failure, Manner, Peer};

const BATCH: usize = 500;
const AT_ONCE: usize = 12;

/// Resident memory of this process, gateway and peer together, in KiB.
pub struct Report {
    pub pushes: usize,
    /// After a tenth of the pushes, and after all.
    pub early: u64,
    pub late: u64,
    pub delivered: usize,
}

/// Sends so many pushes to a peer that misbehaves.
pub async fn run(seed: u64, pushes: usize) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    // The ledger keeps no book of single pushes, which would grow.
    let peer = Peer::start(&certificate, seed, Manner::Wild, Arc::new(Ledger::new(0))).await?;
    let setup = Setup {
        production: peer.address,
        development: peer.address,
        deadline: Duration::from_secs(3),
        resend_unknown: false,
    };
    let caller = Caller::new(&certificate, &setup)?;
    let mut delivered = send(&caller, 0..pushes / 10).await;
    let early = resident()?;
    delivered += send(&caller, pushes / 10..pushes).await;
    let late = resident()?;
    caller.close().await;
    Ok(Report { pushes, early, late, delivered })
}

async fn send(caller: &Caller, pushes: std::ops::Range<usize>) -> usize {
    let end = pushes.end;
    let batches = pushes.step_by(BATCH).enumerate().map(|(number, start)| {
        let caller = caller.clone();
        async move { caller.send(&(number % 3).to_string(), start..end.min(start + BATCH)).await }
    });
    let delivered = |told: Vec<Told>| told.iter().filter(|told| **told == Told::Delivered).count();
    stream::iter(batches)
        .buffer_unordered(AT_ONCE)
        .map(delivered)
        .fold(0, |sum, count| async move { sum + count })
        .await
}

/// `VmRSS` of `/proc/self/status` (proc(5)).
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

impl Report {
    /// Within 10 %.
    pub fn holds(&self) -> bool {
        self.late <= self.early + self.early / 10
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "resident memory after {} pushes: {} KiB, after {}: {} KiB ({:+.1} %); {} delivered",
            self.pushes / 10,
            self.early,
            self.pushes,
            self.late,
            (self.late as f64 / self.early as f64 - 1.0) * 100.0,
            self.delivered,
        )
    }
}
