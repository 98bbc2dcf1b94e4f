//! The access log: one line for each request, written when everything that the request began has ended. For a send that
//! is when every target has its result, also if the caller has gone away meanwhile; for a stream, at its end.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use parking_lot::Mutex;

use crate::caller::Caller;
use crate::log::REQUESTS;
use crate::response::{ErrorResponse, LoggedError};
use crate::telemetry::TraceId;
use pushlet_gateway::tenants::KeyId;
use pushlet_gateway::{SendReport, SendTally, Status};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// Routes that probes, scrapers and pages call again and again: logged at debug, unless they fail.
const ROUTINE: [&str; 6] = ["/", "/healthz", "/readyz", "/metrics", "/v1/status", "/openapi.json"];
const PAGES: [&str; 2] = ["/console", "/docs"];

/// What is logged of one request. Cheap to clone; the line is written when the last clone is dropped.
#[derive(Clone)]
pub struct RequestLog(Arc<LogEntry>);

struct LogEntry {
    head: RequestHead,
    notes: Mutex<Notes>,
}

/// What is known of a request when it arrives.
pub struct RequestHead {
    pub method: Method,
    /// Shortened.
    pub path: String,
    pub route: Option<MatchedPath>,
    pub id: HeaderValue,
    /// The caller's address.
    pub peer: Option<IpAddr>,
    pub trace: Option<TraceId>,
    pub start: Instant,
}

/// What becomes known while the request is handled.
#[derive(Default)]
struct Notes {
    /// None: the caller went away before the response.
    status: Option<StatusCode>,
    error: Option<LoggedError>,
    tenant: Option<TenantId>,
    key: Option<KeyId>,
    send: Option<SendRecord>,
}

/// What became of a send or a stream.
pub struct SendRecord {
    /// Empty: the secret came with the request.
    pub application: String,
    /// Empty: the send was refused before its provider was known.
    pub provider: String,
    pub tally: SendTally,
    /// How a stream ended.
    pub ended: Option<&'static str>,
}

impl RequestLog {
    pub fn new(head: RequestHead) -> Self {
        Self(Arc::new(LogEntry { head, notes: Mutex::default() }))
    }

    pub fn head(&self) -> &RequestHead {
        &self.0.head
    }

    /// Notes whose request it is.
    pub fn called_by(&self, caller: &Caller) {
        let mut notes = self.0.notes.lock();
        notes.tenant = caller.tenant().map(|tenant| tenant.id.clone());
        notes.key = caller.key();
    }

    pub fn answered(&self, status: StatusCode, error: Option<LoggedError>) {
        let mut notes = self.0.notes.lock();
        notes.status = Some(status);
        notes.error = error;
    }

    pub fn sent(&self, record: SendRecord) {
        self.0.notes.lock().send = Some(record);
    }

    /// Returns the tenant and the code of the error, for the request's span.
    pub fn tenant_and_error(&self) -> (Option<TenantId>, Option<Cow<'static, str>>) {
        let notes = self.0.notes.lock();
        (notes.tenant.clone(), notes.error.as_ref().map(|error| error.code.clone()))
    }
}

impl SendRecord {
    /// Returns the record of a send that is answered as a whole.
    pub fn of(application: String, report: &Result<SendReport, Error>) -> Self {
        let Ok(report) = report else { return Self::refused(application) };
        let mut tally = SendTally::default();
        report.results.iter().for_each(|result| tally.count(result));
        Self { application, provider: report.provider.clone(), tally, ended: None }
    }

    /// Returns the record of a send that was refused for a reason that all its targets share.
    pub fn refused(application: String) -> Self {
        Self { application, provider: String::new(), tally: SendTally::default(), ended: None }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestLog {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let missing = || Error::internal("a route that logs is outside of the access log");
        Ok(parts.extensions.get().cloned().ok_or_else(missing)?)
    }
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        let notes = std::mem::take(self.notes.get_mut());
        self.head.write(&notes);
    }
}

impl RequestHead {
    /// Returns the id as text.
    pub fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn write(&self, notes: &Notes) {
        let id = self.id();
        let (method, path) = (self.method.as_str(), self.path.as_str());
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let trace_id = self.trace.map(tracing::field::display);
        let peer = self.peer.map(tracing::field::display);
        let status = notes.status.map(|status| status.as_u16());
        let tenant = notes.tenant.as_ref().map(TenantId::as_str);
        let key = notes.key.map(tracing::field::display);
        let error = notes.error.as_ref().map(|error| Cow::as_ref(&error.code));
        let cause = notes.error.as_ref().and_then(|error| error.inner.as_deref());
        let send = notes.send.as_ref();
        let named = |name: &'_ str| (!name.is_empty()).then(|| name.to_owned());
        let application = send.and_then(|send| named(&send.application));
        let provider = send.and_then(|send| named(&send.provider));
        let tally = send.map(|send| &send.tally);
        let targets = tally.map(SendTally::total);
        let tries = tally.map(SendTally::tries);
        let codes = tally.and_then(SendTally::top_codes);
        let ended = send.and_then(|send| send.ended);
        // Only statuses that occurred become fields.
        let of = |status| tally.map(|tally| tally.with(status)).filter(|count| *count > 0);
        let kind = match send {
            _ if notes.status.is_none() => "the caller went away",
            None => "request",
            Some(SendRecord { ended: None, .. }) => "send",
            Some(_) => "stream",
        };
        // A macro, since the level of an event must be a constant.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: REQUESTS, method, path, status, ms, peer, tenant, key, application, provider, targets,
                    delivered = of(Status::Delivered), unregistered = of(Status::Unregistered),
                    replaced = of(Status::Replaced), rejected = of(Status::Rejected),
                    credential_rejected = of(Status::CredentialRejected), throttled = of(Status::Throttled),
                    unavailable = of(Status::Unavailable), unknown = of(Status::Unknown),
                    failed = of(Status::Failed), valid = of(Status::Valid), duplicate = of(Status::Duplicate),
                    tries, codes, ended, request_id = id, trace_id, error, cause, "{kind}"
                )
            };
        }
        match notes.status {
            Some(status) if status.is_server_error() => line!(warn),
            Some(status) if !status.is_client_error() && self.is_routine() => line!(debug),
            _ => line!(info),
        }
    }

    fn is_routine(&self) -> bool {
        let Some(route) = self.route.as_ref().map(MatchedPath::as_str) else { return false };
        let is_page = |page: &str| {
            route.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.method == Method::GET && (ROUTINE.contains(&route) || PAGES.iter().any(|page| is_page(page)))
    }
}
