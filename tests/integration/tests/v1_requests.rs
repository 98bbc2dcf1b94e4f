//! `POST /v1/notifications`: what is checked, what is shared, and what is only asked.

use pushlet_simulator::Service;
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect};

fn send(harness: &Harness, body: &Value) -> reqwest::RequestBuilder {
    harness.server.post("/v1/notifications").json(body)
}

fn payload(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn what_is_only_validated_is_not_sent() {
    let harness = Harness::new().await;
    harness.register_apns_token("ios").await;
    harness.register_fcm("android").await;
    let body = |application: &str, targets: Value| json!({"application_id": application, "notification": {"body": "x"}, "targets": targets, "validate_only": true});
    let answer = expect(send(&harness, &body("ios", json!([DEVICE, "odd"]))), 200).await;
    assert_eq!(answer["results"][0], json!({"index": 0, "target": DEVICE, "status": "valid"}));
    assert_eq!(
        (&answer["results"][1]["status"], &answer["summary"]["valid"]),
        (&json!("rejected"), &json!(1))
    );
    let answer = expect(send(&harness, &body("android", json!(["token"]))), 200).await;
    assert_eq!(answer["summary"]["valid"], 1, "{answer}");
    assert!(harness.received(Service::Apns).is_empty() && harness.received(Service::Fcm).is_empty());
    // Nobody is asked: no token was fetched.
    assert!(harness.received(Service::Oauth).is_empty());
}

#[tokio::test]
async fn a_dry_run_can_show_the_requests_that_would_go() {
    let harness = Harness::new().await;
    harness.register_apns_token("ios").await;
    harness.register_fcm("android").await;
    let body = |application: &str, targets: Value| {
        json!({"application_id": application, "notification": {"title": "Hi", "body": "x"}, "targets": targets,
            "validate_only": true, "explain": true})
    };
    let answer = expect(send(&harness, &body("ios", json!([DEVICE, "odd", "aa"]))), 200).await;
    assert_eq!(answer["summary"]["valid"], 2, "{answer}");
    let requests = answer["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2, "{answer}");
    let of = |target: &str| requests.iter().find(|one| one["targets"] == json!([target])).unwrap();
    for target in [DEVICE, "aa"] {
        let request = of(target);
        let url = format!("{}/3/device/{target}", harness.simulator.apns_url());
        assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!(url)), "{request}");
        assert_eq!(request["headers"]["apns-push-type"], "alert", "{request}");
        assert_eq!(request["credential"], "token", "{request}");
        let alert = &payload(request["body"].as_str().unwrap())["aps"]["alert"];
        assert_eq!(alert, &json!({"title": "Hi", "body": "x"}));
        assert!(request["headers"].get("authorization").is_none(), "{request}");
    }
    let answer = expect(send(&harness, &body("android", json!(["token", {"topic": "news"}]))), 200).await;
    let requests = answer["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2, "{answer}");
    assert!(requests.iter().any(|request| request["targets"] == json!([{"topic": "news"}])), "{answer}");
    assert!(harness.simulator.received().is_empty());
    // Otherwise there is nothing to see.
    let mut plain = body("ios", json!([DEVICE]));
    plain["explain"] = json!(false);
    assert!(expect(send(&harness, &plain), 200).await.get("requests").is_none());
}

#[tokio::test]
async fn only_a_small_dry_run_is_explained() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let base = json!({"application_id": "app", "notification": {"body": "x"}, "explain": true, "validate_only": true});
    let with = |name: &str, value: Value| {
        let mut body = base.clone();
        body[name] = value;
        body
    };
    let mut sent = with("target", json!(DEVICE));
    sent["validate_only"] = json!(false);
    let many: Vec<String> = (0..11).map(|number| format!("{number:064x}")).collect();
    for (body, part) in [
        (sent, "is for validate_only"),
        (with("targets", json!(many)), "at most 10 targets"),
        (with("notifications", json!([{"target": "aa"}])), "one notification"),
    ] {
        let answer = expect(send(&harness, &body), 400).await;
        assert_eq!(
            (&answer["error"], &answer["field"]),
            (&json!("invalid_explain"), &json!("explain")),
            "{answer}"
        );
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    assert!(harness.simulator.received().is_empty());
}

#[tokio::test]
async fn different_notifications_share_what_they_do_not_say() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let body = json!({
        "application_id": "app",
        "notification": {"title": "shared", "body": "shared", "sound": "default"},
        "notifications": [
            {"target": "aa", "notification": {"body": "own"}},
            {"targets": ["bb", {"device": "cc"}], "notification": {"title": null}},
            {"target": "dd"},
        ],
    });
    let answer = expect(send(&harness, &body), 200).await;
    assert_eq!(answer["summary"]["delivered"], 4, "{answer}");
    let targets: Vec<&Value> =
        answer["results"].as_array().unwrap().iter().map(|one| &one["target"]).collect();
    assert_eq!(targets, ["aa", "bb", "cc", "dd"]);
    let received = harness.received(Service::Apns);
    let alert = |token: &str| {
        let push = received.iter().find(|push| push.path.ends_with(token)).unwrap();
        let aps = payload(&push.body)["aps"].clone();
        assert_eq!(aps["sound"], "default");
        aps["alert"].clone()
    };
    assert_eq!(alert("/aa"), json!({"title": "shared", "body": "own"}));
    assert_eq!((alert("/bb"), alert("/cc")), (json!("shared"), json!("shared")));
    assert_eq!(alert("/dd"), json!({"title": "shared", "body": "shared"}));
}

#[tokio::test]
async fn the_wrong_field_is_named_where_it_stands() {
    let harness = Harness::with("limits.targets = 2").await;
    harness.register_apns("app").await;
    let item = json!({"target": "aa", "notification": {"body": "x"}});
    let cases = [
        (json!({"aplication_id": "app"}), "unknown_field", "aplication_id"),
        (json!({"target": "aa", "notification": {"body": "x"}}), "missing_application_id", "application_id"),
        (json!({"application_id": "app", "notification": {"body": "x"}}), "missing_targets", "targets"),
        (json!({"application_id": "app", "target": "aa"}), "missing_notification", "notification"),
        (
            json!({"application_id": "app", "notification": "x", "target": "aa"}),
            "invalid_notification",
            "notification",
        ),
        (
            json!({"application_id": "app", "notification": {}, "target": "a", "targets": []}),
            "invalid_target",
            "target",
        ),
        (
            json!({"application_id": "app", "notification": {}, "targets": ["a", "b", "c"]}),
            "too_many_targets",
            "targets",
        ),
        (json!({"application_id": "app", "notifications": [item, 7]}), "invalid_json", "notifications[1]"),
        (
            json!({"application_id": "app", "notifications": [item, {}]}),
            "missing_target",
            "notifications[1].target",
        ),
        (
            json!({"application_id": "app", "notifications": [{"tokens": 1}]}),
            "unknown_field",
            "notifications[0].tokens",
        ),
        (
            json!({"application_id": "app", "notifications": [item], "target": "aa"}),
            "invalid_targets",
            "targets",
        ),
        (
            json!({"application_id": "app", "notification": {}, "target": "a", "validate_only": "yes"}),
            "invalid_validate_only",
            "validate_only",
        ),
    ];
    for (body, code, field) in cases {
        let answer = expect(send(&harness, &body), 400).await;
        assert_eq!((&answer["error"], &answer["field"]), (&json!(code), &json!(field)), "{body} {answer}");
    }
    assert!(harness.simulator.received().is_empty());
}
