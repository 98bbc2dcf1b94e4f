//! Uploaded, used, replaced, rolled back, removed, and still there after a restart.

use std::sync::atomic::{AtomicBool, Ordering};

use pushlet::bootstrap;
use pushlet_gateway::Gateway;
use pushlet_gateway::tenants::Wanted;
use pushlet_model::tenant::TenantId;
use serde_json::json;

use super::{Receiver, UploadFixture, digest_of, result, send, settings, upload, variant};
use crate::guests::fixture::component;
use crate::harness::{Directory, Pushlet, config, expect, expect_error};

fn delivered() -> (String, String) {
    ("delivered".into(), String::new())
}

#[tokio::test]
async fn an_uploaded_provider_sends() {
    let fixture = UploadFixture::new().await;
    let answer = expect(fixture.upload("webhook", component("webhook")), 200).await;
    assert_eq!((&answer["state"], &answer["origin"]), (&json!("active"), &json!("own")));
    assert_eq!(answer["digest"], digest_of("webhook"));
    assert_eq!(answer["manifest"]["endpoints"], json!(["https://hooks.example"]));
    fixture.register("app").await;
    assert_eq!(result(fixture.send(&json!({"body": "hello"}))).await, delivered());
    let form = [("device_token", "gone"), ("alert", "classic"), ("application_id", "app")];
    expect_error(fixture.server.post("/send_notification").form(&form), 410, "unregistered").await;
    let posts = fixture.receiver.posts();
    assert_eq!(posts[0].path, "/news/someone");
    assert_eq!(posts[0].authorization, "Bearer hush");
    assert_eq!(posts[0].body, json!({"text": "hello", "version": "1"}));
    assert_eq!((posts[1].path.as_str(), &posts[1].body["text"]), ("/news/gone", &json!("classic")));
}

#[tokio::test]
async fn a_new_version_is_used_from_then_on_and_calls_under_way_finish_with_the_old_one() {
    let fixture = UploadFixture::ready().await;
    fixture.receiver.holds.send_replace(true);
    let under_way = tokio::spawn(result(fixture.send(&json!({"body": "first"}))));
    fixture.receiver.has(1).await;
    let answer = expect(fixture.upload("webhook", component("webhook_next")), 200).await;
    assert_eq!(answer["digest"], digest_of("webhook_next"));
    assert_eq!(answer["versions"].as_array().unwrap().len(), 2);
    fixture.receiver.holds.send_replace(false);
    assert_eq!(under_way.await.unwrap(), delivered());
    assert_eq!(result(fixture.send(&json!({"body": "second"}))).await, delivered());
    assert_eq!(fixture.receiver.versions(), ["1", "2"]);
}

#[tokio::test]
async fn replacing_it_again_and_again_loses_no_push() {
    let fixture = UploadFixture::ready().await;
    let over = AtomicBool::new(false);
    let sending = async {
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            assert_eq!(result(fixture.send(&json!({"body": "hello"}))).await, delivered());
            sent += 1;
        }
        sent
    };
    let replacing = async {
        for round in 0..10 {
            let version = if round % 2 == 0 { "webhook_next" } else { "webhook" };
            expect(fixture.upload("webhook", component(version)), 200).await;
            // At least one push for each version, however fast the uploads are.
            fixture.receiver.has(fixture.receiver.posts().len() + 2).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(sending, replacing);
    let versions = fixture.receiver.versions();
    assert_eq!(versions.len(), sent);
    assert!(versions.iter().any(|version| version == "1") && versions.iter().any(|version| version == "2"));
}

#[tokio::test]
async fn an_old_version_comes_back_by_its_digest() {
    let fixture = UploadFixture::ready().await;
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;
    let answer = expect(fixture.activate("webhook", &digest_of("webhook")), 200).await;
    assert_eq!(answer["digest"], digest_of("webhook"));
    let active: Vec<_> =
        answer["versions"].as_array().unwrap().iter().map(|version| &version["active"]).collect();
    assert_eq!(active, [&json!(true), &json!(false)]);
    result(fixture.send(&json!({"body": "x"}))).await;
    assert_eq!(fixture.receiver.versions(), ["1"]);
    expect_error(fixture.activate("webhook", &"0".repeat(64)), 404, "version_not_found").await;
    expect_error(fixture.activate("nothing", &digest_of("webhook")), 404, "provider_not_found").await;
}

#[tokio::test]
async fn the_oldest_versions_go_and_an_old_one_that_was_not_loaded_comes_back() {
    let fixture = UploadFixture::with("providers.versions = 3").await;
    let digest = |number| pushlet_sandbox::digest(&variant("webhook", number));
    for number in 0..5 {
        expect(fixture.upload("webhook", &variant("webhook", number)), 200).await;
    }
    let shown = fixture.show("webhook").await;
    let kept: Vec<_> = shown["versions"].as_array().unwrap().iter().map(|kept| &kept["digest"]).collect();
    assert_eq!(kept, [&json!(digest(4)), &json!(digest(3)), &json!(digest(2))]);
    expect_error(fixture.activate("webhook", &digest(0)), 404, "version_not_found").await;
    expect(fixture.activate("webhook", &digest(2)), 200).await;
    fixture.register("app").await;
    assert_eq!(result(fixture.send(&json!({"body": "x"}))).await, delivered());
}

#[tokio::test]
async fn what_is_removed_is_gone_and_its_applications_say_so() {
    let fixture = UploadFixture::ready().await;
    assert_eq!(fixture.server.delete("/v1/providers/webhook").send().await.unwrap().status(), 204);
    expect_error(fixture.server.get("/v1/providers/webhook"), 404, "provider_not_found").await;
    expect_error(fixture.server.delete("/v1/providers/webhook"), 404, "provider_not_found").await;
    expect_error(fixture.send(&json!({"body": "x"})), 404, "provider_not_found").await;
    expect_error(fixture.server.delete("/v1/providers/apns"), 409, "built_in_provider").await;
    expect(fixture.upload("webhook", component("webhook")), 200).await;
    assert_eq!(result(fixture.send(&json!({"body": "x"}))).await, delivered());
}

/// Two servers with the same directory, one after the other.
#[tokio::test]
async fn a_restart_keeps_all_versions() {
    let receiver = Receiver::start().await;
    let directory = Directory::new();
    let data = directory.path().join("data").display().to_string();
    let cache = directory.path().join("cache").display().to_string();
    let kept = format!(
        "data_dir = {data:?}\nregistry.key = \"{}\"\nproviders.cache_dir = {cache:?}",
        "5e".repeat(32)
    );
    let settings = settings(&receiver, &kept);
    let first = Pushlet::start(&settings).await;
    expect(upload(&first, "webhook", component("webhook")), 200).await;
    expect(upload(&first, "webhook", component("webhook_next")), 200).await;
    let path = "/v1/providers/webhook/activate";
    expect(first.post(path).json(&json!({ "digest": digest_of("webhook") })), 200).await;
    let before = expect(first.get("/v1/providers/webhook"), 200).await;
    first.stop().await;

    let fixture = UploadFixture { receiver, server: Pushlet::start(&settings).await };
    // It is loaded by whoever needs it first, or in the background.
    fixture.register("app").await;
    assert_eq!(fixture.show("webhook").await, before);
    assert_eq!(result(send(&fixture.server, &json!({"body": "x"}))).await, delivered());
    assert_eq!(fixture.receiver.versions(), ["1"]);
    let files = std::fs::read_dir(directory.path().join("cache")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert!(
        !names.is_empty() && names.iter().all(|name| name != "key"),
        "its key is the registry's: {names:?}"
    );
}

#[tokio::test]
async fn another_tenant_does_not_see_it() {
    let receiver = Receiver::start().await;
    let gateway: Gateway = bootstrap::gateway(&config(&settings(&receiver, ""))).unwrap();
    let [mine, theirs] = ["mine", "theirs"].map(TenantId::new);
    for tenant in [&mine, &theirs] {
        gateway.tenants().put(tenant, Wanted::default()).unwrap();
    }
    let upload = gateway.uploads().begin(&mine, "webhook").await.unwrap();
    upload.finish(component("webhook").to_vec(), &[]).await.unwrap();
    assert!(gateway.uploads().view(&mine, "webhook").is_ok());
    assert_eq!(gateway.uploads().view(&theirs, "webhook").unwrap_err().code, "provider_not_found");
    assert_eq!(gateway.uploads().log(&theirs, "webhook").unwrap_err().code, "provider_not_found");
    let digest = digest_of("webhook");
    let stolen = gateway.uploads().activate(&theirs, "webhook", &digest).await.unwrap_err();
    assert_eq!(stolen.code, "provider_not_found");
    assert_eq!(gateway.uploads().remove(&theirs, "webhook").await.unwrap_err().code, "provider_not_found");
    assert!(gateway.uploads().view(&mine, "webhook").is_ok());
}

#[tokio::test]
async fn a_tenant_makes_one_change_at_a_time() {
    let receiver = Receiver::start().await;
    let gateway: Gateway = bootstrap::gateway(&config(&settings(&receiver, ""))).unwrap();
    let [mine, theirs] = ["mine", "theirs"].map(TenantId::new);
    for tenant in [&mine, &theirs] {
        gateway.tenants().put(tenant, Wanted::default()).unwrap();
    }
    let uploads = gateway.uploads();
    let upload = uploads.begin(&mine, "webhook").await.unwrap();
    assert_eq!(uploads.begin(&mine, "other").await.err().unwrap().code, "change_under_way");
    assert_eq!(uploads.remove(&mine, "webhook").await.unwrap_err().code, "change_under_way");
    assert!(uploads.begin(&theirs, "webhook").await.is_ok());
    drop(upload);
    assert!(uploads.begin(&mine, "other").await.is_ok());
}

#[tokio::test]
async fn components_of_a_directory_are_there_for_everybody() {
    let directory = Directory::new();
    std::fs::write(directory.path().join("any-name.wasm"), component("webhook")).unwrap();
    std::fs::write(directory.path().join("README"), "no component").unwrap();
    let receiver = Receiver::start().await;
    let here = format!("https://{}", receiver.address);
    let text = directory.path().display().to_string();
    let more = format!("providers.dir = {text:?}\nendpoints.webhook.production = {here:?}");
    let server = Pushlet::start(&settings(&receiver, &more)).await;
    let fixture = UploadFixture { receiver, server };
    let shown = fixture.show("webhook").await;
    assert_eq!((&shown["origin"], &shown["state"]), (&json!("operator"), &json!("active")));
    fixture.register("app").await;
    assert_eq!(result(fixture.send(&json!({"body": "x"}))).await, delivered());
    expect_error(fixture.upload("webhook", component("webhook_next")), 409, "provider_name_taken").await;

    std::fs::write(directory.path().join("broken.wasm"), component("bad_example")).unwrap();
    let text = format!("providers.dir = {:?}", directory.path().display().to_string());
    let problem = bootstrap::gateway(&config(&settings(&fixture.receiver, &text))).err().unwrap().to_string();
    assert!(problem.contains("broken.wasm") && problem.contains("examples[0]"), "{problem}");
}
