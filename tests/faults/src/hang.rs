//! A push service that accepts and never answers, beside one that is well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::caller::{Caller, Setup};
use crate::ledger::{Ledger, Told};
use crate::peer::{Certificate, Failure, Manner, Peer};

const DEADLINE: Duration = Duration::from_secs(3);
/// Kinds of applications, as [`Caller::register`] wants them.
const APNS: usize = 0;

/// What it cost.
pub struct Report {
    /// What callers of the hung service were told, and the least and most time they waited.
    pub hung: Vec<Told>,
    pub waited: (Duration, Duration),
    /// What callers of the well service were told while the other one hung.
    pub well: Vec<Told>,
    /// The slowest of 100 pushes to the well service: alone, and beside the hung one.
    pub p99_alone: Duration,
    pub p99_beside: Duration,
}

/// `callers` send to the hung service at once; meanwhile pushes go to the well one, one after the other.
pub async fn run(callers: usize) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    let ledger = Arc::new(Ledger::new(0));
    let well = Peer::start(&certificate, 1, Manner::Calm, ledger.clone()).await?;
    let hung = Peer::start(&certificate, 2, Manner::Mute, ledger).await?;
    let setup = Setup {
        production: well.address,
        development: hung.address,
        deadline: DEADLINE,
        resend_unknown: false,
    };
    let caller = Caller::new(&certificate, &setup)?;
    caller.register("hung", APNS, "development")?;
    let warm = one_by_one(&caller, Duration::from_millis(300)).await;
    drop(warm);
    let (_, p99_alone) = one_by_one(&caller, DEADLINE / 2).await;
    let stuck = join_all((0..callers).map(|push| {
        let caller = caller.clone();
        async move {
            let started = Instant::now();
            let told = caller.send("hung", push..push + 1).await;
            (told, started.elapsed())
        }
    }));
    let (stuck, (well, p99_beside)) = tokio::join!(stuck, one_by_one(&caller, DEADLINE / 2));
    let waits = || stuck.iter().map(|(_, waited)| *waited);
    let waited = (waits().min().unwrap_or_default(), waits().max().unwrap_or_default());
    caller.close().await;
    let hung = stuck.into_iter().flat_map(|(told, _)| told).collect();
    Ok(Report { hung, waited, well, p99_alone, p99_beside })
}

/// Sends to the well service for a while; what was told, and how long the 99th of 100 took.
async fn one_by_one(caller: &Caller, time: Duration) -> (Vec<Told>, Duration) {
    let (started, mut told, mut times) = (Instant::now(), Vec::new(), Vec::new());
    while started.elapsed() < time {
        let began = Instant::now();
        // Tokens 1 to 10 are good ones.
        let push = 1 + told.len() % 10;
        told.extend(caller.send("0", push..push + 1).await);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    (told, p99)
}

impl Report {
    /// Every caller of the hung service is told that the outcome is unknown, and not before the deadline; the
    /// other service does not notice.
    pub fn holds(&self) -> bool {
        self.hung.iter().all(|told| *told == Told::Unknown)
            && self.waited.0 >= DEADLINE
            && !self.well.is_empty()
            && self.well.iter().all(|told| *told == Told::Delivered)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} callers of a hung service, deadline {DEADLINE:?}: they waited {:?} to {:?}; beside them {} pushes of \
             another application: p99 {:?}, alone {:?}, ratio {:.2}",
            self.hung.len(),
            self.waited.0,
            self.waited.1,
            self.well.len(),
            self.p99_beside,
            self.p99_alone,
            self.p99_beside.as_secs_f64() / self.p99_alone.as_secs_f64().max(1e-9),
        )
    }
}
