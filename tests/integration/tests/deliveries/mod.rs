//! Deliveries that outlive their callers: any node works them off and tells of them, and each target has one result.

mod ended;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::fleet::{Fleet, status};
use crate::harness::{DEVICE, Harness, Pushlet, expect, expect_error, pointing_at, wait_for, wait_until};
use crate::tenants::{admin, change};
use crate::upload::PROGRAM;
use pushlet_simulator::Service;

/// A token that the simulator calls dead.
const DEAD: &str = "dead15a27d5df3c34778defb1f4f3880";

fn token(number: usize) -> String {
    format!("{number:064x}")
}

fn body(targets: &[Value]) -> Value {
    json!({"application_id": "app", "notification": {"body": "hello"}, "targets": targets})
}

fn tokens(count: usize) -> Vec<Value> {
    (0..count).map(|number| json!(token(number))).collect()
}

/// A send whose caller does not wait.
fn later(request: RequestBuilder) -> RequestBuilder {
    request.header("prefer", "respond-async")
}

/// Sends and does not wait; answers the delivery's path.
async fn accepted(request: RequestBuilder) -> String {
    let response = later(request).send().await.unwrap();
    let headers = response.headers().clone();
    let (code, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(code, 202, "{text}");
    assert_eq!(headers["preference-applied"], "respond-async");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["href"], headers["location"].to_str().unwrap());
    body["href"].as_str().unwrap().to_owned()
}

/// The delivery once every target has its result.
async fn completed(show: impl Fn() -> RequestBuilder) -> Value {
    wait_for("every target has its result", async || {
        let shown = expect(show(), 200).await;
        let is_done = ["complete", "cancelled"].iter().any(|state| shown["state"] == *state);
        is_done.then_some(shown)
    })
    .await
}

/// The results and the last line.
async fn results(request: RequestBuilder) -> (Vec<Value>, Value) {
    let text = request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = lines.pop().unwrap();
    (lines, end)
}

/// How many results have which status. Each target must have one.
fn by_status(results: &[Value], targets: usize) -> BTreeMap<String, usize> {
    let indices: BTreeSet<_> = results.iter().map(|result| result["index"].as_u64().unwrap()).collect();
    assert_eq!((indices.len(), results.len()), (targets, targets), "each target has one result");
    assert_eq!(indices.last().copied(), Some(targets as u64 - 1));
    let mut counts = BTreeMap::new();
    for result in results {
        *counts.entry(result["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(status, count)| (status.to_owned(), count)).collect()
}

impl Fleet {
    fn post(&self, node: usize, key: &str, targets: &[Value]) -> RequestBuilder {
        self.nodes[node].post("/v1/notifications").bearer_auth(key).json(&body(targets))
    }

    fn show(&self, node: usize, key: &str, path: &str) -> RequestBuilder {
        self.nodes[node].get(path).bearer_auth(key)
    }

    /// A tenant with an application; answers its key.
    async fn sender(&self) -> String {
        let key = self.tenant("acme").await;
        expect(self.register(0, &key, "app"), 200).await;
        for node in 1..self.nodes.len() {
            let known = async || status(self.show(node, &key, "/v1/applications/app")).await == 200;
            wait_until("the application is known", known).await;
        }
        key
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_tells_what_became_of_each_target() {
    let fleet = Fleet::new().await;
    let key = fleet.sender().await;
    let mut targets = tokens(600);
    targets[7] = json!(DEAD);
    targets[300] = json!(token(5));
    targets[301] = json!({"device": ""});
    targets[599] = json!({"topic": "news"});
    let path = accepted(fleet.post(0, &key, &targets)).await;
    let shown = completed(|| fleet.show(1, &key, &path)).await;
    assert_eq!((&shown["targets"], &shown["state"]), (&json!(600), &json!("complete")));
    assert_eq!((&shown["application_id"], &shown["cancelled"]), (&json!("app"), &json!(false)));
    let (all, end) = results(fleet.show(2, &key, &format!("{path}/results"))).await;
    let expected = counts([("delivered", 596), ("unregistered", 1), ("rejected", 2), ("duplicate", 1)]);
    assert_eq!(by_status(&all, 600), expected);
    let summary = &shown["summary"];
    assert_eq!((&summary["total"], &summary["delivered"]), (&json!(600), &json!(596)));
    assert_eq!((&summary["unregistered"], &summary["duplicates"]), (&json!(1), &json!(1)));
    let of = |index: u64| all.iter().find(|result| result["index"] == index).unwrap();
    assert_eq!(of(300)["duplicate_of"], 5);
    assert_eq!((&of(301)["code"], &of(301)["field"]), (&json!("invalid_target"), &json!("targets[301]")));
    assert_eq!(of(599)["code"], "unsupported_target");
    assert!(of(7)["since"].is_string() && of(0)["id"].is_string());
    assert_eq!(fleet.pushes(), 597);
    assert_eq!(end["complete"], true);
    let after = format!("{path}/results?after={}", end["cursor"].as_str().unwrap());
    assert_eq!(results(fleet.show(0, &key, &after)).await.0, [Value::Null; 0]);
    let feedback = fleet.show(2, &key, "/v1/applications/app/feedback");
    assert_eq!(expect(feedback, 200).await["dead_tokens"][0]["device_token"], DEAD);

    // A stream, whose lines may have a notification of their own.
    let mut lines = format!("{}\n", json!({"application_id": "app", "notification": {"body": "x"}}));
    for number in 0..260 {
        lines += &format!("{}\n", json!({"target": token(number)}));
    }
    lines += "\n{\"target\":1}\n{\"target\":\"00ff\",\"notification\":{\"badge\":7}}\n";
    let path = accepted(fleet.nodes[1].stream().bearer_auth(&key).body(lines)).await;
    completed(|| fleet.show(0, &key, &path)).await;
    let (all, _) = results(fleet.show(0, &key, &format!("{path}/results"))).await;
    assert_eq!(by_status(&all, 262), counts([("delivered", 261), ("rejected", 1)]));
    assert_eq!(all.iter().find(|result| result["status"] == "rejected").unwrap()["index"], 260);
    let received = fleet.simulator.received();
    let own = received.iter().find(|received| received.path.ends_with("/00ff")).unwrap();
    let own: Value = serde_json::from_str(&own.body).unwrap();
    assert_eq!(own["aps"]["badge"], 7);
    assert!(own["aps"]["alert"].to_string().contains("\"x\""), "{own}");

    let listed = expect(fleet.show(2, &key, "/v1/deliveries?limit=1"), 200).await;
    assert_eq!(listed["deliveries"][0]["targets"], 600);
    let next = format!("/v1/deliveries?after={}", listed["next"].as_str().unwrap());
    let listed = expect(fleet.show(2, &key, &next), 200).await;
    assert_eq!((&listed["deliveries"][0]["targets"], &listed["next"]), (&json!(262), &Value::Null));
    let other = fleet.tenant("other").await;
    expect_error(fleet.show(0, &other, &path), 404, "delivery_not_found").await;
    expect_error(fleet.show(0, &key, "/v1/deliveries/*"), 404, "delivery_not_found").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_at_once_and_a_key_makes_one_delivery() {
    let fleet = Fleet::with(|simulator| pointing_at(simulator, "limits.async_parts = 2")).await;
    let key = fleet.sender().await;
    let send = |body: Value| later(fleet.nodes[0].post("/v1/notifications")).bearer_auth(&key).json(&body);
    let mut other = body(&tokens(1));
    other["application_id"] = json!("none");
    expect_error(send(other), 404, "application_not_found").await;
    let mut wrong = body(&tokens(1));
    wrong["notification"] = json!({"badge": "x"});
    expect_error(send(wrong), 400, "invalid_badge").await;
    expect_error(send(body(&[])), 400, "missing_targets").await;
    let mut capture = body(&tokens(1));
    capture["capture"] = json!(true);
    expect_error(send(capture), 400, "invalid_prefer").await;
    let cut = later(fleet.nodes[0].stream()).bearer_auth(&key).body("{\"application_id\":\"app\"}\n");
    expect_error(cut, 400, "missing_targets").await;

    let keyed = async |node: usize| {
        accepted(fleet.post(node, &key, &tokens(2)).header("idempotency-key", "one")).await
    };
    let first = keyed(0).await;
    completed(|| fleet.show(0, &key, &first)).await;
    let repeat = later(fleet.post(1, &key, &tokens(2)).header("idempotency-key", "one"));
    let repeat = expect(repeat, 202).await;
    assert_eq!(repeat["href"], first);
    assert_eq!(fleet.pushes(), 2);

    // More than there is room for: nothing of it is sent, and the room is free again.
    let full = later(fleet.post(0, &key, &tokens(5000))).send().await.unwrap();
    assert!(full.headers().contains_key("retry-after"));
    let code = (full.status().as_u16(), full.json::<Value>().await.unwrap()["error"].clone());
    assert_eq!(code, (503, json!("delivery_queue_full")));
    let path = wait_for("there is room again", async || {
        let response = later(fleet.post(2, &key, &tokens(3))).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        body["href"].as_str().map(str::to_owned)
    })
    .await;
    completed(|| fleet.show(0, &key, &path)).await;
    assert_eq!(fleet.pushes(), 5);
    assert_eq!(
        expect(fleet.show(0, &key, "/v1/deliveries"), 200).await["deliveries"].as_array().unwrap().len(),
        2,
        "what was refused is not listed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fleet_it_is_refused() {
    let harness = Harness::new().await;
    harness.register_apns("app").await;
    let send = later(harness.server.post("/v1/notifications")).json(&body(&tokens(1)));
    let message = expect_error(send, 400, "async_not_available").await;
    assert!(message.contains("registry.url"), "{message}");
    let lines = format!("{{\"application_id\":\"app\"}}\n{{\"target\":\"{DEVICE}\"}}\n");
    expect_error(later(harness.server.stream()).body(lines), 400, "async_not_available").await;
    assert!(harness.received(Service::Apns).is_empty());
    let id = "0".repeat(32);
    expect_error(harness.server.get(&format!("/v1/deliveries/{id}")), 404, "delivery_not_found").await;
    assert_eq!(expect(harness.server.get("/v1/deliveries"), 200).await["deliveries"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_is_not_sent_and_what_may_not_be_sent_waits() {
    let fleet = Fleet::new().await;
    let key = fleet.sender().await;
    change(&fleet.nodes[0], "acme", &json!({"limits": {"pushes_per_second": 300}})).await;
    let path = accepted(fleet.post(0, &key, &tokens(6000))).await;
    wait_until("some are sent", async || fleet.pushes() > 100).await;
    let shown = expect(fleet.nodes[1].delete(&path).bearer_auth(&key), 200).await;
    assert_eq!(shown["cancelled"], true);
    // What is in flight need not be slow any more.
    change(&fleet.nodes[0], "acme", &json!({"limits": {}})).await;
    let shown = completed(|| fleet.show(2, &key, &path)).await;
    assert_eq!(shown["state"], "cancelled");
    let (all, _) = results(fleet.show(0, &key, &format!("{path}/results"))).await;
    let statuses = by_status(&all, 6000);
    let (delivered, unsent) = (statuses["delivered"], statuses["unavailable"]);
    assert_eq!((delivered + unsent, fleet.pushes()), (6000, delivered));
    assert!(unsent >= 1000, "{statuses:?}");
    assert!(
        all.iter()
            .filter(|result| result["status"] == "unavailable")
            .all(|result| result["code"] == "delivery_cancelled")
    );

    // A tenant that is suspended sends nothing; its deliveries go on when it may send again.
    let made = expect(admin(fleet.nodes[0].post("/v1/tenants/acme/keys").json(&json!({}))), 201).await;
    let (id, second) = (made["id"].as_str().unwrap(), made["api_key"].as_str().unwrap());
    wait_until("the key is known", async || status(fleet.show(1, second, "/v1/applications")).await == 200)
        .await;
    change(&fleet.nodes[0], "acme", &json!({"limits": {"pushes_per_second": 20}})).await;
    let before = fleet.pushes();
    let kept = accepted(fleet.post(0, &key, &tokens(300))).await;
    let revoked = accepted(fleet.post(1, second, &tokens(4000))).await;
    wait_until("some are sent", async || fleet.pushes() > before).await;
    expect_no_content(admin(fleet.nodes[0].delete(&format!("/v1/tenants/acme/keys/{id}")))).await;
    change(&fleet.nodes[0], "acme", &json!({"limits": {}})).await;
    let shown = completed(|| fleet.show(2, &key, &revoked)).await;
    assert!(shown["summary"]["unavailable"].as_u64().unwrap() >= 1000, "{shown}");
    let (all, _) = results(fleet.show(0, &key, &format!("{revoked}/results"))).await;
    by_status(&all, 4000);
    assert!(all.iter().any(|result| result["code"] == "key_revoked"));
    completed(|| fleet.show(2, &key, &kept)).await;
    let (all, _) = results(fleet.show(0, &key, &format!("{kept}/results"))).await;
    assert_eq!(by_status(&all, 300), counts([("delivered", 300)]));
}

/// Runs the program against a server; answers its code and what it printed.
async fn command(server: &Pushlet, key: &str, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(words).args(["--server", &server.url(""), "--api-key", key]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_hand_over_and_come_back() {
    let fleet = Fleet::new().await;
    let key = fleet.sender().await;
    let (one, two) = (token(1), token(2));
    let send = ["send", "--async", "-a", "app", "--body", "hello", "--to", &one, "--to", &two, "--json"];
    let (code, printed) = command(&fleet.nodes[0], &key, &send).await;
    assert_eq!(code, Some(0), "{printed}");
    let id = serde_json::from_str::<Value>(&printed).unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/deliveries/{id}");
    completed(|| fleet.show(1, &key, &path)).await;
    let (code, printed) = command(&fleet.nodes[1], &key, &["delivery", "results", &id]).await;
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len(), &lines[2]["complete"]), (Some(0), 3, &json!(true)), "{printed}");
    let (code, printed) = command(&fleet.nodes[2], &key, &["delivery", "show", &id]).await;
    assert!(code == Some(0) && printed.contains("complete"), "{printed}");
    let (_, printed) = command(&fleet.nodes[2], &key, &["delivery", "list"]).await;
    assert!(printed.contains(&id), "{printed}");
    let (code, printed) = command(&fleet.nodes[2], &key, &["delivery", "cancel", &id]).await;
    assert!(code == Some(0) && printed.contains("cancelled"), "{printed}");
    // A file that cannot be read to its end is handed over not at all.
    let before = fleet.pushes();
    let broken = std::env::temp_dir().join(format!("pushlet-broken-{id}"));
    std::fs::write(&broken, [one.as_bytes(), b"\n\xff\n"].concat()).unwrap();
    let words = ["send", "--async", "-a", "app", "--body", "hello", broken.to_str().unwrap()];
    let (code, printed) = command(&fleet.nodes[0], &key, &words).await;
    std::fs::remove_file(&broken).unwrap();
    assert_eq!(code, Some(1), "{printed}");
    let listed = expect(fleet.show(0, &key, "/v1/deliveries"), 200).await;
    assert_eq!((listed["deliveries"].as_array().unwrap().len(), fleet.pushes()), (1, before));
}

async fn expect_no_content(request: RequestBuilder) {
    assert_eq!(status(request).await, 204);
}
