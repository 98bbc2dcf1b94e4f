//! Instruction counts against a committed budget: a regression fails whatever else the machine is doing.
//!
//! Counted by callgrind, without the kernel's part. The codec's count is that of one push in `codec.rs`; the
//! gateway's that of one push on the classic route, from socket to socket.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::codec::{Mode, Repeat};
use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Isolation, Service};
use crate::load::{Figures, Manner, Plan};
use crate::process::{Process, myself, which};
use crate::run::bench::Bench;

/// A count may be this much over its budget.
const TOLERANCE: f64 = 0.05;
/// Pushes that are not counted: caches fill, connections open.
const WARM_UP: u32 = 50;
const COUNTED: u32 = 500;
/// What is counted: one push with all that it calls.
const PUSH: &str = "*bench::codec::Codec::push*";

/// Counts, compares with the budget file, and answers whether all is within. With `update`, the counts
/// become the budget.
pub fn run(binary: &Path, budget: &Path, update: bool) -> Result<bool, Failure> {
    if which("valgrind").is_none() {
        return Err(Failure::new("valgrind is not installed: apt-get install valgrind"));
    }
    let directory = tempfile()?;
    let mut counts = BTreeMap::new();
    for mode in Mode::ALL {
        counts.insert(format!("codec-{}", mode.name()), codec(mode, &directory)?);
    }
    for (name, isolation) in [("push-warm", Isolation::Warm), ("push-per-call", Isolation::PerCall)] {
        counts.insert(name.to_owned(), push(binary, &directory, isolation)?);
    }
    let _ = fs::remove_dir_all(&directory);
    if update {
        let text = toml::to_string(&counts).map_err(at("budget"))?;
        fs::write(budget, format!("# Instructions per push; written by `guard --update`.\n{text}"))
            .map_err(at("budget"))?;
    }
    let text = fs::read_to_string(budget).map_err(at(&budget.display().to_string()))?;
    let budget: BTreeMap<String, u64> = toml::from_str(&text).map_err(at("budget"))?;
    crate::say(&report(&counts, &budget));
    Ok(counts.iter().all(|(name, count)| is_within(*count, budget.get(name).copied())))
}

fn is_within(count: u64, budget: Option<u64>) -> bool {
    budget.is_some_and(|budget| count as f64 <= budget as f64 * (1.0 + TOLERANCE))
}

fn report(counts: &BTreeMap<String, u64>, budget: &BTreeMap<String, u64>) -> String {
    let mut text = "| instructions per push | counted | budget | |\n|---|---:|---:|---|\n".to_owned();
    for (name, count) in counts {
        let budget = budget.get(name).copied();
        let verdict = match budget {
            None => "no budget".to_owned(),
            Some(budget) => {
                let change = (*count as f64 / budget as f64 - 1.0) * 100.0;
                let verdict = if is_within(*count, Some(budget)) { "ok" } else { "TOO MANY" };
                format!("{verdict} ({change:+.1} %)")
            }
        };
        text.push_str(&format!("| {name} | {count} | {} | {verdict} |\n", budget.unwrap_or(0)));
    }
    text
}

fn tempfile() -> Result<PathBuf, Failure> {
    crate::run::bench::directory("guard")
}

/// The difference of two runs, so that what happens once does not count.
fn codec(mode: Mode, directory: &Path) -> Result<u64, Failure> {
    let count = |times| {
        let inner = myself("codec", &Repeat { mode, times, targets: 1 })?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", &format!("--toggle-collect={PUSH}")]);
        command.arg(format!("--callgrind-out-file={}", directory.join("codec.out").display()));
        command.arg(inner.get_program()).args(inner.get_args());
        let output = command.output().map_err(at("valgrind"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match collected(&text) {
            Some(count) if output.status.success() && count > 0 => Ok(count),
            _ => Err(Failure::new(format!("valgrind: {text}"))),
        }
    };
    Ok((count(WARM_UP + COUNTED)? - count(WARM_UP)?) / u64::from(COUNTED))
}

fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

/// Counting is switched on when the gateway has warmed up, and off before it stops.
fn push(binary: &Path, directory: &Path, isolation: Isolation) -> Result<u64, Failure> {
    let mut bench = Bench::start(binary, 0)?;
    let log = directory.join("gateway.txt");
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--instr-atstart=no".to_owned(),
        format!("--log-file={}", log.display()),
        format!("--callgrind-out-file={}", directory.join("gateway.out").display()),
    ];
    let mut gateway = bench.gateway(isolation, &wrapper)?;
    gateway.register("apns", 1, Service::ApnsToken, bench.files())?;
    let plan = bench.classic(gateway.address(), "apns");
    one_after_another(&plan, WARM_UP)?;
    control(&gateway, "on")?;
    let pushes = one_after_another(&plan, COUNTED)?;
    control(&gateway, "off")?;
    stop(&mut gateway)?;
    let text = fs::read_to_string(&log).map_err(at("valgrind"))?;
    let count = collected(&text).ok_or_else(|| Failure::new(text))?;
    Ok(count / pushes.max(1))
}

fn one_after_another(plan: &Plan, times: u32) -> Result<u64, Failure> {
    let plan = Plan { connections: 1, manner: Manner::Times(times), seconds: 600.0, ..plan.clone() };
    let figures: Figures = crate::run::bench::load(&plan)?;
    match figures.complaint {
        None if figures.pushes == u64::from(times) => Ok(figures.pushes),
        complaint => Err(Failure::new(format!("{} of {times} pushes: {complaint:?}", figures.pushes))),
    }
}

fn control(gateway: &Gateway, state: &str) -> Result<(), Failure> {
    let pid = gateway.id().to_string();
    let mut command = Command::new("callgrind_control");
    command.args([&format!("--instr={state}"), &pid]).stdout(Stdio::null());
    let status = command.status().map_err(at("callgrind_control"))?;
    if status.success() { Ok(()) } else { Err(Failure::new("callgrind_control failed")) }
}

fn stop(gateway: &mut Gateway) -> Result<(), Failure> {
    let pid = gateway.id().to_string();
    Process::start(Command::new("kill").arg(&pid))?.child().wait().map_err(at("kill"))?;
    for _ in 0..600 {
        if gateway.process().child().try_wait().map_err(at("gateway"))?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::new("the gateway does not stop"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_be_little_over_its_budget() {
        assert!(is_within(104, Some(100)) && is_within(1, Some(100)));
        assert!(!is_within(106, Some(100)) && !is_within(1, None));
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 1234\n"), Some(1234));
    }
}
