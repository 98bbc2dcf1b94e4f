//! `/v1/applications`: the shapes of a registration, and what is told of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Harness, expect, expect_error};

fn put(harness: &Harness, id: &str, body: &Value) -> reqwest::RequestBuilder {
    harness.server.client.put(harness.server.url(&format!("/v1/applications/{id}"))).json(body)
}

#[tokio::test]
async fn settings_and_credentials_have_a_place_each() {
    let harness = Harness::new().await;
    let files = harness.simulator.credentials();
    let p12 = STANDARD.encode(harness.file(&files.apns_p12));
    let account: Value = serde_json::from_slice(&harness.file(&files.fcm_service_account)).unwrap();
    let body = json!({
        "provider": "apns",
        "environment": "development",
        "credentials": {"apns_p12": {"base64": p12}, "apns_p12_pass": files.apns_p12_password},
    });
    let shown = expect(put(&harness, "ios", &body), 200).await;
    assert_eq!((&shown["provider"], &shown["environment"]), (&json!("apns"), &json!("development")));
    let credential = &shown["credential"];
    assert_eq!(
        (&credential["credential"], &credential["field"]),
        (&json!("certificate"), &json!("apns_p12"))
    );
    assert_eq!(credential["fingerprint"].as_str().unwrap().len(), 64);
    assert!(credential["not_after"].as_str().unwrap().ends_with('Z'), "{credential}");
    assert!(credential["topics"].as_array().unwrap().contains(&json!(files.apns_topic)), "{credential}");
    // A service account is JSON: as an object, and as the text of its file.
    for account in [account.clone(), json!(account.to_string())] {
        let body = json!({"provider": "fcm", "credentials": {"fcm_service_account": account}});
        let shown = expect(put(&harness, "android", &body), 200).await;
        assert_eq!(shown["environment"], "production");
        assert!(shown["credential"]["subject"].as_str().unwrap().contains('@'), "{shown}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let harness = Harness::new().await;
    let key = harness.file(&harness.simulator.credentials().apns_p8);
    let key = String::from_utf8(key).unwrap();
    let full =
        json!({"apns_key_id": "SIMKEY0001", "apns_team_id": "SIMTEAM001", "apns_topic": "com.example.app"});
    let cases = [
        (json!({"provider": "apnz"}), "invalid_provider", "provider"),
        (json!({"provider": 7}), "invalid_provider", "provider"),
        (json!({"provider": "apns", "environment": "prod"}), "invalid_environment", "environment"),
        (json!({"provider": "apns", "settings": []}), "invalid_settings", "settings"),
        (
            json!({"provider": "apns", "credentials": {"apns_p12": {"base64": "%"}}}),
            "invalid_apns_p12",
            "credentials.apns_p12",
        ),
        (
            json!({"provider": "apns", "credentials": {"apns_p12": {"base64": "AAAA"}}}),
            "invalid_apns_p12",
            "apns_p12",
        ),
        (
            json!({"provider": "apns", "credentials": {"apns_p8": "nonsense"}, "settings": full}),
            "invalid_apns_p8",
            "apns_p8",
        ),
        (json!({"provider": "apns", "credentials": {"apns_p8": key}}), "missing_apns_key_id", "apns_key_id"),
        (json!({"provider": "apns", "settings": {"apns_topik": "x"}}), "unknown_field", "apns_topik"),
        (json!({"provider": "apns"}), "missing_apns_certificate", "apns_p12"),
        (
            json!({"provider": "fcm", "credentials": {"fcm_service_account": {}}}),
            "invalid_fcm_service_account",
            "fcm_service_account",
        ),
    ];
    for (body, code, field) in cases {
        let answer = expect(put(&harness, "app", &body), 400).await;
        assert_eq!((&answer["error"], &answer["field"]), (&json!(code), &json!(field)), "{body} {answer}");
    }
    let answer =
        expect(put(&harness, "app", &json!({"provider": "apns", "settings": {"apns_topik": "x"}})), 400)
            .await;
    assert!(answer["message"].as_str().unwrap().ends_with("did you mean apns_topic?"), "{answer}");
    let plain = harness.server.client.put(harness.server.url("/v1/applications/app"));
    expect_error(plain.body("[]").header("content-type", "application/json"), 400, "invalid_json").await;
    let plain = harness.server.client.put(harness.server.url("/v1/applications/app"));
    expect_error(plain.body("x").header("content-type", "text/plain"), 415, "unsupported_media_type").await;
    expect_error(harness.server.get("/v1/applications/app"), 404, "application_not_found").await;
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let harness = Harness::new().await;
    for id in ["c", "a", "b", "a b/ü"] {
        let body = json!({"provider": "gcm", "gcm_api_key": "key"});
        let id = id.replace(' ', "%20").replace('/', "%2F").replace('ü', "%C3%BC");
        expect(put(&harness, &id, &body), 200).await;
    }
    let ids = |answer: &Value| -> Vec<String> {
        let all = answer["applications"].as_array().unwrap().iter();
        all.map(|application| application["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = expect(harness.server.get("/v1/applications"), 200).await;
    assert_eq!(
        (ids(&all), &all["next"]),
        (vec!["a".into(), "a b/ü".into(), "b".into(), "c".into()], &Value::Null)
    );
    let first = expect(harness.server.get("/v1/applications?limit=3"), 200).await;
    assert_eq!((ids(&first).len(), &first["next"]), (3, &json!("b")));
    let rest = expect(harness.server.get("/v1/applications?limit=3&after=b"), 200).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec!["c".to_owned()], &Value::Null));
    for limit in ["0", "1001", "x"] {
        expect_error(harness.server.get(&format!("/v1/applications?limit={limit}")), 400, "invalid_limit")
            .await;
    }
    let odd = expect(harness.server.get("/v1/applications/a%20b%2F%C3%BC"), 200).await;
    assert_eq!(odd["id"], "a b/ü");
}
