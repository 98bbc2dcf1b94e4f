//! Memory that the host takes for a tenant: what it keeps, and what push services answer.

use std::cell::Cell;

use futures_util::future::join;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Harness, Manner, PushService, expect};

const MIB: usize = 1 << 20;
/// What there may be resident for each byte on the account: buffers that grow, and the allocator's.
const FACTOR: u64 = 2;
/// The same for what is on no account: the buffers of hundreds of connections, and the victim.
const OWN: u64 = 96 << 20;

/// Processor time is not what these are about, and a build without optimizations takes much of it.
const COMMON: &str =
    "delivery.retries = 0\ndelivery.deadline = \"60s\"\nlimits.tenant.cpu_milliseconds_per_second = 10000\n";

/// A server with the attacker's provider, and an application of it for each of the push service's addresses.
async fn start(service: &PushService, settings: &str) -> Harness {
    let harness = Harness::start_with_service(service, &format!("{COMMON}{settings}\n")).await;
    harness.upload_webhook().await;
    for environment in ["production", "development"] {
        harness.register_webhook(environment, environment).await;
    }
    harness
}

/// Far longer than these pushes take, whatever else the machine does.
const LONG: u32 = 60;

/// Sends, and waits for so many seconds at most.
fn send(harness: &Harness, application: &str, targets: &[String], seconds: u32) -> RequestBuilder {
    harness.attack(Method::POST, "/v1/notifications").json(&json!({
        "application_id": application,
        "notification": {"body": "x"},
        "targets": targets,
        "deadline": seconds,
    }))
}

/// Targets that no other call has made, of so many bytes.
fn targets(call: usize, count: usize, bytes: usize) -> Vec<String> {
    (0..count).map(|number| format!("{call:04}x{number:04}{}", "t".repeat(bytes - 9))).collect()
}

/// The bytes that the attacker's account has for one use.
async fn on_account(harness: &Harness, of: &str) -> usize {
    let usage = expect(harness.attack(Method::GET, "/v1/tenants/attacker/usage"), 200).await;
    usize::try_from(usage["memory_bytes"][of].as_u64().unwrap_or_else(|| panic!("no {of}: {usage}"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_of_slow_push_services_are_on_their_tenants_account() {
    let service = PushService::start(Manner::Endless(500 << 10)).await;
    let mut harness = start(&service, "limits.tenant.memory_bytes = \"64MiB\"").await;
    let before = harness.server.watch_memory();
    // As many from each as one push service may have in flight: 250 MiB.
    let attack = async {
        let targets = targets(0, 256, 9);
        let (one, other) =
            (send(&harness, "production", &targets, 5), send(&harness, "development", &targets, 5));
        join(expect(one, 200), expect(other, 200)).await
    };
    let (one, other) = harness.victim.unharmed_by_one(attack).await;
    let growth = harness.server.growth_since(&before);
    assert!(growth < FACTOR * (64 << 20) + OWN, "{} MiB", growth >> 20);
    for answer in [one, other] {
        // The response began, so whether the push was delivered is known to nobody.
        assert_eq!(answer["summary"]["unknown"], 256, "{}", answer["summary"]);
        let short = |result: &Value| result["message"].as_str().unwrap_or_default().contains("memory_bytes");
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().any(short), "the attacker is told: {}", results[0]);
    }
    assert_eq!(on_account(&harness, "answers").await, 0, "all of it was given back");
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_tokens_of_all_applications_take_a_quarter_of_their_tenants_memory() {
    let service = PushService::start(Manner::Status(410)).await;
    let mut harness = start(&service, "limits.tenant.memory_bytes = \"16MiB\"").await;
    let before = harness.server.watch_memory();
    // 800 tokens, each of which is kept twice: 6 MiB.
    let attack = async {
        for call in 0..8 {
            let application = if call % 2 == 0 { "production" } else { "development" };
            let answer = expect(send(&harness, application, &targets(call, 100, 3_900), LONG), 200).await;
            assert_eq!(answer["summary"]["unregistered"], 100, "{}", answer["results"][0]);
        }
    };
    harness.victim.unharmed_by_one(attack).await;
    let kept = on_account(&harness, "feedback").await;
    assert!((3 * MIB..=4 * MIB).contains(&kept), "{kept}");
    let growth = harness.server.growth_since(&before);
    assert!(growth < FACTOR * (16 << 20) + OWN, "{} MiB", growth >> 20);
    // Those that were reported last are there, of each application.
    for (application, newest) in [("production", 6), ("development", 7)] {
        let path = format!("/v1/applications/{application}/feedback");
        let shown = expect(harness.attack(Method::GET, &path), 200).await;
        let tokens = shown["dead_tokens"].as_array().unwrap();
        let last = tokens.last().unwrap()["device_token"].as_str().unwrap();
        assert!(last.starts_with(&format!("{newest:04}x")), "{}", &last[..9]);
    }
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_kept_for_repeats_have_a_bound() {
    let service = PushService::start(Manner::Status(200)).await;
    let mut harness = start(&service, "limits.idempotency_memory = \"1MiB\"").await;
    let repeat = async |round: usize, call: usize| {
        let request = send(&harness, "production", &targets(call, 50, 3 << 10), LONG);
        let request = request.header("idempotency-key", format!("key{round}-{call}"));
        let response = request.send().await.unwrap();
        let is_replay = response.headers().contains_key("idempotency-replayed");
        let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
        assert!(status == 200 && answer["summary"]["delivered"] == 50, "{status}: {}", answer["results"][0]);
        is_replay
    };
    let rounds = Cell::new(0);
    let attack = async || {
        rounds.set(rounds.get() + 1);
        // 150 KiB each.
        for call in 0..10 {
            assert!(!repeat(rounds.get(), call).await);
        }
    };
    harness.victim.unharmed_by(attack).await;
    let kept = on_account(&harness, "idempotency").await;
    assert!((MIB / 2..=MIB).contains(&kept), "{kept}");
    // The newest is known, and the oldest made room for it.
    let before = service.responses();
    assert!(repeat(rounds.get(), 9).await);
    assert_eq!(service.responses(), before);
    assert!(!repeat(rounds.get(), 0).await);
    assert_eq!(service.responses(), before + 50);
    harness.server.assert_alive();
}
