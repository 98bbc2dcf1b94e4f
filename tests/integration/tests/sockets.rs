//! Which connections a push opens, uses and shares.

use pushlet_simulator::{CertificateSpec, Service};
use reqwest::multipart::Form;

use crate::harness::{DEVICE, Harness, expect};

async fn send(harness: &Harness, id: &str) {
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", id)];
    expect(harness.server.post("/send_notification").form(&form), 200).await;
}

#[tokio::test]
async fn registration_opens_none_the_first_push_one_and_the_second_none() {
    let harness = Harness::new().await;
    let accepted = || harness.simulator.connections().apns.accepted;
    harness.register_apns("app").await;
    assert_eq!(accepted(), 0);
    send(&harness, "app").await;
    assert_eq!(accepted(), 1);
    send(&harness, "app").await;
    send(&harness, "app").await;
    assert_eq!(accepted(), 1);
}

#[tokio::test]
async fn applications_with_different_certificates_never_share_a_socket() {
    let harness = Harness::new().await;
    harness.register_apns("one").await;
    let other =
        harness.simulator.issue_certificate(&CertificateSpec::for_topic("com.example.other")).unwrap();
    let pem = other.certificate_pem + &other.key_pem;
    let form = Form::new().text("apns_pem", pem).text("application_id", "two");
    expect(harness.server.post("/register_application").multipart(form), 200).await;
    for id in ["one", "two", "one", "two"] {
        send(&harness, id).await;
    }
    let pushes = harness.received(Service::Apns);
    assert_eq!(pushes.len(), 4);
    let subject = |index: usize| pushes[index].client_certificate.as_ref().unwrap().subject.clone();
    assert_ne!(pushes[0].connection, pushes[1].connection);
    assert_eq!(pushes[0].connection, pushes[2].connection);
    assert_eq!(pushes[1].connection, pushes[3].connection);
    assert!(subject(0).contains("com.example.app") && subject(1).contains("com.example.other"));
}

#[tokio::test]
async fn the_mode_chooses_the_server() {
    let harness = Harness::new().await;
    let (dead, simulator) = ("https://127.0.0.1:9", harness.simulator.apns_url());
    let settings = format!(
        "listen = \"127.0.0.1:0\"\ndelivery.retries = 0\nendpoints.apns = {{ production = {dead:?}, development = {simulator:?} }}\ntls.extra_roots = [{:?}]",
        harness.simulator.credentials().ca_pem.display().to_string()
    );
    let server = crate::harness::Pushlet::start(&settings).await;
    let pem = String::from_utf8(harness.file(&harness.simulator.credentials().apns_pem)).unwrap();
    let register = |id: &str, mode: &str| {
        let form = Form::new().text("apns_pem", pem.clone()).text("application_id", id.to_owned());
        server.post("/register_application").multipart(form.text("apns_mode", mode.to_owned()))
    };
    expect(register("dev", "development"), 200).await;
    expect(register("prod", "production"), 200).await;
    let send = |id: &str| {
        let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", id)];
        server.post("/send_notification").form(&form)
    };
    expect(send("dev"), 200).await;
    let error: serde_json::Value = send("prod").send().await.unwrap().json().await.unwrap();
    assert_eq!(error["error"], "vendor_unreachable");
    assert_eq!(error["message"], "the push service could not be reached: no connection could be opened");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let harness = Harness::new().await;
    let settings = crate::harness::pointing_at(&harness.simulator, "delivery.retries = 0");
    let without_root: String =
        settings.lines().filter(|line| !line.starts_with("tls.")).map(|line| format!("{line}\n")).collect();
    let server = crate::harness::Pushlet::start(&without_root).await;
    let form = [("device_token", "t"), ("gcm_api_key", "KEY"), ("data", r#"{"a":"b"}"#)];
    let send = server.post("/send_notification").form(&form);
    let error: serde_json::Value = send.send().await.unwrap().json().await.unwrap();
    assert_eq!(error["error"], "vendor_unreachable");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("the TLS handshake failed: invalid peer certificate: UnknownIssuer"),
        "{message}"
    );
    assert!(harness.simulator.received().is_empty());
}
