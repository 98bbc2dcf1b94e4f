//! Components that are not taken, each for its own reason.

use std::sync::Arc;

use pushlet_sandbox::{ComponentTrust, ForbiddenImports, LoadError, Provider, ProviderError};

use super::fixture::{bad, component, shared_sandbox};

fn load(name: &str) -> LoadError {
    let shared = shared_sandbox();
    shared.with_victim_running(|| shared.load(component(name)).map(|_| ()).unwrap_err())
}

#[test]
fn an_endless_manifest_is_stopped() {
    assert_eq!(load("endless_manifest"), LoadError::Broken(ProviderError::TimedOut));
}

#[test]
fn a_manifest_is_checked_before_it_is_used() {
    let origin = r#""http://127.0.0.1:22" is not of the form https://host[:port]"#;
    assert_eq!(load("unsound_manifest"), LoadError::BadManifest(origin.into()));
    let header = "credential key: a credential must not become the header \"transfer-encoding\"";
    assert_eq!(load("smuggler"), LoadError::BadManifest(header.into()));
    let huge = bad("it is larger than one call may return, 270336 bytes");
    assert_eq!(load("huge_manifest"), LoadError::Broken(huge));
}

#[test]
fn sockets_of_another_wasi_and_requests_are_refused() {
    let forbidden =
        |name: &str| LoadError::ForbiddenImport(ForbiddenImports { names: vec![name.to_owned()], others: 0 });
    assert_eq!(load("sockets"), forbidden("wasi:sockets/tcp@0.3.0"));
    assert_eq!(load("http"), forbidden("wasi:http/outgoing-handler@0.3.0"));
}

/// An author must not need one build for each import.
#[test]
fn a_refusal_names_every_import_and_what_to_do() {
    let imports = ["wasi:cli/stdout@0.2.3", "wasi:http/types@0.2.10", "env", "wasi:nn/graph@0.2.0"];
    let imports: String = imports.iter().map(|name| format!(r#"(import "{name}" (instance))"#)).collect();
    let component = wat::parse_str(format!("(component {imports})")).unwrap();
    let message = shared_sandbox().load(&component).map(|_| ()).unwrap_err().to_string();
    assert!(
        message.starts_with("the component imports wasi:http/types@0.2.10, env, wasi:nn/graph@0.2.0, which")
    );
    assert!(message.contains("Allowed are pushlet:provider/types, and wasi:cli, wasi:clocks"), "{message}");
    assert!(message.contains("--disable http"), "{message}");
    let many: String = (0..100).map(|count| format!(r#"(import "i{count}" (instance))"#)).collect();
    let component = wat::parse_str(format!("(component {many})")).unwrap();
    let message = shared_sandbox().load(&component).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("i39 and 60 more, which"), "{message}");
}

#[test]
fn another_version_of_the_contract_is_named() {
    let bytes = component("paths");
    let older = replaced(bytes, b"provider/codec@1.0.0", b"provider/codec@0.9.0");
    let error = shared_sandbox().load(&older).map(|_| ()).unwrap_err();
    assert_eq!(error, LoadError::WrongVersion { built: "0.9.0".into() });
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut result = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    for at in places {
        result[at..at + to.len()].copy_from_slice(to);
    }
    result
}

#[test]
fn what_a_component_prints_while_it_is_loaded_is_for_the_one_who_uploads_it() {
    let log = Arc::default();
    let broken = component("endless_manifest");
    Provider::load(&shared_sandbox().sandbox, broken, ComponentTrust::Uploaded, &log)
        .map(|_| ())
        .unwrap_err();
    assert!(log.text().contains("wasm backtrace"), "{}", log.text());
}
