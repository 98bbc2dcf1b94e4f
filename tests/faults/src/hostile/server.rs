//! The server: this program again, started as `serve`, with default settings but for what leads it to the peers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rcgen::KeyPair;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::push_service::{Manner, PushService};
use crate::peer::{Certificate, Failure};

const ADMIN: &str = "the-operators-own-key";
const LONGEST_START: Duration = Duration::from_secs(60);
/// Longer than the server takes for anything that it does in the end.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);
const LISTENING: &str = "is listening on http://";

/// A running server. It is killed when this is dropped.
pub struct Server {
    child: Mutex<Child>,
    process: u32,
    pub address: SocketAddr,
    client: Client,
    directory: PathBuf,
}

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// Of it: what the process wrote itself, on the heap and elsewhere.
    pub anonymous: u64,
    /// Of it: pages of files, most of all of the program.
    pub file: u64,
    /// The most that was resident so far.
    pub peak: u64,
}

impl Server {
    /// `apns`: where Apple's servers are. `services`: where the components of the tenants with these names send to.
    pub async fn start(
        certificate: &Certificate,
        apns: SocketAddr,
        services: &PushService,
    ) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("pushlet-hostile-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&directory)?;
        let (roots, file) = (directory.join("roots.pem"), directory.join("pushlet.toml"));
        std::fs::write(&roots, &certificate.authority)?;
        let endpoint = |name: &str, url: String| {
            format!("endpoints.{name:?} = {{ production = {url:?}, development = {url:?} }}\n")
        };
        let mut toml = format!(
            "listen = \"127.0.0.1:0\"\nadmin.key = {ADMIN:?}\ntls.extra_roots = [{:?}]\n{}",
            roots.display().to_string(),
            endpoint("apns", format!("https://{apns}")),
        );
        for manner in Manner::ALL {
            toml += &endpoint(&format!("{}/webhook", manner.tenant()), services.url(manner));
        }
        std::fs::write(&file, toml)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(&file).env_clear();
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let process = child.id().ok_or("the server ended")?;
        let log = BufReader::new(child.stderr.take().ok_or("the server has no log")?);
        let address = tokio::time::timeout(LONGEST_START, listening(log)).await??;
        // A second user of the library in this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { child: Mutex::new(child), process, address, client: client()?, directory })
    }

    pub fn is_alive(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// Its memory now (proc(5), `/proc/pid/status`).
    pub fn memory(&self) -> Result<Memory, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let field = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.ok_or("the server ended")?.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
            file: field("RssFile:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// What its accounts say that it keeps, as its metrics have it: to find whose memory does not return.
    pub async fn accounts(&self) -> Result<String, Failure> {
        let text = self.operate(Method::GET, "/metrics").send().await?.text().await?;
        let kept = text.lines().filter(|line| {
            ["memory_bytes", "instances", "connections"].iter().any(|name| line.contains(name))
                && !line.starts_with('#')
                && !line.ends_with(" 0.0")
        });
        Ok(kept.map(|line| format!("  {line}\n")).collect())
    }

    /// A request of the operator.
    pub fn operate(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(&self.client, method, path, ADMIN)
    }

    /// A request with an API key on the connections of some client.
    pub fn request(&self, client: &Client, method: Method, path: &str, api_key: &str) -> RequestBuilder {
        client.request(method, format!("http://{}{path}", self.address)).bearer_auth(api_key)
    }

    /// Creates a tenant; returns its API key.
    pub async fn make_tenant(&self, id: &str) -> Result<String, Failure> {
        let request = self.operate(Method::PUT, &format!("/v1/tenants/{id}")).json(&json!({}));
        let made: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(made["api_key"].as_str().ok_or("no API key")?.to_owned())
    }
}

/// The body of a request that registers an APNs application with a new provider token key.
pub fn apns_application() -> Result<Value, Failure> {
    Ok(json!({
        "provider": "apns",
        "credentials": {"apns_p8": KeyPair::generate()?.serialize_pem()},
        "settings": {"apns_key_id": "ABCDE12345", "apns_team_id": "TEAM123456", "apns_topic": "com.example.app"},
    }))
}

/// A client with connections of its own.
pub fn client() -> Result<Client, Failure> {
    Ok(Client::builder().no_proxy().timeout(LONGEST_REQUEST).build()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, anonymous, file, peak: _ } = self;
        write!(f, "{resident} KiB (anonymous {anonymous}, files {file})")
    }
}

/// Reads the log until the server listens, and goes on reading it.
async fn listening(
    log: BufReader<impl tokio::io::AsyncRead + Unpin + Send + 'static>,
) -> Result<SocketAddr, Failure> {
    let mut lines = log.lines();
    let mut seen = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, address)) = line.split_once(LISTENING) {
            let address = address.trim_end_matches(|c: char| !c.is_ascii_digit()).parse()?;
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    Err(format!("the server ended: {seen}").into())
}
