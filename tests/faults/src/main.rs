//! `pushlet-faults [wild|proxy|resend|node|fleet|queue|queue-resend|limit|costs|hang|flat|hostile] [--seed N] [--seeds N] [--pushes N] [--seconds N]`
//!
//! Runs, prints what came of it, and ends with 1 if an answer was missing or wrong.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pushlet_faults::peer::Failure;
use pushlet_faults::run::Plan;
use pushlet_faults::{costs, flat, fleet, hang, hostile, node, queue, run};

/// Rounds of `hang`, which judges times from five on: those of a program that was built for debugging say nothing,
/// as its own work for 500 callers delays everything else.
const HANG_ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 5 };
const USAGE: &str = "pushlet-faults [wild|proxy|resend|node|fleet|queue|queue-resend|limit|costs|hang|flat|hostile] [--seed N] [--seeds N] [--pushes N] [--seconds N]";

/// The command line.
struct Arguments {
    mode: String,
    /// The first seed; the others count up from it.
    seed: u64,
    seeds: u64,
    pushes: usize,
    /// How long `hostile` attacks.
    seconds: u64,
}

fn main() -> ExitCode {
    // The server under attack, and its compiler, are this program too.
    if std::env::args().nth(1).is_some_and(|word| word == "serve" || word == "compile") {
        return pushlet::cli::main(std::env::args_os());
    }
    match run_faults() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("pushlet-faults: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run_faults() -> Result<bool, Failure> {
    Arguments::read(std::env::args().skip(1))?.run().await
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut arguments =
            Self { mode: "wild".to_owned(), seed: now.as_secs(), seeds: 1, pushes: 100_000, seconds: 300 };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, Failure> { Ok(words.next().ok_or(USAGE)?.parse()?) };
            match word.as_str() {
                "--seed" => arguments.seed = number()?,
                "--seeds" => arguments.seeds = number()?,
                "--pushes" => arguments.pushes = usize::try_from(number()?)?,
                "--seconds" => arguments.seconds = number()?,
                "wild" | "proxy" | "resend" | "node" | "fleet" | "queue" | "queue-resend" | "limit"
                | "costs" | "hang" | "flat" | "hostile" => arguments.mode = word,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(arguments)
    }

    async fn run(&self) -> Result<bool, Failure> {
        let mut holds = true;
        for seed in (self.seed..).take(usize::try_from(self.seeds)?) {
            holds &= self.once(seed).await?;
        }
        Ok(holds)
    }

    async fn once(&self, seed: u64) -> Result<bool, Failure> {
        let plan = Plan {
            seed,
            pushes: self.pushes,
            proxy: self.mode == "proxy",
            resend_unknown: matches!(self.mode.as_str(), "resend" | "queue-resend"),
            deadline: Duration::from_secs(5),
        };
        Ok(match self.mode.as_str() {
            "hang" => {
                let report = hang::run(500, HANG_ROUNDS).await?;
                println!("{report}");
                report.holds()
            }
            "flat" => {
                let report = flat::run(seed, self.pushes).await?;
                println!("seed {seed}: {report}");
                report.holds()
            }
            "hostile" => {
                let report = hostile::run(Duration::from_secs(self.seconds)).await?;
                println!("{report}");
                report.holds()
            }
            "limit" => {
                let passed = costs::limit(plan).await?;
                println!("{passed} pushes in ten seconds, of three nodes with a limit of 100 a second");
                costs::is_exact(passed)
            }
            "costs" => {
                let costs = costs::run(plan).await?;
                println!("{costs}");
                costs.holds()
            }
            mode => {
                let report = match mode {
                    "node" => node::run(plan).await?,
                    "fleet" => fleet::run(plan).await?,
                    "queue" | "queue-resend" => queue::run(plan).await?,
                    _ => run::run(plan).await?,
                };
                println!("{report}");
                report.holds()
            }
        })
    }
}
