//! What a guest returns: well-formed values that ask for what it may not have.

use pushlet_sandbox::ProviderError;

use super::fixture::{Call, HostileGuest, bad, refused};

#[test]
fn headers_of_the_host_are_refused() {
    let guest = HostileGuest::new("headers");
    let names = [
        "authorization",
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "upgrade",
        "cookie",
        "expect",
        "proxy-authorization",
        "keep-alive",
    ];
    for name in names {
        for place in ["message", "exchange"] {
            let settings = [("do", name), ("value", "x"), ("where", place)];
            let error = refused(&format!("header {name} belongs to the host"));
            guest.is_contained(Call::Encode, &settings, &error);
        }
    }
}

#[test]
fn the_header_of_a_credential_is_the_hosts() {
    let guest = HostileGuest::new("credential_header");
    for place in ["message", "exchange"] {
        let settings = [("do", "x-token"), ("where", place)];
        let error = bad("header x-token belongs to a credential of its manifest");
        guest.is_contained(Call::Encode, &settings, &error);
    }
}

#[test]
fn headers_inject_nothing() {
    let guest = HostileGuest::new("headers");
    let (no_name, control) = ("its name cannot be one of HTTP", "its value has a control character");
    let cases = [
        (":authority", "x", no_name),
        (":path", "x", no_name),
        ("Authorization", "x", "its name must be in lower case"),
        ("x\r\nauthorization", "x", no_name),
        ("x y", "x", no_name),
        ("", "x", no_name),
        ("x-ok", "a\r\nauthorization: b", control),
        ("x-ok", "a\nb", control),
        ("x-ok", "a\0b", control),
    ];
    for (name, value, rule) in cases {
        let settings = [("do", name), ("value", value), ("where", "exchange")];
        guest.is_contained(Call::Encode, &settings, &bad(&format!("header {name:?} is not allowed: {rule}")));
    }
}

#[test]
fn paths_stay_on_the_server_and_do_not_climb() {
    let guest = HostileGuest::new("paths");
    let encode = "spaces, controls and what is not ASCII must be percent-encoded";
    let paths = [
        ("", "it must begin with /"),
        ("send", "it must begin with /"),
        ("https://evil.example/", "it must begin with /"),
        ("//evil.example/", "it must not begin with //, which would name another server"),
        ("/../admin", "it must not have the segments . and .."),
        ("/a/%2e%2E/admin", "it must not have the segments . and .."),
        ("/a\\..\\b", "it must not have # or \\"),
        ("/a b", encode),
        ("/a\r\nhost: evil.example", encode),
        ("/a#b", "it must not have # or \\"),
        ("/\u{202e}", encode),
    ];
    for (path, rule) in paths {
        guest.fails_with(Call::Encode, path, &bad(&format!("path {path:?} is not allowed: {rule}")));
    }
}

#[test]
fn only_endpoints_of_the_manifest_are_reached() {
    let guest = HostileGuest::new("endpoints");
    for name in ["metadata", "push.example", "PUSH"] {
        guest.fails_with(Call::Encode, name, &refused(&format!("endpoint {name:?} is not in its manifest")));
    }
    for url in ["https://evil.example/", "http://169.254.169.254/latest", "file:///etc/passwd"] {
        guest.fails_with(Call::Encode, url, &refused("a URL of its own at a fixed endpoint"));
    }
}

#[test]
fn every_target_is_covered_once() {
    let guest = HostileGuest::new("covers");
    let cases = [
        ("0", "target 1 is not covered"),
        ("0,1;1", "target 1 is covered twice"),
        ("0,0,1", "target 0 is covered twice"),
        ("0,1,2", "a target index is out of range"),
        ("0,4294967295", "a target index is out of range"),
        ("0,1;", "an exchange or refusal covers no target"),
    ];
    for (covers, error) in cases {
        guest.fails_with(Call::Encode, covers, &bad(error));
    }
}

#[test]
fn messages_are_there_and_are_used() {
    let guest = HostileGuest::new("covers");
    let cases =
        [("unknown", "a message index is out of range"), ("unused", "it has more messages than targets")];
    for (message, error) in cases {
        guest.is_contained(Call::Encode, &[("do", "0;1"), ("message", message)], &bad(error));
    }
}

#[test]
fn there_is_one_outcome_for_every_target() {
    let guest = HostileGuest::new("outcomes");
    let cases = [
        ("no_reply", "0 replies for 1 answers"),
        ("two_replies", "2 replies for 1 answers"),
        ("no_outcome", "0 outcomes for 2 targets"),
        ("one_more", "3 outcomes for 2 targets"),
        ("native", "its native answer is not JSON"),
        ("deep_native", "its native answer is not JSON"),
        ("token", "a new token is empty or too long"),
        ("no_token", "a new token is empty or too long"),
        ("id", "an id is too long"),
    ];
    for (task, error) in cases {
        guest.fails_with(Call::Decode, task, &bad(error));
    }
    let waits = guest.call(Call::Decode, &[("do", "for_ever")]).unwrap();
    assert!(waits.contains("Unavailable(Some(86400000))"), "a wait of at most a day: {waits}");
}

#[test]
fn every_error_has_a_code_of_its_own() {
    let wait = std::time::Duration::from_secs(1);
    let codes = [
        (ProviderError::TimedOut, "provider_timeout"),
        (ProviderError::OutOfMemory, "provider_memory"),
        (ProviderError::Panicked(String::new()), "provider_panicked"),
        (ProviderError::BadOutput(String::new()), "provider_bad_output"),
        (ProviderError::Refused(String::new()), "provider_refused"),
        (ProviderError::Quarantined { retry_after: wait }, "provider_quarantined"),
        (ProviderError::CpuLimit { retry_after: wait }, "provider_cpu_limit"),
    ];
    for (error, code) in codes {
        assert_eq!(error.code(), code);
        assert_eq!(pushlet_model::error::Error::from(error).code, code);
    }
}
