//! The commands for people against a server whose texts want to steer their terminals.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Output;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Clears the screen, as C0 and as C1, forges a line, and turns text around.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}2J\r\nforged\u{7f}\u{202e}";

async fn answer(uri: Uri) -> axum::response::Response {
    let entry =
        json!({ "id": HOSTILE, "provider": HOSTILE, HOSTILE: HOSTILE, "deep": { HOSTILE: [HOSTILE] } });
    let body: Value = match uri.path() {
        "/v1/applications" => json!({ "applications": [entry], "next": null }),
        "/v1/providers/x/log" => json!({ "versions": [{ "digest": HOSTILE, "log": HOSTILE, "calls": [
            { "at": HOSTILE, "call": HOSTILE, "application_id": HOSTILE, "request_id": HOSTILE, "error": HOSTILE },
        ] }] }),
        "/v1/status" => json!({ "providers": [{ "name": HOSTILE }] }),
        "/v1/notifications:stream" => {
            let result = json!({ "index": 0, "status": HOSTILE, "code": HOSTILE, "message": HOSTILE });
            return format!("{result}\n{}\n", json!({ "interrupted": HOSTILE })).into_response();
        }
        "/v1/applications/refused" => {
            let body = json!({ "error": HOSTILE, "message": HOSTILE, "field": HOSTILE });
            return (StatusCode::BAD_REQUEST, body.to_string()).into_response();
        }
        _ => entry,
    };
    body.to_string().into_response()
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    address
}

async fn run(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.args(arguments).args(["--server", &format!("http://{address}")]);
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test]
async fn what_a_server_says_steers_no_terminal() {
    let address = server().await;
    let file = std::env::temp_dir().join(format!("pushlet-hostile-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "token\n").unwrap();
    let file_name = file.to_str().unwrap();
    let commands: [&[&str]; 11] = [
        &["app", "list"],
        &["app", "list", "--json"],
        &["app", "show", "x"],
        &["app", "show", "x", "--json"],
        &["app", "show", "refused"],
        &["tenant", "show", "x"],
        &["provider", "list"],
        &["provider", "log", "x"],
        &["provider", "log", "x", "--json"],
        &["send", "--application", "x", "--body", "y", file_name],
        &["send", "--application", "x", "--body", "y", file_name, "--json"],
    ];
    for arguments in commands {
        let output = run(address, arguments).await;
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("forged"), "{arguments:?}: {text}");
        let harmful = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!text.contains(harmful), "{arguments:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{arguments:?}: {text:?}");
    }
    std::fs::remove_file(file).unwrap();
}
