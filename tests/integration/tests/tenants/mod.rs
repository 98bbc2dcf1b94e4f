//! Tenants: who they are to the server, what they see of each other, and how much each may use.

mod command;
mod components;
mod keys;
mod limits;
mod many;
mod operator;
mod separation;

use pushlet_simulator::Service;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, Pushlet, expect};

/// The operator's key.
pub const ADMIN: &str = "the-operators-own-key";

/// The lines of configuration with which a server has an operator.
pub fn with_operator(settings: &str) -> String {
    format!("admin.key = {ADMIN:?}\ndelivery.retries = 0\n{settings}\n")
}

/// A server with an operator, in front of simulators.
pub async fn harness_with_operator(settings: &str) -> Harness {
    Harness::with(&with_operator(settings)).await
}

/// Makes a tenant; answers its key.
pub async fn make(server: &Pushlet, id: &str, body: &Value) -> String {
    let made = expect(admin(server.put(&format!("/v1/tenants/{id}")).json(body)), 201).await;
    assert_eq!(made["id"], id);
    made["api_key"].as_str().unwrap().to_owned()
}

/// Changes a tenant; answers what it is now.
pub async fn change(server: &Pushlet, id: &str, body: &Value) -> Value {
    expect(admin(server.put(&format!("/v1/tenants/{id}")).json(body)), 200).await
}

pub fn admin(request: RequestBuilder) -> RequestBuilder {
    request.bearer_auth(ADMIN)
}

/// What is used of a limit, and the limit.
pub async fn used(server: &Pushlet, tenant: &str, limit: &str) -> (Value, Value) {
    let usage = expect(admin(server.get(&format!("/v1/tenants/{tenant}/usage"))), 200).await;
    (usage["limits"][limit]["used"].clone(), usage["limits"][limit]["limit"].clone())
}

/// Registers an FCM application for whoever has the key.
pub fn register(harness: &Harness, key: &str, id: &str) -> RequestBuilder {
    let account = harness.file(&harness.simulator.credentials().fcm_service_account);
    let account: Value = serde_json::from_slice(&account).unwrap();
    let body = json!({"provider": "fcm", "credentials": {"fcm_service_account": account}});
    harness.server.put(&format!("/v1/applications/{id}")).bearer_auth(key).json(&body)
}

/// Sends to so many devices.
pub fn send(harness: &Harness, key: &str, application: &str, targets: usize) -> RequestBuilder {
    let targets: Vec<String> = (0..targets).map(|number| format!("{number}{DEVICE}")).collect();
    let body = json!({"application_id": application, "notification": {"body": "hello"}, "targets": targets});
    harness.server.post("/v1/notifications").bearer_auth(key).json(&body)
}

/// Sends, and checks that the limit of this name refuses it.
pub async fn expect_limit(request: RequestBuilder, limit: &str) {
    let response = request.send().await.unwrap();
    let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(status, 429, "{text}");
    assert!(wait.unwrap().parse::<u64>().unwrap() >= 1);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["error"], format!("limit_{limit}"), "{body}");
    assert!(body["message"].as_str().unwrap().contains(&format!("(limit {limit})")), "{body}");
}

/// How many pushes the push service got.
pub fn pushes(harness: &Harness) -> usize {
    harness.received(Service::Fcm).len()
}
