//! Huawei Push Kit: both APIs against the simulator.

use serde_json::{Value, json};

use super::harness::{Harness, expect, expect_error};
use pushlet_simulator::{Received, Service};
use reqwest::multipart::{Form, Part};

/// With the application `v1` of an app with a client secret, and `v3` of a service account.
async fn harness() -> Harness {
    let harness = Harness::with("delivery.retries = 0").await;
    register(&harness, "v1", "v3").await;
    harness
}

/// Registers an application for each of the two APIs.
pub async fn register(harness: &Harness, v1: &str, v3: &str) {
    let client = [
        ("application_id", v1),
        ("hms_app_id", "100000001"),
        ("hms_client_secret", "secret"),
        ("hms_badge_class", "com.example.Main"),
    ];
    expect(harness.server.post("/register_application").form(&client), 200).await;
    let account = harness.file(&harness.simulator.credentials().hms_service_account);
    let form =
        Form::new().part("hms_service_account", Part::bytes(account)).text("application_id", v3.to_owned());
    expect(harness.server.post("/register_application").multipart(form), 200).await;
}

async fn send(harness: &Harness, app: &str, tokens: &[String]) -> Vec<Value> {
    let notification = json!({ "title": "Order 7", "body": "On its way" });
    let body = json!({ "application_id": app, "notification": notification, "targets": tokens });
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    answer["results"].as_array().unwrap().clone()
}

/// The status of each, and the code where there is one.
fn told(results: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |result: &Value| format!("{} {}", text(&result["status"]), text(&result["code"]));
    results.iter().map(|result| one(result).trim_end().to_owned()).collect()
}

fn tokens(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| (*token).to_owned()).collect()
}

fn of(received: &Received) -> Value {
    serde_json::from_str(&received.body).unwrap()
}

#[tokio::test]
async fn a_thousand_tokens_arrive_in_one_exchange() {
    let harness = harness().await;
    for (app, place) in [("v1", "/message/token"), ("v3", "/target/token")] {
        harness.simulator.clear();
        let tokens: Vec<String> = (0..1000).map(|number| format!("IQAAAACy{number:04}")).collect();
        let results = send(&harness, app, &tokens).await;
        assert!(results.iter().all(|result| result["status"] == "delivered"), "{results:?}");
        let received = harness.received(Service::Hms);
        assert_eq!(received.len(), 1, "{app}");
        assert_eq!(of(&received[0]).pointer(place).unwrap(), &json!(tokens));
        let id = results[0]["id"].as_str().unwrap();
        assert!(received[0].answer.contains(id), "{id}");
    }
    let harness = self::harness().await;
    let tokens: Vec<String> = (0..1001).map(|number| format!("IQAAAACy{number:04}")).collect();
    send(&harness, "v1", &tokens).await;
    assert_eq!(harness.received(Service::Hms).len(), 2);
}

#[tokio::test]
async fn an_access_token_is_fetched_once_and_read_as_json() {
    let harness = harness().await;
    for _ in 0..3 {
        assert_eq!(told(&send(&harness, "v1", &tokens(&["a"])).await), ["delivered"]);
    }
    let fetched = harness.received(Service::Oauth);
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].body, "grant_type=client_credentials&client_id=100000001&client_secret=secret");
    let token = harness.received(Service::Hms)[0].header("authorization").unwrap().to_owned();
    assert!(token.starts_with("Bearer CgB6e3x9/"), "the slash is not escaped: {token}");
    assert_eq!(harness.simulator.counts().hms.delivered, 3);
}

#[tokio::test]
async fn partial_failures_are_told_apart() {
    let harness = harness().await;
    let got = send(&harness, "v1", &tokens(&["a", "ILLEGAL-1", "b"])).await;
    assert_eq!(told(&got), ["delivered", "unregistered 80100000", "delivered"]);
    let got = send(&harness, "v3", &tokens(&["a", "CAUSE-noRight-1", "CAUSE-noPushTypeRight-1"])).await;
    let expected = ["delivered", "unregistered noRight", "credential_rejected noPushTypeRight"];
    assert_eq!(told(&got), expected);
}

/// 80300007 says that all tokens are invalid, which a wrong app id makes of every token.
#[tokio::test]
async fn no_token_is_given_up_because_all_of_them_failed() {
    let harness = harness().await;
    for app in ["v1", "v3"] {
        let got = send(&harness, app, &tokens(&["ILLEGAL-1", "ILLEGAL-2"])).await;
        assert!(got.iter().all(|result| result["status"] == "rejected"), "{got:?}");
        assert!(harness.simulator.received().last().unwrap().answer.contains("80300007"));
        let feedback = harness.server.get(&format!("/v1/applications/{app}/feedback"));
        assert!(!expect(feedback, 200).await.to_string().contains("ILLEGAL"));
    }
    send(&harness, "v1", &tokens(&["a", "ILLEGAL-1"])).await;
    let feedback = expect(harness.server.get("/v1/applications/v1/feedback"), 200).await;
    assert!(feedback.to_string().contains("ILLEGAL-1"), "{feedback}");
}

#[tokio::test]
async fn codes_of_the_whole_request_are_results() {
    let harness = harness().await;
    for (token, status) in [
        ("CODE-80100016", "rejected"),
        ("CODE-80100017", "throttled"),
        ("CODE-80300002", "credential_rejected"),
        ("CODE-81000001", "unavailable"),
        ("CODE-82000001", "unknown"),
        ("HTTP-502", "unavailable"),
        ("HTTP-503", "throttled"),
    ] {
        let got = send(&harness, "v1", &tokens(&[token])).await;
        assert_eq!(got[0]["status"], status, "{got:?}");
        if let Some(code) = token.strip_prefix("CODE-") {
            assert_eq!(got[0]["code"], code);
        }
    }
}

#[tokio::test]
async fn topics_conditions_and_checks_belong_to_v1() {
    let harness = harness().await;
    let send = |app: &str, target: Value, notification: Value| {
        let body = json!({ "application_id": app, "notification": notification, "targets": [target] });
        harness.server.post("/v1/notifications").json(&body)
    };
    let message = || json!({ "title": "t", "body": "b" });
    let answer = expect(send("v1", json!({ "topic": "news" }), message()), 200).await;
    assert_eq!(answer["results"][0]["status"], "delivered", "{answer}");
    let answer = expect(send("v1", json!({ "condition": "'a' in topics" }), message()), 200).await;
    assert_eq!(answer["results"][0]["status"], "delivered", "{answer}");
    let answer = expect(send("v3", json!({ "topic": "news" }), message()), 200).await;
    assert_eq!(answer["results"][0]["code"], "unsupported_target", "{answer}");
    let dry = json!({ "title": "t", "body": "b", "validate_only": true });
    let answer = expect(send("v1", json!("a"), dry), 200).await;
    assert_eq!(answer["results"][0]["status"], "valid", "{answer}");
    assert_eq!(harness.simulator.counts().hms.delivered, 2);
}

#[tokio::test]
async fn a_refused_secret_is_the_operators_to_mend() {
    let harness = harness().await;
    let client =
        [("application_id", "bad"), ("hms_app_id", "100000001"), ("hms_client_secret", "bad secret")];
    expect(harness.server.post("/register_application").form(&client), 200).await;
    let got = send(&harness, "bad", &tokens(&["a"])).await;
    assert_eq!(got[0]["status"], "credential_rejected", "{got:?}");
    assert!(got[0]["message"].as_str().unwrap().contains("invalid client"), "{got:?}");
    let without = [("application_id", "x"), ("hms_client_secret", "secret")];
    expect_error(harness.server.post("/register_application").form(&without), 400, "missing_hms_app_id")
        .await;
    let development = [
        ("application_id", "x"),
        ("hms_app_id", "1"),
        ("hms_client_secret", "s"),
        ("hms_mode", "development"),
    ];
    expect_error(harness.server.post("/register_application").form(&development), 400, "invalid_environment")
        .await;
}

/// A token belongs to one app.
#[tokio::test]
async fn apps_do_not_share_tokens() {
    let harness = harness().await;
    let other = [("application_id", "other"), ("hms_app_id", "100000002"), ("hms_client_secret", "secret")];
    expect(harness.server.post("/register_application").form(&other), 200).await;
    assert_eq!(told(&send(&harness, "v1", &tokens(&["a"])).await), ["delivered"]);
    assert_eq!(told(&send(&harness, "other", &tokens(&["a"])).await), ["delivered"]);
    let paths: Vec<String> = harness.received(Service::Hms).into_iter().map(|push| push.path).collect();
    assert_eq!(paths, ["/v1/100000001/messages:send", "/v1/100000002/messages:send"]);
    assert_eq!(harness.simulator.counts().oauth.requests, 2);
}
