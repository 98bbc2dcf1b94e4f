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
use crate::log::{self, RequestLine, RequestNotes};
use crate::response::{ErrorResponse, LoggedError};
use crate::telemetry::TraceId;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

pub use crate::log::SendRecord;

/// Routes that probes, scrapers and pages call again and again: logged at debug, unless they fail.
const ROUTINE: [&str; 6] = ["/", "/healthz", "/readyz", "/metrics", "/v1/status", "/openapi.json"];
const PAGES: [&str; 2] = ["/console", "/docs"];

/// What is logged of one request. Cheap to clone; the line is written when the last clone is dropped.
#[derive(Clone)]
pub struct RequestLog(Arc<LogEntry>);

struct LogEntry {
    head: RequestHead,
    notes: Mutex<RequestNotes>,
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

impl<S: Sync> FromRequestParts<S> for RequestLog {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let missing = || Error::internal("a route that logs is outside of the access log");
        Ok(parts.extensions.get().cloned().ok_or_else(missing)?)
    }
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        let Self { head, notes } = self;
        // Before its method is taken.
        let is_routine = head.is_routine();
        log::write(RequestLine {
            method: std::mem::take(&mut head.method),
            path: std::mem::take(&mut head.path),
            id: std::mem::replace(&mut head.id, HeaderValue::from_static("")),
            peer: head.peer,
            trace: head.trace,
            ms: u64::try_from(head.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            is_routine,
            notes: std::mem::take(notes.get_mut()),
        });
    }
}

impl RequestHead {
    /// Returns the id as text.
    pub fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn is_routine(&self) -> bool {
        let Some(route) = self.route.as_ref().map(MatchedPath::as_str) else { return false };
        let is_page = |page: &str| {
            route.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.method == Method::GET && (ROUTINE.contains(&route) || PAGES.iter().any(|page| is_page(page)))
    }
}
