//! Token endpoints (RFC 6749): requests, and responses (sections 5.1 and 5.2), which are hostile input.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::token::AuthorizeError;
use crate::files::Secret;
use pushlet_model::tenant::TenantId;

/// A form to be posted to a token endpoint.
pub struct TokenRequest {
    /// The tenant that needs the token.
    pub tenant: TenantId,
    pub url: Url,
    /// `application/x-www-form-urlencoded`; holds secrets.
    pub body: Zeroizing<String>,
    pub deadline: Instant,
    /// The URL came with an upload: only a public address may be behind it.
    pub guarded: bool,
}

/// The response of a token endpoint.
pub struct TokenResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// At most [`TokenResponse::LARGEST_BODY`] bytes.
    pub body: Secret,
}

impl TokenResponse {
    /// No token endpoint sends a larger response; the client stops reading there.
    pub const LARGEST_BODY: usize = 64 << 10;
}

/// A token endpoint that did not respond.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} ({detail})")]
pub struct TokenHttpError {
    /// The step at which it failed, for the caller. It contains no address.
    pub reason: String,
    /// For the log.
    pub detail: String,
    /// Requests to the endpoint are not allowed, so trying again does not help.
    pub forbidden: bool,
}

impl TokenHttpError {
    pub(crate) fn new(reason: &str) -> Self {
        Self { reason: reason.to_owned(), detail: String::new(), forbidden: false }
    }
}

/// Decides which token endpoints may have private addresses.
pub trait TokenTrust: Send + Sync {
    fn trusts(&self, url: &Url) -> bool;
}

/// How requests reach token endpoints. URLs come from manifests and uploads: the client must check
/// them as it checks any target that it was not configured with, and follow no redirects.
pub trait TokenClient: Send + Sync {
    fn post_form(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>>;
}

/// Parses the URL of a token endpoint: `https`, no user, no fragment.
pub(crate) fn parse_token_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let sound = url.scheme() == "https"
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    sound.then_some(url)
}

/// The fields of a form.
pub(crate) type FormFields = Vec<(&'static str, Zeroizing<String>)>;

/// Common tokens take 1 to 2 KiB.
const LONGEST_TOKEN: usize = 8 << 10;
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// RFC 6749 leaves open what a missing `expires_in` means; an hour is what services use.
const COMMON_LIFE: Duration = Duration::from_secs(3600);
const LONGEST_DESCRIPTION: usize = 200;

pub(crate) struct AccessToken {
    /// Visible ASCII.
    pub(crate) text: Zeroizing<String>,
    /// More than none, at most a day.
    pub(crate) expires_in: Duration,
}

/// Classifies a response. `form` is the request, so that no error repeats its secrets.
pub(crate) fn read_response(
    answer: Result<TokenResponse, TokenHttpError>,
    form: &FormFields,
) -> Result<AccessToken, AuthorizeError> {
    let response = answer.map_err(|TokenHttpError { reason, detail, forbidden }| match forbidden {
        true => AuthorizeError::Forbidden { reason, detail },
        false => AuthorizeError::Unavailable { reason, detail, retry_after: None },
    })?;
    if response.body.expose().len() > TokenResponse::LARGEST_BODY {
        return Err(AuthorizeError::Malformed("its answer is too large"));
    }
    match response.status {
        200..=299 => read_token(response.body.expose()),
        408 | 429 | 500..=599 => {
            let reason = format!("it answered with status {}", response.status);
            Err(AuthorizeError::unavailable(&reason, response.retry_after))
        }
        400..=499 => Err(read_refusal(response.status, response.body.expose(), form)),
        _ => Err(AuthorizeError::Malformed("its status makes no sense")),
    }
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    /// A number; some services write it as a text.
    expires_in: Option<Value>,
}

fn read_token(body: &[u8]) -> Result<AccessToken, AuthorizeError> {
    let success: TokenBody = serde_json::from_slice(body)
        .map_err(|_| AuthorizeError::Malformed("its answer is not JSON with an access_token"))?;
    let text = Zeroizing::new(success.access_token);
    if text.is_empty() || text.len() > LONGEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthorizeError::Malformed("its access_token cannot be sent in a header"));
    }
    let expires_in = match success.expires_in {
        None => COMMON_LIFE,
        Some(value) => seconds(&value).ok_or(AuthorizeError::Malformed("its expires_in makes no sense"))?,
    };
    Ok(AccessToken { text, expires_in })
}

fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    (seconds >= 1.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST_LIFE.as_secs_f64())))
}

#[derive(Deserialize)]
struct TokenErrorBody {
    error: String,
    error_description: Option<String>,
}

fn read_refusal(status: u16, body: &[u8], form: &FormFields) -> AuthorizeError {
    let failure: Option<TokenErrorBody> = serde_json::from_slice(body).ok();
    let code = failure.as_ref().map(|failure| failure.error.clone()).filter(|code| is_code(code));
    match code.as_deref() {
        // RFC 6749 section 5.2 has no word for trouble of the server; some use that of section 4.1.2.1.
        Some("temporarily_unavailable" | "server_error" | "internal_failure") => {
            AuthorizeError::unavailable("it says that it is in trouble", None)
        }
        _ => AuthorizeError::Refused {
            code: code.unwrap_or_else(|| format!("http_{status}")),
            description: failure.and_then(|failure| describe(&failure.error_description?, form)),
        },
    }
}

fn is_code(code: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=64).contains(&code.len()) && code.bytes().all(is_plain)
}

/// Returns the endpoint's message for people, unless it repeats a part of the request. It is shown to the caller:
/// bounded, and without characters that do not print or that turn the direction of the text around them.
fn describe(text: &str, form: &FormFields) -> Option<String> {
    let repeats = form.iter().any(|(name, value)| match *name {
        "assertion" => value.split('.').any(|part| text.contains(part)),
        "client_secret" => text.contains(value.as_str()),
        _ => false,
    });
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let printable = |c: char| if c.is_control() || turns(c) { ' ' } else { c };
    (!repeats).then(|| text.chars().take(LONGEST_DESCRIPTION).map(printable).collect())
}
