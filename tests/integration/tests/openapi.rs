//! `/openapi.json` against a real server: its examples do what it says.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushlet_simulator::Service;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::guests::fixture::component;
use crate::harness::{Harness, expect};
use crate::tenants::{admin, make, with_operator};
use crate::upload::{PROGRAM, digest_of, upload};

/// What only this harness knows: credentials, and names that others gave.
struct Known {
    secrets: BTreeMap<&'static str, Vec<u8>>,
    channel: String,
    /// The id of an API key.
    key: String,
}

/// One request that the document describes.
struct Described<'a> {
    path: &'a str,
    method: Method,
    operation: &'a Value,
}

async fn harness() -> (Harness, Known) {
    let auth = "auth = { username = \"me\", password = \"secret\" }";
    let settings = with_operator(&format!("{auth}\nproviders.compiler = {PROGRAM:?}"));
    let mut harness = Harness::with(&settings).await;
    let headers = [(AUTHORIZATION, HeaderValue::from_static("Basic bWU6c2VjcmV0"))].into_iter().collect();
    harness.server.client = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
    let files = harness.simulator.credentials();
    let secrets = BTreeMap::from([
        ("apns_p12", harness.file(&files.apns_p12)),
        ("apns_pem", harness.file(&files.apns_pem)),
        ("apns_p8", harness.file(&files.apns_p8)),
        ("apns_key_id", files.apns_key_id.clone().into_bytes()),
        ("apns_team_id", files.apns_team_id.clone().into_bytes()),
        ("fcm_service_account", harness.file(&files.fcm_service_account)),
    ]);
    harness.register_apns("my-apns-app").await;
    harness.register_fcm("my-fcm-app").await;
    let body = json!({"provider": "gcm", "credentials": {"gcm_api_key": "a key"}});
    expect(harness.server.put("/v1/applications/my-gcm-app").json(&body), 200).await;
    let path = "/v1/applications/my-apns-app/channels";
    let channel = expect(harness.server.post(path).json(&json!({"message_storage_policy": 1})), 201).await;
    let channel = channel["id"].as_str().unwrap().to_owned();
    make(&harness.server, "acme", &json!({})).await;
    let key = expect(admin(harness.server.post("/v1/tenants/acme/keys")), 201).await;
    let key = key["id"].as_str().unwrap().to_owned();
    (harness, Known { secrets, channel, key })
}

/// All requests, those that delete last, and the items of an application before it.
fn requests(document: &Value) -> Vec<Described<'_>> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            all.push(Described { path, method, operation });
        }
    }
    let is_delete = |one: &Described| one.method == Method::DELETE;
    all.sort_by_key(|one| (is_delete(one), is_delete(one).then_some(std::cmp::Reverse(one.path.len()))));
    all
}

impl Known {
    /// The request's path, with the parameters' examples; an application of its own for each provider.
    fn path(&self, request: &Described<'_>, body: &Value) -> String {
        let mut path = request.path.to_owned();
        for parameter in request.operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] != "path" {
                continue;
            }
            let value = match (name, body["provider"].as_str()) {
                ("item", _) => self.channel.clone(),
                ("key", _) => self.key.clone(),
                ("id", Some(provider)) => format!("my-{provider}-app"),
                _ => parameter["example"].as_str().unwrap().to_owned(),
            };
            let value = value.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            path = path.replace(&format!("{{{name}}}"), &value);
        }
        path
    }

    /// The example with the secrets that it names.
    fn filled(&self, example: &Value) -> Value {
        match example {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), self.secret(name, value)));
                Value::Object(fields.collect())
            }
            other => other.clone(),
        }
    }

    fn secret(&self, name: &str, value: &Value) -> Value {
        match (self.secrets.get(name), value) {
            (Some(secret), Value::Object(_)) => json!({"base64": STANDARD.encode(secret)}),
            (Some(secret), Value::String(_)) => json!(String::from_utf8(secret.clone()).unwrap()),
            (_, other) => self.filled(other),
        }
    }

    fn send(&self, request: RequestBuilder, content_type: &str, example: &Value) -> RequestBuilder {
        let value = self.filled(example);
        let texts = |fields: &Map<String, Value>| -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fields.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        };
        match (content_type, &value) {
            ("application/x-www-form-urlencoded", Value::Object(fields)) => request.form(&texts(fields)),
            ("multipart/form-data", Value::Object(fields)) => {
                let part = |form: Form, (name, text): (String, String)| {
                    let bytes = self.secrets.get(name.as_str()).cloned();
                    form.part(name, Part::bytes(bytes.unwrap_or(text.into_bytes())))
                };
                request.multipart(texts(fields).into_iter().fold(Form::new(), part))
            }
            (_, Value::String(text)) => request.header("content-type", content_type).body(text.clone()),
            _ => request.header("content-type", content_type).body(value.to_string()),
        }
    }
}

/// Sends it; the answer must be one of the documented successes, and of a documented content type.
async fn check(request: RequestBuilder, described: &Described<'_>, what: &str) -> String {
    let Described { path, method, operation } = described;
    let response = request.send().await.unwrap();
    let status = response.status();
    let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{method} {path} {what}: {status} {text}");
    let documented = operation["responses"].get(status.as_str());
    let documented =
        documented.unwrap_or_else(|| panic!("{method} {path} {what}: {status} is not documented"));
    let essence = content_type.as_deref().map(|value| value.split(';').next().unwrap());
    match essence {
        Some(essence) => assert!(documented["content"].get(essence).is_some(), "{method} {path}: {essence}"),
        None => assert!(documented.get("content").is_none(), "{method} {path}: no content"),
    }
    text
}

#[tokio::test]
async fn every_example_is_answered_with_a_documented_success() {
    let (harness, known) = harness().await;
    let document = expect(harness.server.get("/openapi.json"), 200).await;
    let mut sent = 0;
    for described in requests(&document) {
        let request = |body: &Value| {
            let url = harness.server.url(&known.path(&described, body));
            let request = harness.server.client.request(described.method.clone(), url);
            let is_operators = described.path.starts_with("/v1/tenants") || described.path == "/metrics";
            if is_operators { admin(request) } else { request }
        };
        let Some(content) = described.operation.pointer("/requestBody/content").and_then(Value::as_object)
        else {
            check(request(&Value::Null), &described, "").await;
            sent += 1;
            continue;
        };
        for (content_type, media) in content {
            let none = Map::new();
            let examples = media["examples"].as_object().unwrap_or(&none);
            // A file, and the digest of one.
            if content_type == "application/wasm" {
                let request = request(&Value::Null).header("content-type", content_type);
                check(request.body(component("webhook").to_vec()), &described, content_type).await;
            } else if described.path.ends_with("/activate") {
                let request = request(&Value::Null).json(&json!({"digest": digest_of("webhook")}));
                check(request, &described, content_type).await;
            } else {
                assert!(!examples.is_empty(), "{} {content_type} has no example", described.path);
            }
            for (name, example) in examples {
                let request = known.send(request(&example["value"]), content_type, &example["value"]);
                let text = check(request, &described, &format!("{content_type} {name}")).await;
                check_results(described.path, name, &text);
                sent += 1;
            }
        }
    }
    assert!(sent > 60, "{sent}");
    for service in [Service::Apns, Service::Fcm, Service::Gcm] {
        assert!(!harness.received(service).is_empty(), "{service:?}");
    }
}

/// Each target of an example is reached.
fn check_results(path: &str, name: &str, text: &str) {
    let results: Vec<Value> = match path {
        "/v1/notifications" => {
            serde_json::from_str::<Value>(text).unwrap()["results"].as_array().unwrap().clone()
        }
        "/v1/notifications:stream" => {
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.filter(|line| line.get("index").is_some()).collect()
        }
        _ => return,
    };
    assert!(!results.is_empty(), "{path} {name}: {text}");
    for result in results {
        assert!(result["status"] == "delivered" || result["status"] == "valid", "{path} {name}: {result}");
    }
}

#[tokio::test]
async fn what_providers_say_of_themselves_is_in_the_document() {
    let harness = Harness::with(&format!("providers.compiler = {PROGRAM:?}")).await;
    expect(upload(&harness.server, "webhook", component("webhook")), 200).await;
    let before = expect(harness.server.get("/openapi.json"), 200).await;
    let schemas = &before["components"]["schemas"];
    let option = &schemas["Notification"]["properties"]["interruption_level"];
    assert_eq!(option["x-providers"], json!(["apns"]));
    assert!(option["enum"].as_array().unwrap().contains(&json!("time-sensitive")));
    assert_eq!(schemas["Settings"]["properties"]["apns_key_id"]["type"], "string");
    assert_eq!(schemas["Collection"]["enum"], json!(["channels"]));
    assert_eq!(schemas["NewItem"]["required"], json!(["message_storage_policy"]));
    let names = json!(["apns", "fcm", "gcm", "webhook"]);
    assert_eq!(schemas["Registration"]["properties"]["provider"]["enum"], names);
    assert!(schemas["Credentials"]["properties"].get("webhook_token").is_some());
    // A provider that goes takes its fields along.
    let gone = harness.server.delete("/v1/providers/webhook").send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let after = expect(harness.server.get("/openapi.json"), 200).await;
    assert!(after["components"]["schemas"]["Credentials"]["properties"].get("webhook_token").is_none());
}

#[tokio::test]
async fn providers_are_listed() {
    let harness = Harness::with(&format!("providers.compiler = {PROGRAM:?}")).await;
    expect(upload(&harness.server, "webhook", component("webhook")), 200).await;
    let list = expect(harness.server.get("/v1/providers"), 200).await;
    let list = list["providers"].as_array().unwrap();
    let told: Vec<(&str, &str, &str)> = list
        .iter()
        .map(|one| ["name", "origin", "state"].map(|field| one[field].as_str().unwrap()).into())
        .collect();
    let built_in = |name| (name, "built-in", "active");
    let expected = [built_in("apns"), built_in("fcm"), built_in("gcm"), ("webhook", "own", "active")];
    assert_eq!(told, expected);
    assert_eq!(list[0]["credentials"], json!(["certificate", "token"]));
    assert_eq!(list[3]["digest"], digest_of("webhook").as_str());
    assert!(list.iter().all(|one| one["version"].is_string()));
}

#[tokio::test]
async fn paths_and_queries_that_can_not_be_read_are_told_like_everything() {
    let harness = Harness::new().await;
    for path in ["/v1/applications/%FF", "/v1/applications/x/channels/%FF", "/v1/providers/%FF"] {
        let answer = expect(harness.server.get(path), 400).await;
        assert_eq!(answer["error"], "invalid_path", "{path}");
    }
}
