//! One target's fault is its own, a target that comes twice is sent once, and a caller is told of each try.

use pushlet_simulator::{Script, Service};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

/// What a request and a stream with these targets are told of each, in the order of the targets; with their summaries.
async fn told(harness: &Harness, app: &str, targets: &[Value], more: Value) -> [(Vec<Value>, Value); 2] {
    let mut body = json!({"application_id": app, "notification": {"body": "b"}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut lines = format!("{body}\n");
    for target in targets {
        lines += &format!("{}\n", json!({ "target": target }));
    }
    body["targets"] = targets.into();
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let results = answer["results"].as_array().unwrap().clone();
    let text = harness.server.stream().body(lines).send().await.unwrap().text().await.unwrap();
    let mut streamed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = streamed.pop().unwrap();
    streamed.sort_by_key(|result| result["index"].as_u64());
    [(results, answer["summary"].clone()), (streamed, end["summary"].clone())]
}

fn statuses(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().unwrap()).collect()
}

/// The tokens of the pushes that arrived, in no order.
fn tokens(harness: &Harness) -> Vec<String> {
    let paths = harness.received(Service::Apns).into_iter().map(|push| push.path);
    let mut tokens: Vec<String> = paths.map(|path| path.rsplit_once('/').unwrap().1.to_owned()).collect();
    tokens.sort();
    tokens
}

#[tokio::test]
async fn a_target_that_is_wrong_costs_the_others_nothing() {
    let harness = Harness::new().await;
    harness.register_apns("ios").await;
    // What is given, the code, and words of the message.
    let wrong = [
        (json!({"topic": "x"}), "unsupported_target", "apns does not send to topics"),
        (json!({"url": "https://push.example/1"}), "unsupported_target", "apns does not send to URLs"),
        (json!(""), "invalid_target", "the target is empty"),
        (json!({"device": ""}), "invalid_target", "the target is empty"),
        (json!(7), "invalid_target", "a target must be a device token, or an object with one of device"),
        (json!({"token": "00aa"}), "invalid_target", "with one of device, topic, condition"),
        (json!({"device": "00aa", "topic": "x"}), "invalid_target", "with one of device"),
        (json!([DEVICE]), "invalid_target", "a target must be"),
    ];
    let mut targets: Vec<Value> = wrong.iter().map(|(target, ..)| target.clone()).collect();
    targets.insert(0, json!("00aa"));
    targets.push(json!("00bb"));
    let [request, stream] = told(&harness, "ios", &targets, json!({})).await;
    for (results, summary) in [&request, &stream] {
        assert_eq!((&summary["delivered"], &summary["rejected"]), (&json!(2), &json!(8)), "{results:?}");
        assert_eq!(summary["total"], 10);
        for (number, (target, code, message)) in wrong.iter().enumerate() {
            let result = &results[number + 1];
            assert_eq!((&result["status"], &result["code"]), (&json!("rejected"), &json!(code)), "{target}");
            assert!(result["message"].as_str().unwrap().contains(message), "{result}");
        }
    }
    for number in 1..=8 {
        assert_eq!(request.0[number]["field"], format!("targets[{number}]"));
        assert_eq!(stream.0[number]["field"], "target");
    }
    assert_eq!(tokens(&harness), ["00aa", "00aa", "00bb", "00bb"]);
    // What is no target is not shown as one.
    assert_eq!((&request.0[1]["target"], &request.0[5]["target"]), (&json!({"topic": "x"}), &Value::Null));
}

#[tokio::test]
async fn a_wrong_target_of_an_item_or_alone_is_named_where_it_stands() {
    let harness = Harness::new().await;
    harness.register_apns("ios").await;
    let send = |body: Value| harness.server.post("/v1/notifications").json(&body);
    let items = json!({"application_id": "ios", "notification": {"title": "t"}, "notifications": [
        {"target": "00aa", "notification": {"body": "x"}},
        {"target": {"topic": "x"}},
        {"targets": ["00bb", 7, {"topic": "x"}]},
    ]});
    let answer = expect(send(items), 200).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(statuses(results), ["delivered", "rejected", "delivered", "rejected", "rejected"]);
    let fields: Vec<&Value> = results.iter().map(|result| &result["field"]).collect();
    let (one, two, three) =
        ("notifications[1].target", "notifications[2].targets[1]", "notifications[2].targets[2]");
    assert_eq!(fields, [&Value::Null, &json!(one), &Value::Null, &json!(two), &json!(three)]);
    for target in [json!({"topic": "x"}), json!("")] {
        let body = json!({"application_id": "ios", "notification": {"body": "b"}, "target": target});
        let answer = expect(send(body), 200).await;
        let result = &answer["results"][0];
        assert_eq!((&result["status"], &result["field"]), (&json!("rejected"), &json!("target")));
    }
    let unknown = json!({"application_id": "no", "notification": {"body": "b"}, "targets": [""]});
    expect_error(send(unknown), 404, "application_not_found").await;
}

#[tokio::test]
async fn a_target_that_comes_again_is_sent_once() {
    let harness = Harness::new().await;
    harness.register_apns("ios").await;
    // A wrong one among them moves no index.
    let targets = [json!(""), json!("00aa"), json!({"device": "00aa"}), json!("00bb"), json!("00AA")];
    let targets = [&targets[..], &[json!("<00 aa>"), json!("00CC"), json!("00cc")]].concat();
    for (results, summary) in told(&harness, "ios", &targets, json!({})).await {
        assert_eq!(
            statuses(&results),
            [
                "rejected",
                "delivered",
                "duplicate",
                "delivered",
                "duplicate",
                "duplicate",
                "delivered",
                "duplicate"
            ]
        );
        let firsts: Vec<&Value> = results.iter().map(|result| &result["duplicate_of"]).collect();
        let none = &Value::Null;
        assert_eq!(firsts, [none, none, &json!(1), none, &json!(1), &json!(1), none, &json!(6)]);
        assert_eq!((&summary["duplicates"], &summary["delivered"]), (&json!(4), &json!(3)));
        assert_eq!(summary["total"], 8);
    }
    assert_eq!(tokens(&harness), ["00aa", "00aa", "00bb", "00bb", "00cc", "00cc"]);
    for (results, summary) in told(&harness, "ios", &targets, json!({"duplicates": "send"})).await {
        assert_eq!((&summary["duplicates"], &summary["delivered"]), (&json!(0), &json!(7)), "{results:?}");
    }
    assert_eq!(harness.received(Service::Apns).len(), 6 + 14);
    let body = json!({"application_id": "ios", "notification": {}, "targets": ["a"], "duplicates": true});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 400).await;
    assert_eq!(answer["field"], "duplicates");
    assert_eq!(answer["message"], "duplicates must be skip or send");
}

#[tokio::test]
async fn what_another_spelling_is_the_provider_says() {
    let harness = Harness::new().await;
    harness.register_fcm("droid").await;
    let targets =
        ["token:Ab", "token:aB", "token:Ab", "tokenAb"].map(|token| json!(token.to_owned() + DEVICE));
    for _ in 0..2 {
        for (results, _) in told(&harness, "droid", &targets, json!({})).await {
            assert_eq!(statuses(&results), ["delivered", "delivered", "duplicate", "delivered"]);
        }
    }
    let topics = ["News", "news", "News"].map(|topic| json!({ "topic": topic }));
    for (results, _) in told(&harness, "droid", &topics, json!({})).await {
        assert_eq!(statuses(&results), ["delivered", "delivered", "duplicate"]);
    }
}

#[tokio::test]
async fn a_notification_of_its_own_is_another_push() {
    let harness = Harness::new().await;
    harness.register_apns("ios").await;
    let item = |body: &str| json!({"target": "00aa", "notification": {"body": body}});
    let items = json!([item("x"), item("y"), item("x"), {"targets": ["00aa", "00AA"]}, {"target": "00aa"}]);
    let body = json!({"application_id": "ios", "notification": {"title": "t"}, "notifications": items});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(
        statuses(results),
        ["delivered", "delivered", "duplicate", "delivered", "duplicate", "duplicate"]
    );
    assert_eq!((&results[2]["duplicate_of"], &results[5]["duplicate_of"]), (&json!(0), &json!(3)));
    assert_eq!(harness.received(Service::Apns).len(), 3);
}

#[tokio::test]
async fn a_caller_is_told_how_many_tries_there_were() {
    let harness = Harness::with("delivery.retries = 1").await;
    harness.register_apns("ios").await;
    let fail = |token: &str, times| {
        let script =
            Script { token: Some(token.to_owned()), status: Some(503), times, ..Script::new(Service::Apns) };
        let body = Some(json!({"reason": "ServiceUnavailable"}));
        harness.simulator.script(Script { body, ..script }).unwrap();
    };
    fail("00ab", Some(1));
    fail("00ac", None);
    for (results, _) in
        told(&harness, "ios", &["00aa", "00ab", "00ac", "odd"].map(Value::from), json!({})).await
    {
        let attempts: Vec<&Value> = results.iter().map(|result| &result["attempts"]).collect();
        assert_eq!(statuses(&results)[..1], ["delivered"]);
        assert_eq!(statuses(&results)[2..], ["unavailable", "rejected"]);
        assert_eq!((attempts[0], attempts[2], attempts[3]), (&Value::Null, &json!(2), &Value::Null));
    }
    fail("00ad", Some(1));
    let body = json!({"application_id": "ios", "notification": {"body": "b"}, "target": "00ad"});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let result = &answer["results"][0];
    assert_eq!((&result["status"], &result["attempts"]), (&json!("delivered"), &json!(2)));
    let classic = |token: &'static str| {
        let form = [("application_id", "ios"), ("device_token", token), ("alert", "b")];
        harness.server.post("/send_notification").form(&form)
    };
    let message = expect_error(classic("00ac"), 503, "service_unavailable").await;
    assert!(message.ends_with("(after 2 attempts)"), "{message}");
    let message = expect_error(classic("odd"), 400, "invalid_device_token").await;
    assert!(!message.contains("attempt"), "{message}");
}
