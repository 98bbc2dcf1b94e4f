//! The whole measurement: one table, and the curves.

pub mod bench;
mod curves;
mod h2load;
mod peer;
mod svg;
mod table;

use std::path::Path;
use std::time::Duration;

pub use curves::curves;
pub use peer::peer;

use crate::codec::{Codec, Mode};
use crate::failure::Failure;
use crate::gateway::{Gateway, Isolation, Service};
use crate::load::{Manner, Plan};
use crate::process::{Process, free_port, myself};
use crate::{relay, say};
use bench::{Bench, DELIVERED, Measured, load, measure};
use table::Row;

const JSON: &str = "application/json";
const BATCH: usize = 100;
/// Registration ids of one GCM exchange.
const IDS: usize = 1000;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Of one measurement.
    pub seconds: f64,
    /// Lines of the streamed request.
    pub stream: u64,
    /// Requests of h2load.
    pub ceiling: u32,
    /// Calls of the codec.
    pub calls: u32,
    /// Upper ends of the curves are a tenth of the full ones.
    pub quick: bool,
}

impl Pace {
    pub const FULL: Self =
        Self { seconds: 6.0, stream: 1_000_000, ceiling: 400_000, calls: 50_000, quick: false };
    pub const QUICK: Self =
        Self { seconds: 2.0, stream: 100_000, ceiling: 100_000, calls: 10_000, quick: true };
}

/// Measures and prints. `binary`: the gateway.
pub fn table(binary: &Path, pace: Pace) -> Result<(), Failure> {
    say(&format!("{}\n", table::machine()));
    codec(pace)?;
    let mut bench = Bench::start(binary, 0)?;
    match h2load::ceiling(&bench, pace.ceiling)? {
        Some(ceiling) => say(&format!(
            "The sink alone, by h2load on one connection: {:.0} requests/s; per request {:.1} µs of h2load's \
             processor time and {:.1} µs of the sink's.\n",
            ceiling.requests_per_second, ceiling.cpu, ceiling.sink_cpu
        )),
        None => say(&format!("{}.\n", h2load::INSTALL)),
    }
    let relay = relayed(&bench, pace)?;
    let baseline = relay.cpu;
    let mut rows = vec![Row { what: "bare relay, keep-alive".into(), mode: "native", measured: Some(relay) }];
    let mut starts = Vec::new();
    for isolation in [Isolation::Warm, Isolation::PerCall] {
        let mut gateway = bench.gateway(isolation, &[])?;
        starts.push(format!("{:.0} ms", gateway.time_to_ready().as_secs_f64() * 1e3));
        starts.push(format!("{:.1} MiB", gateway.process().resident() as f64 / 1024.0));
        rows.extend(all_routes(&bench, &mut gateway, isolation, pace)?);
    }
    say(&table::table(&rows, Some(baseline)));
    say(&format!("Ready (from the start of the process) and RSS then: {}.\n", starts.join(", ")));
    say(NOT_MEASURED);
    Ok(())
}

const NOT_MEASURED: &str = "Not measured: real push services and networks; more cores than this machine has; the sink and \
     the load generator share the cores with the server under test, so throughput is that of all three \
     together, and CPU per push is the figure to compare. The relay has no authentication, registry, \
     limits, deadlines, retries or log. RSS is after each line's own run.\n";

/// Microseconds of the codec alone, one thread, by the wall clock.
fn codec(pace: Pace) -> Result<(), Failure> {
    let mut text = "| codec: encode + decode | µs per push | × native |\n|---|---:|---:|\n".to_owned();
    let mut native = None;
    for mode in Mode::ALL {
        let codec = Codec::new(mode, 1)?;
        for _ in 0..pace.calls / 10 {
            codec.push()?;
        }
        // The best of five: what disturbs only ever adds.
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = std::time::Instant::now();
            for _ in 0..pace.calls / 5 {
                codec.push()?;
            }
            best = best.min(start.elapsed());
        }
        let micros = best.as_secs_f64() * 1e6 / f64::from(pace.calls / 5);
        let ratio = micros / *native.get_or_insert(micros);
        text.push_str(&format!("| {} | {micros:.2} | {ratio:.1} |\n", mode.name()));
    }
    say(&text);
    Ok(())
}

fn relayed(bench: &Bench, pace: Pace) -> Result<Measured, Failure> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let options =
        relay::Options { listen: address.clone(), apns: bench.ports().apns, ca: bench.files().ca.clone() };
    let process = Process::start(&mut myself("relay", &options)?)?;
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let plan = Plan { address, seconds: pace.seconds, ..bench.classic("", "relay") };
    measure(bench, &process, &plan)
}

fn all_routes(
    bench: &Bench,
    gateway: &mut Gateway,
    isolation: Isolation,
    pace: Pace,
) -> Result<Vec<Row>, Failure> {
    let mode = match isolation {
        Isolation::Warm => "warm",
        Isolation::PerCall => "per-call",
    };
    let files = bench.files();
    let applications = [
        ("token", Service::ApnsToken),
        ("certificate", Service::ApnsCertificate),
        ("fcm", Service::Fcm),
        ("gcm", Service::Gcm),
    ];
    for (name, service) in applications {
        gateway.register(name, 1, service, files)?;
    }
    let address = gateway.address().to_owned();
    let classic = |name: &str| Plan { seconds: pace.seconds, ..bench.classic(&address, name) };
    let batch = |name, targets| Plan { seconds: pace.seconds, ..batch(&address, name, targets) };
    let new_connections = Plan { manner: Manner::NewConnections, ..classic("token") };
    let stream = Plan { manner: Manner::Stream(pace.stream), ..bench.stream(&address, "token") };
    let plans = [
        ("classic, keep-alive, APNs token".to_owned(), classic("token")),
        ("classic, new connections, APNs token".to_owned(), new_connections),
        ("classic, keep-alive, APNs certificate".to_owned(), classic("certificate")),
        ("classic, keep-alive, FCM".to_owned(), classic("fcm")),
        ("classic, keep-alive, GCM".to_owned(), Plan { accepted: r#""success":1"#.into(), ..classic("gcm") }),
        (format!("/v1/notifications, {BATCH} targets, APNs token"), batch("token", BATCH)),
        (format!("/v1/notifications, {IDS} targets, GCM"), batch("gcm", IDS)),
        (format!("/v1/notifications:stream, {} targets", pace.stream), stream),
    ];
    let mut rows = Vec::new();
    let mut peak = None;
    for (what, plan) in plans {
        let measured = row(bench, gateway, &plan)?;
        if peak.is_none() {
            peak = measured.as_ref().map(Measured::pushes_per_second);
        }
        rows.push(Row { what, mode, measured });
    }
    if let Some(peak) = peak {
        let what = format!("classic at half its peak, {:.0}/s", peak / 2.0);
        let plan = Plan { manner: Manner::Rate(peak / 2.0), ..classic("token") };
        rows.push(Row { what, mode, measured: row(bench, gateway, &plan)? });
    }
    rows.push(Row { what: "Web Push".into(), mode, measured: None });
    Ok(rows)
}

/// None if the server has no such route.
fn row(bench: &Bench, gateway: &mut Gateway, plan: &Plan) -> Result<Option<Measured>, Failure> {
    let probe = match plan.manner {
        Manner::Stream(_) => Plan { manner: Manner::Stream(10), ..plan.clone() },
        _ => Plan { manner: Manner::Times(1), connections: 1, seconds: 10.0, ..plan.clone() },
    };
    let probed = load(&probe)?;
    if probed.statuses.contains_key(&404) {
        return Ok(None);
    }
    if probed.pushes == 0 {
        return Err(Failure::new(format!("{}: {:?} {:?}", plan.path, probed.statuses, probed.complaint)));
    }
    let measured = measure(bench, gateway.process(), plan)?;
    if let Some(complaint) = &measured.figures.complaint {
        say(&format!("{} {:?}: {complaint}\n", plan.path, measured.figures.statuses));
    }
    Ok(Some(measured))
}

/// Many targets in one request.
fn batch(address: &str, application: &str, targets: usize) -> Plan {
    Plan {
        address: address.to_owned(),
        path: "/v1/notifications".into(),
        content_type: JSON.into(),
        body: format!(
            r#"{{"application_id":"{application}-000000","notification":{{"title":"Order","body":"On its way"}},"targets":[{{tokens}}]}}"#
        ),
        accepted: DELIVERED.into(),
        targets,
        applications: 1,
        connections: 8,
        manner: Manner::Closed,
        seconds: 5.0,
    }
}
