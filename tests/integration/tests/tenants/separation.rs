//! Two tenants on every route: what is another's is answered as what is not there.

use std::collections::BTreeSet;

use pushlet_simulator::Service;
use reqwest::Method;
use serde_json::{Value, json};

use super::{admin, harness_with_operator, make, register};
use crate::guests::fixture::component;
use crate::harness::{DEVICE, Harness, expect};
use crate::routes;
use crate::upload::{PROGRAM, upload};

/// Routes that name something of a tenant's, and a body that goes with each; `ID` stands for an application's
/// id, and a provider's.
const NAMING: &[(&str, &str, &str)] = &[
    ("GET", "/v1/applications/{id}", ""),
    ("DELETE", "/v1/applications/{id}", ""),
    ("GET", "/v1/applications/{id}/feedback", ""),
    ("POST", "/v1/applications/{id}/feedback", ""),
    ("DELETE", "/v1/applications/{id}/feedback?before=1", ""),
    ("GET", "/v1/applications/{id}/{collection}", ""),
    ("POST", "/v1/applications/{id}/{collection}", "{}"),
    ("GET", "/v1/applications/{id}/{collection}/{item}", ""),
    ("DELETE", "/v1/applications/{id}/{collection}/{item}", ""),
    ("GET", "/v1/providers/{name}", ""),
    ("DELETE", "/v1/providers/{name}", ""),
    ("POST", "/v1/providers/{name}/activate", r#"{"digest": "00"}"#),
    ("GET", "/v1/providers/{name}/log", ""),
    ("GET", "/v1/providers/{name}/capture", ""),
    ("PUT", "/v1/providers/{name}/capture", "{}"),
    ("DELETE", "/v1/providers/{name}/capture", ""),
    (
        "POST",
        "/v1/notifications",
        r#"{"application_id": "ID", "notification": {"body": "x"}, "targets": ["a"]}"#,
    ),
    ("POST", "/v1/notifications:stream", r#"{"application_id": "ID", "notification": {"body": "x"}}"#),
    ("POST", "/send_notification", r#"{"application_id": "ID", "device_token": "a", "alert": "x"}"#),
    ("POST", "/application_feedback", r#"{"application_id": "ID"}"#),
    ("GET", "/v1/webhooks/{id}", ""),
    ("DELETE", "/v1/webhooks/{id}", ""),
    ("GET", "/v1/webhooks/{id}/attempts", ""),
    ("GET", "/v1/deliveries/{id}", ""),
    ("DELETE", "/v1/deliveries/{id}", ""),
    ("GET", "/v1/deliveries/{id}/results", ""),
    ("GET", "/v1/tenants/{id}", ""),
    ("GET", "/v1/tenants/{id}/usage", ""),
    ("GET", "/v1/tenants/{id}/usage/{by}", ""),
];
/// Routes that make something of the caller's own, or show all of that.
const OWN: &[(&str, &str)] = &[
    ("GET", "/v1/applications"),
    ("PUT", "/v1/applications/{id}"),
    ("POST", "/register_application"),
    ("PUT", "/v1/providers/{name}"),
    ("GET", "/v1/status"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/webhooks"),
    ("GET", "/v1/deliveries"),
    ("PUT", "/v1/webhooks/{id}"),
    ("GET", "/v1/providers"),
    ("GET", "/openapi.json"),
];
/// Routes that show nothing of a tenant's.
const NOBODYS: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/"),
    ("GET", "/console"),
    ("GET", "/console/"),
    ("GET", "/console/{part}"),
    ("GET", "/docs"),
    ("GET", "/docs/{asset}"),
    ("GET", "/v1/contract"),
];
/// Routes of the operator.
const OPERATORS: &[(&str, &str)] = &[
    ("GET", "/metrics"),
    ("GET", "/v1/overview"),
    ("POST", "/v1/reload"),
    ("GET", "/v1/backup"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/nodes"),
    ("PUT", "/v1/tenants/{id}"),
    ("DELETE", "/v1/tenants/{id}"),
    ("GET", "/v1/tenants/{id}/keys"),
    ("POST", "/v1/tenants/{id}/keys"),
    ("DELETE", "/v1/tenants/{id}/keys/{key}"),
];

#[test]
fn every_route_is_in_a_table() {
    let bare = |path: &'static str| path.split_once('?').map_or(path, |(path, _)| path);
    let naming = NAMING.iter().map(|(method, path, _)| (*method, bare(path)));
    let tables = naming.chain(OWN.iter().chain(NOBODYS).chain(OPERATORS).copied());
    let tables: BTreeSet<_> = tables.map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(tables, routes::all());
}

/// `shop` is an application, a provider and a tenant; the other tenant has nothing.
async fn victims() -> (Harness, String, String) {
    let harness = harness_with_operator(&format!("providers.compiler = {PROGRAM:?}")).await;
    let acme = make(&harness.server, "shop", &json!({})).await;
    let other = make(&harness.server, "other", &json!({})).await;
    let files = harness.simulator.credentials();
    let body = json!({
        "provider": "apns", "apns_p8": String::from_utf8(harness.file(&files.apns_p8)).unwrap(),
        "apns_key_id": files.apns_key_id, "apns_team_id": files.apns_team_id, "apns_topic": files.apns_topic,
    });
    expect(harness.server.put("/v1/applications/shop").bearer_auth(&acme).json(&body), 200).await;
    expect(upload(&harness.server, "webhook", component("webhook")).bearer_auth(&acme), 200).await;
    (harness, acme, other)
}

async fn ask(harness: &Harness, key: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = harness.server.client.request(method, harness.server.url(path)).bearer_auth(key);
    if !body.is_empty() {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// With names filled in.
fn named(template: &str, application: &str, provider: &str) -> String {
    let template = template.replace("{id}", application).replace("ID", application);
    template
        .replace("{name}", provider)
        .replace("{collection}", "channels")
        .replace("{item}", "abc")
        .replace("{by}", "day")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_answered_as_what_is_not_there() {
    let (harness, acme, other) = victims().await;
    for (method, path, body) in NAMING {
        let (real_path, real_body) = (named(path, "shop", "webhook"), named(body, "shop", "webhook"));
        let real = ask(&harness, &other, method, &real_path, &real_body).await;
        let (path, body) = (named(path, "none", "nothing"), named(body, "none", "nothing"));
        let (status, text) = ask(&harness, &other, method, &path, &body).await;
        assert_eq!(real.0, 404, "{method} {real_path}: {}", real.1);
        let text = text.replace("none", "shop").replace("nothing", "webhook");
        assert_eq!(real, (status, text), "{method} {real_path}");
    }
    // And nothing of it has happened.
    for path in ["/v1/applications/shop", "/v1/providers/webhook", "/v1/tenants/shop"] {
        expect(harness.server.get(path).bearer_auth(&acme), 200).await;
    }
    assert!(harness.received(Service::Apns).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_its_own_of_the_same_name() {
    let (harness, acme, other) = victims().await;
    expect(register(&harness, &other, "shop"), 200).await;
    let provider = async |key: &str| {
        expect(harness.server.get("/v1/applications/shop").bearer_auth(key), 200).await["provider"].clone()
    };
    assert_eq!((provider(&acme).await, provider(&other).await), (json!("apns"), json!("fcm")));
    let form = [("application_id", "classic"), ("gcm_api_key", "x"), ("type", "gcm")];
    expect(harness.server.post("/register_application").bearer_auth(&other).form(&form), 200).await;
    let list = async |key: &str| {
        let all = expect(harness.server.get("/v1/applications").bearer_auth(key), 200).await;
        let all = all["applications"].as_array().unwrap().clone();
        all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&acme).await, ["shop"]);
    assert_eq!(list(&other).await, ["classic", "shop"]);
    for (path, name) in [("/v1/providers", "\"webhook\""), ("/openapi.json", "webhook_channel")] {
        let sees = async |key: &str| {
            let shown = harness.server.get(path).bearer_auth(key).send().await.unwrap();
            assert_eq!(shown.status(), 200);
            shown.text().await.unwrap().contains(name)
        };
        assert!(sees(&acme).await && !sees(&other).await, "{path}");
    }
    let next = component("webhook_next");
    expect(upload(&harness.server, "webhook", next).bearer_auth(&other), 200).await;
    let digest = async |key: &str| {
        expect(harness.server.get("/v1/providers/webhook").bearer_auth(key), 200).await["digest"].clone()
    };
    assert_ne!(digest(&acme).await, digest(&other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_tokens_outcomes_and_repeats_are_ones_own() {
    let (harness, acme, other) = victims().await;
    expect(register(&harness, &other, "shop"), 200).await;
    let dead = format!("dead{}", &DEVICE[4..]);
    let send = |key: &str| {
        let body =
            json!({"application_id": "shop", "notification": {"body": "x"}, "targets": [dead, DEVICE]});
        harness.server.post("/v1/notifications").bearer_auth(key).header("idempotency-key", "one").json(&body)
    };
    let status = |answer: &Value| answer["results"][0]["status"].as_str().unwrap().to_owned();
    assert_eq!(status(&expect(send(&acme), 200).await), "unregistered");
    let repeated = send(&other).send().await.unwrap();
    assert!(repeated.headers().get("idempotency-replayed").is_none(), "the other's own first");
    let feedback = async |key: &str| {
        let all = expect(harness.server.post("/v1/applications/shop/feedback").bearer_auth(key), 200).await;
        all["dead_tokens"].as_array().unwrap().len()
    };
    let own = async |key: &str| expect(harness.server.get("/v1/status").bearer_auth(key), 200).await;
    let (acmes, others) = (own(&acme).await, own(&other).await);
    assert_eq!((&acmes["tenant"], &acmes["outcomes"]["unregistered"]), (&json!("shop"), &json!(1)));
    let hour = |status: &Value, outcome: &str| {
        let minutes = status["minutes"].as_array().unwrap().iter();
        minutes.filter_map(|minute| minute["outcomes"][outcome].as_u64()).sum::<u64>()
    };
    assert_eq!((hour(&acmes, "unregistered"), acmes["reasons"].as_array().unwrap().len()), (1, 1));
    assert_eq!(acmes["reasons"][0]["last"]["provider"], "apns");
    assert!(!others["reasons"].to_string().contains("apns"), "{others}");
    assert_eq!(others["tenant"], "other");
    assert!(others["applications"].to_string().contains("fcm") && !others.to_string().contains("apns_p8"));
    assert!(!others["applications"].to_string().contains("apns"), "{others}");
    let taken = feedback(&other).await;
    assert!(taken <= 1);
    assert_eq!(feedback(&acme).await, 1, "reading the other's list takes nothing from this one");
    let metrics = admin(harness.server.get("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tenant=\"shop\"") && metrics.contains("tenant=\"other\""));
}
