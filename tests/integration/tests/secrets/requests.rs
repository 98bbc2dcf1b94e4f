//! Every route, with good and bad input for every provider.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value, json};

use super::known_secrets::Secret;
use super::recording_client::RecordingClient;
use super::{ADMIN, ECHO_TOKEN, FILE_PASSWORD, Files, GCM_KEY, PASSWORD, secrets};
use crate::harness::DEVICE;

type Fields = Vec<(&'static str, Vec<u8>)>;

/// An application that can be registered.
struct Application {
    id: &'static str,
    provider: &'static str,
    settings: &'static [(&'static str, &'static str)],
    secrets: Fields,
}

const APNS_TOKEN: &[(&str, &str)] =
    &[("apns_key_id", "SIMKEY0001"), ("apns_team_id", "SIMTEAM001"), ("apns_topic", "com.example.app")];
/// Fields for secrets, by provider.
const PLACES: &[(&str, &[&str])] = &[
    ("apns", &["apns_p12", "apns_pem", "apns_p12_pass", "apns_p8"]),
    ("fcm", &["fcm_service_account"]),
    ("gcm", &["gcm_api_key"]),
    ("echo", &["echo_token", "echo_p8", "echo_pem", "echo_p12", "echo_password"]),
];

fn applications(files: &Files) -> Vec<Application> {
    let application = |id, provider, settings, secrets| Application { id, provider, settings, secrets };
    let password = || FILE_PASSWORD.as_bytes().to_vec();
    vec![
        application("p12", "apns", &[], vec![("apns_p12", files.p12.clone()), ("apns_p12_pass", password())]),
        application("pem", "apns", &[], vec![("apns_pem", files.pem.clone())]),
        application(
            "locked-pem",
            "apns",
            &[],
            vec![("apns_pem", files.locked_pem.clone()), ("apns_p12_pass", password())],
        ),
        application("p8", "apns", APNS_TOKEN, vec![("apns_p8", files.p8.clone())]),
        application("fcm", "fcm", &[], vec![("fcm_service_account", files.account.clone())]),
        application("gcm", "gcm", &[], vec![("gcm_api_key", GCM_KEY.into())]),
        application("echo-with-token", "echo", &[], vec![("echo_token", ECHO_TOKEN.into())]),
        application("echo-with-p8", "echo", &[], vec![("echo_p8", files.p8.clone())]),
        application("echo-with-pem", "echo", &[], vec![("echo_pem", files.pem.clone())]),
        application(
            "echo-with-p12",
            "echo",
            &[],
            vec![("echo_p12", files.p12.clone()), ("echo_password", password())],
        ),
    ]
}

/// Answers the API keys that were made.
pub async fn run(client: &mut RecordingClient, files: &Files, echo: &[u8]) -> Vec<String> {
    let keys = tenants(client).await;
    let key = keys[0].as_str();
    upload(client, key, echo).await;
    for application in applications(files) {
        register(client, key, &application).await;
        send(client, key, &application).await;
    }
    let contents = contents(secrets(files, &keys));
    wrong_fields(client, key, &contents).await;
    wrong_bodies(client, key, &contents).await;
    inline(client, key).await;
    wrong_callers(client, &keys).await;
    webhooks(client, key).await;
    views(client, key).await;
    ends(client, key).await;
    keys
}

/// All secrets that requests carry, whole and damaged.
fn contents(secrets: Vec<Secret>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = secrets.into_iter().map(|secret| secret.content).collect();
    all.extend(all.clone().iter().map(|secret| secret[..secret.len() / 2].to_vec()));
    all.extend(all.clone().iter().map(|secret| [secret, &b"\n\"}\\\xff"[..]].concat()));
    all
}

async fn tenants(client: &mut RecordingClient) -> Vec<String> {
    let (tenant, keys) = ("/v1/tenants/{id}", "/v1/tenants/{id}/keys");
    let mut made = Vec::new();
    let request = client.request("PUT", tenant, "/v1/tenants/acme").bearer_auth(ADMIN).json(&json!({}));
    made.push(client.secretly(request).await["api_key"].as_str().unwrap().to_owned());
    for expiry in [json!({}), json!({"expires_in": 1000})] {
        let request = client.request("POST", keys, "/v1/tenants/acme/keys").bearer_auth(ADMIN).json(&expiry);
        let key = client.secretly(request).await;
        made.push(key["api_key"].as_str().unwrap().to_owned());
        let path = format!("/v1/tenants/acme/keys/{}", key["id"].as_str().unwrap());
        let request = client.request("DELETE", "/v1/tenants/{id}/keys/{key}", &path).bearer_auth(ADMIN);
        client.call(request).await;
        let request = client.request("DELETE", "/v1/tenants/{id}/keys/{key}", &path).bearer_auth(ADMIN);
        client.call(request).await;
    }
    let request = client.request("POST", "/v1/reload", "/v1/reload").bearer_auth(ADMIN);
    assert_eq!(client.call(request).await, 200);
    for (method, route, path) in [
        ("GET", "/v1/tenants", "/v1/tenants"),
        ("GET", "/v1/overview", "/v1/overview"),
        ("GET", "/v1/backup", "/v1/backup"),
        ("GET", "/v1/nodes", "/v1/nodes"),
        ("GET", tenant, "/v1/tenants/acme"),
        ("GET", keys, "/v1/tenants/acme/keys"),
        ("GET", "/v1/tenants/{id}/usage", "/v1/tenants/acme/usage"),
        ("GET", "/v1/tenants/{id}/usage/{by}", "/v1/tenants/acme/usage/day"),
    ] {
        let request = client.request(method, route, path).bearer_auth(ADMIN);
        assert_eq!(client.call(request).await, 200);
    }
    for body in [json!({"limits": {"applications": PASSWORD}}), json!({"limits": GCM_KEY}), json!(ADMIN)] {
        let request = client.request("PUT", tenant, "/v1/tenants/acme").bearer_auth(ADMIN).json(&body);
        assert_eq!(client.call(request).await, 400);
        let request = client.request("POST", keys, "/v1/tenants/acme/keys").bearer_auth(ADMIN);
        assert_eq!(client.call(request.json(&body)).await, 400);
    }
    made
}

async fn upload(client: &mut RecordingClient, key: &str, echo: &[u8]) {
    let route = "/v1/providers/{name}";
    for (name, bytes) in [("echo", echo), ("bad", GCM_KEY.as_bytes())] {
        let request = client.request("PUT", route, &format!("/v1/providers/{name}")).bearer_auth(key);
        let request = request.header("content-type", "application/wasm").body(bytes.to_vec());
        let status = client.call(request).await;
        assert_eq!(status == 200, name == "echo", "{status}");
    }
    for (digest, expected) in [(pushlet_sandbox::digest(echo), 200), ("00".to_owned(), 404)] {
        let path = "/v1/providers/echo/activate";
        let request = client.request("POST", "/v1/providers/{name}/activate", path).bearer_auth(key);
        assert_eq!(client.call(request.json(&json!({ "digest": digest }))).await, expected);
    }
    let (route, path) = ("/v1/providers/{name}/capture", "/v1/providers/echo/capture");
    let request = client.request("PUT", route, path).bearer_auth(key).json(&json!({ "all": true }));
    assert_eq!(client.call(request).await, 200);
}

async fn register(client: &mut RecordingClient, key: &str, application: &Application) {
    let mut form = Form::new().text("application_id", application.id).text("type", application.provider);
    for (name, value) in application.settings {
        form = form.text(*name, *value);
    }
    for (name, value) in &application.secrets {
        form = form.part(*name, Part::bytes(value.clone()));
    }
    let request = client.request("POST", "/register_application", "/register_application");
    assert_eq!(client.call(request.bearer_auth(key).multipart(form)).await, 200, "{}", application.id);
    let secrets: Map<String, Value> = application
        .secrets
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!({ "base64": STANDARD.encode(value) })))
        .collect();
    let settings: Map<String, Value> =
        application.settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let body = json!({"provider": application.provider, "settings": settings, "credentials": secrets});
    let path = format!("/v1/applications/{}", application.id);
    let request = client.request("PUT", "/v1/applications/{id}", &path).bearer_auth(key).json(&body);
    assert_eq!(client.call(request).await, 200, "{}", application.id);
    let request = client.request("GET", "/v1/applications/{id}", &path).bearer_auth(key);
    assert_eq!(client.call(request).await, 200);
}

async fn send(client: &mut RecordingClient, key: &str, application: &Application) {
    let id = application.id;
    for token in [DEVICE, "dead", "short", ""] {
        let form = [("application_id", id), ("device_token", token), ("alert", "hello"), ("badge", "x")];
        for fields in [&form[..3], &form[..]] {
            let request = client.request("POST", "/send_notification", "/send_notification");
            client.call(request.bearer_auth(key).form(fields)).await;
        }
        let body =
            json!({"application_id": id, "notification": {"body": "hello"}, "targets": [token, DEVICE]});
        let request = client.request("POST", "/v1/notifications", "/v1/notifications").bearer_auth(key);
        client.call(request.json(&body)).await;
        let lines = format!(
            "{}\n{}\nnonsense\n",
            json!({"application_id": id, "notification": {"body": "hello"}}),
            json!({"target": token})
        );
        let route = "/v1/notifications:stream";
        let request = client.request("POST", route, route).bearer_auth(key);
        client.call(request.header("content-type", "application/x-ndjson").body(lines)).await;
    }
    let feedback = [("application_id", id)];
    let request = client.request("POST", "/application_feedback", "/application_feedback");
    client.call(request.bearer_auth(key).form(&feedback)).await;
    let path = format!("/v1/applications/{id}");
    for (method, route, end, body) in [
        ("GET", "/v1/applications/{id}/feedback", "/feedback", None),
        ("POST", "/v1/applications/{id}/feedback", "/feedback", None),
        ("DELETE", "/v1/applications/{id}/feedback", "/feedback?before=1", None),
        ("GET", "/v1/applications/{id}/{collection}", "/channels", None),
        ("POST", "/v1/applications/{id}/{collection}", "/channels", Some(json!({"message_storage": 1}))),
        ("POST", "/v1/applications/{id}/{collection}", "/channels", Some(json!(GCM_KEY))),
        ("GET", "/v1/applications/{id}/{collection}/{item}", "/channels/abc", None),
        ("DELETE", "/v1/applications/{id}/{collection}/{item}", "/channels/abc", None),
    ] {
        let request = client.request(method, route, &format!("{path}{end}")).bearer_auth(key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        client.call(request).await;
    }
}

/// Every secret in every place for one, and in some that are for none.
async fn wrong_fields(client: &mut RecordingClient, key: &str, secrets: &[Vec<u8>]) {
    for (provider, places) in PLACES {
        for place in places.iter().chain(&["no_such_field"]) {
            for secret in secrets {
                let form = Form::new().text("application_id", "wrong").text("type", *provider);
                let form = form.part(*place, Part::bytes(secret.clone()));
                let request = client.request("POST", "/register_application", "/register_application");
                client.call(request.bearer_auth(key).multipart(form)).await;
                let secret = json!({ "base64": STANDARD.encode(secret) });
                let body = json!({"provider": provider, "credentials": {*place: secret}});
                let path = "/v1/applications/wrong";
                let request = client.request("PUT", "/v1/applications/{id}", path).bearer_auth(key);
                client.call(request.json(&body)).await;
            }
        }
    }
}

/// Every secret where the request has a shape of its own.
async fn wrong_bodies(client: &mut RecordingClient, key: &str, secrets: &[Vec<u8>]) {
    for secret in secrets {
        let text = String::from_utf8_lossy(secret).into_owned();
        let bodies = [
            json!(text),
            json!([text]),
            json!({"provider": "apns", "credentials": text}),
            json!({"provider": "apns", "settings": text}),
            json!({"provider": "apns", "environment": text}),
            json!({"provider": text}),
            json!({"provider": "apns", "credentials": {"apns_p8": {"base64": text}}}),
            json!({"provider": "fcm", "credentials": {"fcm_service_account": {"private_key": text}}}),
            json!({"provider": "fcm", "credentials": {"fcm_service_account": {"client_email": [text]}}}),
        ];
        for body in bodies {
            let path = "/v1/applications/wrong";
            let put = |client: &mut RecordingClient| {
                client.request("PUT", "/v1/applications/{id}", path).bearer_auth(key)
            };
            let request = put(client).json(&body);
            client.call(request).await;
            let cut = body.to_string();
            let cut = cut[..cut.floor_char_boundary(cut.len() - 2)].to_owned();
            let request = put(client).header("content-type", "application/json").body(cut);
            client.call(request).await;
            for route in ["/v1/notifications", "/v1/notifications:stream", "/register_application"] {
                let request = client.request("POST", route, route).bearer_auth(key).json(&body);
                client.call(request).await;
            }
        }
        // As `curl -d @key.p8` sends it.
        for content_type in
            ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
        {
            for route in ["/register_application", "/send_notification", "/application_feedback"] {
                let request = client.request("POST", route, route).bearer_auth(key);
                client.call(request.header("content-type", content_type).body(secret.clone())).await;
            }
        }
    }
}

/// Secrets that come with a send, in the body and in the query.
async fn inline(client: &mut RecordingClient, key: &str) {
    for secret in [GCM_KEY.to_owned(), format!("{GCM_KEY}\n"), format!("{GCM_KEY}\u{1}")] {
        for kind in ["gcm", "apns", "nonsense"] {
            let fields =
                [("gcm_api_key", secret.as_str()), ("type", kind), ("device_token", "x"), ("alert", "x")];
            let query: String =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            for route in ["/send_notification", "/register_application"] {
                let request = client.request("POST", route, route).bearer_auth(key);
                client.call(request.form(&fields)).await;
                let request = client.request("POST", route, &format!("{route}?{query}")).bearer_auth(key);
                client.call(request).await;
            }
        }
    }
}

async fn wrong_callers(client: &mut RecordingClient, keys: &[String]) {
    let callers: Vec<Box<dyn Fn(RequestBuilder) -> RequestBuilder>> = vec![
        Box::new(|request| request),
        Box::new(|request| request.bearer_auth(PASSWORD)),
        Box::new(|request| request.basic_auth("me", Some(ADMIN))),
        Box::new(|request| request.basic_auth("you", Some(PASSWORD))),
        Box::new(|request| request.header("authorization", PASSWORD)),
        Box::new(|request| request.bearer_auth(ADMIN).basic_auth("me", Some(PASSWORD))),
        Box::new(|request| request.basic_auth("acme", Some(format!("{}x", keys[0])))),
        Box::new(|request| request.basic_auth("me", Some(PASSWORD))),
        Box::new(|request| request.bearer_auth(&keys[1])),
        Box::new(|request| request.bearer_auth(ADMIN)),
    ];
    for caller in callers {
        for (method, route) in [
            ("GET", "/v1/applications"),
            ("GET", "/v1/status"),
            ("POST", "/register_application"),
            ("GET", "/v1/tenants"),
        ] {
            let request = client.request(method, route, route);
            client.call(caller(request)).await;
        }
    }
}

async fn webhooks(client: &mut RecordingClient, key: &str) {
    let (route, path) = ("/v1/webhooks/{id}", "/v1/webhooks/backend");
    let body = json!({"url": "https://127.0.0.1:9/"});
    let request = client.request("PUT", route, path).bearer_auth(key).json(&body);
    let secret = client.secretly(request).await;
    let secret = secret["secret"].as_str().unwrap().to_owned();
    for body in
        [json!({"url": PASSWORD}), json!({"url": "https://127.0.0.1", "events": [GCM_KEY]}), json!(PASSWORD)]
    {
        let request = client.request("PUT", route, path).bearer_auth(key).json(&body);
        assert_eq!(client.call(request).await, 400);
    }
    for (route, path) in [
        ("/v1/webhooks", "/v1/webhooks"),
        (route, path),
        ("/v1/webhooks/{id}/attempts", "/v1/webhooks/backend/attempts"),
        ("/v1/deliveries", "/v1/deliveries"),
    ] {
        let request = client.request("GET", route, path).bearer_auth(key);
        assert_eq!(client.call(request).await, 200);
    }
    let request = client.request("DELETE", route, path).bearer_auth(key);
    assert_eq!(client.call(request).await, 204);
    let (delivery, none) = ("/v1/deliveries/{id}", "/v1/deliveries/none".to_owned());
    let results = ("GET", "/v1/deliveries/{id}/results", format!("{none}/results"));
    for (method, route, path) in
        [("GET", delivery, none.clone()), ("DELETE", delivery, none.clone()), results]
    {
        let request = client.request(method, route, &path).bearer_auth(key);
        assert_eq!(client.call(request).await, 404);
    }
    let shown = String::from_utf8_lossy(&client.transcript).into_owned();
    assert!(!shown.contains(secret.trim_start_matches("whsec_")), "a webhook's secret is shown once");
}

async fn views(client: &mut RecordingClient, key: &str) {
    for (route, path) in [
        ("/v1/applications", "/v1/applications"),
        ("/v1/applications", "/v1/applications?search=a&sort=expiry"),
        ("/v1/status", "/v1/status"),
        ("/v1/audit", "/v1/audit"),
        ("/v1/providers/{name}", "/v1/providers/echo"),
        ("/v1/providers/{name}", "/v1/providers/apns"),
        ("/v1/providers/{name}/log", "/v1/providers/echo/log"),
        ("/v1/providers/{name}/capture", "/v1/providers/echo/capture"),
        ("/v1/providers", "/v1/providers"),
        ("/openapi.json", "/openapi.json"),
        ("/v1/contract", "/v1/contract"),
        ("/console", "/console"),
        ("/console/", "/console/"),
        ("/console/{part}", "/console/main.js"),
        ("/docs", "/docs"),
        ("/docs/{asset}", "/docs/docs.js"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
    ] {
        let request = client.request("GET", route, path).bearer_auth(key);
        assert_eq!(client.call(request).await, 200, "{path}");
    }
    let request = client.request("GET", "/metrics", "/metrics").bearer_auth(ADMIN);
    assert_eq!(client.call(request).await, 200);
    // Only browsers are led to the console.
    let request = client.request("GET", "/", "/").header("accept", "text/html");
    assert_eq!(client.call(request).await, 200);
}

async fn ends(client: &mut RecordingClient, key: &str) {
    for (route, path, caller) in [
        ("/v1/applications/{id}", "/v1/applications/p8", key),
        ("/v1/applications/{id}", "/v1/applications/p8", key),
        ("/v1/providers/{name}/capture", "/v1/providers/echo/capture", key),
        ("/v1/providers/{name}", "/v1/providers/echo", key),
        ("/v1/tenants/{id}", "/v1/tenants/acme", ADMIN),
        ("/v1/tenants/{id}", "/v1/tenants/acme", ADMIN),
    ] {
        let request = client.request("DELETE", route, path).bearer_auth(caller);
        client.call(request).await;
    }
}
