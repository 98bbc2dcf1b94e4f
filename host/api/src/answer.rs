//! The one place where a result becomes a status, a body and headers.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use pushlet_gateway::Fate;
use pushlet_model::contract::{Disposition, Outcome, Scope};
use pushlet_model::error::{Error, Kind};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = Error, example = json!({"error": "application_not_found", "message": "no application found for the provided application_id"}))]
pub struct Told<'a> {
    /// `snake_case`, for programs. An open set: a push service's own reasons are handed on.
    error: &'a str,
    /// For people.
    message: &'a str,
    /// The field of the request that is wrong; only under `/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
}

impl Told<'_> {
    fn text(&self) -> String {
        // A struct of texts can always be written into memory.
        serde_json::to_string(self).map(ended).unwrap_or_default()
    }
}

/// What the log line of a request says about its error.
#[derive(Clone)]
pub struct Logged {
    pub code: Cow<'static, str>,
    pub inner: Option<String>,
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => raw_json(status, text),
        Err(failure) => error(Error::internal(failure)),
    }
}

/// An answer whose body is a JSON text already.
pub fn raw_json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], ended(body)).into_response()
}

/// With a line break at its end, so that terminals and logs have each answer on a line of its own.
fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The answer to an error: `{"error","message"}` and what belongs into headers.
pub fn error(error: Error) -> Response {
    let mut response = with_status(status(error.kind), &error.code, &error.message);
    let headers = response.headers_mut();
    if error.kind == Kind::AccessDenied {
        headers
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"pushlet\", charset=\"UTF-8\""));
    }
    let must_wait = matches!(error.kind, Kind::Throttled | Kind::Overloaded);
    if let Some(wait) = error.retry_after.or(must_wait.then_some(Duration::ZERO)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    response.extensions_mut().insert(Logged { code: error.code, inner: error.inner });
    response
}

/// The same with the name of the wrong field, which the classic routes never had.
pub fn error_with_field(error: Error) -> Response {
    let Some(field) = error.field.clone() else { return self::error(error) };
    let body = Told { error: &error.code, message: &error.message, field: Some(&field) };
    let body = body.text();
    let mut response = self::error(error);
    *response.body_mut() = body.into();
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// The answer to an error whose status no [`Kind`] stands for.
pub fn with_status(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = raw_json(status, Told { error: code, message, field: None }.text());
    response.extensions_mut().insert(Logged { code: code.to_owned().into(), inner: None });
    response
}

/// 409 with more to tell than a code and a message; `body` has these too.
pub fn conflict(code: &'static str, body: &impl Serialize) -> Response {
    let mut response = json(StatusCode::CONFLICT, body);
    response.extensions_mut().insert(Logged { code: code.into(), inner: None });
    response
}

/// An error as the response that it becomes: what handlers and extractors fail with.
#[derive(Debug)]
pub struct ErrorResponse(pub Error);

impl From<Error> for ErrorResponse {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        error(self.0)
    }
}

/// Is it possible that the push was delivered, so that another would be a second one?
pub fn may_have_arrived(fate: &Fate) -> bool {
    match fate {
        Fate::Settled(outcome) => matches!(
            outcome.disposition,
            Disposition::Delivered | Disposition::Replaced(_) | Disposition::Unknown
        ),
        Fate::Lost(_) => true,
        Fate::Failed(_) | Fate::Valid | Fate::Duplicate(_) => false,
    }
}

/// Was the target reached, and if not, what is to be said? `provider`: for the messages.
pub fn verdict(fate: Fate, provider: &str) -> Result<(), Error> {
    let outcome = match fate {
        Fate::Settled(outcome) => outcome,
        Fate::Failed(error) | Fate::Lost(error) => return Err(error),
        Fate::Valid => return Ok(()),
        Fate::Duplicate(_) => return Err(Error::internal("the only target is a duplicate")),
    };
    let (kind, code, text, retry_after): (_, _, Cow<'static, str>, _) = match &outcome.disposition {
        Disposition::Delivered | Disposition::Replaced(_) => return Ok(()),
        Disposition::Unregistered(None) => {
            (Kind::Gone, "unregistered", "the device token is dead".into(), None)
        }
        Disposition::Unregistered(Some(since)) => {
            let since = utc(UNIX_EPOCH.checked_add(Duration::from_millis(*since)).unwrap_or(UNIX_EPOCH));
            (Kind::Gone, "unregistered", format!("the device token is dead since {since}").into(), None)
        }
        Disposition::Rejected => (rejected(&outcome), "rejected", "the push was rejected".into(), None),
        Disposition::CredentialRejected(_) => {
            (Kind::CredentialRejected, "", "the application's credential was rejected".into(), None)
        }
        Disposition::Throttled(throttle) => {
            let whom = match throttle.scope {
                Scope::Target => "this device token",
                Scope::Application => "this application",
                Scope::Provider => "this server",
            };
            (Kind::Throttled, "throttled", format!("too many pushes for {whom}").into(), throttle.retry_after)
        }
        Disposition::Unavailable(wait) => {
            (Kind::Unavailable, "unavailable", "the service is in trouble".into(), *wait)
        }
        Disposition::Unknown => {
            let text = "the answer cannot be understood, the push may or may not have arrived";
            (Kind::TimedOut, "delivery_unknown", text.into(), None)
        }
    };
    let code = code_of(&outcome, kind, code, provider);
    let message = message_of(outcome, provider, &text);
    Err(Error::new(kind, code, message).after(retry_after.map(Duration::from_millis)))
}

/// `2012-11-27T22:24:07Z`; times outside the years 1970 to 9999 become the nearest of them.
pub fn utc(time: SystemTime) -> impl Display {
    const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(UNIX_EPOCH, UNIX_EPOCH + END_OF_9999))
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
        Kind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The vendors' words for a message that is too long, whatever status they come with.
fn rejected(outcome: &Outcome) -> Kind {
    match outcome.code.as_deref() {
        Some("PayloadTooLarge" | "MessageTooBig") => Kind::TooLarge,
        _ => Kind::Invalid,
    }
}

fn code_of(outcome: &Outcome, kind: Kind, fallback: &'static str, provider: &str) -> Cow<'static, str> {
    let vendors = outcome.code.as_deref().map(snake_case).unwrap_or_default();
    match kind {
        Kind::TimedOut => fallback.into(),
        _ if !vendors.is_empty() => vendors.into(),
        Kind::CredentialRejected => format!("invalid_{}_credentials", snake_case(provider)).into(),
        _ => fallback.into(),
    }
}

fn message_of(outcome: Outcome, provider: &str, text: &str) -> String {
    match (outcome.message, outcome.code) {
        (Some(message), _) if !message.is_empty() => message,
        (_, Some(code)) => format!("{provider}: {text}: {code}"),
        (_, None) => format!("{provider}: {text}"),
    }
}

/// `BadDeviceToken` and `BAD_DEVICE_TOKEN` → `bad_device_token`. At most 64 characters of `[a-z0-9_]`.
fn snake_case(code: &str) -> String {
    let mut output = String::new();
    let mut before = None;
    let mut rest = code.chars().take(64).peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_alphanumeric() {
            before = None;
        } else {
            let next_is_lower = rest.peek().is_some_and(char::is_ascii_lowercase);
            let starts_word = match before {
                None => true,
                Some(p) => c.is_ascii_uppercase() && (!char::is_ascii_uppercase(&p) || next_is_lower),
            };
            if starts_word && !output.is_empty() {
                output.push('_');
            }
            output.push(c.to_ascii_lowercase());
            before = Some(c);
        }
    }
    output.truncate(64);
    output
}

/// Rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
