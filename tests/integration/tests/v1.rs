//! `/v1`: applications, notifications for many, and streams.

use pushlet_simulator::{Script, Service};
use serde_json::{Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

fn token(number: usize) -> String {
    format!("{number:08x}{}", &DEVICE[8..])
}

fn dead(number: usize) -> String {
    format!("dead{number:04x}{}", &DEVICE[8..])
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn stream(harness: &Harness, body: String) -> Vec<Value> {
    let response = harness.server.stream().body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    lines(&response.text().await.unwrap())
}

#[tokio::test]
async fn an_application_is_put_shown_listed_and_deleted_without_its_secrets() {
    let harness = Harness::new().await;
    let files = harness.simulator.credentials();
    let key = String::from_utf8(harness.file(&files.apns_p8)).unwrap();
    let put = |id: &str, body: Value| {
        harness.server.client.put(harness.server.url(&format!("/v1/applications/{id}"))).json(&body)
    };
    let body = json!({
        "provider": "apns", "apns_p8": key, "apns_key_id": files.apns_key_id, "apns_team_id": files.apns_team_id,
        "apns_topic": files.apns_topic, "apns_mode": "development",
    });
    let shown = expect(put("app", body), 200).await;
    assert_eq!(
        (&shown["id"], &shown["provider"], &shown["environment"]),
        (&json!("app"), &json!("apns"), &json!("development"))
    );
    assert_eq!(shown["settings"]["apns_topic"], files.apns_topic.as_str());
    assert_eq!(shown["credential"]["credential"], "token");
    assert_eq!(expect(harness.server.get("/v1/applications/app"), 200).await, shown);
    let listed = expect(harness.server.get("/v1/applications"), 200).await;
    let mut expected = shown.clone();
    expected["outcomes"] = json!({});
    assert_eq!((&listed["applications"], &listed["total"]), (&json!([expected]), &json!(1)));
    assert!(!listed.to_string().contains("PRIVATE"));
    let answer = expect(put("other", json!({"apns_p8": key, "apns_topik": "x"})), 400).await;
    assert_eq!((&answer["error"], &answer["field"]), (&json!("unknown_field"), &json!("apns_topik")));
    let delete = || harness.server.client.delete(harness.server.url("/v1/applications/app"));
    assert_eq!(delete().send().await.unwrap().status(), 204);
    expect_error(delete(), 404, "application_not_found").await;
    expect_error(harness.server.get("/v1/applications/app"), 404, "application_not_found").await;
}

#[tokio::test]
async fn one_notification_for_many_targets_has_one_result_for_each() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns("app").await;
    let targets = json!([token(1), dead(2), {"device": token(3)}, "not hex"]);
    let body =
        json!({"application_id": "app", "notification": {"title": "t", "body": "b"}, "targets": targets});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let statuses: Vec<&str> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["delivered", "unregistered", "delivered", "rejected"]);
    assert_eq!(answer["results"][1]["code"], "Unregistered");
    assert!(answer["results"][1]["since"].as_str().unwrap().ends_with('Z'));
    assert!(answer["results"][0]["id"].is_string());
    assert_eq!(answer["results"][3]["field"], "device_token");
    let summary = &answer["summary"];
    assert_eq!(
        (&summary["total"], &summary["delivered"], &summary["rejected"]),
        (&json!(4), &json!(2), &json!(1))
    );
    assert_eq!(harness.received(Service::Apns).len(), 3);
}

#[tokio::test]
async fn different_notifications_for_different_targets() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let body = json!({"application_id": "app", "notifications": [
        {"target": token(1), "notification": {"body": "one"}},
        {"target": token(2), "notification": {"bodi": "two"}},
        {"target": token(3), "notification": {"body": "three"}},
    ]});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(answer["results"][1]["code"], "unknown_field");
    assert_eq!(
        answer["results"][1]["message"],
        "bodi is not a field of a notification for apns; did you mean body?"
    );
    assert_eq!(answer["summary"]["delivered"], 2);
}

#[tokio::test]
async fn what_is_wrong_with_the_whole_request_is_an_error() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let send = |body: Value| harness.server.post("/v1/notifications").json(&body);
    let notification = json!({"body": "b"});
    let targets = json!([token(1)]);
    expect_error(
        send(json!({"application_id": "no", "notification": notification, "targets": targets})),
        404,
        "application_not_found",
    )
    .await;
    expect_error(
        send(json!({"application_id": "app", "notification": {"titel": 1}, "targets": targets})),
        400,
        "unknown_field",
    )
    .await;
    expect_error(
        send(json!({"application_id": "app", "notification": notification, "targets": []})),
        400,
        "missing_targets",
    )
    .await;
    expect_error(send(json!({"application_id": "app", "targets": targets})), 400, "missing_notification")
        .await;
    expect_error(send(json!({"application_id": "app", "unknown": 1})), 400, "unknown_field").await;
    expect_error(
        send(
            json!({"application_id": "app", "notification": notification, "targets": targets, "deadline": 0}),
        ),
        400,
        "invalid_deadline",
    )
    .await;
    assert!(harness.received(Service::Apns).is_empty());
}

#[tokio::test]
async fn a_stream_gives_every_line_its_result_and_sums_up() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let mut body = format!("{}\n", json!({"application_id": "app", "notification": {"title": "t"}}));
    for number in 0..3000 {
        body +=
            &format!("{}\n", json!({"target": if number % 100 == 7 { dead(number) } else { token(number) }}));
    }
    body += "broken\n";
    body += &format!("{}\n", json!({"target": token(9000), "notification": {"title": "own"}}));
    let answer = stream(&harness, body).await;
    let (end, results) = answer.split_last().unwrap();
    assert_eq!(results.len(), 3002);
    let mut indices: Vec<u64> = results.iter().map(|result| result["index"].as_u64().unwrap()).collect();
    indices.sort_unstable();
    assert!(indices.into_iter().eq(0..3002), "every line once");
    for result in results {
        let index = result["index"].as_u64().unwrap();
        let expected = match index {
            3000 => "rejected",
            _ if index < 3000 && index % 100 == 7 => "unregistered",
            _ => "delivered",
        };
        assert_eq!(result["status"], expected, "{result}");
    }
    assert_eq!(end["summary"]["total"], 3002);
    assert_eq!(end["summary"]["unregistered"], 30);
    assert!(end.get("interrupted").is_none());
    let own =
        harness.received(Service::Apns).into_iter().find(|push| push.path.contains(&token(9000))).unwrap();
    assert!(own.body.contains("own"), "{}", own.body);
}

#[tokio::test]
async fn a_stream_whose_header_is_wrong_is_an_error_and_sends_nothing() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let post = |body: &'static str| harness.server.stream().body(body);
    expect_error(post(""), 400, "invalid_header").await;
    expect_error(post("nonsense\n"), 400, "invalid_header").await;
    expect_error(post("{\"application_id\":\"no\",\"notification\":{}}\n"), 404, "application_not_found")
        .await;
    expect_error(post("{\"application_id\":\"app\",\"notification\":{\"x\":1}}\n"), 400, "unknown_field")
        .await;
    assert!(harness.simulator.received().is_empty());
}

#[tokio::test]
async fn results_come_while_the_caller_is_still_writing() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let (lines, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(4);
    let stream = futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    lines
        .send(Ok(format!("{}\n", json!({"application_id": "app", "notification": {"body": "x"}}))))
        .await
        .unwrap();
    let request = harness.server.stream().body(reqwest::Body::wrap_stream(stream));
    let mut response = request.send().await.unwrap();
    for number in 0..3 {
        lines.send(Ok(format!("{}\n", json!({"target": token(number)})))).await.unwrap();
        let piece = response.chunk().await.unwrap().unwrap();
        let result: Value = serde_json::from_slice(&piece).unwrap();
        assert_eq!((&result["index"], &result["status"]), (&json!(number), &json!("delivered")));
    }
    drop(lines);
    let end: Value = serde_json::from_slice(&response.chunk().await.unwrap().unwrap()).unwrap();
    assert_eq!(end["summary"]["delivered"], 3);
}

#[tokio::test]
async fn a_caller_that_leaves_a_stream_stops_the_sending() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    harness.simulator.script(Script { delay_ms: 20, ..Script::new(Service::Apns) }).unwrap();
    let header = format!("{}\n", json!({"application_id": "app", "notification": {"body": "x"}}));
    let endless = futures_util::stream::unfold(0, move |number| {
        let line =
            if number == 0 { header.clone() } else { format!("{}\n", json!({"target": token(number)})) };
        async move { Some((Ok::<_, std::io::Error>(line), number + 1)) }
    });
    let request = harness.server.stream().body(reqwest::Body::wrap_stream(endless));
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    // Ends only if the stream's sends do.
    harness.server.stop().await;
}
