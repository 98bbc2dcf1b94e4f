//! FCM HTTP v1.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Answer, Running, access_token, old_web, send, start, start_with, web};
use pushlet_simulator::{RetryAfter, Script, Service};

/// Documented bodies and codes, read by the tests on their own.
fn golden() -> Value {
    serde_json::from_str(include_str!("../../data/fcm_errors.json")).unwrap()
}

/// A client with an access token.
struct Fcm {
    web: reqwest::Client,
    url: String,
    token: String,
}

impl Fcm {
    async fn new(simulator: &Running) -> Fcm {
        let project = &simulator.credentials().fcm_project_id;
        let url = format!("{}/v1/projects/{project}/messages:send", simulator.google_url());
        Fcm { web: web(simulator), url, token: access_token(simulator).await }
    }

    async fn raw(&self, body: impl Into<reqwest::Body>) -> Answer {
        send(self.web.post(&self.url).bearer_auth(&self.token).body(body)).await
    }

    async fn message(&self, message: Value) -> Answer {
        self.raw(json!({ "message": message }).to_string()).await
    }
}

#[tokio::test]
async fn each_target_is_accepted_and_recorded() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let targets = [("token", "t1:abc"), ("fid", "f1"), ("topic", "news"), ("condition", "'a' in topics")];
    for (name, value) in targets {
        let answer =
            fcm.message(json!({name: value, "notification": {"title": "hi"}, "data": {"a": "b"}})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = answer.json()["name"].as_str().unwrap().to_owned();
        assert!(id.starts_with("projects/pushlet-simulator/messages/"), "{id}");
        let received = simulator.received().pop().unwrap();
        let (token, topic) = (received.token.as_deref(), received.topic.as_deref());
        let expected =
            if name == "token" || name == "fid" { (Some(value), None) } else { (None, Some(value)) };
        assert_eq!((token, topic), expected);
        assert_eq!(received.service, Service::Fcm);
        assert_eq!(received.header("authorization"), Some(format!("Bearer {}", fcm.token).as_str()));
    }
    assert_eq!(simulator.counts().fcm.delivered, 4);
    let number = fcm.url.replace("pushlet-simulator", "108000000001");
    let answer =
        send(fcm.web.post(number).bearer_auth(&fcm.token).body(r#"{"message":{"token":"t"}}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_validation_delivers_nothing() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    for name in ["validate_only", "validateOnly"] {
        let answer = fcm.raw(json!({name: true, "message": {"token": "t"}}).to_string()).await;
        assert_eq!(answer.json(), json!({"name": "projects/pushlet-simulator/messages/fake_message_id"}));
    }
    assert_eq!((simulator.counts().fcm.accepted, simulator.counts().fcm.delivered), (2, 0));
}

#[tokio::test]
async fn the_documented_bodies_come_word_for_word() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let golden = golden();
    let value = fcm.message(json!({"token": "t", "data": {"n": 12}})).await;
    assert_eq!((value.status, value.json()), (400, golden["bad_data_value"]["body"].clone()));
    for token in ["INVALID_ARGUMENT", "a token", ""] {
        let answer = fcm.message(json!({ "token": token })).await;
        assert_eq!((answer.status, answer.json()), (400, golden["bad_token"]["body"].clone()), "{token}");
    }
}

#[tokio::test]
async fn every_documented_code_has_a_token() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let codes: Vec<(String, Option<u16>)> = serde_json::from_value(golden()["codes"].clone()).unwrap();
    assert_eq!(codes.len(), 9);
    for (name, status) in codes {
        let code = name.split(' ').next().unwrap();
        for target in ["token", "fid", "topic"] {
            let answer = fcm.message(json!({target: format!("{code}-1")})).await;
            assert_eq!(answer.status, status.unwrap_or(500), "{code}");
            let error = &answer.json()["error"];
            assert_eq!(error["code"], answer.status);
            let detail = json!({
                "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                "errorCode": code
            });
            assert_eq!(error["details"], json!([detail]));
            let retry = answer.header("retry-after");
            assert_eq!(retry.is_some(), answer.status == 429 || answer.status == 503, "{code}");
        }
    }
    assert_eq!(simulator.counts().fcm.delivered, 0);
    let gone = fcm.message(json!({"token": "NOT_FOUND"})).await;
    assert_eq!((gone.status, &gone.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
    assert!(gone.json()["error"].get("details").is_none());
    for (token, status) in [("HTML-404", 404), ("HTML-502", 502)] {
        let page = fcm.message(json!({ "token": token })).await;
        assert_eq!((page.status, page.header("content-type")), (status, Some("text/html; charset=UTF-8")));
        assert!(page.body.starts_with("<!DOCTYPE html>"));
    }
}

/// Sends a message, expects 400 and returns the first field that was named.
async fn refused(fcm: &Fcm, message: Value) -> String {
    let answer = fcm.message(message.clone()).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["status"]), (400, &json!("INVALID_ARGUMENT")), "{message}");
    let details = error["details"].as_array().unwrap();
    let bad = details.iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest");
    bad.unwrap()["fieldViolations"][0]["field"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn wrong_messages_name_the_field() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let six = ["'a' in topics"; 6].join(" || ");
    let cases = [
        (json!({}), "message"),
        (json!({"token": "a", "topic": "b"}), "message"),
        (json!({"token": "a", "fid": "b"}), "message"),
        (json!({"topic": "/topics/news"}), "message.topic"),
        (json!({"topic": "a b"}), "message.topic"),
        (json!({"topic": "x".repeat(901)}), "message.topic"),
        (json!({"condition": "news"}), "message.condition"),
        (json!({"condition": six}), "message.condition"),
        (json!({"token": "t", "colour": "red"}), "message"),
        (json!({"token": "t", "notification": {"titel": "x"}}), "message.notification"),
        (json!({"token": 1}), "message.token"),
        (json!({"token": "t", "android": {"priority": "urgent"}}), "message.android.priority"),
        (json!({"token": "t", "android": {"ttl": 60}}), "message.android.ttl"),
        (json!({"token": "t", "android": {"ttl": "2419201s"}}), "message.android.ttl"),
        (json!({"token": "t", "android": {"ttl": "-1s"}}), "message.android.ttl"),
        (json!({"token": "t", "androidV2": {"ttl": "2419201s"}}), "message.android_v2.ttl"),
        (json!({"token": "t", "android": {}, "android_v2": {}}), "message"),
        (json!({"token": "t", "apns": {"headers": {"apns-priority": 5}}}), "message.apns.headers[0].value"),
        (
            json!({"token": "t", "android": {"notification": {"color": "red"}}}),
            "message.android.notification.color",
        ),
        (
            json!({"token": "t", "fcm_options": {"analytics_label": "a b"}}),
            "message.fcm_options.analytics_label",
        ),
        (json!({"token": "t", "apns": {"headers": {"apns-priority": "11"}}}), "message.apns.headers"),
        (json!({"token": "t", "webpush": {"headers": {"Urgency": "urgent"}}}), "message.webpush.headers"),
        (json!({"token": "t", "data": {"from": "x"}}), "message.data"),
        (json!({"token": "t", "data": {"google.x": "x"}}), "message.data"),
        (json!({"token": "t", "data": {"gcm.notification.x": "x"}}), "message.data"),
        (json!({"token": "t", "android": {"data": {"message_type": "x"}}}), "message.android.data"),
        (json!({"token": "t", "data": {"a": "x".repeat(4096)}}), "message"),
        (json!({"topic": "t", "data": {"a": "x".repeat(2048)}}), "message"),
        (json!({"token": "t", "apns": {"payload": {"a": "x".repeat(4096)}}}), "message"),
    ];
    for (message, field) in cases {
        assert_eq!(refused(&fcm, message.clone()).await, field, "{message:.200}");
    }
    for (token, size) in [("token", 4095), ("topic", 2047)] {
        assert_eq!(fcm.message(json!({token: "t", "data": {"a": "x".repeat(size)}})).await.status, 200);
    }
    for wrong in ["", "{", "[1", "text"] {
        let answer = fcm.raw(wrong).await;
        assert_eq!((answer.status, &answer.json()["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    }
    assert_eq!(fcm.raw("{}").await.json()["error"]["message"], "Message is required.");
    assert_eq!(fcm.raw("x".repeat(1024 * 1024 + 1)).await.status, 413);
}

#[tokio::test]
async fn only_our_tokens_and_project_are_accepted() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let body = r#"{"message":{"token":"t"}}"#;
    for authorization in ["", "Bearer ya29.other", "Basic dTpw", &fcm.token] {
        let answer = send(fcm.web.post(&fcm.url).header("authorization", authorization).body(body)).await;
        assert_eq!((answer.status, &answer.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "));
    }
    let other = fcm.url.replace("pushlet-simulator", "other-project");
    let answer = send(fcm.web.post(other).bearer_auth(&fcm.token).body(body)).await;
    assert_eq!((answer.status, &answer.json()["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    let nowhere = fcm.url.replace("messages:send", "messages:batch");
    assert_eq!(send(fcm.web.post(nowhere).bearer_auth(&fcm.token)).await.status, 404);
    assert_eq!(send(fcm.web.get(&fcm.url).bearer_auth(&fcm.token)).await.status, 404);
    simulator.revoke_access_tokens();
    assert_eq!(fcm.raw(body).await.status, 401);
}

#[tokio::test]
async fn access_tokens_expire() {
    let simulator = start_with(|options| options.access_token_lifetime = Duration::ZERO).await;
    assert_eq!(Fcm::new(&simulator).await.raw(r#"{"message":{"token":"t"}}"#).await.status, 401);
}

#[tokio::test]
async fn both_http_versions_are_served() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let request = match version {
            http::Version::HTTP_2 => fcm.web.post(&fcm.url),
            _ => old_web(&simulator).post(&fcm.url),
        };
        let response =
            request.bearer_auth(&fcm.token).body(r#"{"message":{"token":"t"}}"#).send().await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (version, 200));
    }
}

#[tokio::test]
async fn answers_can_be_scripted() {
    let simulator = start().await;
    let fcm = Fcm::new(&simulator).await;
    let script = Script {
        token: Some("mine*".into()),
        status: Some(503),
        body: Some(json!("<html>busy</html>")),
        headers: [("X-Server".into(), "edge".into())].into(),
        retry_after: Some(RetryAfter::Text("Tue, 24 Nov 2026 10:00:00 GMT".into())),
        times: Some(1),
        ..Script::new(Service::Fcm)
    };
    simulator.script(script).unwrap();
    let bad = fcm.message(json!({"token": "mine-1", "x": 1})).await;
    assert_eq!(bad.status, 400, "a script does not hide a mistake");
    let answer = fcm.message(json!({"token": "mine-1"})).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "<html>busy</html>"));
    assert_eq!(answer.header("retry-after"), Some("Tue, 24 Nov 2026 10:00:00 GMT"));
    assert_eq!((answer.header("x-server"), answer.header("content-type")), (Some("edge"), None));
    assert_eq!(fcm.message(json!({"token": "mine-1"})).await.status, 200);
    assert_eq!(simulator.counts().fcm.delivered, 1);
}
