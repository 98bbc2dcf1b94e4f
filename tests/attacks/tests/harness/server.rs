//! The server as a process of its own: its address, its log, its memory.

use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pushlet_test_support::http_client;

use super::{Directory, wait_for};

/// The program under attack.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pushlet-attacks");
/// How long the server may take until it listens.
const LONGEST_START: Duration = Duration::from_secs(60);

/// A running `serve`. It is killed when this is dropped.
pub struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    pub address: SocketAddr,
    pub client: reqwest::Client,
}

/// Bytes that were resident when a measurement began.
pub struct MemoryBefore {
    resident: u64,
    file: u64,
}

impl Server {
    /// `toml`: its configuration. Without `listen` it is reached from this machine only.
    pub async fn start(toml: &str, directory: &Directory) -> Self {
        Self::start_with(toml, directory, &[]).await
    }

    /// The same with `environment`: all of its variables.
    pub async fn start_with(toml: &str, directory: &Directory, environment: &[(&str, &Path)]) -> Self {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts");
        let is_public = toml.lines().any(|line| line.starts_with("listen"));
        let listen = if is_public { "" } else { "listen = \"127.0.0.1:0\"\n" };
        let own = format!("{listen}{toml}\n");
        let cached = format!("providers.cache_dir = {cache:?}\n");
        let file = directory.path().join("pushlet.toml");
        let toml = if own.contains("cache_dir") { own } else { own + &cached };
        std::fs::write(&file, toml).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--config").arg(&file).env_clear();
        command.envs(environment.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = collect(BufReader::new(child.stderr.take().unwrap()));
        let address = tokio::time::timeout(LONGEST_START, listening(&mut child, &log)).await;
        let address = address.unwrap_or_else(|_| panic!("it does not listen: {}", log.lock().unwrap()));
        Self { child, log, address, client: http_client() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The most bytes that were resident since it started, or since [`Server::watch_memory`].
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Starts a measurement of its memory (proc(5), clear_refs).
    pub fn watch_memory(&self) -> MemoryBefore {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        MemoryBefore { resident: self.memory("VmRSS:"), file: self.memory("RssFile:") }
    }

    /// The most bytes that it took since then. Pages of its program, which are mapped when they are first used, do not
    /// count.
    pub fn growth_since(&self, before: &MemoryBefore) -> u64 {
        let file = self.memory("RssFile:").saturating_sub(before.file);
        self.peak_resident().saturating_sub(before.resident + file)
    }

    /// Kills the process, and waits until it is gone.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Checks that the process lives.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log());
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.unwrap_or_else(|| panic!("the server ended: {}", self.log()));
        kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stderr: impl std::io::BufRead + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::<Mutex<String>>::default();
    let lines = log.clone();
    std::thread::spawn(move || {
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let mut log = lines.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
    log
}

async fn listening(child: &mut Child, log: &Mutex<String>) -> SocketAddr {
    let address: SocketAddr = wait_for("the server listens", async || {
        let text = log.lock().unwrap().clone();
        assert!(child.try_wait().unwrap().is_none(), "it ended: {text}");
        let (_, rest) = text.split_once("is listening on http://")?;
        let end = rest.find(|c: char| c == '"' || c.is_whitespace())?;
        Some(rest[..end].parse().unwrap())
    })
    .await;
    let ip = address.ip();
    let reached = if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
    SocketAddr::new(reached, address.port())
}
