//! Instruction counts against a committed budget: a regression fails whatever else the machine is doing.
//!
//! Counted by callgrind, without the kernel's part. The codec's count is that of `encode` and
//! `decode`; the gateway's that of one push on the classic route, from socket to socket, or of one line of a
//! stream. How often threads wait for each other or are switched is counted by perf, without callgrind, which lets
//! one thread run at a time. All of it is in `pushlet-linked`, so that one build is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Programs, Service, Setup};
use crate::linked::{self, Mode, Repeat, Subject};
use crate::load::{Figures, Manner, Plan};
use crate::process::{Process, WakeCounter, which};
use crate::run::bench::Bench;

/// A count may be this much over its budget.
const TOLERANCE: f64 = 0.05;
/// Waits and switches may be half over theirs, and a tenth of a push: the system's scheduler decides on them, too.
const WAKES_TOLERANCE: (f64, f64) = (0.5, 100.0);
const FUTEXES: &str = "push-warm-futexes-per-1000";
const SWITCHES: &str = "push-warm-switches-per-1000";
/// Callers at once while waits and switches are counted, and the requests of each.
const CALLERS: usize = 64;
const REQUESTS: u32 = 200;
/// Pushes that are not counted: caches fill, connections open.
const WARM_UP: u32 = 50;
const COUNTED: u32 = 500;
/// Lines of a stream in place of one request.
const LINES: u64 = 10;
/// What is counted: one push with all that it calls.
const PUSH: &str = "*linked::codec::counted*";

/// What is asked of the guard.
pub struct Request {
    /// As which profile of cargo `pushlet-linked` was built: each has a budget of its own.
    pub profile: String,
    /// Parts of the names of what is counted; none: everything.
    pub only: Vec<String>,
    /// The counts become the budget.
    pub update: bool,
    /// Where callgrind's profiles are kept, one of each gateway.
    pub profiles: Option<PathBuf>,
}

/// Counts, compares with the budget file, and answers whether all is within.
pub fn run(linked: &Path, budget_file: &Path, request: &Request) -> Result<bool, Failure> {
    if which("valgrind").is_none() {
        return Err(Failure::new("valgrind is not installed: apt-get install valgrind"));
    }
    let directory = crate::run::bench::directory("guard")?;
    let counts = counts(linked, &directory, request);
    if let Some(profiles) = &request.profiles {
        fs::create_dir_all(profiles).map_err(at("profiles"))?;
        for file in fs::read_dir(&directory).map_err(at("profiles"))?.flatten() {
            fs::copy(file.path(), profiles.join(file.file_name())).map_err(at("profiles"))?;
        }
    }
    let _ = fs::remove_dir_all(&directory);
    let counts = counts?;
    let text = fs::read_to_string(budget_file).unwrap_or_default();
    let mut budgets: BTreeMap<String, BTreeMap<String, u64>> = toml::from_str(&text).map_err(at("budget"))?;
    let budget = budgets.entry(request.profile.clone()).or_default();
    crate::say(&report(&counts, budget));
    if request.update {
        if request.only.is_empty() {
            budget.clear();
        }
        budget.extend(counts);
        let text = toml::to_string(&budgets).map_err(at("budget"))?;
        let text = format!("# What a push costs, by profile; written by `guard --update`.\n{text}");
        fs::write(budget_file, text).map_err(at("budget"))?;
        return Ok(true);
    }
    Ok(counts.iter().all(|(name, count)| is_within(name, *count, budget.get(name).copied())))
}

/// What callgrind counted of one push.
pub struct Counted {
    pub instructions: u64,
    /// Calls that take memory.
    pub allocations: u64,
}

/// How the pushes come to the gateway.
#[derive(Clone, Copy, PartialEq)]
pub enum Route {
    /// One in a request, one after another.
    Classic,
    /// Each one a line of one request.
    Stream,
}

/// The gateways whose pushes are counted.
pub const GATEWAYS: [(Mode, Route); 5] = [
    (Mode::Native, Route::Classic),
    (Mode::Warm, Route::Classic),
    (Mode::PerCall, Route::Classic),
    (Mode::Native, Route::Stream),
    (Mode::Warm, Route::Stream),
];

fn name(mode: Mode, route: Route) -> String {
    format!("{}-{}", if route == Route::Stream { "stream" } else { "push" }, mode.name())
}

fn counts(linked: &Path, directory: &Path, request: &Request) -> Result<BTreeMap<String, u64>, Failure> {
    let wanted = |name: &str| request.only.is_empty() || request.only.iter().any(|only| name.contains(only));
    let mut counts = BTreeMap::new();
    for (subject, prefix) in [(Subject::Apns, "codec"), (Subject::WebPush, "codec-webpush")] {
        for mode in subject.modes() {
            let name = format!("{prefix}-{}", mode.name());
            if wanted(&name) {
                counts.insert(name, codec(linked, subject, *mode, directory)?);
            }
        }
    }
    let bench = Bench::start(&Programs { linked: linked.to_owned(), ..Programs::none() }, 0)?;
    for (mode, route) in GATEWAYS {
        let name = name(mode, route);
        if wanted(&name) {
            let Counted { instructions, allocations } = counted(&bench, directory, mode, route)?;
            counts.insert(format!("{name}-allocations"), allocations);
            counts.insert(name, instructions);
        }
    }
    if wanted(FUTEXES) || wanted(SWITCHES) {
        counts.extend(wakes(&bench)?);
    }
    Ok(counts)
}

/// Calls of futex(2) and context switches in a thousand pushes of many callers at once; nothing where perf does not
/// count.
fn wakes(bench: &Bench) -> Result<Vec<(String, u64)>, Failure> {
    let gateway = bench.gateway(&Setup { linked: true, ..Setup::of(Mode::Warm) })?;
    gateway.register("apns", 1, Service::ApnsToken, bench.files(), None)?;
    let plan = |times| Plan {
        connections: CALLERS,
        manner: Manner::Times(times),
        seconds: 600.0,
        ..bench.classic(gateway.address(), "apns")
    };
    pushed(&plan(WARM_UP))?;
    let counter = WakeCounter::start(gateway.server());
    let pushes = pushed(&plan(REQUESTS))?;
    let Some(counts) = counter.stop() else {
        crate::say(
            "Waits and switches were not counted: perf is not installed (apt-get install linux-perf), or may not count.",
        );
        return Ok(Vec::new());
    };
    let per_thousand = |count: u64| count * 1000 / pushes;
    Ok(vec![
        (FUTEXES.to_owned(), per_thousand(counts.futexes)),
        (SWITCHES.to_owned(), per_thousand(counts.switches)),
    ])
}

fn is_within(name: &str, count: u64, budget: Option<u64>) -> bool {
    budget.is_some_and(|budget| {
        let wakes = [FUTEXES, SWITCHES].contains(&name);
        let (share, more) = if wakes { WAKES_TOLERANCE } else { (TOLERANCE, 0.0) };
        count as f64 <= budget as f64 * (1.0 + share) + more
    })
}

fn report(counts: &BTreeMap<String, u64>, budget: &BTreeMap<String, u64>) -> String {
    let mut text = "| per push | counted | budget | |\n|---|---:|---:|---|\n".to_owned();
    for (name, count) in counts {
        let budget = budget.get(name).copied();
        let verdict = match budget {
            None => "no budget".to_owned(),
            Some(budget) => {
                let change = (*count as f64 / budget as f64 - 1.0) * 100.0;
                let verdict = if is_within(name, *count, Some(budget)) { "ok" } else { "TOO MANY" };
                format!("{verdict} ({change:+.1} %)")
            }
        };
        text.push_str(&format!("| {name} | {count} | {} | {verdict} |\n", budget.unwrap_or(0)));
    }
    text
}

/// Of the pushes in `codec::counted` alone.
fn codec(linked: &Path, subject: Subject, mode: Mode, directory: &Path) -> Result<u64, Failure> {
    // One of Web Push takes as long as two hundred of APNs.
    let (warm_up, times) = match subject {
        Subject::Apns => (WARM_UP, COUNTED),
        Subject::WebPush => (WARM_UP / 10, COUNTED / 10),
    };
    let repeat = Repeat { subject, mode, threads: 1, warm_up, times };
    let inner = linked::codec(linked, &repeat)?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--toggle-collect={PUSH}")]);
    let profile = directory.join(format!("codec-{}-{}.out", subject.name(), mode.name()));
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(inner.get_program()).args(inner.get_args());
    let output = command.output().map_err(at("valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match collected(&text) {
        Some(count) if output.status.success() && count > 0 => Ok(count / u64::from(times)),
        _ => Err(Failure::new(format!("valgrind: {text}"))),
    }
}

fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

fn profile(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.out"))
}

/// How often a profile's functions called one that takes memory. A function has its name only where it comes first,
/// and a number everywhere (callgrind's manual, "Callgrind Format Specification").
fn allocations(profile: &str) -> u64 {
    const NAMES: [&str; 4] = ["malloc", "mallocx", "calloc", "posix_memalign"];
    let mut allocating = BTreeSet::new();
    let (mut calls, mut callee) = (0, "");
    for line in profile.lines() {
        let function = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn="));
        if let Some((number, name)) = function.and_then(|function| function.split_once(')')) {
            if NAMES.contains(&name.trim_start().trim_start_matches("_rjem_")) {
                allocating.insert(number);
            }
            if line.starts_with('c') {
                callee = number;
            }
        } else if let Some(count) = line.strip_prefix("calls=")
            && allocating.contains(callee)
        {
            calls += count.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    calls
}

/// Of a push to a gateway of this mode, in `pushlet-linked`. Counting is switched on when the gateway has warmed up, and
/// off before it stops. The profile stays in the directory.
pub fn counted(bench: &Bench, directory: &Path, mode: Mode, route: Route) -> Result<Counted, Failure> {
    let name = name(mode, route);
    let log = directory.join(format!("{name}.txt"));
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--instr-atstart=no".to_owned(),
        format!("--log-file={}", log.display()),
        format!("--callgrind-out-file={}", profile(directory, &name).display()),
    ];
    let mut gateway = bench.gateway(&Setup { linked: true, wrapper: wrapper.into(), ..Setup::of(mode) })?;
    gateway.register("apns", 1, Service::ApnsToken, bench.files(), None)?;
    let plan = |times| match route {
        Route::Classic => Plan {
            connections: 1,
            manner: Manner::Times(times),
            seconds: 600.0,
            ..bench.classic(gateway.address(), "apns")
        },
        Route::Stream => {
            let lines = u64::from(times) * LINES;
            Plan { manner: Manner::Stream(lines), ..bench.stream(gateway.address(), "apns") }
        }
    };
    pushed(&plan(WARM_UP))?;
    control(&gateway, "on")?;
    let pushes = pushed(&plan(COUNTED))?;
    control(&gateway, "off")?;
    stop(&mut gateway)?;
    let text = fs::read_to_string(&log).map_err(at("valgrind"))?;
    let count = collected(&text).ok_or_else(|| Failure::new(text))?;
    let profile = fs::read_to_string(profile(directory, &name)).map_err(at("profile"))?;
    Ok(Counted { instructions: count / pushes, allocations: allocations(&profile) / pushes })
}

/// Carries out a plan of which every push must be accepted; how many they are.
fn pushed(plan: &Plan) -> Result<u64, Failure> {
    let wanted = match plan.manner {
        Manner::Stream(lines) => lines,
        Manner::Times(times) => u64::from(times) * plan.connections as u64,
        _ => 0,
    };
    let figures: Figures = crate::run::bench::load(plan)?;
    match figures.complaint {
        None if figures.pushes == wanted && wanted > 0 => Ok(wanted),
        complaint => Err(Failure::new(format!("{} of {wanted} pushes: {complaint:?}", figures.pushes))),
    }
}

fn control(gateway: &Gateway, state: &str) -> Result<(), Failure> {
    let pid = gateway.id().to_string();
    let mut command = Command::new("callgrind_control");
    command.args([&format!("--instr={state}"), &pid]).stdout(Stdio::null()).stderr(Stdio::null());
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
    fn calls_that_take_memory_are_counted() {
        let profile = "fn=(1) push\n12 5\ncfn=(2) _rjem_malloc\ncalls=3 40\n12 90\ncfn=(3) free\ncalls=9 50\n\
                       fn=(4) other\ncfn=(2)\ncalls=4 40\n1 2\nfn=(2)\n40 7\ncfn=(5) _rjem_calloc\ncalls=1 1\n";
        assert_eq!(allocations(profile), 8);
    }

    #[test]
    fn a_count_may_be_little_over_its_budget() {
        let name = "push-warm";
        assert!(is_within(name, 104, Some(100)) && is_within(name, 1, Some(100)));
        assert!(!is_within(name, 106, Some(100)) && !is_within(name, 1, None));
        assert!(is_within(FUTEXES, 175, Some(50)) && !is_within(FUTEXES, 176, Some(50)));
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 1234\n"), Some(1234));
    }
}
