//! A send that failed is recorded by the server, and made again on its author's machine.

use std::path::Path;
use std::process::{Command, Output};

use pushlet::bootstrap;
use pushlet_simulator::recorder::Recorder;
use serde_json::{Value, json};

use super::mistakes::with;
use crate::harness::{Directory, Pushlet, config, expect};
use crate::upload::PROGRAM;

/// A server whose pushes go to a recorder that answers as this file says, with this version of acme.
async fn server(answers: &Path, component: Vec<u8>) -> (Pushlet, Recorder) {
    let recorder = Recorder::start(Some(answers.to_owned()), Box::new(|_| {})).await.unwrap();
    let config = config(&format!("listen = \"127.0.0.1:0\"\nproviders.compiler = {PROGRAM:?}"));
    let gateway = bootstrap::gateway_to(&config, recorder.address(), recorder.authority().clone()).unwrap();
    let server = Pushlet::serve(&config, gateway).await;
    let upload = server.put("/v1/providers/acme").header("content-type", "application/wasm").body(component);
    expect(upload, 200).await;
    let application = json!({"provider": "acme", "settings": {"acme_channel": "news"},
        "credentials": {"acme_token": "hush-hush"}});
    let registered = server.put("/v1/applications/shop").json(&application).send().await.unwrap();
    assert!(registered.status().is_success());
    (server, recorder)
}

async fn captured(server: &Pushlet) -> Value {
    let body = json!({"application_id": "shop", "notification": {"body": "say \"hello\"", "ttl": 60},
        "targets": ["a1", {"device": "b2"}], "capture": true});
    expect(server.post("/v1/notifications").json(&body), 200).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_is_in_the_log_with_its_request_and_what_it_printed() {
    let directory = Directory::new();
    let answers = directory.path().join("answers.json");
    std::fs::write(&answers, r#"[{"token": "b2", "status": 302, "body": "elsewhere"}]"#).unwrap();
    let (server, _recorder) = server(&answers, with("no_redirects")).await;
    let body = json!({"application_id": "shop", "notification": {"body": "hello"}, "targets": ["a1", "b2"]});
    let response = server.post("/v1/notifications").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let log = expect(server.get("/v1/providers/acme/log"), 200).await;
    let calls = log["versions"][0]["calls"].as_array().unwrap();
    let of_send = || calls.iter().filter(|call| call["request_id"] == id.as_str());
    let names: Vec<&str> = of_send().filter_map(|call| call["call"].as_str()).collect();
    assert!(names.contains(&"encode") && names.contains(&"decode"), "{log}");
    let failed: Vec<&Value> = of_send().filter(|call| call.get("error").is_some()).collect();
    assert!(!failed.is_empty(), "{log}");
    for call in failed {
        assert_eq!((&call["call"], &call["application_id"]), (&json!("decode"), &json!("shop")), "{call}");
        assert!(call["printed"].as_str().unwrap().contains("a push service redirects\n"), "{call}");
        assert!(call["error"].as_str().unwrap().contains("the provider stopped"), "{call}");
        assert!(call["ms"].is_number() && call["at"].as_str().unwrap().ends_with('Z'), "{call}");
    }
    // Calls of the registration are for no send.
    let registered = calls.iter().find(|call| call["call"] == "check-application").unwrap();
    assert!(registered.get("request_id").is_none() && registered.get("error").is_none(), "{registered}");
    assert_eq!(registered["printed"], "");

    let url = server.url("");
    let command =
        || Command::new(PROGRAM).args(["provider", "log", "acme", "--server", &url]).output().unwrap();
    let output = tokio::task::block_in_place(command);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(&format!(" decode shop request={id} ")), "{shown}");
}

fn replay(record: &Path, component: &[u8]) -> (Option<i32>, String) {
    let file = record.with_extension("wasm");
    std::fs::write(&file, component).unwrap();
    let mut command = Command::new(PROGRAM);
    let Output { status, stdout, stderr } =
        command.args(["provider", "replay"]).arg(record).arg("--with").arg(&file).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_send_is_captured_replayed_and_mended() {
    let directory = Directory::new();
    let answers = directory.path().join("answers.json");
    std::fs::write(&answers, r#"[{"token": "b2", "status": 302, "body": "elsewhere"}]"#).unwrap();
    let (server, _recorder) = server(&answers, with("no_redirects")).await;
    let answer = captured(&server).await;
    assert_eq!(answer["results"][0]["status"], "delivered", "{answer}");
    assert_eq!(answer["results"][1]["status"], "unknown", "{answer}");
    let text = answer.to_string();
    assert!(!text.contains("hush"), "{text}");
    let failed = answer["record"]["exchanges"].as_array().unwrap().iter();
    let failed: Vec<&Value> = failed.filter(|exchange| exchange.get("failure").is_some()).collect();
    assert_eq!(failed.len(), 1, "{answer}");
    assert_eq!((&failed[0]["targets"], &failed[0]["answer"]["status"]), (&json!(["b2"]), &json!(302)));
    assert_eq!(
        (&failed[0]["answer"]["body"], &failed[0]["credential"]),
        (&json!("elsewhere"), &json!("token"))
    );

    let record = directory.path().join("record.json");
    std::fs::write(&record, &text).unwrap();
    let (code, shown) = replay(&record, &with("no_redirects"));
    assert_eq!((code, shown.matches("same       ").count()), (Some(0), 4), "{shown}");

    // Mended: only the outcome of that answer is another one.
    let (code, shown) = replay(&record, &with("none"));
    assert_eq!(code, Some(1), "{shown}");
    let different: Vec<&str> = shown.lines().filter(|line| line.starts_with("different")).collect();
    assert_eq!(different, ["different  decode [\"b2\"], status 302"], "{shown}");
    assert!(
        shown.contains("\n  - outcomes: ") && shown.contains("\n  + outcomes: [{\"status\":\"rejected\"}]\n"),
        "{shown}"
    );

    // Another body, byte for byte.
    let (code, shown) = replay(&record, &with("raw_text_in_json"));
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("\ndifferent  encode [\"b2\"]\n  - body: {"), "{shown}");
    assert!(shown.contains("\n  + body: {\"text\":\"say \"hello\"\"}\n"), "{shown}");

    std::fs::write(&record, "{}").unwrap();
    let (code, shown) = replay(&record, &with("none"));
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("record.json: it has no notification"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_asks_gets_a_record_and_only_of_a_small_send() {
    let directory = Directory::new();
    let (server, _recorder) = server(&directory.path().join("answers.json"), with("none")).await;
    let plain = json!({"application_id": "shop", "notification": {"body": "x"}, "target": "a1"});
    let answer = expect(server.post("/v1/notifications").json(&plain), 200).await;
    assert!(answer.get("record").is_none() && answer.get("requests").is_none(), "{answer}");
    let many: Vec<String> = (0..11).map(|number| format!("target{number}")).collect();
    let large =
        json!({"application_id": "shop", "notification": {"body": "x"}, "targets": many, "capture": true});
    let answer = expect(server.post("/v1/notifications").json(&large), 400).await;
    assert_eq!(
        (&answer["error"], &answer["field"]),
        (&json!("invalid_capture"), &json!("capture")),
        "{answer}"
    );
}
