//! How many requests a send takes on the wire: as few as the push service allows.

use pushlet_simulator::Service;
use reqwest::multipart::Form;
use serde_json::json;

use crate::harness::{Harness, expect};

/// Sends to so many targets; returns how many targets each request of the service named.
async fn requests(harness: &Harness, app: &str, service: Service, targets: usize) -> Vec<usize> {
    harness.simulator.clear();
    let targets: Vec<String> = (0..targets).map(|number| format!("target-{number}")).collect();
    let count = targets.len();
    let body = json!({"application_id": app, "notification": {"title": "t"}, "targets": targets});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(answer["summary"]["delivered"], count, "{}", answer["summary"]);
    let received = harness.received(service);
    let named = received.iter().map(|request| {
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        body["registration_ids"].as_array().map_or(1, Vec::len)
    });
    let mut named: Vec<usize> = named.collect();
    named.sort_unstable();
    named
}

#[tokio::test]
async fn a_thousand_gcm_ids_are_one_exchange() {
    let harness = Harness::with("delivery.retries = 0").await;
    let key = Form::new().text("gcm_api_key", "KEY").text("application_id", "legacy");
    expect(harness.server.post("/register_application").multipart(key), 200).await;
    assert_eq!(requests(&harness, "legacy", Service::Gcm, 1000).await, [1000]);
    assert_eq!(requests(&harness, "legacy", Service::Gcm, 2001).await, [1, 1000, 1000]);
}

/// HTTP v1 has no request for many tokens.
#[tokio::test]
async fn each_fcm_token_is_an_exchange() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_fcm("droid").await;
    assert_eq!(requests(&harness, "droid", Service::Fcm, 1000).await, vec![1; 1000]);
}
