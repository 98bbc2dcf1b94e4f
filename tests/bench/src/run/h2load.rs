//! The sink's own ceiling, as another project's load generator finds it.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::bench::Bench;
use crate::failure::{Failure, at};
use crate::process::{children_cpu, which};

/// How to get it.
pub const INSTALL: &str = "h2load is not installed (Debian: apt-get install nghttp2-client); \
                           the sink's ceiling is not measured";

/// What it reached.
pub struct Ceiling {
    pub connections: u32,
    pub requests_per_second: f64,
    /// Of h2load itself, microseconds per request.
    pub cpu: f64,
    pub sink_cpu: f64,
}

impl Ceiling {
    /// For the report.
    pub fn said(&self) -> String {
        format!(
            "The sink alone, by h2load on {} connections: {:.0} requests/s; per request {:.1} µs of h2load's \
             processor time and {:.1} µs of the sink's.\n",
            self.connections, self.requests_per_second, self.cpu, self.sink_cpu
        )
    }
}

/// The same requests as the gateway sends; the best number of connections. None without h2load.
pub fn ceiling(bench: &Bench, requests: u32) -> Result<Option<Ceiling>, Failure> {
    if which("h2load").is_none() {
        return Ok(None);
    }
    let mut best: Option<Ceiling> = None;
    for connections in [1, 4] {
        let found = reached(bench, requests, connections)?;
        if best.as_ref().is_none_or(|best| found.requests_per_second > best.requests_per_second) {
            best = Some(found);
        }
    }
    Ok(best)
}

fn reached(bench: &Bench, requests: u32, connections: u32) -> Result<Ceiling, Failure> {
    let body = bench.directory().join("body.json");
    std::fs::write(&body, r#"{"aps":{"alert":"Your order is on its way","badge":1}}"#)
        .map_err(at("h2load"))?;
    let mut command = Command::new("h2load");
    command.args(["-n", &requests.to_string(), "-c", &connections.to_string(), "-m", "500", "-d"]).arg(&body);
    for header in [
        "apns-topic: com.example.bench",
        "apns-push-type: alert",
        "apns-id: ec1bf194-b3b2-424a-89a9-5a918a6e6b5d",
    ] {
        command.args(["-H", header]);
    }
    let (children, sink) = (children_cpu(), bench.sink().cpu());
    command.arg(format!("https://127.0.0.1:{}/3/device/{}", bench.ports().apns, "f".repeat(64)));
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(at("h2load"))?;
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains(&format!(" {requests} succeeded")) {
        return Err(Failure::new(format!("h2load: {text}")));
    }
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6 / f64::from(requests);
    Ok(Ceiling {
        connections,
        requests_per_second: f64::from(requests) / seconds,
        cpu: micros(children_cpu() - children),
        sink_cpu: micros(bench.sink().cpu() - sink),
    })
}
