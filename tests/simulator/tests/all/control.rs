//! The control API.

use serde_json::{Value, json};

use super::apns::golden;
use super::client::{Answer, Apns, PAYLOAD, Running, TOKEN, access_token, send, start, start_with, web};

async fn call(simulator: &Running, method: &str, path: &str, body: &str) -> Answer {
    let url = format!("{}{path}", simulator.control_url());
    send(web(simulator).request(method.parse().unwrap(), url).body(body.to_owned())).await
}

#[tokio::test]
async fn the_first_page_names_everything() {
    let simulator = start().await;
    let page = call(&simulator, "GET", "/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/plain; charset=UTF-8")));
    for (index, (status, reason)) in golden("device").into_iter().enumerate() {
        assert!(page.body.contains(&format!("bad0{index:02}  {status} {reason}\n")), "{reason}");
    }
    for (index, (status, reason)) in golden("channel_and_broadcast").into_iter().enumerate() {
        assert!(page.body.contains(&format!(".bad1{index:02}  {status} {reason}\n")), "{reason}");
    }
    let files = simulator.credentials();
    for path in
        [&files.ca_pem, &files.apns_p12, &files.apns_legacy_p12, &files.apns_p8, &files.fcm_service_account]
    {
        assert!(page.body.contains(path.to_str().unwrap()), "{}", path.display());
    }
    for part in ["UNREGISTERED", "NotRegistered", "dead", "/script", &files.apns_key_id, &files.apns_team_id]
    {
        assert!(page.body.contains(part), "{part}");
    }
    assert_eq!(call(&simulator, "GET", "/healthz", "").await.body, "ok\n");
}

#[tokio::test]
async fn received_requests_are_listed_filtered_and_forgotten() {
    let simulator = start_with(|options| options.keep = 3).await;
    let apns = Apns::with_certificate(&simulator).await;
    access_token(&simulator).await;
    for token in ["aa", "bb", "dead"] {
        apns.push(token, &[("apns-priority", "5")], PAYLOAD).await;
    }
    let all = call(&simulator, "GET", "/received", "").await.json();
    assert_eq!(tokens(&all), ["aa", "bb", "dead"], "the newest three are kept");
    let newest = call(&simulator, "GET", "/received?service=apns&limit=1", "").await.json();
    assert_eq!(tokens(&newest), ["dead"]);
    let request = &newest["received"][0];
    assert_eq!(request["headers"], json!([["apns-priority", "5"]]));
    assert_eq!((&request["status"], &request["method"]), (&json!(410), &json!("POST")));
    assert_eq!(request["client_certificate"]["sha256"].as_str().unwrap().len(), 64);
    assert!(request["answer"].as_str().unwrap().contains("Unregistered"));
    assert_eq!(all["counts"]["apns"], json!({"requests": 4, "accepted": 2, "delivered": 2}));
    assert_eq!(all["counts"]["oauth"], json!({"requests": 1, "accepted": 1, "delivered": 0}));
    assert_eq!(tokens(&call(&simulator, "GET", "/received?service=gcm", "").await.json()), [""; 0]);

    assert_eq!(call(&simulator, "DELETE", "/received", "").await.status, 204);
    let none = call(&simulator, "GET", "/received", "").await.json();
    assert_eq!((tokens(&none).len(), &none["counts"]["apns"]["requests"]), (0, &json!(0)));
    for query in ["service=sms", "limit=many", "colour=red"] {
        assert_eq!(call(&simulator, "GET", &format!("/received?{query}"), "").await.status, 400, "{query}");
    }
}

fn tokens(answer: &Value) -> Vec<String> {
    let list = answer["received"].as_array().unwrap();
    list.iter().map(|request| request["token"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn answers_are_scripted() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let script = json!({
        "service": "apns", "token": TOKEN, "topic": "com.example.app", "status": 429,
        "body": {"reason": "TooManyRequests"}, "headers": {"x-why": "test"}, "retry_after": 7, "times": 1
    });
    assert_eq!(call(&simulator, "POST", "/script", &script.to_string()).await.status, 204);
    let id = "eabeae54-14a8-11e5-b60b-1697f925ec7b";
    let answer = apns.push(TOKEN, &[("apns-id", id)], PAYLOAD).await;
    assert_eq!(answer.reason(), (429, "TooManyRequests".into()));
    assert_eq!((answer.header("retry-after"), answer.header("x-why")), (Some("7"), Some("test")));
    assert_eq!(answer.header("apns-id"), Some(id), "Apple's own headers stay");
    assert_eq!(apns.push(TOKEN, &[], PAYLOAD).await.status, 200, "it was for one request");

    call(&simulator, "POST", "/script", r#"{"service":"apns","topic":"com.example.*","status":503}"#).await;
    assert_eq!(apns.push("ab", &[], PAYLOAD).await.status, 503);
    assert_eq!(call(&simulator, "DELETE", "/script", "").await.status, 204);
    assert_eq!(apns.push("ab", &[], PAYLOAD).await.status, 200);

    let wrong = [
        ("", "EOF"),
        ("{}", "service"),
        (r#"{"service":"sms"}"#, "sms"),
        (r#"{"service":"apns","state":1}"#, "state"),
        (r#"{"service":"apns","status":99}"#, "status"),
        (r#"{"service":"apns","headers":{"a b":"c"}}"#, "a b"),
        (r#"{"service":"apns","times":0}"#, "times"),
        (r#"{"service":"apns","delay_ms":600001}"#, "delay_ms"),
    ];
    for (body, part) in wrong {
        let answer = call(&simulator, "POST", "/script", body).await;
        let problem = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && problem.contains(part), "{body}: {problem}");
    }
}

#[tokio::test]
async fn connections_are_counted() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    apns.push(TOKEN, &[], PAYLOAD).await;
    access_token(&simulator).await;
    let answer = call(&simulator, "GET", "/connections", "").await.json();
    assert_eq!(answer["apns"], json!({"accepted": 1, "open": 1, "refused": 0}));
    assert_eq!(answer["google"]["accepted"], 1);
    let first = &answer["list"][0];
    assert_eq!(
        (&first["listener"], &first["open"], &first["requests"]),
        (&json!("apns"), &json!(true), &json!(2))
    );
    assert!(first["client_certificate"]["subject"].as_str().unwrap().contains("com.example.app"));
    assert_eq!(answer["list"][1]["listener"], "google");
    drop(apns);
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while simulator.connections().apns.open != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the closed connection is noticed");
    assert!(!simulator.connections().list[0].open);
}

#[tokio::test]
async fn paths_and_methods() {
    let simulator = start().await;
    assert_eq!(call(&simulator, "GET", "/nothing", "").await.status, 404);
    assert_eq!(call(&simulator, "POST", "/received", "").await.status, 405);
    assert_eq!(call(&simulator, "DELETE", "/access-tokens", "").await.status, 204);
    assert_eq!(call(&simulator, "POST", "/script", &"x".repeat(1024 * 1024 + 1)).await.status, 413);
}

#[tokio::test]
async fn it_stops() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    let urls = [simulator.apns_url(), simulator.google_url(), simulator.control_url()];
    let addresses = urls.map(|url| url.rsplit("//").next().unwrap().to_owned());
    let Running { simulator, _directory } = simulator;
    simulator.stop().await;
    for address in &addresses {
        let refused = tokio::net::TcpStream::connect(address).await;
        assert!(refused.is_err(), "{address} is still open");
    }
    drop(apns);
}
