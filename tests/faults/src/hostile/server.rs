//! The server: this program again, started as `serve`, with default settings but for what leads it to the peer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rcgen::KeyPair;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::peer::{Certificate, Failure};

const ADMIN: &str = "the-operators-own-key";
const LONGEST_START: Duration = Duration::from_secs(60);
const LISTENING: &str = "is listening on http://";

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    client: reqwest::Client,
    directory: PathBuf,
}

impl Server {
    /// `apns`: where Apple's servers are.
    pub async fn start(certificate: &Certificate, apns: SocketAddr) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("pushlet-hostile-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&directory)?;
        let (roots, file) = (directory.join("roots.pem"), directory.join("pushlet.toml"));
        std::fs::write(&roots, &certificate.authority)?;
        let toml = format!(
            "listen = \"127.0.0.1:0\"\nadmin.key = {ADMIN:?}\ntls.extra_roots = [{:?}]\n\
             endpoints.apns = {{ production = \"https://{apns}\", development = \"https://{apns}\" }}\n",
            roots.display().to_string(),
        );
        std::fs::write(&file, toml)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env_clear()
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = BufReader::new(child.stderr.take().ok_or("the server has no log")?);
        let address = tokio::time::timeout(LONGEST_START, listening(log)).await??;
        // A second user of the library in this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, address, client, directory })
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory now, in KiB.
    pub fn resident(&self) -> Result<u64, Failure> {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    pub fn peak(&self) -> Result<u64, Failure> {
        self.memory("VmHWM:")
    }

    /// proc(5), `/proc/pid/status`.
    fn memory(&self, field: &str) -> Result<u64, Failure> {
        let process = self.child.id().ok_or("the server ended")?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no memory is told")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    pub fn request(&self, method: Method, path: &str, api_key: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(api_key)
    }

    pub fn post(&self, path: &str, api_key: &str) -> RequestBuilder {
        self.request(Method::POST, path, api_key)
    }

    /// Creates a tenant; returns its API key.
    pub async fn make_tenant(&self, id: &str) -> Result<String, Failure> {
        let request = self.request(Method::PUT, &format!("/v1/tenants/{id}"), ADMIN).json(&json!({}));
        let made: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(made["api_key"].as_str().ok_or("no API key")?.to_owned())
    }

    /// Registers an APNs application with a new provider token key.
    pub async fn register_apns(&self, api_key: &str, id: &str) -> Result<(), Failure> {
        let request = self.application(api_key, id)?;
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// The request that registers an APNs application with a new provider token key.
    pub fn application(&self, api_key: &str, id: &str) -> Result<RequestBuilder, Failure> {
        let body = json!({
            "provider": "apns",
            "credentials": {"apns_p8": KeyPair::generate()?.serialize_pem()},
            "settings": {"apns_key_id": "ABCDE12345", "apns_team_id": "TEAM123456", "apns_topic": "com.example.app"},
        });
        Ok(self.request(Method::PUT, &format!("/v1/applications/{id}"), api_key).json(&body))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
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
