//! Every kind of attack at once on a server with default settings, with a neighbour that sends all the time.
//!
//! The server is a process of its own, the program itself. The attackers are tenants, callers without a credential,
//! and connections that do nothing. What must hold: the process lives, its memory comes back, and every push of the
//! neighbour is delivered.

mod attackers;
mod connections;
mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::ledger::Ledger;
use crate::peer::{Certificate, Failure, Manner, Peer};
use server::Server;

/// Pushes of the neighbour before anything is measured, so that connections, instances and buffers are there.
const WARM_UP: usize = 2000;
/// How long the memory may take to come back after the last attack.
const LONGEST_RETURN: Duration = Duration::from_secs(120);
/// Most resident memory afterwards, in terms of that before.
const RETURNED: f64 = 1.2;
/// Applications of the neighbour's tenant.
const APPLICATION: &str = "neighbours";

/// What the attackers were told: per attack, how often each status and code came.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<BTreeMap<&'static str, BTreeMap<String, u64>>>>);

impl Answers {
    /// Counts one response, or one error of the connection.
    fn count(&self, attack: &'static str, answer: impl Into<String>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(attack).or_default().entry(answer.into()).or_default() += 1;
    }
}

/// What came of a run.
pub struct Report {
    took: Duration,
    is_alive: bool,
    /// Resident memory in KiB: before the attacks, at most, and when it had come back or the wait was over.
    idle: u64,
    peak: u64,
    after: u64,
    /// The neighbour's pushes, and what it was told of those that were not delivered.
    pushes: usize,
    failures: BTreeMap<String, u64>,
    /// The median of the neighbour's pushes before the attacks, and beside them.
    alone: Duration,
    beside: Duration,
    answers: Answers,
}

/// Attacks for so long.
pub async fn run(duration: Duration) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    let peer = Peer::start(&certificate, 1, Manner::Calm, Arc::new(Ledger::new(0))).await?;
    let mut server = Server::start(&certificate, peer.address).await?;
    let neighbour = Neighbour::new(&server).await?;
    let mut warm = Pushes::default();
    neighbour.push(WARM_UP, &mut warm).await;
    warm.none_failed()?;
    let idle = server.resident()?;
    let (answers, is_over) = (Answers::default(), AtomicBool::new(false));
    let started = Instant::now();
    let attack = async {
        let attackers = attackers::all(&server, &answers, &is_over).await?;
        let end = async {
            tokio::time::sleep(duration).await;
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(join_all(attackers), end);
        Ok::<_, Failure>(())
    };
    let mut pushes = Pushes::default();
    let beside = async {
        while !is_over.load(Ordering::Relaxed) {
            neighbour.push(1, &mut pushes).await;
        }
    };
    let (attacked, ()) = tokio::join!(attack, beside);
    attacked?;
    let peak = server.peak().unwrap_or(0);
    let after = returned(&server, idle).await;
    Ok(Report {
        took: started.elapsed(),
        is_alive: server.is_alive(),
        idle,
        peak,
        after,
        pushes: pushes.times.len(),
        alone: warm.median(),
        beside: pushes.median(),
        failures: pushes.failures,
        answers,
    })
}

/// Waits until the server's memory has come back; returns it, in KiB.
async fn returned(server: &Server, idle: u64) -> u64 {
    let end = Instant::now() + LONGEST_RETURN;
    loop {
        let now = server.resident().unwrap_or(u64::MAX);
        if within(now, idle) || Instant::now() > end {
            return now;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn within(after: u64, idle: u64) -> bool {
    after as f64 <= idle as f64 * RETURNED
}

/// The tenant that only sends.
struct Neighbour<'a> {
    server: &'a Server,
    api_key: String,
}

/// How long pushes took, and why some were not delivered.
#[derive(Default)]
struct Pushes {
    times: Vec<Duration>,
    failures: BTreeMap<String, u64>,
}

impl<'a> Neighbour<'a> {
    async fn new(server: &'a Server) -> Result<Self, Failure> {
        let api_key = server.make_tenant("neighbour").await?;
        server.register_apns(&api_key, APPLICATION).await?;
        Ok(Self { server, api_key })
    }

    /// Sends pushes one after the other, on a connection that is kept alive.
    async fn push(&self, count: usize, pushes: &mut Pushes) {
        for number in 0..count {
            let body = json!({
                "application_id": APPLICATION,
                "notification": {"body": "hello"},
                // The peer takes tokens 1 to 10 as good ones.
                "targets": [format!("{:064x}", 1 + number % 10)],
            });
            let started = Instant::now();
            let sent = self.server.post("/v1/notifications", &self.api_key).json(&body).send().await;
            let told = match sent {
                Ok(response) => response.text().await.unwrap_or_else(|error| error.to_string()),
                Err(error) => error.to_string(),
            };
            pushes.times.push(started.elapsed());
            if !told.contains(r#""delivered":1"#) {
                *pushes.failures.entry(told).or_default() += 1;
            }
        }
    }
}

impl Pushes {
    fn none_failed(&self) -> Result<(), Failure> {
        match self.failures.keys().next() {
            Some(failure) => Err(format!("a push before the attacks failed: {failure}").into()),
            None => Ok(()),
        }
    }

    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

impl Report {
    /// The process lives, its memory came back, and the neighbour lost nothing.
    pub fn holds(&self) -> bool {
        self.is_alive && within(self.after, self.idle) && self.pushes > 0 && self.failures.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "all attacks for {:.0} s: the process {}; resident memory {} KiB before, {} at most, {} afterwards \
             ({:+.1} %); {} pushes of the neighbour, {} not delivered, median {:?} before and {:?} meanwhile",
            self.took.as_secs_f64(),
            if self.is_alive { "lives" } else { "DIED" },
            self.idle,
            self.peak,
            self.after,
            (self.after as f64 / self.idle as f64 - 1.0) * 100.0,
            self.pushes,
            self.failures.values().sum::<u64>(),
            self.alone,
            self.beside,
        )?;
        for (failure, count) in self.failures.iter().take(10) {
            writeln!(f, "  WRONG: {count} × {failure}")?;
        }
        let answers = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (attack, codes) in answers.iter() {
            writeln!(f, "  {attack}: {codes:?}")?;
        }
        Ok(())
    }
}
