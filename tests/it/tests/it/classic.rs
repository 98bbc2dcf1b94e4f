//! The three routes of the original, from the caller's request to what a push service received.

use pushlet_simulator::Service;
use serde_json::json;

use crate::world::{DEVICE, World, expect, expect_error};

#[tokio::test]
async fn a_push_to_apns_arrives_as_it_was_asked_for() {
    let world = World::new().await;
    world.register_apns("app").await;
    let form = [
        ("device_token", DEVICE),
        ("alert", "Grüße"),
        ("badge", "3"),
        ("sound", "ding.aiff"),
        ("data", r#"{"key":[1,2]}"#),
        ("application_id", "app"),
    ];
    let body = expect(world.server.post("/send_notification").form(&form), 200).await;
    assert_eq!(body, json!({"response": "ok"}));
    let received = world.received(Service::Apns);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].path, format!("/3/device/{DEVICE}"));
    let payload: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    let aps = json!({"alert": "Grüße", "badge": 3, "sound": "ding.aiff"});
    assert_eq!(payload, json!({"aps": aps, "key": [1, 2]}));
}

#[tokio::test]
async fn a_dead_token_is_reported_once_by_feedback() {
    let world = World::new().await;
    world.register_apns("app").await;
    let dead = format!("dead{}", &DEVICE[4..]);
    let form = [("device_token", dead.as_str()), ("alert", "x"), ("application_id", "app")];
    let message =
        expect_error(world.server.post("/send_notification").form(&form), 410, "unregistered").await;
    assert!(message.contains("dead") || message.contains("longer"), "{message}");
    let ask = || world.server.post("/application_feedback").form(&[("application_id", "app")]);
    let feedback = expect(ask(), 200).await;
    assert_eq!(feedback["response"][0]["device_token"], dead);
    assert!(feedback["response"][0]["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(expect(ask(), 200).await, json!({"response": []}));
}
