//! The attackers that send requests. Each repeats its attack until the run is over and counts what it is told.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Body, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::server::Server;
use super::{Answers, connections};
use crate::peer::Failure;

const MEBIBYTE: usize = 1 << 20;

/// One attacker, to its end.
pub type Attacker<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What every attacker knows.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub server: &'a Server,
    pub answers: &'a Answers,
    pub is_over: &'a AtomicBool,
}

/// Sets up the attackers, each with a tenant of its own or without a credential.
pub async fn all<'a>(
    server: &'a Server,
    answers: &'a Answers,
    is_over: &'a AtomicBool,
) -> Result<Vec<Attacker<'a>>, Failure> {
    let scene = Scene { server, answers, is_over };
    let mut attackers: Vec<Attacker> = Vec::new();
    for (attack, body) in [
        ("one notification for many targets", shared_notification()),
        ("a large notification for many items", many_items()),
        ("JSON of nothing but braces", braces()),
    ] {
        let key = server.make_tenant(&format!("attacker-{}", attackers.len())).await?;
        attackers.push(Box::pin(scene.repeat(attack, move || {
            let request = server.post("/v1/notifications", &key).header("content-type", "application/json");
            request.body(body.clone())
        })));
    }
    let key = server.make_tenant("registers").await?;
    attackers.push(Box::pin(registrations(scene, key)));
    let key = server.make_tenant("streams").await?;
    server.register_apns(&key, "streamed").await?;
    attackers.push(Box::pin(streams(scene, key)));
    let key = server.make_tenant("uploads").await?;
    attackers.push(Box::pin(scene.repeat("components that are none", move || {
        server
            .request(Method::PUT, "/v1/providers/acme", &key)
            .header("content-type", "application/wasm")
            .body(vec![0; 4 * MEBIBYTE])
    })));
    attackers.push(Box::pin(scene.repeat("wrong credentials", || {
        server.post("/v1/notifications", "pk_wrong_wrong").json(&json!({"application_id": "x"}))
    })));
    attackers.extend(connections::all(scene));
    Ok(attackers)
}

impl Scene<'_> {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Sends the request again and again.
    async fn repeat(self, attack: &'static str, request: impl Fn() -> RequestBuilder) {
        while !self.is_over() {
            self.send(attack, request()).await;
        }
    }

    /// Sends one request, and counts what it is told.
    async fn send(&self, attack: &'static str, request: RequestBuilder) {
        match request.send().await {
            Ok(response) => self.answers.count(attack, code(response).await),
            Err(error) => self.answers.count(attack, kind(&error)),
        }
    }
}

/// Status, and error code where there is one.
async fn code(response: Response) -> String {
    let status = response.status().as_u16();
    let body: Option<Value> = response.json().await.ok();
    let code = body.as_ref().and_then(|body| body["error"].as_str());
    code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
}

fn kind(error: &reqwest::Error) -> &'static str {
    match (error.is_connect(), error.is_body()) {
        (true, _) => "no connection",
        (_, true) => "the body was not taken",
        _ => "no response",
    }
}

/// 6 MiB of notification and 9,999 targets; the application does not exist.
fn shared_notification() -> String {
    let targets = r#""t","#.repeat(9998) + r#""t""#;
    let body = "x".repeat(6 * MEBIBYTE);
    format!(
        r#"{{"application_id":"nothing","notifications":[{{"notification":{{"body":"{body}"}},"targets":[{targets}]}}]}}"#
    )
}

/// A shared notification of 7 MiB, and 9,000 items of one target.
fn many_items() -> String {
    let items = r#"{"target":"t"},"#.repeat(8999) + r#"{"target":"t"}"#;
    let body = "x".repeat(7 * MEBIBYTE);
    format!(r#"{{"application_id":"nothing","notification":{{"body":"{body}"}},"notifications":[{items}]}}"#)
}

/// Bytes that take many times their number when they are parsed.
fn braces() -> String {
    let items = r#"{"":0},"#.repeat(8 * MEBIBYTE / 7 - 100);
    format!(r#"{{"application_id":"nothing","notifications":[{items}{{"":0}}]}}"#)
}

/// Registers applications with a new key each, and sends one push with each.
async fn registrations(scene: Scene<'_>, key: String) {
    const ATTACK: &str = "an application and a key for each push";
    let mut number = 0_u64;
    while !scene.is_over() {
        number += 1;
        let id = format!("application-{number}");
        let Ok(registration) = scene.server.application(&key, &id) else { return };
        scene.send(ATTACK, registration).await;
        let body = json!({"application_id": id, "notification": {"body": "x"}, "targets": [format!("{number:064x}")]});
        scene.send(ATTACK, scene.server.post("/v1/notifications", &key).json(&body)).await;
    }
}

/// A header of 60 KB and many short lines, in ten streams at a time.
async fn streams(scene: Scene<'_>, key: String) {
    let body = "x".repeat(3000);
    let data = "y".repeat(56_000);
    let header = json!({"application_id": "streamed", "notification": {"body": body, "data": {"d": data}}});
    let lines = (0..1500).map(|number| format!("{{\"target\":\"{number:020x}\"}}\n"));
    let text = format!("{header}\n{}", lines.collect::<String>());
    let request = || {
        scene
            .server
            .post("/v1/notifications:stream", &key)
            .header("content-type", "application/x-ndjson")
            .body(Body::from(text.clone()))
    };
    let one = || scene.repeat("streams with a large header", request);
    futures_util::future::join_all((0..10).map(|_| one())).await;
}
