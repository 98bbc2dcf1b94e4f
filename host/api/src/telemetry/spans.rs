//! Spans: one for each request whose trace is sampled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status};
use prost::Message as _;

use super::export::{ExportQueue, Exported, attribute, nanoseconds, scope};
use super::trace_context::{SpanId, TraceContext};

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

/// Decides which requests are traced, and takes their spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    spans: ExportQueue<Span>,
    /// One in so many requests is sampled.
    one_in: u32,
    requests: Arc<AtomicU32>,
}

impl Tracer {
    pub(super) fn new(spans: ExportQueue<Span>, one_in: u32) -> Self {
        Self { spans, one_in, requests: Arc::default() }
    }

    /// Returns the context of a new request. A request that continues a trace is sampled if its caller samples it.
    pub fn context(&self, incoming: Option<TraceContext>) -> TraceContext {
        match incoming {
            Some(incoming) => incoming.child(),
            None => {
                let number = self.requests.fetch_add(1, Ordering::Relaxed);
                TraceContext::root(number.is_multiple_of(self.one_in))
            }
        }
    }

    /// Queues a span for the export, if its trace is sampled.
    pub fn ended(&self, span: Span) {
        if span.context.sampled {
            self.spans.push(span);
        }
    }

    pub fn queue(&self) -> &ExportQueue<Span> {
        &self.spans
    }
}

impl Exported for Span {
    const PATH: &'static str = "v1/traces";
    const NAME: &'static str = "spans";

    fn request(resource: Resource, items: &mut Vec<Self>) -> Vec<u8> {
        let spans = items.drain(..).map(otlp::Span::from).collect();
        let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
        let all = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec()
    }

    fn rejected(response: &[u8]) -> u64 {
        let partial = ExportTraceServiceResponse::decode(response).ok().and_then(|all| all.partial_success);
        partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
    }
}

impl From<Span> for otlp::Span {
    fn from(span: Span) -> Self {
        let code = if span.failed { StatusCode::Error } else { StatusCode::Unset };
        let attributes = span.attributes.into_iter().map(|(key, value)| match value {
            Attribute::Text(text) => attribute(key, Value::StringValue(text)),
            Attribute::Integer(number) => attribute(key, Value::IntValue(number)),
        });
        Self {
            trace_id: span.context.trace.bytes().into(),
            span_id: span.context.span.bytes().into(),
            parent_span_id: span.parent.map(|parent| parent.bytes().into()).unwrap_or_default(),
            flags: span.context.sampled.into(),
            name: span.name,
            kind: SpanKind::Server.into(),
            start_time_unix_nano: nanoseconds(span.start),
            end_time_unix_nano: nanoseconds(span.end),
            attributes: attributes.collect(),
            status: Some(Status { code: code.into(), ..Status::default() }),
            ..Self::default()
        }
    }
}
