//! Who may ask, and what outlives permission.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pushlet_simulator::Service;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{
    ADMIN, DEVICE, Directory, Harness, PROGRAM, Server, expect, expect_error, pointing_at, wait_until,
};

/// Longer than a stream takes to end.
const PATIENT: Duration = Duration::from_secs(20);
/// What a browser adds to a request of a page that is not the server's own.
const FOREIGN: &[&[(&str, &str)]] = &[
    &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
    &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
    // A browser that does not send Sec-Fetch-Site, and a page in a sandboxed frame.
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_send_through_anothers_application() {
    let mut harness = Harness::start("").await;
    let body =
        json!({"application_id": "victim-application", "notification": {"body": "x"}, "targets": ["00aa"]});
    let attack = || async {
        for _ in 0..20 {
            let request = harness.attack(Method::POST, "/v1/notifications").json(&body);
            expect_error(request, 404, "application_not_found").await;
        }
    };
    harness.victim.unharmed_by(attack).await;
    assert!(harness.server.peak_resident() < 512 << 20);
    harness.server.assert_alive();
}

/// A server on loopback, and how its user calls it: without a credential, or with Basic that a browser has cached.
struct Visited<'a> {
    harness: &'a Harness,
    server: Server,
    password: Option<&'static str>,
    _directory: Directory,
}

impl<'a> Visited<'a> {
    async fn start(harness: &'a Harness, password: Option<&'static str>) -> Self {
        let directory = Directory::new();
        let login =
            password.map(|password| format!("auth = {{ username = \"me\", password = {password:?} }}\n"));
        let toml = format!("{}{}", login.unwrap_or_default(), pointing_at(&harness.simulator, &[]));
        let server = Server::start(&toml, &directory).await;
        let visited = Self { harness, server, password, _directory: directory };
        expect(visited.register("app"), 200).await;
        visited
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.server.client.request(method, self.server.url(path));
        match self.password {
            Some(password) => request.basic_auth("me", Some(password)),
            None => request,
        }
    }

    fn register(&self, id: &str) -> RequestBuilder {
        let pem = std::fs::read(&self.harness.simulator.credentials().apns_pem).unwrap();
        let form = reqwest::multipart::Form::new()
            .part("apns_pem", reqwest::multipart::Part::bytes(pem))
            .text("application_id", id.to_owned());
        self.request(Method::POST, "/register_application").multipart(form)
    }

    /// All that a page could make a browser send without being asked first, and what only a rebound name could.
    fn changes(&self) -> Vec<RequestBuilder> {
        let send = [("application_id", "app"), ("device_token", DEVICE), ("alert", "x")];
        let batch = json!({"application_id": "app", "notification": {"body": "x"}, "targets": [DEVICE]});
        vec![
            self.register("app"),
            self.request(Method::POST, "/send_notification").form(&send),
            self.request(Method::POST, "/application_feedback").form(&[("application_id", "app")]),
            self.request(Method::POST, "/v1/applications/app/feedback"),
            self.request(Method::POST, "/v1/notifications").json(&batch),
            self.request(Method::DELETE, "/v1/applications/app"),
            self.request(Method::PUT, "/v1/providers/evil")
                .header("content-type", "application/wasm")
                .body("\0asm"),
        ]
    }

    async fn dead_tokens(&self) -> usize {
        let shown = expect(self.request(Method::GET, "/v1/applications/app/feedback"), 200).await;
        shown["dead_tokens"].as_array().unwrap().len()
    }

    /// Has one dead token reported.
    async fn report(&self) {
        let form = [("application_id", "app"), ("device_token", "dead15a27d5df3c3"), ("alert", "x")];
        expect_error(self.request(Method::POST, "/send_notification").form(&form), 410, "unregistered").await;
    }
}

fn with(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_changes_nothing_through_its_visitors_browser() {
    let harness = Harness::start("").await;
    for password in [None, Some("open sesame")] {
        let visited = Visited::start(&harness, password).await;
        visited.report().await;
        let before = expect(visited.request(Method::GET, "/v1/applications/app"), 200).await;
        let pushes = harness.simulator.received().len();
        for headers in FOREIGN {
            for request in visited.changes() {
                expect_error(with(request, headers), 403, "cross_site_request").await;
            }
        }
        // An <img>: a GET is answered and has no effect.
        let image = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image")];
        for path in ["/v1/applications/app/feedback", "/application_feedback?application_id=app"] {
            with(visited.request(Method::GET, path), &image).send().await.unwrap();
        }
        assert_eq!(visited.dead_tokens().await, 1);
        assert_eq!(expect(visited.request(Method::GET, "/v1/applications/app"), 200).await, before);
        assert_eq!(harness.simulator.received().len(), pushes);
        // What a page may send anywhere is no JSON.
        let body =
            json!({"application_id": "app", "notification": {"body": "x"}, "targets": [DEVICE]}).to_string();
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            for path in ["/v1/notifications", "/v1/notifications:stream"] {
                let request = visited.request(Method::POST, path).body(body.clone());
                let request = content_type
                    .into_iter()
                    .fold(request, |request, one| request.header("content-type", one));
                expect_error(request, 415, "unsupported_media_type").await;
            }
        }
        // The console's own page, and programs, go on.
        let own = format!("http://{}", visited.server.address);
        let form = [("application_id", "app"), ("device_token", DEVICE), ("alert", "x")];
        let request = visited.request(Method::POST, "/send_notification").form(&form);
        expect(with(request, &[("origin", &own), ("sec-fetch-site", "same-origin")]), 200).await;
        expect(visited.request(Method::POST, "/send_notification").form(&form), 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_rebound_to_loopback_is_refused() {
    let harness = Harness::start("").await;
    let visited = Visited::start(&harness, None).await;
    let port = visited.server.address.port();
    for host in [format!("evil.example:{port}"), format!("0.0.0.0:{port}"), "192.0.2.1".to_owned()] {
        let origin = format!("http://{host}");
        let headers = [("host", host.as_str()), ("origin", &origin), ("sec-fetch-site", "same-origin")];
        for request in visited.changes() {
            expect_error(with(request, &headers), 421, "host_not_allowed").await;
        }
        let shown = visited.request(Method::GET, "/v1/applications");
        expect_error(with(shown, &headers), 421, "host_not_allowed").await;
    }
    for host in [format!("localhost:{port}"), format!("[::1]:{port}")] {
        expect(visited.request(Method::GET, "/v1/applications").header("host", host), 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_kept_by_a_cache_or_taken_for_something_else() {
    let harness = Harness::start("").await;
    let paths = [
        "/v1/applications",
        "/v1/status",
        "/openapi.json",
        "/healthz",
        "/no/such/path",
        "/send_notification",
        "/v1/tenants",
    ];
    for path in paths {
        let answered = harness.attack(Method::GET, path).send().await.unwrap();
        let header =
            |name: &str| answered.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("cache-control").as_deref(), Some("no-store"), "{path}");
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
    }
}

/// Lines for an open stream of the attacker, who sends more after its permission is gone.
struct Stream {
    lines: mpsc::Sender<Result<String, std::io::Error>>,
    response: reqwest::Response,
}

impl Stream {
    /// With the result of one push.
    async fn open(harness: &Harness, api_key: &str) -> Self {
        let (lines, waiting) = mpsc::channel::<Result<String, std::io::Error>>(16);
        let body =
            futures_util::stream::unfold(waiting, async |mut lines| Some((lines.recv().await?, lines)));
        let header = json!({"application_id": "app", "notification": {"body": "x"}});
        lines.send(Ok(format!("{header}\n"))).await.unwrap();
        lines.send(Ok(line(0))).await.unwrap();
        let request = harness.server.client.post(harness.server.url("/v1/notifications:stream"));
        let request = request.bearer_auth(api_key).header("content-type", "application/x-ndjson");
        let mut response = request.body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let first: Value = serde_json::from_slice(&response.chunk().await.unwrap().unwrap()).unwrap();
        assert_eq!(first["status"], "delivered", "{first}");
        Self { lines, response }
    }

    /// Goes on sending until the server ends it; returns the last line, before which there must be no other.
    async fn end(mut self) -> Value {
        let lines = self.lines;
        let feeding = tokio::spawn(async move {
            for number in 1.. {
                if lines.send(Ok(line(number))).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut text = Vec::new();
        let reading = async {
            while let Some(piece) = self.response.chunk().await.unwrap() {
                text.extend_from_slice(&piece);
            }
        };
        tokio::time::timeout(PATIENT, reading).await.expect("the stream goes on");
        feeding.abort();
        serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&text)))
    }
}

fn line(number: usize) -> String {
    format!("{}\n", json!({"target": format!("{number:064x}")}))
}

/// A request of the operator.
fn operate(harness: &Harness, method: Method, path: &str) -> RequestBuilder {
    harness.server.client.request(method, harness.server.url(path)).bearer_auth(ADMIN)
}

async fn new_key(harness: &Harness, body: Value) -> (String, String) {
    let made = expect(operate(harness, Method::POST, "/v1/tenants/attacker/keys").json(&body), 201).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("api_key"))
}

async fn succeeds(request: RequestBuilder) {
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_permission_that_opened_it() {
    let harness = Harness::start("").await;
    harness.register_apns(&harness.attacker, "app").await;
    let mut expected = 0;
    for reason in ["key_revoked", "key_expired", "tenant_suspended", "application_deleted", "tenant_deleted"]
    {
        let (id, key) = new_key(&harness, json!({})).await;
        let before = attackers_pushes(&harness);
        let stream = Stream::open(&harness, &key).await;
        let tenant = |method, path: &str| operate(&harness, method, &format!("/v1/tenants/attacker{path}"));
        match reason {
            "key_revoked" => succeeds(tenant(Method::DELETE, &format!("/keys/{id}"))).await,
            "key_expired" => {
                let (_, other) = new_key(&harness, json!({"others_expire_in": 0})).await;
                succeeds(harness.server.client.get(harness.server.url("/v1/status")).bearer_auth(other))
                    .await;
            }
            "tenant_suspended" => succeeds(tenant(Method::PUT, "").json(&json!({"suspended": true}))).await,
            "application_deleted" => {
                let path = harness.server.url("/v1/applications/app");
                succeeds(harness.server.client.delete(path).bearer_auth(&key)).await;
            }
            _ => succeeds(tenant(Method::DELETE, "")).await,
        }
        let end = stream.end().await;
        assert_eq!(end["interrupted"], reason, "{end}");
        assert_eq!(end["summary"]["delivered"], 1, "{end}");
        expected += 1;
        assert_eq!(attackers_pushes(&harness) - before, 1, "{reason}: nothing is sent any more");
        match reason {
            "tenant_suspended" => succeeds(tenant(Method::PUT, "").json(&json!({"suspended": false}))).await,
            "application_deleted" => harness.register_apns(&key, "app").await,
            _ => {}
        }
    }
    assert_eq!(attackers_pushes(&harness), expected);
    harness.victim.push().await;
}

fn attackers_pushes(harness: &Harness) -> usize {
    let pushes = harness.simulator.received().into_iter();
    pushes.filter(|push| push.service == Service::Apns && !push.path.ends_with(DEVICE)).count()
}

const TARGETS: usize = 3000;

/// Runs `pushlet send`, for as long as it takes.
fn send(harness: &Harness, tokens: PathBuf, results: PathBuf) -> tokio::task::JoinHandle<Output> {
    let mut command = Command::new(PROGRAM);
    command.args(["send", "--server", &harness.server.url(""), "--api-key", &harness.attacker]);
    command.args(["--application", "app", "--body", "hello", "--resume", "--results"]);
    command.arg(results).arg(tokens).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_was_interrupted_resumes_and_reaches_every_target_once() {
    let harness = Harness::start("").await;
    harness.register_apns(&harness.attacker, "app").await;
    let set = |body: Value| succeeds(operate(&harness, Method::PUT, "/v1/tenants/attacker").json(&body));
    set(json!({"limits": {"pushes_per_second": 1000}})).await;
    let file = |name: &str| harness.directory.path().join(name);
    let tokens: String = (0..TARGETS).map(|number| format!("{number:064x}\n")).collect();
    std::fs::write(file("tokens.txt"), tokens).unwrap();

    let sending = send(&harness, file("tokens.txt"), file("results"));
    wait_until("a tenth of the pushes arrives", async || attackers_pushes(&harness) >= TARGETS / 10).await;
    set(json!({"suspended": true})).await;
    let output = sending.await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("tenant_suspended") && told.contains("--resume"), "{told}");
    let results = std::fs::read_to_string(file("results")).unwrap();
    assert!(!results.contains("rejected") && results.lines().count() < TARGETS, "{told}");

    set(json!({"suspended": false, "limits": {}})).await;
    let output = send(&harness, file("tokens.txt"), file("results")).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut paths: Vec<String> = harness.simulator.received().into_iter().map(|push| push.path).collect();
    paths.retain(|path| !path.ends_with(DEVICE));
    let count = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!((count, paths.len()), (TARGETS, TARGETS), "each target once");
}
