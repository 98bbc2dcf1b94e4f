//! What a tenant's own components may use: each limit with a guest that wants more.

use serde_json::{Value, json};

use super::{admin, change, expect_limit, make, used, with_operator};
use crate::guests::fixture::component;
use crate::harness::{Pushlet, expect, wait_until};
use crate::upload::{PROGRAM, Receiver, upload};

/// A tenant with an uploaded guest and an application of it, whose setting `do` says what it does wrong.
struct ComponentFixture {
    receiver: Receiver,
    server: Pushlet,
    key: String,
}

impl ComponentFixture {
    async fn new(guest: &str) -> Self {
        let receiver = Receiver::start().await;
        let endpoint = format!("https://{}", receiver.address);
        let webhook = format!(
            "endpoints.\"acme/webhook\" = {{ production = {endpoint:?}, development = {endpoint:?} }}"
        );
        let endpoints = receiver.settings("acme", "guest");
        let settings = format!(
            "listen = \"127.0.0.1:0\"\nsandbox.call_timeout = \"60s\"\nproviders.compiler = {PROGRAM:?}\n{webhook}\n{endpoints}"
        );
        let server = Pushlet::start(&with_operator(&settings)).await;
        let key = make(&server, "acme", &json!({})).await;
        let fixture = Self { receiver, server, key };
        fixture.uploaded("guest", component(guest)).await;
        fixture
    }

    async fn uploaded(&self, name: &str, component: &[u8]) {
        expect(upload(&self.server, name, component).bearer_auth(&self.key), 200).await;
    }

    async fn limit(&self, limits: Value) {
        change(&self.server, "acme", &json!({ "limits": limits })).await;
    }

    /// Has it do this; answers status and code of the one result.
    async fn does(&self, task: &str) -> (String, String) {
        let application = format!("app-{task}");
        let body = json!({"provider": "guest", "settings": {"do": task}});
        let path = format!("/v1/applications/{application}");
        expect(self.server.put(&path).bearer_auth(&self.key).json(&body), 200).await;
        self.send(&application).await
    }

    async fn send(&self, application: &str) -> (String, String) {
        let body =
            json!({"application_id": application, "notification": {"body": "x"}, "targets": ["someone"]});
        let answer = self.server.post("/v1/notifications").bearer_auth(&self.key).json(&body);
        let answer = answer.send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        let body: Value = serde_json::from_str(&body).unwrap();
        if !status.is_success() {
            return (status.as_u16().to_string(), body["error"].as_str().unwrap().to_owned());
        }
        let text = |name: &str| body["results"][0][name].as_str().unwrap_or_default().to_owned();
        (text("status"), text("code"))
    }

    /// The provider everybody has goes on, whatever this tenant's do.
    async fn others_go_on(&self) {
        let other = make(&self.server, "other", &json!({})).await;
        let body = json!({"provider": "gcm", "credentials": {"gcm_api_key": "x"}});
        expect(self.server.put("/v1/applications/shop").bearer_auth(&other).json(&body), 200).await;
        let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": ["a"],
            "validate_only": true});
        let answer = expect(self.server.post("/v1/notifications").bearer_auth(&other).json(&body), 200).await;
        assert_eq!(answer["results"][0]["status"], "valid", "{answer}");
    }
}

fn is(result: (String, String), status: &str, code: &str) {
    assert_eq!((result.0.as_str(), result.1.as_str()), (status, code));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_of_one_call() {
    let fixture = ComponentFixture::new("endless").await;
    // Without it the server's own would end the call, after a minute.
    fixture.limit(json!({"call_milliseconds": 200})).await;
    let start = std::time::Instant::now();
    is(fixture.does("encode").await, "failed", "provider_timeout");
    assert!(start.elapsed().as_secs() < 60);
    is(fixture.does("nothing").await, "delivered", "");
    fixture.others_go_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_per_second() {
    let fixture = ComponentFixture::new("busy").await;
    is(fixture.does("1").await, "delivered", "");
    fixture.limit(json!({"cpu_milliseconds_per_second": 1})).await;
    let mut result = fixture.does("3000000").await;
    // Where it is used up after a push went out, what became of that is unknown.
    for _ in 0..1000 {
        if result.0 == "throttled" {
            break;
        }
        result = fixture.send("app-3000000").await;
    }
    is(result, "throttled", "provider_cpu_limit");
    let form = [("application_id", "app-1"), ("device_token", "a"), ("alert", "x")];
    let classic = fixture.server.post("/send_notification").bearer_auth(&fixture.key).form(&form);
    let classic = classic.send().await.unwrap();
    assert_eq!(classic.status(), 429);
    assert!(classic.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let text = classic.text().await.unwrap();
    assert!(text.contains("(limit cpu_milliseconds_per_second)"), "{text}");
    let (used, most) = used(&fixture.server, "acme", "cpu_milliseconds_per_second").await;
    assert!(used.as_u64().unwrap() >= 1 && most == 1, "{used} of {most}");
    fixture.others_go_on().await;
    fixture.limit(json!({"cpu_milliseconds_per_second": 1_000_000})).await;
    // What is owed is paid off at the new rate.
    wait_until("the debt is paid off", async || fixture.send("app-1").await.0 == "delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_one_instance() {
    let fixture = ComponentFixture::new("hog").await;
    is(fixture.does("nothing").await, "delivered", "");
    fixture.limit(json!({"instance_memory_bytes": 4 << 20})).await;
    is(fixture.does("grow").await, "delivered", "");
    let pages = fixture.receiver.posts().last().unwrap().body.clone();
    assert_eq!(pages, 64, "4 MiB in pages of 64 KiB, also for a warm instance");
    is(fixture.does("hoard").await, "failed", "provider_memory");
    is(fixture.does("nothing").await, "delivered", "");
    fixture.others_go_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_all_instances() {
    let fixture = ComponentFixture::new("hog").await;
    fixture.uploaded("webhook", component("webhook")).await;
    let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    expect(fixture.server.put("/v1/applications/app").bearer_auth(&fixture.key).json(&body), 200).await;
    fixture.limit(json!({"memory_bytes": 5 << 20})).await;
    is(fixture.does("hoard").await, "throttled", "provider_memory_limit");
    is(fixture.does("grow").await, "delivered", "");
    let (held, most) = used(&fixture.server, "acme", "memory_bytes").await;
    assert_eq!(most, 5 << 20);
    assert!(held.as_u64().unwrap() > 4 << 20 && held.as_u64() <= most.as_u64(), "{held}");
    is(fixture.send("app").await, "delivered", "");
    let (held, _) = used(&fixture.server, "acme", "memory_bytes").await;
    assert!(held.as_u64().unwrap() < 4 << 20, "the idle one made room: {held}");
    fixture.others_go_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn number_and_bytes_of_components() {
    let fixture = ComponentFixture::new("hog").await;
    let webhook = component("webhook");
    let put = |name: &str, bytes: &[u8]| upload(&fixture.server, name, bytes).bearer_auth(&fixture.key);
    fixture.limit(json!({"components": 1})).await;
    expect_limit(put("webhook", webhook), "components").await;
    let (_, bytes) = (used(&fixture.server, "acme", "components").await, component("hog").len());
    assert_eq!(used(&fixture.server, "acme", "component_bytes").await.0, bytes);
    fixture.limit(json!({"component_bytes": bytes + webhook.len() - 1})).await;
    expect_limit(put("webhook", webhook), "component_bytes").await;
    expect(put("guest", component("hog")), 200).await;
    fixture.limit(json!({"component_bytes": bytes + webhook.len()})).await;
    expect(put("webhook", webhook), 200).await;
    assert_eq!(used(&fixture.server, "acme", "components").await, (2.into(), 20.into()));
    let none = make(&fixture.server, "none", &json!({"limits": {"components": 0}})).await;
    expect_limit(upload(&fixture.server, "webhook", webhook).bearer_auth(&none), "components").await;
    let removed = admin(fixture.server.delete("/v1/tenants/acme")).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    let next = make(&fixture.server, "acme", &json!({})).await;
    let shown = fixture.server.get("/v1/providers/webhook").bearer_auth(&next);
    crate::harness::expect_error(shown, 404, "provider_not_found").await;
    assert_eq!(used(&fixture.server, "acme", "component_bytes").await.0, 0);
}
