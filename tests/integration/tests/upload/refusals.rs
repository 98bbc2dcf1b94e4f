//! Each step of an upload refuses with a code of its own, and changes nothing.

use std::path::Path;

use serde_json::json;

use super::{UploadFixture, digest_of, result};
use crate::guests::crafted::{idle_component, provider};
use crate::guests::fixture::{component, shared_sandbox};
use crate::harness::{expect, expect_error};

/// Refuses an upload under the name `guest`, and answers the message.
async fn refused(fixture: &UploadFixture, bytes: &[u8], status: u16, code: &str) -> String {
    let message = expect_error(fixture.upload("guest", bytes), status, code).await;
    expect_error(fixture.server.get("/v1/providers/guest"), 404, "provider_not_found").await;
    message
}

#[tokio::test]
async fn what_is_no_component() {
    let fixture = UploadFixture::new().await;
    refused(&fixture, b"", 400, "invalid_component").await;
    refused(&fixture, b"text", 400, "invalid_component").await;
    refused(&fixture, b"\0asm\x01\0\0\0", 400, "invalid_component").await;
    let whole = component("webhook");
    refused(&fixture, &whole[..whole.len() - 1], 400, "invalid_component").await;
    let engine = wasmtime::Engine::new(wasmtime::Config::new().gc_support(false)).unwrap();
    let compiled = engine.precompile_component(whole).unwrap();
    let message = refused(&fixture, &compiled, 400, "invalid_component").await;
    assert!(message.contains("compiled for a machine"), "{message}");
}

#[tokio::test]
async fn what_is_too_large_or_no_wasm() {
    let fixture = UploadFixture::with("providers.component_size = \"1MiB\"").await;
    refused(&fixture, &[0; (1 << 20) + 1], 413, "component_too_large").await;
    let path = "/v1/providers/guest";
    let unsupported = "unsupported_media_type";
    expect_error(fixture.server.put(path).json(&json!({})), 415, unsupported).await;
}

#[tokio::test]
async fn imports_worlds_and_versions() {
    let fixture = UploadFixture::new().await;
    for (guest, import) in [("sockets", "wasi:sockets/"), ("http", "wasi:http/")] {
        let message = refused(&fixture, component(guest), 400, "forbidden_import").await;
        assert!(message.contains(import), "{message}");
    }
    let empty = b"\0asm\x0d\0\x01\0";
    refused(&fixture, empty, 400, "wrong_world").await;
    let newer = renamed(component("webhook"), b"@1.0.0", b"@9.1.0");
    let message = refused(&fixture, &newer, 400, "wrong_contract_version").await;
    assert!(message.contains("9.1.0"), "{message}");
}

/// Its types are others, too; what its author is told is the version.
#[tokio::test]
async fn a_component_of_the_first_contract_is_told_what_to_do() {
    let fixture = UploadFixture::new().await;
    let renamed = renamed(component("webhook"), b"@1.0.0", b"@0.1.0");
    for older in [renamed, idle_component(include_str!("provider-0.1.0.wit"))] {
        let message = refused(&fixture, &older, 400, "wrong_contract_version").await;
        let expected =
            "the component is built for pushlet:provider@0.1.0, and this server speaks 1.0.0: build it again";
        assert!(message.starts_with(expected), "{message}");
    }
}

/// Replaces a text by one of the same length, so that all sizes stay right.
fn renamed(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&place| bytes[place..].starts_with(from)).collect();
    places.iter().for_each(|&place| bytes[place..place + to.len()].copy_from_slice(to));
    assert!(!places.is_empty());
    bytes
}

#[tokio::test]
async fn manifests() {
    let fixture = UploadFixture::with("providers.allowed_hosts = [\"*.example\", \"elsewhere.test\"]").await;
    refused(&fixture, component("unsound_manifest"), 400, "invalid_manifest").await;
    let message = refused(&fixture, component("webhook"), 400, "invalid_manifest").await;
    assert!(message.contains("its name is webhook, not guest"), "{message}");
    expect(fixture.upload("webhook", component("webhook")), 200).await;

    let strict = UploadFixture::with("providers.allowed_hosts = [\"push.example\"]").await;
    let request = strict.upload("webhook", component("webhook"));
    let message = expect_error(request, 400, "invalid_manifest").await;
    assert!(message.contains("https://hooks.example"), "{message}");
}

#[tokio::test]
async fn components_that_do_not_run() {
    let fixture = UploadFixture::new().await;
    refused(&fixture, component("endless_manifest"), 400, "broken_component").await;
    let message = refused(&fixture, component("bad_example"), 400, "dry_run_failed").await;
    let call = "examples[0] of the manifest: encode: the provider stopped: wasm trap: ";
    assert!(message.starts_with(call), "{message}");
    let (_, printed) = message.split_once("; before that it printed: about to fail / ").unwrap();
    assert!(printed.contains("on the first call"), "{message}");
    let log = expect(fixture.server.get("/v1/providers/guest/log"), 200).await;
    let refused = &log["refused_upload"];
    assert_eq!(refused["error"], "dry_run_failed");
    assert_eq!(refused["digest"], digest_of("bad_example"));
    let text = refused["log"].as_str().unwrap();
    assert!(text.contains("about to fail") && text.contains("on the first call"), "{text}");
}

#[tokio::test]
async fn a_trap_names_the_answer_that_it_was_about() {
    let fixture = UploadFixture::new().await;
    let message = refused(&fixture, component("bad_answer"), 400, "dry_run_failed").await;
    let call =
        "examples[0] of the manifest: decode of an answer of status 503, body \"\": the provider stopped: ";
    assert!(message.starts_with(call), "{message}");
    let printed = "; before that it printed: status 200 / status 200 / status 400 / status 503 / ";
    assert!(message.contains(printed), "{message}");
}

#[tokio::test]
async fn an_application_in_an_environment_without_an_endpoint() {
    let fixture = UploadFixture::new().await;
    expect(fixture.upload("guest", component("production_only")), 200).await;
    let put = |environment: &str| {
        let body = json!({"provider": "guest", "environment": environment});
        fixture.server.put("/v1/applications/app").json(&body)
    };
    let refused = expect(put("development"), 400).await;
    assert_eq!(
        (&refused["error"], &refused["field"]),
        (&json!("invalid_environment"), &json!("environment"))
    );
    assert_eq!(refused["message"], "guest has no development environment");
    expect(put("production"), 200).await;
}

#[tokio::test]
async fn a_refused_version_leaves_the_active_one_alone() {
    let fixture = UploadFixture::ready().await;
    expect_error(fixture.upload("webhook", component("bad_example")), 400, "invalid_manifest").await;
    assert_eq!(fixture.show("webhook").await["digest"], digest_of("webhook"));
    assert_eq!(result(fixture.send(&json!({"body": "x"}))).await.0, "delivered");
}

#[tokio::test]
async fn names_of_others_and_too_many_of_them() {
    let fixture = UploadFixture::with("limits.tenant.components = 1").await;
    expect_error(fixture.upload("apns", component("webhook")), 409, "provider_name_taken").await;
    expect(fixture.upload("webhook", component("webhook")), 200).await;
    expect_error(fixture.upload("guest", component("busy")), 429, "limit_components").await;
    expect(fixture.upload("webhook", component("webhook_next")), 200).await;
}

#[tokio::test]
async fn a_built_in_one_is_shadowed_where_the_operator_allows_it() {
    let apns = pushlet_sandbox::BUILT_IN.iter().find(|(name, _)| *name == "apns").unwrap().1;
    let fixture = UploadFixture::with("providers.allow_shadowing = true").await;
    assert_eq!(fixture.show("apns").await["origin"], "built-in");
    expect(fixture.upload("apns", apns), 200).await;
    assert_eq!(fixture.show("apns").await["origin"], "own");
    assert_eq!(fixture.server.delete("/v1/providers/apns").send().await.unwrap().status(), 204);
    assert_eq!(fixture.show("apns").await["origin"], "built-in");
}

/// Every built-in provider would pass as an uploaded one.
#[tokio::test]
async fn the_built_in_ones_pass_all_steps() {
    let fixture = UploadFixture::with("providers.allow_shadowing = true").await;
    for (name, component) in pushlet_sandbox::BUILT_IN {
        expect(fixture.upload(name, component), 200).await;
    }
    assert!(Path::new(super::PROGRAM).is_file());
}

/// What the check before compiling lets through is what the engine compiles, feature by feature.
#[test]
fn features() {
    let load = |module: &str| shared_sandbox().load(&provider(module)).err().unwrap().code();
    let on = [
        "(func (drop (v128.const i32x4 0 0 0 0)))",
        "(func $f (return_call $f))",
        "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "(table 1 funcref)",
    ];
    // As far as the manifest, which is empty.
    on.iter().for_each(|module| assert_eq!(load(module), "invalid_manifest", "{module}"));
    let off = [
        "(func (drop (i32.atomic.load (i32.const 0))))",
        // The feature is on, but no instance may have two memories in one module.
        "(memory 1)",
        "(memory i64 1)",
        "(type (struct))",
        "(tag)",
        "(table 1 externref)",
        "(func (param (ref func)))",
        "(func (param v128 v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))",
    ];
    off.iter().for_each(|module| assert_eq!(load(module), "invalid_component", "{module}"));
}
