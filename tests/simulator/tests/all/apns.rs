//! Device pushes: every check, every documented error.

use serde_json::Value;

use super::client::{Apns, Headers, Identity, PAYLOAD, TOKEN, TOPIC, TokenSpec, start, tls};
use pushlet_simulator::{Environment, Service};

/// Apple's pairs, read by the tests on their own.
pub fn golden(table: &str) -> Vec<(u16, String)> {
    let text = include_str!("../../data/apns_reasons.json");
    let tables: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(tables[table].clone()).unwrap()
}

#[tokio::test]
async fn a_push_is_accepted_and_recorded() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    simulator.clear();
    let id = "eabeae54-14a8-11e5-b60b-1697f925ec7b";
    let answer = apns.push(TOKEN, &[("apns-id", id), ("apns-push-type", "alert")], PAYLOAD).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("apns-id"), Some(id));
    assert!(answer.header("apns-unique-id").is_some());

    let [received] = simulator.received().try_into().unwrap();
    assert_eq!(received.service, Service::Apns);
    assert_eq!(
        (received.method.as_str(), received.path.as_str()),
        ("POST", format!("/3/device/{TOKEN}").as_str())
    );
    assert_eq!(received.headers, [("apns-id".into(), id.into()), ("apns-push-type".into(), "alert".into())]);
    assert_eq!(received.body, PAYLOAD);
    assert_eq!((received.token.as_deref(), received.topic.as_deref()), (Some(TOKEN), Some(TOPIC)));
    assert_eq!((received.status, received.answer.as_str(), received.delivered), (200, "", 1));
    assert_eq!(received.stream, Some(3));
    let certificate = received.client_certificate.unwrap();
    assert!(certificate.subject.contains("Apple Push Services: com.example.app"), "{}", certificate.subject);
    assert_eq!(certificate.sha256.len(), 64);
    let connections = simulator.connections();
    assert_eq!((connections.apns.accepted, connections.apns.open, connections.apns.refused), (1, 1, 0));
    assert_eq!(connections.list[0].number, received.connection);
    assert_eq!(connections.list[0].client_certificate.as_ref(), Some(&certificate));
}

#[tokio::test]
async fn production_gives_no_unique_id() {
    let simulator = start().await;
    let apns = Apns::in_production(&simulator, Some(Identity::of(&simulator))).await.unwrap();
    let answer = apns.push(TOKEN, &[], PAYLOAD).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("apns-unique-id").is_none());
    let minted = answer.header("apns-id").unwrap();
    assert_eq!(uuid::Uuid::parse_str(minted).unwrap().to_string(), minted);
    assert_eq!(simulator.received().last().unwrap().environment, Some(Environment::Production));
}

#[tokio::test]
async fn every_documented_pair_has_a_token() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let pairs = golden("device");
    assert_eq!(pairs.len(), 32);
    for (index, pair) in pairs.into_iter().enumerate() {
        let answer = apns.push(&format!("bad0{index:02}ff"), &[], PAYLOAD).await;
        assert_eq!(answer.reason(), pair);
        assert_eq!(answer.json().get("timestamp").is_some(), answer.status == 410, "{}", answer.body);
        assert!(answer.header("apns-id").is_some());
    }
    assert_eq!(simulator.counts().apns.delivered, 0);
}

#[tokio::test]
async fn a_dead_token_is_unregistered_since_a_fixed_time() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let first = apns.push("dead01", &[], PAYLOAD).await;
    assert_eq!(first.reason(), (410, "Unregistered".into()));
    let since = first.json()["timestamp"].as_i64().unwrap();
    assert!((super::client::now() - since / 1000).abs() < 3600, "{since} is not milliseconds of today");
    assert_eq!(apns.push("dead02", &[], PAYLOAD).await.json()["timestamp"], since);
}

#[tokio::test]
async fn wrong_headers_have_their_reason() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let long = "c".repeat(65);
    let upper = "EABEAE54-14A8-11E5-B60B-1697F925EC7B";
    let cases: &[(Headers<'_>, u16, &str)] = &[
        (&[("apns-id", "1"), ("apns-id", "2")], 400, "DuplicateHeaders"),
        (&[("apns-priority", "5"), ("apns-priority", "5")], 400, "DuplicateHeaders"),
        (&[("apns-id", "123")], 400, "BadMessageId"),
        (&[("apns-id", upper)], 400, "BadMessageId"),
        (&[("apns-id", "eabeae5414a811e5b60b1697f925ec7b")], 400, "BadMessageId"),
        (&[("apns-expiration", "tomorrow")], 400, "BadExpirationDate"),
        (&[("apns-expiration", "-1")], 400, "BadExpirationDate"),
        (&[("apns-expiration", "+1")], 400, "BadExpirationDate"),
        (&[("apns-expiration", "")], 400, "BadExpirationDate"),
        (&[("apns-priority", "7")], 400, "BadPriority"),
        (&[("apns-priority", "high")], 400, "BadPriority"),
        (&[("apns-push-type", "background")], 400, "BadPriority"),
        (&[("apns-push-type", "background"), ("apns-priority", "10")], 400, "BadPriority"),
        (&[("apns-push-type", "banner")], 400, "InvalidPushType"),
        (&[("apns-push-type", "Alert")], 400, "InvalidPushType"),
        (&[("apns-push-type", "voip")], 400, "InvalidPushType"),
        (&[("apns-push-type", "liveactivity")], 400, "InvalidPushType"),
        (&[("apns-collapse-id", &long)], 400, "BadCollapseId"),
        (&[("apns-topic", "com.example app")], 400, "BadTopic"),
        (&[("apns-topic", "")], 400, "BadTopic"),
        (&[("apns-topic", "com.example.other")], 400, "TopicDisallowed"),
        (&[("apns-topic", "com.example.app.voip"), ("apns-push-type", "voip")], 400, "TopicDisallowed"),
    ];
    for (headers, status, reason) in cases {
        let answer = apns.push(TOKEN, headers, PAYLOAD).await;
        assert_eq!(answer.reason(), (*status, reason.to_string()), "{headers:?}");
    }
    let accepted: &[Headers<'_>] = &[
        &[("apns-expiration", "0")],
        &[("apns-expiration", "4102444800")],
        &[("apns-priority", "1")],
        &[("apns-push-type", "background"), ("apns-priority", "5")],
        &[("apns-push-type", "mdm")],
        &[("apns-collapse-id", &long[..64])],
        &[("apns-topic", TOPIC)],
        &[("x-own", "1"), ("x-own", "2")],
    ];
    for headers in accepted {
        assert_eq!(apns.push(TOKEN, headers, PAYLOAD).await.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn push_types_want_their_topic_suffix() {
    let simulator = start().await;
    let apns = Apns::without(&simulator).await;
    let bearer = TokenSpec::of(&simulator).bearer();
    let suffixes = [
        ("complication", ".complication"),
        ("controls", ".push-type.controls"),
        ("fileprovider", ".pushkit.fileprovider"),
        ("liveactivity", ".push-type.liveactivity"),
        ("location", ".location-query"),
        ("pushtotalk", ".voip-ptt"),
        ("voip", ".voip"),
        ("widgets", ".push-type.widgets"),
    ];
    for (push_type, suffix) in suffixes {
        let topic = format!("{TOPIC}{suffix}");
        let with = |topic: String| {
            let (apns, bearer) = (&apns, &bearer);
            async move {
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("apns-push-type", push_type),
                    ("apns-topic", &topic),
                ];
                apns.push(TOKEN, &headers, PAYLOAD).await
            }
        };
        assert_eq!(with(topic).await.status, 200, "{push_type}");
        assert_eq!(with(TOPIC.into()).await.reason(), (400, "InvalidPushType".into()), "{push_type}");
    }
}

#[tokio::test]
async fn paths_methods_and_tokens() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let cases = [
        ("GET", format!("/3/device/{TOKEN}"), 405, "MethodNotAllowed"),
        ("PUT", format!("/3/device/{TOKEN}"), 405, "MethodNotAllowed"),
        ("POST", "/".into(), 404, "BadPath"),
        ("POST", "/3/devices/ab".into(), 404, "BadPath"),
        ("POST", "/2/device/ab".into(), 404, "BadPath"),
        ("POST", "/3/device/ab/cd".into(), 404, "BadPath"),
        ("POST", "/3/device/".into(), 400, "MissingDeviceToken"),
        ("POST", "/3/device".into(), 400, "MissingDeviceToken"),
        ("POST", "/3/device/abc".into(), 400, "BadDeviceToken"),
        ("POST", "/3/device/xy".into(), 400, "BadDeviceToken"),
        ("POST", format!("/3/device/{}", "ab".repeat(257)), 400, "BadDeviceToken"),
    ];
    for (method, path, status, reason) in cases {
        let answer = apns.request(method, &path, &[], PAYLOAD).await;
        assert_eq!(answer.reason(), (status, reason.to_string()), "{method} {path}");
    }
    for token in ["ab".to_owned(), TOKEN.to_uppercase(), "ab".repeat(100)] {
        assert_eq!(apns.push(&token, &[], PAYLOAD).await.status, 200, "{token}");
    }
}

#[tokio::test]
async fn payloads() {
    let simulator = start().await;
    let apns = Apns::without(&simulator).await;
    let bearer = TokenSpec::of(&simulator).bearer();
    let payload = |size: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(size - 8));
    let voip = format!("{TOPIC}.voip");
    let push = |voip_push: bool, body: String| {
        let (apns, bearer, voip) = (&apns, &bearer, &voip);
        async move {
            let topic = if voip_push { voip.as_str() } else { TOPIC };
            let kind = if voip_push { "voip" } else { "alert" };
            let headers =
                [("authorization", bearer.as_str()), ("apns-topic", topic), ("apns-push-type", kind)];
            apns.push(TOKEN, &headers, body).await
        }
    };
    for empty in ["", "{}", "[]", "\"text\"", "{", "{\"a\":1} x", "\u{1}"] {
        assert_eq!(push(false, empty.into()).await.reason(), (400, "PayloadEmpty".into()), "{empty:?}");
    }
    assert_eq!(payload(4096).len(), 4096);
    assert_eq!(push(false, payload(4096)).await.status, 200);
    assert_eq!(push(false, payload(4097)).await.reason(), (413, "PayloadTooLarge".into()));
    assert_eq!(push(true, payload(5120)).await.status, 200);
    assert_eq!(push(true, payload(5121)).await.reason(), (413, "PayloadTooLarge".into()));
    assert_eq!(push(false, payload(60_000)).await.reason(), (413, "PayloadTooLarge".into()));
    assert_eq!(push(false, payload(4096)).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn clients_that_offer_no_protocol_get_http_2_and_those_of_http_1_are_refused() {
    let simulator = start().await;
    let silent = tls(&simulator, None, &[]).await.unwrap();
    let (h2, connection) = h2::client::handshake(silent).await.unwrap();
    tokio::spawn(connection);
    let answer = Apns { h2 }.push(TOKEN, &[], PAYLOAD).await;
    assert_eq!(answer.reason(), (403, "MissingProviderToken".into()));
    assert!(tls(&simulator, None, &["http/1.1"]).await.is_err());
}
