//! The program itself: metrics on an address of their own, and traces, log and metrics to a collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as AnyValueKind};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics, number_data_point};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
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

    /// Asks it to stop.
    fn stop(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
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
    let metrics =
        http_client().get(format!("{watch}/metrics")).header("accept", "application/openmetrics-text");
    let metrics = metrics.send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    assert!(metrics.text().await.unwrap().ends_with("# EOF\n"));
    assert_eq!(get(format!("{watch}/readyz")).await.status(), 200);
    assert_eq!(get(format!("{watch}/v1/applications")).await.status(), 404, "nothing else is there");
    assert_eq!(get(format!("{server}/metrics")).await.status(), 401);
    let inside = http_client().get(format!("{server}/metrics")).basic_auth("me", Some("secret"));
    assert_eq!(inside.send().await.unwrap().status(), 404, "they are on one address only");
}

/// What a collector takes, as its own library reads it.
#[derive(Debug)]
enum Taken {
    Spans(ResourceSpans),
    Logs(ResourceLogs),
    Metrics(ResourceMetrics),
}

#[derive(Clone)]
struct Collector {
    taken: mpsc::UnboundedSender<Taken>,
    /// Requests that it still refuses, as it does when it is overloaded.
    busy_for: Arc<AtomicI32>,
    /// Log records that it does not take, of those in the next request for which it is not busy.
    rejects: Arc<AtomicI64>,
}

impl Collector {
    /// Returns its URL.
    async fn start(busy_for: i32, rejects: i64) -> (String, mpsc::UnboundedReceiver<Taken>) {
        let (taken, received) = mpsc::unbounded_channel();
        let (busy_for, rejects) = (Arc::new(busy_for.into()), Arc::new(rejects.into()));
        let collector = Self { taken, busy_for, rejects };
        let router = Router::new().route("/prefix/v1/{signal}", post(Self::take)).with_state(collector);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (format!("http://{address}/prefix/"), received)
    }

    async fn take(
        State(collector): State<Self>,
        Path(signal): Path<String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        if collector.busy_for.fetch_sub(1, Ordering::SeqCst) > 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response();
        }
        let mut answer = Vec::new();
        let taken: Vec<Taken> = match signal.as_str() {
            "traces" => {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                request.resource_spans.into_iter().map(Taken::Spans).collect()
            }
            "logs" => {
                let rejected_log_records = collector.rejects.swap(0, Ordering::SeqCst);
                let partial = ExportLogsPartialSuccess { rejected_log_records, ..Default::default() };
                answer = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
                let request = ExportLogsServiceRequest::decode(body).unwrap();
                request.resource_logs.into_iter().map(Taken::Logs).collect()
            }
            "metrics" => {
                let request = ExportMetricsServiceRequest::decode(body).unwrap();
                request.resource_metrics.into_iter().map(Taken::Metrics).collect()
            }
            signal => panic!("{signal}"),
        };
        taken.into_iter().for_each(|taken| collector.taken.send(taken).unwrap());
        ([("content-type", "application/x-protobuf")], answer).into_response()
    }
}

/// What was taken next.
async fn next(taken: &mut mpsc::UnboundedReceiver<Taken>) -> Taken {
    let next = tokio::time::timeout(Duration::from_secs(60), taken.recv()).await;
    next.expect("nothing further is exported").unwrap()
}

/// The value of an attribute as text.
fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
        Some(AnyValueKind::StringValue(text)) => text,
        Some(AnyValueKind::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?} in {attributes:?}"),
    }
}

#[tokio::test]
async fn a_trace_goes_on_into_the_log_the_answer_and_the_collector() {
    let (endpoint, mut taken) = Collector::start(0, 0).await;
    let mut program = Program::start(&[
        "--telemetry-otlp-endpoint",
        &endpoint,
        "--telemetry-service-name",
        "push-7",
        "--telemetry-sample-one-in",
        "1000000",
        "--telemetry-logs=false",
        "--telemetry-metrics=false",
        "--delivery-lame-duck=0s",
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
        let Taken::Spans(all) = next(&mut taken).await else { panic!("this is switched off") };
        assert_eq!(attribute(&all.resource.unwrap().attributes, "service.name"), "push-7");
        spans.extend(all.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    let [first, span] = &spans[..] else { panic!("{spans:?}") };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((first.name.as_str(), first.parent_span_id.len()), ("GET /healthz", 0));
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.span_id).as_str()), (TRACE, own));
    assert_eq!((hex(&span.parent_span_id).as_str(), span.kind()), (CALLER, SpanKind::Server));
    assert_eq!(span.name, "GET /v1/applications/{id}");
    assert_eq!(attribute(&span.attributes, "http.response.status_code"), "404");
    assert_eq!(attribute(&span.attributes, "error.type"), "application_not_found");
    assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano);
    assert_eq!(attribute(&span.attributes, "http.request.method"), "GET");
    assert_eq!(attribute(&span.attributes, "url.path"), "/v1/applications/none");
    assert_eq!(attribute(&span.attributes, "http.route"), "/v1/applications/{id}");
    assert_eq!(attribute(&span.attributes, "client.address"), "127.0.0.1");
    assert_eq!(attribute(&span.attributes, "pushlet.request_id"), line["request_id"].as_str().unwrap());
    assert!(!format!("{span:?}").contains("secret"));
    // One that still waits when the server is stopped.
    let last = http_client().get(format!("{server}/v1/applications/last"));
    last.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).send().await.unwrap();
    program.stop();
    let Taken::Spans(all) = next(&mut taken).await else { panic!("this is switched off") };
    let last = &all.scope_spans[0].spans[0];
    assert_eq!(attribute(&last.attributes, "url.path"), "/v1/applications/last");
}

#[tokio::test]
async fn the_log_goes_to_a_collector_that_is_busy_at_first() {
    let (endpoint, mut taken) = Collector::start(2, 1).await;
    let mut program = Program::start(&[
        "--telemetry-otlp-endpoint",
        &endpoint,
        "--telemetry-metrics-interval",
        "1h",
        "--telemetry-traces=false",
        "--delivery-lame-duck=0s",
    ]);
    let server = program.address().await;
    let request = http_client().get(format!("{server}/v1/applications/none"));
    request.header("traceparent", format!("00-{TRACE}-{CALLER}-00")).send().await.unwrap();
    let line = program.line(|line| line["path"] == "/v1/applications/none").await;
    let counts = async || {
        let metrics = http_client().get(format!("{server}/metrics")).send().await.unwrap().text().await;
        let value = |name: &str, text: &str| {
            let value =
                text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
            value.unwrap().parse::<u64>().unwrap()
        };
        let text = metrics.unwrap();
        (
            value("pushlet_log_records_exported_total", &text),
            value("pushlet_log_records_dropped_total", &text),
        )
    };
    let exported = async {
        while counts().await.0 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), exported).await.expect("nothing is exported");
    assert_eq!(counts().await.1, 1, "the one that it rejected");
    let last = http_client().get(format!("{server}/v1/applications/last"));
    last.header("traceparent", format!("00-{TRACE}-{CALLER}-00")).send().await.unwrap();
    program.stop();
    let (mut records, mut metrics, mut resources) = (Vec::new(), Vec::new(), Vec::new());
    let body = |record: &LogRecord| match record.body.clone().unwrap().value {
        Some(AnyValueKind::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    while metrics.is_empty() || !records.iter().any(|record| body(record) == "stopped") {
        match next(&mut taken).await {
            Taken::Logs(all) => {
                resources.extend(all.resource);
                records.extend(all.scope_logs.into_iter().flat_map(|scope| scope.log_records))
            }
            Taken::Metrics(all) => metrics.push(all),
            Taken::Spans(_) => panic!("this is switched off"),
        }
    }
    // Logged before the export began.
    assert!(records.iter().any(|record| body(record).contains("is listening on")), "{records:?}");
    let requests: Vec<_> = records.iter().filter(|record| !record.trace_id.is_empty()).collect();
    let none = |record: &&&LogRecord| attribute(&record.attributes, "path") == "/v1/applications/none";
    let [record] = requests.iter().filter(none).collect::<Vec<_>>()[..] else { panic!("{requests:?}") };
    assert_eq!(record.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), TRACE);
    assert_eq!((body(record).as_str(), record.severity_text.as_str()), ("request", "INFO"));
    assert_eq!((record.severity_number, record.time_unix_nano > 0), (9, true));
    assert_eq!(record.time_unix_nano, record.observed_time_unix_nano);
    // Every field of the line, and nothing else; what is not an attribute has a place of its own.
    let places = ["timestamp", "level", "message", "trace_id"];
    let fields = line.as_object().unwrap().iter().filter(|(name, _)| !places.contains(&name.as_str()));
    let fields: Vec<_> = fields.collect();
    for (name, value) in &fields {
        let logged = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(attribute(&record.attributes, name), logged, "{name}");
    }
    assert_eq!(record.attributes.len(), fields.len(), "{record:?} {line}");
    let identity = resources.first().map(|resource| resource.attributes.clone()).unwrap();
    assert_eq!(attribute(&identity, "service.name"), "pushlet");
    assert_eq!(attribute(&identity, "service.version"), env!("CARGO_PKG_VERSION"));
    assert!(!attribute(&identity, "service.instance.id").is_empty());
    assert!(requests.iter().any(|record| attribute(&record.attributes, "path") == "/v1/applications/last"));
    // The metrics of the end, long before the interval is over.
    let [all] = &metrics[..] else { panic!("{metrics:?}") };
    let instance = attribute(&all.resource.clone().unwrap().attributes, "service.instance.id");
    assert!(instance.ends_with("/127.0.0.1:0"), "{instance}");
    let metric = |name: &str| all.scope_metrics[0].metrics.iter().find(|metric| metric.name == name).unwrap();
    let Some(Data::Sum(sum)) = &metric("pushlet_http_requests").data else { panic!("no counter") };
    let of = |point: &&NumberDataPoint| attribute(&point.attributes, "route") == "/v1/applications/{id}";
    let point = sum.data_points.iter().find(of).unwrap();
    assert_eq!(attribute(&point.attributes, "status"), "404");
    assert_eq!(point.value, Some(number_data_point::Value::AsInt(2)));
    assert!(0 < point.start_time_unix_nano && point.start_time_unix_nano < point.time_unix_nano);
    let Some(Data::Histogram(durations)) = &metric("pushlet_http_request_duration_seconds").data else {
        panic!("no histogram")
    };
    for point in &durations.data_points {
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    }
}

#[tokio::test]
async fn without_a_collector_a_trace_goes_on_all_the_same() {
    let mut program = Program::start(&[]);
    let server = program.address().await;
    let ask = |header: String| {
        http_client().get(format!("{server}/v1/applications/none")).header("traceparent", header).send()
    };
    let answer = ask(format!("00-{TRACE}-{CALLER}-00")).await.unwrap();
    assert!(answer.headers()["traceparent"].to_str().unwrap().starts_with(&format!("00-{TRACE}-")));
    assert_eq!(program.line(|line| line["path"] == "/v1/applications/none").await["trace_id"], TRACE);
    assert!(!ask("00-nonsense".to_owned()).await.unwrap().headers().contains_key("traceparent"));
}
