//! What only Apple has: channels and broadcasts, Live Activities, and the other push types.

use pushlet_simulator::{Received, Script, Service};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

fn channels(harness: &Harness, rest: &str) -> String {
    harness.server.url(&format!("/v1/applications/app/channels{rest}"))
}

fn create(harness: &Harness, body: Value) -> RequestBuilder {
    harness.server.client.post(channels(harness, "")).json(&body)
}

/// A channel's id as a segment of a path.
fn segment(id: &str) -> String {
    format!("/{}", id.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"))
}

async fn send(harness: &Harness, target: Value, notification: Value) -> Value {
    let body = json!({"application_id": "app", "target": target, "notification": notification});
    expect(harness.server.post("/v1/notifications").json(&body), 200).await["results"][0].clone()
}

#[tokio::test]
async fn a_channel_is_made_read_listed_used_and_deleted() {
    let harness = Harness::new().await;
    harness.register_apns_token("app").await;
    let made = expect(create(&harness, json!({"message_storage_policy": 1})), 201).await;
    assert_eq!(made["message_storage_policy"], 1);
    let id = made["id"].as_str().unwrap().to_owned();
    let read = || harness.server.client.get(channels(&harness, &segment(&id)));
    let shown = json!({"id": id, "message_storage_policy": 1, "push_type": "LiveActivity"});
    assert_eq!(expect(read(), 200).await, shown);
    let list = || harness.server.client.get(channels(&harness, ""));
    assert_eq!(expect(list(), 200).await, json!({"channels": [{"id": id}]}));
    let update = json!({"event": "update", "content_state": {"score": "1:0"}, "priority": "high"});
    let result = send(&harness, json!({"channel": id}), update.clone()).await;
    assert_eq!(result["status"], "delivered", "{result}");
    let broadcast = harness.received(Service::Apns).pop().unwrap();
    assert_eq!(broadcast.path, "/4/broadcasts/apps/com.example.app");
    assert_eq!(broadcast.header("apns-channel-id").unwrap(), id);
    let deleted = harness.server.client.delete(channels(&harness, &segment(&id))).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    expect_error(read(), 404, "not_found").await;
    assert_eq!(expect(list(), 200).await, json!({"channels": []}));
    let result = send(&harness, json!({"channel": id}), update).await;
    assert_eq!((&result["status"], &result["code"]), (&json!("rejected"), &json!("ChannelNotRegistered")));
}

#[tokio::test]
async fn a_provider_without_channels_says_so() {
    let harness = Harness::new().await;
    let key = json!({"provider": "gcm", "gcm_api_key": "KEY"});
    expect(harness.server.put("/v1/applications/g").json(&key), 200).await;
    let message = expect_error(harness.server.get("/v1/applications/g/channels"), 404, "not_found").await;
    assert_eq!(message, "applications for gcm have no channels");
}

#[tokio::test]
async fn channels_need_no_more_than_a_certificate() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let made = expect(create(&harness, json!({"message_storage_policy": 0})), 201).await;
    assert!(made["id"].is_string());
}

#[tokio::test]
async fn what_is_wrong_with_a_channel_is_told() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns_token("app").await;
    let harness = &harness;
    let answer = expect(create(harness, json!({})), 400).await;
    assert_eq!(
        (&answer["error"], &answer["field"]),
        (&json!("missing_message_storage_policy"), &json!("message_storage_policy"))
    );
    let answer = expect(create(harness, json!({"message_storage_polici": 1})), 400).await;
    assert!(answer["message"].as_str().unwrap().contains("did you mean message_storage_policy?"), "{answer}");
    expect_error(
        create(harness, json!({"message_storage_policy": 7})),
        400,
        "invalid_message_storage_policy",
    )
    .await;
    expect_error(harness.server.client.get(channels(harness, "/a%20b")), 400, "invalid_channel").await;
    let elsewhere = harness.server.url("/v1/applications/app/topics");
    expect_error(harness.server.client.get(elsewhere), 404, "not_found").await;
    let nobody = harness.server.url("/v1/applications/nobody/channels");
    expect_error(harness.server.client.get(nobody), 404, "application_not_found").await;
    let refusal = |status, reason: &str| Script {
        status: Some(status),
        body: Some(json!({ "reason": reason })),
        times: Some(1),
        ..Script::new(Service::Apns)
    };
    for (status, reason, told, code) in [
        (400, "FeatureNotEnabled", 400, "feature_not_enabled"),
        (403, "InvalidProviderToken", 403, "invalid_provider_token"),
        (429, "TooManyRequests", 429, "too_many_requests"),
        (503, "ServiceUnavailable", 503, "service_unavailable"),
        (418, "Teapot", 400, "teapot"),
    ] {
        harness.simulator.script(refusal(status, reason)).unwrap();
        expect_error(harness.server.client.get(channels(harness, "")), told, code).await;
    }
    expect(harness.server.client.get(channels(harness, "")), 200).await;
    // An older token is made again, once: the second refusal is final.
    harness.simulator.script(Script { times: Some(2), ..refusal(403, "ExpiredProviderToken") }).unwrap();
    expect_error(harness.server.client.get(channels(harness, "")), 403, "expired_provider_token").await;
}

#[tokio::test]
async fn a_live_activity_is_started_updated_and_ended() {
    let harness = Harness::new().await;
    harness.register_apns_token("app").await;
    let start = json!({
        "event": "start", "attributes_type": "Match", "attributes": {"home": "A"}, "content_state": {"score": "0:0"},
        "title": "Kick-off", "body": "It begins", "input_push_token": true, "input_push_channel": "YQ==",
    });
    let update = json!({"event": "update", "content_state": {"score": "1:0"}, "stale_date": 1_900_000_000});
    let end = json!({"event": "end", "content_state": {"score": "1:0"}, "dismissal_date": 1_900_000_000});
    for notification in [start, update, end] {
        let result = send(&harness, json!(DEVICE), notification).await;
        assert_eq!(result["status"], "delivered", "{result}");
    }
    let received = harness.received(Service::Apns);
    for (push, event) in received.iter().zip(["start", "update", "end"]) {
        assert_eq!(push.header("apns-push-type").unwrap(), "liveactivity");
        assert_eq!(push.header("apns-topic").unwrap(), "com.example.app.push-type.liveactivity");
        let aps = aps(push);
        assert_eq!(aps["event"], event);
        assert!(aps["timestamp"].as_u64().unwrap() > 1_600_000_000, "{aps}");
    }
    let start = aps(&received[0]);
    assert_eq!((&start["input-push-token"], &start["input-push-channel"]), (&json!(1), &json!("YQ==")));
    assert_eq!(start["alert"], json!({"title": "Kick-off", "body": "It begins"}));
}

#[tokio::test]
async fn every_push_type_has_its_topic() {
    let harness = Harness::new().await;
    harness.register_apns_token("app").await;
    let data = json!({"x": 1});
    for (push_type, suffix, notification) in [
        ("widgets", ".push-type.widgets", json!({"content_changed": true})),
        ("controls", ".push-type.controls", json!({"push_type": "controls", "data": data})),
        (
            "pushtotalk",
            ".voip-ptt",
            json!({"push_type": "pushtotalk", "data": data, "ttl": 0, "priority": "high"}),
        ),
        ("location", ".location-query", json!({"push_type": "location", "data": data})),
        ("voip", ".voip", json!({"push_type": "voip", "data": data})),
        ("complication", ".complication", json!({"push_type": "complication", "data": data})),
        ("fileprovider", ".pushkit.fileprovider", json!({"push_type": "fileprovider", "data": data})),
        ("background", "", json!({"content_available": true})),
        ("alert", "", json!({"body": "x"})),
    ] {
        let result = send(&harness, json!(DEVICE), notification).await;
        assert_eq!(result["status"], "delivered", "{push_type} {result}");
        let push = harness.received(Service::Apns).pop().unwrap();
        assert_eq!(push.header("apns-push-type").unwrap(), push_type);
        assert_eq!(push.header("apns-topic").unwrap(), format!("com.example.app{suffix}"));
    }
}

fn aps(push: &Received) -> Value {
    serde_json::from_str::<Value>(&push.body).unwrap()["aps"].clone()
}
