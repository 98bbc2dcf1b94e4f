//! The bare relay as a process, to measure beside gateways.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::bench::Bench;
use crate::failure::Failure;
use crate::process::{Process, free_port, myself};
use crate::relay::Options;

const LONGEST_START: Duration = Duration::from_secs(10);

/// It listens, and ends with this value.
pub struct Relay {
    pub process: Process,
    /// `host:port`
    pub address: String,
}

impl Relay {
    /// `sharded`: one runtime for each processor in place of one for all.
    pub fn start(bench: &Bench, sharded: bool) -> Result<Self, Failure> {
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let address = listen.to_string();
        let (apns, ca) = (bench.ports().apns, bench.files().ca.clone());
        let options = Options { listen, apns, ca, sharded };
        let process = Process::start(&mut myself("relay", &options)?)?;
        let start = Instant::now();
        while TcpStream::connect(&address).is_err() {
            if start.elapsed() > LONGEST_START {
                return Err(Failure::new(format!("the relay does not listen on {address}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, address })
    }
}
