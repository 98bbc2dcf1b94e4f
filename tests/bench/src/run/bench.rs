//! What every measurement stands on: a sink, credentials, gateways, and loads in processes of their own.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::credentials::{self, Files};
use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Place, Programs, Setup};
use crate::load::{Figures, Manner, Plan};
use crate::process::{Process, WakeCounter, free_port, myself};
use crate::sink::{self, Ports};

/// Streams that the sink allows on a connection: what Apple allows.
const STREAMS: u32 = 1000;
const FORM: &str = "application/x-www-form-urlencoded";

/// Sink and credentials; ends with this value.
pub struct Bench {
    programs: Programs,
    directory: PathBuf,
    files: Files,
    ports: Ports,
    sink: Process,
}

impl Bench {
    /// `latency`: milliseconds that the sink waits before each answer.
    pub fn start(programs: &Programs, latency: u64) -> Result<Self, Failure> {
        let directory = directory("run")?;
        let oauth_port = free_port()?;
        let files = credentials::make(&directory, oauth_port)?;
        let options = sink::Options {
            ca: files.ca.clone(),
            certificate: files.server_certificate.clone(),
            key: files.server_key.clone(),
            latency,
            streams: STREAMS,
            oauth_port,
        };
        let mut sink = Process::start(&mut myself("sink", &options)?)?;
        let output = sink.child().stdout.take().ok_or_else(|| Failure::new("the sink says nothing"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(at("sink"))?;
        let ports = serde_json::from_str(&line).map_err(at("sink"))?;
        Ok(Self { programs: programs.clone(), directory, files, ports, sink })
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub fn sink(&self) -> &Process {
        &self.sink
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes the components that gateways have compiled.
    pub fn forget_compiled(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(self.compiled()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("artefacts")(error)),
            _ => Ok(()),
        }
    }

    fn compiled(&self) -> PathBuf {
        self.directory.join("artefacts")
    }

    /// A gateway that sends to the sink.
    pub fn gateway(&self, setup: &Setup) -> Result<Gateway, Failure> {
        let place = Place {
            programs: &self.programs,
            directory: &within(&self.directory, "gateway")?,
            cache: &self.compiled(),
            files: &self.files,
            ports: &self.ports,
        };
        Gateway::start(&place, setup)
    }

    /// One push per request, as the classic route takes them.
    pub fn classic(&self, address: &str, application: &str) -> Plan {
        Plan {
            address: address.to_owned(),
            path: "/send_notification".into(),
            content_type: FORM.into(),
            body: format!(
                "application_id={application}-{{application}}&device_token={{token}}&alert=Your+order+is+on+its+way&badge=1"
            ),
            accepted: r#""ok""#.into(),
            connections: 32,
            ..Plan::default()
        }
    }

    /// One request whose lines are targets; how many is for the caller to say.
    pub fn stream(&self, address: &str, application: &str) -> Plan {
        Plan {
            path: "/v1/notifications:stream".into(),
            content_type: "application/x-ndjson".into(),
            body: format!(
                r#"{{"application_id":"{application}-000000","notification":{{"title":"Order","body":"On its way"}}}}"#
            ),
            accepted: DELIVERED.into(),
            ..self.classic(address, application)
        }
    }
}

/// How `/v1` tells that a push was accepted.
pub const DELIVERED: &str = r#""status":"delivered""#;

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// An empty directory of this process.
pub fn directory(name: &str) -> Result<PathBuf, Failure> {
    within(&std::env::temp_dir(), &format!("pushlet-bench-{}-{name}", std::process::id()))
}

fn within(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let directory = parent.join(format!("{name}-{count}"));
    std::fs::create_dir_all(&directory).map_err(at("directory"))?;
    Ok(directory)
}

/// Carries out a plan in a process of its own.
pub fn load(plan: &Plan) -> Result<Figures, Failure> {
    let mut command = myself("load", plan)?;
    command.stdin(Stdio::null());
    let output = command.output().map_err(at("load"))?;
    serde_json::from_slice(&output.stdout).map_err(at("load"))
}

/// What a process and the sink used while a plan was carried out.
#[derive(Debug, Clone)]
pub struct Measured {
    pub figures: Figures,
    /// Microseconds per push.
    pub cpu: f64,
    pub sink_cpu: f64,
    /// KiB.
    pub resident: u64,
    /// Calls of futex(2) and context switches per push, if they were counted.
    pub wakes: Option<(f64, f64)>,
}

impl Measured {
    pub fn pushes_per_second(&self) -> f64 {
        self.figures.pushes as f64 / self.figures.seconds.max(1e-9)
    }

    /// The means of the turns, the middle one's times, the last one's memory.
    pub fn of_turns(turns: &[Self]) -> Self {
        let pushes = |turn: &Self| turn.figures.pushes as f64;
        let all = turns.iter().map(pushes).sum::<f64>().max(1.0);
        let mean =
            |cpu: fn(&Self) -> f64| turns.iter().map(|turn| cpu(turn) * pushes(turn)).sum::<f64>() / all;
        Self {
            cpu: mean(|turn| turn.cpu),
            sink_cpu: mean(|turn| turn.sink_cpu),
            resident: turns.last().map_or(0, |turn| turn.resident),
            wakes: turns.last().and_then(|turn| turn.wakes),
            figures: Figures::of_turns(turns.iter().map(|turn| &turn.figures)),
        }
    }
}

/// First a fifth of the time to warm up, then the plan.
pub fn measure(bench: &Bench, process: &Process, plan: &Plan) -> Result<Measured, Failure> {
    if !matches!(plan.manner, Manner::Stream(_)) {
        load(&Plan { seconds: plan.seconds / 5.0, ..plan.clone() })?;
    }
    let (before, sink_before) = (process.cpu(), bench.sink().cpu());
    let counter = WakeCounter::start(process);
    let figures = load(plan)?;
    let wakes = counter.stop();
    let pushes = figures.pushes.max(1) as f64;
    let wakes = wakes.map(|counts| (counts.futexes as f64 / pushes, counts.switches as f64 / pushes));
    let per_push = |time: Duration| time.as_secs_f64() * 1e6 / figures.pushes.max(1) as f64;
    let (cpu, sink_cpu) = (per_push(process.cpu() - before), per_push(bench.sink().cpu() - sink_before));
    Ok(Measured { cpu, sink_cpu, resident: process.resident(), wakes, figures })
}
