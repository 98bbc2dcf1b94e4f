//! `pushlet send` against a server that does as the test wants.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Counts the lines that came, and answers once there are no more: never, if it is `silent`.
struct Server {
    lines: watch::Sender<usize>,
    silent: bool,
}

async fn stream(State(server): State<Arc<Server>>, body: Body) -> String {
    let (mut body, mut text) = (body.into_data_stream(), String::new());
    while let Some(piece) = body.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        server.lines.send_replace(text.lines().count());
    }
    if server.silent {
        std::future::pending::<()>().await;
    }
    let mut answer = String::new();
    for (index, line) in text.lines().skip(1).enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let status = if line["target"] == "gone" { "unregistered" } else { "delivered" };
        answer.push_str(&format!("{}\n", json!({ "index": index, "status": status })));
    }
    answer + "{\"summary\":{}}\n"
}

struct SendFixture {
    url: String,
    lines: watch::Receiver<usize>,
    results: PathBuf,
}

impl SendFixture {
    async fn new(silent: bool) -> Self {
        let (sender, lines) = watch::channel(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Server { lines: sender, silent });
        let router = Router::new().route("/v1/notifications:stream", post(stream)).with_state(server);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let results = std::env::temp_dir().join(format!("pushlet-send-{}", uuid::Uuid::new_v4()));
        Self { url, lines, results }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
        command.args(["send", "--application", "shop", "--body", "It's here", "--server", &self.url]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.command(arguments).output().await.unwrap().status.code()
    }

    /// One that sent two targets, and waits for more of them.
    async fn waiting(&mut self) -> (Child, tokio::process::ChildStdin) {
        let results = self.results.to_str().unwrap().to_owned();
        let mut child = self.command(&["-", "--results", &results]).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").await.unwrap();
        stdin.flush().await.unwrap();
        self.lines.wait_for(|count| *count == 3).await.unwrap();
        (child, stdin)
    }
}

fn interrupt(child: &Child) {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
}

#[tokio::test]
async fn the_first_interrupt_settles_what_is_in_flight() {
    let mut fixture = SendFixture::new(false).await;
    let (child, stdin) = fixture.waiting().await;
    interrupt(&child);
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    let (out, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(130), "{out}{told}");
    assert!(out.starts_with("2 targets in "), "{out}");
    assert!(told.contains("--body 'It'\\''s here'") && told.trim_end().ends_with(" --resume"), "{told}");
    let results = std::fs::read_to_string(&fixture.results).unwrap();
    assert_eq!(results.matches("\"delivered\"").count(), 2, "{results}");
    std::fs::remove_file(&fixture.results).unwrap();
}

#[tokio::test]
async fn the_second_interrupt_ends_at_once() {
    let mut fixture = SendFixture::new(true).await;
    let (mut child, _stdin) = fixture.waiting().await;
    // Two that come together may be one.
    let mut code = None;
    for _ in 0..600 {
        interrupt(&child);
        let pause = std::time::Duration::from_millis(100);
        if let Ok(status) = tokio::time::timeout(pause, child.wait()).await {
            code = status.unwrap().code();
            break;
        }
    }
    assert_eq!(code, Some(130), "None: it did not end within a minute");
    std::fs::remove_file(&fixture.results).unwrap();
}

#[tokio::test]
async fn exit_codes_and_targets_of_the_command_line() {
    let fixture = SendFixture::new(false).await;
    assert_eq!(fixture.code(&["--to", "one", "--to", "two"]).await, Some(0));
    assert_eq!(fixture.code(&["--to", "one", "--to", "gone"]).await, Some(3));
    assert_eq!(
        fixture.code(&["--to", "one", "--to", "gone", "--ok", "rejected,unregistered"]).await,
        Some(0)
    );
    assert_eq!(fixture.code(&["--to", "one", "--ok", "fine"]).await, Some(2));
    assert_eq!(fixture.code(&["--to", "one", "tokens.txt"]).await, Some(2));
    assert_eq!(fixture.code(&["--to", ""]).await, Some(2));
    assert_eq!(fixture.code(&[]).await, Some(2));
}
