//! Work and memory of the host that no tenant pays for.

use std::time::Duration;

use futures_util::future::join_all;
use pushlet_attacks::costly_pkcs12;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Directory, Harness, Server, component, expect, expect_error, wait_for};

/// Far more than any of these tests needs.
const MOST_MEMORY: u64 = 512 << 20;

fn upload(harness: &Harness, name: &str, component: &[u8]) -> RequestBuilder {
    let request = harness.attack(Method::PUT, &format!("/v1/providers/{name}"));
    request.header("content-type", "application/wasm").body(component.to_vec())
}

fn as_operator(harness: &Harness, method: Method, path: &str) -> RequestBuilder {
    harness.server.client.request(method, harness.server.url(path)).bearer_auth(ADMIN)
}

/// The value of a metric without labels.
async fn metric(harness: &Harness, name: &str) -> f64 {
    let text = as_operator(harness, Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
}

async fn usage(harness: &Harness) -> Value {
    expect(harness.attack(Method::GET, "/v1/tenants/attacker/usage"), 200).await
}

/// Uploads a provider that wants an RSA signature for the origin of each target, and registers an application of it.
async fn upload_signer(harness: &Harness) {
    expect(upload(harness, "guest", component("signer")), 200).await;
    let account = std::fs::read(&harness.simulator.credentials().fcm_service_account).unwrap();
    let account: Value = serde_json::from_slice(&account).unwrap();
    let body = json!({"provider": "guest", "signer_key": account["private_key"]});
    expect(harness.attack(Method::PUT, "/v1/applications/signer").json(&body), 200).await;
}

/// One request to as many origins as there are ports in the range. The address behind them is never dialled.
fn to_many_origins(harness: &Harness, ports: std::ops::Range<u32>, validate_only: bool) -> RequestBuilder {
    let targets: Vec<_> = ports.map(|port| json!({"url": format!("https://127.0.0.1:{port}/a")})).collect();
    harness.attack(Method::POST, "/v1/notifications").json(&json!({
        "application_id": "signer",
        "notification": {"body": "x"},
        "targets": targets,
        "validate_only": validate_only,
        "deadline": 5,
    }))
}

fn codes(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results.iter().map(|result| result["code"].as_str().unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_only_signs_nothing() {
    let mut harness = Harness::start("").await;
    upload_signer(&harness).await;
    let before = metric(&harness, "pushlet_tokens_minted_total").await;
    let attack = || async {
        let both = [to_many_origins(&harness, 1..5001, true), to_many_origins(&harness, 5001..10_001, true)];
        for answer in join_all(both.map(|request| expect(request, 200))).await {
            let results = answer["results"].as_array().unwrap();
            let bad = results.iter().find(|result| result["status"] != "valid");
            assert_eq!(bad, None, "of {}", results.len());
        }
    };
    harness.victim.unharmed_by(attack).await;
    assert_eq!(metric(&harness, "pushlet_tokens_minted_total").await, before);
    assert!(harness.server.peak_resident() < MOST_MEMORY);
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_for_each_target_are_on_the_tenants_account() {
    let mut harness = Harness::start("").await;
    upload_signer(&harness).await;
    let attack = || async {
        let answer = expect(to_many_origins(&harness, 1..4001, false), 200).await;
        let codes = codes(&answer);
        let expected = [
            "forbidden_address",
            "limit_cpu_milliseconds_per_second",
            "limit_queued_work",
            "overloaded_processor",
            "deadline_exceeded",
        ];
        assert_eq!(codes.iter().find(|code| !expected.contains(code)), None);
        assert!(codes.iter().any(|code| code.starts_with("limit_")), "most were not signed");
    };
    harness.victim.unharmed_by(attack).await;
    let usage = usage(&harness).await;
    assert!(usage["since_start"]["cpu_milliseconds"]["signing"].as_u64().unwrap() > 0, "{usage}");
    harness.server.assert_alive();
}

fn register(harness: &Harness, file: &[u8]) -> RequestBuilder {
    let file = reqwest::multipart::Part::bytes(file.to_vec()).file_name("id.p12");
    let form = reqwest::multipart::Form::new().part("apns_p12", file).text("apns_p12_pass", "wrong");
    harness.attack(Method::POST, "/register_application").multipart(form)
}

#[tokio::test(flavor = "multi_thread")]
async fn key_derivation_is_on_the_tenants_account() {
    // Little, since other work on this machine gives the tenant time to be allowed more.
    let mut harness = Harness::start("limits.tenant.cpu_milliseconds_per_second = 20").await;
    let file = costly_pkcs12(300_000);
    // So long that what a tenant may use at one go is soon used up.
    let attack = || async {
        let mut statuses = Vec::new();
        for _ in 0..10 {
            let answers = join_all((0..4).map(|_| register(&harness, &file).send())).await;
            statuses.extend(
                answers.into_iter().map(|answer: reqwest::Result<Response>| answer.unwrap().status()),
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(statuses.iter().all(|status| [400, 429, 503].contains(&status.as_u16())), "{statuses:?}");
        // The victim's registration does not wait for any of these.
        harness.register_apns(&harness.victim.api_key, "another").await;
        statuses.into_iter().any(|status| status == 429)
    };
    assert!(harness.victim.unharmed_by(attack).await, "nothing was refused");
    let usage = usage(&harness).await;
    assert!(usage["since_start"]["cpu_milliseconds"]["key_derivation"].as_u64().unwrap() > 0, "{usage}");
    harness.server.assert_alive();
}

async fn register_webhook(harness: &Harness) {
    harness.upload_webhook().await;
    harness.register_webhook("app", "production").await;
}

/// A request that calls the component and sends nothing.
fn through_webhook(harness: &Harness) -> RequestBuilder {
    harness.attack(Method::POST, "/v1/notifications").json(&json!({
        "application_id": "app",
        "notification": {"body": "x"},
        "targets": ["someone"],
        "validate_only": true,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_is_on_the_tenants_account() {
    let mut harness = Harness::start("").await;
    register_webhook(&harness).await;
    let code = usage(&harness).await["memory_bytes"]["code"].as_u64().unwrap();
    assert!(code > component("webhook").len() as u64, "{code}");
    let limit = async |bytes: u64| {
        let body = json!({"limits": {"memory_bytes": bytes}});
        expect(as_operator(&harness, Method::PUT, "/v1/tenants/attacker").json(&body), 200).await;
    };
    // There is room for what runs, and not for as much again.
    limit(code * 3 / 2).await;
    let attack = || async {
        expect_error(upload(&harness, "guest", component("signer")), 429, "limit_memory_bytes").await;
    };
    harness.victim.unharmed_by(attack).await;
    assert_eq!(usage(&harness).await["memory_bytes"]["code"], code, "what was refused takes nothing");
    limit(512 << 20).await;
    assert_eq!(expect(through_webhook(&harness), 200).await["results"][0]["status"], "valid");
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_cache_listens_before_it_compiles() {
    let data = Directory::new();
    let (registry, cache) = (data.path().join("data"), data.path().join("cache"));
    let key = "5e".repeat(32);
    let settings =
        format!("data_dir = {registry:?}\nregistry.key = {key:?}\nproviders.cache_dir = {cache:?}\n");
    let mut harness = Harness::start(&settings).await;
    register_webhook(&harness).await;
    expect(upload(&harness, "guest", component("signer")), 200).await;
    let toml = std::fs::read_to_string(harness.directory.path().join("pushlet.toml")).unwrap();
    harness.server.stop();
    for file in std::fs::read_dir(&cache).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let (_listen, toml) = toml.split_once('\n').unwrap();
    harness.server = Server::start(toml, &harness.directory).await;
    let ready = expect(harness.server.client.get(harness.server.url("/readyz")), 200).await;
    assert!(ready["loading"].as_u64().unwrap() > 0, "it listens before all is compiled: {ready}");
    // A send waits for the component that it needs, and not for ever.
    let answer = wait_for("the component is loaded", async || {
        let response = through_webhook(&harness).send().await.unwrap();
        if response.status() == 200 {
            return Some(response.json::<Value>().await.unwrap());
        }
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let text = response.text().await.unwrap();
        assert!(text.contains("provider_loading"), "{text}");
        None
    })
    .await;
    assert_eq!(answer["results"][0]["status"], "valid", "{answer}");
    harness.server.assert_alive();
}

/// As `/healthz` is answered on the same threads as everything else, it shows whether these are kept busy.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_parsed_on_the_tenants_account() {
    let mut harness = Harness::start("").await;
    let body = format!("{{\"application_id\":\"x\",\"junk\":[{}0]}}", "0,".repeat((8 << 20) / 2 - 64));
    let attack = || async {
        for _ in 0..5 {
            let request = harness.attack(Method::POST, "/v1/notifications");
            let request = request.header("content-type", "application/json").body(body.clone());
            let (answer, health) = tokio::join!(request.send(), async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                harness.server.client.get(harness.server.url("/healthz")).send().await
            });
            assert_eq!(health.unwrap().status(), 200);
            let status = answer.unwrap().status().as_u16();
            assert!([400, 413, 429, 503].contains(&status), "{status}");
        }
    };
    harness.victim.unharmed_by(attack).await;
    let usage = usage(&harness).await;
    assert!(usage["since_start"]["cpu_milliseconds"]["parsing"].as_u64().unwrap() > 0, "{usage}");
    assert!(harness.server.peak_resident() < MOST_MEMORY);
    harness.server.assert_alive();
}
