//! The three routes of the original, from the caller's request to what a push service received.

use pushlet_simulator::{Script, Service};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error, http_client, wait_until};

const SEND: &str = "/send_notification";

#[tokio::test]
async fn a_push_to_apns_arrives_as_it_was_asked_for() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let form = [
        ("device_token", DEVICE),
        ("alert", "Grüße"),
        ("badge", "3"),
        ("sound", "ding.aiff"),
        ("identifier", "1234"),
        ("data", r#"{"key":[1,2]}"#),
        ("application_id", "app"),
    ];
    let body = expect(harness.server.post(SEND).form(&form), 200).await;
    assert_eq!(body, json!({"response": "ok"}));
    let received = harness.received(Service::Apns);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].path, format!("/3/device/{DEVICE}"));
    let payload: Value = serde_json::from_str(&received[0].body).unwrap();
    let aps = json!({"alert": "Grüße", "badge": 3, "sound": "ding.aiff"});
    assert_eq!(payload, json!({"aps": aps, "key": [1, 2]}));
    let header = |name: &str| received[0].headers.iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!(header("apns-topic"), "com.example.app", "the UID of the certificate's subject");
    assert_eq!(header("apns-push-type"), "alert");
}

#[tokio::test]
async fn a_push_by_provider_token_carries_a_bearer_token() {
    let harness = Harness::new().await;
    harness.register_apns_token("app").await;
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", "app")];
    for _ in 0..3 {
        expect(harness.server.post(SEND).form(&form), 200).await;
    }
    let tokens: Vec<String> = harness
        .received(Service::Apns)
        .iter()
        .map(|push| push.headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone())
        .collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0].starts_with("bearer "), "{}", tokens[0]);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "one token for all");
}

#[tokio::test]
async fn gcm_gets_what_the_original_sent_and_its_answer_comes_back_unchanged() {
    let harness = Harness::new().await;
    let answer = json!({
        "multicast_id": 108, "success": 1, "failure": 0, "canonical_ids": 1,
        "results": [{"message_id": "1:08", "registration_id": "new"}],
    });
    let script = Script { status: Some(200), body: Some(answer.clone()), ..Script::new(Service::Gcm) };
    harness.simulator.script(script).unwrap();
    let form = [("device_token", "old"), ("gcm_api_key", "KEY"), ("data", r#"{"text":"hello"}"#)];
    assert_eq!(expect(harness.server.post(SEND).form(&form), 200).await, answer);
    let received = &harness.received(Service::Gcm)[0];
    assert_eq!(received.path, "/gcm/send");
    let body: Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body, json!({"registration_ids": ["old"], "data": {"text": "hello"}}));
    let header = |name: &str| received.headers.iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!(header("authorization"), "key=KEY");
    assert_eq!(header("content-type"), "application/json");
}

#[tokio::test]
async fn an_fcm_application_answers_in_both_tongues() {
    let harness = Harness::new().await;
    harness.register_fcm("app").await;
    let form = [("device_token", "t"), ("alert", "hi"), ("data", r#"{"n":1}"#), ("application_id", "app")];
    assert_eq!(expect(harness.server.post(SEND).form(&form), 200).await, json!({"response": "ok"}));
    let received = &harness.received(Service::Fcm)[0];
    let body: Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body["message"]["token"], "t");
    assert_eq!(body["message"]["data"], json!({"n": "1"}), "FCM takes texts only");
    let legacy = [&form[..], &[("type", "gcm")]].concat();
    let answer = expect(harness.server.post(SEND).form(&legacy), 200).await;
    assert_eq!((&answer["success"], &answer["failure"]), (&json!(1), &json!(0)));
    assert!(answer["results"][0]["message_id"].is_string(), "{answer}");
    let gone =
        [("device_token", "UNREGISTERED-1"), ("alert", "hi"), ("application_id", "app"), ("type", "gcm")];
    let answer = expect(harness.server.post(SEND).form(&gone), 200).await;
    assert_eq!(answer["results"], json!([{"error": "NotRegistered"}]));
    assert_eq!(harness.simulator.counts().oauth.requests, 1, "one access token for all");
}

#[tokio::test]
async fn a_dead_token_is_reported_once_by_feedback() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let dead = format!("dead{}", &DEVICE[4..]);
    let form = [("device_token", dead.as_str()), ("alert", "x"), ("application_id", "app")];
    expect_error(harness.server.post(SEND).form(&form), 410, "unregistered").await;
    let ask = || harness.server.post("/application_feedback").form(&[("application_id", "app")]);
    let feedback = expect(ask(), 200).await;
    assert_eq!(feedback["response"][0]["device_token"], dead);
    assert!(feedback["response"][0]["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(expect(ask(), 200).await, json!({"response": []}));
}

#[tokio::test]
async fn errors_come_in_the_originals_order_and_words() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let bad_data = ("data", "{nonsense");
    let send = |fields: &[(&str, &str)]| harness.server.post(SEND).form(fields);
    for (fields, status, code, message) in [
        (
            &[bad_data][..],
            400,
            "missing_identifier",
            "an application_id or gcm_api_key are required for this call",
        ),
        (
            &[bad_data, ("application_id", "nobody")],
            400,
            "device_token_required",
            "device_token is required, which is registed with the application on your phone",
        ),
        (
            &[bad_data, ("application_id", "nobody"), ("device_token", DEVICE)],
            404,
            "application_not_found",
            "no application found for the provided application_id",
        ),
        (&[bad_data, ("gcm_api_key", "k")], 400, "device_token_required", ""),
        (&[bad_data, ("application_id", "app"), ("device_token", DEVICE)], 400, "invalid_data_json", ""),
        (&[bad_data, ("gcm_api_key", "bad-key"), ("device_token", "t")], 400, "invalid_data_json", ""),
        (&[("type", "apns"), ("gcm_api_key", "k"), ("device_token", "t")], 400, "missing_identifier", ""),
        (&[("type", "smoke"), ("application_id", "app"), ("device_token", DEVICE)], 400, "invalid_type", ""),
        (&[("type", "gcm"), ("application_id", "app"), ("device_token", DEVICE)], 400, "invalid_type", ""),
        (
            &[("application_id", "app"), ("device_token", "xyz"), ("alert", "x")],
            400,
            "invalid_device_token",
            "",
        ),
        (&[("application_id", "app"), ("device_token", DEVICE)], 400, "payload_empty", ""),
    ] {
        let got = expect_error(send(fields), status, code).await;
        assert!(message.is_empty() || got == message, "{got}");
    }
    let got = expect_error(
        send(&[bad_data, ("application_id", "app"), ("device_token", DEVICE)]),
        400,
        "invalid_data_json",
    )
    .await;
    assert!(got.starts_with("data could not be converted to json: "), "{got}");
    let feedback = |fields: &[(&str, &str)]| harness.server.post("/application_feedback").form(fields);
    let got = expect_error(feedback(&[]), 400, "missing_application_id").await;
    assert_eq!(got, "an application_id is required for this call");
    expect_error(feedback(&[("application_id", "nobody")]), 404, "application_not_found").await;
    assert!(harness.simulator.received().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn registration_checks_everything_and_connects_to_nobody() {
    let harness = Harness::new().await;
    let register = |form: Form| harness.server.post("/register_application").multipart(form);
    let got =
        expect_error(register(Form::new().text("application_id", "x")), 400, "missing_apns_certificate")
            .await;
    assert_eq!(got, "an apns_p12 or apns_pem certificate is required for this call");
    let readme = "could not process apns_p12 certificate, check that it is in p12 format and is valid";
    let garbage = Form::new().part("apns_p12", Part::bytes(&b"garbage"[..]).file_name("c.p12"));
    assert_eq!(expect_error(register(garbage), 400, "invalid_apns_p12").await, readme);
    let files = harness.simulator.credentials();
    let legacy = || Part::bytes(harness.file(&files.apns_legacy_p12));
    let wrong = Form::new().part("apns_p12", legacy()).text("apns_p12_pass", "wrong");
    assert!(expect_error(register(wrong), 400, "invalid_apns_p12").await.starts_with(readme));
    let none = Form::new().part("apns_p12", legacy());
    expect_error(register(none), 400, "invalid_apns_p12").await;
    let right =
        Form::new().part("apns_p12", legacy()).text("apns_p12_pass", files.apns_legacy_p12_password.clone());
    let id = expect(register(right), 200).await["application_id"].as_str().unwrap().to_owned();
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().to_string(), id, "a UUID is made");
    let pem = String::from_utf8(harness.file(&files.apns_pem)).unwrap();
    expect(register(Form::new().text("apns_pem", pem.clone())), 200).await;
    let both =
        Form::new().text("apns_pem", "garbage").part("apns_p12", Part::bytes(harness.file(&files.apns_p12)));
    expect_error(register(both), 400, "invalid_apns_pem").await;
    let key = String::from_utf8(harness.file(&files.apns_p8)).unwrap();
    expect_error(register(Form::new().text("apns_p8", key.clone())), 400, "missing_apns_key_id").await;
    expect_error(register(Form::new().text("apns_p8", pem)), 400, "invalid_apns_p8").await;
    expect_error(register(Form::new().text("fcm_service_account", "{}")), 400, "invalid_fcm_service_account")
        .await;
    expect_error(register(Form::new().text("type", "fcm")), 400, "missing_fcm_service_account").await;
    assert_eq!(harness.simulator.connections().apns.accepted, 0);
    assert_eq!(harness.simulator.connections().google.accepted, 0);
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", id.as_str())];
    expect(harness.server.post(SEND).form(&form), 200).await;
}

#[tokio::test]
async fn every_content_type_and_the_query_carry_the_same_fields() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let url = format!("{SEND}?application_id=app&device_token={DEVICE}&alert=query");
    expect(harness.server.post(&url), 200).await;
    let fields = json!({"application_id": "app", "device_token": DEVICE, "alert": "json", "badge": 1, "data": {"a": true}});
    expect(harness.server.post(SEND).json(&fields), 200).await;
    let form =
        Form::new().text("application_id", "app").text("device_token", DEVICE).text("alert", "multipart");
    expect(harness.server.post(SEND).multipart(form), 200).await;
    let bodies: Vec<Value> = harness
        .received(Service::Apns)
        .iter()
        .map(|push| serde_json::from_str(&push.body).unwrap())
        .collect();
    assert_eq!(bodies[0], json!({"aps": {"alert": "query"}}));
    assert_eq!(bodies[1], json!({"aps": {"alert": "json", "badge": 1}, "a": true}));
    assert_eq!(bodies[2], json!({"aps": {"alert": "multipart"}}));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_abort_its_push() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    harness.simulator.script(Script { delay_ms: 300, ..Script::new(Service::Apns) }).unwrap();
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", "app")];
    let impatient = std::time::Duration::from_millis(150);
    let request = http_client().post(harness.server.url(SEND)).timeout(impatient).form(&form);
    assert!(request.send().await.unwrap_err().is_timeout());
    wait_until("the push arrives", async || !harness.received(Service::Apns).is_empty()).await;
    assert_eq!(harness.received(Service::Apns)[0].status, 200);
    harness.server.stop().await;
}
