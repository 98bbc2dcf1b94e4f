//! OTLP over HTTP in its JSON form (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"): ids in hex,
//! 64-bit integers as texts, enumerations as numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use url::Url;

use super::{Attribute, Counts, Span};
use pushlet_settings::Problem;

/// Spans in one request.
const MOST: usize = 512;
/// How long the first span of a request waits for others.
const GATHER: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// One line in the log for all failures in so long.
const QUIET: Duration = Duration::from_secs(60);
/// `SPAN_KIND_SERVER` and `STATUS_CODE_ERROR`.
const SERVER: u8 = 2;
const ERROR: u8 = 2;

pub(super) struct Exporter {
    client: reqwest::Client,
    url: Url,
    service: String,
    counts: Arc<Counts>,
    complained: Option<Instant>,
}

impl Exporter {
    /// `endpoint`: the collector's base URL, as `http://127.0.0.1:4318`.
    pub fn new(
        client: reqwest::Client,
        endpoint: &Url,
        service: &str,
        counts: Arc<Counts>,
    ) -> Result<Self, Problem> {
        let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let url =
            url.parse().map_err(|error| Problem::new(format_args!("telemetry.otlp_endpoint: {error}")))?;
        Ok(Self { client, url, service: service.to_owned(), counts, complained: None })
    }

    /// Until nobody gives spans any more.
    pub async fn run(mut self, mut waiting: mpsc::Receiver<Span>) {
        let mut spans = Vec::with_capacity(MOST);
        while waiting.recv_many(&mut spans, MOST).await > 0 {
            let gather = async {
                while spans.len() < MOST {
                    let room = MOST - spans.len();
                    if waiting.recv_many(&mut spans, room).await == 0 {
                        break;
                    }
                }
            };
            // When the time is over, what there is goes.
            let _ = tokio::time::timeout(GATHER, gather).await;
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
                if self.complained.is_none_or(|at| at.elapsed() > QUIET) {
                    tracing::warn!(error = %error.without_url(), "the collector does not take spans");
                    self.complained = Some(Instant::now());
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
