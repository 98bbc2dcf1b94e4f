//! Providers that speak over a byte stream, against servers that were written from the protocols' documents.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::harness::{Harness, Pushlet, expect, expect_error, pointing_at, wait_until};
use pushlet_simulator::{ApnsBinary, Simulator, Smpp};
use reqwest::multipart::{Form, Part};

/// A device token with a number in it.
fn token(number: u8) -> String {
    format!("{number:02x}{}", "5a".repeat(31))
}

fn bad_token(status: u8, number: u8) -> String {
    format!("bad0{status:02}{number:02x}{}", "5a".repeat(28))
}

struct BinaryHarness {
    gateway: ApnsBinary,
    harness: Harness,
}

impl BinaryHarness {
    /// With a registered application `app`.
    async fn new() -> Self {
        let directory = super::harness::Directory::new();
        let simulator =
            Simulator::start(pushlet_simulator::Options::ephemeral(directory.path())).await.unwrap();
        let gateway = simulator.start_apns_binary().await.unwrap();
        let (push, feedback) = (gateway.gateway_url(), gateway.feedback_url());
        let settings = format!(
            "endpoints.apns-binary.push.production = {push:?}\nendpoints.apns-binary.feedback.production = {feedback:?}\n"
        );
        let server = Pushlet::start(&pointing_at(&simulator, &settings)).await;
        let this = Self { gateway, harness: Harness::of(simulator, server, directory) };
        this.register("app", &[]).await;
        this
    }

    async fn register(&self, id: &str, settings: &[(&str, &str)]) {
        let pem = self.harness.file(&self.harness.simulator.credentials().apns_pem);
        let mut form = Form::new()
            .part("apns_binary_pem", Part::bytes(pem))
            .text("application_id", id.to_owned())
            .text("settle_time", "400");
        for (name, value) in settings {
            form = form.text(name.to_string(), value.to_string());
        }
        expect(self.harness.server.post("/register_application").multipart(form), 200).await;
    }

    /// Sends to all tokens at once. Returns the results in order.
    async fn send(&self, tokens: &[String]) -> Vec<Value> {
        let body = json!({ "application_id": "app", "notification": { "body": "hi" }, "targets": tokens });
        let answer = expect(self.harness.server.post("/v1/notifications").json(&body), 200).await;
        answer["results"].as_array().unwrap().clone()
    }

    fn accepted(&self) -> Vec<String> {
        self.gateway.traffic().accepted.into_iter().map(|notification| notification.token).collect()
    }
}

fn statuses(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().unwrap()).collect()
}

/// The original delivered 18 of these, and said ok to all.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_and_20_good_ones_back_to_back_are_20_delivered_and_1_rejected() {
    let harness = BinaryHarness::new().await;
    let mut tokens = vec![bad_token(8, 0)];
    tokens.extend((0..20).map(token));
    let results = harness.send(&tokens).await;
    assert_eq!(results[0]["status"], "rejected", "{}", results[0]);
    assert_eq!(results[0]["code"], "invalid_token");
    assert!(statuses(&results[1..]).iter().all(|status| *status == "delivered"), "{results:?}");
    let accepted = harness.accepted();
    assert_eq!(accepted.len(), 20, "none is sent twice");
    assert_eq!(accepted.into_iter().collect::<BTreeSet<_>>(), (0..20).map(token).collect());
    assert_eq!(harness.gateway.traffic().connections, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bad_tokens_lose_nothing() {
    let harness = BinaryHarness::new().await;
    let good: Vec<String> = (0..200).map(token).collect();
    let mut tokens = good.clone();
    for (place, status) in [(150, 8), (100, 5), (100, 8), (50, 7), (3, 8), (0, 2)] {
        tokens.insert(place, bad_token(status, place as u8));
    }
    let results = harness.send(&tokens).await;
    for (token, result) in tokens.iter().zip(&results) {
        let expected = if token.starts_with("bad0") { "rejected" } else { "delivered" };
        assert_eq!(result["status"], expected, "{token}: {result}");
    }
    let accepted = harness.accepted();
    assert_eq!((accepted.len(), accepted.into_iter().collect::<BTreeSet<_>>().len()), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_routes_speak_the_binary_protocol() {
    let harness = BinaryHarness::new().await;
    let server = &harness.harness.server;
    harness.register("one", &[("command", "1")]).await;
    let send = |id: &str, token: String| {
        let fields = [("application_id", id.to_owned()), ("device_token", token), ("alert", "hi".to_owned())];
        server.post("/send_notification").form(&fields)
    };
    assert_eq!(expect(send("app", token(1)), 200).await, json!({ "response": "ok" }));
    assert_eq!(expect(send("one", token(2)), 200).await, json!({ "response": "ok" }));
    expect_error(send("app", bad_token(8, 1)), 400, "invalid_token").await;
    expect_error(send("app", "zz".to_owned()), 400, "invalid_device_token").await;
    let accepted = harness.gateway.traffic().accepted;
    assert_eq!(accepted.iter().map(|one| one.command).collect::<Vec<_>>(), [2, 1]);
    assert!(accepted.iter().all(|one| one.payload == br#"{"aps":{"alert":"hi"}}"#), "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feedback_service_is_part_of_the_feedback() {
    let harness = BinaryHarness::new().await;
    harness.gateway.add_feedback(1_700_000_000, [0x5a; 32]);
    let read = || harness.harness.server.post("/application_feedback").form(&[("application_id", "app")]);
    let list = json!([{ "device_token": "5a".repeat(32), "timestamp": "2023-11-14T22:13:20Z" }]);
    assert_eq!(expect(read(), 200).await, json!({ "response": list }));
    assert_eq!(expect(read(), 200).await, json!({ "response": [] }));
    assert_eq!(harness.gateway.traffic().feedback_reads, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_opens_no_connection_and_finds_what_is_wrong() {
    let harness = BinaryHarness::new().await;
    let body = json!({
        "application_id": "app", "notification": { "body": "hi" }, "targets": [token(1), "zz"], "validate_only": true,
    });
    let answer = expect(harness.harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(statuses(answer["results"].as_array().unwrap()), ["valid", "rejected"], "{answer}");
    assert_eq!(harness.gateway.traffic().connections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_and_ends_with_its_application() {
    let harness = BinaryHarness::new().await;
    for number in 0..3 {
        assert_eq!(statuses(&harness.send(&[token(number)]).await), ["delivered"]);
    }
    assert_eq!(harness.gateway.traffic().connections, 1);
    harness.register("app", &[]).await;
    assert_eq!(statuses(&harness.send(&[token(9)]).await), ["delivered"]);
    assert_eq!(harness.gateway.traffic().connections, 2, "another registration has a connection of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_the_provider_is_off() {
    let harness = Harness::new().await;
    let pem = harness.file(&harness.simulator.credentials().apns_pem);
    let form = Form::new().part("apns_binary_pem", Part::bytes(pem)).text("application_id", "app");
    let register = harness.server.post("/register_application").multipart(form);
    expect_error(register, 400, "endpoint_not_configured").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_is_reported_as_such() {
    let harness = BinaryHarness::new().await;
    let BinaryHarness { gateway, harness } = harness;
    drop(gateway);
    let body = json!({ "application_id": "app", "notification": { "body": "hi" }, "targets": [token(1)], "deadline": 1.0 });
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(answer["results"][0]["status"], "unavailable", "{answer}");
}

/// A server with a message centre, and an application `sms`.
async fn smpp(settings: &[(&str, &str)]) -> (Harness, Smpp) {
    let directory = super::harness::Directory::new();
    let simulator = Simulator::start(pushlet_simulator::Options::ephemeral(directory.path())).await.unwrap();
    let centre = simulator.start_smpp().await.unwrap();
    let url = centre.url();
    let server =
        Pushlet::start(&pointing_at(&simulator, &format!("endpoints.smpp.production = {url:?}\n"))).await;
    let mut fields = vec![
        ("application_id", "sms"),
        ("smpp_system_id", "pushlet"),
        ("smpp_password", "secret"),
        ("smpp_source_address", "Pushlet"),
    ];
    for (name, value) in settings {
        fields.retain(|(known, _)| known != name);
        fields.push((name, value));
    }
    expect(server.post("/register_application").form(&fields), 200).await;
    (Harness::of(simulator, server, directory), centre)
}

async fn send_text(harness: &Harness, text: &str, numbers: &[&str]) -> Vec<Value> {
    let body = json!({ "application_id": "sms", "notification": { "body": text }, "targets": numbers });
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    answer["results"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_messages_are_delivered_once_each() {
    let (harness, centre) = smpp(&[]).await;
    let numbers: Vec<String> = (0..100).map(|number| format!("+49170{number:07}")).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let results = send_text(&harness, "Hello", &numbers).await;
    assert!(statuses(&results).iter().all(|status| *status == "delivered"), "{results:?}");
    let traffic = centre.traffic();
    let to: BTreeSet<String> =
        traffic.accepted.iter().map(|message| format!("+{}", message.destination.2)).collect();
    assert_eq!(
        (traffic.accepted.len(), to),
        (100, numbers.iter().map(|number| number.to_string()).collect())
    );
    let first = &traffic.accepted[0];
    assert_eq!((&first.source, &*first.message), (&(5, 0, "Pushlet".to_owned()), &b"Hello"[..]));
    assert_eq!(traffic.binds, 1);
    assert!(results[0]["id"].as_str().unwrap().starts_with("1-"), "{}", results[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_centres_statuses_become_results() {
    let (harness, centre) = smpp(&[]).await;
    let numbers = ["999011", "999255", "4917000000", "999123"];
    let results = send_text(&harness, "x", &numbers).await;
    assert_eq!(statuses(&results), ["rejected", "unknown", "delivered", "unknown"], "{results:?}");
    let body = json!({ "application_id": "sms", "notification": { "body": "x" }, "targets": ["999088"], "deadline": 0.9 });
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(answer["results"][0]["status"], "throttled", "{answer}");
    assert_eq!(centre.traffic().accepted.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_go_out_in_parts_or_as_a_payload() {
    let (harness, centre) = smpp(&[]).await;
    assert_eq!(statuses(&send_text(&harness, &"€".repeat(100), &["4917000001"]).await), ["delivered"]);
    let parts = centre.traffic().accepted;
    assert_eq!(parts.iter().map(|part| part.esm_class).collect::<Vec<_>>(), [0x40, 0x40]);
    let octets: Vec<u8> = parts.iter().flat_map(|part| part.message[6..].to_vec()).collect();
    assert_eq!(octets, [0x1b, 0x65].repeat(100));

    let (harness, centre) = smpp(&[("smpp_long_messages", "payload")]).await;
    assert_eq!(statuses(&send_text(&harness, &"中".repeat(100), &["4917000001"]).await), ["delivered"]);
    let accepted = centre.traffic().accepted;
    assert_eq!((accepted.len(), accepted[0].data_coding, accepted[0].message.len()), (1, 8, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_the_operators_to_mend() {
    let (harness, centre) = smpp(&[("smpp_password", "wrong")]).await;
    let results = send_text(&harness, "x", &["4917000001"]).await;
    assert_eq!(statuses(&results), ["credential_rejected"], "{results:?}");
    assert_eq!(centre.traffic().refused_binds, [0x0e]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_takes_its_leave() {
    let (harness, centre) = smpp(&[]).await;
    send_text(&harness, "x", &["4917000001"]).await;
    harness.server.stop().await;
    wait_until("the unbind request", async || centre.traffic().commands.get(&6) == Some(&1)).await;
}
