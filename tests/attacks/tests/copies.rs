//! Input that is copied once per target, and input that takes much more when it is read than its bytes.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::harness::{Harness, Manner, PushService, expect, expect_error};

const MIB: u64 = 1 << 20;

/// The bytes that the server took more than before, at its most.
async fn growth<T>(harness: &Harness, attack: impl AsyncFn() -> T) -> u64 {
    let before = harness.server.watch_memory();
    harness.victim.unharmed_by(async || attack().await).await;
    harness.server.growth_since(&before)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_notification_for_thousands_of_targets() {
    let mut harness = Harness::start("").await;
    harness.register_apns(&harness.attacker, "app").await;
    let large = "x".repeat(6 << 20);
    let bodies: Vec<Value> = ["nothing", "app"]
        .into_iter()
        .flat_map(|application| {
            let item = json!({"notification": {"body": large}, "targets": vec!["t"; 9_999]});
            let own = json!({"notification": {}, "target": "t"});
            [
                json!({"application_id": application, "notifications": [item]}),
                json!({
                    "application_id": application,
                    "notification": {"body": large},
                    "notifications": vec![own; 9_000],
                }),
            ]
        })
        .collect();
    let attack = async || {
        for body in &bodies {
            let request = harness.attack(Method::POST, "/v1/notifications").json(body);
            expect_error(request, 413, "notifications_too_large").await;
        }
    };
    let growth = growth(&harness, attack).await;
    assert!(growth < 100 * MIB, "{} MiB", growth / MIB);
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_targets_are_counted_before_anything_is_made_of_them() {
    let mut harness = Harness::start("").await;
    let item = json!({"notification": {"body": "x".repeat(1 << 20)}, "targets": vec!["t"; 5_001]});
    let body = json!({"application_id": "nothing", "notifications": [item, item]});
    let attack = async || {
        let request = harness.attack(Method::POST, "/v1/notifications").json(&body);
        expect_error(request, 400, "too_many_targets").await;
    };
    let growth = growth(&harness, attack).await;
    assert!(growth < 60 * MIB, "{} MiB", growth / MIB);
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_header_is_not_copied_for_each_line_of_the_window() {
    let service = PushService::start(Manner::Silent).await;
    let settings = "delivery.retries = 0\nlimits.tenant.cpu_milliseconds_per_second = 10000";
    let mut harness = Harness::start_with_service(&service, settings).await;
    harness.upload_webhook().await;
    harness.register_webhook("app", "production").await;
    let notification = json!({"data": {"large": "x".repeat(60 << 10)}});
    let header = json!({"application_id": "app", "notification": notification, "deadline": 1});
    let text = format!("{header}\n{}", "{\"target\":\"t\",\"notification\":{\"title\":\"x\"}}\n".repeat(250));
    let attack = async || {
        let streams = (0..10).map(|_| async {
            let request = harness.attack(Method::POST, "/v1/notifications:stream").body(text.clone());
            let request = request.header("content-type", "application/x-ndjson");
            let answer = request.send().await.unwrap().text().await.unwrap();
            let end: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
            assert_eq!(end["summary"]["total"], 250, "{end}");
        });
        join_all(streams).await;
    };
    let before = harness.server.watch_memory();
    let watched = async { tokio::join!(attack(), most_counted(&harness, 200)).1 };
    let most = harness.victim.unharmed_by_one(watched).await;
    let growth = harness.server.growth_since(&before);
    assert!(growth < 130 * MIB, "{} MiB", growth / MIB);
    // The copies are on the attacker's account: some, and 4 MiB of each stream at most.
    assert!((MIB..=10 * 5 * MIB).contains(&most), "{most}");
    harness.server.assert_alive();
}

/// The most bytes of parsed input on the attacker's account, at so many looks.
async fn most_counted(harness: &Harness, looks: usize) -> u64 {
    let mut most = 0;
    for _ in 0..looks {
        let usage = expect(harness.attack(Method::GET, "/v1/tenants/attacker/usage"), 200).await;
        most = most.max(usage["memory_bytes"]["parsed_input"].as_u64().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_millions_of_parts_is_refused_before_it_is_parsed() {
    let mut harness = Harness::start("").await;
    let text =
        format!("{{\"application_id\":\"a\",\"notifications\":[{}{{}}]}}", "{\"\":0},".repeat(1_190_000));
    let attack = async || {
        let requests = (0..6).map(|_| {
            let request = harness.attack(Method::POST, "/v1/notifications").body(text.clone());
            expect_error(request.header("content-type", "application/json"), 413, "json_too_complex")
        });
        join_all(requests).await;
    };
    let growth = growth(&harness, attack).await;
    assert!(growth < 160 * MIB, "{} MiB for six of 8 MiB", growth / MIB);
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_never_whole_are_on_their_tenants_account() {
    let mut harness = Harness::start("limits.tenant.memory_bytes = \"64MiB\"").await;
    let unfinished = || {
        let part = stream::iter([Ok::<_, std::io::Error>(vec![b' '; 7 << 20])]);
        Body::wrap_stream(part.chain(stream::pending()))
    };
    let attack = async || {
        let requests = (0..40).map(|_| async {
            let request = harness.attack(Method::POST, "/v1/notifications").body(unfinished());
            let request = request.header("content-type", "application/json");
            let answer = tokio::time::timeout(Duration::from_secs(5), request.send()).await;
            // The ones that have room wait; the connection of another may break while it is still writing.
            answer.ok().and_then(Result::ok).map(|response| response.status().as_u16())
        });
        let statuses = join_all(requests).await;
        assert!(statuses.iter().flatten().all(|status| *status == 429), "{statuses:?}");
        assert!(statuses.contains(&Some(429)), "{statuses:?}");
    };
    let growth = growth(&harness, attack).await;
    assert!(growth < 130 * MIB, "{} MiB", growth / MIB);
    let usage = harness.server.client.get(harness.server.url("/v1/tenants/attacker/usage"));
    let usage = expect(usage.bearer_auth(&harness.attacker), 200).await;
    assert!(usage["since_start"]["refused"].as_u64().unwrap() > 0, "{usage}");
    harness.server.assert_alive();
}
