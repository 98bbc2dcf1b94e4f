//! A send that failed is recorded by the server, and made again on its author's machine.

use std::path::Path;
use std::process::{Command, Output};

use pushlet::bootstrap;
use pushlet_simulator::recorder::Recorder;
use serde_json::{Value, json};

use super::mistakes::with;
use crate::harness::{Directory, Pushlet, config, expect};
use crate::tenants::{make, with_operator};
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

/// Two targets, of which one is refused.
fn push() -> Value {
    json!({"application_id": "shop", "notification": {"alert": "say \"hello\"", "ttl": 60},
        "targets": ["a1", {"device": "b2"}]})
}

async fn start(server: &Pushlet, body: Value) -> Value {
    expect(server.put("/v1/providers/acme/capture").json(&body), 200).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_captured_without_the_callers_help() {
    let directory = Directory::new();
    let answers = directory.path().join("answers.json");
    std::fs::write(&answers, r#"[{"token": "b2", "status": 400, "body": "elsewhere"}]"#).unwrap();
    let (server, _recorder) = server(&answers, with("none")).await;
    expect(server.post("/v1/notifications").json(&push()), 200).await;
    let none = expect(server.get("/v1/providers/acme/capture"), 404).await;
    assert_eq!(none["error"], "capture_not_found", "{none}");
    let started = start(&server, json!({"records": 3})).await;
    assert_eq!((&started["active"], &started["records_left"]), (&json!(true), &json!(3)), "{started}");

    // On the route of one push, on the classic route and on a stream; what is delivered is not kept.
    let response = server.post("/v1/notifications").json(&push()).send().await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(response.text().await.unwrap().contains("\"rejected\""));
    let classic = server.post("/send_notification").form(&[
        ("application_id", "shop"),
        ("device_token", "b2"),
        ("alert", "classic"),
    ]);
    classic.send().await.unwrap();
    let lines = "{\"application_id\": \"shop\", \"notification\": {\"alert\": \"line\"}}\n\
                 {\"target\": \"a1\"}\n{\"target\": \"b2\", \"notification\": {\"ttl\": 7}}\n";
    let stream =
        server.post("/v1/notifications:stream").header("content-type", "application/x-ndjson").body(lines);
    assert!(stream.send().await.unwrap().text().await.unwrap().contains("\"rejected\""));
    // The third was the last one.
    expect(server.post("/v1/notifications").json(&push()), 200).await;

    let kept = expect(server.get("/v1/providers/acme/capture"), 200).await;
    assert_eq!((&kept["active"], &kept["records_left"]), (&json!(false), &json!(0)), "{kept}");
    let records = kept["records"].as_array().unwrap();
    let texts: Vec<&str> =
        records.iter().map(|one| one["record"]["notification"]["body"].as_str().unwrap()).collect();
    assert_eq!(texts, ["line", "classic", "say \"hello\""], "{kept}");
    assert_eq!(records[0]["record"]["notification"]["ttl"], 7, "{kept}");
    let first = &records[2];
    assert_eq!((&first["request_id"], &first["application_id"]), (&json!(id), &json!("shop")), "{first}");
    let results: Vec<(&Value, &Value)> =
        first["results"].as_array().unwrap().iter().map(|one| (&one["target"], &one["status"])).collect();
    assert_eq!(results, [(&json!("a1"), &json!("delivered")), (&json!("b2"), &json!("rejected"))], "{first}");
    assert!(!kept.to_string().contains("hush"), "{kept}");

    let url = server.url("");
    let command = |more: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["provider", "capture", "acme", "--server", &url]).args(more);
        tokio::task::block_in_place(|| command.output().unwrap().stdout)
    };
    let record = directory.path().join("record.json");
    std::fs::write(&record, command(&[])).unwrap();
    let (code, shown) = replay(&record, &with("none"));
    assert_eq!((code, shown.matches("\nrecord     ").count()), (Some(0), 2), "{shown}");
    let (code, shown) = replay(&record, &with("always_delivered"));
    let different = shown.lines().filter(|line| line.starts_with("different"));
    assert_eq!((code, different.count()), (Some(1), 3), "{shown}");

    command(&["--start", "--records", "7", "--application", "shop"]);
    let again = expect(server.get("/v1/providers/acme/capture"), 200).await;
    assert_eq!((&again["records_left"], &again["application_id"]), (&json!(7), &json!("shop")), "{again}");
    assert_eq!(again["records"], json!([]), "{again}");
    command(&["--stop"]);
    expect(server.get("/v1/providers/acme/capture"), 404).await;
    expect(server.delete("/v1/providers/acme/capture"), 404).await;

    let audit = expect(server.get("/v1/audit"), 200).await["audit"].take();
    let captures = audit.as_array().unwrap().iter().filter(|entry| entry["action"] == "provider.capture");
    let changes: Vec<_> = captures.map(|entry| &entry["changes"]["until"]).collect();
    let nobody = Value::Null;
    let until = [&started["until"], &again["until"]];
    let expected = [(&nobody, until[0]), (&nobody, until[1]), (until[1], &nobody)];
    assert_eq!(changes.iter().map(|until| (&until["from"], &until["to"])).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_of_what_was_wanted_and_is_bounded() {
    let directory = Directory::new();
    let answers = directory.path().join("answers.json");
    std::fs::write(&answers, r#"[{"token": "b2", "status": 400}]"#).unwrap();
    let (server, _recorder) = server(&answers, with("none")).await;
    for (body, field) in [
        (json!({"records": 0}), "records"),
        (json!({"records": 101}), "records"),
        (json!({"seconds": 86_401}), "seconds"),
        (json!({"recrods": 1}), "recrods"),
    ] {
        let refused = expect(server.put("/v1/providers/acme/capture").json(&body), 400).await;
        assert_eq!(refused["field"], field, "{refused}");
    }
    let unknown = expect(server.put("/v1/providers/nobody/capture").json(&json!({})), 404).await;
    assert_eq!(unknown["error"], "provider_not_found", "{unknown}");
    let bytes = expect(server.put("/v1/providers/smpp/capture").json(&json!({})), 400).await;
    assert_eq!(bytes["error"], "capture_unsupported", "{bytes}");

    let sends = async || {
        let many: Vec<String> = (0..25).map(|number| format!("t{number}")).chain(["b2".to_owned()]).collect();
        let body = json!({"application_id": "shop", "notification": {"alert": "x"}, "targets": many});
        expect(server.post("/v1/notifications").json(&body), 200).await;
        let dry = json!({"application_id": "shop", "notification": {"alert": "x"}, "target": "b2", "validate_only": true});
        expect(server.post("/v1/notifications").json(&dry), 200).await;
        let kept = expect(server.get("/v1/providers/acme/capture"), 200).await;
        let records = kept["records"].as_array().unwrap().clone();
        let sizes: Vec<usize> = records.iter().map(|one| one["results"].as_array().unwrap().len()).collect();
        assert!(sizes.iter().all(|targets| *targets <= 10), "{kept}");
        sizes.iter().sum::<usize>()
    };
    start(&server, json!({"application_id": "other", "all": true})).await;
    assert_eq!(sends().await, 0);
    // A record of the targets that were called for with the one that failed.
    start(&server, json!({"application_id": "shop"})).await;
    assert_eq!(sends().await, 6);
    start(&server, json!({"all": true})).await;
    assert_eq!(sends().await, 26);
    start(&server, json!({"seconds": 0.001, "all": true})).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(sends().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_lines_of_a_stream_are_explained_or_captured() {
    let directory = Directory::new();
    let answers = directory.path().join("answers.json");
    std::fs::write(&answers, r#"[{"token": "b2", "status": 302}]"#).unwrap();
    let (server, recorder) = server(&answers, with("no_redirects")).await;
    let stream = async |header: Value, targets: &[String]| {
        let lines: Vec<String> =
            targets.iter().map(|target| json!({ "target": target }).to_string()).collect();
        let body = format!("{header}\n{}\n", lines.join("\n"));
        let request =
            server.post("/v1/notifications:stream").header("content-type", "application/x-ndjson").body(body);
        let text = request.send().await.unwrap().text().await.unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let header = |more: Value| {
        let mut header = json!({"application_id": "shop", "notification": {"alert": "hello"}});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header
    };
    let many: Vec<String> = (0..130).map(|number| format!("t{number}")).collect();
    let lines = stream(header(json!({"validate_only": true, "explain": true})), &many).await;
    let (results, end) = lines.split_at(130);
    assert_eq!(end[0]["summary"]["valid"], 130, "{end:?}");
    let explained: Vec<&Value> = results.iter().filter(|line| line.get("requests").is_some()).collect();
    assert_eq!(explained.len(), 100);
    for line in explained {
        let target = &many[line["index"].as_u64().unwrap() as usize];
        assert_eq!(line["requests"][0]["url"], format!("https://push.example/news/{target}"), "{line}");
        assert!(line.get("record").is_none() && line["requests"].as_array().unwrap().len() == 1, "{line}");
    }
    drop(recorder);

    let refused = stream(header(json!({"explain": true})), &many[..1]).await;
    assert_eq!((&refused[0]["error"], &refused[0]["field"]), (&json!("invalid_explain"), &json!("explain")));
    let plain = stream(header(json!({"validate_only": true})), &many[..1]).await;
    assert!(plain[0].get("requests").is_none(), "{plain:?}");

    let lines = stream(header(json!({"capture": true})), &["a1".to_owned()]).await;
    let record = &lines[0]["record"];
    assert_eq!(
        (&record["calls"][0]["targets"], &record["provider"]),
        (&json!(["a1"]), &json!("acme")),
        "{lines:?}"
    );
    assert_eq!(
        record["exchanges"].as_array().unwrap()[0]["url"],
        "https://push.example/news/a1",
        "{lines:?}"
    );
}

/// What everybody's provider did for one tenant, another one does not see.
#[tokio::test(flavor = "multi_thread")]
async fn logs_and_captures_of_one_provider_are_each_tenants_own() {
    let directory = Directory::new();
    let shared = directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("acme.wasm"), with("none")).unwrap();
    let recorder = Recorder::start(None, Box::new(|_| {})).await.unwrap();
    let settings =
        format!("listen = \"127.0.0.1:0\"\nproviders.compiler = {PROGRAM:?}\nproviders.dir = {shared:?}");
    let config = config(&with_operator(&settings));
    let gateway = bootstrap::gateway_to(&config, recorder.address(), recorder.authority().clone()).unwrap();
    let server = Pushlet::serve(&config, gateway).await;
    let application = json!({"provider": "acme", "settings": {"acme_channel": "news"},
        "credentials": {"acme_token": "hush-hush"}});
    let mut keys = Vec::new();
    for tenant in ["mine", "theirs"] {
        let key = make(&server, tenant, &json!({})).await;
        let registered = server.put(&format!("/v1/applications/of-{tenant}")).bearer_auth(&key);
        assert!(registered.json(&application).send().await.unwrap().status().is_success());
        let capture = server.put("/v1/providers/acme/capture").bearer_auth(&key).json(&json!({"all": true}));
        expect(capture, 200).await;
        keys.push(key);
    }
    let body = json!({"application_id": "of-mine", "notification": {"alert": "x"}, "target": "a1"});
    expect(server.post("/v1/notifications").bearer_auth(&keys[0]).json(&body), 200).await;
    for (key, sends) in keys.iter().zip([1, 0]) {
        let kept = expect(server.get("/v1/providers/acme/capture").bearer_auth(key), 200).await;
        assert_eq!(kept["records"].as_array().unwrap().len(), sends, "{kept}");
        let log = expect(server.get("/v1/providers/acme/log").bearer_auth(key), 200).await;
        let calls = log["versions"][0]["calls"].as_array().unwrap();
        assert_eq!(calls.iter().filter(|call| call["call"] == "encode").count(), sends, "{log}");
        let others = if sends == 0 { "of-mine" } else { "of-theirs" };
        assert!(!log.to_string().contains(others) && !kept.to_string().contains(others), "{log} {kept}");
    }
}

#[test]
fn a_request_on_the_command_line_names_the_credential_and_has_no_value() {
    let directory = Directory::new();
    let file = directory.path().join("acme.wasm");
    std::fs::write(&file, with("none")).unwrap();
    let output = Command::new(PROGRAM).args(["provider", "call", "encode"]).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nPOST https://push.example/news/a1b2c3\n"), "{text}");
    assert!(text.contains("\nauthorization: Bearer [acme_token]\n"), "{text}");
}
