//! The program itself: metrics on an address of their own, and traces to a collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use pushlet_test_support::http_client;
use serde_json::Value;
use tokio::sync::mpsc;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A running `pushlet serve`, and the lines of its log.
struct Program {
    child: Child,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { child, lines }
    }

    async fn line(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = tokio::time::timeout(Duration::from_secs(60), self.lines.recv()).await;
            let line = line.expect("no further line is logged").expect("the program ended");
            if fits(&line) {
                return line;
            }
        }
    }

    /// The next address that it listens on.
    async fn address(&mut self) -> String {
        let message = |line: &Value| line["message"].as_str().map(str::to_owned).unwrap_or_default();
        let line = self.line(|line| message(line).contains("is listening on ")).await;
        message(&line).rsplit(' ').next().unwrap().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn metrics_on_an_address_of_their_own() {
    let login = ["--auth-username", "me", "--auth-password", "secret", "--metrics-listen", "127.0.0.1:0"];
    let mut program = Program::start(&login);
    let (server, watch) = (program.address().await, program.address().await);
    let get = |url: String| async { http_client().get(url).send().await.unwrap() };
    let metrics = get(format!("{watch}/metrics")).await;
    assert_eq!(metrics.status(), 200);
    assert!(metrics.text().await.unwrap().ends_with("# EOF\n"));
    assert_eq!(get(format!("{watch}/readyz")).await.status(), 200);
    assert_eq!(get(format!("{watch}/v1/applications")).await.status(), 404, "nothing else is there");
    assert_eq!(get(format!("{server}/metrics")).await.status(), 401);
    let inside = http_client().get(format!("{server}/metrics")).basic_auth("me", Some("secret"));
    assert_eq!(inside.send().await.unwrap().status(), 404, "they are on one address only");
}

/// Takes what is posted to `/prefix/v1/traces`.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let (sender, received) = mpsc::unbounded_channel();
    let take = |State(sender): State<mpsc::UnboundedSender<Value>>, headers: HeaderMap, body: String| async move {
        assert_eq!(headers["content-type"], "application/json");
        sender.send(serde_json::from_str(&body).unwrap()).unwrap();
        (StatusCode::OK, "{}")
    };
    let router = Router::new().route("/prefix/v1/traces", post(take)).with_state(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, received)
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().unwrap();
    &all.iter().find(|attribute| attribute["key"] == key).unwrap_or_else(|| panic!("no {key}: {span}"))["value"]
}

#[tokio::test]
async fn a_trace_goes_on_into_the_log_the_answer_and_the_collector() {
    let (collector, mut received) = collector().await;
    let endpoint = format!("http://{collector}/prefix/");
    let mut program = Program::start(&[
        "--telemetry-otlp-endpoint",
        &endpoint,
        "--telemetry-service-name",
        "push-7",
        "--telemetry-sample-one-in",
        "1000000",
    ]);
    let server = program.address().await;
    // The first request of all is sampled, the next one not, and the third as its caller says.
    for _ in 0..2 {
        http_client().get(format!("{server}/healthz")).send().await.unwrap();
    }
    let request = http_client().get(format!("{server}/v1/applications/none?secret=1"));
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let answer = request.send().await.unwrap();
    let traceparent = answer.headers()["traceparent"].to_str().unwrap().to_owned();
    let own = traceparent.strip_prefix(&format!("00-{TRACE}-")).unwrap().strip_suffix("-01").unwrap();
    assert_ne!(own, CALLER);
    let line = program.line(|line| line["path"] == "/v1/applications/none").await;
    assert_eq!(line["trace_id"], TRACE);
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let body = tokio::time::timeout(Duration::from_secs(60), received.recv()).await.unwrap().unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(attribute(&resource["resource"], "service.name")["stringValue"], "push-7");
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().clone());
    }
    let [first, span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&first["name"], &first["parentSpanId"]), (&"GET /healthz".into(), &Value::Null));
    assert_eq!((&span["traceId"], &span["spanId"]), (&TRACE.into(), &own.into()));
    assert_eq!((&span["parentSpanId"], &span["kind"]), (&CALLER.into(), &2.into()));
    assert_eq!(span["name"], "GET /v1/applications/{id}");
    assert_eq!(attribute(span, "http.response.status_code")["intValue"], "404");
    assert_eq!(attribute(span, "error.type")["stringValue"], "application_not_found");
    let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
    assert!(!span.to_string().contains("secret"));
}

#[tokio::test]
async fn without_a_collector_a_trace_goes_on_all_the_same() {
    let mut program = Program::start(&[]);
    let server = program.address().await;
    let ask =
        |header: String| http_client().get(format!("{server}/healthz")).header("traceparent", header).send();
    let answer = ask(format!("00-{TRACE}-{CALLER}-00")).await.unwrap();
    assert!(answer.headers()["traceparent"].to_str().unwrap().starts_with(&format!("00-{TRACE}-")));
    assert_eq!(program.line(|line| line["path"] == "/healthz").await["trace_id"], TRACE);
    assert!(!ask("00-nonsense".to_owned()).await.unwrap().headers().contains_key("traceparent"));
}
