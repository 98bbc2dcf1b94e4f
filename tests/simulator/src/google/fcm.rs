//! FCM HTTP v1: `POST /v1/projects/{project}/messages:send`.
//!
//! Order of the checks: access token, project, JSON, shape (by Google's discovery document), target, data
//! keys, values (colours, labels, links, headers), time to live, size.
//!
//! A token, FID or topic that starts with one of these asks for an error:
//!
//! | starts with | answer |
//! |---|---|
//! | `UNREGISTERED`, `SENDER_ID_MISMATCH`, `QUOTA_EXCEEDED`, `UNAVAILABLE`, `INTERNAL`, `INVALID_ARGUMENT`, `THIRD_PARTY_AUTH_ERROR`, `APNS_AUTH_ERROR`, `UNSPECIFIED_ERROR` | that FCM error, with `Retry-After` on 429 and 503 |
//! | `NOT_FOUND` | 404 without an FCM error code, as for a project that is gone |
//! | `HTML-404`, `HTML-502` | a page in place of JSON |
//!
//! Where Google's documents are silent: `UNSPECIFIED_ERROR` comes with 500; the size that counts is that of
//! the names and values of `data` with the texts of `notification`, and of `apns.payload` on its own.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::GoogleState;
use super::discovery::{self, member};
use super::fcm_values;
use super::json::{self, Violation};
use crate::answer::Answer;
use crate::credentials::{PROJECT_ID, PROJECT_NUMBER};
use crate::state::Verdict;

const MAX_SIZE: usize = 4096;
const MAX_TOPIC_SIZE: usize = 2048;
const MAX_TTL: f64 = 2_419_200.0;
/// Seconds that `Retry-After` names.
const RETRY_AFTER: &str = "30";
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];

/// Code, status, Google's status name, message.
type Failure = (&'static str, u16, &'static str, &'static str);

/// The errors that a target can ask for. A code that begins like another one must come before it.
const FAILURES: [Failure; 9] = [
    ("UNSPECIFIED_ERROR", 500, "UNKNOWN", "Unknown Error."),
    (
        "INVALID_ARGUMENT",
        400,
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
    ),
    ("UNREGISTERED", 404, "NOT_FOUND", "Requested entity was not found."),
    ("SENDER_ID_MISMATCH", 403, "PERMISSION_DENIED", "SenderId mismatch"),
    ("QUOTA_EXCEEDED", 429, "RESOURCE_EXHAUSTED", "Quota exceeded for the target of this message."),
    ("UNAVAILABLE", 503, "UNAVAILABLE", "The service is currently unavailable."),
    ("INTERNAL", 500, "INTERNAL", "Internal error encountered."),
    ("THIRD_PARTY_AUTH_ERROR", 401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    ("APNS_AUTH_ERROR", 401, "UNAUTHENTICATED", "Auth error from APNS"),
];

/// The project of a path, if it is a path of this service.
pub(super) fn project(path: &str) -> Option<&str> {
    let project = path.strip_prefix("/v1/projects/")?.strip_suffix("/messages:send")?;
    Some(project).filter(|project| !project.is_empty() && !project.contains('/'))
}

/// Lines for people: what targets ask for.
pub(crate) fn help() -> String {
    let codes: Vec<String> =
        FAILURES.iter().map(|(code, status, ..)| format!("  {code} ({status})\n")).collect();
    format!(
        "Tokens, FIDs and topics that start with these ask for:\n{}  NOT_FOUND (404 without an FCM code), \
         HTML-404, HTML-502 (a page in place of JSON)\n",
        codes.concat()
    )
}

/// Checks a message and answers it.
pub(super) fn send(google: &GoogleState, path: &str, headers: &HeaderMap, body: &[u8]) -> Verdict {
    if let Err(answer) = check_caller(google, project(path).unwrap_or_default(), headers) {
        return Verdict::refused(answer);
    }
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Verdict::refused(not_json(&error)),
    };
    let message = member(&request, "message");
    let target = message.and_then(target);
    let of =
        |wanted: &[&str]| target.filter(|(kind, _)| wanted.contains(kind)).map(|(_, value)| value.to_owned());
    let (token, topic) = (of(&["token", "fid"]), of(&["topic", "condition"]));
    let name = target.map(|(_, value)| value).unwrap_or_default();
    Verdict::of(token, topic, check(&request, message).map(|()| accepted(&request, name)))
}

/// Checks the access token, and that the project of a path is its own.
pub(super) fn check_caller(google: &GoogleState, project: &str, headers: &HeaderMap) -> Result<(), Answer> {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || !google.access_tokens.is_valid(token.trim()) {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie \
                       or other valid authentication credential.";
        let answer = json::error(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message, Vec::new());
        let challenge = "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"";
        return Err(answer.header("www-authenticate", challenge));
    }
    if project == PROJECT_ID || project == PROJECT_NUMBER {
        return Ok(());
    }
    let message = format!(
        "Permission 'cloudmessaging.messages.create' denied on resource \
         '//cloudresourcemanager.googleapis.com/projects/{project}' (or it may not exist)."
    );
    Err(json::error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message, Vec::new()))
}

fn not_json(error: &serde_json::Error) -> Answer {
    let message = format!("Invalid JSON payload received. {error}");
    json::error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message, Vec::new())
}

fn check(request: &Value, message: Option<&Value>) -> Result<(), Answer> {
    let violations = discovery::check("SendMessageRequest", request);
    if !violations.is_empty() {
        return Err(json::malformed(&violations));
    }
    let Some(message) = message else { return Err(refused("message", "Message is required.")) };
    check_target(message)?;
    if member(message, "android").is_some() && member(message, "androidV2").is_some() {
        return Err(refused("message", "Only one of android and android_v2 may be set."));
    }
    check_data_keys(message)?;
    fcm_values::check(message).map_err(|(field, why)| refused(&field, &why))?;
    check_ttl(message)?;
    check_size(message)
}

fn check_target(message: &Value) -> Result<(), Answer> {
    let set: Vec<&str> = TARGETS.into_iter().filter(|name| member(message, name).is_some()).collect();
    match set.as_slice() {
        [] => Err(refused("message", "Recipient of the message is not set.")),
        [name] => check_name(name, member(message, name).and_then(Value::as_str).unwrap_or_default()),
        _ => Err(refused("message", "Only one recipient of the message may be set.")),
    }
}

fn check_name(kind: &str, value: &str) -> Result<(), Answer> {
    let printable = |byte: u8| byte.is_ascii_graphic();
    match kind {
        "topic" if !fcm_values::is_topic(value) => Err(refused("message.topic", "Malformed topic name")),
        "condition" if !fcm_values::is_condition(value) => {
            Err(refused("message.condition", "Invalid condition expression"))
        }
        "token" | "fid" if value.is_empty() || !value.bytes().all(printable) => {
            Err(failure("INVALID_ARGUMENT"))
        }
        _ => Ok(()),
    }
}

fn check_data_keys(message: &Value) -> Result<(), Answer> {
    for (path, holder) in [("message", Some(message)), ("message.android", member(message, "android"))] {
        let data = holder.and_then(|holder| member(holder, "data")).and_then(Value::as_object);
        let reserved = data.into_iter().flatten().map(|(key, _)| key).find(|key| is_reserved(key));
        if let Some(key) = reserved {
            return Err(refused(&format!("{path}.data"), &format!("Invalid data payload key: {key}")));
        }
    }
    Ok(())
}

fn is_reserved(key: &str) -> bool {
    key == "from"
        || key == "message_type"
        || key.starts_with("google.")
        || key.starts_with("gcm.notification.")
}

fn check_ttl(message: &Value) -> Result<(), Answer> {
    for (name, path) in [("android", "message.android.ttl"), ("androidV2", "message.android_v2.ttl")] {
        let ttl = member(message, name).and_then(|android| member(android, "ttl")).and_then(Value::as_str);
        let seconds = ttl.and_then(discovery::duration);
        if seconds.is_some_and(|seconds| !(0.0..=MAX_TTL).contains(&seconds)) {
            return Err(refused(path, "Invalid ttl: it must be from 0 to 2419200 seconds"));
        }
    }
    Ok(())
}

fn check_size(message: &Value) -> Result<(), Answer> {
    let to_topic = member(message, "topic").or_else(|| member(message, "condition")).is_some();
    let limit = if to_topic { MAX_TOPIC_SIZE } else { MAX_SIZE };
    let common = texts(member(message, "data")) + texts(member(message, "notification"));
    let android = member(message, "android");
    let own =
        android.map_or(0, |android| texts(member(android, "data")) + texts(member(android, "notification")));
    if common.max(own) > limit {
        return Err(refused("message", "Android message is too big"));
    }
    let payload = member(message, "apns").and_then(|apns| member(apns, "payload"));
    if payload.is_some_and(|payload| payload.to_string().len() > MAX_SIZE) {
        return Err(refused("message", "APNS message is too big"));
    }
    Ok(())
}

/// Bytes of the names and text values of an object.
fn texts(object: Option<&Value>) -> usize {
    let fields = object.and_then(Value::as_object).into_iter().flatten();
    fields.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}

fn target(message: &Value) -> Option<(&'static str, &str)> {
    TARGETS.into_iter().find_map(|name| Some((name, member(message, name)?.as_str()?)))
}

/// The answer to a message that passed every check.
fn accepted(request: &Value, target: &str) -> Answer {
    if let Some(answer) = magic(target) {
        return answer;
    }
    let dry = member(request, "validateOnly").and_then(Value::as_bool).unwrap_or(false);
    let id = if dry { "fake_message_id".to_owned() } else { uuid::Uuid::new_v4().simple().to_string() };
    let name = format!("projects/{PROJECT_ID}/messages/{id}");
    Answer::json(StatusCode::OK, &serde_json::json!({ "name": name })).delivered(u32::from(!dry))
}

/// The answer that a name asks for by how it starts.
pub(super) fn magic(target: &str) -> Option<Answer> {
    if target.starts_with("HTML-404") {
        return Some(Answer::html(StatusCode::NOT_FOUND, "Not Found"));
    }
    if target.starts_with("HTML-502") {
        return Some(Answer::html(StatusCode::BAD_GATEWAY, "Server Error"));
    }
    if target.starts_with("NOT_FOUND") {
        let message = "Requested entity was not found.";
        return Some(json::error(StatusCode::NOT_FOUND, "NOT_FOUND", message, Vec::new()));
    }
    FAILURES.iter().find(|(code, ..)| target.starts_with(code)).map(|(code, ..)| failure(code))
}

/// The answer of one of [`FAILURES`].
fn failure(code: &str) -> Answer {
    let found = FAILURES.iter().find(|(known, ..)| *known == code);
    let &(code, http, status, message) =
        found.unwrap_or(&("INTERNAL", 500, "INTERNAL", "Internal error encountered."));
    let http = StatusCode::from_u16(http).unwrap_or_default();
    let answer = json::error(http, status, message, vec![json::fcm_error(code)]);
    match http {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            answer.header("retry-after", RETRY_AFTER)
        }
        _ => answer,
    }
}

/// 400 for a message that has the right shape and cannot be sent.
fn refused(field: &str, description: &str) -> Answer {
    let violation = Violation { field: field.to_owned(), description: description.to_owned() };
    let details = vec![json::fcm_error("INVALID_ARGUMENT"), json::bad_request(&[violation])];
    json::error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", description, details)
}
