//! Legacy GCM: `POST /gcm/send` and `POST /fcm/send`, the JSON and the plain-text form.
//!
//! Every API key is accepted but those that start with `bad`.
//!
//! Magic registration ids and topics:
//!
//! | starts with | answer |
//! |---|---|
//! | an error of GCM, such as `NotRegistered` | that error, for this recipient |
//! | `Canonical-` | success, with the rest as the canonical `registration_id` |
//! | `HTTP-400`, `HTTP-401`, `HTTP-500`, `HTTP-503` | that status for the whole request, with `Retry-After` on 500 and 503 |
//!
//! The plain-text form answers 500 in place of `Unavailable` and `InternalServerError`, as documented.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::gcm_message::{self, Message, Recipients};
use crate::answer::Answer;
use crate::record::Service;
use crate::script::{Scripted, Scripts};
use crate::state::{Scripting, Verdict};

/// Errors of one recipient, as the server reference lists them.
const ERRORS: [&str; 14] = [
    "MissingRegistration",
    "InvalidRegistration",
    "NotRegistered",
    "InvalidPackageName",
    "MismatchSenderId",
    "InvalidParameters",
    "MessageTooBig",
    "InvalidDataKey",
    "InvalidTtl",
    "Unavailable",
    "InternalServerError",
    "DeviceMessageRateExceeded",
    "TopicsMessageRateExceeded",
    "InvalidApnsCredential",
];
/// Seconds that `Retry-After` names.
const RETRY_AFTER: &str = "30";

/// Lines for people: what registration ids ask for.
pub(crate) fn help() -> String {
    format!(
        "Registration ids and topics that start with these ask for:\n  {}\n  Canonical-NEWID (success with a \
         canonical id), HTTP-400, HTTP-401, HTTP-500, HTTP-503 (for the whole request)\n\
         API keys that start with `bad` are refused.\n",
        ERRORS.join(", ")
    )
}

/// Checks a message and answers it.
pub(super) fn send(scripts: &Scripts, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = text("authorization").strip_prefix("key=").unwrap_or_default();
    if key.is_empty() || key.starts_with("bad") {
        return Verdict::refused(Answer::html(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    let content_type = text("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let plain = match content_type.as_str() {
        "application/json" => false,
        "" | "application/x-www-form-urlencoded" => true,
        other => return Verdict::refused(bad_request(&format!("Content-Type must not be {other}"))),
    };
    let read = if plain { gcm_message::from_form(body) } else { gcm_message::from_json(body) };
    match read {
        Ok(message) => answer(scripts, &message, plain),
        Err(problem) => Verdict::refused(bad_request(&problem)),
    }
}

fn answer(scripts: &Scripts, message: &Message, plain: bool) -> Verdict {
    let (name, ids): (&str, &[String]) = match &message.recipients {
        Recipients::Ids(ids) => (ids.first().map(String::as_str).unwrap_or_default(), ids),
        Recipients::Topic(name) | Recipients::Group(name) => (name, &[]),
    };
    let named = if ids.is_empty() { std::slice::from_ref(&name) } else { &[] };
    let names = ids.iter().map(String::as_str).chain(named.iter().copied());
    let (token, topic) = match message.recipients {
        Recipients::Topic(_) => (None, Some(name.to_owned())),
        _ => (Some(name.to_owned()), None),
    };
    if let Some(answer) = names.clone().find_map(whole) {
        return Verdict { token, topic, scripting: Scripting::ByTarget, answer };
    }
    let (scripting, answer) = match &message.recipients {
        Recipients::Ids(ids) => {
            let (scripted, results) = results(scripts, message, ids);
            let scripting = scripted.map_or(Scripting::Never, Scripting::Taken);
            (scripting, if plain { plain_text(&results) } else { multicast(&results) })
        }
        Recipients::Topic(name) => (Scripting::ByTarget, to_topic(message, name)),
        Recipients::Group(name) => (Scripting::ByTarget, to_group(message, name)),
    };
    let answer = if message.dry_run { answer.delivered(0) } else { answer };
    Verdict { token, topic, scripting, answer }
}

/// One result for each id, and the script of the first id that has one for the whole request.
fn results(scripts: &Scripts, message: &Message, ids: &[String]) -> (Option<Scripted>, Vec<Value>) {
    let mut whole: Option<Scripted> = None;
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let mut scripted = scripts.take(Service::Gcm, Some(id), None);
        let own = scripted.as_mut().filter(|scripted| scripted.status.is_none()).and_then(|s| s.body.take());
        results.push(own.unwrap_or_else(|| result(message, id)));
        whole = whole.or(scripted);
    }
    (whole, results)
}

fn result(message: &Message, id: &str) -> Value {
    let valid = id.bytes().all(|byte| byte.is_ascii_graphic());
    let error = match message.error {
        _ if id.is_empty() => Some("MissingRegistration"),
        Some(error) => Some(error),
        None if !valid => Some("InvalidRegistration"),
        None => magic(id),
    };
    match (error, id.strip_prefix("Canonical-")) {
        (Some(error), _) => json!({ "error": error }),
        (None, Some(canonical)) => json!({"message_id": message_id(message), "registration_id": canonical}),
        (None, None) => json!({"message_id": message_id(message)}),
    }
}

fn multicast(results: &[Value]) -> Answer {
    let with = |name: &str| results.iter().filter(|result| result.get(name).is_some()).count();
    let (success, canonical) = (with("message_id"), with("registration_id"));
    let body = json!({
        "multicast_id": number(),
        "success": success,
        "failure": results.len() - success,
        "canonical_ids": canonical,
        "results": results
    });
    Answer::json(StatusCode::OK, &body).delivered(u32::try_from(success).unwrap_or(u32::MAX))
}

fn plain_text(results: &[Value]) -> Answer {
    let text = |name: &str| results.first()?.get(name)?.as_str();
    if let Some(error) = text("error") {
        return match error {
            "Unavailable" | "InternalServerError" => retry(StatusCode::INTERNAL_SERVER_ERROR),
            error => Answer::text(StatusCode::OK, format!("Error={error}\n")),
        };
    }
    let canonical = text("registration_id").map(|id| format!("registration_id={id}\n")).unwrap_or_default();
    let id = text("message_id").unwrap_or_default();
    Answer::text(StatusCode::OK, format!("id={id}\n{canonical}")).delivered(1)
}

fn to_topic(message: &Message, name: &str) -> Answer {
    match message.error.or_else(|| magic(name)) {
        Some(error) => Answer::json(StatusCode::OK, &json!({ "error": error })),
        None => Answer::json(StatusCode::OK, &json!({"message_id": number()})).delivered(1),
    }
}

fn to_group(message: &Message, name: &str) -> Answer {
    let failed = message.error.is_some() || magic(name).is_some();
    let body = match failed {
        true => json!({"success": 0, "failure": 1, "failed_registration_ids": [name]}),
        false => json!({"success": 1, "failure": 0}),
    };
    Answer::json(StatusCode::OK, &body).delivered(u32::from(!failed))
}

fn magic(name: &str) -> Option<&'static str> {
    ERRORS.into_iter().find(|error| name.starts_with(error))
}

/// The status that a recipient asks for.
fn whole(name: &str) -> Option<Answer> {
    match name.strip_prefix("HTTP-")?.get(..3)? {
        "400" => Some(bad_request("JSON_PARSING_ERROR: asked for by the recipient")),
        "401" => Some(Answer::html(StatusCode::UNAUTHORIZED, "Unauthorized")),
        "500" => Some(retry(StatusCode::INTERNAL_SERVER_ERROR)),
        "503" => Some(retry(StatusCode::SERVICE_UNAVAILABLE)),
        _ => None,
    }
}

fn retry(status: StatusCode) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    Answer::html(status, title).header("retry-after", RETRY_AFTER)
}

fn bad_request(problem: &str) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, format!("{problem}\n"))
}

fn message_id(message: &Message) -> String {
    if message.dry_run { "fake_message_id".to_owned() } else { format!("0:{}", number()) }
}

/// A number that a JavaScript client reads exactly.
fn number() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 11
}
