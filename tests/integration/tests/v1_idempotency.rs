//! `Idempotency-Key`: a repeat is answered, not sent.

use std::time::Duration;

use pushlet_simulator::{Script, Service};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

fn send(harness: &Harness, key: &str, body: &str) -> RequestBuilder {
    let body = json!({"application_id": "app", "notification": {"body": body}, "target": DEVICE});
    harness.server.post("/v1/notifications").header("idempotency-key", key).json(&body)
}

fn classic(harness: &Harness, key: &str, alert: &str) -> RequestBuilder {
    let form = [("application_id", "app"), ("device_token", DEVICE), ("alert", alert)];
    harness.server.post("/send_notification").header("idempotency-key", key).form(&form)
}

fn pushes(harness: &Harness) -> usize {
    harness.received(Service::Apns).len()
}

fn is_replayed(response: &Response) -> bool {
    response.headers().get("idempotency-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_is_not_sent() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let first = send(&harness, "one", "x").send().await.unwrap();
    assert!(!is_replayed(&first));
    let (status, kind) = (first.status(), first.headers()["content-type"].clone());
    let body = first.text().await.unwrap();
    let again = send(&harness, "one", "x").send().await.unwrap();
    assert!(is_replayed(&again));
    assert_eq!((again.status(), &again.headers()["content-type"]), (status, &kind));
    assert_eq!(again.text().await.unwrap(), body);
    assert_eq!(pushes(&harness), 1);
    expect(send(&harness, "two", "x"), 200).await;
    assert_eq!(pushes(&harness), 2);
    expect_error(send(&harness, "one", "y"), 422, "idempotency_key_reused").await;
    expect_error(classic(&harness, "one", "x"), 422, "idempotency_key_reused").await;
    assert_eq!(pushes(&harness), 2);
}

#[tokio::test]
async fn the_classic_route_takes_keys_too() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    assert_eq!(expect(classic(&harness, "one", "x"), 200).await, json!({"response": "ok"}));
    let again = classic(&harness, "one", "x").send().await.unwrap();
    assert!(is_replayed(&again));
    assert_eq!(again.text().await.unwrap(), "{\"response\":\"ok\"}\n");
    assert_eq!(pushes(&harness), 1);
}

#[tokio::test]
async fn what_was_not_delivered_may_be_tried_again() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns("app").await;
    let refusal = |status, reason: &str| Script {
        status: Some(status),
        body: Some(json!({ "reason": reason })),
        times: Some(1),
        ..Script::new(Service::Apns)
    };
    harness.simulator.script(refusal(503, "ServiceUnavailable")).unwrap();
    harness.simulator.script(refusal(429, "TooManyRequests")).unwrap();
    let status = |answer: Value| answer["results"][0]["status"].clone();
    assert_eq!(status(expect(send(&harness, "one", "x"), 200).await), "unavailable");
    assert_eq!(status(expect(send(&harness, "one", "x"), 200).await), "throttled");
    assert_eq!(status(expect(send(&harness, "one", "x"), 200).await), "delivered");
    assert_eq!(status(expect(send(&harness, "one", "x"), 200).await), "delivered");
    assert_eq!(pushes(&harness), 3);
    // A request that is wrong as a whole is no use of its key.
    let wrong = json!({"application_id": "app", "notification": {"bodi": "x"}, "target": DEVICE});
    let wrong = harness.server.post("/v1/notifications").header("idempotency-key", "two").json(&wrong);
    expect_error(wrong, 400, "unknown_field").await;
    expect(send(&harness, "two", "x"), 200).await;
}

#[tokio::test]
async fn a_repeat_waits_for_the_first() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    harness.simulator.script(Script { delay_ms: 300, ..Script::new(Service::Apns) }).unwrap();
    let (one, two) = tokio::join!(send(&harness, "one", "x").send(), send(&harness, "one", "x").send());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(is_replayed(&one), is_replayed(&two));
    assert_eq!(one.text().await.unwrap(), two.text().await.unwrap());
    assert_eq!(pushes(&harness), 1);
}

#[tokio::test]
async fn the_answer_is_kept_for_a_caller_that_went_away() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    harness.simulator.script(Script { delay_ms: 300, ..Script::new(Service::Apns) }).unwrap();
    let impatient = send(&harness, "one", "x").timeout(Duration::from_millis(100)).send().await;
    assert!(impatient.unwrap_err().is_timeout());
    let again = send(&harness, "one", "x").send().await.unwrap();
    assert!(is_replayed(&again));
    let answer: Value = serde_json::from_str(&again.text().await.unwrap()).unwrap();
    assert_eq!((&answer["summary"]["delivered"], pushes(&harness)), (&json!(1), 1));
}

#[tokio::test]
async fn a_key_is_one_short_text() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let long = "x".repeat(256);
    for key in ["", &long, "ü"] {
        expect_error(send(&harness, key, "x"), 400, "invalid_idempotency_key").await;
    }
    expect_error(send(&harness, "a", "x").header("idempotency-key", "b"), 400, "invalid_idempotency_key")
        .await;
    assert_eq!(pushes(&harness), 0);
}
