//! `/openapi.json` against a real server: its examples do what it says.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushlet_simulator::{ApnsBinary, Options, Service, Simulator, Smpp};
use pushlet_test_support::Nats;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::guests::fixture::component;
use crate::harness::{DEVICE, Directory, Harness, Pushlet, expect, pointing_at};
use crate::tenants::{admin, make, with_operator};
use crate::upload::{PROGRAM, digest_of, upload};

/// What only this harness knows: credentials, and names that others gave.
struct Known {
    secrets: BTreeMap<&'static str, Vec<u8>>,
    channel: String,
    /// The id of an API key.
    key: String,
    /// What the server keeps, of which it makes a copy.
    _data: Directory,
    _streams: (ApnsBinary, Smpp),
    /// A server alone keeps no deliveries: this one is a fleet.
    fleet: Pushlet,
    delivery: String,
    _nats: Nats,
}

/// A fleet of one, and the id of a delivery that it keeps.
async fn fleet(harness: &Harness) -> (Pushlet, String, Nats) {
    let nats = Nats::single("");
    let registry =
        format!("registry = {{ url = {:?}, key = {:?}, replicas = 1 }}", nats.url(), "5e".repeat(32));
    let server = Pushlet::start(&pointing_at(&harness.simulator, &registry)).await;
    let files = harness.simulator.credentials();
    let form = Form::new().part("apns_p12", Part::bytes(std::fs::read(&files.apns_p12).unwrap()));
    expect(server.post("/register_application").multipart(form.text("application_id", "app")), 200).await;
    let body = json!({"application_id": "app", "notification": {"body": "x"}, "target": DEVICE});
    let accepted = server.post("/v1/notifications").header("prefer", "respond-async").json(&body);
    let delivery = expect(accepted, 202).await["id"].as_str().unwrap().to_owned();
    (server, delivery, nats)
}

/// One request that the document describes.
struct Described<'a> {
    path: &'a str,
    method: Method,
    operation: &'a Value,
}

async fn harness() -> (Harness, Known) {
    let auth = "auth = { username = \"me\", password = \"secret\" }";
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
    // Without an endpoint these two would be off.
    let (gateway, centre) =
        (simulator.start_apns_binary().await.unwrap(), simulator.start_smpp().await.unwrap());
    let endpoint = |name: &str, url: &str| {
        format!("endpoints.{name} = {{ production = {url:?}, development = {url:?} }}\n")
    };
    let streams = [
        endpoint("apns-binary.push", &gateway.gateway_url()),
        endpoint("apns-binary.feedback", &gateway.feedback_url()),
        endpoint("smpp", &centre.url()),
    ];
    let data = Directory::new();
    let (folder, key) = (data.path().join("data").display().to_string(), "5e".repeat(32));
    let settings = with_operator(&format!(
        "{auth}\nproviders.compiler = {PROGRAM:?}\ndata_dir = {folder:?}\nregistry.key = {key:?}\n{}",
        streams.concat()
    ));
    let server = Pushlet::start(&pointing_at(&simulator, &settings)).await;
    let mut harness = Harness::of(simulator, server, directory);
    let headers = [(AUTHORIZATION, HeaderValue::from_static("Basic bWU6c2VjcmV0"))].into_iter().collect();
    harness.server.client = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
    let files = harness.simulator.credentials();
    let secrets = BTreeMap::from([
        ("apns_p12", harness.file(&files.apns_p12)),
        ("apns_pem", harness.file(&files.apns_pem)),
        ("apns_binary_p12", harness.file(&files.apns_p12)),
        ("apns_binary_pem", harness.file(&files.apns_pem)),
        ("smpp_password", b"secret".to_vec()),
        ("apns_p8", harness.file(&files.apns_p8)),
        ("apns_key_id", files.apns_key_id.clone().into_bytes()),
        ("apns_team_id", files.apns_team_id.clone().into_bytes()),
        ("fcm_service_account", harness.file(&files.fcm_service_account)),
        ("hms_service_account", harness.file(&files.hms_service_account)),
        ("vapid_private_key", b"yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw".to_vec()),
    ]);
    harness.register_apns("my-apns-app").await;
    harness.register_fcm("my-fcm-app").await;
    expect(harness.server.put("/v1/providers/apns/capture").json(&json!({})), 200).await;
    let body = json!({"provider": "gcm", "credentials": {"gcm_api_key": "a key"}});
    expect(harness.server.put("/v1/applications/my-gcm-app").json(&body), 200).await;
    crate::huawei::register(&harness, "my-hms-app", "my-hms-harmony-app").await;
    crate::web_push::register(&harness, "my-webpush-app").await;
    let path = "/v1/applications/my-apns-app/channels";
    let channel = expect(harness.server.post(path).json(&json!({"message_storage_policy": 1})), 201).await;
    let channel = channel["id"].as_str().unwrap().to_owned();
    let webhook = harness.server.put("/v1/webhooks/backend").json(&json!({"url": "https://hooks.example"}));
    expect(webhook, 201).await;
    make(&harness.server, "acme", &json!({})).await;
    let key = expect(admin(harness.server.post("/v1/tenants/acme/keys")), 201).await;
    let key = key["id"].as_str().unwrap().to_owned();
    let (fleet, delivery, nats) = fleet(&harness).await;
    let _streams = (gateway, centre);
    (harness, Known { secrets, channel, key, _data: data, _streams, fleet, delivery, _nats: nats })
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

fn is_of_delivery(request: &Described) -> bool {
    request.path.starts_with("/v1/deliveries/")
}

impl Known {
    /// The request's path, with the parameters' examples; an application of its own for each provider.
    fn path(&self, request: &Described<'_>, body: &Value) -> String {
        let mut path = request.path.to_owned();
        for parameter in request.operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] != "path" {
                if parameter["in"] == "query" && parameter["required"] == true {
                    let value = parameter["example"].as_str().unwrap();
                    path += &format!("{}{name}={value}", if path.contains('?') { '&' } else { '?' });
                }
                continue;
            }
            // An item of another collection than that of the example.
            let is_subscription = body.get("registration").is_some();
            let value = match (name, body["provider"].as_str()) {
                ("id", None) if is_subscription => "my-fcm-app".to_owned(),
                ("collection", _) if is_subscription => "subscriptions".to_owned(),
                ("item", _) => self.channel.clone(),
                ("key", _) => self.key.clone(),
                ("id", _) if is_of_delivery(request) => self.delivery.clone(),
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
            (Some(secret), Value::String(_)) => {
                let text = String::from_utf8(secret.clone());
                json!(text.unwrap_or_else(|binary| STANDARD.encode(binary.into_bytes())))
            }
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
            let server = if is_of_delivery(&described) { &known.fleet } else { &harness.server };
            let url = server.url(&known.path(&described, body));
            let request = server.client.request(described.method.clone(), url);
            let operators =
                ["/v1/tenants", "/v1/nodes", "/v1/overview", "/v1/reload", "/v1/backup", "/metrics"];
            let is_operators = operators.iter().any(|path| described.path.starts_with(path));
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
    for service in [Service::Apns, Service::Fcm, Service::Gcm, Service::Hms, Service::Webpush] {
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
    assert_eq!(schemas["Collection"]["enum"], json!(["channels", "subscriptions"]));
    assert_eq!(schemas["NewItem"]["anyOf"][0]["required"], json!(["message_storage_policy"]));
    let names = json!(["apns", "apns-binary", "fcm", "gcm", "hms", "smpp", "webhook", "webpush"]);
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
    let own = ("webhook", "own", "active");
    let built_in = |name| (name, "built-in", "active");
    let before = ["apns", "apns-binary", "fcm", "gcm", "hms", "smpp"].map(built_in);
    let expected: Vec<_> = before.into_iter().chain([own, built_in("webpush")]).collect();
    assert_eq!(told, expected);
    assert_eq!(list[0]["credentials"], json!(["certificate", "token"]));
    assert_eq!(list[6]["digest"], digest_of("webhook").as_str());
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

/// Generators of clients name a type after the title of a variant; without one they count: `SoundOneOf1`.
#[tokio::test]
async fn every_variant_has_a_name() {
    let harness = Harness::with("").await;
    let document = expect(harness.server.get("/openapi.json"), 200).await;
    let mut variants = Vec::new();
    variants_in(&document, "", &mut variants);
    assert!(variants.len() > 20, "{}", variants.len());
    for (place, variant) in variants {
        let is_null = variant["type"] == "null";
        assert!(
            is_null || variant.get("$ref").is_some() || variant["title"].is_string(),
            "{place}: {variant}"
        );
    }
}

fn variants_in<'a>(value: &'a Value, place: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let place = format!("{place}/{name}");
                if let ("anyOf" | "oneOf", Value::Array(variants)) = (name.as_str(), value) {
                    found.extend(variants.iter().map(|variant| (place.clone(), variant)));
                }
                variants_in(value, &place, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| variants_in(value, place, found)),
        _ => {}
    }
}
