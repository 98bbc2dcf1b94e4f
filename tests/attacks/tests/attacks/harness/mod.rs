//! One server process, its simulated push services, and the two tenants: an attacker and a neighbour.

mod neighbour;
mod server;

use std::path::{Path, PathBuf};

use pushlet_simulator::{Options, Simulator};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

pub use neighbour::Neighbour;
pub use server::Server;

/// The operator's API key.
pub const ADMIN: &str = "the-operators-own-key";
/// A device token that no rule of the simulator applies to.
pub const DEVICE: &str = "00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9";

/// The tests measure, so they run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A server under attack. Everything ends when this is dropped.
pub struct Harness {
    pub server: Server,
    pub simulator: Simulator,
    /// The API key of the tenant `attacker`.
    pub attacker: String,
    pub neighbour: Neighbour,
    pub directory: Directory,
    _alone: MutexGuard<'static, ()>,
}

impl Harness {
    /// `settings`: further lines of configuration, in TOML. Everything else has its default.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, &[]).await
    }

    /// The same with variables in the server's environment, which is empty otherwise.
    pub async fn start_with(settings: &str, environment: &[(&str, &Path)]) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let toml = format!("admin.key = {ADMIN:?}\n{}{settings}\n", pointing_at(&simulator));
        let server = Server::start_with(&toml, &directory, environment).await;
        let attacker = make_tenant(&server, "attacker").await;
        let neighbour = Neighbour::new(&server, &simulator, make_tenant(&server, "neighbour").await).await;
        Self { server, simulator, attacker, neighbour, directory, _alone: alone }
    }

    /// A request of the attacker.
    pub fn attack(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.server.client.request(method, self.server.url(path)).bearer_auth(&self.attacker)
    }

    /// Registers an APNs application with the simulator's provider token key, for whoever has the API key.
    pub async fn register_apns(&self, api_key: &str, id: &str) {
        register_apns(&self.server, &self.simulator, api_key, id).await;
    }
}

/// A configuration that leads every built-in provider to the simulator.
pub fn pointing_at(simulator: &Simulator) -> String {
    let (apns, google) = (simulator.apns_url(), simulator.google_url());
    let ca = simulator.credentials().ca_pem.display().to_string();
    let both = |name: &str, url: &str| {
        format!("endpoints.{name} = {{ production = {url:?}, development = {url:?} }}\n")
    };
    both("apns", &apns)
        + &both("fcm", &google)
        + &both("gcm", &google)
        + &format!("tls.extra_roots = [{ca:?}]\n")
}

async fn make_tenant(server: &Server, id: &str) -> String {
    let request = server.client.put(server.url(&format!("/v1/tenants/{id}"))).bearer_auth(ADMIN);
    let made = expect(request.json(&json!({})), 201).await;
    made["api_key"].as_str().unwrap().to_owned()
}

async fn register_apns(server: &Server, simulator: &Simulator, api_key: &str, id: &str) {
    let files = simulator.credentials();
    let key = std::fs::read_to_string(&files.apns_p8).unwrap();
    let body = json!({
        "provider": "apns",
        "credentials": {"apns_p8": key},
        "settings": {
            "apns_key_id": files.apns_key_id,
            "apns_team_id": files.apns_team_id,
            "apns_topic": files.apns_topic,
        },
    });
    let request = server.client.put(server.url(&format!("/v1/applications/{id}"))).bearer_auth(api_key);
    expect(request.json(&body), 200).await;
}

/// A hostile component of `tests/guests`, by the name of its example.
pub fn component(name: &str) -> &'static [u8] {
    const GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));
    GUESTS.iter().find(|(guest, _)| *guest == name).unwrap_or_else(|| panic!("no guest {name}")).1
}

/// Sends, and checks the status; returns the body.
pub async fn expect(request: RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    let (actual, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(actual, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
}

/// Sends, and checks status and error code; returns the whole body.
pub async fn expect_error(request: RequestBuilder, status: u16, code: &str) -> Value {
    let body = expect(request, status).await;
    assert_eq!(body["error"], code, "{body}");
    body
}

/// A folder of its own, removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("pushlet-attacks-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
