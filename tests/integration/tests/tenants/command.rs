//! `pushlet tenant`: the operator's commands against a real server.

use std::process::Command;

use serde_json::{Value, json};

use super::{ADMIN, with_operator};
use crate::harness::{Pushlet, expect};
use crate::upload::PROGRAM;

/// Runs the program; answers whether it went well, and what it printed.
async fn run(server: &Pushlet, key: &str, line: &[&str]) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("tenant").args(line).args(["--server", &server.url(""), "--api-key", key, "--json"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

/// The JSON that it prints.
async fn shown(server: &Pushlet, line: &[&str]) -> Value {
    let (well, text) = run(server, ADMIN, line).await;
    assert!(well, "{line:?}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_changes_and_removes_tenants() {
    let server = Pushlet::start(&format!("listen = \"127.0.0.1:0\"\n{}", with_operator(""))).await;
    let made = shown(&server, &["put", "acme", "--set", "limits={\"applications\": 3}"]).await;
    let key = made["api_key"].as_str().unwrap();
    expect(server.get("/v1/applications").bearer_auth(key), 200).await;
    assert_eq!(shown(&server, &["show", "acme"]).await["limits"], json!({"applications": 3}));
    let usage = shown(&server, &["usage", "acme"]).await;
    assert_eq!(usage["limits"]["applications"], json!({"used": 0, "limit": 3}));
    let added = shown(&server, &["add-key", "acme", "--others-expire-in", "0"]).await;
    expect(server.get("/v1/applications").bearer_auth(key), 401).await;
    let next = added["api_key"].as_str().unwrap();
    expect(server.get("/v1/applications").bearer_auth(next), 200).await;
    let keys = shown(&server, &["keys", "acme"]).await;
    assert_eq!(keys["keys"][0]["id"], added["id"]);
    shown(&server, &["remove-key", "acme", added["id"].as_str().unwrap()]).await;
    expect(server.get("/v1/applications").bearer_auth(next), 401).await;
    assert_eq!(shown(&server, &["put", "acme", "--set", "suspended=true"]).await["suspended"], true);
    let all = shown(&server, &["list"]).await;
    let ids: Vec<&Value> = all["tenants"].as_array().unwrap().iter().map(|tenant| &tenant["id"]).collect();
    assert_eq!(ids, ["acme", "default"]);
    shown(&server, &["delete", "acme"]).await;
    let (well, text) = run(&server, ADMIN, &["show", "acme"]).await;
    assert!(!well && text.contains("tenant_not_found"), "{text}");
    let (well, text) = run(&server, "wrong", &["list"]).await;
    assert!(!well && text.contains("does not know these credentials"), "{text}");
}
