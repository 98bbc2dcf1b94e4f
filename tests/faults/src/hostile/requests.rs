//! Attackers that need nothing but requests: bodies that grow, work that costs much, answers and reports that are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pushlet_attacks::costly_pkcs12;
use reqwest::Body;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HOST, ORIGIN};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::attackers::{Attacker, Attackers};
use super::server::apns_application;
use crate::peer::Failure;

const MEBIBYTE: usize = 1 << 20;
/// As many rounds of hashing as a file may take; with SHA-512 each counts twice.
const ROUNDS: u32 = 1_000_000;

pub async fn prepare(all: &mut Attackers) -> Result<(), Failure> {
    large_bodies(all).await?;
    let attacker = all.tenant("registers", "an application and a key for each push").await?;
    all.add(4, attacker, registrations);
    let attacker = all.tenant("derives", "PKCS#12 with many rounds").await?;
    let file = costly_pkcs12(ROUNDS);
    all.add(4, attacker, move |attacker| attacker.repeat(derivation(file.clone())));
    let attacker = all.tenant("streams", "streams with a large header").await?;
    register(&attacker).await?;
    let stream = Arc::<[u8]>::from(stream_with_a_large_header().into_bytes());
    all.add(10, attacker, move |attacker| {
        let stream = stream.clone();
        attacker.repeat(move |attacker| {
            let request = attacker.post("/v1/notifications:stream").body(Body::from(stream.to_vec()));
            request.header(CONTENT_TYPE, "application/x-ndjson")
        })
    });
    let attacker = all.tenant("repeats", "idempotency keys with large answers").await?;
    register(&attacker).await?;
    let number = Arc::new(AtomicU64::new(0));
    all.add(2, attacker, move |attacker| attacker.repeat(kept_answer(number.clone())));
    let attacker = all.caller("pk_wrong_wrong".to_owned(), "wrong credentials")?;
    all.add(4, attacker, |attacker| {
        attacker.repeat(|attacker| attacker.post("/v1/notifications").json(&json!({"application_id": "x"})))
    });
    let attacker = all.tenant("visitor", "pages of another site, and rebound names").await?;
    all.add(2, attacker, |attacker| attacker.repeat(of_a_page()));
    Ok(())
}

/// Registers an APNs application.
async fn register(attacker: &Attacker) -> Result<(), Failure> {
    let request = attacker.request(Method::PUT, "/v1/applications/app").json(&apns_application()?);
    attacker.set_up(request).await
}

async fn large_bodies(all: &mut Attackers) -> Result<(), Failure> {
    for (attack, body) in [
        ("one notification for many targets", shared_notification()),
        ("a large notification for many items", many_items()),
        ("JSON of nothing but braces", braces()),
        ("JSON of nothing but numbers", numbers()),
    ] {
        let attacker = all.tenant(&attack.replace(' ', "-").to_ascii_lowercase(), attack).await?;
        let body = bytes(body);
        all.add(3, attacker, move |attacker| {
            let body = body.clone();
            attacker.repeat(move |attacker| {
                let request = attacker.post("/v1/notifications").header(CONTENT_TYPE, "application/json");
                request.body(body.to_vec())
            })
        });
    }
    Ok(())
}

fn bytes(text: String) -> Arc<[u8]> {
    text.into_bytes().into()
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

fn numbers() -> String {
    format!(r#"{{"application_id":"nothing","junk":[{}0]}}"#, "0,".repeat(8 * MEBIBYTE / 2 - 64))
}

/// Registers applications with a new key each, and sends one push with each.
async fn registrations(attacker: Attacker) {
    loop {
        let Ok(application) = apns_application() else { return };
        let id = format!("application-{:016x}", rand::random::<u64>());
        attacker
            .send(attacker.request(Method::PUT, &format!("/v1/applications/{id}")).json(&application))
            .await;
        let target = format!("{:064x}", rand::random::<u32>());
        let body = json!({"application_id": id, "notification": {"body": "x"}, "targets": [target]});
        attacker.send(attacker.post("/v1/notifications").json(&body)).await;
    }
}

fn derivation(file: Vec<u8>) -> impl FnMut(&Attacker) -> RequestBuilder {
    move |attacker| {
        let part = Part::bytes(file.clone()).file_name("id.p12");
        let form = Form::new().part("apns_p12", part).text("apns_p12_pass", "wrong");
        attacker.post("/register_application").multipart(form)
    }
}

/// A header of 60 KB and many short lines.
fn stream_with_a_large_header() -> String {
    let body = "x".repeat(3000);
    let data = "y".repeat(56_000);
    let header = json!({"application_id": "app", "notification": {"body": body, "data": {"d": data}}});
    let lines = (0..1500).map(|number| format!("{{\"target\":\"{number:020x}\"}}\n"));
    format!("{header}\n{}", lines.collect::<String>())
}

/// Something is delivered, so the answer is kept; most of it is about targets that cost nothing.
fn kept_answer(number: Arc<AtomicU64>) -> impl FnMut(&Attacker) -> RequestBuilder {
    let mut targets = vec![Value::String(format!("{:064x}", 1))];
    targets.resize(5000, Value::String("not-a-token".to_owned()));
    let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": targets});
    move |attacker| {
        let key = number.fetch_add(1, Ordering::Relaxed).to_string();
        attacker.post("/v1/notifications").header("idempotency-key", key).json(&body)
    }
}

/// What a page of another site could have its visitor's browser send, and what a rebound name could.
fn of_a_page() -> impl FnMut(&Attacker) -> RequestBuilder {
    let mut turn = 0;
    move |attacker| {
        turn += 1;
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": ["t"]});
        let request = attacker.post("/v1/notifications").json(&body);
        match turn % 3 {
            0 => request.header("sec-fetch-site", "cross-site"),
            1 => request.header(ORIGIN, "https://evil.example"),
            _ => request.header(HOST, "evil.example").header(ORIGIN, "http://evil.example:1"),
        }
    }
}
