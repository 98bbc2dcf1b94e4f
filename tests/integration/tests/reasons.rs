//! Every documented answer of the push services, as the caller of the classic API sees it.

use pushlet_simulator::{RetryAfter, Script, Service};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

/// Status and reason of every documented answer to a device push, as the vendor's page lists them.
const APNS: &str = include_str!("../../simulator/data/apns_reasons.json");

/// What the caller gets, by what Apple answered.
fn classic_status(status: u16, reason: &str) -> u16 {
    match (status, reason) {
        (410, _) => 410,
        (413, _) => 413,
        (403, _) => 403,
        (429, _) => 429,
        // Apple's own doing, so that the same push is worth another try.
        (400, "IdleTimeout") => 503,
        (500 | 503, _) => 503,
        _ => 400,
    }
}

fn snake_case(reason: &str) -> String {
    let mut text = String::new();
    for letter in reason.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[tokio::test]
async fn every_documented_apns_reason_has_its_status_and_code() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns("app").await;
    let golden: Value = serde_json::from_str(APNS).unwrap();
    let pairs = golden["device"].as_array().unwrap();
    assert_eq!(pairs.len(), 32);
    for (index, pair) in pairs.iter().enumerate() {
        let (status, reason) = (pair[0].as_u64().unwrap(), pair[1].as_str().unwrap());
        let token = format!("bad0{index:02}{}", &DEVICE[6..]);
        let form = [("device_token", token.as_str()), ("alert", "x"), ("application_id", "app")];
        let request = harness.server.post("/send_notification").form(&form);
        let expected = classic_status(u16::try_from(status).unwrap(), reason);
        expect_error(request, expected, &snake_case(reason)).await;
        let last = harness.received(Service::Apns).pop().unwrap();
        assert_eq!(last.status, u16::try_from(status).unwrap(), "{reason}");
        assert!(last.answer.contains(reason), "{}", last.answer);
    }
}

#[tokio::test]
async fn an_unknown_reason_is_passed_through() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns("app").await;
    let script = Script {
        status: Some(400),
        body: Some(json!({"reason": "BrandNewReason"})),
        ..Script::new(Service::Apns)
    };
    harness.simulator.script(script).unwrap();
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", "app")];
    expect_error(harness.server.post("/send_notification").form(&form), 400, "brand_new_reason").await;
}

#[tokio::test]
async fn every_gcm_error_is_handed_on_in_its_own_words() {
    let harness = Harness::with("delivery.retries = 0").await;
    for error in [
        "MissingRegistration",
        "InvalidRegistration",
        "NotRegistered",
        "InvalidPackageName",
        "MismatchSenderId",
        "MessageTooBig",
        "InvalidDataKey",
        "InvalidTtl",
        "Unavailable",
        "InternalServerError",
        "DeviceMessageRateExceeded",
        "TopicsMessageRateExceeded",
        "InvalidApnsCredential",
    ] {
        harness.simulator.clear_scripts();
        let body = Some(json!({"error": error}));
        let token = Some("token".to_owned());
        harness.simulator.script(Script { token, body, ..Script::new(Service::Gcm) }).unwrap();
        let form = [("device_token", "token"), ("gcm_api_key", "key"), ("data", r#"{"a":"b"}"#)];
        let answer = expect(harness.server.post("/send_notification").form(&form), 200).await;
        assert_eq!(answer["failure"], 1, "{answer}");
        assert_eq!(answer["results"], json!([{"error": error}]));
    }
}

#[tokio::test]
async fn a_gcm_server_that_refuses_the_key_or_is_in_trouble() {
    let harness = Harness::with("delivery.retries = 0").await;
    let form = [("device_token", "token"), ("gcm_api_key", "bad-key"), ("data", r#"{"a":"b"}"#)];
    let request = || harness.server.post("/send_notification").form(&form);
    let message = expect_error(request(), 403, "invalid_gcm_credentials").await;
    assert_eq!(message, "the provided credentials were rejected by google servers");

    let form = [("device_token", "token"), ("gcm_api_key", "key"), ("data", r#"{"a":"b"}"#)];
    let script = Script {
        status: Some(503),
        body: Some(json!("")),
        retry_after: Some(RetryAfter::Seconds(120)),
        ..Script::new(Service::Gcm)
    };
    harness.simulator.script(script).unwrap();
    let response = harness.server.post("/send_notification").form(&form).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "120");
}

#[tokio::test]
async fn every_fcm_error_code_has_its_status() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_fcm("app").await;
    for (code, status, expected) in [
        ("UNSPECIFIED_ERROR", 500, 503),
        ("INVALID_ARGUMENT", 400, 400),
        ("UNREGISTERED", 404, 410),
        ("SENDER_ID_MISMATCH", 403, 410),
        ("QUOTA_EXCEEDED", 429, 429),
        ("UNAVAILABLE", 503, 503),
        ("INTERNAL", 500, 503),
        ("THIRD_PARTY_AUTH_ERROR", 401, 403),
        ("BRAND_NEW", 400, 400),
    ] {
        harness.simulator.clear_scripts();
        let details =
            json!([{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]);
        let body =
            json!({"error": {"code": status, "message": "it is so", "status": "X", "details": details}});
        let script = Script { status: Some(status), body: Some(body), ..Script::new(Service::Fcm) };
        harness.simulator.script(script).unwrap();
        let form = [("device_token", "token"), ("alert", "x"), ("application_id", "app")];
        let answer = expect(harness.server.post("/send_notification").form(&form), expected).await;
        let name = answer["error"].as_str().unwrap();
        assert_eq!(name, code.to_lowercase(), "{answer}");
    }
}
