//! Credentials as people upload them, and what is said of those that cannot be used.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, Pushlet, expect};
use pushlet_simulator::{CertificateKind, CertificateSpec, Environment, Script, Service, Simulator};

/// A server that finds each of Apple's environments where it belongs.
async fn server(simulator: &Simulator) -> Pushlet {
    let (production, development) = (simulator.apns_production_url(), simulator.apns_url());
    let google = simulator.google_url();
    let ca = simulator.credentials().ca_pem.display().to_string();
    Pushlet::start(&format!(
        "listen = \"127.0.0.1:0\"\ndelivery.retries = 0\ntls.extra_roots = [{ca:?}]\n\
         endpoints.apns = {{ production = {production:?}, development = {development:?} }}\n\
         endpoints.fcm = {{ production = {google:?}, development = {google:?} }}"
    ))
    .await
}

fn pem(simulator: &Simulator, spec: &CertificateSpec) -> String {
    let issued = simulator.issue_certificate(spec).unwrap();
    issued.certificate_pem + &issued.key_pem
}

fn register(server: &Pushlet, pem: &str, mode: &'static str) -> reqwest::RequestBuilder {
    let form =
        Form::new().text("apns_pem", pem.to_owned()).text("application_id", "app").text("apns_mode", mode);
    server.post("/register_application").multipart(form)
}

async fn refusal(request: reqwest::RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), status);
    response.json().await.unwrap()
}

#[tokio::test]
async fn a_certificate_pushes_in_the_environment_that_apple_made_it_for() {
    let harness = Harness::new().await;
    let server = server(&harness.simulator).await;
    let only = |production: bool| {
        let spec = CertificateSpec::for_topic("com.example.app");
        pem(&harness.simulator, &CertificateSpec { production, development: !production, ..spec })
    };
    let form = [("device_token", DEVICE), ("alert", "x"), ("application_id", "app")];
    for (production, mode, other) in
        [(true, "production", "development"), (false, "development", "production")]
    {
        let pem = only(production);
        let error = refusal(register(&server, &pem, other), 400).await;
        let why = format!("is for Apple's {mode} environment alone and cannot push in {other}");
        assert!(error["message"].as_str().unwrap().contains(&why), "{error}");
        assert_eq!(error["error"], "invalid_apns_pem");
        expect(register(&server, &pem, mode), 200).await;
        expect(server.post("/send_notification").form(&form), 200).await;
        let environment = if production { Environment::Production } else { Environment::Development };
        assert_eq!(harness.simulator.received().last().unwrap().environment, Some(environment));
    }
    // Of two in one file, that of the environment; and a team's certificate beside them does not count.
    let team =
        CertificateSpec { production: false, development: false, ..CertificateSpec::for_topic("TEAM123456") };
    let all = [pem(&harness.simulator, &team), only(false), only(true)].concat();
    for mode in ["production", "development"] {
        expect(register(&server, &all, mode), 200).await;
        expect(server.post("/send_notification").form(&form), 200).await;
    }
    let error = refusal(register(&server, &pem(&harness.simulator, &team), "production"), 400).await;
    assert!(error["message"].as_str().unwrap().contains("not a push certificate"), "{error}");
}

#[tokio::test]
async fn certificates_of_device_management_push_as_they_are() {
    let harness = Harness::new().await;
    let server = server(&harness.simulator).await;
    let mdm = CertificateSpec::of_kind(CertificateKind::Mdm, "com.apple.mgmt.External.1");
    expect(register(&server, &pem(&harness.simulator, &mdm), "production"), 200).await;
    let native = r#"{"mdm":"magic"}"#;
    let form = [("device_token", DEVICE), ("application_id", "app"), ("push_type", "mdm"), ("apns", native)];
    expect(server.post("/send_notification").form(&form), 200).await;
    let push = harness.simulator.received().pop().unwrap();
    assert_eq!((push.body.as_str(), push.topic.as_deref()), (native, Some("com.apple.mgmt.External.1")));
}

#[tokio::test]
async fn uploads_may_be_wrapped_marked_and_escaped() {
    use base64::Engine as _;
    let harness = Harness::new().await;
    let files = harness.simulator.credentials();
    let p12 = base64::engine::general_purpose::STANDARD.encode(harness.file(&files.apns_p12));
    let wrapped =
        p12.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\n").collect::<String>();
    let put = |body: Value| {
        let body = [b"\xef\xbb\xbf".to_vec(), body.to_string().into_bytes()].concat();
        let request = harness.server.client.put(harness.server.url("/v1/applications/app"));
        request.header("content-type", "application/json").body(body)
    };
    expect(put(json!({"provider": "apns", "credentials": {"apns_p12": {"base64": wrapped}}})), 200).await;
    let escaped = String::from_utf8(harness.file(&files.apns_p8)).unwrap().replace('\n', "\\n");
    let settings = json!({"apns_key_id": files.apns_key_id, "apns_team_id": files.apns_team_id, "apns_topic": "com.example.app"});
    expect(put(json!({"provider": "apns", "settings": settings, "credentials": {"apns_p8": escaped}})), 200)
        .await;
    let header = "\u{feff}{\"application_id\":\"app\",\"notification\":{\"body\":\"x\"}}\n";
    let lines = format!("{header}{{\"target\":{DEVICE:?}}}\n");
    let stream =
        harness.server.post("/v1/notifications:stream").header("content-type", "application/x-ndjson");
    let answer = stream.body(lines).send().await.unwrap().text().await.unwrap();
    assert!(answer.starts_with(r#"{"index":0,"status":"delivered""#), "{answer}");
    let marked = [b"\xef\xbb\xbf".to_vec(), harness.file(&files.fcm_service_account)].concat();
    let form = Form::new().part("fcm_service_account", Part::bytes(marked)).text("application_id", "droid");
    expect(harness.server.post("/register_application").multipart(form), 200).await;
}

#[tokio::test]
async fn json_without_its_content_type_is_named() {
    let harness = Harness::new().await;
    let body = format!(r#"{{"application_id":"app","device_token":"{DEVICE}","alert":"x"}}"#);
    let form = "application/x-www-form-urlencoded";
    let request = harness.server.post("/send_notification").header("content-type", form).body(body.clone());
    let error = refusal(request, 415).await;
    assert_eq!(
        error["message"],
        "the body is JSON but has the content type of a form (application/x-www-form-urlencoded); \
         send it with content-type: application/json"
    );
    let error = refusal(harness.server.post("/send_notification").body(body), 415).await;
    assert!(
        error["message"].as_str().unwrap().starts_with("the body is JSON but has no content type"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_token_endpoint_says_reaches_the_caller() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_fcm("droid").await;
    let body = Some(json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}));
    harness.simulator.script(Script { status: Some(400), body, ..Script::new(Service::Oauth) }).unwrap();
    let form = [("device_token", "t"), ("alert", "x"), ("application_id", "droid")];
    let error = refusal(harness.server.post("/send_notification").form(&form), 403).await;
    assert_eq!(
        error["message"],
        "the token endpoint refused the credential: invalid_grant (Invalid JWT Signature.)"
    );
}

/// The account's token endpoint is asked over the open network, unless the operator named it.
#[tokio::test]
async fn a_private_token_endpoint_is_the_credentials_fault() {
    let harness = Harness::new().await;
    let mut account: Value =
        serde_json::from_slice(&harness.file(&harness.simulator.credentials().fcm_service_account)).unwrap();
    account["token_uri"] = json!("https://127.0.0.1:9/token");
    let form = Form::new().text("fcm_service_account", account.to_string()).text("application_id", "droid");
    expect(harness.server.post("/register_application").multipart(form), 200).await;
    let form = [("device_token", "t"), ("alert", "x"), ("application_id", "droid")];
    let error = refusal(harness.server.post("/send_notification").form(&form), 400).await;
    assert_eq!(error["error"], "token_endpoint_forbidden");
    assert_eq!(error["message"], "the token endpoint may not be asked: the address is not a public one");
}
