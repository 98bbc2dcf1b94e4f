//! FCM's topic subscriptions, through the collections of an application.

use serde_json::{Value, json};

use super::harness::{Harness, expect, expect_error};
use pushlet_simulator::Service;

const TOKEN: &str = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1";
const ITEMS: &str = "/v1/applications/droid/subscriptions";

async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.register_fcm("droid").await;
    harness
}

fn item(topic: &str) -> String {
    format!("{ITEMS}/{}%2F{topic}", TOKEN.replace(':', "%3A"))
}

#[tokio::test]
async fn a_device_follows_a_topic_and_leaves_it() {
    let harness = harness().await;
    let body = json!({ "registration": TOKEN, "topic": "news" });
    let subscribe = || harness.server.post(ITEMS).json(&body);
    let made = expect(subscribe(), 201).await;
    assert_eq!(made["id"], format!("{TOKEN}/news"));
    assert_eq!((&made["registration"], &made["topic"]), (&json!(TOKEN), &json!("news")), "{made}");
    assert_eq!(expect(subscribe(), 201).await["id"], made["id"], "subscribing again is no error");
    assert_eq!(expect(harness.server.get(&item("news")), 200).await["topic"], "news");
    expect(harness.server.post(ITEMS).json(&json!({ "registration": TOKEN, "topic": "sport" })), 201).await;
    let all = expect(harness.server.get(&format!("{ITEMS}/{}", TOKEN.replace(':', "%3A"))), 200).await;
    assert_eq!(all, json!({ "id": TOKEN, "registration": TOKEN, "topics": ["news", "sport"] }));
    let paths: Vec<(String, String)> =
        harness.received(Service::Fcm).into_iter().map(|one| (one.method, one.path)).collect();
    let parent = format!(
        "/v1/projects/pushlet-simulator/registrations/{}/topicSubscriptions",
        TOKEN.replace(':', "%3A")
    );
    assert_eq!(paths[0], ("POST".to_owned(), format!("{parent}?topicName=news")));
    assert_eq!(paths[2], ("GET".to_owned(), format!("{parent}/news")));
    assert_eq!(paths[4], ("GET".to_owned(), format!("{parent}?pageSize=150")));
    let gone = harness.server.delete(&item("news")).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    expect_error(harness.server.get(&item("news")), 404, "not_found").await;
    expect_error(harness.server.delete(&item("news")), 404, "not_found").await;
}

#[tokio::test]
async fn a_device_that_follows_many_topics_shows_the_first_of_them() {
    let harness = harness().await;
    for number in 0..151 {
        let body = json!({ "registration": TOKEN, "topic": format!("topic-{number:03}") });
        expect(harness.server.post(ITEMS).json(&body), 201).await;
    }
    let all = expect(harness.server.get(&format!("{ITEMS}/{}", TOKEN.replace(':', "%3A"))), 200).await;
    let topics = all["topics"].as_array().unwrap();
    assert_eq!((topics.len(), &topics[149], &all["more"]), (150, &json!("topic-149"), &json!(true)));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let harness = harness().await;
    let create = |body: Value| harness.server.post(ITEMS).json(&body);
    expect_error(create(json!({ "topic": "news" })), 400, "missing_registration").await;
    expect_error(create(json!({ "registration": TOKEN, "topic": "a b" })), 400, "invalid_topic").await;
    expect_error(create(json!({ "registration": TOKEN, "topic": "a", "x": 1 })), 400, "unknown_field").await;
    // A token that Google does not know: not a subscription that is missing.
    let dead = create(json!({ "registration": "UNREGISTERED-1", "topic": "news" }));
    expect_error(dead, 400, "unregistered").await;
    expect_error(harness.server.get(ITEMS), 404, "not_found").await;
    expect_error(harness.server.delete(&format!("{ITEMS}/no-topic")), 400, "invalid_topic").await;
    expect_error(harness.server.get(&format!("{ITEMS}/device%2Fa%20b")), 400, "invalid_topic").await;
}
