//! `POST /v1/notifications:stream`: odd lines, and the ways in which a stream ends.

use pushlet_simulator::{Script, Service};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Harness, expect_error, wait_until};

type Feed = mpsc::Sender<Result<Vec<u8>, std::io::Error>>;

const HEADER: &str =
    "{\"application_id\":\"app\",\"notification\":{\"title\":\"shared\",\"body\":\"shared\"}}\n";

/// A stream whose lines the test writes one by one.
async fn open(harness: &Harness) -> (Feed, reqwest::Response) {
    let (feed, lines) = mpsc::channel(16);
    let body = futures_util::stream::unfold(lines, async |mut lines| Some((lines.recv().await?, lines)));
    feed.send(Ok(HEADER.into())).await.unwrap();
    let request = harness.server.stream().body(reqwest::Body::wrap_stream(body));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    (feed, response)
}

fn lines(text: &[u8]) -> Vec<Value> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The results by index, and the last line.
fn sorted(text: &[u8]) -> (Vec<Value>, Value) {
    let mut lines = lines(text);
    let end = lines.pop().unwrap();
    lines.sort_by_key(|line| line["index"].as_u64().unwrap());
    (lines, end)
}

#[tokio::test]
async fn a_broken_line_is_its_own_fault_alone() {
    let harness = Harness::with("limits.stream_line = 1024").await;
    harness.register_apns("app").await;
    let mut body = format!("\n{HEADER}\r\n").into_bytes();
    body.extend_from_slice(b"{\"target\":\"a0\"}\r\n");
    body.extend_from_slice(format!("{{\"target\":\"{}\"}}\n", "a".repeat(2000)).as_bytes());
    body.extend_from_slice(b"{\"target\":\"\xff\"}\n   \n");
    for line in ["[1]", "{}", r#"{"target":7}"#, r#"{"targett":"a1"}"#, r#"{"target":{"topic":"news"}}"#] {
        body.extend_from_slice(format!("{line}\n").as_bytes());
    }
    body.extend_from_slice(br#"{"target":"a2","notification":{"bodi":"x"}}"#);
    body.extend_from_slice(b"\n{\"target\":\"a3\"}");
    let response = harness.server.stream().body(body).send().await.unwrap();
    let (results, end) = sorted(&response.bytes().await.unwrap());
    let codes: Vec<&str> = results.iter().map(|result| result["code"].as_str().unwrap_or("-")).collect();
    assert_eq!(
        codes,
        [
            "-",
            "line_too_long",
            "invalid_json",
            "invalid_json",
            "missing_target",
            "invalid_target",
            "unknown_field",
            "unsupported_target",
            "unknown_field",
            "-"
        ]
    );
    assert_eq!((&end["summary"]["delivered"], &end["summary"]["rejected"]), (&json!(2), &json!(8)));
    assert!(end.get("interrupted").is_none(), "{end}");
}

#[tokio::test]
async fn a_line_says_what_differs_from_the_header() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let body = format!(
        "{HEADER}{}\n{}\n{}\n",
        json!({"target": "a0", "notification": {"body": "own"}}),
        json!({"target": "a1", "notification": {"title": null}}),
        json!({"target": "a2"})
    );
    let response = harness.server.stream().body(body).send().await.unwrap();
    let (_, end) = sorted(&response.bytes().await.unwrap());
    assert_eq!(end["summary"]["delivered"], 3, "{end}");
    let received = harness.received(Service::Apns);
    let alert = |token: &str| -> Value {
        let push = received.iter().find(|push| push.path.ends_with(token)).unwrap();
        serde_json::from_str::<Value>(&push.body).unwrap()["aps"]["alert"].clone()
    };
    assert_eq!(alert("/a0"), json!({"title": "shared", "body": "own"}));
    assert_eq!(alert("/a1"), json!("shared"));
    assert_eq!(alert("/a2"), json!({"title": "shared", "body": "shared"}));
}

#[tokio::test]
async fn what_is_only_validated_is_not_sent() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let header = json!({"application_id": "app", "notification": {"body": "x"}, "validate_only": true});
    let body = format!("{header}\n{}\n", json!({"target": "a0"}));
    let response = harness.server.stream().body(body).send().await.unwrap();
    let (results, end) = sorted(&response.bytes().await.unwrap());
    assert_eq!((&results[0]["status"], &end["summary"]["valid"]), (&json!("valid"), &json!(1)));
    assert!(harness.received(Service::Apns).is_empty());
}

#[tokio::test]
async fn a_stream_that_says_nothing_for_too_long_is_ended() {
    let harness = Harness::with("limits.stream_idle = \"200ms\"").await;
    harness.register_apns("app").await;
    let (_feed, response) = open(&harness).await;
    let (results, end) = sorted(&response.bytes().await.unwrap());
    assert_eq!((results.len(), &end["interrupted"]), (0, &json!("idle")));
}

#[tokio::test]
async fn open_streams_are_counted() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let open_ones = async || {
        let text = harness.server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("pushlet_open_streams "));
        lines.map(|count| count.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(open_ones().await, [0.0]);
    let streams = [open(&harness).await, open(&harness).await];
    assert_eq!(open_ones().await, [2.0]);
    drop(streams);
    wait_until("they have ended", async || open_ones().await == [0.0]).await;
}

#[tokio::test]
async fn at_shutdown_what_is_under_way_is_finished_and_told() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    harness.simulator.script(Script { delay_ms: 300, ..Script::new(Service::Apns) }).unwrap();
    let (feed, response) = open(&harness).await;
    feed.send(Ok(b"{\"target\":\"a0\"}\n".to_vec())).await.unwrap();
    wait_until("the push arrives", async || !harness.received(Service::Apns).is_empty()).await;
    let stopped = tokio::spawn(harness.server.stop());
    let (results, end) = sorted(&response.bytes().await.unwrap());
    assert_eq!((results.len(), &results[0]["status"]), (1, &json!("delivered")));
    assert_eq!((&end["interrupted"], &end["summary"]["total"]), (&json!("shutting_down"), &json!(1)));
    stopped.await.unwrap();
    drop(feed);
}

#[tokio::test]
async fn a_header_that_is_wrong_names_its_field() {
    let harness = Harness::with("limits.stream_line = 1024").await;
    harness.register_apns("app").await;
    let post = |body: String| harness.server.stream().body(body);
    expect_error(post("{\"aplication_id\":\"app\"}\n".into()), 400, "unknown_field").await;
    expect_error(post("{\"notification\":{}}\n".into()), 400, "missing_application_id").await;
    expect_error(post("{\"application_id\":\"app\",\"deadline\":-1}\n".into()), 400, "invalid_deadline")
        .await;
    expect_error(post("x".repeat(5000)), 400, "invalid_header").await;
    let untyped = || harness.server.post("/v1/notifications:stream").body(HEADER);
    expect_error(untyped(), 415, "unsupported_media_type").await;
    expect_error(untyped().header("content-type", "text/plain"), 415, "unsupported_media_type").await;
}
