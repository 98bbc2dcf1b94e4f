//! Gives every request an id, counts it, ends its span, and writes one line about it to the log: never a query,
//! header or body.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use uuid::{Builder, Uuid};

use super::admission;
use super::cross_site::SiteGuard;
use super::peer::Peer;
use super::response::Logged;
use super::watch::Watch;
use crate::log::REQUESTS;
use crate::telemetry::{Attribute, Span, SpanId, TraceContext};
use pushlet_model::tenant::TenantId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The line of one request. It is written when this is dropped, so also when the caller goes away.
struct Line {
    method: Method,
    path: String,
    route: Option<MatchedPath>,
    id: HeaderValue,
    /// The caller's address.
    peer: Option<IpAddr>,
    trace: Option<Trace>,
    start: Instant,
    end: Option<End>,
    watch: Watch,
}

/// Where the request is in a trace.
struct Trace {
    context: TraceContext,
    parent: Option<SpanId>,
    start: SystemTime,
}

struct End {
    status: StatusCode,
    tenant: Option<TenantId>,
    error: Option<Logged>,
}

/// What every request passes first.
#[derive(Clone)]
pub struct Doorway {
    pub watch: Watch,
    /// None: this address may be called anything.
    pub guard: Option<Arc<SiteGuard>>,
}

pub async fn record(
    State(Doorway { watch, guard }): State<Doorway>,
    request: Request,
    next: Next,
) -> Response {
    let id = incoming(&request).unwrap_or_else(new_id);
    let mut line = Line {
        method: request.method().clone(),
        path: request.uri().path().chars().take(200).collect(),
        route: request.extensions().get().cloned(),
        id: id.clone(),
        peer: request.extensions().get::<Arc<Peer>>().map(|peer| peer.client(request.headers())),
        trace: watch.trace(request.headers()).map(Trace::begin),
        start: Instant::now(),
        end: None,
        watch,
    };
    let traceparent = line.trace.as_ref().map(|trace| trace.context.to_string());
    let refused = admission::refused(&request).or_else(|| guard.as_ref()?.refuse(&request));
    let mut response = match refused {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    line.end = Some(End {
        status: response.status(),
        tenant: response.extensions_mut().remove(),
        error: response.extensions_mut().remove(),
    });
    response.headers_mut().insert(REQUEST_ID, id);
    keep_private(response.headers_mut());
    if let Some(Ok(value)) = traceparent.map(HeaderValue::try_from) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}

/// No answer is kept by a cache that others read, or taken for a page, unless its route said otherwise.
fn keep_private(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The caller's own id, if it is short and plain.
fn incoming(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain)).then(|| id.clone())
}

fn new_id() -> HeaderValue {
    let id = Builder::from_random_bytes(rand::random()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("none"))
}

impl Drop for Line {
    fn drop(&mut self) {
        let duration = self.start.elapsed();
        self.log(duration);
        let status = self.end.as_ref().map(|end| end.status);
        let route = self.route.as_ref().map(MatchedPath::as_str);
        // As nginx counts a caller that went away.
        let gone = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
        self.watch.meters().answered(route, status.unwrap_or(gone), duration);
        if let (Some(tracer), Some(trace)) = (self.watch.tracer(), &self.trace) {
            tracer.ended(self.span(trace, duration));
        }
    }
}

impl Line {
    fn log(&self, duration: Duration) {
        let id = self.id.to_str().unwrap_or_default();
        let (method, path) = (self.method.as_str(), self.path.as_str());
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let trace_id = self.trace.as_ref().map(|trace| tracing::field::display(trace.context.trace));
        let peer = self.peer.as_ref().map(tracing::field::display);
        let Some(end) = &self.end else {
            tracing::info!(target: REQUESTS, method, path, ms, peer, request_id = id, trace_id, "the caller went away");
            return;
        };
        let status = end.status.as_u16();
        let tenant = end.tenant.as_ref().map(TenantId::as_str);
        let error = end.error.as_ref().map(|error| Cow::as_ref(&error.code));
        let cause = end.error.as_ref().and_then(|error| error.inner.as_deref());
        if end.status.is_server_error() {
            tracing::warn!(
                target: REQUESTS,
                method,
                path,
                status,
                ms,
                peer,
                tenant,
                request_id = id,
                trace_id,
                error,
                cause,
                "request"
            );
        } else {
            tracing::info!(
                target: REQUESTS,
                method,
                path,
                status,
                ms,
                peer,
                tenant,
                request_id = id,
                trace_id,
                error,
                cause,
                "request"
            );
        }
    }

    /// Named as OpenTelemetry's conventions for HTTP servers want it.
    fn span(&self, trace: &Trace, duration: Duration) -> Span {
        let method = self.method.as_str();
        let mut attributes = vec![
            ("http.request.method", Attribute::Text(method.to_owned())),
            ("url.path", Attribute::Text(self.path.clone())),
            ("pushlet.request_id", Attribute::Text(self.id.to_str().unwrap_or_default().to_owned())),
        ];
        let peer = self.peer.map(|peer| Attribute::Text(peer.to_string()));
        attributes.extend(peer.map(|peer| ("client.address", peer)));
        let route = self.route.as_ref().map(MatchedPath::as_str);
        attributes.extend(route.map(|route| ("http.route", Attribute::Text(route.to_owned()))));
        if let Some(End { status, tenant, error }) = &self.end {
            attributes.push(("http.response.status_code", Attribute::Integer(status.as_u16().into())));
            let tenant = tenant.as_ref().map(|tenant| Attribute::Text(tenant.to_string()));
            attributes.extend(tenant.map(|tenant| ("pushlet.tenant", tenant)));
            let error = error.as_ref().map(|error| Attribute::Text(error.code.clone().into_owned()));
            attributes.extend(error.map(|code| ("error.type", code)));
        }
        Span {
            context: trace.context,
            parent: trace.parent,
            name: route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            start: trace.start,
            end: trace.start + duration,
            attributes,
            failed: self.end.as_ref().is_some_and(|end| end.status.is_server_error()),
        }
    }
}

impl Trace {
    fn begin((incoming, context): (Option<TraceContext>, TraceContext)) -> Self {
        Self { context, parent: incoming.map(|incoming| incoming.span), start: SystemTime::now() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::io;
    use std::sync::{Arc, Mutex, Once};

    use axum::body::Body;
    use serde_json::Value;
    use tracing::subscriber::DefaultGuard;

    use super::super::testing::*;
    use super::super::*;
    use super::*;
    use pushlet_settings::{HiddenText, Login};

    /// What is logged on this thread.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn listen() -> (Self, DefaultGuard) {
            // While a process has one subscriber, and that for one thread alone, what any other thread logs first
            // is switched off for good, for all of them. So there is one for all, which drops everything.
            static FOR_ALL: Once = Once::new();
            FOR_ALL.call_once(|| {
                tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap()
            });
            let lines = Self::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_max_level(tracing::Level::TRACE)
                .with_writer(move || writer.clone())
                .finish();
            let listening = tracing::subscriber::set_default(subscriber);
            tracing::callsite::rebuild_interest_cache();
            (lines, listening)
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        fn read(&self) -> Vec<Value> {
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[tokio::test]
    async fn one_line_per_request_with_what_matters() {
        let (lines, _guard) = Lines::listen();
        let failing = async || {
            let error = Error::new(Kind::Unreachable, "unreachable", "no").caused_by("refused by 192.0.2.1");
            let mut response = response::error(error);
            response.extensions_mut().insert(TenantId::default_tenant());
            response
        };
        let doorway = Doorway { watch: watch(), guard: None };
        let router = Router::new()
            .route("/send_notification", axum::routing::post(failing))
            .layer(axum::middleware::from_fn_with_state(doorway, record));
        let got = post_form(&router, "/send_notification?a=1", "application_id=a&device_token=t").await;
        let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
        assert_eq!(
            (line["method"].as_str(), line["path"].as_str()),
            (Some("POST"), Some("/send_notification"))
        );
        assert_eq!((line["status"].as_u64(), line["tenant"].as_str()), (Some(502), Some("default")));
        assert_eq!(
            (line["error"].as_str(), line["cause"].as_str()),
            (Some("unreachable"), Some("refused by 192.0.2.1"))
        );
        assert_eq!(line["request_id"].as_str(), got.header("x-request-id"));
        assert!(line["ms"].is_u64());
    }

    #[tokio::test]
    async fn the_line_names_the_tenant_that_was_let_in() {
        let (lines, _guard) = Lines::listen();
        let router = open_router().0;
        post_form(&router, "/application_feedback", "application_id=a").await;
        let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
        assert_eq!((line["status"].as_u64(), line["tenant"].as_str()), (Some(404), Some("default")));
        assert_eq!(line["error"], "application_not_found");
    }

    #[tokio::test]
    async fn nothing_that_the_caller_sent_is_logged() {
        let (lines, _guard) = Lines::listen();
        let login = Some(Login { username: "PLANTED".into(), password: HiddenText::new("PLANTED".into()) });
        let callers = CallerConfig { login, ..CallerConfig::default() };
        let (router, _) = router_for(&limits(), &callers);
        for authorization in ["Basic UExBTlRFRDpQTEFOVEVE", "Basic PLANTED", "PLANTED"] {
            for (uri, content_type, body) in [
                (
                    "/send_notification?alert=PLANTED",
                    "application/x-www-form-urlencoded",
                    "gcm_api_key=PLANTED&device_token=PLANTED",
                ),
                ("/send_notification", "application/json", "{\"a\":PLANTED"),
                ("/send_notification", "PLANTED/PLANTED", "PLANTED"),
                ("/register_application", "multipart/form-data; boundary=PLANTED", "--PLANTED\r\nPLANTED"),
                ("/register_application", "application/x-www-form-urlencoded", "apns_p12_pass=PLANTED"),
                ("/application_feedback", "application/x-www-form-urlencoded", "application_id=PLANTED"),
            ] {
                let request = Request::post(uri)
                    .header("content-type", content_type)
                    .header("authorization", authorization)
                    .header("x-request-id", "PLANTED?");
                ask(&router, request.body(Body::from(body)).unwrap()).await;
            }
        }
        assert_eq!(lines.read().len(), 18);
        assert!(!lines.text().contains("PLANTED"), "{}", lines.text());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_is_logged_too() {
        let (lines, _guard) = Lines::listen();
        let (router, under_way) = open_router();
        let request = Request::post("/send_notification").body(endless_body()).unwrap();
        let asking = tokio::spawn(async move { ask(&router, request).await });
        while under_way.count() == 0 {
            tokio::task::yield_now().await;
        }
        asking.abort();
        assert!(asking.await.is_err());
        let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
        assert_eq!(line["message"], "the caller went away");
        assert!(line["request_id"].is_string());
    }
}
