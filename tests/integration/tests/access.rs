//! Who is let in, and what everybody else is told.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Pushlet, expect, expect_error};

const LISTEN: &str = "listen = \"127.0.0.1:0\"\n";

async fn guarded() -> Pushlet {
    Pushlet::start(&format!("{LISTEN}auth = {{ username = \"me\", password = \"a:b:c\" }}")).await
}

#[tokio::test]
async fn only_the_right_name_and_password_get_in() {
    let server = guarded().await;
    let ask = || server.post("/application_feedback").form(&[("application_id", "x")]);
    expect_error(ask().basic_auth("me", Some("a:b:c")), 404, "application_not_found").await;
    let denied = [
        ask(),
        ask().basic_auth("me", Some("a")),
        ask().basic_auth("me", None::<&str>),
        ask().basic_auth("you", Some("a:b:c")),
        ask().header("authorization", "Basic not-base64"),
        ask().header("authorization", "bWU6YTpiOmM="),
        server.get("/no/such/path"),
    ];
    for request in denied {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body, json!({"error": "access_denied", "message": "invalid credentials"}));
    }
    expect(server.get("/healthz"), 200).await;
    expect(server.get("/readyz"), 200).await;
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_same_shape() {
    let server = Pushlet::start(&format!("{LISTEN}limits.request_body = 1024")).await;
    let message = expect_error(server.get("/nowhere?x=1"), 404, "not_found").await;
    assert_eq!(message, "The requested method was not found: /nowhere");
    let response = server.get("/send_notification").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    let large = server.post("/send_notification").form(&[("alert", "x".repeat(2000))]);
    expect_error(large, 413, "request_too_large").await;
    let text = server.post("/send_notification").header("content-type", "text/plain").body("x");
    expect_error(text, 415, "unsupported_media_type").await;
    let broken = server.post("/send_notification").header("content-type", "application/json").body("{");
    expect_error(broken, 400, "invalid_json").await;
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_a_sane_one_is_kept() {
    let server = Pushlet::start(LISTEN).await;
    let id = |request: reqwest::RequestBuilder| async {
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(server.get("/healthz").header("x-request-id", "abc-1")).await, "abc-1");
    let made = id(server.get("/nowhere").header("x-request-id", "with spaces")).await;
    assert_eq!(uuid::Uuid::parse_str(&made).unwrap().to_string(), made);
}
