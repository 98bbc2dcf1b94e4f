//! The line of a request. It is collected where the request ends and written by the log's own thread, so that no push
//! waits for the formatting.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::{HeaderValue, Method, StatusCode};
use tracing::Level;

use crate::response::LoggedError;
use crate::telemetry::TraceId;
use pushlet_gateway::tenants::KeyId;
use pushlet_gateway::{SendReport, SendTally, Status};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// The target of lines about requests: each request has one, however alike they are.
pub(super) const REQUESTS: &str = "pushlet::requests";

/// What is logged of one request.
pub struct RequestLine {
    pub method: Method,
    /// Shortened.
    pub path: String,
    pub id: HeaderValue,
    /// The caller's address.
    pub peer: Option<IpAddr>,
    pub trace: Option<TraceId>,
    /// Until everything that the request began had ended.
    pub ms: u64,
    /// Probes, scrapers and pages ask for it again and again: logged at debug, unless it failed.
    pub is_routine: bool,
    pub notes: RequestNotes,
}

/// What becomes known while the request is handled.
#[derive(Default)]
pub struct RequestNotes {
    /// None: the caller went away before the response.
    pub status: Option<StatusCode>,
    pub error: Option<LoggedError>,
    pub tenant: Option<TenantId>,
    pub key: Option<KeyId>,
    pub send: Option<SendRecord>,
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

impl RequestLine {
    /// Returns true if the log, as it is set now, has lines like this one.
    pub fn is_wanted(&self) -> bool {
        match self.level() {
            Level::WARN => tracing::enabled!(target: REQUESTS, Level::WARN),
            Level::DEBUG => tracing::enabled!(target: REQUESTS, Level::DEBUG),
            _ => tracing::enabled!(target: REQUESTS, Level::INFO),
        }
    }

    /// Writes the line to the log.
    pub fn write(&self) {
        let Self { notes, ms, .. } = self;
        let id = self.id.to_str().unwrap_or_default();
        let (method, path) = (self.method.as_str(), self.path.as_str());
        let trace_id = self.trace.map(tracing::field::display);
        let peer = self.peer.map(tracing::field::display);
        let status = notes.status.map(|status| status.as_u16());
        let tenant = notes.tenant.as_ref().map(TenantId::as_str);
        let key = notes.key.map(tracing::field::display);
        let error = notes.error.as_ref().map(|error| Cow::as_ref(&error.code));
        let cause = notes.error.as_ref().and_then(|error| error.inner.as_deref());
        let send = notes.send.as_ref();
        let application = send.map(|send| send.application.as_str()).filter(|name| !name.is_empty());
        let provider = send.map(|send| send.provider.as_str()).filter(|name| !name.is_empty());
        let tally = send.map(|send| &send.tally);
        let targets = tally.map(SendTally::total);
        let tries = tally.map(SendTally::tries);
        let codes = tally.and_then(SendTally::top_codes);
        let ended = send.and_then(|send| send.ended);
        // Only statuses that occurred become fields.
        let of = |status| tally.map(|tally| tally.with(status)).filter(|count| *count > 0);
        let kind = self.kind();
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
        match self.level() {
            Level::WARN => line!(warn),
            Level::DEBUG => line!(debug),
            _ => line!(info),
        }
    }

    fn level(&self) -> Level {
        match self.notes.status {
            Some(status) if status.is_server_error() => Level::WARN,
            Some(status) if !status.is_client_error() && self.is_routine => Level::DEBUG,
            _ => Level::INFO,
        }
    }

    fn kind(&self) -> &'static str {
        match &self.notes.send {
            _ if self.notes.status.is_none() => "the caller went away",
            None => "request",
            Some(SendRecord { ended: None, .. }) => "send",
            Some(_) => "stream",
        }
    }
}
