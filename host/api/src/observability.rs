//! What the server records about every request, whatever it is for: its id, a line in the log, counters, and a span.
//! Queries, headers and bodies are never logged.

use std::borrow::Cow;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{MatchedPath, Request};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::{Either, Ready, ready};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::Service;
use uuid::{Builder, Uuid};

use crate::access_log::{RequestHead, RequestLog};
use crate::caller::Peer;
use crate::cross_site::SiteGuard;
use crate::in_flight;
use crate::response;
use crate::telemetry::{Attribute, Span, SpanId, Telemetry, TraceContext};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The label of requests that no route matches.
const NO_ROUTE: &str = "none";
/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The counters of this server, and what takes its spans. Cheap to clone.
#[derive(Clone)]
pub struct Observability {
    meters: Arc<Meters>,
    telemetry: Option<Telemetry>,
    has_metrics_listener: bool,
    started: Instant,
    /// When the server's certificate ends, in seconds since the Unix epoch; 0: it has none.
    certificate_end: Arc<AtomicI64>,
}

impl Observability {
    /// `has_metrics_listener`: `/metrics` is served on an address of its own.
    pub fn new(telemetry: Option<Telemetry>, has_metrics_listener: bool) -> Self {
        let (meters, started) = (Arc::new(Meters::new()), Instant::now());
        Self { meters, telemetry, has_metrics_listener, started, certificate_end: Arc::default() }
    }

    /// Says when the certificate that callers are shown ends, in seconds since the Unix epoch.
    pub fn set_certificate_end(&self, end: Option<i64>) {
        self.certificate_end.store(end.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns when the certificate that callers are shown ends; None: there is none.
    pub(super) fn certificate_end(&self) -> Option<i64> {
        Some(self.certificate_end.load(Ordering::Relaxed)).filter(|end| *end != 0)
    }

    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn has_metrics_listener(&self) -> bool {
        self.has_metrics_listener
    }

    /// Returns what takes spans and log records, if they are exported.
    pub(super) fn telemetry(&self) -> Option<&Telemetry> {
        self.telemetry.as_ref()
    }

    /// Returns the request's place in a trace; None: neither the caller nor this server traces.
    fn trace(&self, headers: &HeaderMap) -> Option<RequestTrace> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let incoming = match (all.next(), all.next()) {
            (Some(one), None) => one.to_str().ok().and_then(TraceContext::parse),
            _ => None,
        };
        let tracer = self.telemetry.as_ref().and_then(|telemetry| telemetry.tracer.as_ref());
        let context = match tracer {
            Some(tracer) => tracer.context(incoming),
            None => incoming?.child(),
        };
        let parent = incoming.map(|incoming| incoming.span);
        Some(RequestTrace { context, parent, start: SystemTime::now() })
    }
}

/// Counts requests. The number of routes is fixed, so the number of series is bounded.
pub(super) struct Meters {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram>,
    wrong_credentials: Family<StatusLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

impl Meters {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("pushlet");
        let requests = Family::<RequestLabels, Counter>::default();
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let durations = Family::new_with_constructor(histogram);
        registry.register("http_requests", "Requests, by route and status", requests.clone());
        let help = "Seconds from a request's head to its answer's head";
        registry.register("http_request_duration_seconds", help, durations.clone());
        let wrong_credentials = Family::<StatusLabel, Counter>::default();
        let help =
            "Requests with wrong credentials; with status 429 those from addresses with too many of them";
        // Both series exist from the start, so that Prometheus sees the first refusal as a rise.
        for status in [401, 429] {
            drop(wrong_credentials.get_or_create(&StatusLabel { status }));
        }
        registry.register("wrong_credentials", help, wrong_credentials.clone());
        Self { registry, requests, durations, wrong_credentials }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request with wrong credentials. `too_many`: its address had sent too many before.
    pub fn wrong_credentials(&self, too_many: bool) {
        let status = if too_many { 429 } else { 401 };
        self.wrong_credentials.get_or_create(&StatusLabel { status }).inc();
    }

    fn answered(&self, route: Option<&str>, status: StatusCode, duration: Duration) {
        let route = route.unwrap_or(NO_ROUTE).to_owned();
        self.durations.get_or_create(&RouteLabel { route: route.clone() }).observe(duration.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }
}

/// The record of one request until its response begins. It is counted when this is dropped, so also when the caller
/// goes away.
struct RequestRecord {
    log: RequestLog,
    trace: Option<RequestTrace>,
    status: Option<StatusCode>,
    observability: Observability,
}

/// Where the request is in a trace.
struct RequestTrace {
    context: TraceContext,
    parent: Option<SpanId>,
    start: SystemTime,
}

/// What all routes share.
pub struct RecordState {
    pub observability: Observability,
    /// None: any `Host` and any page may call.
    pub guard: Option<Arc<SiteGuard>>,
}

/// Any route: records each request, refuses what the listener or the site guard refuses, and answers where a handler
/// panicked. One layer, and no function in axum's: each of either costs every request several allocations.
#[derive(Clone)]
pub struct Recorded<S> {
    pub state: Arc<RecordState>,
    pub route: S,
}

/// A request until its response begins.
pub struct RecordedResponse<F> {
    responding: Either<Ready<Result<Response, Infallible>>, F>,
    record: RequestRecord,
}

impl<S> Service<Request> for Recorded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = RecordedResponse<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> RecordedResponse<S::Future> {
        let RecordState { observability, guard } = &*self.state;
        let record = RequestRecord::begin(observability, &request);
        let refused = in_flight::refused(&request).or_else(|| guard.as_ref()?.refuse(&request));
        let responding = match refused {
            Some(refused) => Either::Left(ready(Ok(refused))),
            None => {
                request.extensions_mut().insert(record.log.clone());
                Either::Right(self.route.call(request))
            }
        };
        RecordedResponse { responding, record }
    }
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for RecordedResponse<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // What a panic left behind in the handler is not looked at again.
        let polled = AssertUnwindSafe(|| this.responding.poll_unpin(context));
        let Ok(mut response) = match catch_unwind(polled) {
            Ok(polled) => ready!(polled),
            Err(panic) => Ok(response::panicked(&*panic)),
        };
        this.record.complete(&mut response);
        Poll::Ready(Ok(response))
    }
}

/// Returns the first 200 bytes of a path, or a few less: a letter of it is left out as a whole.
fn beginning(path: &str) -> &str {
    path.get(..path.floor_char_boundary(200)).unwrap_or_default()
}

/// Keeps shared caches from storing the response, unless its route allows it, and browsers from guessing its type.
fn keep_private(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Returns the caller's own request id, if it is short and plain.
fn incoming_id(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain)).then(|| id.clone())
}

fn new_id() -> HeaderValue {
    let id = Builder::from_random_bytes(rand::random()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("none"))
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let head = self.log.head();
        let duration = head.start.elapsed();
        let route = head.route.as_ref().map(MatchedPath::as_str);
        // nginx's status for a caller that went away.
        let gone = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
        self.observability.meters.answered(route, self.status.unwrap_or(gone), duration);
        let telemetry = self.observability.telemetry();
        let tracer = telemetry.and_then(|telemetry| telemetry.tracer.as_ref());
        if let (Some(tracer), Some(trace)) = (tracer, &self.trace) {
            tracer.ended(self.span(trace, duration));
        }
    }
}

impl RequestRecord {
    fn begin(observability: &Observability, request: &Request) -> Self {
        let trace = observability.trace(request.headers());
        let log = RequestLog::new(RequestHead {
            method: request.method().clone(),
            // Bounded, since the caller chooses it and the entry lives as long as the request.
            path: beginning(request.uri().path()).to_owned(),
            route: request.extensions().get().cloned(),
            id: incoming_id(request).unwrap_or_else(new_id),
            peer: request.extensions().get::<Arc<Peer>>().map(|peer| peer.client(request.headers())),
            trace: trace.as_ref().map(|trace| trace.context.trace),
            start: Instant::now(),
        });
        Self { log, trace, status: None, observability: observability.clone() }
    }

    /// Notes the response, and adds the headers that every response has.
    fn complete(&mut self, response: &mut Response) {
        self.status = Some(response.status());
        self.log.answered(response.status(), response.extensions_mut().remove());
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, self.log.head().id.clone());
        keep_private(headers);
        let traceparent = self.trace.as_ref().map(|trace| HeaderValue::try_from(trace.context.to_string()));
        if let Some(Ok(value)) = traceparent {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Returns the span, with the attributes of OpenTelemetry's conventions for HTTP servers.
    fn span(&self, trace: &RequestTrace, duration: Duration) -> Span {
        let head = self.log.head();
        let method = head.method.as_str();
        let mut attributes = vec![
            ("http.request.method", Attribute::Text(method.to_owned())),
            ("url.path", Attribute::Text(head.path.clone())),
            ("pushlet.request_id", Attribute::Text(head.id().to_owned())),
        ];
        let route = head.route.as_ref().map(MatchedPath::as_str);
        let (tenant, error) = self.log.tenant_and_error();
        let mut add = |name, text: Option<String>| {
            attributes.extend(text.map(|text| (name, Attribute::Text(text))));
        };
        add("client.address", head.peer.map(|peer| peer.to_string()));
        add("http.route", route.map(str::to_owned));
        add("pushlet.tenant", tenant.map(|tenant| tenant.to_string()));
        add("error.type", error.map(Cow::into_owned));
        if let Some(status) = self.status {
            attributes.push(("http.response.status_code", Attribute::Integer(status.as_u16().into())));
        }
        Span {
            context: trace.context,
            parent: trace.parent,
            name: route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            start: trace.start,
            end: trace.start + duration,
            attributes,
            failed: self.status.is_some_and(|status| status.is_server_error()),
        }
    }
}

#[cfg(test)]
#[path = "observability_tests.rs"]
mod tests;
