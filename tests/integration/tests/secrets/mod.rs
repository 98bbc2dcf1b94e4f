//! Secrets are planted in every place that takes one, every route is called with good and bad input for every
//! provider, and then nothing that comes out holds one of them: no answer, log line, metric, view, guest's log,
//! nor what a guest was given.

mod known_secrets;
mod recording_client;
mod requests;

use std::process::Command;

use pushlet_simulator::{Options, Service, Simulator};

use crate::guests::fixture::component;
use crate::harness::Directory;
use crate::program::Program;
use crate::routes;
use crate::upload::{PROGRAM, Receiver};
use known_secrets::{KnownSecrets, Secret};
use recording_client::RecordingClient;

pub const ADMIN: &str = "planted-admin-key-7f3a9c51d2e8";
pub const PASSWORD: &str = "planted-basic-password-64be10a9";
pub const FILE_PASSWORD: &str = "planted-file-password-0c9e77b1";
const REGISTRY_KEY: &str = "7f3a9c51d2e864be10a90c9e77b1d41d8cd98f00b2045d5ebf1c33a07f3a9c51";
pub const GCM_KEY: &str = "planted-gcm-key-d41d8cd98f00b204";
pub const ECHO_TOKEN: &str = "planted-echo-token-5d5ebf1c33a0";

/// The files with secrets.
pub struct Files {
    pub p12: Vec<u8>,
    pub pem: Vec<u8>,
    /// With a password.
    pub locked_pem: Vec<u8>,
    pub p8: Vec<u8>,
    pub account: Vec<u8>,
}

impl Files {
    fn of(simulator: &Simulator, directory: &Directory) -> Self {
        let credentials = simulator.credentials();
        let pem = std::fs::read(&credentials.apns_pem).unwrap();
        let input = credentials.apns_pem.display().to_string();
        let openssl = |arguments: &[&str]| {
            let output = directory.path().join("made");
            let output = output.to_str().unwrap();
            let mut command = Command::new("openssl");
            let made = command.args(arguments).args(["-out", output]).output();
            let made = made.unwrap_or_else(|error| panic!("this test needs the command `openssl`: {error}"));
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            std::fs::read(output).unwrap()
        };
        let password = format!("pass:{FILE_PASSWORD}");
        let export = ["pkcs12", "-export", "-in", &input, "-inkey", &input, "-passout", &password];
        let key = ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", &input, "-passout", &password];
        let certificate = openssl(&["x509", "-in", &input]);
        Self {
            p12: openssl(&export),
            locked_pem: [certificate, openssl(&key)].concat(),
            pem,
            p8: std::fs::read(&credentials.apns_p8).unwrap(),
            account: std::fs::read(&credentials.fcm_service_account).unwrap(),
        }
    }
}

/// Every secret that a request carries. `keys`: the tenant's API keys.
fn secrets(files: &Files, keys: &[String]) -> Vec<Secret> {
    let text = |name: &str, text: &str| Secret::whole(name, text.as_bytes());
    let mut all = vec![
        text("operator's key", ADMIN),
        text("basic password", PASSWORD),
        text("file password", FILE_PASSWORD),
        text("registry's key", REGISTRY_KEY),
        text("GCM key", GCM_KEY),
        text("header token", ECHO_TOKEN),
        Secret::whole("PKCS#12 file", &files.p12),
        Secret::pem("PEM file", &files.pem),
        Secret::pem("encrypted PEM file", &files.locked_pem),
        Secret::pem("p8 file", &files.p8),
        Secret::service_account("service account", &files.account),
    ];
    all.extend(keys.iter().map(|key| Secret::api_key("API key", key)));
    all
}

/// A server as a process, and everything that it talks to.
struct SecretsFixture {
    simulator: Simulator,
    receiver: Receiver,
    program: Program,
    settings: String,
    files: Files,
    _directory: Directory,
}

impl SecretsFixture {
    async fn new() -> Self {
        let directory = Directory::new();
        let simulator =
            Simulator::start(Options::ephemeral(directory.path().join("simulator"))).await.unwrap();
        let receiver = Receiver::start().await;
        let files = Files::of(&simulator, &directory);
        let to = |name: &str, url: &str| {
            format!("endpoints.\"{name}\" = {{ production = {url:?}, development = {url:?} }}\n")
        };
        let echo = format!("https://{}", receiver.address);
        let endpoints = to("apns", &simulator.apns_url())
            + &to("fcm", &simulator.google_url())
            + &to("gcm", &simulator.google_url())
            + &to("acme/echo", &echo);
        let roots = [simulator.credentials().ca_pem.clone(), receiver.ca()];
        let data = directory.path().join("data");
        let settings = format!(
            "admin.key = {ADMIN:?}\nauth = {{ username = \"me\", password = {PASSWORD:?} }}\n\
             tls.extra_roots = {roots:?}\nlog = {{ level = \"trace\", format = \"json\" }}\n\
             providers.compiler = {PROGRAM:?}\ndelivery.retries = 0\n{endpoints}\
             data_dir = {data:?}\nregistry.key = {REGISTRY_KEY:?}\n"
        );
        let program = Program::serve(&settings).await;
        Self { simulator, receiver, program, settings, files, _directory: directory }
    }

    /// Tokens that were made of the secrets are secrets too: those that push services were shown.
    fn plant_tokens(&self, secrets: &mut KnownSecrets) {
        let mut shown: Vec<String> = self.simulator.received().iter().flat_map(tokens).collect();
        shown.extend(self.receiver.posts().into_iter().map(|post| post.authorization));
        shown.sort();
        shown.dedup();
        for (number, text) in shown.iter().enumerate() {
            let token = text.rsplit([' ', '=']).next().unwrap();
            if token.len() > 12 {
                secrets.text(&format!("token {number}"), token);
            }
        }
    }
}

fn tokens(received: &pushlet_simulator::Received) -> Vec<String> {
    let mut shown: Vec<String> = received
        .headers
        .iter()
        .filter(|(name, _)| name == "authorization")
        .map(|(_, value)| value.clone())
        .collect();
    if received.service == Service::Oauth {
        let pairs = url::form_urlencoded::parse(received.body.as_bytes());
        shown.extend(pairs.filter(|(name, _)| name == "assertion").map(|(_, value)| value.into_owned()));
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out() {
    let fixture = SecretsFixture::new().await;
    let mut secrets = KnownSecrets::default();
    let mut client = RecordingClient::new(&fixture.program);
    let keys = requests::run(&mut client, &fixture.files, component("echo")).await;
    self::secrets(&fixture.files, &keys).iter().for_each(|secret| secrets.add(secret));
    fixture.plant_tokens(&mut secrets);
    assert!(secrets.names().len() > 14, "{:?}", secrets.names());
    assert_eq!(client.routes, routes::all(), "every route is called");

    let posts = fixture.receiver.posts();
    let given: String = posts.iter().map(|post| format!("{} {}\n", post.path, post.body)).collect();
    let log = fixture.program.log();
    let transcript = String::from_utf8_lossy(&client.transcript).into_owned();
    for (place, text, known) in [
        ("an answer", &transcript, "no application found"),
        ("an answer with metrics", &transcript, "pushlet_pushes_total"),
        ("an answer with a guest's log", &transcript, "echo-with-token"),
        ("what a guest was given", &given, "echo-with-token"),
        ("the log", &log, "/register_application"),
    ] {
        assert!(text.contains(known), "nothing was recorded of {place}");
        let found = secrets.found_in(text.as_bytes());
        assert!(found.is_empty(), "{place} holds {found:#?}");
    }
    let found = secrets.found_in(&client.transcript);
    assert!(found.is_empty(), "an answer holds {found:#?}");
    let shown = shown_configuration(&fixture.settings);
    assert!(shown.contains("password"), "{shown}");
    assert!(secrets.found_in(shown.as_bytes()).is_empty());
}

fn shown_configuration(settings: &str) -> String {
    let directory = Directory::new();
    let file = directory.path().join("pushlet.toml");
    std::fs::write(&file, settings).unwrap();
    let output = Command::new(PROGRAM).arg("check-config").arg("--config").arg(&file).output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}
