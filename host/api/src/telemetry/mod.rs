//! OpenTelemetry: contexts that come with requests; spans, log records and metrics that are exported to a collector by
//! OTLP over HTTP, as binary Protobuf (opentelemetry.io/docs/specs/otlp, "Binary Protobuf Encoding").
//!
//! - [`trace_context`]: where a request is in a trace
//! - [`spans`], [`logs`], [`metrics`]: what becomes of a request, of a line of the log, and of the text of `/metrics`
//! - [`export`]: queues, batches, retries
//!
//! The export never delays a request: what the collector does not take in time is dropped and counted.

mod export;
mod logs;
mod metrics;
mod spans;
mod trace_context;

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use pushlet_settings::TelemetryConfig;

use export::{Collector, Exporter, Stop, attribute};

pub use export::ExportQueue;
pub use logs::LogRecords;
pub use spans::{Attribute, Span, Tracer};
pub use trace_context::{SpanId, TraceContext, TraceId};

/// What takes the spans and log records that are exported; None: those are not. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    pub tracer: Option<Tracer>,
    pub logs: Option<ExportQueue<LogRecord>>,
}

/// The export before it is started. Until then, its queues fill.
pub struct Exports {
    endpoint: Url,
    resource: Resource,
    spans: Option<mpsc::Receiver<Span>>,
    logs: Option<mpsc::Receiver<LogRecord>>,
    /// None: no metrics are exported.
    metrics_interval: Option<Duration>,
    telemetry: Telemetry,
}

/// The tasks that export.
pub struct RunningExports {
    tasks: JoinSet<()>,
    stop: export::StopHandle,
}

impl Telemetry {
    /// Returns None if no collector is configured. `instance`: tells this server from others of the same name.
    pub fn new(config: &TelemetryConfig, instance: &str) -> Option<(Self, Exports)> {
        let endpoint = config.otlp_endpoint.clone()?;
        let (spans, waiting_spans) = config.traces.then(ExportQueue::new).unzip();
        let (logs, waiting_logs) = config.logs.then(ExportQueue::new).unzip();
        let tracer = spans.map(|spans| Tracer::new(spans, config.sample_one_in));
        let telemetry = Self { tracer, logs };
        let identity = [
            ("service.name", config.service_name.as_str()),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance),
        ];
        let attributes =
            identity.map(|(key, value)| attribute(key, Value::StringValue(value.to_owned()))).into();
        let exports = Exports {
            endpoint,
            resource: Resource { attributes, ..Resource::default() },
            spans: waiting_spans,
            logs: waiting_logs,
            metrics_interval: config.metrics.then_some(config.metrics_interval),
            telemetry: telemetry.clone(),
        };
        Some((telemetry, exports))
    }
}

impl Exports {
    /// Starts the export. Must be called in a Tokio runtime. `metrics`: the text of `/metrics`, in the OpenMetrics
    /// format.
    pub fn start(
        self,
        client: reqwest::Client,
        metrics: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> RunningExports {
        let (handle, stop) = Stop::new();
        let collector = Collector::new(client, &self.endpoint, self.resource, stop);
        let mut tasks = JoinSet::new();
        if let (Some(spans), Some(tracer)) = (self.spans, self.telemetry.tracer) {
            tasks.spawn(Exporter::new(collector.clone(), spans, tracer.queue()).run());
        }
        if let (Some(records), Some(queue)) = (self.logs, self.telemetry.logs) {
            tasks.spawn(Exporter::new(collector.clone(), records, &queue).run());
        }
        if let Some(interval) = self.metrics_interval {
            let start = SystemTime::now();
            tasks.spawn(metrics::export(collector, interval, move || {
                let text = metrics()?;
                Some(metrics::converted(&text, start, SystemTime::now()))
            }));
        }
        RunningExports { tasks, stop: handle }
    }
}

impl RunningExports {
    /// Exports what waits, and the metrics a last time; gives up after `within`.
    pub async fn end(mut self, within: Duration) {
        drop(self.stop);
        // What is not exported by then is lost, which must not delay the end of the server.
        let _ = tokio::time::timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}
