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
use crate::linked::{Mode, NATIVELY, SANDBOXED};
use crate::load::DIGITS;
use crate::process::{Process, free_port};
use crate::sink::Ports;

const JSON: &str = "application/json";
/// How long a gateway may take to become ready, and to answer.
const START: Duration = Duration::from_secs(60);

/// Programs that the harness does not contain.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The product.
    pub gateway: PathBuf,
    /// `pushlet-linked`.
    pub linked: PathBuf,
}

impl Programs {
    /// Where only the sink is wanted.
    pub fn none() -> Self {
        Self { gateway: PathBuf::new(), linked: PathBuf::new() }
    }
}

/// Which program runs, and with what settings.
#[derive(Debug, Clone)]
pub struct Setup {
    pub mode: Mode,
    /// The gateway in `pushlet-linked`: the only one that can run natively, and the one to compare that with.
    pub linked: bool,
    /// A program that runs it.
    pub wrapper: Vec<String>,
    /// Lines of configuration.
    pub more: String,
}

impl Setup {
    /// The product, where it can.
    pub fn of(mode: Mode) -> Self {
        Self { mode, linked: mode == Mode::Native, wrapper: Vec::new(), more: String::new() }
    }
}

/// Where a gateway has its files, and where it sends.
pub struct Place<'a> {
    pub programs: &'a Programs,
    /// Of this gateway alone.
    pub directory: &'a Path,
    /// Of all that run here: what was compiled.
    pub cache: &'a Path,
    pub files: &'a Files,
    pub ports: &'a Ports,
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
    WebPush,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    pub fn start(place: &Place<'_>, setup: &Setup) -> Result<Self, Failure> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = place.directory.join("pushlet.toml");
        fs::write(&config, configuration(&address, place, setup)).map_err(at("configuration"))?;
        let log_file = place.directory.join("pushlet.log");
        let log = File::create(&log_file).map_err(at("log"))?;
        let mut words = setup.wrapper.iter().map(PathBuf::from).chain(program(place.programs, setup));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let start = Instant::now();
        let mut gateway = Self { process: Process::start(&mut command)?, address, ready: Duration::ZERO };
        while !gateway.is_ready() {
            let ended = gateway.process.child().try_wait().map_err(at("gateway"))?;
            if ended.is_some() || start.elapsed() > START {
                let log = fs::read_to_string(&log_file).unwrap_or_default();
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

    /// To be asked what it uses.
    pub fn server(&self) -> &Process {
        &self.process
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

    /// Registers `name-000000` and the following ones, for whom the API key belongs to.
    pub fn register(
        &self,
        name: &str,
        count: u64,
        service: Service,
        files: &Files,
        key: Option<&str>,
    ) -> Result<(), Failure> {
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
            // A P-256 key is one for Web Push, too.
            Service::WebPush => vec![
                ("vapid_private_key", read(&files.apns_p8)?),
                ("vapid_subject", "mailto:push@example.com".into()),
            ],
        };
        for number in 0..count {
            let mut object: serde_json::Map<_, _> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
            object.insert("application_id".into(), format!("{name}-{number:0DIGITS$}").into());
            let body = serde_json::Value::Object(object).to_string();
            self.call("POST /register_application", key, JSON, body.as_bytes())?;
        }
        Ok(())
    }

    /// One request that must succeed; the answer as text. `what`: method and path.
    pub fn call(
        &self,
        what: &str,
        key: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> Result<String, Failure> {
        let answer = request(&self.address, what, key, content_type, body).map_err(at(what))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 20") => Ok(body.to_owned()),
            _ => Err(Failure::new(format!("{what}: {answer}"))),
        }
    }

    fn is_ready(&self) -> bool {
        let answer = request(&self.address, "GET /readyz", None, JSON, b"");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

/// One request over a connection of its own; the whole answer as text.
fn request(
    address: &str,
    what: &str,
    key: Option<&str>,
    content_type: &str,
    body: &[u8],
) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START))?;
    let credential = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{credential}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The program and its first arguments.
fn program(programs: &Programs, setup: &Setup) -> Vec<PathBuf> {
    if !setup.linked {
        return vec![programs.gateway.clone()];
    }
    let how = if setup.mode == Mode::Native { NATIVELY } else { SANDBOXED };
    vec![programs.linked.clone(), "gateway".into(), how.into()]
}

/// The defaults but for what the measurement needs.
fn configuration(address: &str, place: &Place<'_>, setup: &Setup) -> String {
    let isolation = match setup.mode {
        Mode::Native | Mode::Warm => "warm",
        Mode::PerCall => "per-call",
    };
    let (ca, cache) = (&place.files.ca, place.cache);
    let mut text = format!(
        "listen = \"{address}\"\ntls.extra_roots = [{ca:?}]\nlimits.connections = 12000\nsandbox.isolation = \"{isolation}\"\nproviders.cache_dir = {cache:?}\n"
    );
    if !setup.wrapper.is_empty() {
        // A checker has little address space, and its slowness is not the provider's.
        text.push_str("sandbox.instances = 4\nsandbox.call_timeout = \"60s\"\ndelivery.deadline = \"60s\"\n");
    }
    let ports = place.ports;
    // FCM has no application in development here: what is named is its token server, so that it may have a private
    // address.
    let servers = [
        ("apns", ports.apns, ports.apns),
        ("fcm", ports.fcm, ports.oauth),
        ("gcm", ports.gcm, ports.gcm),
        ("webpush", ports.web_push, ports.web_push),
    ];
    for (provider, production, development) in servers {
        let url = |port| format!("https://127.0.0.1:{port}");
        let (production, development) = (url(production), url(development));
        let _ = writeln!(
            text,
            "endpoints.{provider} = {{ production = \"{production}\", development = \"{development}\" }}"
        );
    }
    text + &setup.more
}
