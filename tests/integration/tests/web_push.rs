//! Web Push against the simulator, which is the push service and the browser.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::harness::{Harness, expect, expect_error};
use crate::upload::PROGRAM;
use pushlet_simulator::{Received, Service};

/// RFC 8291 section 5: any key will do.
const PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
const PUBLIC: &str =
    "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";

pub async fn register(harness: &Harness, id: &str) {
    let body = json!({
        "provider": "webpush",
        "settings": { "vapid_subject": "mailto:push@example.com" },
        "credentials": { "vapid_private_key": PRIVATE },
    });
    expect(harness.server.put(&format!("/v1/applications/{id}")).json(&body), 200).await;
}

/// A subscription's target.
pub fn target(harness: &Harness, id: &str, application_key: Option<&str>) -> Value {
    let subscription =
        harness.simulator.subscribe(id, application_key, &harness.simulator.google_url()).unwrap();
    let (endpoint, keys) = (subscription.endpoint, subscription.keys);
    json!({ "url": endpoint, "options": { "p256dh": keys.p256dh, "auth": keys.auth } })
}

async fn harness() -> Harness {
    // Encryption takes its time in a debug build.
    let harness = Harness::with("delivery.retries = 0\ndelivery.deadline = \"60s\"").await;
    register(&harness, "web").await;
    harness
}

async fn send(harness: &Harness, targets: &[Value], notification: Value) -> Vec<Value> {
    let body = json!({ "application_id": "web", "notification": notification, "targets": targets });
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    answer["results"].as_array().unwrap().clone()
}

fn pushes(harness: &Harness) -> Vec<Received> {
    harness.received(Service::Webpush)
}

#[tokio::test]
async fn a_browser_reads_what_was_sent() {
    let harness = harness().await;
    let target = target(&harness, "a", Some(PUBLIC));
    let notification = json!({
        "title": "Order 7", "body": "On its way", "data": { "order": 7 }, "ttl": 60, "priority": "high",
        "collapse_key": "order-7",
    });
    let results = send(&harness, &[target], notification).await;
    assert_eq!(results[0]["status"], "delivered", "{results:?}");
    assert!(results[0]["id"].as_str().unwrap().starts_with("/m/a/"), "{results:?}");
    let push = &pushes(&harness)[0];
    let read: Value = serde_json::from_str(&push.body).unwrap();
    let shown = json!({ "title": "Order 7", "body": "On its way" });
    assert_eq!(read, json!({ "notification": shown, "data": { "order": 7 } }));
    assert_eq!(push.path, "/wpush/v2/a");
    let headers = ["ttl", "urgency", "topic", "content-encoding"].map(|name| push.header(name).unwrap());
    assert_eq!(headers, ["60", "high", "34z4AifsMjeSLfDs2IOFxUbkoxvbgSew", "aes128gcm"]);
    let authorization = push.header("authorization").unwrap();
    assert!(authorization.starts_with("vapid t=") && authorization.ends_with(PUBLIC), "{authorization}");
}

/// Each message is encrypted for its own subscription: the simulator decrypts it with the key of that one.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_subscriptions_have_keys_of_their_own() {
    let harness = harness().await;
    let targets: Vec<Value> =
        (0..2000).map(|number| target(&harness, &format!("s{number}"), Some(PUBLIC))).collect();
    let results = send(&harness, &targets, json!({ "body": "hello" })).await;
    let delivered = results.iter().filter(|result| result["status"] == "delivered").count();
    assert_eq!(delivered, 2000, "{:?}", results.iter().find(|result| result["status"] != "delivered"));
    let pushes = pushes(&harness);
    let mut arrived: BTreeMap<&str, usize> = BTreeMap::new();
    for push in &pushes {
        assert_eq!(push.body, r#"{"notification":{"body":"hello"}}"#, "{}", push.path);
        *arrived.entry(&push.path).or_default() += 1;
    }
    assert_eq!((arrived.len(), arrived.values().max()), (2000, Some(&1)), "each once");
    let tokens: BTreeSet<&str> = pushes.iter().map(|push| push.header("authorization").unwrap()).collect();
    assert_eq!(tokens.len(), 1, "one token for one origin");
}

/// What the simulator decrypts with one key is not for another one: the test above could fail.
#[tokio::test]
async fn keys_that_were_mixed_up_are_found() {
    let harness = harness().await;
    let (mut one, two) = (target(&harness, "one", None), target(&harness, "two", None));
    one["options"] = two["options"].clone();
    let results = send(&harness, &[one], json!({ "body": "hello" })).await;
    assert_eq!((&results[0]["status"], &results[0]["code"]), (&json!("rejected"), &json!("110")));
    assert_eq!(results[0]["message"], "the browser could not decrypt it");
}

#[tokio::test]
async fn answers_become_results() {
    let harness = harness().await;
    for (id, status, code) in [
        ("gone", "unregistered", "106"),
        ("missing", "unregistered", "102"),
        ("busy", "unavailable", "201"),
        ("flood", "throttled", "0"),
        ("broken", "unavailable", "999"),
        ("mismatch", "rejected", "vapid_key_mismatch"),
    ] {
        let results = send(&harness, &[target(&harness, id, None)], json!({ "body": "x" })).await;
        assert_eq!(
            (&results[0]["status"], &results[0]["code"]),
            (&json!(status), &json!(code)),
            "{results:?}"
        );
    }
    let other = target(
        &harness,
        "other",
        Some("BDd3_hVL9fZi9Ybo2UUzA284WG5FZR30_95YeZJsiApwXKpNcF1rRPF3foIiBHXRdJI2Qhumhf6_LFTeZaNndIo"),
    );
    let results = send(&harness, &[other], json!({ "body": "x" })).await;
    assert_eq!(results[0]["status"], "credential_rejected", "{results:?}");
    let feedback = expect(harness.server.get("/v1/applications/web/feedback"), 200).await.to_string();
    assert!(feedback.contains("/wpush/v2/gone") && feedback.contains("/wpush/v2/missing"), "{feedback}");
    assert!(!feedback.contains("mismatch"), "{feedback}");
}

/// RFC 8292 section 2: the token names the origin of the subscription, wherever the operator sends the push.
#[tokio::test]
async fn a_token_names_the_origin_of_the_subscription() {
    let harness = harness().await;
    let subscription = harness.simulator.subscribe("far", None, "https://push.example").unwrap();
    let keys = subscription.keys;
    let target =
        json!({ "url": subscription.endpoint, "options": { "p256dh": keys.p256dh, "auth": keys.auth } });
    let results = send(&harness, &[target], json!({ "body": "x" })).await;
    assert_eq!(results[0]["status"], "delivered", "{results:?}");
    let push = pushes(&harness).pop().unwrap();
    let token =
        push.header("authorization").unwrap().strip_prefix("vapid t=").unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://push.example");
    assert_eq!(claims["sub"], "mailto:push@example.com");
}

#[tokio::test]
async fn browsers_get_the_applications_public_key_from_the_api() {
    let harness = harness().await;
    let shown = expect(harness.server.get("/v1/applications/web"), 200).await;
    assert_eq!(shown["settings"]["vapid_public_key"], PUBLIC, "{shown}");
    assert!(!shown.to_string().contains(PRIVATE));
    let body = json!({
        "provider": "webpush", "settings": { "vapid_subject": "mailto:a@example.com" },
        "credentials": { "vapid_private_key": "no key" },
    });
    let refused = harness.server.put("/v1/applications/bad").json(&body);
    expect_error(refused, 400, "invalid_vapid_private_key").await;
}

#[tokio::test]
async fn a_key_that_pushlet_made_is_a_key() {
    let directory = super::harness::Directory::new();
    let file = directory.path().join("vapid.key");
    let made = tokio::process::Command::new(PROGRAM).arg("vapid-key").arg(&file).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let public = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let private = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = tokio::process::Command::new(PROGRAM).arg("vapid-key").arg(&file).output().await.unwrap();
    assert!(!again.status.success(), "a key is not written over another one");
    let harness = Harness::new().await;
    let body = json!({
        "provider": "webpush", "settings": { "vapid_subject": "mailto:a@example.com" },
        "credentials": { "vapid_private_key": private },
    });
    expect(harness.server.put("/v1/applications/web").json(&body), 200).await;
    let shown = expect(harness.server.get("/v1/applications/web"), 200).await;
    assert_eq!(shown["settings"]["vapid_public_key"], public.as_str());
    let results = send(&harness, &[target(&harness, "a", Some(&public))], json!({ "body": "x" })).await;
    assert_eq!(results[0]["status"], "delivered", "{results:?}");
}

#[tokio::test]
async fn a_declarative_message_passes_and_nothing_wakes() {
    let harness = harness().await;
    let target = target(&harness, "a", None);
    let notification = json!({ "title": "Order 7", "navigate": "https://shop.example/7" });
    send(&harness, std::slice::from_ref(&target), notification).await;
    let bare = json!({ "url": target["url"] });
    let results = send(&harness, &[bare], json!({})).await;
    assert_eq!(results[0]["status"], "delivered", "a push without a message needs no keys: {results:?}");
    let pushes = pushes(&harness);
    let shown = json!({ "title": "Order 7", "navigate": "https://shop.example/7" });
    let read: Value = serde_json::from_str(&pushes[0].body).unwrap();
    assert_eq!(read, json!({ "web_push": 8030, "notification": shown }));
    assert_eq!((pushes[1].body.as_str(), pushes[1].header("content-encoding")), ("", None));
}
