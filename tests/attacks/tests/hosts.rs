//! The host that a request is for, and the hosts that get secrets.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Harness, PROGRAM, component, expect, expect_error};

/// Sends what it is given, as it is, and reads until the server closes the connection.
async fn raw(harness: &Harness, request: &str) -> String {
    let mut stream = TcpStream::connect(harness.server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A proxy reads one of two Host headers, and a server behind it perhaps the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_exactly_one_host_is_refused() {
    let mut harness = Harness::start("").await;
    harness.register_apns(&harness.attacker, "app").await;
    let body =
        json!({"application_id": "app", "notification": {"body": "x"}, "targets": ["00aa"]}).to_string();
    let ask = async |version: &str, hosts: &str| {
        let request = format!(
            "POST /v1/notifications HTTP/{version}\r\n{hosts}authorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            harness.attacker,
            body.len()
        );
        raw(&harness, &request).await
    };
    let attack = async || {
        for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n", "host: a\r\nHost: a, b\r\n"] {
            let answer = ask("1.1", hosts).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{hosts:?}: {answer}");
            assert!(answer.contains("\"invalid_host\""), "{hosts:?}: {answer}");
        }
    };
    harness.victim.unharmed_by(attack).await;
    let pushes = || harness.simulator.received().iter().filter(|push| push.path.ends_with("00aa")).count();
    assert_eq!(pushes(), 0, "none of these was sent");
    // One Host is enough, and HTTP/1.0 may do without.
    for (version, hosts) in [("1.1", "host: a\r\n"), ("1.0", "")] {
        let answer = ask(version, hosts).await;
        assert!(answer.contains(" 200 OK\r\n") && answer.contains("\"delivered\":1"), "{answer}");
    }
    assert_eq!(pushes(), 2);
    harness.server.assert_alive();
}

/// Runs `pushlet provider upload webhook` with the attacker's key.
fn upload(harness: &Harness, guest: &str, arguments: &[&str]) -> Output {
    let file = harness.directory.path().join("webhook.wasm");
    std::fs::write(&file, component(guest)).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["provider", "upload", "webhook"]).arg(file).args(arguments).env_clear();
    command.args(["--server", &harness.server.url(""), "--api-key", &harness.attacker]);
    command.output().unwrap()
}

async fn version(harness: &Harness) -> Value {
    expect(harness.attack(Method::GET, "/v1/providers/webhook"), 200).await["manifest"]["version"].clone()
}

/// The attacker is the component's author; his users' secrets go where they have agreed to.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_sends_secrets_to_another_host_waits_for_a_confirmation() {
    let mut harness = Harness::start("").await;
    let elsewhere = "https://elsewhere.example";
    let succeeds = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    succeeds(upload(&harness, "webhook", &[]));
    for arguments in [&[][..], &["--confirm-hosts", "https://hooks.example"]] {
        let refused = upload(&harness, "webhook_elsewhere", arguments);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{told}");
        assert!(told.contains("hosts_changed") || told.contains("confirm"), "{told}");
        assert!(told.contains(elsewhere), "it names the host: {told}");
        assert_eq!(version(&harness).await, "1");
    }
    let path = "/v1/providers/webhook?confirm_hosts=https://hooks.example";
    let request = harness.attack(Method::PUT, path).header("content-type", "application/wasm");
    let refused = expect_error(request.body(component("webhook_elsewhere")), 409, "hosts_changed").await;
    assert_eq!(refused["hosts"][0]["host"], elsewhere, "{refused}");
    succeeds(upload(&harness, "webhook_elsewhere", &["--confirm-hosts", elsewhere]));
    assert_eq!(version(&harness).await, "3");
    harness.victim.push().await;
    harness.server.assert_alive();
}
