//! The real program with a data directory: what outlives it, and what keeps it from starting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pushlet_simulator::{Options, Script, Service, Simulator};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);

/// A simulator, and a directory for the data of one server after the other.
struct RestartFixture {
    simulator: Simulator,
    directory: PathBuf,
    client: reqwest::Client,
}

/// A running `pushlet serve`; it is killed when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RestartFixture {
    async fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("pushlet-restart-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let simulator = Simulator::start(Options::ephemeral(&directory)).await.unwrap();
        let (url, ca) = (simulator.apns_url(), simulator.credentials().ca_pem.display().to_string());
        let data = directory.join("data").display().to_string();
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\ntls.extra_roots = [{ca:?}]\n\
             endpoints.apns.production = {url:?}\n"
        );
        std::fs::write(directory.join("pushlet.toml"), text).unwrap();
        let client = pushlet_test_support::http_client();
        let fixture = Self { simulator, directory, client };
        fixture.key("old.key", "5e");
        fixture.key("new.key", "a0");
        fixture
    }

    fn key(&self, name: &str, byte: &str) {
        let path = self.directory.join(name);
        std::fs::write(&path, format!("{}\n", byte.repeat(32))).unwrap();
        // What everyone can read is warned of.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, name: &str, key: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
        command.arg(name).arg("--config").arg(self.directory.join("pushlet.toml"));
        command.arg("--registry-key-file").arg(self.directory.join(key));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn serve(&self, key: &str) -> Server {
        let mut child = self.command("serve", key).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = log.by_ref().lines().find_map(|line| {
            let line = line.unwrap();
            line.split_once("is listening on ").map(|(_, address)| address.to_owned())
        });
        let address = address.expect("the server ended");
        // It must not wait for somebody to read its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Server { child, address }
    }

    /// What it says when it does not start.
    async fn refused(&self, key: &str) -> String {
        failed(&ended(self.command("serve", key)).await)
    }

    fn rotate(&self, old: &str, new: &str) -> Output {
        let new = self.directory.join(new);
        self.command("rotate-key", old).arg("--new-key-file").arg(new).output().unwrap()
    }

    async fn register(&self, server: &Server, id: &str) {
        let pem = std::fs::read_to_string(&self.simulator.credentials().apns_pem).unwrap();
        let request = self.client.put(format!("{}/v1/applications/{id}", server.address));
        json_of(with(request, &json!({ "provider": "apns", "apns_pem": pem }))).await;
    }

    fn send(&self, server: &Server, id: &str) -> RequestBuilder {
        let body = json!({ "application_id": id, "notification": { "body": "x" }, "target": TOKEN });
        with(self.client.post(format!("{}/v1/notifications", server.address)), &body)
    }

    async fn status(&self, server: &Server, id: &str) -> Value {
        json_of(self.send(server, id)).await["results"][0]["status"].clone()
    }

    async fn feedback(&self, server: &Server, id: &str) -> Value {
        let path = format!("{}/v1/applications/{id}/feedback", server.address);
        json_of(self.client.post(path)).await["dead_tokens"].clone()
    }

    fn arrived(&self) -> usize {
        self.simulator.received().len()
    }

    /// The next push is answered so.
    fn answer_once(&self, status: u16, body: Value) {
        let script =
            Script { status: Some(status), body: Some(body), times: Some(1), ..Script::new(Service::Apns) };
        self.simulator.script(script).unwrap();
    }
}

impl Drop for RestartFixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn with(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

async fn json_of(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status} {text}");
    serde_json::from_str(&text).unwrap()
}

fn is_replayed(response: &Response) -> bool {
    response.headers().get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// Runs it to its end, which must come.
async fn ended(command: Command) -> Output {
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    tokio::time::timeout(LONG, output).await.expect("it did not end").unwrap()
}

fn failed(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// The server is killed each time, so nothing is kept by an orderly end.
#[tokio::test]
async fn applications_feedback_and_answers_outlive_a_kill() {
    let fixture = RestartFixture::new().await;
    let first = fixture.serve("old.key");
    fixture.register(&first, "app").await;
    fixture.register(&first, "gone").await;
    let path = format!("{}/v1/applications/gone", first.address);
    assert_eq!(fixture.client.delete(path).send().await.unwrap().status(), 204);
    let view = json_of(fixture.client.get(format!("{}/v1/applications/app", first.address))).await;
    let keyed = |server: &Server| fixture.send(server, "app").header("idempotency-key", "one").send();
    let answer = keyed(&first).await.unwrap();
    assert!(!is_replayed(&answer));
    let (kind, answer) = (answer.headers()["content-type"].clone(), answer.text().await.unwrap());
    let arrived = fixture.arrived();
    drop(first);

    let second = fixture.serve("old.key");
    let again = keyed(&second).await.unwrap();
    assert!(is_replayed(&again));
    assert_eq!(again.headers()["content-type"], kind);
    assert_eq!((again.text().await.unwrap(), fixture.arrived()), (answer, arrived));
    let list = json_of(fixture.client.get(format!("{}/v1/applications", second.address))).await;
    let mut listed = view;
    // Lists alone show what became of pushes since the start, and none was sent since.
    listed["outcomes"] = json!({});
    assert_eq!(list["applications"], json!([listed]));
    assert_eq!(fixture.status(&second, "app").await, "delivered");
    fixture.answer_once(410, json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_000_u64 }));
    assert_eq!(fixture.status(&second, "app").await, "unregistered");
    assert_eq!(fixture.arrived(), arrived + 2);
    stop(second).await;

    let third = fixture.serve("old.key");
    let dead = fixture.feedback(&third, "app").await;
    assert_eq!((&dead[0]["device_token"], dead.as_array().unwrap().len()), (&json!(TOKEN), 1));
    stop(third).await;
    assert_eq!(fixture.feedback(&fixture.serve("old.key"), "app").await, json!([]));
}

/// As an operator does, so that what nobody waited for is kept too.
async fn stop(mut server: Server) {
    let kill = format!("kill -TERM {}", server.child.id());
    assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || server.child.wait().unwrap()).await.unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn it_does_not_start_without_the_key_or_beside_another() {
    let fixture = RestartFixture::new().await;
    let first = fixture.serve("old.key");
    fixture.register(&first, "app").await;
    let told = fixture.refused("old.key").await;
    assert!(told.contains("data_dir") && told.contains("in use by another process"), "{told}");
    let told = failed(&fixture.rotate("old.key", "new.key"));
    assert!(told.contains("in use by another process"), "{told}");
    drop(first);

    let told = fixture.refused("new.key").await;
    assert!(told.contains("not the one that this registry is sealed with"), "{told}");
    fixture.key("short.key", "5");
    let told = fixture.refused("short.key").await;
    assert!(told.contains("registry.key: a sealing key is 32 bytes in hex"), "{told}");
    let told = fixture.refused("no.key").await;
    assert!(told.contains("registry.key_file") && told.contains("no.key"), "{told}");
    let mut without = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    without.arg("serve").arg("--config").arg(fixture.directory.join("pushlet.toml"));
    without.stderr(Stdio::piped());
    let told = failed(&ended(without).await);
    assert!(told.contains("data_dir is set but no registry.key or registry.key_file"), "{told}");
    for told in [fixture.refused("new.key").await, fixture.refused("short.key").await] {
        assert!(!told.contains("5555") && !told.contains("a0a0"), "{told}");
    }
    assert_eq!(fixture.status(&fixture.serve("old.key"), "app").await, "delivered");
}

#[tokio::test]
async fn the_key_is_changed_as_a_whole() {
    let fixture = RestartFixture::new().await;
    let told = failed(&fixture.rotate("old.key", "new.key"));
    assert!(told.contains("there is no registry.redb"), "{told}");
    let first = fixture.serve("old.key");
    fixture.register(&first, "one").await;
    fixture.register(&first, "two").await;
    drop(first);
    let told = failed(&fixture.rotate("new.key", "old.key"));
    assert!(told.contains("not the one that this registry is sealed with"), "{told}");
    let rotated = fixture.rotate("old.key", "new.key");
    let told = String::from_utf8(rotated.stdout.clone()).unwrap();
    assert!(rotated.status.success() && told.starts_with("3 records"), "{told}");
    assert!(fixture.refused("old.key").await.contains("not the one that this registry is sealed with"));
    let second = fixture.serve("new.key");
    for id in ["one", "two"] {
        assert_eq!(fixture.status(&second, id).await, "delivered");
    }
}

#[tokio::test]
async fn a_directory_that_can_not_be_used_is_told() {
    let fixture = RestartFixture::new().await;
    let data = fixture.directory.join("data");
    std::fs::write(&data, "a file").unwrap();
    let told = fixture.refused("old.key").await;
    assert!(told.contains(Path::new("data").to_str().unwrap()) && told.contains("cannot be read"), "{told}");
    std::fs::remove_file(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("registry.redb"), "not a registry").unwrap();
    let told = fixture.refused("old.key").await;
    assert!(told.starts_with("pushlet: data_dir: "), "{told}");
}
