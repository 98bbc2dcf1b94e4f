//! One randomized run: pushes, a peer that misbehaves, and the comparison of its ledger with the answers.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::caller::{APPLICATIONS, Caller, GCM, Setup};
use crate::ledger::{Ledger, Told, Verdict};
use crate::peer::{Certificate, Failure, Manner, Peer};
use crate::proxy::Proxy;

/// Targets of one call of the gateway; fewer where they all share the fate of one request.
const BATCH: usize = 500;
const MULTICAST: usize = 20;
/// Calls under way at once.
const AT_ONCE: usize = 12;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub pushes: usize,
    /// Through a proxy that misbehaves too.
    pub proxy: bool,
    /// The operator allows to send again what may have arrived.
    pub resend_unknown: bool,
    pub deadline: Duration,
}

/// What came of it.
pub struct Report {
    pub plan: Plan,
    pub verdict: Verdict,
    pub violations: Vec<String>,
    /// What the peer, and the network, did.
    pub events: Vec<(String, u64)>,
    pub took: Duration,
}

/// Runs a plan.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    let ledger = Arc::new(Ledger::new(plan.pushes));
    let peer = Peer::start(&certificate, plan.seed, Manner::Wild, ledger.clone()).await?;
    let proxy = match plan.proxy {
        true => Some(Proxy::start(peer.address, plan.seed, ledger.clone()).await?),
        false => None,
    };
    let address = proxy.as_ref().map_or(peer.address, |proxy| proxy.address);
    let started = Instant::now();
    let answers = answers(&certificate, address, plan).await?;
    let took = started.elapsed();
    drop((proxy, peer));
    Ok(Report::of(plan, &ledger, &answers, took))
}

/// Sends all pushes to a peer; what was told of each, by push.
pub async fn answers(
    certificate: &Certificate,
    address: SocketAddr,
    plan: Plan,
) -> Result<Vec<Option<Told>>, Failure> {
    let setup = Setup {
        production: address,
        development: address,
        deadline: plan.deadline,
        resend_unknown: plan.resend_unknown,
    };
    let caller = Caller::new(certificate, &setup)?;
    let mut answers: Vec<Option<Told>> = vec![None; plan.pushes];
    let batches = batches(plan.pushes).into_iter().map(|(application, pushes)| {
        let caller = caller.clone();
        async move { (pushes.start, caller.send(&application.to_string(), pushes).await) }
    });
    let mut told = stream::iter(batches).buffer_unordered(AT_ONCE);
    while let Some((start, batch)) = told.next().await {
        for (answer, told) in answers.iter_mut().skip(start).zip(batch) {
            *answer = Some(told);
        }
    }
    caller.close().await;
    Ok(answers)
}

/// The applications by turns, each with its next batch.
fn batches(pushes: usize) -> Vec<(usize, Range<usize>)> {
    let mut batches = Vec::new();
    let mut start = 0;
    while start < pushes {
        let application = batches.len() % APPLICATIONS;
        let size = if application == GCM { MULTICAST } else { BATCH };
        batches.push((application, start..pushes.min(start + size)));
        start += size;
    }
    batches
}

impl Report {
    /// Compares what was told with the ledger.
    pub fn of(plan: Plan, ledger: &Ledger, answers: &[Option<Told>], took: Duration) -> Self {
        let events = ledger.events().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let verdict = ledger.compare(answers, plan.resend_unknown);
        Self { plan, verdict, violations: ledger.violations(), events, took }
    }

    /// Whether every answer agrees with the ledger and no rule was broken.
    pub fn holds(&self) -> bool {
        self.verdict.faults() == 0 && self.violations.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { plan, verdict, violations, events, took } = self;
        writeln!(
            f,
            "seed {}: {} pushes{}{} in {:.1} s: {} delivered, {} not delivered, {} unknown ({} of them processed); \
             {} lost, {} duplicated, {} wrongly denied, {} unanswered, {} resent with leave; {} violations",
            plan.seed,
            plan.pushes,
            if plan.proxy { " through the proxy" } else { "" },
            if plan.resend_unknown { ", resending unknown ones" } else { "" },
            took.as_secs_f64(),
            verdict.delivered,
            verdict.not_delivered,
            verdict.unknown,
            verdict.unknown_but_processed,
            verdict.lost,
            verdict.duplicated,
            verdict.denied,
            verdict.unanswered,
            verdict.resent,
            violations.len(),
        )?;
        writeln!(f, "  peer: {events:?}")?;
        writeln!(f, "  not delivered: {:?}", verdict.reasons)?;
        for example in verdict.examples.iter().chain(violations.iter().take(10)) {
            writeln!(f, "  WRONG: {example}")?;
        }
        Ok(())
    }
}
