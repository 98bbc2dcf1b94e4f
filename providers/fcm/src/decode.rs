//! Responses to outcomes.

use crate::errors::{details, error_code, is_type};
use crate::multicast;
use pushlet_provider::time::retry_after;
use pushlet_provider::{
    Answer, Context, CredentialFault, Disposition, Outcome, Reply, Response, Scope, Throttle, json, reply,
};
use serde_json::Value;

/// What Google asks clients to wait after a 429 that names no time.
const QUOTA_WAIT: u64 = 60_000;

/// One outcome for the target of an exchange. `native` is the answer in the legacy shape.
pub fn decode(context: &Context, answer: &Answer, native: bool) -> Reply {
    let body = json::body(&answer.response);
    let outcome = outcome(&answer.response, &body, context.now);
    let native = match answer.targets.first() {
        Some(target) if native => multicast::answer(target, &outcome, &body, context.now),
        _ => None,
    };
    Reply { native, ..reply::same_for_all(answer.targets.len(), outcome) }
}

/// The outcome that an answer says.
pub fn outcome(response: &Response, body: &Value, now: u64) -> Outcome {
    if response.status == 200 {
        return match body.get("name").and_then(Value::as_str) {
            Some(name) => reply::delivered(Some(name.into())),
            None => reply::failed(Disposition::Unknown, None, Some("the answer names no message".into())),
        };
    }
    let wait = retry_after(response, now);
    let error = body.get("error").unwrap_or(&Value::Null);
    let code = error_code(error);
    let known = code.and_then(|code| by_code(code, error, wait));
    let disposition = known.unwrap_or_else(|| by_status(response.status, wait));
    let text = error.get("message").and_then(Value::as_str).map(String::from);
    reply::failed(disposition, code, text.or_else(|| reply::excerpt(&response.body)))
}

/// The codes that say something else than their status.
///
/// `INVALID_ARGUMENT` never counts as a dead token: anything in the message may be what is wrong.
/// `SENDER_ID_MISMATCH` does: the token belongs to another project and can never be reached from this one.
fn by_code(code: &str, error: &Value, wait: Option<u64>) -> Option<Disposition> {
    Some(match code {
        "UNREGISTERED" | "SENDER_ID_MISMATCH" => Disposition::Unregistered(None),
        // The project or the path, or FCM would have said UNREGISTERED.
        "NOT_FOUND" => Disposition::Rejected,
        "QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED" => throttled(scope(error), wait),
        "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR" => {
            Disposition::CredentialRejected(CredentialFault::Refused)
        }
        _ => return None,
    })
}

fn by_status(status: u16, wait: Option<u64>) -> Disposition {
    match status {
        401 => Disposition::CredentialRejected(CredentialFault::Expired),
        403 => Disposition::CredentialRejected(CredentialFault::Refused),
        // Without an error of its own it is not FCM that answered, and no message is to blame.
        404 => Disposition::Unavailable(wait),
        429 => throttled(Scope::Application, wait),
        400..=499 => Disposition::Rejected,
        500..=599 => Disposition::Unavailable(wait),
        _ => Disposition::Unknown,
    }
}

fn throttled(scope: Scope, wait: Option<u64>) -> Disposition {
    Disposition::Throttled(Throttle { scope, retry_after: Some(wait.unwrap_or(QUOTA_WAIT)) })
}

/// Whose quota it was: a `QuotaFailure` may name a device or a topic, else it is the project's.
fn scope(error: &Value) -> Scope {
    let failures = details(error).filter(|detail| is_type(detail, "google.rpc.QuotaFailure"));
    let violations = failures.filter_map(|detail| detail.get("violations")?.as_array()).flatten();
    let mut subjects = violations.filter_map(|violation| violation.get("subject")?.as_str());
    match subjects.any(|subject| subject.starts_with("device:") || subject.starts_with("topic:")) {
        true => Scope::Target,
        false => Scope::Application,
    }
}
