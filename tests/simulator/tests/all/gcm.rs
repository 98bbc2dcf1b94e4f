//! Legacy GCM.

use serde_json::{Value, json};

use super::client::{Answer, Running, send, start, web};
use pushlet_simulator::{Script, Service};

struct Gcm {
    web: reqwest::Client,
    url: String,
}

impl Gcm {
    fn new(simulator: &Running) -> Gcm {
        Gcm { web: web(simulator), url: format!("{}/gcm/send", simulator.google_url()) }
    }

    async fn post(&self, kind: &str, body: String) -> Answer {
        let request = self.web.post(&self.url).header("authorization", "key=simulator-gcm-key");
        let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
        send(request.body(body)).await
    }

    async fn json(&self, body: Value) -> Answer {
        self.post("application/json", body.to_string()).await
    }

    async fn plain(&self, body: &str) -> Answer {
        self.post("application/x-www-form-urlencoded;charset=UTF-8", body.to_owned()).await
    }
}

fn errors() -> Vec<String> {
    let golden: Value = serde_json::from_str(include_str!("../../data/fcm_errors.json")).unwrap();
    serde_json::from_value(golden["legacy_mixed_errors"].clone()).unwrap()
}

#[tokio::test]
async fn results_come_in_order() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let mut ids: Vec<String> = errors().iter().map(|error| format!("{error}-1")).collect();
    assert_eq!(ids.len(), 14);
    ids.insert(3, "good".into());
    ids.push("Canonical-newer".into());
    ids.push(String::new());
    let body = gcm.json(json!({"registration_ids": ids, "data": {"a": 1, "b": {"c": []}}})).await.json();
    assert!(body["multicast_id"].is_u64());
    assert_eq!(
        (&body["success"], &body["failure"], &body["canonical_ids"]),
        (&json!(2), &json!(15), &json!(1))
    );
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), ids.len());
    for (id, result) in ids.iter().zip(results) {
        match id.strip_suffix("-1") {
            Some(error) => assert_eq!(result, &json!({ "error": error })),
            None if id.is_empty() => assert_eq!(result, &json!({"error": "MissingRegistration"})),
            None => {
                assert!(result["message_id"].as_str().unwrap().starts_with("0:"));
                assert_eq!(result.get("registration_id").is_some(), id == "Canonical-newer");
            }
        }
    }
    assert_eq!(results[15]["registration_id"], "newer");
    let received = simulator.received().pop().unwrap();
    assert_eq!(
        (received.service, received.token.as_deref(), received.delivered),
        (Service::Gcm, Some("MissingRegistration-1"), 2)
    );
}

#[tokio::test]
async fn topics_groups_and_single_targets() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let one = gcm.json(json!({"to": "device"})).await.json();
    assert_eq!((&one["success"], one["results"].as_array().unwrap().len()), (&json!(1), 1));
    for target in [json!({"to": "/topics/news"}), json!({"condition": "'a' in topics"})] {
        let topic = gcm.json(target).await.json();
        assert!(topic["message_id"].is_u64() && topic.get("results").is_none(), "{topic}");
    }
    let rate = gcm.json(json!({"to": "/topics/TopicsMessageRateExceeded"})).await.json();
    assert_eq!(rate, json!({"error": "TopicsMessageRateExceeded"}));
    let group = gcm.json(json!({"notification_key": "group"})).await.json();
    assert_eq!(group, json!({"success": 1, "failure": 0}));
    let group = gcm.json(json!({"notification_key": "NotRegistered"})).await.json();
    assert_eq!(group, json!({"success": 0, "failure": 1, "failed_registration_ids": ["NotRegistered"]}));
}

#[tokio::test]
async fn messages_that_cannot_be_sent_fail_for_every_recipient() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let ids = json!(["a", "b"]);
    let cases = [
        (json!({"registration_ids": ids, "data": {"from": "x"}}), "InvalidDataKey"),
        (json!({"registration_ids": ids, "data": {"google_x": "x"}}), "InvalidDataKey"),
        (json!({"registration_ids": ids, "data": {"a": "x".repeat(4096)}}), "MessageTooBig"),
        (json!({"registration_ids": ids, "time_to_live": 2_419_201}), "InvalidTtl"),
        (json!({"registration_ids": ids, "time_to_live": -1}), "InvalidTtl"),
    ];
    for (message, error) in cases {
        let body = gcm.json(message).await.json();
        assert_eq!(body["results"], json!([{ "error": error }, { "error": error }]));
        assert_eq!(body["failure"], 2);
    }
    let whole = json!({
        "registration_ids": ids, "data": {"a": "x".repeat(4095)}, "time_to_live": 2_419_200,
        "collapse_key": "k", "delay_while_idle": true, "priority": "high", "restricted_package_name": "p",
        "content_available": true, "mutable_content": false, "notification": {"title": "t"}
    });
    assert_eq!(gcm.json(whole).await.json()["success"], 2);
    let dry = gcm.json(json!({"registration_ids": ids, "dry_run": true})).await.json();
    assert_eq!(dry["results"][0]["message_id"], "fake_message_id");
    assert_eq!(simulator.counts().gcm.delivered, 2, "a dry run delivers nothing");
}

#[tokio::test]
async fn wrong_fields_are_400_with_a_reason() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let cases = [
        (json!({}), "registration_ids"),
        (json!({"registration_ids": []}), "registration_ids"),
        (json!({"registration_ids": "a"}), "registration_ids"),
        (json!({"registration_ids": [1]}), "registration_ids"),
        (json!({"registration_ids": many}), "1001"),
        (json!({"registration_ids": ["a"], "to": "b"}), "not both"),
        (json!({"to": 1}), "to"),
        (json!({"to": ""}), "to"),
        (json!({"to": "a", "data": "x"}), "data"),
        (json!({"to": "a", "notification": []}), "notification"),
        (json!({"to": "a", "collapse_key": 1}), "collapse_key"),
        (json!({"to": "a", "restricted_package_name": 1}), "restricted_package_name"),
        (json!({"to": "a", "time_to_live": "60"}), "time_to_live"),
        (json!({"to": "a", "delay_while_idle": "yes"}), "delay_while_idle"),
        (json!({"to": "a", "dry_run": 1}), "dry_run"),
        (json!({"to": "a", "content_available": 1}), "content_available"),
        (json!({"to": "a", "priority": "urgent"}), "priority"),
    ];
    for (message, part) in cases {
        let answer = gcm.json(message.clone()).await;
        assert_eq!(answer.status, 400, "{message:.100}");
        assert!(answer.body.contains(part), "{message:.100}: {}", answer.body);
    }
    assert_eq!(gcm.json(json!({"registration_ids": &many[..1000]})).await.json()["success"], 1000);
    for wrong in ["", "{", "[]"] {
        let answer = gcm.post("application/json", wrong.into()).await;
        assert!(answer.status == 400 && answer.body.starts_with("JSON_PARSING_ERROR"), "{wrong}");
    }
    assert_eq!(gcm.post("text/xml", "<a/>".into()).await.status, 400);
}

#[tokio::test]
async fn the_plain_text_form() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let answer = gcm.plain("registration_id=good&data.a=b&collapse_key=k&time_to_live=9").await;
    assert!(answer.status == 200 && answer.body.starts_with("id=0:"), "{}", answer.body);
    assert_eq!(answer.body.lines().count(), 1);
    let default = gcm.post("", "registration_id=good".into()).await;
    assert!(default.body.starts_with("id=0:"), "without a type it is plain text: {}", default.body);
    let canonical = gcm.plain("registration_id=Canonical-32").await.body;
    assert_eq!(canonical.lines().nth(1), Some("registration_id=32"));
    let cases = [
        ("", "Error=MissingRegistration\n"),
        ("registration_id=NotRegistered", "Error=NotRegistered\n"),
        ("registration_id=a&data.from=x", "Error=InvalidDataKey\n"),
        ("registration_id=a&time_to_live=2419201", "Error=InvalidTtl\n"),
    ];
    for (form, body) in cases {
        let answer = gcm.plain(form).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{form}");
    }
    for id in ["Unavailable", "InternalServerError"] {
        let answer = gcm.plain(&format!("registration_id={id}")).await;
        assert_eq!((answer.status, answer.header("retry-after")), (500, Some("30")), "{id}");
    }
    for form in ["registration_id=a&time_to_live=soon", "registration_id=a&dry_run=perhaps"] {
        assert_eq!(gcm.plain(form).await.status, 400, "{form}");
    }
}

#[tokio::test]
async fn keys_and_statuses() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let body = r#"{"to":"a"}"#;
    for (authorization, status) in
        [("key=AIzaAnything", 200), ("key=bad-key", 401), ("key=", 401), ("bearer x", 401), ("AIza", 401)]
    {
        let request = gcm.web.post(&gcm.url).header("content-type", "application/json");
        let answer = send(request.header("authorization", authorization).body(body)).await;
        assert_eq!(answer.status, status, "{authorization}");
    }
    let nothing = gcm.web.post(&gcm.url).header("content-type", "application/json").body(body);
    assert_eq!(send(nothing).await.status, 401);
    for (id, status, retry) in [
        ("HTTP-400", 400, None),
        ("HTTP-401", 401, None),
        ("HTTP-500", 500, Some("30")),
        ("HTTP-503", 503, Some("30")),
    ] {
        let answer = gcm.json(json!({"registration_ids": ["a", id]})).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, retry), "{id}");
    }
    let newer = Gcm { url: gcm.url.replace("/gcm/", "/fcm/"), web: web(&simulator) };
    assert_eq!(newer.json(json!({"to": "a"})).await.json()["success"], 1);
}

#[tokio::test]
async fn one_result_or_the_whole_answer_can_be_scripted() {
    let simulator = start().await;
    let gcm = Gcm::new(&simulator);
    let own = Some(json!({"error": "SomethingNew"}));
    let one = Script { token: Some("b".into()), body: own, times: Some(1), ..Script::new(Service::Gcm) };
    simulator.script(one).unwrap();
    let ids = json!({"registration_ids": ["a", "b", "c"]});
    let body = gcm.json(ids.clone()).await.json();
    assert_eq!(body["results"][1], json!({"error": "SomethingNew"}));
    assert_eq!((&body["success"], &body["failure"]), (&json!(2), &json!(1)));
    let whole =
        Script { token: Some("c".into()), status: Some(502), times: Some(1), ..Script::new(Service::Gcm) };
    simulator.script(whole).unwrap();
    let answer = gcm.json(ids.clone()).await;
    assert_eq!((answer.status, answer.body.as_str()), (502, ""));
    assert_eq!(gcm.json(ids).await.json()["success"], 3);
}
