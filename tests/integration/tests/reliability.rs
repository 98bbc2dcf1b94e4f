//! Credentials that end or are replaced, and applications that do not get in each other's way.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pushlet::bootstrap;
use pushlet_gateway::{Gateway, Registration};
use pushlet_model::tenant::TenantId;
use pushlet_simulator::{CertificateSpec, ConnectionInfo, Script, Service};
use rcgen::{CertificateParams, KeyPair};
use reqwest::RequestBuilder;
use reqwest::multipart::Form;

use crate::harness::{DEVICE, Harness, config, expect, expect_error, wait_until};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A device whose pushes take their time.
const SLOW: &str = "510035a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9";

fn push(harness: &Harness, id: &str, device: &str) -> RequestBuilder {
    let form = [("device_token", device), ("alert", "x"), ("application_id", id)];
    harness.server.post("/send_notification").form(&form)
}

/// A push that is under way: the simulator has it and has not answered.
async fn slow(harness: &Harness, id: &str) -> tokio::task::JoinHandle<serde_json::Value> {
    let script = Script { token: Some(SLOW.into()), delay_ms: 1500, ..Script::new(Service::Apns) };
    harness.simulator.script(script).unwrap();
    let before = arrived(harness);
    let sent = tokio::spawn(expect(push(harness, id, SLOW), 200));
    wait_until("the push arrives", async || arrived(harness) > before).await;
    sent
}

/// Requests that came, answered or not.
fn arrived(harness: &Harness) -> u64 {
    harness.simulator.connections().list.iter().map(|connection| connection.requests).sum()
}

fn open(harness: &Harness) -> Vec<ConnectionInfo> {
    harness.simulator.connections().list.into_iter().filter(|connection| connection.open).collect()
}

async fn register_another_certificate(harness: &Harness, id: &str) {
    let other =
        harness.simulator.issue_certificate(&CertificateSpec::for_topic("com.example.other")).unwrap();
    let pem = other.certificate_pem + &other.key_pem;
    let form = Form::new().text("apns_pem", pem).text("application_id", id.to_owned());
    expect(harness.server.post("/register_application").multipart(form), 200).await;
}

#[tokio::test]
async fn a_replaced_certificate_moves_new_pushes_while_old_ones_finish() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let old = slow(&harness, "app").await;
    register_another_certificate(&harness, "app").await;
    expect(push(&harness, "app", DEVICE), 200).await;
    assert_eq!(open(&harness).len(), 2, "the old push is still under way");
    old.await.unwrap();
    wait_until("the old connection closes", async || open(&harness).len() == 1).await;
    let left = open(&harness).pop().unwrap().client_certificate.unwrap();
    assert!(left.subject.contains("com.example.other"), "{}", left.subject);
    expect(push(&harness, "app", DEVICE), 200).await;
    assert_eq!(harness.simulator.connections().apns.accepted, 2);
}

#[tokio::test]
async fn a_certificate_that_another_application_uses_keeps_its_connection() {
    let harness = Harness::new().await;
    harness.register_apns("one").await;
    harness.register_apns("two").await;
    register_another_certificate(&harness, "three").await;
    expect(push(&harness, "one", DEVICE), 200).await;
    expect(push(&harness, "three", DEVICE), 200).await;
    register_another_certificate(&harness, "one").await;
    // Replaced later, and used by no other application: once its connection is closed, the first would be too.
    register_another_certificate(&harness, "three").await;
    wait_until("the third application's connection closes", async || open(&harness).len() < 2).await;
    expect(push(&harness, "two", DEVICE), 200).await;
    assert_eq!(harness.simulator.connections().apns.accepted, 2);

    let removed = harness.server.client.delete(harness.server.url("/v1/applications/two"));
    assert_eq!(removed.send().await.unwrap().status(), 204);
    wait_until("all connections close", async || open(&harness).is_empty()).await;
}

#[tokio::test]
async fn one_application_leaves_room_for_others() {
    let harness = Harness::with("limits.application_requests = 1\n").await;
    harness.register_apns("one").await;
    harness.register_apns("two").await;
    let under_way = slow(&harness, "one").await;
    let busy = push(&harness, "one", DEVICE).send().await.unwrap();
    assert!(busy.headers().contains_key("retry-after"));
    expect_error(push(&harness, "one", DEVICE), 503, "application_busy").await;
    expect(push(&harness, "two", DEVICE), 200).await;
    under_way.await.unwrap();
    expect(push(&harness, "one", DEVICE), 200).await;
}

/// Registers an application whose certificate ends after so long.
async fn register_until(gateway: &Gateway, id: &str, time: Duration) {
    let mut params = CertificateParams::new([]).unwrap();
    params.not_after = (SystemTime::now() + time).into();
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
    let fields = BTreeMap::from([
        ("apns_pem".to_owned(), pem.into_bytes()),
        ("apns_topic".to_owned(), b"com.example.app".to_vec()),
    ]);
    let registration = Registration {
        application_id: Some(id.to_owned()),
        provider: Some("apns".to_owned()),
        environment: None,
        fields,
        strict: false,
    };
    let gateway = gateway.clone();
    gateway.register(TenantId::default_tenant(), registration).await.unwrap();
}

#[tokio::test]
async fn certificates_that_end_soon_are_told() {
    let gateway = bootstrap::gateway(&config("")).unwrap();
    register_until(&gateway, "later", 40 * DAY).await;
    register_until(&gateway, "soon", 10 * DAY + DAY / 2).await;
    register_until(&gateway, "sooner", 2 * DAY + DAY / 2).await;
    let expiring = || -> Vec<(String, i64)> {
        gateway.expiring().into_iter().map(|expiring| (expiring.application, expiring.days)).collect()
    };
    assert_eq!(expiring(), [("sooner".to_owned(), 2), ("soon".to_owned(), 10)]);
    register_until(&gateway, "sooner", 365 * DAY).await;
    assert_eq!(expiring(), [("soon".to_owned(), 10)]);
}
