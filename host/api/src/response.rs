//! The one place where a result becomes a status, a body and headers.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use pushlet_model::error::{Error, Kind};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = Error, example = json!({"error": "application_not_found", "message": "no application found for the provided application_id"}))]
pub struct ErrorBody<'a> {
    /// `snake_case`, for programs. An open set: it may be a push service's own reason.
    error: &'a str,
    /// For people.
    message: &'a str,
    /// The field of the request that is wrong; only under `/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// What else is wrong, where several fields are; only under `/v1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable = false)]
    more: Vec<MoreErrors<'a>>,
}

/// One more field of the request that is wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct MoreErrors<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
}

impl ErrorBody<'_> {
    fn text(&self) -> String {
        // Serializing a struct of texts cannot fail.
        serde_json::to_string(self).map(ended).unwrap_or_default()
    }
}

/// What the log line of a request says about its error; it is kept in the response's extensions.
#[derive(Clone)]
pub struct LoggedError {
    pub code: Cow<'static, str>,
    pub inner: Option<Box<str>>,
}

/// Returns a JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => raw_json(status, text),
        Err(failure) => error(Error::internal(failure)),
    }
}

/// Returns a response whose body is already JSON.
pub fn raw_json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], ended(body)).into_response()
}

/// Adds a line break at the end, so that each response has a line of its own in a terminal.
fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Returns the response of a route that panicked.
pub fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    error(Error::internal(format_args!("panic: {text}")))
}

/// Returns the response to an error of a classic route, which never names a field.
pub fn error(error: Error) -> Response {
    respond(error, false)
}

/// Returns the response to an error of a route under `/v1`, which names the wrong field.
pub fn error_with_field(error: Error) -> Response {
    respond(error, true)
}

fn respond(error: Error, show_field: bool) -> Response {
    let field = error.field.as_deref().filter(|_| show_field);
    let more = error.more.iter().flat_map(|more| more.iter()).filter(|_| show_field);
    let more = more.map(|other| MoreErrors {
        error: &other.code,
        message: &other.message,
        field: other.field.as_deref(),
    });
    let body = ErrorBody { error: &error.code, message: &error.message, field, more: more.collect() };
    let mut response = raw_json(status(error.kind), body.text());
    let headers = response.headers_mut();
    if error.kind == Kind::AccessDenied {
        headers
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"pushlet\", charset=\"UTF-8\""));
    }
    let must_wait = matches!(error.kind, Kind::Throttled | Kind::Overloaded);
    if let Some(wait) = error.retry_after.or(must_wait.then_some(Duration::ZERO)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    response.extensions_mut().insert(LoggedError { code: error.code, inner: error.inner });
    response
}

/// Returns the response to an error with a status that no [`Kind`] has.
pub fn with_status(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response =
        raw_json(status, ErrorBody { error: code, message, field: None, more: Vec::new() }.text());
    response.extensions_mut().insert(LoggedError { code: code.to_owned().into(), inner: None });
    response
}

/// Returns 409 with a body of its own, which holds the code and a message too.
pub fn conflict(code: &'static str, body: &impl Serialize) -> Response {
    let mut response = json(StatusCode::CONFLICT, body);
    response.extensions_mut().insert(LoggedError { code: code.into(), inner: None });
    response
}

/// The error type of handlers and extractors.
#[derive(Debug)]
pub struct ErrorResponse<const SHOW_FIELD: bool = false>(pub Error);

/// The error type of routes under `/v1`.
pub type V1Error = ErrorResponse<true>;

impl<const SHOW_FIELD: bool> From<Error> for ErrorResponse<SHOW_FIELD> {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl<const SHOW_FIELD: bool> IntoResponse for ErrorResponse<SHOW_FIELD> {
    fn into_response(self) -> Response {
        respond(self.0, SHOW_FIELD)
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::AccessDenied => StatusCode::UNAUTHORIZED,
        Kind::Forbidden | Kind::CredentialRejected => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Gone => StatusCode::GONE,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Unreachable | Kind::Provider => StatusCode::BAD_GATEWAY,
        Kind::Overloaded | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::TimedOut | Kind::ProviderTimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Rounds up, to at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
