//! What passes the check, what does not, and how it is told.

use std::path::Path;
use std::time::Duration;

use pushlet_conformance::{CheckOptions, Finding, Report, check};
use pushlet_sandbox::BUILT_IN;

use crate::guests::fixture::component;
use crate::harness::Pushlet;
use crate::structure::root;

#[test]
fn the_built_in_providers_keep_the_contract() {
    for (name, bytes) in BUILT_IN {
        let vectors = root().join("tests/vectors").join(name);
        let options = CheckOptions {
            vectors: vectors.is_dir().then_some(vectors),
            fuzz: Some(Duration::from_millis(500)),
            seed: 1,
            ..CheckOptions::default()
        };
        let report = check(bytes, &options);
        assert!(report.passed(), "{}", report.table());
        let is_stream = ["apns-binary", "smpp"].contains(name);
        assert_eq!(report.rules.iter().any(|rule| rule.rule == "any-bytes"), is_stream, "{name}");
        let fuzzed = report.rules.iter().find(|rule| rule.rule == "fuzz").unwrap();
        assert!(fuzzed.cases > 0, "{name}");
        if is_stream {
            // Its own tests have the protocol, and no vectors.
            continue;
        }
        let vectors = report.rules.iter().find(|rule| rule.rule == "vectors").unwrap();
        assert!(vectors.cases > 20, "{name}: {} vectors", vectors.cases);
    }
}

/// A hostile guest, the settings that make it act, and the error: rule, call, part of the message.
type Hostile =
    (&'static str, &'static [(&'static str, &'static str)], (&'static str, &'static str, &'static str));

const HOSTILE: &[Hostile] = &[
    ("bad_answer", &[], ("answers", "decode", "the provider stopped")),
    ("bad_example", &[], ("examples", "encode", "the provider stopped")),
    ("endless_collections", &[], ("budgets", "describe", "did not answer in time")),
    ("endless_manifest", &[], ("budgets", "describe", "did not answer in time")),
    ("http", &[], ("component", "load", "imports wasi:http/outgoing-handler@0.3.0")),
    ("huge_manifest", &[], ("component", "describe", "larger than one call may return")),
    ("memory_of_calls", &[], ("deterministic", "encode", "a used instance makes another request")),
    ("smuggler", &[], ("manifest", "describe", "a credential must not become the header")),
    ("sockets", &[], ("component", "load", "imports wasi:sockets/tcp@0.3.0")),
    ("unsound_manifest", &[], ("manifest", "describe", "is not of the form https://host[:port]")),
    ("allocator", &[("do", "past_the_end")], ("examples", "encode", "breaks the contract")),
    ("covers", &[("do", "0,0,1")], ("examples", "encode", "covered twice")),
    ("dice", &[("do", "300000")], ("examples", "encode", "asked for what it may not have")),
    ("endless", &[("do", "check_application")], ("examples", "check-application", "did not answer in time")),
    ("endless", &[("do", "encode")], ("examples", "encode", "did not answer in time")),
    ("endless", &[("do", "decode")], ("answers", "decode", "did not answer in time")),
    ("endpoints", &[("do", "metadata")], ("examples", "encode", "is not in its manifest")),
    ("exit", &[("do", "exit 0")], ("examples", "encode", "it called exit(0)")),
    ("flood", &[("do", "endless")], ("examples", "encode", "did not answer in time")),
    ("handles", &[("do", "100000")], ("examples", "encode", "too many handles")),
    (
        "headers",
        &[("do", "authorization"), ("where", "message")],
        ("examples", "encode", "belongs to the host"),
    ),
    ("hog", &[("do", "hoard")], ("examples", "encode", "memory limit")),
    ("huge_result", &[("do", "body")], ("examples", "encode", "larger than one call may return")),
    ("lies", &[("do", "past_the_end")], ("examples", "encode", "breaks the contract")),
    ("outcomes", &[("do", "no_outcome")], ("answers", "decode", "0 outcomes for 1 targets")),
    ("panic", &[("do", "panic")], ("examples", "encode", "the provider stopped")),
    ("paths", &[("do", "/../admin")], ("examples", "encode", "it must not have the segments . and ..")),
    ("recursion", &[("do", "recurse")], ("examples", "encode", "call stack exhausted")),
    ("trap", &[("do", "unreachable")], ("examples", "check-application", "unreachable")),
    ("waits", &[("do", "year")], ("examples", "encode", "a provider must not wait")),
    // Of the world `stream-provider`.
    (
        "byte_stream",
        &[("do", "pieces")],
        ("deterministic", "connection.receive", "another course than with all bytes"),
    ),
    ("byte_stream", &[("do", "eager")], ("any-end", "connection.closed", "the service did not say so")),
    (
        "byte_stream",
        &[("do", "hurry")],
        ("any-end", "connection.tick", "it wants to be called again at once"),
    ),
    ("byte_stream", &[("do", "check")], ("examples", "check-application", "the provider stopped")),
    ("byte_stream", &[("do", "connect")], ("examples", "connection", "the provider stopped")),
    (
        "byte_stream",
        &[("do", "secret")],
        ("examples", "connection.start", "a secret that its credential does not have"),
    ),
    ("byte_stream", &[("do", "trap")], ("any-bytes", "connection.receive", "the provider stopped")),
    ("byte_stream", &[("do", "spin")], ("any-bytes", "connection.receive", "did not answer in time")),
    ("byte_stream", &[("do", "hoard")], ("any-bytes", "connection.receive", "memory limit")),
    ("byte_stream", &[("do", "stranger")], ("any-bytes", "connection.receive", "not in flight")),
    ("byte_stream", &[("do", "twice")], ("any-bytes", "connection.receive", "not in flight")),
    (
        "byte_stream",
        &[("do", "many")],
        ("any-bytes", "connection.receive", "larger than one call may return"),
    ),
];

/// Checks a guest against one rule, or against all.
fn checked(guest: &str, settings: &[(&str, &str)], rule: Option<&str>) -> Report {
    let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let rules = rule.iter().map(ToString::to_string).collect();
    check(component(guest), &CheckOptions { settings, rules, ..CheckOptions::default() })
}

#[test]
fn hostile_guests_fail_for_what_they_do() {
    let mut wrong = Vec::new();
    for (guest, settings, (rule, call, part)) in HOSTILE {
        let report = checked(guest, settings, Some(rule));
        let found = report.errors().any(|(found, finding)| {
            found == *rule && finding.call == *call && finding.message.contains(part)
        });
        if !found {
            wrong.push(format!("{guest} {settings:?}: {rule} | {call} | {part}\n{}", report.table()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn random_conversations_find_what_stops_a_byte_stream() {
    for (fault, call, message) in [
        ("trap", "connection.receive", "the provider stopped"),
        ("stranger", "connection.receive", "not in flight"),
        ("eager", "connection", "the service said nothing"),
    ] {
        let settings = [("do".to_owned(), fault.to_owned())].into();
        // Rules that are named, so that it is this one which finds it.
        let options = CheckOptions {
            settings,
            rules: vec!["any-submission".to_owned()],
            fuzz: Some(Duration::from_secs(5)),
            ..CheckOptions::default()
        };
        let report = check(component("byte_stream"), &options);
        let is_it = |(rule, finding): (&str, &Finding)| {
            rule == "fuzz" && finding.call == call && finding.message.contains(message)
        };
        assert!(report.errors().any(is_it), "{fault}\n{}", report.table());
    }
}

#[test]
fn a_report_is_for_people_and_for_programs() {
    let report = checked("bad_answer", &[], None);
    let table = report.table();
    assert!(table.contains("FAIL  answers"), "{table}");
    assert!(table.contains("error: decode, status 503, body: nothing: the provider stopped"), "{table}");
    assert!(table.ends_with("errors.\n") || table.ends_with("1 error.\n"), "{table}");
    let json = report.json();
    assert_eq!((&json["passed"], &json["provider"]), (&false.into(), &"guest".into()));
    let answers = json["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == "answers").unwrap();
    assert_eq!(answers["findings"][0]["call"], "decode");
    assert!(json["figures"]["memory_bytes"].as_u64().unwrap() > 0);
    let junit = report.junit();
    let failures = report.rules.iter().filter(|rule| !rule.passed()).count();
    let head =
        format!("<testsuite name=\"guest 1\" tests=\"{}\" failures=\"{failures}\">", report.rules.len());
    assert!(junit.contains(&head), "{junit}");
    assert!(
        junit.contains("<failure message=\"decode, status 503, body: nothing: the provider stopped"),
        "{junit}"
    );
}

#[tokio::test]
async fn the_contract_is_had_from_a_server() {
    let server = Pushlet::start("listen = \"127.0.0.1:0\"").await;
    let response = server.get("/v1/contract").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let contract = std::fs::read_to_string(root().join("wit/provider.wit")).unwrap();
    assert_eq!(response.text().await.unwrap(), contract);
}

/// Vectors that say what is not so fail, and a folder without any is not taken for a success.
#[test]
fn vectors_are_held_against_the_component() {
    let folder = crate::harness::Directory::new();
    let run = |folder: &Path| {
        let options = CheckOptions { vectors: Some(folder.to_owned()), ..CheckOptions::default() };
        let report = check(component("webhook"), &options);
        let found = report.errors().find(|(rule, _)| *rule == "vectors");
        found.map(|(_, finding)| format!("{}: {}", finding.place, finding.message)).unwrap_or_default()
    };
    assert!(run(folder.path()).contains("there is no case"));
    std::fs::create_dir(folder.path().join("decode")).unwrap();
    let table = |disposition: &str| {
        format!(
            r#"{{"about": "x", "cases": [{{"name": "gone", "application": {{"credential": "token"}},
                "response": {{"status": 410}}, "outcome": {{"disposition": "{disposition}"}}}}]}}"#
        )
    };
    let file = folder.path().join("decode/gone.json");
    std::fs::write(&file, table("unregistered")).unwrap();
    assert_eq!(run(folder.path()), "");
    std::fs::write(&file, table("delivered")).unwrap();
    assert!(run(folder.path()).starts_with("decode/gone.json: gone: expected "), "{}", run(folder.path()));
}
