//! One server process, its simulated push services, and the two tenants: an attacker and a victim.

mod push_service;
mod server;
mod victim;

use std::path::{Path, PathBuf};

use pushlet_simulator::{Options, Simulator};
pub use pushlet_test_support::{Directory, wait_for, wait_until};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

pub use push_service::{Manner, PushService};
pub use server::{PROGRAM, Server};
pub use victim::Victim;

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
    pub victim: Victim,
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
        Self::configured(settings, environment, &[]).await
    }

    /// The same with a push service for the attacker's provider `webhook`.
    pub async fn start_with_service(service: &PushService, settings: &str) -> Self {
        let settings = format!("{}{settings}", service.settings());
        Self::configured(&settings, &[], &[service.ca()]).await
    }

    async fn configured(settings: &str, environment: &[(&str, &Path)], roots: &[PathBuf]) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let toml = format!("admin.key = {ADMIN:?}\n{}{settings}\n", pointing_at(&simulator, roots));
        let server = Server::start_with(&toml, &directory, environment).await;
        let attacker = make_tenant(&server, "attacker").await;
        let victim = Victim::new(&server, &simulator, make_tenant(&server, "victim").await).await;
        Self { server, simulator, attacker, victim, directory, _alone: alone }
    }

    /// A request of the attacker.
    pub fn attack(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.client.request(method, self.server.url(path)).bearer_auth(&self.attacker)
    }

    /// Registers an APNs application with the simulator's provider token key, for whoever has the API key.
    pub async fn register_apns(&self, api_key: &str, id: &str) {
        register_apns(&self.server, &self.simulator, api_key, id).await;
    }

    /// Uploads the attacker's provider `webhook`.
    pub async fn upload_webhook(&self) {
        let request = self.attack(Method::PUT, "/v1/providers/webhook");
        let request = request.header("content-type", "application/wasm");
        expect(request.body(component("webhook")), 200).await;
    }

    /// Registers an application of the attacker's provider `webhook`.
    pub async fn register_webhook(&self, id: &str, environment: &str) {
        let body = json!({
            "provider": "webhook",
            "environment": environment,
            "webhook_token": "hush",
            "webhook_channel": "news",
        });
        expect(self.attack(Method::PUT, &format!("/v1/applications/{id}")).json(&body), 200).await;
    }
}

/// A configuration that leads every built-in provider to the simulator. `roots`: files of authorities that push
/// services may have too.
pub fn pointing_at(simulator: &Simulator, roots: &[PathBuf]) -> String {
    let (apns, google) = (simulator.apns_url(), simulator.google_url());
    let roots: Vec<_> = [&simulator.credentials().ca_pem].into_iter().chain(roots).collect();
    let both = |name: &str, url: &str| {
        format!("endpoints.{name} = {{ production = {url:?}, development = {url:?} }}\n")
    };
    both("apns", &apns)
        + &both("fcm", &google)
        + &both("gcm", &google)
        + &format!("tls.extra_roots = {roots:?}\n")
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
    pushlet_attacks::component(name).unwrap_or_else(|| panic!("no guest {name}"))
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
