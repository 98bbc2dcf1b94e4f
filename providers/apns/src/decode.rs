//! Responses to outcomes.

use crate::reason::{self, Meaning};
use pushlet_provider::time::{header, retry_after};
use pushlet_provider::{
    Answer, ConnectionHint, Context, CredentialFault, Disposition, Outcome, Reply, Response, Scope, Throttle,
    json, reply,
};
use serde_json::Value;

/// One outcome for the target of an exchange.
pub fn decode(context: &Context, answer: &Answer) -> Reply {
    reply::same_for_all(answer.targets.len(), outcome(&answer.response, context.now))
}

/// What one response says.
pub fn outcome(response: &Response, now: u64) -> Outcome {
    let id = ["apns-id", "apns-request-id"].iter().find_map(|name| header(response, name)).map(String::from);
    if response.status == 200 {
        return reply::delivered(id);
    }
    let body = json::body(response);
    let code = body.get("reason").and_then(Value::as_str);
    let known = code.and_then(reason::find);
    let meaning = match (response.status, known) {
        (410, _) => Some(Meaning::Dead),
        (_, Some((meaning, _))) => Some(meaning),
        (status, None) => by_status(status),
    };
    let message = match (known, code) {
        (Some((_, sentence)), _) => Some(sentence.to_string()),
        (None, Some(_)) => Some(format!("Apple answered {} for a reason of its own", response.status)),
        (None, None) => reply::excerpt(&response.body),
    };
    let timestamp = body.get("timestamp").and_then(Value::as_u64);
    let disposition = disposition(meaning, timestamp, retry_after(response, now));
    let mut outcome = Outcome { id, ..reply::failed(disposition, code, message) };
    // A connection whose token was refused stays refused ("wedged"): it must not be used again.
    if matches!(meaning, Some(Meaning::Expired | Meaning::Refused | Meaning::Closing)) {
        outcome.connection = ConnectionHint::Close;
    }
    outcome
}

fn by_status(status: u16) -> Option<Meaning> {
    match status {
        403 => Some(Meaning::Refused),
        429 => Some(Meaning::ApplicationFlooded),
        400..=499 => Some(Meaning::Wrong),
        500..=599 => Some(Meaning::Trouble),
        _ => None,
    }
}

fn disposition(meaning: Option<Meaning>, timestamp: Option<u64>, retry_after: Option<u64>) -> Disposition {
    match meaning {
        Some(Meaning::Dead) => Disposition::Unregistered(timestamp),
        Some(Meaning::Wrong) => Disposition::Rejected,
        Some(Meaning::Expired) => Disposition::CredentialRejected(CredentialFault::Expired),
        Some(Meaning::Refused) => Disposition::CredentialRejected(CredentialFault::Refused),
        Some(Meaning::TargetFlooded) => {
            Disposition::Throttled(Throttle { scope: Scope::Target, retry_after })
        }
        Some(Meaning::ApplicationFlooded) => {
            Disposition::Throttled(Throttle { scope: Scope::Application, retry_after })
        }
        Some(Meaning::Trouble | Meaning::Closing) => Disposition::Unavailable(retry_after),
        None => Disposition::Unknown,
    }
}
