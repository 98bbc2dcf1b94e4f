//! A failure names its cause: at which step a server could not be reached, to the caller and, with the application,
//! in the log.

use std::time::Duration;

use pushlet_simulator::{Options, Simulator};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::guests::fixture::component;
use crate::harness::{DEVICE, Directory, Pushlet, expect, http_client, pointing_at};
use crate::program::Program;
use crate::upload::{Receiver, UploadFixture, result};

/// What a caller is told, and a word that only the log has.
struct Case {
    application: &'static str,
    environment: &'static str,
    told: &'static str,
    logged: &'static str,
}

const PUSHES: [Case; 4] = [
    Case {
        application: "resolve",
        environment: "production",
        told: "the host name does not resolve",
        logged: "push.invalid",
    },
    Case {
        application: "connect",
        environment: "development",
        told: "no connection could be opened",
        logged: "Connection refused",
    },
    Case {
        application: "tls",
        environment: "production",
        told: "the TLS handshake failed: invalid peer certificate: UnknownIssuer",
        logged: "UnknownIssuer",
    },
    Case {
        application: "timeout",
        environment: "development",
        told: "no connection could be opened in time",
        logged: "no connection within 700ms",
    },
];

/// An address where nobody listens.
async fn closed() -> String {
    format!("https://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

/// A running program whose authority for the simulator's certificates is missing.
struct Unreached {
    program: Program,
    simulator: Simulator,
    closed: String,
    client: reqwest::Client,
    /// Accepts connections and says nothing.
    _silent: TcpListener,
    _directory: Directory,
}

impl Unreached {
    async fn start() -> Self {
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, google) = (format!("https://{}", silent.local_addr().unwrap()), simulator.google_url());
        let closed = closed().await;
        let both = |name: &str, production: &str, development: &str| {
            format!("endpoints.{name} = {{ production = {production:?}, development = {development:?} }}\n")
        };
        let endpoints = both("apns", "https://push.invalid", &closed)
            + &both("gcm", &google, &here)
            + &both("fcm", &closed, &google);
        let toml = format!("delivery.retries = 0\ndelivery.connect_timeout = \"700ms\"\n{endpoints}");
        let program = Program::serve(&toml).await;
        Self { program, simulator, closed, client: http_client(), _silent: silent, _directory: directory }
    }

    async fn register(&self, id: &str, environment: &str, provider: &str, credentials: Value) {
        let body = json!({"provider": provider, "environment": environment, "credentials": credentials});
        let path = self.program.url(&format!("/v1/applications/{id}"));
        expect(self.client.put(path).json(&body), 200).await;
    }

    fn send(&self, id: &str) -> RequestBuilder {
        let body = json!({"application_id": id, "notification": {"body": "x"}, "target": DEVICE});
        self.client.post(self.program.url("/v1/notifications")).json(&body)
    }

    async fn result(&self, id: &str) -> Value {
        expect(self.send(id), 200).await["results"][0].take()
    }

    /// The line of the log that warns of this application; it may be written after the answer.
    async fn warning(&self, id: &str) -> String {
        let of = |line: &&str| line.contains("WARN") && line.contains(&format!("application=\"{id}\""));
        for _ in 0..500 {
            let log = self.program.log();
            let lines: Vec<&str> = log.lines().filter(of).collect();
            assert!(lines.len() < 2, "one line for each cause: {log}");
            if let [line] = lines[..] {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no warning of {id} in {}", self.program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_step_at_which_a_push_service_was_not_reached_is_named() {
    let unreached = Unreached::start().await;
    let pem = std::fs::read_to_string(&unreached.simulator.credentials().apns_pem).unwrap();
    for Case { application, environment, told, logged } in PUSHES {
        let (provider, credentials) = match application {
            "resolve" | "connect" => ("apns", json!({"apns_pem": pem})),
            _ => ("gcm", json!({"gcm_api_key": "KEY"})),
        };
        unreached.register(application, environment, provider, credentials).await;
        let result = unreached.result(application).await;
        assert_eq!(result["code"], "vendor_unreachable", "{application}: {result}");
        let message = format!("the push service could not be reached: {told}");
        assert_eq!(result["message"], message, "{application}: {result}");
        let line = unreached.warning(application).await;
        assert!(line.contains(logged) && line.contains(&format!("provider=\"{provider}\"")), "{line}");
        // The address is for the operator alone.
        assert!(!result.to_string().contains("127.0.0.1"), "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_step_at_which_a_token_endpoint_was_not_reached_is_named() {
    let unreached = Unreached::start().await;
    let account = std::fs::read(&unreached.simulator.credentials().fcm_service_account).unwrap();
    let account: Value = serde_json::from_slice(&account).unwrap();
    let google = format!("{}/token", unreached.simulator.google_url());
    let closed = format!("{}/token", unreached.closed);
    for (id, environment, token_uri, told, logged) in [
        ("connect", "production", closed, "no connection could be opened", "Connection refused"),
        (
            "tls",
            "development",
            google,
            "the TLS handshake failed: invalid peer certificate: UnknownIssuer",
            "UnknownIssuer",
        ),
    ] {
        let mut account = account.clone();
        account["token_uri"] = token_uri.into();
        let account = account.to_string();
        unreached.register(id, environment, "fcm", json!({"fcm_service_account": account})).await;
        let result = unreached.result(id).await;
        assert_eq!(result["code"], "token_endpoint_unavailable", "{result}");
        assert_eq!(result["message"], format!("the token endpoint is not available: {told}"));
        let line = unreached.warning(id).await;
        assert!(line.contains(logged) && line.contains("no token could be fetched"), "{line}");
    }
}

/// A component that names a fixed endpoint on this machine: its author must mend it, not the caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_endpoint_is_the_components_fault() {
    let (known, private) = ("hooks.example", "127.0.0.1:444");
    let mut bytes = component("webhook").to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - known.len()).filter(|at| bytes[*at..].starts_with(known.as_bytes())).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + private.len()].copy_from_slice(private.as_bytes());
    }
    let receiver = Receiver::start().await;
    let server = Pushlet::start(&crate::upload::settings(&receiver, "").replace("endpoints", "#")).await;
    expect(crate::upload::upload(&server, "webhook", &bytes), 200).await;
    let fixture = UploadFixture { receiver, server };
    fixture.register("app").await;
    let (status, code) = result(fixture.send(&json!({"body": "x"}))).await;
    assert_eq!((status.as_str(), code.as_str()), ("failed", "provider_forbidden_address"));
}

/// The classic routes name the step too, and end their JSON with a line break, as every answer does.
#[tokio::test(flavor = "multi_thread")]
async fn the_classic_routes_name_it_too() {
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
    let settings = pointing_at(&simulator, "delivery.retries = 0");
    let unreached = settings.replace(&simulator.google_url(), &closed().await);
    let server = Pushlet::start(&unreached).await;
    let form = [("device_token", "t"), ("gcm_api_key", "KEY"), ("alert", "x")];
    let answer = expect(server.post("/send_notification").form(&form), 502).await;
    assert_eq!(answer["error"], "vendor_unreachable");
    assert_eq!(answer["message"], "the push service could not be reached: no connection could be opened");
    // Errors of every kind, and successes; Google's own answer too.
    let whole = Pushlet::start(&settings).await;
    let key = [("application_id", "legacy"), ("gcm_api_key", "KEY")];
    for (path, form) in [
        ("/register_application", &key[..]),
        ("/send_notification", &form),
        ("/send_notification", &[("gcm_api_key", "KEY")]),
        ("/application_feedback", &key[..1]),
        ("/nope", &[]),
    ] {
        let text = whole.post(path).form(form).send().await.unwrap().text().await.unwrap();
        assert!(text.ends_with("}\n") && !text.ends_with("\n\n"), "{path}: {text:?}");
    }
}
