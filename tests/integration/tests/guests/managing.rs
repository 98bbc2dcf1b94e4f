//! What a guest does in the exports of the optional interface `management`.

use pushlet_model::contract::management::{Operation, Response};
use pushlet_sandbox::{LoadError, ProviderError};

use super::fixture::{HostileGuest, application, bad, component, context, panicked, refused, shared_sandbox};

/// Has it encode, and decode an answer, as `task` says; the error that it came to.
fn manage(guest: &HostileGuest, task: &str) -> Result<(), ProviderError> {
    let application = application(&[("do", task)]);
    let response = Response { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
    let (things, all) = ("things", Operation::ReadAll);
    shared_sandbox().with_victim_running(|| {
        guest.0.encode_operation(&context(), &application, things, &all)?.unwrap();
        let items = guest.0.decode_operation(&context(), &application, things, &all, &response)?;
        assert_eq!(items.unwrap().len(), 1);
        Ok(())
    })
}

#[test]
fn its_exports_are_bounded_and_checked_like_all_others() {
    let guest = HostileGuest::new("manager");
    let too_much = "it is larger than one call may return, 270336 bytes";
    let cases = [
        ("encode", ProviderError::TimedOut),
        ("decode", ProviderError::TimedOut),
        ("trap", panicked("wasm trap: wasm `unreachable` instruction executed")),
        ("path", bad("path \"/../admin\" is not allowed: it must not have the segments . and ..")),
        ("header", refused("header authorization belongs to the host")),
        ("endpoint", refused("endpoint \"metadata\" is not in its manifest")),
        ("body", bad(too_much)),
        ("many", bad(too_much)),
        ("items", bad("an item's properties are not a JSON object")),
    ];
    for (task, error) in cases {
        assert_eq!(manage(&guest, task), Err(error), "{task}");
        assert_eq!(manage(&guest, ""), Ok(()), "after {task}");
    }
}

#[test]
fn endless_collections_are_stopped() {
    let error = shared_sandbox()
        .with_victim_running(|| shared_sandbox().load(component("endless_collections")).err());
    assert_eq!(error, Some(LoadError::Broken(ProviderError::TimedOut)));
}
