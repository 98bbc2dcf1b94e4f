//! The release binary as a child process, and its API as far as the measurements need it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::credentials::{Files, TOPIC};
use crate::failure::{Failure, at};
use crate::load::DIGITS;
use crate::process::{Process, free_port};
use crate::sink::Ports;

/// How long a gateway may take to become ready.
const START: Duration = Duration::from_secs(60);

/// What differs between measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Warm,
    PerCall,
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    address: String,
    ready: Duration,
}

/// Whose credential an application has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    ApnsToken,
    ApnsCertificate,
    Fcm,
    Gcm,
}

impl Gateway {
    /// Starts it and waits until it is ready. `wrapper`: a program that runs it.
    pub fn start(
        binary: &Path,
        directory: &Path,
        files: &Files,
        ports: &Ports,
        isolation: Isolation,
        wrapper: &[String],
    ) -> Result<Self, Failure> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = directory.join("pushlet.toml");
        fs::write(&config, configuration(&address, files, ports, isolation, wrapper))
            .map_err(at("configuration"))?;
        let log = File::create(directory.join("pushlet.log")).map_err(at("log"))?;
        let mut words = wrapper.iter().map(PathBuf::from).chain([binary.to_owned()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let start = Instant::now();
        let mut gateway = Self { process: Process::start(&mut command)?, address, ready: Duration::ZERO };
        while !gateway.is_ready() {
            let ended = gateway.process.child().try_wait().map_err(at("gateway"))?;
            if ended.is_some() || start.elapsed() > START {
                let log = fs::read_to_string(directory.join("pushlet.log")).unwrap_or_default();
                return Err(Failure::new(format!("the gateway did not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        gateway.ready = start.elapsed();
        Ok(gateway)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From the start of the process to the first good answer of `/readyz`.
    pub fn time_to_ready(&self) -> Duration {
        self.ready
    }

    /// Registers `name-000000` and the following ones.
    pub fn register(&self, name: &str, count: u64, service: Service, files: &Files) -> Result<(), Failure> {
        let read = |path: &PathBuf| fs::read_to_string(path).map_err(at("credential"));
        let fields: Vec<(&str, String)> = match service {
            Service::ApnsToken => vec![
                ("apns_p8", read(&files.apns_p8)?),
                ("apns_key_id", "ABC123DEFG".into()),
                ("apns_team_id", "DEF123GHIJ".into()),
                ("apns_topic", TOPIC.into()),
            ],
            Service::ApnsCertificate => vec![("apns_pem", read(&files.apns_pem)?)],
            Service::Fcm => vec![("fcm_service_account", read(&files.service_account)?)],
            Service::Gcm => vec![("gcm_api_key", "AIzaBench".into())],
        };
        for number in 0..count {
            let mut object: serde_json::Map<_, _> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
            object.insert("application_id".into(), format!("{name}-{number:0DIGITS$}").into());
            let body = serde_json::Value::Object(object).to_string();
            let answer =
                request(&self.address, "POST", "/register_application", &body).map_err(at("registration"))?;
            if !answer.starts_with("HTTP/1.1 200") {
                return Err(Failure::new(format!("registration: {answer}")));
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        request(&self.address, "GET", "/readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

/// One request over a connection of its own; the whole answer as text.
fn request(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The defaults but for what the measurement needs.
fn configuration(
    address: &str,
    files: &Files,
    ports: &Ports,
    isolation: Isolation,
    wrapper: &[String],
) -> String {
    let isolation = match isolation {
        Isolation::Warm => "warm",
        Isolation::PerCall => "per-call",
    };
    let mut text = format!(
        "listen = \"{address}\"\n[tls]\nextra_roots = [{:?}]\n[limits]\nconnections = 12000\n[sandbox]\nisolation = \"{isolation}\"\n",
        files.ca
    );
    if !wrapper.is_empty() {
        // A checker has little address space, and its slowness is not the provider's.
        text.push_str("instances = 4\ncall_timeout = \"60s\"\n[delivery]\ndeadline = \"60s\"\n");
    }
    for (provider, port) in [("apns", ports.apns), ("fcm", ports.fcm), ("gcm", ports.gcm)] {
        let url = format!("https://127.0.0.1:{port}");
        let _ = write!(text, "[endpoints.{provider}]\nproduction = \"{url}\"\ndevelopment = \"{url}\"\n");
    }
    text
}
