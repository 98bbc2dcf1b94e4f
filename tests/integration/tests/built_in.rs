//! The components that the program carries.

use std::collections::BTreeSet;

use pushlet_sandbox::BUILT_IN;
use serde_json::json;
use wasmtime::component::Component;
use wasmtime::{Config, Engine};

use crate::harness::{Harness, expect};

/// What a provider may import: types of the contract, and WASI without files and sockets.
const ALLOWED: [&str; 5] =
    ["pushlet:provider/types@", "wasi:cli/", "wasi:io/", "wasi:clocks/", "wasi:random/"];

#[test]
fn they_are_those_of_the_providers_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../providers");
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").is_file() && !path.ends_with("sdk") {
            folders.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let built_in: BTreeSet<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(built_in, folders);
    assert!(built_in.is_superset(&["apns", "fcm", "gcm", "hms", "webpush"].map(str::to_owned).into()));
}

#[test]
fn they_import_nothing_outside_the_allow_list() {
    let engine = Engine::new(Config::new().gc_support(false).wasm_wide_arithmetic(true)).unwrap();
    for (name, bytes) in BUILT_IN {
        let component = Component::from_binary(&engine, bytes).unwrap();
        let component_type = component.component_type();
        let imports: Vec<&str> = component_type.imports(&engine).map(|(import, _)| import).collect();
        assert!(!imports.is_empty(), "{name}: the standard library imports something");
        for import in imports {
            assert!(ALLOWED.iter().any(|allowed| import.starts_with(allowed)), "{name} imports {import}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_serves_all_of_them_in_turn() {
    let harness = Harness::with("sandbox.instances = 1").await;
    harness.register_apns("ios").await;
    harness.register_fcm("droid").await;
    for application in ["ios", "droid", "ios"] {
        let body = json!({"application_id": application, "notification": {"body": "x"}, "targets": ["00aa"]});
        let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
        assert_eq!(answer["summary"]["delivered"], 1, "{application}: {answer}");
    }
}

#[test]
fn they_export_the_contract_as_it_is_written() {
    const CONTRACT: &str = include_str!("../../../wit/provider.wit");
    let line = CONTRACT.lines().find_map(|line| line.strip_prefix("package pushlet:provider@")).unwrap();
    let version = line.strip_suffix(';').unwrap();
    let engine = Engine::new(Config::new().gc_support(false).wasm_wide_arithmetic(true)).unwrap();
    for (name, bytes) in BUILT_IN {
        let component = Component::from_binary(&engine, bytes).unwrap();
        let component_type = component.component_type();
        let exports: BTreeSet<&str> = component_type.exports(&engine).map(|(export, _)| export).collect();
        let codec = if ["smpp", "apns-binary"].contains(name) { "session" } else { "codec" };
        for interface in ["manifest", codec] {
            let wanted = format!("pushlet:provider/{interface}@{version}");
            assert!(exports.contains(&*wanted), "{name}: {exports:?}");
        }
    }
}
