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
/// From so many rounds on, noise alone makes every phase beside slower than every phase alone in less than one
/// run of 200.
const ENOUGH: usize = 5;

/// What it cost.
pub struct Report {
    /// What callers of the hung service were told, and the least and most time they waited.
    pub hung: Vec<Told>,
    pub waited: (Duration, Duration),
    /// What callers of the well service were told.
    pub well: Vec<Told>,
    /// How long each push to the well service took, by phase: alone, and while the other service hung.
    pub alone: Vec<Vec<Duration>>,
    pub beside: Vec<Vec<Duration>>,
}

/// In each round pushes go to the well service, one after the other, first alone and then while `callers` wait
/// for the hung one. What differs between phases of the same kind is noise.
pub async fn run(callers: usize, rounds: usize) -> Result<Report, Failure> {
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
    // The first pushes, which open connections, are nobody's.
    one_by_one(&caller, &mut Vec::new()).await;
    stuck(&caller, callers).await;
    let mut report = Report {
        hung: Vec::new(),
        waited: (Duration::MAX, Duration::ZERO),
        well: Vec::new(),
        alone: Vec::new(),
        beside: Vec::new(),
    };
    for _ in 0..rounds {
        report.alone.push(one_by_one(&caller, &mut report.well).await);
        let (stuck, times) = tokio::join!(stuck(&caller, callers), one_by_one(&caller, &mut report.well));
        report.beside.push(times);
        report.stuck(stuck);
    }
    caller.close().await;
    Ok(report)
}

/// Sends to the hung service at once; what each caller was told, and how long it waited.
async fn stuck(caller: &Caller, callers: usize) -> Vec<(Vec<Told>, Duration)> {
    let send = |push| async move {
        let started = Instant::now();
        let told = caller.send("hung", push..push + 1).await;
        (told, started.elapsed())
    };
    join_all((0..callers).map(send)).await
}

/// Sends to the well service for as long as others wait for the hung one; how long each push took.
async fn one_by_one(caller: &Caller, told: &mut Vec<Told>) -> Vec<Duration> {
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < DEADLINE {
        let began = Instant::now();
        // Tokens 1 to 10 are good ones.
        let push = 1 + told.len() % 10;
        told.extend(caller.send("0", push..push + 1).await);
        times.push(began.elapsed());
    }
    times
}

/// The time that 99 of 100 stay under.
fn p99<'a>(phases: impl IntoIterator<Item = &'a Vec<Duration>>) -> Duration {
    let mut times: Vec<Duration> = phases.into_iter().flatten().copied().collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// The least and the greatest `p99` of single phases.
fn spread(phases: &[Vec<Duration>]) -> (Duration, Duration) {
    let each = || phases.iter().map(|phase| p99([phase]));
    (each().min().unwrap_or_default(), each().max().unwrap_or_default())
}

impl Report {
    fn stuck(&mut self, stuck: Vec<(Vec<Told>, Duration)>) {
        for (told, waited) in stuck {
            self.hung.extend(told);
            self.waited = (self.waited.0.min(waited), self.waited.1.max(waited));
        }
    }

    /// `p99` beside the hung service, by that of the same application alone.
    pub fn ratio(&self) -> f64 {
        p99(&self.beside).as_secs_f64() / p99(&self.alone).as_secs_f64().max(1e-9)
    }

    /// Every caller of the hung service is told that the outcome is unknown, and not before the deadline; the
    /// other service does not notice.
    pub fn holds(&self) -> bool {
        self.hung.iter().all(|told| *told == Told::Unknown)
            && self.waited.0 >= DEADLINE
            && !self.well.is_empty()
            && self.well.iter().all(|told| *told == Told::Delivered)
            && !self.is_noticed()
    }

    fn is_noticed(&self) -> bool {
        self.alone.len() >= ENOUGH && spread(&self.beside).0 > spread(&self.alone).1
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pushes = |phases: &[Vec<Duration>]| phases.iter().map(Vec::len).sum::<usize>();
        writeln!(
            f,
            "{} callers of a hung service, deadline {DEADLINE:?}: they waited {:?} to {:?}; pushes of another \
             application, {} phases of each kind:",
            self.hung.len(),
            self.waited.0,
            self.waited.1,
            self.alone.len(),
        )?;
        for (kind, phases) in [("alone", &self.alone), ("beside", &self.beside)] {
            let (p99, (least, most)) = (p99(phases), spread(phases));
            writeln!(f, "  {kind}: {} pushes, p99 {p99:?}, by phase {least:?} to {most:?}", pushes(phases))?;
        }
        write!(f, "  ratio of p99 beside to alone: {:.2}", self.ratio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(milliseconds: &[u64]) -> Vec<Vec<Duration>> {
        milliseconds.iter().map(|time| vec![Duration::from_millis(*time); 200]).collect()
    }

    fn report(alone: &[u64], beside: &[u64]) -> Report {
        Report {
            hung: vec![Told::Unknown],
            waited: (DEADLINE, DEADLINE),
            well: vec![Told::Delivered],
            alone: phases(alone),
            beside: phases(beside),
        }
    }

    #[test]
    fn what_is_slower_in_every_phase_is_noticed_and_noise_is_not() {
        assert!(!report(&[2, 3, 2, 9, 2], &[8, 8, 10, 8, 8]).is_noticed());
        let slower = report(&[2, 3, 2, 4, 2], &[5, 6, 5, 7, 5]);
        assert!(slower.is_noticed() && !slower.holds());
        assert!(report(&[5, 6, 5, 7, 5], &[2, 3, 2, 4, 2]).holds());
        // Too few to tell.
        assert!(report(&[2], &[5]).holds());
    }

    #[test]
    fn one_of_a_hundred_may_take_longer() {
        let mut phase = vec![Duration::from_millis(1); 990];
        phase.extend([Duration::from_millis(50); 9]);
        assert_eq!(p99([&phase]), Duration::from_millis(1));
        phase.extend([Duration::from_millis(50); 2]);
        assert_eq!(p99([&phase]), Duration::from_millis(50));
    }

    #[test]
    fn an_answer_before_the_deadline_or_another_answer_is_a_fault() {
        assert!(report(&[1], &[1]).holds());
        let early = (DEADLINE - Duration::from_millis(1), DEADLINE);
        assert!(!Report { waited: early, ..report(&[1], &[1]) }.holds());
        assert!(!Report { hung: vec![Told::Delivered], ..report(&[1], &[1]) }.holds());
        assert!(!Report { well: vec![Told::Unknown], ..report(&[1], &[1]) }.holds());
    }
}
