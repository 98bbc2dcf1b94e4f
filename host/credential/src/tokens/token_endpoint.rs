//! Token endpoints (RFC 6749): requests, and responses (sections 5.1 and 5.2), which are hostile input.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Number, Value};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::token::AuthorizeError;
use crate::files::Secret;
use pushlet_model::contract::manifest::{self, BodyFormat};
use pushlet_model::tenant::TenantId;

/// A body to be posted to a token endpoint.
pub struct TokenRequest {
    /// The tenant that needs the token.
    pub tenant: TenantId,
    pub url: Url,
    pub content_type: &'static str,
    /// Holds secrets.
    pub body: Zeroizing<String>,
    /// The client's id and secret, if they are not in the body; marked sensitive.
    pub authorization: Option<HeaderValue>,
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

/// What the operator decides about token endpoints.
pub trait TokenTrust: Send + Sync {
    /// May this token endpoint have a private address?
    fn trusts(&self, url: &Url) -> bool;

    /// Returns where a token is fetched instead of at this URL, if the operator redirects its origin.
    fn redirected(&self, _url: &Url) -> Option<Url> {
        None
    }
}

/// How requests reach token endpoints. URLs come from manifests and uploads: the client must check
/// them as it checks any target that it was not configured with, and follow no redirects.
pub trait TokenClient: Send + Sync {
    fn post(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>>;
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

/// One field of a request for a token.
pub(crate) struct RequestField {
    pub(crate) name: Cow<'static, str>,
    pub(crate) value: Zeroizing<String>,
    /// No error may repeat it.
    pub(crate) is_secret: bool,
    /// In JSON it is a number.
    pub(crate) is_number: bool,
}

impl RequestField {
    pub(crate) fn new(name: &'static str, value: &str) -> Self {
        let value = Zeroizing::new(value.to_owned());
        Self { name: Cow::Borrowed(name), value, is_secret: false, is_number: false }
    }

    pub(crate) fn secret(name: &'static str, value: Zeroizing<String>) -> Self {
        Self { name: Cow::Borrowed(name), value, is_secret: true, is_number: false }
    }
}

pub(crate) type RequestFields = Vec<RequestField>;

/// How the body of a request is written, and what its answer looks like.
pub(crate) struct EndpointDialect {
    pub(crate) format: BodyFormat,
    pub(crate) authorization: Option<HeaderValue>,
    /// None: as RFC 6749 section 5 has it.
    pub(crate) answer: Option<AnswerShape>,
}

impl EndpointDialect {
    /// RFC 6749, with the client's credentials in the body.
    pub(crate) const STANDARD: Self = Self { format: BodyFormat::Form, authorization: None, answer: None };

    /// Returns the content type and the body.
    pub(crate) fn write(&self, fields: &RequestFields) -> (&'static str, Zeroizing<String>) {
        match self.format {
            BodyFormat::Form => {
                let mut body = form_urlencoded::Serializer::new(String::new());
                body.extend_pairs(fields.iter().map(|field| (&*field.name, field.value.as_str())));
                ("application/x-www-form-urlencoded", Zeroizing::new(body.finish()))
            }
            BodyFormat::Json => {
                let member = |field: &RequestField| {
                    let name = Value::from(&*field.name);
                    let number = field.is_number.then(|| serde_json::from_str::<Number>(&field.value).ok());
                    match number.flatten() {
                        Some(number) => format!("{name}:{number}"),
                        None => format!("{name}:{}", Value::from(field.value.as_str())),
                    }
                };
                let members = Zeroizing::new(fields.iter().map(member).collect::<Vec<_>>().join(","));
                ("application/json", Zeroizing::new(["{", &members, "}"].concat()))
            }
        }
    }
}

/// Where the parts of a vendor's own answer are: paths of names joined by dots.
#[derive(Clone)]
pub(crate) struct AnswerShape {
    token: String,
    expires_in: Option<String>,
    lifetime: Duration,
    success: Option<(String, String)>,
}

impl AnswerShape {
    pub(crate) fn of(request: &manifest::TokenRequest) -> Self {
        Self {
            token: request.token.clone(),
            expires_in: request.expires_in.clone(),
            lifetime: Duration::from_millis(request.lifetime),
            success: request.success.clone(),
        }
    }

    fn read(&self, body: &[u8]) -> Result<AccessToken, AuthorizeError> {
        let mut answer: Value =
            serde_json::from_slice(body).map_err(|_| AuthorizeError::Malformed("its answer is not JSON"))?;
        if let Some((path, wanted)) = &self.success {
            let found = at(&mut answer, path).map(|value| plain(value));
            if found.as_ref() != Some(wanted) {
                let code = found.filter(|code| is_code(code)).unwrap_or_else(|| "no_success".to_owned());
                return Err(AuthorizeError::Refused { code, description: None });
            }
        }
        let lifetime = match &self.expires_in {
            None => self.lifetime,
            Some(path) => match at(&mut answer, path) {
                None => self.lifetime,
                Some(value) => {
                    seconds(value).ok_or(AuthorizeError::Malformed("its lifetime makes no sense"))?
                }
            },
        };
        match at(&mut answer, &self.token).map(Value::take) {
            Some(Value::String(text)) => access_token(text, lifetime),
            _ => Err(AuthorizeError::Malformed("its answer has no token where the manifest says")),
        }
    }
}

fn at<'a>(answer: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(answer, |value, name| value.get_mut(name)).filter(|value| !value.is_null())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

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
    form: &RequestFields,
    shape: Option<&AnswerShape>,
) -> Result<AccessToken, AuthorizeError> {
    let response = answer.map_err(|TokenHttpError { reason, detail, forbidden }| match forbidden {
        true => AuthorizeError::Forbidden { reason, detail },
        false => AuthorizeError::Unavailable { reason, detail, retry_after: None },
    })?;
    if response.body.expose().len() > TokenResponse::LARGEST_BODY {
        return Err(AuthorizeError::Malformed("its answer is too large"));
    }
    match response.status {
        200..=299 => match shape {
            None => read_token(response.body.expose()),
            Some(shape) => shape.read(response.body.expose()),
        },
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
    let expires_in = match success.expires_in {
        None => COMMON_LIFE,
        Some(value) => seconds(&value).ok_or(AuthorizeError::Malformed("its expires_in makes no sense"))?,
    };
    access_token(success.access_token, expires_in)
}

fn access_token(text: String, expires_in: Duration) -> Result<AccessToken, AuthorizeError> {
    let text = Zeroizing::new(text);
    if text.is_empty() || text.len() > LONGEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthorizeError::Malformed("its access_token cannot be sent in a header"));
    }
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
    /// A text; that of some vendors is a number.
    error: Value,
    error_description: Option<String>,
}

fn read_refusal(status: u16, body: &[u8], form: &RequestFields) -> AuthorizeError {
    let failure: Option<TokenErrorBody> = serde_json::from_slice(body).ok();
    let code = failure.as_ref().and_then(|failure| match &failure.error {
        Value::String(code) => Some(code.clone()),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    });
    let code = code.filter(|code| is_code(code));
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
fn describe(text: &str, form: &RequestFields) -> Option<String> {
    let mut secrets = form.iter().filter(|field| field.is_secret);
    // A part of an assertion is a secret too.
    let repeats = secrets.any(|field| field.value.split('.').any(|part| text.contains(part)));
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let printable = |c: char| if c.is_control() || turns(c) { ' ' } else { c };
    (!repeats).then(|| text.chars().take(LONGEST_DESCRIPTION).map(printable).collect())
}
