//! Components that fail after they were taken: the codes that callers see, quarantine, and the way back.

use serde_json::{Value, json};

use super::{UploadFixture, digest_of, result};
use crate::guests::fixture::component;
use crate::harness::{expect, expect_error};

async fn with_guest(name: &str, task: &str) -> UploadFixture {
    let fixture =
        UploadFixture::with("endpoints.\"default/guest\".production = \"https://127.0.0.1:9\"").await;
    expect(fixture.upload("guest", component(name)), 200).await;
    let body = json!({"provider": "guest", "do": task});
    expect(fixture.server.put("/v1/applications/app").json(&body), 200).await;
    fixture
}

#[tokio::test]
async fn every_failure_has_its_code_on_both_routes() {
    let cases = [
        ("endless", "encode", 504, "provider_timeout"),
        ("hog", "hoard", 502, "provider_memory"),
        ("panic", "panic", 502, "provider_panicked"),
        ("paths", "no path", 502, "provider_bad_output"),
        ("handles", "5000", 502, "provider_refused"),
    ];
    for (guest, task, status, code) in cases {
        let fixture = with_guest(guest, task).await;
        let form = [("device_token", "someone"), ("alert", "x"), ("application_id", "app")];
        expect_error(fixture.server.post("/send_notification").form(&form), status, code).await;
        let failed = ("failed".to_owned(), code.to_owned());
        assert_eq!(result(fixture.send(&json!({"body": "x"}))).await, failed, "{guest}");
        assert_eq!(fixture.show("guest").await["failures"], 2, "{guest}");
    }
}

const TRAP: &str = "trap";

fn trap() -> Value {
    json!({"body": "x", TRAP: true})
}

#[tokio::test]
async fn a_version_that_keeps_failing_gives_way_to_the_one_before() {
    let fixture = UploadFixture::ready().await;
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;
    for _ in 0..5 {
        assert_eq!(result(fixture.send(&trap())).await.1, "provider_panicked");
    }
    assert_eq!(result(fixture.send(&trap())).await.0, "delivered", "the first version can do it");
    assert_eq!(fixture.receiver.versions(), ["1"]);
    let shown = fixture.show("webhook").await;
    assert_eq!((&shown["state"], &shown["digest"]), (&json!("active"), &json!(digest_of("webhook"))));
    let bad = &shown["versions"][1];
    assert_eq!(bad["digest"], digest_of("webhook_next"));
    assert!(bad["quarantined_for"].as_f64().unwrap() > 1.0, "{bad}");
    let log = expect(fixture.server.get("/v1/providers/webhook/log"), 200).await;
    let text = log["versions"][1]["log"].as_str().unwrap();
    assert!(text.contains("the next version is broken"), "{log}");
}

#[tokio::test]
async fn the_only_version_is_quarantined_until_somebody_releases_it() {
    let fixture = UploadFixture::new().await;
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;
    fixture.register("app").await;
    for _ in 0..5 {
        assert_eq!(result(fixture.send(&trap())).await.1, "provider_panicked");
    }
    let hello = json!({"body": "x"});
    assert_eq!(result(fixture.send(&hello)).await, ("failed".into(), "provider_quarantined".into()));
    let form = [("device_token", "someone"), ("alert", "x"), ("application_id", "app")];
    let response = fixture.server.post("/send_notification").form(&form).send().await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 1);
    let shown = fixture.show("webhook").await;
    assert_eq!(shown["state"], "quarantined");
    assert!(shown["quarantined_for"].as_f64().unwrap() > 1.0);
    let released = expect(fixture.activate("webhook", &digest_of("webhook_next")), 200).await;
    assert_eq!(released["state"], "active");
    assert_eq!(result(fixture.send(&hello)).await.0, "delivered");
}
