//! Each limit refuses what is over it, with its name and a time to wait.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use super::{change, expect_limit, harness_with_operator, make, pushes, register, send, used};
use crate::harness::{Harness, expect, wait_for, wait_until};

/// A tenant with an application and these limits; its key.
async fn limited(limits: Value) -> (Harness, String) {
    let harness = harness_with_operator("").await;
    let key = make(&harness.server, "acme", &json!({})).await;
    expect(register(&harness, &key, "shop"), 200).await;
    change(&harness.server, "acme", &json!({ "limits": limits })).await;
    (harness, key)
}

#[tokio::test]
async fn requests_per_second() {
    let (harness, key) = limited(json!({"requests_per_second": 3})).await;
    let other = make(&harness.server, "other", &json!({})).await;
    let ask = |key: &str| harness.server.get("/v1/applications").bearer_auth(key);
    let mut refused = 0;
    // However slow this machine is, a hundred do not take half a minute.
    for _ in 0..100 {
        let status = ask(&key).send().await.unwrap().status().as_u16();
        assert!(status == 200 || status == 429, "{status}");
        refused += u32::from(status == 429);
    }
    assert!(refused > 0);
    let response = refusal(|| ask(&key)).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body["error"], "limit_requests_per_second");
    expect(ask(&other), 200).await;
    let (used, most) = used(&harness.server, "acme", "requests_per_second").await;
    assert!(used.as_u64().unwrap() >= 1 && most == 3, "{used} of {most}");
}

#[tokio::test]
async fn pushes_per_second() {
    let (harness, key) = limited(json!({"pushes_per_second": 2})).await;
    expect(send(&harness, &key, "shop", 500), 200).await;
    assert_eq!(pushes(&harness), 500, "more than a second's worth goes when nothing is owed");
    expect_limit(send(&harness, &key, "shop", 1), "pushes_per_second").await;
    let notifications = json!([{"notification": {"body": "x"}, "target": "a"}]);
    let body = json!({"application_id": "shop", "notifications": notifications});
    let different = harness.server.post("/v1/notifications").bearer_auth(&key).json(&body);
    expect_limit(different, "pushes_per_second").await;
    let form = [("application_id", "shop"), ("device_token", "a"), ("alert", "x"), ("type", "fcm")];
    let classic = harness.server.post("/send_notification").bearer_auth(&key).form(&form);
    expect_limit(classic, "pushes_per_second").await;
    assert_eq!(pushes(&harness), 500);
    let (used, most) = used(&harness.server, "acme", "pushes_per_second").await;
    assert!(used.as_u64().unwrap() > 2 && most == 2, "{used} of {most}");
    let other = make(&harness.server, "other", &json!({})).await;
    expect(register(&harness, &other, "shop"), 200).await;
    expect(send(&harness, &other, "shop", 1), 200).await;
}

#[tokio::test]
async fn a_stream_is_paced() {
    let (harness, key) = limited(json!({"pushes_per_second": 20})).await;
    let mut lines = json!({"application_id": "shop", "notification": {"body": "x"}}).to_string();
    (0..30).for_each(|number| lines += &format!("\n{{\"target\": \"device-{number}\"}}"));
    let start = std::time::Instant::now();
    let stream = harness.server.stream().bearer_auth(&key).body(lines);
    let text =
        stream.header("content-type", "application/x-ndjson").send().await.unwrap().text().await.unwrap();
    let end: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(end["summary"]["delivered"], 30, "{text}");
    // A second's worth goes at once, and the others one by one.
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(pushes(&harness), 30);
}

#[tokio::test]
async fn a_stream_of_a_tenant_that_is_suspended_comes_to_an_end() {
    let (harness, key) = limited(json!({"pushes_per_second": 1})).await;
    let mut lines = json!({"application_id": "shop", "notification": {"body": "x"}}).to_string();
    (0..1000).for_each(|number| lines += &format!("\n{{\"target\": \"device-{number}\"}}"));
    let stream = harness.server.stream().bearer_auth(&key).body(lines);
    let reading = tokio::spawn(async move {
        stream.header("content-type", "application/x-ndjson").send().await.unwrap().text().await.unwrap()
    });
    wait_until("a push arrives", async || pushes(&harness) > 0).await;
    change(&harness.server, "acme", &json!({"suspended": true})).await;
    let text = reading.await.unwrap();
    assert!(text.contains("tenant_suspended"), "{}", &text[..1000]);
    assert!(pushes(&harness) < 1000);
}

#[tokio::test]
async fn concurrent_sends() {
    let (harness, key) = limited(json!({"concurrent_sends": 1})).await;
    // A stream whose lines have not ended is a send under way.
    let (lines, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let header = json!({"application_id": "shop", "notification": {"body": "x"}}).to_string();
    lines.send(Ok(format!("{header}\n{{\"target\": \"a\"}}\n"))).await.unwrap();
    let body = futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    let stream = harness.server.stream().bearer_auth(&key);
    let stream = stream.header("content-type", "application/x-ndjson").body(reqwest::Body::wrap_stream(body));
    let reading = tokio::spawn(async move { stream.send().await.unwrap().text().await.unwrap() });
    wait_until("a push arrives", async || pushes(&harness) > 0).await;
    assert_eq!(used(&harness.server, "acme", "concurrent_sends").await, (1.into(), 1.into()));
    expect_limit(send(&harness, &key, "shop", 1), "concurrent_sends").await;
    drop(lines);
    assert!(reading.await.unwrap().contains("summary"));
    let is_over = async || used(&harness.server, "acme", "concurrent_sends").await.0 == 0;
    wait_until("the send is no longer counted", is_over).await;
    expect(send(&harness, &key, "shop", 1), 200).await;
}

#[tokio::test]
async fn applications() {
    let (harness, key) = limited(json!({"applications": 2})).await;
    expect(register(&harness, &key, "second"), 200).await;
    expect_limit(register(&harness, &key, "third"), "applications").await;
    expect(register(&harness, &key, "shop"), 200).await;
    assert_eq!(used(&harness.server, "acme", "applications").await, (2.into(), 2.into()));
    let form = [("gcm_api_key", "x"), ("type", "gcm"), ("application_id", "fourth")];
    let classic = harness.server.post("/register_application").bearer_auth(&key).form(&form);
    expect_limit(classic, "applications").await;
    let removed = harness.server.delete("/v1/applications/shop").bearer_auth(&key).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    expect(register(&harness, &key, "third"), 200).await;
}

/// Places for requests are shared: one tenant alone cannot have them all.
#[tokio::test]
async fn a_tenants_share_of_the_places_for_requests() {
    let harness = harness_with_operator("limits.requests = 4").await;
    let key = make(&harness.server, "acme", &json!({})).await;
    let other = make(&harness.server, "other", &json!({})).await;
    expect(register(&harness, &key, "shop"), 200).await;
    // Requests whose bodies never come.
    let mut open = Vec::new();
    for _ in 0..2 {
        let (sender, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        let body = futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        let request = harness.server.post("/v1/notifications").bearer_auth(&key);
        let request = request.header("content-type", "application/json");
        let request = request.body(reqwest::Body::wrap_stream(body));
        open.push((sender, tokio::spawn(request.send())));
    }
    let ask = |key: &str| harness.server.get("/v1/applications").bearer_auth(key);
    let text = refusal(|| ask(&key)).await.text().await.unwrap();
    assert!(text.contains("limit_concurrent_requests"), "{text}");
    expect(ask(&other), 200).await;
}

#[tokio::test]
async fn metrics_tell_of_the_tenant_that_is_nearest_to_each_limit() {
    let (harness, _) = limited(json!({"applications": 2})).await;
    let other = make(&harness.server, "other", &json!({"limits": {"applications": 100}})).await;
    for number in 0..3 {
        expect(register(&harness, &other, &format!("app-{number}")), 200).await;
    }
    let text = super::admin(harness.server.get("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "pushlet_limit_used{limit=\"applications\"} 1.0",
        "pushlet_limit_max{limit=\"applications\"} 2.0",
        "pushlet_limit_max{limit=\"components\"} 20.0",
    ] {
        assert!(text.contains(line), "{line} is not there: {text}");
    }
}

/// Sends until a request is refused with 429; returns that response.
async fn refusal(request: impl Fn() -> RequestBuilder) -> Response {
    wait_for("a request is over the limit", async || {
        let response = request().send().await.unwrap();
        (response.status() == 429).then_some(response)
    })
    .await
}
