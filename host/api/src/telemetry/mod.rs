//! Traces: contexts that come with requests, and spans that go to a collector by OTLP.
//!
//! A leaf module. Spans are given away and forgotten: nobody waits for a collector, and what it does not take in
//! time is dropped and counted.

mod context;
mod export;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use pushlet_settings::{Problem, TelemetryConfig};

pub use context::{SpanId, TraceContext, TraceId};

/// Spans that wait for the collector.
const WAITING: usize = 4096;

/// Work that has ended.
#[derive(Debug)]
pub struct Span {
    pub context: TraceContext,
    /// The span that asked for it.
    pub parent: Option<SpanId>,
    pub name: String,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// This server failed.
    pub failed: bool,
}

#[derive(Debug)]
pub enum Attribute {
    Text(String),
    Integer(i64),
}

/// Takes spans to the collector. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    spans: mpsc::Sender<Span>,
    counts: Arc<Counts>,
    /// Requests for each one that is sampled.
    one_in: u32,
    requests: AtomicU32,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    pub exported: AtomicU64,
    pub dropped: AtomicU64,
}

/// The task that sends spans.
pub struct Exporting(JoinHandle<()>);

impl Tracer {
    /// None: nothing is to be exported. Must be called in a Tokio runtime.
    pub fn start(
        config: &TelemetryConfig,
        client: reqwest::Client,
    ) -> Result<Option<(Self, Exporting)>, Problem> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let (spans, waiting) = mpsc::channel(WAITING);
        let counts = Arc::<Counts>::default();
        let exporter = export::Exporter::new(client, endpoint, &config.service_name, counts.clone())?;
        let task = tokio::spawn(exporter.run(waiting));
        let tracer = Self(Arc::new(Inner {
            spans,
            counts,
            one_in: config.sample_one_in,
            requests: AtomicU32::new(0),
        }));
        Ok(Some((tracer, Exporting(task))))
    }

    /// The context of a new request; one that continues a trace does as its caller does.
    pub fn context(&self, incoming: Option<TraceContext>) -> TraceContext {
        match incoming {
            Some(incoming) => incoming.child(),
            None => {
                let number = self.0.requests.fetch_add(1, Ordering::Relaxed);
                TraceContext::root(number.is_multiple_of(self.0.one_in))
            }
        }
    }

    /// Gives a span away, if its trace is sampled.
    pub fn ended(&self, span: Span) {
        if span.context.sampled && self.0.spans.try_send(span).is_err() {
            self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Exporting {
    /// Waits until the last spans are sent, at most `within`; all tracers must be gone.
    pub async fn ended(self, within: Duration) {
        // What is not sent by then is lost, and that is all.
        let _ = tokio::time::timeout(within, self.0).await;
    }
}
