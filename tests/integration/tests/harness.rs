//! A server and the simulators it talks to, each on ports of their own.

use std::net::SocketAddr;
use std::path::Path;

use pushlet::server::Server;
use pushlet::{bootstrap, server};
use pushlet_api as http;
use pushlet_gateway::Gateway;
use pushlet_settings::{Config, ConfigLayers};
use pushlet_simulator::{Options, Received, Service, Simulator};
pub use pushlet_test_support::{Directory, LONGEST_WAIT, http_client, wait_for, wait_until};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A device token that no rule of the simulator applies to.
pub const DEVICE: &str = "00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9";

/// A running server with simulators. Everything ends when it is dropped.
pub struct Harness {
    pub simulator: Simulator,
    pub server: Pushlet,
    _directory: Directory,
}

/// The server alone.
pub struct Pushlet {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Harness {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// `settings`: more lines of configuration, in TOML.
    pub async fn with(settings: &str) -> Self {
        Self::configured(|simulator| pointing_at(simulator, settings)).await
    }

    /// `toml`: the whole configuration.
    pub async fn configured(toml: impl FnOnce(&Simulator) -> String) -> Self {
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let server = Pushlet::start(&toml(&simulator)).await;
        Self { simulator, server, _directory: directory }
    }

    /// A server that was started for simulators.
    pub fn of(simulator: Simulator, server: Pushlet, directory: Directory) -> Self {
        Self { simulator, server, _directory: directory }
    }

    /// What a service received, in order.
    pub fn received(&self, service: Service) -> Vec<Received> {
        self.simulator.received().into_iter().filter(|received| received.service == service).collect()
    }

    /// A file that the simulator wrote.
    pub fn file(&self, path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    /// Registers an APNs application with the simulator's certificate.
    pub async fn register_apns(&self, id: &str) {
        let files = self.simulator.credentials();
        let form = Form::new()
            .part("apns_p12", Part::bytes(self.file(&files.apns_p12)))
            .text("application_id", id.to_owned());
        expect(self.server.post("/register_application").multipart(form), 200).await;
    }

    /// Registers an APNs application with the simulator's provider token key.
    pub async fn register_apns_token(&self, id: &str) {
        let files = self.simulator.credentials();
        let form = Form::new()
            .part("apns_p8", Part::bytes(self.file(&files.apns_p8)))
            .text("apns_key_id", files.apns_key_id.clone())
            .text("apns_team_id", files.apns_team_id.clone())
            .text("apns_topic", files.apns_topic.clone())
            .text("application_id", id.to_owned());
        expect(self.server.post("/register_application").multipart(form), 200).await;
    }

    /// Registers an FCM application with the simulator's service account.
    pub async fn register_fcm(&self, id: &str) {
        let account = self.file(&self.simulator.credentials().fcm_service_account);
        let form = Form::new()
            .part("fcm_service_account", Part::bytes(account))
            .text("application_id", id.to_owned());
        expect(self.server.post("/register_application").multipart(form), 200).await;
    }
}

/// A configuration that sends everything to the simulator.
pub fn pointing_at(simulator: &Simulator, settings: &str) -> String {
    let (apns, google) = (simulator.apns_url(), simulator.google_url());
    let ca = simulator.credentials().ca_pem.display().to_string();
    let both = |name: &str, url: &str| {
        format!("endpoints.{name} = {{ production = {url:?}, development = {url:?} }}\n")
    };
    let others = ["fcm", "gcm", "hms", "webpush"].map(|name| both(name, &google)).concat();
    let endpoints = both("apns", &apns) + &others;
    format!("listen = \"127.0.0.1:0\"\n{endpoints}tls.extra_roots = [{ca:?}]\n{settings}")
}

impl Pushlet {
    pub async fn start(toml: &str) -> Self {
        let config = config(toml);
        let gateway = bootstrap::gateway(&config).unwrap();
        Self::serve(&config, gateway).await
    }

    /// A server in front of a gateway that is there already.
    pub async fn serve(config: &Config, gateway: Gateway) -> Self {
        let callers = config.callers().unwrap();
        let tls = server::acceptor(&config.tls).unwrap();
        let observability = http::Observability::new(None, false);
        let (router, in_flight) = http::router(gateway, &config.limits, &callers, &observability);
        let listener = TcpListener::bind(config.listen.to_string()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::new(router, in_flight, tls, config);
        let task = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        Self { address, client: http_client(), stop: Some(stop), task }
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.client.put(self.url(path))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// A stream; its lines are the body.
    pub fn stream(&self) -> RequestBuilder {
        self.post("/v1/notifications:stream").header("content-type", "application/x-ndjson")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

pub fn config(toml: &str) -> Config {
    let mut layers = ConfigLayers::new().unwrap();
    layers.text(Path::new("test.toml"), toml).unwrap();
    let mut config = layers.finish().unwrap_or_else(|problem| panic!("{problem}\n{toml}"));
    // The built-in components are the same for all: no need to compile them again for each test.
    let cache = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts");
    config.providers.cache_dir.get_or_insert_with(cache);
    config
}

/// Sends, and checks the status; answers the body.
pub async fn expect(request: RequestBuilder, status: u16) -> Value {
    let (actual, body) = answer(request.send().await.unwrap()).await;
    assert_eq!(actual, status, "{body}");
    body
}

/// Sends, and checks status and error code; answers the message.
pub async fn expect_error(request: RequestBuilder, status: u16, code: &str) -> String {
    let body = expect(request, status).await;
    assert_eq!(body["error"], code, "{body}");
    body["message"].as_str().unwrap().to_owned()
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")))
}
