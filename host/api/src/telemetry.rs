//! Traces: contexts that come with requests, and spans that are exported to a collector by OTLP.
//!
//! The export never delays a request: what the collector does not take in time is dropped and counted.
//!
//! Contexts are those of W3C Trace Context (`traceparent`, section 3.2). Spans are sent as OTLP over HTTP in its JSON
//! form (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"): ids in hex, 64-bit integers as texts,
//! enumerations as numbers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use pushlet_settings::{Problem, TelemetryConfig};

/// Spans that wait for the export.
const QUEUE_LENGTH: usize = 4096;

/// A request that has ended.
#[derive(Debug)]
pub struct Span {
    pub context: TraceContext,
    /// The caller's span.
    pub parent: Option<SpanId>,
    pub name: String,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The server failed.
    pub failed: bool,
}

#[derive(Debug)]
pub enum Attribute {
    Text(String),
    Integer(i64),
}

/// Queues spans for the export. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<TracerInner>);

struct TracerInner {
    spans: mpsc::Sender<Span>,
    counts: Arc<SpanCounts>,
    /// One in so many requests is sampled.
    one_in: u32,
    requests: AtomicU32,
}

/// How many spans were exported and dropped.
#[derive(Debug, Default)]
pub struct SpanCounts {
    pub exported: AtomicU64,
    pub dropped: AtomicU64,
}

/// The task that exports spans.
pub struct Exporting(JoinHandle<()>);

impl Tracer {
    /// Starts the export; None: none is configured. Must be called in a Tokio runtime.
    pub fn start(
        config: &TelemetryConfig,
        client: reqwest::Client,
    ) -> Result<Option<(Self, Exporting)>, Problem> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let (spans, waiting) = mpsc::channel(QUEUE_LENGTH);
        let counts = Arc::<SpanCounts>::default();
        let exporter = Exporter::new(client, endpoint, &config.service_name, counts.clone())?;
        let task = tokio::spawn(exporter.run(waiting));
        let tracer = Self(Arc::new(TracerInner {
            spans,
            counts,
            one_in: config.sample_one_in,
            requests: AtomicU32::new(0),
        }));
        Ok(Some((tracer, Exporting(task))))
    }

    /// Returns the context of a new request. A request that continues a trace is sampled if its caller samples it.
    pub fn context(&self, incoming: Option<TraceContext>) -> TraceContext {
        match incoming {
            Some(incoming) => incoming.child(),
            None => {
                let number = self.0.requests.fetch_add(1, Ordering::Relaxed);
                TraceContext::root(number.is_multiple_of(self.0.one_in))
            }
        }
    }

    /// Queues a span for the export, if its trace is sampled.
    pub fn ended(&self, span: Span) {
        // Without waiting: a slow collector must not delay requests.
        if span.context.sampled && self.0.spans.try_send(span).is_err() {
            self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn counts(&self) -> &SpanCounts {
        &self.0.counts
    }
}

impl Exporting {
    /// Waits until the last spans are sent, at most `within`. All tracers must be dropped before.
    pub async fn ended(self, within: Duration) {
        // Spans that are not sent by then are lost, which must not delay the end of the server.
        let _ = tokio::time::timeout(within, self.0).await;
    }
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The span of this server, or of its caller in a context that came with a request.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceContext {
    /// Parses `traceparent`; None: it is not valid and must be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let ends = match bytes.get(..3)? {
            b"00-" => bytes.len() == 55,
            b"ff-" => false,
            // Later versions may append fields (W3C Trace Context, section 3.2.4).
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        if !ends || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        hex(bytes.get(..2)?)?;
        let trace = hex(bytes.get(3..35)?).filter(|trace| *trace != 0)?;
        let span = hex(bytes.get(36..52)?).filter(|span| *span != 0)?;
        let flags = hex(bytes.get(53..55)?)?;
        Some(Self { trace: TraceId(trace), span: SpanId(u64::try_from(span).ok()?), sampled: flags & 1 == 1 })
    }

    /// Returns the context of the first span of a new trace.
    pub fn root(sampled: bool) -> Self {
        let trace = TraceId(rand::random::<u128>().max(1));
        Self { trace, span: SpanId::random(), sampled }
    }

    /// Returns the context of a new span of the same trace.
    pub fn child(self) -> Self {
        Self { span: SpanId::random(), ..self }
    }
}

impl SpanId {
    fn random() -> Self {
        Self(rand::random::<u64>().max(1))
    }
}

/// Parses lower-case digits; upper-case ones are invalid in `traceparent`.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Spans in one request to the collector.
const LARGEST_BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER_TIME: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The least time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// `SPAN_KIND_SERVER` and `STATUS_CODE_ERROR`.
const SERVER: u8 = 2;
const ERROR: u8 = 2;

struct Exporter {
    client: reqwest::Client,
    url: Url,
    service: String,
    counts: Arc<SpanCounts>,
    logged_failure: Option<Instant>,
}

impl Exporter {
    /// `endpoint`: the collector's base URL, as `http://127.0.0.1:4318`.
    fn new(
        client: reqwest::Client,
        endpoint: &Url,
        service: &str,
        counts: Arc<SpanCounts>,
    ) -> Result<Self, Problem> {
        let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let url =
            url.parse().map_err(|error| Problem::new(format_args!("telemetry.otlp_endpoint: {error}")))?;
        Ok(Self { client, url, service: service.to_owned(), counts, logged_failure: None })
    }

    /// Runs until all tracers are dropped.
    async fn run(mut self, mut waiting: mpsc::Receiver<Span>) {
        let mut spans = Vec::with_capacity(LARGEST_BATCH);
        while waiting.recv_many(&mut spans, LARGEST_BATCH).await > 0 {
            let gather = async {
                while spans.len() < LARGEST_BATCH {
                    let room = LARGEST_BATCH - spans.len();
                    if waiting.recv_many(&mut spans, room).await == 0 {
                        break;
                    }
                }
            };
            // A batch that is not full is sent when the time is over.
            let _ = tokio::time::timeout(GATHER_TIME, gather).await;
            self.export(&spans).await;
            spans.clear();
        }
    }

    async fn export(&mut self, spans: &[Span]) {
        let request = self.client.post(self.url.clone()).timeout(TIMEOUT);
        let request = request.header("content-type", "application/json");
        let sent = request.body(body(&self.service, spans).to_string()).send().await;
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        match sent.and_then(reqwest::Response::error_for_status) {
            Ok(_) => {
                self.counts.exported.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => {
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                if self.logged_failure.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
                    tracing::warn!(error = %error.without_url(), "the collector does not take spans");
                    self.logged_failure = Some(Instant::now());
                }
            }
        }
    }
}

fn body(service: &str, spans: &[Span]) -> Value {
    let resource = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = resource.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "pushlet"}, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let attributes = span.attributes.iter().map(|(key, value)| match value {
        Attribute::Text(text) => json!({"key": key, "value": {"stringValue": text}}),
        Attribute::Integer(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
    });
    let mut object = json!({
        "traceId": span.context.trace.to_string(),
        "spanId": span.context.span.to_string(),
        "flags": u8::from(span.context.sampled),
        "name": span.name,
        "kind": SERVER,
        "startTimeUnixNano": nanoseconds(span.start),
        "endTimeUnixNano": nanoseconds(span.end),
        "attributes": attributes.collect::<Vec<_>>(),
        "status": {"code": if span.failed { ERROR } else { 0 }},
    });
    if let Some(parent) = span.parent {
        object["parentSpanId"] = parent.to_string().into();
    }
    object
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
