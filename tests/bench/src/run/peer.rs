//! Other push servers against the same sink, each described by a small file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::Pace;
use super::bench::{Bench, load, measure};
use super::table::{self, Row};
use crate::failure::{Failure, at};
use crate::gateway::Programs;
use crate::load::Plan;
use crate::process::{Process, free_port};
use crate::say;

/// The seconds that a peer may take to listen.
const START: u32 = 30;

/// An adapter file. In every text these are replaced: `{port}` where the peer shall listen, `{apns}` and
/// `{fcm}` the sink's ports, `{ca}`, `{apns_p8}`, `{apns_pem}` and `{service_account}` files, `{adapters}` the
/// adapter's own folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adapter {
    name: String,
    /// Program and arguments. The process's own processor time is measured, so no wrapper that forks.
    command: Vec<String>,
    /// A file that the peer reads, written before it starts; its path is `{config}`.
    #[serde(default)]
    config: String,
    path: String,
    content_type: String,
    /// With `{token}` where a device token belongs, or `{tokens}` for a list of `targets` of them.
    body: String,
    #[serde(default = "one")]
    targets: usize,
    /// At once.
    #[serde(default = "classic")]
    connections: usize,
    /// How often this is in an answer, so many pushes were accepted.
    accepted: String,
    /// Seconds of load before it is measured, for what compiles itself meanwhile.
    #[serde(default)]
    warm_up: f64,
}

fn one() -> usize {
    1
}

/// As many as the classic route is measured with.
fn classic() -> usize {
    32
}

/// Starts the peer, measures it as the routes are measured, prints its line.
pub fn peer(path: &Path, pace: Pace) -> Result<(), Failure> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(at(&place))?;
    let adapter: Adapter = toml::from_str(&text).map_err(at(&place))?;
    let bench = Bench::start(&Programs::none(), 0)?;
    let port = free_port()?;
    let config = bench.directory().join("peer.conf");
    let folder = path.parent().unwrap_or(Path::new("")).display().to_string();
    let filled = |text: &str| filled(text, &bench, port, &config).replace("{adapters}", &folder);
    std::fs::write(&config, filled(&adapter.config)).map_err(at("configuration"))?;
    let mut words = adapter.command.iter().map(|word| filled(word));
    let mut command = Command::new(words.next().ok_or_else(|| Failure::new("the command is empty"))?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::start(&mut command)?;
    let address = format!("127.0.0.1:{port}");
    for _ in 0..START * 10 {
        if std::net::TcpStream::connect(&address).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let plan = Plan {
        address,
        path: adapter.path,
        content_type: adapter.content_type,
        body: filled(&adapter.body),
        accepted: adapter.accepted,
        targets: adapter.targets,
        connections: adapter.connections,
        seconds: pace.seconds,
        ..Plan::default()
    };
    if adapter.warm_up > 0.0 {
        load(&Plan { seconds: adapter.warm_up, ..plan.clone() })?;
    }
    let measured = measure(&bench, &process, &plan)?;
    if measured.figures.pushes == 0 {
        let figures = &measured.figures;
        return Err(Failure::new(format!("{place}: {:?} {:?}", figures.statuses, figures.complaint)));
    }
    say(&table::table(&[Row { what: adapter.name, mode: "peer", measured, allocations: None }], None));
    Ok(())
}

fn filled(text: &str, bench: &Bench, port: u16, config: &Path) -> String {
    let (files, ports) = (bench.files(), bench.ports());
    text.replace("{port}", &port.to_string())
        .replace("{apns}", &ports.apns.to_string())
        .replace("{fcm}", &ports.fcm.to_string())
        .replace("{ca}", &files.ca.display().to_string())
        .replace("{apns_p8}", &files.apns_p8.display().to_string())
        .replace("{apns_pem}", &files.apns_pem.display().to_string())
        .replace("{service_account}", &files.service_account.display().to_string())
        .replace("{config}", &config.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_adapters_can_be_read() {
        for name in ["go_net_http", "gorush", "java_netty", "java_netty_batch", "matrix", "node_apn"] {
            let file =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters").join(name).with_extension("toml");
            let adapter: Adapter = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            assert!(adapter.body.contains("{token") && adapter.path.starts_with('/'), "{name}");
        }
    }
}
