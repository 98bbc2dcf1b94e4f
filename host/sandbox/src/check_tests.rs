#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::headers::{MAX_HEADER_BYTES, MAX_HEADERS};
use pushlet_model::contract::manifest::{TargetKind, Transport};
use pushlet_model::contract::{ConnectionHint, Scope, Target};

const PRODUCTION: Environment = Environment::Production;

fn manifest() -> ProviderManifest {
    let endpoint = |name: &str, origin| Endpoint {
        name: name.into(),
        environment: PRODUCTION,
        transport: Transport::Https,
        origin,
    };
    ProviderManifest {
        name: "test".into(),
        title: String::new(),
        vendor: "nobody".into(),
        version: "1".into(),
        description: String::new(),
        also_answers: vec![],
        settings: vec![],
        credentials: vec![],
        options: vec![],
        targets: vec![TargetKind::Device],
        endpoints: vec![
            endpoint("fixed", Origin::Fixed("https://push.example".into())),
            endpoint("open", Origin::AnyHttps),
        ],
        targets_per_exchange: 2,
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: vec![Environment::Production, Environment::Development],
        response_headers: Vec::new(),
        entropy: 0,
        examples: vec![],
    }
}

fn good_message() -> codec::Message {
    codec::Message {
        endpoint: "fixed".into(),
        method: Method::Post,
        headers: vec![("apns-topic".into(), "com.example".into())],
        body: b"{}".to_vec(),
        authenticate: true,
    }
}

fn good_exchange(covers: &[u32]) -> codec::Exchange {
    codec::Exchange {
        covers: covers.to_vec(),
        message: 0,
        url: None,
        path: "/3/device/aa?x=1".into(),
        headers: vec![],
        idempotent: false,
    }
}

fn one(message: codec::Message, exchange: codec::Exchange) -> Encoded {
    Encoded { messages: vec![message], exchanges: vec![exchange], refusals: vec![] }
}

fn check(targets: usize, encoded: Encoded) -> Result<PreparedRequests, ProviderError> {
    super::encoded(&manifest(), PRODUCTION, targets, encoded)
}

fn refuse(targets: usize, answer: Encoded, expected: &str) {
    let error = check(targets, answer).expect_err(expected);
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_sound_answer_passes() {
    let prepared = check(2, one(good_message(), good_exchange(&[1, 0]))).unwrap();
    assert_eq!(prepared.exchanges[0].covers, [1, 0]);
    assert_eq!(prepared.exchanges[0].path, "/3/device/aa?x=1");
    assert_eq!(prepared.messages[0].headers["apns-topic"], "com.example");
}

#[test]
fn every_target_is_covered_exactly_once() {
    refuse(2, one(good_message(), good_exchange(&[0])), "target 1 is not covered");
    refuse(1, one(good_message(), good_exchange(&[0, 0])), "covered twice");
    refuse(1, one(good_message(), good_exchange(&[7])), "out of range");
    refuse(1, one(good_message(), good_exchange(&[])), "covers no target");
    let mut both = one(good_message(), good_exchange(&[0]));
    let rejection = Rejection { code: "x".into(), message: "y".into(), field: None, more: vec![] };
    both.refusals.push(codec::Refusal { covers: vec![0], rejection });
    refuse(1, both, "covered twice");
    refuse(3, one(good_message(), good_exchange(&[0, 1, 2])), "more targets than the manifest says");
}

#[test]
fn an_exchange_names_a_message_that_is_there() {
    refuse(1, one(good_message(), codec::Exchange { message: 1, ..good_exchange(&[0]) }), "message index");
    let mut idle = one(good_message(), good_exchange(&[0]));
    idle.messages.push(good_message());
    refuse(1, idle, "more messages than targets");
}

#[test]
fn headers_of_the_host_and_injections_are_refused() {
    let with = |name: &str, value: &str| {
        let headers = vec![(name.to_owned(), value.to_owned())];
        one(good_message(), codec::Exchange { headers, ..good_exchange(&[0]) })
    };
    for name in
        ["authorization", "host", "content-length", "transfer-encoding", "connection", "proxy-anything"]
    {
        refuse(1, with(name, "x"), "belongs to the host");
    }
    for name in [":authority", "bad name", "", "x\r\ny"] {
        refuse(1, with(name, "x"), "is not allowed: its name cannot be one of HTTP");
    }
    refuse(
        1,
        with("Apns-Topic", "x"),
        "header \"Apns-Topic\" is not allowed: its name must be in lower case",
    );
    for value in ["a\r\nauthorization: b", "a\nb", "a\0b"] {
        refuse(
            1,
            with("x-value", value),
            "header \"x-value\" is not allowed: its value has a control character",
        );
    }
    let long = format!("is not allowed: its value is longer than {MAX_HEADER_BYTES} bytes");
    refuse(1, with("x-value", &"v".repeat(MAX_HEADER_BYTES + 1)), &long);
    let headers = vec![("x".to_owned(), "y".to_owned()); MAX_HEADERS + 1];
    refuse(1, one(codec::Message { headers, ..good_message() }, good_exchange(&[0])), "too many headers");
}

#[test]
fn the_headers_of_each_request_are_checked() {
    let with = |name: &str, value: &str, covers: u32| {
        let headers = vec![("x-first".to_owned(), "1".to_owned()), (name.to_owned(), value.to_owned())];
        codec::Exchange { headers, ..good_exchange(&[covers]) }
    };
    let mut both = one(good_message(), with("x-value", "1", 0));
    both.exchanges.push(with("x-value", "a\nb", 1));
    refuse(2, both, "header \"x-value\" is not allowed: its value has a control character");
    let mut both = one(good_message(), with("x-value", "1", 0));
    both.exchanges.push(with("host", "x", 1));
    refuse(2, both, "belongs to the host");
}

#[test]
fn paths_stay_on_the_server_and_in_their_place() {
    let long = format!("/{}", "a".repeat(MAX_PATH));
    let too_long = format!("it is longer than {MAX_PATH} bytes");
    let paths = [
        ("", "it must begin with /"),
        ("3/device", "it must begin with /"),
        ("https://evil.example/", "it must begin with /"),
        ("//evil.example/", "it must not begin with //"),
        (&long, &too_long),
        ("/a b", "must be percent-encoded"),
        ("/a\r\nb", "must be percent-encoded"),
        ("/é", "must be percent-encoded"),
        ("/a#b", "it must not have # or \\"),
        ("/a\\b", "it must not have # or \\"),
        ("/../x", "the segments . and .."),
        ("/a/./b", "the segments . and .."),
        ("/a/%2e%2E/b", "the segments . and .."),
        ("/a/.%2e", "the segments . and .."),
        ("/a/%2E?b", "the segments . and .."),
    ];
    for (path, rule) in paths {
        let exchange = codec::Exchange { path: path.into(), ..good_exchange(&[0]) };
        refuse(1, one(good_message(), exchange), rule);
    }
}

#[test]
fn only_the_manifests_endpoints_are_reached() {
    let elsewhere = codec::Message { endpoint: "other".into(), ..good_message() };
    refuse(1, one(elsewhere, good_exchange(&[0])), "not in its manifest");
    let own_url = codec::Exchange { url: Some("https://evil.example/".into()), ..good_exchange(&[0]) };
    refuse(1, one(good_message(), own_url), "fixed endpoint");
    let open = || codec::Message { endpoint: "open".into(), ..good_message() };
    refuse(1, one(open(), good_exchange(&[0])), "no URL");
    for url in ["http://push.example/", "https://user:pw@push.example/", "nonsense", "file:///etc/passwd"] {
        refuse(1, one(open(), codec::Exchange { url: Some(url.into()), ..good_exchange(&[0]) }), "URL");
    }
    assert_eq!(target_url("http://push.example/"), Err("it must begin with https://"));
    assert_eq!(
        target_url(&format!("https://push.example/{}", "a".repeat(MAX_PATH))),
        Err("it is longer than 4096 bytes")
    );
    let sound = codec::Exchange { url: Some("https://push.example/a?b=c".into()), ..good_exchange(&[0]) };
    assert_eq!(check(1, one(open(), sound)).unwrap().exchanges[0].path, "/a?b=c");
}

fn answer(targets: usize) -> Answer {
    let response = codec::Response { status: 200, headers: vec![], body: vec![] };
    Answer { targets: vec![Target::Device("aa".into()); targets], response }
}

fn good_outcome() -> Outcome {
    Outcome {
        disposition: Disposition::Delivered,
        id: None,
        code: None,
        message: None,
        connection: ConnectionHint::Keep,
    }
}

#[test]
fn there_is_one_reply_per_answer_and_one_outcome_per_target() {
    let reply = |outcomes| Reply { outcomes: vec![good_outcome(); outcomes], native: None };
    assert!(replies(&[answer(2)], vec![reply(2)]).is_ok());
    for wrong in [vec![], vec![reply(1)], vec![reply(3)], vec![reply(2), reply(2)]] {
        assert!(matches!(replies(&[answer(2)], wrong), Err(ProviderError::BadOutput(_))));
    }
}

#[test]
fn texts_are_cut_waits_are_bounded_and_long_tokens_refused() {
    let code = Some("é".repeat(MAX_CODE));
    let throttle = Throttle { scope: Scope::Target, retry_after: Some(u64::MAX) };
    let long = Outcome { disposition: Disposition::Throttled(throttle), code, ..good_outcome() };
    let checked = replies(&[answer(1)], vec![Reply { outcomes: vec![long], native: None }]).unwrap();
    assert_eq!(checked[0].outcomes[0].code.as_ref().unwrap().len(), MAX_CODE);
    let Disposition::Throttled(throttle) = &checked[0].outcomes[0].disposition else {
        panic!("still throttled")
    };
    assert_eq!(throttle.retry_after, Some(MAX_WAIT));
    for disposition in
        [Disposition::Replaced("t".repeat(MAX_TOKEN + 1)), Disposition::Replaced(String::new())]
    {
        let reply = Reply { outcomes: vec![Outcome { disposition, ..good_outcome() }], native: None };
        assert!(replies(&[answer(1)], vec![reply]).is_err());
    }
    // The last one is well-formed, and no reader can hold it.
    for text in ["{not json", "", "1 2", r#""\ud800""#] {
        let native = Reply { outcomes: vec![good_outcome()], native: Some(text.into()) };
        assert!(replies(&[answer(1)], vec![native]).is_err(), "{text}");
    }
}
