//! The real program, and the signals that end it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pushlet_simulator::{Options, Script, Service, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};

const TARGETS: usize = 300;
/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);

/// A server in a process of its own, a simulator, and a batch on its way from one to the other.
struct ShutdownFixture {
    simulator: Simulator,
    server: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
    answer: tokio::task::JoinHandle<reqwest::Result<(u16, Value)>>,
    directory: PathBuf,
}

impl ShutdownFixture {
    async fn new(settings: &str, answer_after: Duration) -> Self {
        let directory = std::env::temp_dir().join(format!("pushlet-shutdown-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let simulator = Simulator::start(Options::ephemeral(&directory)).await.unwrap();
        let delay_ms = u64::try_from(answer_after.as_millis()).unwrap();
        simulator.script(Script { delay_ms, ..Script::new(Service::Apns) }).unwrap();
        let config = configuration(&directory, &simulator, settings);
        let mut server = Command::new(env!("CARGO_BIN_EXE_pushlet"))
            .args(["serve", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = loop {
            let line = timeout(LONG, log.next_line()).await.unwrap().unwrap().expect("the server ended");
            if let Some((_, address)) = line.split_once("is listening on ") {
                break address.to_owned();
            }
        };
        let answer =
            tokio::spawn(batch(address.clone(), std::fs::read(&simulator.credentials().apns_pem).unwrap()));
        let fixture = Self { simulator, server, log, address, answer, directory };
        let a_tenth = async {
            while fixture.arrived() < TARGETS as u64 / 10 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, a_tenth).await.expect("a tenth of the pushes arrives");
        fixture
    }

    /// Requests that came, answered or not.
    fn arrived(&self) -> u64 {
        self.simulator.connections().list.iter().map(|connection| connection.requests).sum()
    }

    async fn signal(&self, name: &str) {
        let id = self.server.id().unwrap();
        let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().await.unwrap();
        assert!(kill.success());
    }

    /// Waits until the log says so.
    async fn logged(&mut self, text: &str) {
        while !timeout(LONG, self.log.next_line()).await.unwrap().unwrap().expect(text).contains(text) {}
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(LONG, self.server.wait()).await.expect("the server did not end").unwrap()
    }
}

impl Drop for ShutdownFixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn configuration(directory: &Path, simulator: &Simulator, settings: &str) -> PathBuf {
    let (url, ca) = (simulator.apns_url(), simulator.credentials().ca_pem.display().to_string());
    let text = format!(
        "listen = \"127.0.0.1:0\"\nendpoints.apns.production = {url:?}\ntls.extra_roots = [{ca:?}]\n{settings}"
    );
    let file = directory.join("pushlet.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Registers an application, sends to many targets in one request, and waits for the answer.
async fn batch(address: String, pem: Vec<u8>) -> reqwest::Result<(u16, Value)> {
    let client = pushlet_test_support::http_client();
    let application = json!({ "provider": "apns", "apns_pem": String::from_utf8(pem).unwrap() });
    let registered = client.put(format!("{address}/v1/applications/app")).body(application.to_string());
    registered.header("content-type", "application/json").send().await?.error_for_status()?;
    let targets: Vec<String> = (0..TARGETS).map(|target| format!("{target:064x}")).collect();
    let body = json!({ "application_id": "app", "notification": { "body": "hello" }, "targets": targets });
    let request = client.post(format!("{address}/v1/notifications")).body(body.to_string());
    let response = request.header("content-type", "application/json").send().await?;
    let status = response.status().as_u16();
    Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap()))
}

#[tokio::test]
async fn sigterm_in_the_middle_of_a_batch_loses_no_answer() {
    let mut fixture = ShutdownFixture::new("", Duration::from_millis(1500)).await;
    fixture.signal("TERM").await;
    fixture.logged("stopping").await;
    // It accepts nobody any more.
    let socket = fixture.address.strip_prefix("http://").unwrap().to_owned();
    assert!(tokio::net::TcpStream::connect(socket).await.is_err());
    let (status, answer) = timeout(LONG, &mut fixture.answer).await.unwrap().unwrap().unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"].as_array().unwrap().len(), TARGETS);
    assert_eq!(answer["summary"]["delivered"], TARGETS, "{}", answer["summary"]);
    assert!(fixture.ended().await.success());
    assert_eq!(fixture.simulator.counts().apns.delivered, TARGETS as u64);
    assert_eq!(fixture.simulator.connections().apns.open, 0);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_given_up() {
    let mut fixture = ShutdownFixture::new("delivery.drain = \"100ms\"\n", LONG).await;
    fixture.signal("TERM").await;
    fixture.logged("stopped before everything was finished").await;
    assert!(fixture.ended().await.success());
    assert!(timeout(LONG, &mut fixture.answer).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut fixture = ShutdownFixture::new("", LONG).await;
    fixture.signal("INT").await;
    fixture.logged("stopping").await;
    fixture.signal("TERM").await;
    // As a shell reports a program that SIGTERM ended.
    assert_eq!(fixture.ended().await.code(), Some(128 + 15));
}
