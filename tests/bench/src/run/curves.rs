//! How cost and memory grow with one quantity while all others stay.

mod tenants;

use std::path::Path;

use super::Pace;
use super::bench::{Bench, Measured, load, measure};
use super::relay::Relay;
use super::svg::{self, Curve, Point};
use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Programs, Service, Setup};
use crate::linked::Mode;
use crate::load::{Manner, Plan};
use crate::process::Process;
use crate::say;

/// For as many callers as there shall be, and for registering as many applications at once: by default some of them are
/// refused.
const ROOM: &str = "limits.requests = 12000\nlimits.application_requests = 12000\n\
                    limits.tenant.cpu_milliseconds_per_second = 1000000\n";

/// Measures every curve, prints tables, and writes the plot.
pub fn curves(programs: &Programs, pace: Pace, plot: &Path) -> Result<(), Failure> {
    let top = |full: u64| if pace.quick { full / 10 } else { full };
    let curves = [
        said(applications(programs, pace, top(10_000))?),
        said(callers(programs, pace, top(10_000))?),
        said(relayed(programs, pace, top(10_000))?),
        said(payload(programs, pace)?),
        said(latency(programs, pace)?),
        said(tenants::curve(programs, pace, top(1000))?),
    ];
    std::fs::write(plot, svg::plot(&curves)).map_err(at(&plot.display().to_string()))?;
    say(&format!("The plot is in {}.\n", plot.display()));
    Ok(())
}

/// Sends to each of the applications or tenants before they are measured.
const TURNS: u64 = 8;
const LONGEST_WARM_UP: f64 = 120.0;

/// A table as soon as it is measured.
fn said(curve: Curve) -> Curve {
    say(&table(&curve));
    curve
}

fn applications(programs: &Programs, pace: Pace, top: u64) -> Result<Curve, Failure> {
    let mut points = Vec::new();
    for count in decades(top) {
        let (bench, gateway) = start(programs, 0, count)?;
        let plan = Plan { applications: count, ..plan(&bench, gateway.address(), pace) };
        warm_up(&plan, count)?;
        points.push(point(count as f64, &measure(&bench, gateway.server(), &plan)?));
    }
    Ok(Curve { title: "applications".into(), points })
}

fn callers(programs: &Programs, pace: Pace, top: u64) -> Result<Curve, Failure> {
    let (bench, gateway) = start(programs, 0, 1)?;
    let points = by_callers(&bench, gateway.server(), &plan(&bench, gateway.address(), pace), top)?;
    Ok(Curve { title: "concurrent callers".into(), points })
}

/// What the machine gives so many callers at best.
fn relayed(programs: &Programs, pace: Pace, top: u64) -> Result<Curve, Failure> {
    let bench = Bench::start(programs, 0)?;
    let relay = Relay::start(&bench, false)?;
    let points = by_callers(&bench, &relay.process, &plan(&bench, &relay.address, pace), top)?;
    Ok(Curve { title: "concurrent callers of the bare relay".into(), points })
}

fn by_callers(bench: &Bench, process: &Process, plan: &Plan, top: u64) -> Result<Vec<Point>, Failure> {
    let of = |count: u64| {
        let plan = Plan { connections: usize::try_from(count).unwrap_or(1), ..plan.clone() };
        Ok(point(count as f64, &measure(bench, process, &plan)?))
    };
    decades(top).into_iter().map(of).collect()
}

fn payload(programs: &Programs, pace: Pace) -> Result<Curve, Failure> {
    let (bench, gateway) = start(programs, 0, 1)?;
    let mut points = Vec::new();
    for bytes in [100, 400, 1000, 2000, 4000] {
        let mut plan = plan(&bench, gateway.address(), pace);
        let text = "x".repeat(bytes - 40);
        plan.body = plan.body.replace("Your+order+is+on+its+way", &text);
        points.push(point(bytes as f64, &measure(&bench, gateway.server(), &plan)?));
    }
    Ok(Curve { title: "payload, bytes".into(), points })
}

fn latency(programs: &Programs, pace: Pace) -> Result<Curve, Failure> {
    let mut points = Vec::new();
    for milliseconds in [0, 10, 50, 200] {
        let (bench, gateway) = start(programs, milliseconds, 1)?;
        let plan = Plan { connections: 512, ..plan(&bench, gateway.address(), pace) };
        points.push(point(milliseconds as f64, &measure(&bench, gateway.server(), &plan)?));
    }
    Ok(Curve { title: "latency of the push service, ms (512 callers)".into(), points })
}

fn start(programs: &Programs, latency: u64, applications: u64) -> Result<(Bench, Gateway), Failure> {
    let bench = Bench::start(programs, latency)?;
    let gateway = bench.gateway(&Setup { more: ROOM.into(), ..Setup::of(Mode::Warm) })?;
    gateway.register("token", applications, Service::ApnsToken, bench.files(), None)?;
    Ok((bench, gateway))
}

/// Everyone's turn comes several times over every connection, so that connections and instances are there.
fn warm_up(plan: &Plan, everyone: u64) -> Result<(), Failure> {
    let turns = u32::try_from(everyone * TURNS / plan.connections as u64).unwrap_or(u32::MAX);
    load(&Plan { manner: Manner::Times(turns + 1), seconds: LONGEST_WARM_UP, ..plan.clone() }).map(drop)
}

fn plan(bench: &Bench, address: &str, pace: Pace) -> Plan {
    Plan { seconds: pace.seconds / 2.0, ..bench.classic(address, "token") }
}

fn decades(top: u64) -> Vec<u64> {
    std::iter::successors(Some(1), |count| Some(count * 10)).take_while(|count| *count <= top).collect()
}

fn point(x: f64, measured: &Measured) -> Point {
    Point {
        x,
        pushes_per_second: measured.pushes_per_second(),
        cpu: measured.cpu,
        mebibytes: measured.resident as f64 / 1024.0,
        p99: f64::from(measured.figures.p99) / 1000.0,
        failed: measured
            .figures
            .requests
            .saturating_sub(measured.figures.statuses.get(&200).copied().unwrap_or(0)),
    }
}

fn table(curve: &Curve) -> String {
    let mut text = format!(
        "| {} | pushes/s | CPU µs/push | RSS MiB | p99 ms | not 200 |\n|---:|---:|---:|---:|---:|---:|\n",
        curve.title
    );
    for Point { x, pushes_per_second, cpu, mebibytes, p99, failed } in &curve.points {
        text.push_str(&format!(
            "| {x} | {pushes_per_second:.0} | {cpu:.1} | {mebibytes:.1} | {p99:.2} | {failed} |\n"
        ));
    }
    text
}
