//! Which hosts get an application's secrets: shown, confirmed when a version adds one, and redirected by nobody
//! but the operator, for the very provider that was meant.

use pushlet::bootstrap;
use serde_json::{Value, json};

use super::{PROGRAM, Receiver, UploadFixture, result, upload};
use crate::guests::fixture::component;
use crate::harness::{Directory, Pushlet, config, expect, expect_error};

fn secret_hosts(shown: &Value) -> &Value {
    &shown["manifest"]["secret_hosts"]
}

#[tokio::test]
async fn a_version_that_sends_secrets_elsewhere_must_be_confirmed() {
    let fixture = UploadFixture::new().await;
    let first = expect(fixture.upload("webhook", component("webhook")), 200).await;
    let (production, development) = ("production", "development");
    let known = "https://hooks.example";
    let both = json!([{"host": known, "used_for": development}, {"host": known, "used_for": production}]);
    assert_eq!(*secret_hosts(&first), both);
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;

    let elsewhere = "https://elsewhere.example";
    let refused = expect(fixture.upload("webhook", component("webhook_elsewhere")), 409).await;
    assert_eq!(refused["error"], "hosts_changed", "{refused}");
    assert_eq!(refused["hosts"], json!([{"host": elsewhere, "used_for": production}]));
    assert!(
        refused["message"].as_str().unwrap().contains(&format!("confirm_hosts={elsewhere}")),
        "{refused}"
    );
    assert_eq!(fixture.show("webhook").await["manifest"]["version"], "2", "nothing has changed");

    let put = |hosts: &str| {
        fixture.upload("webhook", component("webhook_elsewhere")).query(&[("confirm_hosts", hosts)])
    };
    expect_error(put(known), 409, "hosts_changed").await;
    let taken = expect(put(&format!("{known}, {elsewhere}")), 200).await;
    assert_eq!(taken["manifest"]["version"], "3");
    expect(fixture.upload("webhook", component("webhook_elsewhere")), 200).await;
    expect_error(fixture.upload("webhook", component("webhook")), 409, "hosts_changed").await;
}

#[tokio::test]
async fn one_that_takes_the_place_of_a_shared_one_is_held_against_that() {
    let directory = Directory::new();
    std::fs::write(directory.path().join("webhook.wasm"), component("webhook")).unwrap();
    let more = format!(
        "providers.dir = {:?}\nproviders.allow_shadowing = true",
        directory.path().display().to_string()
    );
    let fixture = UploadFixture::with(&more).await;
    expect_error(fixture.upload("webhook", component("webhook_elsewhere")), 409, "hosts_changed").await;
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;
}

#[tokio::test]
async fn what_holds_for_a_shared_provider_holds_for_no_tenants_own() {
    let (receiver, directory) = (Receiver::start().await, Directory::new());
    std::fs::write(directory.path().join("webhook.wasm"), component("webhook")).unwrap();
    let (here, ca) = (format!("https://{}", receiver.address), receiver.ca().display().to_string());
    let toml = format!(
        "listen = \"127.0.0.1:0\"\ndelivery.retries = 0\nproviders.compiler = {PROGRAM:?}\n\
         providers.dir = {:?}\nproviders.allow_shadowing = true\ntls.extra_roots = [{ca:?}]\n\
         endpoints.webhook.production = {here:?}\n",
        directory.path().display().to_string()
    );
    let server = Pushlet::start(&toml).await;
    let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    expect(server.put("/v1/applications/app").json(&body), 200).await;
    let send = || {
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": ["someone"], "deadline": 2});
        server.post("/v1/notifications").json(&body)
    };
    assert_eq!(result(send()).await.0, "delivered");
    // Its own component of the same name must find its own way, which there is none for `hooks.example`.
    expect(upload(&server, "webhook", component("webhook_next")), 200).await;
    let (status, code) = result(send()).await;
    assert_ne!(status, "delivered", "{code}");
    assert_eq!(receiver.versions(), ["1"], "{code}");
}

#[test]
fn an_override_that_belongs_to_nobody_is_told_at_the_start() {
    let started = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let toml =
            format!("providers.compiler = {PROGRAM:?}\nendpoints.apn.production = \"https://127.0.0.1:9\"");
        bootstrap::gateway(&config(&toml)).err().map(|problem| problem.to_string())
    });
    let told = started.unwrap();
    assert!(told.starts_with("endpoints.apn: ") && told.contains("did you mean apns?"), "{told}");
}
