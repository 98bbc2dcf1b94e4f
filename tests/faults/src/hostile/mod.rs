//! Every kind of attack at once on a server with default settings, with a victim that sends all the time.
//!
//! The server is a process of its own, the program itself. The attackers are tenants, callers without a credential,
//! connections that do nothing, and push services. What must hold: the process lives, every push of the victim is
//! delivered, and once the attacks are over and the attackers' tenants are removed, the memory comes back.

mod attackers;
mod components;
mod connections;
mod ordinary;
mod push_service;
mod requests;
mod server;
mod victim;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::ledger::Ledger;
use crate::peer::{Certificate, Failure, Manner, Peer};
use attackers::{Attackers, Outcomes};
use push_service::PushService;
use server::{Memory, Server};
use victim::{Pushes, Victim};

/// Pushes of the victim before anything is measured, and batches at once, so that connections, instances and buffers
/// are there; a tenant that uses every kind of route comes and goes as well.
const WARM_UP: usize = 2000;
const WARM_UP_BATCHES: usize = 10;
/// After that the server is idle once it has returned the pages that it freed.
const UNTIL_IDLE: Duration = Duration::from_secs(12);
/// How long the memory may take to come back after the last attack: HTTPS connections to push services are kept for 90 s,
/// and pages that were freed for 10 s.
const LONGEST_RETURN: Duration = Duration::from_secs(180);
/// Most resident memory afterwards, in terms of that before.
const RETURNED: f64 = 1.2;

/// What came of a run.
pub struct Report {
    took: Duration,
    is_alive: bool,
    /// Before the attacks, and when it had come back or the wait was over; None: the process had ended.
    idle: Memory,
    after: Option<Memory>,
    returned_after: Duration,
    /// The victim's pushes before the attacks, and beside them.
    alone: Pushes,
    beside: Pushes,
    outcomes: Outcomes,
    /// What the server says that it keeps, if its memory did not come back.
    kept: String,
}

/// Attacks for so long.
pub async fn run(duration: Duration) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    let peer = Peer::start(&certificate, 1, Manner::Calm, Arc::new(Ledger::new(0))).await?;
    let services = PushService::start(&certificate).await?;
    let server = Arc::new(Server::start(&certificate, peer.address, &services).await?);
    let victim = Victim::new(&server).await?;
    let mut alone = Pushes::default();
    victim.push(WARM_UP, &mut alone).await;
    victim.push_batches(WARM_UP_BATCHES, &mut alone).await;
    alone.none_failed()?;
    ordinary::day(&server).await?;
    sleep(UNTIL_IDLE).await;
    let idle = server.memory()?;
    let mut attackers = Attackers::new(&server).await?;
    let (over, mut is_over) = watch::channel(false);
    let beside = tokio::spawn(async move {
        let mut pushes = Pushes::default();
        while !*is_over.borrow_and_update() {
            victim.push(1, &mut pushes).await;
        }
        pushes
    });
    let started = Instant::now();
    attackers.begin();
    sleep(duration).await;
    let took = started.elapsed();
    let ended = Instant::now();
    let outcomes = attackers.end().await;
    // The end of the attacks, and the removal of who attacked, are part of what the victim must not notice.
    over.send_replace(true);
    let beside = beside.await?;
    let after = wait_for_return(&server, idle).await;
    let returned_after = ended.elapsed();
    let is_back = after.is_some_and(|after| is_within(after, idle));
    let kept = if is_back { String::new() } else { server.accounts().await.unwrap_or_default() };
    let is_alive = server.is_alive();
    Ok(Report { took, is_alive, idle, after, returned_after, alone, beside, outcomes, kept })
}

/// Waits until the server's memory has come back, but not for ever; returns what it is then.
async fn wait_for_return(server: &Server, idle: Memory) -> Option<Memory> {
    let end = Instant::now() + LONGEST_RETURN;
    loop {
        let now = server.memory().ok()?;
        if is_within(now, idle) || Instant::now() > end {
            return Some(now);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn is_within(after: Memory, idle: Memory) -> bool {
    after.resident as f64 <= idle.resident as f64 * RETURNED
}

impl Report {
    /// The process lives, its memory came back, and the victim lost nothing.
    pub fn holds(&self) -> bool {
        let is_back = self.after.is_some_and(|after| is_within(after, self.idle));
        self.is_alive && is_back && !self.beside.times.is_empty() && self.beside.failures.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (alone, beside) = (&self.alone, &self.beside);
        let lives = if self.is_alive { "lives" } else { "DIED" };
        writeln!(f, "all attacks for {:.0} s: the process {lives}", self.took.as_secs_f64())?;
        writeln!(
            f,
            "the victim: {} pushes, {} not delivered; median {:.1?} before and {:.1?} meanwhile, p99 {:.1?} and {:.1?}, \
             slowest {:.1?}",
            beside.times.len(),
            beside.failures.values().sum::<u64>(),
            alone.quantile(0.5),
            beside.quantile(0.5),
            alone.quantile(0.99),
            beside.quantile(0.99),
            beside.quantile(1.0),
        )?;
        write!(f, "resident memory: {} before, ", self.idle)?;
        match self.after {
            None => writeln!(f, "unknown afterwards")?,
            Some(after) => writeln!(
                f,
                "{} KiB at most, {after} after {:.0} s ({:+.1} %)",
                after.peak,
                self.returned_after.as_secs_f64(),
                (after.resident as f64 / self.idle.resident as f64 - 1.0) * 100.0,
            )?,
        }
        for (failure, count) in beside.failures.iter().take(10) {
            writeln!(f, "  WRONG: {count} × {failure}")?;
        }
        write!(f, "{}{}", self.kept, self.outcomes)
    }
}
